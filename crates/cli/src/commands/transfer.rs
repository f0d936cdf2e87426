//! `blackletter corpus fetch` and `blackletter corpus export`

use crate::{failure::Failure, interrupt, output};
use blackletter_corpus::{
    build::BuildError,
    kl3m_data::{
        Stage, Store, StoreOptions,
        transfer::{self, Encoder, Transfer, TransferError, Transferred},
    },
    source::{Buckets, Decoder, Means, SourceError},
};
use blackletter_provenance::hash;
use blackletter_tokenizer::{SpecialTokens, Tokenizer};
use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

/// How a store is reached.
#[derive(Debug, clap::Args)]
pub struct Reach {
    /// Another server than Amazon's, such as http://127.0.0.1:9000.
    #[arg(long, value_name = "URL")]
    endpoint: Option<String>,
    /// Agree to pay for the transfer, as buckets such as kl3m-data's ask.
    #[arg(long)]
    requester_pays: bool,
    /// Seconds in which nothing arrives after which a request is tried again.
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
    timeout: u64,
}

impl Reach {
    fn open(self, location: &str) -> Result<Store, Failure> {
        Ok(Store::open(location, &self.options())?)
    }

    fn options(&self) -> StoreOptions {
        let (endpoint, requester_pays) = (self.endpoint.clone(), self.requester_pays);
        let timeout = Duration::from_secs(self.timeout);
        StoreOptions { endpoint, requester_pays, timeout, ..StoreOptions::default() }
    }

