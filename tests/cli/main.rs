//! The program from outside: its words, its exit codes, and what it leaves behind when the world is
//! against it. One binary, so that the runtime is linked once.

mod build;
mod bundles;
mod children;
mod diff;
mod doctor;
mod harness;
mod interruption;
mod lm;
mod output;
mod surface;
mod workflow;
