//! Per format: at least 99 % of the character data survives in order, and every heading and enumerator.

use blackletter_corpus::parse::{Format, Parsed, detect};

use crate::coverage::{assert_enumerators, assert_headings, character_data, in_order, texts_of};
use crate::{fixture, markdown, parsed, sample};

/// Reads a file, checks its format and its coverage; says the figure.
fn covered(name: &str, bytes: &[u8], format: Format, skip: &[&str]) -> (String, Vec<Parsed>) {
    assert_eq!(detect(bytes), Ok(format), "{name}");
    let documents = parsed(bytes);
    let text = markdown(&documents);
    let source = String::from_utf8_lossy(bytes).into_owned();
    let share = in_order(&character_data(&source, skip), &text);
    println!("{name}: {:.3} % of the character data in order", share * 100.0);
    assert!(share >= 0.99, "{name}: only {share:.4} of the character data survives in order");
    (source, documents)
}

/// A sample of ours and the original files of one format.
fn sources(own: &[&str], originals: &[&str]) -> Vec<(String, Vec<u8>)> {
    let own = own.iter().map(|name| ((*name).to_owned(), sample(name)));
    let originals = originals.iter().filter_map(|name| Some(((*name).to_owned(), fixture(name)?)));
    own.chain(originals).collect()
}

#[test]
fn uslm_bills_and_statutes_keep_text_headings_and_enumerators() {
    let originals = ["bills/S2245_IS.xml", "bills/h1058_enr.xml", "uslm/COMPS-339.xml"];
    for (name, bytes) in sources(&["uslm.xml"], &originals) {
        let (source, documents) = covered(&name, &bytes, Format::Uslm, &["meta"]);
        let text = markdown(&documents);
        assert!(documents[0].title.as_ref().is_some_and(|title| title.len() > 10));
        // The number of a footnote is in the line it belongs to.
        let source = source.replace("<footnote><num>1</num>", "<footnote>");
        let numbers: Vec<String> = texts_of(&source, &["num"]);
        assert_enumerators(&numbers, &text);
        assert_headings(&texts_of(&source, &["docTitle"]), &text);
        let of_sections: Vec<String> =
            numbers.into_iter().filter(|n| n.contains("SEC") || n.contains("TITLE")).collect();
        assert_headings(&of_sections, &text);
    }
}

#[test]
fn bills_in_the_old_dtd_keep_text_headings_and_enumerators() {
    let (source, documents) =
        covered("bill_dtd.xml", &sample("bill_dtd.xml"), Format::BillDtd, &["metadata"]);
    let text = markdown(&documents);
    assert_enumerators(&texts_of(&source, &["enum"]), &text);
    assert_headings(&["1. Short title", "2. Bells"].map(String::from), &text);
    assert!(text.contains("> (c) A bell counts as a horn."));
    assert!(text.contains("| Ferry | Fee |\n| --- | --- |\n| Small | $5 |"));
    assert_eq!(documents[0].date.as_deref(), Some("2031-02-03"));
}

#[test]
fn bills_in_html_keep_text_and_headings() {
    for (name, bytes) in sources(&["bill.html"], &["bills/BILLS-119hr6028eh.html"]) {
        let (source, documents) = covered(&name, &bytes, Format::BillHtml, &["head", "style", "title"]);
        let text = markdown(&documents);
        let headings: Vec<String> = source
            .match_indices("<span class=\"lbexSectionlevelOLC\">")
            .filter_map(|(at, _)| {
                let number = source[at..].split_once('>')?.1.split('<').next()?.trim().to_owned();
                (number.starts_with("SEC") && number.ends_with('.')).then_some(number)
            })
            .collect();
        assert!(!headings.is_empty());
        assert_headings(&headings, &text);
    }
}

