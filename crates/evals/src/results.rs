//! Results as files: `NAME.json` for programs, `NAME.md` for people, `NAME.jsonl` with every single thing that was measured; and
//! whose they are.

use crate::{EvalError, subject::Subject};
use blackletter_provenance::ModelRecord;
use serde::Serialize;
use std::{fs, path::Path};

/// Whether what was measured is the model of `record` as it is: its files of weights are those of the record, each with its name and
/// hash and none more, no adapter was put in, and they were multiplied in the form in which they are stored. By what name it
/// was asked for does not matter.
pub fn is_of(subject: &Subject, record: &ModelRecord) -> bool {
    let recorded = record.files.iter().filter(|f| f.path.ends_with(".safetensors") && !f.path.contains('/'));
    let mut recorded: Vec<(&str, &str)> = recorded.map(|f| (f.path.as_str(), f.blake3.as_str())).collect();
    let mut measured: Vec<(&str, &str)> =
        subject.weights.iter().map(|w| (w.name.as_str(), w.blake3.as_str())).collect();
    recorded.sort_unstable();
    measured.sort_unstable();
    subject.dtype.is_none() && subject.adapter.is_none() && !measured.is_empty() && measured == recorded
}

/// Writes a result to `folder`, which is made if need be.
///
/// # Errors
/// When it cannot be written.
pub fn write<R: Serialize, L: Serialize>(
    folder: &Path,
    name: &str,
    result: &R,
    markdown: &str,
    lines: &[L],
) -> Result<(), EvalError> {
    fs::create_dir_all(folder).map_err(EvalError::file("make", folder))?;
    let mut jsonl = Vec::new();
    for line in lines {
        serde_json::to_writer(&mut jsonl, line)?;
        jsonl.push(b'\n');
    }
    let json = serde_json::to_string_pretty(result)? + "\n";
    for (ending, bytes) in
        [("json", json.as_bytes()), ("md", markdown.as_bytes()), ("jsonl", jsonl.as_slice())]
    {
        let path = folder.join(format!("{name}.{ending}"));
        fs::write(&path, bytes).map_err(EvalError::file("write", &path))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::subject::{Adapter, WeightFile};
    use blackletter_provenance::ModelFile;

    fn file(path: &str, blake3: &str) -> ModelFile {
        ModelFile { path: path.into(), blake3: blake3.into(), ..ModelFile::default() }
    }

    #[test]
    fn a_model_is_known_by_its_weights_and_not_by_its_name() {
        let weight = |name: &str, blake3: &str| WeightFile { name: name.into(), blake3: blake3.into() };
        let record = ModelRecord {
            files: vec![
                file("config.json", "00"),
                file("model-1.safetensors", "aa"),
                file("model-2.safetensors", "bb"),
                file("draft/model.safetensors", "cc"),
            ],
            ..ModelRecord::default()
        };
        let own = Subject {
            name: "owner/any".into(),
            weights: vec![weight("model-2.safetensors", "bb"), weight("model-1.safetensors", "aa")],
            ..Subject::default()
        };
        assert!(is_of(&own, &record));
        let others = [
            Subject { dtype: Some("q4".into()), ..own.clone() },
            Subject { adapter: Some(Adapter::default()), ..own.clone() },
            Subject { weights: vec![weight("model-1.safetensors", "aa")], ..own.clone() },
            Subject {
                weights: [own.weights.clone(), vec![weight("adapter_model.safetensors", "dd")]].concat(),
                ..own.clone()
            },
            Subject {
                weights: vec![weight("model-1.safetensors", "ab"), weight("model-2.safetensors", "bb")],
                ..own.clone()
            },
            Subject { weights: vec![], ..own.clone() },
        ];
        for other in others {
            assert!(!is_of(&other, &record), "{other:?}");
        }
        // A record that knows of no weights is of nobody.
        assert!(!is_of(&Subject::default(), &ModelRecord::default()));
    }
}
