//! Runs from their configuration to a model directory.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod runs;
mod steps;
mod support;
