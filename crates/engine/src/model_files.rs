//! Where a model's files come from.

use blackletter_model::{Adapter, Checkpoint, CheckpointError, ConfigError, GenerationConfig};
use blackletter_tokenizer::{Tokenizer, TokenizerError};
use std::{fs, path::PathBuf};

/// The files of a model: `config.json`, weights, and those beside them.
#[derive(Clone, Debug)]
pub enum ModelFiles {
    /// A directory.
    Directory(PathBuf),
    /// `(name, content)` of files that the program carries; the weights are one `model.safetensors`.
    Embedded(&'static [(&'static str, &'static [u8])]),
    /// Those of a model, with a low-rank adapter in PEFT's format put into its weights as they are opened.
    Adapted {
        /// The model.
        model: Box<ModelFiles>,
        /// The adapter's directory.
        adapter: PathBuf,
    },
}

impl ModelFiles {
    /// Opens configuration and weights.
    ///
    /// # Errors
    /// As [`Checkpoint::open`].
    pub fn checkpoint(&self) -> Result<Checkpoint, CheckpointError> {
        match self {
            Self::Directory(dir) => Checkpoint::open(dir),
            Self::Embedded(_) => {
                Checkpoint::from_static(self.embedded("config.json"), self.embedded("model.safetensors"))
            }
            Self::Adapted { model, adapter } => {
                let mut checkpoint = model.checkpoint()?;
                let adapter = Adapter::read(adapter).map_err(Box::new)?;
                adapter.apply(&mut checkpoint).map_err(Box::new)?;
                Ok(checkpoint)
            }
        }
    }

    /// Loads the tokenizer.
    ///
    /// # Errors
    /// As [`Tokenizer::load`].
    pub fn tokenizer(&self) -> Result<Tokenizer, TokenizerError> {
        match self {
            Self::Directory(dir) => Tokenizer::load(dir),
            Self::Embedded(_) => Tokenizer::from_bytes(self.embedded("tokenizer.json")),
            Self::Adapted { model, .. } => model.tokenizer(),
        }
    }

    /// Reads `generation_config.json`; where there is none, it says nothing.
    ///
    /// # Errors
    /// As [`GenerationConfig::from_dir`].
    pub fn generation_config(&self) -> Result<GenerationConfig, ConfigError> {
        match self {
            Self::Directory(dir) => Ok(GenerationConfig::from_dir(dir)?.unwrap_or_default()),
            Self::Embedded(_) => match self.embedded("generation_config.json") {
                [] => Ok(GenerationConfig::default()),
                bytes => GenerationConfig::from_json(bytes),
            },
            Self::Adapted { model, .. } => model.generation_config(),
        }
    }

    /// The text of a file beside the weights, when it is there.
    pub fn read(&self, name: &str) -> Option<String> {
        match self {
            Self::Directory(dir) => fs::read_to_string(dir.join(name)).ok(),
            Self::Embedded(files) => {
                let (_, bytes) = files.iter().find(|(file, _)| *file == name)?;
                String::from_utf8(bytes.to_vec()).ok()
            }
            Self::Adapted { model, .. } => model.read(name),
        }
    }

    /// What an embedded file holds; nothing when there is none.
    fn embedded(&self, name: &str) -> &'static [u8] {
        match self {
            Self::Directory(_) | Self::Adapted { .. } => &[],
            Self::Embedded(files) => {
                files.iter().find(|(file, _)| *file == name).map_or(&[], |(_, bytes)| bytes)
            }
        }
    }
}
