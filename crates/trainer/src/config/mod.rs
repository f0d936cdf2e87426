//! What a run is to do: a TOML file, checked as a whole before anything is written.

mod changes;
mod check;
mod overlay;

use blackletter_dataset::StreamConfig;
use blackletter_kernels::Arithmetic;
use blackletter_model::decoder::{Compute, Place};
pub use changes::{Change, Changes, changes};
pub use overlay::ConfigError;
use serde::{Deserialize, Serialize};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Every key with its default and what it means, as `train --print-config` prints it.
pub const DEFAULT: &str = include_str!("../default.toml");

/// A training run. [`DEFAULT`] says what each key means.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct RunConfig {
    pub run: PathBuf,
    pub threads: usize,
    pub device: Place,
    pub dtype: DtypeKind,
    pub recompute: bool,
    pub model: ModelConfig,
    pub data: DataConfig,
    pub stream: StreamConfig,
    pub schedule: Schedule,
    pub optimizer: OptimizerConfig,
    pub adapter: AdapterConfig,
    pub clip: ClipConfig,
    pub loss: LossConfig,
    pub evaluation: EvaluationConfig,
    pub samples: SamplesConfig,
    pub checkpoints: CheckpointsConfig,
    pub averaging: AveragingConfig,
}

/// Arithmetic of matrix products.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DtypeKind {
    /// Single precision.
    F32,
    /// Inputs rounded to bfloat16, sums in single precision.
    Bf16,
}

impl DtypeKind {
    /// How the decoder computes with it.
    pub fn compute(self) -> Compute {
        match self {
            Self::F32 => Compute::F32,
            Self::Bf16 => Compute::Bf16,
        }
    }

    /// The arithmetic of the machine's rate that it is compared with.
    pub fn arithmetic(self) -> Arithmetic {
        match self {
            Self::F32 => Arithmetic::F32,
            Self::Bf16 => Arithmetic::Bf16,
        }
    }
}

/// `[model]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct ModelConfig {
    pub geometry: String,
    pub from: String,
    pub deviation: f64,
    pub seed: u64,
}

/// `[data]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct DataConfig {
    pub store: PathBuf,
    pub texts: Vec<String>,
    pub license: String,
    pub examples: Vec<PathBuf>,
    pub rows: usize,
    pub micro_batch_rows: usize,
}

/// `[schedule]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Schedule {
    pub steps: u64,
    pub kind: ScheduleKind,
    pub peak: f64,
    pub end: f64,
    pub warmup: u64,
    pub cooldown: u64,
}

/// The learning rate's form after its linear warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ScheduleKind {
    /// Constant, then linear.
    Trapezoidal,
    /// Half a cosine.
    Cosine,
    /// Constant, then one minus square root.
    Wsd,
}

/// `[optimizer]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct OptimizerConfig {
    pub name: OptimizerKind,
    pub beta1: f64,
    pub beta2: f64,
    pub epsilon: f64,
    pub weight_decay: f64,
    pub momentum: f64,
}

/// How parameters are updated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OptimizerKind {
    /// All by AdamW.
    AdamW,
    /// Hidden matrices by Muon, the rest by AdamW.
    Muon,
}

/// `[adapter]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct AdapterConfig {
    pub rank: usize,
    pub alpha: f64,
    pub targets: Vec<String>,
}

impl AdapterConfig {
    /// No adapter.
    pub fn none() -> Self {
        Self { rank: 0, alpha: 1.0, targets: Vec::new() }
    }

    /// What `B A` is multiplied with.
    pub fn scale(&self) -> f64 {
        self.alpha / self.rank.max(1) as f64
    }

    /// Whether an adapter is trained for a parameter of these names.
    pub fn changes(&self, names: &[String]) -> bool {
        let target =
            |name: &String| self.targets.iter().any(|t| name.ends_with(&format!("self_attn.{t}.weight")));
        self.rank > 0 && names.iter().any(target)
    }
}

/// `[clip]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct ClipConfig {
    pub norm: f64,
    pub percentile: f64,
    pub history: usize,
}

/// `[loss]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct LossConfig {
    pub load_balancing: f64,
    pub z_loss: f64,
}

/// `[evaluation]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct EvaluationConfig {
    pub every: u64,
    pub tokens: usize,
}

/// `[samples]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct SamplesConfig {
    pub every: u64,
    pub prompts: Vec<String>,
    pub tokens: usize,
    pub temperature: f64,
}

/// `[checkpoints]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct CheckpointsConfig {
    pub every: u64,
    pub keep: usize,
}

/// `[averaging]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct AveragingConfig {
    pub decay: f64,
    pub every: u64,
}

