//! Causal attention in a sliding window, confined to segments, forward and backward.
//!
//! The unit of work is a row of the batch and a key head: its keys and values are packed once and used by all query
//! heads of the group, block of queries by block. A block keeps the scores of its queries with the keys in reach,
//! `[queries of a block, window]`, never those of all pairs; the backward pass makes them anew from the logarithm of the
//! sum of exponentials that the forward pass saved.

use super::product::Product;
use crate::{
    Isa, RopeTable,
    buffer::Buffer,
    elementwise::rope,
    gemm::{Floats, any_tile, tile_shape, tiles},
    pool::SharedMut,
    simd::{Simd, dispatch},
};

/// Queries of a block.
const BLOCK: usize = 28;

/// Sizes of an attention block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttentionGeometry {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Numbers of a head; even.
    pub head_dim: usize,
    /// A token sees itself and the `window − 1` before it; `None` is all before it.
    pub window: Option<usize>,
}

/// Which token of a batch is where: all slices are `[rows × len]`.
#[derive(Clone, Copy, Debug)]
pub struct Layout<'a> {
    /// Tokens of a row.
    pub len: usize,
    /// Position of each token for the rotary embedding.
    pub positions: &'a [u32],
    /// Segment of each token: it sees tokens of the same one only. 0 is padding, which no token sees.
    pub segments: &'a [u32],
}

/// Rotated queries `[tokens, heads, head_dim]`, rotated keys and values `[tokens, kv_heads, head_dim]`.
#[derive(Clone, Copy)]
pub struct AttentionInputs<'a> {
    /// Queries.
    pub q: &'a [f32],
    /// Keys.
    pub k: &'a [f32],
    /// Values.
    pub v: &'a [f32],
}

impl AttentionGeometry {
    fn check(&self, layout: &Layout<'_>, inputs: &AttentionInputs<'_>) -> usize {
        let tokens = layout.positions.len();
        let (q, kv) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        assert!(layout.segments.len() == tokens && layout.len > 0 && tokens.is_multiple_of(layout.len));
        assert!(self.kv_heads > 0 && self.heads.is_multiple_of(self.kv_heads) && self.window != Some(0));
        assert_eq!(inputs.q.len(), tokens * q);
        assert!(inputs.k.len() == tokens * kv && inputs.v.len() == tokens * kv);
        tokens
    }
}

/// Rotates every head of every token to its position, or back with `inverse` (what the gradient needs).
///
/// `x` is `[tokens, heads, head_dim]`.
///
/// # Panics
/// When a position is beyond the table, or lengths do not fit.
pub fn rotate(run: &Product<'_>, table: &RopeTable, positions: &[u32], x: &mut [f32], inverse: bool) {
    if positions.is_empty() {
        return;
    }
    assert!(x.len().is_multiple_of(positions.len()));
    let width = x.len() / positions.len();
    let x = SharedMut::new(x);
    run.pool.for_ranges(positions.len(), 64, |_, range| {
        for t in range {
            // SAFETY: each token has its own row.
            let row = unsafe { x.slice(t * width, width) };
            if inverse {
                table.rotate_back(positions[t] as usize, row);
            } else {
                rope(table, positions[t] as usize, row);
            }
        }
    });
}

/// Buffers that attention reuses, one set a thread.
#[derive(Default)]
pub struct AttentionScratch {
    threads: Vec<Own>,
}

#[derive(Default)]
struct Own {
    /// Keys as panels `[panel, head_dim, width]`, and as rows `[len, wide]`.
    key_panels: Buffer,
    key_rows: Buffer,
    value_panels: Buffer,
    value_rows: Buffer,
    /// Sums of the gradients of keys and values, `[len, wide]`.
    dk: Buffer,
    dv: Buffer,
    /// Weights of a block, and their gradients, `[BLOCK, span]`.
    weights: Buffer,
    slopes: Buffer,
    /// A packed left side.
    packed: Buffer,
    /// Queries, and gradients of outputs, of a block, `[BLOCK, wide]`.
    queries: Buffer,
    douts: Buffer,
    out: Buffer,
    mean: Vec<f32>,
}

