//! A model directory's weights, memory-mapped and checked against its configuration.

use crate::{
    ConfigError, MixtralConfig,
    config::read_small,
    names::{self, Expected, QUANTS, SCALES},
};
use memmap2::{Mmap, UncheckedAdvice};
use safetensors::SafeTensors;
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

/// A number format of a stored tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dtype {
    /// 32-bit float.
    F32,
    /// IEEE half float.
    F16,
    /// bfloat16.
    BF16,
    /// Bytes (quantised blocks).
    U8,
}

impl Dtype {
    /// Bytes of one number.
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::BF16 => 2,
            Self::U8 => 1,
        }
    }

    /// The name that `config.json` has for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "float32",
            Self::F16 => "float16",
            Self::BF16 => "bfloat16",
            Self::U8 => "uint8",
        }
    }

    fn of(dtype: safetensors::Dtype) -> Option<Self> {
        match dtype {
            safetensors::Dtype::F32 => Some(Self::F32),
            safetensors::Dtype::F16 => Some(Self::F16),
            safetensors::Dtype::BF16 => Some(Self::BF16),
            safetensors::Dtype::U8 => Some(Self::U8),
            _ => None,
        }
    }
}

/// The checkpoint cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// There is nothing of that name.
    #[error("{0} does not exist: a model is a directory with config.json and model.safetensors")]
    NotFound(String),
    /// The directory is not one.
    #[error("{0} is not a model directory: it must be a directory with config.json and model.safetensors")]
    NotADirectory(String),
    /// The configuration cannot be used.
    #[error("{path}: {source}")]
    Config {
        /// The directory.
        path: String,
        /// Why.
        source: ConfigError,
    },
    /// No weights were found.
    #[error(
        "{path} has no weights: neither model.safetensors nor model.safetensors.index.json is there{hint}"
    )]
    NoWeights {
        /// The directory.
        path: String,
        /// What is there instead.
        hint: &'static str,
    },
    /// Two files of a sharded checkpoint hold a tensor of the same name.
    #[error(
        "{path} holds {name:?}, which another weight file holds too: the shards are of different checkpoints"
    )]
    Duplicate {
        /// The later file.
        path: String,
        /// The tensor.
        name: String,
    },
    /// A file cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// A git-lfs pointer lies where weights should.
    #[error("{0} is a git-lfs pointer, not the weights: run `git lfs pull`, or download the file itself")]
    LfsPointer(String),
    /// The safetensors header lies or the file is cut off.
    #[error("{path} is not a whole safetensors file: {why}")]
    Safetensors {
        /// The file.
        path: String,
        /// Why.
        why: String,
    },
    /// The index of a sharded checkpoint cannot be used.
    #[error("{path} cannot be used: {why}")]
    Index {
        /// The file.
        path: String,
        /// Why.
        why: String,
    },
    /// Tensors are missing or have other shapes or dtypes; all are named.
    #[error("{path}: the weights do not fit config.json:\n{}", problems.join("\n"))]
    Tensors {
        /// The directory.
        path: String,
        /// One line for each.
        problems: Vec<String>,
    },
    /// An adapter cannot be put into the weights.
    #[error(transparent)]
    Adapter(#[from] Box<crate::AdapterError>),
}

/// One tensor inside a memory map (or a buffer); cheap to clone, keeps the map alive.
#[derive(Clone, Debug)]
pub struct StoredTensor {
    bytes: Bytes,
    range: Range<usize>,
    dtype: Dtype,
    shape: Vec<usize>,
}

#[derive(Clone, Debug)]
enum Bytes {
    Map(Arc<Mmap>),
    Shared(Arc<[u8]>),
    Static(&'static [u8]),
}

impl Bytes {
    fn as_slice(&self) -> &[u8] {
        match self {
            Self::Map(map) => map,
            Self::Shared(bytes) => bytes,
            Self::Static(bytes) => bytes,
        }
    }
}

impl StoredTensor {
    /// The number format.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// The shape; the last dimension is contiguous.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The numbers, little-endian; perhaps not aligned.
    pub fn data(&self) -> &[u8] {
        &self.bytes.as_slice()[self.range.clone()]
    }

