//! `blackletter loss`

use super::model;
use crate::{failure::Failure, output};
use blackletter_model::{
    Checkpoint,
    decoder::{stored_batch_loss, use_threads},
};
use std::path::PathBuf;

/// Compute a model's training loss for a stored batch, and its gradients, to be compared with transformers
///
/// Prints one JSON object: `loss` (cross-entropy + coefficient x load-balancing loss), `cross_entropy`, `aux_loss`,
/// `aux_coefficient` and `targets` (the labels that count). The batch is a safetensors file of 64-bit integers [rows,
/// length]: `padded_input_ids` (or `input_ids`), `labels` (-100 is not counted; token i predicts label i + 1) and, where
/// there is padding, `attention_mask`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "EXAMPLE:\n  blackletter loss --model models/my --batch batch.safetensors --gradients gradients.safetensors"
)]
pub struct Args {
    /// The directory of a model in Hugging Face format; or owner/name[@revision], from the Hugging Face Hub.
    #[arg(long, value_name = "DIR|OWNER/NAME")]
    model: String,
    /// The stored batch.
    #[arg(long, value_name = "FILE.safetensors")]
    batch: PathBuf,
    /// Write the gradient of every weight there, under the weights' names, as float32.
    #[arg(long, value_name = "FILE.safetensors")]
    gradients: Option<PathBuf>,
    /// Threads [default: one per core]. Results do not depend on it.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
}

impl Args {
    pub fn run(self) -> Result<(), Failure> {
        if let Some(threads) = self.threads {
            use_threads(threads.into());
        }
        let checkpoint = Checkpoint::open(&model::directory(&self.model)?)?;
        let report = stored_batch_loss(&checkpoint, &self.batch, self.gradients.as_deref())?;
        output::print(serde_json::to_string(&report)? + "\n")
    }
}
