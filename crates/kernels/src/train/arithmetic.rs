//! `f32` or bf16, and the instruction set: picked once for a kernel that is written once.

use super::packing::{Narrowed, Pack, Plain};
use crate::{
    Isa,
    gemm::{Floats, Multiply, Pairs, WidenedPairs},
    simd::Simd,
};

/// With what products are computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compute {
    /// `f32` inputs and sums.
    #[default]
    F32,
    /// Inputs rounded to bf16, sums in `f32`. Where the CPU multiplies pairs of bf16 ([`Isa::has_bf16_dot`]) this is faster;
    /// elsewhere the results are the same, and it is slower.
    Bf16,
}

/// A kernel that multiplies with `M`, from numbers that `P` packs.
pub(crate) trait Kernel {
    /// Runs it.
    ///
    /// # Safety
    /// Only where the CPU has `S` and what `M` needs.
    unsafe fn run<S: Simd, M: Multiply<S>, P: Pack<S, From = f32>>(&self);
}

/// Runs a kernel compiled for an instruction set.
///
/// # Safety
/// The CPU has `isa`.
pub(crate) unsafe fn launch<K: Kernel>(isa: Isa, compute: Compute, kernel: &K) {
    use crate::simd::Scalar;
    #[cfg(target_arch = "x86_64")]
    {
        use crate::simd::{Avx2, Avx512};
        #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512bf16")]
        unsafe fn avx512_pairs<K: Kernel>(kernel: &K) {
            kernel.run::<Avx512, Pairs, Narrowed>();
        }
        #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
        unsafe fn avx512<M: Multiply<Avx512>, P: Pack<Avx512, From = f32>, K: Kernel>(kernel: &K) {
            kernel.run::<Avx512, M, P>();
        }
        #[target_feature(enable = "avx2,fma,f16c")]
        unsafe fn avx2<M: Multiply<Avx2>, P: Pack<Avx2, From = f32>, K: Kernel>(kernel: &K) {
            kernel.run::<Avx2, M, P>();
        }
        match (isa, compute) {
            (Isa::Avx512, Compute::F32) => return avx512::<Floats, Plain, K>(kernel),
            (Isa::Avx512, Compute::Bf16) if isa.has_bf16_dot() => return avx512_pairs(kernel),
            (Isa::Avx512, Compute::Bf16) => return avx512::<WidenedPairs, Narrowed, K>(kernel),
            (Isa::Avx2, Compute::F32) => return avx2::<Floats, Plain, K>(kernel),
            (Isa::Avx2, Compute::Bf16) => return avx2::<WidenedPairs, Narrowed, K>(kernel),
            (Isa::Scalar, _) => {}
        }
    }
    match compute {
        Compute::F32 => kernel.run::<Scalar, Floats, Plain>(),
        Compute::Bf16 => kernel.run::<Scalar, Pairs, Narrowed>(),
    }
}