    /// All numbers as `f32`.
    pub fn to_f32(&self) -> Vec<f32> {
        let data = self.data();
        match self.dtype {
            Dtype::F32 => data.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
            Dtype::BF16 => data
                .as_chunks()
                .0
                .iter()
                .map(|b: &[u8; 2]| f32::from_bits(u32::from(u16::from_le_bytes(*b)) << 16))
                .collect(),
            Dtype::F16 => data.as_chunks().0.iter().map(|b| half::f16::from_le_bytes(*b).to_f32()).collect(),
            Dtype::U8 => data.iter().map(|&b| f32::from(b)).collect(),
        }
    }

    /// Tells the operating system that these bytes will not be needed soon, so that they do not count as this process's
    /// memory; they are read from the file again when they are.
    pub fn release(&self) {
        if let Bytes::Map(map) = &self.bytes {
            // SAFETY: the map is read-only and backed by a file: dropped pages come back with the same bytes.
            #[allow(unsafe_code)]
            let outcome = unsafe {
                map.unchecked_advise_range(UncheckedAdvice::DontNeed, self.range.start, self.range.len())
            };
            // Advice that is not taken costs memory, nothing else.
            let _ = outcome;
        }
    }
}

/// A model directory, open: its configuration and all of its tensors, checked against each other.
///
/// The weights stay in the files and are read through memory maps. Whoever changes or truncates a file while it is
/// mapped changes the weights under a running model, or makes the system end the process: replace files by
/// renaming, as every tool of this field does.
#[derive(Debug)]
pub struct Checkpoint {
    /// What the model is.
    pub config: MixtralConfig,
    tensors: BTreeMap<String, StoredTensor>,
    unsupported: BTreeMap<String, safetensors::Dtype>,
    extra: Vec<String>,
    files: Vec<PathBuf>,
    bytes: u64,
}

impl Checkpoint {
    /// Opens a directory with `config.json` and `model.safetensors`, or shards and their index.
    ///
    /// # Errors
    /// When anything is missing, damaged or does not fit; tensors that do not are named all at once.
    pub fn open(dir: &Path) -> Result<Self, CheckpointError> {
        let shown = dir.display().to_string();
        if !dir.exists() {
            return Err(CheckpointError::NotFound(shown));
        }
        if !dir.is_dir() {
            return Err(CheckpointError::NotADirectory(shown));
        }
        let config = MixtralConfig::from_dir(dir)
            .map_err(|source| CheckpointError::Config { path: shown.clone(), source })?;
        let mut checkpoint = Self::empty(config);
        checkpoint.files = weight_files(dir)?;
        for file in checkpoint.files.clone() {
            let bytes = Bytes::Map(Arc::new(map(&file)?));
            checkpoint.add(bytes, &file.display().to_string())?;
        }
        checkpoint.check(&shown)?;
        Ok(checkpoint)
    }

    /// A checkpoint that lies in memory: the texts of `config.json` and of one safetensors file.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn from_static(config: &[u8], weights: &'static [u8]) -> Result<Self, CheckpointError> {
        Self::in_memory(config, Bytes::Static(weights), "the embedded model")
    }

