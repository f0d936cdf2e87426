//! A loaded model.

use crate::weights::Weights;
use blackletter_kernels::{Arithmetic, AttentionShape, Format, Isa, IsaError, MatrixError, Pool};
use blackletter_model::{
    Checkpoint, CheckpointError, Dtype, MixtralConfig, TensorSource, WriteError,
    names::{self, QUANTS, SCALES},
    write_checkpoint,
};
use serde_json::json;
use std::{borrow::Cow, fmt, io, num::NonZero, path::Path, thread};

/// In which form weights are multiplied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WeightDtype {
    /// As stored, widened exactly; f32 inputs and sums.
    F32,
    /// Rounded to bfloat16; pairs of bf16 values are multiplied where the CPU can.
    Bf16,
    /// 8-bit blocks of 32.
    Q8,
    /// 4-bit blocks of 32.
    Q4,
}

impl WeightDtype {
    pub(crate) fn format(self) -> Format {
        match self {
            Self::F32 => Format::F32,
            Self::Bf16 => Format::Bf16,
            Self::Q8 => Format::Q8,
            Self::Q4 => Format::Q4,
        }
    }
}

impl fmt::Display for WeightDtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::Q8 => "q8",
            Self::Q4 => "q4",
        })
    }
}

/// How to load a model.
#[derive(Clone, Copy, Debug, Default)]
pub struct LoadOptions {
    /// The form of the weights; `None` for [`WeightDtype::F32`], or what a quantised checkpoint holds.
    pub dtype: Option<WeightDtype>,
    /// Threads; `None` for one per core.
    pub threads: Option<usize>,
}

