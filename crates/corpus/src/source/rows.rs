//! JSON lines and Parquet: a document in each line or row.

use super::{
    CHUNK, InputFile, Item, SourceError, SourceSpec, complete, dataset_of, records,
    tokens::{self, Decoder, is_export},
};
use crate::{
    document::{Document, Rows},
    shards::guarded,
};
use arrow_array::{
    Array, BooleanArray, Float64Array, Int32Array, Int64Array, LargeStringArray, RecordBatch, StringArray,
    StringViewArray, UInt32Array, UInt64Array, cast::AsArray,
};
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder,
};
use rayon::prelude::*;
use serde_json::{Map, Value};
use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
};

/// Lines longer than this are passed over as unreadable.
const LONGEST_LINE: usize = 1 << 28;
/// Rows of foreign Parquet held at a time.
const ROWS: usize = 256;

const LINE: &str = "unreadable line";
const ROW: &str = "unreadable row";
const DAMAGED: &str = "damaged file";

/// Reads JSON lines. A line that is no document is an item of its own; blank lines are none.
pub(super) fn lines<E: From<SourceError>>(
    file: &InputFile,
    spec: &SourceSpec,
    take: &mut impl FnMut(Vec<Item>) -> Result<(), E>,
) -> Result<(), E> {
    let mut reader = open(file).map_err(SourceError::read(&file.path))?;
    let mut number = 0u64;
    let mut held: Vec<(u64, Vec<u8>)> = Vec::new();
    let mut bytes = 0;
    loop {
        let line = match next_line(&mut *reader) {
            Ok(line) => line,
            // What was read stands; the rest of the file is one unreadable thing.
            Err(e) => {
                pass_on(std::mem::take(&mut held), file, spec, take)?;
                let what = format!("{}, after line {number}: {e}", file.name);
                let item =
                    Item::Unreadable { dataset: dataset_of(file, spec), reason: DAMAGED, what, bytes: 0 };
                return take(vec![item]);
            }
        };
        let Some(line) = line else { break };
        number += 1;
        if line.trim_ascii().is_empty() {
            continue;
        }
        bytes += line.len();
        held.push((number, line));
        if bytes >= CHUNK {
            pass_on(std::mem::take(&mut held), file, spec, take)?;
            bytes = 0;
        }
    }
    pass_on(held, file, spec, take)
}

fn open(file: &InputFile) -> io::Result<Box<dyn BufRead>> {
    let plain = File::open(&file.path)?;
    let name = file.name.to_lowercase();
    Ok(if name.ends_with(".gz") {
        Box::new(BufReader::with_capacity(1 << 16, flate2::read::MultiGzDecoder::new(BufReader::new(plain))))
    } else if name.ends_with(".zst") {
        Box::new(BufReader::with_capacity(1 << 17, zstd::stream::read::Decoder::new(plain)?))
    } else {
        Box::new(BufReader::with_capacity(1 << 17, plain))
    })
}

/// The next line, cut off after [`LONGEST_LINE`] bytes and one more; none at the end.
fn next_line(reader: &mut dyn BufRead) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    if reader.take(LONGEST_LINE as u64 + 1).read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }
    if line.len() > LONGEST_LINE && line.last() != Some(&b'\n') {
        reader.skip_until(b'\n')?;
    }
    Ok(Some(line))
}

fn pass_on<E>(
    lines: Vec<(u64, Vec<u8>)>,
    file: &InputFile,
    spec: &SourceSpec,
    take: &mut impl FnMut(Vec<Item>) -> Result<(), E>,
) -> Result<(), E> {
    if lines.is_empty() {
        return Ok(());
    }
    take(lines.into_par_iter().map(|(number, line)| item(number, &line, file, spec)).collect())
}

