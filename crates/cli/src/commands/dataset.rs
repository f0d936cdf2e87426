//! `blackletter dataset`

use crate::{
    commands::{corpus::gate, tokenizer::use_threads},
    failure::Failure,
    output,
};
use blackletter_dataset::{
    Inputs, Padding, Progress, Rights, RowStream, StreamConfig, TokenStore, build,
    derive::{self, DeriveOptions, Part},
    show,
};
use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};
use std::path::PathBuf;

/// Make token stores and look at the rows that training sees
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    Build(Build),
    Sft(Sft),
    Show(Show),
}

impl Command {
    pub fn run(self) -> Result<(), Failure> {
        match self {
            Self::Build(args) => args.run(),
            Self::Sft(args) => args.run(),
            Self::Show(args) => args.run(),
        }
    }
}

/// Turn a corpus into a token store
///
/// Writes Arrow IPC files of token ids with id, dataset and licence of every document, the tokenizer, and manifest.json: hashes
/// of corpus and tokenizer, documents, bytes and tokens by dataset and licence. The corpus' held-out part stays apart. Lines of
/// examples that cannot be used, examples from held-out documents, and examples without a licence that allows it are left out
/// and counted by reason; what documents of the corpus answer goes by the corpus' own record. The same inputs give the same
/// files.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "EXAMPLE:\n  blackletter dataset build --corpus corpus/ --tokenizer tokenizer/ --sft examples.jsonl --out store/"
)]
pub struct Build {
    /// The corpus, as `corpus build` makes it.
    #[arg(long, value_name = "DIR")]
    corpus: PathBuf,
    /// The directory with tokenizer.json.
    #[arg(long, value_name = "DIR")]
    tokenizer: PathBuf,
    /// Supervised examples: JSON lines with `instruction`, `input` (if any) and `output`, or with `messages`; and `kind`,
    /// `document`, `dataset`, `license` and `license_basis`, if they have them.
    #[arg(long, value_name = "FILE", num_args = 1..)]
    sft: Vec<PathBuf>,
    /// Licence of examples that state none: an SPDX expression, or a rule of law such as `17 U.S.C. 105`.
    #[arg(long, value_name = "SPDX")]
    license: Option<String>,
    /// Why that licence holds.
    #[arg(long, value_name = "TEXT")]
    license_basis: Option<String>,
    /// Licences of examples that may be used, in place of the default list; `*` stands for any ending of a LicenseRef.
    #[arg(long, value_name = "SPDX")]
    allow: Vec<String>,
    /// Accept another licence of examples by name, for a reason that goes into the manifest.
    #[arg(long, value_name = "REF=REASON")]
    accept: Vec<String>,
    /// Threads to use; all by default.
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// The directory to write to: new, empty, or an earlier store, which is replaced.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

impl Build {
    fn run(self) -> Result<(), Failure> {
        use_threads(self.threads)?;
        let bar = bar()?;
        let mut progress = |progress| {
            let (what, done, all) = match progress {
                Progress::Documents(done, all) => ("documents", done, all),
                Progress::Examples(done, all) => ("examples", done, all),
            };
            bar.set_message(what);
            bar.set_length(all);
            bar.set_position(done);
        };
        let (license, license_basis) = (self.license, self.license_basis);
        let rights = Rights { gate: gate(&self.allow, &self.accept)?, license, license_basis };
        let inputs = Inputs { corpus: Some(self.corpus), tokenizer: self.tokenizer, sft: self.sft, rights };
        let manifest = build(&inputs, &self.out, &mut progress)?;
        bar.finish_and_clear();
        manifest.sft.left_out().iter().for_each(|note| eprintln!("note: {note}"));
        let summary = serde_json::json!({
            "store": self.out, "corpus": manifest.corpus.root, "tokenizer": manifest.tokenizer.blake3,
            "vocabulary": manifest.tokenizer.vocabulary, "train": manifest.train.total,
            "heldout": manifest.heldout.total, "examples": manifest.sft.examples,
            "example_tokens": manifest.sft.tokens, "answer_tokens": manifest.sft.answer_tokens,
        });
        output::print(format!("{summary:#}\n"))
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Which {
    /// All documents but the held-out ones.
    Train,
    /// The held-out documents.
    Heldout,
}

/// Derive supervised examples from a corpus
///
/// Asks documents what they answer themselves: a section's heading, text and citation, what a term means, the clause that a
/// heading names, title, date, citation, parties and amounts as JSON. Every answer stands in its document. Writes JSON lines with
/// `kind`, `instruction`, `input`, `output`, and `document`, `dataset` and `license`; prints how many there are of each kind and
/// why others were left out. The same corpus gives the same lines.
#[derive(Debug, clap::Args)]
#[command(after_help = "EXAMPLE:\n  blackletter dataset sft --corpus corpus/ --out examples.jsonl")]
pub struct Sft {
    /// The corpus, as `corpus build` or `corpus ingest` makes it.
    #[arg(long, value_name = "DIR")]
    corpus: PathBuf,
    /// Which documents to ask.
    #[arg(long, default_value = "train")]
    part: Which,
    /// Most bytes of instruction, input and output together.
    #[arg(long, value_name = "N", default_value_t = DeriveOptions::default().max_bytes)]
    max_bytes: usize,
    /// Threads to use; all by default.
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// The file to write.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

impl Sft {
    fn run(self) -> Result<(), Failure> {
        use_threads(self.threads)?;
        if self.max_bytes < derive::LEAST_BYTES {
            return Err(Failure::usage(format!("--max-bytes must be at least {}", derive::LEAST_BYTES)));
        }
        let bar = bar()?;
        let mut progress = |done, all| {
            bar.set_message(if done * 2 < all { "terms" } else { "examples" });
            bar.set_length(all);
            bar.set_position(done);
        };
        let part = match self.part {
            Which::Train => Part::Train,
            Which::Heldout => Part::Heldout,
        };
        let options = DeriveOptions { part, max_bytes: self.max_bytes };
        let derivation = derive::derive(&self.corpus, &self.out, options, &mut progress)?;
        bar.finish_and_clear();
        if derivation.examples == 0 {
            eprintln!("note: no document answered any question");
        }
        output::print(format!("{:#}\n", serde_json::to_value(&derivation)?))
    }
}

/// A bar over bytes, on a terminal.
fn bar() -> Result<ProgressBar, Failure> {
    let template = "{msg:<12} {wide_bar} {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec}";
    Ok(ProgressBar::new(0).with_style(ProgressStyle::with_template(template)?))
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum HowPadded {
    /// One segment a row, padding at random left and right.
    Random,
    /// Several segments a row.
    Pack,
}

/// Show a row that training sees
///
/// Prints what the row is made of, with document, dataset and licence of every part, and its text with special tokens. Rows are
/// the same as in a training run with the same settings.
#[derive(Debug, clap::Args)]
#[command(after_help = "EXAMPLE:\n  blackletter dataset show store/ --row 17 --context 512 --padding pack")]
pub struct Show {
    /// The store.
    #[arg(value_name = "DIR")]
    store: PathBuf,
    /// The row's number, from 0.
    #[arg(long, value_name = "N")]
    row: u64,
    /// The epoch, from 0.
    #[arg(long, value_name = "N", default_value_t = 0)]
    epoch: u64,
    /// Tokens of a row.
    #[arg(long, value_name = "N", default_value_t = StreamConfig::default().context)]
    context: usize,
    /// How rows are filled.
    #[arg(long, default_value = "pack")]
    padding: HowPadded,
    /// Another number gives other rows.
    #[arg(long, value_name = "N", default_value_t = StreamConfig::default().seed)]
    seed: u64,
    /// Share of rows that hold supervised examples, from 0 to 1.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    sft_weight: f64,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

impl Show {
    fn run(self) -> Result<(), Failure> {
        let store = TokenStore::open(&self.store)?;
        let config = StreamConfig {
            context: self.context,
            padding: match self.padding {
                HowPadded::Random => Padding::Random,
                HowPadded::Pack => Padding::Pack,
            },
            seed: self.seed,
            sft_weight: self.sft_weight,
            ..StreamConfig::default()
        };
        let stream = RowStream::new(&store, &config)?;
        let shown = show::show(&stream, self.epoch, self.row)?;
        if self.json {
            return output::print(format!("{:#}\n", serde_json::to_value(&shown)?));
        }
        output::print(shown.to_text())
    }
}
