//! Root-mean-square normalisation of rows (Zhang and Sennrich 2019), forward and backward.

use super::rows::{PART, sum_into};
use crate::{
    Isa, Pool,
    elementwise::{dot, rms_norm},
    pool::SharedMut,
    simd::{Simd, dispatch},
};

/// `out = w · x / √(mean(x²) + ε)` for every row of `x` `[tokens, width]`.
///
/// # Panics
/// When lengths do not fit.
pub fn rms_norm_rows(pool: &Pool, isa: Isa, x: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) {
    let width = weight.len();
    assert!(x.len() == out.len() && x.len().is_multiple_of(width));
    let out = SharedMut::new(out);
    pool.for_ranges(x.len() / width, PART, |_, range| {
        for t in range {
            // SAFETY: each token has its own row.
            let out = unsafe { out.slice(t * width, width) };
            rms_norm(isa, &x[t * width..(t + 1) * width], weight, epsilon, out);
        }
    });
}

dispatch! {
    unsafe fn norm_row(x: &[f32], weight: &[f32], dy: &[f32], scale: f32, dx: &mut [f32], dw: &mut [f32]) = norm_row_kernel;
}

/// With `r = 1 / √(mean(x²) + ε)`: `dx += r · (w dy − x r² · mean(w dy x))`, `dw += dy x r`.
#[inline(always)]
unsafe fn norm_row_kernel<S: Simd>(
    x: &[f32],
    weight: &[f32],
    dy: &[f32],
    r: f32,
    dx: &mut [f32],
    dw: &mut [f32],
) {
    let n = x.len();
    let mut acc = [0.0f32; 16];
    let mut i = 0;
    while i + 16 <= n {
        for l in 0..16 {
            acc[l] += weight[i + l] * dy[i + l] * x[i + l];
        }
        i += 16;
    }
    let mut sum: f32 = acc.iter().sum();
    while i < n {
        sum += weight[i] * dy[i] * x[i];
        i += 1;
    }
    let shift = r * r * r * sum / n as f32;
    for i in 0..n {
        dx[i] += r * weight[i] * dy[i] - shift * x[i];
        dw[i] += dy[i] * x[i] * r;
    }
}

/// The backward pass of [`rms_norm_rows`]: adds to `dx` `[tokens, width]` and `dweight` `[width]`.
///
/// # Panics
/// When lengths do not fit.
pub fn rms_norm_backward(
    pool: &Pool,
    isa: Isa,
    x: &[f32],
    weight: &[f32],
    epsilon: f32,
    dy: &[f32],
    dx: &mut [f32],
    dweight: &mut [f32],
) {
    let width = weight.len();
    assert!(x.len() == dy.len() && x.len() == dx.len() && dweight.len() == width);
    assert!(x.len().is_multiple_of(width));
    let tokens = x.len() / width;
    let mut parts = vec![0.0f32; tokens.div_ceil(PART) * width];
    let shared = (SharedMut::new(dx), SharedMut::new(&mut parts));
    pool.for_ranges(tokens.div_ceil(PART), 1, |_, range| {
        for part in range {
            // SAFETY: each part has its own sums, and its tokens their own rows.
            let dw = unsafe { shared.1.slice(part * width, width) };
            for t in part * PART..((part + 1) * PART).min(tokens) {
                let at = t * width..(t + 1) * width;
                let (x, dy) = (&x[at.clone()], &dy[at]);
                let r = 1.0 / (dot(isa, x, x) / width as f32 + epsilon).sqrt();
                // SAFETY: as above; the lengths are equal, and `isa` is available on this CPU.
                unsafe { norm_row(isa, x, weight, dy, r, shared.0.slice(t * width, width), dw) }
            }
        }
    });
    sum_into(&parts, dweight);
}
