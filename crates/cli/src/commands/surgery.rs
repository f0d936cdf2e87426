//! `blackletter surgery`

use super::{derived, model};
use crate::{failure::Failure, output};
use blackletter_model::{
    Checkpoint,
    surgery::{SurgeryError, add_layers, average, copy_companions, extend_context, resize_vocab},
};
use blackletter_provenance::Lineage;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Make models from models: averages, longer contexts, more layers, other vocabularies
///
/// Where the models have records of what they were made from, the new one has a record too, which names the operation and the
/// hashes of the models.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    Average(Average),
    ExtendContext(ExtendContext),
    AddLayers(AddLayers),
    ResizeVocab(ResizeVocab),
}

impl Command {
    pub fn run(self) -> Result<(), Failure> {
        match self {
            Self::Average(args) => args.run(),
            Self::ExtendContext(args) => {
                let step = Step {
                    operation: "extend-context",
                    settings: json!({ "context": args.context, "rope_theta": args.rope_theta }),
                    description: "With a longer context.",
                };
                operate(&args.model, &args.out, step, |m, out| {
                    extend_context(m, size(args.context), args.rope_theta, out)
                })
            }
            Self::AddLayers(args) => {
                let step = Step {
                    operation: "add-layers",
                    settings: json!({ "layers": args.layers }),
                    description: "With more layers.",
                };
                operate(&args.model, &args.out, step, |m, out| add_layers(m, size(args.layers), out))
            }
            Self::ResizeVocab(args) => {
                let step = Step {
                    operation: "resize-vocab",
                    settings: json!({ "tokens": args.tokens }),
                    description: "With another number of tokens.",
                };
                operate(&args.model, &args.out, step, |m, out| resize_vocab(m, size(args.tokens), out))
            }
        }
    }
}

/// What the record says of an operation.
struct Step {
    operation: &'static str,
    settings: Value,
    description: &'static str,
}

fn size(n: u32) -> usize {
    n as usize
}

/// Opens a model, makes another one of it, copies tokenizer and settings, and carries its record on.
fn operate(
    name: &str,
    out: &Path,
    step: Step,
    operation: impl FnOnce(&Checkpoint, &Path) -> Result<(), SurgeryError>,
) -> Result<(), Failure> {
    let dir = model::directory(name)?;
    let lineage = Lineage::of(&[&dir], None)?;
    operation(&Checkpoint::open(&dir)?, out)?;
    copy_companions(&dir, out)?;
    derived::record(lineage, step.operation, step.settings, step.description, out)?;
    output::print(format!("{}\n", out.display()))
}

/// Average models of one geometry, weight by weight
///
/// The models should be checkpoints of one run, or of runs from one start; the first one's tokenizer and settings go along.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "EXAMPLE:\n  blackletter surgery average models/step-800 models/step-900 models/step-1000 --out models/mean"
)]
pub struct Average {
    /// Model directories.
    #[arg(value_name = "DIR", required = true, num_args = 2..)]
    models: Vec<String>,
    /// The model directory to write.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

impl Average {
    fn run(self) -> Result<(), Failure> {
        let dirs = self.models.iter().map(|name| model::directory(name)).collect::<Result<Vec<_>, _>>()?;
        let models = dirs.iter().map(|dir| Checkpoint::open(dir)).collect::<Result<Vec<_>, _>>()?;
        let lineage = Lineage::of(&dirs, None)?;
        average(&models, &self.out)?;
        if let Some(first) = dirs.first() {
            copy_companions(first, &self.out)?;
        }
        derived::record(lineage, "average", Value::Null, "The mean of several models.", &self.out)?;
        output::print(format!("{}\n", self.out.display()))
    }
}

/// Give a model a longer context
///
/// Without --rope-theta, texts that fit the old context have the same outputs; longer ones need training.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "EXAMPLE:\n  blackletter surgery extend-context --model models/nano --context 4096 --out models/nano-4k"
)]
pub struct ExtendContext {
    /// The model's directory; or owner/name[@revision], from the Hugging Face Hub.
    #[arg(long, value_name = "DIR|OWNER/NAME")]
    model: String,
    /// The new context in tokens.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1 << 24))]
    context: u32,
    /// Another base of the rotary angles, which changes all outputs; larger for longer contexts.
    #[arg(long, value_name = "X")]
    rope_theta: Option<f64>,
    /// The model directory to write.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// Give a model more layers that change nothing until they are trained
///
/// Each new layer is a copy of the one before it with its outputs set to zero; they are spread evenly.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "EXAMPLE:\n  blackletter surgery add-layers --model models/nano --layers 2 --out models/nano-8"
)]
pub struct AddLayers {
    /// The model's directory; or owner/name[@revision], from the Hugging Face Hub.
    #[arg(long, value_name = "DIR|OWNER/NAME")]
    model: String,
    /// How many layers to add.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    layers: u32,
    /// The model directory to write.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// Give a model another number of tokens
///
/// New rows of embedding and output layer are the mean of the old ones; the logits of tokens that stay do not change. Fewer
/// tokens cut the last ones off. The tokenizer is copied as it is.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "EXAMPLE:\n  blackletter surgery resize-vocab --model models/nano --tokens 16400 --out models/nano-more"
)]
pub struct ResizeVocab {
    /// The model's directory; or owner/name[@revision], from the Hugging Face Hub.
    #[arg(long, value_name = "DIR|OWNER/NAME")]
    model: String,
    /// The new number of tokens.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1 << 24))]
    tokens: u32,
    /// The model directory to write.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}
