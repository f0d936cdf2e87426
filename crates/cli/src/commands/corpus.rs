//! `blackletter corpus`

use crate::{
    commands::{
        tokenizer::use_threads,
        transfer::{Export, Fetch, Reach},
    },
    failure::Failure,
    interrupt, output,
};
use blackletter_corpus::{
    audit,
    build::{self, Origin, Plan, Stage},
    look,
    recipe::{Recipe, check_dedup, check_split},
    rules::Limit,
    source::{Paths, SourceSpec},
    steps::{DedupSettings, Event, FilterSettings, SplitSettings, Watch},
};
use blackletter_provenance::{Dataset, Gate, Provenance};
use indicatif::{ProgressBar, ProgressStyle};
use std::{
    env,
    path::{Path, PathBuf},
    sync::Mutex,
};

/// Make corpora of text that may lawfully be trained on
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    Build(Build),
    Ingest(Ingest),
    Filter(Filter),
    Dedup(Dedup),
    Split(Split),
    Stats(Stats),
    Show(Show),
    Audit(Audit),
    Fetch(Fetch),
    Export(Export),
}

impl Command {
    pub fn run(self) -> Result<(), Failure> {
        match self {
            Self::Build(args) => args.run(),
            Self::Ingest(args) => args.run(),
            Self::Filter(args) => args.run(),
            Self::Dedup(args) => args.run(),
            Self::Split(args) => args.run(),
            Self::Stats(args) => args.run(),
            Self::Show(args) => args.run(),
            Self::Audit(args) => args.run(),
            Self::Fetch(args) => args.run(),
            Self::Export(args) => args.run(),
        }
    }
}

/// Where a result goes, and how it is made.
#[derive(Debug, clap::Args)]
pub struct To {
    /// The directory to write to: new, empty, or one of an earlier run, whose finished work is not done again.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Threads to use; all by default.
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
}

/// Make a corpus by a recipe
///
/// Reads the recipe's sources, lets pass what its licences allow, cleans, scores, filters, removes duplicates and splits off a
/// held-out part. Writes shards of Parquet, report.json and REPORT.md (what came in, what was kept, what was dropped and why),
/// provenance.json (every source, licence and hash) and croissant.json. Can be interrupted at any moment: the same command goes
/// on from there, and does again only what has changed.
///
/// Sources in buckets, `s3://BUCKET[/PREFIX]` (in builds with `--features s3`), are copied to OUT.fetched beside the output before
/// they are read; what is there already is not copied again.
#[derive(Debug, clap::Args)]
#[command(after_help = "EXAMPLE:\n  blackletter corpus build recipes/law.toml --out corpus/")]
pub struct Build {
    /// The recipe, in TOML; its relative paths start at its own directory.
    #[arg(value_name = "RECIPE")]
    recipe: PathBuf,
    #[command(flatten)]
    reach: Reach,
    #[command(flatten)]
    to: To,
}

impl Build {
    fn run(self) -> Result<(), Failure> {
        let recipe = Recipe::read(&self.recipe)?;
        // The parent of a name alone is an empty path.
        let base = self.recipe.parent().filter(|base| !base.as_os_str().is_empty()).unwrap_or(Path::new("."));
        use_threads(self.to.threads)?;
        let plan = self.reach.with_means(&self.to.out, |means| Plan::of_recipe_with(&recipe, base, means))?;
        self.to.follow(&plan)
    }
}

