//! Causal attention in a sliding window, over keys and values in pages of 32 positions.
//!
//! A page holds, for each key-value head, keys as `[head_dim, 32]` (so that one query against a page is a sum of scaled
//! rows) and values as `[32, value_stride]`. Both are what [`crate::gemm()`] calls a packed panel, so prompts use its
//! tiles. Softmax runs page by page with a running maximum (Milakov and Gimelshein 2018). Pages lie at
//! multiples of 32 positions whatever the chunking, and a row's sums take them in order.

use crate::{
    Isa,
    buffer::Buffer,
    gemm::{Floats, any_tile, tile_shape},
    pool::{Pool, SharedMut},
    simd::{Simd, dispatch},
};
use std::ops::Range;

/// Positions in a page.
pub const PAGE: usize = 32;

/// Heads and window of an attention layer.
#[derive(Clone, Copy, Debug)]
pub struct AttentionShape {
    /// Query heads.
    pub heads: usize,
    /// Key-value heads; each serves `heads / kv_heads` query heads.
    pub kv_heads: usize,
    /// Numbers per head.
    pub head_dim: usize,
    /// A token sees itself and the `window − 1` before it; `None` for all before it.
    pub window: Option<usize>,
}

impl AttentionShape {
    /// Distance of two values in a page: `head_dim` rounded up to whole panels.
    pub fn value_stride(&self) -> usize {
        self.head_dim.next_multiple_of(32)
    }

    /// Length of one layer's keys in a page.
    pub fn key_len(&self) -> usize {
        self.kv_heads * self.head_dim * PAGE
    }

    /// Length of one layer's values in a page.
    pub fn value_len(&self) -> usize {
        self.kv_heads * PAGE * self.value_stride()
    }

    /// The positions that a query at `position` sees.
    pub fn visible(&self, position: usize) -> Range<usize> {
        let first = self.window.map_or(0, |w| (position + 1).saturating_sub(w));
        first..position + 1
    }

    /// Floats of scratch for one thread when at most `positions` are visible.
    fn scratch_len(&self, positions: usize) -> usize {
        let prefill = PAGE * self.head_dim + 2 * PAGE * PAGE + PAGE * self.value_stride() + 2 * PAGE;
        let group = self.heads / self.kv_heads;
        let decode = group * (positions + 2 * PAGE) + self.head_dim + self.value_stride();
        prefill.max(decode).next_multiple_of(16)
    }
}

/// One layer's part of a page: keys and values of [`AttentionShape::key_len`] and [`AttentionShape::value_len`].
#[derive(Clone, Copy)]
pub struct PageRef<'a> {
    /// `[kv_heads, head_dim, 32]`
    pub keys: &'a [f32],
    /// `[kv_heads, 32, value_stride]`
    pub values: &'a [f32],
}

/// Writes one token's key and value (`[kv_heads, head_dim]` each) into slot `slot` of a page.
///
/// # Panics
/// When lengths do not fit or the slot is not in 0..32.
pub fn write_kv(
    shape: &AttentionShape,
    slot: usize,
    key: &[f32],
    value: &[f32],
    keys: &mut [f32],
    values: &mut [f32],
) {
    assert!(slot < PAGE && key.len() == shape.kv_heads * shape.head_dim && value.len() == key.len());
    assert!(keys.len() == shape.key_len() && values.len() == shape.value_len());
    for (i, &k) in key.iter().enumerate() {
        keys[i * PAGE + slot] = k;
    }
    let stride = shape.value_stride();
    for (head, value) in value.chunks_exact(shape.head_dim).enumerate() {
        let at = (head * PAGE + slot) * stride;
        values[at..at + shape.head_dim].copy_from_slice(value);
    }
}

