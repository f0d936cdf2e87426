//! Text to token ids and back, with any Hugging Face `tokenizer.json`; and the making of such files.
//!
//! In flows text; out flow ids that equal those of Python's `tokenizers`, whose Rust crate loads the files. Notable
//! choices:
//!
//! - special tokens in user text are plain text unless parsing them is asked for ([`SpecialTokens`]);
//! - byte-level BPE without a normalizer, the kl3m family's kind, is encoded by a path of our own, several times
//!   faster and property-tested to give the same ids; every other kind goes through the crate;
//! - text can be decoded as it is made without ever showing half a character ([`DecodeStream`]);
//! - [`train`] makes the kl3m-001 recipe from texts, byte for byte the same from the same texts;
//! - [`stats`] says how well a tokenizer fits texts.

mod bytes;
mod fast;
pub mod stats;
mod stream;
pub mod template;
pub mod train;

pub use stream::DecodeStream;

use ahash::AHashMap;
use bytes::Speller;
use fast::FastEncoder;
use rayon::prelude::*;
use std::{fs, panic::AssertUnwindSafe, panic::catch_unwind, path::Path, sync::OnceLock};
use tokenizers::{DecoderWrapper, Tokenizer as HuggingFace};

/// The tokenizer cannot be loaded or used.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// It is not a tokenizer.
    #[error("tokenizer.json cannot be used: {0}")]
    Format(String),
    /// The text cannot be encoded.
    #[error("the text cannot be tokenized: {0}")]
    Encode(String),
}

/// What becomes of special tokens such as `<|end|>` that stand in a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpecialTokens {
    /// They are characters like any others: whoever wrote the text cannot inject tokens.
    AsText,
    /// They become their ids, as in transformers.
    Parse,
}

/// A loaded tokenizer.
pub struct Tokenizer {
    /// With special tokens in text off.
    as_text: HuggingFace,
    /// With special tokens in text on; made when first needed.
    parse: OnceLock<HuggingFace>,
    /// For tokenizers of the common shape.
    fast: Option<FastEncoder>,
    /// What each id stands for; `None` when the decoder does more than put bytes side by side.
    bytes: Option<AHashMap<u32, Box<[u8]>>>,
    size: usize,
}

impl Tokenizer {
    /// Loads `tokenizer.json` of a model directory.
    ///
    /// # Errors
    /// When it cannot be read or used.
    pub fn load(dir: &Path) -> Result<Self, TokenizerError> {
        let path = dir.join("tokenizer.json");
        let bytes = fs::read(&path)
            .map_err(|source| TokenizerError::Read { path: path.display().to_string(), source })?;
        Self::from_bytes(&bytes)
    }

