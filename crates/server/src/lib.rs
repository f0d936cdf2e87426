//! An OpenAI-compatible HTTP server for one model, and a page to try it on.
//!
//! In flow HTTP requests; out flow completions, whole or streamed. From the outside to the inside:
//!
//! - `listen`: connections, their limits, and the orderly end; `auth`: keys;
//! - [`api`]: what may be asked ([`api::completions`], [`api::chat`]) and how it is answered; `error`: how it is refused;
//! - `answer`: tokens to text, stop texts, log-probabilities; `template`: conversations to prompts;
//! - `scheduler`: the thread that owns the running batch;
//! - `page`: the page at `/`; `about`: what the model is; `telemetry`: figures for Prometheus.
//!
//! Notable choices: one engine thread steps all requests together, and they join and leave between tokens; a reply is a function of
//! the request alone, because the engine's are; whoever hangs up frees a place at the next token.

mod about;
pub mod answer;
pub mod api;
mod auth;
mod error;
mod listen;
mod page;
mod refusal;
mod scheduler;
mod settings;
mod state;
mod telemetry;
pub mod template;

pub use error::ApiError;
pub use listen::{Running, ServeError, serve, start};
pub use settings::{Keys, Settings};
