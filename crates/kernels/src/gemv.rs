//! Products for generated tokens: every weight is read once from memory, for one or a few rows of inputs.
//!
//! The unit of work is a group of 16 output rows. The sum of one output is made by one accumulator vector that
//! walks along the row, so it does not depend on how many rows or inputs go side by side.

use crate::{
    Arithmetic, Isa, Routing,
    buffer::Buffer,
    elementwise::silu_mul,
    gemm::{Floats, Multiply, PAIRS, Pairs},
    matrix::{Format, Matrix},
    pool::{Pool, SharedMut},
    quant::{BLOCK, GROUP, Quantised, dot_group},
    simd::{Simd, dispatch},
};
use std::mem::MaybeUninit;

/// Inputs of a product, at most this many side by side: more share the weights through the cache.
const WIDE: usize = 4;

/// Accumulators of one sum.
const CHAINS: usize = 4;

/// How far ahead of the weights in use to ask for more, in bytes: prefetchers stop at the end of a 4 KiB page, and the more
/// operations lie between two lines of weights, the fewer lines a core reaches by itself.
const AHEAD: usize = 8192;

type Outputs = [[f32; GROUP]; WIDE];

/// Rows of inputs `[rows, cols]`, in the forms that the weights at hand need.
pub struct GemvInput {
    cols: usize,
    rows: usize,
    arithmetic: Arithmetic,
    floats: Buffer,
    /// What bf16 weights are multiplied with: with [`Arithmetic::Bf16`] the floats rounded to bf16, two in a place; else the
    /// floats with each `2 × LANES` of them sorted into even and odd places, as those weights are widened.
    pairs: Buffer,
    quantised: Option<Quantised>,
}

impl GemvInput {
    /// Room for `rows` rows; `quantise` keeps an 8-bit copy for quantised weights, `arithmetic` is that of bf16 weights.
    pub fn new(rows: usize, cols: usize, quantise: bool, arithmetic: Arithmetic) -> Self {
        let mut input = Self {
            cols,
            rows: 0,
            arithmetic,
            floats: Buffer::default(),
            pairs: Buffer::default(),
            quantised: quantise.then(Quantised::default),
        };
        input.resize(rows);
        input
    }

    /// Makes room for `rows` rows, whose contents are undefined until set.
    pub fn resize(&mut self, rows: usize) {
        self.rows = rows;
        self.floats.reserve(rows * self.cols);
        self.pairs.reserve(rows * self.cols);
        if let Some(quantised) = &mut self.quantised {
            quantised.resize(rows, self.cols);
        }
    }

    /// Row `row` as floats, to be written; follow with [`Self::finish`].
    ///
    /// # Panics
    /// When there is no such row.
    pub fn row_mut(&mut self, row: usize) -> &mut [f32] {
        &mut self.floats[row * self.cols..(row + 1) * self.cols]
    }

    /// All rows as floats, to be written; follow with [`Self::finish`].
    pub fn rows_mut(&mut self) -> &mut [f32] {
        &mut self.floats[..self.rows * self.cols]
    }

    /// Makes the other forms of the rows that were written.
    pub fn finish(&mut self, pool: &Pool, isa: Isa) {
        let (rows, cols, rounded) = (self.rows, self.cols, self.arithmetic.pairs(isa));
        let floats = &self.floats;
        let pairs = SharedMut::new(&mut self.pairs);
        let blocks = self.quantised.as_mut().map(Quantised::writer);
        // A row alone takes less time than waking another thread for it.
        let grain = if cols < 1024 { rows } else { 1 };
        pool.for_ranges(rows, grain, |_, range| {
            for row in range {
                let x = &floats[row * cols..(row + 1) * cols];
                // SAFETY: each row has its own part of the buffers, which `resize` made long enough; `isa` is available on this
                // CPU.
                unsafe {
                    let pairs = pairs.slice(row * cols, cols);
                    if rounded {
                        round_row(isa, x, pairs)
                    } else {
                        sort_row(isa, x, pairs)
                    }
                    if let Some(blocks) = blocks {
                        blocks.set(isa, row, x);
                    }
                }
            }
        });
    }
}

dispatch! {
    unsafe fn sort_row(x: &[f32], out: &mut [f32]) = sort_row_kernel;
}