fn item(number: u64, line: &[u8], file: &InputFile, spec: &SourceSpec) -> Item {
    let unreadable = |reason: String| Item::Unreadable {
        dataset: dataset_of(file, spec),
        reason: LINE,
        what: format!("{}, line {number}: {reason}", file.name),
        bytes: line.len(),
    };
    if line.len() > LONGEST_LINE {
        return unreadable(format!("longer than {LONGEST_LINE} bytes"));
    }
    let mut fields: Map<String, Value> = match serde_json::from_slice(line) {
        Ok(fields) => fields,
        Err(e) => return unreadable(e.to_string()),
    };
    let text = match fields.remove("text") {
        Some(Value::String(text)) => text,
        // Said to be empty, not unreadable.
        Some(Value::Null) => String::new(),
        Some(_) => return unreadable("`text` is not a string".into()),
        None => return unreadable("it has no `text`".into()),
    };
    let id = ["id", "identifier"].iter().find_map(|name| records::as_text(fields.get(*name)?));
    let dataset = fields.remove("dataset").as_ref().and_then(records::as_text).unwrap_or_default();
    let mut document = Document { text, dataset, ..Document::default() };
    // What this program writes itself is made anew.
    for own in ["id", "identifier", "blake3", "quality", "quality_score"] {
        fields.remove(own);
    }
    if let Some(Value::Object(extras)) = fields.remove("extras") {
        let extras = extras.iter().filter_map(|(name, value)| Some((name.clone(), records::as_text(value)?)));
        document.extras.extend(extras);
    }
    records::state(&mut document, &fields);
    complete(&mut document, file, spec);
    document.id = id.unwrap_or_else(|| format!("{}:{}#{number}", document.dataset, file.name));
    Item::Document(Box::new(document))
}

/// Reads Parquet with a column `text`: a corpus' own shards, or any other table; with a decoder also an export's token ids.
/// Columns of strings, numbers and truth values are taken, nested ones are not.
///
/// A damaged row group is one unreadable thing, and the next one is read; so is a file that is no Parquet.
pub(super) fn parquet<E: From<SourceError>>(
    file: &InputFile,
    spec: &SourceSpec,
    decoder: Option<&Decoder>,
    take: &mut impl FnMut(Vec<Item>) -> Result<(), E>,
) -> Result<(), E> {
    let unreadable = |what: String, bytes: u64| Item::Unreadable {
        dataset: dataset_of(file, spec),
        reason: DAMAGED,
        what: format!("{}: {what}", file.name),
        bytes: usize::try_from(bytes).unwrap_or(usize::MAX),
    };
    let opened = File::open(&file.path).map_err(SourceError::read(&file.path))?;
    let metadata = match guarded(|| ArrowReaderMetadata::load(&opened, ArrowReaderOptions::new())) {
        Ok(metadata) => metadata,
        Err(e) => return take(vec![unreadable(e.to_string(), file.bytes)]),
    };
    let (mut held, mut bytes, mut before) = (Vec::new(), 0, 0u64);
    for group in 0..metadata.metadata().num_row_groups() {
        let rows = u64::try_from(metadata.metadata().row_group(group).num_rows()).unwrap_or(0);
        let mut number = before;
        before = before.saturating_add(rows);
        let reader = guarded(|| {
            let reader =
                ParquetRecordBatchReaderBuilder::new_with_metadata(opened.try_clone()?, metadata.clone());
            reader.with_row_groups(vec![group]).with_batch_size(ROWS).build()
        });
        let damaged = |from: u64, e: &dyn ToString| {
            let size = metadata.metadata().row_group(group).compressed_size();
            let what = format!("rows {} to {before} cannot be read: {}", from + 1, e.to_string());
            unreadable(what, u64::try_from(size).unwrap_or(0))
        };
        let mut reader = match reader {
            Ok(reader) => reader,
            Err(e) => {
                held.push(damaged(number, &e));
                continue;
            }
        };
        loop {
            let batch = match guarded(|| reader.next().transpose().map_err(Into::into)) {
                Ok(Some(batch)) => batch,
                Ok(None) => break,
                Err(e) => {
                    held.push(damaged(number, &e));
                    break;
                }
            };
            let items = if is_export(&batch) {
                let decoder = decoder.ok_or_else(|| SourceError::NoTokenizer(file.path.clone()))?;
                tokens::exported(&batch, number, file, spec, decoder).map_err(|e| e.to_string())
            } else {
                of_batch(&batch, number, file, spec)
            };
            let items = match items {
                Ok(items) => items,
                // So are all other rows.
                Err(reason) => {
                    held.push(unreadable(reason, file.bytes));
                    return take(held);
                }
            };
            number += batch.num_rows() as u64;
            bytes +=
                items.iter().map(|i| if let Item::Document(d) = i { d.text.len() } else { 0 }).sum::<usize>();
            held.extend(items);
            if bytes >= CHUNK {
                take(std::mem::take(&mut held))?;
                bytes = 0;
            }
        }
    }
    take(held)
}