/// What the tasks of one call share.
#[derive(Clone, Copy)]
struct Task<'a> {
    isa: Isa,
    shape: AttentionGeometry,
    layout: Layout<'a>,
    inputs: AttentionInputs<'a>,
    /// Tokens of a tile, and outputs of a panel.
    full: usize,
    width: usize,
    /// `head_dim` rounded up to panels, and `len`.
    wide: usize,
    padded: usize,
}

impl<'a> Task<'a> {
    fn new(
        run: &Product<'_>,
        shape: AttentionGeometry,
        layout: Layout<'a>,
        inputs: AttentionInputs<'a>,
    ) -> Self {
        let (full, width) = tile_shape(run.isa);
        let wide = shape.head_dim.next_multiple_of(width);
        let padded = layout.len.next_multiple_of(width);
        Self { isa: run.isa, shape, layout, inputs, full, width, wide, padded }
    }

    fn window(&self) -> usize {
        self.shape.window.unwrap_or(usize::MAX).min(self.layout.len)
    }

    /// The keys that queries `first..first + count` may see, in whole panels.
    fn span(&self, first: usize, count: usize) -> (usize, usize) {
        let low = (first + 1).saturating_sub(self.window()) / self.width * self.width;
        (low, (first + count).next_multiple_of(self.width))
    }

    fn scale(&self) -> f32 {
        1.0 / (self.shape.head_dim as f32).sqrt()
    }

    /// Whether a query sees nothing: it is padding.
    fn blind(&self, token: usize) -> bool {
        self.layout.segments[token] == 0
    }

    /// `rows[count][wide]` from `x[token][offset..offset + head_dim]`, times `scale`.
    fn copy_rows(
        &self,
        x: &[f32],
        stride: usize,
        offset: usize,
        token: usize,
        count: usize,
        scale: f32,
        out: &mut [f32],
    ) {
        let dim = self.shape.head_dim;
        for (t, out) in out.chunks_exact_mut(self.wide).take(count).enumerate() {
            let row = &x[(token + t) * stride + offset..][..dim];
            for (out, x) in out.iter_mut().zip(row) {
                *out = scale * x;
            }
            out[dim..].fill(0.0);
        }
    }

    /// Packs rows `[len, wide]` as panels `[panel, head_dim, width]`.
    fn panels(&self, rows: &[f32], out: &mut [f32]) {
        let (dim, width) = (self.shape.head_dim, self.width);
        for (panel, out) in out.chunks_exact_mut(dim * width).take(self.padded / width).enumerate() {
            for lane in 0..width {
                let token = panel * width + lane;
                for i in 0..dim {
                    out[i * width + lane] =
                        if token < self.layout.len { rows[token * self.wide + i] } else { 0.0 };
                }
            }
        }
    }

    /// `out[count][span] = rows · panels` over `head_dim`, where `rows` is `[count, wide]`.
    fn scores(
        &self,
        rows: &[f32],
        count: usize,
        panels: &[f32],
        low: usize,
        span: usize,
        packed: &mut [f32],
        out: &mut [f32],
    ) {
        let (dim, width) = (self.shape.head_dim, self.width);
        for (first, real, tile) in tiles(count, self.full) {
            pack(&rows[first * self.wide..], self.wide, real, tile, dim, packed);
            for panel in 0..span / width {
                let from = (low / width + panel) * dim * width;
                assert!(panels.len() >= from + dim * width && out.len() >= (first + tile) * span);
                // SAFETY: as asserted; `packed` holds a tile of `head_dim` steps.
                unsafe {
                    tile_product(
                        self.isa,
                        tile,
                        dim,
                        packed.as_ptr(),
                        panels.as_ptr().add(from),
                        width,
                        out.as_mut_ptr().add(first * span + panel * width),
                        span,
                        true,
                    );
                }
            }
        }
    }

