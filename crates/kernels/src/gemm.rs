//! Products for prompt tokens: weights are packed once and multiplied with many tokens.
//!
//! A panel is `2 × LANES` output rows. Threads take panels; each packs `KC` inputs of its panel's weights as
//! `[k, row]` (a transposition on the way through the cache), multiplies the block with tiles of tokens that were packed
//! as `[k, token]`, and keeps the panel's sums `[token, row]` in its own cache until all inputs are through. One output
//! is a chain of multiply-adds in the order of its inputs, whatever tile it lies in.
//!
//! Quantised weights need no packing ([`crate::quant`]); integer products take their place.

use crate::{
    Isa,
    buffer::Buffer,
    elementwise::silu_mul,
    matrix::{Format, Matrix},
    pool::{Pool, SharedMut},
    quant::{BLOCK, GROUP, Quantised, dot_group},
    simd::{PairDot, Simd, dispatch},
};

/// With what a product of float weights is computed. Quantised weights always multiply 8-bit integers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arithmetic {
    /// `f32` inputs, products and sums; weights are widened exactly.
    F32,
    /// Inputs rounded to bf16, pairs of bf16 products summed in `f32` (`VDPBF16PS`). Only for bf16 weights; where the
    /// CPU lacks the instruction ([`Isa::has_bf16_dot`]) this is [`Arithmetic::F32`].
    Bf16,
}

impl Arithmetic {
    /// Whether bf16 weights are multiplied in pairs: with the CPU's instruction, or by its scalar twin.
    pub(crate) fn pairs(self, isa: Isa) -> bool {
        self == Self::Bf16 && (isa.has_bf16_dot() || isa == Isa::Scalar)
    }
}

/// Inputs (or pairs of inputs) that are packed at a time: the block of weights stays in the first-level cache.
const KC: usize = 256;

/// Most tokens in a tile.
const MAX_TILE: usize = 14;

/// Buffers that products reuse.
#[derive(Default)]
pub struct GemmScratch {
    /// Packed inputs: tile after tile, each `[k, tile]`.
    x: Buffer,
    quantised: Quantised,
    threads: Vec<ThreadScratch>,
}

#[derive(Default)]
struct ThreadScratch {
    /// Packed weights `[KC, 2 × LANES]`.
    w: Buffer,
    /// Sums `[tokens rounded up, 2 × LANES]`, twice for SwiGLU.
    sums: [Buffer; 2],
    out: Vec<f32>,
}

/// Tokens in a full tile: as many sums as there are registers for.
fn full_tile(isa: Isa) -> usize {
    match isa {
        Isa::Scalar | Isa::Avx2 => 6,
        Isa::Avx512 => 14,
    }
}

/// Output rows of a panel.
fn panel_rows(isa: Isa) -> usize {
    match isa {
        Isa::Scalar | Isa::Avx2 => 16,
        Isa::Avx512 => 32,
    }
}

/// The tiles of `tokens` tokens: `(first token, tokens, width)`, where the width is what is computed.
pub(crate) fn tiles(tokens: usize, full: usize) -> impl Iterator<Item = (usize, usize, usize)> {
    (0..tokens.div_ceil(full)).map(move |i| {
        let count = (tokens - i * full).min(full);
        (i * full, count, count.next_multiple_of(2))
    })
}

/// `y = x Wᵀ`, or `y += x Wᵀ` with `add`.
///
/// `x` is `[tokens, w.cols()]`, `y` `[tokens, w.rows()]`.
///
/// # Panics
/// When shapes do not fit.
pub fn gemm(
    pool: &Pool,
    isa: Isa,
    arithmetic: Arithmetic,
    x: &[f32],
    tokens: usize,
    w: &Matrix<'_>,
    y: &mut [f32],
    add: bool,
    scratch: &mut GemmScratch,
) {
    assert!(y.len() == tokens * w.rows());
    let rows = w.rows();
    let y = SharedMut::new(y);
    product(pool, isa, arithmetic, x, tokens, [w, w], 1, scratch, |token, first, values, _| {
        // SAFETY: each (token, panel) is written by the one thread that took the panel.
        let out = unsafe { y.slice(token * rows + first, values.len()) };
        if add {
            for (out, value) in out.iter_mut().zip(values) {
                *out += value;
            }
        } else {
            out.copy_from_slice(values);
        }
    });
}

