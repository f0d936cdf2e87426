//! Whole stages at once: objects from a store to a folder that `corpus build` reads, and a finished corpus to a store.

use super::{
    Kl3mDataError, Stage, Store, index_key,
    parquet::{ExportRow, TokenRecord, write_export},
    records::{Index, ParsedDocument, Representation, Representations, SourceDocument},
};
use crate::{
    audit::{AuditError, record},
    document::{Document, Rows},
    shards::ShardReader,
};
use rayon::prelude::*;
use serde_json::{Map, Value};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

/// Form of a corpus' texts.
const MARKDOWN: &str = "text/markdown";

/// A transfer that did not come to its end. What was written stays, and the same transfer goes on from there.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// The store, or an object in it.
    #[error(transparent)]
    Store(#[from] Kl3mDataError),
    /// The corpus.
    #[error(transparent)]
    Corpus(#[from] AuditError),
    /// A text that cannot be encoded.
    #[error("cannot encode the text of {id}: {reason}")]
    Encode {
        /// The document.
        id: String,
        /// Why.
        reason: String,
    },
    /// The user asked to stop.
    #[error("stopped")]
    Stopped,
    /// Nothing to transfer.
    #[error("{location} has no objects of {stages}")]
    Nothing {
        /// The store.
        location: String,
        /// What was looked for.
        stages: String,
    },
}

/// What a transfer did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Transferred {
    /// Objects written.
    pub written: u64,
    /// Objects that were there already.
    pub there: u64,
    /// Bytes written.
    pub bytes: u64,
}

/// Hears of a transfer, and may stop it.
#[derive(Clone, Copy)]
pub struct Transfer<'a> {
    /// Called with the number of objects done and, where it is known, of all.
    pub progress: &'a (dyn Fn(u64, Option<u64>) + Sync),
    /// Whether to stop.
    pub stop: &'a (dyn Fn() -> bool + Sync),
}

/// Copies objects of `stages` from one store to another; those that are there already are not read again. `datasets`: only
/// these. `limit`: at most so many of each stage, and of each dataset where datasets are named.
///
/// # Errors
/// When a store cannot be reached, read or written, and when it has no such objects.
pub fn fetch(
    from: &Store,
    to: &Store,
    stages: &[Stage],
    datasets: &[String],
    limit: Option<usize>,
    transfer: Transfer<'_>,
) -> Result<Transferred, TransferError> {
    let mut keys = Vec::new();
    for stage in stages {
        let prefixes = match datasets {
            names if names.is_empty() || *stage == Stage::Index => vec![format!("{}/", stage.folder())],
            names => names.iter().map(|name| stage.prefix(name)).collect(),
        };
        for prefix in prefixes {
            let mut found = from.list(&prefix)?;
            if *stage == Stage::Index && !datasets.is_empty() {
                found.retain(|key| datasets.iter().any(|name| index_key(name) == *key));
            }
            found.truncate(limit.unwrap_or(usize::MAX));
            keys.append(&mut found);
        }
    }
    if keys.is_empty() {
        let location = from.location().to_owned();
        let stages = stages.iter().map(|stage| stage.folder()).collect::<Vec<_>>().join(", ");
        return Err(TransferError::Nothing { location, stages });
    }
    let mut there: BTreeSet<String> = BTreeSet::new();
    for stage in stages {
        there.extend(to.list(&format!("{}/", stage.folder()))?);
    }
    let all = keys.len() as u64;
    let done = AtomicU64::new(0);
    let copy = |key: &String| -> Result<Transferred, TransferError> {
        if (transfer.stop)() {
            return Err(TransferError::Stopped);
        }
        let mut one = Transferred { there: 1, ..Transferred::default() };
        if !there.contains(key) {
            let bytes = from.get(key)?;
            to.put(key, &bytes)?;
            one = Transferred { written: 1, there: 0, bytes: bytes.len() as u64 };
        }
        (transfer.progress)(done.fetch_add(1, Ordering::Relaxed) + 1, Some(all));
        Ok(one)
    };
    keys.par_iter().map(copy).try_reduce(Transferred::default, |one, two| Ok(one.and(two)))
}

/// A tokenizer, by its name in the records.
#[derive(Clone, Copy)]
pub struct Encoder<'a> {
    /// Its name.
    pub name: &'a str,
    /// Ids of a text; what went wrong otherwise.
    pub encode: &'a (dyn Fn(&str) -> Result<Vec<u32>, String> + Sync),
}

