//! `blackletter bench`

use super::{
    model::{self, ModelOptions},
    text::read_text,
};
use crate::{failure::Failure, output};
use blackletter_engine::{Engine, LoadOptions, MeasureOptions, ModelFiles, measure, measure_constraints};
use blackletter_model::{Dtype, MixtralConfig, decoder::Place, random_checkpoint};
use blackletter_trainer::{
    bench::{BenchOptions, bench},
    config::{DtypeKind, OptimizerKind},
    geometry,
};
use serde_json::Value;
use std::{env, path::PathBuf};

/// Measure speed on this machine, beside what the machine can do
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    Generate(Generate),
    Constraint(Constraint),
    Train(Train),
}

impl Command {
    pub fn run(self) -> Result<(), Failure> {
        match self {
            Self::Generate(args) => args.run(),
            Self::Constraint(args) => args.run(),
            Self::Train(args) => args.run(),
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

/// Measure what constraints cost beside the steps of a model
///
/// Makes a text under each JSON schema, at temperature 1, and prints one JSON object: how long a step takes without a
/// constraint, how much more a token takes under one, and what share that is, in all and for each schema.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "EXAMPLE:\n  blackletter bench constraint crates/engine/tests/schemas.jsonl --random-geometry kl3m-002-520m --tokenizer ./kl3m-001-32k"
)]
pub struct Constraint {
    /// JSON lines, a schema each.
    #[arg(value_name = "FILE")]
    schemas: PathBuf,
    #[command(flatten)]
    model: ModelOptions,
    /// Measure beside a model of random weights in a published geometry instead, as bench generate does; give --tokenizer.
    #[arg(long, value_name = "GEOMETRY", conflicts_with = "model", requires = "tokenizer", value_parser = clap::builder::PossibleValuesParser::new(MixtralConfig::GEOMETRIES))]
    random_geometry: Option<String>,
    /// A directory with the tokenizer [default: the model's own].
    #[arg(long, value_name = "DIR")]
    tokenizer: Option<PathBuf>,
    /// Most tokens of a text.
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u32).range(2..))]
    r#gen: u32,
}

impl Constraint {
    fn run(self) -> Result<(), Failure> {
        let text = read_text(&self.schemas)?;
        let shown = self.schemas.display();
        let mut schemas: Vec<Value> = Vec::new();
        for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty()) {
            let schema = serde_json::from_str(line);
            schemas.push(
                schema.map_err(|e| Failure::failed(format!("{shown}, line {number} is not JSON: {e}")))?,
            );
        }
        let files = match &self.random_geometry {
            Some(name) => ModelFiles::Directory(random_model(name)?),
            None => self.model.files()?,
        };
        let tokenizer = match &self.tokenizer {
            Some(dir) => ModelFiles::Directory(dir.clone()).tokenizer()?,
            None => files.tokenizer()?,
        };
        let engine = Engine::from_checkpoint(&files.checkpoint()?, &self.model.load_options())?;
        let measured = measure_constraints(&engine, &tokenizer, &schemas, self.r#gen as usize)?;
        if measured.refused >= schemas.len() {
            return Err(Failure::failed(format!(
                "nothing was measured: {shown} has {} schemas, and {} are refused",
                schemas.len(),
                measured.refused
            )));
        }
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

/// Measure how fast a model trains
///
/// Prints one JSON object: tokens per second (median over the steps; a step is forward, backward, clipping and update on
/// random tokens), `mfu` (the products' share of the multiply-add rate measured in the same run), peak memory, seconds per
/// step and the losses. One more step comes before those that are timed.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "EXAMPLE:\n  blackletter bench train --geometry recipes/geometries/small.json --vocab 4096 --batch 8 --seq 512 --steps 5"
)]
pub struct Train {
    /// A config.json, or the name of a published geometry: kl3m-002-520m or kl3m-003-3.7b. Weights are random.
    #[arg(long, value_name = "FILE.json|NAME")]
    geometry: String,
    /// Tokens in the vocabulary [default: what the geometry says].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(4..=1 << 24))]
    vocab: Option<u32>,
    /// Rows of a step.
    #[arg(long, value_name = "B", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1 << 16))]
    batch: u32,
    /// Tokens of a row.
    #[arg(long, value_name = "T", default_value_t = 512, value_parser = clap::value_parser!(u32).range(2..=1 << 20))]
    seq: u32,
    /// Steps that are timed.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    steps: u32,
    /// Make activations anew in the backward pass instead of keeping them: less memory, more time.
    #[arg(long)]
    recompute: bool,
    /// Arithmetic of matrix products; bf16 keeps weights and sums in f32.
    #[arg(long, value_enum, value_name = "DTYPE", default_value_t = Arithmetic::F32)]
    dtype: Arithmetic,
    /// Where to compute; `wgpu` and `cuda` in builds with the feature of that name, in f32.
    #[arg(long, value_enum, value_name = "DEVICE", default_value_t = Device::Cpu)]
    device: Device,
    /// Tell where the time goes: seconds and share of the multiply-add rate of each kind of block.
    #[arg(long)]
    profile: bool,
    /// How parameters are updated.
    #[arg(long, value_enum, value_name = "NAME", default_value_t = Optimizer::Adamw)]
    optimizer: Optimizer,
    /// Seed of weights and tokens.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Threads [default: one per core]. Losses do not depend on it.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
}

/// [`DtypeKind`] on the command line.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Arithmetic {
    /// Single precision
    F32,
    /// Inputs rounded to bfloat16, sums in single precision
    Bf16,
}

/// [`Place`] on the command line.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Device {
    /// This machine's processor
    Cpu,
    /// A GPU by Vulkan, Metal or DirectX
    Wgpu,
    /// An NVIDIA card by CUDA
    Cuda,
}

/// [`OptimizerKind`] on the command line.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Optimizer {
    /// AdamW for all
    Adamw,
    /// Muon for the hidden matrices, AdamW for the rest
    Muon,
}

impl Train {
    fn run(self) -> Result<(), Failure> {
        let mut config = geometry(&self.geometry)?;
        if let Some(vocab) = self.vocab {
            config.vocab_size = vocab as usize;
            config.validate()?;
        }
        if !matches!((self.device, self.dtype), (Device::Cpu, _) | (_, Arithmetic::F32)) {
            return Err(Failure::usage("--dtype bf16 is for --device cpu: a GPU computes in f32"));
        }
        let options = BenchOptions {
            batch: self.batch as usize,
            seq: self.seq as usize,
            steps: self.steps as usize,
            threads: self.threads.map(usize::from),
            recompute: self.recompute,
            seed: self.seed,
            optimizer: match self.optimizer {
                Optimizer::Adamw => OptimizerKind::AdamW,
                Optimizer::Muon => OptimizerKind::Muon,
            },
            dtype: match self.dtype {
                Arithmetic::F32 => DtypeKind::F32,
                Arithmetic::Bf16 => DtypeKind::Bf16,
            },
            device: match self.device {
                Device::Cpu => Place::Cpu,
                Device::Wgpu => Place::Wgpu,
                Device::Cuda => Place::Cuda,
            },
            profile: self.profile,
        };
        output::print(serde_json::to_string_pretty(&bench(&config, &options)?)? + "\n")
    }
}
