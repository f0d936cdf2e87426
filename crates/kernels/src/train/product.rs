//! The three products of training: `x Wᵀ` (forward), `dy W` (to the inputs) and `dyᵀ x` (to the weights).
//!
//! Both sides are packed into the order of the inner tile of [`crate::gemm`] first, by all threads; an [`Operand`] says how
//! its elements lie in memory, so that one loop serves all three products. Rows may be gathered by index on the way into the
//! packing: the tokens of an expert are never copied apart. A packed side can be used by several products, and may be
//! made of several operands, one below the other or one after the other along `k`.
//!
//! One element of a product is one chain of multiply-adds in the order of `k`; in bf16 ([`Compute::Bf16`]) each link of it is a
//! pair of products. A finished tile goes to an [`Epilogue`] while it is in the first-level cache.

use super::{
    arithmetic::{Compute, Kernel, launch},
    packing::{Pack, pack_floats, pack_narrowed, pack_pairs},
    stored::Stored,
};
use crate::{
    Isa, Pool,
    buffer::Buffer,
    gemm::{Multiply, any_tile, tile_shape},
    pool::SharedMut,
    simd::Simd,
};
use half::bf16;
use std::ops::Range;

/// Steps of `k` that are multiplied at a time: that part of a panel stays in the first-level cache.
const KC: usize = 256;

/// Most tiles of the left side that share a panel: that part of them stays in the second-level cache.
const BLOCK_TILES: usize = 32;

/// Most panels that share a block of tiles where `k` is longer than [`KC`]: each part of the tiles is fetched once for them.
const BLOCK_PANELS: usize = 4;

/// The numbers of an operand.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Data<'a> {
    F32(&'a [f32]),
    /// For products in bf16 only.
    Bf16(&'a [bf16]),
}

impl Data<'_> {
    fn len(&self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::Bf16(values) => values.len(),
        }
    }
}

/// One side of a product: `element(i, k)` for `i` in its rows of the result.
#[derive(Clone, Copy, Debug)]
pub struct Operand<'a> {
    data: Data<'a>,
    stride: usize,
    pub(super) along_k: bool,
    gather: Option<&'a [u32]>,
    pub(super) outer: usize,
    pub(super) inner: usize,
}

impl<'a> Operand<'a> {
    /// A stored matrix `[rows, cols]` whose rows run along `k`: `element(i, k) = data[i, k]`.
    ///
    /// # Panics
    /// When the length is not that of the shape.
    pub fn rows(data: &'a [f32], rows: usize, cols: usize) -> Self {
        Self::stored_rows(data, rows, cols)
    }

    /// A stored matrix `[rows, cols]` whose columns run along `k`: `element(i, k) = data[k, i]`.
    ///
    /// # Panics
    /// When the length is not that of the shape.
    pub fn columns(data: &'a [f32], rows: usize, cols: usize) -> Self {
        Self::stored_columns(data, rows, cols)
    }

    pub(crate) fn stored_rows<T: Stored>(data: &'a [T], rows: usize, cols: usize) -> Self {
        assert_eq!(data.len(), rows * cols, "a [{rows}, {cols}] operand");
        let data = T::data(data);
        Self { data, stride: cols, along_k: true, gather: None, outer: rows, inner: cols }
    }

    pub(crate) fn stored_columns<T: Stored>(data: &'a [T], rows: usize, cols: usize) -> Self {
        assert_eq!(data.len(), rows * cols, "a [{rows}, {cols}] operand");
        let data = T::data(data);
        Self { data, stride: cols, along_k: false, gather: None, outer: cols, inner: rows }
    }

    /// The same with the stored rows `rows` in place of all rows.
    ///
    /// # Panics
    /// When a row is not in the matrix, or rows have been chosen already.
    pub fn gathered(mut self, rows: &'a [u32]) -> Self {
        let stored = self.data.len().checked_div(self.stride).unwrap_or(0);
        assert!(self.gather.is_none() && rows.iter().all(|&row| (row as usize) < stored));
        if self.along_k {
            self.outer = rows.len();
        } else {
            self.inner = rows.len();
        }
        self.gather = Some(rows);
        self
    }

