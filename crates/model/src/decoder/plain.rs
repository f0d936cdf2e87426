//! The decoder's operations in plain tensor operations: for any device, and what the kernels are compared with.
//!
//! These are written to be read: attention has all its scores in memory, and the loss all its logits.

use super::{
    blocks::{AttentionBlock, ExpertBlock, HeadBlock},
    network::counted,
};
use burn::tensor::{Device, IndexingUpdateOp, Int, Tensor, TensorData, activation::softmax};

fn indices(values: Vec<i64>, device: &Device) -> Tensor<1, Int> {
    let len = values.len();
    Tensor::from_data(TensorData::new(values, [len]), device)
}

pub(super) fn embed(table: Tensor<2>, ids: &[u32], padding: Option<u32>) -> Tensor<2> {
    let device = table.device();
    let rows = table.select(0, indices(ids.iter().map(|&id| i64::from(id)).collect(), &device));
    let kept: Vec<f32> = ids.iter().map(|&id| if Some(id) == padding { 0.0 } else { 1.0 }).collect();
    let kept = Tensor::<2>::from_data(TensorData::new(kept, [ids.len(), 1]), &device);
    let padding = rows.clone().detach() * (kept.ones_like() - kept.clone());
    rows * kept + padding
}

pub(super) fn rms_norm(x: Tensor<2>, weight: Tensor<2>, epsilon: f32) -> Tensor<2> {
    let mean = (x.clone() * x.clone()).mean_dim(1);
    x * (mean + epsilon).sqrt().recip() * weight
}

pub(super) fn router(x: Tensor<2>, norm: Tensor<2>, gate: Tensor<2>, epsilon: f32) -> Tensor<2> {
    // Few numbers decide which experts are chosen: no matrix product, which has 10 bits of each factor where CUDA multiplies in TF32.
    let normal: Tensor<3> = rms_norm(x, norm, epsilon).unsqueeze_dim(1);
    let gate: Tensor<3> = gate.unsqueeze_dim(0);
    softmax((normal * gate).sum_dim(2).squeeze_dim(2), 1)
}

/// What the attention of all layers shares.
pub(super) struct Inputs {
    /// `[rows, 1, len, head_dim]`
    cos: Tensor<4>,
    sin: Tensor<4>,
    /// 0 where a query sees a key, the least number elsewhere: `[rows, 1, len, len]`.
    bias: Tensor<4>,
}

impl Inputs {
    pub(super) fn new(block: &AttentionBlock, device: &Device) -> Self {
        let (len, dim) = (block.batch.len, block.geometry.head_dim);
        let rows = block.batch.tokens() / len.max(1);
        let (cos, sin): (Vec<f32>, Vec<f32>) = block
            .batch
            .positions
            .iter()
            .flat_map(|&position| {
                let angles = block.rope.angles(position as usize);
                angles.clone().chain(angles)
            })
            .unzip();
        let window = block.geometry.window.unwrap_or(usize::MAX);
        let mut bias = vec![f32::MIN; rows * len * len];
        for (row, segments) in bias.chunks_mut(len * len).zip(block.batch.segments.chunks(len)) {
            for (q, (row, own)) in row.chunks_mut(len).zip(segments).enumerate() {
                for (k, (bias, segment)) in row.iter_mut().zip(segments).enumerate() {
                    if k <= q && q - k < window && segment == own && *own != 0 {
                        *bias = 0.0;
                    }
                }
            }
        }
        let make = |values, shape| Tensor::from_data(TensorData::new(values, shape), device);
        Self {
            cos: make(cos, [rows, 1, len, dim]),
            sin: make(sin, [rows, 1, len, dim]),
            bias: make(bias, [rows, 1, len, len]),
        }
    }

    fn rotate(&self, x: Tensor<4>) -> Tensor<4> {
        let half = x.dims()[3] / 2;
        let (a, b) = (x.clone().slice_dim(3, 0..half), x.clone().slice_dim(3, half..2 * half));
        x * self.cos.clone() + Tensor::cat(vec![b.neg(), a], 3) * self.sin.clone()
    }
}