    /// As [`Self::from_static`], over a buffer that the tensors keep alive.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn from_bytes(config: &[u8], weights: Arc<[u8]>) -> Result<Self, CheckpointError> {
        Self::in_memory(config, Bytes::Shared(weights), "the model in memory")
    }

    fn in_memory(config: &[u8], weights: Bytes, shown: &str) -> Result<Self, CheckpointError> {
        let config = MixtralConfig::from_json(config)
            .map_err(|source| CheckpointError::Config { path: shown.into(), source })?;
        let mut checkpoint = Self::empty(config);
        checkpoint.add(weights, shown)?;
        checkpoint.check(shown)?;
        Ok(checkpoint)
    }

    fn empty(config: MixtralConfig) -> Self {
        let (tensors, unsupported) = (BTreeMap::new(), BTreeMap::new());
        Self { config, tensors, unsupported, extra: Vec::new(), files: Vec::new(), bytes: 0 }
    }

    /// The tensor of that name.
    pub fn tensor(&self, name: &str) -> Option<&StoredTensor> {
        self.tensors.get(name)
    }

    /// All names that the model uses, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Tensors in the files that the model does not use, sorted.
    pub fn extra(&self) -> &[String] {
        &self.extra
    }

    /// The weight files.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// Bytes of the weight files.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Puts other numbers in a tensor's place, as `f32`.
    pub(crate) fn replace(&mut self, name: &str, values: &[f32], shape: Vec<usize>) {
        let bytes: Arc<[u8]> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        let range = 0..bytes.len();
        let tensor = StoredTensor { bytes: Bytes::Shared(bytes), range, dtype: Dtype::F32, shape };
        self.tensors.insert(name.to_string(), tensor);
    }

    fn add(&mut self, bytes: Bytes, path: &str) -> Result<(), CheckpointError> {
        let slice = bytes.as_slice();
        self.bytes += slice.len() as u64;
        let header = read_header(slice, path)?;
        for (name, dtype, shape, range) in header.tensors {
            let tensor = StoredTensor { bytes: bytes.clone(), range, dtype, shape };
            if self.tensors.insert(name.clone(), tensor).is_some() {
                return Err(CheckpointError::Duplicate { path: path.into(), name });
            }
        }
        self.unsupported.extend(header.unsupported);
        Ok(())
    }

    /// Compares what is there with what the configuration calls for.
    fn check(&mut self, path: &str) -> Result<(), CheckpointError> {
        let mut problems = Vec::new();
        let mut used = BTreeSet::new();
        let mut wanted = names::expected(&self.config);
        if self.config.tie_word_embeddings && self.tensors.contains_key(&format!("{}{QUANTS}", names::HEAD)) {
            // A quantised model has a head of its own beside the embedding, which is not quantised.
            let shape = vec![self.config.vocab_size, self.config.hidden_size];
            wanted.push(Expected { name: names::HEAD.into(), shape, quantisable: true });
        }
        for want in wanted {
            if let Some(found) = self.tensors.get(&want.name) {
                if found.shape != want.shape {
                    problems
                        .push(format!("  {}: shape {:?}, expected {:?}", want.name, found.shape, want.shape));
                } else if found.dtype == Dtype::U8 {
                    problems
                        .push(format!("  {}: dtype uint8, expected float32, float16 or bfloat16", want.name));
                }
                used.insert(want.name);
                continue;
            }
            let (quants, scales) = (format!("{}{QUANTS}", want.name), format!("{}{SCALES}", want.name));
            match (want.quantisable, self.tensors.get(&quants), self.tensors.get(&scales)) {
                (true, Some(q), Some(s)) => {
                    problems.extend(quantised_problem(&want, q, s));
                    used.extend([quants, scales]);
                }
                _ => match self.unsupported.remove(&want.name) {
                    Some(dtype) => problems.push(format!(
                        "  {}: dtype {dtype:?}, expected float32, float16 or bfloat16",
                        want.name
                    )),
                    None => problems.push(format!("  {}: missing, expected {:?}", want.name, want.shape)),
                },
            }
        }
        if !problems.is_empty() {
            if let Some(hint) = self.other_prefix(&used) {
                problems.push(hint);
            } else if let Some(other) = self.tensors.keys().find(|name| !used.contains(*name)) {
                problems.push(format!("  (the files have {} tensors, such as {other})", self.tensors.len()));
            }
            return Err(CheckpointError::Tensors { path: path.into(), problems });
        }
        self.extra = self.tensors.keys().filter(|name| !used.contains(*name)).cloned().collect();
        self.extra.extend(std::mem::take(&mut self.unsupported).into_keys());
        self.extra.sort();
        self.tensors.retain(|name, _| used.contains(name));
        Ok(())
    }

    /// What to say when the names are those of a model inside or outside of another module.
    fn other_prefix(&self, used: &BTreeSet<String>) -> Option<String> {
        let known = names::Layer(0).attention_norm();
        let bare = known.strip_prefix("model.")?;
        let found = self.tensors.keys().find(|name| !used.contains(*name) && name.ends_with(bare))?;
        let prefix = found.strip_suffix(bare)?;
        Some(format!(
            "  (the names in the files begin with {prefix:?} where \"model.\" is expected, such as {found}: save the \
             MixtralForCausalLM itself, not a module inside or around it)"
        ))
    }
}

fn quantised_problem(want: &Expected, quants: &StoredTensor, scales: &StoredTensor) -> Option<String> {
    let (groups, blocks) = (want.shape[0].div_ceil(16), want.shape[1].div_ceil(32));
    let name = &want.name;
    let eight = vec![groups, blocks, 512];
    let four = vec![groups, blocks, 256];
    if quants.dtype != Dtype::U8 || (quants.shape != eight && quants.shape != four) {
        let (dtype, shape) = (quants.dtype.name(), &quants.shape);
        return Some(format!("  {name}{QUANTS}: {dtype} {shape:?}, expected uint8 {eight:?} or {four:?}"));
    }
    let expected = vec![groups, blocks, 16];
    (scales.dtype != Dtype::F16 || scales.shape != expected).then(|| {
        let (dtype, shape) = (scales.dtype.name(), &scales.shape);
        format!("  {name}{SCALES}: {dtype} {shape:?}, expected float16 {expected:?}")
    })
}

