//! Text that may lawfully be trained on, from the forms in which it is published.
//!
//! In flow sources that a [`recipe`] names: original files ([`parse`]), JSON lines, Parquet and the stages of kl3m-data
//! ([`source`], [`kl3m_data`]). Out flows a corpus ([`build`]): [`document::Document`]s in Parquet [`shards`] with licence,
//! hash and quality of each, a [`report`] in which nothing vanishes, and the record that [`audit`] computes anew.
//!
//! - What happens in between are [`steps`] on Arrow record batches; what they decide by are pure functions of a text:
//!   [`clean`], [`pii`], [`quality`], [`rules`], [`dedup`], [`decontaminate`].
//! - [`look`] sums up a corpus and finds a document in it; [`texts`] hands its texts to a tokenizer.

pub mod audit;
pub mod audit_model;
pub mod build;
pub mod clean;
pub mod consumed;
pub mod decontaminate;
pub mod dedup;
pub mod document;
pub mod kl3m_data;
pub mod look;
pub mod parse;
pub mod pii;
pub mod quality;
pub mod recipe;
pub mod report;
mod report_markdown;
pub mod rules;
pub mod shards;
pub mod source;
pub mod steps;
pub mod texts;