impl RunConfig {
    /// Reads a run's file and puts settings such as `schedule.steps=2000` over it.
    ///
    /// # Errors
    /// When it cannot be read, a key is not known (the message names the nearest one), or a value cannot be used (the
    /// message names key, value and what is allowed).
    pub fn load(path: &Path, settings: &[String]) -> Result<Self, ConfigError> {
        let text = fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.display().to_string(), source })?;
        Self::parse(&path.display().to_string(), &text, settings)
    }

    /// The same from text; `name` stands in messages.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn parse(name: &str, text: &str, settings: &[String]) -> Result<Self, ConfigError> {
        let config: Self = overlay::resolve(DEFAULT, name, text, settings)?;
        config.check()?;
        Ok(config)
    }

    /// The whole configuration as TOML, without comments.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: &str = "run = \"r\"\n[data]\nstore = \"s\"\n[model]\ngeometry = \"kl3m-002-520m\"\n";

    fn parse(more: &str) -> Result<RunConfig, ConfigError> {
        RunConfig::parse(
            "run.toml",
            LEAST,
            &more.split(';').filter(|s| !s.is_empty()).map(String::from).collect::<Vec<_>>(),
        )
    }

    #[test]
    fn a_run_needs_to_name_only_what_it_changes() {
        let config = parse("schedule.steps=7;schedule.warmup=2;schedule.cooldown=0;samples.prompts=[\"a\", \"b\"];stream.weights.usc=2").unwrap();
        assert_eq!(config.schedule.steps, 7);
        assert_eq!(config.samples.prompts, ["a", "b"]);
        assert_eq!(config.stream.weights["usc"], 2.0);
        assert_eq!(config.optimizer.beta2, 0.95);
        assert_eq!(RunConfig::parse("x", &config.to_toml(), &[]).unwrap(), config);
    }

    #[test]
    fn the_default_of_the_stream_is_that_of_the_dataset() {
        assert_eq!(parse("").unwrap().stream, StreamConfig::default());
    }

    #[test]
    fn an_unknown_key_is_refused_with_the_nearest_known_one() {
        for (setting, unknown, nearest) in [
            ("schedule.step=7", "schedule.step", "schedule.steps"),
            ("shedule.steps=7", "shedule", "schedule"),
            ("stream.contxt=7", "stream.contxt", "stream.context"),
            ("stream.segments.longst=0.5", "stream.segments.longst", "stream.segments.longest"),
        ] {
            let message = parse(setting).unwrap_err().to_string();
            assert!(
                message.contains(&format!("{unknown:?}")) && message.contains(&format!("{nearest:?}")),
                "{message}"
            );
        }
    }

    #[test]
    fn a_value_that_cannot_be_used_is_refused_by_key_value_and_what_is_allowed() {
        for (setting, parts) in [
            ("schedule.steps=0", ["schedule.steps", "0", "at least 1"]),
            ("schedule.steps=\"many\"", ["schedule.steps", "many", "whole number"]),
            ("schedule.steps=-3", ["schedule.steps", "-3", "whole number"]),
            ("schedule.peak=0", ["schedule.peak", "0", "above 0"]),
            ("schedule.kind=\"linear\"", ["schedule.kind", "linear", "trapezoidal"]),
            ("schedule.warmup=900", ["schedule.warmup", "900", "schedule.steps"]),
            ("optimizer.name=\"sgd\"", ["optimizer.name", "sgd", "muon"]),
            ("optimizer.beta1=1.0", ["optimizer.beta1", "1", "below 1"]),
            ("data.micro_batch_rows=5", ["data.micro_batch_rows", "5", "data.rows"]),
            ("data.store=\"\"", ["data.store", "\"\"", "token store"]),
            ("data.texts=a.txt", ["data.store", "s", "left out"]),
            ("run=\"\"", ["run", "\"\"", "directory"]),
            ("model.from=\"m\"", ["model.from", "m", "model.geometry"]),
            ("clip.percentile=101", ["clip.percentile", "101", "0 to 100"]),
            ("loss.z_loss=-1", ["loss.z_loss", "-1", "at least 0"]),
            ("stream.sft_weight=2", ["stream.sft_weight", "2", "0 to 1"]),
            ("stream.weights.usc=\"x\"", ["stream.weights.usc", "x", "number"]),
            ("device=\"tpu\"", ["device", "tpu", "cpu"]),
            ("samples.prompts=[1]", ["samples.prompts", "1", "texts"]),
            ("averaging.decay=1", ["averaging.decay", "1", "below 1"]),
            ("adapter.rank=4", ["adapter.rank", "4", "model.from"]),
            ("adapter.targets=[\"w1\"]", ["adapter.targets", "w1", "q_proj"]),
        ] {
            let message = parse(setting).unwrap_err().to_string();
            for part in parts {
                assert!(message.contains(part), "{setting}: {message}");
            }
        }
    }

    #[test]
    fn settings_that_are_no_settings_are_refused() {
        for setting in ["steps", "=3", "schedule=3", "schedule.steps=", "schedule.steps.more=3", "a b=3"] {
            assert!(parse(setting).is_err(), "{setting}");
        }
        assert!(
            RunConfig::parse("run.toml", "steps = = 3", &[]).unwrap_err().to_string().contains("run.toml")
        );
    }

    #[test]
    fn texts_on_the_command_line_need_no_quotes() {
        assert_eq!(parse("schedule.kind=cosine").unwrap().schedule.kind, ScheduleKind::Cosine);
        assert_eq!(parse("run=runs/other").unwrap().run, PathBuf::from("runs/other"));
        assert_eq!(parse("samples.prompts=Under this").unwrap().samples.prompts, ["Under this"]);
    }
}