impl Encoder<'_> {
    fn ids(&self, document: &Document) -> Result<Vec<u32>, TransferError> {
        let wrong = |reason| TransferError::Encode { id: document.id.clone(), reason };
        (self.encode)(&document.text).map_err(wrong)
    }
}

/// Writes the corpus in `folder` in kl3m-data's layout: for each document its text with Dublin Core metadata (`documents/`), its
/// Markdown (`representations/`), with an encoder also its ids (there and in `parquet/`), and an index for each dataset. A corpus
/// keeps texts and not the files that they were read from, so `documents/` holds the Markdown too, and says so in `format`.
///
/// # Errors
/// When the corpus cannot be read or the store cannot be written.
pub fn export(
    folder: &Path,
    to: &Store,
    encoder: Option<Encoder<'_>>,
    transfer: Transfer<'_>,
) -> Result<Transferred, TransferError> {
    let done = AtomicU64::new(0);
    let mut sum = Transferred::default();
    let mut indexes: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let record = record(folder)?;
    for shard in &record.shards {
        for batch in ShardReader::open(&folder.join(&shard.path)).map_err(AuditError::from)? {
            let batch = batch.map_err(AuditError::from)?;
            let Ok(rows) = Rows::of(&batch) else { continue };
            let write = |row: usize| -> Result<(String, String, Transferred), TransferError> {
                if (transfer.stop)() {
                    return Err(TransferError::Stopped);
                }
                let document = rows.document(row);
                let (key, one) = write_document(&document, &shard.part, to, encoder)?;
                (transfer.progress)(done.fetch_add(1, Ordering::Relaxed) + 1, Some(record.documents));
                Ok((document.dataset, key, one))
            };
            let written: Vec<_> = (0..rows.len()).into_par_iter().map(write).collect::<Result<_, _>>()?;
            for (dataset, key, one) in written {
                indexes.entry(dataset).or_default().push(key);
                sum = sum.and(one);
            }
        }
    }
    for (dataset, objects) in indexes {
        let metadata = Map::from_iter([("count".to_owned(), Value::from(objects.len()))]);
        let bytes = Index { objects, metadata }.to_bytes()?;
        sum = sum.and(Transferred { written: 1, there: 0, bytes: bytes.len() as u64 });
        to.put(&index_key(&dataset), &bytes)?;
    }
    Ok(sum)
}

fn write_document(
    document: &Document,
    part: &str,
    to: &Store,
    encoder: Option<Encoder<'_>>,
) -> Result<(String, Transferred), TransferError> {
    let mut sum = Transferred::default();
    let mut put = |key: &str, bytes: Vec<u8>| -> Result<(), TransferError> {
        sum = sum.and(Transferred { written: 1, there: 0, bytes: bytes.len() as u64 });
        Ok(to.put(key, &bytes)?)
    };
    let (dataset, id) = (&document.dataset, object_id(&document.id));
    let metadata = metadata(document, part);
    let content = document.text.clone().into_bytes();
    let key = Stage::Documents.key(dataset, &id);
    put(&key, SourceDocument { content, metadata: metadata.clone() }.to_json()?)?;
    let ids =
        encoder.map(|encoder| Ok::<_, TransferError>((encoder.name, encoder.ids(document)?))).transpose()?;
    if let Some((_, ids)) = &ids {
        let representations = vec![(MARKDOWN.to_owned(), ids.clone())];
        let token_record = TokenRecord { identifier: document.id.clone(), representations };
        put(&Stage::Parquet.key(dataset, &id), token_record.to_bytes()?)?;
    }
    let representation = Representation {
        content: document.text.clone(),
        tokens: ids.into_iter().map(|(name, ids)| (name.to_owned(), ids)).collect(),
        mime_type: MARKDOWN.to_owned(),
    };
    let parsed = ParsedDocument {
        source: document.source.clone(),
        identifier: Some(document.id.clone()),
        original_uri: Some(key),
        representations: BTreeMap::from([(MARKDOWN.to_owned(), representation)]),
        metadata,
        success: true,
        ..ParsedDocument::default()
    };
    let key = Stage::Representations.key(dataset, &id);
    put(&key, Representations { documents: vec![parsed] }.to_json()?)?;
    Ok((key, sum))
}

