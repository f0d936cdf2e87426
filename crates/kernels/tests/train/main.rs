//! Training kernels: values against plain `f64` loops, gradients against finite differences of those, in every
//! instruction set; the same bits for any number of threads.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::needless_range_loop)]

mod attention;
mod blocks;
mod products;
mod support;
