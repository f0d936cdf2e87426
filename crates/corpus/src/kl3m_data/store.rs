//! Where the objects are: a folder, or (feature `s3`) a bucket.

use super::Kl3mDataError;
use std::{
    fs,
    io::{self, Write},
    path::{Component, Path, PathBuf},
    time::Duration,
};

#[cfg(feature = "s3")]
#[path = "s3.rs"]
mod s3;

/// How to reach a bucket; a folder needs none of it. Credentials and region come from the environment, under the names
/// that AWS' own tools use; without credentials, requests go unsigned.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// Another server than Amazon's, `https://…` or, for a server of one's own, `http://…`.
    pub endpoint: Option<String>,
    /// Agree to pay for the transfer, as buckets such as kl3m-data's ask ("Requester Pays").
    pub requester_pays: bool,
    /// After how long in which nothing arrives a request is given up; while bytes come it may take any time.
    pub timeout: Duration,
    /// How often a request is tried again when the server fails or does not answer.
    pub retries: usize,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self { endpoint: None, requester_pays: false, timeout: Duration::from_secs(30), retries: 8 }
    }
}

/// A place with objects in it.
pub struct Store {
    location: String,
    place: Place,
}

enum Place {
    Folder(PathBuf),
    #[cfg(feature = "s3")]
    Bucket(s3::Bucket),
}

/// An object, as a listing tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its key.
    pub key: String,
    /// Its size.
    pub bytes: u64,
    /// Something that changes when the object does.
    pub version: String,
}

/// Why an access failed, before the store says where.
enum Failure {
    Missing,
    Other(String),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::NotFound { Self::Missing } else { Self::Other(error.to_string()) }
    }
}

impl Store {
    /// Opens a folder, or `s3://bucket` or `s3://bucket/prefix`. Nothing is read or made yet.
    ///
    /// # Errors
    /// When the address or the options cannot be followed.
    pub fn open(location: &str, options: &StoreOptions) -> Result<Self, Kl3mDataError> {
        let place = match location.strip_prefix("s3://") {
            None => Place::Folder(location.into()),
            Some(address) => bucket(location, address, options)?,
        };
        Ok(Self { location: location.into(), place })
    }

    /// The bytes of an object.
    ///
    /// # Errors
    /// [`Kl3mDataError::Missing`] when there is no such object; otherwise when it cannot be read.
    pub fn get(&self, key: &str) -> Result<Vec<u8>, Kl3mDataError> {
        check(key)?;
        let read = match &self.place {
            Place::Folder(folder) => fs::read(folder.join(key)).map_err(Failure::from),
            #[cfg(feature = "s3")]
            Place::Bucket(bucket) => bucket.get(key),
        };
        read.map_err(|e| self.failure("read", key, e))
    }

