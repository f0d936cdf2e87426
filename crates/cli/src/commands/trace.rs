//! `blackletter index` and `blackletter trace`

use super::text::read_text;
use crate::{failure::Failure, output};
use blackletter_evals::markdown::counted;
use blackletter_trace::{Found, Index, Inputs, Match, SpanOptions, build};
use indicatif::ProgressBar;
use std::{path::PathBuf, time::Duration};

/// Make an index for tracing texts to the documents that a model was trained on
///
/// Sorts all suffixes of the training documents' tokens, so that any span is found in them at once. The index is a directory
/// that `trace`, `generate --trace` and `eval memorization` map into memory; it takes 6 to 8 bytes a token.
#[derive(Debug, clap::Args)]
#[command(after_help = "EXAMPLE:\n  blackletter index --dataset tokens/ --corpus corpus/ --out index/")]
pub struct IndexArgs {
    /// The token store, as `blackletter dataset build` writes it.
    #[arg(long, value_name = "DIR")]
    dataset: PathBuf,
    /// The corpus that the store was made from: titles, licences and addresses come from it.
    #[arg(long, value_name = "DIR")]
    corpus: PathBuf,
    /// The directory to write to.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

impl IndexArgs {
    pub fn run(self) -> Result<(), Failure> {
        let bar = ProgressBar::new_spinner();
        bar.enable_steady_tick(Duration::from_millis(200));
        let inputs = Inputs { dataset: &self.dataset, corpus: &self.corpus };
        let made = build(inputs, &self.out, &|step| bar.set_message(step.to_owned()))?;
        bar.finish_and_clear();
        output::print(serde_json::to_string_pretty(&made)? + "\n")
    }
}

/// Find where spans of a text stand in the training data
///
/// Prints the longest spans of the text that occur in the documents that a model was trained on, and for each how often it
/// occurs and in which documents: title, licence, address, and the byte where it begins.
#[derive(Debug, clap::Args)]
#[command(
    group = clap::ArgGroup::new("input").required(true).multiple(false),
    after_help = "EXAMPLE:\n  blackletter trace --index index/ \"The Secretary shall prescribe such regulations as may be necessary\""
)]
pub struct TraceArgs {
    /// The text.
    #[arg(value_name = "TEXT", group = "input")]
    text: Option<String>,
    /// Trace a UTF-8 file, or standard input for -.
    #[arg(long, value_name = "FILE", group = "input")]
    file: Option<PathBuf>,
    /// The index, as `blackletter index` writes it.
    #[arg(long, value_name = "DIR")]
    index: PathBuf,
    /// Fewest tokens of a span.
    #[arg(long, value_name = "N", default_value_t = SpanOptions::default().min_tokens)]
    min_tokens: usize,
    /// Most documents that are named for a span.
    #[arg(long, value_name = "N", default_value_t = SpanOptions::default().documents)]
    documents: usize,
    /// Print one JSON object in place of text.
    #[arg(long)]
    json: bool,
}

impl TraceArgs {
    pub fn run(self) -> Result<(), Failure> {
        let text = match (self.text, self.file) {
            (Some(text), _) => text,
            (None, Some(file)) => read_text(&file)?,
            (None, None) => String::new(),
        };
        let index = Index::open(&self.index)?;
        if self.json {
            let options = SpanOptions { min_tokens: self.min_tokens, documents: self.documents };
            return output::print(serde_json::to_string_pretty(&index.trace(&text, options)?)? + "\n");
        }
        // One more than is named tells whether there are more.
        let options =
            SpanOptions { min_tokens: self.min_tokens, documents: self.documents.saturating_add(1) };
        output::print(shown(&index.trace(&text, options)?, self.documents))
    }
}

/// What was found, with at most so many documents of a span.
fn shown(found: &Found, most: usize) -> String {
    let mut out = format!(
        "{} of {} {} in spans that occur in the training data\n",
        found.covered,
        counted(found.tokens as u64, "token"),
        if found.covered == 1 { "is" } else { "are" }
    );
    for span in &found.spans {
        let (tokens, times) = (counted(span.tokens as u64, "token"), counted(span.occurrences, "time"));
        out.push_str(&format!("\n{:?}\n  {tokens} from byte {} on, {times}", span.text, span.byte));
        out.push_str(if most > 0 { ", in\n" } else { "\n" });
        for Match { document, offset } in span.documents.iter().take(most) {
            let title = document.title.as_deref().map(|title| format!(" “{title}”")).unwrap_or_default();
            let url = document.url.as_deref().map(|url| format!(", {url}")).unwrap_or_default();
            let license = &document.license;
            out.push_str(&format!("  - {}{title} at byte {offset}, {license}{url}\n", document.id));
        }
        if most > 0 && span.documents.len() > most {
            out.push_str("  - and in more documents (--documents names more)\n");
        }
    }
    out
}
