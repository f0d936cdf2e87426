//! Models made from models: averages, longer contexts, more layers, other vocabularies.
//!
//! What a change promises of the outputs stands with each function; tests hold it to that.

use crate::{
    Adapter, AdapterError, Checkpoint, Dtype, MixtralConfig, TensorSource, WriteError,
    names::{EMBEDDING, HEAD, Layer, expected},
    random::to_bytes,
    write_checkpoint,
};
use std::{borrow::Cow, path::Path};

/// A model cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum SurgeryError {
    /// The models do not fit together.
    #[error("{0}")]
    Mismatch(String),
    /// A weight is quantised.
    #[error("{0} is quantised: surgery takes f32, f16 and bf16")]
    Quantised(String),
    /// The adapter does not fit.
    #[error(transparent)]
    Adapter(#[from] AdapterError),
    /// It cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// Bytes of a weights file at most.
const SHARD_BYTES: u64 = 5 << 30;

/// Writes a model whose weight `name` has the numbers that `values` makes.
fn write(
    out: &Path,
    config: &MixtralConfig,
    dtype: Dtype,
    values: &dyn Fn(&str) -> Vec<f32>,
) -> Result<(), SurgeryError> {
    let tensors = expected(config)
        .into_iter()
        .map(|e| {
            let name = e.name.clone();
            let bytes = Box::new(move || Cow::Owned(to_bytes(&values(&name), dtype)));
            TensorSource { name: e.name, dtype, shape: e.shape, bytes }
        })
        .collect();
    Ok(write_checkpoint(out, config, dtype, tensors, SHARD_BYTES, &[])?)
}

/// The format of the weights, which the new model keeps.
fn dtype(checkpoint: &Checkpoint) -> Result<Dtype, SurgeryError> {
    for e in expected(&checkpoint.config) {
        if checkpoint.tensor(&e.name).is_none() {
            return Err(SurgeryError::Quantised(e.name));
        }
    }
    Ok(checkpoint.tensor(EMBEDDING).map_or(Dtype::F32, super::checkpoint::StoredTensor::dtype))
}

fn numbers(checkpoint: &Checkpoint, name: &str) -> Vec<f32> {
    checkpoint.tensor(name).map(|t| t.to_f32()).unwrap_or_default()
}

/// Files of a model directory beside configuration and weights.
const COMPANIONS: [&str; 5] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "generation_config.json",
    "chat_template.jinja",
];

/// Copies tokenizer and settings from one model directory to another; where both are one, they are there already.
///
/// # Errors
/// When the disk refuses.
pub fn copy_companions(from: &Path, to: &Path) -> std::io::Result<()> {
    // A file that is copied onto itself is empty afterwards.
    if from.canonicalize()? == to.canonicalize()? {
        return Ok(());
    }
    for name in COMPANIONS {
        if from.join(name).is_file() {
            std::fs::copy(from.join(name), to.join(name))?;
        }
    }
    Ok(())
}

/// The model with an adapter in its weights, as a plain checkpoint in `dtype`.
///
/// # Errors
/// When the adapter is for another model, or the disk refuses.
pub fn merge(mut model: Checkpoint, adapter: &Adapter, dtype: Dtype, out: &Path) -> Result<(), SurgeryError> {
    adapter.apply(&mut model)?;
    self::dtype(&model)?;
    write(out, &model.config, dtype, &|name| numbers(&model, name))
}

/// The mean of models of one geometry, weight by weight; of one model with itself, that model.
///
/// # Errors
/// When geometries differ, or the disk refuses.
pub fn average(models: &[Checkpoint], out: &Path) -> Result<(), SurgeryError> {
    let Some(first) = models.first() else {
        return Err(SurgeryError::Mismatch("there are no models to average".into()));
    };
    for other in models {
        dtype(other)?;
        if expected(&other.config) != expected(&first.config) {
            return Err(SurgeryError::Mismatch(
                "the models have different geometries: averages are of models of one run".into(),
            ));
        }
    }
    write(out, &first.config, dtype(first)?, &|name| {
        let mut sums: Vec<f64> = Vec::new();
        for model in models {
            let values = numbers(model, name);
            sums.resize(values.len(), 0.0);
            sums.iter_mut().zip(values).for_each(|(sum, x)| *sum += f64::from(x));
        }
        sums.into_iter().map(|sum| (sum / models.len() as f64) as f32).collect()
    })
}

