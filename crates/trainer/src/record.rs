//! A model's record: from its weights to the documents that they were trained on.
//!
//! The stream of rows is a function of the run's settings, so that what every document gave to the model need not have been
//! written down: it is replayed here, up to the row that the checkpoint stands at, and has to come to the counts that the
//! run kept itself.

use crate::{
    config::RunConfig,
    error::TrainError,
    export::{self, Which},
    report::{Line, METRICS},
    setup::{CHECKPOINTS, CONFIG},
    state::{Consumed, Place},
};
use blackletter_corpus::{audit, consumed};
use blackletter_dataset::{Kind, RowStream, TokenStore};
use blackletter_model::MixtralConfig;
use blackletter_provenance::{
    CorpusUse, DOCUMENTS_FILE, DocumentList, Generator, MODEL_RECORD_VERSION, ModelIdentity, ModelRecord,
    RecordKind, SupervisedUse, Training,
};
use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::{Path, PathBuf},
};

/// Steps whose mean loss is recorded.
const LAST_STEPS: usize = 100;

/// What a record says that no file does.
#[derive(Clone, Debug)]
pub struct RecordOptions {
    /// The corpus that the token store was made from.
    pub corpus: PathBuf,
    /// What the model is called; architecture and numbers of parameters are filled in.
    pub identity: ModelIdentity,
    /// The machine, as a person would say it.
    pub hardware: Option<String>,
    /// Commit of the program's source.
    pub commit: Option<String>,
}

/// Tokens of each document and of each example, by their numbers in the store.
#[derive(Default)]
struct Tokens {
    documents: HashMap<u32, u64>,
    examples: HashMap<u32, u64>,
}

/// Writes the list of documents and the record into the model directory `out` that [`export()`](crate::export()) made of the
/// checkpoint `which` of the run in `run`. `note` is told of damaged checkpoints that are passed over.
///
/// # Errors
/// When the corpus is not the one of the token store, the store has changed since the run, or a file cannot be written.
pub fn record(
    run: &Path,
    which: Which,
    out: &Path,
    options: &RecordOptions,
    note: &mut dyn FnMut(String),
) -> Result<ModelRecord, TrainError> {
    let path = run.join(CONFIG);
    let text = fs::read_to_string(&path).map_err(|_| TrainError::NoRun(run.into()))?;
    let config = &RunConfig::parse(&path.display().to_string(), &text, &[])?;
    let geometry = |source| TrainError::Geometry { name: out.display().to_string(), source };
    let model = MixtralConfig::from_dir(out).map_err(geometry)?;
    let stored = export::find(&run.join(CHECKPOINTS), which, note)?;
    let mismatch = |what: String| TrainError::Mismatch(what);
    let failed = |e: &dyn ToString| TrainError::Mismatch(e.to_string());
    let store = TokenStore::open(&config.data.store)?;
    let corpus = audit::record(&options.corpus).map_err(|e| failed(&e))?;
    let state = &stored.state;
    if corpus.root != state.corpus {
        let (found, trained) = (&corpus.root, &state.corpus);
        return Err(mismatch(format!(
            "the corpus has the root {found}, and the run was trained on {trained}"
        )));
    }
    if store.manifest().corpus.root != state.corpus || store.manifest().tokenizer.blake3 != state.tokenizer {
        let store = config.data.store.display();
        return Err(mismatch(format!("the token store {store} is not the one that the run was trained on")));
    }
    let stream = RowStream::new(&store, &config.stream)?;
    let tokens = replay(&store, &stream, state.place, &state.consumed)?;
    // Numbers in the store to names in the corpus.
    let named: HashMap<&str, u64> = store
        .train()
        .iter()
        .zip(0u32..)
        .filter_map(|(entry, number)| Some((entry.id, *tokens.documents.get(&number)?)))
        .collect();
    let of = |part: &str, id: &str| {
        if part == "heldout" { 0 } else { named.get(id).copied().unwrap_or(0) }
    };
    let documents = consumed::of_corpus(&options.corpus, of).map_err(|e| failed(&e))?;
    let (found, seen): (u64, u64) =
        (documents.iter().map(|d| d.tokens).sum(), tokens.documents.values().sum());
    if found != seen {
        return Err(mismatch(format!(
            "the run saw {seen} tokens of documents, and the corpus' documents account for {found}"
        )));
    }
    consumed::write(&out.join(DOCUMENTS_FILE), &documents).map_err(|e| failed(&e))?;
    let mut record = ModelRecord {
        version: MODEL_RECORD_VERSION,
        kind: RecordKind::Model,
        model: ModelIdentity {
            architecture: "MixtralForCausalLM".into(),
            parameters: model.total_parameters(),
            active_parameters: Some(model.active_parameters()),
            ..options.identity.clone()
        },
        generator: Generator { name: "blackletter".into(), version: env!("CARGO_PKG_VERSION").into() },
        tokenizer: state.tokenizer.clone(),
        training: Training {
            recipe: recipe(config)?,
            steps: state.step,
            tokens: state.tokens,
            seconds: Some(state.seconds),
            hardware: options.hardware.clone(),
            final_loss: final_loss(run, state.step),
            commit: options.commit.clone(),
        },
        sources: consumed::sources(&documents),
        supervised: supervised(&store, &tokens),
        accepted: corpus.accepted.clone(),
        documents: DocumentList {
            path: DOCUMENTS_FILE.into(),
            documents: documents.len() as u64,
            consumed: documents.iter().filter(|d| d.tokens > 0).count() as u64,
        },
        corpus: CorpusUse { root: corpus.root.clone(), record: Some(Box::new(corpus)) },
        files: Vec::new(),
        seal: String::new(),
    };
    record.write(out).map_err(|e| failed(&e))?;
    Ok(record)
}

