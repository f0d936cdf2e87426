//! `blackletter eval`

pub mod bias;
pub mod memorization;
pub mod perplexity;
pub mod sft;
pub mod tasks;
pub mod toxicity;

use super::model::ModelOptions;
use crate::{failure::Failure, interrupt, output};
use blackletter_engine::Pipeline;
use blackletter_evals::{EvalError, Watch, results, subject::Subject};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use std::{fs, path::PathBuf};

/// Measure what a model is worth
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    Perplexity(perplexity::Args),
    Sft(sft::Args),
    Tasks(tasks::Args),
    Toxicity(toxicity::Args),
    Bias(bias::Args),
    Memorization(memorization::Args),
}

impl Command {
    pub fn run(self) -> Result<(), Failure> {
        match self {
            Self::Perplexity(args) => args.run(),
            Self::Sft(args) => args.run(),
            Self::Tasks(args) => args.run(),
            Self::Toxicity(args) => args.run(),
            Self::Bias(args) => args.run(),
            Self::Memorization(args) => args.run(),
        }
    }
}

/// What becomes of a result.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Result")]
pub struct ResultOptions {
    /// Also write NAME.json, NAME.md and NAME.jsonl (every single measurement) to this directory; `blackletter report`
    /// reads it.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// How the result is printed.
    #[arg(long, value_enum, default_value_t = Format::Json)]
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// One JSON object
    Json,
    /// Tables in Markdown
    Markdown,
}

impl ResultOptions {
    /// Makes sure that the directory for the result can be written to, before hours are spent on what goes there.
    pub fn prepare(&self) -> Result<(), Failure> {
        if let Some(folder) = &self.out {
            let tried = fs::create_dir_all(folder).and_then(|()| tempfile::tempfile_in(folder));
            tried.map_err(|e| Failure::failed(format!("cannot write to {}: {e}", folder.display())))?;
        }
        Ok(())
    }

    /// Prints and writes a result; after Ctrl-C that is what there was.
    pub fn finish<R: Serialize, L: Serialize>(
        &self,
        name: &str,
        result: &R,
        markdown: &str,
        lines: &[L],
    ) -> Result<(), Failure> {
        self.finish_with(name, result, markdown, lines, &[])
    }

    /// The same, with other files `(name, text)` beside the result's.
    pub fn finish_with<R: Serialize, L: Serialize>(
        &self,
        name: &str,
        result: &R,
        markdown: &str,
        lines: &[L],
        others: &[(&str, &str)],
    ) -> Result<(), Failure> {
        // Printed first and written all the same: neither a full disk nor a closed pipe loses both.
        let printed = match self.format {
            Format::Json => output::print(serde_json::to_string_pretty(result)? + "\n"),
            Format::Markdown => output::print(markdown),
        };
        if let Some(folder) = &self.out {
            results::write(folder, name, result, markdown, lines)?;
            for (name, text) in others {
                let path = folder.join(name);
                let cannot = |e| Failure::failed(format!("cannot write {}: {e}", path.display()));
                fs::write(&path, text).map_err(cannot)?;
            }
        }
        printed?;
        interrupt::outcome()
    }
}

/// Loads the model with its tokenizer, once there is a place for its results, and says which it is.
pub fn load(options: &ModelOptions, result: &ResultOptions) -> Result<(Pipeline, Subject), Failure> {
    result.prepare()?;
    let files = options.files()?;
    let pipeline = Pipeline::load(&files, &options.load_options(), true)?;
    let dtype = options.load_options().dtype.map(|dtype| dtype.to_string());
    let subject = Subject::new(options.name(), &files, &pipeline, dtype)?;
    Ok((pipeline, subject))
}

/// Runs `work` with a bar that shows how far it is, in `unit`, and lets Ctrl-C end it.
pub fn watched<T>(unit: Unit, work: impl FnOnce(Watch<'_>) -> Result<T, EvalError>) -> Result<T, Failure> {
    interrupt::catch()?;
    let counts = match unit {
        Unit::Bytes => "{decimal_bytes}/{decimal_total_bytes}",
        Unit::Things => "{human_pos}/{human_len}",
    };
    let style = ProgressStyle::with_template(&format!("{{wide_bar}} {counts} {{elapsed}}, {{eta}} to go"))?;
    let bar = ProgressBar::new(0).with_style(style);
    let progress = |done, of| {
        bar.set_length(of);
        bar.set_position(done);
    };
    let result = work(Watch { progress: &progress, stop: &interrupt::asked });
    bar.finish_and_clear();
    ended(result, interrupt::asked())
}

/// How work ended that may have been asked to stop: before anything was measured, that is no failure of its own.
fn ended<T>(result: Result<T, EvalError>, asked: bool) -> Result<T, Failure> {
    result.map_err(|error| {
        if !asked {
            return error.into();
        }
        eprintln!("note: stopped early: {error}");
        Failure::Interrupted
    })
}

/// What a bar counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    Bytes,
    Things,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_measured_is_an_interruption_only_after_ctrl_c() {
        let nothing = || Err::<(), _>(EvalError::Nothing("nothing was scored".into()));
        assert!(matches!(ended(nothing(), true), Err(Failure::Interrupted)));
        assert!(matches!(ended(nothing(), false), Err(Failure::Failed(_))));
        // What there is by then is a result.
        assert!(matches!(ended(Ok(1), true), Ok(1)));
    }
}
