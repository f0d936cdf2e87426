//! Stores and the streams of rows that come out of them.

// Helpers of tests are outside of test functions.
#![allow(clippy::unwrap_used)]

mod derive;
mod properties;
mod stores;
mod support;
