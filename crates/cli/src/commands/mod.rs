//! One file per command: its arguments, and a `run` that calls into a crate and prints what comes back.

pub mod completions;
pub mod man;
pub mod tokenizer;
