//! Sparse experts: each one's tokens are multiplied with its SwiGLU weights (Shazeer 2020), forward and backward.
//!
//! The activation and its gradient are made in the epilogue of the products before them, while their inputs are in the
//! cache. What lies between products is kept as they take it: `f32`, or bf16 with [`Compute::Bf16`].

use super::{
    arithmetic::Compute,
    norm::{norm_rows, rms_norm_backward},
    product::{Epilogue, Operand, Product, ProductScratch, Scatter, Side, Strip, Write},
    router::Assignment,
    rows::fill,
    stored::Stored,
};
use crate::{pool::SharedMut, simd::Simd};
use half::bf16;

/// Weights of the experts of one layer, and of the normalisation before them.
#[derive(Clone, Copy)]
pub struct ExpertWeights<'a> {
    /// `[hidden]`
    pub norm: &'a [f32],
    /// Added to the mean square.
    pub epsilon: f32,
    /// Gates, `[experts, intermediate, hidden]`.
    pub w1: &'a [f32],
    /// Back to the hidden size, `[experts, hidden, intermediate]`.
    pub w2: &'a [f32],
    /// Factors of the gates, `[experts, intermediate, hidden]`.
    pub w3: &'a [f32],
    /// Number of experts.
    pub experts: usize,
}

/// Gradients of [`ExpertWeights`], of the same shapes; the backward pass overwrites them.
pub struct ExpertGradients<'a> {
    /// Of `norm`.
    pub norm: &'a mut [f32],
    /// Of `w1`.
    pub w1: &'a mut [f32],
    /// Of `w2`.
    pub w2: &'a mut [f32],
    /// Of `w3`.
    pub w3: &'a mut [f32],
}

/// What the backward pass needs: both projections of every chosen token. A value can be used for another pass again.
#[derive(Clone, Default)]
pub struct ExpertSaved {
    floats: Projections<f32>,
    halves: Projections<bf16>,
}

#[derive(Clone, Default)]
struct Projections<T> {
    /// `x w1ᵀ`, `[tokens × top_k, intermediate]` in the order of the assignment.
    gate: Vec<T>,
    /// `x w3ᵀ`, likewise.
    up: Vec<T>,
}

/// Buffers that all layers reuse.
#[derive(Default)]
pub struct ExpertScratch {
    floats: Rows<f32>,
    halves: Rows<bf16>,
    dnormal: Vec<f32>,
    weights: Vec<f32>,
    /// Parts of the gradients of weights, `[rows, panels]`.
    parts: Vec<f32>,
}

#[derive(Default)]
struct Rows<T> {
    /// `[tokens, hidden]`
    normal: Vec<T>,
    dout: Vec<T>,
    /// `[rows of an expert, intermediate]`
    h: Vec<T>,
    dgate: Vec<T>,
    dup: Vec<T>,
}

impl ExpertWeights<'_> {
    /// `(hidden, intermediate)`
    fn sizes(&self) -> (usize, usize) {
        let hidden = self.norm.len();
        let intermediate = self.w1.len() / (hidden * self.experts);
        assert_eq!(self.w1.len(), self.experts * intermediate * hidden);
        assert!(self.w2.len() == self.w1.len() && self.w3.len() == self.w1.len());
        (hidden, intermediate)
    }

    /// `w1`, `w2`, `w3` of one expert.
    fn expert(&self, e: usize) -> [&[f32]; 3] {
        let size = self.w1.len() / self.experts;
        [self.w1, self.w2, self.w3].map(|w| &w[e * size..(e + 1) * size])
    }
}

#[inline(always)]
unsafe fn sigmoid<S: Simd>(x: S::F) -> S::F {
    let one = S::splat(1.0);
    S::div(one, S::add(one, S::exp(S::sub(S::splat(0.0), x))))
}

/// Keeps `gate` and `up`, and makes `h = silu(gate) · up`; all are `[rows, cols]`.
struct Gated<T> {
    gate: SharedMut<T>,
    up: SharedMut<T>,
    h: SharedMut<T>,
    cols: usize,
}

