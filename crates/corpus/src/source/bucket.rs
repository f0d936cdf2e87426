//! Sources in a bucket. Their objects are copied beside the output before they are read, each under a name that follows from its
//! address, size and version: a run that was stopped goes on, the next one reads only what is new, and files of any kind are
//! read by the same code.

use super::{InputFile, Kind, SourceError, SourceSpec, discover};
use crate::kl3m_data::{Entry, Kl3mDataError, Store, StoreOptions, transfer::Transfer};
use globset::GlobBuilder;
use rayon::prelude::*;
use std::{
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

/// How buckets are read.
#[derive(Clone)]
pub struct Buckets<'b> {
    /// Where the objects are kept.
    pub cache: PathBuf,
    /// How to reach them.
    pub options: StoreOptions,
    /// Hears of the copying, and may stop it.
    pub transfer: Transfer<'b>,
}

impl Buckets<'_> {
    /// The folder that the objects for a corpus in `out` are kept in: `OUT.fetched`, beside it.
    ///
    /// # Errors
    /// When `out` has no name and its path cannot be found out.
    pub fn beside(out: &Path) -> std::io::Result<PathBuf> {
        let named = |path: &Path| path.file_name().map(|name| name.to_os_string());
        let (mut name, path) = match named(out) {
            Some(name) => (name, out.to_owned()),
            None => {
                let whole = out.canonicalize()?;
                (named(&whole).unwrap_or_default(), whole)
            }
        };
        name.push(".fetched");
        Ok(path.with_file_name(name))
    }

    /// Copies what `given` stands for and the cache lacks: `s3://bucket`, a prefix, one object, or a pattern.
    pub(super) fn find(&self, given: &str, spec: &SourceSpec) -> Result<Vec<InputFile>, SourceError> {
        let (address, pattern) = cut(given);
        let store = Store::open(&address, &self.options)?;
        let mut entries = store.entries("")?;
        if entries.is_empty() && pattern.is_none() {
            // Not a prefix, perhaps an object.
            let (above, name) = address.rsplit_once('/').unwrap_or((&address, ""));
            let place = Store::open(above, &self.options);
            let entry = place.and_then(|store| Ok((store.entry(name)?, store)));
            return match entry {
                Ok((entry, store)) => self.copy(&store, vec![(entry, discover::kind_of(name))]),
                Err(
                    Kl3mDataError::Missing { .. }
                    | Kl3mDataError::Key { .. }
                    | Kl3mDataError::Location { .. },
                ) => Ok(Vec::new()),
                Err(e) => Err(e.into()),
            };
        }
        entries.sort_by(|a, b| a.key.cmp(&b.key));
        let mut wanted = match &pattern {
            None => of_layout(entries, spec, given)?,
            Some(pattern) => {
                let glob = GlobBuilder::new(pattern).literal_separator(true).build();
                let reason = |e: globset::Error| e.kind().to_string();
                let glob =
                    glob.map_err(|e| SourceError::Pattern { pattern: given.into(), reason: reason(e) })?;
                let matcher = glob.compile_matcher();
                // Held-out folders only where the pattern spells them; hidden names never.
                let spelled = pattern.split('/').any(|part| discover::HELD_OUT.contains(&part));
                let open = |key: &str| {
                    discover::is_open(key) || spelled && !key.split('/').any(|part| part.starts_with('.'))
                };
                let all =
                    entries.into_iter().filter(|entry| matcher.is_match(&entry.key) && open(&entry.key));
                all.map(|entry| (discover::kind_of(&entry.key), entry))
                    .map(|(kind, entry)| (entry, kind))
                    .collect()
            }
        };
        // What is not read is not copied either.
        wanted
            .retain(|(entry, _)| discover::is_read(&entry.key, spec, pattern.as_deref().unwrap_or_default()));
        self.copy(&store, wanted)
    }

    fn copy(&self, store: &Store, wanted: Vec<(Entry, Kind)>) -> Result<Vec<InputFile>, SourceError> {
        let (done, all) = (AtomicU64::new(0), wanted.len() as u64);
        let address = store.location().split_once("://").map_or(store.location(), |(_, address)| address);
        let one = |(entry, kind): (Entry, Kind)| -> Result<InputFile, SourceError> {
            if (self.transfer.stop)() {
                return Err(SourceError::Stopped);
            }
            let mut hasher = blake3::Hasher::new();
            for part in [store.location(), &entry.key, &entry.version] {
                hasher.update(part.as_bytes()).update(&[0]);
            }
            hasher.update(&entry.bytes.to_le_bytes());
            let folder = self.cache.join(&hasher.finalize().to_hex()[..32]);
            let path = folder.join(address.trim_matches('/')).join(&entry.key);
            if fs::metadata(&path).is_err() {
                let copied = store.copy(&entry.key, &path)?;
                if copied != entry.bytes {
                    let _ = fs::remove_dir_all(&folder);
                    return Err(SourceError::Changed { location: store.location().into(), key: entry.key });
                }
            }
            (self.transfer.progress)(done.fetch_add(1, Ordering::Relaxed) + 1, Some(all));
            // Stages are folders of datasets: their names begin there.
            let name = match kind {
                Kind::Collected | Kind::Represented | Kind::Tokens => {
                    entry.key.split_once('/').map_or(entry.key.clone(), |(_, name)| name.to_owned())
                }
                _ => entry.key,
            };
            Ok(InputFile { path, name, kind, bytes: entry.bytes })
        };
        wanted.into_par_iter().map(one).collect()
    }

    /// Removes what none of `used` is.
    ///
    /// # Errors
    /// When the cache cannot be read.
    pub fn sweep<'f>(&self, used: impl Iterator<Item = &'f InputFile>) -> Result<(), SourceError> {
        let folder = |file: &InputFile| {
            let inside = file.path.strip_prefix(&self.cache).ok()?;
            Some(inside.components().next()?.as_os_str().to_owned())
        };
        let used: HashSet<_> = used.filter_map(folder).collect();
        let entries = match fs::read_dir(&self.cache) {
            Ok(entries) => entries,
            Err(_) => return Ok(()),
        };
        for entry in entries {
            let entry = entry.map_err(SourceError::read(&self.cache))?;
            let name = entry.file_name();
            let own = name.len() == 32 && name.to_string_lossy().bytes().all(|byte| byte.is_ascii_hexdigit());
            if own && !used.contains(&name) {
                fs::remove_dir_all(entry.path()).map_err(SourceError::read(&entry.path()))?;
            }
        }
        Ok(())
    }
}

