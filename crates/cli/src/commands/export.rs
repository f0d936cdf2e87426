//! `blackletter export`

use crate::{failure::Failure, output};
use blackletter_model::Dtype;
use blackletter_provenance::ModelIdentity;
use blackletter_trainer::{ExportOptions, RecordOptions, Which, export, record};
use std::path::PathBuf;

/// Write a model directory from a run
///
/// The directory holds what transformers loads: config.json, generation_config.json, model.safetensors, tokenizer.json,
/// tokenizer_config.json with the chat template, special_tokens_map.json. With --corpus also provenance.json, the record of what
/// went in, and documents.parquet, every document with the number of its tokens that were trained on; `blackletter audit` checks
/// them.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "EXAMPLE:\n  blackletter export --run runs/nano --out models/nano --dtype bf16 --corpus corpus/"
)]
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
    #[command(flatten)]
    record: RecordArgs,
}

/// What goes into the record.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Record")]
struct RecordArgs {
    /// Write the model's record: the corpus that the token store was made from.
    #[arg(long, value_name = "DIR")]
    corpus: Option<PathBuf>,
    /// The model's name [default: that of its directory].
    #[arg(long, value_name = "NAME", requires = "corpus")]
    name: Option<String>,
    /// A sentence about the model.
    #[arg(
        long,
        value_name = "TEXT",
        requires = "corpus",
        default_value = "A language model trained on legal text."
    )]
    description: String,
    /// Licence of the weights, an SPDX expression.
    #[arg(long, value_name = "SPDX", requires = "corpus")]
    license: Option<String>,
    /// Who made it.
    #[arg(long, value_name = "NAME", requires = "corpus")]
    creator: Option<String>,
    /// Its page.
    #[arg(long, value_name = "URL", requires = "corpus")]
    url: Option<String>,
    /// When it is published.
    #[arg(long, value_name = "YYYY-MM-DD", requires = "corpus")]
    published: Option<String>,
    /// The machine that it was trained on, as a person would say it.
    #[arg(long, value_name = "TEXT", requires = "corpus")]
    hardware: Option<String>,
    /// Commit of the program's source.
    #[arg(long, value_name = "HASH", requires = "corpus")]
    commit: Option<String>,
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
        if let Some(corpus) = self.record.corpus {
            let own = self.out.file_name().map(|name| name.to_string_lossy().into_owned());
            let identity = ModelIdentity {
                name: self.record.name.or(own).unwrap_or_default(),
                description: self.record.description,
                license: self.record.license,
                creator: self.record.creator,
                url: self.record.url,
                published: self.record.published,
                ..ModelIdentity::default()
            };
            let (hardware, commit) = (self.record.hardware, self.record.commit);
            let options = RecordOptions { corpus, identity, hardware, commit };
            record(&self.run, self.checkpoint, &self.out, &options, &mut |_| ())?;
        }
        output::print(format!("{} from {}\n", self.out.display(), from.display()))
    }
}
