//! Texts of a corpus, one after the other, and nothing else of its documents: what a tokenizer is trained and measured on.
//!
//! In flow files and directories, out flow [`Text`]s. Read are JSON lines (`.jsonl`, plain or with `.gz` or `.zst`) and
//! Parquet (`.parquet`), each with a string column `text` and, if there, `dataset`. Memory is bounded by one line, or by
//! one batch of rows.

use crate::shards::guarded;
use arrow_array::{Array, LargeStringArray, RecordBatch, StringArray, StringViewArray, cast::AsArray};
use arrow_schema::DataType;
use parquet::{
    arrow::{
        ProjectionMask,
        arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder},
    },
    errors::ParquetError,
};
use serde::Deserialize;
use std::{
    collections::VecDeque,
    fs::{self, File},
    io::{self, BufRead, BufReader, Read},
    path::{Path, PathBuf},
};

/// A line longer than this is refused; the longest documents there are, whole dockets, stay well below.
const LONGEST_LINE: u64 = 1 << 28;
/// Rows of Parquet that are held at a time.
const ROWS: usize = 256;
/// Directories that hold what must not be trained on.
const HELD_OUT: [&str; 3] = ["heldout", "held_out", "validation"];

/// A document's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    /// The dataset it is from; the file's name where the document does not say.
    pub dataset: String,
    /// The text.
    pub text: String,
}

/// Texts cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TextsError {
    /// A file or directory cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Not a kind of file that is read.
    #[error("{path} is neither JSON lines (.jsonl, .jsonl.gz, .jsonl.zst) nor Parquet (.parquet)")]
    Kind {
        /// The file.
        path: PathBuf,
    },
    /// A directory without texts.
    #[error("no .jsonl, .jsonl.gz, .jsonl.zst or .parquet file in {path}")]
    Nothing {
        /// The directory.
        path: PathBuf,
    },
    /// A line of JSON that is no document.
    #[error("{path}, line {line}: {reason}")]
    Line {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: u64,
        /// What is wrong.
        reason: String,
    },
    /// A Parquet file that is damaged or has no texts.
    #[error("{path}: {reason}")]
    Parquet {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

/// The texts of some files, in the order of the files.
pub struct Texts {
    files: VecDeque<PathBuf>,
    current: Option<(PathBuf, Reader)>,
}

enum Reader {
    Lines { lines: Box<dyn BufRead + Send>, line: u64 },
    Rows { batches: Box<ParquetRecordBatchReader>, batch: Option<(RecordBatch, usize)> },
}

#[derive(Deserialize)]
struct Row {
    text: String,
    #[serde(default)]
    dataset: Option<String>,
}

fn is_read(path: &Path) -> bool {
    let name = path.file_name().map(|n| n.to_string_lossy().to_lowercase()).unwrap_or_default();
    let kinds = [".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet"];
    !name.starts_with('.') && kinds.iter().any(|kind| name.ends_with(kind))
}

/// The files in `dir` that are read, by name; where it has none, those of the directories in it, without held-out ones.
fn files_in(dir: &Path) -> Result<Vec<PathBuf>, TextsError> {
    let entries = |dir: &Path| -> Result<Vec<PathBuf>, TextsError> {
        let failed = |source| TextsError::Read { path: dir.into(), source };
        let paths: io::Result<Vec<PathBuf>> =
            fs::read_dir(dir).map_err(failed)?.map(|entry| Ok(entry?.path())).collect();
        let mut paths = paths.map_err(failed)?;
        paths.sort();
        Ok(paths)
    };
    let (directories, mut files): (Vec<_>, Vec<_>) =
        entries(dir)?.into_iter().partition(|path| path.is_dir());
    files.retain(|path| is_read(path));
    if files.is_empty() {
        let held_out = |path: &Path| path.file_name().is_some_and(|n| HELD_OUT.iter().any(|held| n == *held));
        for directory in directories.iter().filter(|path| !held_out(path)) {
            files.extend(entries(directory)?.into_iter().filter(|path| path.is_file() && is_read(path)));
        }
    }
    if files.is_empty() {
        return Err(TextsError::Nothing { path: dir.into() });
    }
    Ok(files)
}

impl Texts {
    /// Opens files, and directories with such files in them. A directory's own files are taken, by name; if it has none,
    /// those one level down, except in directories named `heldout` or `validation`.
    ///
    /// # Errors
    /// When a path cannot be read, is of no kind that is read, or is a directory without texts.
    pub fn open<P: AsRef<Path>>(paths: &[P]) -> Result<Self, TextsError> {
        let mut files = VecDeque::new();
        for path in paths.iter().map(AsRef::as_ref) {
            let data = fs::metadata(path).map_err(|source| TextsError::Read { path: path.into(), source })?;
            if data.is_dir() {
                files.extend(files_in(path)?);
            } else if is_read(path) {
                files.push_back(path.into());
            } else {
                return Err(TextsError::Kind { path: path.into() });
            }
        }
        Ok(Self { files, current: None })
    }

    /// The files that are left to read, without the one that is being read.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(PathBuf::as_path)
    }

    fn step(&mut self) -> Result<Option<Text>, TextsError> {
        loop {
            if let Some((path, reader)) = &mut self.current {
                if let Some(text) = reader.next(path)? {
                    return Ok(Some(text));
                }
                self.current = None;
            }
            let Some(path) = self.files.pop_front() else { return Ok(None) };
            let reader = Reader::open(&path)?;
            self.current = Some((path, reader));
        }
    }
}