/// Attention of a chunk of a prompt.
///
/// `q` is `[tokens, heads, head_dim]`, rotated, its first token at `position`; `page(i)` is the page of positions
/// `32 i..32 i + 32`, in which the chunk's own keys and values are already written; `out` is like `q`.
///
/// # Panics
/// When lengths do not fit.
pub fn prefill_attention<'a>(
    pool: &Pool,
    isa: Isa,
    shape: &AttentionShape,
    q: &[f32],
    position: usize,
    page: impl Fn(usize) -> PageRef<'a> + Sync,
    out: &mut [f32],
    scratch: &mut Buffer,
) {
    let width = shape.heads * shape.head_dim;
    assert!(q.len() == out.len() && q.len().is_multiple_of(width));
    let tokens = q.len() / width;
    let own_len = shape.scratch_len(0);
    scratch.reserve(own_len * pool.threads());
    let scratch = SharedMut::new(scratch);
    let out = SharedMut::new(out);
    let (full, panel) = tile_shape(isa);
    pool.for_ranges(tokens.div_ceil(PAGE) * shape.heads, 1, |thread, range| {
        // SAFETY: each thread has its own part of the scratch.
        let own = unsafe { scratch.slice(thread * own_len, own_len) };
        for item in range {
            let (tile, head) = (item / shape.heads, item % shape.heads);
            let first = tile * PAGE;
            let count = (tokens - first).min(PAGE);
            let task = Tile { shape, q, position: position + first, first, count, head, full, panel };
            let start = shape.visible(task.position).start / PAGE;
            let end = (task.position + count - 1) / PAGE;
            let mut work = Work::of(shape, own);
            // SAFETY: `isa` is available on this CPU; `work` has the lengths that the kernels use, pages those asserted.
            unsafe {
                begin_tile(isa, &task, &mut work);
                for index in start..=end {
                    let page = page(index);
                    assert!(page.keys.len() == shape.key_len() && page.values.len() == shape.value_len());
                    page_of_tile(isa, &task, index, &page, &mut work);
                }
            }
            for t in 0..count {
                let scale = 1.0 / work.sum[t];
                // SAFETY: each (token, head) is written by the one thread that took the item.
                let out = unsafe { out.slice((first + t) * width + head * shape.head_dim, shape.head_dim) };
                for (out, o) in out.iter_mut().zip(&work.out[t * shape.value_stride()..]) {
                    *out = o * scale;
                }
            }
        }
    });
}

/// Up to 32 queries of one head.
struct Tile<'a> {
    shape: &'a AttentionShape,
    q: &'a [f32],
    /// Position of the first query.
    position: usize,
    /// Its index in the chunk.
    first: usize,
    count: usize,
    head: usize,
    full: usize,
    panel: usize,
}

/// A thread's buffers for a [`Tile`].
struct Work<'a> {
    /// Packed queries, scaled.
    q: &'a mut [f32],
    /// Scores `[32, 32]`
    scores: &'a mut [f32],
    /// Packed probabilities.
    packed: &'a mut [f32],
    /// Sums of values `[32, value_stride]`
    out: &'a mut [f32],
    /// Running maximum of each query.
    largest: &'a mut [f32],
    /// Running sum of exponentials.
    sum: &'a mut [f32],
}

impl<'a> Work<'a> {
    fn of(shape: &AttentionShape, own: &'a mut [f32]) -> Self {
        let (q, rest) = own.split_at_mut(PAGE * shape.head_dim);
        let (scores, rest) = rest.split_at_mut(PAGE * PAGE);
        let (packed, rest) = rest.split_at_mut(PAGE * PAGE);
        let (out, rest) = rest.split_at_mut(PAGE * shape.value_stride());
        let (largest, rest) = rest.split_at_mut(PAGE);
        Self { q, scores, packed, out, largest, sum: &mut rest[..PAGE] }
    }
}

/// Parts of a tile that fit the registers: `(first query, queries, computed width)`.
fn parts(task: &Tile<'_>) -> impl Iterator<Item = (usize, usize, usize)> {
    let (count, full) = (task.count, task.full);
    (0..count.div_ceil(full)).map(move |i| {
        let n = (count - i * full).min(full);
        (i * full, n, n.next_multiple_of(2))
    })
}

dispatch! {
    unsafe fn begin_tile(task: &Tile<'_>, work: &mut Work<'_>) = begin_tile_kernel;
}

