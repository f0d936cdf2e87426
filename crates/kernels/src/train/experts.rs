//! Sparse experts: each one's tokens are multiplied with its SwiGLU weights (Shazeer 2020), forward and backward.

use super::{
    norm::{rms_norm_backward, rms_norm_rows},
    product::{Operand, Product, ProductScratch},
    router::Assignment,
    rows::PART,
};
use crate::{
    buffer::Buffer,
    elementwise::dot,
    pool::SharedMut,
    simd::{Simd, dispatch},
};

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

/// Gradients of [`ExpertWeights`], of the same shapes; the backward pass adds to them.
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

/// What the backward pass needs: both projections of every chosen token.
#[derive(Clone, Default)]
pub struct ExpertSaved {
    /// `x w1ᵀ`, `[tokens × top_k, intermediate]` in the order of the assignment.
    gate: Vec<f32>,
    /// `x w3ᵀ`, likewise.
    up: Vec<f32>,
}

/// Buffers that all layers reuse.
#[derive(Default)]
pub struct ExpertScratch {
    normal: Buffer,
    dnormal: Buffer,
    a: Buffer,
    b: Buffer,
    weights: Vec<f32>,
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
}

dispatch! {
    unsafe fn swiglu(gate: &[f32], up: &[f32], out: &mut [f32]) = swiglu_kernel;
}

#[inline(always)]
unsafe fn swiglu_kernel<S: Simd>(gate: &[f32], up: &[f32], out: &mut [f32]) {
    for_vectors::<S, 2, 1>(out.len(), [gate.as_ptr(), up.as_ptr()], [out.as_mut_ptr()], |[g, u]| {
        [S::mul(S::mul(g, sigmoid::<S>(g)), u)]
    });
}

dispatch! {
    unsafe fn swiglu_back(gate: &[f32], up: &[f32], scale: f32, dh: &mut [f32], dgate: &mut [f32]) = swiglu_back_kernel;
}

/// With `σ = sigmoid(gate)` and `dh` scaled: `dgate = dh · up · σ (1 + gate (1 − σ))`, and `dup = dh · gate σ` in place of `dh`.
#[inline(always)]
unsafe fn swiglu_back_kernel<S: Simd>(
    gate: &[f32],
    up: &[f32],
    scale: f32,
    dh: &mut [f32],
    dgate: &mut [f32],
) {
    let (n, dh) = (dh.len(), dh.as_mut_ptr());
    let inputs = [gate.as_ptr(), up.as_ptr(), dh.cast_const()];
    for_vectors::<S, 3, 2>(n, inputs, [dgate.as_mut_ptr(), dh], |[g, u, dh]| {
        let one = S::splat(1.0);
        let dh = S::mul(dh, S::splat(scale));
        let s = sigmoid::<S>(g);
        let slope = S::mul(s, S::fma(g, S::sub(one, s), one));
        [S::mul(S::mul(dh, u), slope), S::mul(dh, S::mul(g, s))]
    });
}

#[inline(always)]
unsafe fn sigmoid<S: Simd>(x: S::F) -> S::F {
    let one = S::splat(1.0);
    S::div(one, S::add(one, S::exp(S::sub(S::splat(0.0), x))))
}

/// Applies `f` to vectors of `n` numbers, the last one filled up with zeros.
#[inline(always)]
unsafe fn for_vectors<S: Simd, const I: usize, const O: usize>(
    n: usize,
    inputs: [*const f32; I],
    outputs: [*mut f32; O],
    f: impl Fn([S::F; I]) -> [S::F; O],
) {
    let mut i = 0;
    while i < n {
        let left = n - i;
        if left >= S::LANES {
            let out = f(inputs.map(|p| S::load(p.add(i))));
            for (p, v) in outputs.into_iter().zip(out) {
                S::store(p.add(i), v);
            }
        } else {
            let out = f(inputs.map(|p| S::load_partial(p.add(i), left)));
            for (p, v) in outputs.into_iter().zip(out) {
                let mut last = [0.0f32; 16];
                S::store(last.as_mut_ptr(), v);
                std::ptr::copy_nonoverlapping(last.as_ptr(), p.add(i), left);
            }
        }
        i += S::LANES;
    }
}

/// `out += Σ weight · w2 (silu(w1 n) · w3 n)` over the assigned experts of each token, with `n = rms_norm(x)`.
///
/// `x` and `out` are `[tokens, hidden]`.
///
/// # Panics
/// When lengths do not fit.
pub fn experts_forward(
    run: &Product<'_>,
    x: &[f32],
    assignment: &Assignment,
    weights: &ExpertWeights<'_>,
    out: &mut [f32],
    products: &mut ProductScratch,
    scratch: &mut ExpertScratch,
) -> ExpertSaved {
    let (hidden, intermediate) = weights.sizes();
    let tokens = x.len() / hidden;
    assert!(x.len() == out.len() && assignment.experts() == weights.experts);
    let rows = assignment.tokens.len();
    let (mut gate, mut up) = (vec![0.0f32; rows * intermediate], vec![0.0f32; rows * intermediate]);
    scratch.normal.reserve(x.len());
    let normal = &mut scratch.normal[..x.len()];
    rms_norm_rows(run.pool, run.isa, x, weights.norm, weights.epsilon, normal);
    for e in 0..weights.experts {
        let range = assignment.range(e);
        let (chosen, scale) = (&assignment.tokens[range.clone()], &assignment.weights[range.clone()]);
        let part = range.start * intermediate..range.end * intermediate;
        let (gate, up) = (&mut gate[part.clone()], &mut up[part]);
        let [w1, w2, w3] = [weights.w1, weights.w2, weights.w3]
            .map(|w| &w[e * hidden * intermediate..(e + 1) * hidden * intermediate]);
        let input = Operand::rows(normal, tokens, hidden).gathered(chosen);
        run.write(input, Operand::rows(w1, intermediate, hidden), gate, false, products);
        run.write(input, Operand::rows(w3, intermediate, hidden), up, false, products);
        scratch.a.reserve(gate.len());
        let h = &mut scratch.a[..gate.len()];
        activate(run, gate, up, h);
        let h = Operand::rows(h, chosen.len(), intermediate);
        run.scatter_add(h, Operand::rows(w2, hidden, intermediate), chosen, Some(scale), out, products);
    }
    ExpertSaved { gate, up }
}

