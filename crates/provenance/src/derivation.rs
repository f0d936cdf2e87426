//! Models that are made from models: their record goes on where that of their base ends.
//!
//! A [`Lineage`] is read before anything is written ([`Lineage::of`]): the inputs' hashes and records. When the new model's files
//! lie in place, [`Lineage::write`] writes its record: that of the base, with one more [`Derivation`].

use crate::{
    DOCUMENTS_FILE, FILE_NAME, ModelFile, ModelRecord, ModelRecordError, hash::FileHash, record::Generator,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

/// What an adapter says of what it learned from: the manifest of the token store.
const ADAPTER_DATA: &str = "dataset.json";

/// A step that made a model from others after their training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Derivation {
    /// What was done, such as `merge`.
    pub operation: String,
    /// With which settings.
    #[serde(skip_serializing_if = "Value::is_null", default)]
    pub settings: Value,
    /// By which program.
    pub generator: Generator,
    /// From what.
    pub inputs: Vec<DerivedFrom>,
}

/// A model or adapter that another model was made from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DerivedFrom {
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: InputKind,
    /// The seal of its own record, if it had one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub seal: Option<String>,
    /// Configuration and weights.
    pub files: Vec<ModelFile>,
    /// Of an adapter: corpus, documents and examples that it learned from, by dataset and licence, as its run has recorded them.
    #[serde(skip_serializing_if = "Value::is_null", default)]
    pub data: Value,
}

/// What a model was made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InputKind {
    /// A model.
    Model,
    /// A low-rank adapter.
    Adapter,
}

impl DerivedFrom {
    /// The model in `folder`, which has this record.
    pub(crate) fn of(folder: &Path, record: Option<&ModelRecord>) -> Result<Self, ModelRecordError> {
        Ok(Self {
            name: folder_name(folder),
            kind: InputKind::Model,
            seal: record.map(|record| record.seal.clone()),
            files: weights(folder)?,
            data: Value::Null,
        })
    }

    /// Its files with their hashes, for people.
    pub fn hashes(&self) -> String {
        let one = |f: &ModelFile| format!("{} {}…", f.path, f.blake3.get(..16).unwrap_or(&f.blake3));
        self.files.iter().map(one).collect::<Vec<_>>().join(", ")
    }

    /// What it is, with the hash of its weights, and what is not known of it.
    pub(crate) fn sentence(&self) -> String {
        let weights = self.files.iter().find(|f| f.path.ends_with(".safetensors"));
        let hash = weights.map(|f| format!(" (BLAKE3 {}…)", f.blake3.get(..16).unwrap_or(&f.blake3)));
        let unknown = match self.kind {
            InputKind::Model if self.seal.is_none() => ", which has no record of what it was made from",
            InputKind::Adapter if self.data.is_null() => ", which has no record of what it learned from",
            _ => "",
        };
        let kind = if self.kind == InputKind::Model { "" } else { "the adapter " };
        format!("{kind}{}{}{unknown}", self.name, hash.unwrap_or_default())
    }
}

impl Derivation {
    /// The step in a sentence, with what is not known of its inputs.
    pub fn sentence(&self) -> String {
        let inputs: Vec<String> = self.inputs.iter().map(DerivedFrom::sentence).collect();
        let settings = match &self.settings {
            Value::Object(map) if !map.is_empty() => {
                let all: Vec<String> = map.iter().map(|(key, value)| format!("{key} {value}")).collect();
                format!(" ({})", all.join(", "))
            }
            _ => String::new(),
        };
        format!("{}{settings} of {}", self.operation, inputs.join(", "))
    }
}

/// What came of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Carried {
    /// It was written.
    Written,
    /// There is none: this model has none either.
    NoRecord(String),
    /// There is none: the models were trained on different corpora.
    OtherCorpora([String; 2]),
}

impl Carried {
    /// Why there is no record, for people.
    pub fn note(&self) -> Option<String> {
        match self {
            Self::Written => None,
            Self::NoRecord(name) => Some(format!(
                "{name} has no {FILE_NAME}, so that nothing is recorded of what this model was made from"
            )),
            Self::OtherCorpora([one, other]) => Some(format!(
                "the models were trained on different corpora (roots {one} and {other}): there is no record for both, and none is written"
            )),
        }
    }
}

