//! Files to documents: JSON lines, Parquet, original files, and the stages of kl3m-data.
//!
//! In: paths, globs and folders of a recipe's source ([`SourceSpec`]), and what the recipe states about it. Out: the files in
//! them ([`InputFile`]), and from each file [`Item`]s, one for each document that could be read and for each thing that could
//! not.

mod bucket;
mod discover;
mod original;
mod records;
mod rows;
mod tokens;

pub use bucket::Buckets;
pub use discover::{find, set_apart};
pub use tokens::Decoder;

use crate::{document::Document, kl3m_data::Kl3mDataError};
use serde::{Deserialize, Serialize};
use std::{
    io,
    path::{Path, PathBuf},
};

/// A recipe's source: where it is, and what holds for documents that do not say it themselves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceSpec {
    /// Files, globs and folders, relative to the recipe's folder; and addresses in buckets.
    pub path: Paths,
    /// The dataset that the documents go under. What documents state themselves is kept among their extras where it differs.
    pub dataset: Option<String>,
    /// Licence of documents that state none.
    pub license: Option<String>,
    /// Its basis.
    pub license_basis: Option<String>,
    /// Source of documents that state none.
    pub source: Option<String>,
    /// Address of documents that state none.
    pub url: Option<String>,
    /// Directory of the tokenizer of token ids; relative to the recipe's folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokenizer: Option<String>,
}

/// One path or several.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Paths {
    /// One.
    One(String),
    /// Several.
    Many(Vec<String>),
}

impl Default for Paths {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

impl Paths {
    /// All of them.
    pub fn all(&self) -> &[String] {
        match self {
            Self::One(path) => std::slice::from_ref(path),
            Self::Many(paths) => paths,
        }
    }
}

/// How a file is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// JSON lines, plain or compressed.
    Lines,
    /// Parquet with a column `text`.
    Rows,
    /// A file as its publisher made it.
    Original,
    /// kl3m-data's stage of collected documents.
    Collected,
    /// kl3m-data's stage of parsed documents.
    Represented,
    /// kl3m-data's stage of token ids.
    Tokens,
    /// An object that an index names and that is not there.
    Missing,
}

/// A file to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputFile {
    /// Where it is.
    pub path: PathBuf,
    /// Its name in the record: relative to the folder that the source names, and without anything of this machine.
    pub name: String,
    /// How it is read.
    pub kind: Kind,
    /// Its size in bytes.
    pub bytes: u64,
}

/// What comes out of a file.
#[derive(Clone, Debug, PartialEq)]
pub enum Item {
    /// A document. Its licence is what is stated, empty if nothing is; its text is not hashed yet.
    Document(Box<Document>),
    /// Something that is no document.
    Unreadable {
        /// The dataset that it would be of.
        dataset: String,
        /// Why, in a few words that are the same for all of its kind.
        reason: &'static str,
        /// Where, and what is wrong.
        what: String,
        /// Its size in bytes.
        bytes: usize,
    },
}