/// A model could not be loaded or run.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The checkpoint cannot be used.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// `BLACKLETTER_SIMD` cannot be followed.
    #[error(transparent)]
    Isa(#[from] IsaError),
    /// A matrix has the wrong length.
    #[error(transparent)]
    Matrix(#[from] MatrixError),
    /// A tensor is missing.
    #[error("the checkpoint lacks {0}")]
    Missing(String),
    /// No memory for converted weights.
    #[error("no memory for the converted weights: {0}")]
    Memory(io::Error),
    /// The checkpoint is quantised in another way.
    #[error(
        "this checkpoint is quantised to {stored} already and cannot be run as {asked}: leave --dtype out, or use the checkpoint it was made from"
    )]
    AlreadyQuantised {
        /// What it holds.
        stored: WeightDtype,
        /// What was asked for.
        asked: WeightDtype,
    },
    /// A token id is beyond the vocabulary.
    #[error("token id {id} is out of range: the model's vocabulary has {vocab_size} tokens (0 to {})", vocab_size - 1)]
    TokenOutOfRange {
        /// The id.
        id: u32,
        /// Tokens in the vocabulary.
        vocab_size: usize,
    },
    /// Nothing to work on.
    #[error("{0}")]
    Empty(&'static str),
    /// A prompt does not fit.
    #[error(
        "the prompt has {tokens} tokens and the model's context {context}: shorten it, or cut its beginning off with --truncate-prompt"
    )]
    PromptTooLong {
        /// Tokens of the prompt.
        tokens: usize,
        /// The context.
        context: usize,
    },
    /// A sequence has reached the end of the context.
    #[error("position {position} is beyond the model's context of {context} tokens")]
    ContextFull {
        /// The position asked for.
        position: usize,
        /// The context.
        context: usize,
    },
    /// Sampling options cannot be used.
    #[error(transparent)]
    Sampling(#[from] crate::sampling::SamplingError),
    /// A constraint cannot be used or followed.
    #[error(transparent)]
    Constraint(#[from] crate::constraint::ConstraintError),
    /// A converted checkpoint cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// A model, ready to run: share it by reference; each user makes its own [`crate::Runner`].
pub struct Engine {
    pub(crate) config: MixtralConfig,
    pub(crate) weights: Weights,
    pub(crate) pool: Pool,
    pub(crate) isa: Isa,
    pub(crate) arithmetic: Arithmetic,
}

impl Engine {
    /// Loads a model directory.
    ///
    /// # Errors
    /// When the checkpoint cannot be used as asked.
    pub fn load(dir: &Path, options: &LoadOptions) -> Result<Self, EngineError> {
        Self::from_checkpoint(&Checkpoint::open(dir)?, options)
    }

    /// Prepares an open checkpoint.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn from_checkpoint(checkpoint: &Checkpoint, options: &LoadOptions) -> Result<Self, EngineError> {
        let isa = Isa::from_env()?;
        let cores = thread::available_parallelism().map_or(1, NonZero::get);
        let pool = Pool::new(options.threads.unwrap_or(cores));
        let weights = Weights::load(checkpoint, options.dtype, &pool, isa)?;
        weights.check()?;
        let bf16 = options.dtype == Some(WeightDtype::Bf16) && isa.has_bf16_dot();
        let arithmetic = if bf16 { Arithmetic::Bf16 } else { Arithmetic::F32 };
        Ok(Self { config: checkpoint.config.clone(), weights, pool, isa, arithmetic })
    }

    /// What the model is.
    pub fn config(&self) -> &MixtralConfig {
        &self.config
    }

    /// The weights.
    pub fn weights(&self) -> &Weights {
        &self.weights
    }

    /// The thread pool.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// The instruction set in use.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// With what prompts are multiplied.
    pub fn arithmetic(&self) -> Arithmetic {
        self.arithmetic
    }

    pub(crate) fn attention_shape(&self) -> AttentionShape {
        let c = &self.config;
        AttentionShape {
            heads: c.num_attention_heads,
            kv_heads: c.num_key_value_heads,
            head_dim: c.head_dim,
            window: c.sliding_window,
        }
    }

    /// Checks that every id is in the vocabulary.
    ///
    /// # Errors
    /// Names the first that is not.
    pub fn check_ids(&self, ids: &[u32]) -> Result<(), EngineError> {
        let vocab_size = self.config.vocab_size;
        match ids.iter().find(|&&id| id as usize >= vocab_size) {
            Some(&id) => Err(EngineError::TokenOutOfRange { id, vocab_size }),
            None => Ok(()),
        }
    }
}

/// Writes the checkpoint in `source` to `target` with its matrices quantised as `dtype` quantises them at load.
///
/// Embedding, router and normalisations stay as stored; the tokenizer's and other files are not this function's.
///
/// # Errors
/// When the source cannot be loaded or the target not written.
pub fn quantise_checkpoint(
    source: &Path,
    target: &Path,
    dtype: WeightDtype,
    threads: Option<usize>,
) -> Result<(), EngineError> {
    let checkpoint = Checkpoint::open(source)?;
    let engine = Engine::from_checkpoint(&checkpoint, &LoadOptions { dtype: Some(dtype), threads })?;
    let mut tensors = Vec::new();
    for expected in names::expected(&checkpoint.config).into_iter().filter(|t| !t.quantisable) {
        let stored =
            checkpoint.tensor(&expected.name).ok_or_else(|| EngineError::Missing(expected.name.clone()))?;
        tensors.push(TensorSource {
            name: expected.name,
            dtype: stored.dtype(),
            shape: expected.shape,
            bytes: Box::new(move || Cow::Borrowed(stored.data())),
        });
    }
    let mut float_dtype = Dtype::F32;
    if let Some(embedding) = checkpoint.tensor(names::EMBEDDING) {
        float_dtype = embedding.dtype();
    }
    for (name, [rows, cols], format, data, scales) in engine.weights.quantised() {
        let (groups, blocks) = (rows.div_ceil(16), cols.div_ceil(32));
        let bytes = if format == Format::Q8 { 512 } else { 256 };
        tensors.push(TensorSource {
            name: format!("{name}{QUANTS}"),
            dtype: Dtype::U8,
            shape: vec![groups, blocks, bytes],
            bytes: Box::new(move || Cow::Borrowed(data)),
        });
        tensors.push(TensorSource {
            name: format!("{name}{SCALES}"),
            dtype: Dtype::F16,
            shape: vec![groups, blocks, 16],
            bytes: Box::new(move || Cow::Borrowed(scales)),
        });
    }
    let note = json!({ "quant_method": "blackletter", "format": dtype.to_string(), "block_size": 32, "row_group": 16 });
    write_checkpoint(
        target,
        &checkpoint.config,
        float_dtype,
        tensors,
        u64::MAX,
        &[("quantization_config", note)],
    )?;
    Ok(())
}
