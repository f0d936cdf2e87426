//! Files of documents: Parquet with the columns of [`crate::document`].
//!
//! The same documents give the same bytes: row groups are cut by the documents alone, and nothing of the time or the machine
//! is written. A file appears under its name whole and on disk, or not at all.

use crate::document::{self, DocumentError, Rows};
use arrow_array::{Array, RecordBatch, StringArray};
use arrow_select::concat::concat_batches;
use blackletter_provenance::hash::{FileHash, FileHasher, Root};
use parquet::{
    arrow::{
        ArrowWriter, ProjectionMask,
        arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder},
    },
    basic::{Compression, ZstdLevel},
    errors::ParquetError,
    file::properties::{EnabledStatistics, WriterProperties},
    schema::types::ColumnPath,
};
use std::{
    fs::{self, File},
    io::{self, BufWriter, Write},
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};
use tempfile::NamedTempFile;

/// Text in a row group, in bytes, unless one document alone is larger.
const ROW_GROUP_TEXT: usize = 4 << 20;
/// Rows in a row group.
const ROW_GROUP_ROWS: usize = 8192;
/// Rows for which a reader makes room before it sees them.
const LARGEST_GROUP: usize = 1 << 16;

/// A file of documents cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum ShardError {
    /// The file system refuses.
    #[error("cannot {action} {path}")]
    File {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Damaged, or not Parquet.
    #[error("{path} is no shard of documents: {reason}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The documents cannot be written.
    #[error("cannot write documents to {path}: {reason}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

impl ShardError {
    /// The file system refuses to `action` `path`.
    pub(crate) fn file(action: &'static str, path: &Path) -> impl Fn(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { action, path: path.clone(), source }
    }

    fn damaged(path: &Path, reason: impl ToString) -> Self {
        Self::Damaged { path: path.into(), reason: reason.to_string() }
    }
}

/// How hard to compress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effort {
    /// For what a later step reads again.
    Fast,
    /// For what is kept.
    Best,
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// Documents.
    pub documents: u64,
    /// Bytes of text.
    pub text_bytes: u64,
    /// Size and hashes of the file.
    pub file: FileHash,
}

/// Writes a file of documents.
pub struct ShardWriter {
    path: PathBuf,
    writer: ArrowWriter<HashingFile>,
    documents: u64,
    text_bytes: u64,
    group: Vec<RecordBatch>,
    group_text: usize,
    group_rows: usize,
}

/// A file that is not under its name yet, hashed as it is written.
struct HashingFile {
    file: BufWriter<NamedTempFile>,
    hasher: FileHasher,
}

impl Write for HashingFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hasher.write(&bytes[..written])
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn properties(effort: Effort) -> Result<WriterProperties, ParquetError> {
    let level = ZstdLevel::try_new(if effort == Effort::Fast { 1 } else { 3 })?;
    let column = |name: &str| ColumnPath::new(vec![name.to_owned()]);
    let mut builder = WriterProperties::builder()
        .set_compression(Compression::ZSTD(level))
        .set_created_by("blackletter".into())
        .set_statistics_enabled(EnabledStatistics::None)
        .set_max_row_group_row_count(None);
    // Every value is different: a dictionary would be tried and given up.
    for name in ["id", "text", "blake3"] {
        builder = builder.set_column_dictionary_enabled(column(name), false);
    }
    Ok(builder.build())
}

