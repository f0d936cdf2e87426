//! Vectors of `f32` and `i32` behind one trait, so that a kernel is written once.
//!
//! All methods are `inline(always)`: a kernel that is generic over [`Simd`] becomes machine code of an
//! instruction set only inside a function that enables it (the [`dispatch!`](crate::simd) macro writes these).
//!
//! Methods are unsafe because they must only run where the CPU has the instructions, and loads and stores
//! trust their pointers.

/// One instruction set's vectors: `LANES` values of 32 bits.
pub trait Simd: Copy + Send + Sync + 'static {
    /// `LANES` floats.
    type F: Copy;
    /// `LANES` 32-bit integers, or `4 × LANES` bytes.
    type I: Copy;
    /// Lanes of 32 bits in a vector.
    const LANES: usize;
    /// What an 8-bit dot product starts from, given the sum of the block's inputs (see [`Simd::dot_q8`]).
    const Q8_INIT: i32;

    /// All lanes `x`.
    unsafe fn splat(x: f32) -> Self::F;
    /// Loads `LANES` floats.
    unsafe fn load(p: *const f32) -> Self::F;
    /// Loads `LANES` bfloat16 values, widened.
    unsafe fn load_bf16(p: *const u8) -> Self::F;
    /// Loads `2 × LANES` bfloat16 values, widened: those at even places, then those at odd places.
    unsafe fn load_bf16_pairs(p: *const u8) -> [Self::F; 2];
    /// Loads `LANES` half floats, widened.
    unsafe fn load_f16(p: *const u8) -> Self::F;
    /// Stores `LANES` floats.
    unsafe fn store(p: *mut f32, v: Self::F);
    /// `a + b`
    unsafe fn add(a: Self::F, b: Self::F) -> Self::F;
    /// `a - b`
    unsafe fn sub(a: Self::F, b: Self::F) -> Self::F;
    /// `a * b`
    unsafe fn mul(a: Self::F, b: Self::F) -> Self::F;
    /// `a / b`
    unsafe fn div(a: Self::F, b: Self::F) -> Self::F;
    /// `a * b + c`
    unsafe fn fma(a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// The larger of each lane; `b` where either is no number.
    unsafe fn max(a: Self::F, b: Self::F) -> Self::F;
    /// The smaller of each lane; `b` where either is no number.
    unsafe fn min(a: Self::F, b: Self::F) -> Self::F;
    /// Nearest integer, ties to even.
    unsafe fn round(a: Self::F) -> Self::F;
    /// `2^n` of integral `n` in −126..=127.
    unsafe fn pow2(n: Self::F) -> Self::F;
    /// Sum of the lanes, in a fixed order.
    unsafe fn sum(a: Self::F) -> f32;
    /// Largest lane.
    unsafe fn max_lane(a: Self::F) -> f32;
    /// Transposes the `LANES × LANES` block in the first `LANES` elements.
    unsafe fn transpose(block: &mut [Self::F; 16]);
    /// Rounds to the nearest bfloat16, ties to even; the result is that number as a float.
    unsafe fn round_bf16(v: Self::F) -> Self::F;
    /// Pairs of bfloat16 in the lanes: of `low` in the low half, of `high` in the high half. Both are such numbers
    /// ([`Simd::round_bf16`]).
    unsafe fn zip_pairs(low: Self::F, high: Self::F) -> Self::F;
    /// Pairs of bfloat16 of `2 × LANES` consecutive numbers, those of `a` first. Both are such numbers.
    unsafe fn narrow_pairs(a: Self::F, b: Self::F) -> Self::F;
    /// The low and the high bfloat16 of each pair, widened.
    unsafe fn split_pairs(v: Self::F) -> [Self::F; 2];
    /// Stores `LANES` bfloat16 values, rounded.
    unsafe fn store_bf16(p: *mut u8, v: Self::F);

    /// All lanes `x`.
    unsafe fn splat_i(x: i32) -> Self::I;
    /// Loads `4 × LANES` bytes.
    unsafe fn load_i(p: *const u8) -> Self::I;
    /// The low four bits of every byte.
    unsafe fn low_nibbles(v: Self::I) -> Self::I;
    /// The high four bits of every byte.
    unsafe fn high_nibbles(v: Self::I) -> Self::I;
    /// Adds to each lane the dot product of its four bytes of `w` (0..=15) with those of `x` (−127..=127).
    unsafe fn dot_q4(acc: Self::I, w: Self::I, x: Self::I) -> Self::I;
    /// Adds to each lane the dot product of its four bytes of `w` (weight + 128) with those of `x` (−127..=127).
    ///
    /// Either the stored byte itself is multiplied, and the accumulator starts from `−128 × Σx`
    /// (`Q8_INIT = −128`), or the 128 is taken off first (`Q8_INIT = 0`).
    unsafe fn dot_q8(acc: Self::I, w: Self::I, x: Self::I) -> Self::I;
    /// Integers to floats.
    unsafe fn to_float(v: Self::I) -> Self::F;

    /// Asks for the cache line at `p`, which may be any address.
    #[inline(always)]
    unsafe fn prefetch(p: *const u8) {
        #[cfg(target_arch = "x86_64")]
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(p.cast());
        #[cfg(not(target_arch = "x86_64"))]
        let _ = p;
    }

    /// Loads `n < LANES` floats and zeros.
    #[inline(always)]
    unsafe fn load_partial(p: *const f32, n: usize) -> Self::F {
        let mut all = [0.0f32; 16];
        std::ptr::copy_nonoverlapping(p, all.as_mut_ptr(), n);
        Self::load(all.as_ptr())
    }

    /// Stores the first `n < LANES` floats.
    #[inline(always)]
    unsafe fn store_partial(p: *mut f32, v: Self::F, n: usize) {
        let mut all = [0.0f32; 16];
        Self::store(all.as_mut_ptr(), v);
        std::ptr::copy_nonoverlapping(all.as_ptr(), p, n);
    }

    /// `e^x` to about 1e-7 relative; that of −87.3 (1e-38) below it, that of 88 (2e38) above it. What is no number stays none.
    ///
    /// Cody–Waite reduction and the degree-5 polynomial of Cephes `expf`.
    #[inline(always)]
    unsafe fn exp(x: Self::F) -> Self::F {
        // Of two operands one of which is no number, the instructions give the second.
        let x = Self::min(Self::splat(88.0), Self::max(Self::splat(-87.336_54), x));
        let n = Self::round(Self::mul(x, Self::splat(std::f32::consts::LOG2_E)));
        let r = Self::fma(n, Self::splat(-0.693_359_4), x);
        let r = Self::fma(n, Self::splat(2.121_944_4e-4), r);
        let mut p = Self::splat(1.987_569_1e-4);
        for c in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 5.000_000_3e-1] {
            p = Self::fma(p, r, Self::splat(c));
        }
        let p = Self::fma(Self::mul(p, r), r, Self::add(r, Self::splat(1.0)));
        Self::mul(p, Self::pow2(n))
    }
}

