//! `blackletter eval memorization`

use super::{ResultOptions, Unit, load, watched};
use crate::{commands::model::ModelOptions, failure::Failure};
use blackletter_engine::ModelFiles;
use blackletter_evals::memorization::{self, MemorizationSettings};
use blackletter_trace::{Index, of_corpus};
use indicatif::{ProgressBar, ProgressStyle};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

/// Measure how much of its training data a model repeats
///
/// Gives the model prompts from random places of its training documents and counts how often it goes on word for word, by length of
/// the prompt; then lets it write freely and looks for the longest spans that stand in the training data. Every matched document is
/// named with its licence in the lines that --out writes.
#[derive(Debug, clap::Args)]
#[command(
    group = clap::ArgGroup::new("data").required(true).multiple(true),
    after_help = "EXAMPLES:\n  blackletter eval memorization --model ./nano --corpus corpus/ --samples 200 --out evals/\n  \
                  blackletter eval memorization --model ./nano --index index/ --out evals/"
)]
pub struct Args {
    /// The corpus that the model was trained on; an index of it is made with the model's tokenizer if there is none yet.
    #[arg(long, value_name = "DIR", group = "data")]
    corpus: Option<PathBuf>,
    /// The index of the training data, as `blackletter index` writes it. With --corpus, where its index is or is put [default there:
    /// beside the corpus, under its name and "-index"].
    #[arg(long, value_name = "DIR", group = "data")]
    index: Option<PathBuf>,
    /// Tokens of prompts, a list such as 16,32,64.
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_values_t = MemorizationSettings::default().prompt_tokens)]
    prompt_tokens: Vec<usize>,
    /// Tokens of continuations.
    #[arg(long, value_name = "N", default_value_t = MemorizationSettings::default().continuation)]
    continuation: usize,
    /// Places in documents, for each length of prompts.
    #[arg(long, value_name = "N", default_value_t = MemorizationSettings::default().samples)]
    samples: usize,
    /// Texts that are written freely.
    #[arg(long, value_name = "N", default_value_t = MemorizationSettings::default().texts)]
    texts: usize,
    /// Most tokens of a free text.
    #[arg(long, value_name = "N", default_value_t = MemorizationSettings::default().text_tokens)]
    text_tokens: usize,
    /// Temperature of free texts.
    #[arg(long, value_name = "T", default_value_t = MemorizationSettings::default().temperature)]
    temperature: f32,
    /// What makes the choices repeatable.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    model: ModelOptions,
    #[command(flatten)]
    result: ResultOptions,
}

impl Args {
    pub fn run(self) -> Result<(), Failure> {
        if self.prompt_tokens.contains(&0) || self.continuation == 0 {
            return Err(Failure::usage("--prompt-tokens and --continuation are numbers of at least 1"));
        }
        if !(self.temperature.is_finite() && self.temperature > 0.0) {
            return Err(Failure::usage("--temperature must be above 0"));
        }
        let settings = MemorizationSettings {
            prompt_tokens: self.prompt_tokens,
            continuation: self.continuation,
            samples: self.samples,
            texts: self.texts,
            text_tokens: self.text_tokens,
            temperature: self.temperature,
            seed: self.seed,
            ..MemorizationSettings::default()
        };
        // Before an index is made, which may take long.
        self.result.prepare()?;
        let index = match (&self.corpus, &self.index) {
            (Some(corpus), index) => {
                index_of(corpus, index.clone().unwrap_or_else(|| beside(corpus)), &self.model.files()?)?
            }
            (None, Some(index)) => Index::open(index)?,
            (None, None) => return Err(Failure::usage("name the training data with --corpus or --index")),
        };
        let (pipeline, subject) = load(&self.model, &self.result)?;
        let (result, trials) = watched(Unit::Things, |watch| {
            memorization::measure(&pipeline, subject, &index, &settings, watch)
        })?;
        self.result.finish("memorization", &result, &result.to_markdown(), &trials)
    }
}

/// The directory beside a corpus that its index is put into.
fn beside(corpus: &Path) -> PathBuf {
    // `corpus/`, `.` and the like have a name of their own.
    let whole = corpus.canonicalize().unwrap_or_else(|_| corpus.into());
    let name = whole.file_name().map_or_else(|| "corpus".into(), |name| name.to_string_lossy().into_owned());
    whole.with_file_name(format!("{name}-index"))
}

/// The index of a corpus, made if need be, with a bar that shows how far it is.
fn index_of(corpus: &Path, out: PathBuf, model: &ModelFiles) -> Result<Index, Failure> {
    let tokenizer = model
        .read("tokenizer.json")
        .ok_or_else(|| Failure::failed("the model has no tokenizer.json, and an index needs one"))?;
    let style =
        ProgressStyle::with_template("{msg} {wide_bar} {decimal_bytes}/{decimal_total_bytes} {elapsed}")?;
    let spinner = ProgressStyle::with_template("{spinner} {msg} {elapsed}")?;
    let bar = ProgressBar::new_spinner();
    bar.enable_steady_tick(Duration::from_millis(200));
    let index = of_corpus(corpus, &tokenizer, &out, &|step, counts| {
        bar.set_message(format!("index of the corpus: {step}"));
        match counts {
            Some((done, of)) => {
                bar.set_style(style.clone());
                bar.set_length(of);
                bar.set_position(done);
            }
            None => bar.set_style(spinner.clone()),
        }
    })?;
    bar.finish_and_clear();
    eprintln!("note: the index of the corpus is in {}", out.display());
    Ok(index)
}
