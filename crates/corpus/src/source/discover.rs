//! Which files a source's paths stand for.

use super::{InputFile, Kind, SourceError, SourceSpec};
use blackletter_provenance::{FILE_NAME, Provenance};
use globset::{GlobBuilder, GlobMatcher};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Folders of documents that must not be trained on; they are entered only when they are named themselves.
const HELD_OUT: [&str; 3] = ["heldout", "held_out", "validation"];
/// Folders below a folder, at most.
const DEEPEST: usize = 64;

/// The files of a source, in the order of its paths, by name within each.
///
/// A path is a file; a folder, of which all files at any depth are taken but for hidden ones and folders named `heldout`,
/// `held_out` or `validation`; a finished corpus, of which all shards but held-out ones are taken; a folder in kl3m-data's
/// layout, of which the parsed stage is taken, or the collected one where there is none; or a pattern with `*`, `?`, `[…]`,
/// `{…}` and `**`. Relative paths start at `base`.
///
/// # Errors
/// When a path finds nothing or cannot be read.
pub fn find(spec: &SourceSpec, base: &Path) -> Result<Vec<InputFile>, SourceError> {
    let mut all = Vec::new();
    for given in spec.path.all() {
        if given.contains("://") {
            return Err(SourceError::Bucket(given.clone()));
        }
        let path = base.join(given);
        let nothing = || SourceError::Nothing { pattern: given.clone(), folder: base.into() };
        let mut files = if path.is_dir() {
            in_folder(&path)?
        } else if path.is_file() {
            vec![file(&path, path.parent().unwrap_or(base), None)?]
        } else if given.contains(['*', '?', '[', '{']) {
            matching(given, base)?
        } else {
            return Err(nothing());
        };
        files.sort_by(|a, b| a.name.cmp(&b.name));
        if files.is_empty() {
            return Err(nothing());
        }
        all.append(&mut files);
    }
    Ok(all)
}

/// A file, named by its way from `root`.
fn file(path: &Path, root: &Path, kind: Option<Kind>) -> Result<InputFile, SourceError> {
    let name = path.strip_prefix(root).unwrap_or(path);
    let name: Vec<_> = name.components().map(|part| part.as_os_str().to_string_lossy()).collect();
    let bytes = fs::metadata(path).map_err(SourceError::read(path))?.len();
    let name = name.join("/");
    Ok(InputFile { path: path.into(), kind: kind.unwrap_or_else(|| kind_of(&name)), name, bytes })
}

fn kind_of(name: &str) -> Kind {
    let name = name.to_lowercase();
    let ends = |endings: &[&str]| endings.iter().any(|ending| name.ends_with(ending));
    if ends(&[".jsonl", ".jsonl.gz", ".jsonl.zst", ".ndjson", ".ndjson.gz", ".ndjson.zst"]) {
        Kind::Lines
    } else if ends(&[".parquet"]) {
        Kind::Rows
    } else {
        Kind::Original
    }
}

fn in_folder(folder: &Path) -> Result<Vec<InputFile>, SourceError> {
    if folder.join(FILE_NAME).is_file() {
        return shards(folder);
    }
    for (stage, kind) in [("representations", Kind::Represented), ("documents", Kind::Collected)] {
        let stage = folder.join(stage);
        if stage.is_dir() && folder.join("index").is_dir() || stage.is_dir() && only_json(&stage)? {
            return walk(&stage, &stage, Some(kind), &|name| name.ends_with(".json"));
        }
    }
    walk(folder, folder, None, &|_| true)
}

/// Whether a folder of datasets holds JSON objects and nothing else, as kl3m-data's do.
fn only_json(stage: &Path) -> Result<bool, SourceError> {
    let files = walk(stage, stage, None, &|_| true)?;
    Ok(!files.is_empty() && files.iter().all(|f| f.name.ends_with(".json") && f.name.contains('/')))
}

/// The shards of a finished corpus that may be trained on.
fn shards(folder: &Path) -> Result<Vec<InputFile>, SourceError> {
    let path = folder.join(FILE_NAME);
    let wrong = |reason: String| SourceError::Corpus { path: folder.into(), reason };
    let json = fs::read(&path).map_err(SourceError::read(&path))?;
    let record = Provenance::from_json(&json).map_err(|e| wrong(e.to_string()))?;
    let kept = record.shards.iter().filter(|shard| !HELD_OUT.contains(&shard.part.as_str()));
    kept.map(|shard| {
        let relative = Path::new(&shard.path);
        if relative.components().any(|part| !matches!(part, std::path::Component::Normal(_))) {
            return Err(wrong(format!("its record names a shard outside it, {}", shard.path)));
        }
        file(&folder.join(relative), folder, Some(Kind::Rows))
    })
    .collect()
}

