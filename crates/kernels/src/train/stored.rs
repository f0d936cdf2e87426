//! Numbers as they are kept between passes: `f32`, or bf16 where products are computed from such.

use super::product::Data;
use crate::simd::Simd;
use half::bf16;

/// A number in memory that is computed with as `f32`.
pub(crate) trait Stored: Copy + Default + Send + Sync + 'static {
    /// How a product sees these numbers.
    fn data(values: &[Self]) -> Data<'_>;
    /// Loads `LANES` numbers, or the first `n` and zeros.
    unsafe fn load<S: Simd>(p: *const Self, n: usize) -> S::F;
    /// Stores `LANES` numbers, or the first `n`.
    unsafe fn store<S: Simd>(p: *mut Self, v: S::F, n: usize);
}

impl Stored for f32 {
    fn data(values: &[Self]) -> Data<'_> {
        Data::F32(values)
    }

    #[inline(always)]
    unsafe fn load<S: Simd>(p: *const Self, n: usize) -> S::F {
        if n >= S::LANES { S::load(p) } else { S::load_partial(p, n) }
    }

    #[inline(always)]
    unsafe fn store<S: Simd>(p: *mut Self, v: S::F, n: usize) {
        if n >= S::LANES { S::store(p, v) } else { S::store_partial(p, v, n) }
    }
}

impl Stored for bf16 {
    fn data(values: &[Self]) -> Data<'_> {
        Data::Bf16(values)
    }

    #[inline(always)]
    unsafe fn load<S: Simd>(p: *const Self, n: usize) -> S::F {
        if n >= S::LANES {
            return S::load_bf16(p.cast());
        }
        let mut all = [bf16::ZERO; 16];
        std::ptr::copy_nonoverlapping(p, all.as_mut_ptr(), n);
        S::load_bf16(all.as_ptr().cast())
    }

    #[inline(always)]
    unsafe fn store<S: Simd>(p: *mut Self, v: S::F, n: usize) {
        if n >= S::LANES {
            return S::store_bf16(p.cast(), v);
        }
        let mut all = [bf16::ZERO; 16];
        S::store_bf16(all.as_mut_ptr().cast(), v);
        std::ptr::copy_nonoverlapping(all.as_ptr(), p, n);
    }
}
