//! Checkpoints: a directory each, whole or not there.
//!
//! `checkpoints/step-00000200` holds `tensors.safetensors`, `state.json` and `checksums.b3` (lines that `b3sum --check` reads).
//! It is written under another name, every file of it synchronised, and renamed; then the directory above is synchronised.
//! A reader compares the checksums as it reads: what is damaged is never used.

use crate::state::{RunState, VERSION};
use blackletter_model::{
    Dtype, TensorSource,
    decoder::{Tensor, TensorData},
    write_tensors_to,
};
use safetensors::tensor::{Dtype as StoredDtype, Metadata};
use std::{
    borrow::Cow,
    collections::BTreeMap,
    fs::{self, File},
    io::{self, BufReader, BufWriter, Read, Write},
    path::{Path, PathBuf},
    process,
};

const TENSORS: &str = "tensors.safetensors";
const STATE: &str = "state.json";
const CHECKSUMS: &str = "checksums.b3";
const PREFIX: &str = "step-";

/// The header of a tensor file larger than this is something else.
const LARGEST_HEADER: u64 = 64 << 20;

/// A checkpoint cannot be written or used.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The file system refuses.
    #[error("cannot {action} {}: {}", .path.display(), reason(.source))]
    File {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not what was written.
    #[error("the checkpoint {} is damaged: {reason}", .path.display())]
    Damaged {
        /// The checkpoint.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// It is of another version of the program.
    #[error("the checkpoint {} has version {found}, and this program reads version {VERSION}", .path.display())]
    Version {
        /// The checkpoint.
        path: PathBuf,
        /// Its version.
        found: u64,
    },
    /// None can be used.
    #[error("none of the checkpoints in {} can be used: {reasons}", .folder.display())]
    None {
        /// Where they are.
        folder: PathBuf,
        /// What is wrong with each.
        reasons: String,
    },
    /// It belongs to a model of another geometry.
    #[error("the checkpoint {} has no {name} of {expected:?}: it belongs to another model or optimizer", .path.display())]
    Tensor {
        /// The checkpoint.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Its shape.
        expected: [usize; 2],
    },
}

fn reason(source: &io::Error) -> String {
    match source.kind() {
        io::ErrorKind::StorageFull => "the disk is full".into(),
        io::ErrorKind::FileTooLarge => {
            "the file would be larger than the system allows (disk quota or ulimit -f)".into()
        }
        _ => source.to_string(),
    }
}

/// A tensor to be stored: name, numbers.
pub type Named<'a> = (String, &'a Tensor<2>);

/// A checkpoint that has been read and found whole.
#[derive(Debug)]
pub struct Stored {
    /// Where it is.
    pub path: PathBuf,
    /// Where the run stood.
    pub state: RunState,
    /// Tokens seen of each document to train on, in the order of the store.
    pub documents: Vec<u32>,
    tensors: BTreeMap<String, (Vec<f32>, [usize; 2])>,
}

impl Stored {
    /// Takes a tensor out.
    ///
    /// # Errors
    /// When it is not there or has another shape.
    pub fn take(&mut self, name: &str, expected: [usize; 2]) -> Result<TensorData, CheckpointError> {
        match self.tensors.remove(name) {
            Some((values, shape)) if shape == expected => Ok(TensorData::new(values, shape)),
            _ => Err(CheckpointError::Tensor { path: self.path.clone(), name: name.into(), expected }),
        }
    }
}

/// Passes on what is written and hashes it.
struct Hashing<W> {
    out: W,
    hasher: blake3::Hasher,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.hasher.update(bytes.get(..written).unwrap_or_default());
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = self.out.read(bytes)?;
        self.hasher.update(bytes.get(..read).unwrap_or_default());
        Ok(read)
    }
}

