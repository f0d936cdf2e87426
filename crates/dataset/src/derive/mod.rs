//! Supervised examples from what documents themselves say.
//!
//! A section answers with its heading, its text, its citation; a definition says what a term means; an agreement gives its
//! clauses by their headings and its parties, date and amounts as JSON. Every answer stands in its document, which is checked
//! for each before it is written: facts in JSON one by one, everything else as a whole, spaces and Markdown's marks aside.
//! Documents are asked as `corpus build` cleans them by default, whether the corpus holds them so or as they were printed.
//! The same corpus gives the same lines.

mod clause;
mod definition;
mod facts;
mod questions;
mod section;
mod text;

pub use questions::KINDS;

use crate::{error::DatasetError, table::make_readable};
use blackletter_corpus::{
    audit,
    clean::LineFilters,
    document::{Document, Rows},
    shards::ShardReader,
};
use questions::{Limits, Question, Source, questions, terms};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap, HashSet},
    fs,
    io::{BufWriter, Write},
    path::Path,
};

/// An example, as a line of the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Derived {
    /// One of [`KINDS`].
    pub kind: String,
    /// What is asked.
    pub instruction: String,
    /// What it is asked about; may be nothing.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub input: String,
    /// The answer.
    pub output: String,
    /// The document that answers.
    pub document: String,
    /// Its dataset.
    pub dataset: String,
    /// Its licence.
    pub license: String,
    /// Names of the fields of an answer in JSON.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<String>,
}

/// What to derive from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// All documents but the held-out ones.
    Train,
    /// The held-out ones.
    Heldout,
}

/// Settings.
#[derive(Clone, Copy, Debug)]
pub struct DeriveOptions {
    /// The part of the corpus.
    pub part: Part,
    /// Most bytes of an example's instruction, input and output together.
    pub max_bytes: usize,
}

/// Smallest [`DeriveOptions::max_bytes`].
pub const LEAST_BYTES: usize = 400;

impl Default for DeriveOptions {
    fn default() -> Self {
        // At 2.5 bytes a token, 600 tokens.
        Self { part: Part::Train, max_bytes: 1500 }
    }
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Derivation {
    /// Documents that were read.
    pub documents: u64,
    /// Documents that examples came from.
    pub used: u64,
    /// Examples written.
    pub examples: u64,
    /// Examples written, by kind.
    pub kinds: BTreeMap<String, u64>,
    /// Examples written, by licence.
    pub licenses: BTreeMap<String, u64>,
    /// Examples left out, by reason.
    pub left_out: BTreeMap<&'static str, u64>,
}

const REPEATED: &str = "said before, word for word";
const OTHER_ANSWER: &str = "asked before, with another answer";
const UNSUPPORTED: &str = "the answer does not stand in the document";
const TOO_LONG: &str = "longer than --max-bytes";

/// Writes examples from the corpus in `folder` to `out`, which appears whole or not at all. `progress` hears how many bytes of
/// text have been read, of all.
///
/// # Errors
/// When the corpus cannot be read or the file not written.
pub fn derive(
    folder: &Path,
    out: &Path,
    options: DeriveOptions,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Derivation, DatasetError> {
    if options.max_bytes < LEAST_BYTES {
        let allowed = format!("it must be at least {LEAST_BYTES}");
        return Err(DatasetError::config("--max-bytes", options.max_bytes, allowed));
    }
    let most = options.max_bytes;
    let limits = Limits { input: most / 2, output: most * 3 / 10, text: most * 6 / 10 };
    let mut reading = Reading { folder, part: options.part, done: 0, all: 0, progress };
    reading.all = 2 * reading.bytes()?;
    // First, which terms have one meaning in the whole corpus.
    let mut meanings: HashMap<String, u32> = HashMap::new();
    reading.each(
        |document| terms(source(document), limits),
        |_, terms| {
            terms.into_iter().for_each(|term| *meanings.entry(term).or_default() += 1);
            Ok(())
        },
    )?;
    let parent = out.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(parent).map_err(DatasetError::file("make", parent))?;
    let file = tempfile::Builder::new().prefix(".writing-").tempfile_in(parent);
    let mut file = BufWriter::new(file.map_err(DatasetError::file("write in", parent))?);
    let mut sum =
        Derivation { kinds: KINDS.map(|kind| (kind.to_owned(), 0)).into(), ..Derivation::default() };
    let mut seen = Seen::default();
    reading.each(
        |document| examples(document, limits, options.max_bytes, &meanings),
        |document, (examples, left_out)| {
            sum.documents += 1;
            left_out.into_iter().for_each(|reason| *sum.left_out.entry(reason).or_default() += 1);
            let mut used = false;
            for example in examples {
                if let Some(reason) = seen.refuses(&example) {
                    *sum.left_out.entry(reason).or_default() += 1;
                    continue;
                }
                serde_json::to_writer(&mut file, &example)?;
                file.write_all(b"\n").map_err(DatasetError::file("write", out))?;
                used = true;
                sum.examples += 1;
                *sum.kinds.entry(example.kind).or_default() += 1;
                *sum.licenses.entry(document.license.clone()).or_default() += 1;
            }
            sum.used += u64::from(used);
            Ok(())
        },
    )?;
    let file = file.into_inner().map_err(|e| DatasetError::file("write", out)(e.into_error()))?;
    file.as_file().sync_all().map_err(DatasetError::file("write", out))?;
    make_readable(file.as_file()).map_err(DatasetError::file("write", out))?;
    file.persist(out).map_err(|e| DatasetError::file("write", out)(e.error))?;
    Ok(sum)
}

/// A corpus that is being read, in its order.
struct Reading<'r> {
    folder: &'r Path,
    part: Part,
    done: u64,
    all: u64,
    progress: &'r mut dyn FnMut(u64, u64),
}

impl Reading<'_> {
    fn shards(&self) -> Result<Vec<blackletter_provenance::Shard>, DatasetError> {
        let shards = audit::record(self.folder)?.shards;
        Ok(shards
            .into_iter()
            .filter(|shard| (shard.part == "heldout") == (self.part == Part::Heldout))
            .collect())
    }

