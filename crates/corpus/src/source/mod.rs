//! Files to documents: JSON lines, Parquet, original files, and the stages of kl3m-data.
//!
//! In: paths, globs and folders of a recipe's source ([`SourceSpec`]), and what the recipe states about it. Out: the files in
//! them ([`InputFile`]), and from each file [`Item`]s, one for each document that could be read and for each thing that could
//! not.

mod discover;
mod original;
mod records;
mod rows;

pub use discover::find;

use crate::document::Document;
use serde::{Deserialize, Serialize};
use std::{
    io,
    path::{Path, PathBuf},
};

/// A recipe's source: where it is, and what holds for documents that do not say it themselves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceSpec {
    /// Files, globs and folders; relative to the recipe's folder.
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
    /// A path that is not a file, folder or bucket of this machine.
    #[error(
        "`{0}`: buckets are not read by recipes; copy the objects into a folder of the same layout first"
    )]
    Bucket(String),
    /// A Parquet file that is damaged or has no texts.
    #[error("{path} cannot be read as Parquet of texts: {reason}")]
    Parquet {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
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

/// Text that is handed on at a time, in bytes, but for single documents that are larger.
const CHUNK: usize = 8 << 20;

/// Reads files, which have to be of one kind, and hands on what is in them in their order, some megabytes at a time.
///
/// # Errors
/// When a file cannot be read at all, or `take` fails. What cannot be understood is an [`Item::Unreadable`].
pub fn read<E: From<SourceError>>(
    files: &[InputFile],
    spec: &SourceSpec,
    mut take: impl FnMut(Vec<Item>) -> Result<(), E>,
) -> Result<(), E> {
    use rayon::prelude::*;
    let mut whole = Vec::new();
    for file in files {
        match file.kind {
            Kind::Lines => rows::lines(file, spec, &mut take)?,
            Kind::Rows => rows::parquet(file, spec, &mut take)?,
            Kind::Original | Kind::Collected | Kind::Represented => whole.push(file),
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
            whole[from..to].par_iter().map(|file| original::read(file, spec)).collect();
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
