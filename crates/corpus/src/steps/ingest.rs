//! Files to documents, through the licence gate.

use super::{Done, Event, Key, Part, Run, StepError, gather};
use crate::{
    document::{Document, to_batch},
    report::Counts,
    source::{self, Decoder, InputFile, Item, Kind, SourceSpec},
};
use blackletter_provenance::{Gate, InputFile as RecordedFile, Right, hash};
use rayon::prelude::*;
use serde_json::{Value, json};
use std::{fs::File, io, mem};

const VERSION: u32 = 2;
/// Text of a part, in bytes, but for a single document that is larger.
const PART_TEXT: u64 = 16 << 20;
/// Text that becomes a batch.
const BATCH_TEXT: usize = 4 << 20;
/// Files of one document or few that are one piece of work.
const GROUP_FILES: usize = 64;
/// Bytes of such files.
const GROUP_BYTES: u64 = 16 << 20;

/// Reason of documents without text.
pub const EMPTY: &str = "empty text";
/// How the reason of a refused licence begins.
pub const REFUSED: &str = "licence refused: ";

/// A recipe's source and its files.
#[derive(Clone, Debug)]
pub struct Source {
    /// What the recipe states.
    pub spec: SourceSpec,
    /// Its files.
    pub files: Vec<InputFile>,
    /// What its token ids are read with.
    pub decoder: Option<Decoder>,
}

/// Reads all sources. Gives the parts, the counts, and the files read with their hashes.
///
/// # Errors
/// When a file cannot be read, a part cannot be written, or the run is asked to stop.
pub fn ingest(
    run: Run<'_>,
    sources: &[Source],
    gate: &Gate,
) -> Result<(Vec<Part>, Counts, Vec<RecordedFile>), StepError> {
    let bytes = sources.iter().flat_map(|s| &s.files).map(|file| file.bytes).sum();
    (run.watch.event)(Event::Begin { step: "ingest", bytes });
    let mut recorded = Vec::new();
    let mut done = Vec::new();
    for source in sources {
        let hashes: Vec<String> = source.files.par_iter().map(hash_file).collect::<Result<_, StepError>>()?;
        let record = |(file, hash): (&InputFile, &String)| RecordedFile {
            name: file.name.clone(),
            bytes: file.bytes,
            blake3: hash.clone(),
        };
        let there = source.files.iter().zip(&hashes).filter(|(file, _)| file.kind != Kind::Missing);
        recorded.extend(there.map(record));
        let mut from = 0;
        for group in groups(&source.files) {
            let to = from + group.len();
            done.push(one(run, source, group, &hashes[from..to], gate)?);
            from = to;
            (run.watch.event)(Event::Progress { bytes: group.iter().map(|file| file.bytes).sum() });
        }
    }
    let (parts, counts) = gather(run, "ingest", done);
    Ok((parts, counts, recorded))
}

fn hash_file(file: &InputFile) -> Result<String, StepError> {
    let mut hasher = blake3::Hasher::new();
    if file.kind == Kind::Missing {
        return Ok(hasher.finalize().to_hex().to_string());
    }
    let copied = File::open(&file.path).and_then(|mut file| io::copy(&mut file, &mut hasher));
    copied.map_err(|source| source::SourceError::Read { path: file.path.clone(), source })?;
    Ok(hasher.finalize().to_hex().to_string())
}

/// Files that are one piece of work: those of many documents each by itself.
fn groups(files: &[InputFile]) -> Vec<&[InputFile]> {
    let mut groups = Vec::new();
    let mut from = 0;
    while let Some(first) = files.get(from) {
        let (mut to, mut bytes) = (from + 1, first.bytes);
        if !matches!(first.kind, Kind::Lines | Kind::Rows) {
            while let Some(file) = files.get(to)
                && file.kind == first.kind
                && to - from < GROUP_FILES
                && bytes + file.bytes <= GROUP_BYTES
            {
                bytes += file.bytes;
                to += 1;
            }
        }
        groups.push(&files[from..to]);
        from = to;
    }
    groups
}

fn one(
    run: Run<'_>,
    source: &Source,
    files: &[InputFile],
    hashes: &[String],
    gate: &Gate,
) -> Result<Done, StepError> {
    run.watch.go_on()?;
    // Where the files are does not matter, what they are called and what is in them does.
    let Source { spec, decoder, .. } = source;
    let tokenizer = decoder.as_ref().map(|decoder| decoder.blake3.clone());
    let stated = SourceSpec { path: source::Paths::default(), tokenizer, ..spec.clone() };
    let settings = json!({ "source": stated, "allow": gate.allow(), "accept": gate.accept() });
    let names = files.iter().map(|file| file.name.as_str());
    let inputs: Vec<&str> = names.chain(hashes.iter().map(String::as_str)).collect();
    let key = Key { step: "ingest", version: VERSION, settings: &settings, inputs: &inputs };
    run.store.task(&key, |work| {
        let mut counts = Counts::default();
        let mut writer = work.writer()?;
        let (mut held, mut text) = (Vec::new(), 0);
        source::read::<StepError>(files, spec, decoder.as_ref(), |items| {
            run.watch.go_on()?;
            // Hashing and judging take time; counting is done in order.
            let judged: Vec<Judged> = items.into_par_iter().map(|item| judge(item, gate)).collect();
            for judged in judged {
                let Some(document) = judged.count(&mut counts) else { continue };
                text += document.text.len();
                held.push(document);
                if text >= BATCH_TEXT {
                    writer.write(&to_batch(&mem::take(&mut held))?)?;
                    text = 0;
                    if writer.text_bytes() >= PART_TEXT {
                        work.add(mem::replace(&mut writer, work.writer()?), "")?;
                    }
                }
            }
            Ok(())
        })?;
        writer.write(&to_batch(&held)?)?;
        work.add(writer, "")?;
        Ok((counts, Value::Null))
    })
}

enum Judged {
    Kept(Box<Document>),
    Dropped { dataset: String, reason: String, what: String, bytes: usize },
}

fn judge(item: Item, gate: &Gate) -> Judged {
    let mut document = match item {
        Item::Unreadable { dataset, reason, what, bytes } => {
            return Judged::Dropped { dataset, reason: reason.into(), what, bytes };
        }
        Item::Document(document) => document,
    };
    let dropped = |document: Document, reason: String| Judged::Dropped {
        bytes: document.text.len(),
        dataset: document.dataset,
        reason,
        what: document.id,
    };
    if document.text.trim().is_empty() {
        return dropped(*document, EMPTY.into());
    }
    match gate.judge(Some(&document.license), document.license_basis.as_deref()) {
        Err(refusal) => dropped(*document, format!("{REFUSED}{refusal}")),
        Ok(Right { license, basis, .. }) => {
            (document.license, document.license_basis) = (license, basis);
            document.blake3 = hash::hex(document.text.as_bytes());
            Judged::Kept(document)
        }
    }
}

impl Judged {
    fn count(self, counts: &mut Counts) -> Option<Document> {
        match self {
            Self::Kept(document) => {
                let text = &document.text;
                counts.keep(&document.dataset, &document.license, text.len(), text);
                Some(*document)
            }
            Self::Dropped { dataset, reason, what, bytes } => {
                counts.drop(&dataset, &reason, bytes, what);
                None
            }
        }
    }
}
