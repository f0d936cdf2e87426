//! `manifest.json`: what a token store holds and what it was made from.

use blackletter_provenance::Accepted;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The manifest's name in a store.
pub const FILE_NAME: &str = "manifest.json";
/// Version of the manifest's form.
pub const VERSION: u32 = 1;

/// What a store holds. It has no time and no name of a machine: the same inputs give the same manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`VERSION`].
    pub version: u32,
    /// Version of the program that made it.
    pub generator: String,
    /// The corpus.
    pub corpus: CorpusRef,
    /// The tokenizer, whose file is in the store.
    pub tokenizer: TokenizerRef,
    /// How ids are stored.
    pub width: Width,
    /// Names of datasets; numbers of datasets are places in this list.
    pub datasets: Vec<String>,
    /// Licences; numbers of licences are places in this list.
    pub licenses: Vec<String>,
    /// Documents to train on.
    pub train: SplitRecord,
    /// Documents never to train on.
    pub heldout: SplitRecord,
    /// Supervised examples to train on.
    pub sft: SftRecord,
}

/// The corpus that a store was made from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CorpusRef {
    /// Its name.
    pub name: String,
    /// BLAKE3 root over all its documents, in hexadecimal.
    pub root: String,
    /// Documents in all parts.
    pub documents: u64,
}

/// The tokenizer that a store was made with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenizerRef {
    /// BLAKE3 of `tokenizer.json`, in hexadecimal.
    pub blake3: String,
    /// The highest id, plus one.
    pub vocabulary: u32,
    /// Ids of the special tokens.
    pub special: Special,
}

pub use blackletter_tokenizer::template::Special;

/// How ids are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Width {
    /// 16 bits: vocabularies of up to 65,536.
    U16,
    /// 32 bits.
    U32,
}

/// Documents, bytes and tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Count {
    /// Documents.
    pub documents: u64,
    /// Bytes of text.
    pub bytes: u64,
    /// Tokens of text; `<|start|>` and `<|end|>` are not counted.
    pub tokens: u64,
}

/// Documents of one dataset under one licence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The dataset.
    pub dataset: String,
    /// The licence.
    pub license: String,
    /// How much.
    #[serde(flatten)]
    pub count: Count,
}

/// A part of a store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SplitRecord {
    /// All documents.
    pub total: Count,
    /// By dataset and licence.
    pub origins: Vec<Origin>,
    /// The files, in the order of the documents.
    pub shards: Vec<ShardRecord>,
}

/// A file of a store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShardRecord {
    /// Its place in the store, with `/` between parts.
    pub path: String,
    /// Rows: documents, or examples.
    pub rows: u64,
    /// Tokens in it.
    pub tokens: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// BLAKE3 of the file, in hexadecimal.
    pub blake3: String,
}

/// The supervised examples of a store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SftRecord {
    /// Examples.
    pub examples: u64,
    /// Tokens, special ones included.
    pub tokens: u64,
    /// Tokens of answers, which are what is learned.
    pub answer_tokens: u64,
    /// By kind, dataset and licence.
    pub origins: Vec<SftOrigin>,
    /// Licences accepted by name, with the reason, that examples here depend on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub accepted: Vec<Accepted>,
    /// The files that were read.
    pub inputs: Vec<SftInput>,
    /// The files, in the order of the examples.
    pub shards: Vec<ShardRecord>,
}

impl SftRecord {
    /// Lines that were left out, in sentences.
    pub fn left_out(&self) -> Vec<String> {
        let of = |input: &SftInput| {
            let (lines, name) = (input.lines, input.name.clone());
            let left = input.refused.iter();
            left.map(move |(reason, n)| format!("{n} of {lines} lines of {name} left out: {reason}"))
                .collect::<Vec<_>>()
        };
        self.inputs.iter().flat_map(of).collect()
    }
}

/// Examples of one kind from one dataset under one licence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SftOrigin {
    /// The kind, as the line states it.
    pub kind: String,
    /// The dataset.
    pub dataset: String,
    /// The licence.
    pub license: String,
    /// Examples.
    pub examples: u64,
    /// Tokens, special ones included.
    pub tokens: u64,
}

/// A file of examples that was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SftInput {
    /// Its name, without folders.
    pub name: String,
    /// BLAKE3 of the file, in hexadecimal.
    pub blake3: String,
    /// Lines that are not blank.
    pub lines: u64,
    /// Lines that became examples.
    pub accepted: u64,
    /// Lines that did not, by reason.
    pub refused: BTreeMap<String, u64>,
}