/// What a model is to be made from.
#[derive(Clone, Debug)]
pub struct Lineage {
    inputs: Vec<DerivedFrom>,
    /// The record of the model that was trained longest, and its list of documents.
    base: Result<(Box<ModelRecord>, PathBuf), Carried>,
}

/// What is new about a model that was made from others.
#[derive(Clone, Debug)]
pub struct Made<'m> {
    /// What was done.
    pub operation: &'m str,
    /// With which settings; may be null.
    pub settings: Value,
    /// The new model's name; that of its base stays where there is none.
    pub name: Option<String>,
    /// A sentence that is put behind the base's description.
    pub description: &'m str,
    /// Parameters, and those that one token goes through.
    pub parameters: (u64, u64),
}

impl Lineage {
    /// Reads the records of models, and hashes them and the adapter.
    ///
    /// # Errors
    /// When a file cannot be read or a record is none.
    pub fn of<P: AsRef<Path>>(models: &[P], adapter: Option<&Path>) -> Result<Self, ModelRecordError> {
        let mut inputs = Vec::new();
        let mut base: Option<Result<(Box<ModelRecord>, PathBuf), Carried>> = None;
        for folder in models.iter().map(AsRef::as_ref) {
            let record = ModelRecord::read_if_there(folder)?;
            inputs.push(DerivedFrom::of(folder, record.as_ref())?);
            base = Some(match (base, record) {
                (Some(Err(why)), _) => Err(why),
                (_, None) => Err(Carried::NoRecord(folder_name(folder))),
                (None, Some(record)) => Ok((Box::new(record), folder.to_owned())),
                (Some(Ok((first, _))), Some(record)) if first.corpus.root != record.corpus.root => {
                    Err(Carried::OtherCorpora([first.corpus.root.clone(), record.corpus.root]))
                }
                (Some(Ok(first)), Some(record)) if record.training.tokens <= first.0.training.tokens => {
                    Ok(first)
                }
                (_, Some(record)) => Ok((Box::new(record), folder.to_owned())),
            });
        }
        if let Some(folder) = adapter {
            inputs.push(DerivedFrom {
                name: folder_name(folder),
                kind: InputKind::Adapter,
                seal: None,
                files: weights(folder)?,
                data: adapter_data(folder)?,
            });
        }
        Ok(Self { inputs, base: base.unwrap_or_else(|| Err(Carried::NoRecord("nothing".into()))) })
    }

    /// Writes the list of documents and the record of the model in `out`, whose other files are all written.
    ///
    /// # Errors
    /// When a file cannot be read or written.
    pub fn write(self, made: Made<'_>, out: &Path) -> Result<Carried, ModelRecordError> {
        let failed = |action: &'static str, path: PathBuf| {
            move |source| ModelRecordError::File { action, path, source }
        };
        let (mut record, folder) = match self.base {
            Ok((record, folder)) => (*record, folder),
            Err(why) => {
                // One from before would speak of another model.
                let stale = out.join(FILE_NAME);
                return match fs::remove_file(&stale) {
                    Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(failed("remove", stale)(e)),
                    _ => Ok(why),
                };
            }
        };
        let (from, to) = (folder.join(DOCUMENTS_FILE), out.join(DOCUMENTS_FILE));
        let same = from.canonicalize().is_ok_and(|from| to.canonicalize().is_ok_and(|to| to == from));
        if from.is_file() && !same {
            fs::copy(&from, &to).map_err(failed("copy the list of documents to", to))?;
        }
        if let Some(name) = made.name {
            (record.model.name, record.model.url, record.model.published) = (name, None, None);
        }
        record.model.description = format!("{} {}", record.model.description, made.description).trim().into();
        record.model.parameters = made.parameters.0;
        record.model.active_parameters = Some(made.parameters.1);
        // These were measured with other weights; the record whose seal the step names has them.
        record.training.heldout.clear();
        record.training.samples.clear();
        let generator = Generator { name: "blackletter".into(), version: env!("CARGO_PKG_VERSION").into() };
        record.derivations.push(Derivation {
            operation: made.operation.into(),
            settings: made.settings,
            generator,
            inputs: self.inputs,
        });
        record.write(out)?;
        Ok(Carried::Written)
    }
}

