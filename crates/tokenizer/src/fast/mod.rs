//! Encoding without the general machinery, for tokenizers of one common shape.
//!
//! The shape is GPT-2's and the kl3m family's: no normalizer, the byte-level pre-tokenizer, plain BPE over all 256 bytes,
//! nothing added around the text. For these the `tokenizers` crate spends most of its time on offsets and strings that
//! nobody asked for; here text goes straight to ids. The steps are the same, so the ids are (property-tested against the
//! crate):
//!
//! 1. [`added`]: cut out added tokens, first those that match raw text, then, in what is left, the others;
//! 2. [`split`]: cut the rest into pieces as GPT-2's regular expression does;
//! 3. [`bpe`]: join the bytes of each piece by rank; pieces seen before come from memory.

mod added;
mod bpe;
mod split;

use crate::{SpecialTokens, TokenizerError, bytes};
use added::AddedTokens;
use ahash::AHashMap;
use bpe::{Bpe, Scratch};
use serde::Deserialize;
pub(crate) use split::Splitter;
use std::sync::{Mutex, PoisonError};
use tokenizers::{Model, ModelWrapper, PreTokenizerWrapper, Tokenizer as HuggingFace};

/// Encodes what [`FastEncoder::new`] accepted.
pub(crate) struct FastEncoder {
    raw: AddedTokens,
    normalized: AddedTokens,
    splitter: Splitter,
    bpe: Bpe,
    /// One for each thread that has encoded at the same time as others.
    scratch: Mutex<Vec<Scratch>>,
}

/// The parts of `tokenizer.json` that its loaded form does not show.
#[derive(Deserialize)]
struct File {
    #[serde(default)]
    post_processor: Option<serde_json::Value>,
    model: FileModel,
}

#[derive(Deserialize)]
struct FileModel {
    merges: Vec<Merge>,
}

/// Both spellings: `["a", "b"]` and `"a b"`.
#[derive(Deserialize)]
#[serde(untagged)]
enum Merge {
    Pair(String, String),
    Line(String),
}

impl FastEncoder {
    /// `None` when the tokenizer is not of the shape; `json` is the file that `inner` was read from.
    pub(crate) fn new(inner: &HuggingFace, json: &[u8]) -> Result<Option<Self>, TokenizerError> {
        if inner.get_normalizer().is_some() {
            return Ok(None);
        }
        let Some(PreTokenizerWrapper::ByteLevel(pre)) = inner.get_pre_tokenizer() else { return Ok(None) };
        let ModelWrapper::BPE(model) = inner.get_model() else { return Ok(None) };
        if pre.add_prefix_space
            || !pre.use_regex
            || model.dropout.is_some_and(|p| p > 0.0)
            || model.continuing_subword_prefix.is_some()
            || model.end_of_word_suffix.is_some()
            || model.ignore_merges
        {
            return Ok(None);
        }
        let file: File = serde_json::from_slice(json).map_err(|e| TokenizerError::Format(e.to_string()))?;
        if !file.post_processor.as_ref().is_none_or(adds_nothing) {
            return Ok(None);
        }
        let mut byte_ids = [0; 256];
        for (slot, c) in byte_ids.iter_mut().zip(bytes::alphabet()) {
            let Some(id) = model.token_to_id(&c.to_string()) else { return Ok(None) };
            *slot = id;
        }
        let mut merges = AHashMap::with_capacity(file.model.merges.len());
        let lines = file.model.merges.iter().filter_map(|merge| match merge {
            Merge::Pair(a, b) => Some(Some((a.as_str(), b.as_str()))),
            Merge::Line(line) if line.starts_with("#version") => None,
            Merge::Line(line) => Some(line.split_once(' ')),
        });
        for (rank, pair) in (0..).zip(lines) {
            let joined = pair.and_then(|(a, b)| {
                let id = |token: &str| model.token_to_id(token);
                Some(((id(a)?, id(b)?), id(&format!("{a}{b}"))?))
            });
            let Some((pair, id)) = joined else { return Ok(None) };
            merges.insert(pair, (rank, id));
        }
        let vocabulary = inner.get_added_vocabulary();
        let decoder = vocabulary.get_added_tokens_decoder();
        if decoder.values().any(|t| t.single_word || t.lstrip || t.rstrip) {
            return Ok(None);
        }
        let tokens = |normalized: bool| {
            let of_kind = decoder.iter().filter(move |(_, t)| t.normalized == normalized);
            AddedTokens::new(
                of_kind.map(|(&id, t)| (t.content.as_str(), id, vocabulary.is_special_token(&t.content))),
            )
        };
        let (Some(raw), Some(normalized)) = (tokens(false), tokens(true)) else { return Ok(None) };
        Ok(Some(Self {
            raw,
            normalized,
            splitter: Splitter::new()?,
            bpe: Bpe { byte_ids, merges },
            scratch: Mutex::default(),
        }))
    }

    /// The ids of `text`.
    pub(crate) fn encode(&self, text: &str, special: SpecialTokens) -> Vec<u32> {
        let pool = || self.scratch.lock().unwrap_or_else(PoisonError::into_inner);
        let mut scratch = pool().pop().unwrap_or_default();
        let mut ids = Vec::with_capacity(text.len() / 3 + 1);
        cut(&self.raw, text, special, &mut ids, |rest, ids| {
            cut(&self.normalized, rest, special, ids, |rest, ids| {
                let mut at = 0;
                while at < rest.len() {
                    let end = self.splitter.piece_end(rest, at);
                    self.bpe.encode(rest.as_bytes().get(at..end).unwrap_or_default(), &mut scratch, ids);
                    at = end;
                }
            });
        });
        pool().push(scratch);
        ids
    }
}

/// Pushes the ids of the added tokens in `text`; what lies between them goes to `rest`.
fn cut(
    tokens: &AddedTokens,
    text: &str,
    special: SpecialTokens,
    ids: &mut Vec<u32>,
    mut rest: impl FnMut(&str, &mut Vec<u32>),
) {
    let (mut done, mut at) = (0, 0);
    while let Some(found) = tokens.find(text.as_bytes(), at) {
        at = found.end;
        // A special token that is to be text still hides tokens that begin inside it, as in `tokenizers`.
        if found.special && special == SpecialTokens::AsText {
            continue;
        }
        rest(text.get(done..found.start).unwrap_or_default(), ids);
        ids.push(found.id);
        done = found.end;
    }
    rest(text.get(done..).unwrap_or_default(), ids);
}

/// Whether a post-processor leaves the ids of a single text as they are.
fn adds_nothing(post_processor: &serde_json::Value) -> bool {
    match post_processor.get("type").and_then(|t| t.as_str()) {
        Some("ByteLevel") => true,
        Some("TemplateProcessing") => {
            let single = post_processor.get("single").and_then(|s| s.as_array());
            single.is_some_and(|pieces| {
                pieces.len() == 1
                    && pieces.iter().all(|p| p.pointer("/Sequence/id").is_some_and(|id| id == "A"))
            })
        }
        Some("Sequence") => {
            let all = post_processor.get("processors").and_then(|p| p.as_array());
            all.is_some_and(|all| all.iter().all(adds_nothing))
        }
        _ => post_processor.is_null(),
    }
}