impl ShardWriter {
    /// Begins a file at `path`, whose folder is made if need be.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn create(path: &Path, effort: Effort) -> Result<Self, ShardError> {
        let folder = path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder).map_err(ShardError::file("make", folder))?;
        let temporary = tempfile::Builder::new().prefix(".writing-").tempfile_in(folder);
        let temporary = temporary.map_err(ShardError::file("write in", folder))?;
        let failed = |e: ParquetError| ShardError::Write { path: path.into(), reason: e.to_string() };
        let file =
            HashingFile { file: BufWriter::with_capacity(1 << 18, temporary), hasher: FileHasher::default() };
        let properties = properties(effort).map_err(failed)?;
        let writer = ArrowWriter::try_new(file, document::schema(), Some(properties)).map_err(failed)?;
        Ok(Self {
            path: path.into(),
            writer,
            documents: 0,
            text_bytes: 0,
            group: Vec::new(),
            group_text: 0,
            group_rows: 0,
        })
    }

    /// Where the file will be.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes of text so far.
    pub fn text_bytes(&self) -> u64 {
        self.text_bytes
    }

    /// Adds documents. Row groups are cut between documents, wherever the batches are.
    ///
    /// # Errors
    /// When they cannot be written, or are no documents.
    pub fn write(&mut self, batch: &RecordBatch) -> Result<(), ShardError> {
        let failed = |e: DocumentError| ShardError::Write { path: self.path.clone(), reason: e.to_string() };
        let rows = Rows::of(batch).map_err(failed)?;
        let mut from = 0;
        for row in 0..rows.len() {
            let size = rows.text(row).len();
            self.documents += 1;
            self.text_bytes += size as u64;
            self.group_text += size;
            self.group_rows += 1;
            if self.group_text >= ROW_GROUP_TEXT || self.group_rows >= ROW_GROUP_ROWS {
                self.group.push(batch.slice(from, row + 1 - from));
                from = row + 1;
                self.end_group()?;
            }
        }
        if from < rows.len() {
            self.group.push(batch.slice(from, rows.len() - from));
        }
        Ok(())
    }

    /// Writes the row group in one piece: the writer cuts pages by what it is given at a time.
    fn end_group(&mut self) -> Result<(), ShardError> {
        let failed = |reason: String| ShardError::Write { path: self.path.clone(), reason };
        (self.group_text, self.group_rows) = (0, 0);
        let group = concat_batches(&document::schema(), &std::mem::take(&mut self.group));
        let group = group.map_err(|e| failed(e.to_string()))?;
        self.writer.write(&group).and_then(|()| self.writer.flush()).map_err(|e| failed(e.to_string()))
    }

    /// Ends the file: it is on disk and under its name when this returns.
    ///
    /// # Errors
    /// When it cannot be written; then nothing is left of it.
    pub fn finish(mut self) -> Result<Written, ShardError> {
        if !self.group.is_empty() {
            self.end_group()?;
        }
        let Self { path, writer, documents, text_bytes, .. } = self;
        let failed = |e: ParquetError| ShardError::Write { path: path.clone(), reason: e.to_string() };
        let HashingFile { file, hasher } = writer.into_inner().map_err(failed)?;
        let temporary = file.into_inner().map_err(|e| ShardError::file("write", &path)(e.into_error()))?;
        temporary.as_file().sync_all().map_err(ShardError::file("write", &path))?;
        persist(temporary, &path)?;
        Ok(Written { documents, text_bytes, file: hasher.finish() })
    }
}

/// Puts a finished file under its name, readable to all whom the folder lets in, and the name on disk.
fn persist(temporary: NamedTempFile, path: &Path) -> Result<(), ShardError> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let open = fs::Permissions::from_mode(0o644);
        temporary.as_file().set_permissions(open).map_err(ShardError::file("write", path))?;
    }
    temporary.persist(path).map_err(|e| ShardError::file("write", path)(e.error))?;
    sync_folder(path.parent().unwrap_or(Path::new(".")))
}

/// Makes the names in a folder last.
pub(crate) fn sync_folder(folder: &Path) -> Result<(), ShardError> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    File::open(folder).and_then(|f| f.sync_all()).map_err(ShardError::file("write", folder))
}

/// Writes a small file whole or not at all; one that already holds these bytes is left alone.
///
/// # Errors
/// When it cannot be written.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), ShardError> {
    if fs::metadata(path).is_ok_and(|m| m.len() == bytes.len() as u64)
        && fs::read(path).is_ok_and(|b| b == bytes)
    {
        return Ok(());
    }
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(ShardError::file("make", folder))?;
    let temporary = tempfile::Builder::new().prefix(".writing-").tempfile_in(folder);
    let mut temporary = temporary.map_err(ShardError::file("write in", folder))?;
    temporary.write_all(bytes).map_err(ShardError::file("write", path))?;
    temporary.as_file().sync_all().map_err(ShardError::file("write", path))?;
    persist(temporary, path)
}