#[test]
fn a_federal_register_issue_becomes_one_document_per_document() {
    for (name, bytes) in sources(&["federal_register.xml"], &["federal-register/FR-2024-02-12.xml"]) {
        let skip = ["VOL", "NO", "DATE", "UNITNAME", "EAR"];
        // The running head repeats at the top of each part; dates inside documents are not part of it.
        let source = String::from_utf8(bytes.clone()).unwrap();
        let documents = parsed(&bytes);
        let text = markdown(&documents);
        let share = in_order(&character_data(&source, &skip), &text);
        println!("{name}: {:.3} % of the character data in order", share * 100.0);
        assert!(share >= 0.99, "{share}");
        let expected: usize = ["<RULE>", "<PRORULE>", "<NOTICE>", "<PRESDOCU>", "<CNTNTS>"]
            .iter()
            .map(|tag| source.matches(tag).count())
            .sum();
        assert_eq!(documents.len(), expected, "{name}");
        assert_headings(&texts_of(&source, &["HD"]), &text);
        assert_enumerators(
            &texts_of(&source, &["AMDPAR"])
                .iter()
                .map(|text| text.trim()[..2].to_owned())
                .collect::<Vec<_>>(),
            &text,
        );
        assert_eq!(text.matches("[^1]: ").count(), footnotes_numbered_one(&source), "{name}");
        assert!(documents.iter().all(|document| document.title.is_some() && document.date.is_some()));
    }
}

fn footnotes_numbered_one(source: &str) -> usize {
    let flat: String = source.split_whitespace().collect();
    flat.matches("<FTNT><P><SU>1</SU>").count()
}

#[test]
fn federal_register_tables_footnotes_and_metadata_survive() {
    let documents = parsed(&sample("federal_register.xml"));
    let rule = &documents[1];
    assert_eq!(rule.title.as_deref(), Some("Trimming of Wicks"));
    assert_eq!(rule.date.as_deref(), Some("2034-01-02"));
    assert_eq!(rule.extras["citation"], "99 FR 1");
    assert_eq!(rule.extras["section"], "Rules and Regulations");
    assert!(rule.markdown.contains("A wick smokes.[^1] It can be cut"));
    assert!(rule.markdown.contains("\n[^1]: As every keeper knows.\n"));
    assert!(rule.markdown.contains("lamps.example. A wick"), "pretty-printing is undone");
    assert!(rule.markdown.contains(
        "| Item | Cost: Low | High | Note |\n| --- | --- | --- | --- |\n| Scissors | $1 | $2 | once |"
    ));
    assert!(rule.markdown.contains("#### § 9901.3 Trimming.\n\n(a) Daily. Trim daily."));
    assert!(rule.markdown.contains("* * * * *"));
}

#[test]
fn ecfr_titles_become_one_document_per_part() {
    for (name, bytes) in sources(&["ecfr.xml"], &["ecfr/ECFR-title1.xml"]) {
        let (source, documents) = covered(&name, &bytes, Format::Ecfr, &["HEADER", "AMDDATE", "PG"]);
        assert_eq!(documents.len(), source.matches("<DIV5 ").count(), "{name}");
        let text = markdown(&documents);
        assert_headings(&texts_of(&source, &["HEAD"]), &text);
        assert_eq!(text.matches("\n| --- ").count(), source.matches("<TABLE").count());
        assert_eq!(text.matches("\n[^").count(), source.matches("<FTNT>").count());
    }
    let documents = parsed(&sample("ecfr.xml"));
    assert_eq!(documents[0].extras["citation"], "99 CFR Part 1");
}

#[test]
fn eregs_keep_markers_from_attributes() {
    let skip = ["fdsys", "preamble", "sectionNum", "appendixLetter", "url"];
    for (name, bytes) in sources(&["eregs.xml"], &["cfr-eregs/2017-20417_20220101.xml"]) {
        let (source, documents) = covered(&name, &bytes, Format::Eregs, &skip);
        let text = markdown(&documents);
        let markers: Vec<String> = source
            .match_indices(" marker=\"")
            .filter_map(|(at, start)| source[at + start.len()..].split('"').next().map(str::to_owned))
            .filter(|marker| !marker.is_empty())
            .collect();
        assert!(markers.len() > 2);
        assert_enumerators(&markers, &text);
        assert_headings(
            &texts_of(&source, &["subject", "appendixTitle"]).into_iter().take(1).collect::<Vec<_>>(),
            &text,
        );
        assert!(
            documents[0].url.as_ref().is_some_and(|url| url.starts_with("https://www.federalregister.gov/"))
        );
    }
}

