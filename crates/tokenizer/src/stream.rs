//! Decoding as ids come.

use crate::Tokenizer;

/// Ids that may wait for the rest of a character where only whole texts can be decoded: UTF-8 has at most four bytes, a
/// token at least one.
const MOST_WAITING: usize = 4;

/// Turns ids into text piece by piece; a piece never ends in the middle of a character.
///
/// The pieces of a byte-level tokenizer, put together, are what [`Tokenizer::decode`] gives for all ids at once.
pub struct DecodeStream<'t> {
    tokenizer: &'t Tokenizer,
    skip_special: bool,
    /// Byte-level: bytes that are not yet a character; never more than three.
    bytes: Vec<u8>,
    /// Otherwise: ids whose text is out, kept as context (some decoders look at what stands before), then ids that wait.
    ids: Vec<u32>,
    shown: usize,
}

impl<'t> DecodeStream<'t> {
    pub(crate) fn new(tokenizer: &'t Tokenizer, skip_special: bool) -> Self {
        Self { tokenizer, skip_special, bytes: Vec::new(), ids: Vec::new(), shown: 0 }
    }

    /// Adds an id; returns the text that is certain now, if any.
    pub fn push(&mut self, id: u32) -> Option<String> {
        let text = if self.tokenizer.is_byte_level() { self.push_bytes(id) } else { self.push_id(id)? };
        (!text.is_empty()).then_some(text)
    }

    fn push_bytes(&mut self, id: u32) -> String {
        if !(self.skip_special && self.tokenizer.is_special(id)) {
            self.bytes.extend(self.tokenizer.token_bytes(id));
        }
        let waiting = unfinished(&self.bytes);
        let rest = self.bytes.split_off(self.bytes.len() - waiting);
        let certain = std::mem::replace(&mut self.bytes, rest);
        String::from_utf8_lossy(&certain).into_owned()
    }

    fn push_id(&mut self, id: u32) -> Option<String> {
        self.ids.push(id);
        let text = self.waiting_text();
        // Half a character decodes to U+FFFD. So does a byte that will never be a character: after some ids it is shown.
        if text.ends_with('\u{fffd}') && self.ids.len() - self.shown < MOST_WAITING {
            return None;
        }
        self.ids.drain(..self.shown);
        self.shown = self.ids.len();
        Some(text)
    }

    /// What is left when no more ids come: bytes that never became a character, shown as U+FFFD.
    pub fn finish(self) -> String {
        if self.tokenizer.is_byte_level() {
            return String::from_utf8_lossy(&self.bytes).into_owned();
        }
        self.waiting_text()
    }

    fn waiting_text(&self) -> String {
        let before = self.tokenizer.decode(self.ids.get(..self.shown).unwrap_or_default(), self.skip_special);
        let all = self.tokenizer.decode(&self.ids, self.skip_special);
        all.get(before.len()..).map(str::to_string).unwrap_or_default()
    }
}

/// How many bytes at the end are the beginning of a character that more bytes may finish.
fn unfinished(bytes: &[u8]) -> usize {
    (1..=bytes.len().min(3))
        .find(|&n| {
            let end = bytes.get(bytes.len() - n..).unwrap_or_default();
            // `error_len` is `None` only where valid bytes stop too early.
            end.first().is_some_and(|b| *b >= 0xc0)
                && std::str::from_utf8(end).is_err_and(|e| e.valid_up_to() == 0 && e.error_len().is_none())
        })
        .unwrap_or(0)
}
