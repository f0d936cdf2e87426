//! What a run tells: lines of `metrics.jsonl`, TensorBoard events, curves.

mod curves;
mod tensorboard;

use crate::{error::TrainError, evaluate::Evaluation, state::RunState};
pub use curves::draw;
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
};
use tensorboard::Events;

/// Name of the file of metrics in a run.
pub const METRICS: &str = "metrics.jsonl";

/// What a step did.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepRecord {
    /// Number of the step, from 1.
    pub step: u64,
    /// All parts of the loss with their coefficients.
    pub loss: f64,
    /// Mean over the targets of the global batch, natural logarithm.
    pub cross_entropy: f64,
    /// Load-balancing loss without its coefficient.
    pub aux_loss: f64,
    /// z-loss, its coefficient included.
    pub z_loss: f64,
    /// Learning rate.
    pub rate: f64,
    /// Norm of the gradient before clipping.
    pub gradient_norm: f64,
    /// The norm that it was clipped to, if it was larger; absent where nothing limits it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub clip: Option<f64>,
    /// Epoch of the step's last row.
    pub epoch: u64,
    /// Tokens of the step, padding left out.
    pub step_tokens: u64,
    /// Tokens of the run.
    pub tokens: u64,
    /// Seconds of the step.
    pub seconds: f64,
    /// Tokens of the step per second.
    pub tokens_per_s: f64,
    /// Share of the processor's multiply-add rate, counted over all positions; of a GPU no rate is known.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub mfu: Option<f64>,
}

/// A line of `metrics.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Line {
    /// A step.
    Step(StepRecord),
    /// An evaluation after a step.
    Evaluation {
        /// The step.
        step: u64,
        /// `weights` or, of the averaged weights, `average`.
        of: String,
        /// The scores.
        #[serde(flatten)]
        scores: Evaluation,
    },
}

impl Line {
    fn step(&self) -> u64 {
        match self {
            Self::Step(record) => record.step,
            Self::Evaluation { step, .. } => *step,
        }
    }
}

/// The files that a run writes as it goes.
pub struct Metrics {
    path: PathBuf,
    file: File,
    events: Events,
}

impl Metrics {
    /// Opens them; lines of steps after `step`, which a run that was killed may have left, are taken out.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn open(dir: &Path, step: u64) -> Result<Self, TrainError> {
        let path = dir.join(METRICS);
        let kept: String = read(dir)?
            .into_iter()
            .filter(|line| line.step() <= step)
            .filter_map(|line| serde_json::to_string(&line).ok())
            .map(|line| line + "\n")
            .collect();
        let temporary = dir.join(format!(".{METRICS}.tmp"));
        fs::write(&temporary, kept).map_err(TrainError::file("write", &temporary))?;
        fs::rename(&temporary, &path).map_err(TrainError::file("write", &path))?;
        let file = OpenOptions::new().append(true).open(&path).map_err(TrainError::file("open", &path))?;
        let events = Events::create(dir, step).map_err(TrainError::file("write events in", dir))?;
        Ok(Self { path, file, events })
    }

    /// Writes a line.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn write(&mut self, line: &Line) -> Result<(), TrainError> {
        let text = serde_json::to_string(line).unwrap_or_default() + "\n";
        self.file.write_all(text.as_bytes()).map_err(TrainError::file("write", &self.path))?;
        let values: Vec<(String, f64)> = match line {
            Line::Step(r) => [
                ("train/loss", Some(r.loss)),
                ("train/cross_entropy", Some(r.cross_entropy)),
                ("train/aux_loss", Some(r.aux_loss)),
                ("train/rate", Some(r.rate)),
                ("train/gradient_norm", Some(r.gradient_norm)),
                ("train/tokens", Some(r.tokens as f64)),
                ("train/tokens_per_s", Some(r.tokens_per_s)),
                ("train/mfu", r.mfu),
            ]
            .into_iter()
            .filter_map(|(tag, value)| Some((tag, value?)))
            .map(|(tag, value)| (tag.to_string(), value))
            .collect(),
            Line::Evaluation { of, scores, .. } => {
                let all = [("all".to_string(), scores.all)].into_iter().chain(scores.datasets.clone());
                let prefix = if of == "weights" { "heldout".into() } else { format!("heldout_{of}") };
                all.flat_map(|(name, score)| {
                    let tag = format!("{prefix}/{name}");
                    [
                        (format!("{tag}/loss"), score.loss),
                        (format!("{tag}/bits_per_byte"), score.bits_per_byte),
                    ]
                })
                .collect()
            }
        };
        self.events.scalars(line.step(), &values).map_err(|source| TrainError::File {
            action: "write",
            path: self.events.path().into(),
            source,
        })
    }
}

/// Reads the lines of a run's metrics; one that is torn at the end is left out.
///
/// # Errors
/// When the file is there and cannot be read.
pub fn read(dir: &Path) -> Result<Vec<Line>, TrainError> {
    let path = dir.join(METRICS);
    match fs::read_to_string(&path) {
        Ok(text) => Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(source) => Err(TrainError::File { action: "read", path, source }),
    }
}

/// Writes what was consumed by dataset and licence: `consumed.json`.
///
/// # Errors
/// When the file system refuses.
pub fn write_consumed(dir: &Path, state: &RunState) -> Result<(), TrainError> {
    let path = dir.join("consumed.json");
    let text = serde_json::to_string_pretty(&state.consumed).unwrap_or_default() + "\n";
    fs::write(&path, text).map_err(TrainError::file("write", &path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    fn record(step: u64) -> StepRecord {
        StepRecord {
            step,
            loss: 1.0 / step as f64,
            cross_entropy: 0.1,
            aux_loss: 2.0,
            z_loss: 0.0,
            rate: 1e-3,
            gradient_norm: 0.5,
            clip: None,
            epoch: 0,
            step_tokens: 10,
            tokens: 10 * step,
            seconds: 0.1,
            tokens_per_s: 100.0,
            mfu: Some(0.5),
        }
    }

    #[test]
    fn lines_after_the_step_that_a_run_goes_on_from_are_taken_out() {
        let dir = TempDir::new().unwrap();
        let mut metrics = Metrics::open(dir.path(), 0).unwrap();
        for step in 1..=5 {
            metrics.write(&Line::Step(record(step))).unwrap();
        }
        let evaluation = Line::Evaluation { step: 3, of: "weights".into(), scores: Evaluation::default() };
        metrics.write(&evaluation).unwrap();
        drop(metrics);
        let path = dir.path().join(METRICS);
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, format!("{text}{{\"kind\":\"step\",\"st")).unwrap();
        drop(Metrics::open(dir.path(), 3).unwrap());
        let lines = read(dir.path()).unwrap();
        assert_eq!(lines.len(), 4);
        assert!(lines.contains(&evaluation) && lines.contains(&Line::Step(record(3))));
    }
}