/// The batches of a file, one for each row group.
pub struct ShardReader {
    path: PathBuf,
    file: File,
    metadata: ArrowReaderMetadata,
    next: usize,
}

impl ShardReader {
    /// Opens a file of documents.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn open(path: &Path) -> Result<Self, ShardError> {
        let file = File::open(path).map_err(ShardError::file("read", path))?;
        let metadata = guarded(|| ArrowReaderMetadata::load(&file, ArrowReaderOptions::new()));
        let metadata = metadata.map_err(|e| ShardError::damaged(path, e))?;
        Ok(Self { path: path.into(), file, metadata, next: 0 })
    }

    /// The names of a file's documents, which can be read when other columns cannot.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn ids(path: &Path) -> Result<Vec<String>, ShardError> {
        let file = File::open(path).map_err(ShardError::file("read", path))?;
        let ids = guarded(|| {
            let builder = ParquetRecordBatchReaderBuilder::try_new(file)?;
            let mask = ProjectionMask::columns(builder.parquet_schema(), ["id"]);
            let mut ids = Vec::new();
            for batch in builder.with_projection(mask).build()? {
                let batch = batch?;
                let column = batch.columns().first().and_then(|c| c.as_any().downcast_ref::<StringArray>());
                let column = column.ok_or_else(|| ParquetError::General("the ids are no strings".into()))?;
                ids.extend(column.iter().map(|id| id.unwrap_or_default().to_owned()));
            }
            Ok(ids)
        });
        ids.map_err(|e| ShardError::damaged(path, e))
    }

    /// Batches of one document each from number `from` on, up to the first that cannot be read.
    pub fn one_by_one(self, from: usize) -> impl Iterator<Item = Result<RecordBatch, ShardError>> {
        let path = self.path.clone();
        let reader = guarded(|| {
            let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(self.file, self.metadata);
            builder.with_batch_size(1).with_offset(from).build()
        });
        let mut reader = reader.ok();
        std::iter::from_fn(move || {
            let batch = guarded(|| reader.as_mut().and_then(Iterator::next).transpose().map_err(Into::into));
            if batch.is_err() {
                reader = None;
            }
            batch.map_err(|e| ShardError::damaged(&path, e)).transpose()
        })
    }

    fn read(&self, group: usize) -> Result<RecordBatch, ParquetError> {
        let builder =
            ParquetRecordBatchReaderBuilder::new_with_metadata(self.file.try_clone()?, self.metadata.clone());
        let rows = self.metadata.metadata().row_group(group).num_rows();
        let builder =
            builder.with_row_groups(vec![group]).with_batch_size(usize::try_from(rows)?.min(LARGEST_GROUP));
        let batches = builder.build()?.collect::<Result<Vec<_>, _>>()?;
        let schema = batches.first().map_or_else(|| self.metadata.schema().clone(), RecordBatch::schema);
        Ok(concat_batches(&schema, &batches)?)
    }
}

/// Damaged files make the reader panic in places; to the caller that is a damaged file too.
pub(crate) fn guarded<T>(read: impl FnOnce() -> Result<T, ParquetError>) -> Result<T, ParquetError> {
    let contradiction = || ParquetError::General("its parts contradict each other".into());
    catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|_| Err(contradiction()))
}

impl Iterator for ShardReader {
    type Item = Result<RecordBatch, ShardError>;

