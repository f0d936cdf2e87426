//! Quantised weights and activations, and their dot products.
//!
//! A weight block is 32 consecutive inputs of one output row with one f16 scale `d`:
//! 8 bits: `w ≈ d · q`, `q` in −127..=127, stored as `q + 128`;
//! 4 bits: `w ≈ d · (q − 8)`, `q` in 0..=15.
//!
//! Blocks of [`GROUP`] rows are interleaved: for one block of inputs, byte `64 g + 4 r + j` is input
//! `4 g + j` of row `r`. A 64-byte vector thus holds four inputs of each of 16 rows, its lanes are output
//! rows, and a dot product needs no horizontal sum. With 4 bits, vector `g` holds inputs `4 g..` in the low
//! nibbles and `16 + 4 g..` in the high ones. Scales are `[row group, block, 16]`.
//!
//! Activations are quantised to 8 bits in the same blocks with an f32 scale, so all products are exact
//! integers, and only one float multiply-add a block is left, in the order of the blocks.

use crate::{
    Isa,
    buffer::Buffer,
    matrix::{Format, Matrix},
    pool::{Pool, SharedMut},
    simd::{Simd, dispatch},
};
use half::f16;

/// How far ahead of the weights in use to ask for more, in bytes.
const AHEAD: usize = 8192;

/// Inputs that share a scale.
pub const BLOCK: usize = 32;
/// Output rows that are interleaved.
pub const GROUP: usize = 16;

/// Quantised copies of a float matrix: `(data, scales)` in the layout of this module.
///
/// The scale of a block is the one, of a few dozen near the range of its weights, that leaves the smallest
/// squared error; it is rounded to f16 before the weights are rounded to it.
///
/// # Panics
/// When `matrix` is quantised already or `format` is a float format.
pub fn quantise(pool: &Pool, isa: Isa, matrix: &Matrix<'_>, format: Format) -> (Vec<u8>, Vec<u8>) {
    let (data_len, scales_len) = format.byte_lengths(matrix.rows(), matrix.cols());
    let (mut data, mut scales) = (vec![0u8; data_len], vec![0u8; scales_len]);
    quantise_into(pool, isa, matrix, format, &mut data, &mut scales);
    (data, scales)
}

/// [`quantise`] into buffers of the lengths that [`Format::byte_lengths`] gives.
///
/// # Panics
/// As [`quantise`], and when the buffers have other lengths.
pub fn quantise_into(
    pool: &Pool,
    isa: Isa,
    matrix: &Matrix<'_>,
    format: Format,
    data: &mut [u8],
    scales: &mut [u8],
) {
    assert!(format.is_quantised() && !matrix.format().is_quantised());
    assert_eq!((data.len(), scales.len()), format.byte_lengths(matrix.rows(), matrix.cols()));
    let blocks = matrix.cols().div_ceil(BLOCK);
    let groups = matrix.rows().div_ceil(GROUP);
    let block_bytes = if format == Format::Q8 { GROUP * BLOCK } else { GROUP * BLOCK / 2 };
    let (data, scales) = (SharedMut::new(data), SharedMut::new(scales));
    pool.for_ranges(groups, 1, |_, range| {
        let mut row = vec![0.0f32; blocks * BLOCK];
        for group in range {
            // SAFETY: each row group has its own bytes of both buffers.
            let data = unsafe { data.slice(group * blocks * block_bytes, blocks * block_bytes) };
            // SAFETY: as above.
            let scales = unsafe { scales.slice(group * blocks * GROUP * 2, blocks * GROUP * 2) };
            for r in 0..GROUP {
                let index = group * GROUP + r;
                if index < matrix.rows() {
                    matrix.row_to_f32(index, &mut row[..matrix.cols()]);
                } else {
                    row.fill(0.0);
                }
                for (b, weights) in row.as_chunks::<BLOCK>().0.iter().enumerate() {
                    let mut q = [0i8; BLOCK];
                    // SAFETY: `isa` is available on this CPU (all constructors of `Isa` see to it).
                    let d = unsafe { quantise_block(isa, weights, &mut q, format == Format::Q8) };
                    scales[(b * GROUP + r) * 2..][..2].copy_from_slice(&d.to_le_bytes());
                    let bytes = &mut data[b * block_bytes..(b + 1) * block_bytes];
                    for (k, &q) in q.iter().enumerate() {
                        if format == Format::Q8 {
                            bytes[(k / 4) * 64 + r * 4 + k % 4] = (i16::from(q) + 128) as u8;
                        } else {
                            let nibble = (q + 8) as u8;
                            let at = ((k % 16) / 4) * 64 + r * 4 + k % 4;
                            bytes[at] |= if k < 16 { nibble } else { nibble << 4 };
                        }
                    }
                }
            }
        }
    });
}

dispatch! {
    unsafe fn quantise_block(weights: &[f32; BLOCK], q: &mut [i8; BLOCK], eight: bool) -> f16 = best_block;
}