/// Read files into a corpus
///
/// Reads JSON lines (.jsonl, .jsonl.gz, .jsonl.zst), Parquet (.parquet), directories in kl3m-data's layout, and original files
/// in any format that can be told by content: bills, USLM, Federal Register, eCFR, case law, dockets, EDGAR, patents, HTML,
/// PDF, DOCX, ZIP, Markdown, text; and the same in buckets, as `corpus build` does. Lets pass what may be used, drops empty texts,
/// counts what cannot be read.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "EXAMPLE:\n  blackletter corpus ingest bills/*.xml --dataset bills --license 'LicenseRef-public-domain-17-USC-105' \
                  --license-basis '17 U.S.C. 105' --out bills-corpus/"
)]
pub struct Ingest {
    /// Files, directories, patterns and s3:// addresses to read. Directories named `heldout` or `validation` are not entered.
    #[arg(value_name = "FILE", required = true)]
    files: Vec<String>,
    /// The dataset that the documents go under; what they state themselves, or the file's name, by default.
    #[arg(long, value_name = "NAME")]
    dataset: Option<String>,
    /// Licence of documents that state none: an SPDX expression, or a rule of law such as `17 U.S.C. 105`.
    #[arg(long, value_name = "SPDX")]
    license: Option<String>,
    /// Why that licence holds.
    #[arg(long, value_name = "TEXT")]
    license_basis: Option<String>,
    /// Who published documents that do not say so.
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
    /// Licences that may be used, in place of the default list; `*` stands for any ending of a LicenseRef.
    #[arg(long, value_name = "SPDX")]
    allow: Vec<String>,
    /// Accept another licence by name, for a reason that goes into the record.
    #[arg(long, value_name = "REF=REASON")]
    accept: Vec<String>,
    /// Directory of the tokenizer of token ids, for Parquet that holds ids and no text.
    #[arg(long, value_name = "DIR")]
    tokenizer: Option<String>,
    #[command(flatten)]
    reach: Reach,
    #[command(flatten)]
    to: To,
}

impl Ingest {
    fn run(self) -> Result<(), Failure> {
        let gate = gate(&self.allow, &self.accept)?;
        let spec = SourceSpec {
            path: Paths::Many(self.files),
            dataset: self.dataset,
            license: self.license,
            license_basis: self.license_basis,
            source: self.source,
            url: None,
            tokenizer: self.tokenizer,
        };
        use_threads(self.to.threads)?;
        let base = env::current_dir()?;
        let sources =
            self.reach.with_means(&self.to.out, |means| Ok(build::sources(&[spec], &base, means)?))?;
        let name =
            self.to.out.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let description = format!("The corpus `{name}`, read from files.");
        let dataset = Dataset { name, description, ..Dataset::default() };
        self.to.follow(&Plan { origin: Origin::Sources { sources, gate }, stages: Vec::new(), dataset })
    }
}

/// The licence gate of an allow-list, the default one where there is none, and of acceptances `REF=REASON`.
pub(super) fn gate(allow: &[String], accept: &[String]) -> Result<Gate, Failure> {
    let pair = |given: &String| {
        let pair = given.split_once('=').map(|(name, reason)| (name.trim().to_owned(), reason.to_owned()));
        pair.ok_or_else(|| Failure::usage(format!("--accept {given}: write LicenseRef-NAME=REASON")))
    };
    let accept = accept.iter().map(pair).collect::<Result<_, _>>()?;
    Gate::new((!allow.is_empty()).then_some(allow), &accept).map_err(Failure::usage)
}

/// Drop what is no text worth learning from
///
/// Measures quality, then drops documents by score and by rules of repetition and shape. REPORT.md says what each rule did.
#[derive(Debug, clap::Args)]
#[command(after_help = "EXAMPLE:\n  blackletter corpus filter corpus/ --max-score 5 --out filtered/")]
pub struct Filter {
    /// The corpus.
    #[arg(value_name = "DIR")]
    corpus: PathBuf,
    /// Take limits from the [filter] of this recipe.
    #[arg(long, value_name = "RECIPE")]
    recipe: Option<PathBuf>,
    /// Greatest quality score; lower is better.
    #[arg(long, value_name = "SCORE")]
    max_score: Option<f64>,
    /// Fewest words.
    #[arg(long, value_name = "N")]
    min_words: Option<f64>,
    #[command(flatten)]
    to: To,
}

impl Filter {
    fn run(self) -> Result<(), Failure> {
        let mut settings = match &self.recipe {
            Some(path) => Recipe::read(path)?.filter,
            None => FilterSettings::default(),
        };
        for (given, name) in [(self.max_score, "--max-score"), (self.min_words, "--min-words")] {
            if given.is_some_and(|limit| !limit.is_finite() || limit < 0.0) {
                return Err(Failure::usage(format!("{name} must be a number that is not negative")));
            }
        }
        if self.max_score.is_some() {
            settings.max_score = Limit(self.max_score);
        }
        if self.min_words.is_some() {
            settings.rules.min_words = Limit(self.min_words);
        }
        self.to.carry_out(&Plan::of_corpus(&self.corpus, vec![Stage::Score, Stage::Filter(settings)])?)
    }
}

