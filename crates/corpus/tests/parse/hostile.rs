//! Hostile input ends in a typed error or in text: never in a panic, a hang or an overflow of the stack.

use blackletter_corpus::parse::{Format, ParseError, detect, parse, parse_as};
use proptest::prelude::*;

use crate::sample;

#[test]
fn an_entity_bomb_is_refused_without_expanding() {
    let bomb = r#"<?xml version="1.0"?><!DOCTYPE bill [<!ENTITY a "lol"><!ENTITY b "&a;&a;&a;&a;">]><bill><text>&b;</text></bill>"#;
    assert_eq!(parse("bomb", bomb.as_bytes()), Err(ParseError::Entity { name: "b".into() }));
}

#[test]
fn nesting_without_end_is_refused_in_xml_and_html() {
    let xml = format!("<bill>{}", "<a>".repeat(200_000));
    assert!(matches!(parse("x", xml.as_bytes()), Err(ParseError::TooDeep { .. })));
    for tag in
        ["<div>", "<b>", "<table><tr><td>", "<font>", "<ul><li>", "<a>", "<svg>", "<select>", "<template>"]
    {
        let html = format!("<html><body>{}", tag.repeat(100_000));
        // Some of these the standard flattens; none may hang or overflow.
        let _ = parse("x", html.as_bytes());
    }
    assert!(matches!(
        parse("x", format!("<html>{}", "<div>".repeat(100_000)).as_bytes()),
        Err(ParseError::TooDeep { .. })
    ));
}

#[test]
fn formatting_reopened_in_every_paragraph_does_not_multiply() {
    let html: String = (0..20_000).map(|n| format!("<p><b id={n}><i id={n}>x")).collect();
    let result = parse("x", format!("<html>{html}").as_bytes());
    assert!(matches!(result, Err(ParseError::TooDeep { .. } | ParseError::TooLarge { .. })), "{result:?}");
}

#[test]
fn wide_rows_and_spans_do_not_multiply() {
    let cells = "<td colspan=1000>x</td>".repeat(2_000);
    let rows = "<tr><td>a<td>b".repeat(20_000);
    let documents = parse("x", format!("<html><table><tr>{cells}</tr>{rows}</table>").as_bytes()).unwrap();
    assert!(documents[0].markdown.len() < 8 << 20);
}

#[test]
fn more_nodes_than_memory_holds_are_refused() {
    // Elements, attributes and texts each count.
    for inner in ["<a/>".repeat(9_000_000), "<a b=''>x</a>".repeat(2_800_000)] {
        let xml = format!("<bill>{inner}</bill>");
        let result = parse("x", xml.as_bytes());
        assert!(
            matches!(result, Err(ParseError::TooLarge { what: "XML nodes and attributes", .. })),
            "{result:?}"
        );
    }
    let html = format!("<html><body>{}", "<br>".repeat(6_000_000));
    let result = parse("x", html.as_bytes());
    assert!(
        matches!(result, Err(ParseError::TooLarge { what: "HTML nodes and attributes", .. })),
        "{result:?}"
    );
}

#[test]
fn bytes_that_belie_their_encoding_are_refused() {
    let error = parse("x", b"<?xml version=\"1.0\" encoding=\"UTF-8\"?><bill>\xff\xfe</bill>").unwrap_err();
    assert!(matches!(error, ParseError::Encoding { .. }), "{error}");
}

#[test]
fn errors_say_what_and_where() {
    let error = parse("x", b"<bill><text>a</txt></bill>").unwrap_err().to_string();
    assert!(error.contains("byte 13") || error.contains("byte 12"), "{error}");
    assert!(error.contains("text"), "{error}");
}

/// Openings that lead random bytes into each parser.
fn openings() -> Vec<Vec<u8>> {
    [
        "",
        "<?xml version='1.0'?><bill>",
        "<bill xmlns=\"http://schemas.gpo.gov/xml/uslm\">",
        "<FEDREG><RULE>",
        "<DLPSTEXTCLASS><DIV5>",
        "<regulation xmlns=\"eregs\">",
        "<section xmlns=\"https://code.dccouncil.us/schemas/dc-library\">",
        "<Case><CaseHtml>",
        "<section class=\"casebody\"><section class=\"head-matter\">",
        "<html><title>CM/ECF</title>",
        "<html><body class=\"lbexBody\">",
        "<html><body>",
        "<SEC-DOCUMENT>\n<DOCUMENT>\n<TEXT>\n",
        "begin 644 a\n",
        "PATN\nWKU ",
        "<us-patent-grant>",
        "%PDF-1.4\n",
        "PK\x03\x04",
        "# T\n",
    ]
    .iter()
    .map(|opening| opening.as_bytes().to_vec())
    .collect()
}

const SAMPLES: [&str; 15] = [
    "uslm.xml",
    "bill_dtd.xml",
    "bill.html",
    "federal_register.xml",
    "ecfr.xml",
    "eregs.xml",
    "dc_code.xml",
    "case.xml",
    "case.html",
    "docket.html",
    "notice.html",
    "agency.html",
    "grant.xml",
    "green_book.txt",
    "submission.txt",
];

