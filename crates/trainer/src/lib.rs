//! Training: from rows of tokens to a model directory.
//!
//! In flow a [`Decoder`](blackletter_model::decoder::Decoder) and batches; out flow a decoder that predicts better, and the
//! record of how it came to be.
//!
//! - [`step`] makes the loss and the gradients of a global batch from its micro-batches.
//! - [`optimizer`] changes the parameters, in place.
//! - [`bench`] measures both.

pub mod bench;
pub mod optimizer;
pub mod step;
