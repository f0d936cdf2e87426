//! Training the kl3m-001 recipe.
//!
//! In flow texts ([`WordCounts::add`]), out flows the text of a `tokenizer.json` ([`train`]). The recipe: byte-level BPE
//! on GPT-2's pieces up to `vocab_size` less the special and custom tokens; then the custom tokens that BPE has not
//! learned as added tokens; then runs of 1, 2, 3 … spaces and of as many line feeds, in turn, until the size is a power
//! of two. Among those runs are one space and one line feed: as added tokens they are cut out before BPE sees them, so
//! every space is a token of its own and no token used in encoding begins with a space and goes on with a letter.
//!
//! The same texts, in whatever order, give the same `tokenizer.json`, byte for byte. What went in is written beside it
//! ([`Consumed`]).

mod recipe;

pub use recipe::SPECIAL_TOKENS;

use crate::{TokenizerError, bytes, fast::Splitter};
use ahash::AHashMap;
use compact_str::CompactString;
use rayon::prelude::*;
use serde::Serialize;
use std::{
    collections::{BTreeMap, HashSet},
    fs, io,
    io::Write,
    path::Path,
};
use tokenizers::{
    AddedToken, PaddingDirection, PaddingParams, PaddingStrategy, Tokenizer as HuggingFace,
    models::bpe::{BPE, BpeTrainer},
    pre_tokenizers::byte_level::ByteLevel,
};

/// The only recipe there is.
pub const RECIPE: &str = "kl3m-001";

/// What can be chosen about training.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct TrainOptions {
    /// The size to aim for, special and custom tokens included.
    pub vocab_size: usize,
    /// Pairs that occur less often are not joined.
    pub min_frequency: u64,
}

impl Default for TrainOptions {
    fn default() -> Self {
        Self { vocab_size: 32_768, min_frequency: 10 }
    }
}

/// The largest vocabulary that can be asked for; the trainer makes room for all of it at once.
pub const LARGEST_VOCABULARY: usize = 1 << 24;

impl TrainOptions {
    /// Whether the recipe can be trained so.
    ///
    /// # Errors
    /// When the vocabulary is too small for the recipe, or larger than [`LARGEST_VOCABULARY`].
    pub fn check(&self) -> Result<(), TrainError> {
        let least = reserved() + SPECIAL_TOKENS.len() + 256;
        if self.vocab_size < least {
            return Err(TrainError::VocabularyTooSmall { asked: self.vocab_size, least });
        }
        if self.vocab_size > LARGEST_VOCABULARY {
            return Err(TrainError::VocabularyTooLarge { asked: self.vocab_size });
        }
        Ok(())
    }
}

/// Entries of the special and custom tokens, which BPE leaves room for.
fn reserved() -> usize {
    SPECIAL_TOKENS.len() + recipe::custom_tokens().len()
}

/// A tokenizer cannot be trained or saved.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The special and custom tokens alone need more.
    #[error("a vocabulary of {asked} is too small: the kl3m-001 recipe needs at least {least}")]
    VocabularyTooSmall {
        /// What was asked for.
        asked: usize,
        /// What would do.
        least: usize,
    },
    /// More than there is room for.
    #[error("a vocabulary of {asked} is too large: at most {LARGEST_VOCABULARY}")]
    VocabularyTooLarge {
        /// What was asked for.
        asked: usize,
    },
    /// Nothing to learn from.
    #[error("there is no text to train on")]
    NoText,
    /// The trainer counts pairs in 32 bits.
    #[error(
        "too much text: one pair of bytes occurs {count} times, and the trainer counts to {}; train on a sample of it",
        i32::MAX
    )]
    TooMuchText {
        /// How often the most frequent pair occurs.
        count: u64,
    },
    /// The `tokenizers` crate refuses.
    #[error("training failed: {0}")]
    Library(String),
    /// The text's pieces cannot be told.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// A file cannot be written.
    #[error("cannot write {path}: {source}")]
    Write {
        /// The file.
        path: String,
        /// Why.
        source: io::Error,
    },
}

/// What a tokenizer was trained on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Consumed {
    /// Texts and bytes of each dataset.
    pub datasets: BTreeMap<String, Amount>,
    /// BLAKE3 over the BLAKE3 hashes of all texts, in the order in which they were read, in hexadecimal.
    pub blake3: String,
}

/// So much text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Amount {
    /// Texts.
    pub documents: u64,
    /// UTF-8 bytes.
    pub bytes: u64,
}

