//! What can go wrong.

use std::{io, path::PathBuf};

/// An index cannot be made or used.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The token store cannot be read.
    #[error(transparent)]
    Store(#[from] blackletter_dataset::DatasetError),
    /// The corpus cannot be read.
    #[error(transparent)]
    Corpus(#[from] blackletter_corpus::audit::AuditError),
    /// The tokenizer cannot be used.
    #[error(transparent)]
    Tokenizer(#[from] blackletter_tokenizer::TokenizerError),
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
    /// There is no index.
    #[error("{0} holds no index: make one with `blackletter index`")]
    Missing(PathBuf),
    /// The index is damaged.
    #[error("{path}: {reason}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Store and corpus do not belong together.
    #[error("the token store was made from the corpus with the root {store}, and this corpus has {corpus}")]
    OtherCorpus {
        /// Recorded in the store.
        store: String,
        /// Of the corpus that was given.
        corpus: String,
    },
    /// The index is of something else.
    #[error(
        "{folder} holds an index made with another {what}: name another directory for this one, or remove it"
    )]
    OtherIndex {
        /// The index.
        folder: PathBuf,
        /// What is another one.
        what: &'static str,
    },
    /// Too many tokens for one index.
    #[error("the store has {found} tokens, and an index can hold {limit}: make several stores")]
    TooMany {
        /// Tokens and documents.
        found: u64,
        /// The most.
        limit: u64,
    },
    /// The suffix array could not be made.
    #[error("the suffix array could not be made: {0}")]
    Suffixes(String),
}

impl TraceError {
    pub(crate) fn file(action: &'static str, path: &std::path::Path) -> impl Fn(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { action, path: path.clone(), source }
    }

    pub(crate) fn damaged(path: &std::path::Path, reason: impl ToString) -> Self {
        Self::Damaged { path: path.into(), reason: reason.to_string() }
    }
}
