//! `blackletter export gguf`

use super::model;
use crate::failure::Failure;
use blackletter_model::{
    Checkpoint,
    gguf::{GgufType, write_gguf},
};
use blackletter_provenance::folder_name;
use std::{fs, path::PathBuf};

/// Write a model as a GGUF file, which llama.cpp loads
///
/// The file holds weights and tokenizer. llama.cpp knows no sliding window for this architecture: it gives the model's own results
/// as long as prompt and output fit the window, and others beyond it.
#[derive(Debug, clap::Args)]
#[command(after_help = "EXAMPLE:\n  blackletter export gguf ./nano --dtype q8_0 --out nano.gguf")]
pub struct Args {
    /// The model: a directory, or owner/name[@revision] on the Hugging Face Hub.
    #[arg(value_name = "DIR|OWNER/NAME")]
    model: String,
    /// The form of the matrices; router and normalisations stay f32.
    #[arg(long, value_enum, default_value_t = Kind::F16)]
    dtype: Kind,
    /// The file to write.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Kind {
    /// 32-bit floats
    F32,
    /// IEEE half floats
    F16,
    /// bfloat16
    Bf16,
    /// 8-bit blocks of 32 weights with one scale
    #[value(name = "q8_0")]
    Q8,
}

impl Args {
    pub fn run(self) -> Result<(), Failure> {
        let folder = model::directory(&self.model)?;
        let checkpoint = Checkpoint::open(&folder)?;
        let kind = match self.dtype {
            Kind::F32 => GgufType::F32,
            Kind::F16 => GgufType::F16,
            Kind::Bf16 => GgufType::Bf16,
            Kind::Q8 => GgufType::Q8_0,
        };
        let path = folder.join("tokenizer.json");
        let tokenizer =
            fs::read(&path).map_err(|e| Failure::failed(format!("cannot read {}: {e}", path.display())))?;
        let name = folder_name(&folder);
        let written = write_gguf(&checkpoint, &tokenizer, &name, kind, &self.out)?;
        eprintln!("wrote {}: {} tensors, {} bytes", self.out.display(), written.tensors, written.bytes);
        if let Some(window) = written.window {
            eprintln!(
                "note: llama.cpp ignores this model's sliding window of {window} tokens: its results are the model's while prompt and \
                 output together fit the window"
            );
        }
        Ok(())
    }
}
