//! Causal attention in a sliding window, confined to segments, forward and backward.
//!
//! The unit of work is a row of the batch and a key head: its keys and values are packed once and used by all query
//! heads of the group, block of queries by block. A block keeps the scores of its queries with the keys in reach,
//! `[queries of a block, window]`, never those of all pairs; the backward pass makes them anew from the logarithm of the
//! sum of exponentials that the forward pass saved. Queries and keys are rotated to their positions as they are loaded,
//! and their gradients back as they are stored.

use super::{
    arithmetic::{Compute, Kernel, launch},
    packing::{Pack, pack_floats, pack_narrowed, pack_strip},
    product::{Operand, Product, Strip},
    stored::Stored,
};
use crate::{
    Isa, RopeTable,
    buffer::Buffer,
    gemm::{Multiply, any_tile, tile_shape},
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

/// Queries `[tokens, heads, head_dim]`, keys and values `[tokens, kv_heads, head_dim]`.
#[derive(Clone, Copy)]
pub struct AttentionInputs<'a, T = f32> {
    /// Queries.
    pub q: &'a [T],
    /// Keys.
    pub k: &'a [T],
    /// Values.
    pub v: &'a [T],
    /// Rotates queries and keys to their positions; `None` where they are rotated already.
    pub rope: Option<&'a RopeTable>,
}

impl AttentionGeometry {
    fn check<T>(&self, layout: &Layout<'_>, inputs: &AttentionInputs<'_, T>) -> usize {
        let tokens = layout.positions.len();
        let (q, kv) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        assert!(layout.segments.len() == tokens && layout.len > 0 && tokens.is_multiple_of(layout.len));
        assert!(self.kv_heads > 0 && self.heads.is_multiple_of(self.kv_heads) && self.window != Some(0));
        assert_eq!(inputs.q.len(), tokens * q);
        assert!(inputs.k.len() == tokens * kv && inputs.v.len() == tokens * kv);
        tokens
    }
}

/// Buffers that attention reuses, one set a thread.
#[derive(Default)]
pub struct AttentionScratch {
    threads: Vec<Own>,
}

#[derive(Default)]
struct Own {
    /// `[len, head_dim]`
    key_rows: Buffer,
    value_rows: Buffer,
    /// Packed with keys as lanes, `[panel, head_dim, width]`, and with numbers of the head as lanes, `[panel, len, width]`.
    key_panels: Buffer,
    value_panels: Buffer,
    key_columns: Buffer,
    value_columns: Buffer,
    /// Sums of the gradients of keys and values, `[len, wide]`.
    dk: Buffer,
    dv: Buffer,
    /// Weights of a block, and their gradients, `[BLOCK, span]`.
    weights: Buffer,
    slopes: Buffer,
    /// A packed tile.
    packed: Buffer,
    /// Queries, and gradients of outputs, of a block, `[BLOCK, head_dim]`, and packed like `key_columns`.
    queries: Buffer,
    douts: Buffer,
    query_columns: Buffer,
    dout_columns: Buffer,
    /// `[BLOCK, wide]`
    out: Buffer,
    mean: Vec<f32>,
}

/// What the tasks of one call share.
#[derive(Clone, Copy)]
struct Task<'a, T> {
    isa: Isa,
    compute: Compute,
    shape: AttentionGeometry,
    layout: Layout<'a>,
    inputs: AttentionInputs<'a, T>,
    /// Outputs of a panel, and rows of a tile.
    width: usize,
    full: usize,
    /// `head_dim` rounded up to panels, and `len`.
    wide: usize,
    padded: usize,
}

/// Rotations of some tokens.
#[derive(Clone, Copy)]
struct Angles<'a> {
    table: &'a RopeTable,
    positions: &'a [u32],
}