    fn next(&mut self) -> Option<Self::Item> {
        let group = self.next;
        if group >= self.metadata.metadata().num_row_groups() {
            return None;
        }
        self.next += 1;
        let batch = guarded(|| self.read(group)).map_err(|e| ShardError::damaged(&self.path, e));
        let checked = batch.and_then(|batch| match Rows::of(&batch) {
            Ok(_) => Ok(batch),
            Err(e) => Err(ShardError::damaged(&self.path, e)),
        });
        if checked.is_err() {
            self.next = usize::MAX;
        }
        Some(checked)
    }
}

/// The root over all documents of some files.
///
/// # Errors
/// As [`ShardReader`].
pub fn root(paths: &[PathBuf]) -> Result<Root, ShardError> {
    use rayon::prelude::*;
    let one = |path: &PathBuf| -> Result<Root, ShardError> {
        let mut root = Root::default();
        for batch in ShardReader::open(path)? {
            let batch = batch?;
            let rows = Rows::of(&batch).map_err(|e| ShardError::damaged(path, e))?;
            (0..rows.len()).for_each(|row| root.add(rows.hash(row)));
        }
        Ok(root)
    };
    let all: Vec<Root> = paths.par_iter().map(one).collect::<Result<_, _>>()?;
    Ok(all.into_iter().fold(Root::default(), |mut sum, one| {
        sum.merge(one);
        sum
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::{Document, to_batch};

    fn documents(count: usize, size: usize) -> Vec<Document> {
        let one = |n: usize| Document {
            id: format!("d{n}"),
            text: format!("{n} ").repeat(size),
            extras: [("n".into(), n.to_string())].into(),
            ..Document::default()
        };
        (0..count).map(one).collect()
    }

    fn write(path: &Path, batches: &[&[Document]]) -> Written {
        let mut writer = ShardWriter::create(path, Effort::Best).unwrap();
        for batch in batches {
            writer.write(&to_batch(batch).unwrap()).unwrap();
        }
        writer.finish().unwrap()
    }

    #[test]
    fn bytes_depend_on_the_documents_and_not_on_the_batches() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name| dir.path().join(name);
        // Several row groups.
        let all = documents(40, 100_000);
        let whole = write(&path("a"), &[&all]);
        let cut = write(&path("b"), &[&all[..7], &all[7..8], &all[8..]]);
        assert_eq!(whole, cut);
        assert_eq!(fs::read(path("a")).unwrap(), fs::read(path("b")).unwrap());
        assert_eq!(whole.file.blake3, blackletter_provenance::hash::hex(&fs::read(path("a")).unwrap()));
        let mut back = Vec::new();
        let mut batches = 0;
        for batch in ShardReader::open(&path("a")).unwrap() {
            let batch = batch.unwrap();
            let rows = Rows::of(&batch).unwrap();
            assert!((0..rows.len()).map(|row| rows.text(row).len()).sum::<usize>() < 2 * ROW_GROUP_TEXT);
            back.extend((0..rows.len()).map(|row| rows.document(row)));
            batches += 1;
        }
        assert_eq!(back, all);
        assert!(batches > 2, "{batches} batches");
    }

    #[test]
    fn an_abandoned_file_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = ShardWriter::create(&dir.path().join("a"), Effort::Fast).unwrap();
        writer.write(&to_batch(&documents(3, 10)).unwrap()).unwrap();
        drop(writer);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn damage_anywhere_is_an_error_and_never_a_panic() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        write(&path, &[&documents(20, 50)]);
        let bytes = fs::read(&path).unwrap();
        for at in (0..bytes.len()).step_by(7) {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x55;
            fs::write(&path, damaged).unwrap();
            if let Ok(reader) = ShardReader::open(&path) {
                let _ = reader.take(100).map(|batch| batch.map(|b| b.num_rows())).collect::<Vec<_>>();
            }
        }
        fs::write(&path, "no shard").unwrap();
        assert!(ShardReader::open(&path).err().unwrap().to_string().contains("is no shard of documents"));
    }

    #[test]
    fn a_small_file_is_written_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        write_whole(&path, b"one").unwrap();
        let time = fs::metadata(&path).unwrap().modified().unwrap();
        write_whole(&path, b"one").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), time);
        write_whole(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
