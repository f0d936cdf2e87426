//! Numbers as they are kept between passes: `f32`, or bf16 where products are computed from such.

use super::product::{Data, Product};
use crate::{
    pool::SharedMut,
    simd::{Simd, dispatch},
};
use half::bf16;

/// A number in memory that is computed with as `f32`.
pub(crate) trait Stored: Copy + Default + Send + Sync + 'static {
    /// How a product sees these numbers.
    fn data(values: &[Self]) -> Data<'_>;
    /// The number.
    fn to_f32(self) -> f32;
    /// `x` as such numbers: itself, or rounded into `buffer`.
    fn view<'a>(run: &Product<'_>, x: &'a [f32], buffer: &'a mut Vec<Self>) -> &'a [Self];
    /// Loads `LANES` numbers, or the first `n` and zeros.
    unsafe fn load<S: Simd>(p: *const Self, n: usize) -> S::F;
    /// Stores `LANES` numbers, or the first `n`.
    unsafe fn store<S: Simd>(p: *mut Self, v: S::F, n: usize);
}

impl Stored for f32 {
    fn to_f32(self) -> f32 {
        self
    }

    fn data(values: &[Self]) -> Data<'_> {
        Data::F32(values)
    }

    fn view<'a>(_: &Product<'_>, x: &'a [f32], _: &'a mut Vec<Self>) -> &'a [Self] {
        x
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
    fn to_f32(self) -> f32 {
        self.to_f32()
    }

    fn data(values: &[Self]) -> Data<'_> {
        Data::Bf16(values)
    }

    fn view<'a>(run: &Product<'_>, x: &'a [f32], buffer: &'a mut Vec<Self>) -> &'a [Self] {
        buffer.resize(x.len(), Self::ZERO);
        let out = SharedMut::new(buffer);
        run.pool.for_ranges(x.len(), 1 << 13, |_, range| {
            // SAFETY: ranges are disjoint and inside both; `isa` is available on this CPU.
            unsafe {
                let out = out.slice(range.start, range.len()).as_mut_ptr();
                round(run.isa, x[range.clone()].as_ptr(), range.len(), out);
            }
        });
        buffer
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

dispatch! {
    unsafe fn round(x: *const f32, n: usize, out: *mut bf16) = round_kernel;
}

#[inline(always)]
unsafe fn round_kernel<S: Simd>(x: *const f32, n: usize, out: *mut bf16) {
    let mut i = 0;
    while i < n {
        bf16::store::<S>(out.add(i), f32::load::<S>(x.add(i), n - i), n - i);
        i += S::LANES;
    }
}
