//! The Hub's standard cache on disk, as all its clients keep it: `blobs/HASH` hold contents, `snapshots/COMMIT/FILE` point
//! to them, `refs/REVISION` hold the commit of a branch or tag.

use crate::{HubError, Repository, files, repository::is_name};
use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

/// One repository's part of the cache.
pub(crate) struct Cache {
    root: PathBuf,
    folder: String,
    revision: String,
}

impl Cache {
    pub(crate) fn new(root: &Path, repository: &Repository) -> Self {
        let folder = format!("models--{}--{}", repository.owner, repository.name);
        Self { root: root.into(), folder, revision: repository.revision.clone() }
    }

    /// The directory of a commit.
    pub(crate) fn snapshot(&self, commit: &str) -> PathBuf {
        self.root.join(&self.folder).join("snapshots").join(commit)
    }

    /// The directory of the revision, when it has been fetched completely.
    pub(crate) fn find(&self) -> Option<PathBuf> {
        let commit = match fs::read_to_string(self.reference()) {
            Ok(text) => text.trim().to_string(),
            Err(_) => self.revision.clone(),
        };
        let dir = self.snapshot(&commit);
        (is_name(&commit) && files::is_complete(&dir)).then_some(dir)
    }

    /// Where the content with that hash is, or will be.
    pub(crate) fn blob(&self, hash: &str) -> PathBuf {
        self.root.join(&self.folder).join("blobs").join(hash)
    }

    /// Waits until no other process fetches the content with that hash; holds while the file lives.
    pub(crate) fn lock(&self, hash: &str) -> Result<File, HubError> {
        let path = self.root.join(".locks").join(&self.folder).join(format!("{hash}.lock"));
        make_parent(&path)?;
        let locked = File::create(&path).and_then(|file| file.lock().map(|()| file));
        locked.map_err(cannot(&path))
    }

    /// Makes a file of a commit point to its content.
    pub(crate) fn point(&self, commit: &str, file: &str, hash: &str) -> Result<(), HubError> {
        let path = self.snapshot(commit).join(file);
        make_parent(&path)?;
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(cannot(&path)(e)),
            _ => {}
        }
        // From snapshots/COMMIT two up, and one more from each folder in it.
        #[cfg(unix)]
        let pointed = {
            let up = "../".repeat(1 + file.split('/').count());
            std::os::unix::fs::symlink(Path::new(&up).join("blobs").join(hash), &path)
        };
        #[cfg(not(unix))]
        let pointed = fs::copy(self.blob(hash), &path).map(drop);
        match pointed {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(cannot(&path)(e)),
            _ => Ok(()),
        }
    }

    /// Notes that the revision is that commit.
    pub(crate) fn refer(&self, commit: &str) -> Result<(), HubError> {
        let path = self.reference();
        if self.revision == commit || fs::read_to_string(&path).is_ok_and(|text| text.trim() == commit) {
            return Ok(());
        }
        make_parent(&path)?;
        let temporary = path.with_added_extension(format!("{}.tmp", std::process::id()));
        fs::write(&temporary, commit).and_then(|()| fs::rename(&temporary, &path)).map_err(cannot(&path))
    }

    fn reference(&self) -> PathBuf {
        self.root.join(&self.folder).join("refs").join(&self.revision)
    }
}

/// Makes the directory that a file will lie in.
pub(crate) fn make_parent(path: &Path) -> Result<(), HubError> {
    let parent = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(parent).map_err(cannot(parent))
}

/// Says which path could not be written.
pub(crate) fn cannot(path: &Path) -> impl Fn(io::Error) -> HubError + use<> {
    let path = path.to_path_buf();
    move |source| HubError::Cache { path: path.clone(), source }
}
