//! A corpus from a recipe, or one step on a corpus: in go sources, out come shards, `report.json`, `REPORT.md`,
//! `provenance.json` and `croissant.json`.
//!
//! ```text
//! OUT/train/00000.parquet …     documents to train on (OUT/00000.parquet … where there is no split)
//! OUT/heldout/00000.parquet …   documents set aside
//! OUT/documents.blake3          the hashes of all documents, in their order
//! OUT/provenance.json           written last: a folder without it is not finished
//! OUT/.steps/                   finished work; the next run starts from it, and it may be deleted
//! ```

use crate::{
    audit::{AuditError, HASHES, check_shard},
    decontaminate::{Evaluations, Thresholds},
    document::{DocumentError, Rows, columns},
    recipe::{Recipe, RecipeError},
    report::{Counts, Report, StepReport},
    report_markdown,
    shards::{Effort, ShardError, ShardReader, ShardWriter, sync_folder, write_whole},
    source::{self, Means, SourceError, SourceSpec},
    steps::{
        self, Clean, Decontaminate, DedupSettings, Event, Filter, FilterSettings, HELD_OUT, Key, Part, Run,
        Score, Source, SplitSettings, StepError, Store, TRAIN, WRITING, Watch, clear,
    },
    texts::{Texts, TextsError},
};
use blackletter_provenance::{
    Accepted, Dataset, Evaluation, FILE_NAME, Gate, Generator, InputFile, Part as RecordedPart, Provenance,
    Refused, Shard, SourceRecord, VERSION, croissant,
    hash::{self, Root},
};
use rayon::prelude::*;
use serde_json::{Map, Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// Name of the report for programs.
pub const REPORT: &str = "report.json";
/// Name of the report for people.
pub const REPORT_MARKDOWN: &str = "REPORT.md";
/// Name of the record for catalogues of datasets.
pub const CROISSANT: &str = "croissant.json";
/// The part of a corpus that is not split.
pub const ALL: &str = "all";
/// Text of a shard, in bytes, but for a single part that is larger.
const SHARD_TEXT: u64 = 64 << 20;
/// Version of the code that writes shards and sums them up.
const SHARDS_VERSION: u32 = 1;

/// A corpus cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A recipe that cannot be followed.
    #[error(transparent)]
    Recipe(#[from] RecipeError),
    /// A source cannot be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A step cannot be run.
    #[error(transparent)]
    Step(#[from] StepError),
    /// A shard cannot be read or written.
    #[error(transparent)]
    Shard(#[from] ShardError),
    /// The corpus to go on from is not what its record says.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// Evaluation texts cannot be read.
    #[error("`decontaminate.against`: {0}")]
    Texts(#[from] TextsError),
    /// The folder holds something else.
    #[error("{0} is not empty and no corpus; name another folder, or an empty one")]
    Occupied(PathBuf),
    /// A corpus that would read what it writes.
    #[error("{file} is in {out}, where the corpus is to be written; write elsewhere")]
    Inside {
        /// A source's file.
        file: PathBuf,
        /// Where the corpus was to be written.
        out: PathBuf,
    },
    /// A record cannot be written down.
    #[error("cannot write the record down: {0}")]
    Record(#[from] serde_json::Error),
}

impl BuildError {
    /// Whether the run was asked to stop.
    pub fn is_stop(&self) -> bool {
        matches!(self, Self::Step(StepError::Stopped) | Self::Source(SourceError::Stopped))
    }
}

/// What the documents come from.
pub enum Origin {
    /// Files, through a licence gate.
    Sources {
        /// The files.
        sources: Vec<Source>,
        /// The gate.
        gate: Gate,
    },
    /// A finished corpus, whose record is as it should be.
    Corpus {
        /// Its folder.
        folder: PathBuf,
        /// Its record.
        record: Box<Provenance>,
    },
}

/// A step of a plan.
pub enum Stage {
    /// Takes out lines and personal data.
    Clean(Clean),
    /// Measures quality.
    Score,
    /// Drops what is no text worth learning from.
    Filter(FilterSettings),
    /// Drops duplicates.
    Dedup(DedupSettings),
    /// Drops what evaluation texts are in.
    Decontaminate(Box<Decontaminate>, Vec<Evaluation>),
    /// Sets documents aside.
    Split(SplitSettings),
}

/// What is made of what, in which steps. Everything that a recipe can have wrong is found before there is a plan.
pub struct Plan {
    /// What the documents come from.
    pub origin: Origin,
    /// The steps, in order.
    pub stages: Vec<Stage>,
    /// What the result is called.
    pub dataset: Dataset,
}

impl Plan {
    /// The plan of a recipe, whose relative paths start at `base`.
    ///
    /// # Errors
    /// When the recipe cannot be followed: its sources are looked up, its evaluation texts read.
    pub fn of_recipe(recipe: &Recipe, base: &Path) -> Result<Self, BuildError> {
        Self::of_recipe_with(recipe, base, Means::default())
    }

    /// The same, with sources in buckets, which are copied, and of token ids.
    ///
    /// # Errors
    /// As [`Plan::of_recipe`]; and when a bucket cannot be read.
    pub fn of_recipe_with(recipe: &Recipe, base: &Path, means: Means<'_>) -> Result<Self, BuildError> {
        recipe.check()?;
        let gate = recipe.gate().map_err(RecipeError::from)?;
        let sources = sources(&recipe.source, base, means)?;
        let clean = Clean { lines: recipe.clean.clone(), scrub: recipe.scrub.clone() };
        let mut stages = vec![Stage::Clean(clean), Stage::Score];
        if recipe.filter.enabled {
            stages.push(Stage::Filter(recipe.filter.clone()));
        }
        if recipe.dedup.enabled {
            stages.push(Stage::Dedup(recipe.dedup.clone()));
        }
        if let Some(settings) = &recipe.decontaminate {
            let thresholds =
                Thresholds { of_document: settings.of_document, of_evaluation: settings.of_evaluation };
            let spec = SourceSpec { path: settings.against.clone(), ..SourceSpec::default() };
            stages.push(decontaminate(&spec, base, thresholds)?);
        }
        stages.push(Stage::Split(recipe.split.clone()));
        Ok(Self { origin: Origin::Sources { sources, gate }, stages, dataset: recipe.dataset() })
    }

    /// A plan that goes on from the corpus in `folder`.
    ///
    /// # Errors
    /// When there is no finished corpus.
    pub fn of_corpus(folder: &Path, stages: Vec<Stage>) -> Result<Self, BuildError> {
        let record = crate::audit::record(folder)?;
        let dataset = record.dataset.clone();
        Ok(Self {
            origin: Origin::Corpus { folder: folder.into(), record: Box::new(record) },
            stages,
            dataset,
        })
    }
}

/// Looks up the files of sources.
///
/// # Errors
/// When a path finds nothing, or a bucket or tokenizer cannot be read.
pub fn sources(specs: &[SourceSpec], base: &Path, means: Means<'_>) -> Result<Vec<Source>, SourceError> {
    let one = |spec: &SourceSpec| {
        let decoder = means.decoder(spec, base)?;
        Ok(Source { spec: spec.clone(), files: source::find(spec, base, means)?, decoder })
    };
    let mut sources: Vec<Source> = specs.iter().map(one).collect::<Result<_, SourceError>>()?;
    if let Some(buckets) = means.buckets {
        buckets.sweep(sources.iter().flat_map(|source| &source.files))?;
    }
    source::set_apart(sources.iter_mut().map(|source| (&source.spec, &mut source.files)));
    Ok(sources)
}

fn decontaminate(spec: &SourceSpec, base: &Path, thresholds: Thresholds) -> Result<Stage, BuildError> {
    let files = source::find(spec, base, Means::default())?;
    let (mut evaluations, mut hashes, mut recorded) = (Evaluations::default(), Vec::new(), Vec::new());
    for file in &files {
        for text in Texts::open(&[&file.path])? {
            evaluations.add(&text?.text);
        }
        let hashed = fs::File::open(&file.path).and_then(hash::FileHash::of);
        let blake3 = hashed.map_err(ShardError::file("read", &file.path))?.blake3;
        hashes.push(blake3.clone());
        recorded.push(Evaluation { name: file.name.clone(), blake3 });
    }
    let block = Decontaminate { evaluations, files: hashes, thresholds };
    Ok(Stage::Decontaminate(Box::new(block), recorded))
}

/// What goes on into the record of the result.
#[derive(Default)]
struct Carried {
    inputs: Vec<InputFile>,
    evaluations: Vec<Evaluation>,
    accept: BTreeMap<String, String>,
    refused: Vec<Refused>,
    settings: Map<String, Value>,
}

/// Carries out a plan in `out`. Gives the record of the corpus.
///
/// A run that is killed loses the work under way; the next one with the same `out` goes on, and one that finds all of it done
/// changes nothing.
///
/// # Errors
/// [`BuildError`]; [`BuildError::is_stop`] when asked to stop.
pub fn build(plan: &Plan, out: &Path, watch: Watch<'_>) -> Result<Provenance, BuildError> {
    check_out(plan, out)?;
    let store = Store::open(out)?;
    let run = Run { store: &store, watch };
    let mut report = Report::default();
    let mut carried = Carried::default();
    let mut add = |name: &str, counts: Counts| report.steps.push(StepReport { name: name.into(), counts });
    let mut parts = match &plan.origin {
        Origin::Sources { sources, gate } => {
            let (parts, counts, inputs) = steps::ingest(run, sources, gate)?;
            carried.inputs = inputs;
            carried.accept = gate.accept().clone();
            carried.refused = refused(&counts);
            carried
                .settings
                .insert("licenses".into(), json!({ "allow": gate.allow(), "accept": gate.accept() }));
            add("ingest", counts);
            parts
        }
        Origin::Corpus { folder, record } => of_corpus(folder, record, &mut carried)?,
    };
    for stage in &plan.stages {
        let (name, settings, (next, counts)) = match stage {
            Stage::Clean(block) => block_step(run, block, &parts)?,
            Stage::Score => block_step(run, &Score, &parts)?,
            Stage::Filter(settings) => block_step(run, &Filter { settings: settings.clone() }, &parts)?,
            Stage::Decontaminate(block, recorded) => {
                carried.evaluations.extend(recorded.iter().cloned());
                block_step(run, block.as_ref(), &parts)?
            }
            Stage::Dedup(settings) => ("dedup", json!(settings), steps::dedup(run, settings, &parts)?),
            Stage::Split(settings) => ("split", json!(settings), steps::split(run, settings, &parts)?),
        };
        carried.settings.insert(name.into(), settings);
        add(name, counts);
        parts = next;
    }
    let record = write(run, plan, out, &parts, carried, &report)?;
    store.sweep()?;
    Ok(record)
}

type StepDone = (&'static str, Value, (Vec<Part>, Counts));

fn block_step(run: Run<'_>, block: &dyn steps::Block, parts: &[Part]) -> Result<StepDone, StepError> {
    Ok((block.name(), block.settings(), steps::map(run, block, parts)?))
}

/// Refuses to write where something else is, or where the sources are.
fn check_out(plan: &Plan, out: &Path) -> Result<(), BuildError> {
    let occupied = fs::read_dir(out).is_ok_and(|mut entries| entries.next().is_some());
    // A finished corpus stays one when its `.steps` are deleted.
    let own = || out.join(".steps").is_dir() || crate::audit::record(out).is_ok();
    if occupied && !own() || out.is_file() {
        return Err(BuildError::Occupied(out.into()));
    }
    let Ok(whole) = out.canonicalize() else { return Ok(()) };
    let files: Vec<PathBuf> = match &plan.origin {
        Origin::Sources { sources, .. } => {
            sources.iter().flat_map(|source| &source.files).map(|file| file.path.clone()).collect()
        }
        Origin::Corpus { folder, record } => {
            record.shards.iter().map(|shard| folder.join(&shard.path)).collect()
        }
    };
    match files.into_iter().find(|file| file.canonicalize().is_ok_and(|file| file.starts_with(&whole))) {
        Some(file) => Err(BuildError::Inside { file, out: out.into() }),
        None => Ok(()),
    }
}

fn refused(counts: &Counts) -> Vec<Refused> {
    let of = |reason: &str| counts.examples.get(reason).cloned().unwrap_or_default();
    let mut all = Vec::new();
    for (dataset, tally) in &counts.sources {
        for (reason, &documents) in &tally.dropped {
            if let Some(why) = reason.strip_prefix("licence refused: ") {
                let (dataset, reason) = (dataset.clone(), why.to_owned());
                all.push(Refused {
                    dataset,
                    reason,
                    documents,
                    examples: of(&format!("licence refused: {why}")),
                });
            }
        }
    }
    all
}

/// The shards of a corpus as parts, each compared with its record, which the new one goes on from.
fn of_corpus(folder: &Path, record: &Provenance, carried: &mut Carried) -> Result<Vec<Part>, BuildError> {
    let checked: Result<Vec<Part>, AuditError> = record
        .shards
        .par_iter()
        .map(|shard| {
            check_shard(folder, shard)?;
            Ok(Part {
                path: folder.join(&shard.path),
                label: if shard.part == ALL { String::new() } else { shard.part.clone() },
                blake3: shard.blake3.clone(),
                documents: shard.documents,
                text_bytes: shard.text_bytes,
                bytes: shard.bytes,
            })
        })
        .collect();
    carried.inputs = record
        .shards
        .iter()
        .map(|shard| InputFile { name: shard.path.clone(), bytes: shard.bytes, blake3: shard.blake3.clone() })
        .collect();
    carried.evaluations.clone_from(&record.evaluations);
    carried.refused.clone_from(&record.refused);
    carried.accept = record.accepted.iter().map(|a| (a.license.clone(), a.reason.clone())).collect();
    let before = json!({ "root": record.root, "inputs": record.inputs, "settings": record.settings });
    carried.settings.insert("corpus".into(), before);
    Ok(checked?)
}

/// Writes the shards, then the reports, then the record.
fn write(
    run: Run<'_>,
    plan: &Plan,
    out: &Path,
    parts: &[Part],
    carried: Carried,
    report: &Report,
) -> Result<Provenance, BuildError> {
    (run.watch.event)(Event::Begin { step: "shards", bytes: parts.iter().map(|part| part.text_bytes).sum() });
    let groups = shard_groups(parts);
    let shards: Vec<Shard> = groups
        .par_iter()
        .map(|(path, parts)| shard(run, out, path, parts))
        .collect::<Result<_, BuildError>>()?;
    let sums: Vec<Sums> =
        shards.par_iter().map(|shard| sums(run, out, shard)).collect::<Result<_, BuildError>>()?;
    let (tasks, counts) = (shards.len(), Counts::default());
    (run.watch.event)(Event::End { step: "shards", counts: &counts, again: 0, tasks });
    let hashes: Vec<u8> = sums.iter().flat_map(|sums| &sums.hashes).flatten().copied().collect();
    let record = record(plan, carried, shards, sums)?;
    // What an earlier recipe left, once all that belongs here is there.
    let current: BTreeSet<PathBuf> = record.shards.iter().map(|shard| out.join(&shard.path)).collect();
    for folder in [out.to_owned(), out.join(TRAIN), out.join(HELD_OUT)] {
        let numbered = |name: &str| {
            name.strip_suffix(".parquet")
                .is_some_and(|n| n.len() == 5 && n.bytes().all(|b| b.is_ascii_digit()))
        };
        clear(&folder, |name| {
            name.starts_with(WRITING) || numbered(name) && !current.contains(&folder.join(name))
        })?;
        let _ = fs::remove_dir(&folder);
    }
    let mut json = serde_json::to_vec_pretty(report)?;
    json.push(b'\n');
    write_whole(&out.join(HASHES), &hashes)?;
    write_whole(&out.join(REPORT), &json)?;
    write_whole(&out.join(REPORT_MARKDOWN), report_markdown::of(report, &record).as_bytes())?;
    let mut catalogue = serde_json::to_vec_pretty(&croissant(&record, &columns()))?;
    catalogue.push(b'\n');
    write_whole(&out.join(CROISSANT), &catalogue)?;
    let json = record.to_json().map_err(|e| StepError::Result(serde::ser::Error::custom(e)))?;
    write_whole(&out.join(FILE_NAME), &json)?;
    Ok(record)
}

/// Which parts go into which shard: whole parts of one label, in order.
fn shard_groups(parts: &[Part]) -> Vec<(String, Vec<&Part>)> {
    let mut groups = Vec::new();
    let labels: BTreeSet<&str> = parts.iter().map(|part| part.label.as_str()).collect();
    for label in labels {
        let (mut held, mut text, mut number) = (Vec::new(), 0, 0);
        let folder = if label.is_empty() { String::new() } else { format!("{label}/") };
        for part in parts.iter().filter(|part| part.label == label) {
            if text > 0 && text + part.text_bytes > SHARD_TEXT {
                groups.push((format!("{folder}{number:05}.parquet"), std::mem::take(&mut held)));
                (text, number) = (0, number + 1);
            }
            text += part.text_bytes;
            held.push(part);
        }
        groups.push((format!("{folder}{number:05}.parquet"), held));
    }
    groups
}

/// Writes a shard, unless it is there as it was written before.
fn shard(run: Run<'_>, out: &Path, path: &str, parts: &[&Part]) -> Result<Shard, BuildError> {
    run.watch.go_on()?;
    let inputs: Vec<&str> = parts.iter().map(|part| part.blake3.as_str()).collect();
    let settings = json!(path);
    let key = Key { step: "shard", version: SHARDS_VERSION, settings: &settings, inputs: &inputs };
    let place = out.join(path);
    let label =
        parts.first().map(|part| part.label.as_str()).filter(|label| !label.is_empty()).unwrap_or(ALL);
    let write = || -> Result<Shard, StepError> {
        // While shards change, the record is not theirs.
        remove(&out.join(FILE_NAME))?;
        let mut writer = ShardWriter::create(&place, Effort::Best)?;
        for part in parts {
            for batch in ShardReader::open(&part.path)? {
                run.watch.go_on()?;
                writer.write(&batch?)?;
            }
        }
        let written = writer.finish()?;
        Ok(Shard {
            path: path.into(),
            part: label.into(),
            documents: written.documents,
            text_bytes: written.text_bytes,
            bytes: written.file.bytes,
            blake3: written.file.blake3,
            sha256: written.file.sha256,
        })
    };
    let mut fresh = false;
    let done = run.store.task(&key, |_| {
        fresh = true;
        Ok((Counts::default(), serde_json::to_value(write()?)?))
    })?;
    let mut shard: Shard = serde_json::from_value(done.value)?;
    if !fresh && check_shard(out, &shard).is_err() {
        shard = write()?;
    }
    (run.watch.event)(Event::Progress { bytes: shard.text_bytes });
    Ok(shard)
}

fn remove(path: &Path) -> Result<(), ShardError> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(ShardError::file("remove", path)(e)),
        Err(_) => Ok(()),
        Ok(()) => sync_folder(path.parent().unwrap_or(Path::new("."))),
    }
}

/// What a shard's documents come to.
#[derive(serde::Serialize, serde::Deserialize)]
struct Sums {
    sources: Vec<SourceRecord>,
    hashes: Vec<[u8; 32]>,
}

fn sums(run: Run<'_>, out: &Path, shard: &Shard) -> Result<Sums, BuildError> {
    run.watch.go_on()?;
    let key = Key { step: "sums", version: SHARDS_VERSION, settings: &Value::Null, inputs: &[&shard.blake3] };
    let done =
        run.store.task(&key, |_| {
            let mut sums = Sums { sources: Vec::new(), hashes: Vec::new() };
            let mut sources: BTreeMap<_, (u64, u64)> = BTreeMap::new();
            for batch in ShardReader::open(&out.join(&shard.path))? {
                run.watch.go_on()?;
                let batch = batch?;
                let rows = Rows::of(&batch).map_err(|e: DocumentError| StepError::Document(e))?;
                for row in 0..rows.len() {
                    sums.hashes.push(rows.hash(row));
                    let own = |text: Option<&str>| text.map(str::to_owned);
                    let key = (
                        rows.dataset(row).to_owned(),
                        own(rows.source(row)),
                        rows.license(row).to_owned(),
                        own(rows.license_basis(row)),
                    );
                    let (documents, bytes) = sources.entry(key).or_default();
                    *documents += 1;
                    *bytes += rows.text(row).len() as u64;
                }
            }
            let record = |((dataset, source, license, license_basis), (documents, text_bytes))| {
                SourceRecord { dataset, source, license, license_basis, documents, text_bytes }
            };
            sums.sources = sources.into_iter().map(record).collect();
            Ok((Counts::default(), serde_json::to_value(sums)?))
        })?;
    Ok(serde_json::from_value(done.value)?)
}

fn record(
    plan: &Plan,
    carried: Carried,
    shards: Vec<Shard>,
    sums: Vec<Sums>,
) -> Result<Provenance, BuildError> {
    let mut root = Root::default();
    let mut parts: BTreeMap<String, (u64, u64, Root)> = BTreeMap::new();
    let mut sources: BTreeMap<_, (u64, u64)> = BTreeMap::new();
    for (shard, sums) in shards.iter().zip(sums) {
        let (documents, text_bytes, part) = parts.entry(shard.part.clone()).or_default();
        *documents += shard.documents;
        *text_bytes += shard.text_bytes;
        for hash in sums.hashes {
            root.add(hash);
            part.add(hash);
        }
        for SourceRecord { dataset, source, license, license_basis, documents, text_bytes } in sums.sources {
            let sum = sources.entry((dataset, source, license, license_basis)).or_default();
            sum.0 += documents;
            sum.1 += text_bytes;
        }
    }
    let sources: Vec<SourceRecord> = sources
        .into_iter()
        .map(|((dataset, source, license, license_basis), (documents, text_bytes))| SourceRecord {
            dataset,
            source,
            license,
            license_basis,
            documents,
            text_bytes,
        })
        .collect();
    let accepted = carried.accept.into_iter().filter_map(|(license, reason)| {
        let needs = |source: &&SourceRecord| {
            blackletter_provenance::License::parse(&source.license)
                .is_ok_and(|l| l.names().contains(&license))
        };
        let documents = sources.iter().filter(needs).map(|source| source.documents).sum();
        (documents > 0).then_some(Accepted { license, reason, documents })
    });
    Ok(Provenance {
        version: VERSION,
        dataset: plan.dataset.clone(),
        generator: Generator { name: "blackletter".into(), version: env!("CARGO_PKG_VERSION").into() },
        documents: shards.iter().map(|shard| shard.documents).sum(),
        text_bytes: shards.iter().map(|shard| shard.text_bytes).sum(),
        root: root.finish(),
        parts: parts
            .into_iter()
            .map(|(name, (documents, text_bytes, root))| {
                (name, RecordedPart { documents, text_bytes, root: root.finish() })
            })
            .collect(),
        accepted: accepted.collect(),
        sources,
        refused: carried.refused,
        inputs: carried.inputs,
        evaluations: carried.evaluations,
        settings: Value::Object(carried.settings),
        shards,
    })
}
