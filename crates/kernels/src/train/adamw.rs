//! AdamW (Loshchilov and Hutter 2019) in one pass over a tensor and its state.

use crate::{
    Isa, Pool,
    pool::SharedMut,
    simd::{Simd, dispatch},
};

/// What a step of the optimiser does to every number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    /// Learning rate.
    pub rate: f32,
    /// Decay of the mean of gradients.
    pub beta1: f32,
    /// Decay of the mean of squared gradients.
    pub beta2: f32,
    /// Added to the root of the mean square.
    pub epsilon: f32,
    /// Weight decay, times the rate, decoupled from the gradient.
    pub decay: f32,
    /// Gradients are multiplied with this first (clipping by norm).
    pub gradient_scale: f32,
    /// Number of this step, counted from 1.
    pub step: u32,
}

dispatch! {
    unsafe fn adamw_part(options: &AdamW, corrections: [f32; 2], gradient: &[f32], p: &mut [f32], m: &mut [f32], v: &mut [f32]) = adamw_kernel;
}

#[inline(always)]
unsafe fn adamw_kernel<S: Simd>(
    options: &AdamW,
    corrections: [f32; 2],
    gradient: &[f32],
    p: &mut [f32],
    m: &mut [f32],
    v: &mut [f32],
) {
    let AdamW { rate, beta1, beta2, epsilon, decay, gradient_scale, .. } = *options;
    let [first, second] = corrections;
    for (((p, m), v), g) in p.iter_mut().zip(m).zip(v).zip(gradient) {
        let g = g * gradient_scale;
        *m = beta1 * *m + (1.0 - beta1) * g;
        *v = beta2 * *v + (1.0 - beta2) * g * g;
        let denominator = (*v * second).sqrt() + epsilon;
        *p = *p * (1.0 - rate * decay) - rate * (*m * first) / denominator;
    }
}

/// One step: updates parameters, mean `m` and mean square `v` from the gradient.
///
/// # Panics
/// When lengths differ.
pub fn adamw_step(
    pool: &Pool,
    isa: Isa,
    options: &AdamW,
    gradient: &[f32],
    parameters: &mut [f32],
    m: &mut [f32],
    v: &mut [f32],
) {
    let n = parameters.len();
    assert!(gradient.len() == n && m.len() == n && v.len() == n);
    let correction = |beta: f32| (1.0 / (1.0 - f64::from(beta).powi(options.step.max(1) as i32))) as f32;
    let corrections = [correction(options.beta1), correction(options.beta2)];
    let shared = [SharedMut::new(parameters), SharedMut::new(m), SharedMut::new(v)];
    pool.for_ranges(n, 4096, |_, range| {
        let [p, m, v] = shared;
        // SAFETY: ranges are disjoint and within the equal lengths; `isa` is available on this CPU.
        unsafe {
            let (p, m, v) = (
                p.slice(range.start, range.len()),
                m.slice(range.start, range.len()),
                v.slice(range.start, range.len()),
            );
            adamw_part(isa, options, corrections, &gradient[range], p, m, v);
        }
    });
}
