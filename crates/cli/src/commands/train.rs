//! `blackletter train`

use super::{corpus::Progress, training_view::View};
use crate::{failure::Failure, interrupt, output};
use blackletter_corpus::steps::Watch;
use blackletter_trainer::{
    ConfigError, Outcome, RunConfig, TrainError, config::DEFAULT, prepare_own_data, ranks::Ranks, train,
};
use std::path::PathBuf;

/// Train a model
///
/// The run is described by a TOML file; `--print-config` prints one that is complete, with every key's default and meaning.
/// It writes into the run's directory: the configuration as run, metrics.jsonl, TensorBoard events, curves.svg
/// and curves.png, samples.jsonl, checkpoints. Ctrl-C or SIGTERM saves and ends it; a run that was ended or killed goes on with `--resume`,
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

/// Train a model further, as a whole or through a low-rank adapter
///
/// The same runs as `train`, from the weights of a model: model.from names it, data.texts files and folders of text, data.examples
/// JSON lines of examples, or data.store a token store made with the model's tokenizer (`dataset build`). With adapter.rank above 0 only an adapter (LoRA) is
/// trained, which is in the run's folder `adapter` in PEFT's format: `generate --adapter` uses it, `merge` puts it into the
/// weights. Without it all weights are, and `export` writes the model.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "EXAMPLES:\n  blackletter finetune run.toml --set model.from=models/nano --set data.texts=contracts/ --set data.license=LicenseRef-mine\n  \
                  blackletter finetune run.toml --set model.from=models/nano --set data.examples=examples.jsonl --set adapter.rank=16\n  blackletter finetune run.toml --resume"
)]
pub struct Finetune {
    #[command(flatten)]
    args: Args,
}

impl Finetune {
    pub fn run(self) -> Result<(), Failure> {
        self.args.start(true)
    }
}

impl Args {
    pub fn run(self) -> Result<(), Failure> {
        self.start(false)
    }

    fn start(self, from_model: bool) -> Result<(), Failure> {
        let Some(file) = self.file else {
            return match self.settings.is_empty() {
                true => output::print(DEFAULT),
                false => Err(Failure::usage("--set changes a run's file: name one, RUN.toml")),
            };
        };
        let mut config = RunConfig::load(&file, &self.settings).map_err(refused)?;
        if from_model && config.model.from.is_empty() {
            return Err(Failure::usage(
                "model.from = \"\" is not usable: finetune needs the directory of a model",
            ));
        }
        if self.print_config {
            return output::print(config.to_toml());
        }
        interrupt::catch()?;
        let progress = Progress::new()?;
        let watch = Watch { event: &|event| progress.hear(event), stop: &interrupt::asked };
        match prepare_own_data(&mut config, self.resume, watch) {
            Ok(notes) => notes.iter().for_each(|note| eprintln!("note: {note}")),
            Err(TrainError::Texts(e)) if e.is_stop() => return Err(Failure::Interrupted),
            Err(e @ TrainError::Changed { .. }) => return Err(Failure::usage(e)),
            Err(e) => return Err(e.into()),
        }
        let mut view = View::new();
        let outcome = train(&config, self.resume, &interrupt::asked, &mut |event| view.show(&event));
        view.end();
        if outcome.is_ok() {
            Ranks::join().leave();
        }
        match outcome {
            Ok(Outcome::Finished) => Ok(()),
            Ok(Outcome::Stopped) => {
                let command = if from_model { "finetune" } else { "train" };
                if Ranks::join().is_first() {
                    eprintln!(
                        "stopped and saved: go on with `blackletter {command} {} --resume`",
                        file.display()
                    );
                }
                Err(Failure::Interrupted)
            }
            Err(TrainError::Config(e)) => Err(refused(e)),
            Err(e @ TrainError::Changed { .. }) => Err(Failure::usage(e)),
            Err(e) => Err(e.into()),
        }
    }
}

/// A configuration that cannot be followed is wrong usage.
fn refused(error: ConfigError) -> Failure {
    Failure::usage(error)
}
