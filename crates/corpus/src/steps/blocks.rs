//! Steps that look at one document at a time.

use super::{Block, Place, StepError};
use crate::{
    clean::LineFilters,
    decontaminate::{Evaluations, Thresholds},
    document::{self, Document, INGESTED, Rows, quality_column, to_batch},
    pii::Scrub,
    quality::{self, Metrics, RANGES},
    report::{Counts, Histogram, entry},
    rules::{Limit, Rules},
};
use arrow_array::{ArrayRef, BooleanArray, Float64Array, RecordBatch};
use arrow_select::filter::filter_record_batch;
use blackletter_provenance::hash;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::{collections::BTreeMap, sync::Arc};

/// Keeps the rows for which `keep` gives no reason, and counts all.
pub(super) fn select(
    batch: &RecordBatch,
    counts: &mut Counts,
    mut judge: impl FnMut(&Rows<'_>, usize, &mut Counts) -> Option<(String, String)>,
) -> Result<RecordBatch, StepError> {
    let rows = Rows::of(batch)?;
    let mut kept = Vec::with_capacity(rows.len());
    for row in 0..rows.len() {
        let bytes = rows.text(row).len();
        let dropped = judge(&rows, row, counts);
        kept.push(dropped.is_none());
        match dropped {
            Some((reason, what)) => counts.drop(rows.dataset(row), &reason, bytes, what),
            None => counts.keep(rows.dataset(row), rows.license(row), bytes, rows.text(row)),
        }
    }
    Ok(filter_record_batch(batch, &BooleanArray::from(kept)).map_err(document::DocumentError::from)?)
}

/// Takes lines and personal data out of texts.
pub struct Clean {
    /// Which lines.
    pub lines: LineFilters,
    /// Which personal data.
    pub scrub: Scrub,
}

impl Block for Clean {
    fn name(&self) -> &'static str {
        "clean"
    }

    fn version(&self) -> u32 {
        4
    }

    fn settings(&self) -> Value {
        json!({ "lines": self.lines, "scrub": self.scrub })
    }

    fn run(&self, batch: &RecordBatch, _: Place, counts: &mut Counts) -> Result<RecordBatch, StepError> {
        let rows = Rows::of(batch)?;
        let mut documents: Vec<Document> = Vec::with_capacity(rows.len());
        for row in 0..rows.len() {
            let before = rows.text(row);
            let cleaned = self.lines.clean(before);
            let scrubbed = self.scrub.scrub(&cleaned.text);
            for (kind, count) in cleaned.removed.iter().chain(&scrubbed.removed) {
                *entry(&mut counts.removed, kind) += count;
            }
            let text = scrubbed.text;
            if text.trim().is_empty() {
                let what = rows.id(row);
                counts.drop(rows.dataset(row), "empty after cleaning", before.len(), what);
                continue;
            }
            counts.keep(rows.dataset(row), rows.license(row), before.len(), &text);
            let mut document = rows.document(row);
            if text != before {
                counts.changed += 1;
                let ingested = std::mem::replace(&mut document.blake3, hash::hex(text.as_bytes()));
                document.extras.entry(INGESTED.into()).or_insert(ingested);
                document.text = text.into_owned();
            }
            documents.push(document);
        }
        Ok(to_batch(&documents)?)
    }
}

/// Measures quality.
pub struct Score;

impl Block for Score {
    fn name(&self) -> &'static str {
        "score"
    }

    fn version(&self) -> u32 {
        3
    }

    fn settings(&self) -> Value {
        let range =
            |r: &quality::Range| (r.name, json!({ "low": r.low, "high": r.high, "weight": r.weight }));
        json!(RANGES.iter().map(range).collect::<BTreeMap<_, _>>())
    }

    fn run(&self, batch: &RecordBatch, _: Place, counts: &mut Counts) -> Result<RecordBatch, StepError> {
        let rows = Rows::of(batch)?;
        let metrics: Vec<Metrics> = (0..rows.len()).map(|row| quality::measure(rows.text(row))).collect();
        for (row, metrics) in metrics.iter().enumerate() {
            let bytes = rows.text(row).len();
            counts.keep(rows.dataset(row), rows.license(row), bytes, rows.text(row));
            record(metrics, rows.dataset(row), counts);
        }
        let scores: Float64Array = metrics.iter().map(|m| Some(m.score())).collect();
        // By name, as documents hold them.
        let quality = quality_column(metrics.iter().map(|m| m.named().collect::<BTreeMap<_, _>>()))?;
        let schema = document::schema();
        let replaced = |(field, column): (&Arc<arrow_schema::Field>, &ArrayRef)| -> ArrayRef {
            match field.name().as_str() {
                document::SCORE => Arc::new(scores.clone()),
                document::QUALITY => quality.clone(),
                _ => column.clone(),
            }
        };
        let columns = schema.fields().iter().zip(batch.columns()).map(replaced).collect();
        Ok(RecordBatch::try_new(schema, columns).map_err(document::DocumentError::from)?)
    }
}