fn refused(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CheckpointError {
    let path = path.to_owned();
    move |source| CheckpointError::File { action, path, source }
}

/// Writes a checkpoint into `folder`; one of the same step that is whole stays.
///
/// # Errors
/// When the file system refuses; nothing stands under the checkpoint's name then, and the others are as they were.
pub fn write(
    folder: &Path,
    state: &RunState,
    tensors: &[Named<'_>],
    documents: &[u32],
) -> Result<PathBuf, CheckpointError> {
    let path = folder.join(format!("{PREFIX}{:08}", state.step));
    // Made again after going back to an earlier one: the same bytes but for the seconds.
    if path.exists() && read(&path).is_ok() {
        return Ok(path);
    }
    fs::create_dir_all(folder).map_err(refused("make", folder))?;
    let temporary = folder.join(format!(".{PREFIX}{:08}.{}.tmp", state.step, process::id()));
    let written = write_files(&temporary, state, tensors, documents).and_then(|()| {
        if path.exists() {
            fs::remove_dir_all(&path).map_err(refused("replace", &path))?;
        }
        fs::rename(&temporary, &path).map_err(refused("write", &path))?;
        sync_folder(folder)
    });
    if written.is_err() {
        let _ = fs::remove_dir_all(&temporary);
    }
    written.map(|()| path)
}

fn sync_folder(folder: &Path) -> Result<(), CheckpointError> {
    File::open(folder).and_then(|f| f.sync_all()).map_err(refused("synchronise", folder))
}

fn write_files(
    dir: &Path,
    state: &RunState,
    tensors: &[Named<'_>],
    documents: &[u32],
) -> Result<(), CheckpointError> {
    fs::create_dir_all(dir).map_err(refused("make", dir))?;
    let mut checksums = String::new();
    let mut file = |name: &str, write: &mut dyn FnMut(&mut dyn Write) -> io::Result<()>| {
        let path = dir.join(name);
        let hash = write_file(&path, write).map_err(refused("write", &path))?;
        checksums.push_str(&format!("{hash}  {name}\n"));
        Ok::<(), CheckpointError>(())
    };
    file(TENSORS, &mut |out| {
        let floats = tensors.iter().map(|(name, tensor)| TensorSource {
            name: name.clone(),
            dtype: Dtype::F32,
            shape: tensor.dims().to_vec(),
            bytes: Box::new(|| Cow::Owned(Tensor::clone(tensor).inner().into_data().as_bytes().to_vec())),
        });
        let documents = TensorSource {
            name: "documents".into(),
            dtype: Dtype::U8,
            shape: vec![documents.len(), 4],
            bytes: Box::new(|| Cow::Owned(documents.iter().flat_map(|n| n.to_le_bytes()).collect())),
        };
        write_tensors_to(out, floats.chain([documents]).collect())
    })?;
    file(STATE, &mut |out| {
        serde_json::to_writer_pretty(&mut *out, state)?;
        out.write_all(b"\n")
    })?;
    let path = dir.join(CHECKSUMS);
    write_file(&path, &mut |out| out.write_all(checksums.as_bytes())).map_err(refused("write", &path))?;
    sync_folder(dir)
}

fn write_file(path: &Path, write: &mut dyn FnMut(&mut dyn Write) -> io::Result<()>) -> io::Result<String> {
    let file = BufWriter::with_capacity(1 << 20, File::create(path)?);
    let mut out = Hashing { out: file, hasher: blake3::Hasher::new() };
    write(&mut out)?;
    let hash = out.hasher.finalize().to_hex().to_string();
    out.out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
    Ok(hash)
}

/// The checkpoints in a folder, by step, the last first.
pub fn list(folder: &Path) -> Vec<(u64, PathBuf)> {
    let mut all: Vec<(u64, PathBuf)> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let step = entry.file_name().to_str()?.strip_prefix(PREFIX)?.parse().ok()?;
            Some((step, entry.path()))
        })
        .collect();
    all.sort_by(|a, b| b.cmp(a));
    all
}

/// Removes what writers that were killed have left.
pub fn remove_unfinished(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        if name.to_str().is_some_and(|name| name.starts_with(".step-") && name.ends_with(".tmp")) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Removes all checkpoints before the last `keep` that are whole, but that of step `best`. Damaged ones among the last push none
/// out.
///
/// # Errors
/// When the file system refuses.
pub fn rotate(folder: &Path, keep: usize, best: Option<u64>) -> Result<(), CheckpointError> {
    let all = list(folder);
    // Nothing is read where nothing would go.
    let mut whole = if all.len() > keep { 0 } else { return Ok(()) };
    for (step, path) in all {
        if whole < keep {
            whole += usize::from(is_whole(&path));
        } else if Some(step) != best {
            fs::remove_dir_all(&path).map_err(refused("remove", &path))?;
        }
    }
    Ok(())
}

/// Whether the files of a checkpoint have their checksums; nothing of them is kept in memory.
fn is_whole(path: &Path) -> bool {
    let Ok(sums) = fs::read_to_string(path.join(CHECKSUMS)) else { return false };
    [TENSORS, STATE].iter().all(|name| {
        let mut hasher = blake3::Hasher::new();
        let hashed = File::open(path.join(name)).and_then(|file| hasher.update_reader(file).map(|_| ()));
        let line = format!("{}  {name}", hasher.finalize().to_hex());
        hashed.is_ok() && sums.lines().any(|l| l == line)
    })
}

/// Reads the last checkpoint that is whole; `note` is told of those that are not. `None` when there is none at all.
///
/// # Errors
/// When there are some and none can be used, or one is of another version.
pub fn read_last(folder: &Path, note: &mut dyn FnMut(String)) -> Result<Option<Stored>, CheckpointError> {
    let mut reasons = Vec::new();
    for (_, path) in list(folder) {
        match read(&path) {
            Ok(stored) => {
                for reason in reasons {
                    note(format!("{reason}; {} is used in its place", path.display()));
                }
                return Ok(Some(stored));
            }
            Err(e @ CheckpointError::Version { .. }) => return Err(e),
            Err(e) => reasons.push(e.to_string()),
        }
    }
    if reasons.is_empty() {
        return Ok(None);
    }
    Err(CheckpointError::None { folder: folder.into(), reasons: reasons.join("; ") })
}

/// Reads a checkpoint, comparing checksums.
///
/// # Errors
/// When it is damaged, or of another version.
pub fn read(path: &Path) -> Result<Stored, CheckpointError> {
    let damaged = |reason: String| CheckpointError::Damaged { path: path.into(), reason };
    let open =
        |name: &str| File::open(path.join(name)).map_err(|e| damaged(format!("{name} cannot be read: {e}")));
    let mut sums = String::new();
    open(CHECKSUMS)?
        .take(1 << 16)
        .read_to_string(&mut sums)
        .map_err(|e| damaged(format!("{CHECKSUMS} cannot be read: {e}")))?;
    let check = |name: &str, hash: blake3::Hash| {
        let line = format!("{}  {name}", hash.to_hex());
        if sums.lines().any(|l| l == line) {
            Ok(())
        } else {
            Err(damaged(format!("{name} is not what was written")))
        }
    };
    let mut text = Vec::new();
    open(STATE)?.take(1 << 30).read_to_end(&mut text).map_err(|e| damaged(format!("{STATE}: {e}")))?;
    check(STATE, blake3::hash(&text))?;
    let value: serde_json::Value =
        serde_json::from_slice(&text).map_err(|e| damaged(format!("{STATE}: {e}")))?;
    match value.get("version").and_then(serde_json::Value::as_u64) {
        Some(found) if found != u64::from(VERSION) => {
            return Err(CheckpointError::Version { path: path.into(), found });
        }
        _ => {}
    }
    let state = serde_json::from_value(value).map_err(|e| damaged(format!("{STATE}: {e}")))?;
    let reader = BufReader::with_capacity(1 << 20, open(TENSORS)?);
    let mut reader = Hashing { out: reader, hasher: blake3::Hasher::new() };
    let read = read_tensors(&mut reader).map_err(|reason| damaged(format!("{TENSORS}: {reason}")))?;
    check(TENSORS, reader.hasher.finalize())?;
    let (tensors, documents) = read;
    Ok(Stored { path: path.into(), state, documents, tensors })
}

type Tensors = (BTreeMap<String, (Vec<f32>, [usize; 2])>, Vec<u32>);

/// Reads a safetensors file from its beginning to its end.
fn read_tensors(reader: &mut impl Read) -> Result<Tensors, String> {
    let text = |e: io::Error| e.to_string();
    let mut len = [0u8; 8];
    reader.read_exact(&mut len).map_err(text)?;
    let size = u64::from_le_bytes(len);
    if size > LARGEST_HEADER {
        return Err("it has no header".into());
    }
    let mut header = Vec::new();
    reader.by_ref().take(size).read_to_end(&mut header).map_err(text)?;
    let metadata: Metadata = serde_json::from_slice(&header).map_err(|e| e.to_string())?;
    let mut order: Vec<_> = metadata.tensors().into_iter().collect();
    order.sort_by_key(|(_, info)| info.data_offsets.0);
    let (mut tensors, mut documents, mut at) = (BTreeMap::new(), Vec::new(), 0);
    for (name, info) in order {
        let mut bytes = Vec::new();
        let (from, to) = info.data_offsets;
        let numbers = info.shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d)).unwrap_or(usize::MAX);
        let size = numbers.saturating_mul(if info.dtype == StoredDtype::F32 { 4 } else { 1 });
        if from != at || to.checked_sub(from) != Some(size) {
            return Err(format!("{name} has the wrong place"));
        }
        at = to;
        // Grown as it is read: a damaged header asks for no more memory than the file holds.
        reader.by_ref().take(size as u64).read_to_end(&mut bytes).map_err(text)?;
        if bytes.len() != size {
            return Err("it ends too early".into());
        }
        match (info.dtype, info.shape.as_slice()) {
            (StoredDtype::F32, &[rows, cols]) => {
                let values = bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
                tensors.insert(name, (values, [rows, cols]));
            }
            (StoredDtype::U8, [_, 4]) if name == "documents" => {
                documents = bytes.as_chunks().0.iter().map(|b| u32::from_le_bytes(*b)).collect();
            }
            _ => return Err(format!("{name} is {:?} {:?}", info.dtype, info.shape)),
        }
    }
    if reader.read(&mut [0]).map_err(text)? != 0 {
        return Err("it is longer than its header says".into());
    }
    Ok((tensors, documents))
}