impl Iterator for Texts {
    type Item = Result<Text, TextsError>;

    /// After a failure, what is left of the file at fault is passed over.
    fn next(&mut self) -> Option<Self::Item> {
        let next = self.step().transpose();
        if matches!(next, Some(Err(_))) {
            self.current = None;
        }
        next
    }
}

impl Reader {
    fn open(path: &Path) -> Result<Self, TextsError> {
        let failed = |source| TextsError::Read { path: path.into(), source };
        let file = File::open(path).map_err(failed)?;
        let lines = |lines: Box<dyn BufRead + Send>| Self::Lines { lines, line: 0 };
        let extension = path.extension().map(|e| e.to_string_lossy().to_lowercase()).unwrap_or_default();
        Ok(match extension.as_str() {
            "gz" => lines(Box::new(BufReader::new(flate2::read::MultiGzDecoder::new(BufReader::new(file))))),
            "zst" => lines(Box::new(BufReader::new(zstd::stream::read::Decoder::new(file).map_err(failed)?))),
            "parquet" => Self::parquet(path, file)?,
            _ => lines(Box::new(BufReader::with_capacity(1 << 16, file))),
        })
    }

    fn parquet(path: &Path, file: File) -> Result<Self, TextsError> {
        let damaged = |e: ParquetError| TextsError::Parquet { path: path.into(), reason: e.to_string() };
        let builder = guarded(|| ParquetRecordBatchReaderBuilder::try_new(file)).map_err(damaged)?;
        if builder.schema().field_with_name("text").is_err() {
            let names: Vec<_> = builder.schema().fields().iter().map(|f| f.name().as_str()).collect();
            let reason = format!("there is no column `text` among {}", names.join(", "));
            return Err(TextsError::Parquet { path: path.into(), reason });
        }
        let mask = ProjectionMask::columns(builder.parquet_schema(), ["text", "dataset"]);
        let batches = guarded(|| builder.with_projection(mask).with_batch_size(ROWS).build());
        let batches = batches.map_err(damaged)?;
        Ok(Self::Rows { batches: Box::new(batches), batch: None })
    }

    fn next(&mut self, path: &Path) -> Result<Option<Text>, TextsError> {
        match self {
            Self::Lines { lines, line } => next_line(lines, line, path),
            Self::Rows { batches, batch } => next_row(batches, batch, path),
        }
    }
}

