//! The record of a model that a command makes from others.

use crate::failure::Failure;
use blackletter_model::Checkpoint;
use blackletter_provenance::{Lineage, Made};
use serde_json::Value;
use std::path::Path;

/// Carries the record of `lineage` on to the model in `out`; where there is none to carry on, says so.
pub fn record(
    lineage: Lineage,
    operation: &str,
    settings: Value,
    description: &str,
    out: &Path,
) -> Result<(), Failure> {
    let config = Checkpoint::open(out)?.config;
    let name = out.canonicalize().ok().and_then(|out| Some(out.file_name()?.to_string_lossy().into_owned()));
    let parameters = (config.total_parameters(), config.active_parameters());
    let made = Made { operation, settings, name, description, parameters };
    if let Some(note) = lineage.write(made, out)?.note() {
        eprintln!("note: {note}");
    }
    Ok(())
}
