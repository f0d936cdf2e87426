//! `blackletter export`

use crate::{failure::Failure, output};
use blackletter_model::Dtype;
use blackletter_trainer::{ExportOptions, Which, export};
use std::path::PathBuf;

/// Write a model directory from a run
///
/// The directory holds what transformers loads: config.json, generation_config.json, model.safetensors, tokenizer.json,
/// tokenizer_config.json with the chat template, special_tokens_map.json.
#[derive(Debug, clap::Args)]
#[command(after_help = "EXAMPLE:\n  blackletter export --run runs/nano --out models/nano --dtype bf16")]
pub struct Args {
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
}

/// Number formats that transformers reads.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Form {
    /// bfloat16
    Bf16,
    /// 32-bit floats
    F32,
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
        let dtype = match self.dtype {
            Form::Bf16 => Dtype::BF16,
            Form::F32 => Dtype::F32,
        };
        let options = ExportOptions { dtype, averaged: self.averaged, which: self.checkpoint };
        let from = export(&self.run, &self.out, &options, &mut |note| eprintln!("note: {note}"))?;
        output::print(format!("{} from {}\n", self.out.display(), from.display()))
    }
}