/// Goes through the rows from the first up to `end` and counts; the sums by origin have to be those that the run kept.
fn replay(
    store: &TokenStore,
    stream: &RowStream,
    end: Place,
    kept: &[Consumed],
) -> Result<Tokens, TrainError> {
    let mut tokens = Tokens::default();
    for epoch in 0..=end.epoch {
        let rows = if epoch == end.epoch { end.row } else { stream.rows(epoch) };
        for row in 0..rows {
            let row = stream.row(epoch, row);
            let counts = match row.kind {
                Kind::Ntp => &mut tokens.documents,
                Kind::Sft => &mut tokens.examples,
            };
            for part in &row.parts {
                *counts.entry(part.document).or_default() += u64::from(part.tokens);
            }
        }
    }
    let mut sums: BTreeMap<(&str, &str, &str), u64> = BTreeMap::new();
    for (kind, table, counts) in
        [("ntp", store.train(), &tokens.documents), ("sft", store.sft(), &tokens.examples)]
    {
        for (&number, &count) in counts {
            let Some(entry) = table.get(number as usize) else { continue };
            let key = (kind, store.dataset(entry.dataset), store.license(entry.license));
            *sums.entry(key).or_default() += count;
        }
    }
    for consumed in kept {
        let key = (consumed.kind.as_str(), consumed.dataset.as_str(), consumed.license.as_str());
        let replayed = sums.remove(&key).unwrap_or(0);
        if replayed != consumed.tokens {
            let Consumed { dataset, license, kind, tokens } = consumed;
            return Err(TrainError::Mismatch(format!(
                "the run counted {tokens} tokens of {dataset} under {license} ({kind}), and its rows replayed come to {replayed}: the token store \
                 or the program has changed since"
            )));
        }
    }
    match sums.into_iter().find(|(_, count)| *count > 0) {
        None => Ok(tokens),
        Some(((kind, dataset, license), count)) => Err(TrainError::Mismatch(format!(
            "the rows replayed have {count} tokens of {dataset} under {license} ({kind}), and the run counted none"
        ))),
    }
}

fn supervised(store: &TokenStore, tokens: &Tokens) -> Vec<SupervisedUse> {
    let mut sums: BTreeMap<(&str, &str, &str), (u64, u64)> = BTreeMap::new();
    for (entry, number) in store.sft().iter().zip(0u32..) {
        let Some(count) = tokens.examples.get(&number) else { continue };
        let key = (entry.kind, store.dataset(entry.dataset), store.license(entry.license));
        let sum = sums.entry(key).or_default();
        sum.0 += 1;
        sum.1 += count;
    }
    sums.into_iter()
        .map(|((kind, dataset, license), (examples, tokens))| SupervisedUse {
            kind: kind.into(),
            dataset: dataset.into(),
            license: license.into(),
            examples,
            tokens,
        })
        .collect()
}

/// The run's settings without the places of this machine.
fn recipe(config: &RunConfig) -> Result<serde_json::Value, TrainError> {
    let mut config = config.clone();
    let name = |path: &Path| path.file_name().map(PathBuf::from).unwrap_or_default();
    config.run = name(&config.run);
    config.data.store = name(&config.data.store);
    for path in [&mut config.model.from, &mut config.model.geometry] {
        *path = name(Path::new(&path)).display().to_string();
    }
    serde_json::to_value(&config).map_err(|e| TrainError::Mismatch(e.to_string()))
}

/// Mean cross-entropy of the last steps up to `step`; none where there are no metrics of them.
fn final_loss(run: &Path, step: u64) -> Option<f64> {
    let text = fs::read_to_string(run.join(METRICS)).ok()?;
    let losses: Vec<f64> = text
        .lines()
        .rev()
        .filter_map(|line| match serde_json::from_str(line) {
            Ok(Line::Step(record)) if record.step <= step => Some(record.cross_entropy),
            _ => None,
        })
        .take(LAST_STEPS)
        .collect();
    (!losses.is_empty()).then(|| losses.iter().sum::<f64>() / losses.len() as f64)
}
