//! What can go wrong.

use blackletter_corpus::{audit::AuditError, shards::ShardError};
use blackletter_tokenizer::{TokenizerError, template::TemplateError};
use std::{
    io,
    path::{Path, PathBuf},
};

/// A store cannot be made or used.
#[derive(Debug, thiserror::Error)]
pub enum DatasetError {
    /// The corpus cannot be used.
    #[error("the corpus cannot be used: {0}")]
    Corpus(#[from] AuditError),
    /// Documents of the corpus cannot be read or written.
    #[error(transparent)]
    Documents(#[from] ShardError),
    /// The tokenizer cannot be used.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The tokenizer does not fit the template.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// The file system refuses.
    #[error("cannot {action} {path}: {source}")]
    File {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is no store.
    #[error(
        "{folder} holds no token store: it has no manifest.json; make one with `blackletter dataset build`"
    )]
    Missing {
        /// The folder.
        folder: PathBuf,
    },
    /// The folder is in use for something else.
    #[error("{folder} holds other files and no token store; name a new or empty directory")]
    Occupied {
        /// The folder.
        folder: PathBuf,
    },
    /// A file of the store is not what it should be.
    #[error("{path} is damaged: {reason}; make the store again")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A document that cannot be stored.
    #[error("document {id:?} has {tokens} tokens; a document may have up to {}", u32::MAX - 2)]
    TooLong {
        /// The document.
        id: String,
        /// Its tokens.
        tokens: usize,
    },
    /// Too much for the numbers that count it.
    #[error("{what}: {found}, and a store holds up to {limit}; split the corpus")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many there are.
        found: u64,
        /// How many there may be.
        limit: u64,
    },
    /// A setting that cannot be followed.
    #[error("{key} is {found}; {allowed}")]
    Config {
        /// The setting.
        key: String,
        /// What it is.
        found: String,
        /// What it may be.
        allowed: String,
    },
    /// A row that is not there.
    #[error("there is no row {row}: epoch {epoch} has {rows} rows, numbered from 0")]
    NoRow {
        /// The row.
        row: u64,
        /// The epoch.
        epoch: u64,
        /// Rows of that epoch.
        rows: u64,
    },
    /// Writing JSON failed.
    #[error("cannot write JSON: {0}")]
    Json(#[from] serde_json::Error),
}

impl DatasetError {
    /// The file system refuses to `action` `path`.
    pub(crate) fn file(action: &'static str, path: &Path) -> impl Fn(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { action, path: path.clone(), source }
    }

    pub(crate) fn damaged(path: &Path, reason: impl ToString) -> Self {
        Self::Damaged { path: path.into(), reason: reason.to_string() }
    }

    pub(crate) fn config(key: &str, found: impl ToString, allowed: impl Into<String>) -> Self {
        Self::Config { key: key.into(), found: found.to_string(), allowed: allowed.into() }
    }
}