/// Even places, then odd ones, of each `2 × LANES` floats.
#[inline(always)]
unsafe fn sort_row_kernel<S: Simd>(x: &[f32], out: &mut [f32]) {
    for (out, x) in out.chunks_exact_mut(2 * S::LANES).zip(x.chunks_exact(2 * S::LANES)) {
        let (even, odd) = out.split_at_mut(S::LANES);
        for ((x, even), odd) in x.as_chunks::<2>().0.iter().zip(even).zip(odd) {
            (*even, *odd) = (x[0], x[1]);
        }
    }
}

dispatch! {
    unsafe fn round_row(x: &[f32], out: &mut [f32]) = round_row_kernel;
}

/// Rounds to bf16, ties to even: two numbers in the place of one, the first in its low half, and a zero behind an odd last.
#[inline(always)]
unsafe fn round_row_kernel<S: Simd>(x: &[f32], out: &mut [f32]) {
    let bf16 = |x: f32| {
        let bits = x.to_bits();
        let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
        (if x.is_nan() { bits >> 16 | 0x40 } else { rounded }) as u16
    };
    let halves = out.as_mut_ptr().cast::<[u16; 2]>();
    let (whole, rest) = x.as_chunks::<2>();
    for (i, pair) in whole.iter().enumerate() {
        *halves.add(i) = [bf16(pair[0]), bf16(pair[1])];
    }
    if let [last] = rest {
        *halves.add(whole.len()) = [bf16(*last), 0];
    }
}

/// Dot products of row group `group` of `w` with input rows `rows` (at most [`WIDE`]).
fn dot_rows(isa: Isa, w: &Matrix<'_>, group: usize, input: &GemvInput, rows: &[usize], out: &mut Outputs) {
    debug_assert!(rows.len() <= WIDE && w.cols() == input.cols);
    // SAFETY: `isa` is available on this CPU; `Matrix` holds as many bytes as its shape calls for, `group` is one
    // of its groups, `input` has the rows named (indexing `floats` below checks the same bound), and quantised
    // inputs are there when the format asks for them (checked).
    unsafe {
        match w.format() {
            Format::F32 | Format::F16 | Format::Bf16 => {
                let first = group * GROUP;
                let count = (w.rows() - first).min(GROUP);
                let data = w.data().add(first * w.cols() * w.element_bytes());
                let mut inputs = [input.floats.as_ptr(); WIDE];
                let mut pairs = inputs;
                for ((pointer, pair), &row) in inputs.iter_mut().zip(&mut pairs).zip(rows) {
                    *pointer = input.floats[row * input.cols..(row + 1) * input.cols].as_ptr();
                    *pair = input.pairs[row * input.cols..(row + 1) * input.cols].as_ptr();
                }
                match w.format() {
                    Format::F32 => float_group::<0>(isa, data, count, w.cols(), &inputs, rows.len(), out),
                    Format::F16 => float_group::<1>(isa, data, count, w.cols(), &inputs, rows.len(), out),
                    _ if input.arithmetic.pairs(isa) => {
                        pair_group(isa, data, count, w.cols(), &pairs, rows.len(), out);
                    }
                    // Whole vectors are widened by places, what is left over is not.
                    _ => {
                        let inputs = [inputs, pairs];
                        widened_group(isa, data, count, w.cols(), &inputs, rows.len(), out);
                    }
                }
            }
            Format::Q8 | Format::Q4 => {
                let Some(x) = &input.quantised else {
                    unreachable!("quantised weights need quantised inputs")
                };
                let blocks = x.blocks;
                let block_bytes = if w.format() == Format::Q8 { GROUP * BLOCK } else { GROUP * BLOCK / 2 };
                let data = w.data().add(group * blocks * block_bytes);
                let scales = w.scales().add(group * blocks * GROUP * 2);
                let mut at = [0; WIDE];
                for (at, &row) in at.iter_mut().zip(rows) {
                    assert!(row < input.rows);
                    *at = row * blocks;
                }
                if w.format() == Format::Q8 {
                    quantised_group::<true>(isa, blocks, data, scales, x, &at, rows.len(), out);
                } else {
                    quantised_group::<false>(isa, blocks, data, scales, x, &at, rows.len(), out);
                }
            }
        }
    }
}

dispatch! {
    unsafe fn quantised_group[const EIGHT: bool](
        blocks: usize, data: *const u8, scales: *const u8, x: &Quantised, at: &[usize; WIDE], rows: usize, out: &mut Outputs
    ) = quantised_group_kernel;
}

