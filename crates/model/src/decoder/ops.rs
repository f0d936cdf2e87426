//! The decoder's operations, as an extension of Burn's backends.

use super::blocks::{AttentionBlock, ExpertBlock, HeadBlock};
use burn::backend::{Backend, backend_extension, tensor::FloatTensor};
use std::sync::Arc;

/// Operations with bodies of their own on the CPU; all tensors are `f32` matrices.
///
/// Backends that are not listed compute the same with [plain tensor operations](super::Bodies::Plain).
#[backend_extension(Flex, Autodiff)]
pub trait DecoderOps: Backend {
    /// Rows of `table` `[vocabulary, hidden]` by id: `[tokens, hidden]`. The row of the id `padding` gets no gradient, as
    /// in `transformers`.
    fn embed(table: FloatTensor<Self>, ids: Arc<[u32]>, padding: Option<u32>) -> FloatTensor<Self>;

    /// `x + attention(rms_norm(x))`: `x` is `[tokens, hidden]`, `norm` `[1, hidden]`, weights `[outputs, inputs]`.
    fn attention_block(
        x: FloatTensor<Self>,
        norm: FloatTensor<Self>,
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        output: FloatTensor<Self>,
        block: AttentionBlock,
    ) -> FloatTensor<Self>;

    /// Probabilities of the experts for each token, `[tokens, experts]`: softmax of `rms_norm(x) gateᵀ`.
    fn router(
        x: FloatTensor<Self>,
        norm: FloatTensor<Self>,
        gate: FloatTensor<Self>,
        epsilon: f32,
    ) -> FloatTensor<Self>;

    /// `x + Σ weight · expert(rms_norm(x))` over each token's experts; `probabilities` give the weights.
    ///
    /// `w1` and `w3` are `[experts × intermediate, hidden]`, `w2` `[experts × hidden, intermediate]`.
    fn expert_block(
        x: FloatTensor<Self>,
        probabilities: FloatTensor<Self>,
        norm: FloatTensor<Self>,
        w1: FloatTensor<Self>,
        w2: FloatTensor<Self>,
        w3: FloatTensor<Self>,
        block: ExpertBlock,
    ) -> FloatTensor<Self>;

    /// Root-mean-square normalisation of rows: `x` `[tokens, hidden]`, `weight` `[1, hidden]`.
    fn rms_norm(x: FloatTensor<Self>, weight: FloatTensor<Self>, epsilon: f32) -> FloatTensor<Self>;

    /// Loss of `x` `[tokens, hidden]` with the output layer `weight` `[vocabulary, hidden]`: `[3]`, the whole (which alone has
    /// a gradient), then its parts, cross-entropy and z-loss.
    fn head_loss(x: FloatTensor<Self>, weight: FloatTensor<Self>, block: HeadBlock) -> FloatTensor<Self>;
}
