//! `blackletter eval perplexity`

use super::{ResultOptions, Unit, load, watched};
use crate::{commands::model::ModelOptions, failure::Failure};
use blackletter_evals::{
    bootstrap::Bootstrap,
    data::{self, GroupBy, Limits},
    perplexity::{self, PerplexitySettings},
};
use std::path::{Path, PathBuf};

/// Measure how well a model predicts texts
///
/// Scores each document by itself, in windows of the model's context that overlap by half, every token once; reports loss,
/// perplexity by token and by word, and bits per byte, for each dataset and in all, with bootstrap intervals over documents.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "EXAMPLE:\n  blackletter eval perplexity --model ./nano --by file --limit-documents 25 \
                        --limit-characters 8000 corpus/heldout --out evals/"
)]
pub struct Args {
    /// JSON lines (.jsonl, .jsonl.gz, .jsonl.zst) and Parquet (.parquet) with a column `text`, text (.txt, .md), and
    /// directories of JSON lines or Parquet; of a corpus, its heldout or its train.
    #[arg(value_name = "DATA", required = true)]
    data: Vec<PathBuf>,
    /// Score only the first N documents of each dataset (or file, with --by file).
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit_documents: Option<u32>,
    /// Score only the first N characters of each document.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit_characters: Option<u32>,
    /// What documents are put together by.
    #[arg(long, value_enum, default_value_t = By::Dataset)]
    by: By,
    /// Do not put <|start|> in front of each document; its first token is not predicted then.
    #[arg(long)]
    no_start: bool,
    /// Times that documents are drawn anew for the intervals; 0 for none.
    #[arg(long, value_name = "N", default_value_t = Bootstrap::default().resamples)]
    resamples: usize,
    #[command(flatten)]
    model: ModelOptions,
    #[command(flatten)]
    result: ResultOptions,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum By {
    /// The dataset that documents state
    Dataset,
    /// The file that they are in; those of one name are told apart by their folders
    File,
}

impl Args {
    pub fn run(self) -> Result<(), Failure> {
        let limits = Limits {
            documents: self.limit_documents.map(|n| n as usize),
            characters: self.limit_characters.map(|n| n as usize),
        };
        let by = match self.by {
            By::Dataset => GroupBy::Dataset,
            By::File => GroupBy::File,
        };
        let bootstrap = Bootstrap { resamples: self.resamples, ..Bootstrap::default() };
        let settings = PerplexitySettings { by, limits, start: !self.no_start, bootstrap };
        for path in &self.data {
            one_part(path)?;
        }
        let data = data::read(&self.data, by, limits)?;
        let (pipeline, subject) = load(&self.model, &self.result)?;
        let (result, documents) =
            watched(Unit::Bytes, |watch| perplexity::measure(&pipeline, subject, &data, settings, watch))?;
        self.result.finish("perplexity", &result, &result.to_markdown(), &documents)
    }
}

/// Refuses a whole corpus, of which nobody means the part that was trained on without saying so.
fn one_part(path: &Path) -> Result<(), Failure> {
    let train = path.join("train");
    let held_out = ["heldout", "held_out", "validation"].map(|name| path.join(name));
    match held_out.iter().find(|part| part.is_dir() && train.is_dir()) {
        Some(held_out) => Err(Failure::usage(format!(
            "{} is a corpus: name {} or {}",
            path.display(),
            held_out.display(),
            train.display()
        ))),
        None => Ok(()),
    }
}
