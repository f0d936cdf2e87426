//! `x + attention(rms_norm(x))`, forward and backward: the projections around [attention](super::attention).
//!
//! Queries, keys and values are one product of the normalised rows; what lies between products is kept as they take it:
//! `f32`, or bf16 with [`Compute::Bf16`].

use super::{
    arithmetic::Compute,
    attention::{self, AttentionGeometry, AttentionInputs, AttentionScratch, Layout},
    norm::{norm_rows, rms_norm_backward},
    product::{Epilogue, Operand, Product, ProductScratch, Side, Strip, Write},
    stored::Stored,
};
use crate::{RopeTable, pool::SharedMut, simd::Simd};
use half::bf16;

/// What an attention block is, beside its weights.
#[derive(Clone, Copy)]
pub struct AttentionPlace<'a> {
    /// Sizes.
    pub shape: AttentionGeometry,
    /// Who sees whom.
    pub layout: Layout<'a>,
    /// Rotations.
    pub rope: &'a RopeTable,
    /// Added to the mean square of the normalisation.
    pub epsilon: f32,
}

/// Weights of an attention block.
#[derive(Clone, Copy)]
pub struct AttentionWeights<'a> {
    /// Of the normalisation, `[hidden]`.
    pub norm: &'a [f32],
    /// `[heads × head_dim, hidden]`
    pub query: &'a [f32],
    /// `[kv_heads × head_dim, hidden]`
    pub key: &'a [f32],
    /// `[kv_heads × head_dim, hidden]`
    pub value: &'a [f32],
    /// `[hidden, heads × head_dim]`
    pub output: &'a [f32],
}

/// Gradients of [`AttentionWeights`], of the same shapes; the backward pass overwrites them.
pub struct AttentionGradients<'a> {
    /// Of `norm`.
    pub norm: &'a mut [f32],
    /// Of `query`.
    pub query: &'a mut [f32],
    /// Of `key`.
    pub key: &'a mut [f32],
    /// Of `value`.
    pub value: &'a mut [f32],
    /// Of `output`.
    pub output: &'a mut [f32],
}

/// What the backward pass needs. A value can be used for another pass again.
#[derive(Clone, Default)]
pub struct AttentionSaved {
    floats: Projections<f32>,
    halves: Projections<bf16>,
    /// Logarithms of the sums of exponentials, `[tokens, heads]`.
    lse: Vec<f32>,
}

/// `[tokens, heads × head_dim]` or `[tokens, kv_heads × head_dim]`; queries and keys are not rotated.
#[derive(Clone, Default)]
struct Projections<T> {
    q: Vec<T>,
    k: Vec<T>,
    v: Vec<T>,
    mixed: Vec<T>,
}

/// Buffers that all layers reuse.
#[derive(Default)]
pub struct AttentionBlockScratch {
    floats: Rows<f32>,
    halves: Rows<bf16>,
    dnormal: Vec<f32>,
    own: AttentionScratch,
}

#[derive(Default)]
struct Rows<T> {
    normal: Vec<T>,
    dout: Vec<T>,
    dmixed: Vec<T>,
    dq: Vec<T>,
    dk: Vec<T>,
    dv: Vec<T>,
}

/// `out = base + sum`
struct Residual<'a> {
    out: SharedMut<f32>,
    base: &'a [f32],
    cols: usize,
}

impl Epilogue for Residual<'_> {
    #[inline(always)]
    unsafe fn tile<S: Simd>(&self, left: &Strip, right: &Strip, sums: *const f32, _: *const f32) {
        for r in 0..left.rows {
            let at = (left.first + r) * self.cols + right.first;
            let (out, base) = (self.out.slice(at, right.rows).as_mut_ptr(), self.base.as_ptr().add(at));
            let mut c = 0;
            while c < right.rows {
                let n = right.rows - c;
                let v = S::add(f32::load::<S>(base.add(c), n), S::load(sums.add(r * 2 * S::LANES + c)));
                f32::store::<S>(out.add(c), v, n);
                c += S::LANES;
            }
        }
    }
}

