//! Qwen3, Qwen2, Llama and Mistral: causal language models with grouped queries and rotary embedding.

mod config;

pub use config::{Config, Rotation};