/// Drop documents that stand in a corpus more than once
///
/// Finds documents with the same words, and by MinHash those with nearly the same; of these the one with the best quality score
/// stays.
#[derive(Debug, clap::Args)]
#[command(after_help = "EXAMPLE:\n  blackletter corpus dedup corpus/ --similarity 0.8 --out unique/")]
pub struct Dedup {
    /// The corpus.
    #[arg(value_name = "DIR")]
    corpus: PathBuf,
    /// The Jaccard similarity of word 5-grams from which on documents are nearly the same.
    #[arg(long, value_name = "SHARE", default_value_t = DedupSettings::default().similarity)]
    similarity: f64,
    /// Drop only documents with the very same words.
    #[arg(long)]
    exact_only: bool,
    /// Memory for comparing, in MiB; what does not fit goes to temporary files.
    #[arg(long, value_name = "MIB", default_value_t = DedupSettings::default().memory_mib)]
    memory: usize,
    #[command(flatten)]
    to: To,
}

impl Dedup {
    fn run(self) -> Result<(), Failure> {
        let settings = DedupSettings {
            enabled: true,
            exact: true,
            near: !self.exact_only,
            similarity: self.similarity,
            memory_mib: self.memory,
        };
        check_dedup(&settings).map_err(Failure::usage)?;
        self.to.carry_out(&Plan::of_corpus(&self.corpus, vec![Stage::Dedup(settings)])?)
    }
}

/// Set a part of a corpus aside
///
/// Each document is drawn by its id and the seed alone, so that it stays where it is when others come or go.
#[derive(Debug, clap::Args)]
#[command(after_help = "EXAMPLE:\n  blackletter corpus split corpus/ --heldout 0.01 --seed 1 --out parts/")]
pub struct Split {
    /// The corpus.
    #[arg(value_name = "DIR")]
    corpus: PathBuf,
    /// The share of documents to set aside, from 0 to below 1.
    #[arg(long, value_name = "SHARE")]
    heldout: f64,
    /// Another number sets others aside.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    to: To,
}

impl Split {
    fn run(self) -> Result<(), Failure> {
        let settings = SplitSettings { heldout: self.heldout, seed: self.seed };
        check_split(&settings).map_err(Failure::usage)?;
        self.to.carry_out(&Plan::of_corpus(&self.corpus, vec![Stage::Split(settings)])?)
    }
}

/// Sum up a corpus
///
/// Prints JSON: documents, bytes, words and quality scores in all and by dataset; documents by part, licence and form.
#[derive(Debug, clap::Args)]
#[command(after_help = "EXAMPLE:\n  blackletter corpus stats corpus/")]
pub struct Stats {
    /// The corpus.
    #[arg(value_name = "DIR")]
    corpus: PathBuf,
}

impl Stats {
    fn run(self) -> Result<(), Failure> {
        let stats = serde_json::to_value(look::stats(&self.corpus)?)?;
        output::print(format!("{stats:#}\n"))
    }
}

