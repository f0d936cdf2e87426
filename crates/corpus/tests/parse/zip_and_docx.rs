//! Archives and word processing documents, put together here from readable parts.

use std::io::{Cursor, Write};

use blackletter_corpus::parse::{Format, ParseError, detect, parse};
use zip::write::SimpleFileOptions;

use crate::coverage::{character_data, in_order};
use crate::{fixture, markdown, parsed, sample};

/// A ZIP archive of these files.
pub fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in files {
        writer.start_file(*name, SimpleFileOptions::default()).unwrap();
        writer.write_all(bytes).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

fn docx() -> Vec<u8> {
    archive(&[
        ("[Content_Types].xml", b"<Types/>"),
        ("word/document.xml", &sample("docx/document.xml")),
        ("word/styles.xml", &sample("docx/styles.xml")),
        ("word/numbering.xml", &sample("docx/numbering.xml")),
        ("word/footnotes.xml", &sample("docx/footnotes.xml")),
        ("docProps/core.xml", &sample("docx/core.xml")),
    ])
}

#[test]
fn docx_keeps_headings_computed_enumerators_tables_and_footnotes() {
    let bytes = docx();
    assert_eq!(detect(&bytes), Ok(Format::Docx));
    let documents = parsed(&bytes);
    assert_eq!(
        documents[0].markdown,
        "# Lamp Agreement\n\n1. Sale. Seller sells ten lamps[^1].\n\n1(a) Lamps are clean.\n\n1(b) Lamps are dry.\n\n\
         2. Price.\n\n2(a) Cash only.\n\n- A bullet.\n\n| Item | Price |\n| --- | --- |\n| Lamp | $5 |\n\nBoxed once.\n\n\
         [^1]: Unlit ones.\n"
    );
    assert_eq!(documents[0].title.as_deref(), Some("Lamp Agreement"));
    assert_eq!(documents[0].date.as_deref(), Some("2034-01-02"));
}

#[test]
fn an_original_docx_keeps_its_text() {
    let Some(bytes) = fixture("docx/test1.docx") else { return };
    let mut archive = zip::ZipArchive::new(Cursor::new(&bytes)).unwrap();
    let source = std::io::read_to_string(archive.by_name("word/document.xml").unwrap()).unwrap();
    let share = in_order(
        &character_data(&source, &["w:instrText", "w:delText", "mc:Fallback"]),
        &markdown(&parsed(&bytes)),
    );
    println!("test1.docx: {:.3} % of the character data in order", share * 100.0);
    assert!(share >= 0.99, "{share}");
}

#[test]
fn every_entry_of_a_zip_is_read_by_its_own_content() {
    let inner = archive(&[("deep/b.bin", b"Plain words in an inner archive.")]);
    let bytes = archive(&[
        ("a.dat", &sample("dc_code.xml")),
        ("folder/inner", &inner),
        ("contract", &docx()),
        ("broken.xml", b"<?xml version='1.0'?><a><b></a>"),
        ("image.png", b"\x89PNG\r\n\x1a\n...."),
    ]);
    assert_eq!(detect(&bytes), Ok(Format::Zip));
    let documents = parsed(&bytes);
    let parts: Vec<&str> = documents.iter().map(|document| document.extras["part"].as_str()).collect();
    assert_eq!(parts, ["a.dat", "folder/inner/deep/b.bin", "contract", "broken.xml", "image.png"]);
    assert!(documents[0].markdown.contains("(A) A lamp of glass; or"));
    assert_eq!(documents[1].markdown, "Plain words in an inner archive.\n");
    assert!(documents[2].markdown.starts_with("# Lamp Agreement"));
    assert!(documents[3].markdown.is_empty() && documents[3].extras["parse_error"].contains("XML"));
    assert!(documents[4].markdown.is_empty() && documents[4].extras["parse_error"].contains("image/png"));
}

#[test]
fn a_zip_of_docx_that_are_stored_as_they_are_is_a_zip() {
    let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let stored = SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for name in ["one.docx", "two.docx"] {
        writer.start_file(name, stored).unwrap();
        writer.write_all(&docx()).unwrap();
    }
    let documents = parsed(&writer.finish().unwrap().into_inner());
    let parts: Vec<&str> = documents.iter().map(|document| document.extras["part"].as_str()).collect();
    assert_eq!(parts, ["one.docx", "two.docx"]);
    assert!(documents.iter().all(|document| document.markdown.starts_with("# Lamp Agreement")));
}

#[test]
fn a_zip_bomb_is_refused() {
    let zeros = vec![b' '; 64 << 20];
    let bytes = archive(&[("bomb.txt", &zeros)]);
    assert!(bytes.len() < 1 << 20);
    let error = parse("bomb", &bytes).unwrap_err();
    assert!(matches!(error, ParseError::TooLarge { .. }), "{error}");
}

#[test]
fn archives_nested_without_end_are_refused() {
    let mut bytes = archive(&[("t.txt", b"text")]);
    for _ in 0..8 {
        bytes = archive(&[("next.zip", &bytes)]);
    }
    assert!(matches!(parse("nest", &bytes), Err(ParseError::TooDeep { .. })));
}

#[test]
fn a_cut_archive_is_a_typed_error() {
    let bytes = docx();
    for cut in [5, bytes.len() / 2, bytes.len() - 10] {
        assert!(matches!(parse("cut", &bytes[..cut]), Err(ParseError::Zip { .. })), "{cut}");
    }
}