#[inline(always)]
unsafe fn begin_tile_kernel<S: Simd>(task: &Tile<'_>, work: &mut Work<'_>) {
    let dim = task.shape.head_dim;
    let scale = 1.0 / (dim as f32).sqrt();
    let width = task.shape.heads * dim;
    for (first, count, wide) in parts(task) {
        for t in 0..wide {
            let row = &task.q[(task.first + first + t.min(count - 1)) * width + task.head * dim..][..dim];
            for (d, &q) in row.iter().enumerate() {
                work.q[first * dim + d * wide + t] = q * scale;
            }
        }
    }
    work.out.fill(0.0);
    work.largest.fill(f32::NEG_INFINITY);
    work.sum.fill(0.0);
}

dispatch! {
    unsafe fn page_of_tile(task: &Tile<'_>, index: usize, page: &PageRef<'_>, work: &mut Work<'_>) = page_of_tile_kernel;
}

#[inline(always)]
unsafe fn page_of_tile_kernel<S: Simd>(
    task: &Tile<'_>,
    index: usize,
    page: &PageRef<'_>,
    work: &mut Work<'_>,
) {
    let (dim, stride) = (task.shape.head_dim, task.shape.value_stride());
    let kv_head = task.head / (task.shape.heads / task.shape.kv_heads);
    let keys = page.keys.as_ptr().add(kv_head * dim * PAGE);
    let values = page.values.as_ptr().add(kv_head * PAGE * stride);
    for (first, count, wide) in parts(task) {
        let q = work.q.as_ptr().add(first * dim);
        for column in (0..PAGE).step_by(task.panel) {
            let scores = work.scores.as_mut_ptr().add(first * PAGE + column);
            any_tile::<S, Floats>(wide, dim, q, keys.add(column), PAGE, scores, PAGE, true);
        }
        let packed = work.packed.as_mut_ptr().add(first * PAGE);
        for t in first..first + wide {
            // The padding query of an odd part repeats the last real one and is not read.
            let real = t.min(first + count - 1);
            let scores = work.scores.as_mut_ptr().add(t * PAGE);
            let visible = task.shape.visible(task.position + real);
            let from = visible.start.saturating_sub(index * PAGE).min(PAGE);
            let to = visible.end.saturating_sub(index * PAGE).min(PAGE);
            let mut factor = 1.0;
            if from < to {
                let before = work.largest[t];
                let (after, sum) = exponentials::<S>(scores, from, to, before);
                factor = if before == f32::NEG_INFINITY { 0.0 } else { (before - after).exp() };
                work.largest[t] = after;
                work.sum[t] = work.sum[t] * factor + sum;
            } else {
                std::slice::from_raw_parts_mut(scores, PAGE).fill(0.0);
            }
            for k in 0..PAGE {
                *packed.add(k * wide + t - first) = *scores.add(k);
            }
            if factor != 1.0 {
                for out in &mut work.out[t * stride..(t + 1) * stride] {
                    *out *= factor;
                }
            }
        }
        for column in (0..stride).step_by(task.panel) {
            let out = work.out.as_mut_ptr().add(first * stride + column);
            any_tile::<S, Floats>(wide, PAGE, packed, values.add(column), stride, out, stride, false);
        }
    }
}

/// Turns the scores `from..to` of a page into `exp(score − largest)` and all others into zeros; returns the largest score so
/// far and the sum of the exponentials.
#[inline(always)]
unsafe fn exponentials<S: Simd>(scores: *mut f32, from: usize, to: usize, before: f32) -> (f32, f32) {
    let row = std::slice::from_raw_parts_mut(scores, PAGE);
    row[..from].fill(f32::NEG_INFINITY);
    row[to..].fill(f32::NEG_INFINITY);
    let mut largest = S::splat(f32::NEG_INFINITY);
    for i in (0..PAGE).step_by(S::LANES) {
        largest = S::max(largest, S::load(scores.add(i)));
    }
    let after = before.max(S::max_lane(largest));
    let shift = S::splat(after);
    for i in (0..PAGE).step_by(S::LANES) {
        S::store(scores.add(i), S::exp(S::sub(S::load(scores.add(i)), shift)));
    }
    row[..from].fill(0.0);
    row[to..].fill(0.0);
    let mut sum = S::splat(0.0);
    for i in (0..PAGE).step_by(S::LANES) {
        sum = S::add(sum, S::load(scores.add(i)));
    }
    (after, S::sum(sum))
}

/// Attention of one generated token for each of several sequences.
///
/// `q` is `[sequences, heads, head_dim]`, rotated; sequence `s`'s token is at `positions[s]`, and `page(s, i)` is its page of
/// positions `32 i..32 i + 32`, in which the token's own key and value are already written; `out` is like `q`.
///
/// # Panics
/// When lengths do not fit.
pub fn decode_attention<'a>(
    pool: &Pool,
    isa: Isa,
    shape: &AttentionShape,
    q: &[f32],
    positions: &[usize],
    page: impl Fn(usize, usize) -> PageRef<'a> + Sync,
    out: &mut [f32],
    scratch: &mut Buffer,
) {
    let (dim, group) = (shape.head_dim, shape.heads / shape.kv_heads);
    let width = shape.heads * dim;
    assert!(q.len() == out.len() && q.len() == positions.len() * width);
    let most = positions.iter().map(|&p| shape.visible(p).len()).max().unwrap_or(0);
    let own_len = shape.scratch_len(most);
    scratch.reserve(own_len * pool.threads());
    let scratch = SharedMut::new(scratch);
    let out = SharedMut::new(out);
    pool.for_ranges(positions.len() * shape.kv_heads, 1, |thread, range| {
        // SAFETY: each thread has its own part of the scratch.
        let own = unsafe { scratch.slice(thread * own_len, own_len) };
        for item in range {
            let (s, kv_head) = (item / shape.kv_heads, item % shape.kv_heads);
            let visible = shape.visible(positions[s]);
            let first_page = visible.start / PAGE;
            let last_page = positions[s] / PAGE;
            let span = (last_page + 1 - first_page) * PAGE;
            let (scores, rest) = own.split_at_mut(group * span);
            let (scaled, sums) = rest.split_at_mut(dim);
            let sums = &mut sums[..shape.value_stride()];
            let at = s * width + kv_head * group * dim;
            let keys_of = |index| {
                let keys = page(s, index).keys;
                assert!(keys.len() == shape.key_len());
                &keys[kv_head * dim * PAGE..][..dim * PAGE]
            };
            let values_of = |index| {
                let values = page(s, index).values;
                assert!(values.len() == shape.value_len());
                &values[kv_head * PAGE * shape.value_stride()..][..PAGE * shape.value_stride()]
            };
            for index in first_page..=last_page {
                let keys = keys_of(index);
                // Pages lie apart: while one is read, the next is asked for.
                let next = if index < last_page { keys_of(index + 1) } else { values_of(first_page) };
                for g in 0..group {
                    let scale = 1.0 / (dim as f32).sqrt();
                    for (scaled, q) in scaled.iter_mut().zip(&q[at + g * dim..]) {
                        *scaled = q * scale;
                    }
                    let out = &mut scores[g * span + (index - first_page) * PAGE..][..PAGE];
                    // SAFETY: `keys` is `[dim, 32]`, `out` 32 long, and `isa` is available on this CPU.
                    unsafe { score_page(isa, scaled, keys, next, out) };
                }
            }
            for g in 0..group {
                let scores = &mut scores[g * span..(g + 1) * span];
                let from = visible.start - first_page * PAGE;
                let to = visible.end - first_page * PAGE;
                // SAFETY: `from..to` is inside `scores`, and `isa` is available on this CPU.
                let sum = unsafe { softmax_sum(isa, scores, from, to) };
                sums.fill(0.0);
                for index in first_page..=last_page {
                    let weights = &scores[(index - first_page) * PAGE..][..PAGE];
                    let values = values_of(index);
                    let next = values_of((index + 1).min(last_page));
                    // SAFETY: `values` is `[32, value_stride]`, `sums` one row, and `isa` is available on this CPU.
                    unsafe { add_values(isa, weights, values, next, sums) };
                }
                // SAFETY: each (sequence, head) is written by the one thread that took the item.
                let out = unsafe { out.slice(at + g * dim, dim) };
                for (out, value) in out.iter_mut().zip(sums.iter()) {
                    *out = value / sum;
                }
            }
        }
    });
}