/// Writes `out = x + attention(rms_norm(x))`, both `[tokens, hidden]`; `saved` gets what the backward pass needs.
///
/// # Panics
/// When lengths do not fit.
pub fn attention_block_forward(
    run: &Product<'_>,
    place: &AttentionPlace<'_>,
    x: &[f32],
    weights: &AttentionWeights<'_>,
    out: &mut [f32],
    saved: &mut AttentionSaved,
    products: &mut ProductScratch,
    scratch: &mut AttentionBlockScratch,
) {
    let AttentionSaved { floats, halves, lse } = saved;
    let own = &mut scratch.own;
    match run.compute {
        Compute::F32 => {
            forward(run, place, x, weights, out, (floats, lse), products, &mut scratch.floats, own);
        }
        Compute::Bf16 => {
            forward(run, place, x, weights, out, (halves, lse), products, &mut scratch.halves, own);
        }
    }
}

fn forward<T: Stored>(
    run: &Product<'_>,
    place: &AttentionPlace<'_>,
    x: &[f32],
    weights: &AttentionWeights<'_>,
    out: &mut [f32],
    (saved, lse): (&mut Projections<T>, &mut Vec<f32>),
    products: &mut ProductScratch,
    rows: &mut Rows<T>,
    scratch: &mut AttentionScratch,
) {
    let (hidden, width) = (weights.norm.len(), place.shape.heads * place.shape.head_dim);
    let tokens = x.len() / hidden;
    assert!(out.len() == x.len() && x.len() == tokens * hidden);
    rows.normal.resize(x.len(), T::default());
    norm_rows(run.pool, run.isa, x, weights.norm, place.epsilon, &mut rows.normal);
    let ProductScratch { left, right, sums } = products;
    run.pack(Side::Left, &[&[Operand::stored_rows(&rows.normal, tokens, hidden)]], left);
    let parts = [weights.query, weights.key, weights.value];
    let [q, k, v] = parts.map(|w| [Operand::rows(w, w.len() / hidden, hidden)]);
    run.pack(Side::Right, &[&q, &k, &v], right);
    let targets = [&mut saved.q, &mut saved.k, &mut saved.v];
    let targets: Vec<_> = targets
        .into_iter()
        .zip(parts)
        .map(|(out, w)| {
            out.resize(tokens * (w.len() / hidden), T::default());
            (SharedMut::new(out), w.len() / hidden)
        })
        .collect();
    run.multiply(left, right, &Write { out: &targets, pieces: 3, add: false }, sums);
    saved.mixed.resize(tokens * width, T::default());
    lse.resize(tokens * place.shape.heads, 0.0);
    let inputs = AttentionInputs { q: &saved.q, k: &saved.k, v: &saved.v, rope: Some(place.rope) };
    attention::forward(run, place.shape, place.layout, inputs, &mut saved.mixed, lse, scratch);
    run.pack(Side::Left, &[&[Operand::stored_rows(&saved.mixed, tokens, width)]], left);
    run.pack(Side::Right, &[&[Operand::rows(weights.output, hidden, width)]], right);
    run.multiply(left, right, &Residual { out: SharedMut::new(out), base: x, cols: hidden }, sums);
}

/// The backward pass of [`attention_block_forward`], from `dout`: `dx = dout +` the gradient through attention, and those of the
/// weights.
///
/// # Panics
/// When lengths do not fit.
pub fn attention_block_backward(
    run: &Product<'_>,
    place: &AttentionPlace<'_>,
    x: &[f32],
    weights: &AttentionWeights<'_>,
    saved: &AttentionSaved,
    dout: &[f32],
    dx: &mut [f32],
    gradients: &mut AttentionGradients<'_>,
    products: &mut ProductScratch,
    scratch: &mut AttentionBlockScratch,
) {
    assert!(dout.len() == x.len() && dx.len() == x.len());
    let AttentionSaved { floats, halves, lse } = saved;
    let AttentionBlockScratch { floats: rows, halves: half_rows, dnormal, own } = scratch;
    dnormal.resize(x.len(), 0.0);
    match run.compute {
        Compute::F32 => {
            backward(run, place, x, weights, (floats, lse), dout, gradients, products, rows, dnormal, own);
        }
        Compute::Bf16 => {
            backward(
                run,
                place,
                x,
                weights,
                (halves, lse),
                dout,
                gradients,
                products,
                half_rows,
                dnormal,
                own,
            );
        }
    }
    let (norm, epsilon) = (weights.norm, place.epsilon);
    rms_norm_backward(run.pool, run.isa, x, norm, epsilon, dnormal, Some(dout), dx, gradients.norm);
}

