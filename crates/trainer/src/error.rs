//! What ends a run early.

use crate::{checkpoint::CheckpointError, config::ConfigError};
use blackletter_corpus::build::BuildError;
use blackletter_dataset::DatasetError;
use blackletter_model::{
    CheckpointError as ModelError, ConfigError as ModelConfigError, WriteError,
    decoder::{BatchError, DeviceError},
};
use std::{
    io,
    path::{Path, PathBuf},
};

/// A run cannot begin, go on, or be exported.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The run's configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The token store or its settings.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// The device.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The run's own texts.
    #[error("data.texts: {0}")]
    Texts(#[from] BuildError),
    /// The geometry.
    #[error("the geometry {name}: {source}")]
    Geometry {
        /// The file or name.
        name: String,
        /// Why.
        source: ModelConfigError,
    },
    /// The weights to go on from.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// Model and data do not fit.
    #[error("{0}")]
    Mismatch(String),
    /// A run would go on as another one.
    #[error(
        "{key} is {now} now, and the run in {run} was begun with {then}: go on with that, or begin another run (run = …)"
    )]
    Changed {
        /// The run.
        run: PathBuf,
        /// The key's path.
        key: String,
        /// Its value when the run was begun.
        then: String,
        /// Its value now.
        now: String,
    },
    /// The directory holds a run.
    #[error("{0} holds a run already: go on with --resume, or name another directory (run = …)")]
    Exists(PathBuf),
    /// Another process trains there.
    #[error("{0} is in use by another process: wait for its end, or name another directory (run = …)")]
    Locked(PathBuf),
    /// The directory holds something else.
    #[error("{0} is not empty and holds no run: name a new directory (run = …)")]
    Occupied(PathBuf),
    /// The directory holds no run.
    #[error("{0} holds no run: it has no config.toml")]
    NoRun(PathBuf),
    /// A checkpoint.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A checkpoint could not be written.
    #[error("the checkpoint of step {step} could not be written: {source}; {}", last_good(.last))]
    Save {
        /// The step.
        step: u64,
        /// The last one that is whole.
        last: Option<PathBuf>,
        /// Why.
        source: Box<CheckpointError>,
    },
    /// A batch that makes no sense.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// Writing a model.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The loss is no number any more.
    #[error(
        "step {step}: the {what} is {value}; the weights are those before this step, whose batch is kept in {}. Lower schedule.peak or clip.norm, or look at the batch with `blackletter loss`",
        .kept.display()
    )]
    NotFinite {
        /// The step.
        step: u64,
        /// Loss or gradient norm.
        what: &'static str,
        /// Its value.
        value: f64,
        /// Where the batch is.
        kept: PathBuf,
    },
    /// The record of a model could not be made.
    #[error("the model's record could not be made: {0}")]
    Record(String),
    /// A text could not be generated.
    #[error("samples could not be generated: {0}")]
    Sample(String),
    /// The file system refuses.
    #[error("cannot {action} {}: {source}", .path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

fn last_good(last: &Option<PathBuf>) -> String {
    match last {
        Some(path) => {
            format!("the last whole checkpoint is {}: make room and go on with --resume", path.display())
        }
        None => "there is none before it".into(),
    }
}

impl TrainError {
    /// The file system refuses to `action` `path`.
    pub(crate) fn file(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { action, path, source }
    }
}