impl<'a, T: Stored> Task<'a, T> {
    fn new(
        run: &Product<'_>,
        shape: AttentionGeometry,
        layout: Layout<'a>,
        inputs: AttentionInputs<'a, T>,
    ) -> Self {
        let (full, width) = tile_shape(run.isa);
        let wide = shape.head_dim.next_multiple_of(width);
        let padded = layout.len.next_multiple_of(width);
        Self { isa: run.isa, compute: run.compute, shape, layout, inputs, width, full, wide, padded }
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

    /// Steps of a packing of `n` numbers.
    fn steps(&self, n: usize) -> usize {
        match self.compute {
            Compute::F32 => n,
            Compute::Bf16 => n.div_ceil(2),
        }
    }

    fn angles(&self, token: usize, count: usize) -> Option<Angles<'a>> {
        let positions = &self.layout.positions[token..token + count];
        self.inputs.rope.map(|table| Angles { table, positions })
    }

    /// `out[count][head_dim]` from `x[token][offset..offset + head_dim]`, rotated, times `scale`.
    fn load(
        &self,
        x: &[T],
        (stride, offset): (usize, usize),
        (token, count): (usize, usize),
        angles: Option<Angles<'_>>,
        scale: f32,
        out: &mut [f32],
    ) {
        let dim = self.shape.head_dim;
        assert!(x.len() >= (token + count) * stride && offset + dim <= stride && out.len() >= count * dim);
        // SAFETY: as asserted; `isa` is available on this CPU.
        unsafe {
            let x = x.as_ptr().add(token * stride + offset);
            load_rows(self.isa, x, stride, count, dim, angles, scale, out.as_mut_ptr());
        }
    }

    /// The inverse of [`Task::load`], from rows of `wide`.
    ///
    /// # Safety
    /// No other thread touches those numbers of `out`.
    unsafe fn store(
        &self,
        rows: &[f32],
        out: SharedMut<T>,
        (stride, offset): (usize, usize),
        (token, count): (usize, usize),
        angles: Option<Angles<'_>>,
        scale: f32,
    ) {
        let dim = self.shape.head_dim;
        assert!(rows.len() >= count * self.wide && offset + dim <= stride);
        let out = out.at(token * stride + offset);
        store_rows(self.isa, rows.as_ptr(), self.wide, count, dim, angles, scale, out, stride);
    }

    /// Packs rows `[len, head_dim]` as panels with rows as lanes.
    fn panels(&self, rows: &[f32], out: &mut [f32]) {
        let (dim, len) = (self.shape.head_dim, self.layout.len);
        self.pack(Operand::within(rows, dim, true, len, dim), rows, self.steps(dim), out);
    }

    /// Packs `count` rows of `head_dim` as panels with the numbers of the head as lanes, each with a place for `places` rows.
    fn columns(&self, rows: &[f32], count: usize, places: usize, out: &mut [f32]) {
        let dim = self.shape.head_dim;
        self.pack(Operand::within(rows, dim, false, dim, count), rows, self.steps(places), out);
    }

    fn pack(&self, operand: Operand<'_>, data: &[f32], steps: usize, out: &mut [f32]) {
        for first in (0..operand.outer).step_by(self.width) {
            let strip = Strip { piece: 0, first, rows: (operand.outer - first).min(self.width) };
            let out = &mut out[first * steps..(first + self.width) * steps];
            let used = self.steps(operand.inner) * self.width;
            out[used..].fill(0.0);
            // SAFETY: the packing takes `used` numbers; `isa` is available on this CPU.
            unsafe {
                match self.compute {
                    Compute::F32 => {
                        pack_floats(self.isa, &operand, data, &strip, self.width, out.as_mut_ptr());
                    }
                    Compute::Bf16 => {
                        pack_narrowed(self.isa, &operand, data, &strip, self.width, out.as_mut_ptr());
                    }
                }
            }
        }
    }

