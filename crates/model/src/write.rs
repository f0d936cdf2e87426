//! Writing checkpoints that `transformers` loads.

use crate::{Dtype, MixtralConfig};
use serde_json::{Map, Value, json};
use std::{
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

/// A checkpoint could not be written; nothing half-written stands under its name.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {path}: {source}")]
pub struct WriteError {
    pub(crate) path: String,
    pub(crate) source: io::Error,
}

/// A tensor to be written; its bytes are asked for only when their turn comes.
pub struct TensorSource<'a> {
    /// Its name.
    pub name: String,
    /// Its number format.
    pub dtype: Dtype,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Makes its numbers, little-endian.
    pub bytes: Box<dyn FnOnce() -> std::borrow::Cow<'a, [u8]> + 'a>,
}

impl TensorSource<'_> {
    fn len(&self) -> usize {
        self.shape.iter().product::<usize>() * self.dtype.bytes()
    }
}

/// Writes `config.json` and `model.safetensors` (or shards of at most `shard_bytes` and their index) into `dir`.
///
/// Every file is written under a temporary name, synchronised, then renamed; `config.json` comes last.
/// `extra_config` is merged into the configuration (such as a note on quantisation).
///
/// # Errors
/// When the disk refuses.
pub fn write_checkpoint(
    dir: &Path,
    config: &MixtralConfig,
    dtype: Dtype,
    tensors: Vec<TensorSource<'_>>,
    shard_bytes: u64,
    extra_config: &[(&str, Value)],
) -> Result<(), WriteError> {
    fs::create_dir_all(dir).map_err(|source| WriteError { path: dir.display().to_string(), source })?;
    let mut shards: Vec<Vec<TensorSource<'_>>> = vec![Vec::new()];
    let mut size = 0u64;
    let mut total = 0u64;
    for tensor in tensors {
        let len = tensor.len() as u64;
        if size > 0 && size + len > shard_bytes {
            shards.push(Vec::new());
            size = 0;
        }
        size += len;
        total += len;
        if let Some(shard) = shards.last_mut() {
            shard.push(tensor);
        }
    }
    let count = shards.len();
    let mut weight_map = Map::new();
    for (i, shard) in shards.into_iter().enumerate() {
        let name = if count == 1 {
            "model.safetensors".to_string()
        } else {
            format!("model-{:05}-of-{count:05}.safetensors", i + 1)
        };
        for tensor in &shard {
            weight_map.insert(tensor.name.clone(), json!(name));
        }
        write_file(&dir.join(name), |out| write_tensors_to(out, shard))?;
    }
    if count > 1 {
        let index = json!({ "metadata": { "total_size": total }, "weight_map": weight_map });
        write_json(&dir.join("model.safetensors.index.json"), &index)?;
        // Readers take `model.safetensors` before an index: one left from before would hide what was written.
        let stale = dir.join("model.safetensors");
        match fs::remove_file(&stale) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(WriteError { path: stale.display().to_string(), source });
            }
            _ => {}
        }
    }
    let mut value = config.to_json(dtype.name());
    for (key, extra) in extra_config {
        value[*key] = extra.clone();
    }
    write_json(&dir.join("config.json"), &value)
}

/// Writes tensors as one safetensors file, under a temporary name first.
///
/// # Errors
/// When the disk refuses.
pub fn write_tensors(path: &Path, tensors: Vec<TensorSource<'_>>) -> Result<(), WriteError> {
    write_described(path, tensors, &[])
}

/// The same with more to be said in the file's header.
pub(crate) fn write_described(
    path: &Path,
    tensors: Vec<TensorSource<'_>>,
    metadata: &[(&str, &str)],
) -> Result<(), WriteError> {
    write_file(path, |out| write_with(out, tensors, metadata))
}

/// Writes tensors in the form of a safetensors file.
///
/// # Errors
/// When `out` refuses, two tensors have one name, or bytes are not as many as a shape takes.
pub fn write_tensors_to(out: &mut dyn Write, tensors: Vec<TensorSource<'_>>) -> io::Result<()> {
    write_with(out, tensors, &[])
}

fn write_with(
    out: &mut dyn Write,
    tensors: Vec<TensorSource<'_>>,
    metadata: &[(&str, &str)],
) -> io::Result<()> {
    let mut header = Map::new();
    let mut described = json!({ "format": "pt" });
    for (key, value) in metadata {
        described[*key] = json!(value);
    }
    header.insert("__metadata__".into(), described);
    let mut offset = 0;
    for tensor in &tensors {
        if header.contains_key(&tensor.name) {
            return Err(io::Error::other(format!("two tensors are named {}", tensor.name)));
        }
        let dtype = match tensor.dtype {
            Dtype::F32 => "F32",
            Dtype::F16 => "F16",
            Dtype::BF16 => "BF16",
            Dtype::U8 => "U8",
        };
        let end = offset + tensor.len();
        let info = json!({ "dtype": dtype, "shape": tensor.shape, "data_offsets": [offset, end] });
        header.insert(tensor.name.clone(), info);
        offset = end;
    }
    let mut text = serde_json::to_vec(&header)?;
    // Data starts on a cache line, so that large tensors do too.
    text.resize((text.len() + 8).next_multiple_of(64) - 8, b' ');
    out.write_all(&(text.len() as u64).to_le_bytes())?;
    out.write_all(&text)?;
    for tensor in tensors {
        let (name, len) = (tensor.name.clone(), tensor.len());
        let bytes = (tensor.bytes)();
        if bytes.len() != len {
            return Err(io::Error::other(format!("{name} has {} bytes, its shape takes {len}", bytes.len())));
        }
        out.write_all(&bytes)?;
    }
    Ok(())
}

fn write_json(path: &Path, value: &Value) -> Result<(), WriteError> {
    write_file(path, |out| {
        serde_json::to_writer_pretty(&mut *out, value)?;
        out.write_all(b"\n")
    })
}

fn write_file(path: &Path, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), WriteError> {
    let mut temporary = PathBuf::from(path);
    temporary.as_mut_os_string().push(format!(".{}.tmp", std::process::id()));
    let outcome = (|| {
        let mut out = BufWriter::with_capacity(1 << 20, File::create(&temporary)?);
        write(&mut out)?;
        let file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    })();
    outcome.map_err(|source| {
        let _ = fs::remove_file(&temporary);
        WriteError { path: path.display().to_string(), source }
    })
}
