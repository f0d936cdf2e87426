//! `provenance.json` of a model: from its weights to the documents that it was trained on.
//!
//! The chain has four links, each of which can be computed anew: [`ModelRecord::seal`] covers the record itself;
//! [`ModelRecord::files`] every file beside it, among them the weights and the list of documents; the list of documents
//! ([`DOCUMENTS_FILE`]) has the hash of each document, and these make [`CorpusUse::root`]; and that is the root in the record of
//! the corpus ([`Provenance`]), whose shards hold the texts.

use crate::{
    base::BaseModel,
    derivation::Derivation,
    hash::FileHash,
    record::{Accepted, FILE_NAME, Generator, Provenance},
};
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

/// Version of the form of a model's record.
pub const MODEL_RECORD_VERSION: u32 = 1;
/// The list of documents beside the weights.
pub const DOCUMENTS_FILE: &str = "documents.parquet";
/// Files of a model's directory that its record does not cover: itself, the card that is made from it, and what is made of
/// both later. A signature covers these, too.
pub const UNRECORDED_FILES: [&str; 4] = [FILE_NAME, "README.md", "model.sig", ".gitattributes"];

/// What a model was made from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelRecord {
    /// [`MODEL_RECORD_VERSION`].
    pub version: u32,
    /// Tells it apart from the record of a corpus.
    pub kind: RecordKind,
    /// The model.
    pub model: ModelIdentity,
    /// The program that made it.
    pub generator: Generator,
    /// The corpus that it was trained on.
    pub corpus: CorpusUse,
    /// BLAKE3 of `tokenizer.json`, in hexadecimal.
    pub tokenizer: String,
    /// How it was trained.
    pub training: Training,
    /// The model whose weights the training began with; none when they were random.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub base: Option<Box<BaseModel>>,
    /// What went in: one entry for each different combination of dataset, source, licence and basis.
    pub sources: Vec<SourceUse>,
    /// Examples of tasks that went in beside the documents.
    pub supervised: Vec<SupervisedUse>,
    /// Licences accepted by name, with the reason, that documents here depend on.
    pub accepted: Vec<Accepted>,
    /// The list of documents.
    pub documents: DocumentList,
    /// What was done to it after its training, the first first.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub derivations: Vec<Derivation>,
    /// The files of the model, but for [`UNRECORDED_FILES`].
    pub files: Vec<ModelFile>,
    /// BLAKE3 of this record as JSON with an empty seal, in hexadecimal. It shows a slip; against intent there are signatures.
    pub seal: String,
}

/// The kind of a record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RecordKind {
    /// Of a model.
    #[default]
    Model,
}

/// What a model is called.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelIdentity {
    /// Name.
    pub name: String,
    /// A sentence about it.
    pub description: String,
    /// transformers' class, such as `MixtralForCausalLM`.
    pub architecture: String,
    /// Parameters.
    pub parameters: u64,
    /// Parameters that one token goes through.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub active_parameters: Option<u64>,
    /// Licence of the weights, an SPDX expression.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub license: Option<String>,
    /// Its page.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub url: Option<String>,
    /// Who made it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub creator: Option<String>,
    /// When it was published, `YYYY-MM-DD`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub published: Option<String>,
}

/// The corpus of a model.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CorpusUse {
    /// Root over its documents (see [`crate::hash`]), in hexadecimal.
    pub root: String,
    /// The corpus' own record, where it was at hand.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub record: Option<Box<Provenance>>,
}

/// How a model was trained.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Training {
    /// The settings, as they were run.
    pub recipe: serde_json::Value,
    /// Optimiser steps.
    pub steps: u64,
    /// Tokens of documents that went through the model, each as often as it did.
    pub tokens: u64,
    /// Seconds that it took.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub seconds: Option<f64>,
    /// The machine, as a person would say it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub hardware: Option<String>,
    /// Mean loss of the last steps, in nats per token.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub final_loss: Option<f64>,
    /// Commit of the program's source.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub commit: Option<String>,
    /// How well held-out documents of the corpus are predicted by the weights at the end.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub heldout: Vec<HeldOut>,
    /// All texts that the weights at the end wrote from the run's prompts.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub samples: Vec<SampleText>,
}

/// How well held-out documents of a dataset are predicted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeldOut {
    /// The dataset.
    pub dataset: String,
    /// Nats per token.
    pub loss: f64,
    /// Bits per byte of text.
    pub bits_per_byte: f64,
    /// Tokens that were scored.
    pub tokens: u64,
}

