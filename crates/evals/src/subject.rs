//! What was measured, and with which program: what makes a result mean something a year later.

use crate::EvalError;
use blackletter_engine::{ModelFiles, Pipeline};
use blackletter_provenance::{folder_name, hash::FileHash};
use serde::{Deserialize, Serialize};
use std::{fs::File, path::Path};

/// The model that was measured.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    /// Its name: what it was asked for as, without folders.
    pub name: String,
    /// Parameters.
    pub parameters: u64,
    /// The weights: files with their hashes, those of an adapter last.
    pub weights: Vec<WeightFile>,
    /// The adapter that was put into the weights.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub adapter: Option<Adapter>,
    /// The form in which weights were multiplied, where it is not the one they are stored in.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub dtype: Option<String>,
    /// The program that measured, with its version.
    pub program: String,
}

/// A low-rank adapter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Adapter {
    /// Its directory's name; where that is `adapter`, as in every run, the name of the directory that it is in.
    pub name: String,
    /// Its weights, and the settings that they are put in with, with their hashes.
    pub files: Vec<WeightFile>,
}

/// A file of weights, or of what belongs to them.
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
        Ok(Self {
            name: shown_name(name),
            parameters: pipeline.engine.config().total_parameters(),
            weights: weight_files(files)?,
            adapter: adapter(files)?,
            dtype,
            program: program(),
        })
    }

    /// What the model is called where results are shown: its name with what it was run with, such as `nano with adapter letters,
    /// q4`.
    pub fn title(&self) -> String {
        let mut title = self.name.clone();
        if let Some(adapter) = &self.adapter {
            title.push_str(&format!(" with adapter {}", adapter.name));
        }
        if let Some(dtype) = &self.dtype {
            title.push_str(&format!(", {dtype}"));
        }
        title
    }
}

/// Hashes of the files in `dir` that are `wanted`, by name.
fn hashed(dir: &Path, wanted: impl Fn(&Path) -> bool) -> Result<Vec<WeightFile>, EvalError> {
    let mut paths: Vec<_> = std::fs::read_dir(dir)
        .map_err(EvalError::file("read", dir))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| wanted(path))
        .collect();
    paths.sort();
    let mut files = Vec::new();
    for path in paths {
        let hash = File::open(&path).and_then(FileHash::of).map_err(EvalError::file("read", &path))?;
        files.push(WeightFile { name: file_name(&path), blake3: hash.blake3 });
    }
    Ok(files)
}

fn is_weights(path: &Path) -> bool {
    path.extension().is_some_and(|e| e == "safetensors")
}

/// Hashes of the weights; those of an adapter come after its model's.
fn weight_files(files: &ModelFiles) -> Result<Vec<WeightFile>, EvalError> {
    match files {
        ModelFiles::Directory(dir) => hashed(dir, is_weights),
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
            weights.extend(hashed(adapter, is_weights)?);
            Ok(weights)
        }
    }
}

/// The adapter that the files put into a model's weights.
fn adapter(files: &ModelFiles) -> Result<Option<Adapter>, EvalError> {
    let ModelFiles::Adapted { adapter, .. } = files else { return Ok(None) };
    let belongs =
        |path: &Path| is_weights(path) || path.file_name().is_some_and(|n| n == "adapter_config.json");
    let whole = adapter.canonicalize().unwrap_or_else(|_| adapter.clone());
    let run = whole.parent().filter(|run| whole.ends_with("adapter") && run.file_name().is_some());
    Ok(Some(Adapter { name: file_name(run.unwrap_or(&whole)), files: hashed(adapter, belongs)? }))
}

/// A directory's own name; any other name as it is.
fn shown_name(name: &str) -> String {
    let path = Path::new(name);
    if path.exists() { folder_name(path) } else { name.to_owned() }
}

fn file_name(path: &Path) -> String {
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned());
    name.unwrap_or_else(|| path.display().to_string())
}

/// This program and its version.
pub fn program() -> String {
    concat!("blackletter ", env!("CARGO_PKG_VERSION")).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_title_says_what_the_model_was_run_with() {
        let adapter = |name: &str| Some(Adapter { name: name.into(), files: vec![] });
        let dtype = |dtype: &str| Some(dtype.to_owned());
        for (adapter, dtype, title) in [
            (None, None, "nano"),
            (None, dtype("q4"), "nano, q4"),
            (adapter("letters"), None, "nano with adapter letters"),
            (adapter("letters"), dtype("q8"), "nano with adapter letters, q8"),
        ] {
            assert_eq!(Subject { name: "nano".into(), adapter, dtype, ..Subject::default() }.title(), title);
        }
    }

    #[test]
    fn an_adapter_is_named_with_the_hashes_of_its_weights_and_settings() {
        let dir = tempfile::tempdir().unwrap();
        let (model, letters) = (dir.path().join("model"), dir.path().join("letters"));
        for (folder, name, content) in [
            (&model, "model.safetensors", "m"),
            (&letters, "adapter_model.safetensors", "a"),
            (&letters, "adapter_config.json", "{}"),
            (&letters, "README.md", ""),
        ] {
            std::fs::create_dir_all(folder).unwrap();
            std::fs::write(folder.join(name), content).unwrap();
        }
        let files = ModelFiles::Adapted { model: Box::new(ModelFiles::Directory(model)), adapter: letters };
        let weights = weight_files(&files).unwrap();
        let of = |file: &WeightFile| (file.name.clone(), file.blake3.clone());
        let hash = |content: &str| blackletter_provenance::hash::hex(content.as_bytes());
        assert_eq!(
            weights.iter().map(of).collect::<Vec<_>>(),
            [("model.safetensors".into(), hash("m")), ("adapter_model.safetensors".into(), hash("a")),]
        );
        // In a run it is the run that is named.
        let in_run = dir.path().join("runs/first/adapter");
        std::fs::create_dir_all(&in_run).unwrap();
        let of_run =
            ModelFiles::Adapted { model: Box::new(ModelFiles::Directory(in_run.clone())), adapter: in_run };
        assert_eq!(adapter(&of_run).unwrap().unwrap().name, "first");
        let adapter = adapter(&files).unwrap().unwrap();
        assert_eq!(adapter.name, "letters");
        assert_eq!(
            adapter.files.iter().map(of).collect::<Vec<_>>(),
            [("adapter_config.json".into(), hash("{}")), ("adapter_model.safetensors".into(), hash("a")),]
        );
    }

    #[test]
    fn a_record_from_before_adapters_were_named_is_read() {
        let old = "{\"name\":\"nano\",\"parameters\":1,\"weights\":[],\"program\":\"blackletter 0.1.0\"}";
        let read: Subject = serde_json::from_str(old).unwrap();
        assert_eq!((read.title().as_str(), serde_json::to_string(&read).unwrap().as_str()), ("nano", old));
    }
}