impl<T: Stored> Epilogue for Gated<T> {
    #[inline(always)]
    unsafe fn tile<S: Simd>(&self, left: &Strip, right: &Strip, sums: *const f32, second: *const f32) {
        for r in 0..left.rows {
            let at = (left.first + r) * self.cols + right.first;
            let [gate, up, h] = [self.gate, self.up, self.h].map(|x| x.slice(at, right.rows).as_mut_ptr());
            let mut c = 0;
            while c < right.rows {
                let n = right.rows - c;
                let g = S::load(sums.add(r * 2 * S::LANES + c));
                let u = S::load(second.add(r * 2 * S::LANES + c));
                T::store::<S>(gate.add(c), g, n);
                T::store::<S>(up.add(c), u, n);
                T::store::<S>(h.add(c), S::mul(S::mul(g, sigmoid::<S>(g)), u), n);
                c += S::LANES;
            }
        }
    }
}

/// The backward pass of the activation from the gradient `dh` of an expert's (not yet weighted) `h`.
///
/// With `σ = sigmoid(gate)` and `d = weight · dh`: `dgate = d · up · σ (1 + gate (1 − σ))`, `dup = d · gate σ`; `h` is made
/// again, times the weight; `parts` get `Σ h dh` over the columns of a panel, which add up to the gradient of the weight.
struct Ungated<'a, T> {
    gate: &'a [T],
    up: &'a [T],
    weight: &'a [f32],
    h: SharedMut<T>,
    dgate: SharedMut<T>,
    dup: SharedMut<T>,
    cols: usize,
    parts: SharedMut<f32>,
    panels: usize,
}

impl<T: Stored> Epilogue for Ungated<'_, T> {
    #[inline(always)]
    unsafe fn tile<S: Simd>(&self, left: &Strip, right: &Strip, sums: *const f32, _: *const f32) {
        let one = S::splat(1.0);
        for r in 0..left.rows {
            let row = left.first + r;
            let at = row * self.cols + right.first;
            let (gate, up) = (self.gate.as_ptr().add(at), self.up.as_ptr().add(at));
            let [h, dgate, dup] =
                [self.h, self.dgate, self.dup].map(|x| x.slice(at, right.rows).as_mut_ptr());
            let weight = S::splat(self.weight[row]);
            let mut part = S::splat(0.0);
            let mut c = 0;
            while c < right.rows {
                let n = right.rows - c;
                let dh = S::load(sums.add(r * 2 * S::LANES + c));
                let (g, u) = (T::load::<S>(gate.add(c), n), T::load::<S>(up.add(c), n));
                let s = sigmoid::<S>(g);
                let silu = S::mul(g, s);
                let activated = S::mul(silu, u);
                // Lanes beyond the last column have `u = 0`, so they add nothing.
                part = S::fma(activated, dh, part);
                let d = S::mul(weight, dh);
                let slope = S::mul(s, S::fma(g, S::sub(one, s), one));
                T::store::<S>(h.add(c), S::mul(weight, activated), n);
                T::store::<S>(dgate.add(c), S::mul(S::mul(d, u), slope), n);
                T::store::<S>(dup.add(c), S::mul(d, silu), n);
                c += S::LANES;
            }
            self.parts.slice(row * self.panels + right.first / (2 * S::LANES), 1)[0] = S::sum(part);
        }
    }
}

/// `out += Σ weight · w2 (silu(w1 n) · w3 n)` over the assigned experts of each token, with `n = rms_norm(x)`.
///
/// `x` and `out` are `[tokens, hidden]`. `saved` gets what the backward pass needs.
///
/// # Panics
/// When lengths do not fit.
pub fn experts_forward(
    run: &Product<'_>,
    x: &[f32],
    assignment: &Assignment,
    weights: &ExpertWeights<'_>,
    out: &mut [f32],
    saved: &mut ExpertSaved,
    products: &mut ProductScratch,
    scratch: &mut ExpertScratch,
) {
    match run.compute {
        Compute::F32 => {
            let (saved, rows) = (&mut saved.floats, &mut scratch.floats);
            forward::<f32>(run, x, assignment, weights, out, saved, products, rows);
        }
        Compute::Bf16 => {
            let (saved, rows) = (&mut saved.halves, &mut scratch.halves);
            forward::<bf16>(run, x, assignment, weights, out, saved, products, rows);
        }
    }
}