    /// `out[count][wide] = weights · rows` over the span, where `weights` is `[count, span]` and `rows` `[len, wide]`.
    fn mix(
        &self,
        weights: &[f32],
        count: usize,
        span: usize,
        rows: &[f32],
        low: usize,
        packed: &mut [f32],
        out: &mut [f32],
    ) {
        assert!(rows.len() >= (low + span) * self.wide);
        for (first, real, tile) in tiles(count, self.full) {
            pack(&weights[first * span..], span, real, tile, span, packed);
            assert!(out.len() >= (first + tile) * self.wide);
            for c in (0..self.wide).step_by(self.width) {
                // SAFETY: as asserted; `packed` holds a tile of `span` steps.
                unsafe {
                    tile_product(
                        self.isa,
                        tile,
                        span,
                        packed.as_ptr(),
                        rows.as_ptr().add(low * self.wide + c),
                        self.wide,
                        out.as_mut_ptr().add(first * self.wide + c),
                        self.wide,
                        true,
                    );
                }
            }
        }
    }

    /// `sums[low..low + span][wide] += weightsᵀ · rows`, where `weights` is `[count, span]` and `rows` `[count, wide]`.
    fn spread(
        &self,
        weights: &[f32],
        count: usize,
        span: usize,
        rows: &[f32],
        low: usize,
        packed: &mut [f32],
        sums: &mut [f32],
    ) {
        assert!(rows.len() >= count * self.wide && sums.len() >= (low + span) * self.wide);
        for (first, _, tile) in tiles(span, self.full) {
            for q in 0..count {
                packed[q * tile..(q + 1) * tile].copy_from_slice(&weights[q * span + first..][..tile]);
            }
            for c in (0..self.wide).step_by(self.width) {
                // SAFETY: as asserted; a span is even, so no tile is wider than what is left of it.
                unsafe {
                    tile_product(
                        self.isa,
                        tile,
                        count,
                        packed.as_ptr(),
                        rows.as_ptr().add(c),
                        self.wide,
                        sums.as_mut_ptr().add((low + first) * self.wide + c),
                        self.wide,
                        false,
                    );
                }
            }
        }
    }

    /// Makes weights of the scores of query `q` of row `row`: those that it does not see become 0. With `lse` they are made
    /// from it, else it is made and returned.
    fn weigh(&self, row: usize, q: usize, low: usize, scores: &mut [f32], lse: Option<f32>) -> f32 {
        let start = row * self.layout.len;
        if self.blind(start + q) {
            scores.fill(0.0);
            return 0.0;
        }
        let from = (q + 1).saturating_sub(self.window()).max(low);
        let segments = &self.layout.segments[start + from..=start + q];
        let (before, rest) = scores.split_at_mut(from - low);
        let (seen, after) = rest.split_at_mut(q + 1 - from);
        before.fill(0.0);
        after.fill(0.0);
        // SAFETY: `segments` and `seen` have one length; `isa` is available on this CPU.
        unsafe { weigh_row(self.isa, seen, segments, lse) }
    }
}

/// Packs `real` rows as `[step, tile]`; the padding row of an odd tile is 0.
fn pack(rows: &[f32], stride: usize, real: usize, tile: usize, steps: usize, packed: &mut [f32]) {
    for t in 0..tile {
        if t < real {
            let row = &rows[t * stride..][..steps];
            for (out, x) in packed[t..].iter_mut().step_by(tile).zip(row) {
                *out = *x;
            }
        } else {
            packed[t..].iter_mut().step_by(tile).take(steps).for_each(|x| *x = 0.0);
        }
    }
}

dispatch! {
    unsafe fn tile_product(tile: usize, steps: usize, x: *const f32, w: *const f32, w_stride: usize, sums: *mut f32, stride: usize, first: bool) = tile_product_kernel;
}

#[inline(always)]
unsafe fn tile_product_kernel<S: Simd>(
    tile: usize,
    steps: usize,
    x: *const f32,
    w: *const f32,
    w_stride: usize,
    sums: *mut f32,
    stride: usize,
    first: bool,
) {
    any_tile::<S, Floats>(tile, steps, x, w, w_stride, sums, stride, first);
}

dispatch! {
    unsafe fn weigh_row(scores: &mut [f32], segments: &[u32], lse: Option<f32>) -> f32 = weigh_row_kernel;
}

