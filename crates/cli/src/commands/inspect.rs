//! `blackletter inspect`

use super::model;
use crate::{failure::Failure, output};
use blackletter_model::Description;

/// Show what a model is
///
/// Prints architecture, geometry, parameters in total and active per token, dtypes, size, tokenizer and stated licence.
/// Weights are checked against the configuration, not read.
#[derive(Debug, clap::Args)]
#[command(after_help = "EXAMPLE:\n  blackletter inspect ./kl3m-002-520m --json")]
pub struct Args {
    /// A model directory, owner/name[@revision] on the Hugging Face Hub, or nano, the model inside the program.
    #[arg(value_name = "DIR|OWNER/NAME")]
    model: String,
    /// Print one JSON object in place of text.
    #[arg(long)]
    json: bool,
}

impl Args {
    pub fn run(self) -> Result<(), Failure> {
        let files = model::find(&self.model)?;
        let description = Description::new(&files.checkpoint()?, &|name| files.read(name));
        if self.json {
            return output::print(serde_json::to_string_pretty(&description)? + "\n");
        }
        output::print(description.to_string())
    }
}