/// A prompt and what a model wrote after it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SampleText {
    /// What was given.
    pub prompt: String,
    /// What came.
    pub text: String,
}

/// Documents of one source under one licence, and how much of them was learnt from.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceUse {
    /// The dataset.
    pub dataset: String,
    /// Where it was collected from, as documents state.
    #[serde(default)]
    pub source: Option<String>,
    /// SPDX expression.
    pub license: String,
    /// Why that licence holds.
    #[serde(default)]
    pub license_basis: Option<String>,
    /// Documents in the corpus.
    pub documents: u64,
    /// Bytes of their text.
    pub text_bytes: u64,
    /// Tokens that went through the model, each as often as it did.
    pub tokens: u64,
}

/// Examples of one kind from one dataset under one licence, and how much of them was learnt from.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SupervisedUse {
    /// The task.
    pub kind: String,
    /// The dataset.
    pub dataset: String,
    /// SPDX expression.
    pub license: String,
    /// Examples.
    pub examples: u64,
    /// Tokens that went through the model, each as often as it did.
    pub tokens: u64,
}

/// The list of documents.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DocumentList {
    /// Its file, [`DOCUMENTS_FILE`].
    pub path: String,
    /// Documents in it.
    pub documents: u64,
    /// The documents of which at least one token went through the model.
    pub consumed: u64,
}

/// A file of a model.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelFile {
    /// Its place below the record's folder, with `/` between parts.
    pub path: String,
    /// Bytes.
    pub bytes: u64,
    /// BLAKE3, in hexadecimal.
    pub blake3: String,
    /// SHA-256, in hexadecimal.
    pub sha256: String,
}