    /// The same elements with `i` and `k` exchanged.
    pub fn columns_of(other: Self) -> Self {
        Self { along_k: !other.along_k, outer: other.inner, inner: other.outer, ..other }
    }

    /// Some of `data`, stored in rows of `stride`.
    pub(super) fn within(data: &'a [f32], stride: usize, along_k: bool, outer: usize, inner: usize) -> Self {
        let (rows, cols) = if along_k { (outer, inner) } else { (inner, outer) };
        assert!(cols <= stride && (rows == 0 || data.len() >= (rows - 1) * stride + cols));
        Self { data: Data::F32(data), stride, along_k, gather: None, outer, inner }
    }

    /// Offset of stored row `row`.
    #[inline(always)]
    pub(super) fn row(&self, row: usize) -> usize {
        self.gather.map_or(row, |rows| rows[row] as usize) * self.stride
    }
}

/// A tile or a panel: some rows of one operand.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Strip {
    /// Which operand of the stack.
    pub(crate) piece: usize,
    /// Its first row there, and how many.
    pub(crate) first: usize,
    pub(crate) rows: usize,
}

/// A packed side: strip after strip, each `[step, lanes]`, where a step is a number or a pair of bf16 numbers.
#[derive(Default)]
pub(crate) struct Packed {
    data: Buffer,
    strips: Vec<Strip>,
    steps: usize,
    /// `k`, for the count of operations.
    depth: usize,
    /// Rows that are not padding.
    rows: usize,
    /// Lanes that the place of a strip has.
    lanes: usize,
}

/// Which side is packed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// Tiles.
    Left,
    /// Panels.
    Right,
    /// Panels of two operands of equal shape in turn; an epilogue gets both.
    RightPairs,
}

/// Buffers that products reuse.
#[derive(Default)]
pub struct ProductScratch {
    pub(crate) left: Packed,
    pub(crate) right: Packed,
    pub(crate) sums: Sums,
}

/// Sums of the tiles of a block, one buffer a thread; and the count of operations.
#[derive(Default)]
pub(crate) struct Sums {
    threads: Vec<Buffer>,
    pub(crate) operations: u64,
}

impl Packed {
    /// Its tiles or panels.
    pub(crate) fn strips(&self) -> &[Strip] {
        &self.strips
    }
}

impl ProductScratch {
    /// Floating-point operations of all products with these buffers, and forgets them.
    pub fn take_operations(&mut self) -> u64 {
        std::mem::take(&mut self.sums.operations)
    }
}

/// Where and with what products run.
#[derive(Clone, Copy)]
pub struct Product<'a> {
    /// The threads.
    pub pool: &'a Pool,
    /// The instruction set.
    pub isa: Isa,
    /// The arithmetic.
    pub compute: Compute,
}

/// What a finished tile is handed to.
pub(crate) trait Epilogue: Sync {
    /// Takes the tile of `left` rows and `right` columns: row `r` begins at `sums + r × 2 LANES`, and at `second` likewise
    /// in products of pairs of panels.
    ///
    /// # Safety
    /// Only where the CPU has `S`; each tile is handed over once.
    unsafe fn tile<S: Simd>(&self, left: &Strip, right: &Strip, sums: *const f32, second: *const f32);
}

/// `out[i, j] = sum`, or `+=`.
pub(crate) struct Write<'a, T> {
    /// For each pair of a piece on the left and one on the right: where, and columns of a row there.
    pub(crate) out: &'a [(SharedMut<T>, usize)],
    /// Pieces on the right.
    pub(crate) pieces: usize,
    pub(crate) add: bool,
}

