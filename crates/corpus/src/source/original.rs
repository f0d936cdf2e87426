//! One file at a time: originals through the parsers, and the objects of kl3m-data.

use super::{
    InputFile, Item, Kind, SourceSpec, complete, dataset_of, records,
    tokens::{self, Decoder},
};
use crate::{
    document::Document,
    parse::{self, MAX_INPUT, MIME_TYPE, PARSE_ERROR, PART, Parsed},
};
use std::fs;

/// Reasons of items that are no documents.
pub(super) const PARSE: &str = "parse error";
pub(super) const FILE: &str = "unreadable file";
const MISSING: &str = "missing object";

pub(super) fn read(file: &InputFile, spec: &SourceSpec, decoder: Option<&Decoder>) -> Vec<Item> {
    let dataset = dataset_of(file, spec);
    let unreadable = |reason: &'static str, what: String| {
        let (dataset, what) = (dataset.clone(), format!("{}: {what}", file.name));
        vec![Item::Unreadable { dataset, reason, what, bytes: file.bytes as usize }]
    };
    if file.bytes > MAX_INPUT {
        return unreadable(FILE, format!("larger than {MAX_INPUT} bytes"));
    }
    if file.kind == Kind::Missing {
        return unreadable(MISSING, "the index names it, and it is not there".into());
    }
    let bytes = match fs::read(&file.path) {
        Ok(bytes) => bytes,
        Err(e) => return unreadable(FILE, e.to_string()),
    };
    let mut items = match file.kind {
        Kind::Collected => match records::collected(&file.name, &bytes) {
            Ok(items) => items,
            Err(e) => return unreadable(FILE, e.to_string()),
        },
        Kind::Represented => match records::represented(&file.name, &bytes) {
            Ok(items) => items,
            Err(e) => return unreadable(FILE, e.to_string()),
        },
        Kind::Tokens => match decoder.map(|decoder| tokens::recorded(&file.name, &bytes, decoder)) {
            Some(Ok(items)) => items,
            Some(Err(e)) => return unreadable(FILE, e.to_string()),
            None => return unreadable(FILE, "it holds token ids, and no tokenizer is named".into()),
        },
        _ => match parse::parse(&file.name, &bytes) {
            Ok(parsed) => documents(&format!("{dataset}:{}", file.name), &dataset, parsed),
            Err(e) => return unreadable(PARSE, e.to_string()),
        },
    };
    for item in &mut items {
        if let Item::Document(document) = item {
            complete(document, file, spec);
        }
    }
    items
}

/// Parsed documents as items, under `id` when there is one, under `id#part` when there are several.
pub(super) fn documents(id: &str, dataset: &str, parsed: Vec<Parsed>) -> Vec<Item> {
    let several = parsed.len() > 1;
    let one = |(at, mut parsed): (usize, Parsed)| {
        let part = parsed.extras.get(PART).cloned();
        let id = match (several, &part) {
            (false, _) => id.to_owned(),
            (true, Some(part)) => format!("{id}#{}:{part}", at + 1),
            (true, None) => format!("{id}#{}", at + 1),
        };
        if let Some(error) = parsed.extras.remove(PARSE_ERROR) {
            let bytes = parsed.markdown.len();
            return Item::Unreadable {
                dataset: dataset.into(),
                reason: PARSE,
                what: format!("{id}: {error}"),
                bytes,
            };
        }
        let mime_type = parsed.extras.remove(MIME_TYPE).unwrap_or_default();
        Item::Document(Box::new(Document {
            id,
            dataset: dataset.into(),
            title: parsed.title,
            url: parsed.url,
            date: parsed.date,
            mime_type,
            text: parsed.markdown,
            extras: parsed.extras,
            ..Document::default()
        }))
    };
    parsed.into_iter().enumerate().map(one).collect()
}