#[inline(always)]
unsafe fn weigh_row_kernel<S: Simd>(scores: &mut [f32], segments: &[u32], lse: Option<f32>) -> f32 {
    let n = scores.len();
    // The last is the query itself, which it sees.
    let own = segments[n - 1];
    let shift = match lse {
        Some(lse) => lse,
        None => {
            let mut largest = scores[n - 1];
            for (score, &segment) in scores.iter().zip(segments) {
                let score = if segment == own { *score } else { f32::NEG_INFINITY };
                largest = if score > largest { score } else { largest };
            }
            largest
        }
    };
    let mut i = 0;
    while i < n {
        let p = scores.as_mut_ptr().add(i);
        if n - i >= S::LANES {
            S::store(p, S::exp(S::sub(S::load(p), S::splat(shift))));
        } else {
            let mut last = [0.0f32; 16];
            S::store(last.as_mut_ptr(), S::exp(S::sub(S::load_partial(p, n - i), S::splat(shift))));
            std::ptr::copy_nonoverlapping(last.as_ptr(), p, n - i);
        }
        i += S::LANES;
    }
    for (score, &segment) in scores.iter_mut().zip(segments) {
        *score = if segment == own { *score } else { 0.0 };
    }
    if lse.is_some() {
        return shift;
    }
    let mut parts = [0.0f32; 16];
    for chunk in scores.chunks(16) {
        for (part, x) in parts.iter_mut().zip(chunk) {
            *part += x;
        }
    }
    let sum: f32 = parts.iter().sum();
    let scale = 1.0 / sum;
    for score in scores.iter_mut() {
        *score *= scale;
    }
    shift + sum.ln()
}

/// `out = softmax(q kᵀ / √head_dim) v` over the keys that each query sees; `lse` gets the logarithms of the sums.
///
/// A token of padding sees nothing; as transformers' eager attention has it, it gets the mean of all values of its row.
/// `out` is `[tokens, heads, head_dim]`, `lse` `[tokens, heads]`.
///
/// # Panics
/// When lengths do not fit.
pub fn attention_forward(
    run: &Product<'_>,
    shape: AttentionGeometry,
    layout: Layout<'_>,
    inputs: AttentionInputs<'_>,
    out: &mut [f32],
    lse: &mut [f32],
    scratch: &mut AttentionScratch,
) {
    let tokens = shape.check(&layout, &inputs);
    assert!(out.len() == inputs.q.len() && lse.len() == tokens * shape.heads);
    let task = Task::new(run, shape, layout, inputs);
    let (dim, wide) = (shape.head_dim, task.wide);
    let (q_stride, kv_stride) = (shape.heads * dim, shape.kv_heads * dim);
    scratch.threads.resize_with(run.pool.threads(), Own::default);
    let threads = SharedMut::new(&mut scratch.threads);
    let (out, lse) = (SharedMut::new(out), SharedMut::new(lse));
    run.pool.for_ranges(tokens / layout.len * shape.kv_heads, 1, |thread, range| {
        // SAFETY: each thread has its own scratch, and runs one body at a time.
        let own = unsafe { &mut threads.slice(thread, 1)[0] };
        own.reserve(&task, false);
        for item in range {
            let (row, kv) = (item / shape.kv_heads, item % shape.kv_heads);
            let start = row * layout.len;
            own.load(&task, start, kv, kv_stride, false);
            for head in kv * (shape.heads / shape.kv_heads)..(kv + 1) * (shape.heads / shape.kv_heads) {
                for first in (0..layout.len).step_by(BLOCK) {
                    let count = (layout.len - first).min(BLOCK);
                    let (low, high) = task.span(first, count);
                    let span = high - low;
                    task.copy_rows(
                        inputs.q,
                        q_stride,
                        head * dim,
                        start + first,
                        count,
                        task.scale(),
                        &mut own.queries,
                    );
                    task.scores(
                        &own.queries,
                        count,
                        &own.key_panels,
                        low,
                        span,
                        &mut own.packed,
                        &mut own.weights,
                    );
                    for t in 0..count {
                        let scores = &mut own.weights[t * span..(t + 1) * span];
                        let value = task.weigh(row, first + t, low, scores, None);
                        // SAFETY: each (token, head) belongs to one task.
                        unsafe { lse.slice((start + first + t) * shape.heads + head, 1)[0] = value };
                    }
                    task.mix(&own.weights, count, span, &own.value_rows, low, &mut own.packed, &mut own.out);
                    for t in 0..count {
                        let token = start + first + t;
                        // SAFETY: as above.
                        let out = unsafe { out.slice(token * q_stride + head * dim, dim) };
                        let values =
                            if task.blind(token) { &own.mean[..dim] } else { &own.out[t * wide..][..dim] };
                        out.copy_from_slice(values);
                    }
                }
            }
        }
    });
}