/// Instruction sets that multiply pairs of bf16 values: each 32-bit lane of `a` and `b` holds two of them.
pub trait PairDot: Simd {
    /// Adds the two products of each lane to `acc`.
    unsafe fn pair_dot(acc: Self::F, a: Self::F, b: Self::F) -> Self::F;
}

/// The portable twin: plain arrays, which compilers turn into vectors of whatever the target has.
#[derive(Clone, Copy)]
pub struct Scalar;

const N: usize = 8;

#[inline(always)]
fn each<T: Copy, U: Copy, V: Copy + Default>(a: [T; N], b: [U; N], f: impl Fn(T, U) -> V) -> [V; N] {
    let mut out = [V::default(); N];
    for i in 0..N {
        out[i] = f(a[i], b[i]);
    }
    out
}

impl Simd for Scalar {
    type F = [f32; N];
    type I = [[u8; 4]; N];
    const LANES: usize = N;
    const Q8_INIT: i32 = -128;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self::F {
        [x; N]
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self::F {
        p.cast::<[f32; N]>().read_unaligned()
    }
    #[inline(always)]
    unsafe fn load_bf16(p: *const u8) -> Self::F {
        let bits = p.cast::<[u16; N]>().read_unaligned();
        bits.map(|b| f32::from_bits(u32::from(u16::from_le(b)) << 16))
    }
    #[inline(always)]
    unsafe fn load_bf16_pairs(p: *const u8) -> [Self::F; 2] {
        let bits = p.cast::<[u32; N]>().read_unaligned().map(u32::from_le);
        [bits.map(|b| f32::from_bits(b << 16)), bits.map(|b| f32::from_bits(b & 0xffff_0000))]
    }
    #[inline(always)]
    unsafe fn load_f16(p: *const u8) -> Self::F {
        let bits = p.cast::<[u16; N]>().read_unaligned();
        bits.map(|b| half::f16::from_bits(u16::from_le(b)).to_f32())
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, v: Self::F) {
        p.cast::<[f32; N]>().write_unaligned(v);
    }
    #[inline(always)]
    unsafe fn add(a: Self::F, b: Self::F) -> Self::F {
        each(a, b, |a, b| a + b)
    }
    #[inline(always)]
    unsafe fn sub(a: Self::F, b: Self::F) -> Self::F {
        each(a, b, |a, b| a - b)
    }
    #[inline(always)]
    unsafe fn mul(a: Self::F, b: Self::F) -> Self::F {
        each(a, b, |a, b| a * b)
    }
    #[inline(always)]
    unsafe fn div(a: Self::F, b: Self::F) -> Self::F {
        each(a, b, |a, b| a / b)
    }
    #[inline(always)]
    unsafe fn fma(a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        Self::add(Self::mul(a, b), c)
    }
    #[inline(always)]
    unsafe fn max(a: Self::F, b: Self::F) -> Self::F {
        each(a, b, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    unsafe fn min(a: Self::F, b: Self::F) -> Self::F {
        each(a, b, |a, b| if a < b { a } else { b })
    }
    #[inline(always)]
    unsafe fn round(a: Self::F) -> Self::F {
        a.map(f32::round_ties_even)
    }
    #[inline(always)]
    unsafe fn pow2(n: Self::F) -> Self::F {
        n.map(|n| f32::from_bits(((n as i32 + 127) << 23) as u32))
    }
    #[inline(always)]
    unsafe fn sum(a: Self::F) -> f32 {
        ((a[0] + a[4]) + (a[2] + a[6])) + ((a[1] + a[5]) + (a[3] + a[7]))
    }
    #[inline(always)]
    unsafe fn max_lane(a: Self::F) -> f32 {
        a.into_iter().fold(f32::NEG_INFINITY, f32::max)
    }
    #[inline(always)]
    unsafe fn transpose(block: &mut [Self::F; 16]) {
        for i in 0..N {
            for j in 0..i {
                let t = block[i][j];
                block[i][j] = block[j][i];
                block[j][i] = t;
            }
        }
    }
    #[inline(always)]
    unsafe fn round_bf16(v: Self::F) -> Self::F {
        v.map(|x| {
            let bits = x.to_bits();
            f32::from_bits(bits.wrapping_add(0x7fff + (bits >> 16 & 1)) & 0xffff_0000)
        })
    }
    #[inline(always)]
    unsafe fn zip_pairs(low: Self::F, high: Self::F) -> Self::F {
        each(low, high, |low, high| f32::from_bits(low.to_bits() >> 16 | high.to_bits()))
    }
    #[inline(always)]
    unsafe fn narrow_pairs(a: Self::F, b: Self::F) -> Self::F {
        let mut out = [0.0; N];
        for i in 0..N {
            let v = if i < N / 2 { a } else { b };
            let (low, high) = (v[2 * i % N], v[(2 * i + 1) % N]);
            out[i] = f32::from_bits(low.to_bits() >> 16 | high.to_bits());
        }
        out
    }
    #[inline(always)]
    unsafe fn split_pairs(v: Self::F) -> [Self::F; 2] {
        [v.map(|x| f32::from_bits(x.to_bits() << 16)), v.map(|x| f32::from_bits(x.to_bits() & 0xffff_0000))]
    }
    #[inline(always)]
    unsafe fn store_bf16(p: *mut u8, v: Self::F) {
        let bits = Self::round_bf16(v).map(|x| ((x.to_bits() >> 16) as u16).to_le());
        p.cast::<[u16; N]>().write_unaligned(bits);
    }
    #[inline(always)]
    unsafe fn splat_i(x: i32) -> Self::I {
        [x.to_le_bytes(); N]
    }
    #[inline(always)]
    unsafe fn load_i(p: *const u8) -> Self::I {
        p.cast::<[[u8; 4]; N]>().read_unaligned()
    }
    #[inline(always)]
    unsafe fn low_nibbles(v: Self::I) -> Self::I {
        v.map(|lane| lane.map(|b| b & 15))
    }
    #[inline(always)]
    unsafe fn high_nibbles(v: Self::I) -> Self::I {
        v.map(|lane| lane.map(|b| b >> 4))
    }
    #[inline(always)]
    unsafe fn dot_q4(acc: Self::I, w: Self::I, x: Self::I) -> Self::I {
        let mut out = acc;
        for i in 0..N {
            let mut sum = i32::from_le_bytes(acc[i]);
            for j in 0..4 {
                sum += i32::from(w[i][j]) * i32::from(x[i][j] as i8);
            }
            out[i] = sum.to_le_bytes();
        }
        out
    }
    #[inline(always)]
    unsafe fn dot_q8(acc: Self::I, w: Self::I, x: Self::I) -> Self::I {
        Self::dot_q4(acc, w, x)
    }
    #[inline(always)]
    unsafe fn to_float(v: Self::I) -> Self::F {
        v.map(|lane| i32::from_le_bytes(lane) as f32)
    }
}

impl PairDot for Scalar {
    #[inline(always)]
    unsafe fn pair_dot(acc: Self::F, a: Self::F, b: Self::F) -> Self::F {
        let low = |x: f32| f32::from_bits(x.to_bits() << 16);
        let high = |x: f32| f32::from_bits(x.to_bits() & 0xffff_0000);
        let odd = each(a, b, |a, b| high(a) * high(b));
        let even = each(a, b, |a, b| low(a) * low(b));
        each(each(acc, odd, |c, p| c + p), even, |c, p| c + p)
    }
}

#[cfg(target_arch = "x86_64")]
pub use x86::{Avx2, Avx512};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{PairDot, Simd};
    use std::arch::x86_64::*;

    /// AVX2 with FMA and F16C: 8 lanes.
    #[derive(Clone, Copy)]
    pub struct Avx2;

    impl Simd for Avx2 {
        type F = __m256;
        type I = __m256i;
        const LANES: usize = 8;
        const Q8_INIT: i32 = 0;

        #[inline(always)]
        unsafe fn splat(x: f32) -> __m256 {
            _mm256_set1_ps(x)
        }
        #[inline(always)]
        unsafe fn load(p: *const f32) -> __m256 {
            _mm256_loadu_ps(p)
        }
        #[inline(always)]
        unsafe fn load_bf16(p: *const u8) -> __m256 {
            let bits = _mm256_cvtepu16_epi32(_mm_loadu_si128(p.cast()));
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(bits))
        }
        #[inline(always)]
        unsafe fn load_bf16_pairs(p: *const u8) -> [__m256; 2] {
            let bits = _mm256_loadu_si256(p.cast());
            let odd = _mm256_and_si256(bits, _mm256_set1_epi32(0xffff_0000u32 as i32));
            [_mm256_castsi256_ps(_mm256_slli_epi32::<16>(bits)), _mm256_castsi256_ps(odd)]
        }
        #[inline(always)]
        unsafe fn load_f16(p: *const u8) -> __m256 {
            _mm256_cvtph_ps(_mm_loadu_si128(p.cast()))
        }
        #[inline(always)]
        unsafe fn store(p: *mut f32, v: __m256) {
            _mm256_storeu_ps(p, v);
        }
        #[inline(always)]
        unsafe fn add(a: __m256, b: __m256) -> __m256 {
            _mm256_add_ps(a, b)
        }
        #[inline(always)]
        unsafe fn sub(a: __m256, b: __m256) -> __m256 {
            _mm256_sub_ps(a, b)
        }
        #[inline(always)]
        unsafe fn mul(a: __m256, b: __m256) -> __m256 {
            _mm256_mul_ps(a, b)
        }
        #[inline(always)]
        unsafe fn div(a: __m256, b: __m256) -> __m256 {
            _mm256_div_ps(a, b)
        }
        #[inline(always)]
        unsafe fn fma(a: __m256, b: __m256, c: __m256) -> __m256 {
            _mm256_fmadd_ps(a, b, c)
        }
        #[inline(always)]
        unsafe fn max(a: __m256, b: __m256) -> __m256 {
            _mm256_max_ps(a, b)
        }
        #[inline(always)]
        unsafe fn min(a: __m256, b: __m256) -> __m256 {
            _mm256_min_ps(a, b)
        }
        #[inline(always)]
        unsafe fn round(a: __m256) -> __m256 {
            _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a)
        }
        #[inline(always)]
        unsafe fn pow2(n: __m256) -> __m256 {
            let exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
            _mm256_castsi256_ps(_mm256_slli_epi32::<23>(exponent))
        }
        #[inline(always)]
        unsafe fn sum(a: __m256) -> f32 {
            let s = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let s = _mm_add_ps(s, _mm_movehl_ps(s, s));
            _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)))
        }
        #[inline(always)]
        unsafe fn max_lane(a: __m256) -> f32 {
            let s = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let s = _mm_max_ps(s, _mm_movehl_ps(s, s));
            _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)))
        }
        #[inline(always)]
        unsafe fn transpose(b: &mut [__m256; 16]) {
            let mut t = [_mm256_setzero_ps(); 8];
            for i in 0..4 {
                t[2 * i] = _mm256_unpacklo_ps(b[2 * i], b[2 * i + 1]);
                t[2 * i + 1] = _mm256_unpackhi_ps(b[2 * i], b[2 * i + 1]);
            }
            let mut u = [_mm256_setzero_ps(); 8];
            for half in 0..2 {
                for j in 0..2 {
                    let (low, high) = (t[4 * half + j], t[4 * half + j + 2]);
                    u[4 * half + 2 * j] = _mm256_shuffle_ps::<0x44>(low, high);
                    u[4 * half + 2 * j + 1] = _mm256_shuffle_ps::<0xee>(low, high);
                }
            }
            for j in 0..4 {
                b[j] = _mm256_permute2f128_ps::<0x20>(u[j], u[4 + j]);
                b[4 + j] = _mm256_permute2f128_ps::<0x31>(u[j], u[4 + j]);
            }
        }
        #[inline(always)]
        unsafe fn round_bf16(v: __m256) -> __m256 {
            let bits = _mm256_castps_si256(v);
            let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
            let bits = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
            _mm256_castsi256_ps(_mm256_and_si256(bits, _mm256_set1_epi32(0xffff_0000u32 as i32)))
        }
        #[inline(always)]
        unsafe fn zip_pairs(low: __m256, high: __m256) -> __m256 {
            let low = _mm256_srli_epi32::<16>(_mm256_castps_si256(low));
            _mm256_castsi256_ps(_mm256_or_si256(low, _mm256_castps_si256(high)))
        }
        #[inline(always)]
        unsafe fn narrow_pairs(a: __m256, b: __m256) -> __m256 {
            let a = _mm256_srli_epi32::<16>(_mm256_castps_si256(a));
            let b = _mm256_srli_epi32::<16>(_mm256_castps_si256(b));
            _mm256_castsi256_ps(_mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packus_epi32(a, b)))
        }
        #[inline(always)]
        unsafe fn split_pairs(v: __m256) -> [__m256; 2] {
            let bits = _mm256_castps_si256(v);
            let high = _mm256_and_si256(bits, _mm256_set1_epi32(0xffff_0000u32 as i32));
            [_mm256_castsi256_ps(_mm256_slli_epi32::<16>(bits)), _mm256_castsi256_ps(high)]
        }
        #[inline(always)]
        unsafe fn store_bf16(p: *mut u8, v: __m256) {
            let v = Self::round_bf16(v);
            let pairs = _mm256_castps_si256(Self::narrow_pairs(v, v));
            _mm_storeu_si128(p.cast(), _mm256_castsi256_si128(pairs));
        }
        #[inline(always)]
        unsafe fn load_partial(p: *const f32, n: usize) -> __m256 {
            _mm256_maskload_ps(p, lanes_below(n))
        }
        #[inline(always)]
        unsafe fn store_partial(p: *mut f32, v: __m256, n: usize) {
            _mm256_maskstore_ps(p, lanes_below(n), v);
        }
        #[inline(always)]
        unsafe fn splat_i(x: i32) -> __m256i {
            _mm256_set1_epi32(x)
        }
        #[inline(always)]
        unsafe fn load_i(p: *const u8) -> __m256i {
            _mm256_loadu_si256(p.cast())
        }
        #[inline(always)]
        unsafe fn low_nibbles(v: __m256i) -> __m256i {
            _mm256_and_si256(v, _mm256_set1_epi8(15))
        }
        #[inline(always)]
        unsafe fn high_nibbles(v: __m256i) -> __m256i {
            _mm256_and_si256(_mm256_srli_epi16::<4>(v), _mm256_set1_epi8(15))
        }
        #[inline(always)]
        unsafe fn dot_q4(acc: __m256i, w: __m256i, x: __m256i) -> __m256i {
            // At most 2 × 15 × 127 a pair: the 16-bit sums cannot saturate.
            let pairs = _mm256_maddubs_epi16(w, x);
            _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
        }
        #[inline(always)]
        unsafe fn dot_q8(acc: __m256i, w: __m256i, x: __m256i) -> __m256i {
            // |w| ≤ 127 and the sign moved to x: at most 2 × 127 × 127 a pair, which does not saturate.
            let w = _mm256_xor_si256(w, _mm256_set1_epi8(-128));
            let pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w));
            _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
        }
        #[inline(always)]
        unsafe fn to_float(v: __m256i) -> __m256 {
            _mm256_cvtepi32_ps(v)
        }
    }

    /// All bits of the lanes below `n`.
    #[inline(always)]
    unsafe fn lanes_below(n: usize) -> __m256i {
        _mm256_cmpgt_epi32(_mm256_set1_epi32(n as i32), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7))
    }

    /// AVX-512 with VNNI: 16 lanes.
    #[derive(Clone, Copy)]
    pub struct Avx512;

    impl Simd for Avx512 {
        type F = __m512;
        type I = __m512i;
        const LANES: usize = 16;
        const Q8_INIT: i32 = -128;

        #[inline(always)]
        unsafe fn splat(x: f32) -> __m512 {
            _mm512_set1_ps(x)
        }
        #[inline(always)]
        unsafe fn load(p: *const f32) -> __m512 {
            _mm512_loadu_ps(p)
        }
        #[inline(always)]
        unsafe fn load_bf16(p: *const u8) -> __m512 {
            let bits = _mm512_cvtepu16_epi32(_mm256_loadu_si256(p.cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(bits))
        }
        #[inline(always)]
        unsafe fn load_bf16_pairs(p: *const u8) -> [__m512; 2] {
            let bits = _mm512_loadu_si512(p.cast());
            let odd = _mm512_and_si512(bits, _mm512_set1_epi32(0xffff_0000u32 as i32));
            [_mm512_castsi512_ps(_mm512_slli_epi32::<16>(bits)), _mm512_castsi512_ps(odd)]
        }
        #[inline(always)]
        unsafe fn load_f16(p: *const u8) -> __m512 {
            _mm512_cvtph_ps(_mm256_loadu_si256(p.cast()))
        }
        #[inline(always)]
        unsafe fn store(p: *mut f32, v: __m512) {
            _mm512_storeu_ps(p, v);
        }
        #[inline(always)]
        unsafe fn add(a: __m512, b: __m512) -> __m512 {
            _mm512_add_ps(a, b)
        }
        #[inline(always)]
        unsafe fn sub(a: __m512, b: __m512) -> __m512 {
            _mm512_sub_ps(a, b)
        }
        #[inline(always)]
        unsafe fn mul(a: __m512, b: __m512) -> __m512 {
            _mm512_mul_ps(a, b)
        }
        #[inline(always)]
        unsafe fn div(a: __m512, b: __m512) -> __m512 {
            _mm512_div_ps(a, b)
        }
        #[inline(always)]
        unsafe fn fma(a: __m512, b: __m512, c: __m512) -> __m512 {
            _mm512_fmadd_ps(a, b, c)
        }
        #[inline(always)]
        unsafe fn max(a: __m512, b: __m512) -> __m512 {
            _mm512_max_ps(a, b)
        }
        #[inline(always)]
        unsafe fn min(a: __m512, b: __m512) -> __m512 {
            _mm512_min_ps(a, b)
        }
        #[inline(always)]
        unsafe fn round(a: __m512) -> __m512 {
            _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a)
        }
        #[inline(always)]
        unsafe fn pow2(n: __m512) -> __m512 {
            let exponent = _mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127));
            _mm512_castsi512_ps(_mm512_slli_epi32::<23>(exponent))
        }
        #[inline(always)]
        unsafe fn sum(a: __m512) -> f32 {
            let high = _mm512_extractf32x8_ps::<1>(a);
            let s = _mm256_add_ps(_mm512_castps512_ps256(a), high);
            let s = _mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps::<1>(s));
            let s = _mm_add_ps(s, _mm_movehl_ps(s, s));
            _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)))
        }
        #[inline(always)]
        unsafe fn max_lane(a: __m512) -> f32 {
            let s = _mm256_max_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps::<1>(a));
            let s = _mm_max_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps::<1>(s));
            let s = _mm_max_ps(s, _mm_movehl_ps(s, s));
            _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)))
        }
        #[inline(always)]
        unsafe fn transpose(b: &mut [__m512; 16]) {
            let zero = _mm512_setzero_ps();
            let mut t = [zero; 16];
            for i in 0..8 {
                t[2 * i] = _mm512_unpacklo_ps(b[2 * i], b[2 * i + 1]);
                t[2 * i + 1] = _mm512_unpackhi_ps(b[2 * i], b[2 * i + 1]);
            }
            // u[4q + c] holds, in its 128-bit lane L, column 4L + c of rows 4q..4q + 4.
            let mut u = [zero; 16];
            for q in 0..4 {
                for j in 0..2 {
                    let (low, high) = (t[4 * q + j], t[4 * q + j + 2]);
                    u[4 * q + 2 * j] = _mm512_shuffle_ps::<0x44>(low, high);
                    u[4 * q + 2 * j + 1] = _mm512_shuffle_ps::<0xee>(low, high);
                }
            }
            for c in 0..4 {
                let low01 = _mm512_shuffle_f32x4::<0x44>(u[c], u[4 + c]);
                let high01 = _mm512_shuffle_f32x4::<0xee>(u[c], u[4 + c]);
                let low23 = _mm512_shuffle_f32x4::<0x44>(u[8 + c], u[12 + c]);
                let high23 = _mm512_shuffle_f32x4::<0xee>(u[8 + c], u[12 + c]);
                b[c] = _mm512_shuffle_f32x4::<0x88>(low01, low23);
                b[4 + c] = _mm512_shuffle_f32x4::<0xdd>(low01, low23);
                b[8 + c] = _mm512_shuffle_f32x4::<0x88>(high01, high23);
                b[12 + c] = _mm512_shuffle_f32x4::<0xdd>(high01, high23);
            }
        }
        #[inline(always)]
        unsafe fn round_bf16(v: __m512) -> __m512 {
            let bits = _mm512_castps_si512(v);
            let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
            let bits = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
            _mm512_castsi512_ps(_mm512_and_si512(bits, _mm512_set1_epi32(0xffff_0000u32 as i32)))
        }
        #[inline(always)]
        unsafe fn zip_pairs(low: __m512, high: __m512) -> __m512 {
            let low = _mm512_srli_epi32::<16>(_mm512_castps_si512(low));
            _mm512_castsi512_ps(_mm512_or_si512(low, _mm512_castps_si512(high)))
        }
        #[inline(always)]
        unsafe fn narrow_pairs(a: __m512, b: __m512) -> __m512 {
            let a = _mm512_cvtepi32_epi16(_mm512_srli_epi32::<16>(_mm512_castps_si512(a)));
            let b = _mm512_cvtepi32_epi16(_mm512_srli_epi32::<16>(_mm512_castps_si512(b)));
            _mm512_castsi512_ps(_mm512_inserti64x4::<1>(_mm512_castsi256_si512(a), b))
        }
        #[inline(always)]
        unsafe fn split_pairs(v: __m512) -> [__m512; 2] {
            let bits = _mm512_castps_si512(v);
            let high = _mm512_and_si512(bits, _mm512_set1_epi32(0xffff_0000u32 as i32));
            [_mm512_castsi512_ps(_mm512_slli_epi32::<16>(bits)), _mm512_castsi512_ps(high)]
        }
        #[inline(always)]
        unsafe fn store_bf16(p: *mut u8, v: __m512) {
            let bits = _mm512_srli_epi32::<16>(_mm512_castps_si512(Self::round_bf16(v)));
            _mm256_storeu_si256(p.cast(), _mm512_cvtepi32_epi16(bits));
        }
        #[inline(always)]
        unsafe fn load_partial(p: *const f32, n: usize) -> __m512 {
            _mm512_maskz_loadu_ps((1u32 << n).wrapping_sub(1) as __mmask16, p)
        }
        #[inline(always)]
        unsafe fn store_partial(p: *mut f32, v: __m512, n: usize) {
            _mm512_mask_storeu_ps(p, (1u32 << n).wrapping_sub(1) as __mmask16, v);
        }
        #[inline(always)]
        unsafe fn splat_i(x: i32) -> __m512i {
            _mm512_set1_epi32(x)
        }
        #[inline(always)]
        unsafe fn load_i(p: *const u8) -> __m512i {
            _mm512_loadu_si512(p.cast())
        }
        #[inline(always)]
        unsafe fn low_nibbles(v: __m512i) -> __m512i {
            _mm512_and_si512(v, _mm512_set1_epi8(15))
        }
        #[inline(always)]
        unsafe fn high_nibbles(v: __m512i) -> __m512i {
            _mm512_and_si512(_mm512_srli_epi16::<4>(v), _mm512_set1_epi8(15))
        }
        #[inline(always)]
        unsafe fn dot_q4(acc: __m512i, w: __m512i, x: __m512i) -> __m512i {
            _mm512_dpbusd_epi32(acc, w, x)
        }
        #[inline(always)]
        unsafe fn dot_q8(acc: __m512i, w: __m512i, x: __m512i) -> __m512i {
            _mm512_dpbusd_epi32(acc, w, x)
        }
        #[inline(always)]
        unsafe fn to_float(v: __m512i) -> __m512 {
            _mm512_cvtepi32_ps(v)
        }
    }

    impl PairDot for Avx512 {
        #[inline(always)]
        unsafe fn pair_dot(acc: __m512, a: __m512, b: __m512) -> __m512 {
            // SAFETY: both types are 64 bytes of plain data.
            let (a, b) =
                (std::mem::transmute::<__m512, __m512bh>(a), std::mem::transmute::<__m512, __m512bh>(b));
            _mm512_dpbf16_ps(acc, a, b)
        }
    }
}

