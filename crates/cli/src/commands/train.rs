//! `blackletter train`

use super::training_view::View;
use crate::{failure::Failure, interrupt, output};
use blackletter_trainer::{ConfigError, Outcome, RunConfig, TrainError, config::DEFAULT, train};
use std::path::PathBuf;

/// Train a model
///
/// The run is described by a TOML file; `--print-config` prints one that is complete, with every key's default and meaning.
/// It writes into the run's directory: the configuration as run, metrics.jsonl, TensorBoard events, curves.svg,
/// samples.jsonl, checkpoints. Ctrl-C or SIGTERM saves and ends it; a run that was ended or killed goes on with `--resume`,
/// to the same losses.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "EXAMPLES:\n  blackletter train --print-config > run.toml\n  blackletter train run.toml --set schedule.steps=200 --set run=runs/short\n  blackletter train run.toml --resume"
)]
pub struct Args {
    /// The run's file.
    #[arg(value_name = "RUN.toml", required_unless_present = "print_config")]
    file: Option<PathBuf>,
    /// Go on from the run's last whole checkpoint.
    #[arg(long)]
    resume: bool,
    /// Put a value over the file's, such as schedule.steps=200; may be given more than once.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    settings: Vec<String>,
    /// Print a complete configuration with every key's default and meaning; with RUN.toml, print that as it would be run.
    #[arg(long)]
    print_config: bool,
}

impl Args {
    pub fn run(self) -> Result<(), Failure> {
        let Some(file) = self.file else { return output::print(DEFAULT) };
        let config = RunConfig::load(&file, &self.settings).map_err(refused)?;
        if self.print_config {
            return output::print(config.to_toml());
        }
        interrupt::catch()?;
        let mut view = View::new();
        let outcome = train(&config, self.resume, &interrupt::asked, &mut |event| view.show(&event));
        view.end();
        match outcome {
            Ok(Outcome::Finished) => Ok(()),
            Ok(Outcome::Stopped) => {
                eprintln!("stopped and saved: go on with `blackletter train {} --resume`", file.display());
                Err(Failure::Interrupted)
            }
            Err(TrainError::Config(e)) => Err(refused(e)),
            Err(e) => Err(e.into()),
        }
    }
}

/// A configuration that cannot be followed is wrong usage.
fn refused(error: ConfigError) -> Failure {
    Failure::usage(error)
}