/// The backward pass of [`attention_forward`]: from its inputs, `out`, `lse` and the gradient `dout` of `out`, writes the
/// gradients of (rotated) queries, keys and values.
///
/// # Panics
/// When lengths do not fit.
pub fn attention_backward(
    run: &Product<'_>,
    shape: AttentionGeometry,
    layout: Layout<'_>,
    inputs: AttentionInputs<'_>,
    out: &[f32],
    lse: &[f32],
    dout: &[f32],
    gradients: [&mut [f32]; 3],
    scratch: &mut AttentionScratch,
) {
    let tokens = shape.check(&layout, &inputs);
    let [dq, dk, dv] = gradients;
    assert!(out.len() == inputs.q.len() && lse.len() == tokens * shape.heads && dout.len() == out.len());
    assert!(dq.len() == out.len() && dk.len() == inputs.k.len() && dv.len() == inputs.v.len());
    let task = Task::new(run, shape, layout, inputs);
    let (dim, wide) = (shape.head_dim, task.wide);
    let (q_stride, kv_stride) = (shape.heads * dim, shape.kv_heads * dim);
    scratch.threads.resize_with(run.pool.threads(), Own::default);
    let threads = SharedMut::new(&mut scratch.threads);
    let (dq, dk, dv) = (SharedMut::new(dq), SharedMut::new(dk), SharedMut::new(dv));
    run.pool.for_ranges(tokens / layout.len * shape.kv_heads, 1, |thread, range| {
        // SAFETY: each thread has its own scratch, and runs one body at a time.
        let own = unsafe { &mut threads.slice(thread, 1)[0] };
        own.reserve(&task, true);
        for item in range {
            let (row, kv) = (item / shape.kv_heads, item % shape.kv_heads);
            let start = row * layout.len;
            own.load(&task, start, kv, kv_stride, true);
            own.dk.fill(0.0);
            own.dv.fill(0.0);
            for head in kv * (shape.heads / shape.kv_heads)..(kv + 1) * (shape.heads / shape.kv_heads) {
                for first in (0..layout.len).step_by(BLOCK) {
                    let count = (layout.len - first).min(BLOCK);
                    let (low, high) = task.span(first, count);
                    let span = high - low;
                    let (q, token) = (head * dim, start + first);
                    task.copy_rows(inputs.q, q_stride, q, token, count, task.scale(), &mut own.queries);
                    task.copy_rows(dout, q_stride, q, token, count, 1.0, &mut own.douts);
                    task.scores(
                        &own.queries,
                        count,
                        &own.key_panels,
                        low,
                        span,
                        &mut own.packed,
                        &mut own.weights,
                    );
                    task.scores(
                        &own.douts,
                        count,
                        &own.value_panels,
                        low,
                        span,
                        &mut own.packed,
                        &mut own.slopes,
                    );
                    for t in 0..count {
                        let at = t * span..(t + 1) * span;
                        let weights = &mut own.weights[at.clone()];
                        task.weigh(row, first + t, low, weights, Some(lse[(token + t) * shape.heads + head]));
                        let out = &out[(token + t) * q_stride + q..][..dim];
                        let mean: f32 = out.iter().zip(&own.douts[t * wide..]).map(|(a, b)| a * b).sum();
                        for (slope, weight) in own.slopes[at].iter_mut().zip(weights) {
                            *slope = *weight * (*slope - mean);
                        }
                    }
                    task.spread(&own.weights, count, span, &own.douts, low, &mut own.packed, &mut own.dv);
                    task.spread(&own.slopes, count, span, &own.queries, low, &mut own.packed, &mut own.dk);
                    task.mix(&own.slopes, count, span, &own.key_rows, low, &mut own.packed, &mut own.out);
                    for t in 0..count {
                        if task.blind(token + t) {
                            own.blind_query(&task, t, &out[(token + t) * q_stride + q..][..dim]);
                        }
                        // SAFETY: each (token, head) belongs to one task.
                        let dq = unsafe { dq.slice((token + t) * q_stride + q, dim) };
                        for (dq, x) in dq.iter_mut().zip(&own.out[t * wide..]) {
                            *dq = task.scale() * x;
                        }
                    }
                }
            }
            for t in 0..layout.len {
                // SAFETY: each (token, key head) belongs to one task.
                unsafe {
                    let at = (start + t) * kv_stride + kv * dim;
                    dk.slice(at, dim).copy_from_slice(&own.dk[t * wide..][..dim]);
                    dv.slice(at, dim).copy_from_slice(&own.dv[t * wide..][..dim]);
                }
            }
        }
    });
}