/// A file's name up to the first dot: the dataset of documents that do not name theirs.
fn stem(path: &Path) -> String {
    let name = path.file_name().map(|n| n.to_string_lossy()).unwrap_or_default();
    name.split('.').next().unwrap_or_default().to_string()
}

fn next_line(
    lines: &mut Box<dyn BufRead + Send>,
    line: &mut u64,
    path: &Path,
) -> Result<Option<Text>, TextsError> {
    loop {
        let mut bytes = Vec::new();
        let read = lines.take(LONGEST_LINE).read_until(b'\n', &mut bytes);
        let read = read.map_err(|source| TextsError::Read { path: path.into(), source })?;
        if read == 0 {
            return Ok(None);
        }
        *line += 1;
        let wrong = |reason: String| TextsError::Line { path: path.into(), line: *line, reason };
        if read as u64 == LONGEST_LINE {
            return Err(wrong(format!("longer than {LONGEST_LINE} bytes")));
        }
        if bytes.trim_ascii().is_empty() {
            continue;
        }
        let row: Row = serde_json::from_slice(&bytes).map_err(|e| wrong(format!("no document: {e}")))?;
        let dataset = row.dataset.unwrap_or_else(|| stem(path));
        return Ok(Some(Text { dataset, text: row.text }));
    }
}

fn next_row(
    batches: &mut ParquetRecordBatchReader,
    current: &mut Option<(RecordBatch, usize)>,
    path: &Path,
) -> Result<Option<Text>, TextsError> {
    let damaged = |reason: String| TextsError::Parquet { path: path.into(), reason };
    loop {
        if let Some((batch, row)) = current
            && *row < batch.num_rows()
        {
            let text = string(batch, "text", *row).map_err(&damaged)?.unwrap_or_default().to_string();
            let dataset = string(batch, "dataset", *row).map_err(&damaged)?;
            let dataset = dataset.map_or_else(|| stem(path), str::to_string);
            *row += 1;
            return Ok(Some(Text { dataset, text }));
        }
        let next = guarded(|| batches.next().transpose().map_err(Into::into));
        match next.map_err(|e| damaged(e.to_string()))? {
            Some(batch) => *current = Some((batch, 0)),
            None => return Ok(None),
        }
    }
}

