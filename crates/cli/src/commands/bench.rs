//! `blackletter bench`

use super::model::{self, ModelOptions};
use crate::{failure::Failure, output};
use blackletter_engine::{LoadOptions, MeasureOptions, ModelFiles, measure};
use blackletter_model::{Dtype, MixtralConfig, random_checkpoint};
use std::{env, path::PathBuf};

/// Measure speed on this machine, beside what the machine can do
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    Generate(Generate),
}

impl Command {
    pub fn run(self) -> Result<(), Failure> {
        match self {
            Self::Generate(args) => args.run(),
        }
    }
}

/// Measure how fast a model reads prompts and generates
///
/// Prints one JSON object: tokens per second (medians of runs), seconds to the first token, peak memory, the machine's
/// read bandwidth and multiply-add rate measured in the same run, and the share of each that was reached.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "EXAMPLE:\n  blackletter bench generate --random-geometry kl3m-002-520m --dtype q8 --batch 3"
)]
pub struct Generate {
    #[command(flatten)]
    model: ModelOptions,
    /// Measure a model of random weights in a published geometry instead: kl3m-002-520m or kl3m-003-3.7b. It is written
    /// once, as f32, to the directory for temporary files (2.1 GB and 14.8 GB), and used again later.
    #[arg(long, value_name = "GEOMETRY", conflicts_with = "model", value_parser = clap::builder::PossibleValuesParser::new(MixtralConfig::GEOMETRIES))]
    random_geometry: Option<String>,
    /// Tokens of the prompt whose rate is measured.
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..))]
    prompt: u32,
    /// Generated tokens per run.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    r#gen: u32,
    /// Tokens before the first generated one.
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..))]
    depth: u32,
    /// Sequences generated together, 1 to 1024; the rate of one alone is measured too.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    batch: u32,
    /// Runs, of which medians are taken.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    runs: u32,
}

impl Generate {
    fn run(self) -> Result<(), Failure> {
        let files = match &self.random_geometry {
            Some(name) => ModelFiles::Directory(random_model(name)?),
            None => self.model.files()?,
        };
        let size = |n: u32| n as usize;
        let options = MeasureOptions {
            prompt: size(self.prompt),
            generate: size(self.r#gen),
            depth: size(self.depth),
            batch: size(self.batch),
            runs: size(self.runs),
        };
        let load: LoadOptions = self.model.load_options();
        let measured = measure(&files, &load, &options)?;
        output::print(serde_json::to_string_pretty(&measured)? + "\n")
    }
}

/// The directory of a geometry's random model, which is made when it is not there.
fn random_model(name: &str) -> Result<PathBuf, Failure> {
    let dir = env::temp_dir().join(format!("blackletter-random-{name}"));
    // config.json is written last: where it is, the rest is.
    if !dir.join("config.json").is_file() {
        let Some(config) = MixtralConfig::geometry(name) else {
            return Err(Failure::usage(format!("no geometry is called {name:?}")));
        };
        eprintln!("writing a random {name} to {}", dir.display());
        random_checkpoint(&dir, &config, Dtype::F32, 1)?;
    }
    model::directory(&dir.to_string_lossy())
}
