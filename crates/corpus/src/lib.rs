//! Sources and parsers to documents, quality, licence gate, deduplication, Parquet

pub mod texts;
