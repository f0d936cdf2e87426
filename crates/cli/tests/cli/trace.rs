//! `index`, `trace`, `generate --trace` and `eval memorization`

use crate::support::{Ended, blackletter, model};
use serde_json::{Value, json};
use std::{fs, path::Path};
use tempfile::TempDir;

fn run(arguments: &[&str]) -> Ended {
    blackletter().args(arguments).output().unwrap().into()
}

fn json_of(arguments: &[&str]) -> Value {
    let ended = run(arguments);
    assert_eq!(ended.code, 0, "{arguments:?}: {}", ended.stderr);
    serde_json::from_str(&ended.stdout).unwrap()
}

/// Ten sections as a corpus, a token store and an index in `dir`.
fn index(dir: &Path, tokenizer: &Path) -> String {
    let rows: String = (0..10)
        .map(|n| {
            let text = format!("§ {n}. A keeper of lake {n} may ask each vessel for notice {} before a gate closes.", n * 7);
            json!({ "id": format!("usc/{n}"), "dataset": "usc", "text": text, "license": "CC0-1.0", "title": format!("Section {n}") })
                .to_string()
                + "\n"
        })
        .collect();
    fs::write(dir.join("law.jsonl"), rows).unwrap();
    let at = |name: &str| dir.join(name).to_str().unwrap().to_owned();
    let (corpus, store, out) = (at("corpus"), at("store"), at("index"));
    for arguments in [
        vec!["corpus", "ingest", &at("law.jsonl"), "--out", &corpus],
        vec![
            "dataset",
            "build",
            "--corpus",
            &corpus,
            "--tokenizer",
            tokenizer.to_str().unwrap(),
            "--out",
            &store,
        ],
        vec!["index", "--dataset", &store, "--corpus", &corpus, "--out", &out],
    ] {
        let ended = run(&arguments);
        assert_eq!(ended.code, 0, "{arguments:?}: {}", ended.stderr);
    }
    out
}

#[test]
fn a_text_is_traced_to_the_documents_that_it_stands_in() {
    let dir = TempDir::new().unwrap();
    let model = model(128);
    let index = index(dir.path(), model.path());
    let text = "They say that a keeper of lake 3 may ask each vessel for notice 22, or so.";
    let found = json_of(&["trace", "--index", &index, "--json", text]);
    let span = &found["spans"][0];
    assert_eq!(span["text"], " keeper of lake 3 may ask each vessel for notice 2");
    assert_eq!((&span["occurrences"], &span["documents"][0]["id"]), (&json!(1), &json!("usc/3")));
    assert_eq!(span["documents"][0]["title"], "Section 3");
    // The place in the document: after "§ 3. A", where § has two bytes.
    assert_eq!(span["documents"][0]["offset"], 7);
    let shown = run(&["trace", "--index", &index, text]).stdout;
    assert!(shown.contains("usc/3 “Section 3” at byte 7, CC0-1.0"), "{shown}");
    assert!(shown.contains("on, 1 time, in\n") && !shown.contains("more documents"), "{shown}");
    // A span of all ten sections, of which some are named.
    let common = " may ask each vessel for notice ";
    let named = |most: &str| run(&["trace", "--index", &index, "--documents", most, common]).stdout;
    for (most, lines, more) in [("0", 0, false), ("3", 3, true), ("9", 9, true), ("10", 10, false)] {
        let shown = named(most);
        assert!(shown.contains("on, 10 times"), "{shown}");
        assert_eq!(shown.matches("  - usc/").count(), lines, "{shown}");
        assert_eq!(shown.contains("and in more documents"), more, "{shown}");
    }
    let found = json_of(&["trace", "--index", &index, "--documents", "3", "--json", common]);
    assert_eq!(found["spans"][0]["documents"].as_array().unwrap().len(), 3);
    let folder = model.path().to_str().unwrap();
    let made = json_of(&[
        "generate",
        "A keeper",
        "--model",
        folder,
        "--max-new-tokens",
        "4",
        "--num-return-sequences",
        "2",
        "--trace",
        &index,
    ]);
    assert_eq!(made.as_array().unwrap().len(), 2);
    assert!(
        made[0]["text"].as_str().unwrap().starts_with("A keeper") && made[0]["trace"]["spans"].is_array(),
        "{made}"
    );
    let wrong = run(&["trace", "--index", folder, "x"]);
    assert!(wrong.code == 1 && wrong.stderr.contains("blackletter index"), "{}", wrong.stderr);
}

#[test]
fn memorization_is_counted_by_length_of_prompt() {
    let dir = TempDir::new().unwrap();
    let model = model(128);
    let index = index(dir.path(), model.path());
    let folder = model.path().to_str().unwrap();
    let result = json_of(&[
        "eval",
        "memorization",
        "--model",
        folder,
        "--index",
        &index,
        "--prompt-tokens",
        "8,16",
        "--continuation",
        "8",
        "--samples",
        "5",
        "--texts",
        "2",
        "--text-tokens",
        "20",
    ]);
    let lengths: Vec<u64> = result["continuations"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["prompt_tokens"].as_u64().unwrap())
        .collect();
    assert_eq!((lengths, &result["continuations"][0]["samples"]), (vec![8, 16], &json!(5)));
    assert_eq!(result["free"]["texts"], 2);
}

#[test]
fn memorization_makes_the_index_of_a_corpus_once() {
    let dir = TempDir::new().unwrap();
    let model = model(128);
    index(dir.path(), model.path());
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (corpus, folder) = (at("corpus"), model.path().to_str().unwrap());
    let few = ["--prompt-tokens", "8", "--continuation", "8", "--samples", "3", "--texts", "0"];
    let arguments = [&["eval", "memorization", "--model", folder, "--corpus", &corpus][..], &few].concat();
    let result = json_of(&arguments);
    assert_eq!(result["continuations"][0]["samples"], 3);
    // The same as with an index of the token store, which is made once and holds nothing else.
    let by_index =
        json_of(&[&["eval", "memorization", "--model", folder, "--index", &at("index")][..], &few].concat());
    assert_eq!(result, by_index);
    let made = dir.path().join("corpus-index");
    let names = |folder: &Path| {
        let mut names: Vec<_> = fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(names(&made), names(&dir.path().join("index")));
    let before = fs::metadata(made.join("index.json")).unwrap().modified().unwrap();
    assert_eq!(json_of(&arguments), result);
    assert_eq!(fs::metadata(made.join("index.json")).unwrap().modified().unwrap(), before);
    // Another corpus under the same name has another index.
    let text = fs::read_to_string(dir.path().join("law.jsonl")).unwrap().replace("lake 3", "pond 3");
    fs::write(dir.path().join("law.jsonl"), text).unwrap();
    assert_eq!(run(&["corpus", "ingest", &at("law.jsonl"), "--out", &corpus]).code, 0);
    let ended = run(&arguments);
    assert!(ended.code == 1 && ended.stderr.contains("made with another corpus"), "{}", ended.stderr);
    let ended = run(&["eval", "memorization", "--model", folder]);
    assert!(ended.code == 2 && ended.stderr.contains("--corpus"), "{}", ended.stderr);
}
