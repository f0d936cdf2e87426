//! The Mixtral decoder on Burn tensors: loss and gradients, exactly as `transformers` has them.
//!
//! In flows a [`Batch`] of token ids and a [`Decoder`] (from a [`Checkpoint`](crate::Checkpoint)); out flow the [`Loss`] and
//! Burn's gradients of every [`Parameter`], under the names of the checkpoint.
//!
//! Notable choices:
//! - Activations are `[tokens, hidden]`, all rows of a batch one below the other; every parameter is a matrix, the experts
//!   of a layer stacked in one.
//! - The hot blocks are operations of their own ([`DecoderOps`]): on the CPU their bodies and hand-derived gradients are
//!   kernels, elsewhere (and where a test asks for them) plain tensor operations ([`Bodies`]).
//! - Which experts a token goes to is decided once, by the host, for the experts, the load-balancing loss and the gradient.

mod batch;
mod blocks;
mod cpu;
mod device;
mod network;
mod ops;
mod optimizer;
mod plain;
mod profile;
mod report;
mod shelf;
mod weights;

pub use batch::{Batch, BatchError, IGNORED};
pub use blackletter_kernels::train::{AdamW, Compute, Muon};
pub use burn::tensor::{Device, Gradients, Tensor, TensorData};
pub use cpu::use_threads;
pub use device::{DeviceError, Place, product_rate};
pub use network::{Bodies, Decoder, Loss, LossOptions};
pub use ops::DecoderOps;
pub use optimizer::{adamw, add_gradients, muon, sum_of_squares};
pub use profile::{BlockTime, take_profile};
pub use report::{LossError, LossReport, stored_batch_loss};
pub use weights::{Parameter, ParameterMut};
