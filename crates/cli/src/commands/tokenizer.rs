//! `blackletter tokenizer`

use super::text::read_text;
use crate::{
    failure::Failure,
    output::{self, Output},
};
use blackletter_corpus::texts::Texts;
use blackletter_tokenizer::{
    SpecialTokens, Tokenizer,
    stats::{Report, Stats},
    train::{self, TrainOptions, WordCounts},
};
use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};
use std::path::{Path, PathBuf};

/// Text held at a time while counting.
const BATCH_BYTES: usize = 32 << 20;

/// Train tokenizers and use them
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    Train(Train),
    Encode(Encode),
    Decode(Decode),
    Stats(StatsArgs),
}

impl Command {
    pub fn run(self) -> Result<(), Failure> {
        match self {
            Self::Train(args) => args.run(),
            Self::Encode(args) => args.run(),
            Self::Decode(args) => args.run(),
            Self::Stats(args) => args.run(),
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Recipe {
    /// Byte-level BPE, tokens for legal text and mark-up, every space a token of its own.
    #[value(name = train::RECIPE)]
    Kl3m001,
}

/// Train a tokenizer on a corpus
///
/// Writes tokenizer.json, which transformers and tokenizers load as it is, and training.json, which says what it was
/// trained on. The same texts give the same tokenizer.json, byte for byte.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "EXAMPLE:\n  blackletter tokenizer train --corpus corpus/ --vocab-size 32768 --out tokenizer/"
)]
pub struct Train {
    /// What to train on: directories and files of document shards (.parquet) or JSON lines (.jsonl, .jsonl.gz,
    /// .jsonl.zst) with a field `text`. Directories named `heldout` or `validation` are not entered.
    #[arg(long, value_name = "DIR", required = true, num_args = 1..)]
    corpus: Vec<PathBuf>,
    /// What goes into the vocabulary, and how.
    #[arg(long, default_value = train::RECIPE)]
    recipe: Recipe,
    /// The size to aim for; less comes out, still a power of two, where the corpus has too little text to learn from.
    #[arg(long, value_name = "N", default_value_t = TrainOptions::default().vocab_size)]
    vocab_size: usize,
    /// Join only pairs that occur at least so often.
    #[arg(long, value_name = "N", default_value_t = TrainOptions::default().min_frequency)]
    min_frequency: u64,
    /// Threads to use; all by default.
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// The directory to write to, which is made if need be.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

impl Train {
    fn run(self) -> Result<(), Failure> {
        let Recipe::Kl3m001 = self.recipe;
        let options = TrainOptions { vocab_size: self.vocab_size, min_frequency: self.min_frequency };
        options.check().map_err(Failure::usage)?;
        use_threads(self.threads)?;
        let mut words = WordCounts::new()?;
        in_batches(&self.corpus, |batch| {
            words.add(batch);
            Ok(())
        })?;
        eprintln!("{} different pieces of text; learning which to join", words.len());
        let trained = train::train(words, &options)?;
        trained.write(&self.out)?;
        if trained.vocab_size < self.vocab_size {
            eprintln!(
                "note: the vocabulary has {} entries, not {}: no further pair occurs {} times",
                trained.vocab_size, self.vocab_size, self.min_frequency
            );
        }
        let summary = serde_json::json!({
            "tokenizer": self.out.join("tokenizer.json"), "vocab_size": trained.vocab_size,
            "merges": trained.merges, "custom": trained.custom, "padding": trained.padding,
        });
        output::print(format!("{summary:#}\n"))
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// One JSON list of ids.
    Ids,
    /// One JSON list of the texts that the ids stand for.
    Tokens,
}

/// Turn text into tokens
///
/// Special tokens such as <|end|> that stand in the text are text, unless --parse-special is given.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "EXAMPLE:\n  echo -n 'Under this' | blackletter tokenizer encode --tokenizer tokenizer/"
)]
pub struct Encode {
    /// The directory with tokenizer.json.
    #[arg(long, value_name = "DIR")]
    tokenizer: PathBuf,
    /// What to print.
    #[arg(long, default_value = "ids")]
    format: Format,
    /// Turn special tokens in the text into their ids.
    #[arg(long)]
    parse_special: bool,
    /// Read JSON lines and print a list for the field `text` of each.
    #[arg(long)]
    jsonl: bool,
    /// The text, in UTF-8; standard input if none or `-` is given.
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
}

impl Encode {
    fn run(self) -> Result<(), Failure> {
        let tokenizer = Tokenizer::load(&self.tokenizer)?;
        let text = read_text(self.file.as_deref().unwrap_or(Path::new("-")))?;
        if !self.jsonl {
            return output::print(self.list(&tokenizer, &text)?);
        }
        let mut output = Output::stdout();
        for (line, json) in (1..).zip(text.lines()).filter(|(_, json)| !json.trim().is_empty()) {
            let row: serde_json::Value = serde_json::from_str(json)
                .map_err(|e| Failure::failed(format!("line {line} of the input is not JSON: {e}")))?;
            let text = row.get("text").and_then(|text| text.as_str());
            let text = text.ok_or_else(|| {
                Failure::failed(format!("line {line} of the input is not an object with a string `text`"))
            })?;
            output.write(self.list(&tokenizer, text)?)?;
        }
        output.flush()
    }