    /// `out[i][0..panels × width] (+)= Σₖ left(i, k) · right[panel][k]`; `right` has a place for `steps` steps in each panel.
    fn multiply(
        &self,
        (left, data): (Operand<'_>, &[f32]),
        (right, steps): (&[f32], usize),
        panels: usize,
        packed: &mut [f32],
        (out, stride): (&mut [f32], usize),
        add: bool,
    ) {
        let own = self.steps(left.inner);
        assert!(right.len() >= ((panels - 1) * steps + own) * self.width && panels * self.width <= stride);
        assert!(packed.len() >= (self.full + 1) * own);
        assert!(out.len() >= left.outer.next_multiple_of(2) * stride);
        let small = Small {
            left,
            data,
            right: right.as_ptr(),
            place: steps * self.width,
            panels,
            full: self.full,
            packed: packed.as_mut_ptr(),
            out: out.as_mut_ptr(),
            stride,
            add,
        };
        // SAFETY: as asserted; `isa` is available on this CPU.
        unsafe { launch(self.isa, self.compute, &small) }
    }

    /// `out[count][span] = rows · panels` over `head_dim`, where `rows` is `[count, head_dim]`.
    fn scores(
        &self,
        rows: &[f32],
        count: usize,
        panels: &[f32],
        (low, span): (usize, usize),
        packed: &mut [f32],
        out: &mut [f32],
    ) {
        let dim = self.shape.head_dim;
        let steps = self.steps(dim);
        let left = (Operand::within(rows, dim, true, count, dim), rows);
        self.multiply(left, (&panels[low * steps..], steps), span / self.width, packed, (out, span), false);
    }

    /// `out[count][wide] = weights · columns` over the span, where `weights` is `[count, span]`.
    fn mix(
        &self,
        weights: &[f32],
        count: usize,
        columns: &[f32],
        (low, span): (usize, usize),
        packed: &mut [f32],
        out: &mut [f32],
    ) {
        let right = (&columns[self.steps(low) * self.width..], self.steps(self.padded));
        let left = (Operand::within(weights, span, true, count, span), weights);
        self.multiply(left, right, self.wide / self.width, packed, (out, self.wide), false);
    }

    /// `sums[low..low + span][wide] += weightsᵀ · columns` over the queries, where `weights` is `[count, span]`.
    fn spread(
        &self,
        weights: &[f32],
        count: usize,
        columns: &[f32],
        (low, span): (usize, usize),
        packed: &mut [f32],
        sums: &mut [f32],
    ) {
        let left = (Operand::within(weights, span, false, span, count), weights);
        let out = (&mut sums[low * self.wide..], self.wide);
        self.multiply(left, (columns, self.steps(BLOCK)), self.wide / self.width, packed, out, true);
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

/// A product of a block.
struct Small<'a> {
    left: Operand<'a>,
    data: &'a [f32],
    right: *const f32,
    place: usize,
    panels: usize,
    full: usize,
    packed: *mut f32,
    out: *mut f32,
    stride: usize,
    add: bool,
}

impl Kernel for Small<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd, M: Multiply<S>, P: Pack<S, From = f32>>(&self) {
        let (rows, width) = (self.left.outer, 2 * S::LANES);
        let steps = self.left.inner.div_ceil(P::STEP);
        let mut first = 0;
        while first < rows {
            let strip = Strip { piece: 0, first, rows: (rows - first).min(self.full) };
            let tile = strip.rows.next_multiple_of(2);
            pack_strip::<S, P>(&self.left, self.data, &strip, tile, self.packed);
            for panel in 0..self.panels {
                let right = self.right.add(panel * self.place);
                let out = self.out.add(first * self.stride + panel * width);
                any_tile::<S, M>(tile, steps, self.packed, right, width, out, self.stride, !self.add);
            }
            first += self.full;
        }
    }
}

dispatch! {
    unsafe fn load_rows<T: Stored>(x: *const T, stride: usize, count: usize, dim: usize, angles: Option<Angles<'_>>, scale: f32, out: *mut f32) = load_rows_kernel;
}

#[inline(always)]
unsafe fn load_rows_kernel<S: Simd, T: Stored>(
    x: *const T,
    stride: usize,
    count: usize,
    dim: usize,
    angles: Option<Angles<'_>>,
    scale: f32,
    out: *mut f32,
) {
    let (half, scale) = (dim / 2, S::splat(scale));
    for t in 0..count {
        let (x, out) = (x.add(t * stride), out.add(t * dim));
        let mut i = 0;
        let Some(angles) = angles else {
            while i < dim {
                f32::store::<S>(out.add(i), S::mul(scale, T::load::<S>(x.add(i), dim - i)), dim - i);
                i += S::LANES;
            }
            continue;
        };
        let (cos, sin) = angles.table.at(angles.positions[t] as usize);
        while i < half {
            let n = half - i;
            let (a, b) = (T::load::<S>(x.add(i), n), T::load::<S>(x.add(half + i), n));
            let (cos, sin) = (f32::load::<S>(cos.as_ptr().add(i), n), f32::load::<S>(sin.as_ptr().add(i), n));
            let low = S::sub(S::mul(a, cos), S::mul(b, sin));
            let high = S::add(S::mul(b, cos), S::mul(a, sin));
            f32::store::<S>(out.add(i), S::mul(scale, low), n);
            f32::store::<S>(out.add(half + i), S::mul(scale, high), n);
            i += S::LANES;
        }
    }
}

dispatch! {
    unsafe fn store_rows<T: Stored>(rows: *const f32, wide: usize, count: usize, dim: usize, angles: Option<Angles<'_>>, scale: f32, out: *mut T, stride: usize) = store_rows_kernel;
}

#[inline(always)]
unsafe fn store_rows_kernel<S: Simd, T: Stored>(
    rows: *const f32,
    wide: usize,
    count: usize,
    dim: usize,
    angles: Option<Angles<'_>>,
    scale: f32,
    out: *mut T,
    stride: usize,
) {
    let (half, scale) = (dim / 2, S::splat(scale));
    for t in 0..count {
        let (row, out) = (rows.add(t * wide), out.add(t * stride));
        let mut i = 0;
        let Some(angles) = angles else {
            while i < dim {
                T::store::<S>(out.add(i), S::mul(scale, f32::load::<S>(row.add(i), dim - i)), dim - i);
                i += S::LANES;
            }
            continue;
        };
        let (cos, sin) = angles.table.at(angles.positions[t] as usize);
        while i < half {
            let n = half - i;
            let (a, b) = (f32::load::<S>(row.add(i), n), f32::load::<S>(row.add(half + i), n));
            let (cos, sin) = (f32::load::<S>(cos.as_ptr().add(i), n), f32::load::<S>(sin.as_ptr().add(i), n));
            let low = S::add(S::mul(a, cos), S::mul(b, sin));
            let high = S::sub(S::mul(b, cos), S::mul(a, sin));
            T::store::<S>(out.add(i), S::mul(scale, low), n);
            T::store::<S>(out.add(half + i), S::mul(scale, high), n);
            i += S::LANES;
        }
    }
}

dispatch! {
    unsafe fn weigh_row(scores: &mut [f32], segments: &[u32], lse: Option<f32>) -> f32 = weigh_row_kernel;
}

#[inline(always)]
unsafe fn weigh_row_kernel<S: Simd>(scores: &mut [f32], segments: &[u32], lse: Option<f32>) -> f32 {
    let n = scores.len();
    // The last is the query itself, which it sees.
    let own = segments[n - 1];
    let mixed = segments.iter().fold(0, |all, segment| all | (segment ^ own)) != 0;
    if mixed {
        for (score, &segment) in scores.iter_mut().zip(segments) {
            *score = if segment == own { *score } else { f32::MIN };
        }
    }
    let shift = lse.unwrap_or_else(|| largest::<S>(scores));
    let p = scores.as_mut_ptr();
    let mut i = 0;
    while i < n {
        let e = S::exp(S::sub(f32::load::<S>(p.add(i), n - i), S::splat(shift)));
        f32::store::<S>(p.add(i), e, n - i);
        i += S::LANES;
    }
    if mixed {
        for (score, &segment) in scores.iter_mut().zip(segments) {
            *score = if segment == own { *score } else { 0.0 };
        }
    }
    if lse.is_some() {
        return shift;
    }
    let mut sum = S::splat(0.0);
    i = 0;
    while i < n {
        sum = S::add(sum, f32::load::<S>(p.add(i), n - i));
        i += S::LANES;
    }
    let sum = S::sum(sum);
    let scale = S::splat(1.0 / sum);
    i = 0;
    while i < n {
        f32::store::<S>(p.add(i), S::mul(f32::load::<S>(p.add(i), n - i), scale), n - i);
        i += S::LANES;
    }
    shift + sum.ln()
}

/// The largest number of a row.
#[inline(always)]
pub(super) unsafe fn largest<S: Simd>(x: &[f32]) -> f32 {
    let n = x.len();
    if n < S::LANES {
        return x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    }
    let p = x.as_ptr();
    let mut most = S::load(p.add(n - S::LANES));
    let mut i = 0;
    while i + S::LANES <= n {
        most = S::max(most, S::load(p.add(i)));
        i += S::LANES;
    }
    S::max_lane(most)
}

dispatch! {
    unsafe fn slope_row<T: Stored>(weights: &[f32], slopes: &mut [f32], out: *const T, dout: &[f32]) = slope_row_kernel;
}

/// Gradients of scores from those of weights: `slope = weight · (slope − Σ out dout)`.
#[inline(always)]
unsafe fn slope_row_kernel<S: Simd, T: Stored>(
    weights: &[f32],
    slopes: &mut [f32],
    out: *const T,
    dout: &[f32],
) {
    let mut mean = S::splat(0.0);
    let (n, dim) = (slopes.len(), dout.len());
    let mut i = 0;
    while i < dim {
        let (a, b) = (T::load::<S>(out.add(i), dim - i), f32::load::<S>(dout.as_ptr().add(i), dim - i));
        mean = S::fma(a, b, mean);
        i += S::LANES;
    }
    let mean = S::splat(S::sum(mean));
    let (weights, slopes) = (weights.as_ptr(), slopes.as_mut_ptr());
    i = 0;
    while i < n {
        let slope = S::sub(f32::load::<S>(slopes.add(i), n - i), mean);
        f32::store::<S>(slopes.add(i), S::mul(f32::load::<S>(weights.add(i), n - i), slope), n - i);
        i += S::LANES;
    }
}

/// `out = softmax(q kᵀ / √head_dim) v` over the keys that each query sees; `lse` gets the logarithms of the sums.
///
/// A token of padding sees nothing; as transformers' eager attention has it, it gets the mean of all values of its row.
/// `out` is `[tokens, heads, head_dim]`, `lse` `[tokens, heads]`.
///
/// # Panics
/// When lengths do not fit, or a position is beyond the table.
pub fn attention_forward(
    run: &Product<'_>,
    shape: AttentionGeometry,
    layout: Layout<'_>,
    inputs: AttentionInputs<'_>,
    out: &mut [f32],
    lse: &mut [f32],
    scratch: &mut AttentionScratch,
) {
    forward(run, shape, layout, inputs, out, lse, scratch);
}

pub(super) fn forward<T: Stored>(
    run: &Product<'_>,
    shape: AttentionGeometry,
    layout: Layout<'_>,
    inputs: AttentionInputs<'_, T>,
    out: &mut [T],
    lse: &mut [f32],
    scratch: &mut AttentionScratch,
) {
    let tokens = shape.check(&layout, &inputs);
    assert!(out.len() == inputs.q.len() && lse.len() == tokens * shape.heads);
    let task = Task::new(run, shape, layout, inputs);
    let (dim, wide) = (shape.head_dim, task.wide);
    let q_stride = shape.heads * dim;
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
            own.load(&task, start, kv, false);
            for head in kv * (shape.heads / shape.kv_heads)..(kv + 1) * (shape.heads / shape.kv_heads) {
                for first in (0..layout.len).step_by(BLOCK) {
                    let count = (layout.len - first).min(BLOCK);
                    let (low, high) = task.span(first, count);
                    let at = (low, high - low);
                    let (token, place) = (start + first, (q_stride, head * dim));
                    let Own { queries, key_panels, value_columns, packed, weights, out: mixed, mean, .. } =
                        &mut *own;
                    if (token..token + count).all(|t| task.blind(t)) {
                        for t in token..token + count {
                            // SAFETY: each (token, head) belongs to one task.
                            unsafe { lse.slice(t * shape.heads + head, 1)[0] = 0.0 };
                        }
                    } else {
                        let angles = task.angles(token, count);
                        task.load(inputs.q, place, (token, count), angles, task.scale(), queries);
                        task.scores(queries, count, key_panels, at, packed, weights);
                        for t in 0..count {
                            let scores = &mut weights[t * at.1..(t + 1) * at.1];
                            let value = task.weigh(row, first + t, low, scores, None);
                            // SAFETY: as above.
                            unsafe { lse.slice((token + t) * shape.heads + head, 1)[0] = value };
                        }
                        task.mix(weights, count, value_columns, at, packed, mixed);
                    }
                    for t in (0..count).filter(|t| task.blind(token + t)) {
                        mixed[t * wide..][..dim].copy_from_slice(&mean[..dim]);
                    }
                    // SAFETY: as above.
                    unsafe { task.store(mixed, out, place, (token, count), None, 1.0) };
                }
            }
        }
    });
}

