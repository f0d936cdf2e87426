//! One file per command: its arguments, and a `run` that calls into a crate and prints what comes back.
//!
//! [`constraint`], [`model`] and [`text`] are what several of them take.

pub mod audit;
pub mod bench;
pub mod bom;
pub mod completions;
pub mod constraint;
pub mod corpus;
pub mod dataset;
pub mod derived;
pub mod eval;
pub mod export;
pub mod export_gguf;
pub mod extract;
pub mod generate;
pub mod inspect;
pub mod loss;
pub mod man;
pub mod merge;
pub mod model;
#[cfg(feature = "hub")]
pub mod push;
pub mod quantize;
pub mod report;
pub mod score;
pub mod serve;
pub mod sign;
pub mod surgery;
pub mod text;
pub mod tokenizer;
pub mod trace;
pub mod train;
pub mod training_view;
pub mod transfer;
