//! Examples that are derived from documents.

use crate::support::{corpus, document};
use blackletter_corpus::document::Document;
use blackletter_dataset::{
    derive::{Derivation, DeriveOptions, Derived, KINDS, Part, derive},
    example::Example,
};
use std::{fs, path::Path};

fn titled(id: &str, title: &str, text: &str) -> Document {
    Document { title: Some(title.into()), ..document(id, text) }
}

fn documents() -> Vec<Document> {
    let dogs = "## § 2135. Time period for disposal of dogs or cats\n\n    No dealer shall sell or otherwise dispose of any animal within a period of five business days after the acquisition of such animal, and whoever does pays a fine of $2,500.\n\n(Pub. L. 89–544, § 5, Aug. 24, 1966, 80 Stat. 351.)\n\n**Amendments** \n\n    1970—Pub. L. 91–579 amended it.";
    let terms = "## § 4762. Definitions\n\n    For the purpose of this chapter—\n\n    (1) The term “Federal agency” means an executive department or agency of the United States;\n\n    (2) The term “local government” means a city, town, or county of a State; and\n\n    (3) “State” means a State of the United States and the District of Columbia.\n\n(Pub. L. 91–648, Jan. 5, 1971, 84 Stat. 1912.)";
    let agreement = "Exhibit 10.1\n\nEMPLOYMENT AGREEMENT\n\nThis Employment Agreement (the “Agreement”) is made and entered into as of July 10, 2014, by and\nbetween Acme Widgets, Inc., a Delaware corporation (the “Company”), and John Q. Public (the “Executive”).\n\n12. Governing Law. This Agreement shall be governed by the laws of the State of Delaware,\nwithout regard to conflicts of laws.\n\n13. COUNTERPARTS. This Agreement may be executed in counterparts, each of which is an original.\n\n14.\n\nNotices. Notice goes to:\n";
    let argument = "IN THE SUPREME COURT OF THE UNITED STATES\n- - - - - -X\nJOHN J. FELLERS, :\nPetitioner :\nv. : No. 02-6320\nUNITED STATES :\n- - - - - -X\nWashington, D.C.\nWednesday, December 10, 2003\nThe above-entitled matter came on.\n";
    let rule = "DEPARTMENT OF LABOR\n\nFire Brigades Standard; Comment Request\n\n## DATES:\n\nComments must be received on or before March 13, 2024.\n";
    vec![
        titled("usc-1", "7 U.S.C. § 2135. Time period for disposal of dogs or cats", dogs),
        titled("usc-2", "42 U.S.C. § 4762. Definitions", terms),
        titled("edgar-1", "Employment Agreement", agreement),
        titled("edgar-2", "Employment Agreement, again", agreement),
        document("scotus-1", argument),
        titled("fr-1", "Fire Brigades Standard; Comment Request", rule),
        document("usc-3", "No section at all."),
        document("usc-4", ""),
    ]
}

fn lines(folder: &Path, options: DeriveOptions) -> (Derivation, Vec<Derived>, String) {
    let out = folder.join("out/examples.jsonl");
    let derivation = derive(&folder.join("corpus"), &out, options, &mut |_, _| ()).unwrap();
    let text = fs::read_to_string(out).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    (derivation, lines, text)
}

/// Letters and marks alone, as they stand.
fn squash(text: &str) -> String {
    text.chars().filter(|c| !c.is_whitespace() && !"*#".contains(*c)).collect()
}

#[test]
fn every_kind_is_derived_and_every_answer_stands_in_its_document() {
    let folder = tempfile::tempdir().unwrap();
    corpus(&folder.path().join("corpus"), &[("train", &documents())]);
    let (derivation, lines, text) = lines(folder.path(), DeriveOptions::default());
    let of = |kind: &str| lines.iter().filter(|line| line.kind == kind).collect::<Vec<_>>();
    for kind in KINDS {
        assert!(!of(kind).is_empty(), "no example of {kind}");
        assert_eq!(derivation.kinds[kind], of(kind).len() as u64);
    }
    assert_eq!(derivation.examples, lines.len() as u64);
    assert_eq!(derivation.documents, 8);
    for line in &lines {
        let document = documents().into_iter().find(|d| d.id == line.document).unwrap();
        assert_eq!((&line.dataset, &line.license), (&document.dataset, &document.license));
        let said = squash(&format!("{}\n{}", document.title.unwrap_or_default(), document.text));
        match line.kind.as_str() {
            "extract_json" => {
                let json: serde_json::Value = serde_json::from_str(&line.output).unwrap();
                assert_eq!(json.as_object().unwrap().len(), line.fields.len());
                for field in &line.fields {
                    let values = json[field].as_array().cloned().unwrap_or_else(|| vec![json[field].clone()]);
                    for value in values.iter().filter_map(|value| value.as_str()) {
                        assert!(line.input.contains(value) && said.contains(&squash(value)), "{line:?}");
                    }
                }
            }
            "clause" => {
                let (heading, text) = line.output.split_once(". ").unwrap();
                assert!(said.to_lowercase().contains(&squash(heading).to_lowercase()));
                assert!(said.contains(&squash(text)), "{line:?}");
            }
            _ => assert!(said.contains(&squash(&line.output)), "{line:?}"),
        }
    }
    // Lines are examples that a store takes.
    assert!(
        text.lines()
            .all(|line| Example::parse(line.as_bytes()).is_ok_and(|example| example.license.is_some()))
    );
}

