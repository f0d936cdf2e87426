//! The router of a mixture of experts: probabilities, forward and backward, and who goes where.

use super::{
    norm::{norm_back, norm_isa},
    product::Product,
    rows::{PART, sum_into},
    stored::Stored,
};
use crate::{
    elementwise::{dot, rms_norm},
    pool::SharedMut,
    router::select_largest,
    simd::{Simd, dispatch},
    softmax,
};

/// Probabilities of all experts for each token: softmax of `rms_norm(x) gateᵀ`.
///
/// `x` is `[tokens, hidden]`, `norm` `[hidden]`, `gate` `[experts, hidden]`, `out` `[tokens, experts]`.
///
/// # Panics
/// When lengths do not fit.
pub fn router_forward(
    run: &Product<'_>,
    x: &[f32],
    norm: &[f32],
    epsilon: f32,
    gate: &[f32],
    out: &mut [f32],
) {
    let hidden = norm.len();
    let experts = gate.len() / hidden;
    assert!(gate.len() == experts * hidden && x.len().is_multiple_of(hidden));
    assert_eq!(out.len(), x.len() / hidden * experts);
    let out = SharedMut::new(out);
    run.pool.for_ranges(x.len() / hidden, PART, |_, range| {
        let mut normal = vec![0.0f32; hidden];
        for t in range {
            rms_norm(run.isa, &x[t * hidden..][..hidden], norm, epsilon, &mut normal);
            // SAFETY: each token has its own row.
            let out = unsafe { out.slice(t * experts, experts) };
            for (out, gate) in out.iter_mut().zip(gate.chunks_exact(hidden)) {
                *out = dot(run.isa, &normal, gate);
            }
            softmax(out);
        }
    });
}

/// The backward pass of [`router_forward`], from its `probabilities` and their gradient: writes `dx`, `dnorm` and `dgate`.
///
/// # Panics
/// When lengths do not fit.
pub fn router_backward(
    run: &Product<'_>,
    x: &[f32],
    norm: &[f32],
    epsilon: f32,
    gate: &[f32],
    probabilities: &[f32],
    dprobabilities: &[f32],
    gradients: [&mut [f32]; 3],
) {
    let hidden = norm.len();
    let experts = gate.len() / hidden;
    let tokens = x.len() / hidden;
    let [dx, dnorm, dgate] = gradients;
    assert!(dx.len() == x.len() && dnorm.len() == hidden && dgate.len() == gate.len());
    assert!(probabilities.len() == tokens * experts && dprobabilities.len() == tokens * experts);
    let count = tokens.div_ceil(PART);
    let (mut gates, mut norms) = (vec![0.0f32; count * gate.len()], vec![0.0f32; count * hidden]);
    let shared = [SharedMut::new(&mut gates), SharedMut::new(&mut norms), SharedMut::new(dx)];
    run.pool.for_ranges(count, 1, |_, range| {
        let mut rows = vec![0.0f32; 2 * PART * hidden];
        let (normal, dnormal) = rows.split_at_mut(PART * hidden);
        for part in range {
            let own = part * PART..((part + 1) * PART).min(tokens);
            let at = own.start * hidden..own.end * hidden;
            let (x, normal, dnormal) = (&x[at.clone()], &mut normal[..at.len()], &mut dnormal[..at.len()]);
            let some = own.start * experts..own.end * experts;
            let (p, dp) = (&probabilities[some.clone()], &dprobabilities[some]);
            let [dgate, dnorm, dx] = shared;
            // SAFETY: each part has its own sums, and its tokens their own rows; `run.isa` is available on this CPU.
            unsafe {
                norm_isa(run.isa, x, norm, epsilon, normal);
                gate_back(
                    run.isa,
                    gate,
                    hidden,
                    p,
                    dp,
                    normal,
                    dnormal,
                    dgate.slice(part * gate.len(), gate.len()),
                );
                let (dx, dnorm) = (dx.slice(at.start, at.len()), dnorm.slice(part * hidden, hidden));
                norm_back(run.isa, x, norm, epsilon, dnormal, None, dx, dnorm);
            }
        }
    });
    for (parts, total) in [(gates, dgate), (norms, dnorm)] {
        total.fill(0.0);
        sum_into(&parts, total);
    }
}

