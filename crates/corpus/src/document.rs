//! A document, and documents as rows of Arrow record batches and Parquet shards.

use arrow_array::{
    Array, ArrayRef, Float64Array, MapArray, RecordBatch, StringArray,
    builder::{Float64Builder, MapBuilder, MapFieldNames, StringBuilder},
    cast::AsArray,
    types::Float64Type,
};
use arrow_schema::{ArrowError, DataType, Field, Fields, Schema, SchemaRef};
use blackletter_provenance::hash::{self, DocumentHasher};
use serde::Serialize;
use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock},
};

/// Columns of text, in the order of the schema: name, whether a value may be missing, what is in it.
const TEXT_COLUMNS: [(&str, bool, &str); 11] = [
    ("id", false, "Name of the document, unique in its corpus"),
    ("dataset", false, "The collection that it is from"),
    ("source", true, "Who published it, or where it was collected"),
    ("title", true, "Title"),
    ("url", true, "Address"),
    ("date", true, "Date as the source states it, YYYY-MM-DD where it could be understood"),
    ("license", false, "Licence: SPDX expression"),
    ("license_basis", true, "Why that licence holds: a rule of law, a notice, a file"),
    ("mime_type", false, "Form of the original"),
    ("text", false, "The text"),
    ("blake3", false, "BLAKE3 of the text's UTF-8 bytes, in hexadecimal"),
];
/// Column of the quality score; lower is better.
pub const SCORE: &str = "quality_score";
/// Column of the quality metrics by name.
pub const QUALITY: &str = "quality";
/// Column of what else the source says.
pub const EXTRAS: &str = "extras";

/// Key of an extra: BLAKE3 of the text as it was ingested, where a later step changed it.
pub const INGESTED: &str = "blake3_ingested";

/// What each column holds, for descriptions of a corpus: name, Croissant data type, meaning. The map columns are left out.
pub fn columns() -> Vec<(&'static str, &'static str, &'static str)> {
    let texts = TEXT_COLUMNS.iter().map(|&(name, _, what)| (name, "sc:Text", what));
    texts
        .chain([(SCORE, "sc:Float", "Distance from the texture of the US Code and CFR; lower is better")])
        .collect()
}

/// A text and all that is known about it.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Document {
    /// Name, unique in its corpus.
    pub id: String,
    /// The collection that it is from.
    pub dataset: String,
    /// Who published it, or where it was collected.
    pub source: Option<String>,
    /// Title.
    pub title: Option<String>,
    /// Address.
    pub url: Option<String>,
    /// Date as the source states it.
    pub date: Option<String>,
    /// Licence, an SPDX expression.
    pub license: String,
    /// Why that licence holds.
    pub license_basis: Option<String>,
    /// Form of the original.
    pub mime_type: String,
    /// The text.
    pub text: String,
    /// BLAKE3 of the text, in hexadecimal.
    pub blake3: String,
    /// Quality score; lower is better. None before scoring.
    pub score: Option<f64>,
    /// Quality metrics by name. Empty before scoring.
    pub quality: BTreeMap<String, f64>,
    /// What else the source says.
    pub extras: BTreeMap<String, String>,
}

/// Rows that are not documents.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// A column is missing or of another type.
    #[error("the column `{column}` should hold {expected}, and {found}")]
    Column {
        /// The column.
        column: &'static str,
        /// What it should hold.
        expected: String,
        /// What is there instead.
        found: String,
    },
    /// Arrow refuses the batch.
    #[error("the rows cannot be put together: {0}")]
    Arrow(#[from] ArrowError),
}

fn map_type(value: DataType) -> DataType {
    let entries =
        Fields::from(vec![Field::new("key", DataType::Utf8, false), Field::new("value", value, true)]);
    DataType::Map(Arc::new(Field::new("key_value", DataType::Struct(entries), false)), false)
}

fn map_names() -> Option<MapFieldNames> {
    Some(MapFieldNames { entry: "key_value".into(), key: "key".into(), value: "value".into() })
}

