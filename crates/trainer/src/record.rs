//! From a run and its corpus to the record of a model: `documents.parquet` and `provenance.json`.

use crate::{
    config::RunConfig,
    error::TrainError,
    evaluate::Score,
    report::{self, Line},
    samples::{self, Sample},
    setup::BASE,
    state::RunState,
};
use blackletter_corpus::{audit, consumed, steps::HELD_OUT};
use blackletter_dataset::{Manifest, TokenStore, manifest::SftRecord};
use blackletter_model::{MixtralConfig, decoder::Place};
use blackletter_provenance::{
    Accepted, BaseModel, CorpusUse, DOCUMENTS_FILE, DocumentList, Generator, HeldOut, MODEL_RECORD_VERSION,
    ModelIdentity, ModelRecord, RecordKind, SampleText, SupervisedUse, Training, folder_name,
};
use std::{
    collections::{HashMap, VecDeque},
    fs,
    path::{Path, PathBuf},
};

/// Steps whose mean loss is the final loss.
const LAST: usize = 50;

/// What only a person knows of a model.
#[derive(Clone, Debug, Default)]
pub struct Identity {
    /// Name; empty is that of the directory.
    pub name: String,
    /// A sentence about it.
    pub description: String,
    /// Licence of the weights, an SPDX expression.
    pub license: Option<String>,
}

/// What a record is made from.
pub(crate) struct Material<'m> {
    pub run: &'m Path,
    pub config: &'m RunConfig,
    pub model: &'m MixtralConfig,
    pub state: &'m RunState,
    /// Tokens seen of each document to train on, in the order of the store.
    pub documents: &'m [u32],
    pub corpus: &'m Path,
    pub identity: &'m Identity,
    /// Which weights these are, as `metrics.jsonl` calls them: `weights` or `average`.
    pub evaluated: &'m str,
}

/// Writes the list of documents and the record into `out`, whose other files are all written.
///
/// # Errors
/// When the corpus or the token store is not the one of the run, or cannot be read.
pub(crate) fn write(material: &Material<'_>, out: &Path) -> Result<(), TrainError> {
    let Material { run, config, model, state, documents, corpus, identity, evaluated } = *material;
    let failed = |e: &dyn std::fmt::Display| TrainError::Record(e.to_string());
    let record = audit::record(corpus).map_err(|e| failed(&e))?;
    if record.root != state.corpus {
        return Err(TrainError::Mismatch(format!(
            "the corpus in {} has root {}, the run was trained on {}: name that one",
            corpus.display(),
            record.root,
            state.corpus
        )));
    }
    let store = TokenStore::open(&config.data.store)?;
    // Several documents may have one id; store and corpus have them in the same order.
    let mut tokens: HashMap<&str, VecDeque<u64>> = HashMap::new();
    for (entry, &seen) in store.train().iter().zip(documents) {
        tokens.entry(entry.id).or_default().push_back(u64::from(seen));
    }
    let mut seen_of = |part: &str, id: &str| {
        let learned = if part == HELD_OUT { None } else { tokens.get_mut(id).and_then(VecDeque::pop_front) };
        learned.unwrap_or(0)
    };
    let list = consumed::of_corpus(corpus, &mut seen_of).map_err(|e| failed(&e))?;
    consumed::write(&out.join(DOCUMENTS_FILE), &list).map_err(|e| failed(&e))?;
    let (mut losses, mut heldout) = (Vec::new(), Vec::new());
    for line in report::read(run)? {
        match line {
            Line::Step(r) if r.step <= state.step => losses.push(r.cross_entropy),
            Line::Evaluation { step, of, scores } if step == state.step && of == evaluated => {
                heldout = scores.datasets.into_iter().map(held_out).collect();
            }
            _ => {}
        }
    }
    let last = losses.get(losses.len().saturating_sub(LAST)..).unwrap_or_default();
    let name = out.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let seen = list.iter().filter(|d| d.tokens > 0).count() as u64;
    let mut made = ModelRecord {
        version: MODEL_RECORD_VERSION,
        kind: RecordKind::Model,
        model: ModelIdentity {
            name: if identity.name.is_empty() { name } else { identity.name.clone() },
            description: identity.description.clone(),
            architecture: "MixtralForCausalLM".into(),
            parameters: model.total_parameters(),
            active_parameters: Some(model.active_parameters()),
            license: identity.license.clone(),
            ..ModelIdentity::default()
        },
        generator: Generator { name: "blackletter".into(), version: env!("CARGO_PKG_VERSION").into() },
        corpus: CorpusUse { root: state.corpus.clone(), record: Some(Box::new(record.clone())) },
        tokenizer: state.tokenizer.clone(),
        training: Training {
            recipe: recipe(config),
            steps: state.step,
            tokens: list.iter().map(|d| d.tokens).sum(),
            seconds: Some(state.seconds),
            hardware: Some(hardware(config.device)),
            final_loss: (!last.is_empty()).then(|| last.iter().sum::<f64>() / last.len() as f64),
            commit: option_env!("BLACKLETTER_COMMIT").map(str::to_owned),
            heldout,
            samples: samples::of_step(run, state.step)
                .into_iter()
                .map(|Sample { prompt, text }| SampleText { prompt, text })
                .collect(),
        },
        base: base(run, config)?,
        sources: consumed::sources(&list),
        supervised: supervised(state, store.manifest()),
        accepted: accepted(record.accepted, &store.manifest().sft),
        documents: DocumentList { path: DOCUMENTS_FILE.into(), documents: list.len() as u64, consumed: seen },
        derivations: vec![],
        files: vec![],
        seal: String::new(),
    };
    made.write(out).map_err(|e| failed(&e))
}