#[cfg(test)]
mod tests {
    use super::*;
    use blackletter_model::decoder::Device;
    use tempfile::TempDir;

    fn tensor(x: f32) -> Tensor<2> {
        Tensor::from_data(
            TensorData::new(vec![x, 2.0, f32::MIN_POSITIVE / 4.0, -0.0, 5.0, 6.0], [2, 3]),
            &Device::flex(),
        )
    }

    fn save(folder: &Path, step: u64) -> PathBuf {
        let state = RunState { step, norms: vec![0.1, 1e-300], ..RunState::new("corpus", "tokenizer") };
        write(
            folder,
            &state,
            &[("weight/a".into(), &tensor(step as f32)), ("mean/a".into(), &tensor(-1.0))],
            &[3, 1],
        )
        .unwrap()
    }

    #[test]
    fn what_was_written_is_read_to_the_bit() {
        let dir = TempDir::new().unwrap();
        let path = save(dir.path(), 7);
        let mut stored = read(&path).unwrap();
        assert_eq!(
            (stored.state.step, stored.state.norms[1], stored.documents.as_slice()),
            (7, 1e-300, &[3u32, 1][..])
        );
        let data = stored.take("weight/a", [2, 3]).unwrap();
        let bits: Vec<u32> = data.as_slice::<f32>().unwrap().iter().map(|x| x.to_bits()).collect();
        let expected: Vec<u32> =
            tensor(7.0).into_data().as_slice::<f32>().unwrap().iter().map(|x| x.to_bits()).collect();
        assert_eq!(bits, expected);
        assert!(stored.take("weight/a", [2, 3]).is_err());
        assert!(stored.take("mean/a", [3, 2]).unwrap_err().to_string().contains("mean/a"));
        // Saving the same step again replaces it.
        assert_eq!(save(dir.path(), 7), path);
        assert_eq!(list(dir.path()).len(), 1);
    }

