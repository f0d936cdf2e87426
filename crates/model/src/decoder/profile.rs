//! Where the time of a step goes: seconds and floating-point operations of each kind of block.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

/// A kind of block.
#[derive(Clone, Copy, Debug)]
pub(super) enum Block {
    Embedding,
    Attention,
    Router,
    Experts,
    Norm,
    Head,
    Optimiser,
}

const NAMES: [&str; 7] = ["embedding", "attention", "router", "experts", "norm", "head", "optimiser"];

#[derive(Clone, Copy, Debug)]
pub(super) enum Direction {
    Forward,
    Backward,
}

#[derive(Default)]
struct Cell {
    nanoseconds: AtomicU64,
    operations: AtomicU64,
}

static CELLS: [[Cell; 2]; NAMES.len()] =
    [const { [const { Cell { nanoseconds: AtomicU64::new(0), operations: AtomicU64::new(0) } }; 2] };
        NAMES.len()];

/// Time of one kind of block, in seconds, and floating-point operations of its matrix products.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BlockTime {
    /// `embedding`, `attention`, `router`, `experts`, `norm`, `head` (whose gradients are made in its forward pass) or
    /// `optimiser` (all of it under `forward`).
    pub block: &'static str,
    /// Forward pass.
    pub forward_seconds: f64,
    /// Backward pass.
    pub backward_seconds: f64,
    /// Operations of the forward pass.
    pub forward_operations: f64,
    /// Operations of the backward pass.
    pub backward_operations: f64,
}

/// The times of all fused blocks of this process since the last call: of all threads together.
pub fn take_profile() -> Vec<BlockTime> {
    let take = |value: &AtomicU64| value.swap(0, Ordering::Relaxed) as f64;
    NAMES
        .iter()
        .zip(&CELLS)
        .map(|(block, [forward, backward])| BlockTime {
            block,
            forward_seconds: take(&forward.nanoseconds) / 1e9,
            backward_seconds: take(&backward.nanoseconds) / 1e9,
            forward_operations: take(&forward.operations),
            backward_operations: take(&backward.operations),
        })
        .collect()
}

/// Runs a part of a block and counts its time.
pub(super) fn timed<R>(block: Block, direction: Direction, run: impl FnOnce() -> R) -> R {
    let start = Instant::now();
    let out = run();
    let nanoseconds = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
    CELLS[block as usize][direction as usize].nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
    out
}

/// Counts operations of a block.
pub(super) fn count(block: Block, direction: Direction, operations: u64) {
    CELLS[block as usize][direction as usize].operations.fetch_add(operations, Ordering::Relaxed);
}
