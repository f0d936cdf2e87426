//! From a configuration to the parts of a run, everything checked before anything is written.

use crate::{
    checkpoint::{self, Stored},
    config::{Change, RunConfig, changes},
    error::TrainError,
    export::MODEL_CONFIG,
    optimizer::{Moments, Optimizer, Pair, Slot},
    own_data,
    record::kept_base,
    state::RunState,
};
use blackletter_corpus::shards::write_whole;
use blackletter_dataset::{RowStream, TokenStore};
use blackletter_model::{
    Checkpoint, MixtralConfig,
    decoder::{Decoder, Parameter, Place, Tensor},
};
use blackletter_provenance::{BaseModel, hash};
use serde_json::Value;
use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Name of the configuration in a run.
pub const CONFIG: &str = "config.toml";
/// Name of the store's manifest in a run.
pub const DATASET: &str = "dataset.json";
/// Name of what a run keeps of the model whose weights it began with.
pub const BASE: &str = "base.json";
/// Name of the file that a process which trains holds locked.
pub const LOCK: &str = ".lock";
/// Name of the folder of checkpoints in a run.
pub const CHECKPOINTS: &str = "checkpoints";

/// What a run learns from and into, before weights are made.
pub struct Plan {
    pub store: TokenStore,
    pub stream: RowStream,
    pub model: MixtralConfig,
    /// The weights to go on from.
    pub from: Option<Checkpoint>,
}

impl Plan {
    /// Opens what the configuration names and checks that it fits together.
    ///
    /// # Errors
    /// When something cannot be opened or does not fit.
    pub fn new(config: &RunConfig) -> Result<Self, TrainError> {
        // A device that is not there is told before anything is written.
        config.device.open()?;
        let store = TokenStore::open(&config.data.store)?;
        let stream = RowStream::new(&store, &config.stream)?;
        let tokenizer = &store.manifest().tokenizer;
        let (vocabulary, special) = (tokenizer.vocabulary as usize, tokenizer.special);
        let context = config.stream.context;
        let (mut model, from) = if config.model.from.is_empty() {
            let mut model = geometry(&config.model.geometry)?;
            model.vocab_size = vocabulary;
            model.max_position_embeddings = context;
            (model, None)
        } else {
            let checkpoint = Checkpoint::open(Path::new(&config.model.from))?;
            let model = checkpoint.config.clone();
            if model.vocab_size < vocabulary {
                return Err(TrainError::Mismatch(format!(
                    "model.from = {:?} has {} tokens, the tokenizer of the token store {vocabulary}: enlarge it with `blackletter surgery resize-vocab`",
                    config.model.from, model.vocab_size
                )));
            }
            if model.max_position_embeddings < context {
                return Err(TrainError::Mismatch(format!(
                    "stream.context = {context} is longer than the context of the model, {}: shorten it, or enlarge the model with `blackletter surgery extend-context`",
                    model.max_position_embeddings
                )));
            }
            (model, Some(checkpoint))
        };
        model.bos_token_id = Some(special.start);
        model.eos_token_id = vec![special.end];
        model.pad_token_id = Some(special.pad);
        if config.loss.load_balancing >= 0.0 {
            model.router_aux_loss_coef = config.loss.load_balancing;
        }
        let name = if config.model.from.is_empty() { &config.model.geometry } else { &config.model.from };
        model.validate().map_err(|source| TrainError::Geometry { name: name.clone(), source })?;
        Ok(Self { store, stream, model, from })
    }
}

/// A geometry from a `config.json`, or a published one by name.
///
/// # Errors
/// When it cannot be read or used.
pub fn geometry(name: &str) -> Result<MixtralConfig, TrainError> {
    if let Some(config) = MixtralConfig::geometry(name) {
        return Ok(config);
    }
    let path = PathBuf::from(name);
    match fs::read(&path) {
        Ok(bytes) => MixtralConfig::from_json(&bytes)
            .map_err(|source| TrainError::Geometry { name: name.into(), source }),
        Err(e) => Err(TrainError::Mismatch(format!(
            "cannot read the geometry {name}: {e} (it is a config.json, or one of {})",
            MixtralConfig::GEOMETRIES.join(", ")
        ))),
    }
}

/// Writes a file that a run which goes on is held against: one that is killed meanwhile must not leave half of one.
///
/// # Errors
/// When it cannot be written.
pub fn whole(path: &Path, bytes: &[u8]) -> Result<(), TrainError> {
    write_whole(path, bytes).map_err(|e| TrainError::file("write", path)(io::Error::other(e)))
}

