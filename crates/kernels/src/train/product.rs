//! The three products of training: `x Wᵀ` (forward), `dy W` (to the inputs) and `dyᵀ x` (to the weights).
//!
//! One loop serves all: an [`Operand`] says how its elements lie in memory, and packing brings both into the order of the
//! inner tile of [`crate::gemm`]. Rows may be gathered by index on the way into the packing, so that the tokens of an
//! expert are never copied apart. One element of a product is a chain of multiply-adds in the order of `k`.

use crate::{
    Isa, Pool,
    buffer::Buffer,
    gemm::{Floats, any_tile, tile_shape, tiles},
    pool::SharedMut,
    simd::{Simd, dispatch},
};

/// Steps of `k` that are packed at a time.
const KC: usize = 256;

/// Tiles of output rows whose sums are kept at a time.
const BLOCK_TILES: usize = 64;

/// One side of a product: `element(i, k)` for `i` in its rows of the result.
#[derive(Clone, Copy, Debug)]
pub struct Operand<'a> {
    data: &'a [f32],
    stride: usize,
    along_k: bool,
    gather: Option<&'a [u32]>,
    outer: usize,
    inner: usize,
}

impl<'a> Operand<'a> {
    /// A stored matrix `[rows, cols]` whose rows run along `k`: `element(i, k) = data[i, k]`.
    ///
    /// # Panics
    /// When the length is not that of the shape.
    pub fn rows(data: &'a [f32], rows: usize, cols: usize) -> Self {
        assert_eq!(data.len(), rows * cols, "a [{rows}, {cols}] operand");
        Self { data, stride: cols, along_k: true, gather: None, outer: rows, inner: cols }
    }

    /// A stored matrix `[rows, cols]` whose columns run along `k`: `element(i, k) = data[k, i]`.
    ///
    /// # Panics
    /// When the length is not that of the shape.
    pub fn columns(data: &'a [f32], rows: usize, cols: usize) -> Self {
        assert_eq!(data.len(), rows * cols, "a [{rows}, {cols}] operand");
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

    /// Offset of stored row `row`.
    #[inline(always)]
    fn row(&self, row: usize) -> usize {
        self.gather.map_or(row, |rows| rows[row] as usize) * self.stride
    }
}

/// Buffers that products reuse.
#[derive(Default)]
pub struct ProductScratch {
    /// The packed left side: tile after tile, each `[k, tile]`.
    left: Buffer,
    threads: Vec<ThreadScratch>,
}

#[derive(Default)]
struct ThreadScratch {
    right: Buffer,
    sums: Buffer,
}

/// Where and with what products run.
#[derive(Clone, Copy)]
pub struct Product<'a> {
    /// The threads.
    pub pool: &'a Pool,
    /// The instruction set.
    pub isa: Isa,
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
        let out = SharedMut::new(out);
        self.each(left, right, scratch, |row, first, values| {
            // SAFETY: each (row, panel) is handed out once.
            let out = unsafe { out.slice(row * cols + first, values.len()) };
            if add {
                for (out, value) in out.iter_mut().zip(values) {
                    *out += value;
                }
            } else {
                out.copy_from_slice(values);
            }
        });
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
        let cols = right.outer;
        let stored = out.len().checked_div(cols).unwrap_or(0);
        assert!(rows.len() == left.outer && scale.is_none_or(|scale| scale.len() == rows.len()));
        // Strictly rising: so no two threads write to one row's panel.
        assert!(rows.windows(2).all(|w| w[0] < w[1]) && rows.last().is_none_or(|&r| (r as usize) < stored));
        let out = SharedMut::new(out);
        self.each(left, right, scratch, |row, first, values| {
            // SAFETY: rows differ, and each (row, panel) is handed out once.
            let out = unsafe { out.slice(rows[row] as usize * cols + first, values.len()) };
            let scale = scale.map_or(1.0, |scale| scale[row]);
            for (out, value) in out.iter_mut().zip(values) {
                *out += scale * value;
            }
        });
    }

    /// Hands `(row, first column, values)` of the product to `store`, each element once.
    fn each(
        &self,
        left: Operand<'_>,
        right: Operand<'_>,
        scratch: &mut ProductScratch,
        store: impl Fn(usize, usize, &[f32]) + Sync,
    ) {
        assert_eq!(left.inner, right.inner, "the sides of a product have different k");
        let (m, n, steps) = (left.outer, right.outer, left.inner);
        if m == 0 || n == 0 || steps == 0 {
            return;
        }
        let (full, width) = tile_shape(self.isa);
        self.pack_left(&left, full, &mut scratch.left);
        scratch.threads.resize_with(self.pool.threads(), ThreadScratch::default);
        let threads = SharedMut::new(&mut scratch.threads);
        let packed = &scratch.left;
        let block = BLOCK_TILES * full;
        let blocks = m.div_ceil(block);
        // Consecutive items share their block of the left side.
        let panels = n.div_ceil(width);
        self.pool.for_ranges(blocks * panels, 1, |thread, range| {
            // SAFETY: each thread has its own scratch, and runs one body at a time.
            let own = unsafe { &mut threads.slice(thread, 1)[0] };
            own.right.reserve(KC * width);
            own.sums.reserve((block + full + 1) * width);
            for item in range {
                let (start, first) = (item / panels * block, item % panels * width);
                let count = (m - start).min(block);
                let rows = (n - first).min(width);
                let mut k = 0;
                while k < steps {
                    let depth = (steps - k).min(KC);
                    // SAFETY: the packed sides and sums have the sizes reserved above; `isa` is available on this CPU.
                    unsafe {
                        pack_right(self.isa, &right, first, rows, k, depth, own.right.as_mut_ptr());
                        block_product(
                            self.isa,
                            packed.as_ptr().add(start * steps),
                            steps,
                            k,
                            depth,
                            count,
                            full,
                            own.right.as_ptr(),
                            own.sums.as_mut_ptr(),
                        );
                    }
                    k += depth;
                }
                for row in 0..count {
                    store(start + row, first, &own.sums[row * width..row * width + rows]);
                }
            }
        });
    }

    /// Packs the left side tile by tile as `[k, tile]`.
    fn pack_left(&self, left: &Operand<'_>, full: usize, out: &mut Buffer) {
        let steps = left.inner;
        out.reserve((left.outer + full + 1) * steps);
        let out = SharedMut::new(out);
        self.pool.for_ranges(left.outer.div_ceil(full), 1, |_, range| {
            for tile in range {
                let first = tile * full;
                let count = (left.outer - first).min(full);
                let width = count.next_multiple_of(2);
                // SAFETY: tiles before this one are full, so each has its own part of the buffer.
                let out = unsafe { out.slice(first * steps, width * steps) };
                if left.along_k {
                    for t in 0..width {
                        // The padding row of an odd tile repeats a real one; its sums are not read.
                        let row = &left.data[left.row(first + t.min(count - 1))..][..steps];
                        for (out, &value) in out[t..].iter_mut().step_by(width).zip(row) {
                            *out = value;
                        }
                    }
                } else {
                    for (step, out) in out.chunks_exact_mut(width).enumerate() {
                        let row = &left.data[left.row(step) + first..][..count];
                        out[..count].copy_from_slice(row);
                        out[count..].fill(0.0);
                    }
                }
            }
        });
    }
}