/// Show a document and all that is known about it
#[derive(Debug, clap::Args)]
#[command(after_help = "EXAMPLE:\n  blackletter corpus show usc:/us/usc/t31/s6709 --corpus corpus/")]
pub struct Show {
    /// The document's id.
    #[arg(value_name = "ID")]
    id: String,
    /// The corpus.
    #[arg(long, value_name = "DIR", default_value = ".")]
    corpus: PathBuf,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

impl Show {
    fn run(self) -> Result<(), Failure> {
        let Some((part, document)) = look::find(&self.corpus, &self.id)? else {
            let (id, corpus) = (&self.id, self.corpus.display());
            return Err(Failure::failed(format!("no document of {corpus} has the id {id}")));
        };
        let mut value = serde_json::to_value(&document)?;
        if let Some(fields) = value.as_object_mut() {
            fields.insert("part".into(), part.into());
        }
        if self.json {
            return output::print(format!("{value:#}\n"));
        }
        let mut text = String::new();
        for (name, value) in value.as_object().into_iter().flatten().filter(|(name, _)| *name != "text") {
            match value {
                serde_json::Value::Null => {}
                serde_json::Value::String(value) => text.push_str(&format!("{name}: {value}\n")),
                serde_json::Value::Object(fields) => {
                    for (key, value) in fields {
                        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                        text.push_str(&format!("{name}.{key}: {value}\n"));
                    }
                }
                other => text.push_str(&format!("{name}: {other}\n")),
            }
        }
        output::print(format!("{text}\n{}\n", document.text))
    }
}

/// Check a corpus against its record
///
/// Computes anew from the shards what provenance.json says of them: the hash of every file and every document, the counts of
/// parts and sources, the roots. Names the first document that differs, and then fails.
#[derive(Debug, clap::Args)]
#[command(after_help = "EXAMPLE:\n  blackletter corpus audit corpus/")]
pub struct Audit {
    /// The corpus.
    #[arg(value_name = "DIR")]
    corpus: PathBuf,
}

impl Audit {
    fn run(self) -> Result<(), Failure> {
        let audited = audit::audit(&self.corpus)?;
        let result = serde_json::json!({
            "corpus": self.corpus, "shards": audited.shards, "documents": audited.documents, "root": audited.root,
        });
        output::print(format!("{result:#}\n"))
    }
}

impl To {
    /// Carries out a plan, shows how far it is on standard error, and prints what came of it.
    fn carry_out(&self, plan: &Plan) -> Result<(), Failure> {
        use_threads(self.threads)?;
        interrupt::catch()?;
        self.follow(plan)
    }

    /// The same, with threads and interruptions already seen to.
    fn follow(&self, plan: &Plan) -> Result<(), Failure> {
        let progress = Progress::new()?;
        let watch = Watch { event: &|event| progress.hear(event), stop: &interrupt::asked };
        let record = match build::build(plan, &self.out, watch) {
            Err(e) if e.is_stop() => {
                eprintln!("stopped; the same command goes on from here");
                return Err(Failure::Interrupted);
            }
            other => other?,
        };
        print_record(&self.out, &record)
    }
}

fn print_record(out: &Path, record: &Provenance) -> Result<(), Failure> {
    let parts: serde_json::Map<String, serde_json::Value> = record
        .parts
        .iter()
        .map(|(name, part)| {
            (name.clone(), serde_json::json!({ "documents": part.documents, "text_bytes": part.text_bytes }))
        })
        .collect();
    let summary = serde_json::json!({
        "corpus": out, "documents": record.documents, "text_bytes": record.text_bytes, "parts": parts, "root": record.root,
    });
    output::print(format!("{summary:#}\n"))
}

/// A bar for the step at work, on a terminal; a line for each step that is done, anywhere.
pub(super) struct Progress {
    bar: Mutex<ProgressBar>,
    style: ProgressStyle,
}

impl Progress {
    pub(super) fn new() -> Result<Self, Failure> {
        let template = "{msg:<12} {wide_bar} {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec}";
        let style = ProgressStyle::with_template(template)?;
        Ok(Self { bar: Mutex::new(ProgressBar::hidden()), style })
    }

    pub(super) fn hear(&self, event: Event<'_>) {
        let Ok(mut bar) = self.bar.lock() else { return };
        match event {
            Event::Begin { step, bytes } => {
                bar.finish_and_clear();
                *bar = ProgressBar::new(bytes).with_style(self.style.clone()).with_message(step.to_owned());
            }
            Event::Progress { bytes } => bar.inc(bytes),
            Event::End { step, counts, again, tasks } => {
                bar.finish_and_clear();
                if counts.entered > 0 {
                    let (entered, kept) = (counts.entered, counts.kept);
                    let done = if again == tasks { " (done before)" } else { "" };
                    eprintln!("{step}: {entered} in, {kept} kept, {} dropped{done}", entered - kept);
                }
            }
        }
    }
}
