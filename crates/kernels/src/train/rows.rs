//! Rows by index: embedding, forward and backward, and sums over tokens in parts of fixed size.

use crate::{Pool, pool::SharedMut};

/// Rows of tokens that make one part of a sum over all tokens.
pub(crate) const PART: usize = 64;

/// Copies with all threads.
///
/// # Panics
/// When lengths differ.
pub fn copy(pool: &Pool, x: &[f32], out: &mut [f32]) {
    assert_eq!(x.len(), out.len());
    let out = SharedMut::new(out);
    pool.for_ranges(x.len(), 1 << 14, |_, range| {
        // SAFETY: ranges are disjoint and inside.
        unsafe { out.slice(range.start, range.len()).copy_from_slice(&x[range]) }
    });
}

/// Sets all numbers with all threads.
pub fn fill(pool: &Pool, out: &mut [f32], value: f32) {
    let n = out.len();
    let out = SharedMut::new(out);
    // SAFETY: ranges are disjoint and inside.
    pool.for_ranges(n, 1 << 14, |_, range| unsafe { out.slice(range.start, range.len()).fill(value) });
}

/// `out[i] = table[ids[i]]`; `table` is `[rows, width]`, `out` `[ids, width]`.
///
/// # Panics
/// When an id is not a row, or lengths do not fit.
pub fn gather_rows(pool: &Pool, table: &[f32], width: usize, ids: &[u32], out: &mut [f32]) {
    assert_eq!(out.len(), ids.len() * width);
    let out = SharedMut::new(out);
    pool.for_ranges(ids.len(), PART, |_, range| {
        for i in range {
            // SAFETY: each token has its own row.
            let out = unsafe { out.slice(i * width, width) };
            out.copy_from_slice(&table[ids[i] as usize * width..][..width]);
        }
    });
}

/// `table[ids[i]] += rows[i]`, in the order of `i`: the backward pass of [`gather_rows`]. Rows of the id `skip` are left out.
///
/// # Panics
/// When an id is not a row, or lengths do not fit.
pub fn add_rows_of(
    pool: &Pool,
    rows: &[f32],
    width: usize,
    ids: &[u32],
    skip: Option<u32>,
    table: &mut [f32],
) {
    let stored = table.len() / width.max(1);
    assert!(rows.len() == ids.len() * width && ids.iter().all(|&id| (id as usize) < stored));
    let table = SharedMut::new(table);
    // Each thread adds some columns of every row: so the order of the sums does not depend on the threads.
    pool.for_ranges(width, 16, |_, range| {
        for (row, &id) in rows.chunks_exact(width).zip(ids).filter(|(_, id)| Some(**id) != skip) {
            // SAFETY: columns of one range belong to one thread.
            let out = unsafe { table.slice(id as usize * width + range.start, range.len()) };
            for (out, x) in out.iter_mut().zip(&row[range.clone()]) {
                *out += x;
            }
        }
    });
}

/// `total += Σ parts`, where `parts` is `[count, width]`, in the order of the parts.
///
/// # Panics
/// When lengths do not fit.
pub fn sum_into(parts: &[f32], total: &mut [f32]) {
    assert!(parts.len().is_multiple_of(total.len().max(1)));
    for part in parts.chunks_exact(total.len().max(1)) {
        for (total, x) in total.iter_mut().zip(part) {
            *total += x;
        }
    }
}
