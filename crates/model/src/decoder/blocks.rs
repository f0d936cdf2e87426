//! What the decoder's operations are told beside their tensors.

use super::batch::Batch;
use blackletter_kernels::{
    RopeTable,
    train::{Assignment, AttentionGeometry, Compute, HeadOptions, Layout},
};
use std::{fmt, sync::Arc};

/// The attention of one layer.
#[derive(Clone)]
pub struct AttentionBlock {
    pub(super) geometry: AttentionGeometry,
    pub(super) epsilon: f32,
    pub(super) batch: Batch,
    pub(super) rope: Arc<RopeTable>,
    pub(super) recompute: bool,
    pub(super) compute: Compute,
}

impl AttentionBlock {
    pub(super) fn layout(&self) -> Layout<'_> {
        Layout { len: self.batch.len, positions: &self.batch.positions, segments: &self.batch.segments }
    }
}

impl fmt::Debug for AttentionBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AttentionBlock").field("geometry", &self.geometry).finish_non_exhaustive()
    }
}

/// The experts of one layer, and who goes where.
#[derive(Clone, Debug)]
pub struct ExpertBlock {
    pub(super) experts: usize,
    pub(super) epsilon: f32,
    pub(super) assignment: Arc<Assignment>,
    pub(super) recompute: bool,
    pub(super) compute: Compute,
}

/// The output layer and its loss.
#[derive(Clone, Debug)]
pub struct HeadBlock {
    pub(super) targets: Arc<[i64]>,
    pub(super) options: HeadOptions,
    pub(super) compute: Compute,
}