impl<T: Stored> Epilogue for Write<'_, T> {
    #[inline(always)]
    unsafe fn tile<S: Simd>(&self, left: &Strip, right: &Strip, sums: *const f32, _: *const f32) {
        let (out, cols) = self.out[left.piece * self.pieces + right.piece];
        for r in 0..left.rows {
            let out = out.slice((left.first + r) * cols + right.first, right.rows).as_mut_ptr();
            let sums = sums.add(r * 2 * S::LANES);
            let mut c = 0;
            while c < right.rows {
                let n = right.rows - c;
                let mut v = S::load(sums.add(c));
                if self.add {
                    v = S::add(T::load::<S>(out.add(c), n), v);
                }
                T::store::<S>(out.add(c), v, n);
                c += S::LANES;
            }
        }
    }
}

/// `out[rows[i], j] += scale[i] · sum`
pub(crate) struct Scatter<'a> {
    pub(crate) out: SharedMut<f32>,
    pub(crate) cols: usize,
    pub(crate) rows: &'a [u32],
    pub(crate) scale: Option<&'a [f32]>,
}

impl Epilogue for Scatter<'_> {
    #[inline(always)]
    unsafe fn tile<S: Simd>(&self, left: &Strip, right: &Strip, sums: *const f32, _: *const f32) {
        for r in 0..left.rows {
            let i = left.first + r;
            let at = self.rows[i] as usize * self.cols + right.first;
            let out = self.out.slice(at, right.rows).as_mut_ptr();
            let scale = S::splat(self.scale.map_or(1.0, |scale| scale[i]));
            let sums = sums.add(r * 2 * S::LANES);
            let mut c = 0;
            while c < right.rows {
                let n = right.rows - c;
                let v = S::fma(scale, S::load(sums.add(c)), f32::load::<S>(out.add(c), n));
                f32::store::<S>(out.add(c), v, n);
                c += S::LANES;
            }
        }
    }
}

