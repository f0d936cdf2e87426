//! The options of every command that runs a model.

use crate::failure::Failure;
use blackletter_engine::{LoadOptions, ModelFiles, Pipeline, WeightDtype};
use std::{
    fs,
    path::{Path, PathBuf},
};
use tempfile::TempDir;

/// The name of the model that the program carries.
#[cfg(feature = "embedded-model")]
const EMBEDDED: &str = "nano";

#[cfg(feature = "embedded-model")]
const EMBEDDED_FILES: &[(&str, &[u8])] = &[
    ("config.json", include_bytes!("../../../../models/nano/config.json")),
    ("generation_config.json", include_bytes!("../../../../models/nano/generation_config.json")),
    ("model.safetensors", include_bytes!("../../../../models/nano/model.safetensors")),
    ("tokenizer.json", include_bytes!("../../../../models/nano/tokenizer.json")),
    ("tokenizer_config.json", include_bytes!("../../../../models/nano/tokenizer_config.json")),
    ("provenance.json", include_bytes!("../../../../models/nano/provenance.json")),
    ("README.md", include_bytes!("../../../../models/nano/README.md")),
    // What no run of it reads, for an audit of the whole.
    ("corpus.toml", include_bytes!("../../../../models/nano/corpus.toml")),
    ("curves.svg", include_bytes!("../../../../models/nano/curves.svg")),
    ("documents.parquet", include_bytes!("../../../../models/nano/documents.parquet")),
    ("introduction.md", include_bytes!("../../../../models/nano/introduction.md")),
    ("run.toml", include_bytes!("../../../../models/nano/run.toml")),
    ("special_tokens_map.json", include_bytes!("../../../../models/nano/special_tokens_map.json")),
];

/// Which model, and how to run it.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Model")]
pub struct ModelOptions {
    /// A model directory in Hugging Face format; or owner/name[@revision], fetched from the Hugging Face Hub into its
    /// standard cache; or nano, the model inside the program [default: nano].
    #[arg(long, value_name = "DIR|OWNER/NAME")]
    model: Option<String>,
    /// A low-rank adapter (LoRA) in PEFT's format, which is put into the model's weights as they are loaded.
    #[arg(long, value_name = "DIR")]
    adapter: Option<PathBuf>,
    /// The form in which weights are multiplied [default: as stored, with f32 arithmetic].
    #[arg(long, value_name = "DTYPE")]
    dtype: Option<Dtype>,
    /// Threads [default: one per core]. Results do not depend on it.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
}

/// [`WeightDtype`] on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Dtype {
    /// 32-bit floats: stored weights, widened exactly
    F32,
    /// bfloat16
    Bf16,
    /// 8-bit blocks of 32 weights
    Q8,
    /// 4-bit blocks of 32 weights
    Q4,
}

impl From<Dtype> for WeightDtype {
    fn from(dtype: Dtype) -> Self {
        match dtype {
            Dtype::F32 => Self::F32,
            Dtype::Bf16 => Self::Bf16,
            Dtype::Q8 => Self::Q8,
            Dtype::Q4 => Self::Q4,
        }
    }
}

impl ModelOptions {
    /// Loads the model; work on ids alone can do `with_tokenizer` false.
    pub fn load(&self, with_tokenizer: bool) -> Result<Pipeline, Failure> {
        Ok(Pipeline::load(&self.files()?, &self.load_options(), with_tokenizer)?)
    }

    /// The name that was asked for.
    pub fn name(&self) -> &str {
        #[cfg(feature = "embedded-model")]
        return self.model.as_deref().unwrap_or(EMBEDDED);
        #[cfg(not(feature = "embedded-model"))]
        self.model.as_deref().unwrap_or_default()
    }

    /// How to load.
    pub fn load_options(&self) -> LoadOptions {
        LoadOptions { dtype: self.dtype.map(Into::into), threads: self.threads.map(usize::from) }
    }

    /// What the model is called: the last part of its name.
    pub fn served_name(&self) -> String {
        let name = self.name().trim_end_matches('/');
        let last = name.rsplit('/').next().unwrap_or(name);
        if matches!(last, "" | "." | "..") { "blackletter".into() } else { last.into() }
    }