/// The backward pass of [`attention_forward`]: from its inputs, `out`, `lse` and the gradient `dout` of `out`, writes the
/// gradients of queries, keys and values (as the inputs are: rotated or not).
///
/// # Panics
/// When lengths do not fit, or a position is beyond the table.
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
    backward(run, shape, layout, inputs, out, lse, dout, gradients, scratch);
}

pub(super) fn backward<T: Stored>(
    run: &Product<'_>,
    shape: AttentionGeometry,
    layout: Layout<'_>,
    inputs: AttentionInputs<'_, T>,
    out: &[T],
    lse: &[f32],
    dout: &[T],
    gradients: [&mut [T]; 3],
    scratch: &mut AttentionScratch,
) {
    let tokens = shape.check(&layout, &inputs);
    let [dq, dk, dv] = gradients;
    assert!(out.len() == inputs.q.len() && lse.len() == tokens * shape.heads && dout.len() == out.len());
    assert!(dq.len() == out.len() && dk.len() == inputs.k.len() && dv.len() == inputs.v.len());
    let task = Task::new(run, shape, layout, inputs);
    let dim = shape.head_dim;
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
            own.load(&task, start, kv, true);
            own.dk.fill(0.0);
            own.dv.fill(0.0);
            for head in kv * (shape.heads / shape.kv_heads)..(kv + 1) * (shape.heads / shape.kv_heads) {
                for first in (0..layout.len).step_by(BLOCK) {
                    let count = (layout.len - first).min(BLOCK);
                    let (low, high) = task.span(first, count);
                    let at = (low, high - low);
                    let (token, place) = (start + first, (q_stride, head * dim));
                    let angles = task.angles(token, count);
                    {
                        let Own {
                            queries,
                            douts,
                            query_columns,
                            dout_columns,
                            weights,
                            slopes,
                            key_panels,
                            value_panels,
                            key_columns,
                            packed,
                            dk,
                            dv,
                            out: mixed,
                            ..
                        } = &mut *own;
                        task.load(inputs.q, place, (token, count), angles, task.scale(), queries);
                        task.load(dout, place, (token, count), None, 1.0, douts);
                        task.columns(queries, count, BLOCK, query_columns);
                        task.columns(douts, count, BLOCK, dout_columns);
                        task.scores(queries, count, key_panels, at, packed, weights);
                        task.scores(douts, count, value_panels, at, packed, slopes);
                        for t in 0..count {
                            let some = t * at.1..(t + 1) * at.1;
                            let weights = &mut weights[some.clone()];
                            let lse = lse[(token + t) * shape.heads + head];
                            task.weigh(row, first + t, low, weights, Some(lse));
                            let out = &out[(token + t) * q_stride + head * dim..][..dim];
                            let dout = &douts[t * dim..(t + 1) * dim];
                            // SAFETY: lengths are equal two by two; `isa` is available on this CPU.
                            unsafe { slope_row(task.isa, weights, &mut slopes[some], out.as_ptr(), dout) }
                        }
                        task.spread(weights, count, dout_columns, at, packed, dv);
                        task.spread(slopes, count, query_columns, at, packed, dk);
                        task.mix(slopes, count, key_columns, at, packed, mixed);
                    }
                    for t in (0..count).filter(|t| task.blind(token + t)) {
                        own.blind_query(&task, t, &out[(token + t) * q_stride + head * dim..][..dim]);
                    }
                    // SAFETY: each (token, head) belongs to one task.
                    unsafe { task.store(&own.out, dq, place, (token, count), angles, task.scale()) };
                }
            }
            let (place, all) = ((kv_stride, kv * dim), (start, layout.len));
            // SAFETY: each (token, key head) belongs to one task.
            unsafe {
                task.store(&own.dk, dk, place, all, task.angles(start, layout.len), 1.0);
                task.store(&own.dv, dv, place, all, None, 1.0);
            }
        }
    });
}

