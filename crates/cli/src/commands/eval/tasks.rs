//! `blackletter eval tasks`

use super::{ResultOptions, Unit, load, watched};
use crate::{commands::model::ModelOptions, failure::Failure};
use blackletter_evals::{bootstrap::Bootstrap, tasks};
use std::path::PathBuf;

/// Ask a model the questions of tasks
///
/// Reads tasks in the basics of lm-evaluation-harness' YAML form (multiple_choice, loglikelihood, generate_until; data in JSON lines;
/// Jinja templates; few shots), or JSON lines with `query`, `choices` and `gold`, or `query` and `target`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "EXAMPLE:\n  blackletter eval tasks --model ./nano tasks/definitions.yaml --out evals/"
)]
pub struct Args {
    /// Tasks: YAML or JSON lines.
    #[arg(value_name = "TASK", required = true)]
    tasks: Vec<PathBuf>,
    /// Ask only the first N questions of each.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
    /// Put <|start|> in front of each question; lm-evaluation-harness does not.
    #[arg(long)]
    start: bool,
    #[command(flatten)]
    model: ModelOptions,
    #[command(flatten)]
    result: ResultOptions,
}

impl Args {
    pub fn run(self) -> Result<(), Failure> {
        let limit = self.limit.map(|n| n as usize);
        let tasks = self.tasks.iter().map(|path| tasks::read(path, limit)).collect::<Result<Vec<_>, _>>()?;
        for task in tasks.iter().filter(|task| !task.unknown.is_empty()) {
            eprintln!(
                "note: {} has keys that are not known and were passed over: {}",
                task.name,
                task.unknown.join(", ")
            );
        }
        let (pipeline, subject) = load(&self.model, &self.result)?;
        let (result, answers) = watched(Unit::Things, |watch| {
            tasks::measure(&pipeline, subject, &tasks, self.start, Bootstrap::default(), watch)
        })?;
        self.result.finish("tasks", &result, &result.to_markdown(), &answers)
    }
}
