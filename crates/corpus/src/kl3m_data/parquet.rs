//! The Parquet stage, one small file per document, and the export of many documents for the Hugging Face Hub.

use super::{Kl3mDataError, deflate, inflate};
use arrow_array::{
    Array, ArrayRef, ListArray, MapArray, RecordBatch, StringArray, UInt32Array,
    builder::{ListBuilder, MapBuilder, MapFieldNames, StringBuilder, UInt32Builder},
};
use arrow_schema::{DataType, Field};
use bytes::Bytes;
use parquet::{
    arrow::{ArrowWriter, arrow_reader::ParquetRecordBatchReaderBuilder},
    basic::{Compression, ZstdLevel},
    file::properties::WriterProperties,
};
use std::{io::Write, panic::catch_unwind, sync::Arc};

/// Rows of an export that are held at a time.
const ROWS: usize = 1024;

/// A document's token ids by MIME type.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenRecord {
    /// The document.
    pub identifier: String,
    /// (MIME type, ids), in the order of the file.
    pub representations: Vec<(String, Vec<u32>)>,
}

/// A row of the export.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExportRow {
    /// The document.
    pub identifier: String,
    /// Its dataset.
    pub dataset: String,
    /// Of the text that was tokenized.
    pub mime_type: String,
    /// Its ids.
    pub tokens: Vec<u32>,
}

fn wrong(what: &'static str, reason: impl ToString) -> Kl3mDataError {
    Kl3mDataError::Format { what, reason: reason.to_string() }
}

fn ids() -> ListBuilder<UInt32Builder> {
    ListBuilder::new(UInt32Builder::new()).with_field(Field::new("element", DataType::UInt32, true))
}

impl TokenRecord {
    const WHAT: &'static str = "a token record";

    /// Writes the object: zlib around a Parquet file of one row.
    ///
    /// # Errors
    /// When it cannot be encoded.
    pub fn to_bytes(&self) -> Result<Vec<u8>, Kl3mDataError> {
        let wrong = |e: &dyn ToString| wrong(Self::WHAT, e.to_string());
        let names = MapFieldNames { entry: "key_value".into(), key: "key".into(), value: "value".into() };
        let mut map = MapBuilder::new(Some(names), StringBuilder::new(), ids());
        for (mime_type, tokens) in &self.representations {
            map.keys().append_value(mime_type);
            map.values().append_value(tokens.iter().map(|&id| Some(id)));
        }
        map.append(true).map_err(|e| wrong(&e))?;
        let columns: [(&str, ArrayRef); 2] = [
            ("identifier", Arc::new(StringArray::from(vec![self.identifier.as_str()]))),
            ("representations", Arc::new(map.finish())),
        ];
        let batch = RecordBatch::try_from_iter(columns).map_err(|e| wrong(&e))?;
        let mut bytes = Vec::new();
        let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), None).map_err(|e| wrong(&e))?;
        writer.write(&batch).map_err(|e| wrong(&e))?;
        writer.close().map_err(|e| wrong(&e))?;
        deflate(&bytes).map_err(|e| wrong(&e))
    }

    /// Reads the object.
    ///
    /// # Errors
    /// When it is damaged or has other columns.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Kl3mDataError> {
        let what = Self::WHAT;
        let batches = batches(what, inflate(what, bytes)?)?;
        let batch = batches.iter().find(|b| b.num_rows() > 0).ok_or_else(|| wrong(what, "it has no row"))?;
        let identifier = column::<StringArray>(what, batch, "identifier")?.value(0).to_string();
        let map = column::<MapArray>(what, batch, "representations")?.value(0);
        let cast = |column: &ArrayRef, kind: &str| {
            wrong(what, format!("its map has {} for {kind}", column.data_type()))
        };
        let (keys, values) = (map.column(0), map.column(1));
        let keys = keys.as_any().downcast_ref::<StringArray>().ok_or_else(|| cast(keys, "keys"))?;
        let values = values.as_any().downcast_ref::<ListArray>().ok_or_else(|| cast(values, "values"))?;
        let representations = (0..map.len())
            .map(|row| Ok((keys.value(row).to_string(), tokens(what, &values.value(row))?)))
            .collect::<Result<_, Kl3mDataError>>()?;
        Ok(Self { identifier, representations })
    }
}

/// Writes the export: columns `identifier`, `dataset`, `mime_type` and `tokens` (a list of unsigned 32-bit ids).
///
/// # Errors
/// When `out` cannot be written. Gives the number of rows.
pub fn write_export<W: Write + Send>(
    rows: impl IntoIterator<Item = Result<ExportRow, Kl3mDataError>>,
    out: W,
) -> Result<u64, Kl3mDataError> {
    const WHAT: &str = "an export";
    let failed = |e: &dyn ToString| wrong(WHAT, e.to_string());
    let batch = |rows: &[ExportRow]| {
        let texts = |field: fn(&ExportRow) -> &str| -> ArrayRef {
            Arc::new(StringArray::from_iter_values(rows.iter().map(field)))
        };
        let mut tokens = ids();
        for row in rows {
            tokens.append_value(row.tokens.iter().map(|&id| Some(id)));
        }
        let columns: [(&str, ArrayRef); 4] = [
            ("identifier", texts(|row| &row.identifier)),
            ("dataset", texts(|row| &row.dataset)),
            ("mime_type", texts(|row| &row.mime_type)),
            ("tokens", Arc::new(tokens.finish())),
        ];
        RecordBatch::try_from_iter(columns)
    };
    let level = ZstdLevel::try_new(3).map_err(|e| failed(&e))?;
    let properties = WriterProperties::builder().set_compression(Compression::ZSTD(level)).build();
    let empty = batch(&[]).map_err(|e| failed(&e))?;
    let mut writer = ArrowWriter::try_new(out, empty.schema(), Some(properties)).map_err(|e| failed(&e))?;
    let (mut held, mut count) = (Vec::with_capacity(ROWS), 0);
    let mut rows = rows.into_iter();
    loop {
        let row = rows.next().transpose()?;
        let last = row.is_none();
        held.extend(row);
        if held.len() == ROWS || last {
            writer.write(&batch(&held).map_err(|e| failed(&e))?).map_err(|e| failed(&e))?;
            count += held.len() as u64;
            held.clear();
        }
        if last {
            break;
        }
    }
    writer.close().map_err(|e| failed(&e))?;
    Ok(count)
}