/// The name of the model in a folder; of a snapshot in the cache of the Hub (`models--OWNER--NAME/snapshots/COMMIT`) that of the repository, with the
/// commit.
pub fn folder_name(folder: &Path) -> String {
    let whole = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    let mut parts = whole.iter().rev().map(|part| part.to_string_lossy());
    let (last, above, repository) = (parts.next(), parts.next(), parts.next());
    let repository = repository.as_deref().and_then(|name| name.strip_prefix("models--"));
    match (last, repository) {
        (Some(commit), Some(repository)) if above.as_deref() == Some("snapshots") => {
            format!("{}@{commit}", repository.replace("--", "/"))
        }
        (Some(last), _) if last != "/" => last.into_owned(),
        _ => folder.display().to_string(),
    }
}

/// Configuration and weights in a folder, with their hashes.
fn weights(folder: &Path) -> Result<Vec<ModelFile>, ModelRecordError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| ModelRecordError::File { action: "read", path, source }
    };
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed(folder))? {
        let entry = entry.map_err(failed(folder))?;
        let path = entry.file_name().to_string_lossy().into_owned();
        if path.ends_with(".safetensors") || path == "config.json" || path == "adapter_config.json" {
            let hash = File::open(entry.path()).and_then(FileHash::of).map_err(failed(&entry.path()))?;
            files.push(ModelFile { path, bytes: hash.bytes, blake3: hash.blake3, sha256: hash.sha256 });
        }
    }
    files.sort();
    Ok(files)
}