    /// Reads the text of a `tokenizer.json`.
    ///
    /// # Errors
    /// When it is not one.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, TokenizerError> {
        // Some malformed files make the crate panic; to the caller both are the same refusal.
        let read = catch_unwind(|| {
            let mut inner = HuggingFace::from_bytes(bytes).map_err(|e| e.to_string())?;
            // Rows are padded and cut by whoever makes batches, not behind a text's back.
            inner.with_padding(None);
            inner.with_truncation(None).map_err(|e| e.to_string())?;
            inner.set_encode_special_tokens(true);
            Ok::<_, String>(inner)
        });
        let inner = match read {
            Ok(Ok(inner)) => inner,
            Ok(Err(why)) => return Err(TokenizerError::Format(why)),
            Err(_) => return Err(TokenizerError::Format("its parts contradict each other".into())),
        };
        let fast = FastEncoder::new(&inner, bytes)?;
        let vocabulary = inner.get_vocab(true);
        let size = vocabulary.values().max().map_or(0, |&id| id as usize + 1);
        let bytes = matches!(inner.get_decoder(), Some(DecoderWrapper::ByteLevel(_))).then(|| {
            let speller = Speller::new();
            let ids: std::collections::HashSet<u32> = vocabulary.values().copied().collect();
            ids.into_iter()
                .filter_map(|id| Some((id, speller.bytes(&inner.id_to_token(id)?).into_boxed_slice())))
                .collect()
        });
        Ok(Self { as_text: inner, parse: OnceLock::new(), fast, bytes, size })
    }

    fn inner(&self, special: SpecialTokens) -> &HuggingFace {
        match special {
            SpecialTokens::AsText => &self.as_text,
            SpecialTokens::Parse => self.parse.get_or_init(|| {
                let mut inner = self.as_text.clone();
                inner.set_encode_special_tokens(false);
                inner
            }),
        }
    }

    /// The ids of `text`, with what the tokenizer's post-processor adds (nothing, in the kl3m family).
    ///
    /// # Errors
    /// When the tokenizer's own parts fail on it.
    pub fn encode(&self, text: &str, special: SpecialTokens) -> Result<Vec<u32>, TokenizerError> {
        match &self.fast {
            Some(fast) => Ok(fast.encode(text, special)),
            None => self.encode_by_parts(text, special),
        }
    }

    /// As [`Self::encode`], through the parts as the file describes them, one after the other. Slower; the measure of
    /// what `encode` must give.
    ///
    /// # Errors
    /// As [`Self::encode`].
    pub fn encode_by_parts(&self, text: &str, special: SpecialTokens) -> Result<Vec<u32>, TokenizerError> {
        let inner = self.inner(special);
        let encoded = catch_unwind(AssertUnwindSafe(|| inner.encode_fast(text, true)));
        match encoded {
            Ok(Ok(encoding)) => Ok(encoding.get_ids().to_vec()),
            Ok(Err(why)) => Err(TokenizerError::Encode(why.to_string())),
            Err(_) => Err(TokenizerError::Encode("the tokenizer's parts contradict each other".into())),
        }
    }

    /// The ids of many texts, in their order, on the threads of the current `rayon` pool.
    ///
    /// # Errors
    /// As [`Self::encode`], for the first text that fails.
    pub fn encode_batch<T: AsRef<str> + Sync>(
        &self,
        texts: &[T],
        special: SpecialTokens,
    ) -> Result<Vec<Vec<u32>>, TokenizerError> {
        texts.par_iter().map(|text| self.encode(text.as_ref(), special)).collect()
    }

    /// The text of `ids`; ids that are not in the vocabulary are passed over, bytes that are not UTF-8 shown as U+FFFD.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> String {
        match &self.bytes {
            Some(_) => String::from_utf8_lossy(&self.decode_bytes(ids, skip_special)).into_owned(),
            // Some decoders can be written that panic on tokens they do not expect.
            None => catch_unwind(AssertUnwindSafe(|| self.as_text.decode(ids, skip_special)))
                .ok()
                .and_then(Result::ok)
                .unwrap_or_default(),
        }
    }

    /// The bytes of `ids`, whether or not they are UTF-8; ids that are not in the vocabulary are passed over.
    pub fn decode_bytes(&self, ids: &[u32], skip_special: bool) -> Vec<u8> {
        let Some(bytes) = &self.bytes else { return self.decode(ids, skip_special).into_bytes() };
        let shown = ids.iter().filter(|&&id| !(skip_special && self.is_special(id)));
        shown.filter_map(|id| bytes.get(id)).flat_map(|bytes| bytes.iter().copied()).collect()
    }

    /// Decodes ids one by one as they are made.
    pub fn decode_stream(&self, skip_special: bool) -> DecodeStream<'_> {
        DecodeStream::new(self, skip_special)
    }

    /// Whether decoding is putting the bytes of ids side by side.
    pub fn is_byte_level(&self) -> bool {
        self.bytes.is_some()
    }

    /// The highest id, plus one: an embedding needs as many rows.
    pub fn vocab_size(&self) -> usize {
        self.size
    }

    /// All ids of the vocabulary, in order.
    pub fn ids(&self) -> Vec<u32> {
        let ids: std::collections::BTreeSet<u32> = self.as_text.get_vocab(true).into_values().collect();
        ids.into_iter().collect()
    }

    /// The id of a token, special and added ones included.
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.as_text.token_to_id(token)
    }

    /// The token of an id, as the vocabulary spells it.
    pub fn token(&self, id: u32) -> Option<String> {
        self.as_text.id_to_token(id)
    }

    /// The bytes that an id stands for: the token itself for a special one, nothing for an id that is not in the
    /// vocabulary. A token of a byte-level vocabulary may be part of a character.
    pub fn token_bytes(&self, id: u32) -> Vec<u8> {
        match &self.bytes {
            Some(bytes) => bytes.get(&id).map(|b| b.to_vec()).unwrap_or_default(),
            None => self.decode(&[id], false).into_bytes(),
        }
    }

    /// Whether `id` is a special token.
    pub fn is_special(&self, id: u32) -> bool {
        self.as_text.get_added_vocabulary().get_added_tokens_decoder().get(&id).is_some_and(|t| t.special)
    }

    /// How many bytes of text each id stands for; special tokens stand for none.
    pub fn byte_lengths(&self, ids: &[u32]) -> Vec<usize> {
        let length = |&id: &u32| match &self.bytes {
            _ if self.is_special(id) => 0,
            Some(bytes) => bytes.get(&id).map_or(0, |b| b.len()),
            None => self.decode(&[id], true).len(),
        };
        ids.iter().map(length).collect()
    }
}
