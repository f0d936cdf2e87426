//! `dataset`: from a corpus to examples, a token store and the rows that training sees.

use crate::support::{Ended, blackletter, write_tokenizer};
use serde_json::{Value, json};
use std::{fs, path::Path};
use tempfile::TempDir;

const SPECIAL: [&str; 7] = ["<|start|>", "<|end|>", "<|pad|>", "<|unk|>", "<|sep|>", "<|cls|>", "<|mask|>"];

fn run(arguments: &[&str]) -> Ended {
    blackletter().args(arguments).output().unwrap().into()
}

fn json_of(arguments: &[&str]) -> Value {
    let ended = run(arguments);
    assert_eq!(ended.code, 0, "{arguments:?}: {}", ended.stderr);
    serde_json::from_str(&ended.stdout).unwrap()
}

/// A corpus of sections, and a tokenizer whose tokens are bytes.
fn prepare(dir: &Path) {
    let topics = ["lakes", "rivers", "ponds", "harbours", "canals", "springs", "marshes", "wells"];
    let line = |(n, topic): (usize, &&str)| {
        let text = format!(
            "§ {n}. Keeping of {topic}.\n\n(a) A warden of the {topic} may close each gate before the season ends.\n\n\
             (b) “Season” of {topic} is named here; “{topic} gate” means any gate that leads to {topic} of the county.\n\n\
             Mar. {}, 1926, 44 Stat. 2{n}",
            n + 1
        );
        let row = json!({ "id": format!("dc/{n}"), "dataset": "dc", "text": text,
            "license": "LicenseRef-public-domain-17-USC-105", "license_basis": "17 U.S.C. 105" });
        format!("{row}\n")
    };
    fs::write(dir.join("law.jsonl"), topics.iter().enumerate().map(line).collect::<String>()).unwrap();
    let at = |name: &str| dir.join(name).to_str().unwrap().to_owned();
    json_of(&["corpus", "ingest", &at("law.jsonl"), "--out", &at("corpus")]);
    fs::create_dir(dir.join("tokenizer")).unwrap();
    write_tokenizer(&dir.join("tokenizer"), &SPECIAL);
}

#[test]
fn a_corpus_becomes_examples_a_store_and_rows_that_a_person_can_read() {
    let dir = TempDir::new().unwrap();
    prepare(dir.path());
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (corpus, tokenizer, sft, store) = (at("corpus"), at("tokenizer"), at("sft.jsonl"), at("store"));
    let derived = json_of(&["dataset", "sft", "--corpus", &corpus, "--out", &sft]);
    assert_eq!((&derived["documents"], &derived["kinds"]["heading_to_text"]), (&json!(8), &json!(8)));
    let lines = fs::read_to_string(&sft).unwrap();
    assert_eq!(derived["examples"], json!(lines.lines().count()));
    let bare = "{\"instruction\":\"Close the gate?\",\"output\":\"Yes.\"}";
    fs::write(&sft, format!("{lines}nonsense\n{bare}\n")).unwrap();
    let built = run(&[
        "dataset",
        "build",
        "--corpus",
        &corpus,
        "--tokenizer",
        &tokenizer,
        "--sft",
        &sft,
        "--out",
        &store,
    ]);
    assert_eq!(built.code, 0, "{}", built.stderr);
    let note = format!("note: 1 of {} lines of sft.jsonl left out: not JSON", lines.lines().count() + 2);
    assert!(built.stderr.contains(&note), "{}", built.stderr);
    // What documents of the corpus answer has its licence from there; an example of one's own states its own.
    assert!(built.stderr.contains("left out: licence refused: no licence is stated"), "{}", built.stderr);
    let summary: Value = serde_json::from_str(&built.stdout).unwrap();
    assert_eq!((&summary["train"]["documents"], &summary["heldout"]["documents"]), (&json!(8), &json!(0)));
    assert_eq!(summary["examples"], derived["examples"]);
    let own = at("own");
    let accepted = json_of(&[
        "dataset",
        "build",
        "--corpus",
        &corpus,
        "--tokenizer",
        &tokenizer,
        "--sft",
        &sft,
        "--license",
        "LicenseRef-ours",
        "--accept",
        "LicenseRef-ours=we wrote them",
        "--out",
        &own,
    ]);
    assert_eq!(accepted["examples"].as_u64(), derived["examples"].as_u64().map(|count| count + 1));
    let manifest = fs::read_to_string(Path::new(&own).join("manifest.json")).unwrap();
    assert!(manifest.contains("we wrote them"), "{manifest}");
    // Rows of documents: what is packed is named with its licence.
    let row = run(&["dataset", "show", &store, "--row", "0", "--context", "512"]);
    assert_eq!(row.code, 0, "{}", row.stderr);
    assert!(row.stdout.starts_with("row 0 of ") && row.stdout.contains("--- part 1: dc/"), "{}", row.stdout);
    assert!(row.stdout.contains("LicenseRef-public-domain-17-USC-105") && row.stdout.contains("<|start|>§ "));
    let random = json_of(&[
        "dataset",
        "show",
        &store,
        "--row",
        "2",
        "--context",
        "512",
        "--padding",
        "random",
        "--json",
    ]);
    assert_eq!(random["parts"].as_array().unwrap().len(), 1);
    assert_eq!(random["parts"][0]["position"], random["left_padding"]);
    let examples = run(&["dataset", "show", &store, "--row", "0", "--sft-weight", "1"]);
    assert!(
        examples.stdout.contains("<|sep|>") && examples.stdout.contains("--- learned: "),
        "{}",
        examples.stdout
    );
    // The same settings show the same row; another seed another one.
    let with = |seed: &str| {
        run(&["dataset", "show", &store, "--row", "0", "--context", "512", "--seed", seed]).stdout
    };
    assert_eq!(with("1"), row.stdout);
    assert_ne!(with("2"), row.stdout);
}

