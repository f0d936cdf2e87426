//! Texts to measure with.

use crate::EvalError;
use blackletter_corpus::texts::Texts;
use blackletter_provenance::hash::{self, FileHash};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
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
    /// Its name, with as many of its folders as tell it from the other files.
    pub name: String,
    /// Bytes.
    pub bytes: u64,
    /// BLAKE3, in hexadecimal.
    pub blake3: String,
}

impl DataFile {
    /// The file at `path`, of this content; `-` is standard input.
    pub fn of(path: &Path, content: &[u8]) -> Self {
        let name = if path.as_os_str() == "-" { "standard input".into() } else { file_name(path) };
        Self { name, bytes: content.len() as u64, blake3: hash::hex(content) }
    }
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

fn file_name(path: &Path) -> String {
    path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default()
}

/// A file's name without the endings that say how it is read.
fn stem(path: &Path) -> String {
    let name = file_name(path);
    let known = [".jsonl.zst", ".jsonl.gz", ".jsonl", ".parquet", ".txt", ".md"];
    let lower = name.to_ascii_lowercase();
    let ending = known.into_iter().find(|ending| lower.ends_with(ending) && lower.len() > ending.len());
    name.get(..name.len() - ending.map_or(0, str::len)).unwrap_or(&name).to_owned()
}

/// What the files are called: each by what `short` makes of it, with as many of its folders in front as tell those of one
/// name apart.
fn names(paths: &[PathBuf], short: impl Fn(&Path) -> String) -> Vec<String> {
    let mut names: Vec<String> = paths.iter().map(|path| short(path)).collect();
    let mut alike: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    names.iter().enumerate().for_each(|(at, name)| alike.entry(name.clone()).or_default().push(at));
    // A file that is named twice is one file.
    let whole: Vec<PathBuf> =
        paths.iter().map(|path| path.canonicalize().unwrap_or_else(|_| path.clone())).collect();
    for places in alike.into_values() {
        let paths: BTreeSet<&PathBuf> = places.iter().filter_map(|&at| whole.get(at)).collect();
        if paths.len() < 2 {
            continue;
        }
        let with_folders = |path: &Path, folders: usize, name: String| {
            let mut folders: Vec<String> = path.ancestors().skip(1).take(folders).map(file_name).collect();
            folders.reverse();
            folders.push(name);
            folders.join("/")
        };
        let apart = |folders: usize, name: &dyn Fn(&Path) -> String| {
            let called: BTreeSet<String> =
                paths.iter().map(|path| with_folders(path, folders, name(path))).collect();
            called.len() == paths.len()
        };
        let deepest = paths.iter().map(|path| path.components().count()).max().unwrap_or_default();
        // Files of one folder that differ in their endings alone are told apart by these.
        let by_stem = (1..deepest).find(|&folders| apart(folders, &short));
        let by_name = || (0..deepest).find(|&folders| apart(folders, &file_name));
        for at in places {
            let (Some(path), Some(name)) = (whole.get(at), names.get_mut(at)) else { continue };
            *name = match by_stem {
                Some(folders) => with_folders(path, folders, short(path)),
                None => with_folders(path, by_name().unwrap_or_default(), file_name(path)),
            };
        }
    }
    names
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
    let called = names(&files, file_name).into_iter().zip(names(&files, stem));
    for (path, (name, stem)) in files.iter().zip(called) {
        let hash = File::open(path).and_then(FileHash::of).map_err(EvalError::file("read", path))?;
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
        assert_eq!(shown(GroupBy::File, few), ["part.a 0 äö", "notes 0 wh"]);
    }

    #[test]
    fn files_of_one_name_are_told_apart_by_their_folders() {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "{\"text\":\"a b\"}\n").unwrap();
            path
        };
        let paths =
            ["usc/00000.jsonl", "dc/00000.jsonl", "usc/00001.v2.jsonl", "dc/x/b.jsonl", "usc/x/b.jsonl"];
        let paths = paths.map(at);
        let named = |paths: &[PathBuf]| -> (Vec<String>, Vec<String>) {
            let data = read(paths, GroupBy::File, Limits::default()).unwrap();
            let groups = data.documents.into_iter().map(|d| d.group).collect();
            (groups, data.files.into_iter().map(|f| f.name).collect())
        };
        let (groups, files) = named(&paths);
        assert_eq!(groups, ["usc/00000", "dc/00000", "00001.v2", "dc/x/b", "usc/x/b"]);
        let expected =
            ["usc/00000.jsonl", "dc/00000.jsonl", "00001.v2.jsonl", "dc/x/b.jsonl", "usc/x/b.jsonl"];
        assert_eq!(files, expected);
        // Two endings in one folder, and one file twice.
        let (groups, files) = named(&[at("e/n.jsonl"), at("e/n.txt"), paths[2].clone(), paths[2].clone()]);
        assert_eq!(groups, ["n.jsonl", "n.txt", "00001.v2", "00001.v2"]);
        assert_eq!(files, ["n.jsonl", "n.txt", "00001.v2.jsonl", "00001.v2.jsonl"]);
    }
}