/// The columns of a shard.
pub fn schema() -> SchemaRef {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
        let texts =
            TEXT_COLUMNS.iter().map(|&(name, nullable, _)| Field::new(name, DataType::Utf8, nullable));
        let others = [
            Field::new(SCORE, DataType::Float64, true),
            Field::new(QUALITY, map_type(DataType::Float64), false),
            Field::new(EXTRAS, map_type(DataType::Utf8), false),
        ];
        Arc::new(Schema::new(texts.chain(others).collect::<Vec<_>>()))
    });
    SCHEMA.clone()
}

/// Documents as a batch.
///
/// # Errors
/// When the texts together exceed what one batch can hold, 2 GiB.
pub fn to_batch(documents: &[Document]) -> Result<RecordBatch, DocumentError> {
    let text = |get: fn(&Document) -> &str| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(documents.iter().map(get)))
    };
    let optional = |get: fn(&Document) -> Option<&str>| -> ArrayRef {
        Arc::new(documents.iter().map(get).collect::<StringArray>())
    };
    let size: usize = documents.iter().map(|d| d.text.len()).sum();
    if size > i32::MAX as usize {
        return Err(ArrowError::MemoryError(format!("{size} bytes of text in one batch")).into());
    }
    let mut extras = MapBuilder::new(map_names(), StringBuilder::new(), StringBuilder::new());
    for document in documents {
        for (key, value) in &document.extras {
            extras.keys().append_value(key);
            extras.values().append_value(value);
        }
        extras.append(true)?;
    }
    let columns: Vec<ArrayRef> = vec![
        text(|d| &d.id),
        text(|d| &d.dataset),
        optional(|d| d.source.as_deref()),
        optional(|d| d.title.as_deref()),
        optional(|d| d.url.as_deref()),
        optional(|d| d.date.as_deref()),
        text(|d| &d.license),
        optional(|d| d.license_basis.as_deref()),
        text(|d| &d.mime_type),
        text(|d| &d.text),
        text(|d| &d.blake3),
        Arc::new(documents.iter().map(|d| d.score).collect::<Float64Array>()),
        quality_column(
            documents.iter().map(|d| d.quality.iter().map(|(name, value)| (name.as_str(), *value))),
        )?,
        Arc::new(extras.finish()),
    ];
    Ok(RecordBatch::try_new(schema(), columns)?)
}

/// The metrics column of rows of (name, value).
///
/// # Errors
/// When there are too many rows for one column.
pub fn quality_column<'n, R: IntoIterator<Item = (&'n str, f64)>>(
    rows: impl IntoIterator<Item = R>,
) -> Result<ArrayRef, DocumentError> {
    let mut quality = MapBuilder::new(map_names(), StringBuilder::new(), Float64Builder::new());
    for row in rows {
        for (name, value) in row {
            quality.keys().append_value(name);
            quality.values().append_value(value);
        }
        quality.append(true)?;
    }
    Ok(Arc::new(quality.finish()))
}

/// A batch's rows, with the columns found and their types checked once.
pub struct Rows<'b> {
    batch: &'b RecordBatch,
    texts: [&'b StringArray; TEXT_COLUMNS.len()],
    score: &'b Float64Array,
    quality: &'b MapArray,
    extras: &'b MapArray,
}