/// The model whose weights the run began with, as the run has kept it; of one that was begun by a program that kept nothing, as it is now.
fn base(run: &Path, config: &RunConfig) -> Result<Option<Box<BaseModel>>, TrainError> {
    if config.model.from.is_empty() {
        return Ok(None);
    }
    let kept = kept_base(run)?;
    let folder = Path::new(&config.model.from);
    let base = kept.unwrap_or_else(|| BaseModel::of(folder).unwrap_or_else(|_| BaseModel::named(folder)));
    Ok(Some(Box::new(base)))
}

/// What a run has kept of the model whose weights it began with.
///
/// # Errors
/// When it cannot be read.
pub(crate) fn kept_base(run: &Path) -> Result<Option<BaseModel>, TrainError> {
    let path = run.join(BASE);
    match fs::read(&path) {
        Ok(json) => serde_json::from_slice(&json)
            .map(Some)
            .map_err(|e| TrainError::Record(format!("{} cannot be read: {e}", path.display()))),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(TrainError::file("read", &path)(e)),
    }
}

fn held_out((dataset, score): (String, Score)) -> HeldOut {
    let Score { loss, bits_per_byte, tokens, .. } = score;
    HeldOut { dataset, loss, bits_per_byte, tokens }
}

/// The configuration with names in place of where things lie on this machine.
fn recipe(config: &RunConfig) -> serde_json::Value {
    let name = |path: &Path| path.file_name().map_or_else(PathBuf::new, PathBuf::from);
    let text = |path: &str| if path.is_empty() { String::new() } else { folder_name(Path::new(path)) };
    let mut config = config.clone();
    (config.run, config.data.store) = (name(&config.run), name(&config.data.store));
    (config.model.from, config.model.geometry) = (text(&config.model.from), text(&config.model.geometry));
    serde_json::to_value(config).unwrap_or_default()
}

/// Supervised examples of the store, with the tokens that were seen of each kind.
fn supervised(state: &RunState, manifest: &Manifest) -> Vec<SupervisedUse> {
    state
        .consumed
        .iter()
        .filter(|c| !c.task.is_empty())
        .map(|c| {
            let origin = manifest
                .sft
                .origins
                .iter()
                .find(|o| o.kind == c.task && o.dataset == c.dataset && o.license == c.license);
            SupervisedUse {
                kind: c.task.clone(),
                dataset: c.dataset.clone(),
                license: c.license.clone(),
                examples: origin.map_or(0, |o| o.examples),
                tokens: c.tokens,
            }
        })
        .collect()
}

/// Licences accepted by name, for documents and for examples.
fn accepted(mut of_corpus: Vec<Accepted>, examples: &SftRecord) -> Vec<Accepted> {
    for one in &examples.accepted {
        match of_corpus.iter_mut().find(|there| there.license == one.license) {
            Some(there) => there.documents += one.documents,
            None => of_corpus.push(one.clone()),
        }
    }
    of_corpus
}

/// The processor's own name and the number of cores, and through what a GPU computed.
fn hardware(device: Place) -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    let name = name.map_or(std::env::consts::ARCH, |(_, name)| name.trim());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let gpu = if device == Place::Cpu { String::new() } else { format!(", a GPU through {device}") };
    format!("{name}, {cores} threads{gpu}")
}