fn forward<T: Stored>(
    run: &Product<'_>,
    x: &[f32],
    assignment: &Assignment,
    weights: &ExpertWeights<'_>,
    out: &mut [f32],
    saved: &mut Projections<T>,
    products: &mut ProductScratch,
    scratch: &mut Rows<T>,
) {
    let (hidden, intermediate) = weights.sizes();
    let tokens = x.len() / hidden;
    assert!(x.len() == out.len() && assignment.experts() == weights.experts);
    let rows = assignment.tokens.len();
    saved.gate.resize(rows * intermediate, T::default());
    saved.up.resize(rows * intermediate, T::default());
    scratch.normal.resize(x.len(), T::default());
    norm_rows(run.pool, run.isa, x, weights.norm, weights.epsilon, &mut scratch.normal);
    let ProductScratch { left, right, sums } = products;
    for e in 0..weights.experts {
        let range = assignment.range(e);
        let (chosen, scale) = (&assignment.tokens[range.clone()], &assignment.weights[range.clone()]);
        let [w1, w2, w3] = weights.expert(e);
        let size = chosen.len() * intermediate;
        if scratch.h.len() < size {
            scratch.h.resize(size, T::default());
        }
        let part = range.start * intermediate..range.end * intermediate;
        let gated = Gated {
            gate: SharedMut::new(&mut saved.gate[part.clone()]),
            up: SharedMut::new(&mut saved.up[part]),
            h: SharedMut::new(&mut scratch.h[..size]),
            cols: intermediate,
        };
        let input = Operand::stored_rows(&scratch.normal, tokens, hidden).gathered(chosen);
        run.pack(Side::Left, &[&[input]], left);
        let [w1, w3] = [w1, w3].map(|w| [Operand::rows(w, intermediate, hidden)]);
        run.pack(Side::RightPairs, &[&w1, &w3], right);
        run.multiply_pairs(left, right, &gated, sums);
        run.pack(
            Side::Left,
            &[&[Operand::stored_rows(&scratch.h[..size], chosen.len(), intermediate)]],
            left,
        );
        run.pack(Side::Right, &[&[Operand::rows(w2, hidden, intermediate)]], right);
        run.multiply(left, right, &Scatter::new(out, hidden, chosen, Some(scale)), sums);
    }
}

/// The backward pass of [`experts_forward`], from `dout`: `dx = dout +` the gradient of `x`; also writes those of the weights and
/// of the probabilities.
///
/// # Panics
/// When lengths do not fit.
pub fn experts_backward(
    run: &Product<'_>,
    x: &[f32],
    probabilities: &[f32],
    assignment: &Assignment,
    weights: &ExpertWeights<'_>,
    saved: &ExpertSaved,
    dout: &[f32],
    dx: &mut [f32],
    dprobabilities: &mut [f32],
    gradients: &mut ExpertGradients<'_>,
    products: &mut ProductScratch,
    scratch: &mut ExpertScratch,
) {
    let tokens = x.len() / weights.sizes().0;
    assert!(dout.len() == x.len() && dx.len() == x.len());
    assert!(probabilities.len() == tokens * weights.experts && dprobabilities.len() == probabilities.len());
    let ExpertScratch { floats, halves, dnormal, weights: dweights, parts } = scratch;
    dnormal.resize(x.len(), 0.0);
    dweights.resize(assignment.tokens.len(), 0.0);
    let sums = (&mut dnormal[..], &mut dweights[..], parts);
    match run.compute {
        Compute::F32 => {
            backward::<f32>(
                run,
                x,
                assignment,
                weights,
                &saved.floats,
                dout,
                gradients,
                sums,
                products,
                floats,
            );
        }
        Compute::Bf16 => {
            backward::<bf16>(
                run,
                x,
                assignment,
                weights,
                &saved.halves,
                dout,
                gradients,
                sums,
                products,
                halves,
            );
        }
    }
    renormalise_backward(assignment, probabilities, dweights, weights.experts, dprobabilities);
    let (norm, epsilon) = (weights.norm, weights.epsilon);
    rms_norm_backward(run.pool, run.isa, x, norm, epsilon, dnormal, Some(dout), dx, gradients.norm);
}

