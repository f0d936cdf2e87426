//! `blackletter man`

use crate::{cli::Cli, failure::Failure, output};
use clap::CommandFactory;
use std::{fs, path::PathBuf};

/// Print the manual page
///
/// It is made from the same definitions as this help. With --out, one page is written for every command.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "EXAMPLE:\n  blackletter man | man -l -\n  blackletter man --out ~/.local/share/man/man1"
)]
pub struct Args {
    /// Write a page for each command into this directory, which is made if need be; without it, the page of
    /// `blackletter` itself goes to standard output.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

impl Args {
    pub fn run(self) -> Result<(), Failure> {
        let Some(dir) = self.out else {
            let mut page = Vec::new();
            clap_mangen::Man::new(Cli::command()).render(&mut page)?;
            return output::print(page);
        };
        let failed = |e| Failure::failed(format!("cannot write manual pages to {}: {e}", dir.display()));
        fs::create_dir_all(&dir).map_err(failed)?;
        clap_mangen::generate_to(Cli::command(), &dir).map_err(failed)
    }
}