/// The same model with a longer context, and another base of its rotary angles if one is given. Without that, texts that fit
/// the old context have the same outputs.
///
/// # Errors
/// When the context is shorter, the base is none, or the disk refuses.
pub fn extend_context(
    model: &Checkpoint,
    context: usize,
    theta: Option<f64>,
    out: &Path,
) -> Result<(), SurgeryError> {
    let old = model.config.max_position_embeddings;
    if context < old {
        return Err(SurgeryError::Mismatch(format!(
            "the new context, {context}, is shorter than the model's, {old}"
        )));
    }
    if let Some(theta) = theta.filter(|theta| !(1.0..=f64::from(f32::MAX)).contains(theta)) {
        return Err(SurgeryError::Mismatch(format!(
            "a base of {theta} for the rotary angles is not usable: it must be at least 1 and fit a 32-bit float"
        )));
    }
    let rope_theta = theta.unwrap_or(model.config.rope_theta);
    let config = MixtralConfig { max_position_embeddings: context, rope_theta, ..model.config.clone() };
    config.validate().map_err(|e| SurgeryError::Mismatch(e.to_string()))?;
    write(out, &config, dtype(model)?, &|name| numbers(model, name))
}

/// The model with `more` layers, spread evenly: each a copy of the one before it whose attention output and experts' down
/// projections are zero, so that it adds nothing and all outputs are the same; training fills it.
///
/// # Errors
/// When the disk refuses.
pub fn add_layers(model: &Checkpoint, more: usize, out: &Path) -> Result<(), SurgeryError> {
    let old = model.config.num_hidden_layers;
    let config = MixtralConfig { num_hidden_layers: old + more, ..model.config.clone() };
    config.validate().map_err(|e| SurgeryError::Mismatch(e.to_string()))?;
    // For each new layer, the old one that it is (a copy of), and whether it is new.
    let mut layers = Vec::new();
    for layer in 0..old {
        layers.push((layer, false));
        let due = (layer + 1) * more / old.max(1) - layer * more / old.max(1);
        layers.extend((0..due).map(|_| (layer, true)));
    }
    let experts = config.num_local_experts;
    write(out, &config, dtype(model)?, &|name| {
        let place = name.strip_prefix("model.layers.").and_then(|rest| rest.split_once('.'));
        let found = place.and_then(|(n, part)| Some((n.parse::<usize>().ok()?, part)));
        let Some((n, part)) = found else { return numbers(model, name) };
        let (from, added) = layers.get(n).copied().unwrap_or_default();
        let values = numbers(model, &format!("model.layers.{from}.{part}"));
        let layer = Layer(n);
        let silent = name == layer.output() || (0..experts).any(|e| name == layer.w2(e));
        if added && silent { vec![0.0; values.len()] } else { values }
    })
}

/// The model with another number of tokens. New rows of embedding and output layer are the mean of the old ones; logits of
/// tokens that stay are the same. Fewer tokens cut the last ones off.
///
/// # Errors
/// When a special token would be cut off, or the disk refuses.
pub fn resize_vocab(model: &Checkpoint, tokens: usize, out: &Path) -> Result<(), SurgeryError> {
    let config = MixtralConfig { vocab_size: tokens, ..model.config.clone() };
    config.validate().map_err(|e| SurgeryError::Mismatch(e.to_string()))?;
    let hidden = config.hidden_size;
    write(out, &config, dtype(model)?, &|name| {
        let mut values = numbers(model, name);
        if name == EMBEDDING || name == HEAD {
            let rows = values.len() / hidden.max(1);
            let mut mean = vec![0.0f64; hidden];
            for row in values.chunks_exact(hidden.max(1)) {
                mean.iter_mut().zip(row).for_each(|(mean, x)| *mean += f64::from(*x) / rows.max(1) as f64);
            }
            values.truncate(tokens * hidden);
            for _ in rows..tokens {
                values.extend(mean.iter().map(|&x| x as f32));
            }
        }
        values
    })
}
