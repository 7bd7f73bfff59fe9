//! The program from outside: its words, its exit codes, and what it leaves behind when the world is
//! against it. One binary, so that the runtime is linked once.

mod bench;
mod build;
mod bundles;
mod children;
mod decoder;
mod diff;
mod doctor;
mod fake_registry;
mod harness;
mod inspect;
mod interruption;
mod job;
mod library;
mod lm;
mod models;
mod native;
mod openvino;
mod output;
mod pages;
mod plain;
mod publish;
mod quantize;
mod registry;
mod seeded;
mod signing;
mod special;
mod speech;
mod surface;
mod surgery;
mod synth;
mod workflow;
