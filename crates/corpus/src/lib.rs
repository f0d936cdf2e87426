//! Documents of law from the forms in which they are published.
//!
//! In flow original files ([`parse`]), JSON lines and Parquet ([`texts`]) and the stages of kl3m-data ([`kl3m_data`]); out flow
//! Markdown texts with what is known of each.

pub mod dedup;
pub mod document;
pub mod kl3m_data;
pub mod parse;
pub mod quality;
pub mod report;
pub mod shards;
pub mod texts;