impl Own {
    fn reserve<T: Stored>(&mut self, task: &Task<'_, T>, backward: bool) {
        let (dim, wide, padded) = (task.shape.head_dim, task.wide, task.padded);
        let span = (task.window() + BLOCK + 2 * task.width).min(padded).max(task.width);
        let rows = BLOCK + task.full + 1;
        for buffer in [&mut self.key_rows, &mut self.value_rows] {
            buffer.reserve(padded * dim);
        }
        self.key_panels.reserve(padded * dim);
        self.value_columns.reserve(padded * wide);
        self.queries.reserve(rows * dim);
        self.out.reserve(rows * wide);
        self.weights.reserve(rows * span);
        self.packed.reserve((task.full + 1) * span.max(dim).max(BLOCK));
        if backward {
            self.value_panels.reserve(padded * dim);
            self.key_columns.reserve(padded * wide);
            self.query_columns.reserve(BLOCK * wide);
            self.dout_columns.reserve(BLOCK * wide);
            self.dk.reserve(padded * wide);
            self.dv.reserve(padded * wide);
            self.douts.reserve(rows * dim);
            self.slopes.reserve(rows * span);
        }
        self.mean.resize(dim, 0.0);
    }

    /// Packs the keys and values of one row and head.
    fn load<T: Stored>(&mut self, task: &Task<'_, T>, start: usize, kv: usize, backward: bool) {
        let (len, dim) = (task.layout.len, task.shape.head_dim);
        let place = (task.shape.kv_heads * dim, kv * dim);
        let angles = task.angles(start, len);
        task.load(task.inputs.k, place, (start, len), angles, 1.0, &mut self.key_rows);
        task.load(task.inputs.v, place, (start, len), None, 1.0, &mut self.value_rows);
        task.panels(&self.key_rows, &mut self.key_panels);
        task.columns(&self.value_rows, len, task.padded, &mut self.value_columns);
        if backward {
            task.panels(&self.value_rows, &mut self.value_panels);
            task.columns(&self.key_rows, len, task.padded, &mut self.key_columns);
        }
        if task.layout.segments[start..start + len].contains(&0) {
            self.mean.fill(0.0);
            for row in self.value_rows.chunks_exact(dim).take(len) {
                for (mean, x) in self.mean.iter_mut().zip(row) {
                    *mean += x;
                }
            }
            self.mean.iter_mut().for_each(|x| *x /= len as f32);
        }
    }

