//! Work on rows of activations: normalisation, rotary embedding, activation function, softmax.

use crate::{
    Isa,
    simd::{Simd, dispatch},
};

dispatch! {
    unsafe fn dot_isa(a: *const f32, b: *const f32, n: usize) -> f32 = dot_kernel;
}
dispatch! {
    unsafe fn rms_norm_isa(x: *const f32, weight: *const f32, n: usize, epsilon: f32, out: *mut f32) = rms_norm_kernel;
}
dispatch! {
    unsafe fn silu_mul_isa(gate: *const f32, up: *const f32, n: usize, out: *mut f32) = silu_mul_kernel;
}

#[inline(always)]
pub(crate) unsafe fn dot_kernel<S: Simd>(a: *const f32, b: *const f32, n: usize) -> f32 {
    let mut acc = [S::splat(0.0); 4];
    let mut i = 0;
    while i + 4 * S::LANES <= n {
        for (j, acc) in acc.iter_mut().enumerate() {
            *acc = S::fma(S::load(a.add(i + j * S::LANES)), S::load(b.add(i + j * S::LANES)), *acc);
        }
        i += 4 * S::LANES;
    }
    while i + S::LANES <= n {
        acc[0] = S::fma(S::load(a.add(i)), S::load(b.add(i)), acc[0]);
        i += S::LANES;
    }
    if i < n {
        acc[1] = S::fma(S::load_partial(a.add(i), n - i), S::load_partial(b.add(i), n - i), acc[1]);
    }
    S::sum(S::add(S::add(acc[0], acc[1]), S::add(acc[2], acc[3])))
}

/// The dot product of two rows of equal length.
pub(crate) fn dot(isa: Isa, a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    // SAFETY: the lengths are equal, and `isa` is available on this CPU.
    unsafe { dot_isa(isa, a.as_ptr(), b.as_ptr(), a.len()) }
}

#[inline(always)]
unsafe fn rms_norm_kernel<S: Simd>(x: *const f32, weight: *const f32, n: usize, epsilon: f32, out: *mut f32) {
    let scale = 1.0 / (dot_kernel::<S>(x, x, n) / n as f32 + epsilon).sqrt();
    let mut i = 0;
    while i + S::LANES <= n {
        let normal = S::mul(S::load(x.add(i)), S::splat(scale));
        S::store(out.add(i), S::mul(S::load(weight.add(i)), normal));
        i += S::LANES;
    }
    while i < n {
        *out.add(i) = *weight.add(i) * (*x.add(i) * scale);
        i += 1;
    }
}

/// Root-mean-square normalisation of one row (Zhang and Sennrich 2019): `w · x / √(mean(x²) + ε)`.
///
/// # Panics
/// When the lengths differ.
pub fn rms_norm(isa: Isa, x: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) {
    assert!(x.len() == weight.len() && x.len() == out.len());
    // SAFETY: the lengths are equal, and `isa` is available on this CPU.
    unsafe { rms_norm_isa(isa, x.as_ptr(), weight.as_ptr(), x.len(), epsilon, out.as_mut_ptr()) }
}

/// `gate / (1 + e^−gate) · up` for one vector.
#[inline(always)]
pub(crate) unsafe fn silu_mul_vector<S: Simd>(gate: S::F, up: S::F) -> S::F {
    let e = S::exp(S::sub(S::splat(0.0), gate));
    S::mul(S::div(gate, S::add(S::splat(1.0), e)), up)
}

#[inline(always)]
unsafe fn silu_mul_kernel<S: Simd>(gate: *const f32, up: *const f32, n: usize, out: *mut f32) {
    let mut i = 0;
    while i < n {
        let left = n - i;
        if left >= S::LANES {
            S::store(out.add(i), silu_mul_vector::<S>(S::load(gate.add(i)), S::load(up.add(i))));
        } else {
            let mut last = [0.0f32; 16];
            let (g, u) = (S::load_partial(gate.add(i), left), S::load_partial(up.add(i), left));
            S::store(last.as_mut_ptr(), silu_mul_vector::<S>(g, u));
            std::ptr::copy_nonoverlapping(last.as_ptr(), out.add(i), left);
        }
        i += S::LANES;
    }
}

/// The gated activation of SwiGLU (Shazeer 2020): `silu(gate) · up`, element by element.
///
/// # Panics
/// When the lengths differ.
pub fn silu_mul(isa: Isa, gate: &[f32], up: &[f32], out: &mut [f32]) {
    assert!(gate.len() == up.len() && gate.len() == out.len());
    // SAFETY: the lengths are equal, and `isa` is available on this CPU.
    unsafe { silu_mul_isa(isa, gate.as_ptr(), up.as_ptr(), out.len(), out.as_mut_ptr()) }
}

