//! The router of a mixture of experts: probabilities, forward and backward, and who goes where.

use super::{
    norm::rms_norm_backward,
    product::Product,
    rows::{PART, sum_into},
};
use crate::{
    elementwise::{add_scaled, dot, rms_norm},
    pool::SharedMut,
    router::select_largest,
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

/// The backward pass of [`router_forward`], from its `probabilities` and their gradient: adds to `dx`, `dnorm` and `dgate`.
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
    let mut dnormal = vec![0.0f32; x.len()];
    let mut parts = vec![0.0f32; tokens.div_ceil(PART) * gate.len()];
    let shared = (SharedMut::new(&mut dnormal), SharedMut::new(&mut parts));
    run.pool.for_ranges(tokens.div_ceil(PART), 1, |_, range| {
        let mut normal = vec![0.0f32; hidden];
        for part in range {
            // SAFETY: each part has its own sums.
            let dgate = unsafe { shared.1.slice(part * gate.len(), gate.len()) };
            for t in part * PART..((part + 1) * PART).min(tokens) {
                rms_norm(run.isa, &x[t * hidden..][..hidden], norm, epsilon, &mut normal);
                let p = &probabilities[t * experts..][..experts];
                let dp = &dprobabilities[t * experts..][..experts];
                let mean: f32 = p.iter().zip(dp).map(|(a, b)| a * b).sum();
                // SAFETY: each token has its own row.
                let dnormal = unsafe { shared.0.slice(t * hidden, hidden) };
                for e in 0..experts {
                    let dlogit = p[e] * (dp[e] - mean);
                    add_scaled(&gate[e * hidden..][..hidden], dlogit, dnormal);
                    add_scaled(&normal, dlogit, &mut dgate[e * hidden..][..hidden]);
                }
            }
        }
    });
    sum_into(&parts, dgate);
    rms_norm_backward(run.pool, run.isa, x, norm, epsilon, &dnormal, dx, dnorm);
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
