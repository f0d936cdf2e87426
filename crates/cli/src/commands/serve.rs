//! `blackletter serve`

use super::model::ModelOptions;
use crate::failure::Failure;
use blackletter_engine::Pipeline;
use blackletter_server::{Keys, Settings, serve};
use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

/// Serve a model over HTTP, as the OpenAI API does
///
/// Answers POST /v1/completions and /v1/chat/completions, GET /v1/models, /health, /ready, /metrics (Prometheus) and
/// /openapi.json, and shows a page to try the model on at /. Requests join and leave the running batch between tokens; the same
/// request with the same seed has the same answer, whatever else is in the batch. SIGTERM or Ctrl-C lets requests in
/// progress finish, for at most 20 seconds. docs/serving.md tells more.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "EXAMPLE:\n  blackletter serve --model ./kl3m-002-520m --dtype q8 --port 8080\n  curl http://127.0.0.1:8080/v1/completions -H 'Content-Type: application/json' -d '{\"prompt\": \"Under this\"}'"
)]
pub struct Args {
    #[command(flatten)]
    model: ModelOptions,
    /// The address to listen on. Beyond this machine, anybody can ask: give --api-key-file then.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1", help_heading = "Server")]
    host: IpAddr,
    /// The port to listen on, 0 for any that is free.
    #[arg(long, value_name = "N", default_value_t = 8080, help_heading = "Server")]
    port: u16,
    /// The model's name in requests and answers [default: the last part of --model].
    #[arg(long, value_name = "NAME", help_heading = "Server")]
    model_name: Option<String>,
    /// Let in only who brings a key of this file, one a line, as Authorization: Bearer KEY.
    #[arg(long, value_name = "FILE", help_heading = "Server")]
    api_key_file: Option<PathBuf>,
    /// Continuations that run together, 1 to 256.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=256), help_heading = "Limits")]
    max_concurrent: u16,
    /// Prompts that may wait for a place; who comes then is told to come again.
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..), help_heading = "Limits")]
    queue: u32,
    /// Bytes of a request's body.
    #[arg(long, value_name = "BYTES", default_value_t = 4 << 20, help_heading = "Limits")]
    max_body: u32,
    /// Tokens that one request may ask for, over all its prompts and continuations.
    #[arg(long, value_name = "N", default_value_t = 65_536, help_heading = "Limits")]
    max_request_tokens: u32,
    /// Seconds in which a request has to be answered whole.
    #[arg(long, value_name = "SECONDS", default_value_t = 600, value_parser = clap::value_parser!(u32).range(1..), help_heading = "Limits")]
    request_timeout: u32,
}

impl Args {
    pub fn run(self) -> Result<(), Failure> {
        let keys = match &self.api_key_file {
            Some(path) => Keys::read(path)
                .map_err(|e| Failure::failed(format!("cannot use the keys in {}: {e}", path.display())))?,
            None => Keys::default(),
        };
        if !self.host.is_loopback() && keys.is_empty() {
            eprintln!(
                "warning: anybody who reaches {} can use the model; --api-key-file lets in only who has a key",
                self.host
            );
        }
        let files = self.model.files()?;
        let pipeline = Pipeline::load(&files, &self.model.load_options(), true)?;
        let settings = Settings {
            address: SocketAddr::new(self.host, self.port),
            model: self.model_name.unwrap_or_else(|| self.model.served_name()),
            keys,
            max_concurrent: usize::from(self.max_concurrent),
            queue: self.queue as usize,
            max_body: self.max_body as usize,
            max_tokens: self.max_request_tokens as usize,
            request_timeout: Duration::from_secs(u64::from(self.request_timeout)),
            ..Settings::default()
        };
        serve(settings, pipeline, &files, |address| eprintln!("serving on http://{address}/"))?;
        Ok(())
    }
}
