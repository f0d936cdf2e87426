//! `blackletter completions`

use crate::{cli::Cli, failure::Failure, output};
use clap::CommandFactory;
use clap_complete::Shell;

/// Print shell completions
///
/// They are made from the same definitions as this help. Put them where your shell looks for them.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "EXAMPLE:\n  blackletter completions bash > ~/.local/share/bash-completion/completions/blackletter"
)]
pub struct Args {
    /// The shell to make them for.
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

impl Args {
    pub fn run(self) -> Result<(), Failure> {
        let mut text = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "blackletter", &mut text);
        output::print(text)
    }
}
