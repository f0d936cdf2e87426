//! Mixtral checkpoints in Hugging Face format: what the model is, and its weights in memory maps.
//!
//! In flows a directory that `transformers` wrote (`config.json`, `model*.safetensors`); out flow a
//! [`MixtralConfig`] that has been checked, and a [`Checkpoint`] of [`StoredTensor`]s with the shapes that the
//! configuration calls for. Writing goes the other way ([`write_checkpoint`]).

mod adapter;
mod checkpoint;
mod config;
#[cfg(feature = "burn")]
pub mod decoder;
mod describe;
mod generation_config;
pub mod gguf;
pub mod names;
mod random;
pub mod surgery;
mod write;

pub use adapter::{Adapter, AdapterError, LowRank, base_hash};
pub use checkpoint::{Checkpoint, CheckpointError, Dtype, StoredTensor};
pub use config::{ConfigError, MixtralConfig};
pub use describe::{DescribeError, Description, describe};
pub use generation_config::GenerationConfig;
pub use random::{normal_values, random_checkpoint};
pub use write::{TensorSource, WriteError, write_checkpoint, write_tensors, write_tensors_to};