/// What of the manifest beside an adapter tells its data.
fn adapter_data(folder: &Path) -> Result<Value, ModelRecordError> {
    let Ok(bytes) = fs::read(folder.join(ADAPTER_DATA)) else { return Ok(Value::Null) };
    let manifest: Value = serde_json::from_slice(&bytes)?;
    Ok(json!({
        "corpus": manifest["corpus"],
        "documents": manifest["train"]["origins"],
        "examples": manifest["sft"]["origins"],
        "inputs": manifest["sft"]["inputs"],
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CorpusUse, DocumentList, MODEL_RECORD_VERSION, ModelIdentity, RecordKind, Training};
    use tempfile::TempDir;

    fn model(root: Option<&str>, tokens: u64) -> TempDir {
        let dir = TempDir::new().unwrap();
        for file in ["config.json", "model.safetensors", DOCUMENTS_FILE] {
            fs::write(dir.path().join(file), format!("{file} {tokens}")).unwrap();
        }
        if let Some(root) = root {
            ModelRecord {
                version: MODEL_RECORD_VERSION,
                kind: RecordKind::Model,
                model: ModelIdentity {
                    name: "base".into(),
                    description: "One.".into(),
                    ..ModelIdentity::default()
                },
                generator: Generator { name: "blackletter".into(), version: "0".into() },
                corpus: CorpusUse { root: root.into(), record: None },
                tokenizer: "cd".into(),
                training: Training { tokens, ..Training::default() },
                documents: DocumentList { path: DOCUMENTS_FILE.into(), documents: 3, consumed: 2 },
                ..ModelRecord::default()
            }
            .write(dir.path())
            .unwrap();
        }
        dir
    }

    fn made(operation: &str) -> Made<'_> {
        let settings = json!({ "layers": 2 });
        Made { operation, settings, name: Some("new".into()), description: "Two.", parameters: (7, 5) }
    }

    fn written(out: &Path) {
        fs::write(out.join("model.safetensors"), "new").unwrap();
    }

    #[test]
    fn a_record_goes_on_with_what_was_done_to_which_files() {
        let (base, out) = (model(Some("ab"), 5), TempDir::new().unwrap());
        let lineage = Lineage::of(&[base.path()], None).unwrap();
        written(out.path());
        assert_eq!(lineage.write(made("add-layers"), out.path()).unwrap(), Carried::Written);
        let before = ModelRecord::read(base.path()).unwrap();
        let record = ModelRecord::read(out.path()).unwrap();
        assert_eq!(record.seal, record.expected_seal().unwrap());
        assert_eq!((record.model.name.as_str(), record.model.description.as_str()), ("new", "One. Two."));
        assert_eq!((record.model.parameters, record.corpus.root.as_str()), (7, "ab"));
        let step = &record.derivations[0];
        assert_eq!(
            (step.operation.as_str(), step.inputs[0].seal.as_ref()),
            ("add-layers", Some(&before.seal))
        );
        let weights = before.files.iter().find(|f| f.path == "model.safetensors").unwrap();
        assert!(step.inputs[0].files.contains(weights), "{step:?}");
        let paths: Vec<&str> = record.files.iter().map(|f| f.path.as_str()).collect();
        assert_eq!(paths, [DOCUMENTS_FILE, "model.safetensors"]);
        assert!(step.sentence().starts_with("add-layers (layers 2) of "), "{}", step.sentence());
        // And on from there.
        let again = TempDir::new().unwrap();
        written(again.path());
        Lineage::of(&[out.path()], None).unwrap().write(made("quantize"), again.path()).unwrap();
        let steps = ModelRecord::read(again.path()).unwrap().derivations;
        assert_eq!(
            steps.iter().map(|s| s.operation.as_str()).collect::<Vec<_>>(),
            ["add-layers", "quantize"]
        );
    }

    #[test]
    fn an_average_has_the_record_of_the_longest_training_and_none_for_different_corpora() {
        let (early, late, other, none) =
            (model(Some("ab"), 5), model(Some("ab"), 9), model(Some("cd"), 9), model(None, 1));
        let of = |models: &[&TempDir]| {
            let out = TempDir::new().unwrap();
            fs::write(out.path().join(FILE_NAME), "stale").unwrap();
            let paths: Vec<&Path> = models.iter().map(|m| m.path()).collect();
            let carried = Lineage::of(&paths, None).unwrap().write(made("average"), out.path()).unwrap();
            (carried, ModelRecord::read(out.path()).ok())
        };
        let (carried, record) = of(&[&early, &late, &early]);
        let record = record.unwrap();
        assert_eq!(
            (carried, record.training.tokens, record.derivations[0].inputs.len()),
            (Carried::Written, 9, 3)
        );
        assert_eq!(of(&[&early, &other]), (Carried::OtherCorpora(["ab".into(), "cd".into()]), None));
        let (carried, record) = of(&[&early, &none]);
        assert!(matches!(carried, Carried::NoRecord(_)) && record.is_none());
    }

    #[test]
    fn models_of_the_hub_are_called_by_repository_and_commit() {
        let cache = TempDir::new().unwrap();
        let snapshot = cache.path().join("models--alea-institute--kl3m-002-520m/snapshots/0123abcd");
        fs::create_dir_all(&snapshot).unwrap();
        assert_eq!(folder_name(&snapshot), "alea-institute/kl3m-002-520m@0123abcd");
        let plain = cache.path().join("snapshots/mine");
        fs::create_dir_all(&plain).unwrap();
        assert_eq!(folder_name(&plain), "mine");
    }

    #[test]
    fn an_adapter_tells_its_data_or_that_it_cannot() {
        let (base, adapter) = (model(Some("ab"), 5), TempDir::new().unwrap());
        fs::write(adapter.path().join("adapter_model.safetensors"), "x").unwrap();
        let step = |out: &TempDir| {
            Lineage::of(&[base.path()], Some(adapter.path()))
                .unwrap()
                .write(made("merge"), out.path())
                .unwrap();
            ModelRecord::read(out.path()).unwrap().derivations.remove(0)
        };
        let silent = step(&TempDir::new().unwrap());
        assert!(silent.sentence().contains("no record of what it learned from"), "{}", silent.sentence());
        let manifest =
            json!({ "corpus": { "root": "ef" }, "train": { "origins": [{ "license": "CC0-1.0" }] } });
        fs::write(adapter.path().join(ADAPTER_DATA), manifest.to_string()).unwrap();
        let told = step(&TempDir::new().unwrap());
        assert_eq!(told.inputs[1].data["documents"][0]["license"], "CC0-1.0");
        assert!(!told.sentence().contains("no record"), "{}", told.sentence());
    }
}