/// Checks that a run that goes on does so from the model that it was begun from, by the hashes of its files; keeps what is known of that
/// model in a run that begins.
///
/// # Errors
/// When it is another one, or cannot be read or kept.
pub fn keep_base(config: &RunConfig, resume: bool) -> Result<(), TrainError> {
    if config.model.from.is_empty() {
        return Ok(());
    }
    let failed = |e: &dyn std::fmt::Display| TrainError::Record(e.to_string());
    let now = BaseModel::of(Path::new(&config.model.from)).map_err(|e| failed(&e))?;
    match if resume { kept_base(&config.run)? } else { None } {
        Some(then) if then.model.files != now.model.files => {
            let shown = |base: &BaseModel| format!("{:?} ({})", config.model.from, base.model.hashes());
            let (key, then, now) = ("model.from".into(), shown(&then), shown(&now));
            Err(TrainError::Changed { run: config.run.clone(), key, then, now })
        }
        Some(_) => Ok(()),
        None => {
            let json = serde_json::to_vec_pretty(&now).map_err(|e| failed(&e))?;
            let path = config.run.join(BASE);
            whole(&path, &json)
        }
    }
}

/// Refuses to go on with a run as another one: from other data, or into another model. Gives what else has changed, in sentences.
///
/// # Errors
/// Names the first key that is not what it was, with both values.
pub fn check_resumed(config: &RunConfig, store: &TokenStore) -> Result<Vec<String>, TrainError> {
    let path = config.run.join(CONFIG);
    let text = fs::read_to_string(&path).map_err(TrainError::file("read", &path))?;
    let changes = changes(&path.display().to_string(), &text, config)?;
    if let Some(Change { key, then, now }) = changes.refused.into_iter().next() {
        return Err(TrainError::Changed { run: config.run.clone(), key, then, now });
    }
    // The store's own record, which the run has kept: the same store may lie elsewhere by now.
    let (kept, own) = (config.run.join(DATASET), store.folder().join("manifest.json"));
    if let Ok(kept) = fs::read(&kept) {
        let own = fs::read(&own).map_err(TrainError::file("read", &own))?;
        let (then, now) = (contents(&kept), contents(&own));
        if then != now {
            return Err(TrainError::Changed {
                run: config.run.clone(),
                key: "data.store".into(),
                then: format!("a store of other contents (BLAKE3 {then})"),
                now: format!("{:?} (BLAKE3 {now})", config.data.store.display().to_string()),
            });
        }
    }
    let note =
        |Change { key, then, now }| format!("{key} is {now} from now on; the run was begun with {then}");
    Ok(changes.noted.into_iter().map(note).collect())
}

/// BLAKE3 over what of a store's manifest says what is in it: corpus, tokenizer, and the hashes of its files.
fn contents(manifest: &[u8]) -> String {
    let manifest: Value = serde_json::from_slice(manifest).unwrap_or_default();
    let places = ["/corpus/root", "/tokenizer/blake3", "/train/shards", "/heldout/shards", "/sft/shards"];
    let parts: Vec<String> = places
        .iter()
        .map(|place| manifest.pointer(place).map(Value::to_string).unwrap_or_default())
        .collect();
    hash::hex(parts.join("\n").as_bytes())
}

/// All that changes as a run goes on.
pub struct Progress {
    pub state: RunState,
    pub decoder: Decoder,
    pub optimizer: Optimizer,
    /// The averaged weights, in the order of the parameters; empty when they are not wanted.
    pub average: Vec<Tensor<2>>,
    /// Tokens seen of each document to train on, in the order of the store.
    pub documents: Vec<u32>,
}

impl Progress {
    /// Of a run that has done nothing.
    ///
    /// # Errors
    /// When the weights to go on from cannot be read.
    pub fn new(config: &RunConfig, plan: &Plan) -> Result<Self, TrainError> {
        let mut device = config.device.open()?.autodiff();
        // The fused bodies do it by themselves.
        if config.recompute && config.device != Place::Cpu {
            device = device.gradient_checkpointing();
        }
        let decoder = match &plan.from {
            Some(checkpoint) => {
                let mut decoder = Decoder::from_checkpoint(checkpoint, &device)?;
                decoder.set_config(plan.model.clone());
                decoder
            }
            None => Decoder::random(&plan.model, config.model.seed, config.model.deviation as f32, &device),
        };
        let manifest = plan.store.manifest();
        let average = match config.averaging.decay > 0.0 {
            true => decoder.parameters().iter().map(|p| p.tensor.clone().inner()).collect(),
            false => Vec::new(),
        };
        Ok(Self {
            state: RunState::new(&manifest.corpus.root, &manifest.tokenizer.blake3),
            optimizer: Optimizer::new(
                &decoder,
                &config.optimizer,
                &config.adapter,
                config.dtype.compute(),
                config.model.seed,
            ),
            decoder,
            average,
            documents: vec![0; plan.store.train().len()],
        })
    }