dispatch! {
    unsafe fn score_page(q: &[f32], keys: &[f32], next: &[f32], out: &mut [f32]) = score_page_kernel;
}

/// `out[k] = Σ_d q[d] · keys[d][k]`, even and odd `d` apart so that the chains of additions are short; asks for `next`.
#[inline(always)]
unsafe fn score_page_kernel<S: Simd>(q: &[f32], keys: &[f32], next: &[f32], out: &mut [f32]) {
    for column in (0..PAGE).step_by(2 * S::LANES) {
        let (keys, next) = (keys.as_ptr().add(column), next.as_ptr().wrapping_add(column));
        let mut acc = [[S::splat(0.0); 2]; 2];
        let mut d = 0;
        while d < q.len() {
            for odd in 0..2.min(q.len() - d) {
                let x = S::splat(*q.get_unchecked(d + odd));
                for v in 0..2 {
                    let at = (d + odd) * PAGE + v * S::LANES;
                    S::prefetch(next.wrapping_add(at).cast());
                    acc[odd][v] = S::fma(x, S::load(keys.add(at)), acc[odd][v]);
                }
            }
            d += 2;
        }
        for v in 0..2 {
            S::store(out.as_mut_ptr().add(column + v * S::LANES), S::add(acc[0][v], acc[1][v]));
        }
    }
}