impl Own {
    fn reserve(&mut self, task: &Task<'_>, backward: bool) {
        let (dim, wide, padded) = (task.shape.head_dim, task.wide, task.padded);
        let span = (task.window() + BLOCK + 2 * task.width).min(padded).max(task.width);
        let rows = BLOCK + task.full + 1;
        for buffer in [&mut self.key_rows, &mut self.value_rows] {
            buffer.reserve(padded * wide);
        }
        self.key_panels.reserve(padded * dim);
        for buffer in [&mut self.queries, &mut self.out] {
            buffer.reserve(rows * wide);
        }
        self.weights.reserve(rows * span);
        self.packed.reserve((task.full + 1) * span.max(dim).max(BLOCK));
        if backward {
            self.value_panels.reserve(padded * dim);
            self.dk.reserve(padded * wide);
            self.dv.reserve(padded * wide);
            self.douts.reserve(rows * wide);
            self.slopes.reserve(rows * span);
        }
        self.mean.resize(wide, 0.0);
    }

    /// Packs the keys and values of one row and head.
    fn load(&mut self, task: &Task<'_>, start: usize, kv: usize, stride: usize, backward: bool) {
        let (len, wide, dim) = (task.layout.len, task.wide, task.shape.head_dim);
        let offset = kv * dim;
        for (x, rows) in [(task.inputs.k, &mut self.key_rows), (task.inputs.v, &mut self.value_rows)] {
            task.copy_rows(x, stride, offset, start, len, 1.0, rows);
            rows[len * wide..task.padded * wide].fill(0.0);
        }
        task.panels(&self.key_rows, &mut self.key_panels);
        if backward {
            task.panels(&self.value_rows, &mut self.value_panels);
        }
        if task.layout.segments[start..start + len].contains(&0) {
            self.mean.fill(0.0);
            for row in self.value_rows.chunks_exact(wide).take(len) {
                for (mean, x) in self.mean.iter_mut().zip(row) {
                    *mean += x;
                }
            }
            self.mean.iter_mut().for_each(|x| *x /= len as f32);
        }
    }

    /// The backward pass of a query that sees nothing: its weights are `1 / len` for all keys, and its gradient goes through
    /// the softmax nevertheless, as it does in transformers. Mostly `dout` is 0: such a token has no label.
    fn blind_query(&mut self, task: &Task<'_>, t: usize, out: &[f32]) {
        let (wide, dim, len) = (task.wide, task.shape.head_dim, task.layout.len);
        let dout = &self.douts[t * wide..][..dim];
        if dout.iter().all(|&x| x == 0.0) {
            return;
        }
        let query = &self.queries[t * wide..][..dim];
        let dq = &mut self.out[t * wide..][..dim];
        let weight = 1.0 / len as f32;
        let mean: f32 = out.iter().zip(dout).map(|(a, b)| a * b).sum();
        for k in 0..len {
            let at = k * wide..k * wide + dim;
            let slope: f32 = self.value_rows[at.clone()].iter().zip(dout).map(|(a, b)| a * b).sum();
            let slope = weight * (slope - mean);
            for i in 0..dim {
                dq[i] += slope * self.key_rows[k * wide + i];
                self.dk[k * wide + i] += slope * query[i];
                self.dv[k * wide + i] += weight * dout[i];
            }
        }
    }
}