/// `h = silu(x W1ᵀ) · (x W3ᵀ)`
///
/// `x` is `[tokens, hidden]`, `w1` and `w3` `[intermediate, hidden]`, `h` `[tokens, intermediate]`.
///
/// # Panics
/// When shapes do not fit.
pub fn gemm_swiglu(
    pool: &Pool,
    isa: Isa,
    arithmetic: Arithmetic,
    x: &[f32],
    tokens: usize,
    w1: &Matrix<'_>,
    w3: &Matrix<'_>,
    h: &mut [f32],
    scratch: &mut GemmScratch,
) {
    assert!(h.len() == tokens * w1.rows());
    let rows = w1.rows();
    let h = SharedMut::new(h);
    product(pool, isa, arithmetic, x, tokens, [w1, w3], 2, scratch, |token, first, gate, up| {
        // SAFETY: each (token, panel) is written by the one thread that took the panel.
        let out = unsafe { h.slice(token * rows + first, gate.len()) };
        silu_mul(isa, gate, up, out);
    });
}

/// Computes one or two products of the same inputs, panel by panel, and hands `(token, first row, values, values of the
/// second)` to `store`.
fn product(
    pool: &Pool,
    isa: Isa,
    arithmetic: Arithmetic,
    x: &[f32],
    tokens: usize,
    weights: [&Matrix<'_>; 2],
    count: usize,
    scratch: &mut GemmScratch,
    store: impl Fn(usize, usize, &[f32], &[f32]) + Sync,
) {
    let [a, b] = weights;
    assert!(a.rows() == b.rows() && a.cols() == b.cols() && a.format() == b.format());
    assert!(x.len() == tokens * a.cols());
    if tokens == 0 {
        return;
    }
    scratch.threads.resize_with(pool.threads(), ThreadScratch::default);
    let threads = SharedMut::new(&mut scratch.threads);
    if a.format().is_quantised() {
        scratch.quantised.set_all(pool, isa, x, tokens, a.cols());
        let inputs = &scratch.quantised;
        pool.for_ranges(a.rows().div_ceil(GROUP), 1, |thread, range| {
            // SAFETY: each thread has its own scratch, and runs one body at a time.
            let own = unsafe { &mut threads.slice(thread, 1)[0] };
            own.out.resize(2 * QUANTISED_TILE * GROUP, 0.0);
            for group in range {
                let rows = (a.rows() - group * GROUP).min(GROUP);
                for (first, tile, _) in tiles(tokens, QUANTISED_TILE) {
                    let (one, two) = own.out.split_at_mut(QUANTISED_TILE * GROUP);
                    integer_tile(isa, a, group, inputs, first, tile, one);
                    if count == 2 {
                        integer_tile(isa, b, group, inputs, first, tile, two);
                    }
                    for t in 0..tile {
                        let at = t * GROUP..t * GROUP + rows;
                        store(first + t, group * GROUP, &one[at.clone()], &two[at]);
                    }
                }
            }
        });
        return;
    }
    let pairs = a.format() == Format::Bf16 && arithmetic.pairs(isa);
    let full = full_tile(isa);
    let steps = if pairs { a.cols().div_ceil(2) } else { a.cols() };
    pack_inputs(pool, x, tokens, a.cols(), full, pairs, &mut scratch.x);
    let packed = &scratch.x;
    let width = panel_rows(isa);
    pool.for_ranges(a.rows().div_ceil(width), 1, |thread, range| {
        // SAFETY: each thread has its own scratch, and runs one body at a time.
        let own = unsafe { &mut threads.slice(thread, 1)[0] };
        own.w.reserve(KC * width);
        for sums in &mut own.sums[..count] {
            sums.reserve((tokens + MAX_TILE) * width);
        }
        for panel in range {
            let first = panel * width;
            let rows = (a.rows() - first).min(width);
            for (w, sums) in [a, b].into_iter().zip(&mut own.sums).take(count) {
                let task = PanelTask {
                    w: *w,
                    first,
                    rows,
                    steps,
                    tokens,
                    full,
                    x: packed.as_ptr(),
                    packed: own.w.as_mut_ptr(),
                    sums: sums.as_mut_ptr(),
                };
                // SAFETY: `packed` holds all tiles, `own.w` a block and `sums` the panel's sums, as reserved above;
                // `isa` is available on this CPU, and pairs only with the instruction (or the scalar twin).
                unsafe {
                    match (w.format(), pairs) {
                        (_, true) => panel_pairs(isa, &task),
                        (Format::F32, _) => panel_floats::<0>(isa, &task),
                        (Format::F16, _) => panel_floats::<1>(isa, &task),
                        _ => panel_floats::<2>(isa, &task),
                    }
                }
            }
            let [one, two] = &own.sums;
            for token in 0..tokens {
                let at = token * width..token * width + rows;
                let second = if count == 2 { &two[at.clone()] } else { &one[..0] };
                store(token, first, &one[at], second);
            }
        }
    });
}

/// Packs `x` tile by tile as `[k, tile]`; with `pairs` as `[k / 2, tile]` of two bf16 values each.
fn pack_inputs(
    pool: &Pool,
    x: &[f32],
    tokens: usize,
    cols: usize,
    full: usize,
    pairs: bool,
    out: &mut Buffer,
) {
    let steps = if pairs { cols.div_ceil(2) } else { cols };
    out.reserve((tokens + MAX_TILE) * steps);
    let out = SharedMut::new(out);
    pool.for_ranges(tokens.div_ceil(full), 1, |_, range| {
        for tile in range {
            let first = tile * full;
            let count = (tokens - first).min(full);
            let width = count.next_multiple_of(2);
            // SAFETY: tiles before this one are full, so each has its own part of the buffer, `width ≤ full` of
            // which lies within what was reserved.
            let out = unsafe { out.slice(first * steps, width * steps) };
            for t in 0..width {
                // The padding token of an odd tile repeats a real one; its sums are not read.
                let row = &x[(first + t.min(count - 1)) * cols..][..cols];
                if pairs {
                    for (step, pair) in row.chunks(2).enumerate() {
                        let low = half::bf16::from_f32(pair[0]).to_bits();
                        let high = pair.get(1).map_or(0, |&x| half::bf16::from_f32(x).to_bits());
                        out[step * width + t] = f32::from_bits(u32::from(low) | u32::from(high) << 16);
                    }
                } else {
                    for (step, &value) in row.iter().enumerate() {
                        out[step * width + t] = value;
                    }
                }
            }
        }
    });
}

/// One panel's product: `rows` weight rows from `first` with all tokens.
struct PanelTask<'a> {
    w: Matrix<'a>,
    first: usize,
    rows: usize,
    /// Inputs, or pairs of inputs.
    steps: usize,
    tokens: usize,
    full: usize,
    x: *const f32,
    packed: *mut f32,
    sums: *mut f32,
}