dispatch! {
    unsafe fn pack_right(right: &Operand<'_>, first: usize, rows: usize, k: usize, depth: usize, out: *mut f32) = pack_right_kernel;
}

/// Packs `depth` steps from `k` of `rows` rows from `first` as `[step, 2 × LANES]`.
#[inline(always)]
unsafe fn pack_right_kernel<S: Simd>(
    right: &Operand<'_>,
    first: usize,
    rows: usize,
    k: usize,
    depth: usize,
    out: *mut f32,
) {
    let width = 2 * S::LANES;
    if !right.along_k {
        for step in 0..depth {
            let row = right.data.as_ptr().add(right.row(k + step) + first);
            let out = out.add(step * width);
            if rows == width {
                S::store(out, S::load(row));
                S::store(out.add(S::LANES), S::load(row.add(S::LANES)));
            } else {
                for i in 0..width {
                    *out.add(i) = if i < rows { *row.add(i) } else { 0.0 };
                }
            }
        }
        return;
    }
    for group in 0..2 {
        let out = out.add(group * S::LANES);
        let mut i = 0;
        while i < depth {
            let left = depth - i;
            let mut block = [S::splat(0.0); 16];
            for (lane, v) in block[..S::LANES].iter_mut().enumerate() {
                // Rows beyond the last repeat it; their sums are not read.
                let row = right.row(first + (group * S::LANES + lane).min(rows - 1));
                let p = right.data.as_ptr().add(row + k + i);
                *v = if left >= S::LANES { S::load(p) } else { S::load_partial(p, left) };
            }
            S::transpose(&mut block);
            for (s, v) in block[..S::LANES.min(left)].iter().enumerate() {
                S::store(out.add((i + s) * width), *v);
            }
            i += S::LANES;
        }
    }
}

dispatch! {
    unsafe fn block_product(left: *const f32, steps: usize, k: usize, depth: usize, count: usize, full: usize, right: *const f32, sums: *mut f32) = block_product_kernel;
}

#[inline(always)]
unsafe fn block_product_kernel<S: Simd>(
    left: *const f32,
    steps: usize,
    k: usize,
    depth: usize,
    count: usize,
    full: usize,
    right: *const f32,
    sums: *mut f32,
) {
    let width = 2 * S::LANES;
    for (first, _, tile) in tiles(count, full) {
        let x = left.add(first * steps + k * tile);
        any_tile::<S, Floats>(tile, depth, x, right, width, sums.add(first * width), width, k == 0);
    }
}
