//! Texts to measure with.

use crate::EvalError;
use blackletter_corpus::texts::Texts;
use blackletter_provenance::hash::FileHash;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::{Path, PathBuf},
};

/// What documents are put together by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GroupBy {
    /// The dataset that each document states; the file's name where it states none.
    #[default]
    Dataset,
    /// The file.
    File,
}

/// What is read of the data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Documents of each group, the first ones; none for all.
    pub documents: Option<usize>,
    /// Characters of each document, the first ones; none for all.
    pub characters: Option<usize>,
}

/// A document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EvalDocument {
    /// The dataset or file, as asked for.
    pub group: String,
    /// Its place in the group, from 0.
    pub number: usize,
    /// The text, cut as asked for.
    pub text: String,
}

/// A file of data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataFile {
    /// Its name, without folders.
    pub name: String,
    /// Bytes.
    pub bytes: u64,
    /// BLAKE3, in hexadecimal.
    pub blake3: String,
}

/// Documents and the files they are from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EvalData {
    /// In the order of the files.
    pub documents: Vec<EvalDocument>,
    /// The files.
    pub files: Vec<DataFile>,
}

fn is_text(path: &Path) -> bool {
    path.extension().is_some_and(|e| e == "txt" || e == "md")
}

/// Reads documents from JSON lines (`.jsonl`, plain or with `.gz` or `.zst`), Parquet (`.parquet`), both with a column `text`,
/// from text (`.txt`, `.md`, each one document), and from folders of JSON lines or Parquet. Empty texts are passed over.
///
/// # Errors
/// When something cannot be read, or there is no document.
pub fn read(paths: &[PathBuf], by: GroupBy, limits: Limits) -> Result<EvalData, EvalError> {
    let mut files = Vec::new();
    for path in paths {
        if is_text(path) {
            files.push(path.clone());
        } else {
            files.extend(Texts::open(&[path])?.files().map(Path::to_owned));
        }
    }
    let mut data = EvalData::default();
    let mut numbers: BTreeMap<String, usize> = BTreeMap::new();
    for path in &files {
        let hash = File::open(path).and_then(FileHash::of).map_err(EvalError::file("read", path))?;
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let stem = name.split('.').next().unwrap_or_default().to_owned();
        data.files.push(DataFile { name, bytes: hash.bytes, blake3: hash.blake3 });
        let mut take = |dataset: String, text: String| {
            let group = if by == GroupBy::File { stem.clone() } else { dataset };
            let number = numbers.entry(group.clone()).or_default();
            if text.is_empty() || limits.documents.is_some_and(|limit| *number >= limit) {
                return;
            }
            let cut = limits.characters.and_then(|n| text.char_indices().nth(n)).map(|(at, _)| at);
            let text = cut.map_or_else(|| text.clone(), |at| text[..at].to_owned());
            data.documents.push(EvalDocument { group, number: *number, text });
            *number += 1;
        };
        if is_text(path) {
            let bytes = fs::read(path).map_err(EvalError::file("read", path))?;
            take(stem.clone(), String::from_utf8_lossy(&bytes).into_owned());
            continue;
        }
        for text in Texts::open(&[path])? {
            let text = text?;
            take(text.dataset, text.text);
        }
    }
    if data.documents.is_empty() {
        return Err(EvalError::Nothing("there is no document with text in the data".into()));
    }
    Ok(data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_grouped_counted_and_cut_by_characters() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("part.a.jsonl"), dir.path().join("notes.txt"));
        fs::write(
            &a,
            "{\"text\":\"äöü\",\"dataset\":\"x\"}\n{\"text\":\"\"}\n{\"text\":\"12\",\"dataset\":\"y\"}\n{\"text\":\"345\",\"dataset\":\"x\"}\n",
        )
        .unwrap();
        fs::write(&b, "whole file").unwrap();
        let paths = [a, b];
        let shown = |by, limits| -> Vec<String> {
            let data = read(&paths, by, limits).unwrap();
            data.documents.iter().map(|d| format!("{} {} {}", d.group, d.number, d.text)).collect()
        };
        let all = Limits::default();
        assert_eq!(shown(GroupBy::Dataset, all), ["x 0 äöü", "y 0 12", "x 1 345", "notes 0 whole file"]);
        let few = Limits { documents: Some(1), characters: Some(2) };
        assert_eq!(shown(GroupBy::Dataset, few), ["x 0 äö", "y 0 12", "notes 0 wh"]);
        assert_eq!(shown(GroupBy::File, few), ["part 0 äö", "notes 0 wh"]);
    }
}
