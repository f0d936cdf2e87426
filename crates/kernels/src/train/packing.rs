//! Packing of a side of a product into the order of the inner tile: `[step, lane]`.

use super::{
    product::{Operand, Strip},
    stored::Stored,
};
use crate::simd::{Simd, dispatch};
use half::bf16;

/// How numbers become steps of a packing.
pub(crate) trait Pack<S: Simd> {
    /// As stored.
    type From;
    /// Numbers in a step.
    const STEP: usize;
    /// `LANES` steps of one row from `p`, where `left` numbers are left.
    unsafe fn along(p: *const Self::From, left: usize) -> S::F;
    /// One step of up to `LANES` rows: `next` is where the second number of a pair is, if there is one.
    unsafe fn across(p: *const Self::From, next: Option<*const Self::From>, rows: usize) -> S::F;
}

/// `f32`, as they are.
pub(crate) struct Plain;
/// `f32`, rounded to pairs of bf16.
pub(crate) struct Narrowed;
/// Pairs of bf16, as they are.
pub(crate) struct Paired;

impl<S: Simd> Pack<S> for Plain {
    type From = f32;
    const STEP: usize = 1;
    #[inline(always)]
    unsafe fn along(p: *const f32, left: usize) -> S::F {
        f32::load::<S>(p, left)
    }
    #[inline(always)]
    unsafe fn across(p: *const f32, _: Option<*const f32>, rows: usize) -> S::F {
        f32::load::<S>(p, rows)
    }
}

impl<S: Simd> Pack<S> for Narrowed {
    type From = f32;
    const STEP: usize = 2;
    #[inline(always)]
    unsafe fn along(p: *const f32, left: usize) -> S::F {
        let a = f32::load::<S>(p, left);
        let b =
            if left > S::LANES { f32::load::<S>(p.add(S::LANES), left - S::LANES) } else { S::splat(0.0) };
        S::narrow_pairs(S::round_bf16(a), S::round_bf16(b))
    }
    #[inline(always)]
    unsafe fn across(p: *const f32, next: Option<*const f32>, rows: usize) -> S::F {
        let low = f32::load::<S>(p, rows);
        let high = next.map_or(S::splat(0.0), |p| f32::load::<S>(p, rows));
        S::zip_pairs(S::round_bf16(low), S::round_bf16(high))
    }
}

impl<S: Simd> Pack<S> for Paired {
    type From = bf16;
    const STEP: usize = 2;
    #[inline(always)]
    unsafe fn along(p: *const bf16, left: usize) -> S::F {
        if left >= 2 * S::LANES {
            return S::load(p.cast());
        }
        let mut all = [bf16::ZERO; 32];
        std::ptr::copy_nonoverlapping(p, all.as_mut_ptr(), left);
        S::load(all.as_ptr().cast())
    }
    #[inline(always)]
    unsafe fn across(p: *const bf16, next: Option<*const bf16>, rows: usize) -> S::F {
        let low = bf16::load::<S>(p, rows);
        S::zip_pairs(low, next.map_or(S::splat(0.0), |p| bf16::load::<S>(p, rows)))
    }
}

dispatch! {
    pub(super) unsafe fn pack_floats(operand: &Operand<'_>, data: &[f32], strip: &Strip, width: usize, out: *mut f32) = pack_floats_kernel;
}
dispatch! {
    pub(super) unsafe fn pack_narrowed(operand: &Operand<'_>, data: &[f32], strip: &Strip, width: usize, out: *mut f32) = pack_narrowed_kernel;
}
dispatch! {
    pub(super) unsafe fn pack_pairs(operand: &Operand<'_>, data: &[bf16], strip: &Strip, width: usize, out: *mut f32) = pack_pairs_kernel;
}

#[inline(always)]
unsafe fn pack_floats_kernel<S: Simd>(
    o: &Operand<'_>,
    data: &[f32],
    strip: &Strip,
    width: usize,
    out: *mut f32,
) {
    pack_strip::<S, Plain>(o, data, strip, width, out);
}
#[inline(always)]
unsafe fn pack_narrowed_kernel<S: Simd>(
    o: &Operand<'_>,
    data: &[f32],
    strip: &Strip,
    width: usize,
    out: *mut f32,
) {
    pack_strip::<S, Narrowed>(o, data, strip, width, out);
}
#[inline(always)]
unsafe fn pack_pairs_kernel<S: Simd>(
    o: &Operand<'_>,
    data: &[bf16],
    strip: &Strip,
    width: usize,
    out: *mut f32,
) {
    pack_strip::<S, Paired>(o, data, strip, width, out);
}

/// Packs the rows of a strip as `[step, width]`, zeros in the lanes beyond its rows.
#[inline(always)]
pub(super) unsafe fn pack_strip<S: Simd, P: Pack<S>>(
    operand: &Operand<'_>,
    data: &[P::From],
    strip: &Strip,
    width: usize,
    out: *mut f32,
) {
    let inner = operand.inner;
    let store = |p: *mut f32, v: S::F, lanes: usize| f32::store::<S>(p, v, lanes);
    if !operand.along_k {
        for step in 0..inner.div_ceil(P::STEP) {
            let k = step * P::STEP;
            let row = |k: usize| data.as_ptr().add(operand.row(k) + strip.first);
            let (p, next) = (row(k), (P::STEP == 2 && k + 1 < inner).then(|| row(k + 1)));
            let mut lane = 0;
            while lane < width {
                let v = if lane < strip.rows {
                    P::across(p.add(lane), next.map(|p| p.add(lane)), strip.rows - lane)
                } else {
                    S::splat(0.0)
                };
                store(out.add(step * width + lane), v, width - lane);
                lane += S::LANES;
            }
        }
        return;
    }
    let steps = inner.div_ceil(P::STEP);
    let mut group = 0;
    while group < width {
        let lanes = (width - group).min(S::LANES);
        let mut rows = [data.as_ptr(); 16];
        let real = strip.rows.saturating_sub(group).min(lanes);
        for (r, row) in rows[..real].iter_mut().enumerate() {
            *row = row.add(operand.row(strip.first + group + r));
        }
        let mut step = 0;
        while step < steps {
            let k = step * P::STEP;
            let mut block = [S::splat(0.0); 16];
            for (v, row) in block.iter_mut().zip(&rows[..real]) {
                *v = P::along(row.add(k), inner - k);
            }
            S::transpose(&mut block);
            for (s, v) in block[..S::LANES.min(steps - step)].iter().enumerate() {
                store(out.add((step + s) * width + group), *v, lanes);
            }
            step += S::LANES;
        }
        group += S::LANES;
    }
}