/// Dublin Core, and what else is known.
fn metadata(document: &Document, part: &str) -> Map<String, Value> {
    let mut fields: Map<String, Value> =
        document.extras.iter().map(|(name, value)| (name.clone(), Value::from(value.as_str()))).collect();
    let known = [
        ("identifier", Some(&document.id)),
        ("dataset", Some(&document.dataset)),
        ("source", document.source.as_ref()),
        ("title", document.title.as_ref()),
        ("url", document.url.as_ref()),
        ("date", document.date.as_ref()),
        ("license", Some(&document.license)),
        ("license_basis", document.license_basis.as_ref()),
        ("blake3", Some(&document.blake3)),
        ("original_format", Some(&document.mime_type)),
    ];
    for (name, value) in known {
        if let Some(value) = value {
            fields.insert(name.to_owned(), Value::from(value.as_str()));
        }
    }
    fields.insert("format".to_owned(), MARKDOWN.into());
    fields.insert("part".to_owned(), part.into());
    fields
}

/// A document's name as one part of keys: every byte that is no letter, digit, `-`, `_`, `:` or `.` (but for one at the start, which
/// hides files) as `%` and two digits. Slashes too: else a document named `t1` would stand where the folder of `t1/s1` has to be.
fn object_id(id: &str) -> String {
    let mut name = String::new();
    for byte in id.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b':' => name.push(char::from(byte)),
            b'.' if !name.is_empty() => name.push('.'),
            _ => name.push_str(&format!("%{byte:02X}")),
        }
    }
    // File systems hold names of 255 bytes.
    if name.len() > 200 {
        name.truncate(130);
        name.push('-');
        name.push_str(blake3::hash(id.as_bytes()).to_hex().as_str());
    }
    name
}

/// Writes the corpus in `folder` as Parquet for the Hugging Face Hub: `data/PART-NNNNN.parquet`, one for each shard, with
/// `identifier`, `dataset`, `mime_type` and `tokens`.
///
/// # Errors
/// When the corpus cannot be read, a text cannot be encoded, or the store cannot be written.
pub fn export_tokens(
    folder: &Path,
    to: &Store,
    encoder: Encoder<'_>,
    transfer: Transfer<'_>,
) -> Result<Transferred, TransferError> {
    let record = record(folder)?;
    let mut sum = Transferred::default();
    let mut numbers: BTreeMap<&str, usize> = BTreeMap::new();
    let done = AtomicU64::new(0);
    for shard in &record.shards {
        let mut rows_of_shard = Vec::new();
        for batch in ShardReader::open(&folder.join(&shard.path)).map_err(AuditError::from)? {
            let batch = batch.map_err(AuditError::from)?;
            let Ok(rows) = Rows::of(&batch) else { continue };
            let encode = |row: usize| -> Result<ExportRow, TransferError> {
                if (transfer.stop)() {
                    return Err(TransferError::Stopped);
                }
                let document = rows.document(row);
                let tokens = encoder.ids(&document)?;
                (transfer.progress)(done.fetch_add(1, Ordering::Relaxed) + 1, Some(record.documents));
                let (identifier, dataset) = (document.id, document.dataset);
                Ok(ExportRow { identifier, dataset, mime_type: MARKDOWN.to_owned(), tokens })
            };
            let encoded: Vec<_> = (0..rows.len()).into_par_iter().map(encode).collect::<Result<_, _>>()?;
            rows_of_shard.extend(encoded);
        }
        let mut bytes = Vec::new();
        write_export(rows_of_shard.into_iter().map(Ok), &mut bytes)?;
        let number = numbers.entry(&shard.part).or_default();
        sum = sum.and(Transferred { written: 1, there: 0, bytes: bytes.len() as u64 });
        to.put(&format!("data/{}-{number:05}.parquet", shard.part), &bytes)?;
        *number += 1;
    }
    Ok(sum)
}

impl Transferred {
    fn and(self, other: Self) -> Self {
        Self {
            written: self.written + other.written,
            there: self.there + other.there,
            bytes: self.bytes + other.bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_document_is_one_part_of_a_key() {
        assert_eq!(object_id("usc-1.2"), "usc-1.2");
        assert_eq!(object_id("usc:/us/usc/t31"), "usc:%2Fus%2Fusc%2Ft31");
        assert_eq!(object_id("../x"), "%2E.%2Fx");
        assert_ne!(object_id(&"a/".repeat(300)), object_id(&"a/".repeat(301)));
    }

    proptest! {
        #[test]
        fn any_id_makes_a_key_that_stores_take(id in ".{1,400}") {
            let dir = tempfile::tempdir().unwrap();
            let store = Store::open(dir.path().to_str().unwrap(), &super::super::StoreOptions::default()).unwrap();
            let key = Stage::Documents.key("set", &object_id(&id));
            store.put(&key, b"x").unwrap();
            prop_assert_eq!(store.list("documents/set/").unwrap(), [key]);
        }
    }
}
