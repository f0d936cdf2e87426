//! Drops documents that stand in the corpus more than once.

use super::{Block, Event, Key, Part, Place, Run, StepError, blocks::select, map};
use crate::{
    dedup::{
        exact::normalized_hash,
        near::{Near, Signature, Sorter},
    },
    document::Rows,
    quality,
    report::Counts,
    shards::ShardReader,
};
use arrow_array::RecordBatch;
use blackletter_provenance::hash;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};

const VERSION: u32 = 1;
/// Parts whose documents are looked at before the next ones are.
const AT_A_TIME: usize = 8;

/// Which documents are duplicates.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DedupSettings {
    /// Whether documents are dropped at all.
    pub enabled: bool,
    /// Documents with the same words.
    pub exact: bool,
    /// Documents with nearly the same words.
    pub near: bool,
    /// From this Jaccard similarity on, above 0 to 1.
    pub similarity: f64,
    /// Memory for comparing, in MiB; what does not fit goes to files.
    pub memory_mib: usize,
}

impl Default for DedupSettings {
    fn default() -> Self {
        Self { enabled: true, exact: true, near: true, similarity: 0.8, memory_mib: 256 }
    }
}

/// A duplicate in a part: its row, why it goes, and what is said of it.
type Found = (usize, String, String);

struct Drop {
    settings: Value,
    /// By part, in order of rows.
    found: Vec<HashMap<usize, (String, String)>>,
    depends: Vec<String>,
}

impl Block for Drop {
    fn name(&self) -> &'static str {
        "dedup"
    }

    fn version(&self) -> u32 {
        VERSION
    }

    fn settings(&self) -> Value {
        self.settings.clone()
    }

    fn depends(&self, part: usize) -> String {
        self.depends.get(part).cloned().unwrap_or_default()
    }

    fn run(&self, batch: &RecordBatch, place: Place, counts: &mut Counts) -> Result<RecordBatch, StepError> {
        let found = self.found.get(place.part);
        select(batch, counts, |_, row, _| found?.get(&(place.row + row)).cloned())
    }
}

/// Finds duplicates over all parts and drops them. Of documents with the same words, or nearly, the one with the lowest
/// quality score stays; of several such, the one with the least id.
///
/// # Errors
/// When a part cannot be read or written, or the run is asked to stop.
pub fn dedup(
    run: Run<'_>,
    settings: &DedupSettings,
    parts: &[Part],
) -> Result<(Vec<Part>, Counts), StepError> {
    // How much memory there is does not change the answer.
    let recorded =
        json!({ "exact": settings.exact, "near": settings.near, "similarity": settings.similarity });
    let inputs: Vec<&str> = parts.iter().map(|part| part.blake3.as_str()).collect();
    let key = Key { step: "duplicates", version: VERSION, settings: &recorded, inputs: &inputs };
    let bytes = parts.iter().map(|part| part.text_bytes).sum();
    (run.watch.event)(Event::Begin { step: "duplicates", bytes });
    let done = run.store.task(&key, |work| {
        let scratch = work.scratch()?;
        let found = find(run, settings, parts, scratch.path())?;
        Ok((Counts::default(), serde_json::to_value(found)?))
    })?;
    let found: Vec<Vec<Found>> = serde_json::from_value(done.value)?;
    let depends = found.iter().map(|found| hash::hex(json!(found).to_string().as_bytes())).collect();
    let by_row =
        |found: Vec<Found>| found.into_iter().map(|(row, reason, what)| (row, (reason, what))).collect();
    let drop = Drop { settings: recorded, found: found.into_iter().map(by_row).collect(), depends };
    map(run, &drop, parts)
}