fn backward<T: Stored>(
    run: &Product<'_>,
    x: &[f32],
    assignment: &Assignment,
    weights: &ExpertWeights<'_>,
    saved: &Projections<T>,
    dout: &[f32],
    gradients: &mut ExpertGradients<'_>,
    (dnormal, dweights, parts): (&mut [f32], &mut [f32], &mut Vec<f32>),
    products: &mut ProductScratch,
    scratch: &mut Rows<T>,
) {
    let (hidden, intermediate) = weights.sizes();
    let tokens = x.len() / hidden;
    scratch.normal.resize(x.len(), T::default());
    norm_rows(run.pool, run.isa, x, weights.norm, weights.epsilon, &mut scratch.normal);
    let dout = T::view(run, dout, &mut scratch.dout);
    fill(run.pool, dnormal, 0.0);
    let ProductScratch { left, right, sums } = products;
    for e in 0..weights.experts {
        let range = assignment.range(e);
        let (chosen, scale) = (&assignment.tokens[range.clone()], &assignment.weights[range.clone()]);
        let at = e * hidden * intermediate..(e + 1) * hidden * intermediate;
        let rows = chosen.len();
        if rows == 0 {
            for dw in [&mut *gradients.w1, &mut *gradients.w2, &mut *gradients.w3] {
                dw[at.clone()].fill(0.0);
            }
            continue;
        }
        let part = range.start * intermediate..range.end * intermediate;
        let [w1, w2, w3] = weights.expert(e);
        for buffer in [&mut scratch.h, &mut scratch.dgate, &mut scratch.dup] {
            if buffer.len() < rows * intermediate {
                buffer.resize(rows * intermediate, T::default());
            }
        }
        let [h, dgate, dup] = [&mut scratch.h, &mut scratch.dgate, &mut scratch.dup]
            .map(|buffer| &mut buffer[..rows * intermediate]);
        let dout = Operand::stored_rows(dout, tokens, hidden).gathered(chosen);
        run.pack(Side::Left, &[&[dout]], left);
        run.pack(Side::Right, &[&[Operand::columns(w2, hidden, intermediate)]], right);
        let panels = right.strips().len();
        parts.resize(rows * panels, 0.0);
        let ungated = Ungated {
            gate: &saved.gate[part.clone()],
            up: &saved.up[part],
            weight: scale,
            h: SharedMut::new(h),
            dgate: SharedMut::new(dgate),
            dup: SharedMut::new(dup),
            cols: intermediate,
            parts: SharedMut::new(parts),
            panels,
        };
        run.multiply(left, right, &ungated, sums);
        for (dw, parts) in dweights[range].iter_mut().zip(parts.chunks_exact(panels)) {
            *dw = parts.iter().sum();
        }
        run.pack(Side::Left, &[&[Operand::columns_of(dout)]], left);
        run.pack(Side::Right, &[&[Operand::stored_columns(h, rows, intermediate)]], right);
        let out = [(SharedMut::new(&mut gradients.w2[at.clone()]), intermediate)];
        run.multiply(left, right, &Write { out: &out, pieces: 1, add: false }, sums);
        let [along, across] = [true, false].map(|along| {
            [&*dgate, &*dup].map(|d| match along {
                true => Operand::stored_rows(d, rows, intermediate),
                false => Operand::stored_columns(d, rows, intermediate),
            })
        });
        run.pack(Side::Left, &[&across[..1], &across[1..]], left);
        let input = Operand::stored_columns(&scratch.normal, tokens, hidden).gathered(chosen);
        run.pack(Side::Right, &[&[input]], right);
        let out =
            [&mut *gradients.w1, &mut *gradients.w3].map(|dw| (SharedMut::new(&mut dw[at.clone()]), hidden));
        run.multiply(left, right, &Write { out: &out, pieces: 1, add: false }, sums);
        run.pack(Side::Left, &[&along], left);
        let back = [w1, w3].map(|w| Operand::columns(w, intermediate, hidden));
        run.pack(Side::Right, &[&back], right);
        run.multiply(left, right, &Scatter::new(dnormal, hidden, chosen, None), sums);
    }
}

/// With `w = p / Σ p` over the chosen: `dp = (dw − Σ w dw) / Σ p`, 0 where an expert is not chosen.
fn renormalise_backward(
    assignment: &Assignment,
    probabilities: &[f32],
    dweights: &[f32],
    experts: usize,
    dprobabilities: &mut [f32],
) {
    let tokens = probabilities.len() / experts;
    dprobabilities.fill(0.0);
    let (mut mean, mut sum) = (vec![0.0f32; tokens], vec![0.0f32; tokens]);
    for e in 0..experts {
        for i in assignment.range(e) {
            let t = assignment.tokens[i] as usize;
            mean[t] += assignment.weights[i] * dweights[i];
            sum[t] += probabilities[t * experts + e];
        }
    }
    for e in 0..experts {
        for i in assignment.range(e) {
            let t = assignment.tokens[i] as usize;
            dprobabilities[t * experts + e] = (dweights[i] - mean[t]) / sum[t];
        }
    }
}