#[inline(always)]
unsafe fn quantised_group_kernel<S: Simd, const EIGHT: bool>(
    blocks: usize,
    data: *const u8,
    scales: *const u8,
    x: &Quantised,
    at: &[usize; WIDE],
    rows: usize,
    out: &mut Outputs,
) {
    #[inline(always)]
    unsafe fn wide<S: Simd, const EIGHT: bool, const T: usize>(
        blocks: usize,
        data: *const u8,
        scales: *const u8,
        x: &Quantised,
        at: &[usize; WIDE],
        out: &mut Outputs,
    ) {
        let mut local = [[0.0; GROUP]; T];
        let (mut values, mut sums) = ([x.values.as_ptr(); T], [x.sums.as_ptr(); T]);
        let mut x_scales = [x.scales.as_ptr(); T];
        for t in 0..T {
            values[t] = values[t].add(at[t] * BLOCK);
            sums[t] = sums[t].add(at[t]);
            x_scales[t] = x_scales[t].add(at[t]);
        }
        dot_group::<S, T, EIGHT>(blocks, data, scales, values, sums, x_scales, &mut local);
        out[..T].copy_from_slice(&local);
    }
    match rows {
        1 => wide::<S, EIGHT, 1>(blocks, data, scales, x, at, out),
        2 => wide::<S, EIGHT, 2>(blocks, data, scales, x, at, out),
        3 => wide::<S, EIGHT, 3>(blocks, data, scales, x, at, out),
        _ => wide::<S, EIGHT, 4>(blocks, data, scales, x, at, out),
    }
}

/// Expands to a function's call with the number of inputs known to the compiler.
macro_rules! wide {
    ($rows:expr, $name:ident::<$($g:ty),* $(; $format:ident)?>($($arg:expr),*)) => {
        match $rows {
            1 => $name::<$($g,)* $($format,)? 1>($($arg),*),
            2 => $name::<$($g,)* $($format,)? 2>($($arg),*),
            3 => $name::<$($g,)* $($format,)? 3>($($arg),*),
            _ => $name::<$($g,)* $($format,)? 4>($($arg),*),
        }
    };
}

dispatch! {
    unsafe fn float_group[const FORMAT: u8](
        data: *const u8, count: usize, cols: usize, inputs: &[*const f32; WIDE], rows: usize, out: &mut Outputs
    ) = float_group_kernel;
}

#[inline(always)]
unsafe fn float_group_kernel<S: Simd, const FORMAT: u8>(
    data: *const u8,
    count: usize,
    cols: usize,
    inputs: &[*const f32; WIDE],
    rows: usize,
    out: &mut Outputs,
) {
    wide!(rows, dot_floats::<S, Floats; FORMAT>(data, count, cols, inputs, out));
}

/// [`float_group`] of bf16 weights and inputs rounded to bf16.
unsafe fn pair_group(
    isa: Isa,
    data: *const u8,
    count: usize,
    cols: usize,
    inputs: &[*const f32; WIDE],
    rows: usize,
    out: &mut Outputs,
) {
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512bf16")]
    unsafe fn avx512(
        data: *const u8,
        count: usize,
        cols: usize,
        inputs: &[*const f32; WIDE],
        rows: usize,
        out: &mut Outputs,
    ) {
        wide!(rows, dot_floats::<crate::simd::Avx512, Pairs; PAIRS>(data, count, cols, inputs, out));
    }
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => avx512(data, count, cols, inputs, rows, out),
        _ => wide!(rows, dot_floats::<crate::simd::Scalar, Pairs; PAIRS>(data, count, cols, inputs, out)),
    }
}