/// Cosines and sines of rotary position embedding (Su et al. 2021), in the half-split pairing of Hugging Face.
pub struct RopeTable {
    half: usize,
    /// `[position, 2, half]`: cosines, then sines.
    table: Vec<f32>,
}

impl RopeTable {
    /// Angles `p · θ^(−2i/head_dim)` for positions `0..positions`, all in `f32` as transformers has them.
    pub fn new(head_dim: usize, theta: f64, positions: usize) -> Self {
        let half = head_dim / 2;
        let inverse: Vec<f32> =
            (0..half).map(|i| 1.0 / (theta as f32).powf((2 * i) as f32 / head_dim as f32)).collect();
        let mut table = Vec::with_capacity(positions * 2 * half);
        for p in 0..positions {
            table.extend(inverse.iter().map(|&f| (p as f32 * f).cos()));
            table.extend(inverse.iter().map(|&f| (p as f32 * f).sin()));
        }
        Self { half, table }
    }

    /// Positions that the table covers.
    pub fn positions(&self) -> usize {
        self.table.len() / (2 * self.half).max(1)
    }

    /// The `(cosine, sine)` of each pair at `position`.
    ///
    /// # Panics
    /// When the position is beyond the table.
    pub fn angles(&self, position: usize) -> impl Iterator<Item = (f32, f32)> + Clone + '_ {
        let half = self.half;
        let (cos, sin) = self.table[position * 2 * half..(position + 1) * 2 * half].split_at(half);
        cos.iter().copied().zip(sin.iter().copied())
    }

    /// Cosines and sines of the pairs at `position`.
    ///
    /// # Panics
    /// When the position is beyond the table.
    #[inline(always)]
    pub(crate) fn at(&self, position: usize) -> (&[f32], &[f32]) {
        self.table[position * 2 * self.half..(position + 1) * 2 * self.half].split_at(self.half)
    }
}

/// Rotates every head of `x` (`[heads, head_dim]`, one token) to `position`.
///
/// # Panics
/// When the position is beyond the table.
pub fn rope(table: &RopeTable, position: usize, x: &mut [f32]) {
    let half = table.half;
    let (cos, sin) = table.table[position * 2 * half..(position + 1) * 2 * half].split_at(half);
    for head in x.chunks_exact_mut(2 * half) {
        let (a, b) = head.split_at_mut(half);
        for i in 0..half {
            let (x, y) = (a[i], b[i]);
            a[i] = x * cos[i] - y * sin[i];
            b[i] = y * cos[i] + x * sin[i];
        }
    }
}

/// `out += scale · x`
///
/// # Panics
/// When the lengths differ.
pub fn add_scaled(x: &[f32], scale: f32, out: &mut [f32]) {
    assert_eq!(x.len(), out.len());
    for (out, x) in out.iter_mut().zip(x) {
        *out += scale * x;
    }
}

/// Softmax in place; all zeros stay a distribution only when there is at least one finite value.
pub fn softmax(x: &mut [f32]) {
    let largest = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0;
    for x in x.iter_mut() {
        *x = (*x - largest).exp();
        sum += *x;
    }
    for x in x.iter_mut() {
        *x /= sum;
    }
}

dispatch! {
    unsafe fn sum_exp_isa(x: *const f32, n: usize, largest: f32) -> f32 = sum_exp_kernel;
}

#[inline(always)]
unsafe fn sum_exp_kernel<S: Simd>(x: *const f32, n: usize, largest: f32) -> f32 {
    let shift = S::splat(largest);
    let mut acc = [S::splat(0.0); 4];
    let mut i = 0;
    while i + 4 * S::LANES <= n {
        for (j, acc) in acc.iter_mut().enumerate() {
            *acc = S::add(*acc, S::exp(S::sub(S::load(x.add(i + j * S::LANES)), shift)));
        }
        i += 4 * S::LANES;
    }
    let mut sum = S::sum(S::add(S::add(acc[0], acc[1]), S::add(acc[2], acc[3])));
    while i < n {
        sum += (*x.add(i) - largest).exp();
        i += 1;
    }
    sum
}

/// The natural logarithm of `softmax(logits)[index]`, without making the distribution.
///
/// # Panics
/// When `index` is out of range.
pub fn log_softmax_at(isa: Isa, logits: &[f32], index: usize) -> f32 {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    // SAFETY: the pointer covers `len` floats, and `isa` is available on this CPU.
    let sum = unsafe { sum_exp_isa(isa, logits.as_ptr(), logits.len(), largest) };
    logits[index] - largest - sum.ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_number_does_not_vanish_in_an_exponential() {
        let mut logits = [0.0f32; 64];
        logits[5] = f32::NAN;
        for isa in Isa::available() {
            assert!(log_softmax_at(isa, &logits, 0).is_nan(), "{isa}");
        }
    }
}