/// Rounds one block; returns its scale.
#[inline(always)]
unsafe fn best_block<S: Simd>(weights: &[f32; BLOCK], q: &mut [i8; BLOCK], eight: bool) -> f16 {
    // The weight of largest magnitude, with its sign: with 4 bits the range is −8..=7, and it takes the −8.
    let mut extreme = 0.0f32;
    for &w in weights {
        if w.abs() > extreme.abs() {
            extreme = w;
        }
    }
    if extreme == 0.0 || !extreme.is_finite() {
        *q = [0; BLOCK];
        return f16::ZERO;
    }
    let (low, high) = if eight { (-127.0, 127.0) } else { (-8.0, 7.0) };
    let full = extreme / low;
    let mut best = f16::from_f32(full);
    if !eight {
        let mut least = f32::INFINITY;
        // The full range is seldom best: clipping the largest weight a little makes all others finer.
        for step in 0..10 {
            let inverse = 1.0 / (full * (0.76 + 0.03 * step as f32));
            let (low, high) = (S::splat(low), S::splat(high));
            let (mut ww, mut wq, mut qq) = (S::splat(0.0), S::splat(0.0), S::splat(0.0));
            for i in (0..BLOCK).step_by(S::LANES) {
                let w = S::load(weights.as_ptr().add(i));
                let level = S::min(S::max(S::round(S::mul(w, S::splat(inverse))), low), high);
                ww = S::fma(w, w, ww);
                wq = S::fma(w, level, wq);
                qq = S::fma(level, level, qq);
            }
            let (ww, wq, qq) = (S::sum(ww), S::sum(wq), S::sum(qq));
            // With these levels, wq / qq is the scale of least squares, and this what it leaves.
            let error = ww - wq * wq / qq.max(1.0);
            if error < least {
                (least, best) = (error, f16::from_f32(wq / qq.max(1.0)));
            }
        }
    }
    let inverse = inverse_of(best);
    for (q, &w) in q.iter_mut().zip(weights) {
        *q = (w * inverse).round_ties_even().max(low).min(high) as i8;
    }
    best
}

#[inline(always)]
fn inverse_of(d: f16) -> f32 {
    let d = d.to_f32();
    if d == 0.0 { 0.0 } else { 1.0 / d }
}

/// Rows of activations in 8 bits: what a quantised product multiplies with.
#[derive(Default)]
pub struct Quantised {
    /// `[row, blocks × 32]`, padded with zeros.
    pub(crate) values: Vec<i8>,
    /// `[row, blocks]`: the sum of each block's values.
    pub(crate) sums: Vec<i32>,
    /// `[row, blocks]`
    pub(crate) scales: Buffer,
    pub(crate) blocks: usize,
}

impl Quantised {
    /// Makes room for `rows` rows of `cols` inputs; their contents are undefined until they are written.
    pub fn resize(&mut self, rows: usize, cols: usize) {
        self.blocks = cols.div_ceil(BLOCK);
        let count = rows * self.blocks;
        if self.values.len() < count * BLOCK {
            self.values.resize(count * BLOCK, 0);
            self.sums.resize(count, 0);
            self.scales.reserve(count);
        }
    }

    /// What writes rows, from several threads.
    pub(crate) fn writer(&mut self) -> RowWriter {
        RowWriter {
            values: SharedMut::new(&mut self.values),
            sums: SharedMut::new(&mut self.sums),
            scales: SharedMut::new(&mut self.scales),
            blocks: self.blocks,
        }
    }

    /// Quantises all `rows` of `x`, in parallel.
    pub(crate) fn set_all(&mut self, pool: &Pool, isa: Isa, x: &[f32], rows: usize, cols: usize) {
        self.resize(rows, cols);
        let writer = self.writer();
        pool.for_ranges(rows, 8, |_, range| {
            for row in range {
                // SAFETY: each row is written once, and `resize` made room for it.
                unsafe { writer.set(isa, row, &x[row * cols..(row + 1) * cols]) }
            }
        });
    }
}

/// Writes rows of a [`Quantised`].
#[derive(Clone, Copy)]
pub(crate) struct RowWriter {
    values: SharedMut<i8>,
    sums: SharedMut<i32>,
    scales: SharedMut<f32>,
    blocks: usize,
}

impl RowWriter {
    /// Quantises `x` as row `row`.
    ///
    /// # Safety
    /// There is room for that row, no other thread touches it meanwhile, and `isa` is available on this CPU.
    pub(crate) unsafe fn set(self, isa: Isa, row: usize, x: &[f32]) {
        let blocks = x.len().div_ceil(BLOCK);
        assert_eq!(blocks, self.blocks);
        quantise_row(
            isa,
            x,
            self.values.slice(row * blocks * BLOCK, blocks * BLOCK),
            self.sums.slice(row * blocks, blocks),
            self.scales.slice(row * blocks, blocks),
        );
    }
}

dispatch! {
    unsafe fn quantise_row(x: &[f32], values: &mut [i8], sums: &mut [i32], scales: &mut [f32]) = row_to_8_bits;
}

