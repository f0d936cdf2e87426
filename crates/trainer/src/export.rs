//! From a run to a model directory that `transformers` loads.

use crate::{
    checkpoint::{self, Stored},
    config::RunConfig,
    error::TrainError,
    record::{self, Identity, Material},
    setup::{CHECKPOINTS, CONFIG, key},
};
use blackletter_model::{
    Dtype, MixtralConfig,
    decoder::{Decoder, Device, Tensor},
};
use blackletter_tokenizer::template::CHAT_TEMPLATE;
use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Name of the model's configuration in a run.
pub const MODEL_CONFIG: &str = "model.json";

/// Name of the drawn curves in a run and in the model that is made of it.
pub const CURVES: &str = "curves.svg";

/// Bytes of a weights file at most.
const SHARD_BYTES: u64 = 5 << 30;

/// What to export.
#[derive(Clone, Debug)]
pub struct ExportOptions {
    /// The form of the weights.
    pub dtype: Dtype,
    /// The averaged weights in place of the last ones.
    pub averaged: bool,
    /// Which checkpoint.
    pub which: Which,
    /// The corpus that the run's store was made from: with it, the model gets its record and the list of its documents.
    pub corpus: Option<PathBuf>,
    /// What the record says of the model beside that.
    pub identity: Identity,
}

/// Which checkpoint of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// The last one.
    Last,
    /// The one with the lowest held-out loss.
    Best,
    /// That of a step.
    Step(u64),
}

/// Writes the model directory `out` from a checkpoint of the run in `run`; gives the checkpoint's path. `note` is told of
/// damaged checkpoints that are passed over.
///
/// # Errors
/// When the run has no such checkpoint, or the file system refuses.
pub fn export(
    run: &Path,
    out: &Path,
    options: &ExportOptions,
    note: &mut dyn FnMut(String),
) -> Result<PathBuf, TrainError> {
    let path = run.join(CONFIG);
    let text = fs::read_to_string(&path).map_err(|_| TrainError::NoRun(run.into()))?;
    let config = RunConfig::parse(&path.display().to_string(), &text, &[])?;
    let path = run.join(MODEL_CONFIG);
    let bytes = fs::read(&path).map_err(TrainError::file("read", &path))?;
    let model = MixtralConfig::from_json(&bytes)
        .map_err(|source| TrainError::Geometry { name: path.display().to_string(), source })?;
    if out.canonicalize().is_ok_and(|out| run.canonicalize().is_ok_and(|run| run == out)) {
        return Err(TrainError::Mismatch(format!(
            "{} is the run itself: name another directory for the model",
            out.display()
        )));
    }
    let mut stored = find(&run.join(CHECKPOINTS), options.which, note)?;
    if options.averaged && config.averaging.decay <= 0.0 {
        return Err(TrainError::Mismatch(format!(
            "the run in {} has no averaged weights: averaging.decay is 0 there",
            run.display()
        )));
    }
    let kind = if options.averaged { "average" } else { "weight" };
    let decoder = decoder(&model, &mut stored, kind)?;
    write_model(&decoder, &run.join("tokenizer.json"), out, options.dtype)?;
    let curves = run.join(CURVES);
    if curves.is_file() {
        let to = out.join(CURVES);
        fs::copy(&curves, &to).map_err(TrainError::file("copy the curves to", &to))?;
    }
    if let Some(corpus) = &options.corpus {
        let evaluated = if options.averaged { "average" } else { "weights" };
        let (state, documents) = (&stored.state, stored.documents.as_slice());
        let identity = &options.identity;
        record::write(
            &Material { run, config: &config, model: &model, state, documents, corpus, identity, evaluated },
            out,
        )?;
    }
    Ok(stored.path)
}

/// A checkpoint of a run.
pub(crate) fn find(folder: &Path, which: Which, note: &mut dyn FnMut(String)) -> Result<Stored, TrainError> {
    let none = || TrainError::Mismatch(format!("there is no checkpoint in {}", folder.display()));
    let last = checkpoint::read_last(folder, note)?.ok_or_else(none)?;
    let step = match which {
        Which::Last => return Ok(last),
        Which::Best => last.state.best.map(|best| best.step).ok_or_else(|| {
            TrainError::Mismatch("the run has no best checkpoint: none was written at an evaluation".into())
        })?,
        Which::Step(step) => step,
    };
    // Two checkpoints at once may be more than there is memory for.
    drop(last);
    let all = checkpoint::list(folder);
    match all.iter().find(|(of, _)| *of == step) {
        Some((_, path)) => Ok(checkpoint::read(path)?),
        None => {
            let steps: Vec<String> = all.iter().rev().map(|(step, _)| step.to_string()).collect();
            Err(TrainError::Mismatch(format!(
                "there is no checkpoint of step {step} in {}: there are those of {}",
                folder.display(),
                steps.join(", ")
            )))
        }
    }
}

/// A decoder from the tensors of a checkpoint.
fn decoder(model: &MixtralConfig, stored: &mut Stored, kind: &str) -> Result<Decoder, TrainError> {
    let device = Device::flex();
    let mut decoder = Decoder::empty(model, &device);
    for parameter in decoder.parameters_mut() {
        let data = stored.take(&format!("{kind}/{}", key(&parameter.names)), parameter.size())?;
        *parameter.tensor = Tensor::from_data(data, &device);
    }
    Ok(decoder)
}

/// Writes weights, configuration and tokenizer as `transformers` reads them.
///
/// # Errors
/// When the file system refuses.
pub fn write_model(decoder: &Decoder, tokenizer: &Path, dir: &Path, dtype: Dtype) -> Result<(), TrainError> {
    let config = decoder.config();
    fs::create_dir_all(dir).map_err(TrainError::file("make", dir))?;
    let to = dir.join("tokenizer.json");
    fs::copy(tokenizer, &to).map_err(TrainError::file("copy the tokenizer to", &to))?;
    let special = [
        ("bos_token", "<|start|>"),
        ("eos_token", "<|end|>"),
        ("pad_token", "<|pad|>"),
        ("unk_token", "<|unk|>"),
    ];
    let mut map: serde_json::Map<String, Value> =
        special.iter().map(|(key, token)| ((*key).to_string(), json!(token))).collect();
    write_json(&dir.join("special_tokens_map.json"), &Value::Object(map.clone()))?;
    for (key, value) in [
        ("tokenizer_class", json!("PreTrainedTokenizerFast")),
        ("padding_side", json!("left")),
        ("model_max_length", json!(config.max_position_embeddings)),
        ("clean_up_tokenization_spaces", json!(false)),
        ("add_bos_token", json!(false)),
        ("add_eos_token", json!(false)),
        ("chat_template", json!(CHAT_TEMPLATE)),
    ] {
        map.insert(key.into(), value);
    }
    write_json(&dir.join("tokenizer_config.json"), &Value::Object(map))?;
    let eos = match config.eos_token_id.as_slice() {
        [one] => json!(one),
        many => json!(many),
    };
    let generation = json!({
        "bos_token_id": config.bos_token_id,
        "eos_token_id": eos,
        "pad_token_id": config.pad_token_id,
        "use_cache": true,
    });
    write_json(&dir.join("generation_config.json"), &generation)?;
    // The configuration comes last: where it is, the rest is.
    Ok(decoder.write(dir, dtype, SHARD_BYTES)?)
}

pub(crate) fn write_json(path: &Path, value: &Value) -> Result<(), TrainError> {
    let text = serde_json::to_string_pretty(value).unwrap_or_default() + "\n";
    fs::write(path, text).map_err(TrainError::file("write", path))
}