    #[test]
    fn a_damaged_checkpoint_is_named_and_the_one_before_is_used() {
        let dir = TempDir::new().unwrap();
        let (first, second) = (save(dir.path(), 1), save(dir.path(), 2));
        for name in [TENSORS, STATE, CHECKSUMS] {
            let file = second.join(name);
            let good = fs::read(&file).unwrap();
            let mut flipped = good.clone();
            let middle = flipped.len() / 2;
            flipped[middle] ^= 0x10;
            for bad in
                [flipped, good[..good.len() / 2].to_vec(), Vec::new(), [good.as_slice(), b"x"].concat()]
            {
                if name == CHECKSUMS && bad.len() > good.len() {
                    continue;
                }
                fs::write(&file, bad).unwrap();
                let mut notes = Vec::new();
                let stored = read_last(dir.path(), &mut |note| notes.push(note)).unwrap().unwrap();
                assert_eq!((stored.path, notes.len()), (first.clone(), 1), "{name}");
                assert!(notes[0].contains(&second.display().to_string()), "{notes:?}");
            }
            fs::remove_file(&file).unwrap();
            assert!(matches!(read(&second), Err(CheckpointError::Damaged { .. })));
            fs::write(&file, good).unwrap();
            assert!(read(&second).is_ok());
        }
        fs::write(first.join(STATE), "{}").unwrap();
        fs::write(second.join(STATE), "{}").unwrap();
        let message = read_last(dir.path(), &mut |_| {}).unwrap_err().to_string();
        assert!(message.contains("step-00000001") && message.contains("step-00000002"), "{message}");
    }