impl<'b> Rows<'b> {
    /// Looks at a batch as documents.
    ///
    /// # Errors
    /// When a column is missing, is of another type, or lacks a value that must be there.
    pub fn of(batch: &'b RecordBatch) -> Result<Self, DocumentError> {
        fn column<'b, A: Array + 'static>(
            batch: &'b RecordBatch,
            name: &'static str,
            nullable: bool,
        ) -> Result<&'b A, DocumentError> {
            let expected =
                schema().field_with_name(name).map(|f| f.data_type().to_string()).unwrap_or_default();
            let wrong =
                |found: String| DocumentError::Column { column: name, expected: expected.clone(), found };
            let column = batch.column_by_name(name).ok_or_else(|| wrong("there is no such column".into()))?;
            if !nullable && column.null_count() > 0 {
                return Err(wrong(format!("{} rows have no value", column.null_count())));
            }
            let of_type = column.data_type().to_string();
            column.as_any().downcast_ref().ok_or_else(|| wrong(format!("it holds {of_type}")))
        }
        let mut texts = Vec::with_capacity(TEXT_COLUMNS.len());
        for (name, nullable, _) in TEXT_COLUMNS {
            texts.push(column(batch, name, nullable)?);
        }
        let texts = texts.try_into().map_err(|_| ArrowError::SchemaError("a column is missing".into()))?;
        let rows = Self {
            batch,
            texts,
            score: column(batch, SCORE, true)?,
            quality: column(batch, QUALITY, false)?,
            extras: column(batch, EXTRAS, false)?,
        };
        for (name, map, value) in
            [(QUALITY, rows.quality, DataType::Float64), (EXTRAS, rows.extras, DataType::Utf8)]
        {
            if *map.data_type() != map_type(value.clone()) {
                let found = format!("it holds {}", map.data_type());
                return Err(DocumentError::Column {
                    column: name,
                    expected: map_type(value).to_string(),
                    found,
                });
            }
        }
        Ok(rows)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.batch.num_rows()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn text_at(&self, column: usize, row: usize) -> Option<&'b str> {
        let column = self.texts[column];
        column.is_valid(row).then(|| column.value(row))
    }

    /// Name of the document at `row`.
    pub fn id(&self, row: usize) -> &'b str {
        self.texts[0].value(row)
    }

    /// Its dataset.
    pub fn dataset(&self, row: usize) -> &'b str {
        self.texts[1].value(row)
    }

    /// Its source.
    pub fn source(&self, row: usize) -> Option<&'b str> {
        self.text_at(2, row)
    }

    /// Its licence.
    pub fn license(&self, row: usize) -> &'b str {
        self.texts[6].value(row)
    }

    /// The licence's basis.
    pub fn license_basis(&self, row: usize) -> Option<&'b str> {
        self.text_at(7, row)
    }

    /// Form of its original.
    pub fn mime_type(&self, row: usize) -> &'b str {
        self.texts[8].value(row)
    }

    /// Its text.
    pub fn text(&self, row: usize) -> &'b str {
        self.texts[9].value(row)
    }

    /// The hash that is recorded for its text.
    pub fn blake3(&self, row: usize) -> &'b str {
        self.texts[10].value(row)
    }

    /// Its quality score, if it has been scored.
    pub fn score(&self, row: usize) -> Option<f64> {
        self.score.is_valid(row).then(|| self.score.value(row))
    }

    /// Its metrics.
    pub fn quality(&self, row: usize) -> Vec<(&'b str, f64)> {
        let (from, to) = span(self.quality, row);
        let keys: &StringArray = self.quality.keys().as_string();
        let values: &Float64Array = self.quality.values().as_primitive::<Float64Type>();
        (from..to).map(|at| (keys.value(at), values.value(at))).collect()
    }

    /// What else its source says.
    pub fn extras(&self, row: usize) -> Vec<(&'b str, &'b str)> {
        let (from, to) = span(self.extras, row);
        let keys: &StringArray = self.extras.keys().as_string();
        let values: &StringArray = self.extras.values().as_string();
        (from..to).map(|at| (keys.value(at), values.value(at))).collect()
    }

    /// The document's hash (see [`blackletter_provenance::hash`]) over every column but the quality, which follows from the
    /// text: first the text columns in the schema's order, with the hash of the text anew in place of text and `blake3`,
    /// then each extra by name as `extras.KEY`.
    pub fn hash(&self, row: usize) -> [u8; 32] {
        let mut hasher = DocumentHasher::default();
        for (column, (name, ..)) in TEXT_COLUMNS.iter().enumerate() {
            match *name {
                "text" => hasher.field("blake3", Some(&hash::hex(self.text(row).as_bytes()))),
                "blake3" => {}
                name => hasher.field(name, self.text_at(column, row)),
            }
        }
        let mut extras = self.extras(row);
        extras.sort_unstable();
        for (key, value) in extras {
            hasher.field(&format!("extras.{key}"), Some(value));
        }
        hasher.finish()
    }

    /// The document at `row`, by itself.
    pub fn document(&self, row: usize) -> Document {
        let text = |column: usize| self.text_at(column, row).unwrap_or_default().to_owned();
        let optional = |column: usize| self.text_at(column, row).map(str::to_owned);
        let own = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
        Document {
            id: text(0),
            dataset: text(1),
            source: optional(2),
            title: optional(3),
            url: optional(4),
            date: optional(5),
            license: text(6),
            license_basis: optional(7),
            mime_type: text(8),
            text: text(9),
            blake3: text(10),
            score: self.score(row),
            quality: self.quality(row).into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
            extras: self.extras(row).into_iter().map(own).collect(),
        }
    }
}

