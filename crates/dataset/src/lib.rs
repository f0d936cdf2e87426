//! From documents to rows that a trainer learns from.
//!
//! In flow a corpus, a tokenizer and supervised examples; [`build`] makes a [`TokenStore`] of them; out of that flow [`Row`]s
//! of token ids with what each token is to predict ([`RowStream`]). Notable choices:
//!
//! - a store is Arrow IPC that is read in place, with dataset and licence of every document, and a [`Manifest`] of counts and
//!   hashes; the same inputs give the same bytes;
//! - a row is a function of the settings, the epoch and its number: resuming is exact, and workers cannot change the stream;
//! - documents are cut anew each epoch where their text has its best breaks, and no segment crosses documents.

mod breaks;
mod build;
pub mod derive;
mod draw;
mod error;
pub mod example;
pub mod manifest;
mod pack;
mod row;
mod segment;
pub mod show;
mod store;
mod stream;
mod table;

pub use breaks::{Break, Breaks};
pub use build::{Inputs, Progress, Rights, build};
pub use error::DatasetError;
pub use manifest::Manifest;
pub use row::{IGNORED, Kind, Padding, Row, RowPart, Segments, StreamConfig};
pub use store::{Split, TokenStore};
pub use stream::RowStream;
pub use table::{Entry, Table, Tokens};