/// Row after row, so that memory is read as one stream: what prefetchers do best.
#[inline(always)]
unsafe fn dot_floats<S: Simd, M: Multiply<S>, const FORMAT: u8, const T: usize>(
    data: *const u8,
    count: usize,
    cols: usize,
    inputs: &[*const f32; WIDE],
    out: &mut Outputs,
) {
    let size = if FORMAT == 0 { 4 } else { 2 };
    // Weights for each place of the inputs, and in a vector.
    let share = if FORMAT == PAIRS { 2 } else { 1 };
    let step = share * S::LANES;
    let mut sums = [[const { MaybeUninit::uninit() }; GROUP]; T];
    for row in 0..count {
        let data = data.add(row * cols * size);
        // Four chains of additions hide the latency of one; which chain an input belongs to is fixed by its place.
        let mut acc = [[S::splat(0.0); CHAINS]; T];
        let mut k = 0;
        while k + CHAINS * step <= cols {
            for c in 0..CHAINS {
                let at = k + c * step;
                S::prefetch(data.wrapping_add(at * size + AHEAD));
                let w = load_format::<S, FORMAT>(data.add(at * size));
                for t in 0..T {
                    acc[t][c] = M::add(acc[t][c], S::load(inputs[t].add(at / share)), w);
                }
            }
            k += CHAINS * step;
        }
        while k + step <= cols {
            let w = load_format::<S, FORMAT>(data.add(k * size));
            for t in 0..T {
                acc[t][0] = M::add(acc[t][0], S::load(inputs[t].add(k / share)), w);
            }
            k += step;
        }
        if k < cols {
            let left = cols - k;
            // The last few weights, with zeros behind them.
            let mut tail = [0u8; 64];
            std::ptr::copy_nonoverlapping(data.add(k * size), tail.as_mut_ptr(), left * size);
            let w = load_format::<S, FORMAT>(tail.as_ptr());
            for t in 0..T {
                let x = S::load_partial(inputs[t].add(k / share), left.div_ceil(share));
                acc[t][1] = M::add(acc[t][1], x, w);
            }
        }
        for t in 0..T {
            let [a, b, c, d] = acc[t];
            sums[t][row].write(S::add(S::add(a, b), S::add(c, d)));
        }
    }
    sum_lanes::<S, T>(&sums, count, out);
}

dispatch! {
    unsafe fn widened_group(
        data: *const u8, count: usize, cols: usize, inputs: &[[*const f32; WIDE]; 2], rows: usize, out: &mut Outputs
    ) = widened_group_kernel;
}

#[inline(always)]
unsafe fn widened_group_kernel<S: Simd>(
    data: *const u8,
    count: usize,
    cols: usize,
    inputs: &[[*const f32; WIDE]; 2],
    rows: usize,
    out: &mut Outputs,
) {
    wide!(rows, dot_widened::<S>(data, count, cols, inputs, out));
}

/// [`dot_floats`] of bf16 weights that are widened, those at even and those at odd places apart: one operation each.
#[inline(always)]
unsafe fn dot_widened<S: Simd, const T: usize>(
    data: *const u8,
    count: usize,
    cols: usize,
    [inputs, pairs]: &[[*const f32; WIDE]; 2],
    out: &mut Outputs,
) {
    let mut sums = [[const { MaybeUninit::uninit() }; GROUP]; T];
    for row in 0..count {
        let data = data.add(row * cols * 2);
        let mut acc = [[S::splat(0.0); CHAINS]; T];
        let mut k = 0;
        while k + CHAINS * S::LANES <= cols {
            for c in (0..CHAINS).step_by(2) {
                let at = k + c * S::LANES;
                S::prefetch(data.wrapping_add(at * 2 + AHEAD));
                let w = S::load_bf16_pairs(data.add(at * 2));
                for t in 0..T {
                    let x = pairs[t].add(at);
                    acc[t][c] = S::fma(w[0], S::load(x), acc[t][c]);
                    acc[t][c + 1] = S::fma(w[1], S::load(x.add(S::LANES)), acc[t][c + 1]);
                }
            }
            k += CHAINS * S::LANES;
        }
        while k + S::LANES <= cols {
            let w = S::load_bf16(data.add(k * 2));
            for t in 0..T {
                acc[t][0] = S::fma(w, S::load(inputs[t].add(k)), acc[t][0]);
            }
            k += S::LANES;
        }
        if k < cols {
            let left = cols - k;
            let mut tail = [0u8; 64];
            std::ptr::copy_nonoverlapping(data.add(k * 2), tail.as_mut_ptr(), left * 2);
            let w = S::load_bf16(tail.as_ptr());
            for t in 0..T {
                acc[t][1] = S::fma(w, S::load_partial(inputs[t].add(k), left), acc[t][1]);
            }
        }
        for t in 0..T {
            let [a, b, c, d] = acc[t];
            sums[t][row].write(S::add(S::add(a, b), S::add(c, d)));
        }
    }
    sum_lanes::<S, T>(&sums, count, out);
}

#[inline(always)]
unsafe fn load_format<S: Simd, const FORMAT: u8>(p: *const u8) -> S::F {
    match FORMAT {
        0 | PAIRS => S::load(p.cast()),
        1 => S::load_f16(p),
        _ => S::load_bf16(p),
    }
}

