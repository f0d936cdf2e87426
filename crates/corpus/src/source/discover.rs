//! Which files a source's paths stand for.

use super::{InputFile, Kind, Means, SourceError, SourceSpec};
use crate::kl3m_data::records::Index;
use blackletter_provenance::{FILE_NAME, Provenance};
use globset::{GlobBuilder, GlobMatcher};
use std::{
    collections::{HashMap, HashSet},
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
};

/// Folders of documents that must not be trained on; they are entered only when they are named themselves.
pub(super) const HELD_OUT: [&str; 3] = ["heldout", "held_out", "validation"];
/// How files of held-out documents begin in an export for the Hub.
const HELD_OUT_FILE: &str = "heldout-";
/// Folders below a folder, at most.
const DEEPEST: usize = 64;

/// The files of a source, in the order of its paths, by name within each.
///
/// A path is a file; a folder, of which all files at any depth are taken but for hidden ones and folders named `heldout`,
/// `held_out` or `validation`; a finished corpus, of which all shards but held-out ones are taken; a folder in kl3m-data's
/// layout, of which the parsed stage is taken, or the collected one where there is none, or that of token ids where there is no
/// other; or a pattern with `*`, `?`, `[…]`, `{…}` and `**`. Of token ids, files named `heldout-….parquet` are taken only where
/// a path's last part spells `heldout-`. Relative paths start at `base`. An address in a bucket stands for the same in it, where
/// `means` reach one.
///
/// # Errors
/// When a path finds nothing or cannot be read.
pub fn find(spec: &SourceSpec, base: &Path, means: Means<'_>) -> Result<Vec<InputFile>, SourceError> {
    let mut all = Vec::new();
    for given in spec.path.all() {
        let path = base.join(given);
        let nothing = || SourceError::Nothing { pattern: given.clone(), folder: base.into() };
        let mut files = if given.contains("://") {
            let buckets = means.buckets.ok_or_else(|| SourceError::Bucket(given.clone()))?;
            if !given.starts_with("s3://") {
                return Err(SourceError::Address(given.clone()));
            }
            buckets.find(given, spec)?
        } else if path.is_dir() {
            in_folder(&path, spec)?
        } else if path.is_file() {
            vec![file(&path, path.parent().unwrap_or(base), None)?]
        } else if given.contains(['*', '?', '[', '{']) {
            matching(given, base)?
        } else {
            return Err(nothing());
        };
        let spelled = if path.is_dir() { "" } else { given };
        files.retain(|file| is_read(&file.name, spec, spelled));
        files.sort_by(|a, b| a.name.cmp(&b.name));
        if files.is_empty() {
            return Err(nothing());
        }
        all.append(&mut files);
    }
    Ok(all)
}

/// Whether nothing in a name is hidden or of a folder of held-out documents.
pub(super) fn is_open(name: &str) -> bool {
    let (folders, file) = name.rsplit_once('/').unwrap_or(("", name));
    !file.starts_with('.')
        && folders.split('/').all(|part| !part.starts_with('.') && !HELD_OUT.contains(&part))
        && folders.split('/').count() <= DEEPEST
}

/// Whether a file that a source stands for is read. Held-out documents of an export for the Hub, which is of token ids, have files
/// and not a folder of their own; these are read only where the last part of `spelled`, a pattern or a file, spells their name.
pub(super) fn is_read(name: &str, spec: &SourceSpec, spelled: &str) -> bool {
    let (name, spelled) = (last_part(name), last_part(spelled));
    spec.tokenizer.is_none()
        || !(name.starts_with(HELD_OUT_FILE) && name.ends_with(".parquet"))
        || spelled.contains(HELD_OUT_FILE)
}

fn last_part(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// Names of files that several sources have, which ids of documents follow from, are made different: the first keeps its name, the
/// others take in as many folders above them as it needs.
pub fn set_apart<'s>(sources: impl Iterator<Item = (&'s SourceSpec, &'s mut Vec<InputFile>)>) {
    let mut taken: HashMap<(Option<&str>, String), PathBuf> = HashMap::new();
    for (spec, files) in sources {
        let dataset = spec.dataset.as_deref();
        // Objects of a stage have names of their own, in them.
        for file in files.iter_mut().filter(|f| matches!(f.kind, Kind::Lines | Kind::Rows | Kind::Original)) {
            let parts: Vec<_> =
                file.path.components().map(|part| part.as_os_str().to_string_lossy().into_owned()).collect();
            let mut length = file.name.split('/').count();
            // A file that is named twice stays one.
            while taken.get(&(dataset, file.name.clone())).is_some_and(|path| *path != file.path)
                && length < parts.len()
            {
                length += 1;
                file.name = parts[parts.len() - length..].join("/");
            }
            taken.entry((dataset, file.name.clone())).or_insert_with(|| file.path.clone());
        }
    }
}

