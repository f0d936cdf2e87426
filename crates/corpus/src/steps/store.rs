//! Finished work by what it was made from.
//!
//! A task's key is a hash of its step, the version of the step's code, its settings and the hashes of what it reads. Its
//! result, a folder under that key, appears whole and on disk or not at all: a run that is killed loses the tasks that were
//! under way and nothing else, and a later run does again only what has another key.

use crate::{
    report::Counts,
    shards::{Effort, ShardError, ShardWriter, Written, sync_folder, write_whole},
};
use blackletter_provenance::hash;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{
    collections::BTreeSet,
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// The store's folder in that of a corpus.
const FOLDER: &str = ".steps";
/// How long another run's lock is waited for.
const PATIENCE: Duration = Duration::from_secs(3);
const RESULT: &str = "result.json";
/// Part of the name of what is not finished.
pub(crate) const WRITING: &str = ".writing-";
/// Version of the form of results; another form has other keys.
const VERSION: u32 = 2;

/// A step cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// A file of documents cannot be read or written.
    #[error(transparent)]
    Shard(#[from] ShardError),
    /// Rows are not documents.
    #[error(transparent)]
    Document(#[from] crate::document::DocumentError),
    /// A source cannot be read.
    #[error(transparent)]
    Source(#[from] crate::source::SourceError),
    /// Duplicates cannot be found.
    #[error(transparent)]
    Dedup(#[from] crate::dedup::DedupError),
    /// A result cannot be written down.
    #[error("cannot write a result down: {0}")]
    Result(#[from] serde_json::Error),
    /// Another run is at work in the folder.
    #[error("another run is at work in {0}; wait for it, or write elsewhere")]
    Busy(PathBuf),
    /// The run was asked to stop.
    #[error("stopped; what was finished is kept, and the same command goes on from there")]
    Stopped,
}

/// Work that is done, by key.
pub struct Store {
    folder: PathBuf,
    used: Mutex<BTreeSet<String>>,
    _lock: File,
}

/// A file of documents that a task made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// The file; in a stored result, its name in the task's folder.
    pub path: PathBuf,
    /// What its documents are for: `train` or `heldout` after splitting, empty before.
    pub label: String,
    /// BLAKE3 of the file, in hexadecimal.
    pub blake3: String,
    /// Documents.
    pub documents: u64,
    /// Bytes of text.
    pub text_bytes: u64,
    /// Bytes of the file.
    pub bytes: u64,
}

/// What a task made.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Done {
    /// Files of documents, in order. None is empty.
    pub parts: Vec<Part>,
    /// Counts.
    pub counts: Counts,
    /// Whatever else the task found out.
    #[serde(default)]
    pub value: Value,
    /// Whether it had been done before.
    #[serde(skip)]
    pub again: bool,
}

/// A task at work.
pub struct Work {
    folder: TempDir,
    parts: Vec<Part>,
}

impl Work {
    /// Begins a file of documents.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn writer(&self) -> Result<ShardWriter, ShardError> {
        static COUNT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        let unique = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        ShardWriter::create(&self.folder.path().join(format!("{unique}.unnamed")), Effort::Fast)
    }

    /// Ends a file; an empty one is not kept.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn add(&mut self, writer: ShardWriter, label: &str) -> Result<(), ShardError> {
        let path = writer.path().to_owned();
        let Written { documents, text_bytes, file } = writer.finish()?;
        // Not `.parquet`: whoever collects the shards of a folder shall not find documents twice.
        let name = format!("{:05}.part", self.parts.len());
        let named = self.folder.path().join(&name);
        if documents == 0 {
            return fs::remove_file(&path).map_err(ShardError::file("remove", &path));
        }
        fs::rename(&path, &named).map_err(ShardError::file("write", &named))?;
        let path = name.into();
        self.parts.push(Part {
            path,
            label: label.into(),
            blake3: file.blake3,
            documents,
            text_bytes,
            bytes: file.bytes,
        });
        Ok(())
    }

    /// A place for files that are gone when the task ends.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn scratch(&self) -> Result<TempDir, ShardError> {
        tempfile::tempdir_in(self.folder.path()).map_err(ShardError::file("write in", self.folder.path()))
    }
}