    /// Writes an object; it appears whole or not at all, and replaces one that was there.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn put(&self, key: &str, bytes: &[u8]) -> Result<(), Kl3mDataError> {
        check(key)?;
        let written = match &self.place {
            Place::Folder(folder) => {
                put_file(&folder.join(key), bytes).map_err(|e| Failure::Other(e.to_string()))
            }
            #[cfg(feature = "s3")]
            Place::Bucket(bucket) => bucket.put(key, bytes),
        };
        written.map_err(|e| self.failure("write", key, e))
    }

    /// The keys that begin with `prefix`, a whole number of folders ending in `/`, or empty; in order. A place without any
    /// has no keys.
    ///
    /// # Errors
    /// When the place cannot be listed.
    pub fn list(&self, prefix: &str) -> Result<Vec<String>, Kl3mDataError> {
        if !prefix.is_empty() {
            check(prefix.strip_suffix('/').unwrap_or(prefix))?;
        }
        let listed = match &self.place {
            Place::Folder(folder) => list_folder(folder, prefix).map_err(Failure::from),
            #[cfg(feature = "s3")]
            Place::Bucket(bucket) => bucket.list(prefix),
        };
        let mut keys = listed.map_err(|e| self.failure("list", prefix, e))?;
        keys.sort_unstable();
        Ok(keys)
    }

    /// The objects that [`Store::list`] names, in order.
    ///
    /// # Errors
    /// When the place cannot be listed.
    pub fn entries(&self, prefix: &str) -> Result<Vec<Entry>, Kl3mDataError> {
        match &self.place {
            Place::Folder(_) => self.list(prefix)?.iter().map(|key| self.entry(key)).collect(),
            #[cfg(feature = "s3")]
            Place::Bucket(bucket) => {
                let mut entries = bucket.entries(prefix).map_err(|e| self.failure("list", prefix, e))?;
                entries.sort_unstable_by(|a, b| a.key.cmp(&b.key));
                Ok(entries)
            }
        }
    }

    /// What is known of an object without reading it.
    ///
    /// # Errors
    /// [`Kl3mDataError::Missing`] when there is no such object; otherwise when the place cannot be reached.
    pub fn entry(&self, key: &str) -> Result<Entry, Kl3mDataError> {
        check(key)?;
        let found = match &self.place {
            Place::Folder(folder) => entry_of(folder, key).map_err(Failure::from),
            #[cfg(feature = "s3")]
            Place::Bucket(bucket) => bucket.entry(key),
        };
        found.map_err(|e| self.failure("read", key, e))
    }

    /// Copies an object, of any size, to a file, which appears whole or not at all. Gives the bytes copied.
    ///
    /// # Errors
    /// [`Kl3mDataError::Missing`] when there is no such object; otherwise when it cannot be read or the file not written.
    pub fn copy(&self, key: &str, to: &Path) -> Result<u64, Kl3mDataError> {
        check(key)?;
        let copied = match &self.place {
            Place::Folder(folder) => write_file(to, |file| {
                io::copy(&mut fs::File::open(folder.join(key))?, file).map_err(Failure::from)
            }),
            #[cfg(feature = "s3")]
            Place::Bucket(bucket) => write_file(to, |file| bucket.copy(key, file)),
        };
        copied.map_err(|e| self.failure("read", key, e))
    }

    /// The address that it was opened by.
    pub fn location(&self) -> &str {
        &self.location
    }

    fn failure(&self, action: &'static str, key: &str, failure: Failure) -> Kl3mDataError {
        let (location, key) = (self.location.clone(), key.to_string());
        match failure {
            Failure::Missing => Kl3mDataError::Missing { location, key },
            Failure::Other(reason) => Kl3mDataError::Access { action, location, key, reason },
        }
    }
}

#[cfg(feature = "s3")]
fn bucket(location: &str, address: &str, options: &StoreOptions) -> Result<Place, Kl3mDataError> {
    let wrong = |reason| Kl3mDataError::Location { location: location.into(), reason };
    s3::Bucket::open(address, options).map(Place::Bucket).map_err(wrong)
}

#[cfg(not(feature = "s3"))]
fn bucket(location: &str, _: &str, _: &StoreOptions) -> Result<Place, Kl3mDataError> {
    let reason = "this build reads folders only; build with `--features s3`".into();
    Err(Kl3mDataError::Location { location: location.into(), reason })
}

/// Keys come from indexes and documents, so they must not lead out of the store.
fn check(key: &str) -> Result<(), Kl3mDataError> {
    let wrong = |reason| Err(Kl3mDataError::Key { key: key.into(), reason });
    if key.is_empty() || key.contains('\0') {
        return wrong("it is empty or has a NUL in it");
    }
    if key.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return wrong("it has an empty part, `.` or `..` between slashes");
    }
    if Path::new(key).components().any(|part| !matches!(part, Component::Normal(_))) {
        return wrong("it is not a relative path");
    }
    Ok(())
}

fn put_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write_file(path, |file| file.write_all(bytes))
}

/// Writes a file by `write`, whole or not at all.
fn write_file<T, E: From<io::Error>>(
    path: &Path,
    write: impl FnOnce(&mut fs::File) -> Result<T, E>,
) -> Result<T, E> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    // Its name begins with a dot, so that a listing passes it over while it is half written.
    let mut file = tempfile::Builder::new().prefix(".writing-").tempfile_in(folder)?;
    let written = write(file.as_file_mut())?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // Temporary files are for their owner alone; objects are for all whom the folder lets in.
        file.as_file().set_permissions(fs::Permissions::from_mode(0o644))?;
    }
    file.as_file().sync_all()?;
    file.persist(path).map_err(|e| e.error)?;
    Ok(written)
}

