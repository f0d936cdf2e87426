//! From documents to rows that a trainer learns from.
//!
//! In flow a corpus, a tokenizer and supervised examples; out flows a token store, and from it rows of token ids with what
//! each token is to predict: [`Row`], by [`StreamConfig`].

pub mod manifest;
mod row;

pub use manifest::Manifest;
pub use row::{IGNORED, Kind, Padding, Row, RowPart, Segments, StreamConfig};