#[test]
fn dc_code_keeps_enumerators_and_annotations() {
    for (name, bytes) in sources(&["dc_code.xml"], &["dc-law/28-3101.xml", "dc-law/28-3109.xml"]) {
        let (source, documents) = covered(&name, &bytes, Format::DcCode, &[]);
        let text = markdown(&documents);
        let numbers = texts_of(&source, &["num"]);
        assert_headings(&numbers[..1], &text);
        assert_enumerators(&numbers[1..], &text);
        assert!(text.contains("\nHistory: "));
        assert!(documents[0].extras["citation"].starts_with("D.C. Code § "));
    }
}

#[test]
fn case_law_xml_keeps_the_opinion_and_its_footnotes() {
    let originals = ["case-law/100a3d1004_Replace2.xml", "case-law/100a3d1091_Replace2.xml"];
    for (name, bytes) in sources(&["case.xml"], &originals) {
        let source = String::from_utf8(bytes.clone()).unwrap();
        let documents = parsed(&bytes);
        let text = markdown(&documents);
        let opinion = texts_of(&source, &["HeaderHtml", "CaseHtml"]).join(" ");
        let share = in_order(&character_data(&opinion, &[]), &text);
        println!("{name}: {:.3} % of the character data in order", share * 100.0);
        assert!(share >= 0.99, "{share}");
        let notes = opinion.matches("name=\"fr").count();
        assert_eq!(text.matches("\n[^").count(), notes, "{name}");
        let citations = &documents[0].extras["citation"];
        assert!(citations.split("; ").all(|citation| citation.split(' ').count() == 3), "{citations}");
        // What is not in the text is in the metadata.
        for field in texts_of(&source, &["CourtName", "Author", "PartyHeader"]) {
            let field = field.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(documents[0].extras.values().any(|value| *value == field), "{field}");
        }
    }
}

#[test]
fn case_law_html_keeps_the_opinion_and_its_footnotes() {
    let originals = ["case-law/100a3d1004_Replace2.html", "case-law/100a3d1091_Replace2.html"];
    for (name, bytes) in sources(&["case.html"], &originals) {
        let source = String::from_utf8(bytes.clone()).unwrap();
        let (_, documents) = covered(&name, &bytes, Format::CaseHtml, &[]);
        let text = markdown(&documents);
        assert_eq!(text.matches("\n[^").count(), source.matches("<aside").count());
        assert!(documents[0].date.as_ref().is_some_and(|date| date.len() == 10 && date.starts_with("20")));
        assert!(documents[0].title.is_some());
    }
}

#[test]
fn pacer_dockets_keep_parties_and_entries_and_lose_the_menu_and_the_bill() {
    for (name, bytes) in sources(&["docket.html"], &["pacer/docket-caed.html"]) {
        let source = String::from_utf8(bytes.clone()).unwrap();
        let whole = source.clone();
        let furniture = whole.to_lowercase().rfind("<center><table").unwrap();
        let documents = parsed(&bytes);
        let text = markdown(&documents);
        let kept = character_data(&source[..furniture], &["head", "script", "ul"]);
        let share = in_order(&kept, &text);
        println!("{name}: {:.3} % of the character data in order", share * 100.0);
        assert!(share >= 0.99, "{share}");
        assert!(!text.contains("PACER Service Center") && !text.contains("Query"));
        assert!(text.contains("| Date Filed | # | Docket Text |"));
        assert_headings(&["CIVIL DOCKET FOR CASE #".to_owned()], &text);
        assert!(documents[0].extras["docket"].contains("-cv-"));
        assert!(
            documents[0].title.as_ref().is_some_and(|title| title.contains(" v")),
            "{:?}",
            documents[0].title
        );
    }
}

#[test]
fn pacer_notices_keep_their_text() {
    for (name, bytes) in sources(&["notice.html"], &["pacer/nef-ared.html"]) {
        let (_, documents) = covered(&name, &bytes, Format::PacerHtml, &[]);
        assert!(documents[0].markdown.contains("Docket Text:\n"));
        assert!(documents[0].date.as_ref().is_some_and(|date| date.len() == 10));
        assert!(documents[0].title.as_ref().is_some_and(|title| title.contains(" v. ")));
    }
}