/// A model's record cannot be read or made.
#[derive(Debug, thiserror::Error)]
pub enum ModelRecordError {
    /// There is none.
    #[error("{folder} has no {FILE_NAME}: nothing is recorded of what this model was made from")]
    Missing {
        /// The folder.
        folder: PathBuf,
    },
    /// A file cannot be read or written.
    #[error("cannot {action} {path}: {source}")]
    File {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Not JSON of this form.
    #[error("{FILE_NAME} is no record of a model: {0}")]
    Json(#[from] serde_json::Error),
    /// Of another version.
    #[error("the record has version {found}; this program reads version {MODEL_RECORD_VERSION}")]
    Version {
        /// The record's.
        found: u32,
    },
}

impl ModelRecord {
    /// Reads `provenance.json` of the model in `folder`.
    ///
    /// # Errors
    /// When there is none, or it is none of this version.
    pub fn read(folder: &Path) -> Result<Self, ModelRecordError> {
        let path = folder.join(FILE_NAME);
        match fs::read(&path) {
            Ok(json) => Self::from_json(&json),
            // A folder that is not there is another matter than one without a record.
            Err(e) if e.kind() == io::ErrorKind::NotFound && folder.is_dir() => {
                Err(ModelRecordError::Missing { folder: folder.into() })
            }
            Err(source) => {
                let path = if folder.is_dir() { path } else { folder.into() };
                Err(ModelRecordError::File { action: "read", path, source })
            }
        }
    }

    /// As [`Self::read`]; none where there is none.
    ///
    /// # Errors
    /// When what is there is none of this version, or cannot be read.
    pub fn read_if_there(folder: &Path) -> Result<Option<Self>, ModelRecordError> {
        match Self::read(folder) {
            Err(ModelRecordError::Missing { .. }) => Ok(None),
            record => record.map(Some),
        }
    }

    /// Reads a record.
    ///
    /// # Errors
    /// When it is none, or none of this version.
    pub fn from_json(json: &[u8]) -> Result<Self, ModelRecordError> {
        #[derive(Deserialize)]
        struct Head {
            version: u32,
            #[serde(rename = "kind")]
            _kind: RecordKind,
        }
        let head: Head = serde_json::from_slice(json)?;
        if head.version != MODEL_RECORD_VERSION {
            return Err(ModelRecordError::Version { found: head.version });
        }
        Ok(serde_json::from_slice(json)?)
    }

    /// The record as JSON.
    ///
    /// # Errors
    /// Never in practice: every part can be written.
    pub fn to_json(&self) -> Result<Vec<u8>, ModelRecordError> {
        let mut json = serde_json::to_vec_pretty(self)?;
        json.push(b'\n');
        Ok(json)
    }

    /// The seal that belongs to the record.
    ///
    /// # Errors
    /// As [`Self::to_json`].
    pub fn expected_seal(&self) -> Result<String, ModelRecordError> {
        let open = Self { seal: String::new(), ..self.clone() };
        Ok(crate::hash::hex(&open.to_json()?))
    }

    /// Records the files that now lie in `folder`, seals the record and writes it there. This comes last when a model is
    /// written.
    ///
    /// # Errors
    /// When a file cannot be read or the record not written.
    pub fn write(&mut self, folder: &Path) -> Result<(), ModelRecordError> {
        self.files = model_files(folder)?;
        // Numbers become what a reader gets, so that the seal is the same before and after.
        *self = serde_json::from_slice(&self.to_json()?)?;
        self.seal = self.expected_seal()?;
        let path = folder.join(FILE_NAME);
        fs::write(&path, self.to_json()?).map_err(|source| ModelRecordError::File {
            action: "write",
            path,
            source,
        })
    }
}

/// The files of the model in `folder` by name, those of folders in it too, without hidden ones and [`UNRECORDED_FILES`].
///
/// # Errors
/// When one cannot be read.
pub fn model_files(folder: &Path) -> Result<Vec<ModelFile>, ModelRecordError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| ModelRecordError::File { action: "read", path, source }
    };
    let mut files = Vec::new();
    let mut left = vec![(folder.to_owned(), String::new())];
    while let Some((dir, prefix)) = left.pop() {
        for entry in fs::read_dir(&dir).map_err(failed(&dir))? {
            let entry = entry.map_err(failed(&dir))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let (path, place) = (entry.path(), format!("{prefix}{name}"));
            if name.starts_with('.') || UNRECORDED_FILES.contains(&place.as_str()) {
                continue;
            }
            if path.is_dir() {
                left.push((path, format!("{place}/")));
                continue;
            }
            let hash = File::open(&path).and_then(FileHash::of).map_err(failed(&path))?;
            files.push(ModelFile {
                path: place,
                bytes: hash.bytes,
                blake3: hash.blake3,
                sha256: hash.sha256,
            });
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> ModelRecord {
        ModelRecord {
            version: MODEL_RECORD_VERSION,
            kind: RecordKind::Model,
            model: ModelIdentity { name: "nano".into(), parameters: 7, ..ModelIdentity::default() },
            generator: Generator { name: "blackletter".into(), version: "0".into() },
            corpus: CorpusUse { root: "ab".into(), record: None },
            tokenizer: "cd".into(),
            training: Training {
                recipe: serde_json::json!({ "lr": 0.1 }),
                seconds: Some(0.1 + 0.2),
                ..Training::default()
            },
            sources: vec![SourceUse {
                dataset: "usc".into(),
                license: "CC0-1.0".into(),
                ..SourceUse::default()
            }],
            documents: DocumentList { path: DOCUMENTS_FILE.into(), documents: 3, consumed: 2 },
            ..ModelRecord::default()
        }
    }

    #[test]
    fn a_written_record_reads_back_with_its_seal_and_every_file() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("figures")).unwrap();
        for name in ["model.safetensors", "figures/loss.svg", "README.md", ".hidden"] {
            fs::write(dir.path().join(name), name).unwrap();
        }
        record().write(dir.path()).unwrap();
        let read = ModelRecord::read(dir.path()).unwrap();
        let paths: Vec<&str> = read.files.iter().map(|f| f.path.as_str()).collect();
        assert_eq!(paths, ["figures/loss.svg", "model.safetensors"]);
        assert_eq!(read.seal, read.expected_seal().unwrap());
        let mut changed = read.clone();
        changed.sources[0].license = "MIT".into();
        assert_ne!(changed.seal, changed.expected_seal().unwrap());
    }

    #[test]
    fn what_is_no_model_record_is_refused_with_the_reason() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(ModelRecord::read(dir.path()), Err(ModelRecordError::Missing { .. })));
        let nowhere = ModelRecord::read(&dir.path().join("nowhere")).unwrap_err().to_string();
        assert!(nowhere.starts_with("cannot read ") && nowhere.contains("nowhere: "), "{nowhere}");
        let old = serde_json::json!({ "version": 9, "kind": "model" }).to_string();
        assert!(matches!(
            ModelRecord::from_json(old.as_bytes()),
            Err(ModelRecordError::Version { found: 9 })
        ));
        // The record of a corpus has no kind.
        let corpus = ModelRecord::from_json(b"{\"version\":1}").unwrap_err().to_string();
        assert!(corpus.contains("kind"), "{corpus}");
    }
}
