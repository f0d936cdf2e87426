//! Decoding as ids come.

use crate::Tokenizer;

/// Ids that may wait for the rest of a character: UTF-8 has at most four bytes, a token at least one.
const MOST_WAITING: usize = 4;

/// Turns ids into text piece by piece; a piece never ends in the middle of a character.
pub struct DecodeStream<'t> {
    tokenizer: &'t Tokenizer,
    skip_special: bool,
    /// Ids whose text is out, kept as context (some decoders look at what stands before), then ids that wait.
    ids: Vec<u32>,
    shown: usize,
}

impl<'t> DecodeStream<'t> {
    pub(crate) fn new(tokenizer: &'t Tokenizer, skip_special: bool) -> Self {
        Self { tokenizer, skip_special, ids: Vec::new(), shown: 0 }
    }

    /// Adds an id; returns the text that is certain now, if any.
    pub fn push(&mut self, id: u32) -> Option<String> {
        self.ids.push(id);
        let text = self.waiting_text();
        // Half a character decodes to U+FFFD. So does a byte that will never be a character: after some ids it is shown.
        if text.ends_with('\u{fffd}') && self.ids.len() - self.shown < MOST_WAITING {
            return None;
        }
        self.ids.drain(..self.shown);
        self.shown = self.ids.len();
        (!text.is_empty()).then_some(text)
    }

    /// What is left when no more ids come.
    pub fn finish(self) -> String {
        self.waiting_text()
    }

    fn waiting_text(&self) -> String {
        let before = self.tokenizer.decode(&self.ids[..self.shown], self.skip_special);
        let all = self.tokenizer.decode(&self.ids, self.skip_special);
        all.get(before.len()..).map(str::to_string).unwrap_or_default()
    }
}
