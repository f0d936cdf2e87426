//! Arithmetic of training in `f32`, forward and backward, every gradient derived by hand.
//!
//! In flow rows of activations, `[tokens, features]`, and weights as `[outputs, inputs]`; out flow activations and
//! gradients of the same shapes. What a backward pass needs is saved by its forward pass, nothing of it larger than a few
//! rows of activations per token.
//!
//! Results are the same bits for any number of threads: an element of a product is one chain of multiply-adds, the unit of
//! work of attention is a row of the batch and a key head, and sums over tokens are made of parts of fixed size.

mod adamw;
mod arithmetic;
mod attention;
mod attention_block;
mod experts;
mod head;
mod muon;
mod norm;
mod packing;
mod product;
mod router;
mod rows;
mod stored;
mod sums;

pub use adamw::{AdamW, adamw_step};
pub use arithmetic::Compute;
pub use attention::{
    AttentionGeometry, AttentionInputs, AttentionScratch, Layout, attention_backward, attention_forward,
};
pub use attention_block::{
    AttentionBlockScratch, AttentionGradients, AttentionPlace, AttentionSaved, AttentionWeights,
    attention_block_backward, attention_block_forward,
};
pub use experts::{
    ExpertGradients, ExpertSaved, ExpertScratch, ExpertWeights, experts_backward, experts_forward,
};
pub use head::{HeadLoss, HeadOptions, HeadScratch, head_loss};
pub use muon::{
    COEFFICIENTS as MUON_COEFFICIENTS, ITERATIONS as MUON_ITERATIONS, Muon, MuonScratch, muon_step,
};
pub use norm::{rms_norm_backward, rms_norm_rows};
pub use product::{Operand, Product, ProductScratch};
pub use router::{Assignment, assign, router_backward, router_forward};
pub use rows::{add_rows_of, copy, fill, gather_rows, sum_into};
pub use sums::{add_to, sum_of_squares};