fn entry_of(folder: &Path, key: &str) -> io::Result<Entry> {
    let metadata = fs::metadata(folder.join(key))?;
    let since = metadata.modified()?.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Ok(Entry { key: key.into(), bytes: metadata.len(), version: since.as_nanos().to_string() })
}

fn list_folder(folder: &Path, prefix: &str) -> io::Result<Vec<String>> {
    let (mut keys, mut left) = (Vec::new(), vec![folder.join(prefix)]);
    while let Some(directory) = left.pop() {
        let entries = match fs::read_dir(&directory) {
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => continue,
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            // Links are not followed: they may lead out of the folder, or in a circle.
            let kind = entry.file_type()?;
            if kind.is_dir() {
                left.push(entry.path());
            } else if kind.is_file()
                && !entry.file_name().as_encoded_bytes().starts_with(b".")
                && let Some(key) = entry.path().strip_prefix(folder).ok().and_then(Path::to_str)
            {
                keys.push(key.to_string());
            }
        }
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path().to_str().unwrap(), &StoreOptions::default()).unwrap();
        (dir, store)
    }

    #[test]
    fn what_is_put_is_listed_and_read_until_it_is_replaced() {
        let (_dir, store) = folder();
        assert_eq!(store.list("").unwrap(), [""; 0]);
        for (key, bytes) in
            [("documents/usc/b.json", "1"), ("documents/usc/a/1.json", "2"), ("index/usc.json.gz", "3")]
        {
            store.put(key, bytes.as_bytes()).unwrap();
        }
        store.put("documents/usc/b.json", b"4").unwrap();
        assert_eq!(store.get("documents/usc/b.json").unwrap(), b"4");
        assert_eq!(store.list("documents/usc/").unwrap(), ["documents/usc/a/1.json", "documents/usc/b.json"]);
        assert_eq!(store.list("").unwrap().len(), 3);
        assert_eq!(store.list("documents/fr/").unwrap(), [""; 0]);
    }

    #[test]
    fn a_missing_object_is_told_from_one_that_cannot_be_read() {
        let (dir, store) = folder();
        assert!(matches!(store.get("no/such"), Err(Kl3mDataError::Missing { key, .. }) if key == "no/such"));
        store.put("a/b", b"").unwrap();
        assert!(matches!(store.get("a"), Err(Kl3mDataError::Access { action: "read", .. })));
        assert!(matches!(store.put("a/b/c", b""), Err(Kl3mDataError::Access { action: "write", .. })));
        let to = dir.path().join("copies/x");
        assert!(matches!(store.copy("no/such", &to), Err(Kl3mDataError::Missing { .. })));
        assert!(!to.exists());
        store.put("a/b", b"abc").unwrap();
        assert_eq!((store.copy("a/b", &to).unwrap(), fs::read(&to).unwrap()), (3, b"abc".to_vec()));
        assert_eq!(store.entry("a/b").unwrap().bytes, 3);
    }

    #[test]
    fn no_key_leads_out_of_the_store() {
        let (dir, store) = folder();
        fs::write(dir.path().with_extension("secret"), "x").unwrap();
        let name = dir.path().file_name().unwrap().to_str().unwrap().to_string();
        for key in ["", "/etc/passwd", "..", "a/../../x", "a//b", "./a", "a\0b", &format!("../{name}.secret")]
        {
            assert!(matches!(store.get(key), Err(Kl3mDataError::Key { .. })), "{key:?}");
            assert!(matches!(store.put(key, b""), Err(Kl3mDataError::Key { .. })), "{key:?}");
        }
        fs::remove_file(dir.path().with_extension("secret")).unwrap();
    }

    #[cfg(not(feature = "s3"))]
    #[test]
    fn a_build_without_s3_says_how_to_get_it() {
        let error = Store::open("s3://bucket", &StoreOptions::default()).err().unwrap().to_string();
        assert!(error.contains("--features s3"), "{error}");
    }
}
