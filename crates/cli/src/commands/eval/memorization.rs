//! `blackletter eval memorization`

use super::{ResultOptions, Unit, load, watched};
use crate::{commands::model::ModelOptions, failure::Failure};
use blackletter_evals::memorization::{self, MemorizationSettings};
use blackletter_trace::Index;
use std::path::PathBuf;

/// Measure how much of its training data a model repeats
///
/// Gives the model prompts from random places of its training documents and counts how often it goes on word for word, by length of
/// the prompt; then lets it write freely and looks for the longest spans that stand in the training data. Every matched document is
/// named with its licence in the lines that --out writes.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "EXAMPLE:\n  blackletter eval memorization --model ./nano --index index/ --samples 200 --out evals/"
)]
pub struct Args {
    /// The index of the training data, as `blackletter index` writes it.
    #[arg(long, value_name = "DIR")]
    index: PathBuf,
    /// Tokens of prompts, a list such as 16,32,64.
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_values_t = MemorizationSettings::default().prompt_tokens)]
    prompt_tokens: Vec<usize>,
    /// Tokens of continuations.
    #[arg(long, value_name = "N", default_value_t = MemorizationSettings::default().continuation)]
    continuation: usize,
    /// Places in documents, for each length of prompts.
    #[arg(long, value_name = "N", default_value_t = MemorizationSettings::default().samples)]
    samples: usize,
    /// Texts that are written freely.
    #[arg(long, value_name = "N", default_value_t = MemorizationSettings::default().texts)]
    texts: usize,
    /// Most tokens of a free text.
    #[arg(long, value_name = "N", default_value_t = MemorizationSettings::default().text_tokens)]
    text_tokens: usize,
    /// Temperature of free texts.
    #[arg(long, value_name = "T", default_value_t = MemorizationSettings::default().temperature)]
    temperature: f32,
    /// What makes the choices repeatable.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    model: ModelOptions,
    #[command(flatten)]
    result: ResultOptions,
}

impl Args {
    pub fn run(self) -> Result<(), Failure> {
        if self.prompt_tokens.contains(&0) || self.continuation == 0 {
            return Err(Failure::usage("--prompt-tokens and --continuation are numbers of at least 1"));
        }
        if !(self.temperature.is_finite() && self.temperature > 0.0) {
            return Err(Failure::usage("--temperature must be above 0"));
        }
        let settings = MemorizationSettings {
            prompt_tokens: self.prompt_tokens,
            continuation: self.continuation,
            samples: self.samples,
            texts: self.texts,
            text_tokens: self.text_tokens,
            temperature: self.temperature,
            seed: self.seed,
            ..MemorizationSettings::default()
        };
        let index = Index::open(&self.index)?;
        let (pipeline, subject) = load(&self.model)?;
        let (result, trials) = watched(Unit::Things, |watch| {
            memorization::measure(&pipeline, subject, &index, &settings, watch)
        })??;
        self.result.finish("memorization", &result, &result.to_markdown(), &trials)
    }
}
