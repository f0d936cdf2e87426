//! What happened to the documents: counts of each step, and the report that is their sum.
//!
//! Every document that enters a step is recorded once, as kept or as dropped for a reason, so that `in` is always `kept` plus
//! all of `dropped`.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Reasons that a step tells apart; what comes after is counted as [`OTHER`].
const MOST_REASONS: usize = 500;
/// Documents named for each reason.
const EXAMPLES: usize = 5;
/// The reason of documents whose own would be one too many.
pub const OTHER: &str = "other reasons";

/// Counts of a step, or of a piece of its work.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Counts {
    /// Documents that came in.
    #[serde(rename = "in")]
    pub entered: u64,
    /// Documents that went on.
    pub kept: u64,
    /// Documents that did not, by reason.
    pub dropped: BTreeMap<String, u64>,
    /// Bytes of text that came in; of what could not be read, its own bytes.
    pub bytes_in: u64,
    /// Bytes of text that went on.
    pub bytes_kept: u64,
    /// Tokens that went on, as counted before there is a tokenizer: runs of characters without ASCII whitespace.
    pub tokens_kept: u64,
    /// Documents whose text was changed.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub changed: u64,
    /// What was taken out of texts: lines by rule, personal data by kind.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub removed: BTreeMap<String, u64>,
    /// Documents by the part of the corpus that they went to.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parts: BTreeMap<String, Size>,
    /// Observations that drop nothing: what each rule would have dropped alone, and the like.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub observed: BTreeMap<String, u64>,
    /// The same by dataset.
    pub sources: BTreeMap<String, Tally>,
    /// What went on, by licence.
    pub licenses: BTreeMap<String, Size>,
    /// Distributions of quality metrics.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub histograms: BTreeMap<String, Histogram>,
    /// The first documents that were dropped for each reason, with details where there are any.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub examples: BTreeMap<String, Vec<String>>,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// Counts of one dataset.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Documents that came in.
    #[serde(rename = "in")]
    pub entered: u64,
    /// Documents that went on.
    pub kept: u64,
    /// Documents that did not, by reason.
    pub dropped: BTreeMap<String, u64>,
    /// Bytes of text that came in.
    pub bytes_in: u64,
    /// Bytes of text that went on.
    pub bytes_kept: u64,
    /// Tokens that went on, as in [`Counts::tokens_kept`].
    pub tokens_kept: u64,
}

/// Documents and their text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    /// Documents.
    pub documents: u64,
    /// Bytes of text.
    pub bytes: u64,
}

impl Size {
    /// Adds a document.
    pub fn add(&mut self, bytes: u64) {
        self.documents += 1;
        self.bytes += bytes;
    }
}

/// A distribution over equal bins.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Histogram {
    /// Where the first bin begins.
    pub from: f64,
    /// Where the last bin ends.
    pub to: f64,
    /// Values below the first bin.
    pub below: u64,
    /// Values in each bin.
    pub bins: Vec<u64>,
    /// Values from the end of the last bin on.
    pub above: u64,
}

impl Histogram {
    /// An empty one.
    pub fn new(from: f64, to: f64, bins: usize) -> Self {
        Self { from, to, below: 0, bins: vec![0; bins], above: 0 }
    }

    /// Adds a value.
    pub fn add(&mut self, value: f64) {
        let place = (value - self.from) / (self.to - self.from) * self.bins.len() as f64;
        if place < 0.0 {
            self.below += 1;
        } else if let Some(bin) = self.bins.get_mut(place as usize) {
            *bin += 1;
        } else {
            self.above += 1;
        }
    }

    fn merge(&mut self, other: &Self) {
        if self.bins.is_empty() {
            *self = other.clone();
            return;
        }
        self.below += other.below;
        self.above += other.above;
        self.bins.iter_mut().zip(&other.bins).for_each(|(own, other)| *own += other);
    }
}

