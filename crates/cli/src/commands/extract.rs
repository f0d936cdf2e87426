//! `blackletter extract`

use super::{model::ModelOptions, text::read_text};
use crate::{failure::Failure, interrupt, output::Output};
use blackletter_engine::{ExtractOptions, Extractor};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Map, Value, json};
use std::path::PathBuf;

/// Extract facts of documents as JSON, with the places where they stand
///
/// Prints one JSON object a line for each document: `file`, `value` (a document that the schema accepts), `evidence` (for every single
/// value, by JSON pointer: `start` and `end` in characters where the document says it word for word, else null), `windows` and
/// `complete`. A document beyond the context is read in windows, which are put together field by field.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "EXAMPLE:\n  blackletter extract --schema lease.json leases/*.txt --model ./legal | jq -c '.value'"
)]
pub struct Args {
    /// UTF-8 files, or - for standard input.
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// The JSON schema that every answer has to keep.
    #[arg(long, value_name = "FILE")]
    schema: PathBuf,
    /// What to ask of each document [default: Extract ... as JSON, with the names of the schema's properties].
    #[arg(long, value_name = "TEXT")]
    instructions: Option<String>,
    /// Most tokens of an answer.
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..))]
    max_new_tokens: u32,
    #[command(flatten)]
    model: ModelOptions,
}

impl Args {
    pub fn run(self) -> Result<(), Failure> {
        let schema: Value = serde_json::from_str(&read_text(&self.schema)?)
            .map_err(|e| Failure::failed(format!("{} is not JSON: {e}", self.schema.display())))?;
        let pipeline = self.model.load(true)?;
        let options = ExtractOptions {
            schema,
            instructions: self.instructions,
            max_new_tokens: self.max_new_tokens as usize,
        };
        let extractor = Extractor::new(&pipeline, options)?;
        interrupt::catch()?;
        let bar = ProgressBar::new(self.files.len() as u64);
        if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} documents, {eta} left") {
            bar.set_style(style);
        }
        let mut output = Output::stdout();
        let mut failed = 0;
        for path in &self.files {
            if interrupt::asked() {
                break;
            }
            // One document that cannot be read keeps no other from being read.
            let text = match read_text(path) {
                Ok(text) => text,
                Err(failure) => {
                    bar.suspend(|| failure.report());
                    failed += 1;
                    continue;
                }
            };
            let extraction = extractor.extract(&text)?;
            if !extraction.complete {
                let name = path.display();
                bar.suspend(|| {
                    eprintln!(
                        "incomplete: an answer to {name} ends before it is whole; raise --max-new-tokens"
                    )
                });
            }
            let mut line = Map::new();
            line.insert("file".into(), json!(path.display().to_string()));
            if let Value::Object(rest) = serde_json::to_value(&extraction)? {
                line.extend(rest);
            }
            output.write(Value::Object(line).to_string() + "\n")?;
            output.flush()?;
            bar.inc(1);
        }
        bar.finish_and_clear();
        interrupt::outcome()?;
        match failed {
            0 => Ok(()),
            n => Err(Failure::failed(format!("{n} of {} documents could not be read", self.files.len()))),
        }
    }
}