fn backward<T: Stored>(
    run: &Product<'_>,
    place: &AttentionPlace<'_>,
    x: &[f32],
    weights: &AttentionWeights<'_>,
    (saved, lse): (&Projections<T>, &[f32]),
    dout: &[f32],
    gradients: &mut AttentionGradients<'_>,
    products: &mut ProductScratch,
    rows: &mut Rows<T>,
    dnormal: &mut [f32],
    scratch: &mut AttentionScratch,
) {
    let (hidden, width) = (weights.norm.len(), place.shape.heads * place.shape.head_dim);
    let tokens = x.len() / hidden;
    let ProductScratch { left, right, sums } = products;
    let dout = T::view(run, dout, &mut rows.dout);
    rows.dmixed.resize(tokens * width, T::default());
    run.pack(Side::Left, &[&[Operand::stored_rows(dout, tokens, hidden)]], left);
    run.pack(Side::Right, &[&[Operand::columns(weights.output, hidden, width)]], right);
    let out = [(SharedMut::new(&mut rows.dmixed), width)];
    run.multiply(left, right, &Write { out: &out, pieces: 1, add: false }, sums);
    run.pack(Side::Left, &[&[Operand::stored_columns(dout, tokens, hidden)]], left);
    run.pack(Side::Right, &[&[Operand::stored_columns(&saved.mixed, tokens, width)]], right);
    let out = [(SharedMut::new(gradients.output), width)];
    run.multiply(left, right, &Write { out: &out, pieces: 1, add: false }, sums);

    let Projections { q, k, v, mixed } = saved;
    for (d, x) in [(&mut rows.dq, q), (&mut rows.dk, k), (&mut rows.dv, v)] {
        d.resize(x.len(), T::default());
    }
    let inputs = AttentionInputs { q, k, v, rope: Some(place.rope) };
    let parts = [&mut rows.dq[..], &mut rows.dk[..], &mut rows.dv[..]];
    attention::backward(run, place.shape, place.layout, inputs, mixed, lse, &rows.dmixed, parts, scratch);

    rows.normal.resize(x.len(), T::default());
    norm_rows(run.pool, run.isa, x, weights.norm, place.epsilon, &mut rows.normal);
    let projections = [weights.query, weights.key, weights.value];
    let d = [&rows.dq, &rows.dk, &rows.dv];
    let [dq, dk, dv] = d.map(|d| [Operand::stored_columns(d, tokens, d.len() / tokens)]);
    run.pack(Side::Left, &[&dq, &dk, &dv], left);
    run.pack(Side::Right, &[&[Operand::stored_columns(&rows.normal, tokens, hidden)]], right);
    let out = [&mut *gradients.query, &mut *gradients.key, &mut *gradients.value]
        .map(|dw| (SharedMut::new(dw), hidden));
    run.multiply(left, right, &Write { out: &out, pieces: 1, add: false }, sums);
    run.pack(Side::Left, &[&d.map(|d| Operand::stored_rows(d, tokens, d.len() / tokens))], left);
    run.pack(Side::Right, &[&projections.map(|w| Operand::columns(w, w.len() / hidden, hidden))], right);
    let out = [(SharedMut::new(dnormal), hidden)];
    run.multiply(left, right, &Write { out: &out, pieces: 1, add: false }, sums);
}
