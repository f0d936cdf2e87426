//! Whether a corpus is what its record says: everything is computed anew from the shards.

use crate::{
    document::Rows,
    shards::{ShardError, ShardReader},
};
use blackletter_provenance::{
    FILE_NAME, Provenance, RecordError, Shard, SourceRecord,
    hash::{self, FileHash, Root},
};
use rayon::prelude::*;
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    path::{Component, Path, PathBuf},
};

/// File of the hashes of all documents in the order of the shards, 32 bytes for each: what names the document that differs.
pub const HASHES: &str = "documents.blake3";

/// A corpus is not what its record says, or cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// There is no record.
    #[error("{folder} holds no finished corpus: it has no {FILE_NAME}; run what makes it again")]
    Missing {
        /// The folder.
        folder: PathBuf,
    },
    /// The record cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The record is damaged.
    #[error("{path}: {source}")]
    Record {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: RecordError,
    },
    /// A shard differs.
    #[error("{path} differs from its record: {what}")]
    Shard {
        /// The shard, as the record names it.
        path: String,
        /// In what, and the first document that shows it.
        what: String,
    },
    /// A sum differs.
    #[error("{what} of the corpus is {found}, and the record says {recorded}")]
    Sum {
        /// Of what.
        what: String,
        /// What was computed.
        found: String,
        /// What the record says.
        recorded: String,
    },
    /// A file that the record does not name.
    #[error("{path} is not in the record")]
    Unrecorded {
        /// The file.
        path: PathBuf,
    },
    /// A shard cannot be read.
    #[error(transparent)]
    Unreadable(#[from] ShardError),
}

/// The record of the corpus in `folder`.
///
/// # Errors
/// When there is none, or it is damaged.
pub fn record(folder: &Path) -> Result<Provenance, AuditError> {
    let path = folder.join(FILE_NAME);
    let json = match fs::read(&path) {
        Ok(json) => json,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            return Err(AuditError::Missing { folder: folder.into() });
        }
        Err(source) => return Err(AuditError::Read { path, source }),
    };
    let record = Provenance::from_json(&json).map_err(|source| AuditError::Record { path, source })?;
    for shard in &record.shards {
        if Path::new(&shard.path).components().any(|part| !matches!(part, Component::Normal(_))) {
            let what = "its path leads out of the corpus".into();
            return Err(AuditError::Shard { path: shard.path.clone(), what });
        }
    }
    Ok(record)
}

/// Compares a shard's bytes with its record.
///
/// # Errors
/// When it cannot be read or differs.
pub fn check_shard(folder: &Path, shard: &Shard) -> Result<(), AuditError> {
    let path = folder.join(&shard.path);
    let differs = |what: String| AuditError::Shard { path: shard.path.clone(), what };
    let file = match File::open(&path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(differs("it is not there".into())),
        other => other.map_err(ShardError::file("read", &path))?,
    };
    let found = FileHash::of(file).map_err(ShardError::file("read", &path))?;
    let same = found.bytes == shard.bytes && found.blake3 == shard.blake3 && found.sha256 == shard.sha256;
    if same { Ok(()) } else { Err(differs(format!("its BLAKE3 is {}, not {}", found.blake3, shard.blake3))) }
}

/// What an audit found in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Audited {
    /// Shards.
    pub shards: usize,
    /// Documents.
    pub documents: u64,
    /// The root.
    pub root: String,
}

/// What sources are told apart by: dataset, source, licence and its basis.
type SourceKey = (String, Option<String>, String, Option<String>);

/// What the documents of a shard come to.
#[derive(Default)]
struct Sums {
    documents: u64,
    text_bytes: u64,
    root: Root,
    sources: BTreeMap<SourceKey, (u64, u64)>,
}