    #[test]
    fn the_last_and_the_best_are_kept_and_leftovers_go() {
        let dir = TempDir::new().unwrap();
        for step in 1..=6 {
            save(dir.path(), step);
            rotate(dir.path(), 2, Some(2)).unwrap();
        }
        let steps: Vec<u64> = list(dir.path()).into_iter().map(|(step, _)| step).collect();
        assert_eq!(steps, [6, 5, 2]);
        fs::create_dir(dir.path().join(".step-00000009.77.tmp")).unwrap();
        remove_unfinished(dir.path());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3);
        assert!(read_last(&dir.path().join("none"), &mut |_| {}).unwrap().is_none());
    }

    #[test]
    fn damaged_checkpoints_push_no_whole_one_out() {
        let dir = TempDir::new().unwrap();
        let steps = || list(dir.path()).into_iter().map(|(step, _)| step).collect::<Vec<_>>();
        for step in 1..=2 {
            save(dir.path(), step);
        }
        for (step, file) in [(3, TENSORS), (4, STATE), (5, CHECKSUMS)] {
            let path = save(dir.path(), step).join(file);
            let mut bytes = fs::read(&path).unwrap();
            bytes[9] ^= 1;
            fs::write(&path, bytes).unwrap();
            rotate(dir.path(), 2, None).unwrap();
        }
        assert_eq!(steps(), [5, 4, 3, 2, 1]);
        // As whole ones follow, those before go, the damaged ones with them.
        save(dir.path(), 6);
        rotate(dir.path(), 2, None).unwrap();
        assert_eq!(steps(), [6, 5, 4, 3, 2]);
        save(dir.path(), 7);
        rotate(dir.path(), 2, None).unwrap();
        assert_eq!(steps(), [7, 6]);
    }

    #[test]
    fn another_version_is_refused_by_name() {
        let dir = TempDir::new().unwrap();
        let state = RunState { version: 99, ..RunState::new("c", "t") };
        write(dir.path(), &state, &[], &[]).unwrap();
        assert!(read_last(dir.path(), &mut |_| {}).unwrap_err().to_string().contains("version 99"));
    }
}
