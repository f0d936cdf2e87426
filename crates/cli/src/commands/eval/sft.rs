//! `blackletter eval sft`

use super::{ResultOptions, Unit, load, watched};
use crate::{commands::model::ModelOptions, failure::Failure};
use blackletter_evals::{
    bootstrap::Bootstrap,
    sft::{self, SftSettings},
};
use std::path::PathBuf;

/// Measure how often a model answers examples of tasks right
///
/// Reads JSON lines with `instruction`, `input`, `output` and `kind`, or with `messages`, as `blackletter dataset sft` writes
/// them; asks each in the template that the model was trained with, and compares its most likely answer with the output:
/// exact match and F1 for each kind, by field where outputs are JSON.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "EXAMPLE:\n  blackletter eval sft --model ./nano heldout.sft.jsonl --limit 100 --out evals/"
)]
pub struct Args {
    /// Files of examples, JSON lines.
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Ask only the first N examples of each kind.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
    /// Most new tokens of an answer.
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..))]
    max_new_tokens: u32,
    /// Examples that are answered side by side; the answers do not depend on it.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=1024))]
    batch: u16,
    /// Times that examples are drawn anew for the intervals; 0 for none.
    #[arg(long, value_name = "N", default_value_t = Bootstrap::default().resamples)]
    resamples: usize,
    #[command(flatten)]
    model: ModelOptions,
    #[command(flatten)]
    result: ResultOptions,
}

impl Args {
    pub fn run(self) -> Result<(), Failure> {
        let limit = self.limit.map(|n| n as usize);
        let bootstrap = Bootstrap { resamples: self.resamples, ..Bootstrap::default() };
        let settings = SftSettings { max_new_tokens: self.max_new_tokens as usize, limit, bootstrap };
        let (examples, files) = sft::read(&self.files, limit)?;
        let (pipeline, subject) = load(&self.model, &self.result)?;
        let batch = usize::from(self.batch);
        let (result, answers) = watched(Unit::Things, |watch| {
            sft::measure(&pipeline, subject, (&examples, files), settings, batch, watch)
        })?;
        self.result.finish("sft", &result, &result.to_markdown(), &answers)
    }
}