    fn list(&self, tokenizer: &Tokenizer, text: &str) -> Result<String, Failure> {
        let special = if self.parse_special { SpecialTokens::Parse } else { SpecialTokens::AsText };
        let ids = tokenizer.encode(text, special)?;
        let list = match self.format {
            Format::Ids => serde_json::to_string(&ids)?,
            Format::Tokens => {
                let tokens: Vec<String> = ids.iter().map(|&id| tokenizer.decode(&[id], false)).collect();
                serde_json::to_string(&tokens)?
            }
        };
        Ok(list + "\n")
    }
}

/// Turn ids back into text
///
/// Prints exactly the bytes that the ids stand for, with no line feed after them.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "EXAMPLE:\n  echo '[5549, 31673, 3341]' | blackletter tokenizer decode --tokenizer tokenizer/"
)]
pub struct Decode {
    /// The directory with tokenizer.json.
    #[arg(long, value_name = "DIR")]
    tokenizer: PathBuf,
    /// Leave special tokens out.
    #[arg(long)]
    skip_special: bool,
    /// A JSON list of ids; standard input if none or `-` is given.
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
}

impl Decode {
    fn run(self) -> Result<(), Failure> {
        let tokenizer = Tokenizer::load(&self.tokenizer)?;
        let list = read_text(self.file.as_deref().unwrap_or(Path::new("-")))?;
        let ids: Vec<u32> = serde_json::from_str(&list)
            .map_err(|e| Failure::failed(format!("the input is not a JSON list of ids: {e}")))?;
        if let Some((place, id)) = ids.iter().enumerate().find(|&(_, &id)| tokenizer.token(id).is_none()) {
            let size = tokenizer.vocab_size();
            return Err(Failure::failed(format!(
                "id {id}, number {place} of the list, is not in the vocabulary, which has ids below {size}"
            )));
        }
        let mut output = Output::stdout();
        output.write(tokenizer.decode_bytes(&ids, self.skip_special))?;
        output.flush()
    }
}

/// Measure how well a tokenizer fits a corpus
///
/// Prints JSON: bytes per token overall and per dataset, entries of the vocabulary that never occur, the longest tokens
/// that do; with --against, the same for another tokenizer and how many tokens it needs for each of ours.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "EXAMPLE:\n  blackletter tokenizer stats --tokenizer tokenizer/ --against gpt2/ corpus/"
)]
pub struct StatsArgs {
    /// The directory with tokenizer.json.
    #[arg(long, value_name = "DIR")]
    tokenizer: PathBuf,
    /// Another tokenizer's directory, to compare with.
    #[arg(long, value_name = "DIR")]
    against: Option<PathBuf>,
    /// Threads to use; all by default.
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Directories and files of texts, as for `tokenizer train`.
    #[arg(value_name = "CORPUS", required = true)]
    corpus: Vec<PathBuf>,
}

impl StatsArgs {
    fn run(self) -> Result<(), Failure> {
        use_threads(self.threads)?;
        let tokenizer = Tokenizer::load(&self.tokenizer)?;
        let other = self.against.as_deref().map(Tokenizer::load).transpose()?;
        let (mut stats, mut other) = (Stats::new(&tokenizer), other.as_ref().map(Stats::new));
        in_batches(&self.corpus, |batch| {
            stats.add(batch)?;
            if let Some(other) = &mut other {
                other.add(batch)?;
            }
            Ok(())
        })?;
        let report = stats.report();
        let mut json = serde_json::to_value(&report)?;
        if let (Some(other), Some(fields)) = (other, json.as_object_mut()) {
            let against = other.report();
            fields.insert("tokens_against".into(), tokens_against(&report, &against));
            fields.insert("against".into(), serde_json::to_value(against)?);
        }
        output::print(format!("{json:#}\n"))
    }
}

/// The other tokenizer's tokens for each of ours, in all and by dataset.
fn tokens_against(ours: &Report, other: &Report) -> serde_json::Value {
    let ratio = |ours: u64, other: u64| if ours == 0 { None } else { Some(other as f64 / ours as f64) };
    let datasets: serde_json::Map<String, serde_json::Value> = ours
        .datasets
        .iter()
        .map(|(name, counts)| {
            let other = other.datasets.get(name).map_or(0, |c| c.tokens);
            (name.clone(), ratio(counts.tokens, other).into())
        })
        .collect();
    serde_json::json!({ "total": ratio(ours.total.tokens, other.total.tokens), "datasets": datasets })
}

pub fn use_threads(threads: Option<usize>) -> Result<(), Failure> {
    let Some(threads) = threads else { return Ok(()) };
    if threads == 0 {
        return Err(Failure::usage("--threads must be at least 1"));
    }
    Ok(rayon::ThreadPoolBuilder::new().num_threads(threads).build_global()?)
}

/// Passes texts on in batches of (dataset, text), showing how far it is on standard error.
fn in_batches(
    paths: &[PathBuf],
    mut add: impl FnMut(&[(String, String)]) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let bar = ProgressBar::new_spinner();
    let style = ProgressStyle::with_template("{spinner} {decimal_bytes} of text, {decimal_bytes_per_sec}")?;
    bar.set_style(style);
    let (mut batch, mut bytes) = (Vec::new(), 0);
    for text in Texts::open(paths)? {
        let text = text?;
        bytes += text.text.len();
        bar.inc(text.text.len() as u64);
        batch.push((text.dataset, text.text));
        if bytes >= BATCH_BYTES {
            add(&batch)?;
            batch.clear();
            bytes = 0;
        }
    }
    add(&batch)?;
    bar.finish_and_clear();
    Ok(())
}