#[test]
fn answers_are_those_that_a_reader_would_give() {
    let folder = tempfile::tempdir().unwrap();
    corpus(&folder.path().join("corpus"), &[("train", &documents())]);
    let (_, lines, _) = lines(folder.path(), DeriveOptions::default());
    let answers = |document: &str, kind: &str| {
        let of = lines.iter().filter(|line| line.document == document && line.kind == kind);
        of.map(|line| line.output.as_str()).collect::<Vec<_>>()
    };
    assert_eq!(answers("usc-1", "text_to_heading"), ["Time period for disposal of dogs or cats"]);
    assert!(answers("usc-1", "text_to_citation").contains(&"7 U.S.C. § 2135"));
    assert!(answers("usc-1", "extract_json").iter().any(|json| json.ends_with(r#""amounts":["$2,500"]}"#)));
    let meant = answers("usc-2", "definition");
    assert!(meant.contains(&"“local government” means a city, town, or county of a State"), "{meant:?}");
    let clauses = answers("edgar-1", "clause");
    assert_eq!(
        clauses[0],
        "Governing Law. This Agreement shall be governed by the laws of the State of Delaware, without regard to conflicts of laws."
    );
    assert!(clauses[1].starts_with("Counterparts. This Agreement may be executed"));
    // What announces an address says nothing, and the second agreement says nothing new.
    assert_eq!((clauses.len(), answers("edgar-2", "clause").len()), (2, 0));
    let facts = answers("edgar-1", "extract_json")[0];
    let expected = r#"{"title":"Employment Agreement","date":"July 10, 2014","parties":["Acme Widgets, Inc.","John Q. Public"]"#;
    assert!(facts.starts_with(expected), "{facts}");
    let case = answers("scotus-1", "extract_json")[0];
    let expected = r#"{"citation":"No. 02-6320","date":"December 10, 2003","parties":["JOHN J. FELLERS","UNITED STATES"]"#;
    assert!(case.starts_with(expected), "{case}");
    assert!(answers("fr-1", "extract_json")[0].contains(r#""date":"March 13, 2024""#));
}

#[test]
fn the_same_corpus_gives_the_same_lines_on_any_number_of_threads_and_none_twice() {
    let folder = tempfile::tempdir().unwrap();
    let many: Vec<Document> = (0..40)
        .flat_map(|n| documents().into_iter().map(move |d| Document { id: format!("{}-{n}", d.id), ..d }))
        .collect();
    corpus(&folder.path().join("corpus"), &[("train", &many)]);
    let on = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| lines(folder.path(), DeriveOptions::default()))
    };
    let (derivation, lines, text) = on(1);
    assert_eq!(text, on(3).2);
    let mut asked: Vec<(&str, &str, &str)> =
        lines.iter().map(|l| (l.instruction.as_str(), l.input.as_str(), l.output.as_str())).collect();
    asked.sort_unstable();
    let all = asked.len();
    asked.dedup();
    assert_eq!(asked.len(), all);
    assert!(derivation.left_out["said before, word for word"] > 0);
    // A term that many documents define is not asked for without saying where.
    assert!(lines.iter().all(|line| line.instruction != "What does “Federal agency” mean?"));
}

#[test]
fn held_out_documents_are_asked_only_when_they_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let (train, heldout) = (documents()[..1].to_vec(), documents()[1..2].to_vec());
    corpus(&folder.path().join("corpus"), &[("train", &train), ("heldout", &heldout)]);
    let from = |part: Part| {
        let (_, lines, _) = lines(folder.path(), DeriveOptions { part, ..DeriveOptions::default() });
        let mut from: Vec<String> = lines.into_iter().map(|line| line.document).collect();
        from.dedup();
        from
    };
    assert_eq!(from(Part::Train), ["usc-1"]);
    assert_eq!(from(Part::Heldout), ["usc-2"]);
}

#[test]
fn examples_are_no_longer_than_asked_and_wrong_places_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("corpus");
    let out = folder.path().join("x.jsonl");
    let error =
        |options: DeriveOptions| derive(&place, &out, options, &mut |_, _| ()).unwrap_err().to_string();
    assert!(error(DeriveOptions::default()).contains("no finished corpus"));
    assert!(error(DeriveOptions { max_bytes: 10, ..DeriveOptions::default() }).contains("at least 400"));
    corpus(&place, &[("train", &documents())]);
    let (_, lines, _) = lines(folder.path(), DeriveOptions { max_bytes: 400, ..DeriveOptions::default() });
    let longest = lines.iter().map(|l| l.instruction.len() + l.input.len() + l.output.len()).max();
    assert!(longest.is_some_and(|longest| longest <= 400), "{longest:?}");
    fs::write(place.join("train/00000.parquet"), "no parquet").unwrap();
    assert!(error(DeriveOptions::default()).contains("00000.parquet"));
    assert!(!out.exists());
}
