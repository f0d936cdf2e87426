//! A batch: token ids, who may see whom, and what is to be predicted.

use safetensors::{Dtype, SafeTensors};
use std::sync::Arc;

/// A label that is not counted.
pub const IGNORED: i64 = -100;

/// A batch cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BatchError {
    /// Not a safetensors file.
    #[error("the batch is not a whole safetensors file: {0}")]
    Safetensors(String),
    /// A tensor is not there.
    #[error(
        "the batch lacks {0:?}: it needs padded_input_ids (or input_ids) and labels, and may have attention_mask"
    )]
    Missing(&'static str),
    /// A tensor has another type or shape.
    #[error("the batch's {name} is {found}, expected {expected}")]
    Tensor {
        /// The tensor.
        name: &'static str,
        /// Its type and shape.
        found: String,
        /// What it must be.
        expected: String,
    },
    /// A number is out of range.
    #[error("the batch's {name} holds {value} at row {row}, column {column}: {allowed}")]
    Value {
        /// The tensor.
        name: &'static str,
        /// What stands there.
        value: i64,
        /// Where.
        row: usize,
        /// Where.
        column: usize,
        /// What may stand there.
        allowed: String,
    },
    /// Nothing to predict.
    #[error("no label of the batch is counted: all are -100, or in the first column, which nothing predicts")]
    NoTargets,
    /// Lengths contradict each other.
    #[error("a batch of {tokens} tokens in rows of {len} has {found} {name}")]
    Length {
        /// The list.
        name: &'static str,
        /// Tokens.
        tokens: usize,
        /// Tokens of a row.
        len: usize,
        /// Length of the list.
        found: usize,
    },
}

/// Rows of tokens, all of one length; lists are `[rows × len]`, row by row.
#[derive(Clone, Debug)]
pub struct Batch {
    pub(super) len: usize,
    pub(super) ids: Arc<[u32]>,
    pub(super) positions: Arc<[u32]>,
    pub(super) segments: Arc<[u32]>,
    /// What each token is to predict.
    pub(super) targets: Arc<[i64]>,
}

impl Batch {
    /// A batch of rows of `len` tokens.
    ///
    /// `segments` says which tokens see each other (0: padding, seen by none), `positions` where they stand for the rotary
    /// embedding, `targets` the id that each token is to predict, or [`IGNORED`].
    ///
    /// # Errors
    /// When lengths differ, or ids or targets are not below `vocabulary`.
    pub fn new(
        len: usize,
        ids: Vec<u32>,
        positions: Vec<u32>,
        segments: Vec<u32>,
        targets: Vec<i64>,
        vocabulary: usize,
    ) -> Result<Self, BatchError> {
        let tokens = ids.len();
        for (name, found) in
            [("positions", positions.len()), ("segments", segments.len()), ("targets", targets.len())]
        {
            if found != tokens || len == 0 || tokens == 0 || !tokens.is_multiple_of(len) {
                return Err(BatchError::Length { name, tokens, len, found });
            }
        }
        let wrong = |name, value, at: usize| BatchError::Value {
            name,
            value,
            row: at / len,
            column: at % len,
            allowed: format!("ids are from 0 to {}", vocabulary.saturating_sub(1)),
        };
        if let Some(at) = ids.iter().position(|&id| id as usize >= vocabulary) {
            return Err(wrong("ids", i64::from(ids.get(at).copied().unwrap_or(0)), at));
        }
        for (at, &target) in targets.iter().enumerate() {
            if target != IGNORED && !usize::try_from(target).is_ok_and(|id| id < vocabulary) {
                return Err(wrong("labels", target, at));
            }
        }
        if targets.iter().all(|&target| target == IGNORED) {
            return Err(BatchError::NoTargets);
        }
        Ok(Self {
            len,
            ids: ids.into(),
            positions: positions.into(),
            segments: segments.into(),
            targets: targets.into(),
        })
    }

