//! `blackletter push`

use crate::{failure::Failure, output};
use blackletter_evals::markdown::counted;
use blackletter_hub::{Repository, Settings, plan, push};
use indicatif::{ProgressBar, ProgressStyle};
use std::path::PathBuf;

/// Commit a model directory to a repository of the Hugging Face Hub
///
/// Without --publish nothing is sent: the files that would be are listed. Large files go where the Hub keeps them (LFS); those that
/// it has already are not sent again. HF_TOKEN, or having logged in, gives the right to write; HF_ENDPOINT names another Hub.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "EXAMPLE:\n  blackletter push owner/nano --model ./nano --publish --message \"First version\""
)]
pub struct Args {
    /// The repository, owner/name[@branch]; it is made if it is not there.
    #[arg(value_name = "OWNER/NAME")]
    repository: Repository,
    /// The model's directory.
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// Do it.
    #[arg(long)]
    publish: bool,
    /// What the commit says.
    #[arg(long, value_name = "TEXT", default_value = "Upload model with blackletter")]
    message: String,
    /// Make the repository a private one, if it is not there.
    #[arg(long)]
    private: bool,
}

impl Args {
    pub fn run(self) -> Result<(), Failure> {
        let files = plan(&self.model)?;
        if !self.publish {
            let mut text = format!("would commit to {}:\n", self.repository);
            for file in &files {
                text.push_str(&format!("  {} ({})\n", file.name, counted(file.bytes, "byte")));
            }
            text.push_str("nothing was sent; add --publish to do it\n");
            return output::print(text);
        }
        let template = "{wide_bar} {decimal_bytes}/{decimal_total_bytes}";
        let bar = ProgressBar::new(0).with_style(ProgressStyle::with_template(template)?);
        let pushed = push(
            &self.repository,
            &files,
            &self.message,
            self.private,
            &Settings::from_env(),
            &|done, of| {
                bar.set_length(of);
                bar.set_position(done);
            },
        )?;
        bar.finish_and_clear();
        let commit = pushed.commit.map(|commit| format!(" as {commit}")).unwrap_or_default();
        output::print(format!(
            "committed {} to {}{commit}; {} of large files sent\n",
            counted(pushed.files as u64, "file"),
            self.repository,
            counted(pushed.sent, "byte")
        ))
    }
}
