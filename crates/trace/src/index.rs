//! An index in its directory.

use crate::{
    TraceError,
    files::{Array, Bytes},
};
use blackletter_provenance::hash;
use blackletter_tokenizer::Tokenizer;
use serde::{Deserialize, Serialize};
use std::{fs, io, path::Path};

/// The manifest's name.
pub(crate) const FILE_NAME: &str = "index.json";
/// All tokens, one document after the other, each with the separator after it.
pub(crate) const TOKENS: &str = "tokens.bin";
/// Places in the tokens, ordered by what follows them.
pub(crate) const SUFFIXES: &str = "suffixes.bin";
/// Where each document begins in the tokens.
pub(crate) const STARTS: &str = "starts.bin";
/// A line of JSON for each document.
pub(crate) const DOCUMENTS: &str = "documents.jsonl";
/// Where each line begins.
pub(crate) const OFFSETS: &str = "offsets.bin";
/// The tokenizer.
pub(crate) const TOKENIZER: &str = "tokenizer.json";
/// Version of the form.
pub(crate) const VERSION: u32 = 1;

/// What an index holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of the form.
    pub version: u32,
    /// Root over the documents of the corpus, in hexadecimal.
    pub corpus: String,
    /// BLAKE3 of the tokenizer's file, in hexadecimal.
    pub tokenizer: String,
    /// Highest id, plus one; it separates documents.
    pub vocabulary: u32,
    /// Whether tokens take 32 bits, in place of 16.
    pub wide: bool,
    /// Tokens, with one separator for each document.
    pub tokens: u64,
    /// Documents.
    pub documents: u64,
    /// Bytes of the documents' lines.
    pub document_bytes: u64,
}

/// What is known of a document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DocumentRecord {
    /// Its name in the corpus.
    pub id: String,
    /// The collection that it is from.
    pub dataset: String,
    /// Title.
    pub title: Option<String>,
    /// Licence, an SPDX expression.
    pub license: String,
    /// Why that licence holds.
    pub license_basis: Option<String>,
    /// Address.
    pub url: Option<String>,
}

enum Ids {
    Narrow(Array<u16>),
    Wide(Array<u32>),
}

/// An open index; its files stay on disk and come into memory as they are read.
pub struct Index {
    manifest: Manifest,
    tokenizer: Tokenizer,
    ids: Ids,
    suffixes: Array<u32>,
    starts: Array<u64>,
    documents: Bytes,
    offsets: Array<u64>,
    folder: std::path::PathBuf,
}

impl Index {
    /// Opens the index in `folder`.
    ///
    /// # Errors
    /// When there is none, or a file of it is missing, damaged or of another size.
    pub fn open(folder: &Path) -> Result<Self, TraceError> {
        let path = folder.join(FILE_NAME);
        let json = match fs::read(&path) {
            Ok(json) => json,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(TraceError::Missing(folder.into())),
            Err(e) => return Err(TraceError::file("read", &path)(e)),
        };
        let manifest: Manifest = serde_json::from_slice(&json).map_err(|e| TraceError::damaged(&path, e))?;
        if manifest.version != VERSION {
            let reason = format!("it has version {}, and this program reads {VERSION}", manifest.version);
            return Err(TraceError::damaged(&path, reason));
        }
        let path = folder.join(TOKENIZER);
        let json = fs::read(&path).map_err(TraceError::file("read", &path))?;
        if hash::hex(&json) != manifest.tokenizer {
            return Err(TraceError::damaged(&path, "it is not the tokenizer that the index was made with"));
        }
        let tokenizer = Tokenizer::from_bytes(&json)?;
        let (tokens, documents) = (manifest.tokens, manifest.documents);
        let path = folder.join(TOKENS);
        Ok(Self {
            ids: match manifest.wide {
                false => Ids::Narrow(Array::open(&path, tokens)?),
                true => Ids::Wide(Array::open(&path, tokens)?),
            },
            suffixes: Array::open(&folder.join(SUFFIXES), tokens)?,
            starts: Array::open(&folder.join(STARTS), documents)?,
            offsets: Array::open(&folder.join(OFFSETS), documents)?,
            documents: Bytes::open(&folder.join(DOCUMENTS), manifest.document_bytes)?,
            folder: folder.into(),
            tokenizer,
            manifest,
        })
    }

    /// What it holds.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The tokenizer that documents were encoded with.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Tokens and separators.
    pub(crate) fn len(&self) -> usize {
        self.suffixes.len()
    }

    /// The token at a place.
    pub(crate) fn token(&self, place: usize) -> u32 {
        match &self.ids {
            Ids::Narrow(ids) => ids.at(place).into(),
            Ids::Wide(ids) => ids.at(place),
        }
    }

    /// The place that is `rank`th when places are ordered by what follows them.
    pub(crate) fn suffix(&self, rank: usize) -> usize {
        self.suffixes.at(rank) as usize
    }

    /// The number of the document that a place is in, and where that document begins.
    pub(crate) fn document_at(&self, place: usize) -> (usize, usize) {
        // The first document that begins beyond the place, less one.
        let (mut low, mut high) = (0, self.starts.len());
        while low < high {
            let middle = low.midpoint(high);
            if self.starts.at(middle) as usize <= place { low = middle + 1 } else { high = middle }
        }
        let number = low.saturating_sub(1);
        (number, self.starts.at(number) as usize)
    }

    /// Documents in it.
    pub fn documents(&self) -> usize {
        self.starts.len()
    }

    /// Tokens of a document.
    pub fn document_len(&self, number: usize) -> usize {
        let end =
            if number + 1 < self.starts.len() { self.starts.at(number + 1) as usize } else { self.len() };
        // The separator is not one.
        end.saturating_sub(self.starts.at(number) as usize + 1)
    }

    /// The tokens of a document.
    pub fn document_tokens(&self, number: usize) -> Vec<u32> {
        let start = self.starts.at(number) as usize;
        (start..start + self.document_len(number)).map(|place| self.token(place)).collect()
    }

    /// What is known of a document.
    ///
    /// # Errors
    /// When its line is damaged.
    pub fn document(&self, number: usize) -> Result<DocumentRecord, TraceError> {
        let from = self.offsets.at(number) as usize;
        let rest = self.documents.all().get(from..).unwrap_or_default();
        let line = rest.split(|&byte| byte == b'\n').next().unwrap_or_default();
        serde_json::from_slice(line)
            .map_err(|e| TraceError::damaged(&self.folder.join(DOCUMENTS), format!("document {number}: {e}")))
    }
}
