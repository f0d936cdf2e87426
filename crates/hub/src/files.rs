//! Which files of a repository a model takes.

use crate::repository::is_name;
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::Value;
use std::{collections::BTreeSet, fs, path::Path};

pub(crate) const CONFIG: &str = "config.json";
pub(crate) const WEIGHTS: &str = "model.safetensors";
pub(crate) const INDEX: &str = "model.safetensors.index.json";
const RECORD: &str = "provenance.json";
const SIGNATURE: &str = "model.sig";

/// What goes along when it is there: settings, tokenizer, and what the model says of itself. What else its record and signature
/// cover, they name ([`covered_files`]).
const COMPANIONS: [&str; 13] = [
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "special_tokens_map.json",
    "added_tokens.json",
    RECORD,
    SIGNATURE,
    "README.md",
    "LICENSE",
    "LICENSE.md",
    "LICENSE.txt",
    "NOTICE",
];

/// The small files to fetch of those that are there, an index of shards among them; or why there is no model.
pub(crate) fn small_files(present: &BTreeSet<String>) -> Result<Vec<&'static str>, String> {
    if !present.contains(CONFIG) {
        return Err("it has no config.json".into());
    }
    let weights: Option<&str> = [WEIGHTS, INDEX].into_iter().find(|file| present.contains(*file));
    if weights.is_none() {
        let other = present
            .iter()
            .find(|f| [".bin", ".gguf", ".pt", ".pth", ".h5", ".onnx"].iter().any(|e| f.ends_with(e)));
        let other = other.map(|f| format!(", only {f}")).unwrap_or_default();
        return Err(format!("it has no weights in safetensors format (model.safetensors){other}"));
    }
    let mut files = vec![CONFIG];
    files.extend(COMPANIONS.into_iter().filter(|file| present.contains(*file)));
    if weights == Some(INDEX) {
        files.push(INDEX);
    }
    Ok(files)
}

/// The weight files of a directory that has the small ones: one, or those that the index names.
pub(crate) fn weight_files(dir: &Path) -> Result<Vec<String>, String> {
    let text = match fs::read(dir.join(INDEX)) {
        Ok(text) => text,
        Err(_) => return Ok(vec![WEIGHTS.into()]),
    };
    let index: Value = serde_json::from_slice(&text).map_err(|e| format!("its {INDEX} is not JSON: {e}"))?;
    let map = index.get("weight_map").and_then(Value::as_object);
    let map = map.ok_or_else(|| format!("its {INDEX} has no \"weight_map\" object"))?;
    let mut files = BTreeSet::new();
    for file in map.values() {
        match file.as_str() {
            Some(name) if is_name(name) => files.insert(name.to_string()),
            _ => return Err(format!("its {INDEX} names {file}, which is no name of a file")),
        };
    }
    Ok(files.into_iter().collect())
}

/// The files of a repository that the record and the signature in `dir` cover, without which neither holds. Those that cannot be
/// read name none: whoever checks them says so.
pub(crate) fn covered_files(dir: &Path, present: &BTreeSet<String>) -> BTreeSet<String> {
    let json = |file: &str| -> Option<Value> { serde_json::from_slice(&fs::read(dir.join(file)).ok()?).ok() };
    let signed = |bundle: Value| -> Option<Value> {
        let payload = STANDARD.decode(bundle["dsseEnvelope"]["payload"].as_str()?).ok()?;
        serde_json::from_slice(&payload).ok()
    };
    let record = json(RECORD).unwrap_or_default();
    let statement = json(SIGNATURE).and_then(signed).unwrap_or_default();
    [(&record["files"], "path"), (&statement["predicate"]["resources"], "name")]
        .into_iter()
        .flat_map(|(list, key)| {
            list.as_array().into_iter().flatten().filter_map(move |one| one[key].as_str())
        })
        // A signature may be over pieces of files, FILE:FROM:TO.
        .filter_map(|name| name.split(':').next())
        .filter(|path| present.contains(*path) && path.split('/').all(is_name))
        .map(str::to_owned)
        .collect()
}

/// Whether a directory has all that running the model takes.
pub(crate) fn is_complete(dir: &Path) -> bool {
    dir.join(CONFIG).is_file()
        && weight_files(dir)
            .is_ok_and(|files| !files.is_empty() && files.iter().all(|file| dir.join(file).is_file()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn present(files: &[&str]) -> BTreeSet<String> {
        files.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn only_what_a_safetensors_model_takes_is_fetched() {
        let files = present(&[
            "config.json",
            "model.safetensors",
            "pytorch_model.bin",
            "tokenizer.json",
            "runs/x",
            "train.py",
        ]);
        assert_eq!(small_files(&files).unwrap(), ["config.json", "tokenizer.json"]);
        let sharded =
            present(&["config.json", "model.safetensors.index.json", "model-00001-of-00002.safetensors"]);
        assert_eq!(small_files(&sharded).unwrap(), ["config.json", "model.safetensors.index.json"]);
    }

    #[test]
    fn a_repository_without_safetensors_is_told_with_what_it_has() {
        let why = small_files(&present(&["config.json", "pytorch_model.bin"])).unwrap_err();
        assert!(why.contains("safetensors") && why.contains("pytorch_model.bin"), "{why}");
        assert!(small_files(&present(&["model.safetensors"])).unwrap_err().contains("config.json"));
    }

    #[test]
    fn an_index_cannot_name_files_elsewhere() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["../../x.safetensors", "/etc/x", "a/b", ""] {
            let index = serde_json::json!({ "weight_map": { "t": name } });
            fs::write(dir.path().join(INDEX), index.to_string()).unwrap();
            assert!(weight_files(dir.path()).is_err(), "{name:?}");
        }
    }
}