/// `h = silu(gate) · up`
fn activate(run: &Product<'_>, gate: &[f32], up: &[f32], h: &mut [f32]) {
    let n = h.len();
    let h = SharedMut::new(h);
    run.pool.for_ranges(n, 4096, |_, range| {
        // SAFETY: ranges are disjoint, the lengths equal; `isa` is available on this CPU.
        unsafe {
            swiglu(run.isa, &gate[range.clone()], &up[range.clone()], h.slice(range.start, range.len()))
        }
    });
}

/// The backward pass of [`experts_forward`]: adds to `dx`, to the gradients of the weights and of the probabilities.
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
    let (hidden, intermediate) = weights.sizes();
    let tokens = x.len() / hidden;
    assert!(dout.len() == x.len() && dx.len() == x.len());
    assert!(probabilities.len() == tokens * weights.experts && dprobabilities.len() == probabilities.len());
    scratch.normal.reserve(x.len());
    scratch.dnormal.reserve(x.len());
    scratch.weights.resize(assignment.tokens.len(), 0.0);
    let normal = &mut scratch.normal[..x.len()];
    let dnormal = &mut scratch.dnormal[..x.len()];
    dnormal.fill(0.0);
    rms_norm_rows(run.pool, run.isa, x, weights.norm, weights.epsilon, normal);
    for e in 0..weights.experts {
        let range = assignment.range(e);
        let (chosen, scale) = (&assignment.tokens[range.clone()], &assignment.weights[range.clone()]);
        let part = range.start * intermediate..range.end * intermediate;
        let (gate, up) = (&saved.gate[part.clone()], &saved.up[part.clone()]);
        let at = e * hidden * intermediate..(e + 1) * hidden * intermediate;
        let [w1, w2, w3] = [weights.w1, weights.w2, weights.w3].map(|w| &w[at.clone()]);
        let rows = chosen.len();
        scratch.a.reserve(part.len());
        scratch.b.reserve(part.len());
        let (h, dh) = (&mut scratch.a[..part.len()], &mut scratch.b[..part.len()]);
        let dout = Operand::rows(dout, tokens, hidden).gathered(chosen);
        run.write(dout, Operand::columns(w2, hidden, intermediate), dh, false, products);
        activate(run, gate, up, h);
        // The gradient of a token's weight is that of its result times the result; then `h` takes the weight.
        let dweights = SharedMut::new(&mut scratch.weights[range]);
        let shared = SharedMut::new(h);
        run.pool.for_ranges(rows, PART, |_, range| {
            for r in range {
                // SAFETY: each row belongs to one thread.
                let (h, out) =
                    unsafe { (shared.slice(r * intermediate, intermediate), dweights.slice(r, 1)) };
                out[0] = dot(run.isa, h, &dh[r * intermediate..(r + 1) * intermediate]);
                h.iter_mut().for_each(|h| *h *= scale[r]);
            }
        });
        run.write(
            Operand::columns_of(dout),
            Operand::columns(h, rows, intermediate),
            &mut gradients.w2[at.clone()],
            true,
            products,
        );
        // From here `h` holds the gradient of `gate`, and `dh` that of `up`.
        let (dgate, dup) = (SharedMut::new(h), SharedMut::new(dh));
        run.pool.for_ranges(rows, PART, |_, range| {
            for r in range {
                let at = r * intermediate..(r + 1) * intermediate;
                // SAFETY: each row belongs to one thread; `isa` is available on this CPU.
                unsafe {
                    let (dgate, dup) = (dgate.slice(at.start, at.len()), dup.slice(at.start, at.len()));
                    swiglu_back(run.isa, &gate[at.clone()], &up[at], scale[r], dup, dgate);
                }
            }
        });
        let input = Operand::columns(normal, tokens, hidden).gathered(chosen);
        for (d, w, dw) in [(&*h, w1, &mut *gradients.w1), (&*dh, w3, &mut *gradients.w3)] {
            run.write(Operand::columns(d, rows, intermediate), input, &mut dw[at.clone()], true, products);
            let (d, w) = (Operand::rows(d, rows, intermediate), Operand::columns(w, intermediate, hidden));
            run.scatter_add(d, w, chosen, None, dnormal, products);
        }
    }
    renormalise_backward(assignment, probabilities, &scratch.weights, weights.experts, dprobabilities);
    rms_norm_backward(run.pool, run.isa, x, weights.norm, weights.epsilon, dnormal, dx, gradients.norm);
}

/// With `w = p / Σ p` over the chosen: `dp += (dw − Σ w dw) / Σ p`.
fn renormalise_backward(
    assignment: &Assignment,
    probabilities: &[f32],
    dweights: &[f32],
    experts: usize,
    dprobabilities: &mut [f32],
) {
    let tokens = probabilities.len() / experts;
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
            dprobabilities[t * experts + e] += (dweights[i] - mean[t]) / sum[t];
        }
    }
}
