//! What can go wrong between a name and a directory.

use crate::Repository;
use hf_hub::HFError;
use reqwest::StatusCode;
use std::{io, path::PathBuf};

/// A model could not be fetched. What had come is kept, and the next try goes on from there.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// Working offline, and not in the cache.
    #[error(
        "{repository} is not in the cache ({cache}), and HF_HUB_OFFLINE forbids fetching it: unset HF_HUB_OFFLINE, or copy the model's directory here and name that"
    )]
    Offline {
        /// What was asked for.
        repository: Box<Repository>,
        /// The cache.
        cache: PathBuf,
    },
    /// The Hub cannot be reached.
    #[error(
        "cannot reach {endpoint} to fetch {repository}: check the network, or HF_ENDPOINT when it is set"
    )]
    Unreachable {
        /// What was asked for.
        repository: Box<Repository>,
        /// The Hub.
        endpoint: String,
        /// Why.
        source: HFError,
    },
    /// The Hub is there and cannot serve for now (408, 429, 5xx), or does not answer in time.
    #[error("{endpoint} cannot serve {repository} for now ({why}): try again later")]
    Unavailable {
        /// What was asked for.
        repository: Box<Repository>,
        /// The Hub.
        endpoint: String,
        /// What it answers, if at all.
        why: String,
    },
    /// The Hub asks who is there (401).
    #[error(
        "{repository} does not exist or is private ({endpoint} answers 401): check the name, and set HF_TOKEN to a token that may read it"
    )]
    Unauthorized {
        /// What was asked for.
        repository: Box<Repository>,
        /// The Hub.
        endpoint: String,
    },
    /// The Hub knows who is there, and refuses (403).
    #[error(
        "{endpoint} refuses access to {repository} (403): accept its terms on its page, or use a token (HF_TOKEN) with the right to read it"
    )]
    Forbidden {
        /// What was asked for.
        repository: Box<Repository>,
        /// The Hub.
        endpoint: String,
    },
    /// There is no such repository or revision (404).
    #[error("{endpoint} has no model {repository} (404): check owner, name and revision")]
    NotFound {
        /// What was asked for.
        repository: Box<Repository>,
        /// The Hub.
        endpoint: String,
    },
    /// The repository does not hold a model in a form that can be run.
    #[error("{repository} cannot be run: {why}")]
    NotAModel {
        /// What was asked for.
        repository: Box<Repository>,
        /// What is missing.
        why: String,
    },
    /// The connection broke, time and again.
    #[error(
        "the download of {file} broke off at {done} of {size} bytes; what has come is kept: run the command again to go on from there"
    )]
    Broken {
        /// The file.
        file: String,
        /// Bytes that have come.
        done: u64,
        /// Bytes that should.
        size: u64,
        /// The last failure, if the server gave a reason.
        source: Option<HFError>,
    },
    /// What came is not what the Hub says it is.
    #[error(
        "{file} arrived damaged: its SHA-256 is {found}, the Hub states {expected}; it was deleted: run the command again"
    )]
    Damaged {
        /// The file.
        file: String,
        /// What the Hub states.
        expected: String,
        /// What came.
        found: String,
    },
    /// The cache cannot be written.
    #[error("cannot write the cache at {path}: {source}; HF_HOME or HF_HUB_CACHE name another place", path = path.display())]
    Cache {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The Hub's answer makes no sense.
    #[error("{endpoint} gave an answer about {repository} that cannot be used: {why}")]
    Answer {
        /// What was asked for.
        repository: Box<Repository>,
        /// The Hub.
        endpoint: String,
        /// What was wrong with it.
        why: String,
    },
    /// A file to push cannot be read.
    #[error("cannot read {path}: {source}", path = path.display())]
    Local {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Nobody is there to push.
    #[error("pushing to {endpoint} takes a token that may write: set HF_TOKEN, or log in")]
    NoToken {
        /// The Hub.
        endpoint: String,
    },
    /// A push is refused.
    #[error("{endpoint} refuses to take {repository}: {why}")]
    Refused {
        /// Where it was to go.
        repository: Box<Repository>,
        /// The Hub.
        endpoint: String,
        /// Status and words.
        why: String,
    },
    /// Anything else that the `hf-hub` crate reports.
    #[error("fetching {repository} from {endpoint} failed")]
    Hub {
        /// What was asked for.
        repository: Box<Repository>,
        /// The Hub.
        endpoint: String,
        /// What it reports.
        source: HFError,
    },
}

/// Whether a status says something of the moment and nothing of what was asked for.
pub(crate) fn may_pass(status: StatusCode) -> bool {
    status.is_server_error() || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT)
}

impl HubError {
    /// Whether the failure says nothing about the model: what was fetched before is as good as it was.
    pub(crate) fn is_of_the_moment(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Unavailable { .. } | Self::Broken { .. })
    }

    /// Says what an error of the `hf-hub` crate means to whoever asked for `repository`.
    pub(crate) fn of(repository: &Repository, endpoint: &str, error: HFError) -> Self {
        let (repository, endpoint) = (Box::new(repository.clone()), endpoint.to_string());
        match error {
            HFError::AuthRequired { .. } => Self::Unauthorized { repository, endpoint },
            HFError::Forbidden { .. } => Self::Forbidden { repository, endpoint },
            HFError::RepoNotFound { .. }
            | HFError::RevisionNotFound { .. }
            | HFError::EntryNotFound { .. } => Self::NotFound { repository, endpoint },
            source @ HFError::Request { .. } => Self::Unreachable { repository, endpoint, source },
            HFError::RateLimited { .. } => {
                Self::Unavailable { repository, endpoint, why: "it answers 429".into() }
            }
            HFError::Http { context } if may_pass(context.status) => Self::Unavailable {
                repository,
                endpoint,
                why: format!("it answers {}", context.status.as_u16()),
            },
            source => Self::Hub { repository, endpoint, source },
        }
    }
}
