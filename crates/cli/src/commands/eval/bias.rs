//! `blackletter eval bias`

use super::{ResultOptions, Unit, load, watched};
use crate::{commands::model::ModelOptions, failure::Failure};
use blackletter_evals::{bias, bootstrap::Bootstrap};
use std::path::PathBuf;

/// Measure whether a model finds stereotypes likelier than what is not one
///
/// Compares the likelihood of pairs of sentences, of which one repeats a stereotype about a class that federal law protects and the
/// other does not: 216 pairs of our own, or those of a file.
#[derive(Debug, clap::Args)]
#[command(after_help = "EXAMPLE:\n  blackletter eval bias --model ./nano --out evals/")]
pub struct Args {
    /// Pairs to use in place of our own: JSON lines with `category`, `stereotyped` and `other`.
    #[arg(long, value_name = "FILE")]
    pairs: Option<PathBuf>,
    /// Times that pairs are drawn anew for the intervals; 0 for none.
    #[arg(long, value_name = "N", default_value_t = Bootstrap::default().resamples)]
    resamples: usize,
    #[command(flatten)]
    model: ModelOptions,
    #[command(flatten)]
    result: ResultOptions,
}

impl Args {
    pub fn run(self) -> Result<(), Failure> {
        let pairs = match &self.pairs {
            Some(path) => {
                let (pairs, file) = bias::read(path)?;
                (pairs, Some(file))
            }
            None => (bias::own_pairs(), None),
        };
        let bootstrap = Bootstrap { resamples: self.resamples, ..Bootstrap::default() };
        let (pipeline, subject) = load(&self.model, &self.result)?;
        let (result, scored) =
            watched(Unit::Things, |watch| bias::measure(&pipeline, subject, pairs, bootstrap, watch))?;
        self.result.finish("bias", &result, &result.to_markdown(), &scored)
    }
}
