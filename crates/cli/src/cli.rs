//! Which commands there are.

#[cfg(feature = "hub")]
use crate::commands::push;
use crate::{
    commands::{
        audit, bench, bom, completions, corpus, dataset, eval, export, extract, generate, inspect, loss, man,
        merge, quantize, report, score, serve, sign, surgery, tokenizer, trace, train,
    },
    failure::Failure,
};
use clap::{Parser, Subcommand};

/// Legal language models that anyone can audit: run them, measure them, see what they were made from.
///
/// Results go to standard output, everything else to standard error. Exit codes: 0 done, 1 failed, 2 wrong usage, 130
/// ended by Ctrl-C.
#[derive(Debug, Parser)]
#[command(name = "blackletter", version, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    Generate(generate::Args),
    Score(score::Args),
    Extract(extract::Args),
    Serve(serve::Args),
    Inspect(inspect::Args),
    Quantize(quantize::Args),
    Train(train::Args),
    Finetune(train::Finetune),
    Export(export::Args),
    Merge(merge::Args),
    #[command(subcommand)]
    Surgery(surgery::Command),
    Loss(loss::Args),
    #[command(subcommand)]
    Bench(bench::Command),
    Completions(completions::Args),
    Man(man::Args),
    #[command(subcommand)]
    Corpus(corpus::Command),
    #[command(subcommand)]
    Tokenizer(tokenizer::Command),
    #[command(subcommand)]
    Dataset(dataset::Command),
    #[command(subcommand)]
    Eval(eval::Command),
    Audit(audit::Args),
    Bom(bom::Args),
    Sign(sign::SignArgs),
    Verify(sign::VerifyArgs),
    Report(report::Args),
    Index(trace::IndexArgs),
    Trace(trace::TraceArgs),
    #[cfg(feature = "hub")]
    Push(push::Args),
}

impl Command {
    /// Runs the command.
    ///
    /// # Errors
    /// Whatever ends it early.
    pub fn run(self) -> Result<(), Failure> {
        match self {
            Self::Generate(args) => args.run(),
            Self::Score(args) => args.run(),
            Self::Extract(args) => args.run(),
            Self::Serve(args) => args.run(),
            Self::Inspect(args) => args.run(),
            Self::Quantize(args) => args.run(),
            Self::Train(args) => args.run(),
            Self::Finetune(args) => args.run(),
            Self::Export(args) => args.run(),
            Self::Merge(args) => args.run(),
            Self::Surgery(command) => command.run(),
            Self::Loss(args) => args.run(),
            Self::Bench(command) => command.run(),
            Self::Completions(args) => args.run(),
            Self::Man(args) => args.run(),
            Self::Corpus(command) => command.run(),
            Self::Tokenizer(command) => command.run(),
            Self::Dataset(command) => command.run(),
            Self::Eval(command) => command.run(),
            Self::Audit(args) => args.run(),
            Self::Bom(args) => args.run(),
            Self::Sign(args) => args.run(),
            Self::Verify(args) => args.run(),
            Self::Report(args) => args.run(),
            Self::Index(args) => args.run(),
            Self::Trace(args) => args.run(),
            #[cfg(feature = "hub")]
            Self::Push(args) => args.run(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn argument_definitions_do_not_contradict_each_other() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_shows_an_example() {
        fn check(command: &clap::Command, path: &str) {
            for child in command.get_subcommands().filter(|c| c.get_name() != "help") {
                let path = format!("{path} {}", child.get_name());
                if child.has_subcommands() {
                    check(child, &path);
                    continue;
                }
                let example = child.get_after_help().or(child.get_after_long_help()).map(ToString::to_string);
                let example = example.unwrap_or_default();
                assert!(example.contains(&path), "{path}: no example in its help");
                for argument in child.get_arguments() {
                    let help = argument.get_long_help().or(argument.get_help());
                    assert!(help.is_some(), "{path}: {} has no help", argument.get_id());
                }
            }
        }
        let mut command = Cli::command();
        command.build();
        check(&command, "blackletter");
    }
}