/// Bins of a histogram.
const BINS: usize = 20;

fn record(metrics: &Metrics, dataset: &str, counts: &mut Counts) {
    let mut add = |name: &str, from: f64, to: f64, value: f64| {
        let histogram = entry(&mut counts.histograms, name);
        if histogram.bins.is_empty() {
            *histogram = Histogram::new(from, to, BINS);
        }
        histogram.add(value);
    };
    for (range, value) in RANGES.iter().zip(metrics.values) {
        // The range takes the middle half.
        let half = if range.high > 0.0 { (range.high - range.low) / 2.0 } else { 0.05 };
        add(range.name, (range.low - half).max(0.0), range.high + half, value);
    }
    add(document::SCORE, 0.0, 10.0, metrics.score());
    add(&format!("{}/{dataset}", document::SCORE), 0.0, 10.0, metrics.score());
}

/// When a document is no text worth learning from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FilterSettings {
    /// Whether documents are dropped at all.
    pub enabled: bool,
    /// Greatest quality score, or false.
    pub max_score: Limit,
    /// Rules of repetition and shape.
    pub rules: Rules,
}

impl Default for FilterSettings {
    fn default() -> Self {
        Self { enabled: true, max_score: Limit(Some(400.0)), rules: Rules::default() }
    }
}

/// Drops what is no text worth learning from. The first rule that a document breaks is its reason; each rule's own count is
/// among the observations.
pub struct Filter {
    /// Limits.
    pub settings: FilterSettings,
}

impl Block for Filter {
    fn name(&self) -> &'static str {
        "filter"
    }

    fn version(&self) -> u32 {
        2
    }

    fn settings(&self) -> Value {
        json!(self.settings)
    }

    fn run(&self, batch: &RecordBatch, _: Place, counts: &mut Counts) -> Result<RecordBatch, StepError> {
        select(batch, counts, |rows, row, counts| {
            let text = rows.text(row);
            let score = || rows.score(row).unwrap_or_else(|| quality::measure(text).score());
            let mut broken: Vec<(&str, f64)> = self
                .settings
                .rules
                .check(text)
                .into_iter()
                .map(|failure| (failure.rule, failure.value))
                .collect();
            if let Some(limit) = self.settings.max_score.0 {
                let score = score();
                broken.extend((score > limit).then_some(("max_score", score)));
            }
            for (rule, _) in &broken {
                *entry(&mut counts.observed, &format!("broke {rule}")) += 1;
            }
            let (rule, value) = broken.first()?;
            Some(((*rule).to_owned(), format!("{} ({value:.3})", rows.id(row))))
        })
    }
}

/// Drops documents that evaluation texts are in.
pub struct Decontaminate {
    /// The texts.
    pub evaluations: Evaluations,
    /// Hashes of the files that they are from.
    pub files: Vec<String>,
    /// When a document goes.
    pub thresholds: Thresholds,
}

impl Block for Decontaminate {
    fn name(&self) -> &'static str {
        "decontaminate"
    }

    fn version(&self) -> u32 {
        1
    }

    fn settings(&self) -> Value {
        json!({ "thresholds": self.thresholds, "evaluations": self.files })
    }

    fn run(&self, batch: &RecordBatch, _: Place, counts: &mut Counts) -> Result<RecordBatch, StepError> {
        select(batch, counts, |rows, row, counts| {
            let overlap = self.evaluations.overlap(rows.text(row));
            if overlap.of_document > 0.0 {
                *entry(&mut counts.observed, "shares a 13-gram") += 1;
            }
            let what =
                || format!("{} ({:.3}, {:.3})", rows.id(row), overlap.of_document, overlap.of_evaluation);
            overlap.exceeds(&self.thresholds).then(|| ("evaluation text".into(), what()))
        })
    }
}
