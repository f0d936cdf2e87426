//! One file, from the Hub into the cache.

use crate::{
    HubError,
    cache::{Cache, cannot, make_parent},
    hub::{Content, Hub, PAUSE, TRIES},
};
use indicatif::{ProgressBar, ProgressStyle};
use sha2::{Digest, Sha256};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    path::Path,
};

/// Fetches a file of a commit; goes on where an earlier try stopped.
pub(crate) async fn download(hub: &Hub<'_>, cache: &Cache, commit: &str, file: &str) -> Result<(), HubError> {
    let content = hub.content(commit, file).await?;
    let blob = cache.blob(&content.hash);
    make_parent(&blob)?;
    // Nobody else writes the file meanwhile; whoever waited here may find it done.
    let lock = cache.lock(&content.hash)?;
    if !blob.is_file() {
        let partial = blob.with_added_extension("incomplete");
        fill(hub, commit, file, &content, &partial).await?;
        check(file, &content, &partial)?;
        fs::rename(&partial, &blob).map_err(cannot(&blob))?;
    }
    drop(lock);
    cache.point(commit, file, &content.hash)
}

/// Appends to `partial` until it has all bytes.
async fn fill(
    hub: &Hub<'_>,
    commit: &str,
    file: &str,
    content: &Content,
    partial: &Path,
) -> Result<(), HubError> {
    let open = OpenOptions::new().create(true).append(true).open(partial);
    let mut out = open.map_err(cannot(partial))?;
    let mut done = out.metadata().map_err(cannot(partial))?.len();
    let bar = bar(file, content.size);
    let mut idle = 0;
    let mut pause = PAUSE;
    while done != content.size {
        // What is longer than the file cannot be its beginning.
        if done > content.size {
            out.set_len(0).map_err(cannot(partial))?;
            done = 0;
        }
        let before = done;
        let (start, mut response) = hub.bytes(commit, file, done).await?;
        if start != done {
            out.set_len(0).map_err(cannot(partial))?;
            done = 0;
        }
        bar.set_position(done);
        let broken = loop {
            match tokio::time::timeout(hub.patience, response.chunk()).await {
                Ok(Ok(Some(bytes))) => {
                    out.write_all(&bytes).map_err(cannot(partial))?;
                    done += bytes.len() as u64;
                    bar.set_position(done);
                    if done > content.size {
                        break None;
                    }
                }
                Ok(Ok(None)) | Err(_) => break None,
                Ok(Err(error)) => break Some(error.into()),
            }
        };
        // A connection that breaks after some way is met with patience; one that gets nowhere, not for ever.
        idle = if done > before && done <= content.size { 0 } else { idle + 1 };
        if done != content.size {
            if idle == TRIES {
                let (file, size) = (file.to_string(), content.size);
                return Err(HubError::Broken { file, done, size, source: broken });
            }
            tokio::time::sleep(pause).await;
            pause = if idle == 0 { PAUSE } else { pause * 2 };
        }
    }
    out.sync_all().map_err(cannot(partial))?;
    bar.finish_and_clear();
    Ok(())
}

/// Compares what came with the SHA-256 that the Hub states for large files; small ones have a git hash, which is not
/// one of the bytes alone.
fn check(file: &str, content: &Content, partial: &Path) -> Result<(), HubError> {
    let expected = content.hash.to_ascii_lowercase();
    if expected.len() != 64 || !expected.chars().all(|c| c.is_ascii_hexdigit()) {
        return Ok(());
    }
    let found = sha256(partial).map_err(cannot(partial))?;
    if found == expected {
        return Ok(());
    }
    fs::remove_file(partial).map_err(cannot(partial))?;
    Err(HubError::Damaged { file: file.into(), expected, found })
}

fn sha256(path: &Path) -> io::Result<String> {
    let mut input = File::open(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match input.read(&mut buffer)? {
            0 => return Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()),
            n => hash.update(&buffer[..n]),
        }
    }
}

/// A progress bar on standard error, which stays away where that is no terminal.
fn bar(file: &str, size: u64) -> ProgressBar {
    let bar = ProgressBar::new(size).with_message(file.to_string());
    let template =
        "{msg} {bar:30} {binary_bytes} of {binary_total_bytes}, {binary_bytes_per_sec}, {eta} left";
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