fn walk(
    folder: &Path,
    root: &Path,
    kind: Option<Kind>,
    wanted: &dyn Fn(&str) -> bool,
) -> Result<Vec<InputFile>, SourceError> {
    let mut files = Vec::new();
    let mut left: Vec<(PathBuf, usize)> = vec![(folder.into(), 0)];
    while let Some((folder, depth)) = left.pop() {
        for entry in fs::read_dir(&folder).map_err(SourceError::read(&folder))? {
            let entry = entry.map_err(SourceError::read(&folder))?;
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            if name.starts_with('.') {
                continue;
            }
            let linked = entry.file_type().map_err(SourceError::read(&path))?.is_symlink();
            if path.is_dir() {
                // A link to a folder could lead round in a circle.
                if !linked && depth < DEEPEST && !HELD_OUT.contains(&name.as_str()) {
                    left.push((path, depth + 1));
                }
            } else if path.is_file() && wanted(&name) {
                files.push(file(&path, root, kind)?);
            }
        }
    }
    Ok(files)
}

fn matching(pattern: &str, base: &Path) -> Result<Vec<InputFile>, SourceError> {
    let wrong =
        |e: globset::Error| SourceError::Pattern { pattern: pattern.into(), reason: e.kind().to_string() };
    // The folder before the first part with a sign in it; the pattern is of what is below.
    let parts: Vec<&str> = pattern.split('/').collect();
    let plain = parts.iter().take_while(|part| !part.contains(['*', '?', '[', '{'])).count();
    let (before, after) = parts.split_at(plain);
    let before = if plain == 1 && before == [""] { "/".to_owned() } else { before.join("/") };
    let folder = base.join(before);
    let glob = GlobBuilder::new(&after.join("/")).literal_separator(true).build().map_err(wrong)?;
    let matcher: GlobMatcher = glob.compile_matcher();
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    // What is named by a pattern is taken as named: held-out folders too, if the pattern spells them.
    let mut files = walk(&folder, &folder, None, &|_| true)?;
    for held in HELD_OUT.iter().filter(|held| after.contains(held)) {
        let inside = folder.join(held);
        if inside.is_dir() {
            files.extend(walk(&inside, &folder, None, &|_| true)?);
        }
    }
    files.retain(|file| matcher.is_match(&file.name));
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Paths;

    fn names(dir: &Path, path: &str) -> Vec<String> {
        let spec = SourceSpec { path: Paths::One(path.into()), ..SourceSpec::default() };
        find(&spec, dir)
            .map_or_else(|e| vec![format!("error: {e}")], |f| f.into_iter().map(|f| f.name).collect())
    }

    fn place(dir: &Path, names: &[&str]) {
        for name in names {
            fs::create_dir_all(dir.join(name).parent().unwrap()).unwrap();
            fs::write(dir.join(name), "x").unwrap();
        }
    }

    #[test]
    fn folders_files_and_patterns_are_found_by_name_without_the_held_out() {
        let dir = tempfile::tempdir().unwrap();
        place(
            dir.path(),
            &["b.jsonl", "a.jsonl.zst", "law/x.xml", "law/old/y.txt", "validation/v.jsonl", ".hidden/h.txt"],
        );
        let found = |path: &str| names(dir.path(), path);
        assert_eq!(found("."), ["a.jsonl.zst", "b.jsonl", "law/old/y.txt", "law/x.xml"]);
        assert_eq!(found("*.jsonl*"), ["a.jsonl.zst", "b.jsonl"]);
        assert_eq!(found("law/**/*.txt"), ["old/y.txt"]);
        assert_eq!(found("law/x.xml"), ["x.xml"]);
        assert_eq!(found("validation"), ["v.jsonl"]);
        assert_eq!(found("validation/*.jsonl"), ["v.jsonl"]);
        let absolute = format!("{}/law/*.xml", dir.path().display());
        assert_eq!(names(Path::new("/"), &absolute), ["x.xml"]);
        for nothing in ["gone", "*.pdf", "gone/*"] {
            assert!(found(nothing)[0].contains("finds no file"), "{nothing}");
        }
        assert!(found("[a")[0].contains("no pattern"));
        assert!(found("s3://bucket/x")[0].contains("buckets"));
    }

    #[test]
    fn the_layout_of_kl3m_data_is_known_by_its_stages() {
        let dir = tempfile::tempdir().unwrap();
        place(dir.path(), &["documents/usc/1.json", "documents/usc/2/3.json"]);
        assert_eq!(names(dir.path(), "."), ["usc/1.json", "usc/2/3.json"]);
        place(dir.path(), &["representations/usc/9.json"]);
        assert_eq!(names(dir.path(), "."), ["usc/9.json"], "what is parsed comes first");
        let other = tempfile::tempdir().unwrap();
        place(other.path(), &["documents/a.xml"]);
        assert_eq!(names(other.path(), "."), ["documents/a.xml"], "a folder of that name is not the layout");
    }
}