/// Computes everything in the record of the corpus in `folder` anew: the hash of every file, of every text, the counts and
/// the root over all documents; and looks for shards that the record does not name.
///
/// # Errors
/// The first thing that differs, in the order of the record, with the document where one shows it.
pub fn audit(folder: &Path) -> Result<Audited, AuditError> {
    let record = record(folder)?;
    let hashes = hashes(folder, &record)?;
    let mut from = 0usize;
    let starts: Vec<usize> = record
        .shards
        .iter()
        .map(|shard| {
            let start = from;
            from = from.saturating_add(shard.documents as usize);
            start
        })
        .collect();
    let one = |(shard, &start): (&Shard, &usize)| -> Result<Sums, AuditError> {
        let same = check_shard(folder, shard);
        let expected = hashes.get(start..).unwrap_or_default();
        match (same, documents(folder, shard, expected)) {
            (Ok(()), sums) => sums,
            // A document says more than a hash over the whole file.
            (Err(AuditError::Shard { path, what }), Err(AuditError::Shard { what: document, .. })) => {
                Err(AuditError::Shard { path, what: format!("{document}; {what}") })
            }
            (
                Err(AuditError::Shard { path, what }),
                Err(AuditError::Unreadable(ShardError::Damaged { reason, .. })),
            ) => Err(AuditError::Shard { path, what: format!("{reason}; {what}") }),
            (Err(error), _) => Err(error),
        }
    };
    let all: Vec<Result<Sums, AuditError>> = record.shards.par_iter().zip(&starts).map(one).collect();
    let mut whole = Sums::default();
    let mut parts: BTreeMap<&str, (u64, u64, Root)> = BTreeMap::new();
    for (shard, sums) in record.shards.iter().zip(all) {
        let sums = sums?;
        let (documents, bytes, root) = parts.entry(&shard.part).or_default();
        *documents += sums.documents;
        *bytes += sums.text_bytes;
        root.merge(sums.root.clone());
        whole.documents += sums.documents;
        whole.text_bytes += sums.text_bytes;
        whole.root.merge(sums.root);
        for (source, (documents, bytes)) in sums.sources {
            let sum = whole.sources.entry(source).or_default();
            sum.0 += documents;
            sum.1 += bytes;
        }
    }
    let same = |what: &str, found: String, recorded: String| {
        if found == recorded { Ok(()) } else { Err(AuditError::Sum { what: what.into(), found, recorded }) }
    };
    same("the number of documents", whole.documents.to_string(), record.documents.to_string())?;
    same("the number of bytes of text", whole.text_bytes.to_string(), record.text_bytes.to_string())?;
    let root = std::mem::take(&mut whole.root).finish();
    same("the root over documents", root.clone(), record.root.clone())?;
    for (part, recorded) in &record.parts {
        let (documents, bytes, root) = parts.remove(part.as_str()).unwrap_or_default();
        let of = |what: &str| format!("the {what} of the part `{part}`");
        same(&of("root over documents"), root.finish(), recorded.root.clone())?;
        same(&of("number of documents"), documents.to_string(), recorded.documents.to_string())?;
        same(&of("number of bytes of text"), bytes.to_string(), recorded.text_bytes.to_string())?;
    }
    if let Some((part, (documents, ..))) = parts.pop_first() {
        let what = format!("the number of documents of the part `{part}`");
        return Err(AuditError::Sum { what, found: documents.to_string(), recorded: "no such part".into() });
    }
    check_sources(&whole, &record)?;
    check_files(folder, &record)?;
    Ok(Audited { shards: record.shards.len(), documents: whole.documents, root })
}

/// The recorded hashes of all documents, in the order of the shards.
fn hashes(folder: &Path, record: &Provenance) -> Result<Vec<[u8; 32]>, AuditError> {
    let path = folder.join(HASHES);
    let bytes = fs::read(&path).map_err(|source| AuditError::Read { path: path.clone(), source })?;
    let (hashes, rest) = bytes.as_chunks::<32>();
    let mut root = Root::default();
    hashes.iter().for_each(|&hash| root.add(hash));
    let (found, recorded) = (root.finish(), record.root.clone());
    if found != recorded || !rest.is_empty() {
        return Err(AuditError::Sum { what: format!("the root over {HASHES}"), found, recorded });
    }
    Ok(hashes.to_vec())
}

