//! The list of documents that goes with a model: every document of its corpus, by name, licence and hash, and how many of
//! its tokens were trained on. It is Parquet, `documents.parquet` beside the weights.
//!
//! The hashes are those of whole documents, so that the corpus' root follows from the list alone.

use crate::{
    audit::{AuditError, record},
    document::Rows,
    shards::{ShardError, ShardReader},
};
use arrow_array::{Array, ArrayRef, RecordBatch, StringArray, UInt64Array};
use arrow_schema::{DataType, Field, Schema};
use blackletter_provenance::{
    SourceUse,
    hash::{FileHash, FileHasher, Root},
};
use parquet::{
    arrow::{ArrowWriter, arrow_reader::ParquetRecordBatchReaderBuilder},
    basic::{Compression, ZstdLevel},
    errors::ParquetError,
    file::properties::{EnabledStatistics, WriterProperties},
};
use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufWriter, Write},
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::Arc,
};

/// A document of a model's corpus.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConsumedDocument {
    /// Name, unique in the corpus.
    pub id: String,
    /// The collection that it is from.
    pub dataset: String,
    /// The part of the corpus: `train`, `heldout` or `all`.
    pub part: String,
    /// Who published it.
    pub source: Option<String>,
    /// Title.
    pub title: Option<String>,
    /// Licence, an SPDX expression.
    pub license: String,
    /// Why that licence holds.
    pub license_basis: Option<String>,
    /// Address.
    pub url: Option<String>,
    /// Where the source had it from, as it says.
    pub upstream: Option<String>,
    /// Bytes of text.
    pub text_bytes: u64,
    /// BLAKE3 of the text, in hexadecimal.
    pub blake3: String,
    /// Hash of the document (see [`blackletter_provenance::hash`]), in hexadecimal.
    pub hash: String,
    /// Tokens of it that went through the model, each as often as it did.
    pub tokens: u64,
}

/// Text columns in their order: name, whether a value may be missing.
const TEXTS: [(&str, bool); 11] = [
    ("id", false),
    ("dataset", false),
    ("part", false),
    ("source", true),
    ("title", true),
    ("license", false),
    ("license_basis", true),
    ("url", true),
    ("upstream", true),
    ("blake3", false),
    ("hash", false),
];
const NUMBERS: [&str; 2] = ["text_bytes", "tokens"];
const ROWS: usize = 4096;

impl ConsumedDocument {
    fn text(&self, column: usize) -> Option<&str> {
        match column {
            0 => Some(&self.id),
            1 => Some(&self.dataset),
            2 => Some(&self.part),
            3 => self.source.as_deref(),
            4 => self.title.as_deref(),
            5 => Some(&self.license),
            6 => self.license_basis.as_deref(),
            7 => self.url.as_deref(),
            8 => self.upstream.as_deref(),
            9 => Some(&self.blake3),
            _ => Some(&self.hash),
        }
    }
}

/// Every document of the corpus in `folder`, in the order of its shards, with what `tokens(part, id)` says of each.
///
/// # Errors
/// When the corpus is not finished or cannot be read.
pub fn of_corpus(
    folder: &Path,
    mut tokens: impl FnMut(&str, &str) -> u64,
) -> Result<Vec<ConsumedDocument>, AuditError> {
    let record = record(folder)?;
    let mut documents = Vec::new();
    for shard in &record.shards {
        let path = folder.join(&shard.path);
        for batch in ShardReader::open(&path)? {
            let batch = batch?;
            let rows = Rows::of(&batch)
                .map_err(|e| ShardError::Damaged { path: path.clone(), reason: e.to_string() })?;
            for row in 0..rows.len() {
                let hash = rows.hash(row);
                let document = rows.document(row);
                documents.push(ConsumedDocument {
                    part: shard.part.clone(),
                    text_bytes: document.text.len() as u64,
                    tokens: tokens(&shard.part, &document.id),
                    hash: hex(&hash),
                    upstream: document.extras.get("upstream").cloned(),
                    id: document.id,
                    dataset: document.dataset,
                    source: document.source,
                    title: document.title,
                    license: document.license,
                    license_basis: document.license_basis,
                    url: document.url,
                    blake3: document.blake3,
                });
            }
        }
    }
    Ok(documents)
}