pub(super) fn attention_block(
    x: Tensor<2>,
    norm: Tensor<2>,
    [query, key, value, output]: [Tensor<2>; 4],
    block: &AttentionBlock,
    inputs: &Inputs,
) -> Tensor<2> {
    let geometry = &block.geometry;
    let (len, dim) = (block.batch.len, geometry.head_dim);
    let rows = block.batch.tokens() / len.max(1);
    let normal = rms_norm(x.clone(), norm, block.epsilon);
    let project = |w: Tensor<2>, heads: usize| {
        normal.clone().matmul(w.transpose()).reshape([rows, len, heads, dim]).swap_dims(1, 2)
    };
    // A query head uses the key head of its group: [rows, kv_heads, group, len, dim], then flat.
    let spread = |t: Tensor<4>| {
        // Nothing to spread; and Burn 0.22 on wgpu gives a wrong gradient of the keys through a repetition of one.
        if geometry.heads == geometry.kv_heads {
            return t;
        }
        t.reshape([rows, geometry.kv_heads, 1, len, dim])
            .repeat_dim(2, geometry.heads / geometry.kv_heads)
            .reshape([rows, geometry.heads, len, dim])
    };
    let q = inputs.rotate(project(query, geometry.heads));
    let k = spread(inputs.rotate(project(key, geometry.kv_heads)));
    let v = spread(project(value, geometry.kv_heads));
    let scores = q.matmul(k.swap_dims(2, 3)) / (dim as f64).sqrt() + inputs.bias.clone();
    let mixed = softmax(scores, 3).matmul(v).swap_dims(1, 2).reshape([rows * len, geometry.heads * dim]);
    x + mixed.matmul(output.transpose())
}

pub(super) fn expert_block(
    x: Tensor<2>,
    probabilities: Tensor<2>,
    norm: Tensor<2>,
    [w1, w2, w3]: [Tensor<2>; 3],
    block: &ExpertBlock,
) -> Tensor<2> {
    let device = x.device();
    let [tokens, hidden] = x.dims();
    let intermediate = w1.dims()[0] / block.experts;
    let assignment = &block.assignment;
    let mut chosen = vec![0.0f32; tokens * block.experts];
    for e in 0..block.experts {
        for &t in assignment.tokens.get(assignment.range(e)).unwrap_or_default() {
            if let Some(chosen) = chosen.get_mut(t as usize * block.experts + e) {
                *chosen = 1.0;
            }
        }
    }
    let chosen = Tensor::<2>::from_data(TensorData::new(chosen, [tokens, block.experts]), &device);
    let weights = probabilities.clone() / (probabilities * chosen).sum_dim(1);
    let normal = rms_norm(x.clone(), norm, block.epsilon);
    let mut out = x;
    for e in 0..block.experts {
        let own = assignment.tokens.get(assignment.range(e)).unwrap_or_default();
        if own.is_empty() {
            continue;
        }
        let own = indices(own.iter().map(|&t| i64::from(t)).collect(), &device);
        let input = normal.clone().select(0, own.clone());
        let part = |w: &Tensor<2>, rows: usize| w.clone().slice_dim(0, e * rows..(e + 1) * rows).transpose();
        let gate = input.clone().matmul(part(&w1, intermediate));
        let up = input.matmul(part(&w3, intermediate));
        let h = burn::tensor::activation::silu(gate) * up;
        let weight = weights.clone().slice_dim(1, e..e + 1).select(0, own.clone());
        out = out.select_assign(0, own, h.matmul(part(&w2, hidden)) * weight, IndexingUpdateOp::Add);
    }
    out
}

pub(super) fn head_loss(x: Tensor<2>, weight: Tensor<2>, block: &HeadBlock) -> Tensor<1> {
    let device = x.device();
    let (rows, targets) = counted(&block.targets);
    let count = rows.len();
    let logits = x.select(0, indices(rows, &device)).matmul(weight.transpose());
    let largest = logits.clone().max_dim(1).detach();
    let lse = (logits.clone() - largest.clone()).exp().sum_dim(1).log() + largest;
    let at = logits.gather(1, indices(targets, &device).reshape([count, 1]));
    let scale = f64::from(block.options.scale);
    let cross_entropy = (lse.clone() - at).sum().mul_scalar(scale);
    let z_loss = (lse.clone() * lse).sum().mul_scalar(scale * f64::from(block.options.z_loss));
    Tensor::cat(vec![cross_entropy.clone() + z_loss.clone(), cross_entropy, z_loss], 0)
}