    /// Gives `work` what sources may need: buckets, whose objects are copied to a folder beside `out`, and tokenizers.
    pub fn with_means<T>(
        &self,
        out: &Path,
        work: impl FnOnce(Means<'_>) -> Result<T, BuildError>,
    ) -> Result<T, Failure> {
        interrupt::catch()?;
        let bar = objects_bar()?;
        let progress = |done, all| follow(&bar, done, all);
        let transfer = Transfer { progress: &progress, stop: &interrupt::asked };
        let buckets = Buckets { cache: Buckets::beside(out)?, options: self.options(), transfer };
        let done = work(Means { buckets: Some(&buckets), tokenizer: Some(&decoder) });
        bar.finish_and_clear();
        match done {
            Err(e) if e.is_stop() => {
                eprintln!("stopped; the same command goes on from here");
                Err(Failure::Interrupted)
            }
            Err(BuildError::Source(e @ SourceError::Address(_))) => Err(Failure::usage(e)),
            other => Ok(other?),
        }
    }
}

/// The way back from token ids, by the tokenizer in a directory.
fn decoder(folder: &Path) -> Result<Decoder, String> {
    let path = folder.join("tokenizer.json");
    let json = std::fs::read(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    let tokenizer = Tokenizer::from_bytes(&json).map_err(|e| e.to_string())?;
    let known = tokenizer.vocab_size();
    let decode = move |ids: &[u32]| match ids.iter().find(|&&id| id as usize >= known) {
        Some(id) => Err(format!("{id} is no id of the tokenizer, which has {known}")),
        None => Ok(tokenizer.decode(ids, false)),
    };
    Ok(Decoder { blake3: hash::hex(&json), decode: Arc::new(decode) })
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum StageName {
    /// Documents as collected.
    Documents,
    /// Texts as parsed.
    Representations,
    /// Token ids.
    Parquet,
    /// Which texts as parsed there are.
    Index,
}

impl From<StageName> for Stage {
    fn from(name: StageName) -> Self {
        match name {
            StageName::Documents => Self::Documents,
            StageName::Representations => Self::Representations,
            StageName::Parquet => Self::Parquet,
            StageName::Index => Self::Index,
        }
    }
}

/// Copy a store in kl3m-data's layout to a directory
///
/// Reads `s3://BUCKET[/PREFIX]` (in builds with `--features s3`) or another directory. What is there already is not read again, so
/// that an interrupted fetch goes on where it was. `corpus build` and `corpus ingest` read the directory. Credentials and region
/// come from the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION); without them requests go unsigned.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "EXAMPLE:\n  blackletter corpus fetch s3://data.kl3m.ai --requester-pays --dataset usc --limit 1000 --out kl3m/"
)]
pub struct Fetch {
    /// Where the objects are.
    #[arg(value_name = "LOCATION")]
    location: String,
    /// Only this dataset; may be given more than once.
    #[arg(long, value_name = "NAME")]
    dataset: Vec<String>,
    /// The stage to copy; may be given more than once.
    #[arg(long, value_enum, default_value = "representations")]
    stage: Vec<StageName>,
    /// At most this many objects of each stage and dataset.
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    #[command(flatten)]
    reach: Reach,
    /// The directory to write to.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

impl Fetch {
    pub fn run(self) -> Result<(), Failure> {
        let from = self.reach.open(&self.location)?;
        let to = Store::open(&self.out.to_string_lossy(), &StoreOptions::default())?;
        let mut stages: Vec<Stage> = self.stage.into_iter().map(Stage::from).collect();
        stages.sort_unstable();
        stages.dedup();
        carry_out(|transfer| transfer::fetch(&from, &to, &stages, &self.dataset, self.limit, transfer))
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Layout {
    /// documents/, representations/, parquet/ and index/, as kl3m-data has them.
    Kl3mData,
    /// data/PART-NNNNN.parquet with token ids, as published on the Hugging Face Hub.
    Hub,
}

/// Write a corpus for others to read
///
/// In kl3m-data's layout each document is an object with its metadata, licence and text, with a tokenizer its token ids, and each
/// dataset has an index; the Hub's layout is Parquet of token ids. Writes to a directory or to `s3://BUCKET[/PREFIX]` (in builds
/// with `--features s3`).
#[derive(Debug, clap::Args)]
#[command(
    after_help = "EXAMPLE:\n  blackletter corpus export corpus/ --layout hub --tokenizer tokenizer/ --to export/"
)]
pub struct Export {
    /// The corpus.
    #[arg(value_name = "DIR")]
    corpus: PathBuf,
    /// How it is laid out.
    #[arg(long, value_enum, default_value = "kl3m-data")]
    layout: Layout,
    /// The tokenizer of the token ids; the Hub's layout needs one.
    #[arg(long, value_name = "DIR")]
    tokenizer: Option<PathBuf>,
    /// Where it goes.
    #[arg(long, value_name = "LOCATION")]
    to: String,
    #[command(flatten)]
    reach: Reach,
}

impl Export {
    pub fn run(self) -> Result<(), Failure> {
        if self.tokenizer.is_none() && matches!(self.layout, Layout::Hub) {
            return Err(Failure::usage(
                "--layout hub holds token ids: name a tokenizer with --tokenizer DIR",
            ));
        }
        let tokenizer = self.tokenizer.as_deref().map(Tokenizer::load).transpose()?;
        let name = self.tokenizer.as_deref().and_then(|dir| dir.file_name());
        let name = name.map_or_else(|| "tokenizer".to_owned(), |name| name.to_string_lossy().into_owned());
        let encode = |text: &str| match &tokenizer {
            Some(tokenizer) => tokenizer.encode(text, SpecialTokens::AsText).map_err(|e| e.to_string()),
            None => Ok(Vec::new()),
        };
        let encoder = tokenizer.is_some().then_some(Encoder { name: &name, encode: &encode });
        let to = self.reach.open(&self.to)?;
        carry_out(|transfer| match (self.layout, encoder) {
            (Layout::Hub, Some(encoder)) => transfer::export_tokens(&self.corpus, &to, encoder, transfer),
            (_, encoder) => transfer::export(&self.corpus, &to, encoder, transfer),
        })
    }
}

/// A bar over objects, on a terminal.
fn objects_bar() -> Result<ProgressBar, Failure> {
    let style = ProgressStyle::with_template("{wide_bar} {pos}/{len} {per_sec} {eta}")?;
    Ok(ProgressBar::new(0).with_style(style))
}

fn follow(bar: &ProgressBar, done: u64, all: Option<u64>) {
    if let Some(all) = all {
        bar.set_length(all);
    }
    bar.set_position(done);
}

/// Carries out a transfer with a bar on standard error, and prints what it did.
fn carry_out(work: impl FnOnce(Transfer<'_>) -> Result<Transferred, TransferError>) -> Result<(), Failure> {
    interrupt::catch()?;
    let bar = objects_bar()?;
    let progress = |done, all| follow(&bar, done, all);
    let done = work(Transfer { progress: &progress, stop: &interrupt::asked });
    bar.finish_and_clear();
    match done {
        Err(TransferError::Stopped) => {
            eprintln!("stopped; the same command goes on from here");
            Err(Failure::Interrupted)
        }
        Err(e) => Err(e.into()),
        Ok(done) => {
            let summary = serde_json::json!({ "written": done.written, "already_there": done.there, "bytes": done.bytes });
            output::print(format!("{summary:#}\n"))
        }
    }
}
