//! Buffers that one step hands back and the next takes again: fresh memory costs a page fault for every 4 KiB.

use super::cpu::Primitive;
use std::collections::BTreeMap;

/// Numbers below which a buffer is not worth keeping.
const SMALL: usize = 4096;

/// Vectors by their length.
#[derive(Default)]
pub(super) struct Shelf {
    vectors: BTreeMap<usize, Vec<Vec<f32>>>,
    tokens: usize,
}

impl Shelf {
    /// A vector of `len` numbers, of whatever value.
    pub(super) fn take(&mut self, len: usize) -> Vec<f32> {
        self.vectors.get_mut(&len).and_then(Vec::pop).unwrap_or_else(|| vec![0.0; len])
    }

    /// Keeps a vector for later.
    pub(super) fn give(&mut self, vector: Vec<f32>) {
        if vector.len() >= SMALL {
            self.vectors.entry(vector.len()).or_default().push(vector);
        }
    }

    /// Keeps the memory of a tensor that nobody else holds.
    pub(super) fn give_tensor(&mut self, tensor: Primitive) {
        if tensor.is_unique()
            && let Ok(vector) = tensor.into_data().try_into_vec::<f32>()
        {
            self.give(vector);
        }
    }

    /// Forgets everything when a batch has another number of tokens than the last one, as most lengths change with it.
    pub(super) fn begin(&mut self, tokens: usize) {
        if self.tokens != tokens {
            *self = Self { tokens, ..Self::default() };
        }
    }
}