/// Sums up a shard's documents, each compared with the recorded hash and with the one of its text beside it.
fn documents(folder: &Path, shard: &Shard, expected: &[[u8; 32]]) -> Result<Sums, AuditError> {
    let path = folder.join(&shard.path);
    let differs = |what: String| AuditError::Shard { path: shard.path.clone(), what };
    let mut sums = Sums::default();
    for batch in ShardReader::open(&path)? {
        let batch = match batch {
            Err(ShardError::Damaged { reason, .. }) => {
                // What can be read of it document by document tells which is the first that cannot.
                return Err(differs(match first_unreadable(&path, sums.documents, expected) {
                    Some(id) => {
                        format!("document {id} is the first that differs or cannot be read ({reason})")
                    }
                    None => reason,
                }));
            }
            batch => batch?,
        };
        let rows = Rows::of(&batch).map_err(|e| differs(e.to_string()))?;
        for row in 0..rows.len() {
            let found = hash::hex(rows.text(row).as_bytes());
            if found != rows.blake3(row) {
                let (id, recorded) = (rows.id(row), rows.blake3(row));
                return Err(differs(format!("the text of document {id} has BLAKE3 {found}, not {recorded}")));
            }
            let hash = rows.hash(row);
            if expected.get(sums.documents as usize) != Some(&hash) {
                return Err(differs(format!("document {} is not the one that was recorded", rows.id(row))));
            }
            sums.documents += 1;
            sums.text_bytes += rows.text(row).len() as u64;
            sums.root.add(hash);
            let own = |text: Option<&str>| text.map(str::to_owned);
            let (dataset, license) = (rows.dataset(row).to_owned(), rows.license(row).to_owned());
            let source = (dataset, own(rows.source(row)), license, own(rows.license_basis(row)));
            let (documents, bytes) = sums.sources.entry(source).or_default();
            *documents += 1;
            *bytes += rows.text(row).len() as u64;
        }
    }
    if (sums.documents, sums.text_bytes) != (shard.documents, shard.text_bytes) {
        let (documents, bytes) = (sums.documents, sums.text_bytes);
        let (recorded, recorded_bytes) = (shard.documents, shard.text_bytes);
        return Err(differs(format!(
            "it holds {documents} documents and {bytes} bytes of text, not {recorded} and {recorded_bytes}"
        )));
    }
    Ok(sums)
}

/// The id of the first document from number `from` on that differs from what is expected or cannot be read.
fn first_unreadable(path: &Path, from: u64, expected: &[[u8; 32]]) -> Option<String> {
    let mut number = from as usize;
    let ids = ShardReader::ids(path).ok()?;
    for batch in ShardReader::open(path).ok()?.one_by_one(number) {
        let same = batch.ok().is_some_and(|batch| {
            let hash = Rows::of(&batch).ok().filter(|rows| !rows.is_empty()).map(|rows| rows.hash(0));
            hash.is_some() && hash.as_ref() == expected.get(number)
        });
        if !same {
            break;
        }
        number += 1;
    }
    ids.into_iter().nth(number)
}

fn check_sources(whole: &Sums, record: &Provenance) -> Result<(), AuditError> {
    let found =
        whole.sources.iter().map(|((dataset, source, license, license_basis), &(documents, text_bytes))| {
            SourceRecord {
                dataset: dataset.clone(),
                source: source.clone(),
                license: license.clone(),
                license_basis: license_basis.clone(),
                documents,
                text_bytes,
            }
        });
    let mut found: Vec<SourceRecord> = found.collect();
    let mut recorded = record.sources.clone();
    found.sort();
    recorded.sort();
    let difference =
        found.iter().find(|f| !recorded.contains(f)).or(recorded.iter().find(|r| !found.contains(r)));
    match difference {
        None => Ok(()),
        Some(source) => {
            let of = |sources: &[SourceRecord]| {
                let same = |s: &&SourceRecord| {
                    (&s.dataset, &s.source, &s.license, &s.license_basis)
                        == (&source.dataset, &source.source, &source.license, &source.license_basis)
                };
                let found = sources.iter().find(same).map_or((0, 0), |s| (s.documents, s.text_bytes));
                format!("{} ({} bytes of text)", found.0, found.1)
            };
            let what = format!("the number of documents of {} under {}", source.dataset, source.license);
            Err(AuditError::Sum { what, found: of(&found), recorded: of(&recorded) })
        }
    }
}

/// Looks for shards beside those of the record.
fn check_files(folder: &Path, record: &Provenance) -> Result<(), AuditError> {
    let recorded: Vec<PathBuf> = record.shards.iter().map(|shard| folder.join(&shard.path)).collect();
    let mut left = vec![(folder.to_owned(), 0)];
    while let Some((dir, depth)) = left.pop() {
        for entry in fs::read_dir(&dir).map_err(ShardError::file("read", &dir))? {
            let path = entry.map_err(ShardError::file("read", &dir))?.path();
            let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
            if path.is_dir() && !hidden && depth < 8 {
                left.push((path, depth + 1));
            } else if path.extension().is_some_and(|e| e == "parquet") && !recorded.contains(&path) {
                return Err(AuditError::Unrecorded { path });
            }
        }
    }
    Ok(())
}
