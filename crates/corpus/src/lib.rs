//! Documents of law from the forms in which they are published.
//!
//! In flow original files ([`parse`]), JSON lines and Parquet ([`texts`]) and the stages of kl3m-data ([`kl3m_data`]); out flow
//! Markdown texts with what is known of each.

pub mod audit;
pub mod build;
pub mod clean;
pub mod decontaminate;
pub mod dedup;
pub mod document;
pub mod kl3m_data;
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