#[test]
fn wrong_inputs_end_with_what_is_wrong_and_where() {
    let dir = TempDir::new().unwrap();
    prepare(dir.path());
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (corpus, tokenizer, store) = (at("corpus"), at("tokenizer"), at("store"));
    let build = ["dataset", "build", "--corpus", &corpus, "--tokenizer", &tokenizer, "--out", &store];
    let fails = |arguments: &[&str], code: i32, message: &str| {
        let ended = run(arguments);
        assert_eq!(ended.code, code, "{arguments:?}: {}", ended.stderr);
        assert!(ended.stderr.contains(message), "{arguments:?}: {}", ended.stderr);
    };
    fails(&["dataset", "show", &store, "--row", "0"], 1, "no token store");
    fails(
        &["dataset", "build", "--corpus", &at("gone"), "--tokenizer", &tokenizer, "--out", &store],
        1,
        "gone",
    );
    fails(&["dataset", "build", "--corpus", &corpus, "--tokenizer", &at("gone"), "--out", &store], 1, "gone");
    fails(
        &["dataset", "build", "--corpus", &corpus, "--tokenizer", &tokenizer, "--out", &corpus],
        1,
        "other files",
    );
    fails(&["dataset", "sft", "--corpus", &corpus, "--max-bytes", "5", "--out", &at("x")], 2, "at least 400");
    json_of(&build);
    fails(&["dataset", "show", &store, "--row", "100000"], 1, "there is no row 100000: epoch 0 has ");
    fails(&["dataset", "show", &store, "--row", "0", "--context", "3"], 1, "context is 3");
    fails(&["dataset", "show", &store, "--row", "0", "--sft-weight", "0.5"], 1, "build it with --sft");
    let shard = dir.path().join("store/train/00000.arrow");
    let mut bytes = fs::read(&shard).unwrap();
    bytes[300] ^= 1;
    fs::write(&shard, bytes).unwrap();
    fails(&["dataset", "show", &store, "--row", "0"], 1, "00000.arrow is damaged");
    // Made again, it is whole again.
    json_of(&build);
    assert_eq!(run(&["dataset", "show", &store, "--row", "0"]).code, 0);
}