    /// Of one that goes on from a checkpoint.
    ///
    /// # Errors
    /// When the checkpoint belongs to another model, optimizer or store.
    pub fn resume(&mut self, mut stored: Stored) -> Result<(), TrainError> {
        for (what, then, now) in [
            ("corpus", &stored.state.corpus, &self.state.corpus),
            ("tokenizer", &stored.state.tokenizer, &self.state.tokenizer),
        ] {
            if then != now {
                return Err(TrainError::Mismatch(format!(
                    "the run was begun with another {what} (hash {then}) than the token store has now ({now}): resume with the same store"
                )));
            }
        }
        let (then, now) = (stored.documents.len(), self.documents.len());
        if then != now {
            return Err(TrainError::Mismatch(format!(
                "the run was begun with {then} documents to train on, the token store has {now} now: resume with the same store"
            )));
        }
        let device = self.decoder.device().without_autodiff();
        let mut take = |kind: &str, key: &str, dims: [usize; 2]| {
            stored.take(&format!("{kind}/{key}"), dims).map(|data| Tensor::<2>::from_data(data, &device))
        };
        let averaged = !self.average.is_empty();
        let mut average = Vec::new();
        for (parameter, slot) in self.decoder.parameters_mut().into_iter().zip(&mut self.optimizer.slots) {
            let (key, dims) = (key(&parameter.names), parameter.tensor.dims());
            *parameter.tensor = take("weight", &key, dims)?.autodiff().require_grad();
            match slot {
                Slot::AdamW(Moments { mean, square }) => {
                    (*mean, *square) = (take("mean", &key, dims)?, take("square", &key, dims)?);
                }
                Slot::Muon { momentum } => *momentum = take("momentum", &key, dims)?,
                Slot::LowRank(pair) => {
                    let Pair { a, b, moments: [of_a, of_b], .. } = &mut **pair;
                    for (half, tensor, state) in [("a", a, of_a), ("b", b, of_b)] {
                        let dims = tensor.dims();
                        *tensor = take(&format!("adapter_{half}"), &key, dims)?;
                        state.mean = take(&format!("mean_{half}"), &key, dims)?;
                        state.square = take(&format!("square_{half}"), &key, dims)?;
                    }
                }
                Slot::Frozen => {}
            }
            if averaged {
                average.push(take("average", &key, dims)?);
            }
        }
        self.average = average;
        self.documents = stored.documents;
        self.state = stored.state;
        Ok(())
    }

    /// Writes a checkpoint into a run.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn save(&self, run: &Path) -> Result<PathBuf, checkpoint::CheckpointError> {
        let parameters = self.decoder.parameters();
        let mut tensors: Vec<checkpoint::Named<'_>> = Vec::new();
        for (i, (Parameter { names, tensor, .. }, slot)) in
            parameters.iter().zip(&self.optimizer.slots).enumerate()
        {
            let key = key(names);
            tensors.push((format!("weight/{key}"), tensor));
            match slot {
                Slot::AdamW(Moments { mean, square }) => {
                    tensors.extend([(format!("mean/{key}"), mean), (format!("square/{key}"), square)]);
                }
                Slot::Muon { momentum } => tensors.push((format!("momentum/{key}"), momentum)),
                Slot::LowRank(pair) => {
                    for (half, tensor, state) in
                        [("a", &pair.a, &pair.moments[0]), ("b", &pair.b, &pair.moments[1])]
                    {
                        tensors.push((format!("adapter_{half}/{key}"), tensor));
                        tensors.push((format!("mean_{half}/{key}"), &state.mean));
                        tensors.push((format!("square_{half}/{key}"), &state.square));
                    }
                }
                Slot::Frozen => {}
            }
            if let Some(average) = self.average.get(i) {
                tensors.push((format!("average/{key}"), average));
            }
        }
        checkpoint::write(&run.join(CHECKPOINTS), &self.state, &tensors, &self.documents)
    }
}

/// What a parameter is called in a run's checkpoints: its name in a model, without an expert's number.
pub fn key(names: &[String]) -> String {
    names.first().map(|name| name.replace(".experts.0.", ".experts.")).unwrap_or_default()
}

/// Makes the run's directory ready.
///
/// # Errors
/// When it holds something that this run is not.
pub fn prepare_directory(config: &RunConfig, resume: bool) -> Result<(), TrainError> {
    let dir = &config.run;
    let holds_run = dir.join(CONFIG).is_file();
    if holds_run && !resume {
        return Err(TrainError::Exists(dir.clone()));
    }
    if resume && !holds_run {
        return Err(TrainError::NoRun(dir.clone()));
    }
    // What a run that was not begun has left: its configuration comes last.
    let before = [own_data::FOLDER, LOCK, BASE, DATASET, MODEL_CONFIG, "tokenizer.json"];
    let other = |name: &std::ffi::OsStr| !before.iter().any(|file| name == *file);
    if !holds_run
        && fs::read_dir(dir).is_ok_and(|entries| entries.flatten().any(|entry| other(&entry.file_name())))
    {
        return Err(TrainError::Occupied(dir.clone()));
    }
    Ok(())
}
