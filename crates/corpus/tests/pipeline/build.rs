//! What comes out of a recipe.

use crate::support::{Kitchen, PUBLIC, law, line};
use blackletter_corpus::{
    build::{Plan, Stage, build},
    look,
    report::Report,
    steps::{DedupSettings, FilterSettings, SplitSettings, Watch},
    texts::Texts,
};
use proptest::prelude::*;
use serde_json::json;
use std::fs;

#[test]
fn every_document_arrives_or_is_accounted_for() {
    let kitchen = Kitchen::stocked();
    let record = kitchen.build("out");
    let report = kitchen.report("out");
    let step = |name: &str| {
        let steps = report["steps"].as_array().unwrap();
        steps.iter().find(|step| step["name"] == name).unwrap_or_else(|| panic!("no step {name}")).clone()
    };
    let names: Vec<_> =
        report["steps"].as_array().unwrap().iter().map(|s| s["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["ingest", "clean", "score", "filter", "dedup", "decontaminate", "split"]);
    assert_eq!(
        step("ingest")["dropped"],
        json!({ "empty text": 1, "unreadable line": 1, "parse error": 1, "licence refused: no licence is stated": 1,
            "licence refused: CC-BY-NC-4.0 is neither allowed nor accepted": 1 })
    );
    assert_eq!((&step("ingest")["in"], &step("ingest")["kept"]), (&json!(51), &json!(46)));
    assert_eq!(step("clean")["removed"], json!({ "page_marks": 1 }));
    assert_eq!(step("dedup")["dropped"], json!({ "exact duplicate": 1, "near duplicate": 1 }));
    assert_eq!(step("decontaminate")["dropped"], json!({ "evaluation text": 1 }));
    assert_eq!(step("filter")["dropped"], json!({}), "{}", step("filter"));
    assert_eq!(record.documents, 43);
    let typed: Report = serde_json::from_value(report).unwrap();
    assert!(typed.steps.iter().all(|step| step.counts.balance()));
    // Each step takes up what the one before it kept.
    assert!(typed.steps.windows(2).all(|pair| pair[0].counts.kept == pair[1].counts.entered));
    let readable = fs::read_to_string(kitchen.path("out/REPORT.md")).unwrap();
    for words in [
        "CC-BY-NC-4.0 is neither allowed nor accepted",
        "filed for all to read",
        "usc/empty",
        "quality_score",
    ] {
        assert!(readable.contains(words), "REPORT.md does not say {words}");
    }
}

#[test]
fn nothing_that_is_known_of_a_document_is_lost_on_the_way() {
    let kitchen = Kitchen::stocked();
    kitchen.build("out");
    let documents = kitchen.documents("out");
    let document = &documents["usc/7"].1;
    assert_eq!((document.dataset.as_str(), document.text.as_str()), ("usc", law(7).as_str()));
    assert_eq!(
        (document.license.as_str(), document.license_basis.as_deref()),
        (PUBLIC, Some("17 U.S.C. 105"))
    );
    assert_eq!(document.source.as_deref(), Some("Press"));
    assert_eq!(document.title.as_deref(), Some("Title of usc/7"));
    assert_eq!(document.url.as_deref(), Some("https://example.org/usc/7"));
    assert_eq!(document.date.as_deref(), Some("2024-01-02"));
    assert_eq!(
        (document.mime_type.as_str(), document.extras["upstream"].as_str()),
        ("text/plain", "git usc/7")
    );
    assert!(document.score.is_some() && document.quality.len() == 16);
    // One that was cleaned says what it was.
    let paged = &documents["usc/paged"].1;
    assert!(!paged.text.contains("[[Page"));
    assert!(paged.extras["blake3_ingested"] != paged.blake3);
    // An original file under what the recipe states.
    let page = &documents["pages:note.html"].1;
    assert_eq!((page.license.as_str(), page.source.as_deref()), (PUBLIC, Some("Office")));
    assert_eq!(
        (page.license_basis.as_deref(), page.mime_type.as_str()),
        (Some("17 U.S.C. 105"), "text/html")
    );
    let (part, found) = look::find(&kitchen.path("out"), "usc/7").unwrap().unwrap();
    assert_eq!((&part, &found), (&documents["usc/7"].0, document));
    assert!(look::find(&kitchen.path("out"), "nothing").unwrap().is_none());
}

#[test]
fn what_was_held_out_is_in_no_text_to_train_on() {
    let kitchen = Kitchen::stocked();
    let record = kitchen.build("out");
    let documents = kitchen.documents("out");
    let held: Vec<&str> =
        documents.values().filter(|(part, _)| part == "heldout").map(|(_, d)| d.text.as_str()).collect();
    assert!(held.len() > 2 && held.len() < 20, "{} held out", held.len());
    assert_eq!(record.parts["heldout"].documents, held.len() as u64);
    let trained: Vec<String> =
        Texts::open(&[kitchen.path("out")]).unwrap().map(|text| text.unwrap().text).collect();
    assert_eq!(trained.len() as u64, record.parts["train"].documents);
    assert!(held.iter().all(|text| !trained.iter().any(|t| t == text)));
}

#[test]
fn the_record_names_sources_rights_refusals_and_files() {
    let kitchen = Kitchen::stocked();
    let record = kitchen.build("out");
    assert_eq!(record.accepted.len(), 1);
    assert_eq!((record.accepted[0].license.as_str(), record.accepted[0].documents), ("LicenseRef-filed", 1));
    assert_eq!(record.refused.len(), 2);
    assert!(record.refused.iter().any(|r| r.reason.contains("CC-BY-NC-4.0") && r.examples == ["forms/2"]));
    assert!(record.sources.iter().any(|s| s.dataset == "pages" && s.source.as_deref() == Some("Office")));
    assert_eq!(record.sources.iter().map(|s| s.documents).sum::<u64>(), record.documents);
    let inputs: Vec<&str> = record.inputs.iter().map(|input| input.name.as_str()).collect();
    assert_eq!(inputs, ["forms.jsonl.zst", "usc.jsonl", "broken.pdf", "note.html"]);
    assert_eq!(record.evaluations[0].name, "v.jsonl");
    let json = fs::read_to_string(kitchen.path("out/provenance.json")).unwrap();
    let here = kitchen.dir.path().to_string_lossy().into_owned();
    assert!(!json.contains(&here), "the record names this machine's folders");
    let catalogue: serde_json::Value =
        serde_json::from_slice(&fs::read(kitchen.path("out/croissant.json")).unwrap()).unwrap();
    assert_eq!(catalogue["conformsTo"], "http://mlcommons.org/croissant/1.1");
    assert!(catalogue["usageInfo"].to_string().contains("filed for all to read"));
}

#[test]
fn the_best_copy_stays_whichever_comes_first() {
    for order in [["good", "bad"], ["bad", "good"]] {
        let kitchen = Kitchen::new();
        // The same words in capitals: the same text, less like a statute.
        let text = |name: &str| if name == "good" { law(1) } else { law(1).to_uppercase() };
        kitchen.write("a.jsonl", order.map(|name| line(name, "d", "MIT", &text(name))).concat());
        kitchen.write("law.toml", "[[source]]\npath = \"a.jsonl\"\n");
        kitchen.build("out");
        assert_eq!(kitchen.documents("out").into_keys().collect::<Vec<_>>(), ["good"], "{order:?}");
    }
}

#[test]
fn steps_alone_come_to_what_a_recipe_comes_to() {
    let kitchen = Kitchen::new();
    let mut lines: String =
        (0..30).map(|n| line(&format!("d/{n}"), "d", "LicenseRef-filed", &law(n))).collect();
    lines += &line("d/copy", "d", "LicenseRef-filed", &law(3));
    lines += &line("d/short", "d", "LicenseRef-filed", "Repealed.");
    kitchen.write("a.jsonl", lines);
    let accept = "[licenses.accept]\nLicenseRef-filed = \"because\"\n";
    kitchen.write(
        "law.toml",
        format!("[[source]]\npath = \"a.jsonl\"\n{accept}[split]\nheldout = 0.3\nseed = 4\n"),
    );
    let whole = kitchen.build("whole");
    kitchen.write(
        "law.toml",
        format!(
            "[[source]]\npath = \"a.jsonl\"\n{accept}[filter]\nenabled = false\n[dedup]\nenabled = false\n"
        ),
    );
    kitchen.build("ingested");
    let go_on = |from: &str, to: &str, stages: Vec<Stage>| {
        build(&Plan::of_corpus(&kitchen.path(from), stages).unwrap(), &kitchen.path(to), Watch::SILENT)
            .unwrap()
    };
    go_on("ingested", "filtered", vec![Stage::Score, Stage::Filter(FilterSettings::default())]);
    go_on("filtered", "unique", vec![Stage::Dedup(DedupSettings::default())]);
    let last = go_on("unique", "split", vec![Stage::Split(SplitSettings { heldout: 0.3, seed: 4 })]);
    assert_eq!(last.root, whole.root);
    assert_eq!(last.parts, whole.parts);
    // The reason of acceptance travels.
    assert_eq!(last.accepted, whole.accepted);
    assert_eq!(last.documents, 30);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn in_is_kept_plus_dropped_whatever_the_lines_are(
        lines in prop::collection::vec(prop_oneof![
            (0usize..12).prop_map(|n| line(&format!("id{n}"), &format!("d{}", n % 3), "MIT", &law(n))),
            (0usize..12, "[A-Z]{2,6}").prop_map(|(n, license)| line(&format!("id{n}"), "d0", &license, &law(n))),
            "\\PC{0,30}".prop_map(|junk| format!("{junk}\n")),
            "\\PC{0,30}".prop_map(|text| line("short", "d1", "MIT", &text)),
        ], 1..25),
        heldout in 0.0..0.9f64,
    ) {
        let kitchen = Kitchen::new();
        kitchen.write("a.jsonl", lines.concat());
        kitchen.write("law.toml", format!("[[source]]\npath = \"a.jsonl\"\n[split]\nheldout = {heldout}\n"));
        let record = kitchen.build("out");
        let report: Report = serde_json::from_value(kitchen.report("out")).unwrap();
        let mut entered = lines.concat().lines().filter(|line| !line.trim().is_empty()).count() as u64;
        for step in &report.steps {
            prop_assert!(step.counts.balance(), "{} does not balance", step.name);
            prop_assert_eq!(step.counts.entered, entered, "{}", &step.name);
            entered = step.counts.kept;
        }
        prop_assert_eq!(record.documents, entered);
    }
}
