//! `provenance.json`: the record of a corpus.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The record's name beside the shards.
pub const FILE_NAME: &str = "provenance.json";
/// Version of the record's form.
pub const VERSION: u32 = 1;

/// What a corpus was made from.
///
/// Everything in it follows from the sources, the settings and the program: it holds no time and no name of a machine, so
/// that the same corpus has the same record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provenance {
    /// [`VERSION`].
    pub version: u32,
    /// The corpus.
    pub dataset: Dataset,
    /// The program that made it.
    pub generator: Generator,
    /// Documents.
    pub documents: u64,
    /// Bytes of text.
    pub text_bytes: u64,
    /// BLAKE3 root over all documents (see [`crate::hash`]), in hexadecimal.
    pub root: String,
    /// The corpus' parts: `train`, `heldout`, or `all` where it is not split.
    pub parts: BTreeMap<String, Part>,
    /// Where the documents are from, and by what right: one entry for each different combination.
    pub sources: Vec<SourceRecord>,
    /// Licences accepted by name, with the reason, that documents here depend on.
    pub accepted: Vec<Accepted>,
    /// What the licence gate refused.
    pub refused: Vec<Refused>,
    /// The files that were read.
    pub inputs: Vec<InputFile>,
    /// Files of evaluation texts that the corpus was freed from.
    pub evaluations: Vec<Evaluation>,
    /// The settings of every step, as they were run.
    pub settings: serde_json::Value,
    /// The files of documents.
    pub shards: Vec<Shard>,
}

/// What a corpus is called.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dataset {
    /// Name.
    pub name: String,
    /// A sentence about it.
    pub description: String,
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

/// A program.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Generator {
    /// Name.
    pub name: String,
    /// Version.
    pub version: String,
}

/// A part of a corpus.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// Documents.
    pub documents: u64,
    /// Bytes of text.
    pub text_bytes: u64,
    /// BLAKE3 root over its documents, in hexadecimal.
    pub root: String,
}

/// Documents of one source under one licence.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceRecord {
    /// The dataset.
    pub dataset: String,
    /// Where it was collected from, as documents state.
    pub source: Option<String>,
    /// SPDX expression.
    pub license: String,
    /// The basis.
    pub license_basis: Option<String>,
    /// Documents.
    pub documents: u64,
    /// Bytes of text.
    pub text_bytes: u64,
}

/// A licence that was accepted by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Accepted {
    /// The reference.
    pub license: String,
    /// Why text under it may be used.
    pub reason: String,
    /// Documents here that depend on it.
    pub documents: u64,
}

/// Documents that the gate refused for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refused {
    /// The dataset.
    pub dataset: String,
    /// Why.
    pub reason: String,
    /// How many.
    pub documents: u64,
    /// The first of them.
    pub examples: Vec<String>,
}

/// A file that was read.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputFile {
    /// Its name, relative to the source it belongs to.
    pub name: String,
    /// Bytes.
    pub bytes: u64,
    /// BLAKE3, in hexadecimal.
    pub blake3: String,
}

/// A file of evaluation texts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evaluation {
    /// Its name.
    pub name: String,
    /// BLAKE3, in hexadecimal.
    pub blake3: String,
}

/// A file of documents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shard {
    /// Its place below the record's folder, with `/` between parts.
    pub path: String,
    /// The part it belongs to.
    pub part: String,
    /// Documents.
    pub documents: u64,
    /// Bytes of text.
    pub text_bytes: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// BLAKE3 of the file, in hexadecimal.
    pub blake3: String,
    /// SHA-256 of the file, in hexadecimal.
    pub sha256: String,
}

/// A record that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// Not JSON of this form.
    #[error("not a provenance record: {0}")]
    Json(#[from] serde_json::Error),
    /// Of another version.
    #[error("the record has version {found}; this program reads version {VERSION}")]
    Version {
        /// The record's.
        found: u32,
    },
}

impl Provenance {
    /// Reads the record.
    ///
    /// # Errors
    /// When it is no record, or one of another version.
    pub fn from_json(json: &[u8]) -> Result<Self, RecordError> {
        #[derive(Deserialize)]
        struct Head {
            version: u32,
        }
        let head: Head = serde_json::from_slice(json)?;
        if head.version != VERSION {
            return Err(RecordError::Version { found: head.version });
        }
        Ok(serde_json::from_slice(json)?)
    }

    /// Writes the record.
    ///
    /// # Errors
    /// Never in practice: every part can be written.
    pub fn to_json(&self) -> Result<Vec<u8>, RecordError> {
        let mut json = serde_json::to_vec_pretty(self)?;
        json.push(b'\n');
        Ok(json)
    }
}