fn merge_counts(own: &mut BTreeMap<String, u64>, other: &BTreeMap<String, u64>) {
    for (name, count) in other {
        *own.entry(name.clone()).or_default() += count;
    }
}

fn merge_sizes(own: &mut BTreeMap<String, Size>, other: &BTreeMap<String, Size>) {
    for (name, size) in other {
        let own = own.entry(name.clone()).or_default();
        own.documents += size.documents;
        own.bytes += size.bytes;
    }
}

/// Runs of bytes that are no ASCII whitespace.
fn tokens(text: &str) -> u64 {
    let space = |byte: &u8| byte.is_ascii_whitespace();
    let starts = text.as_bytes().windows(2).filter(|pair| space(&pair[0]) && !space(&pair[1])).count();
    starts as u64 + u64::from(text.as_bytes().first().is_some_and(|byte| !space(byte)))
}

impl Counts {
    /// Records a document that goes on with `text`; it came with `before` bytes.
    pub fn keep(&mut self, dataset: &str, license: &str, before: usize, text: &str) {
        let (before, bytes, tokens) = (before as u64, text.len() as u64, tokens(text));
        self.entered += 1;
        self.kept += 1;
        self.bytes_in += before;
        self.bytes_kept += bytes;
        self.tokens_kept += tokens;
        let tally = entry(&mut self.sources, dataset);
        tally.entered += 1;
        tally.kept += 1;
        tally.bytes_in += before;
        tally.bytes_kept += bytes;
        tally.tokens_kept += tokens;
        entry(&mut self.licenses, license).add(bytes);
    }

    /// Records a document that does not go on, and which; `what` is its id and perhaps more about it.
    pub fn drop(&mut self, dataset: &str, reason: &str, before: usize, what: impl Into<String>) {
        let before = before as u64;
        let known = self.dropped.contains_key(reason) || self.dropped.len() < MOST_REASONS;
        let reason = if known { reason } else { OTHER };
        self.entered += 1;
        self.bytes_in += before;
        *entry(&mut self.dropped, reason) += 1;
        let tally = entry(&mut self.sources, dataset);
        tally.entered += 1;
        tally.bytes_in += before;
        *entry(&mut tally.dropped, reason) += 1;
        let examples = entry(&mut self.examples, reason);
        if examples.len() < EXAMPLES {
            examples.push(what.into());
        }
    }

    /// Adds the counts of work that came after this one's.
    pub fn merge(&mut self, other: &Self) {
        self.entered += other.entered;
        self.kept += other.kept;
        self.bytes_in += other.bytes_in;
        self.bytes_kept += other.bytes_kept;
        self.tokens_kept += other.tokens_kept;
        self.changed += other.changed;
        merge_counts(&mut self.dropped, &other.dropped);
        merge_counts(&mut self.removed, &other.removed);
        merge_counts(&mut self.observed, &other.observed);
        merge_sizes(&mut self.parts, &other.parts);
        merge_sizes(&mut self.licenses, &other.licenses);
        for (dataset, tally) in &other.sources {
            let own = entry(&mut self.sources, dataset);
            own.entered += tally.entered;
            own.kept += tally.kept;
            own.bytes_in += tally.bytes_in;
            own.bytes_kept += tally.bytes_kept;
            own.tokens_kept += tally.tokens_kept;
            merge_counts(&mut own.dropped, &tally.dropped);
        }
        for (name, histogram) in &other.histograms {
            entry(&mut self.histograms, name).merge(histogram);
        }
        for (reason, examples) in &other.examples {
            let own = entry(&mut self.examples, reason);
            own.extend(examples.iter().take(EXAMPLES.saturating_sub(own.len())).cloned());
        }
    }

    /// Whether nothing has vanished: in all, and for each dataset, what came in was kept or dropped.
    pub fn balance(&self) -> bool {
        let of = |entered: u64, kept: u64, dropped: &BTreeMap<String, u64>| {
            entered == kept + dropped.values().sum::<u64>()
        };
        of(self.entered, self.kept, &self.dropped)
            && self.sources.values().all(|t| of(t.entered, t.kept, &t.dropped))
            && self.sources.values().map(|t| t.entered).sum::<u64>() == self.entered
            && self.licenses.values().map(|l| l.documents).sum::<u64>() == self.kept
    }
}

