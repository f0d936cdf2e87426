//! `blackletter quantize`

use super::model;
use crate::failure::Failure;
use blackletter_engine::{WeightDtype, quantise_checkpoint};
use blackletter_model::Checkpoint;
use blackletter_provenance::{Lineage, Made};
use serde_json::json;
use std::{fs, path::PathBuf};

/// Files beside the weights that go along.
const COMPANIONS: [&str; 13] = [
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "special_tokens_map.json",
    "added_tokens.json",
    "documents.parquet",
    "curves.svg",
    "README.md",
    "LICENSE",
    "LICENSE.md",
    "LICENSE.txt",
    "NOTICE",
];

/// Save a model with its weights quantized
///
/// Writes to a new directory what --dtype q8 or q4 makes when a model is loaded, so that later runs need not make it
/// again. Embedding, router and normalisations stay as they are; tokenizer, settings, licence and provenance go along.
#[derive(Debug, clap::Args)]
#[command(after_help = "EXAMPLE:\n  blackletter quantize ./kl3m-002-520m ./kl3m-002-520m-q4 --dtype q4")]
pub struct Args {
    /// The model: a directory, or owner/name[@revision] on the Hugging Face Hub.
    #[arg(value_name = "DIR|OWNER/NAME")]
    model: String,
    /// The directory to write; it must be empty or not there.
    #[arg(value_name = "OUT")]
    out: PathBuf,
    /// What to quantize to: blocks of 32 weights with 8 or 4 bits each and one scale.
    #[arg(long, value_name = "DTYPE")]
    dtype: Blocks,
    /// Threads [default: one per core].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Blocks {
    Q8,
    Q4,
}

impl Args {
    pub fn run(self) -> Result<(), Failure> {
        let source = model::directory(&self.model)?;
        let out = &self.out;
        let cannot = |e| Failure::failed(format!("cannot write to {}: {e}", out.display()));
        if out.exists() && fs::read_dir(out).map_err(cannot)?.next().is_some() {
            return Err(Failure::usage(format!("{} is not empty: name a new directory", out.display())));
        }
        let dtype = match self.dtype {
            Blocks::Q8 => WeightDtype::Q8,
            Blocks::Q4 => WeightDtype::Q4,
        };
        // A model that cannot be used leaves nothing behind.
        let config = Checkpoint::open(&source)?.config;
        let lineage = Lineage::of(&[&source], None)?;
        fs::create_dir_all(out).map_err(cannot)?;
        // The weights and config.json come last: until then, nobody takes the directory for a model.
        for name in COMPANIONS.iter().filter(|name| source.join(name).is_file()) {
            fs::copy(source.join(name), out.join(name)).map_err(cannot)?;
        }
        quantise_checkpoint(&source, out, dtype, self.threads.map(usize::from))?;
        let bits = if matches!(self.dtype, Blocks::Q8) { 8 } else { 4 };
        let carried = lineage.write(
            Made {
                operation: "quantize",
                settings: json!({ "bits": bits }),
                name: None,
                description: &format!("Weights in {bits}-bit blocks."),
                parameters: (config.total_parameters(), config.active_parameters()),
            },
            out,
        )?;
        if let Some(note) = carried.note() {
            eprintln!("note: {note}");
        }
        eprintln!("wrote {}", out.display());
        Ok(())
    }
}