/// What makes a task's result what it is.
pub struct Key<'k> {
    /// The step.
    pub step: &'k str,
    /// Version of the step's code: raised when its results change.
    pub version: u32,
    /// Its settings.
    pub settings: &'k Value,
    /// Hashes and names of what it reads.
    pub inputs: &'k [&'k str],
}

impl Key<'_> {
    fn name(&self) -> String {
        let all = serde_json::json!([VERSION, self.step, self.version, self.settings, self.inputs]);
        format!("{}-{}", self.step, hash::hex(all.to_string().as_bytes()).split_at(32).0)
    }
}

impl Store {
    /// Opens the store of the corpus in `out`, for this run alone, and clears away what a killed run left.
    ///
    /// # Errors
    /// When the folder cannot be made, or another run has it.
    pub fn open(out: &Path) -> Result<Self, StepError> {
        let folder = out.join(FOLDER);
        fs::create_dir_all(&folder).map_err(ShardError::file("make", &folder))?;
        let path = folder.join("lock");
        let lock = File::options().create(true).truncate(false).write(true).open(&path);
        let lock = lock.map_err(ShardError::file("write", &path))?;
        let started = Instant::now();
        loop {
            match lock.try_lock() {
                Ok(()) => break,
                // A run that was just killed holds its lock until the system has put its memory away.
                Err(TryLockError::WouldBlock) if started.elapsed() < PATIENCE => {
                    thread::sleep(PATIENCE / 100)
                }
                Err(TryLockError::WouldBlock) => return Err(StepError::Busy(out.into())),
                Err(TryLockError::Error(e)) => return Err(ShardError::file("lock", &path)(e).into()),
            }
        }
        clear(&folder, |name| name.starts_with(WRITING))?;
        Ok(Self { folder, used: Mutex::default(), _lock: lock })
    }

    /// The result of a task: the one that is there, or that of `work`.
    ///
    /// # Errors
    /// When the work fails, or its result cannot be written.
    pub fn task(
        &self,
        key: &Key<'_>,
        work: impl FnOnce(&mut Work) -> Result<(Counts, Value), StepError>,
    ) -> Result<Done, StepError> {
        let name = key.name();
        let folder = self.folder.join(&name);
        if let Ok(mut used) = self.used.lock() {
            used.insert(name);
        }
        if let Some(done) = read(&folder) {
            return Ok(done);
        }
        let temporary = tempfile::Builder::new().prefix(WRITING).tempdir_in(&self.folder);
        let temporary = temporary.map_err(ShardError::file("write in", &self.folder))?;
        let mut at_work = Work { folder: temporary, parts: Vec::new() };
        let (counts, value) = work(&mut at_work)?;
        let Work { folder: temporary, parts } = at_work;
        let mut done = Done { parts, counts, value, again: false };
        write_whole(&temporary.path().join(RESULT), &serde_json::to_vec(&done)?)?;
        sync_folder(temporary.path())?;
        if folder.exists() {
            // The same work, done beside this by another thread.
            if let Some(done) = read(&folder) {
                return Ok(done);
            }
            // A result that could not be read.
            fs::remove_dir_all(&folder).map_err(ShardError::file("remove", &folder))?;
        }
        if let Err(e) = fs::rename(temporary.path(), &folder) {
            // Another thread may have put the same there just now.
            return read(&folder).ok_or_else(|| ShardError::file("write", &folder)(e).into());
        }
        let _ = temporary.keep();
        sync_folder(&self.folder)?;
        done.place(&folder);
        Ok(done)
    }

    /// Removes the results that this run has not used.
    ///
    /// # Errors
    /// When one cannot be removed.
    pub fn sweep(&self) -> Result<(), StepError> {
        let Ok(used) = self.used.lock() else { return Ok(()) };
        clear(&self.folder, |name| name != "lock" && !used.contains(name))?;
        Ok(())
    }
}

impl Done {
    fn place(&mut self, folder: &Path) {
        for part in &mut self.parts {
            part.path = folder.join(&part.path);
        }
    }
}

/// A stored result; none where a file of it is not there in its size.
fn read(folder: &Path) -> Option<Done> {
    let mut done: Done = serde_json::from_slice(&fs::read(folder.join(RESULT)).ok()?).ok()?;
    let own = |part: &Part| part.path.file_name().is_some_and(|name| name == part.path.as_os_str());
    if !done.parts.iter().all(own) {
        return None;
    }
    done.place(folder);
    done.again = true;
    let whole = |part: &Part| fs::metadata(&part.path).is_ok_and(|m| m.len() == part.bytes);
    done.parts.iter().all(whole).then_some(done)
}

