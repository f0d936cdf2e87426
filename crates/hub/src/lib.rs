//! Models from the Hugging Face Hub.
//!
//! In flows the name of a repository ([`Repository`], `owner/name[@revision]`); out flows a directory of the Hub's
//! standard cache that holds what running the model takes ([`fetch()`]). The `hf-hub` crate speaks with the Hub; what is
//! added is that broken downloads go on where they stopped, that what has come is compared with the size and the SHA-256
//! that the Hub states, and that only the files of a model in safetensors format are fetched.
//!
//! The other way, [`push()`] commits a model directory to a repository.
//!
//! The environment is read as everywhere in this field: `HF_HOME`, `HF_HUB_CACHE`, `HF_TOKEN`, `HF_ENDPOINT`,
//! `HF_HUB_OFFLINE`.

mod cache;
mod download;
mod error;
mod fetch;
mod files;
mod hub;
mod payload;
mod push;
mod repository;

pub use error::HubError;
pub use fetch::{Fetched, Settings, fetch};
pub use push::{PushFile, Pushed, plan, push};
pub use repository::{Repository, RepositoryError};
