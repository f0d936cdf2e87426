//! `blackletter score`

use super::{
    model::ModelOptions,
    text::{Ids, read_text},
};
use crate::{failure::Failure, output};
use blackletter_tokenizer::SpecialTokens;
use std::path::PathBuf;

/// Measure how well a model predicts a text
///
/// Prints one JSON object: `tokens` (the ids scored), `token_logprobs` (natural, one for every token but the first,
/// which nothing predicts), `nll` (minus their sum), `perplexity` (exp(nll / predicted tokens)) and `bits_per_byte`
/// (nll / ln 2 / UTF-8 bytes of the predicted tokens; null for ids). Text longer than the context is scored in windows
/// that overlap by half, every token once.
#[derive(Debug, clap::Args)]
#[command(
    group = clap::ArgGroup::new("input").required(true).multiple(false),
    after_help = "EXAMPLE:\n  blackletter score --start --text \"No person shall be deprived of property.\""
)]
pub struct Args {
    /// Score a UTF-8 file, every character of it, or standard input for -.
    #[arg(value_name = "FILE", group = "input")]
    file: Option<PathBuf>,
    /// Score this text.
    #[arg(long, value_name = "TEXT", group = "input")]
    text: Option<String>,
    /// Score these token ids, such as 5,6,7; no tokenizer is needed.
    #[arg(long, value_name = "IDS", group = "input")]
    ids: Option<Ids>,
    /// Put <|start|> in front, so that the first token is predicted too.
    #[arg(long)]
    start: bool,
    /// Read special tokens such as <|end|> in the text as tokens; without this they are plain characters.
    #[arg(long)]
    parse_special: bool,
    #[command(flatten)]
    model: ModelOptions,
}

impl Args {
    pub fn run(self) -> Result<(), Failure> {
        let report = match (self.ids, self.text, self.file) {
            (Some(Ids(ids)), ..) => self.model.load(false)?.score_ids(ids, self.start)?,
            (None, text, file) => {
                let text = match (text, file) {
                    (Some(text), _) => text,
                    (None, Some(file)) => read_text(&file)?,
                    (None, None) => String::new(),
                };
                let special = if self.parse_special { SpecialTokens::Parse } else { SpecialTokens::AsText };
                self.model.load(true)?.score_text(&text, special, self.start)?
            }
        };
        output::print(serde_json::to_string(&report)? + "\n")
    }
}