/// Removes what is in a folder under names that `which` picks.
pub(crate) fn clear(folder: &Path, which: impl Fn(&str) -> bool) -> Result<(), ShardError> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(ShardError::file("read", folder)(e)),
    };
    for entry in entries {
        let path = entry.map_err(ShardError::file("read", folder))?.path();
        if path.file_name().is_some_and(|name| which(&name.to_string_lossy())) {
            let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            removed.map_err(ShardError::file("remove", &path))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::{Document, to_batch};
    use serde_json::json;

    fn key<'k>(settings: &'k Value, inputs: &'k [&'k str]) -> Key<'k> {
        Key { step: "test", version: 1, settings, inputs }
    }

    fn write(work: &mut Work, id: &str) -> Result<(Counts, Value), StepError> {
        let mut writer = work.writer()?;
        writer.write(&to_batch(&[Document { id: id.into(), ..Document::default() }]).unwrap())?;
        work.add(writer, "")?;
        let empty = work.writer()?;
        work.add(empty, "")?;
        Ok((Counts::default(), json!(id)))
    }

    #[test]
    fn a_task_is_done_once_for_each_key_and_again_when_its_files_are_gone() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let never = |_: &mut Work| -> Result<(Counts, Value), StepError> { panic!("done again") };
        let settings = json!({ "a": 1 });
        let done = store.task(&key(&settings, &["x"]), |work| write(work, "one")).unwrap();
        assert_eq!((done.parts.len(), done.parts[0].documents, done.again), (1, 1, false));
        let again = store.task(&key(&settings, &["x"]), never).unwrap();
        assert_eq!((&again.parts, &again.value, again.again), (&done.parts, &json!("one"), true));
        let other = json!({ "a": 2 });
        for key in [key(&other, &["x"]), key(&settings, &["y"]), Key { version: 2, ..key(&settings, &["x"]) }]
        {
            assert!(!store.task(&key, |work| write(work, "two")).unwrap().again);
        }
        fs::write(&done.parts[0].path, "cut off").unwrap();
        let mended = store.task(&key(&settings, &["x"]), |work| write(work, "one")).unwrap();
        assert!(!mended.again && mended.parts == done.parts);
    }

    #[test]
    fn failed_and_killed_work_leaves_nothing_and_a_sweep_keeps_what_was_used() {
        let dir = tempfile::tempdir().unwrap();
        let count = || fs::read_dir(dir.path().join(FOLDER)).unwrap().count();
        {
            let store = Store::open(dir.path()).unwrap();
            let failed = store.task(&key(&json!(1), &[]), |work| {
                write(work, "half")?;
                Err(StepError::Stopped)
            });
            assert!(matches!(failed, Err(StepError::Stopped)));
            assert_eq!(count(), 1, "the lock alone");
            store.task(&key(&json!(1), &[]), |work| write(work, "one")).unwrap();
            store.task(&key(&json!(2), &[]), |work| write(work, "two")).unwrap();
            // As a killed run leaves it.
            fs::create_dir(dir.path().join(FOLDER).join(".writing-x")).unwrap();
        }
        let store = Store::open(dir.path()).unwrap();
        assert_eq!(count(), 3);
        assert!(store.task(&key(&json!(2), &[]), |work| write(work, "two")).unwrap().again);
        store.sweep().unwrap();
        assert_eq!(count(), 2);
    }

    #[test]
    fn a_store_has_one_user() {
        let dir = tempfile::tempdir().unwrap();
        let first = Store::open(dir.path()).unwrap();
        assert!(matches!(Store::open(dir.path()), Err(StepError::Busy(_))));
        drop(first);
        assert!(Store::open(dir.path()).is_ok());
    }

    #[test]
    fn a_run_that_is_just_ending_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let first = Store::open(dir.path()).unwrap();
        thread::scope(|scope| {
            scope.spawn(|| {
                thread::sleep(PATIENCE / 10);
                drop(first);
            });
            assert!(Store::open(dir.path()).is_ok());
        });
    }
}