dispatch! {
    unsafe fn gate_back(gate: &[f32], hidden: usize, p: &[f32], dp: &[f32], normal: &[f32], dnormal: &mut [f32], dgate: &mut [f32]) = gate_back_kernel;
}

/// With `dlogit = p (dp − Σ p dp)` of each token: `dnormal = dlogit gate`, `dgate += dlogitᵀ normal`.
#[inline(always)]
unsafe fn gate_back_kernel<S: Simd>(
    gate: &[f32],
    hidden: usize,
    p: &[f32],
    dp: &[f32],
    normal: &[f32],
    dnormal: &mut [f32],
    dgate: &mut [f32],
) {
    let experts = gate.len() / hidden;
    for (t, (p, dp)) in p.chunks_exact(experts).zip(dp.chunks_exact(experts)).enumerate() {
        let mean: f32 = p.iter().zip(dp).map(|(a, b)| a * b).sum();
        let (normal, dnormal) = (normal.as_ptr().add(t * hidden), dnormal.as_mut_ptr().add(t * hidden));
        let mut i = 0;
        while i < hidden {
            let left = hidden - i;
            let (n, mut sum) = (f32::load::<S>(normal.add(i), left), S::splat(0.0));
            for e in 0..experts {
                let dlogit = S::splat(p[e] * (dp[e] - mean));
                sum = S::fma(dlogit, f32::load::<S>(gate.as_ptr().add(e * hidden + i), left), sum);
                let dgate = dgate.as_mut_ptr().add(e * hidden + i);
                f32::store::<S>(dgate, S::fma(dlogit, n, f32::load::<S>(dgate, left)), left);
            }
            f32::store::<S>(dnormal.add(i), sum, left);
            i += S::LANES;
        }
    }
}

/// The tokens of each expert, in order, with their weights.
#[derive(Clone, Debug, Default)]
pub struct Assignment {
    /// Where each expert's part of `tokens` starts, and the end: `experts + 1` values.
    pub offsets: Vec<usize>,
    /// Tokens, those of expert 0 first: `tokens × top_k`.
    pub tokens: Vec<u32>,
    /// The chosen probabilities divided by their sum over the token, beside `tokens`.
    pub weights: Vec<f32>,
}

impl Assignment {
    /// Where the tokens of `expert` lie in the lists.
    pub fn range(&self, expert: usize) -> std::ops::Range<usize> {
        self.offsets[expert]..self.offsets[expert + 1]
    }

    /// Number of experts.
    pub fn experts(&self) -> usize {
        self.offsets.len().saturating_sub(1)
    }
}

/// Sends each token to the `top_k` experts of largest probability (`probabilities` is `[tokens, experts]`).
///
/// # Panics
/// When `top_k` is not in `1..=experts` or lengths do not fit.
pub fn assign(probabilities: &[f32], experts: usize, top_k: usize) -> Assignment {
    assert!((1..=experts).contains(&top_k) && probabilities.len().is_multiple_of(experts));
    let mut chosen = Vec::with_capacity(probabilities.len() / experts * top_k);
    let mut order = Vec::new();
    for row in probabilities.chunks_exact(experts) {
        select_largest(row, top_k, &mut order);
        let mut sum = 0.0;
        for &e in &order[..top_k] {
            sum += row[e];
        }
        chosen.extend(order[..top_k].iter().map(|&e| (e, row[e] / sum)));
    }
    let mut out = Assignment { offsets: vec![0; experts + 1], ..Assignment::default() };
    for &(e, _) in &chosen {
        out.offsets[e + 1] += 1;
    }
    for e in 0..experts {
        out.offsets[e + 1] += out.offsets[e];
    }
    (out.tokens, out.weights) = (vec![0; chosen.len()], vec![0.0; chosen.len()]);
    let mut next = out.offsets.clone();
    for (i, &(e, weight)) in chosen.iter().enumerate() {
        (out.tokens[next[e]], out.weights[next[e]]) = ((i / top_k) as u32, weight);
        next[e] += 1;
    }
    out
}