/// A file, named by its way from `root`.
fn file(path: &Path, root: &Path, kind: Option<Kind>) -> Result<InputFile, SourceError> {
    let name = path.strip_prefix(root).unwrap_or(path);
    let name: Vec<_> = name.components().map(|part| part.as_os_str().to_string_lossy()).collect();
    let bytes = fs::metadata(path).map_err(SourceError::read(path))?.len();
    let name = name.join("/");
    Ok(InputFile { path: path.into(), kind: kind.unwrap_or_else(|| kind_of(&name)), name, bytes })
}

pub(super) fn kind_of(name: &str) -> Kind {
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

fn in_folder(folder: &Path, spec: &SourceSpec) -> Result<Vec<InputFile>, SourceError> {
    if folder.join(FILE_NAME).is_file() {
        return shards(folder);
    }
    let index = folder.join("index");
    for (stage, kind) in [("representations", Kind::Represented), ("documents", Kind::Collected)] {
        let stage = folder.join(stage);
        if stage.is_dir() && index.is_dir() || stage.is_dir() && only_json(&stage)? {
            let mut files = walk(&stage, &stage, Some(kind), &|name| name.ends_with(".json"))?;
            if kind == Kind::Represented && index.is_dir() {
                files.extend(missing(&index, folder, &files)?);
            }
            return Ok(files);
        }
    }
    // A stage of token ids: below the layout's folder, or named itself.
    let below = folder.join("parquet");
    let stage = if folder.ends_with("parquet") { folder } else { &below };
    if stage.is_dir() && only_tokens(stage)? {
        return match spec.tokenizer {
            Some(_) => walk(stage, stage, Some(Kind::Tokens), &|_| true),
            None => Err(SourceError::NoTokenizer(stage.into())),
        };
    }
    walk(folder, folder, None, &|_| true)
}

/// Objects of the parsed stage that the indexes name and that are not among `files`.
fn missing(index: &Path, folder: &Path, files: &[InputFile]) -> Result<Vec<InputFile>, SourceError> {
    let there: HashSet<&str> = files.iter().map(|file| file.name.as_str()).collect();
    let mut gone = Vec::new();
    for InputFile { path, .. } in walk(index, index, None, &|name| name.ends_with(".json.gz"))? {
        let read = Index::from_bytes(&fs::read(&path).map_err(SourceError::read(&path))?);
        let read = read.map_err(|reason| SourceError::Index { path, reason })?;
        for key in read.objects {
            let Some(name) = key.strip_prefix("representations/") else { continue };
            if !there.contains(name) && is_open(name) {
                let (path, name) = (folder.join(&key), name.to_owned());
                gone.push(InputFile { path, name, kind: Kind::Missing, bytes: 0 });
            }
        }
    }
    gone.sort_by(|a, b| a.name.cmp(&b.name));
    gone.dedup_by(|a, b| a.name == b.name);
    Ok(gone)
}

/// Whether a folder of datasets holds objects of token ids, as the first of them says: names without an ending, zlib.
fn only_tokens(stage: &Path) -> Result<bool, SourceError> {
    let files = walk(stage, stage, None, &|_| true)?;
    if files.is_empty() || files.iter().any(|file| !file.name.contains('/') || file.kind != Kind::Original) {
        return Ok(false);
    }
    let mut first = Vec::new();
    let read = File::open(&files[0].path).and_then(|file| file.take(2).read_to_end(&mut first));
    read.map_err(SourceError::read(&files[0].path))?;
    Ok(matches!(*first, [0x78, flags] if (0x7800 | u16::from(flags)).is_multiple_of(31)))
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
        find(&spec, dir, Means::default())
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
        assert!(found("s3://bucket/x")[0].contains("corpus fetch"));
    }

    #[test]
    fn held_out_files_of_token_ids_are_found_only_where_they_are_spelled() {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["x/data", "z", "heldout-2026"] {
            place(
                dir.path(),
                &[&format!("{folder}/heldout-00000.parquet"), &format!("{folder}/train-00000.parquet")],
            );
        }
        let found = |path: &str, tokenizer: Option<&str>| {
            let tokenizer = tokenizer.map(str::to_owned);
            let spec = SourceSpec { path: Paths::One(path.into()), tokenizer, ..SourceSpec::default() };
            let files = find(&spec, dir.path(), Means::default()).unwrap();
            let names: Vec<_> = files.iter().map(|file| last_part(&file.name).to_owned()).collect();
            names
        };
        let (held, train) = ("heldout-00000.parquet", "train-00000.parquet");
        for path in ["x", "x/data", "x/data/*.parquet", "x/*/*.parquet", "x/**", "z", "z/*", "heldout-2026"] {
            assert_eq!(found(path, Some("t")), [train], "{path}");
            assert_eq!(found(path, None), [held, train], "texts have no such files: {path}");
        }
        for path in ["x/data/heldout-00000.parquet", "z/heldout-*.parquet"] {
            assert_eq!(found(path, Some("t")), [held], "{path}");
        }
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
