//! Token ids as documents: kl3m-data's `parquet/` stage and the Parquet that is published on the Hugging Face Hub. Both hold
//! names and ids and nothing else, so that the source names the tokenizer that made the ids, and states their licence.

use super::{InputFile, Item, SourceSpec, complete, original::FILE, records::split};
use crate::{
    document::Document,
    kl3m_data::{
        Kl3mDataError,
        parquet::{ExportRow, TokenRecord, export_rows},
    },
};
use arrow_array::RecordBatch;
use std::{fmt, sync::Arc};

/// Reason of ids that are not the tokenizer's.
const TOKENS: &str = "unreadable token ids";

/// Text of ids; what is wrong with them otherwise.
pub type DecodeIds = dyn Fn(&[u32]) -> Result<String, String> + Send + Sync;

/// The way from token ids back to text.
#[derive(Clone)]
pub struct Decoder {
    /// BLAKE3 of the tokenizer, in hexadecimal: another one gives other texts.
    pub blake3: String,
    /// Gives the text.
    pub decode: Arc<DecodeIds>,
}

impl fmt::Debug for Decoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decoder").field("blake3", &self.blake3).finish_non_exhaustive()
    }
}

/// The document of an object of the `parquet/` stage, `<dataset>/<id>`, with the text to go on with.
pub(super) fn recorded(name: &str, bytes: &[u8], decoder: &Decoder) -> Result<Vec<Item>, Kl3mDataError> {
    let (dataset, id) = split(name);
    let mut record = TokenRecord::from_bytes(bytes)?;
    let id = if record.identifier.is_empty() { id } else { record.identifier };
    let wanted = ["text/markdown", "text/plain"];
    let at = wanted.iter().find_map(|mime| record.representations.iter().position(|(m, _)| m == mime));
    let at = at.unwrap_or(0);
    if at >= record.representations.len() {
        let what = format!("{id}: no representation");
        return Ok(vec![Item::Unreadable { dataset, reason: FILE, what, bytes: bytes.len() }]);
    }
    let (mime_type, tokens) = record.representations.swap_remove(at);
    Ok(vec![item(ExportRow { identifier: id, dataset, mime_type, tokens }, decoder)])
}

/// The documents of rows of an export; none where the rows are something else.
pub(super) fn exported(
    batch: &RecordBatch,
    from: u64,
    file: &InputFile,
    spec: &SourceSpec,
    decoder: &Decoder,
) -> Result<Vec<Item>, Kl3mDataError> {
    let mut items: Vec<Item> = export_rows(batch)?.into_iter().map(|row| item(row, decoder)).collect();
    for (number, item) in (from + 1..).zip(&mut items) {
        if let Item::Document(document) = item {
            complete(document, file, spec);
            if document.id.is_empty() {
                document.id = format!("{}:{}#{number}", document.dataset, file.name);
            }
        }
    }
    Ok(items)
}

/// Whether rows are those of an export: ids and no text.
pub(super) fn is_export(batch: &RecordBatch) -> bool {
    let has = |name: &str| batch.column_by_name(name).is_some();
    has("tokens") && has("identifier") && !has("text")
}

fn item(row: ExportRow, decoder: &Decoder) -> Item {
    let ExportRow { identifier: id, dataset, mime_type, tokens } = row;
    match (decoder.decode)(&tokens) {
        Ok(text) => {
            Item::Document(Box::new(Document { id, dataset, mime_type, text, ..Document::default() }))
        }
        Err(reason) => {
            Item::Unreadable { dataset, reason: TOKENS, what: format!("{id}: {reason}"), bytes: 0 }
        }
    }
}