fn of_batch(
    batch: &RecordBatch,
    from: u64,
    file: &InputFile,
    spec: &SourceSpec,
) -> Result<Vec<Item>, String> {
    let mut items = Vec::with_capacity(batch.num_rows());
    if let Ok(rows) = Rows::of(batch) {
        for row in 0..rows.len() {
            let mut document = Document { score: None, quality: Default::default(), ..rows.document(row) };
            complete(&mut document, file, spec);
            items.push(Item::Document(Box::new(document)));
        }
        return Ok(items);
    }
    let text = batch.column_by_name("text").ok_or_else(|| {
        let names: Vec<_> = batch.schema().fields().iter().map(|f| f.name().clone()).collect();
        format!("it has no column `text` among {}", names.join(", "))
    })?;
    for row in 0..batch.num_rows() {
        let number = from + row as u64 + 1;
        let mut fields = Map::new();
        for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
            if let Some(value) = value(column, row) {
                fields.insert(field.name().clone(), value);
            }
        }
        let text = match (fields.remove("text"), text.is_null(row)) {
            (Some(Value::String(text)), _) => text,
            (None, true) => String::new(),
            _ => {
                let what =
                    format!("{}, row {number}: `text` holds {}, not strings", file.name, text.data_type());
                items.push(Item::Unreadable { dataset: dataset_of(file, spec), reason: ROW, what, bytes: 0 });
                continue;
            }
        };
        let id = ["id", "identifier"].iter().find_map(|name| records::as_text(fields.get(*name)?));
        let dataset = fields.remove("dataset").as_ref().and_then(records::as_text).unwrap_or_default();
        for own in ["id", "identifier", "blake3", "quality_score"] {
            fields.remove(own);
        }
        let mut document = Document { text, dataset, ..Document::default() };
        records::state(&mut document, &fields);
        complete(&mut document, file, spec);
        document.id = id.unwrap_or_else(|| format!("{}:{}#{number}", document.dataset, file.name));
        items.push(Item::Document(Box::new(document)));
    }
    Ok(items)
}