    fn bytes(&self) -> Result<u64, DatasetError> {
        Ok(self.shards()?.iter().map(|shard| shard.text_bytes).sum())
    }

    /// Asks `of` about every document on all threads, and hands what it says on in order.
    fn each<T: Send>(
        &mut self,
        of: impl Fn(&Document) -> T + Sync,
        mut then: impl FnMut(&Document, T) -> Result<(), DatasetError>,
    ) -> Result<(), DatasetError> {
        for shard in self.shards()? {
            for batch in ShardReader::open(&self.folder.join(&shard.path))? {
                let batch = batch?;
                let Ok(rows) = Rows::of(&batch) else { continue };
                let mut documents: Vec<Document> = (0..rows.len()).map(|row| rows.document(row)).collect();
                self.done += documents.iter().map(|document| document.text.len() as u64).sum::<u64>();
                // Texts may stand in the corpus as they were printed; questions and answers are to be clean.
                documents.par_iter_mut().for_each(|document| {
                    if let Cow::Owned(text) = LineFilters::default().clean(&document.text).text {
                        document.text = text;
                    }
                });
                let said: Vec<T> = documents.par_iter().map(&of).collect();
                for (document, said) in documents.iter().zip(said) {
                    then(document, said)?;
                }
                (self.progress)(self.done, self.all);
            }
        }
        Ok(())
    }
}

fn source(document: &Document) -> Source<'_> {
    Source {
        id: &document.id,
        dataset: &document.dataset,
        title: document.title.as_deref(),
        text: &document.text,
    }
}

/// The examples of a document, and why others of it are left out.
fn examples(
    document: &Document,
    limits: Limits,
    max_bytes: usize,
    meanings: &HashMap<String, u32>,
) -> (Vec<Derived>, Vec<&'static str>) {
    let (mut examples, mut left_out) = (Vec::new(), Vec::new());
    let questions = questions(source(document), limits);
    if questions.is_empty() {
        return (examples, left_out);
    }
    let said = text::squash(&format!("{}\n{}", document.title.as_deref().unwrap_or_default(), document.text));
    for question in questions {
        let Question { kind, mut instruction, input, output, fields, support, plain } = question;
        if let Some((term, named)) = plain
            && meanings.get(&term).is_some_and(|&n| n > 1)
        {
            if named.is_empty() {
                left_out.push(OTHER_ANSWER);
                continue;
            }
            instruction = named;
        }
        let parts = if support.is_empty() { vec![output.clone()] } else { support };
        if !parts.iter().all(|part| said.contains(&text::squash(part))) {
            left_out.push(UNSUPPORTED);
            continue;
        }
        if instruction.len() + input.len() + output.len() > max_bytes {
            left_out.push(TOO_LONG);
            continue;
        }
        examples.push(Derived {
            kind: kind.to_owned(),
            instruction,
            input,
            output,
            document: document.id.clone(),
            dataset: document.dataset.clone(),
            license: document.license.clone(),
            fields: fields.into_iter().map(str::to_owned).collect(),
        });
    }
    (examples, left_out)
}

/// What has been asked and answered: 32 bytes for each.
#[derive(Default)]
struct Seen {
    asked: HashMap<u128, u128>,
    drafted: HashSet<u128>,
}

impl Seen {
    /// Why an example is not wanted any more.
    fn refuses(&mut self, example: &Derived) -> Option<&'static str> {
        let hash = |texts: &[&str]| {
            let mut hasher = blake3::Hasher::new();
            for text in texts {
                // Case and spaces do not make another question.
                hasher.update(text::squash(text).to_lowercase().as_bytes()).update(&[0]);
            }
            let mut bytes = [0; 16];
            hasher.finalize_xof().fill(&mut bytes);
            u128::from_le_bytes(bytes)
        };
        let (asked, answer) = (hash(&[&example.instruction, &example.input]), hash(&[&example.output]));
        // A clause can be drafted in many ways; the same one twice teaches nothing.
        if example.kind == "clause" {
            return (!self.drafted.insert(answer)).then_some(REPEATED);
        }
        match self.asked.insert(asked, answer) {
            None => None,
            Some(before) => {
                self.asked.insert(asked, before);
                Some(if before == answer { REPEATED } else { OTHER_ANSWER })
            }
        }
    }
}