/// An address before the first part with a pattern's sign in it, and the pattern.
fn cut(given: &str) -> (String, Option<String>) {
    let parts: Vec<&str> = given.trim_end_matches('/').split('/').collect();
    let plain = parts.iter().take_while(|part| !part.contains(['*', '?', '[', '{'])).count();
    let (before, after) = parts.split_at(plain);
    (before.join("/"), (!after.is_empty()).then(|| after.join("/")))
}

/// Which objects are read, and how: those of a corpus, of a stage of kl3m-data's layout, or all.
fn of_layout(entries: Vec<Entry>, spec: &SourceSpec, given: &str) -> Result<Vec<(Entry, Kind)>, SourceError> {
    let entries: Vec<Entry> = entries.into_iter().filter(|entry| discover::is_open(&entry.key)).collect();
    let has = |stage: &str| entries.iter().any(|entry| entry.key.starts_with(stage));
    // A folder of that name is not the layout.
    let only_json = |stage: &str| {
        let mut all = entries.iter().filter_map(|entry| entry.key.strip_prefix(stage));
        all.all(|name| name.ends_with(".json") && name.contains('/'))
    };
    let stage = |stage: &str, kind: Kind, ending: &str, entries: &[Entry]| {
        let all = entries.iter().filter(|entry| entry.key.starts_with(stage) && entry.key.ends_with(ending));
        all.map(|entry| (entry.clone(), kind)).collect::<Vec<_>>()
    };
    for (name, kind) in [("representations/", Kind::Represented), ("documents/", Kind::Collected)] {
        if has(name) && (has("index/") || only_json(name)) {
            return Ok(stage(name, kind, ".json", &entries));
        }
    }
    let mut tokens = entries.iter().filter(|entry| !entry.key.starts_with("index/"));
    let unnamed = |entry: &Entry| {
        let name = entry.key.strip_prefix("parquet/").filter(|name| name.contains('/'));
        name.is_some_and(|name| discover::kind_of(name) == Kind::Original)
    };
    if has("parquet/") && tokens.all(unnamed) {
        return match spec.tokenizer {
            Some(_) => Ok(stage("parquet/", Kind::Tokens, "", &entries)),
            None => Err(SourceError::NoTokenizer(given.into())),
        };
    }
    if entries.iter().any(|entry| entry.key == blackletter_provenance::FILE_NAME) {
        return Ok(stage("", Kind::Rows, ".parquet", &entries));
    }
    Ok(entries.into_iter().map(|entry| (discover::kind_of(&entry.key), entry)).map(|(k, e)| (e, k)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SILENT: Transfer<'_> = Transfer { progress: &|_, _| (), stop: &|| false };

    fn buckets(cache: PathBuf) -> Buckets<'static> {
        Buckets { cache, options: StoreOptions::default(), transfer: SILENT }
    }

    #[test]
    fn patterns_begin_at_the_first_part_with_a_sign() {
        assert_eq!(cut("s3://bucket/a/b/"), ("s3://bucket/a/b".into(), None));
        assert_eq!(cut("s3://bucket/a/*/c.json"), ("s3://bucket/a".into(), Some("*/c.json".into())));
        assert_eq!(cut("s3://bucket/*"), ("s3://bucket".into(), Some("*".into())));
    }

    /// A folder is a store as a bucket is one.
    #[test]
    fn objects_are_copied_once_and_again_when_they_change() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().join("bucket");
        for (name, text) in [("a/1.xml", "one"), ("b/1.xml", "two"), (".x/y", "no"), ("heldout/h.txt", "no")]
        {
            fs::create_dir_all(at.join(name).parent().unwrap()).unwrap();
            fs::write(at.join(name), text).unwrap();
        }
        let given = at.to_str().unwrap();
        let cache = dir.path().join("out.fetched");
        let buckets = buckets(cache.clone());
        let find = |given: &str| buckets.find(given, &SourceSpec::default()).unwrap();
        let texts = |files: &[InputFile]| {
            let one = |file: &InputFile| (file.name.clone(), fs::read_to_string(&file.path).unwrap());
            files.iter().map(one).collect::<Vec<_>>()
        };
        let pair = |name: &str, text: &str| (name.to_owned(), text.to_owned());
        let first = find(given);
        assert_eq!(texts(&first), [pair("a/1.xml", "one"), pair("b/1.xml", "two")]);
        assert_eq!(texts(&find(&format!("{given}/a/*.xml"))), [pair("1.xml", "one")]);
        assert_eq!(texts(&find(&format!("{given}/b/1.xml"))), [pair("1.xml", "two")]);
        assert_eq!(find(&format!("{given}/none")), []);
        // What is there is not read again, what was changed is.
        fs::write(&first[0].path, "ONE").unwrap();
        fs::write(at.join("b/1.xml"), "other").unwrap();
        let second = find(given);
        assert_eq!(texts(&second), [pair("a/1.xml", "ONE"), pair("b/1.xml", "other")]);
        assert!(first[1].path.exists());
        buckets.sweep(second.iter()).unwrap();
        assert!(!first[1].path.exists() && second[1].path.exists());
    }

    #[test]
    fn held_out_files_of_token_ids_are_copied_only_where_they_are_spelled() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().join("bucket");
        for name in ["data/heldout-00000.parquet", "data/train-00000.parquet"] {
            fs::create_dir_all(at.join("data")).unwrap();
            fs::write(at.join(name), name).unwrap();
        }
        let given = at.to_str().unwrap();
        let found = |below: &str, tokenizer: Option<&str>| {
            let cache = tempfile::tempdir().unwrap();
            let spec = SourceSpec { tokenizer: tokenizer.map(str::to_owned), ..SourceSpec::default() };
            let files = buckets(cache.path().into()).find(&format!("{given}{below}"), &spec).unwrap();
            assert_eq!(fs::read_dir(cache.path()).map_or(0, Iterator::count), files.len());
            let name = |file: InputFile| file.name.rsplit('/').next().unwrap().to_owned();
            files.into_iter().map(name).collect::<Vec<_>>()
        };
        let (held, train) = ("heldout-00000.parquet", "train-00000.parquet");
        for below in ["", "/data", "/data/*.parquet", "/*/*.parquet", "/**"] {
            assert_eq!(found(below, Some("t")), [train], "{below}");
            assert_eq!(found(below, None), [held, train], "{below}");
        }
        for below in ["/data/heldout-*", "/data/heldout-00000.parquet"] {
            assert_eq!(found(below, Some("t")), [held], "{below}");
        }
    }

    #[test]
    fn layouts_are_told_by_their_keys() {
        let of = |keys: &[&str], tokenizer: Option<&str>| {
            let entry = |key: &&str| Entry { key: (*key).into(), bytes: 1, version: "1".into() };
            let spec = SourceSpec { tokenizer: tokenizer.map(str::to_owned), ..SourceSpec::default() };
            let found = of_layout(keys.iter().map(entry).collect(), &spec, "s3://b");
            found.map(|all| all.into_iter().map(|(entry, kind)| (entry.key, kind)).collect::<Vec<_>>())
        };
        let all =
            ["documents/usc/1.json", "index/usc.json.gz", "parquet/usc/1", "representations/usc/1.json"];
        assert_eq!(of(&all, None).unwrap(), [("representations/usc/1.json".into(), Kind::Represented)]);
        assert_eq!(of(&all[..1], None).unwrap(), [("documents/usc/1.json".into(), Kind::Collected)]);
        assert!(matches!(of(&all[1..3], None), Err(SourceError::NoTokenizer(_))));
        let rows = ["parquet/usc/1.parquet"];
        assert_eq!(of(&rows, None).unwrap(), [(rows[0].into(), Kind::Rows)]);
        assert_eq!(of(&all[2..3], Some("t")).unwrap(), [("parquet/usc/1".into(), Kind::Tokens)]);
        let corpus = ["heldout/00000.parquet", "provenance.json", "train/00000.parquet"];
        assert_eq!(of(&corpus, None).unwrap(), [("train/00000.parquet".into(), Kind::Rows)]);
        assert_eq!(of(&["documents/a.xml"], None).unwrap(), [("documents/a.xml".into(), Kind::Original)]);
    }
}
