//! What a model is worth.
//!
//! In flow a model ([`blackletter_engine::Pipeline`]) and data; out flow results that can be read by people (Markdown) and
//! programs (JSON), each with the hashes of the model and the data that it was measured with ([`subject`]).
//!
//! - [`perplexity`]: how well texts are predicted, by dataset, with [`bootstrap`] intervals.
//! - [`sft`]: how often examples of tasks are answered right; [`tasks`]: questions in the form of lm-evaluation-harness.
//! - [`toxicity`] and [`bias`]: what a model says when it is invited to, and what it finds likely of whom.
//! - [`memorization`]: how much of its training data a model repeats.
//! - [`report`], [`figures`] and [`card`]: results as one page, and a model's card.
//!
//! Every evaluation takes a [`Watch`]: it tells how far it is and asks whether to stop, and what there is by then is the
//! result.

pub mod bias;
pub mod bootstrap;
pub mod card;
pub mod data;
pub mod figures;
pub mod greedy;
pub mod markdown;
pub mod memorization;
mod page;
pub mod perplexity;
pub mod report;
pub mod results;
pub mod sft;
pub mod subject;
pub mod tasks;
pub mod toxicity;

use blackletter_engine::{EngineError, PipelineError};
use blackletter_tokenizer::TokenizerError;
use std::{io, path::PathBuf};

/// How far an evaluation is, and whether it should stop.
#[derive(Clone, Copy)]
pub struct Watch<'w> {
    /// Told how much is done, of how much, in whatever is counted.
    pub progress: &'w dyn Fn(u64, u64),
    /// Asked between pieces of work.
    pub stop: &'w dyn Fn() -> bool,
}

impl Default for Watch<'_> {
    fn default() -> Self {
        Self { progress: &|_, _| {}, stop: &|| false }
    }
}

/// An evaluation cannot be done.
#[derive(Debug, thiserror::Error)]
pub enum EvalError {
    /// The model cannot be run.
    #[error(transparent)]
    Pipeline(#[from] PipelineError),
    /// The engine refuses.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The tokenizer refuses.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The template cannot be used.
    #[error(transparent)]
    Template(#[from] blackletter_tokenizer::template::TemplateError),
    /// The index cannot be used.
    #[error(transparent)]
    Trace(#[from] blackletter_trace::TraceError),
    /// The judge does not judge.
    #[error(transparent)]
    Judge(#[from] toxicity::judge::JudgeError),
    /// Texts cannot be read.
    #[error(transparent)]
    Texts(#[from] blackletter_corpus::texts::TextsError),
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
    /// A line of a file is not what it should be.
    #[error("{path}, line {line}: {reason}")]
    Line {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        reason: String,
    },
    /// There is nothing to measure with.
    #[error("{0}")]
    Nothing(String),
    /// A result cannot be written as JSON.
    #[error("a result cannot be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
}

impl EvalError {
    pub(crate) fn file(action: &'static str, path: &std::path::Path) -> impl Fn(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { action, path: path.clone(), source }
    }
}