/// Sums the lanes of the first `count` rows' vectors. All rows go together: transposed, a lane is a row. One row at a time, these sums cost
/// short rows a quarter of their speed.
#[inline(always)]
unsafe fn sum_lanes<S: Simd, const T: usize>(
    sums: &[[MaybeUninit<S::F>; GROUP]; T],
    count: usize,
    out: &mut Outputs,
) {
    for t in 0..T {
        for first in (0..GROUP).step_by(S::LANES) {
            let mut block = [S::splat(0.0); 16];
            for row in first..(first + S::LANES).min(count) {
                block[row - first] = sums[t][row].assume_init();
            }
            S::transpose(&mut block);
            let mut n = S::LANES;
            while n > 1 {
                n /= 2;
                for i in 0..n {
                    block[i] = S::add(block[i], block[i + n]);
                }
            }
            S::store(out[t].as_mut_ptr().add(first), block[0]);
        }
    }
}

/// How many groups a thread takes at the least, so that taking costs nothing beside working: about 32 KiB of weights.
fn grain(w: &Matrix<'_>) -> usize {
    let group_bytes = (w.bytes() / w.rows().div_ceil(GROUP).max(1)).max(1);
    (32 * 1024 / group_bytes).max(1)
}

/// `outputs[i] = matrices[i] · x` for every row `x` of `input`, in one parallel section.
///
/// `outputs[i]` is `[input rows, matrices[i].rows()]`.
///
/// # Panics
/// When shapes do not fit.
pub fn gemv(pool: &Pool, isa: Isa, matrices: &[Matrix<'_>], input: &GemvInput, outputs: &mut [&mut [f32]]) {
    assert_eq!(matrices.len(), outputs.len());
    for (w, out) in matrices.iter().zip(outputs.iter()) {
        assert!(w.cols() == input.cols && out.len() == input.rows * w.rows());
    }
    let Some(first) = matrices.first() else { return };
    let mut targets = [None; 4];
    for (target, out) in targets.iter_mut().zip(outputs.iter_mut()) {
        *target = Some(SharedMut::new(out));
    }
    assert!(matrices.len() <= targets.len());
    let groups: usize = matrices.iter().map(|w| w.rows().div_ceil(GROUP)).sum();
    pool.for_ranges(groups, grain(first), |_, range| {
        for item in range {
            let mut group = item;
            for (w, target) in matrices.iter().zip(targets) {
                let here = w.rows().div_ceil(GROUP);
                if group >= here {
                    group -= here;
                    continue;
                }
                let Some(target) = target else { return };
                each_batch(isa, w, group, input, 0..input.rows, |row, values| {
                    // SAFETY: each (row, group) is written by the one thread that took the group.
                    let out = unsafe { target.slice(row * w.rows() + group * GROUP, values.len()) };
                    out.copy_from_slice(values);
                });
                break;
            }
        }
    });
}

/// Calls `then(row, values)` with the group's outputs for each of the input rows.
fn each_batch(
    isa: Isa,
    w: &Matrix<'_>,
    group: usize,
    input: &GemvInput,
    rows: impl Iterator<Item = usize>,
    mut then: impl FnMut(usize, &[f32]),
) {
    let count = (w.rows() - group * GROUP).min(GROUP);
    let mut rows = rows.peekable();
    let mut out: Outputs = [[0.0; GROUP]; WIDE];
    while rows.peek().is_some() {
        let (mut batch, mut n) = ([0; WIDE], 0);
        for (slot, row) in batch.iter_mut().zip(rows.by_ref().take(WIDE)) {
            *slot = row;
            n += 1;
        }
        dot_rows(isa, w, group, input, &batch[..n], &mut out);
        for (&row, values) in batch[..n].iter().zip(&out) {
            then(row, &values[..count]);
        }
    }
}

/// The first half of the chosen experts: `h[a] = silu(W1 x) · (W3 x)` for every assignment `a` of `routing`.
///
/// `experts[e]` is `(W1, W3)`, each `[intermediate, hidden]`; `input` holds the tokens; `h` is
/// `[assignments, intermediate]` in the order of [`Routing::rows`].
///
/// # Panics
/// When shapes do not fit.
pub fn gemv_swiglu<'a>(
    pool: &Pool,
    isa: Isa,
    experts: impl Fn(usize) -> (Matrix<'a>, Matrix<'a>) + Sync,
    routing: &Routing,
    input: &GemvInput,
    h: &mut [f32],
) {
    if routing.experts() == 0 {
        return;
    }
    let width = experts(0).0.rows();
    assert_eq!(h.len(), routing.rows().len() * width);
    let groups = width.div_ceil(GROUP);
    let grain = grain(&experts(0).0).div_ceil(2);
    let target = SharedMut::new(h);
    let active = (0..routing.experts()).filter(|&e| !routing.rows_of(e).is_empty()).count();
    pool.for_ranges(active * groups, grain, |_, range| {
        // All of W1 that this thread has, then all of W3: memory is read as two long streams. Going to and fro between the two,
        // group by group, prefetchers start anew every few KiB.
        let mut item = range.start;
        while item < range.end {
            let Some(e) = nth_active(routing, item / groups) else { return };
            let run = item % groups..groups.min(item % groups + range.end - item);
            item += run.len();
            let first = routing.range_of(e).start;
            let rows = routing.rows_of(e);
            let (w1, w3) = experts(e);
            assert!(
                w1.rows() == width
                    && w3.rows() == width
                    && w1.cols() == input.cols
                    && w3.cols() == input.cols
            );
            for (w, is_gate) in [(&w1, true), (&w3, false)] {
                for group in run.clone() {
                    let count = (width - group * GROUP).min(GROUP);
                    let mut out: Outputs = [[0.0; GROUP]; WIDE];
                    for (b, batch) in rows.chunks(WIDE).enumerate() {
                        let mut tokens = [0; WIDE];
                        for (slot, row) in tokens.iter_mut().zip(batch) {
                            *slot = row.0;
                        }
                        dot_rows(isa, w, group, input, &tokens[..batch.len()], &mut out);
                        for (i, values) in out.iter().enumerate().take(batch.len()) {
                            let a = first + b * WIDE + i;
                            // SAFETY: each (assignment, group) is written by the one thread that took the group.
                            let h = unsafe { target.slice(a * width + group * GROUP, count) };
                            if is_gate {
                                h.copy_from_slice(&values[..count]);
                            } else {
                                let mut gate = [0.0; GROUP];
                                gate[..count].copy_from_slice(h);
                                silu_mul(isa, &gate[..count], &values[..count], h);
                            }
                        }
                    }
                }
            }
        }
    });
}

