//! `blackletter audit`

use super::model;
use crate::{failure::Failure, output};
use blackletter_corpus::audit_model::audit_model;
use std::path::PathBuf;

/// Check a model against its record, from the weights to the documents
///
/// Computes anew what provenance.json says: the hash of every file, the root over the documents in documents.parquet, the sums by
/// source; with --corpus also every document's text. Prints JSON; names every file and document that differs, and then fails.
#[derive(Debug, clap::Args)]
#[command(after_help = "EXAMPLE:\n  blackletter audit ./nano --corpus corpus/")]
pub struct Args {
    /// The model: a directory, owner/name[@revision] on the Hugging Face Hub, or nano, the model inside the program.
    #[arg(value_name = "DIR|OWNER/NAME")]
    model: String,
    /// The corpus that it was trained on, to compare the texts themselves.
    #[arg(long, value_name = "DIR")]
    corpus: Option<PathBuf>,
}

impl Args {
    pub fn run(self) -> Result<(), Failure> {
        let model = model::unpacked(&self.model)?;
        let audit = audit_model(model.path(), self.corpus.as_deref())?;
        output::print(serde_json::to_string_pretty(&audit)? + "\n")?;
        match audit.findings.len() {
            0 => Ok(()),
            1 => Err(Failure::failed("the model is not what its record says: one thing differs")),
            n => Err(Failure::failed(format!("the model is not what its record says: {n} things differ"))),
        }
    }
}
