//! Whole corpora from recipes, on texts made here.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod audit;
mod build;
mod layout;
mod runs;
mod support;