fn nth_active(routing: &Routing, n: usize) -> Option<usize> {
    (0..routing.experts()).filter(|&e| !routing.rows_of(e).is_empty()).nth(n)
}

/// The second half of the chosen experts: `y[token] += weight · W2 h[a]`, experts in ascending order.
///
/// `experts(e)` is `W2` `[hidden, intermediate]`; `input` holds the assignments of `routing`; `y` is `[tokens, hidden]`.
///
/// # Panics
/// When shapes do not fit.
pub fn gemv_weighted_sum<'a>(
    pool: &Pool,
    isa: Isa,
    experts: impl Fn(usize) -> Matrix<'a> + Sync,
    routing: &Routing,
    input: &GemvInput,
    y: &mut [f32],
) {
    if routing.experts() == 0 {
        return;
    }
    let first = experts(0);
    let hidden = first.rows();
    assert!(y.len().is_multiple_of(hidden) && input.rows == routing.rows().len());
    let tokens = y.len() / hidden;
    let target = SharedMut::new(y);
    pool.for_ranges(hidden.div_ceil(GROUP), grain(&first).div_ceil(2), |_, range| {
        // Expert by expert, so that each is read as one stream; every output still sums experts in ascending order.
        for e in 0..routing.experts() {
            let assignments = routing.range_of(e);
            if assignments.is_empty() {
                continue;
            }
            let w = experts(e);
            assert!(w.rows() == hidden && w.cols() == input.cols);
            for group in range.clone() {
                let count = (hidden - group * GROUP).min(GROUP);
                each_batch(isa, &w, group, input, assignments.clone(), |a, values| {
                    let (token, weight) = routing.rows()[a];
                    assert!(token < tokens);
                    // SAFETY: each group of outputs is written by the one thread that took the group.
                    let out = unsafe { target.slice(token * hidden + group * GROUP, count) };
                    for (out, value) in out.iter_mut().zip(values) {
                        *out += weight * value;
                    }
                });
            }
        }
    });
}