impl Product<'_> {
    /// `out[i, j] = Σₖ left(i, k) · right(j, k)`, added to what `out` holds with `add`.
    ///
    /// # Panics
    /// When shapes do not fit.
    pub fn write(
        &self,
        left: Operand<'_>,
        right: Operand<'_>,
        out: &mut [f32],
        add: bool,
        scratch: &mut ProductScratch,
    ) {
        let cols = right.outer;
        assert_eq!(out.len(), left.outer * cols);
        if left.inner == 0 && !add {
            out.fill(0.0);
        }
        let ProductScratch { left: tiles, right: panels, sums } = scratch;
        self.pack(Side::Left, &[&[left]], tiles);
        self.pack(Side::Right, &[&[right]], panels);
        let out = [(SharedMut::new(out), cols)];
        self.multiply(tiles, panels, &Write { out: &out, pieces: 1, add }, sums);
    }

    /// `out[rows[i], j] += scale[i] · Σₖ left(i, k) · right(j, k)`: rows of the result go to the places that `rows` names.
    ///
    /// # Panics
    /// When shapes do not fit, or a row is named twice.
    pub fn scatter_add(
        &self,
        left: Operand<'_>,
        right: Operand<'_>,
        rows: &[u32],
        scale: Option<&[f32]>,
        out: &mut [f32],
        scratch: &mut ProductScratch,
    ) {
        assert_eq!(rows.len(), left.outer);
        let ProductScratch { left: tiles, right: panels, sums } = scratch;
        self.pack(Side::Left, &[&[left]], tiles);
        self.pack(Side::Right, &[&[right]], panels);
        let scatter = Scatter::new(out, right.outer, rows, scale);
        self.multiply(tiles, panels, &scatter, sums);
    }

    /// Packs a stack of chains: operands of a chain follow each other along `k` and have equally many rows; the chains lie one
    /// below the other and have equal lengths along `k`, piece by piece.
    pub(crate) fn pack(&self, side: Side, stack: &[&[Operand<'_>]], out: &mut Packed) {
        let (full, width) = tile_shape(self.isa);
        let lanes = if side == Side::Left { full } else { width };
        let pairs = self.compute == Compute::Bf16;
        let steps_of = |operand: &Operand<'_>| if pairs { operand.inner.div_ceil(2) } else { operand.inner };
        let first = stack.first().copied().unwrap_or_default();
        for chain in stack {
            assert!(chain.len() == first.len() && chain.iter().all(|o| o.outer == chain[0].outer));
            assert!(chain.iter().zip(first).all(|(a, b)| a.inner == b.inner), "pieces differ along k");
        }
        out.steps = first.iter().map(steps_of).sum();
        out.depth = first.iter().map(|o| o.inner).sum();
        out.lanes = lanes;
        out.rows = stack.iter().map(|chain| chain[0].outer).sum();
        out.strips.clear();
        for (piece, chain) in stack.iter().enumerate() {
            let rows = chain[0].outer;
            out.strips.extend((0..rows.div_ceil(lanes)).map(|i| {
                let first = i * lanes;
                Strip { piece, first, rows: (rows - first).min(lanes) }
            }));
        }
        if side == Side::RightPairs {
            assert!(stack.len() == 2 && stack[0][0].outer == stack[1][0].outer);
            out.strips.sort_by_key(|strip| (strip.first, strip.piece));
        }
        let place = out.steps * lanes;
        out.data.reserve(out.strips.len() * place);
        let data = SharedMut::new(&mut out.data);
        let strips = &out.strips;
        self.pool.for_ranges(strips.len(), 1, |_, range| {
            for index in range {
                let strip = &strips[index];
                // A tile is as wide as the loop that multiplies it; a panel always has all lanes.
                let width = if side == Side::Left { strip.rows.next_multiple_of(2) } else { lanes };
                let mut step = 0;
                for operand in stack[strip.piece] {
                    let count = steps_of(operand) * width;
                    // SAFETY: each strip has its own place, with room for all its steps; `isa` is available on this CPU.
                    unsafe {
                        let out = data.slice(index * place + step, count).as_mut_ptr();
                        match (operand.data, pairs) {
                            (Data::F32(x), false) => pack_floats(self.isa, operand, x, strip, width, out),
                            (Data::F32(x), true) => pack_narrowed(self.isa, operand, x, strip, width, out),
                            (Data::Bf16(x), true) => pack_pairs(self.isa, operand, x, strip, width, out),
                            (Data::Bf16(_), false) => unreachable!("bf16 operands are for products in bf16"),
                        }
                    }
                    step += count;
                }
            }
        });
    }

    /// Multiplies packed sides, and hands every tile of the product to `epilogue` once; none when `k` is 0.
    pub(crate) fn multiply<E: Epilogue>(&self, left: &Packed, right: &Packed, epilogue: &E, sums: &mut Sums) {
        self.multiply_panels::<E, 1>(left, right, epilogue, sums);
    }

    /// The same for [`Side::RightPairs`].
    pub(crate) fn multiply_pairs<E: Epilogue>(
        &self,
        left: &Packed,
        right: &Packed,
        epilogue: &E,
        sums: &mut Sums,
    ) {
        self.multiply_panels::<E, 2>(left, right, epilogue, sums);
    }

    fn multiply_panels<E: Epilogue, const PANELS: usize>(
        &self,
        left: &Packed,
        right: &Packed,
        epilogue: &E,
        sums: &mut Sums,
    ) {
        assert!(
            left.steps == right.steps && left.depth == right.depth,
            "the sides of a product have different k"
        );
        if left.strips.is_empty() || right.strips.is_empty() || left.steps == 0 {
            return;
        }
        assert!(right.strips.len().is_multiple_of(PANELS));
        sums.operations += 2 * (left.rows * right.rows * left.depth) as u64;
        sums.threads.resize_with(self.pool.threads(), Buffer::default);
        let threads = SharedMut::new(&mut sums.threads);
        let panels = right.strips.len() / PANELS;
        let blocks = left.strips.len().div_ceil(BLOCK_TILES);
        let tiles = left.strips.len().div_ceil(blocks);
        let mut group = if left.steps > KC { BLOCK_PANELS } else { 1 };
        while group > 1 && blocks * panels.div_ceil(group) < 2 * self.pool.threads() {
            group /= 2;
        }
        let groups = panels.div_ceil(group);
        // Consecutive items share their block of the left side.
        self.pool.for_ranges(blocks * groups, 1, |thread, range| {
            // SAFETY: each thread has its own sums, and runs one body at a time.
            let own = unsafe { &mut threads.slice(thread, 1)[0] };
            own.reserve(group * PANELS * tiles * left.lanes * right.lanes);
            for item in range {
                let (block, first) = (item / groups, item % groups * group);
                let task = BlockTask::<E, PANELS> {
                    left,
                    right,
                    tiles: block * tiles..((block + 1) * tiles).min(left.strips.len()),
                    panels: first..(first + group).min(panels),
                    sums: own.as_mut_ptr(),
                    epilogue,
                };
                // SAFETY: packed sides hold all their strips, the sums a block; `isa` is available on this CPU.
                unsafe { launch(self.isa, self.compute, &task) }
            }
        });
    }
}

impl<'a> Scatter<'a> {
    pub(crate) fn new(out: &mut [f32], cols: usize, rows: &'a [u32], scale: Option<&'a [f32]>) -> Self {
        let stored = out.len().checked_div(cols).unwrap_or(0);
        assert!(scale.is_none_or(|scale| scale.len() == rows.len()));
        // Strictly rising: so no two threads write to one row's panel.
        assert!(rows.windows(2).all(|w| w[0] < w[1]) && rows.last().is_none_or(|&r| (r as usize) < stored));
        Self { out: SharedMut::new(out), cols, rows, scale }
    }
}

/// Some panels (or pairs of panels) and a block of tiles.
struct BlockTask<'a, E, const PANELS: usize> {
    left: &'a Packed,
    right: &'a Packed,
    tiles: Range<usize>,
    panels: Range<usize>,
    sums: *mut f32,
    epilogue: &'a E,
}

