//! `blackletter bom`

use super::model;
use crate::{failure::Failure, output};
use blackletter_corpus::consumed;
use blackletter_evals::report;
use blackletter_provenance::{
    DOCUMENTS_FILE, ModelRecord,
    bom::{BomOptions, cyclonedx, eu_summary, spdx},
};
use std::{env, fs, path::PathBuf, time::SystemTime};

/// Write a bill of materials of a model
///
/// Says what went into the model, from its provenance.json, in the form asked for. SOURCE_DATE_EPOCH sets the date.
#[derive(Debug, clap::Args)]
#[command(after_help = "EXAMPLE:\n  blackletter bom --model ./nano --format cyclonedx --out nano.cdx.json")]
pub struct Args {
    /// The model: a directory, owner/name[@revision] on the Hugging Face Hub, or nano, the model inside the program.
    #[arg(long, value_name = "DIR|OWNER/NAME")]
    model: String,
    /// The form.
    #[arg(long, value_enum)]
    format: Format,
    /// Directories of results of `blackletter eval … --out`, whose figures go in.
    #[arg(long, value_name = "DIR")]
    evals: Vec<PathBuf>,
    /// The file to write [default: standard output].
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// CycloneDX 1.7, JSON, with a model card (ML-BOM)
    Cyclonedx,
    /// SPDX 3.0.1, JSON-LD, with the profiles AI and Dataset
    Spdx,
    /// The European Commission's template for the public summary of training content, Markdown
    EuSummary,
}

impl Args {
    pub fn run(self) -> Result<(), Failure> {
        let model = model::unpacked(&self.model)?;
        let record = ModelRecord::read(model.path())?;
        let list = model.path().join(DOCUMENTS_FILE);
        let domains = if list.is_file() { consumed::domains(&consumed::read(&list)?) } else { Vec::new() };
        if self.format == Format::EuSummary && !list.is_file() {
            eprintln!(
                "note: the model has no {DOCUMENTS_FILE} beside it: the summary names no internet domains"
            );
        }
        let (metrics, others) = report::metrics(&self.evals, &record)?;
        if !others.is_empty() {
            eprintln!("note: not of these weights as they are, so not in the bill: {}", others.join(", "));
        }
        let options = BomOptions { time: now(), metrics, domains };
        let text = match self.format {
            Format::Cyclonedx => serde_json::to_string_pretty(&cyclonedx(&record, &options))? + "\n",
            Format::Spdx => serde_json::to_string_pretty(&spdx(&record, &options))? + "\n",
            Format::EuSummary => eu_summary(&record, &options),
        };
        match self.out {
            None => output::print(text),
            Some(path) => fs::write(&path, text)
                .map_err(|e| Failure::failed(format!("cannot write {}: {e}", path.display()))),
        }
    }
}

/// Seconds since 1970, or what reproducible builds set in its place.
pub fn now() -> u64 {
    let set = env::var("SOURCE_DATE_EPOCH").ok().and_then(|text| text.parse().ok());
    set.unwrap_or_else(|| SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs()))
}
