//! How well a model predicts documents that it never trains on, by dataset.

use crate::error::TrainError;
use blackletter_dataset::TokenStore;
use blackletter_model::decoder::{Batch, Decoder, IGNORED, LossOptions};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, f64::consts::LN_2};

/// How well some documents are predicted. Every token of their text is predicted once: the first after `<|start|>`, the first of
/// a later window after the one before it alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// Mean negative log-likelihood of a token, natural logarithm.
    pub loss: f64,
    /// `exp(loss)`.
    pub perplexity: f64,
    /// Negative log-likelihood in bits per byte of text: comparable between tokenizers.
    pub bits_per_byte: f64,
    /// Tokens that were predicted.
    pub tokens: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Score {
    fn new(nll: f64, tokens: u64, bytes: u64) -> Self {
        let loss = nll / tokens.max(1) as f64;
        // Not infinite, which JSON has no form for.
        let perplexity = loss.exp().min(f64::MAX);
        Self { loss, perplexity, bits_per_byte: nll / LN_2 / bytes.max(1) as f64, tokens, bytes }
    }
}

/// Scores by dataset, and over all.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Over the tokens of all datasets.
    pub all: Score,
    /// By dataset.
    pub datasets: BTreeMap<String, Score>,
}

/// The held-out documents of a store, made ready once.
pub struct Heldout(Vec<Part>);

struct Part {
    dataset: String,
    batches: Vec<Batch>,
    bytes: u64,
}

impl Heldout {
    /// At most `tokens` of each dataset: whole documents, evenly over the dataset, one at least.
    ///
    /// # Errors
    /// When ids do not fit the model.
    pub fn new(
        store: &TokenStore,
        context: usize,
        rows: usize,
        tokens: usize,
        vocabulary: usize,
    ) -> Result<Self, TrainError> {
        let table = store.heldout();
        let mut by_dataset: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (number, entry) in table.iter().enumerate() {
            if !entry.tokens.is_empty() {
                by_dataset.entry(store.dataset(entry.dataset)).or_default().push(number);
            }
        }
        let start = store.manifest().tokenizer.special.start;
        let pad = store.manifest().tokenizer.special.pad;
        let mut parts = Vec::new();
        for (dataset, documents) in by_dataset {
            let all: usize =
                documents.iter().filter_map(|&d| table.get(d)).map(|entry| entry.tokens.len()).sum();
            // As many documents as hold the tokens asked for, if all were of mean length.
            let count = (documents.len() * tokens.min(all)).div_ceil(all.max(1)).max(1);
            let mut rows_of = Rows { context, pad, ..Rows::default() };
            let (mut taken, mut bytes) = (0, 0);
            for i in 0..count {
                let Some(entry) = documents.get(i * documents.len() / count).and_then(|&d| table.get(d))
                else {
                    continue;
                };
                if taken > 0 && taken + entry.tokens.len() > tokens {
                    continue;
                }
                taken += entry.tokens.len();
                bytes += entry.bytes;
                let mut ids = vec![start];
                entry.tokens.extend(0..entry.tokens.len(), &mut ids);
                rows_of.document(&ids);
            }
            parts.push(Part { dataset: dataset.into(), batches: rows_of.batches(rows, vocabulary)?, bytes });
        }
        Ok(Self(parts))
    }

    /// Whether there is nothing to evaluate on.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Scores a decoder that records no gradients ([`Decoder::frozen`]).
    pub fn score(&self, decoder: &Decoder, options: &LossOptions) -> Evaluation {
        let options = LossOptions { scale: Some(1.0), z_coefficient: 0.0, ..*options };
        let (mut datasets, mut sums) = (BTreeMap::new(), (0.0, 0, 0));
        for part in &self.0 {
            let nll: f64 = part.batches.iter().map(|b| decoder.loss(b, &options).cross_entropy).sum();
            let tokens = part.batches.iter().map(|b| b.targets() as u64).sum::<u64>();
            sums = (sums.0 + nll, sums.1 + tokens, sums.2 + part.bytes);
            datasets.insert(part.dataset.clone(), Score::new(nll, tokens, part.bytes));
        }
        Evaluation { all: Score::new(sums.0, sums.1, sums.2), datasets }
    }
}

/// Rows that are filled with windows of documents, one after the other where they fit.
#[derive(Default)]
struct Rows {
    context: usize,
    pad: u32,
    ids: Vec<u32>,
    positions: Vec<u32>,
    segments: Vec<u32>,
    targets: Vec<i64>,
}

impl Rows {
    /// Every id but the first is predicted once.
    fn document(&mut self, ids: &[u32]) {
        let predicted = ids.len().saturating_sub(1);
        for from in (0..predicted).step_by(self.context.max(1)) {
            let to = predicted.min(from + self.context);
            let used = self.ids.len() % self.context.max(1);
            if used + (to - from) > self.context {
                self.fill();
            }
            let segment = match self.segments.last() {
                Some(last) if !self.ids.len().is_multiple_of(self.context.max(1)) => last + 1,
                _ => 1,
            };
            self.ids.extend(ids.get(from..to).unwrap_or_default());
            self.positions.extend(0..(to - from) as u32);
            self.segments.extend((from..to).map(|_| segment));
            self.targets
                .extend(ids.get(from + 1..to + 1).unwrap_or_default().iter().map(|&id| i64::from(id)));
        }
    }

    /// Fills the last row with padding.
    fn fill(&mut self) {
        let len = self.ids.len().next_multiple_of(self.context.max(1));
        self.ids.resize(len, self.pad);
        self.positions.resize(len, 0);
        self.segments.resize(len, 0);
        self.targets.resize(len, IGNORED);
    }

    fn batches(mut self, rows: usize, vocabulary: usize) -> Result<Vec<Batch>, TrainError> {
        self.fill();
        let size = self.context.max(1) * rows.max(1);
        let parts = self.ids.chunks(size).zip(self.positions.chunks(size));
        let more = self.segments.chunks(size).zip(self.targets.chunks(size));
        parts
            .zip(more)
            .map(|((ids, positions), (segments, targets))| {
                let context = self.context;
                Ok(Batch::new(
                    context,
                    ids.into(),
                    positions.into(),
                    segments.into(),
                    targets.into(),
                    vocabulary,
                )?)
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_predict_every_token_once_and_share_rows() {
        let mut rows = Rows { context: 4, pad: 9, ..Rows::default() };
        rows.document(&[0, 1, 2, 3, 4, 5, 6]);
        rows.document(&[0, 7, 8]);
        rows.document(&[0, 5, 5]);
        rows.fill();
        assert_eq!(rows.ids, [0, 1, 2, 3, 4, 5, 0, 7, 0, 5, 9, 9]);
        assert_eq!(rows.targets, [1, 2, 3, 4, 5, 6, 7, 8, 5, 5, IGNORED, IGNORED]);
        assert_eq!(rows.segments, [1, 1, 1, 1, 1, 1, 2, 2, 1, 1, 0, 0]);
        assert_eq!(rows.positions, [0, 1, 2, 3, 0, 1, 0, 1, 0, 1, 0, 0]);
        assert_eq!(rows.batches(2, 10).unwrap().len(), 2);
    }

    #[test]
    fn a_score_beyond_all_measure_is_read_as_it_was_written() {
        let score = Score::new(1e6, 2, 3);
        let text = serde_json::to_string(&score).unwrap();
        assert_eq!(serde_json::from_str::<Score>(&text).unwrap(), score);
    }
}