/// What the header of a safetensors file lists.
struct Header {
    /// `(name, dtype, shape, where its bytes are)` of every tensor with a supported dtype.
    tensors: Vec<(String, Dtype, Vec<usize>, Range<usize>)>,
    /// The others.
    unsupported: Vec<(String, safetensors::Dtype)>,
}

fn read_header(bytes: &[u8], path: &str) -> Result<Header, CheckpointError> {
    let refuse = |why: String| CheckpointError::Safetensors { path: path.into(), why };
    if bytes.starts_with(b"version https://git-lfs") {
        return Err(CheckpointError::LfsPointer(path.into()));
    }
    let (header, metadata) = SafeTensors::read_metadata(bytes).map_err(|e| refuse(e.to_string()))?;
    // The header's length itself takes 8 bytes.
    let start = header.checked_add(8).ok_or_else(|| refuse("the header's length overflows".into()))?;
    let (mut tensors, mut unsupported) = (Vec::new(), Vec::new());
    for (name, info) in metadata.tensors() {
        let Some(dtype) = Dtype::of(info.dtype) else {
            unsupported.push((name, info.dtype));
            continue;
        };
        let (from, to) = info.data_offsets;
        let end = start.checked_add(to).filter(|&end| end <= bytes.len() && from <= to);
        let len = info.shape.iter().try_fold(dtype.bytes(), |n, &d| n.checked_mul(d));
        match (end, len) {
            (Some(end), Some(len)) if len == to - from => {
                tensors.push((name, dtype, info.shape.clone(), start + from..end));
            }
            _ => {
                return Err(refuse(format!(
                    "tensor {name:?} has offsets that do not fit its shape or the file"
                )));
            }
        }
    }
    Ok(Header { tensors, unsupported })
}

fn map(path: &Path) -> Result<Mmap, CheckpointError> {
    let failed = |source| CheckpointError::Read { path: path.display().to_string(), source };
    let file = File::open(path).map_err(failed)?;
    // SAFETY: the map is only ever read as bytes; see `Checkpoint` for what changing the file means.
    #[allow(unsafe_code)]
    let map = unsafe { Mmap::map(&file) }.map_err(failed)?;
    // Only advice: read in huge pages where the file system can, weights take fewer address translations.
    #[cfg(target_os = "linux")]
    let _ = map.advise(memmap2::Advice::HugePage);
    Ok(map)
}

/// The weight files of a directory: one, or those that an index names.
fn weight_files(dir: &Path) -> Result<Vec<PathBuf>, CheckpointError> {
    let single = dir.join("model.safetensors");
    if single.exists() {
        return Ok(vec![single]);
    }
    let index = dir.join("model.safetensors.index.json");
    let path = index.display().to_string();
    let text = match read_small(&index) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let pickled = ["pytorch_model.bin", "pytorch_model.bin.index.json"];
            let hint = match pickled.iter().any(|name| dir.join(name).exists()) {
                true => "; convert pytorch_model.bin to safetensors, pickles can run code",
                false => "",
            };
            return Err(CheckpointError::NoWeights { path: dir.display().to_string(), hint });
        }
        Err(source) => return Err(CheckpointError::Read { path, source }),
    };
    let refuse = |why: String| CheckpointError::Index { path: path.clone(), why };
    let value: Value = serde_json::from_slice(&text).map_err(|e| refuse(e.to_string()))?;
    let Some(map) = value.get("weight_map").and_then(Value::as_object) else {
        return Err(refuse("it has no \"weight_map\" object".into()));
    };
    let mut files = BTreeSet::new();
    for (tensor, file) in map {
        match file.as_str() {
            Some(name) if !name.is_empty() && !name.contains(['/', '\\']) && name != ".." && name != "." => {
                files.insert(dir.join(name));
            }
            _ => {
                return Err(refuse(format!(
                    "the file of {tensor:?} is {file}, not a name in this directory"
                )));
            }
        }
    }
    if files.is_empty() {
        return Err(refuse("its \"weight_map\" is empty".into()));
    }
    Ok(files.into_iter().collect())
}
