//! What a trainer is given, and the settings that say how it is cut and mixed.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A target that is not counted.
pub const IGNORED: i64 = -100;

/// How rows are filled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Padding {
    /// One segment a row; the padding is split at random between left and right, and positions count it.
    Random,
    /// Several segments a row, chosen to fill it; each sees itself alone, and positions begin anew with each.
    #[default]
    Pack,
}

/// How documents are cut: a length is drawn for each segment, anew each epoch, and the cut is put at the best break of the
/// text near it. All numbers are shares of the context.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Segments {
    /// Least length that is drawn, as a share of the context.
    pub shortest: f64,
    /// Greatest length that is drawn, as a share of the context.
    pub longest: f64,
    /// How far from the drawn length a better break is looked for, as a share of that length.
    pub window: f64,
}

impl Default for Segments {
    fn default() -> Self {
        Self { shortest: 0.25, longest: 1.0, window: 0.15 }
    }
}

/// Settings of a [`crate::RowStream`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StreamConfig {
    /// Tokens of a row.
    pub context: usize,
    /// How rows are filled.
    pub padding: Padding,
    /// All draws follow from it.
    pub seed: u64,
    /// Share of rows that hold supervised examples, from 0 to 1; at 1 an epoch is once through the examples.
    pub sft_weight: f64,
    /// How often a dataset's documents are seen in an epoch, by name; 1 where nothing is said. 0 leaves a dataset out, 2.5 shows
    /// each document twice and every other one a third time.
    pub weights: BTreeMap<String, f64>,
    /// How documents are cut.
    pub segments: Segments,
}

impl Default for StreamConfig {
    fn default() -> Self {
        Self {
            context: 1024,
            padding: Padding::default(),
            seed: 1,
            sft_weight: 0.0,
            weights: BTreeMap::new(),
            segments: Segments::default(),
        }
    }
}

/// What a row teaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The next token of documents.
    Ntp,
    /// The answers of supervised examples.
    Sft,
}

/// What a row is made of, for the count of what was consumed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowPart {
    /// Number of the document in the store's part; of the example, in rows of [`Kind::Sft`].
    pub document: u32,
    /// Number of its dataset, a place in [`crate::Manifest::datasets`].
    pub dataset: u16,
    /// Its tokens in the row, special ones included.
    pub tokens: u32,
}

/// A row of `context` tokens; all lists have that length, but for `parts`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Token ids.
    pub ids: Vec<u32>,
    /// Places for the rotary embedding.
    pub positions: Vec<u32>,
    /// Which tokens see each other; 0 is padding.
    pub segments: Vec<u32>,
    /// The id that each token is to predict, or [`IGNORED`].
    pub targets: Vec<i64>,
    /// What it teaches.
    pub kind: Kind,
    /// What it is made of, in order.
    pub parts: Vec<RowPart>,
}

impl Row {
    /// Tokens that predict something that counts.
    pub fn targets(&self) -> usize {
        self.targets.iter().filter(|&&target| target != IGNORED).count()
    }
}