const FORMATS: [Format; 21] = [
    Format::Pdf,
    Format::Docx,
    Format::Zip,
    Format::Edgar,
    Format::UuEncoded,
    Format::UsptoText,
    Format::UsptoXml,
    Format::Uslm,
    Format::BillDtd,
    Format::FederalRegister,
    Format::Ecfr,
    Format::Eregs,
    Format::DcCode,
    Format::CaseXml,
    Format::CaseHtml,
    Format::PacerHtml,
    Format::BillHtml,
    Format::Html,
    Format::Xml,
    Format::Markdown,
    Format::Text,
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn random_bytes_never_panic(opening in proptest::sample::select(openings()), bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let mut input = opening;
        input.extend(bytes);
        let _ = parse("random", &input);
    }

    #[test]
    fn bytes_read_as_the_wrong_format_never_panic(
        name in proptest::sample::select(&SAMPLES[..]),
        format in proptest::sample::select(&FORMATS[..]),
        tail in proptest::collection::vec(any::<u8>(), 0..40),
    ) {
        let mut bytes = sample(name);
        bytes.extend(tail);
        let _ = parse_as(format, name, &bytes);
        let _ = parse_as(format, name, &bytes[bytes.len() / 2..]);
    }

    #[test]
    fn random_markup_never_panics(
        opening in proptest::sample::select(openings()),
        pieces in proptest::collection::vec(prop_oneof![
            "</?(p|P|table|tr|td|TR|TD|GPOTABLE|ROW|ENT|BOXHD|CHED|li|ol|pre|h1|HD|SU|FTREF|FTNT|num|heading|section|quote|claim|w:p|a|b)( [a-zA-Z]+='[0-9a-z]*')?/?>",
            "[ -~\n§“]{0,12}", "&[a-z#0-9]{0,6};?",
        ], 0..80),
    ) {
        let mut input = opening;
        input.extend(pieces.concat().into_bytes());
        let _ = parse("random", &input);
    }

    #[test]
    fn damaged_samples_never_panic(
        name in proptest::sample::select(&SAMPLES[..]),
        edits in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..12),
        cut in any::<proptest::sample::Index>(),
    ) {
        let mut bytes = sample(name);
        for (at, byte) in edits {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let _ = parse(name, &bytes);
        bytes.truncate(cut.index(bytes.len()));
        let _ = parse(name, &bytes);
        let _ = detect(&bytes);
    }

    #[test]
    fn output_is_text_with_whole_lines(name in proptest::sample::select(&SAMPLES[..])) {
        for document in parse(name, &sample(name)).unwrap() {
            prop_assert!(!document.markdown.is_empty());
            prop_assert!(document.markdown.ends_with('\n') && !document.markdown.starts_with('\n'));
            prop_assert!(document.markdown.chars().all(|c| c == '\n' || c == '\t' || !c.is_control()));
            prop_assert!(document.extras.contains_key("mime_type"));
        }
    }
}

#[test]
fn long_flat_documents_take_linear_time() {
    // No clock here: with quadratic work, each of these would run for hours.
    for (open, piece, close) in [
        ("<bill xmlns='http://schemas.gpo.gov/xml/uslm'><a>", "<heading>x</heading>", "</a></bill>"),
        ("<bill><a>", "<header>x</header>", "</a></bill>"),
        ("<bill><toc>", "<toc-entry>x</toc-entry>", "</toc></bill>"),
        ("<FEDREG><RULE><P>", "<SU>1</SU><FTREF/>", "</P></RULE></FEDREG>"),
        ("<note>", "a<b>x</b>", "</note>"),
        ("<html><ul>", "<li>x", "</ul></html>"),
        ("<html><table>", "<b>x</b>", "</table></html>"),
        ("<html><table>", "<tr><td>x<td>y", "</table></html>"),
        ("<html><p>", "<br>x", "</p></html>"),
        ("<SEC-DOCUMENT>", "<DOCUMENT><TEXT>", "</DOCUMENT>"),
        ("PATN\nWKU 1\nABST\n", "PAL  x\n", ""),
        ("<us-patent-grant>", "<?xml version='1.0'?>", "<p>x</p></us-patent-grant>"),
    ] {
        let input = format!("{open}{}{close}", piece.repeat(200_000));
        let _ = parse("flat", input.as_bytes());
    }
}

#[test]
fn no_control_character_gets_into_text_by_any_way() {
    // Wherever a sample says so, a reference to a backspace or the character itself stands in it.
    for (name, format, word, reference) in [
        ("case.xml", Format::CaseXml, "No. 12", "No. 12&#8;"),
        ("case.xml", Format::CaseXml, "Lamp v. Moth", "Lamp v.&#8; Moth"),
        ("case.html", Format::CaseHtml, "12-1", "12-1&#8;"),
        ("case.html", Format::CaseHtml, "Lamp v. Moth", "Lamp v.\u{8} Moth"),
        ("green_book.txt", Format::UsptoText, "Lamp with", "Lamp\u{8} with"),
        ("green_book.txt", Format::UsptoText, "Moth screen", "Moth\u{7f} screen"),
    ] {
        let text = String::from_utf8(sample(name)).unwrap();
        assert!(text.contains(word), "{name}: {word}");
        let documents = parse_as(format, name, text.replace(word, reference).as_bytes()).unwrap();
        for document in documents {
            let control = |text: &str| text.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\t'));
            assert!(!control(&document.markdown), "{name}: {reference:?}: {}", document.markdown);
            assert!(!document.title.as_deref().is_some_and(control), "{name}: {reference:?}");
        }
    }
}
