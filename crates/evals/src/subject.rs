//! What was measured, and with which program: what makes a result mean something a year later.

use crate::EvalError;
use blackletter_engine::{ModelFiles, Pipeline};
use blackletter_provenance::hash::FileHash;
use serde::{Deserialize, Serialize};
use std::{fs::File, path::Path};

/// The model that was measured.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    /// Its name: what it was asked for as, without folders.
    pub name: String,
    /// Parameters.
    pub parameters: u64,
    /// The weights: files with their hashes.
    pub weights: Vec<WeightFile>,
    /// The form in which weights were multiplied, where it is not the one they are stored in.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub dtype: Option<String>,
    /// The program that measured, with its version.
    pub program: String,
}

/// A file of weights.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WeightFile {
    /// Name.
    pub name: String,
    /// BLAKE3, in hexadecimal.
    pub blake3: String,
}

impl Subject {
    /// Describes a model that was loaded from `files` under the name `name`.
    ///
    /// # Errors
    /// When the weights cannot be read.
    pub fn new(
        name: &str,
        files: &ModelFiles,
        pipeline: &Pipeline,
        dtype: Option<String>,
    ) -> Result<Self, EvalError> {
        let weights = weight_files(files)?;
        Ok(Self {
            name: shown_name(name),
            parameters: pipeline.engine.config().total_parameters(),
            weights,
            dtype,
            program: program(),
        })
    }
}

/// Hashes of the weights; those of an adapter come after its model's.
fn weight_files(files: &ModelFiles) -> Result<Vec<WeightFile>, EvalError> {
    let in_directory = |dir: &Path| {
        let mut paths: Vec<_> = std::fs::read_dir(dir)
            .map_err(EvalError::file("read", dir))?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.extension().is_some_and(|e| e == "safetensors"))
            .collect();
        paths.sort();
        let mut weights = Vec::new();
        for path in paths {
            let hash = File::open(&path).and_then(FileHash::of).map_err(EvalError::file("read", &path))?;
            weights.push(WeightFile { name: file_name(&path), blake3: hash.blake3 });
        }
        Ok::<_, EvalError>(weights)
    };
    match files {
        ModelFiles::Directory(dir) => in_directory(dir),
        ModelFiles::Embedded(files) => Ok(files
            .iter()
            .filter(|(name, _)| name.ends_with(".safetensors"))
            .map(|(name, bytes)| {
                let blake3 = blackletter_provenance::hash::hex(bytes);
                WeightFile { name: (*name).into(), blake3 }
            })
            .collect()),
        ModelFiles::Adapted { model, adapter } => {
            let mut weights = weight_files(model)?;
            weights.extend(in_directory(adapter)?);
            Ok(weights)
        }
    }
}

/// A directory's own name; any other name as it is.
fn shown_name(name: &str) -> String {
    let path = Path::new(name);
    path.canonicalize().map_or_else(|_| name.to_owned(), |path| file_name(&path))
}

fn file_name(path: &Path) -> String {
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned());
    name.unwrap_or_else(|| path.display().to_string())
}

/// This program and its version.
pub fn program() -> String {
    concat!("blackletter ", env!("CARGO_PKG_VERSION")).into()
}