    /// Finds the model's files.
    pub fn files(&self) -> Result<ModelFiles, Failure> {
        let model = match &self.model {
            Some(name) => find(name)?,
            None => embedded()
                .ok_or_else(|| Failure::usage("no model: name one with --model DIR or --model OWNER/NAME"))?,
        };
        Ok(match &self.adapter {
            Some(adapter) => ModelFiles::Adapted { model: Box::new(model), adapter: adapter.clone() },
            None => model,
        })
    }
}

/// Finds the files of a directory, of the embedded model, or of a repository of the Hub.
pub fn find(name: &str) -> Result<ModelFiles, Failure> {
    #[cfg(feature = "embedded-model")]
    if name == EMBEDDED {
        return Ok(ModelFiles::Embedded(EMBEDDED_FILES));
    }
    let path = Path::new(name);
    let fetched = if path.exists() { None } else { fetch(name)? };
    Ok(ModelFiles::Directory(fetched.unwrap_or_else(|| path.into())))
}

/// Finds a model that has to lie in a directory.
pub fn directory(name: &str) -> Result<PathBuf, Failure> {
    match find(name)? {
        ModelFiles::Directory(dir) => Ok(dir),
        ModelFiles::Embedded(_) | ModelFiles::Adapted { .. } => Err(Failure::usage(format!(
            "{name:?} is the model inside the program, and this needs one in a directory (write ./{name} for a directory of that name)"
        ))),
    }
}

/// A model's files in a directory: its own, or one that goes when this is dropped.
pub enum Unpacked {
    /// Its own.
    Directory(PathBuf),
    /// For a while.
    Temporary(TempDir),
}

impl Unpacked {
    /// The directory.
    pub fn path(&self) -> &Path {
        match self {
            Self::Directory(dir) => dir,
            Self::Temporary(dir) => dir.path(),
        }
    }
}

/// Finds a model, and writes the one inside the program to a temporary directory.
pub fn unpacked(name: &str) -> Result<Unpacked, Failure> {
    match find(name)? {
        ModelFiles::Embedded(files) => {
            let failed = |e| {
                Failure::failed(format!(
                    "cannot write the model inside the program to a temporary directory: {e}"
                ))
            };
            let dir = TempDir::new().map_err(failed)?;
            for (file, content) in files {
                fs::write(dir.path().join(file), content).map_err(failed)?;
            }
            Ok(Unpacked::Temporary(dir))
        }
        _ => Ok(Unpacked::Directory(directory(name)?)),
    }
}

/// The embedded model, if the program was built with it.
fn embedded() -> Option<ModelFiles> {
    #[cfg(feature = "embedded-model")]
    return Some(ModelFiles::Embedded(EMBEDDED_FILES));
    #[cfg(not(feature = "embedded-model"))]
    None
}

/// A name that is no directory here, and what came of looking for it on the Hub.
#[cfg(feature = "hub")]
#[derive(Debug, thiserror::Error)]
#[error("there is no directory {name}, and fetching it from the Hugging Face Hub failed")]
struct NotFetched {
    name: String,
    source: blackletter_hub::HubError,
}

/// The directory that holds a repository of the Hub; none when the name cannot be one.
#[cfg(feature = "hub")]
fn fetch(name: &str) -> Result<Option<PathBuf>, Failure> {
    let Ok(repository) = name.parse() else { return Ok(None) };
    let fetched = blackletter_hub::fetch(&repository, &blackletter_hub::Settings::from_env());
    let fetched = fetched.map_err(|source| NotFetched { name: name.into(), source })?;
    if let Some(why) = fetched.unchecked {
        eprintln!("note: {why}; going on with what was fetched before");
    }
    Ok(Some(fetched.dir))
}

/// Without the Hub, every name is one of a directory.
#[cfg(not(feature = "hub"))]
fn fetch(_name: &str) -> Result<Option<PathBuf>, Failure> {
    Ok(None)
}
