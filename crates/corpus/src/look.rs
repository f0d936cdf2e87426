//! Looking into a finished corpus: sums over it, and one document of it.

use crate::{
    audit::{AuditError, record},
    document::{Document, Rows},
    report::{Size, entry},
    shards::{ShardError, ShardReader},
};
use rayon::prelude::*;
use serde::Serialize;
use std::{collections::BTreeMap, path::Path};

/// Sums over a corpus.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Stats {
    /// All documents.
    pub total: Measures,
    /// By part.
    pub parts: BTreeMap<String, Size>,
    /// By dataset.
    pub datasets: BTreeMap<String, Measures>,
    /// By licence.
    pub licenses: BTreeMap<String, Size>,
    /// By form of the original.
    pub mime_types: BTreeMap<String, Size>,
}

/// Sums over some documents.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Measures {
    /// Documents.
    pub documents: u64,
    /// Bytes of text.
    pub bytes: u64,
    /// Words: runs of characters without whitespace.
    pub words: u64,
    /// Bytes of the longest text.
    pub longest: u64,
    /// Quality scores at the 5th, 25th, 50th, 75th and 95th percentile; none before scoring.
    pub score_percentiles: Option<[f64; 5]>,
    #[serde(skip)]
    scores: Vec<f64>,
}

impl Measures {
    fn add(&mut self, text: &str, words: u64, score: Option<f64>) {
        self.documents += 1;
        self.bytes += text.len() as u64;
        self.words += words;
        self.longest = self.longest.max(text.len() as u64);
        self.scores.extend(score);
    }

    fn merge(&mut self, other: Self) {
        self.documents += other.documents;
        self.bytes += other.bytes;
        self.words += other.words;
        self.longest = self.longest.max(other.longest);
        self.scores.extend(other.scores);
    }

    fn finish(&mut self) {
        self.scores.sort_unstable_by(f64::total_cmp);
        let at = |share: f64| {
            let place = (share * self.scores.len().saturating_sub(1) as f64).round() as usize;
            self.scores.get(place).copied()
        };
        self.score_percentiles = at(0.05)
            .zip(at(0.25))
            .zip(at(0.5))
            .zip(at(0.75))
            .zip(at(0.95))
            .map(|((((a, b), c), d), e)| [a, b, c, d, e]);
    }
}

/// Sums over the corpus in `folder`.
///
/// # Errors
/// When it is not finished or cannot be read.
pub fn stats(folder: &Path) -> Result<Stats, AuditError> {
    let record = record(folder)?;
    let all: Vec<Stats> = record
        .shards
        .par_iter()
        .map(|shard| -> Result<Stats, ShardError> {
            let mut stats = Stats::default();
            for batch in ShardReader::open(&folder.join(&shard.path))? {
                let batch = batch?;
                let Ok(rows) = Rows::of(&batch) else { continue };
                for row in 0..rows.len() {
                    let text = rows.text(row);
                    let words = text.split_whitespace().count() as u64;
                    stats.total.add(text, words, rows.score(row));
                    entry(&mut stats.datasets, rows.dataset(row)).add(text, words, rows.score(row));
                    entry(&mut stats.parts, &shard.part).add(text.len() as u64);
                    entry(&mut stats.licenses, rows.license(row)).add(text.len() as u64);
                    entry(&mut stats.mime_types, rows.mime_type(row)).add(text.len() as u64);
                }
            }
            Ok(stats)
        })
        .collect::<Result<_, _>>()?;
    let mut sum = Stats::default();
    for stats in all {
        sum.total.merge(stats.total);
        for (name, measures) in stats.datasets {
            entry(&mut sum.datasets, &name).merge(measures);
        }
        for (own, other) in [
            (&mut sum.parts, stats.parts),
            (&mut sum.licenses, stats.licenses),
            (&mut sum.mime_types, stats.mime_types),
        ] {
            for (name, size) in other {
                let own = entry(own, &name);
                own.documents += size.documents;
                own.bytes += size.bytes;
            }
        }
    }
    sum.total.finish();
    sum.datasets.values_mut().for_each(Measures::finish);
    Ok(sum)
}

/// The document of this name in the corpus in `folder`, and the part it is in.
///
/// # Errors
/// When the corpus is not finished or cannot be read.
pub fn find(folder: &Path, id: &str) -> Result<Option<(String, Document)>, AuditError> {
    for shard in &record(folder)?.shards {
        let path = folder.join(&shard.path);
        let Some(number) = ShardReader::ids(&path)?.iter().position(|found| found == id) else { continue };
        if let Some(batch) = ShardReader::open(&path)?.one_by_one(number).next() {
            let batch = batch?;
            let rows = Rows::of(&batch).ok().filter(|rows| !rows.is_empty());
            return Ok(rows.map(|rows| (shard.part.clone(), rows.document(0))));
        }
    }
    Ok(None)
}