dispatch! {
    unsafe fn softmax_sum(scores: &mut [f32], from: usize, to: usize) -> f32 = softmax_sum_kernel;
}

/// Turns `from..to` into exponentials and the rest (less than a page on either side) into zeros; returns their sum.
#[inline(always)]
unsafe fn softmax_sum_kernel<S: Simd>(scores: &mut [f32], from: usize, to: usize) -> f32 {
    scores[..from].fill(f32::NEG_INFINITY);
    scores[to..].fill(f32::NEG_INFINITY);
    let mut largest = S::splat(f32::NEG_INFINITY);
    for i in (0..scores.len()).step_by(S::LANES) {
        largest = S::max(largest, S::load(scores.as_ptr().add(i)));
    }
    let shift = S::splat(S::max_lane(largest));
    for i in (0..scores.len()).step_by(S::LANES) {
        let p = scores.as_mut_ptr().add(i);
        S::store(p, S::exp(S::sub(S::load(p), shift)));
    }
    scores[..from].fill(0.0);
    scores[to..].fill(0.0);
    let mut sum = S::splat(0.0);
    for i in (0..scores.len()).step_by(S::LANES) {
        sum = S::add(sum, S::load(scores.as_ptr().add(i)));
    }
    S::sum(sum)
}

dispatch! {
    unsafe fn add_values(weights: &[f32], values: &[f32], next: &[f32], sums: &mut [f32]) = add_values_kernel;
}

/// `sums += Σₖ weights[k] · values[k]`, even and odd `k` apart; asks for `next`.
#[inline(always)]
unsafe fn add_values_kernel<S: Simd>(weights: &[f32], values: &[f32], next: &[f32], sums: &mut [f32]) {
    let stride = sums.len();
    for column in (0..stride).step_by(2 * S::LANES) {
        let (values, next) = (values.as_ptr().add(column), next.as_ptr().wrapping_add(column));
        let mut acc = [[S::splat(0.0); 2]; 2];
        for k in (0..PAGE).step_by(2) {
            for odd in 0..2 {
                let w = S::splat(*weights.get_unchecked(k + odd));
                for v in 0..2 {
                    let at = (k + odd) * stride + v * S::LANES;
                    S::prefetch(next.wrapping_add(at).cast());
                    acc[odd][v] = S::fma(w, S::load(values.add(at)), acc[odd][v]);
                }
            }
        }
        for v in 0..2 {
            let p = sums.as_mut_ptr().add(column + v * S::LANES);
            S::store(p, S::add(S::load(p), S::add(acc[0][v], acc[1][v])));
        }
    }
}