fn value(column: &dyn Array, row: usize) -> Option<Value> {
    if column.is_null(row) {
        return None;
    }
    let any = column.as_any();
    macro_rules! of {
        ($($array:ty),*) => {
            $(if let Some(array) = any.downcast_ref::<$array>() {
                return Some(array.value(row).into());
            })*
        };
    }
    of!(
        StringArray,
        LargeStringArray,
        StringViewArray,
        Int64Array,
        Int32Array,
        UInt64Array,
        UInt32Array,
        Float64Array,
        BooleanArray
    );
    let dictionary = column.as_any_dictionary_opt()?;
    let key = *dictionary.normalized_keys().get(row)?;
    let strings = dictionary.values().as_any().downcast_ref::<StringArray>()?;
    (key < strings.len()).then(|| strings.value(key).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::{Kind, read};
    use arrow_array::ArrayRef;
    use parquet::arrow::ArrowWriter;
    use std::{fs, path::Path, sync::Arc};

    fn items(path: &Path, kind: Kind, spec: &SourceSpec) -> Vec<Item> {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let file = InputFile { path: path.into(), name, kind, bytes: 0 };
        let mut all = Vec::new();
        read::<SourceError>(&[file], spec, None, |items| {
            all.extend(items);
            Ok(())
        })
        .unwrap();
        all
    }

    fn document(item: &Item) -> &Document {
        match item {
            Item::Document(document) => document,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_line_keeps_every_field_and_what_is_no_document_is_told_with_its_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fr.part.jsonl");
        let lines = [
            r#"{"id":"a","dataset":"usc","source":"GPO","title":"T","license":"MIT","license_basis":"B","url":"u","date":"d","format":"text/html","upstream":"git","n":3,"none":null,"text":"x"}"#,
            "",
            "{",
            r#"{"id":"b"}"#,
            r#"{"id":"c","text":7}"#,
            r#"{"text":"y"}"#,
            "\u{fffd}",
        ];
        let mut bytes = lines.join("\n").into_bytes();
        bytes.extend(b"\n{\"text\":\"\xff\"}");
        fs::write(&path, bytes).unwrap();
        let spec = SourceSpec {
            license: Some("CC0-1.0".into()),
            license_basis: Some("here".into()),
            ..SourceSpec::default()
        };
        let items = items(&path, Kind::Lines, &spec);
        let first = document(&items[0]);
        let expected = Document {
            id: "a".into(),
            dataset: "usc".into(),
            source: Some("GPO".into()),
            title: Some("T".into()),
            license: "MIT".into(),
            license_basis: Some("B".into()),
            url: Some("u".into()),
            date: Some("d".into()),
            mime_type: "text/html".into(),
            text: "x".into(),
            extras: [("upstream".into(), "git".into()), ("n".into(), "3".into())].into(),
            ..Document::default()
        };
        assert_eq!(*first, expected);
        let reasons: Vec<&str> = items
            .iter()
            .filter_map(|i| if let Item::Unreadable { what, .. } = i { Some(what.as_str()) } else { None })
            .collect();
        assert_eq!(reasons.len(), 5, "{reasons:?}");
        assert!(
            reasons[0].starts_with("fr.part.jsonl, line 3: ") && reasons[1].contains("no `text`"),
            "{reasons:?}"
        );
        let bare = document(&items[4]);
        assert_eq!((bare.id.as_str(), bare.dataset.as_str()), ("fr:fr.part.jsonl#6", "fr"));
        assert_eq!((bare.license.as_str(), bare.license_basis.as_deref()), ("CC0-1.0", Some("here")));
    }

    #[test]
    fn a_recipes_dataset_goes_before_the_documents_own_which_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.jsonl");
        fs::write(&path, r#"{"dataset":"own","text":"x"}"#).unwrap();
        let spec = SourceSpec { dataset: Some("ours".into()), ..SourceSpec::default() };
        let items = items(&path, Kind::Lines, &spec);
        assert_eq!(
            (document(&items[0]).dataset.as_str(), document(&items[0]).extras["dataset"].as_str()),
            ("ours", "own")
        );
    }

    #[test]
    fn a_damaged_end_is_one_unreadable_thing_after_what_could_be_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.jsonl.zst");
        let lines = "{\"text\":\"some text that compresses\"}\n".repeat(50_000);
        let mut bytes = zstd::encode_all(lines.as_bytes(), 1).unwrap();
        bytes.truncate(bytes.len() - 10);
        fs::write(&path, bytes).unwrap();
        let items = items(&path, Kind::Lines, &SourceSpec::default());
        assert!(matches!(items.last(), Some(Item::Unreadable { reason: DAMAGED, .. })));
    }

    #[test]
    fn damaged_parquet_is_counted_and_the_rest_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.parquet");
        // Three row groups of ten.
        let texts = |group: usize| -> ArrayRef {
            let text = |n: usize| format!("{} {}", group * 10 + n, "law and order ".repeat(50 + n));
            Arc::new((0..10).map(|n| Some(text(n))).collect::<StringArray>())
        };
        let batch = |group| RecordBatch::try_from_iter([("text", texts(group))]).unwrap();
        let level = parquet::basic::Compression::ZSTD(parquet::basic::ZstdLevel::default());
        let properties =
            parquet::file::properties::WriterProperties::builder().set_compression(level).build();
        let file = File::create(&path).unwrap();
        let mut writer = ArrowWriter::try_new(file, batch(0).schema(), Some(properties)).unwrap();
        for group in 0..3 {
            writer.write(&batch(group)).unwrap();
            writer.flush().unwrap();
        }
        let metadata = writer.close().unwrap();
        let whole = fs::read(&path).unwrap();
        let read = || {
            let items = items(&path, Kind::Rows, &SourceSpec::default());
            let mut damaged = Vec::new();
            let mut first_words = Vec::new();
            for item in items {
                match item {
                    Item::Document(d) => {
                        first_words.push((d.id, d.text.split(' ').next().unwrap().to_owned()))
                    }
                    Item::Unreadable { reason, what, .. } => damaged.push(format!("{reason}: {what}")),
                }
            }
            (first_words, damaged)
        };
        let one = |n: usize| (format!("t:t.parquet#{}", n + 1), n.to_string());
        assert_eq!(read(), ((0..30).map(one).collect(), vec![]));

        let mut damaged = whole.clone();
        let column = metadata.row_group(1).column(0);
        let (start, length) = column.byte_range();
        damaged[start as usize..(start + length) as usize].fill(0xff);
        fs::write(&path, damaged).unwrap();
        let (rows, lost) = read();
        assert_eq!(rows, (0..10).chain(20..30).map(one).collect::<Vec<_>>());
        assert_eq!(lost.len(), 1);
        assert!(lost[0].starts_with("damaged file: t.parquet: rows 11 to 20 cannot be read: "), "{lost:?}");

        for length in [0, 3, whole.len() / 2, whole.len() - 1] {
            fs::write(&path, &whole[..length]).unwrap();
            let (rows, lost) = read();
            assert_eq!((rows.len(), lost.len()), (0, 1), "{length}");
            assert!(lost[0].starts_with("damaged file: t.parquet: "), "{lost:?}");
        }

        let other = RecordBatch::try_from_iter([("words", texts(0))]).unwrap();
        let mut writer = ArrowWriter::try_new(File::create(&path).unwrap(), other.schema(), None).unwrap();
        writer.write(&other).unwrap();
        writer.close().unwrap();
        let (_, lost) = read();
        assert!(lost.len() == 1 && lost[0].contains("it has no column `text` among words"), "{lost:?}");
    }

    #[test]
    fn foreign_parquet_is_taken_column_by_column() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.parquet");
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("identifier", Arc::new(LargeStringArray::from(vec!["a", "b"]))),
            ("text", Arc::new(StringArray::from(vec![Some("x"), None]))),
            ("year", Arc::new(Int64Array::from(vec![1999, 2000]))),
            ("license", Arc::new(StringArray::from(vec!["MIT", "MIT"]))),
        ];
        let batch =
            RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, c)| (n, c, true))).unwrap();
        let mut writer = ArrowWriter::try_new(File::create(&path).unwrap(), batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        let items = items(&path, Kind::Rows, &SourceSpec::default());
        let (first, second) = (document(&items[0]), document(&items[1]));
        assert_eq!(
            (first.id.as_str(), first.text.as_str(), first.extras["year"].as_str()),
            ("a", "x", "1999")
        );
        assert_eq!((second.license.as_str(), second.text.as_str()), ("MIT", ""));
    }
}