/// The value of a key, made without an allocation where it is there already.
pub(crate) fn entry<'m, V: Default>(map: &'m mut BTreeMap<String, V>, key: &str) -> &'m mut V {
    if !map.contains_key(key) {
        map.insert(key.to_owned(), V::default());
    }
    // Just inserted, if it was not there.
    map.entry(key.to_owned()).or_default()
}

/// A step and its counts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepReport {
    /// The step.
    pub name: String,
    /// Its counts.
    #[serde(flatten)]
    pub counts: Counts,
}

/// `report.json`: the steps in the order in which they ran.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The steps.
    pub steps: Vec<StepReport>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn recorded(events: &[(u8, bool, u8, u16)]) -> Counts {
        let mut counts = Counts::default();
        for &(dataset, kept, reason, bytes) in events {
            let dataset = format!("d{}", dataset % 3);
            if kept {
                counts.keep(&dataset, "MIT", bytes.into(), &"a ".repeat(usize::from(bytes % 100)));
            } else {
                counts.drop(&dataset, &format!("r{reason}"), bytes.into(), "id");
            }
        }
        counts
    }

    proptest! {
        #[test]
        fn nothing_vanishes_and_pieces_sum_to_the_whole(
            events in prop::collection::vec(any::<(u8, bool, u8, u16)>(), 0..60), cut in 0usize..60,
        ) {
            let whole = recorded(&events);
            prop_assert!(whole.balance());
            prop_assert_eq!(whole.entered, events.len() as u64);
            let cut = cut.min(events.len());
            let mut sum = recorded(&events[..cut]);
            sum.merge(&recorded(&events[cut..]));
            prop_assert_eq!(sum, whole);
        }

        #[test]
        fn a_histogram_counts_every_value_once(values in prop::collection::vec(-5.0..15.0f64, 0..50)) {
            let mut histogram = Histogram::new(0.0, 10.0, 4);
            values.iter().for_each(|&v| histogram.add(v));
            prop_assert_eq!(histogram.below + histogram.above + histogram.bins.iter().sum::<u64>(), values.len() as u64);
            prop_assert_eq!(histogram.below, values.iter().filter(|&&v| v < 0.0).count() as u64);
            prop_assert_eq!(histogram.bins[1], values.iter().filter(|&&v| (2.5..5.0).contains(&v)).count() as u64);
        }
    }

    #[test]
    fn reasons_are_bounded_and_still_balance() {
        let mut counts = Counts::default();
        (0..2 * MOST_REASONS).for_each(|n| counts.drop("d", &format!("r{n}"), 1, "id"));
        assert_eq!(counts.dropped.len(), MOST_REASONS + 1);
        assert_eq!(counts.dropped[OTHER], MOST_REASONS as u64);
        assert!(counts.balance());
    }

    #[test]
    fn the_report_has_the_form_that_readers_know() {
        let mut counts = Counts::default();
        counts.keep("usc", "MIT", 9, " a bc\n");
        counts.drop("usc", "empty text", 0, "a");
        let report = Report { steps: vec![StepReport { name: "ingest".into(), counts }] };
        let json = serde_json::to_value(&report).unwrap();
        let step = &json["steps"][0];
        assert_eq!((&step["name"], &step["in"], &step["kept"]), (&"ingest".into(), &2.into(), &1.into()));
        assert_eq!(step["dropped"], serde_json::json!({ "empty text": 1 }));
        assert_eq!(step["sources"]["usc"]["bytes_kept"], 6);
        assert_eq!(step["sources"]["usc"]["tokens_kept"], 2);
        assert_eq!(serde_json::from_value::<Report>(json).unwrap(), report);
    }
}