impl<E: Epilogue, const PANELS: usize> Kernel for BlockTask<'_, E, PANELS> {
    #[inline(always)]
    unsafe fn run<S: Simd, M: Multiply<S>, P: Pack<S, From = f32>>(&self) {
        block::<S, M, E, PANELS>(self);
    }
}

#[inline(always)]
unsafe fn block<S: Simd, M: Multiply<S>, E: Epilogue, const PANELS: usize>(task: &BlockTask<'_, E, PANELS>) {
    let width = 2 * S::LANES;
    let steps = task.left.steps;
    let (left_place, right_place) = (steps * task.left.lanes, steps * width);
    let place = task.left.lanes * width;
    let mut k = 0;
    while k < steps {
        let depth = (steps - k).min(KC);
        for (j, panel) in task.panels.clone().enumerate() {
            let right = &task.right.strips[panel * PANELS];
            for (i, tile) in task.tiles.clone().enumerate() {
                let strip = &task.left.strips[tile];
                let tile_width = strip.rows.next_multiple_of(2);
                let x = task.left.data.as_ptr().add(tile * left_place + k * tile_width);
                // With all of `k` at once, the sums of one tile are enough.
                let at = if depth == steps { 0 } else { (j * task.tiles.len() + i) * PANELS };
                for p in 0..PANELS {
                    let w = task.right.data.as_ptr().add((panel * PANELS + p) * right_place + k * width);
                    let sums = task.sums.add((at + p) * place);
                    any_tile::<S, M>(tile_width, depth, x, w, width, sums, width, k == 0);
                }
                if k + depth == steps {
                    let sums = task.sums.add(at * place);
                    task.epilogue.tile::<S>(strip, right, sums, sums.add((PANELS - 1) * place));
                }
            }
        }
        k += depth;
    }
}