    /// The backward pass of a query that sees nothing: its weights are `1 / len` for all keys, and its gradient goes through
    /// the softmax nevertheless, as it does in transformers. Mostly `dout` is 0: such a token has no label.
    fn blind_query<T: Stored>(&mut self, task: &Task<'_, T>, t: usize, out: &[T]) {
        let (wide, dim, len) = (task.wide, task.shape.head_dim, task.layout.len);
        let dout = &self.douts[t * dim..(t + 1) * dim];
        if dout.iter().all(|&x| x == 0.0) {
            return;
        }
        let query = &self.queries[t * dim..(t + 1) * dim];
        let dq = &mut self.out[t * wide..][..dim];
        let weight = 1.0 / len as f32;
        let mean: f32 = out.iter().zip(dout).map(|(a, b)| a.to_f32() * b).sum();
        for k in 0..len {
            let (key, value) = (&self.key_rows[k * dim..][..dim], &self.value_rows[k * dim..][..dim]);
            let slope: f32 = value.iter().zip(dout).map(|(a, b)| a * b).sum();
            let slope = weight * (slope - mean);
            for i in 0..dim {
                dq[i] += slope * key[i];
                self.dk[k * wide + i] += slope * query[i];
                self.dv[k * wide + i] += weight * dout[i];
            }
        }
    }
}