    /// Reads a batch as transformers takes it: `padded_input_ids` (or `input_ids`), `attention_mask`, `labels`, all
    /// 64-bit `[rows, len]`. Labels are those of the tokens themselves: token `i` predicts label `i + 1`. Positions count
    /// padding, as a plain forward of transformers does.
    ///
    /// # Errors
    /// When a tensor is missing or cannot be used.
    pub fn from_safetensors(bytes: &[u8], vocabulary: usize) -> Result<Self, BatchError> {
        let file = SafeTensors::deserialize(bytes).map_err(|e| BatchError::Safetensors(e.to_string()))?;
        let name = if file.tensor("padded_input_ids").is_ok() { "padded_input_ids" } else { "input_ids" };
        let (ids, shape) = read(&file, name)?.ok_or(BatchError::Missing("padded_input_ids"))?;
        let same = |name, read: Option<(Vec<i64>, [usize; 2])>| match read {
            Some((_, found)) if found != shape => Err(BatchError::Tensor {
                name,
                found: format!("{found:?}"),
                expected: format!("{shape:?}, as {:?}", "input_ids"),
            }),
            other => Ok(other.map(|(values, _)| values)),
        };
        let labels = same("labels", read(&file, "labels")?)?.ok_or(BatchError::Missing("labels"))?;
        let mask = same("attention_mask", read(&file, "attention_mask")?)?;
        let [rows, len] = shape;
        let at = |i: usize| (i / len.max(1), i % len.max(1));
        let ids = ids
            .into_iter()
            .enumerate()
            .map(|(i, value)| {
                u32::try_from(value).map_err(|_| BatchError::Value {
                    name: "input_ids",
                    value,
                    row: at(i).0,
                    column: at(i).1,
                    allowed: format!("ids are from 0 to {}", vocabulary.saturating_sub(1)),
                })
            })
            .collect::<Result<Vec<u32>, _>>()?;
        let segments = match mask {
            None => vec![1; ids.len()],
            Some(mask) => mask
                .into_iter()
                .enumerate()
                .map(|(i, value)| match value {
                    0 => Ok(0),
                    1 => Ok(1),
                    _ => Err(BatchError::Value {
                        name: "attention_mask",
                        value,
                        row: at(i).0,
                        column: at(i).1,
                        allowed: "1 for a token, 0 for padding".into(),
                    }),
                })
                .collect::<Result<Vec<u32>, _>>()?,
        };
        let targets =
            labels.chunks(len.max(1)).flat_map(|row| row.iter().skip(1).copied().chain([IGNORED])).collect();
        let positions = (0..rows).flat_map(|_| 0..len as u32).collect();
        Self::new(len, ids, positions, segments, targets, vocabulary)
    }

    /// Tokens of a row.
    #[allow(clippy::len_without_is_empty)] // A batch is never empty.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Token ids, `[rows × len]`.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// Places for the rotary embedding, `[rows × len]`.
    pub fn positions(&self) -> &[u32] {
        &self.positions
    }

    /// Which tokens see each other, `[rows × len]`; 0 is padding.
    pub fn segments(&self) -> &[u32] {
        &self.segments
    }

    /// What each token is to predict, `[rows × len]`, or [`IGNORED`].
    pub fn target_ids(&self) -> &[i64] {
        &self.targets
    }

    /// Tokens, padding included.
    pub fn tokens(&self) -> usize {
        self.ids.len()
    }

    /// Tokens that predict something that counts.
    pub fn targets(&self) -> usize {
        self.targets.iter().filter(|&&target| target != IGNORED).count()
    }
}

type Matrix = (Vec<i64>, [usize; 2]);

fn read(file: &SafeTensors<'_>, name: &'static str) -> Result<Option<Matrix>, BatchError> {
    let Ok(tensor) = file.tensor(name) else { return Ok(None) };
    match (tensor.dtype(), tensor.shape()) {
        (Dtype::I64, &[rows, len]) if len > 0 && rows > 0 => {
            let values = tensor.data().as_chunks().0.iter().map(|b| i64::from_le_bytes(*b)).collect();
            Ok(Some((values, [rows, len])))
        }
        (dtype, shape) => Err(BatchError::Tensor {
            name,
            found: format!("{dtype:?} {shape:?}"),
            expected: "64-bit integers [rows, length]".into(),
        }),
    }
}
