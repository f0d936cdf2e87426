//! PDF: files written here, whose text is known, and original files.

use blackletter_corpus::parse::{ParseError, parse};
use proptest::prelude::*;

use crate::coverage::in_order;
use crate::{fixture, markdown, parsed};

/// A PDF of pages of placed lines `(x, y from the bottom, size, text)`, in Times.
fn pdf(pages: &[Vec<(u32, u32, u32, &str)>]) -> Vec<u8> {
    let mut objects = vec!["<< /Type /Catalog /Pages 2 0 R >>".to_owned(), String::new()];
    objects.push(
        "<< /Type /Font /Subtype /Type1 /BaseFont /Times-Roman /Encoding /WinAnsiEncoding >>".to_owned(),
    );
    let mut kids = String::new();
    for page in pages {
        let content: String = page
            .iter()
            .map(|(x, y, size, text)| {
                let text = text.replace('\\', "\\\\").replace('(', "\\(").replace(')', "\\)");
                format!("BT /F1 {size} Tf 1 0 0 1 {x} {y} Tm ({text}) Tj ET\n")
            })
            .collect();
        objects.push(format!("<< /Length {} >>\nstream\n{content}endstream", content.len()));
        let content = objects.len();
        objects.push(format!(
            "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents {content} 0 R /Resources << /Font << /F1 3 0 R >> >> >>"
        ));
        kids.push_str(&format!("{} 0 R ", objects.len()));
    }
    objects[1] = format!("<< /Type /Pages /Kids [{kids}] /Count {} >>", pages.len());
    let mut out = b"%PDF-1.4\n".to_vec();
    let mut offsets = Vec::new();
    for (index, object) in objects.iter().enumerate() {
        offsets.push(out.len());
        out.extend(format!("{} 0 obj\n{object}\nendobj\n", index + 1).into_bytes());
    }
    let xref = out.len();
    let mut table = format!("xref\n0 {}\n0000000000 65535 f \n", objects.len() + 1);
    for offset in offsets {
        table.push_str(&format!("{offset:010} 00000 n \n"));
    }
    table.push_str(&format!(
        "trailer\n<< /Size {} /Root 1 0 R >>\nstartxref\n{xref}\n%%EOF\n",
        objects.len() + 1
    ));
    out.extend(table.into_bytes());
    out
}

fn order() -> Vec<Vec<(u32, u32, u32, &'static str)>> {
    vec![
        vec![
            (72, 760, 10, "Opinion of the Court"),
            (72, 700, 20, "LAMP v. MOTH"),
            (72, 660, 12, "The moth flew into the lamp, and the lamp, being a lamp of glass, broke at"),
            (72, 646, 12, "once. The owner of the lamp sued the owner of the moth for the price of it, and"),
            (72, 632, 12, "won below."),
            (72, 604, 12, "(a) We hold that a moth has no owner in law; and (b) that the price is not due."),
            (300, 30, 10, "1"),
        ],
        vec![(72, 760, 10, "Opinion of the Court"), (72, 700, 12, "It is so ordered."), (300, 30, 10, "2")],
        vec![
            (72, 760, 10, "Opinion of the Court"),
            (72, 700, 12, "The appendix follows."),
            (300, 30, 10, "3"),
        ],
    ]
}

#[test]
fn pdf_text_survives_in_order_as_paragraphs_without_running_heads() {
    let pages = order();
    let documents = parsed(&pdf(&pages));
    let text = markdown(&documents);
    let source: String = pages
        .iter()
        .flatten()
        .filter(|line| line.1 < 750 && line.1 > 40)
        .map(|line| format!("{} ", line.3))
        .collect();
    let share = in_order(&source, &text);
    assert!(share >= 0.99, "{share}\n{text}");
    assert!(text.starts_with("# LAMP v. MOTH\n\nThe moth flew into the lamp, and the lamp, being a lamp of glass, broke at once."), "{text}");
    assert!(text.contains("won below.\n\n"), "{text}");
    assert!(!text.contains("Opinion of the Court"), "{text}");
    assert_eq!(documents[0].extras["pages"], "3");
}

#[test]
fn original_pdfs_give_their_words() {
    for (name, words) in [
        ("pdf/text.pdf", &["Federal Water Pollution Control Act", "DECLARATION OF GOALS"][..]),
        ("pdf/text-2.pdf", &["§31.4 Definitions.", "Records of leverage transactions."][..]),
        (
            "pdf/scotus-transcript.pdf",
            &["IN THE SUPREME COURT OF THE UNITED STATES", "may it please the Court"][..],
        ),
    ] {
        let Some(bytes) = fixture(name) else { continue };
        let text = markdown(&parsed(&bytes));
        for word in words {
            assert!(text.contains(word), "{name}: {word}");
        }
        assert!(!text.contains('\u{fffd}'));
    }
}

#[test]
fn damaged_pdfs_give_text_or_a_typed_error() {
    if let Some(bytes) = fixture("pdf/damaged.pdf") {
        // Three scanned pages with a text layer of poor recognition.
        assert!(parsed(&bytes)[0].markdown.contains("ATTORNEY GENERAL OF TEXAS"));
    }
    for bytes in [
        &b"%PDF-1.4\n"[..],
        b"%PDF-1.7\n1 0 obj << /Type /Catalog >> endobj trailer << /Root 1 0 R >>",
        b"%PDF-1.4\nxref\n0 1\ntrailer<</Root 9 9 R>>",
    ] {
        assert!(matches!(parse("x", bytes), Err(ParseError::Pdf { .. })));
    }
}

#[test]
fn a_form_that_draws_itself_ends() {
    let form = "1 0 obj << /Type /Catalog /Pages 2 0 R >> endobj\n2 0 obj << /Type /Pages /Kids [3 0 R] /Count 1 >> endobj\n\
        3 0 obj << /Type /Page /Parent 2 0 R /MediaBox [0 0 9 9] /Contents 4 0 R /Resources << /XObject << /X 5 0 R >> >> >> endobj\n\
        4 0 obj << /Length 5 >> stream\n/X Do\nendstream endobj\n\
        5 0 obj << /Type /XObject /Subtype /Form /BBox [0 0 9 9] /Resources << /XObject << /X 5 0 R >> >> /Length 11 >> stream\n/X Do /X Do\nendstream endobj\n\
        trailer << /Root 1 0 R >>\n";
    let result = parse("x", format!("%PDF-1.4\n{form}").as_bytes());
    assert!(matches!(result, Err(ParseError::Pdf { .. } | ParseError::TooSlow { .. })), "{result:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn damaged_pdfs_never_panic(
        edits in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..20),
        cut in any::<proptest::sample::Index>(),
    ) {
        let mut bytes = pdf(&order());
        for (at, byte) in edits {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let _ = parse("x", &bytes);
        bytes.truncate(cut.index(bytes.len()));
        let _ = parse("x", &bytes);
    }
}