/// How often each piece of text occurs.
pub struct WordCounts {
    splitter: Splitter,
    words: AHashMap<CompactString, u64>,
    datasets: BTreeMap<String, Amount>,
    hasher: blake3::Hasher,
}

impl WordCounts {
    /// Nothing counted yet.
    ///
    /// # Errors
    /// When the regular expressions that class characters cannot be made.
    pub fn new() -> Result<Self, TrainError> {
        Ok(Self {
            splitter: Splitter::new()?,
            words: AHashMap::new(),
            datasets: BTreeMap::new(),
            hasher: blake3::Hasher::new(),
        })
    }

    /// Counts the pieces of some texts, given as (dataset, text), on the threads of the current `rayon` pool.
    pub fn add<D: AsRef<str> + Sync, T: AsRef<str> + Sync>(&mut self, texts: &[(D, T)]) {
        let splitter = &self.splitter;
        let counts: Vec<AHashMap<&str, u64>> = texts
            .par_iter()
            .fold(AHashMap::new, |mut counts: AHashMap<&str, u64>, (_, text)| {
                let (text, mut at) = (text.as_ref(), 0);
                while at < text.len() {
                    let end = splitter.piece_end(text, at);
                    *counts.entry(text.get(at..end).unwrap_or_default()).or_default() += 1;
                    at = end;
                }
                counts
            })
            .collect();
        for (word, count) in counts.into_iter().flatten() {
            match self.words.get_mut(word) {
                Some(sum) => *sum += count,
                None => {
                    self.words.insert(word.into(), count);
                }
            }
        }
        let hashes: Vec<blake3::Hash> =
            texts.par_iter().map(|(_, text)| blake3::hash(text.as_ref().as_bytes())).collect();
        for ((dataset, text), hash) in texts.iter().zip(hashes) {
            self.hasher.update(hash.as_bytes());
            let amount = self.datasets.entry(dataset.as_ref().into()).or_default();
            amount.documents += 1;
            amount.bytes += text.as_ref().len() as u64;
        }
    }

    /// What has been counted so far.
    pub fn consumed(&self) -> Consumed {
        Consumed { datasets: self.datasets.clone(), blake3: self.hasher.finalize().to_hex().to_string() }
    }

    /// How many different pieces there are.
    pub fn len(&self) -> usize {
        self.words.len()
    }

    /// Whether nothing has been counted.
    pub fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    /// How often the most frequent pair of adjacent bytes occurs.
    fn most_frequent_pair(&self) -> u64 {
        let mut pairs = vec![0u64; 1 << 16];
        for (word, count) in &self.words {
            for pair in word.as_bytes().windows(2) {
                if let [a, b] = *pair {
                    pairs[usize::from(a) << 8 | usize::from(b)] += count;
                }
            }
        }
        pairs.into_iter().max().unwrap_or(0)
    }

    /// The words as a byte-level vocabulary spells them.
    fn spelled(self) -> AHashMap<CompactString, u64> {
        let alphabet = bytes::alphabet();
        let spell = |word: &str| word.bytes().map(|b| alphabet[usize::from(b)]).collect();
        self.words.into_iter().map(|(word, count)| (spell(&word), count)).collect()
    }
}

/// What came out of training.
pub struct Trained {
    /// The text of `tokenizer.json`.
    pub json: String,
    /// Entries in all: a power of two.
    pub vocab_size: usize,
    /// Pairs that BPE joined.
    pub merges: usize,
    /// Custom tokens that BPE had not learned.
    pub custom: usize,
    /// Runs of spaces and line feeds that fill the vocabulary up.
    pub padding: usize,
    /// How it was trained.
    pub options: TrainOptions,
    /// What on.
    pub consumed: Consumed,
}

