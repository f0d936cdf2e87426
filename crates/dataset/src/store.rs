//! A token store: documents and examples as token ids, in place from the memory map.

use crate::{
    error::DatasetError,
    manifest::{FILE_NAME, Manifest, ShardRecord, SplitRecord, VERSION},
    table::{Numbers, Table},
};
use blackletter_tokenizer::Tokenizer;
use serde::Deserialize;
use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

/// The tokenizer's file in a store.
pub const TOKENIZER: &str = "tokenizer.json";

/// An open store. Cheap to clone: clones share the maps.
#[derive(Clone)]
pub struct TokenStore(Arc<Inner>);

struct Inner {
    folder: PathBuf,
    manifest: Manifest,
    tokenizer: Tokenizer,
    train: Table,
    heldout: Table,
    sft: Table,
}

/// A part of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// Documents to train on.
    Train,
    /// Documents never to train on.
    Heldout,
}

impl TokenStore {
    /// Opens the store in `folder`: reads the manifest, loads the tokenizer, maps the shards and compares their
    /// hashes.
    ///
    /// # Errors
    /// When there is no store, or a file of it is missing or damaged; says which and how.
    pub fn open(folder: &Path) -> Result<Self, DatasetError> {
        let path = folder.join(FILE_NAME);
        let json = match fs::read(&path) {
            Ok(json) => json,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Err(DatasetError::Missing { folder: folder.into() });
            }
            Err(source) => return Err(DatasetError::File { action: "read", path, source }),
        };
        let manifest = read_manifest(&path, &json)?;
        let path = folder.join(TOKENIZER);
        let json = fs::read(&path).map_err(DatasetError::file("read", &path))?;
        if blake3::hash(&json).to_hex().as_str() != manifest.tokenizer.blake3 {
            return Err(DatasetError::damaged(&path, "it is not the tokenizer that the manifest names"));
        }
        let tokenizer = Tokenizer::from_bytes(&json)?;
        let (datasets, licenses) = (numbers(&manifest.datasets), numbers(&manifest.licenses));
        let open = |shards: &[ShardRecord]| Table::open(folder, shards, manifest.width, &datasets, &licenses);
        let (train, heldout) = (open(&manifest.train.shards)?, open(&manifest.heldout.shards)?);
        let sft = open(&manifest.sft.shards)?;
        let inner = Inner { folder: folder.into(), train, heldout, sft, tokenizer, manifest };
        Ok(Self(Arc::new(inner)))
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        &self.0.folder
    }

    /// What it holds.
    pub fn manifest(&self) -> &Manifest {
        &self.0.manifest
    }

    /// The tokenizer that made its tokens.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.0.tokenizer
    }

    /// Documents to train on.
    pub fn train(&self) -> &Table {
        &self.0.train
    }

    /// Documents never to train on.
    pub fn heldout(&self) -> &Table {
        &self.0.heldout
    }

    /// Documents of a part.
    pub fn split(&self, split: Split) -> &Table {
        match split {
            Split::Train => self.train(),
            Split::Heldout => self.heldout(),
        }
    }

    /// What is recorded of a part.
    pub fn record(&self, split: Split) -> &SplitRecord {
        match split {
            Split::Train => &self.manifest().train,
            Split::Heldout => &self.manifest().heldout,
        }
    }

    /// Supervised examples to train on.
    pub fn sft(&self) -> &Table {
        &self.0.sft
    }

    /// Name of a dataset by its number.
    pub fn dataset(&self, number: u16) -> &str {
        self.manifest().datasets.get(usize::from(number)).map_or("", String::as_str)
    }

    /// A licence by its number.
    pub fn license(&self, number: u16) -> &str {
        self.manifest().licenses.get(usize::from(number)).map_or("", String::as_str)
    }
}

fn read_manifest(path: &Path, json: &[u8]) -> Result<Manifest, DatasetError> {
    #[derive(Deserialize)]
    struct Head {
        version: u32,
    }
    let damaged = |e: serde_json::Error| DatasetError::damaged(path, e);
    let head: Head = serde_json::from_slice(json).map_err(damaged)?;
    if head.version != VERSION {
        let reason = format!("it has version {}, and this program reads version {VERSION}", head.version);
        return Err(DatasetError::damaged(path, reason));
    }
    serde_json::from_slice(json).map_err(damaged)
}

fn numbers(names: &[String]) -> Numbers<'_> {
    names.iter().map(String::as_str).zip(0..=u16::MAX).collect()
}
