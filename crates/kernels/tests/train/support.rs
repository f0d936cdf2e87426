//! Seeded numbers, comparison, and finite differences.

use blackletter_kernels::{
    Isa, Pool,
    train::{Compute, Product},
};

/// Numbers in −1..1, a function of the seed.
pub fn random(seed: u64, count: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..count)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((state >> 40) as f32 / (1u64 << 23) as f32) - 1.0
        })
        .collect()
}

pub fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&x| f64::from(x)).collect()
}

/// Equal to `tolerance` of the largest expected number, or of 0.01 if all are smaller: inputs are of order one.
pub fn close(found: &[f32], expected: &[f64], tolerance: f64, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let largest = expected.iter().fold(1e-2f64, |m, x| m.max(x.abs()));
    for (i, (&a, &b)) in found.iter().zip(expected).enumerate() {
        let a = f64::from(a);
        assert!((a - b).abs() <= tolerance * largest, "{what}[{i}]: {a}, expected {b} (largest {largest})");
    }
}

/// The gradient of `f` at `x` by central differences.
pub fn slopes(x: &[f32], f: impl Fn(&[f64]) -> f64) -> Vec<f64> {
    let mut x = wide(x);
    (0..x.len())
        .map(|i| {
            let (at, h) = (x[i], 1e-5);
            x[i] = at + h;
            let above = f(&x);
            x[i] = at - h;
            let below = f(&x);
            x[i] = at;
            (above - below) / (2.0 * h)
        })
        .collect()
}

pub fn weighted(values: &[f64], weights: &[f32]) -> f64 {
    values.iter().zip(weights).map(|(v, &w)| v * f64::from(w)).sum()
}

/// Runs a check in every instruction set of this CPU, with one thread and with three.
pub fn everywhere(check: impl Fn(&Product<'_>, &str)) {
    for isa in Isa::available() {
        for threads in [1, 3] {
            let pool = Pool::new(threads);
            check(&Product { pool: &pool, isa, compute: Compute::F32 }, &format!("{isa}, {threads} threads"));
        }
    }
}

/// `x wᵀ` in `f64`.
pub fn project(x: &[f64], w: &[f64], inputs: usize) -> Vec<f64> {
    x.chunks_exact(inputs)
        .flat_map(|x| w.chunks_exact(inputs).map(|w| x.iter().zip(w).map(|(a, b)| a * b).sum()))
        .collect()
}

pub fn norm(x: &[f64], weight: &[f64], epsilon: f64) -> Vec<f64> {
    x.chunks_exact(weight.len())
        .flat_map(|x| {
            let mean = x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64;
            let scale = 1.0 / (mean + epsilon).sqrt();
            x.iter().zip(weight).map(move |(x, w)| x * scale * w)
        })
        .collect()
}

pub fn softmax(x: &mut [f64]) {
    let largest = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    x.iter_mut().for_each(|x| *x = (*x - largest).exp());
    let sum: f64 = x.iter().sum();
    x.iter_mut().for_each(|x| *x /= sum);
}
