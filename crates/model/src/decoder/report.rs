//! The loss of a stored batch, and its gradients: what anyone can compare with `transformers`.

use super::{Batch, BatchError, Decoder, LossOptions};
use crate::{Checkpoint, CheckpointError, WriteError, write_tensors};
use burn::tensor::Device;
use serde::Serialize;
use std::{fs, io, path::Path};

/// The loss could not be computed.
#[derive(Debug, thiserror::Error)]
pub enum LossError {
    /// The model cannot be used.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The batch cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// The batch cannot be used.
    #[error("{path}: {source}")]
    Batch {
        /// The file.
        path: String,
        /// Why.
        source: BatchError,
    },
    /// The gradients cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// The loss of a batch, as numbers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct LossReport {
    /// Cross-entropy and the weighted load-balancing loss.
    pub loss: f64,
    /// Mean over the labels that count, natural logarithm.
    pub cross_entropy: f64,
    /// Load-balancing loss, before its coefficient.
    pub aux_loss: f64,
    /// Its coefficient, from `config.json`.
    pub aux_coefficient: f64,
    /// Labels that count.
    pub targets: usize,
}

/// Computes the loss of a batch stored as safetensors (see [`Batch::from_safetensors`]) on the CPU, and writes the gradients
/// of all weights under their names in the checkpoint, as `f32`.
///
/// # Errors
/// When the model or the batch cannot be used, or the gradients cannot be written.
pub fn stored_batch_loss(
    checkpoint: &Checkpoint,
    batch: &Path,
    gradients: Option<&Path>,
) -> Result<LossReport, LossError> {
    let path = batch.display().to_string();
    let bytes = fs::read(batch).map_err(|source| LossError::Read { path: path.clone(), source })?;
    let batch = Batch::from_safetensors(&bytes, checkpoint.config.vocab_size)
        .map_err(|source| LossError::Batch { path, source })?;
    drop(bytes);
    let device = if gradients.is_some() { Device::flex().autodiff() } else { Device::flex() };
    let decoder = Decoder::from_checkpoint(checkpoint, &device)?;
    let options = LossOptions::of(decoder.config());
    let loss = decoder.loss(&batch, &options);
    if let Some(path) = gradients {
        write_tensors(path, decoder.gradient_tensors(&loss.total.backward()))?;
    }
    Ok(LossReport {
        loss: loss.cross_entropy + options.aux_coefficient * loss.aux_loss,
        cross_entropy: loss.cross_entropy,
        aux_loss: loss.aux_loss,
        aux_coefficient: options.aux_coefficient,
        targets: batch.targets(),
    })
}
