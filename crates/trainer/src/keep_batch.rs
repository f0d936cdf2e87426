//! Keeps the batch of a step whose loss was no number.

use crate::error::TrainError;
use blackletter_model::decoder::Batch;
use safetensors::{Dtype, serialize_to_file, tensor::TensorView};
use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Writes the micro-batches of a step into `failed-step-N` of a run, in the form that `blackletter loss` reads, with positions,
/// segments and targets beside it.
///
/// # Errors
/// When the file system refuses.
pub fn write(run: &Path, step: u64, batches: &[Batch]) -> Result<PathBuf, TrainError> {
    let dir = run.join(format!("failed-step-{step:08}"));
    fs::create_dir_all(&dir).map_err(TrainError::file("make", &dir))?;
    for (i, batch) in batches.iter().enumerate() {
        let path = dir.join(format!("batch-{i}.safetensors"));
        let wide = |values: &[u32]| values.iter().map(|&x| i64::from(x)).collect::<Vec<i64>>();
        let (ids, segments) = (wide(batch.ids()), wide(batch.segments()));
        let mask = segments.iter().map(|&s| i64::from(s != 0)).collect();
        // A label is that of its token: the target of the token before it.
        let labels = batch
            .target_ids()
            .chunks(batch.len())
            .flat_map(|row| [-100].into_iter().chain(row.iter().copied().take(row.len().saturating_sub(1))))
            .collect();
        let all = [
            ("padded_input_ids", ids),
            ("attention_mask", mask),
            ("labels", labels),
            ("positions", wide(batch.positions())),
            ("segments", segments),
            ("targets", batch.target_ids().to_vec()),
        ];
        let shape = [batch.tokens() / batch.len().max(1), batch.len()];
        let bytes = all.map(|(name, values): (&str, Vec<i64>)| {
            (name, values.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>())
        });
        let views = bytes
            .iter()
            .map(|(name, bytes)| Ok((*name, TensorView::new(Dtype::I64, shape.to_vec(), bytes)?)))
            .collect::<Result<Vec<_>, safetensors::SafeTensorError>>();
        views.and_then(|views| serialize_to_file(views, None, &path)).map_err(|e| TrainError::File {
            action: "write",
            path: path.clone(),
            source: io::Error::other(e),
        })?;
    }
    Ok(dir)
}
