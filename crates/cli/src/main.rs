//! The `blackletter` command: arguments in, one call into a crate, output out.
//!
//! - [`cli`] says which commands there are; each is one file under [`commands`] with its arguments and its `run`.
//! - [`failure`] says how commands end when they fail, [`interrupt`] what Ctrl-C does, [`output`] how results reach
//!   standard output.
//!
//! Results go to standard output and nothing else does.

// Doc comments of arguments are help texts, in which brackets mean what is optional.
#![allow(rustdoc::broken_intra_doc_links)]

mod cli;
mod commands;
mod failure;
mod interrupt;
mod output;

use clap::{CommandFactory, FromArgMatches};
use std::process::ExitCode;

fn main() -> ExitCode {
    let ended = match cli::Cli::command().try_get_matches().and_then(|m| cli::Cli::from_arg_matches(&m)) {
        Ok(cli) => cli.command.run(),
        // Help and version are asked for and end well; all else is wrong usage. Nobody reading is no failure.
        Err(e) => {
            let code = u8::try_from(e.exit_code()).unwrap_or(2);
            let _ = e.print();
            return ExitCode::from(code);
        }
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