dispatch! {
    unsafe fn panel_floats[const FORMAT: u8](task: &PanelTask<'_>) = panel_floats_kernel;
}

#[inline(always)]
unsafe fn panel_floats_kernel<S: Simd, const FORMAT: u8>(task: &PanelTask<'_>) {
    panel::<S, Floats, FORMAT>(task);
}

unsafe fn panel_pairs(isa: Isa, task: &PanelTask<'_>) {
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512bf16")]
    unsafe fn avx512(task: &PanelTask<'_>) {
        panel::<crate::simd::Avx512, Pairs, PAIRS>(task);
    }
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => avx512(task),
        _ => panel::<crate::simd::Scalar, Pairs, PAIRS>(task),
    }
}

/// Format number of bf16 pairs, beside 0 = f32, 1 = f16, 2 = bf16.
pub(crate) const PAIRS: u8 = 3;

#[inline(always)]
unsafe fn panel<S: Simd, M: Multiply<S>, const FORMAT: u8>(task: &PanelTask<'_>) {
    let width = 2 * S::LANES;
    let mut k = 0;
    while k < task.steps {
        let count = (task.steps - k).min(KC);
        pack_weights::<S, FORMAT>(task, k, count);
        for (first, _, tile) in tiles(task.tokens, task.full) {
            let x = task.x.add(first * task.steps + k * tile);
            let sums = task.sums.add(first * width);
            any_tile::<S, M>(tile, count, x, task.packed, width, sums, width, k == 0);
        }
        k += count;
    }
}

/// Packs `count` steps from `k` of the panel's rows as `[step, 2 × LANES]`.
#[inline(always)]
unsafe fn pack_weights<S: Simd, const FORMAT: u8>(task: &PanelTask<'_>, k: usize, count: usize) {
    let (cols, width) = (task.w.cols(), 2 * S::LANES);
    let size = if FORMAT == 0 { 4 } else { 2 };
    // Bytes of a step: a pair is two elements.
    let step = if FORMAT == PAIRS { 4 } else { size };
    for half in 0..2 {
        let rows = task.rows.saturating_sub(half * S::LANES).min(S::LANES);
        let base = task.w.data().add((task.first + half * S::LANES) * cols * size);
        let out = task.packed.add(half * S::LANES);
        let mut i = 0;
        while i < count {
            let mut block = [S::splat(0.0); 16];
            // The last steps of a row are copied, so that nothing is read behind it (or behind the matrix).
            let bytes_left = cols * size - (k + i) * step;
            let whole = bytes_left >= S::LANES * step;
            for (r, v) in block[..rows].iter_mut().enumerate() {
                let p = base.add(r * cols * size + (k + i) * step);
                let mut tail = [0u8; 64];
                let p = if whole {
                    p
                } else {
                    std::ptr::copy_nonoverlapping(p, tail.as_mut_ptr(), bytes_left);
                    tail.as_ptr()
                };
                *v = match FORMAT {
                    0 | PAIRS => S::load(p.cast()),
                    1 => S::load_f16(p),
                    _ => S::load_bf16(p),
                };
            }
            S::transpose(&mut block);
            for (s, v) in block[..S::LANES.min(count - i)].iter().enumerate() {
                S::store(out.add((i + s) * width), *v);
            }
            i += S::LANES;
        }
    }
}

