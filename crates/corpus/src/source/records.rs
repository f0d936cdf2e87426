//! Objects of kl3m-data as documents.

use super::{
    Item,
    original::{self, PARSE},
};
use crate::{
    document::Document,
    kl3m_data::{
        Kl3mDataError,
        records::{ParsedDocument, Representations, SourceDocument},
    },
    parse,
};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Reason of documents that are not to be learned from.
const HELD_OUT: &str = "held out";

/// A collected document: its bytes go through the parsers. `name` is `<dataset>/<id>.json`.
pub(super) fn collected(name: &str, json: &[u8]) -> Result<Vec<Item>, Kl3mDataError> {
    let (dataset, id) = split(name);
    let source = SourceDocument::from_json(json)?;
    let id = source.field("identifier").map_or(id, str::to_owned);
    if is_held_out(&source.metadata) {
        let bytes = source.content.len();
        return Ok(vec![Item::Unreadable { dataset, reason: HELD_OUT, what: id, bytes }]);
    }
    let parsed = match parse::parse(name, &source.content) {
        Ok(parsed) => parsed,
        Err(e) => {
            let (dataset, what, bytes) = (dataset, format!("{id}: {e}"), source.content.len());
            return Ok(vec![Item::Unreadable { dataset, reason: PARSE, what, bytes }]);
        }
    };
    let mut items = original::documents(&id, &dataset, parsed);
    for item in &mut items {
        if let Item::Document(document) = item {
            own(document, &source.metadata);
        }
    }
    Ok(items)
}

/// Parsed documents, with the text to go on with of each.
pub(super) fn represented(name: &str, json: &[u8]) -> Result<Vec<Item>, Kl3mDataError> {
    let (dataset, id) = split(name);
    let documents = Representations::from_json(json)?.documents;
    let several = documents.len() > 1;
    let one = |(at, parsed): (usize, ParsedDocument)| {
        let named = parsed.identifier.clone().unwrap_or_else(|| id.clone());
        let id = if several && parsed.identifier.is_none() { format!("{named}#{}", at + 1) } else { named };
        let Some(text) = parsed.text() else {
            let what = format!("{id}: no representation");
            return Item::Unreadable { dataset: dataset.clone(), reason: PARSE, what, bytes: 0 };
        };
        if is_held_out(&parsed.metadata) {
            let (dataset, bytes) = (dataset.clone(), text.content.len());
            return Item::Unreadable { dataset, reason: HELD_OUT, what: id, bytes };
        }
        let mut document = Document {
            id,
            dataset: dataset.clone(),
            mime_type: text.mime_type.clone(),
            text: text.content.clone(),
            ..Document::default()
        };
        own(&mut document, &parsed.metadata);
        document.source = document.source.or(parsed.source);
        if let Some(uri) = parsed.original_uri {
            document.extras.insert("original_uri".into(), uri);
        }
        Item::Document(Box::new(document))
    };
    Ok(documents.into_iter().enumerate().map(one).collect())
}

/// Dataset and id of `<dataset>/<id>.json`.
pub(super) fn split(name: &str) -> (String, String) {
    let name = name.strip_suffix(".json").unwrap_or(name);
    let (dataset, id) = name.split_once('/').unwrap_or(("", name));
    (dataset.to_owned(), id.to_owned())
}

/// Whether an exported corpus set the document aside.
fn is_held_out(metadata: &Map<String, Value>) -> bool {
    metadata.get("part").and_then(Value::as_str) == Some("heldout")
}

/// Takes over what metadata state, without what an export adds to them: what it says of the text is made anew, and the form of
/// the original is the document's again.
fn own(document: &mut Document, metadata: &Map<String, Value>) {
    let mut metadata = metadata.clone();
    if let Some(Value::String(format)) = metadata.remove("original_format") {
        document.mime_type = format;
        for added in ["blake3", "part"] {
            metadata.remove(added);
        }
        if metadata.get("dataset").and_then(Value::as_str) == Some(&document.dataset) {
            metadata.remove("dataset");
        }
    }
    state(document, &metadata);
}

/// Takes over what metadata state: known fields to theirs, the rest to the extras.
pub(super) fn state(document: &mut Document, metadata: &Map<String, Value>) {
    let mut fields: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in metadata {
        if let Some(value) = as_text(value) {
            fields.insert(name.clone(), value);
        }
    }
    let mut take = |names: &[&str]| names.iter().find_map(|name| fields.remove(*name));
    let format = take(&["mime_type", "format"]);
    document.title = take(&["title"]).or(document.title.take());
    document.date = take(&["date"]).or(document.date.take());
    document.url = take(&["url"]).or(document.url.take());
    document.source = take(&["source"]).or(document.source.take());
    document.license = take(&["license"]).unwrap_or_else(|| std::mem::take(&mut document.license));
    document.license_basis = take(&["license_basis"]).or(document.license_basis.take());
    if document.mime_type.is_empty() {
        document.mime_type = format.unwrap_or_default();
    }
    fields.remove("identifier");
    for (name, value) in fields {
        document.extras.entry(name).or_insert(value);
    }
}

/// A value as text; none for null and empty text.
pub(super) fn as_text(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => (!text.trim().is_empty()).then(|| text.clone()),
        other => Some(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kl3m_data::records::Representation;
    use serde_json::json;

    fn document(items: &[Item]) -> &Document {
        match items {
            [Item::Document(document)] => document,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_collected_document_is_parsed_and_keeps_what_is_known() {
        let metadata = json!({ "title": "Lakes", "license": "CC0-1.0", "license_basis": "notice", "format": "text/html",
            "publisher": "GPO", "nothing": null, "identifier": "usc/1" });
        let Value::Object(metadata) = metadata else { panic!() };
        let source =
            SourceDocument { content: b"<html><body><p>A lake is wet.</p></body></html>".to_vec(), metadata };
        let items = collected("usc/x.json", &source.to_json().unwrap()).unwrap();
        let found = document(&items);
        assert_eq!(
            (found.id.as_str(), found.dataset.as_str(), found.text.trim()),
            ("usc/1", "usc", "A lake is wet.")
        );
        assert_eq!((found.license.as_str(), found.title.as_deref()), ("CC0-1.0", Some("Lakes")));
        assert_eq!(found.mime_type, "text/html");
        assert_eq!(found.extras["publisher"], "GPO");
    }

    #[test]
    fn a_represented_document_gives_its_markdown() {
        let text = |mime: &str, content: &str| {
            let one = Representation {
                content: content.into(),
                mime_type: mime.into(),
                ..Representation::default()
            };
            (mime.to_owned(), one)
        };
        let parsed = ParsedDocument {
            identifier: Some("fr/2".into()),
            representations: [text("text/markdown", "# A"), text("text/plain", "A")].into(),
            ..ParsedDocument::default()
        };
        let empty = ParsedDocument { identifier: Some("fr/3".into()), ..ParsedDocument::default() };
        let json = Representations { documents: vec![parsed, empty] }.to_json().unwrap();
        let items = represented("fr/x.json", &json).unwrap();
        assert_eq!(document(&items[..1]).text, "# A");
        assert!(matches!(&items[1], Item::Unreadable { what, .. } if what.contains("fr/3")));
        assert!(represented("fr/x.json", b"{}").is_err());
    }
}