fn hex(bytes: &[u8; 32]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The root over documents (see [`blackletter_provenance::hash`]); none when a hash is not one.
pub fn root<'d>(documents: impl IntoIterator<Item = &'d ConsumedDocument>) -> Option<String> {
    let mut root = Root::default();
    for document in documents {
        let mut hash = [0; 32];
        if document.hash.len() != 64 || !document.hash.is_ascii() {
            return None;
        }
        for (byte, at) in hash.iter_mut().zip((0..64).step_by(2)) {
            *byte = u8::from_str_radix(&document.hash[at..at + 2], 16).ok()?;
        }
        root.add(hash);
    }
    Some(root.finish())
}

/// Dataset, source, licence and basis.
type Origin<'d> = (&'d str, Option<&'d str>, &'d str, Option<&'d str>);

/// What documents come to by dataset, source, licence and basis.
pub fn sources(documents: &[ConsumedDocument]) -> Vec<SourceUse> {
    // Documents, bytes of text, tokens.
    let mut sums: BTreeMap<Origin<'_>, (u64, u64, u64)> = BTreeMap::new();
    for d in documents {
        let key = (d.dataset.as_str(), d.source.as_deref(), d.license.as_str(), d.license_basis.as_deref());
        let sum = sums.entry(key).or_default();
        sum.0 += 1;
        sum.1 += d.text_bytes;
        sum.2 += d.tokens;
    }
    let own = |text: Option<&str>| text.map(str::to_owned);
    sums.into_iter()
        .map(|((dataset, source, license, basis), (documents, text_bytes, tokens))| SourceUse {
            dataset: dataset.into(),
            source: own(source),
            license: license.into(),
            license_basis: own(basis),
            documents,
            text_bytes,
            tokens,
        })
        .collect()
}

/// The internet domains of documents' addresses with the number of documents, the most frequent first.
pub fn domains(documents: &[ConsumedDocument]) -> Vec<(String, u64)> {
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for url in documents.iter().filter_map(|d| d.url.as_deref()) {
        let Some((_, rest)) = url.split_once("://") else { continue };
        let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let host = host.rsplit('@').next().unwrap_or_default().split(':').next().unwrap_or_default();
        if !host.is_empty() {
            *counts.entry(host.to_lowercase()).or_default() += 1;
        }
    }
    let mut counts: Vec<(String, u64)> = counts.into_iter().collect();
    counts.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    counts
}

/// A file whose bytes are hashed as they are written.
struct Hashing<W>(W, FileHasher);

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.0.write(bytes)?;
        self.1.write(&bytes[..written])
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Writes the list to `path`; the same documents give the same bytes.
///
/// # Errors
/// When it cannot be written.
pub fn write(path: &Path, documents: &[ConsumedDocument]) -> Result<FileHash, ShardError> {
    let failed = |e: &dyn ToString| ShardError::Write { path: path.into(), reason: e.to_string() };
    let texts = TEXTS.iter().map(|&(name, nullable)| Field::new(name, DataType::Utf8, nullable));
    let numbers = NUMBERS.iter().map(|name| Field::new(*name, DataType::UInt64, false));
    let schema = Arc::new(Schema::new(texts.chain(numbers).collect::<Vec<_>>()));
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(9).map_err(|e| failed(&e))?))
        .set_created_by("blackletter".into())
        .set_statistics_enabled(EnabledStatistics::None)
        .build();
    let file = BufWriter::new(File::create(path).map_err(ShardError::file("write", path))?);
    let mut writer =
        ArrowWriter::try_new(Hashing(file, FileHasher::default()), schema.clone(), Some(properties))
            .map_err(|e| failed(&e))?;
    for rows in documents.chunks(ROWS) {
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(TEXTS.len() + NUMBERS.len());
        for column in 0..TEXTS.len() {
            columns.push(Arc::new(rows.iter().map(|d| d.text(column)).collect::<StringArray>()));
        }
        columns.push(Arc::new(UInt64Array::from_iter_values(rows.iter().map(|d| d.text_bytes))));
        columns.push(Arc::new(UInt64Array::from_iter_values(rows.iter().map(|d| d.tokens))));
        let batch = RecordBatch::try_new(schema.clone(), columns).map_err(|e| failed(&e))?;
        writer.write(&batch).map_err(|e| failed(&e))?;
    }
    let Hashing(mut file, hasher) = writer.into_inner().map_err(|e| failed(&e))?;
    file.flush().map_err(ShardError::file("write", path))?;
    Ok(hasher.finish())
}

