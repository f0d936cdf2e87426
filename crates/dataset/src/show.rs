//! A row as a person reads it.

use crate::{
    error::DatasetError,
    row::{IGNORED, Kind, Row},
    stream::RowStream,
};
use serde::Serialize;
use std::fmt::Write;

/// A row with what its numbers stand for.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Shown {
    /// The epoch.
    pub epoch: u64,
    /// The row's number.
    pub row: u64,
    /// Rows of the epoch.
    pub rows: u64,
    /// What it teaches.
    pub kind: Kind,
    /// Its length.
    pub context: usize,
    /// Tokens that are no padding.
    pub tokens: usize,
    /// Tokens that predict something that counts.
    pub targets: usize,
    /// Padding before the first token.
    pub left_padding: usize,
    /// Its parts.
    pub parts: Vec<ShownPart>,
}

/// A part of a row.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ShownPart {
    /// Name of the document.
    pub document: String,
    /// Its dataset.
    pub dataset: String,
    /// Its licence.
    pub license: String,
    /// Kind of the example; nothing for a document.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// Where it begins in the row.
    pub start: usize,
    /// Position of its first token for the rotary embedding.
    pub position: u32,
    /// Its tokens.
    pub tokens: usize,
    /// Its text, special tokens included.
    pub text: String,
    /// The texts that are predicted, one for each run of tokens.
    pub learned: Vec<String>,
}

/// Reads row `n` of an epoch.
///
/// # Errors
/// When there is no such row.
pub fn show(stream: &RowStream, epoch: u64, n: u64) -> Result<Shown, DatasetError> {
    let rows = stream.rows(epoch);
    if n >= rows {
        return Err(DatasetError::NoRow { row: n, epoch, rows });
    }
    let row = stream.row(epoch, n);
    let mut parts = Vec::with_capacity(row.parts.len());
    let mut start = row.segments.iter().position(|&segment| segment != 0).unwrap_or(0);
    let left_padding = start;
    for part in &row.parts {
        let tokens = part.tokens as usize;
        parts.push(shown_part(stream, &row, part.document, start..start + tokens));
        start += tokens;
    }
    Ok(Shown {
        epoch,
        row: n,
        rows,
        kind: row.kind,
        context: row.ids.len(),
        tokens: row.segments.iter().filter(|&&segment| segment != 0).count(),
        targets: row.targets(),
        left_padding,
        parts,
    })
}

fn shown_part(stream: &RowStream, row: &Row, document: u32, span: std::ops::Range<usize>) -> ShownPart {
    let store = stream.store();
    let tokenizer = store.tokenizer();
    let table = if row.kind == Kind::Sft { store.sft() } else { store.train() };
    let entry = table.get(document as usize);
    let ids = row.ids.get(span.clone()).unwrap_or_default();
    let mut learned = Vec::new();
    let mut run: Vec<u32> = Vec::new();
    for &target in row.targets.get(span.clone()).unwrap_or_default().iter().chain([&IGNORED]) {
        match u32::try_from(target) {
            Ok(id) => run.push(id),
            Err(_) if !run.is_empty() => learned.push(tokenizer.decode(&std::mem::take(&mut run), false)),
            Err(_) => {}
        }
    }
    ShownPart {
        document: entry.map_or("", |entry| entry.id).into(),
        dataset: entry.map_or("", |entry| store.dataset(entry.dataset)).into(),
        license: entry.map_or("", |entry| store.license(entry.license)).into(),
        kind: entry.map_or("", |entry| entry.kind).into(),
        start: span.start,
        position: row.positions.get(span.start).copied().unwrap_or(0),
        tokens: ids.len(),
        text: tokenizer.decode(ids, false),
        learned,
    }
}

impl Shown {
    /// The row as text: a heading for the row and for each part, then the part's text.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        let kind = match self.kind {
            Kind::Ntp => "documents, every next token is learned",
            Kind::Sft => "examples, answers are learned",
        };
        let right = self.context - self.tokens - self.left_padding;
        let _ = writeln!(text, "row {} of {} in epoch {}: {kind}", self.row, self.rows, self.epoch);
        let _ = writeln!(
            text,
            "{} tokens, {} learned; padding {} left, {right} right",
            self.tokens, self.targets, self.left_padding
        );
        for (number, part) in (1..).zip(&self.parts) {
            let name = if part.document.is_empty() { "(no document)" } else { &part.document };
            let kind = if part.kind.is_empty() { String::new() } else { format!(", {}", part.kind) };
            let _ = writeln!(
                text,
                "\n--- part {number}: {name} ({}, {}{kind}); tokens {} to {}, positions from {}\n{}",
                part.dataset,
                part.license,
                part.start,
                part.start + part.tokens,
                part.position,
                part.text,
            );
            if self.kind == Kind::Sft {
                for learned in &part.learned {
                    let _ = writeln!(text, "--- learned: {learned}");
                }
            }
        }
        text
    }
}