/// Trains the recipe.
///
/// # Errors
/// As [`TrainOptions::check`]; also when there is too little or too much text.
pub fn train(words: WordCounts, options: &TrainOptions) -> Result<Trained, TrainError> {
    let failed = |e: tokenizers::Error| TrainError::Library(e.to_string());
    options.check()?;
    let custom = recipe::custom_tokens();
    if words.is_empty() {
        return Err(TrainError::NoText);
    }
    match words.most_frequent_pair() {
        count if count > i32::MAX as u64 => return Err(TrainError::TooMuchText { count }),
        _ => {}
    }
    let consumed = words.consumed();
    let specials: Vec<AddedToken> = SPECIAL_TOKENS.map(|t| AddedToken::from(t, true)).into();
    let trainer = BpeTrainer::builder()
        .show_progress(false)
        .vocab_size(options.vocab_size - reserved())
        .min_frequency(options.min_frequency)
        .special_tokens(specials.clone())
        .initial_alphabet(bytes::alphabet().into())
        .build();
    let mut model = BPE::default();
    trainer.do_train(&words.spelled(), &mut model).map_err(failed)?;
    let learned = model.get_vocab().len();

    let mut tokenizer = HuggingFace::new(model);
    tokenizer.with_pre_tokenizer(Some(ByteLevel::new(false, true, true)));
    tokenizer.with_decoder(Some(ByteLevel::new(true, true, true)));
    tokenizer.with_padding(Some(PaddingParams {
        strategy: PaddingStrategy::BatchLongest,
        direction: PaddingDirection::Left,
        pad_id: 2,
        pad_token: SPECIAL_TOKENS[2].into(),
        ..PaddingParams::default()
    }));
    tokenizer.add_special_tokens(specials).map_err(failed)?;

    let mut added: Vec<String> =
        custom.into_iter().filter(|token| tokenizer.token_to_id(token).is_none()).collect();
    let custom = added.len();
    // Room for at least one space and one line feed, without which spaces would be joined to words.
    let size = (learned + custom + 2).next_power_of_two();
    let runs = (1..).flat_map(|n| [' ', '\n'].map(|c| recipe::run(c, n)));
    let known: HashSet<String> = added.iter().cloned().collect();
    let runs = runs.filter(|token| !known.contains(token) && tokenizer.token_to_id(token).is_none());
    let padding: Vec<String> = runs.take(size - learned - custom).collect();
    let filled = padding.len();
    added.extend(padding);
    tokenizer.add_tokens(added.into_iter().map(|token| AddedToken::from(token, false))).map_err(failed)?;

    let merges = learned - SPECIAL_TOKENS.len() - 256;
    let json = tokenizer.to_string(true).map_err(failed)?;
    Ok(Trained { json, vocab_size: size, merges, custom, padding: filled, options: *options, consumed })
}

impl Trained {
    /// Writes `tokenizer.json`, and beside it what transformers wants to know (`tokenizer_config.json` and
    /// `special_tokens_map.json`) and what an auditor wants to know (`training.json`). Each file appears whole or not at all, `tokenizer.json` last.
    ///
    /// # Errors
    /// When the directory or a file cannot be written.
    pub fn write(&self, dir: &Path) -> Result<(), TrainError> {
        let failed = |path: &Path| {
            let path = path.display().to_string();
            move |source| TrainError::Write { path, source }
        };
        fs::create_dir_all(dir).map_err(failed(dir))?;
        let [start, end, pad, unk, sep, cls, mask] = SPECIAL_TOKENS;
        let map = serde_json::json!({
            "bos_token": start, "eos_token": end, "pad_token": pad, "unk_token": unk,
            "sep_token": sep, "cls_token": cls, "mask_token": mask,
        });
        let mut config = serde_json::json!({
            "tokenizer_class": "PreTrainedTokenizerFast", "padding_side": "left",
            "clean_up_tokenization_spaces": false, "add_bos_token": false, "add_eos_token": false,
        });
        if let (Some(config), Some(map)) = (config.as_object_mut(), map.as_object()) {
            config.extend(map.clone());
        }
        let training = serde_json::json!({
            "recipe": RECIPE, "options": self.options, "consumed": self.consumed, "vocab_size": self.vocab_size,
            "merges": self.merges, "custom": self.custom, "padding": self.padding,
            "tokenizer_blake3": blake3::hash(format!("{}\n", self.json).as_bytes()).to_hex().to_string(),
        });
        let files = [
            ("training.json", format!("{training:#}\n")),
            ("special_tokens_map.json", format!("{map:#}\n")),
            ("tokenizer_config.json", format!("{config:#}\n")),
            ("tokenizer.json", format!("{}\n", self.json)),
        ];
        for (name, text) in files {
            let path = dir.join(name);
            let temporary = dir.join(format!(".{name}.{}", std::process::id()));
            let write = || {
                let mut file = fs::File::create(&temporary)?;
                file.write_all(text.as_bytes())?;
                file.sync_all()?;
                fs::rename(&temporary, &path)
            };
            write().map_err(|e| {
                let _ = fs::remove_file(&temporary);
                failed(&path)(e)
            })?;
        }
        Ok(())
    }
}
