//! Parsers against original files (where present) and against small samples of our own.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::type_complexity)]

mod coverage;
mod formats;
mod hostile;
mod pdf;
mod zip_and_docx;

use std::path::PathBuf;

use blackletter_corpus::parse::{Parsed, parse};

/// A sample of ours.
fn sample(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/samples").join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// An original file, when the folder of them is there.
fn fixture(name: &str) -> Option<Vec<u8>> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/fixtures").join(name);
    let bytes = std::fs::read(&path).ok();
    if bytes.is_none() {
        println!("skipped: {} is not here", path.display());
    }
    bytes
}

/// Markdown of all documents of a file, one after the other.
fn markdown(documents: &[Parsed]) -> String {
    documents.iter().map(|document| document.markdown.as_str()).collect::<Vec<_>>().join("\n")
}

fn parsed(bytes: &[u8]) -> Vec<Parsed> {
    parse("test", bytes).unwrap_or_else(|error| panic!("{error}"))
}