#[test]
fn agency_pages_lose_only_their_furniture() {
    let skip = ["head", "script", "style", "noscript", "nav", "header", "footer", "svg", "button"];
    let documents = {
        let bytes = sample("agency.html");
        let source =
            String::from_utf8(bytes.clone()).unwrap().replace("<p style=\"display: none\">Hidden.</p>", "");
        let documents = parsed(&bytes);
        let share = in_order(&character_data(&source, &skip), &markdown(&documents));
        assert!(share >= 0.99, "{share}");
        documents
    };
    let text = markdown(&documents);
    for expected in [
        "# Lamp guidance\n\nKeep lamps clean, dry and lit.",
        "\na. Fill.\n\n  i. Not too much.\n\nb. Light.\n",
        "| Oil | Hours |\n| --- | --- |\n| Olive | 4 |",
        "LAMP   HOURS\nhall       4",
        "> Let there be light.",
    ] {
        assert!(text.contains(expected), "{expected:?} not in\n{text}");
    }
    assert_eq!(documents[0].url.as_deref(), Some("https://lamps.example/guidance"));
    assert_eq!(documents[0].date.as_deref(), Some("2034-01-02"));
    for furniture in ["Home", "Hidden", "Last reviewed", "var x"] {
        assert!(!text.contains(furniture), "{furniture}");
    }
    for (name, bytes) in sources(&[], &["html/reg_doc.html", "html/treasury.html"]) {
        let source = without_hidden_elements(&String::from_utf8(bytes.clone()).unwrap());
        let text = markdown(&parsed(&bytes));
        let body = character_data(&source, &[&skip[..], &["title", "TITLE"]].concat());
        let share = in_order(&body, &text);
        println!("{name}: {:.3} % of the character data in order", share * 100.0);
        assert!(share >= 0.99, "{share}");
    }
}

/// A page without what it hides by class, and without the banner of federal sites.
fn without_hidden_elements(page: &str) -> String {
    let mut page = page.to_owned();
    for (class, end) in [
        ("<a class=\"visually-hidden", "</a>"),
        ("<span class=\"visually-hidden", "</span>"),
        ("<section class=\"usa-banner\"", "</section>"),
    ] {
        while let Some(start) = page.find(class) {
            let stop = page[start..].find(end).map_or(page.len(), |stop| start + stop + end.len());
            page.replace_range(start..stop, "");
        }
    }
    page
}

#[test]
fn edgar_submissions_give_their_documents_decoded_parts_included() {
    let bytes = sample("submission.txt");
    assert_eq!(detect(&bytes), Ok(Format::Edgar));
    let documents = parsed(&bytes);
    let [report, agreement, release] = documents.as_slice() else { panic!("{documents:#?}") };
    assert_eq!(report.extras["form"], "8-K");
    assert_eq!(report.extras["cik"], "0009999999");
    assert_eq!(report.extras["not_text"], "lamp.jpg (image/jpeg)");
    assert_eq!(report.date.as_deref(), Some("2034-01-05"));
    assert!(report.markdown.contains("# Form 8-K") && report.markdown.contains("| Lamps | $ | 12 |"));
    assert_eq!(agreement.title.as_deref(), Some("LAMP WORKS INC EX-10"));
    assert!(agreement.markdown.contains("Seller sells lamps & oil for < $5 each."));
    assert!(agreement.markdown.contains("```\nItem          Price\n"));
    assert!(!agreement.markdown.contains("<S>") && !agreement.markdown.contains("<PAGE>"));
    assert_eq!(release.markdown, "Press release & more: the lamp is lit.\n");
    assert_eq!(release.extras["part"], "release.htm");
    // All the text of the text parts, in order.
    let source = String::from_utf8(bytes).unwrap();
    let texts: String = source
        .match_indices("<TEXT>")
        .take(2)
        .map(|(at, _)| source[at..].split("</TEXT>").next().unwrap())
        .collect();
    assert!(in_order(&character_data(&texts.replace("< $5", "&lt; $5"), &[]), &markdown(&documents)) >= 0.99);
}

#[test]
fn a_uuencoded_image_is_refused_by_its_kind() {
    use blackletter_corpus::parse::{ParseError, parse};
    if let Some(bytes) = fixture("edgar/uuencoded.txt") {
        assert_eq!(parse("x", &bytes), Err(ParseError::NoText { mime: "image/jpeg" }));
    }
}

