//! `blackletter export`

use super::export_gguf;
use crate::{failure::Failure, output};
use blackletter_model::Dtype;
use blackletter_trainer::{ExportOptions, Identity, Which, export};
use std::path::PathBuf;

/// Write a model directory from a run, or a model as a GGUF file
///
/// The directory holds what transformers loads: config.json, generation_config.json, model.safetensors, tokenizer.json,
/// tokenizer_config.json with the chat template, special_tokens_map.json. With --corpus it also holds documents.parquet, every
/// document with the tokens that were learned from, and provenance.json, which `audit`, `bom` and `report` read.
#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "EXAMPLES:\n  blackletter export --run runs/nano --out models/nano --corpus data/corpus\n  \
                  blackletter export gguf models/nano --dtype q8_0 --out nano.gguf"
)]
pub struct Args {
    #[command(subcommand)]
    to: Option<To>,
    #[command(flatten)]
    directory: Option<Directory>,
}

/// Other forms than a directory.
#[derive(Debug, clap::Subcommand)]
enum To {
    Gguf(export_gguf::Args),
}

/// A run and the directory that is made of it.
#[derive(Debug, clap::Args)]
struct Directory {
    /// The run's directory.
    #[arg(long, value_name = "DIR")]
    run: PathBuf,
    /// The model directory to write.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// The form of the weights.
    #[arg(long, value_name = "DTYPE", value_enum, default_value_t = Form::Bf16)]
    dtype: Form,
    /// Take the averaged weights of the run ([averaging] in its configuration).
    #[arg(long)]
    averaged: bool,
    /// Which checkpoint: last, best (the lowest held-out loss), or the number of a step.
    #[arg(long, value_name = "last|best|STEP", default_value = "last", value_parser = which)]
    checkpoint: Which,
    /// The corpus that the run's token store was made from: writes the record of what the model was made from.
    #[arg(long, value_name = "DIR")]
    corpus: Option<PathBuf>,
    /// Name of the model in its record [default: that of the directory].
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    name: String,
    /// A sentence about the model for its record.
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    description: String,
    /// Licence of the weights for its record, an SPDX expression.
    #[arg(long, value_name = "SPDX")]
    license: Option<String>,
}

/// Number formats that transformers reads.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum Form {
    /// bfloat16
    Bf16,
    /// 32-bit floats
    F32,
}

impl From<Form> for Dtype {
    fn from(form: Form) -> Self {
        match form {
            Form::Bf16 => Self::BF16,
            Form::F32 => Self::F32,
        }
    }
}

fn which(text: &str) -> Result<Which, String> {
    match text {
        "last" => Ok(Which::Last),
        "best" => Ok(Which::Best),
        step => {
            step.parse().map(Which::Step).map_err(|_| "it must be last, best, or the number of a step".into())
        }
    }
}

impl Args {
    pub fn run(self) -> Result<(), Failure> {
        match (self.to, self.directory) {
            (Some(To::Gguf(args)), _) => args.run(),
            (None, Some(directory)) => directory.write(),
            (None, None) => {
                Err(Failure::usage("name a run with --run and the directory to write with --out"))
            }
        }
    }
}

impl Directory {
    fn write(self) -> Result<(), Failure> {
        let options = ExportOptions {
            dtype: self.dtype.into(),
            averaged: self.averaged,
            which: self.checkpoint,
            corpus: self.corpus,
            identity: Identity { name: self.name, description: self.description, license: self.license },
        };
        let from = export(&self.run, &self.out, &options, &mut |note| eprintln!("note: {note}"))?;
        output::print(format!("{} from {}\n", self.out.display(), from.display()))
    }
}