/// A source cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// A file or folder cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A path or pattern that finds nothing.
    #[error("`{pattern}` finds no file to read (looked in {folder})")]
    Nothing {
        /// As given.
        pattern: String,
        /// Where it was looked for.
        folder: PathBuf,
    },
    /// A pattern that cannot be understood.
    #[error("`{pattern}` is no pattern of paths: {reason}")]
    Pattern {
        /// As given.
        pattern: String,
        /// Why.
        reason: String,
    },
    /// An address where buckets are not read.
    #[error("`{0}`: addresses are not read here; copy the objects into a folder first (`corpus fetch`)")]
    Bucket(String),
    /// An address of something else than a bucket.
    #[error("`{0}` is no address that can be read; write s3://BUCKET, s3://BUCKET/PREFIX, or a path")]
    Address(String),
    /// A bucket cannot be read.
    #[error(transparent)]
    Store(#[from] Kl3mDataError),
    /// An object was replaced while it was read.
    #[error("{key} in {location} changed while it was read; run the same command again")]
    Changed {
        /// The store.
        location: String,
        /// The object.
        key: String,
    },
    /// The user asked to stop.
    #[error("stopped")]
    Stopped,
    /// Token ids without a tokenizer.
    #[error(
        "{0} holds token ids; name the directory of their tokenizer (`tokenizer` in [[source]], --tokenizer)"
    )]
    NoTokenizer(PathBuf),
    /// A tokenizer that cannot be used.
    #[error("the tokenizer {path} cannot be used: {reason}")]
    Tokenizer {
        /// As given.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// An index that cannot be understood.
    #[error("{path} is no index of a dataset: {reason}; without it, the objects that are there are read")]
    Index {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: Kl3mDataError,
    },
    /// A corpus whose record is missing or damaged.
    #[error("{path} is no finished corpus: {reason}")]
    Corpus {
        /// Its folder.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

impl SourceError {
    fn read(path: &Path) -> impl Fn(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Read { path: path.clone(), source }
    }
}

/// Opens the tokenizer in a directory; what is wrong with it otherwise.
pub type OpenTokenizer<'m> = dyn Fn(&Path) -> Result<Decoder, String> + 'm;

/// What sources may need from outside: buckets, and tokenizers of token ids.
#[derive(Clone, Copy, Default)]
pub struct Means<'m> {
    /// How buckets are read; not at all where there is none.
    pub buckets: Option<&'m Buckets<'m>>,
    /// How tokenizers are opened; not at all where there is none.
    pub tokenizer: Option<&'m OpenTokenizer<'m>>,
}

impl Means<'_> {
    /// The decoder of a source, where it names a tokenizer.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn decoder(&self, spec: &SourceSpec, base: &Path) -> Result<Option<Decoder>, SourceError> {
        let Some(given) = &spec.tokenizer else { return Ok(None) };
        let path = base.join(given);
        let open = self.tokenizer.ok_or_else(|| "token ids are not read here".to_owned());
        open.and_then(|open| open(&path)).map(Some).map_err(|reason| SourceError::Tokenizer { path, reason })
    }
}

/// Text that is handed on at a time, in bytes, but for single documents that are larger.
const CHUNK: usize = 8 << 20;

/// Reads files, which have to be of one kind, and hands on what is in them in their order, some megabytes at a time.
///
/// # Errors
/// When a file cannot be read at all, or `take` fails. What cannot be understood is an [`Item::Unreadable`].
pub fn read<E: From<SourceError>>(
    files: &[InputFile],
    spec: &SourceSpec,
    decoder: Option<&Decoder>,
    mut take: impl FnMut(Vec<Item>) -> Result<(), E>,
) -> Result<(), E> {
    use rayon::prelude::*;
    let mut whole = Vec::new();
    for file in files {
        match file.kind {
            Kind::Lines => rows::lines(file, spec, &mut take)?,
            Kind::Rows => rows::parquet(file, spec, decoder, &mut take)?,
            _ => whole.push(file),
        }
    }
    // Each of these is small, and takes long.
    let mut from = 0;
    while from < whole.len() {
        let (mut to, mut bytes) = (from, 0);
        while to < whole.len() && (to == from || bytes < CHUNK as u64) && to - from < 256 {
            bytes += whole[to].bytes;
            to += 1;
        }
        let items: Vec<Vec<Item>> =
            whole[from..to].par_iter().map(|file| original::read(file, spec, decoder)).collect();
        take(items.into_iter().flatten().collect())?;
        from = to;
    }
    Ok(())
}

/// The dataset of what a file holds, where nothing else says it: the file's name up to the first dot.
fn dataset_of(file: &InputFile, spec: &SourceSpec) -> String {
    if let Some(dataset) = &spec.dataset {
        return dataset.clone();
    }
    let name = file.name.rsplit('/').next().unwrap_or_default();
    name.split('.').next().unwrap_or_default().to_owned()
}

/// Fills in what a source states for documents that do not.
fn complete(document: &mut Document, file: &InputFile, spec: &SourceSpec) {
    match &spec.dataset {
        Some(dataset) if document.dataset != *dataset => {
            let stated = std::mem::replace(&mut document.dataset, dataset.clone());
            if !stated.is_empty() {
                document.extras.entry("dataset".into()).or_insert(stated);
            }
        }
        None if document.dataset.is_empty() => document.dataset = dataset_of(file, spec),
        _ => {}
    }
    if document.license.trim().is_empty() {
        document.license = spec.license.clone().unwrap_or_default();
        // A basis goes with its licence.
        if document.license_basis.is_none() {
            document.license_basis = spec.license_basis.clone();
        }
    }
    if document.source.is_none() {
        document.source = spec.source.clone();
    }
    if document.url.is_none() {
        document.url = spec.url.clone();
    }
    if document.mime_type.is_empty() {
        document.mime_type = "text/plain".into();
    }
}