/// One multiply-add of the inner loop.
pub(crate) trait Multiply<S: Simd> {
    unsafe fn add(acc: S::F, x: S::F, w: S::F) -> S::F;
}

pub(crate) struct Floats;
/// Pairs of bf16, by the instruction (or its scalar twin).
pub(crate) struct Pairs;
/// The same numbers where the CPU lacks the instruction: a product of two bf16 values is exact in `f32`.
pub(crate) struct WidenedPairs;

impl<S: Simd> Multiply<S> for WidenedPairs {
    #[inline(always)]
    unsafe fn add(acc: S::F, x: S::F, w: S::F) -> S::F {
        let ([x0, x1], [w0, w1]) = (S::split_pairs(x), S::split_pairs(w));
        S::fma(x0, w0, S::fma(x1, w1, acc))
    }
}

impl<S: Simd> Multiply<S> for Floats {
    #[inline(always)]
    unsafe fn add(acc: S::F, x: S::F, w: S::F) -> S::F {
        S::fma(x, w, acc)
    }
}

impl<S: PairDot> Multiply<S> for Pairs {
    #[inline(always)]
    unsafe fn add(acc: S::F, x: S::F, w: S::F) -> S::F {
        S::pair_dot(acc, x, w)
    }
}

/// [`tile`] with the width known to the compiler.
#[inline(always)]
pub(crate) unsafe fn any_tile<S: Simd, M: Multiply<S>>(
    width: usize,
    steps: usize,
    x: *const f32,
    w: *const f32,
    w_stride: usize,
    sums: *mut f32,
    stride: usize,
    first: bool,
) {
    match width {
        2 => tile::<S, M, 2>(steps, x, w, w_stride, sums, stride, first),
        4 => tile::<S, M, 4>(steps, x, w, w_stride, sums, stride, first),
        6 => tile::<S, M, 6>(steps, x, w, w_stride, sums, stride, first),
        8 if S::LANES == 16 => tile::<S, M, 8>(steps, x, w, w_stride, sums, stride, first),
        10 if S::LANES == 16 => tile::<S, M, 10>(steps, x, w, w_stride, sums, stride, first),
        12 if S::LANES == 16 => tile::<S, M, 12>(steps, x, w, w_stride, sums, stride, first),
        _ if S::LANES == 16 => tile::<S, M, 14>(steps, x, w, w_stride, sums, stride, first),
        _ => unreachable!("tiles of this instruction set are narrower"),
    }
}

/// `sums[t][0..2 × LANES] (+)= Σₖ x[k][t] · w[k]` for `T` tokens.
#[inline(always)]
unsafe fn tile<S: Simd, M: Multiply<S>, const T: usize>(
    steps: usize,
    mut x: *const f32,
    mut w: *const f32,
    w_stride: usize,
    sums: *mut f32,
    stride: usize,
    first: bool,
) {
    let mut acc = [[S::splat(0.0); 2]; T];
    if !first {
        for t in 0..T {
            for v in 0..2 {
                acc[t][v] = S::load(sums.add(t * stride + v * S::LANES));
            }
        }
    }
    for _ in 0..steps {
        let w0 = S::load(w);
        let w1 = S::load(w.add(S::LANES));
        for t in 0..T {
            let x = S::splat(*x.add(t));
            acc[t][0] = M::add(acc[t][0], x, w0);
            acc[t][1] = M::add(acc[t][1], x, w1);
        }
        x = x.add(T);
        w = w.add(w_stride);
    }
    for t in 0..T {
        for v in 0..2 {
            S::store(sums.add(t * stride + v * S::LANES), acc[t][v]);
        }
    }
}

dispatch! {
    unsafe fn peak_floats(steps: usize, x: *const f32, w: *const f32, sums: *mut f32) = peak_floats_kernel;
}

