//! The layout of kl3m-data: what was collected, parsed and tokenized, as objects in a folder or an S3 bucket.
//!
//! ```text
//! documents/<dataset>/<id>.json        SourceDocument    bytes as collected, with Dublin Core metadata
//! representations/<dataset>/<id>.json  Representations   texts by MIME type, with token ids by tokenizer
//! parquet/<dataset>/<id>               TokenRecord       token ids by MIME type, zlib around Parquet
//! index/<dataset>.json.gz              Index             keys of a dataset's representations
//! ```
//!
//! [`Store`] reads and writes the objects wherever they are; [`records`] and [`parquet`] turn them into values and back;
//! [`parquet::write_export`] makes the Parquet that is published on the Hugging Face Hub; [`transfer`] moves whole stages. Sizes are bounded: an object that
//! inflates beyond [`LARGEST`] is refused.

pub mod parquet;
pub mod records;
mod store;
pub mod transfer;

pub use store::{Entry, Store, StoreOptions};

use flate2::{Compression, read::ZlibDecoder, write::ZlibEncoder};
use std::io::{self, Read, Write};

/// The most bytes that one object may inflate to.
pub const LARGEST: u64 = 1 << 30;

/// An object cannot be read, written or understood.
#[derive(Debug, thiserror::Error)]
pub enum Kl3mDataError {
    /// The place cannot be used.
    #[error("cannot use {location} as a store: {reason}")]
    Location {
        /// Folder or `s3://` address.
        location: String,
        /// Why.
        reason: String,
    },
    /// There is no such object.
    #[error("{location} has no object {key}")]
    Missing {
        /// The store.
        location: String,
        /// The object.
        key: String,
    },
    /// Reading, writing or listing failed.
    #[error("cannot {action} {key} in {location}: {reason}")]
    Access {
        /// `read`, `write` or `list`.
        action: &'static str,
        /// The store.
        location: String,
        /// The object, or the prefix that was listed.
        key: String,
        /// Why.
        reason: String,
    },
    /// A key that could lead out of the store, or that no store can hold.
    #[error("{key:?} cannot be the key of an object: {reason}")]
    Key {
        /// The key.
        key: String,
        /// Why.
        reason: &'static str,
    },
    /// The object is not what its place says.
    #[error("{what} cannot be understood: {reason}")]
    Format {
        /// What was being read.
        what: &'static str,
        /// What is wrong.
        reason: String,
    },
}

/// A stage of the layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// As collected.
    Documents,
    /// As parsed.
    Representations,
    /// As tokenized.
    Parquet,
    /// The keys of the parsed objects.
    Index,
}

impl Stage {
    fn folder(self) -> &'static str {
        match self {
            Self::Documents => "documents",
            Self::Representations => "representations",
            Self::Parquet => "parquet",
            Self::Index => "index",
        }
    }

    /// The prefix of a dataset's objects.
    pub fn prefix(self, dataset: &str) -> String {
        format!("{}/{dataset}/", self.folder())
    }

    /// The key of a document's object; of its dataset's, in the index.
    pub fn key(self, dataset: &str, id: &str) -> String {
        if self == Self::Index {
            return index_key(dataset);
        }
        let ending = if self == Self::Parquet { "" } else { ".json" };
        format!("{}{id}{ending}", self.prefix(dataset))
    }

    /// The document that a key of this stage is of.
    pub fn id<'k>(self, dataset: &str, key: &'k str) -> Option<&'k str> {
        let id = key.strip_prefix(&self.prefix(dataset))?;
        if self == Self::Parquet { Some(id) } else { id.strip_suffix(".json") }
    }
}

/// The key of a dataset's index.
pub fn index_key(dataset: &str) -> String {
    format!("index/{dataset}.json.gz")
}

fn deflate(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes)?;
    encoder.finish()
}

fn inflate(what: &'static str, bytes: &[u8]) -> Result<Vec<u8>, Kl3mDataError> {
    bounded(what, ZlibDecoder::new(bytes))
}

/// All that `source` gives, unless it is more than [`LARGEST`].
fn bounded(what: &'static str, source: impl Read) -> Result<Vec<u8>, Kl3mDataError> {
    let wrong = |reason| Kl3mDataError::Format { what, reason };
    let mut bytes = Vec::new();
    source.take(LARGEST + 1).read_to_end(&mut bytes).map_err(|e| wrong(format!("its compression: {e}")))?;
    if bytes.len() as u64 > LARGEST {
        return Err(wrong(format!("it inflates to more than {LARGEST} bytes")));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_name_stage_dataset_and_document() {
        assert_eq!(Stage::Documents.key("usc", "t1/s1"), "documents/usc/t1/s1.json");
        assert_eq!(Stage::Representations.key("usc", "t1/s1"), "representations/usc/t1/s1.json");
        assert_eq!(Stage::Parquet.key("usc", "t1/s1"), "parquet/usc/t1/s1");
        assert_eq!(Stage::Parquet.id("usc", "parquet/usc/t1/s1"), Some("t1/s1"));
        assert_eq!(Stage::Documents.id("usc", "documents/usc/t1/s1.json"), Some("t1/s1"));
        assert_eq!(Stage::Documents.id("usc", "documents/fr/x.json"), None);
        assert_eq!(index_key("usc"), "index/usc.json.gz");
    }

    #[test]
    fn what_is_not_compressed_is_refused() {
        let error = inflate("a test", b"plain").unwrap_err().to_string();
        assert!(error.starts_with("a test cannot be understood: its compression"), "{error}");
        assert_eq!(inflate("a test", &deflate(b"text").unwrap()).unwrap(), b"text");
    }
}
