//! Root-mean-square normalisation of rows (Zhang and Sennrich 2019), forward and backward.

use super::{
    rows::{PART, sum_into},
    stored::Stored,
};
use crate::{
    Isa, Pool,
    elementwise::dot_kernel,
    pool::SharedMut,
    simd::{Simd, dispatch},
};

/// `out = w · x / √(mean(x²) + ε)` for every row of `x` `[tokens, width]`.
///
/// # Panics
/// When lengths do not fit.
pub fn rms_norm_rows(pool: &Pool, isa: Isa, x: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) {
    norm_rows(pool, isa, x, weight, epsilon, out);
}

/// As [`rms_norm_rows`], rounded to `T`.
pub(crate) fn norm_rows<T: Stored>(
    pool: &Pool,
    isa: Isa,
    x: &[f32],
    weight: &[f32],
    epsilon: f32,
    out: &mut [T],
) {
    let width = weight.len();
    assert!(x.len() == out.len() && x.len().is_multiple_of(width));
    let out = SharedMut::new(out);
    pool.for_ranges(x.len() / width, PART, |_, range| {
        // SAFETY: each token has its own row; `isa` is available on this CPU.
        unsafe {
            let out = out.slice(range.start * width, range.len() * width);
            norm_isa(isa, &x[range.start * width..range.end * width], weight, epsilon, out);
        }
    });
}

dispatch! {
    pub(super) unsafe fn norm_isa<T: Stored>(x: &[f32], weight: &[f32], epsilon: f32, out: &mut [T]) = norm_kernel;
}

#[inline(always)]
unsafe fn norm_kernel<S: Simd, T: Stored>(x: &[f32], weight: &[f32], epsilon: f32, out: &mut [T]) {
    let n = weight.len();
    for (x, out) in x.chunks_exact(n).zip(out.chunks_exact_mut(n)) {
        let r = S::splat(scale::<S>(x, epsilon));
        let mut i = 0;
        while i < n {
            let normal = S::mul(f32::load::<S>(x.as_ptr().add(i), n - i), r);
            let v = S::mul(f32::load::<S>(weight.as_ptr().add(i), n - i), normal);
            T::store::<S>(out.as_mut_ptr().add(i), v, n - i);
            i += S::LANES;
        }
    }
}

/// `1 / √(mean(x²) + ε)`
#[inline(always)]
unsafe fn scale<S: Simd>(x: &[f32], epsilon: f32) -> f32 {
    1.0 / (dot_kernel::<S>(x.as_ptr(), x.as_ptr(), x.len()) / x.len() as f32 + epsilon).sqrt()
}

dispatch! {
    pub(super) unsafe fn norm_back(x: &[f32], weight: &[f32], epsilon: f32, dy: &[f32], base: Option<&[f32]>, dx: &mut [f32], dw: &mut [f32]) = norm_back_kernel;
}

/// With `r = 1 / √(mean(x²) + ε)`: `dx = base + r · (w dy − x r² · mean(w dy x))`, `dw += dy x r`.
#[inline(always)]
unsafe fn norm_back_kernel<S: Simd>(
    x: &[f32],
    weight: &[f32],
    epsilon: f32,
    dy: &[f32],
    base: Option<&[f32]>,
    dx: &mut [f32],
    dw: &mut [f32],
) {
    let n = weight.len();
    let w = weight.as_ptr();
    for (t, x) in x.chunks_exact(n).enumerate() {
        let (dy, base) = (dy.as_ptr().add(t * n), base.map(|base| base.as_ptr().add(t * n)));
        let dx = dx.as_mut_ptr().add(t * n);
        let r = scale::<S>(x, epsilon);
        let x = x.as_ptr();
        let mut sum = S::splat(0.0);
        let mut i = 0;
        while i < n {
            let slope = S::mul(f32::load::<S>(w.add(i), n - i), f32::load::<S>(dy.add(i), n - i));
            sum = S::fma(slope, f32::load::<S>(x.add(i), n - i), sum);
            i += S::LANES;
        }
        let shift = S::splat(-r * r * r * S::sum(sum) / n as f32);
        let r = S::splat(r);
        i = 0;
        while i < n {
            let left = n - i;
            let (x, dy) = (f32::load::<S>(x.add(i), left), f32::load::<S>(dy.add(i), left));
            let start = base.map_or(S::splat(0.0), |base| f32::load::<S>(base.add(i), left));
            let slope = S::mul(r, S::mul(f32::load::<S>(w.add(i), left), dy));
            f32::store::<S>(dx.add(i), S::add(start, S::fma(shift, x, slope)), left);
            let dw = dw.as_mut_ptr().add(i);
            f32::store::<S>(dw, S::fma(S::mul(dy, x), r, f32::load::<S>(dw, left)), left);
            i += S::LANES;
        }
    }
}

/// The backward pass of [`rms_norm_rows`]: writes `dx` `[tokens, width]`, added to `base` if there is one, and `dweight` `[width]`.
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
    base: Option<&[f32]>,
    dx: &mut [f32],
    dweight: &mut [f32],
) {
    let width = weight.len();
    assert!(x.len() == dy.len() && x.len() == dx.len() && dweight.len() == width);
    assert!(x.len().is_multiple_of(width) && base.is_none_or(|base| base.len() == x.len()));
    let tokens = x.len() / width;
    let mut parts = vec![0.0f32; tokens.div_ceil(PART) * width];
    let shared = (SharedMut::new(dx), SharedMut::new(&mut parts));
    pool.for_ranges(tokens.div_ceil(PART), 1, |_, range| {
        for part in range {
            let at = part * PART * width..((part + 1) * PART).min(tokens) * width;
            // SAFETY: each part has its own sums, and its tokens their own rows; `isa` is available on this CPU.
            unsafe {
                let dw = shared.1.slice(part * width, width);
                let dx = shared.0.slice(at.start, at.len());
                let base = base.map(|base| &base[at.clone()]);
                norm_back(isa, &x[at.clone()], weight, epsilon, &dy[at], base, dx, dw);
            }
        }
    });
    dweight.fill(0.0);
    sum_into(&parts, dweight);
}