#[test]
fn patents_in_xml_keep_their_sections_and_claims() {
    let bytes = sample("grant.xml");
    let (source, documents) =
        covered("grant.xml", &bytes, Format::UsptoXml, &["us-bibliographic-data-grant"]);
    let text = markdown(&documents);
    assert_eq!(documents.len(), 2);
    assert_headings(&texts_of(&source, &["heading"]), &text);
    assert_headings(
        &["Lamp with two wicks", "Abstract", "Description", "Claims", "Moth screen"].map(String::from),
        &text,
    );
    assert_enumerators(&["1.", "2."].map(String::from), text.split("## Claims").nth(1).unwrap());
    assert!(text.contains("C8H18, see FIG. 1."));
    assert!(text.contains("- one wick;\n- no wick."));
    assert!(text.contains("| Wicks | Hours |"));
    assert_eq!(documents[0].extras["inventors"], "Ada Wick");
    assert_eq!(documents[0].extras["cpc"], "F21L 19/00");
    assert_eq!(documents[0].date.as_deref(), Some("2034-01-02"));
}

#[test]
fn one_damaged_patent_does_not_lose_the_others() {
    let whole = String::from_utf8(sample("grant.xml")).unwrap();
    let damaged = whole.replacen("</abstract>", "</abstrakt>", 1);
    let documents = parsed(damaged.as_bytes());
    assert_eq!(documents.len(), 2);
    assert!(documents[0].markdown.is_empty());
    assert!(documents[0].extras["parse_error"].contains("not well-formed XML"));
    assert_eq!(documents[1].title.as_deref(), Some("Moth screen"));
}

#[test]
fn patents_in_the_green_book_format_keep_their_sections_and_claims() {
    let bytes = sample("green_book.txt");
    assert_eq!(detect(&bytes), Ok(Format::UsptoText));
    let documents = parsed(&bytes);
    let source = String::from_utf8(bytes).unwrap();
    // Text fields, tags off: everything from the abstract on.
    let text_fields: String = source
        .split("PATN\n")
        .map(|patent| patent.split_once("ABST\n").map_or("", |(_, text)| text))
        .flat_map(str::lines)
        .filter(|line| !line.starts_with("NUM"))
        .map(|line| format!("{}\n", line.get(5..).unwrap_or("")))
        .collect();
    let share = in_order(&text_fields, &markdown(&documents));
    println!("green_book.txt: {:.3} % of the text fields in order", share * 100.0);
    assert!(share >= 0.99, "{share}");
    assert_eq!(documents.len(), 2);
    assert_eq!(documents[0].title.as_deref(), Some("Lamp with a long name"));
    assert_eq!(documents[0].extras["number"], "9999901");
    assert_headings(
        &["Abstract", "BACKGROUND OF THE INVENTION", "Claims"].map(String::from),
        &documents[0].markdown,
    );
    assert!(
        documents[0].markdown.contains("\n2. The lamp of claim 1"),
        "a claim's number is kept where only the field has it"
    );
    assert!(documents[0].markdown.contains("one       4"));
}

#[test]
fn plain_text_and_markdown_come_through_unchanged() {
    if let Some(bytes) = fixture("html/10usc101.txt") {
        let (_, documents) = covered("10usc101.txt", &bytes, Format::Text, &[]);
        assert_enumerators(
            &["(a)", "(1)", "(2)", "(A)", "(B)", "(b)"].map(String::from),
            &documents[0].markdown,
        );
    }
    let text = "# Rules\n\n1. Keep *quiet*.\n\n| a | b |\n|---|---|\n| 1 | 2 |\n";
    assert_eq!(detect(text.as_bytes()), Ok(Format::Markdown));
    assert_eq!(parsed(text.as_bytes())[0].markdown, text);
    assert_eq!(parsed(text.as_bytes())[0].title.as_deref(), Some("Rules"));
    assert_eq!(
        parsed(b"Section 1.\r\n\r\n  (a) Text \x93here\x94.\r\n")[0].markdown,
        "Section 1.\n\n  (a) Text “here”.\n"
    );
}

#[test]
fn unknown_xml_keeps_its_text() {
    let bytes = b"<order><title>On lamps</title><clause><n>1</n><body>Lamps are <em>lit</em> at dusk.</body></clause></order>";
    let (_, documents) = covered("order", bytes, Format::Xml, &[]);
    assert_eq!(documents[0].markdown, "## On lamps\n\n1\n\nLamps are lit at dusk.\n");
}