fn find(
    run: Run<'_>,
    settings: &DedupSettings,
    parts: &[Part],
    scratch: &std::path::Path,
) -> Result<Vec<Vec<Found>>, StepError> {
    let memory = settings.memory_mib << 20;
    let mut exact = Sorter::new(scratch, memory / 8);
    let mut near = Near::new(scratch, settings.similarity, memory / 8 * 7);
    // Numbers of the first document of each part, and of the one after the last.
    let mut first = vec![0];
    for some in parts.chunks(AT_A_TIME) {
        let features: Vec<Vec<Features>> =
            some.par_iter().map(|part| features(run, settings, part)).collect::<Result<_, _>>()?;
        for features in features {
            let start = first.last().copied().unwrap_or(0);
            first.push(start + features.len() as u64);
            for (document, (words, signature)) in (start..).zip(&features) {
                if let Some(words) = words {
                    exact.push(*words, document)?;
                }
                if let Some(signature) = signature {
                    near.add(document, signature)?;
                }
            }
        }
    }
    let mut same: Vec<Vec<u64>> = Vec::new();
    exact.groups(|documents| {
        same.push(documents.to_vec());
        Ok(())
    })?;
    let alike = near.clusters()?;
    let wanted: HashSet<u64> = same.iter().flatten().copied().chain(alike.documents()).collect();
    let ranks = ranks(run, parts, &first, &wanted)?;
    let mut found: Vec<Vec<Found>> = vec![Vec::new(); parts.len()];
    let mut tell = |document: u64, reason: &str, of: u64, similarity: Option<f64>| {
        let part = first.partition_point(|&start| start <= document).saturating_sub(1);
        let id = |document: u64| ranks.get(&document).map_or("", |(_, id)| id.as_str());
        let row = (document - first.get(part).copied().unwrap_or(0)) as usize;
        let similarity = similarity.map_or(String::new(), |s| format!(", {s:.2} alike"));
        if let Some(found) = found.get_mut(part) {
            found.push((row, reason.to_owned(), format!("{} (of {}{similarity})", id(document), id(of))));
        }
    };
    let mut gone: HashSet<u64> = HashSet::new();
    for group in same {
        let Some(best) = group.iter().copied().min_by_key(|document| ranks.get(document)) else { continue };
        for document in group.into_iter().filter(|&document| document != best) {
            gone.insert(document);
            tell(document, "exact duplicate", best, None);
        }
    }
    let rank = |document: u64| if gone.contains(&document) { None } else { ranks.get(&document) };
    for duplicate in alike.duplicates(rank)? {
        tell(duplicate.document, "near duplicate", duplicate.of, Some(duplicate.similarity));
    }
    found.iter_mut().for_each(|found| found.sort());
    Ok(found)
}

type Features = (Option<u128>, Option<Signature>);

fn features(run: Run<'_>, settings: &DedupSettings, part: &Part) -> Result<Vec<Features>, StepError> {
    let mut all = Vec::with_capacity(part.documents as usize);
    for batch in ShardReader::open(&part.path)? {
        run.watch.go_on()?;
        let batch = batch?;
        let rows = Rows::of(&batch)?;
        for row in 0..rows.len() {
            let text = rows.text(row);
            let words = if settings.exact { normalized_hash(text) } else { None };
            let signature = if settings.near { Signature::of(text) } else { None };
            all.push((words, signature));
        }
    }
    (run.watch.event)(Event::Progress { bytes: part.text_bytes });
    Ok(all)
}

/// Score, in bits that sort as the numbers do (scores are not negative), and id.
type Rank = (u64, String);

/// The ranks of some documents.
fn ranks(
    run: Run<'_>,
    parts: &[Part],
    first: &[u64],
    wanted: &HashSet<u64>,
) -> Result<HashMap<u64, Rank>, StepError> {
    let one = |(part, &start): (&Part, &u64)| -> Result<Vec<(u64, Rank)>, StepError> {
        let mut ranks = Vec::new();
        let mut document = start;
        for batch in ShardReader::open(&part.path)? {
            run.watch.go_on()?;
            let batch = batch?;
            let rows = Rows::of(&batch)?;
            for row in 0..rows.len() {
                if wanted.contains(&document) {
                    let score = rows.score(row).unwrap_or_else(|| quality::measure(rows.text(row)).score());
                    ranks.push((document, (score.max(0.0).to_bits(), rows.id(row).to_owned())));
                }
                document += 1;
            }
        }
        Ok(ranks)
    };
    let all: Vec<Vec<(u64, Rank)>> = parts.par_iter().zip(first).map(one).collect::<Result<_, _>>()?;
    Ok(all.into_iter().flatten().collect())
}