/// Reads the list at `path`.
///
/// # Errors
/// When it is damaged or no such list.
pub fn read(path: &Path) -> Result<Vec<ConsumedDocument>, ShardError> {
    let file = File::open(path).map_err(ShardError::file("read", path))?;
    let damaged = |reason: String| ShardError::Damaged { path: path.into(), reason };
    // Damaged files make the reader panic in places; to the caller that is a damaged file too.
    let batches = catch_unwind(AssertUnwindSafe(|| -> Result<Vec<RecordBatch>, ParquetError> {
        Ok(ParquetRecordBatchReaderBuilder::try_new(file)?.build()?.collect::<Result<_, _>>()?)
    }));
    let batches = batches
        .map_err(|_| damaged("its parts contradict each other".into()))?
        .map_err(|e| damaged(e.to_string()))?;
    let mut documents = Vec::new();
    for batch in &batches {
        rows(batch, &mut documents)
            .map_err(|column| damaged(format!("the column `{column}` is missing or of another type")))?;
    }
    Ok(documents)
}

fn rows(batch: &RecordBatch, documents: &mut Vec<ConsumedDocument>) -> Result<(), &'static str> {
    let mut texts = Vec::with_capacity(TEXTS.len());
    for (name, nullable) in TEXTS {
        let column = batch.column_by_name(name).and_then(|c| c.as_any().downcast_ref::<StringArray>());
        texts.push(column.filter(|c| nullable || c.null_count() == 0).ok_or(name)?);
    }
    let mut numbers = Vec::with_capacity(NUMBERS.len());
    for name in NUMBERS {
        let column = batch.column_by_name(name).and_then(|c| c.as_any().downcast_ref::<UInt64Array>());
        numbers.push(column.filter(|c| c.null_count() == 0).ok_or(name)?);
    }
    for row in 0..batch.num_rows() {
        let text = |column: usize| texts[column].value(row).to_owned();
        let optional = |column: usize| texts[column].is_valid(row).then(|| text(column));
        documents.push(ConsumedDocument {
            id: text(0),
            dataset: text(1),
            part: text(2),
            source: optional(3),
            title: optional(4),
            license: text(5),
            license_basis: optional(6),
            url: optional(7),
            upstream: optional(8),
            blake3: text(9),
            hash: text(10),
            text_bytes: numbers[0].value(row),
            tokens: numbers[1].value(row),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(n: u64) -> ConsumedDocument {
        ConsumedDocument {
            id: format!("usc:{n}"),
            dataset: "usc".into(),
            part: "train".into(),
            title: n.is_multiple_of(2).then(|| format!("§ {n}")),
            license: "CC0-1.0".into(),
            text_bytes: n,
            blake3: "b".repeat(64),
            hash: format!("{n:064x}"),
            tokens: 3 * n,
            ..ConsumedDocument::default()
        }
    }

    #[test]
    fn a_list_reads_back_and_the_same_documents_give_the_same_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let documents: Vec<_> = (0..10_000).map(document).collect();
        let (a, b) = (dir.path().join("a.parquet"), dir.path().join("b.parquet"));
        let hash = write(&a, &documents).unwrap();
        assert_eq!(hash, write(&b, &documents).unwrap());
        assert_eq!(hash, FileHash::of(File::open(&a).unwrap()).unwrap());
        assert_eq!(read(&a).unwrap(), documents);
    }

    #[test]
    fn the_root_changes_with_any_document_and_sums_go_by_source() {
        let mut documents: Vec<_> = (0..9).map(document).collect();
        let root_before = root(&documents).unwrap();
        let sums = sources(&documents);
        assert_eq!((sums.len(), sums[0].documents, sums[0].text_bytes, sums[0].tokens), (1, 9, 36, 108));
        documents[4].hash.replace_range(..1, "1");
        assert_ne!(root(&documents).unwrap(), root_before);
        documents[4].hash.replace_range(..1, "x");
        assert_eq!(root(&documents), None);
    }

    #[test]
    fn domains_are_counted_without_what_stands_around_them() {
        let with = |url: &str| ConsumedDocument { url: Some(url.into()), ..document(1) };
        let documents =
            ["https://www.GPO.gov/x", "http://u@www.gpo.gov:80?q", "https://sec.gov#a", "no address"]
                .map(with);
        let expected = [("www.gpo.gov".to_owned(), 2), ("sec.gov".to_owned(), 1)];
        assert_eq!(domains(&documents), expected);
    }

    #[test]
    fn what_is_no_list_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("documents.parquet");
        std::fs::write(&path, "no parquet").unwrap();
        assert!(matches!(read(&path), Err(ShardError::Damaged { .. })));
    }
}