/// The string at `row` of a column; `None` where there is no such column or the value is null.
fn string<'b>(batch: &'b RecordBatch, column: &str, row: usize) -> Result<Option<&'b str>, String> {
    let Some(array) = batch.column_by_name(column) else { return Ok(None) };
    if row >= array.len() || array.is_null(row) {
        return Ok(None);
    }
    let any = array.as_any();
    if let Some(strings) = any.downcast_ref::<StringArray>() {
        return Ok(Some(strings.value(row)));
    }
    if let Some(strings) = any.downcast_ref::<LargeStringArray>() {
        return Ok(Some(strings.value(row)));
    }
    if let Some(strings) = any.downcast_ref::<StringViewArray>() {
        return Ok(Some(strings.value(row)));
    }
    // Dictionaries, as dataset columns often are.
    if let DataType::Dictionary(_, _) = array.data_type()
        && let Some(dictionary) = array.as_any_dictionary_opt()
        && let Some(strings) = dictionary.values().as_any().downcast_ref::<StringArray>()
        && let Some(&key) = dictionary.normalized_keys().get(row)
        && key < strings.len()
    {
        return Ok(Some(strings.value(key)));
    }
    Err(format!("column `{column}` holds {}, not strings", array.data_type()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow_array::ArrayRef;
    use parquet::arrow::ArrowWriter;
    use std::{io::Write, sync::Arc};

    const LINES: &str = "{\"text\":\"one\",\"dataset\":\"d\",\"other\":[1]}\n\n{\"text\":\"two\"}\n";

    fn read(paths: &[&Path]) -> Vec<(String, String)> {
        Texts::open(paths).unwrap().map(|t| t.map(|t| (t.dataset, t.text)).unwrap()).collect()
    }

    fn error(path: &Path) -> String {
        match Texts::open(&[path]) {
            Err(e) => e.to_string(),
            Ok(mut texts) => texts.find_map(Result::err).unwrap().to_string(),
        }
    }

    fn parquet(path: &Path, columns: Vec<(&str, ArrayRef)>) {
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let mut writer = ArrowWriter::try_new(File::create(path).unwrap(), batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
    }

    #[test]
    fn json_lines_are_read_plain_and_compressed() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name| dir.path().join(name);
        fs::write(path("a.jsonl"), LINES).unwrap();
        let mut gz =
            flate2::write::GzEncoder::new(File::create(path("b.jsonl.gz")).unwrap(), Default::default());
        gz.write_all(LINES.as_bytes()).unwrap();
        gz.finish().unwrap();
        fs::write(path("c.jsonl.zst"), zstd::encode_all(LINES.as_bytes(), 3).unwrap()).unwrap();
        fs::write(path("README.md"), "not read").unwrap();
        let pair = |a: &str, b: &str| (a.to_string(), b.to_string());
        let both = |name| [pair("d", "one"), pair(name, "two")];
        assert_eq!(read(&[&path("c.jsonl.zst")]), both("c"));
        assert_eq!(read(&[dir.path()]), [both("a"), both("b"), both("c")].concat());
    }

    #[test]
    fn parquet_is_read_by_column_whatever_else_it_holds() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p.parquet");
        let texts: Vec<String> = (0..1000).map(|n| format!("text {n}")).collect();
        let numbers: ArrayRef = Arc::new(arrow_array::Int64Array::from_iter_values(0..1000));
        parquet(&path, vec![("n", numbers), ("text", Arc::new(LargeStringArray::from(texts.clone())))]);
        let expected: Vec<_> = texts.into_iter().map(|text| ("p".to_string(), text)).collect();
        assert_eq!(read(&[&path]), expected);
    }

    #[test]
    fn held_out_directories_are_not_entered() {
        let dir = tempfile::tempdir().unwrap();
        for part in ["train", "heldout", "validation"] {
            fs::create_dir(dir.path().join(part)).unwrap();
            fs::write(dir.path().join(part).join("x.jsonl"), format!("{{\"text\":\"{part}\"}}")).unwrap();
        }
        assert_eq!(read(&[dir.path()]), [("x".to_string(), "train".to_string())]);
        // Unless asked for by name.
        assert_eq!(read(&[&dir.path().join("heldout")]).len(), 1);
    }

    #[test]
    fn what_cannot_be_read_is_said_with_file_and_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name| dir.path().join(name);
        assert!(error(dir.path()).contains("no .jsonl"));
        assert!(error(&path("gone.jsonl")).contains("gone.jsonl"));
        fs::write(path("x.txt"), "").unwrap();
        assert!(error(&path("x.txt")).contains("neither JSON lines"));
        fs::write(path("x.jsonl"), "{\"text\":\"fine\"}\n{\"txt\":\"\"}\n").unwrap();
        assert!(error(&path("x.jsonl")).contains("x.jsonl, line 2: no document: missing field `text`"));
        fs::write(path("x.jsonl.zst"), "no zstd").unwrap();
        assert!(error(&path("x.jsonl.zst")).contains("x.jsonl.zst"));
        fs::write(path("x.parquet"), "no parquet").unwrap();
        assert!(error(&path("x.parquet")).contains("x.parquet"));
        parquet(&path("y.parquet"), vec![("txt", Arc::new(StringArray::from(vec!["a"])))]);
        assert!(error(&path("y.parquet")).contains("there is no column `text` among txt"));
        parquet(&path("z.parquet"), vec![("text", Arc::new(arrow_array::Int64Array::from(vec![1])))]);
        assert!(error(&path("z.parquet")).contains("column `text` holds Int64, not strings"));
    }
}
