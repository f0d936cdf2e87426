//! Documents that stand in the corpus more than once, word for word or nearly.

pub mod exact;
pub mod near;

use std::{io, path::PathBuf};

/// Duplicates cannot be found.
#[derive(Debug, thiserror::Error)]
pub enum DedupError {
    /// What does not fit into memory cannot be written or read.
    #[error("cannot use {path} to sort what does not fit into memory")]
    Spill {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}