/// Compiles a generic kernel for each instruction set and writes the function that picks one by [`Isa`](crate::Isa).
///
/// `fn name[const M: usize](args…) -> R = kernel;` expects `unsafe fn kernel<S: Simd, const M: usize>(args…) -> R`;
/// `fn name<T: Bound>(args…) -> R = kernel;` expects `unsafe fn kernel<S: Simd, T: Bound>(args…) -> R`.
macro_rules! dispatch {
    ($(#[$doc:meta])* $vis:vis unsafe fn $name:ident <$t:ident : $bound:path> ($($arg:ident : $ty:ty),* $(,)?) $(-> $ret:ty)? = $kernel:ident;) => {
        $(#[$doc])*
        $vis unsafe fn $name<$t: $bound>(isa: $crate::Isa, $($arg: $ty),*) $(-> $ret)? {
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c")]
            unsafe fn avx2<$t: $bound>($($arg: $ty),*) $(-> $ret)? {
                $kernel::<$crate::simd::Avx2, $t>($($arg),*)
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
            unsafe fn avx512<$t: $bound>($($arg: $ty),*) $(-> $ret)? {
                $kernel::<$crate::simd::Avx512, $t>($($arg),*)
            }
            match isa {
                #[cfg(target_arch = "x86_64")]
                $crate::Isa::Avx512 => avx512::<$t>($($arg),*),
                #[cfg(target_arch = "x86_64")]
                $crate::Isa::Avx2 => avx2::<$t>($($arg),*),
                _ => $kernel::<$crate::simd::Scalar, $t>($($arg),*),
            }
        }
    };
    ($(#[$doc:meta])* $vis:vis unsafe fn $name:ident $([$(const $g:ident : $gt:ty),*])? ($($arg:ident : $ty:ty),* $(,)?) $(-> $ret:ty)? = $kernel:ident;) => {
        $(#[$doc])*
        $vis unsafe fn $name $(<$(const $g: $gt),*>)? (isa: $crate::Isa, $($arg: $ty),*) $(-> $ret)? {
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c")]
            unsafe fn avx2 $(<$(const $g: $gt),*>)? ($($arg: $ty),*) $(-> $ret)? {
                $kernel::<$crate::simd::Avx2 $($(, $g)*)?>($($arg),*)
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
            unsafe fn avx512 $(<$(const $g: $gt),*>)? ($($arg: $ty),*) $(-> $ret)? {
                $kernel::<$crate::simd::Avx512 $($(, $g)*)?>($($arg),*)
            }
            match isa {
                #[cfg(target_arch = "x86_64")]
                $crate::Isa::Avx512 => avx512 $(::<$($g),*>)? ($($arg),*),
                #[cfg(target_arch = "x86_64")]
                $crate::Isa::Avx2 => avx2 $(::<$($g),*>)? ($($arg),*),
                _ => $kernel::<$crate::simd::Scalar $($(, $g)*)?>($($arg),*),
            }
        }
    };
}
pub(crate) use dispatch;
