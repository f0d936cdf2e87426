//! Sources and parsers to documents, quality, licence gate, deduplication, Parquet

pub mod kl3m_data;
pub mod parse;
pub mod texts;
