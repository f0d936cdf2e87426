//! Evaluation texts that a corpus must not contain: shared 13-grams of words.
//!
//! Words are runs of letters and digits in lower case. Law repeats itself, and a statute shares enacting clauses and tables
//! of references with every other; so a document goes by the share of *its* 13-grams that evaluation texts have, or by
//! the share of *one evaluation text* that it holds.

use crate::dedup::near::ngrams;
use foldhash::fast::FixedState;
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet};

/// Words in a row that count as shared.
pub const NGRAM: usize = 13;

/// When a document goes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Thresholds {
    /// From this share of the document's own 13-grams on, 0 to 1.
    pub of_document: f64,
    /// From this share of an evaluation text's 13-grams on, 0 to 1.
    pub of_evaluation: f64,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self { of_document: 0.5, of_evaluation: 0.5 }
    }
}

/// The 13-grams of evaluation texts: 12 bytes for each, and the map around them.
#[derive(Clone, Debug, Default)]
pub struct Evaluations {
    grams: HashMap<u64, Vec<u32>, FixedState>,
    /// Different 13-grams of each text.
    sizes: Vec<u32>,
}

/// How much of a document and of evaluation texts is the same.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Overlap {
    /// Share of the document's 13-grams that evaluation texts have.
    pub of_document: f64,
    /// The greatest share of an evaluation text's 13-grams that the document has.
    pub of_evaluation: f64,
}

impl Overlap {
    /// Whether the document goes.
    pub fn exceeds(&self, thresholds: &Thresholds) -> bool {
        self.of_document > 0.0
            && (self.of_document >= thresholds.of_document || self.of_evaluation >= thresholds.of_evaluation)
    }
}

impl Evaluations {
    /// Adds a text. One of fewer than 13 words has no 13-gram and cannot be found.
    pub fn add(&mut self, text: &str) {
        let grams: HashSet<u64, FixedState> = ngrams::<NGRAM>(text).collect();
        let at = self.sizes.len() as u32;
        self.sizes.push(grams.len() as u32);
        for gram in grams {
            self.grams.entry(gram).or_default().push(at);
        }
    }

    /// How many texts there are.
    pub fn len(&self) -> usize {
        self.sizes.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.sizes.is_empty()
    }

    /// Compares a document with all of them.
    pub fn overlap(&self, text: &str) -> Overlap {
        let (mut all, mut shared) = (0u64, 0u64);
        let mut seen: HashSet<u64, FixedState> = HashSet::default();
        let mut hits: HashMap<u32, u32, FixedState> = HashMap::default();
        for gram in ngrams::<NGRAM>(text) {
            all += 1;
            let Some(texts) = self.grams.get(&gram) else { continue };
            shared += 1;
            if seen.insert(gram) {
                texts.iter().for_each(|&text| *hits.entry(text).or_default() += 1);
            }
        }
        let part = |(text, hits): (u32, u32)| {
            let size = self.sizes.get(text as usize).copied().unwrap_or(1).max(1);
            f64::from(hits) / f64::from(size)
        };
        let of_document = if all == 0 { 0.0 } else { shared as f64 / all as f64 };
        Overlap { of_document, of_evaluation: hits.into_iter().map(part).fold(0.0, f64::max) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn words(from: usize, count: usize) -> String {
        (from..from + count).map(|n| format!("word{n}")).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_text_inside_another_is_found_whatever_its_spacing_and_case() {
        let mut evaluations = Evaluations::default();
        evaluations.add(&words(0, 100));
        evaluations.add("too short");
        let exceeds = |text: &str| evaluations.overlap(text).exceeds(&Thresholds::default());
        assert!(exceeds(&words(0, 100)));
        assert!(exceeds(&format!(
            "{} {}",
            words(5000, 5000),
            words(0, 100).to_uppercase().replace(' ', ",\n")
        )));
        assert!(exceeds(&words(20, 60)), "most of it");
        assert!(exceeds(&words(30, 20)), "all of the document is of it");
        assert!(!exceeds(&words(1000, 500)));
        assert!(!exceeds("too short"));
        let clause = format!("{} {}", words(0, 20), words(1000, 500));
        let overlap = evaluations.overlap(&clause);
        assert!(
            overlap.of_document > 0.0 && !overlap.exceeds(&Thresholds::default()),
            "a shared clause: {overlap:?}"
        );
    }

    proptest! {
        #[test]
        fn shares_are_shares(evaluation in "([a-c] ){0,60}", text in any::<String>()) {
            let mut evaluations = Evaluations::default();
            evaluations.add(&evaluation);
            for text in [&text, &evaluation] {
                let overlap = evaluations.overlap(text);
                prop_assert!((0.0..=1.0).contains(&overlap.of_document) && (0.0..=1.0).contains(&overlap.of_evaluation));
            }
        }
    }
}
