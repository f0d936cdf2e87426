//! Training: from rows of tokens to a model directory.
//!
//! In flow a token store and a [`RunConfig`]; out flow a run directory with checkpoints, metrics, samples and curves, and from
//! it a model directory that `transformers` loads ([`export()`]). Notable choices:
//!
//! - The loss of a step depends on its global batch alone ([`step`] says how): not on threads, nor on how rows are dealt out.
//! - Everything that must survive is in one [`state::RunState`] and the tensors beside it; a run that is killed at any moment goes
//!   on to the same losses, to the bit.
//! - Optimisers update parameters in place ([`optimizer`]); the next step's rows are made while this one runs ([`data`]).
//! - [`train()`] is the loop; evaluation, samples, reports and checkpoints are called from it by name.

pub mod bench;
pub mod checkpoint;
pub mod clip;
pub mod config;
pub mod data;
mod error;
pub mod evaluate;
pub mod export;
mod keep_batch;
pub mod optimizer;
mod own_data;
pub mod ranks;
mod record;
pub mod report;
mod run;
mod samples;
mod schedule;
mod setup;
pub mod state;
pub mod step;

pub use config::{ConfigError, RunConfig};
pub use error::TrainError;
pub use export::{ExportOptions, Which, export};
pub use own_data::prepare as prepare_own_data;
pub use record::Identity;
pub use run::{Event, Outcome, train};
pub use samples::Sample;
pub use setup::geometry;