fn span(map: &MapArray, row: usize) -> (usize, usize) {
    let offsets = map.value_offsets();
    let at = |at: usize| offsets.get(at).map_or(0, |&offset| usize::try_from(offset).unwrap_or(0));
    (at(row), at(row + 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn documents() -> impl Strategy<Value = Vec<Document>> {
        let optional = || prop::option::of("\\PC{0,8}");
        let one = (
            ("[a-z]{1,5}", "[a-z]{1,3}", optional(), optional(), optional()),
            (optional(), "[A-Z]{1,4}", optional(), "[a-z/]{1,9}", "\\PC{0,60}"),
            (prop::option::of(0.0..9.0), prop::collection::btree_map("[a-z]{1,3}", 0.0..1.0, 0..3)),
            prop::collection::btree_map("[a-z]{1,3}", "\\PC{0,5}", 0..3),
        );
        let one = one.prop_map(
            |(
                (id, dataset, source, title, url),
                (date, license, license_basis, mime_type, text),
                (score, quality),
                extras,
            )| {
                let blake3 = hash::hex(text.as_bytes());
                Document {
                    id,
                    dataset,
                    source,
                    title,
                    url,
                    date,
                    license,
                    license_basis,
                    mime_type,
                    text,
                    blake3,
                    score,
                    quality,
                    extras,
                }
            },
        );
        prop::collection::vec(one, 0..8)
    }

    proptest! {
        #[test]
        fn documents_come_back_from_a_batch_and_from_a_slice_of_it(documents in documents(), from in 0usize..8) {
            let batch = to_batch(&documents).unwrap();
            let rows = Rows::of(&batch).unwrap();
            let back: Vec<Document> = (0..rows.len()).map(|row| rows.document(row)).collect();
            prop_assert_eq!(&back, &documents);
            let from = from.min(documents.len());
            let slice = batch.slice(from, documents.len() - from);
            let rows = Rows::of(&slice).unwrap();
            let back: Vec<Document> = (0..rows.len()).map(|row| rows.document(row)).collect();
            prop_assert_eq!(&back[..], &documents[from..]);
        }
    }

    #[test]
    fn the_hash_knows_every_column_but_the_quality() {
        let hash_of = |document: &Document| {
            let batch = to_batch(std::slice::from_ref(document)).unwrap();
            Rows::of(&batch).unwrap().hash(0)
        };
        let base = Document { id: "a".into(), text: "b".into(), ..Document::default() };
        let scored = Document { score: Some(1.0), quality: [("x".into(), 1.0)].into(), ..base.clone() };
        assert_eq!(hash_of(&base), hash_of(&scored));
        let some = || Some("c".to_owned());
        let changed = [
            Document { id: "c".into(), ..base.clone() },
            Document { dataset: "c".into(), ..base.clone() },
            Document { source: some(), ..base.clone() },
            Document { title: some(), ..base.clone() },
            Document { url: some(), ..base.clone() },
            Document { date: some(), ..base.clone() },
            Document { license: "c".into(), ..base.clone() },
            Document { license_basis: some(), ..base.clone() },
            Document { mime_type: "c".into(), ..base.clone() },
            Document { text: "c".into(), ..base.clone() },
            Document { extras: [("c".into(), "c".into())].into(), ..base.clone() },
        ];
        for (at, document) in changed.iter().enumerate() {
            assert_ne!(hash_of(document), hash_of(&base));
            assert!(changed[..at].iter().all(|other| hash_of(other) != hash_of(document)));
        }
    }

    #[test]
    fn rows_of_another_form_are_refused_by_column() {
        let wrong =
            RecordBatch::try_from_iter([("id", Arc::new(StringArray::from(vec!["a"])) as ArrayRef)]).unwrap();
        let error = Rows::of(&wrong).err().unwrap().to_string();
        assert_eq!(error, "the column `dataset` should hold Utf8, and there is no such column");
    }
}
