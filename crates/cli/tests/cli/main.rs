//! The command as its users meet it: arguments in, exit code, standard output and standard error out.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::type_complexity)]

mod command_line;
mod corpus;
mod dataset;
mod eval;
mod generate;
#[cfg(feature = "hub")]
mod hub;
mod provenance;
mod report;
mod serving;
#[path = "../../../trainer/tests/train/support.rs"]
mod store;
mod support;
mod trace;
mod training;