#[inline(always)]
unsafe fn row_to_8_bits<S: Simd>(x: &[f32], values: &mut [i8], sums: &mut [i32], scales: &mut [f32]) {
    for (b, values) in values.as_chunks_mut::<BLOCK>().0.iter_mut().enumerate() {
        let mut block = [0.0f32; BLOCK];
        let part = &x[b * BLOCK..(b * BLOCK + BLOCK).min(x.len())];
        block[..part.len()].copy_from_slice(part);
        let mut largest = [0.0f32; 8];
        for chunk in block.as_chunks::<8>().0 {
            for i in 0..8 {
                let magnitude = chunk[i].abs();
                largest[i] = if magnitude > largest[i] { magnitude } else { largest[i] };
            }
        }
        let largest = largest.into_iter().fold(0.0f32, f32::max);
        let inverse = if largest > 0.0 { 127.0 / largest } else { 0.0 };
        let mut sum = 0i32;
        for i in 0..BLOCK {
            // Added to this, a number of at most 127 leaves its nearest integer in the low byte; what is none leaves 0.
            let level = (block[i] * inverse + 12_582_912.0).to_bits() as i8;
            values[i] = level;
            sum += i32::from(level);
        }
        sums[b] = sum;
        scales[b] = largest / 127.0;
    }
}

/// Dot products of one group of 16 rows with `T` rows of quantised inputs, into `out[t][r]`.
///
/// # Safety
/// `data` and `scales` are the group's bytes in the layout of this module; `values`, `sums` and `x_scales`
/// hold, for each of the `T` rows, `blocks` blocks at the given strides; the CPU has `S`.
#[inline(always)]
pub(crate) unsafe fn dot_group<S: Simd, const T: usize, const EIGHT: bool>(
    blocks: usize,
    data: *const u8,
    scales: *const u8,
    inputs: [*const i8; T],
    sums: [*const i32; T],
    x_scales: [*const f32; T],
    out: &mut [[f32; GROUP]; T],
) {
    // A group is one vector of 16 lanes or two of 8.
    let halves = GROUP / S::LANES;
    for half in 0..halves {
        let offset = half * S::LANES * 4;
        let mut acc = [S::splat(0.0); T];
        for b in 0..blocks {
            let w = data.add(b * if EIGHT { GROUP * BLOCK } else { GROUP * BLOCK / 2 } + offset);
            let mut dots = [S::splat_i(0); T];
            let init = if EIGHT { S::Q8_INIT } else { -8 };
            for t in 0..T {
                dots[t] = S::splat_i(init * *sums[t].add(b));
            }
            if EIGHT {
                for g in 0..8 {
                    S::prefetch(w.wrapping_add(64 * g + AHEAD));
                    let w = S::load_i(w.add(64 * g));
                    for t in 0..T {
                        let x = inputs[t].add(b * BLOCK + 4 * g).cast::<i32>().read_unaligned();
                        dots[t] = S::dot_q8(dots[t], w, S::splat_i(x));
                    }
                }
            } else {
                for g in 0..4 {
                    S::prefetch(w.wrapping_add(64 * g + AHEAD));
                    let w = S::load_i(w.add(64 * g));
                    let (low, high) = (S::low_nibbles(w), S::high_nibbles(w));
                    for t in 0..T {
                        let x = inputs[t].add(b * BLOCK + 4 * g).cast::<i32>();
                        dots[t] = S::dot_q4(dots[t], low, S::splat_i(x.read_unaligned()));
                        dots[t] = S::dot_q4(dots[t], high, S::splat_i(x.add(4).read_unaligned()));
                    }
                }
            }
            let d = S::load_f16(scales.add((b * GROUP + half * S::LANES) * 2));
            for t in 0..T {
                let d = S::mul(d, S::splat(*x_scales[t].add(b)));
                acc[t] = S::fma(S::to_float(dots[t]), d, acc[t]);
            }
        }
        for t in 0..T {
            S::store(out[t].as_mut_ptr().add(half * S::LANES), acc[t]);
        }
    }
}

/// The weights that quantised bytes stand for, row-major: what a product with them means.
///
/// # Panics
/// When the matrix is not quantised.
pub fn dequantise(matrix: &Matrix<'_>) -> Vec<f32> {
    assert!(matrix.format().is_quantised());
    let (rows, cols) = (matrix.rows(), matrix.cols());
    let blocks = cols.div_ceil(BLOCK);
    let eight = matrix.format() == Format::Q8;
    let (data, scales) = matrix.parts();
    let mut out = vec![0.0; rows * cols];
    for (row, out) in out.chunks_exact_mut(cols).enumerate() {
        let (group, r) = (row / GROUP, row % GROUP);
        for (k, out) in out.iter_mut().enumerate() {
            let (block, k) = (group * blocks + k / BLOCK, k % BLOCK);
            let at = (block * GROUP + r) * 2;
            let d = f16::from_le_bytes([scales[at], scales[at + 1]]).to_f32();
            let level = if eight {
                i32::from(data[block * GROUP * BLOCK + (k / 4) * 64 + r * 4 + k % 4]) - 128
            } else {
                let byte = data[block * GROUP * BLOCK / 2 + ((k % 16) / 4) * 64 + r * 4 + k % 4];
                i32::from(if k < 16 { byte & 15 } else { byte >> 4 }) - 8
            };
            *out = level as f32 * d;
        }
    }
    out
}
