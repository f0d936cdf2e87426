//! Text to token ids and back, with any Hugging Face `tokenizer.json`.
//!
//! In flows text; out flow ids that equal those of Python's `tokenizers`, whose Rust crate does the work. What is added:
//! special tokens in user text are plain text unless parsing them is asked for ([`SpecialTokens`]), text can be
//! decoded as it is made without ever showing half a character ([`DecodeStream`]), and each token's bytes can be
//! counted.

mod stream;

pub use stream::DecodeStream;

use std::{fs, path::Path, sync::OnceLock};
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
    byte_level: bool,
    size: usize,
}

impl Tokenizer {
    /// Loads `tokenizer.json` of a model directory.
    ///
    /// # Errors
    /// When it cannot be read or used.
    pub fn load(dir: &Path) -> Result<Self, TokenizerError> {
        let path = dir.join("tokenizer.json");
        let bytes =
            fs::read(&path).map_err(|source| TokenizerError::Read { path: path.display().to_string(), source })?;
        Self::from_bytes(&bytes)
    }

    /// Reads the text of a `tokenizer.json`.
    ///
    /// # Errors
    /// When it is not one.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, TokenizerError> {
        // Some malformed files make the crate panic; to the caller both are the same refusal.
        let read = std::panic::catch_unwind(|| HuggingFace::from_bytes(bytes).map_err(|e| e.to_string()));
        let mut inner = match read {
            Ok(Ok(inner)) => inner,
            Ok(Err(why)) => return Err(TokenizerError::Format(why)),
            Err(_) => return Err(TokenizerError::Format("its parts contradict each other".into())),
        };
        // Rows are padded and cut by whoever makes batches, not behind a text's back.
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|e| TokenizerError::Format(e.to_string()))?;
        inner.set_encode_special_tokens(true);
        let size = inner.get_vocab(true).values().max().map_or(0, |&id| id as usize + 1);
        let byte_level = match inner.get_decoder() {
            Some(DecoderWrapper::ByteLevel(_)) => true,
            Some(DecoderWrapper::Sequence(s)) => {
                s.get_decoders().iter().any(|d| matches!(d, DecoderWrapper::ByteLevel(_)))
            }
            _ => false,
        };
        Ok(Self { as_text: inner, parse: OnceLock::new(), byte_level, size })
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
        let encoding =
            self.inner(special).encode_fast(text, true).map_err(|e| TokenizerError::Encode(e.to_string()))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The text of `ids`; ids that are not in the vocabulary are passed over, bytes that are not UTF-8 shown as U+FFFD.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> String {
        self.as_text.decode(ids, skip_special).unwrap_or_default()
    }

    /// Decodes ids one by one as they are made.
    pub fn decode_stream(&self, skip_special: bool) -> DecodeStream<'_> {
        DecodeStream::new(self, skip_special)
    }

    /// The highest id, plus one: an embedding needs as many rows.
    pub fn vocab_size(&self) -> usize {
        self.size
    }

    /// The id of a token, special and added ones included.
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.as_text.token_to_id(token)
    }

    /// The token of an id, as the vocabulary spells it.
    pub fn token(&self, id: u32) -> Option<String> {
        self.as_text.id_to_token(id)
    }

    /// Whether `id` is a special token.
    pub fn is_special(&self, id: u32) -> bool {
        self.as_text.get_added_tokens_decoder().get(&id).is_some_and(|t| t.special)
    }

    /// How many bytes of text each id stands for; special tokens stand for none.
    pub fn byte_lengths(&self, ids: &[u32]) -> Vec<usize> {
        let added = self.as_text.get_added_tokens_decoder();
        ids.iter()
            .map(|&id| match added.get(&id) {
                Some(token) if token.special => 0,
                Some(token) => token.content.len(),
                // A byte-level vocabulary writes each byte as one character.
                None if self.byte_level => self.token(id).map_or(0, |token| token.chars().count()),
                None => self.decode(&[id], true).len(),
            })
            .collect()
    }
}