#[inline(always)]
unsafe fn peak_floats_kernel<S: Simd>(steps: usize, x: *const f32, w: *const f32, sums: *mut f32) {
    let tile = if S::LANES == 16 { 14 } else { 6 };
    any_tile::<S, Floats>(tile, steps, x, w, 2 * S::LANES, sums, 2 * S::LANES, false);
}

/// One full tile of the inner loop: `x` is `[steps, tile]`, `w` `[steps, panel]`, `sums` `[tile, panel]`.
///
/// # Safety
/// The pointers cover that; the CPU has `isa`.
pub(crate) unsafe fn peak_tile(
    isa: Isa,
    arithmetic: Arithmetic,
    steps: usize,
    x: *const f32,
    w: *const f32,
    sums: *mut f32,
) {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512bf16")]
        unsafe fn pairs(steps: usize, x: *const f32, w: *const f32, sums: *mut f32) {
            any_tile::<crate::simd::Avx512, Pairs>(14, steps, x, w, 32, sums, 32, false);
        }
        if arithmetic == Arithmetic::Bf16 && isa.has_bf16_dot() {
            return pairs(steps, x, w, sums);
        }
    }
    peak_floats(isa, steps, x, w, sums);
}

/// The tile geometry for attention: `(tokens of a full tile, outputs of a panel)`.
pub(crate) fn tile_shape(isa: Isa) -> (usize, usize) {
    (full_tile(isa), panel_rows(isa))
}

/// Tokens that share a pass over a row group of quantised weights.
const QUANTISED_TILE: usize = 12;

fn integer_tile(
    isa: Isa,
    w: &Matrix<'_>,
    group: usize,
    inputs: &Quantised,
    first: usize,
    count: usize,
    out: &mut [f32],
) {
    let blocks = inputs.blocks;
    let block_bytes = if w.format() == Format::Q8 { GROUP * BLOCK } else { GROUP * BLOCK / 2 };
    // SAFETY: `group` is one of the matrix's groups, whose bytes it holds; rows `first..first + count` of the inputs were
    // set; `out` has room for a full tile; `isa` is available on this CPU.
    unsafe {
        let data = w.data().add(group * blocks * block_bytes);
        let scales = w.scales().add(group * blocks * GROUP * 2);
        let out: &mut [[f32; GROUP]] = out.as_chunks_mut().0;
        if w.format() == Format::Q8 {
            integer_rows::<true>(isa, data, scales, inputs, first, count, out);
        } else {
            integer_rows::<false>(isa, data, scales, inputs, first, count, out);
        }
    }
}

dispatch! {
    unsafe fn integer_rows[const EIGHT: bool](
        data: *const u8, scales: *const u8, inputs: &Quantised, first: usize, count: usize, out: &mut [[f32; GROUP]]
    ) = integer_rows_kernel;
}

#[inline(always)]
unsafe fn integer_rows_kernel<S: Simd, const EIGHT: bool>(
    data: *const u8,
    scales: *const u8,
    inputs: &Quantised,
    mut first: usize,
    mut count: usize,
    mut out: &mut [[f32; GROUP]],
) {
    #[inline(always)]
    unsafe fn rows<S: Simd, const T: usize, const EIGHT: bool>(
        data: *const u8,
        scales: *const u8,
        inputs: &Quantised,
        first: usize,
        out: &mut [[f32; GROUP]],
    ) {
        let (mut values, mut sums) = ([inputs.values.as_ptr(); T], [inputs.sums.as_ptr(); T]);
        let mut x_scales = [inputs.scales.as_ptr(); T];
        for t in 0..T {
            let at = (first + t) * inputs.blocks;
            values[t] = values[t].add(at * BLOCK);
            sums[t] = sums[t].add(at);
            x_scales[t] = x_scales[t].add(at);
        }
        let mut local = [[0.0; GROUP]; T];
        dot_group::<S, T, EIGHT>(inputs.blocks, data, scales, values, sums, x_scales, &mut local);
        out[..T].copy_from_slice(&local);
    }
    // Wide passes only where there are registers for them.
    let wide = if S::LANES == 16 { 12 } else { 4 };
    while count > 0 {
        let take = match count {
            n if n >= wide => wide,
            n if n >= 4 => 4,
            n if n >= 2 => 2,
            _ => 1,
        };
        match take {
            12 if S::LANES == 16 => rows::<S, 12, EIGHT>(data, scales, inputs, first, out),
            4 => rows::<S, 4, EIGHT>(data, scales, inputs, first, out),
            2 => rows::<S, 2, EIGHT>(data, scales, inputs, first, out),
            _ => rows::<S, 1, EIGHT>(data, scales, inputs, first, out),
        }
        first += take;
        count -= take;
        out = &mut std::mem::take(&mut out)[take..];
    }
}
