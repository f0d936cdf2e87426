//! How well a tokenizer fits texts.

use crate::{SpecialTokens, Tokenizer, TokenizerError};
use serde::Serialize;
use std::collections::BTreeMap;

/// Tokens shown as the longest that occur.
const LONGEST: usize = 20;

/// Texts, their bytes and tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Counts {
    /// Texts.
    pub documents: u64,
    /// UTF-8 bytes.
    pub bytes: u64,
    /// Tokens.
    pub tokens: u64,
    /// Bytes divided by tokens; 0 when there are none.
    pub bytes_per_token: f64,
}

impl Counts {
    fn add(&mut self, documents: u64, bytes: u64, tokens: u64) {
        self.documents += documents;
        self.bytes += bytes;
        self.tokens += tokens;
        self.bytes_per_token = if self.tokens == 0 { 0.0 } else { self.bytes as f64 / self.tokens as f64 };
    }
}

/// A token and how often it occurs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Token {
    /// Its id.
    pub id: u32,
    /// What it stands for; parts of characters are shown as U+FFFD.
    pub text: String,
    /// Its length in bytes.
    pub bytes: usize,
    /// How often it occurs.
    pub count: u64,
}

/// What [`Stats::report`] says.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Ids of the vocabulary.
    pub vocab_size: usize,
    /// All texts.
    pub total: Counts,
    /// Texts of each dataset.
    pub datasets: BTreeMap<String, Counts>,
    /// How many entries of the vocabulary never occur, special tokens aside.
    pub unused: usize,
    /// The longest tokens that occur, longest first.
    pub longest: Vec<Token>,
}

/// Counts tokens of texts as they come.
pub struct Stats<'t> {
    tokenizer: &'t Tokenizer,
    total: Counts,
    datasets: BTreeMap<String, Counts>,
    uses: BTreeMap<u32, u64>,
}

impl<'t> Stats<'t> {
    /// Nothing counted yet.
    pub fn new(tokenizer: &'t Tokenizer) -> Self {
        Self { tokenizer, total: Counts::default(), datasets: BTreeMap::new(), uses: BTreeMap::new() }
    }

    /// Counts some texts, given as (dataset, text), on the threads of the current `rayon` pool.
    ///
    /// # Errors
    /// When a text cannot be encoded.
    pub fn add<D: AsRef<str> + Sync, T: AsRef<str> + Sync>(
        &mut self,
        texts: &[(D, T)],
    ) -> Result<(), TokenizerError> {
        let plain: Vec<&str> = texts.iter().map(|(_, text)| text.as_ref()).collect();
        for ((dataset, text), ids) in
            texts.iter().zip(self.tokenizer.encode_batch(&plain, SpecialTokens::AsText)?)
        {
            let (bytes, tokens) = (text.as_ref().len() as u64, ids.len() as u64);
            self.total.add(1, bytes, tokens);
            match self.datasets.get_mut(dataset.as_ref()) {
                Some(counts) => counts.add(1, bytes, tokens),
                None => self.datasets.entry(dataset.as_ref().into()).or_default().add(1, bytes, tokens),
            }
            for id in ids {
                *self.uses.entry(id).or_default() += 1;
            }
        }
        Ok(())
    }

    /// What has been counted.
    pub fn report(&self) -> Report {
        let vocabulary = self.tokenizer.ids();
        let unused =
            vocabulary.iter().filter(|&&id| !self.uses.contains_key(&id) && !self.tokenizer.is_special(id));
        let mut used: Vec<(usize, u32, u64)> =
            self.uses.iter().map(|(&id, &count)| (self.tokenizer.token_bytes(id).len(), id, count)).collect();
        used.sort_unstable_by_key(|&(bytes, id, _)| (std::cmp::Reverse(bytes), id));
        let token = |&(bytes, id, count): &(usize, u32, u64)| Token {
            id,
            text: self.tokenizer.decode(&[id], false),
            bytes,
            count,
        };
        Report {
            vocab_size: self.tokenizer.vocab_size(),
            total: self.total,
            datasets: self.datasets.clone(),
            unused: unused.count(),
            longest: used.iter().take(LONGEST).map(token).collect(),
        }
    }
}