/// Reads an export.
///
/// # Errors
/// When it is damaged or has other columns.
pub fn read_export(bytes: Vec<u8>) -> Result<Vec<ExportRow>, Kl3mDataError> {
    let mut rows = Vec::new();
    for batch in batches("an export", bytes)? {
        rows.extend(export_rows(&batch)?);
    }
    Ok(rows)
}

/// Some rows of an export.
///
/// # Errors
/// When they have other columns.
pub fn export_rows(batch: &RecordBatch) -> Result<Vec<ExportRow>, Kl3mDataError> {
    const WHAT: &str = "an export";
    let identifiers = column::<StringArray>(WHAT, batch, "identifier")?;
    let datasets = column::<StringArray>(WHAT, batch, "dataset")?;
    let mime_types = column::<StringArray>(WHAT, batch, "mime_type")?;
    let lists = column::<ListArray>(WHAT, batch, "tokens")?;
    let one = |row: usize| {
        Ok(ExportRow {
            identifier: identifiers.value(row).into(),
            dataset: datasets.value(row).into(),
            mime_type: mime_types.value(row).into(),
            tokens: tokens(WHAT, &lists.value(row))?,
        })
    };
    (0..batch.num_rows()).map(one).collect()
}

fn batches(what: &'static str, bytes: Vec<u8>) -> Result<Vec<RecordBatch>, Kl3mDataError> {
    // Damaged files make the reader panic in places; to the caller that is a damaged file too.
    let read = catch_unwind(|| {
        let reader = ParquetRecordBatchReaderBuilder::try_new(Bytes::from(bytes))
            .and_then(ParquetRecordBatchReaderBuilder::build)
            .map_err(|e| e.to_string())?;
        reader.collect::<Result<Vec<_>, _>>().map_err(|e| e.to_string())
    });
    read.unwrap_or_else(|_| Err("its parts contradict each other".into())).map_err(|e| wrong(what, e))
}

fn column<'b, A: Array + 'static>(
    what: &'static str,
    batch: &'b RecordBatch,
    name: &str,
) -> Result<&'b A, Kl3mDataError> {
    let column =
        batch.column_by_name(name).ok_or_else(|| wrong(what, format!("it has no column `{name}`")))?;
    let kind = column.data_type();
    column.as_any().downcast_ref().ok_or_else(|| wrong(what, format!("its column `{name}` holds {kind}")))
}

fn tokens(what: &'static str, list: &ArrayRef) -> Result<Vec<u32>, Kl3mDataError> {
    let ids = list.as_any().downcast_ref::<UInt32Array>();
    let ids = ids.ok_or_else(|| wrong(what, format!("its ids are {}", list.data_type())))?;
    Ok(ids.values().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> TokenRecord {
        TokenRecord {
            identifier: "usc/1/1".into(),
            representations: vec![
                ("text/plain".into(), vec![5549, 31673, 3341]),
                ("text/markdown".into(), vec![]),
            ],
        }
    }

    #[test]
    fn a_token_record_comes_back() {
        let bytes = record().to_bytes().unwrap();
        assert_eq!(bytes[0], 0x78, "zlib around it");
        assert_eq!(TokenRecord::from_bytes(&bytes).unwrap(), record());
    }

    #[test]
    fn an_export_comes_back_whatever_its_length() {
        for count in [0, 1, ROWS, ROWS + 1] {
            let rows: Vec<_> = (0..count)
                .map(|n| ExportRow {
                    identifier: format!("d{n}"),
                    dataset: "usc".into(),
                    mime_type: "text/plain".into(),
                    tokens: (0..n as u32 % 7).collect(),
                })
                .collect();
            let mut bytes = Vec::new();
            assert_eq!(write_export(rows.iter().cloned().map(Ok), &mut bytes).unwrap(), count as u64);
            assert_eq!(read_export(bytes).unwrap(), rows);
        }
    }

    #[test]
    fn damage_is_said() {
        let bytes = record().to_bytes().unwrap();
        let inner = inflate("test", &bytes).unwrap();
        for damaged in [Vec::new(), bytes[..bytes.len() / 2].to_vec(), deflate(b"no parquet").unwrap()] {
            assert!(TokenRecord::from_bytes(&damaged).is_err());
        }
        for at in 0..inner.len() {
            let mut damaged = inner.clone();
            damaged[at] ^= 0x55;
            // Right, or refused; never a panic.
            let _ = TokenRecord::from_bytes(&deflate(&damaged).unwrap());
        }
        let mut export = Vec::new();
        write_export([], &mut export).unwrap();
        let error = TokenRecord::from_bytes(&deflate(&export).unwrap()).unwrap_err().to_string();
        assert!(error.contains("it has no row"), "{error}");
    }
}
