//! `corpus` and `tokenizer`, from texts to a corpus that others can read.

use crate::support::{Ended, blackletter};
use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    thread,
    time::Duration,
};
use tempfile::TempDir;

/// Fifty sections that differ, one that stands twice, one without a licence, one that is a line of nothing, and a broken line.
fn sources(dir: &Path) -> PathBuf {
    let topics = ["lakes", "rivers", "ponds", "harbours", "canals"];
    let mut lines = String::new();
    let mut section = |n: usize, id: String, license: Option<&str>| {
        let topic = topics[n % topics.len()];
        let words = ["keeper", "notice", "gate", "officer", "vessel", "permit", "warden", "season", "county"];
        let word = |k: usize| words[(n * 13 + k * k * 5 + k) % words.len()];
        let clause = |k: usize| {
            let (one, two, three) = (word(k), word(k + n), word(2 * k + 1));
            format!(
                "({k}) A {one} of the {topic} may ask each {two} for {} before any {three} closes.\n",
                n * 31 + k
            )
        };
        let clauses: String = (0..12).map(clause).collect();
        let text = format!("§ {n}. Keeping of {topic}.\n\n{clauses}");
        let row = json!({ "id": id, "dataset": "usc", "text": text, "license": license, "license_basis": "17 U.S.C. 105" });
        lines.push_str(&format!("{row}\n"));
    };
    let public = Some("LicenseRef-public-domain-17-USC-105");
    for n in 0..50 {
        section(n, format!("usc/{n}"), public);
    }
    section(7, "usc/again".into(), public);
    section(90, "usc/unlicensed".into(), None);
    let empty = json!({ "id": "usc/empty", "dataset": "usc", "text": " \n", "license": public });
    fs::write(dir.join("law.jsonl"), format!("{lines}{empty}\n{{\"id\": \"usc/broken\n")).unwrap();
    let recipe = "[[source]]\npath = \"law.jsonl\"\n[filter]\n[split]\nheldout = 0.1\nseed = 1\n";
    fs::write(dir.join("law.toml"), recipe).unwrap();
    dir.join("law.toml")
}

fn run(arguments: &[&str]) -> Ended {
    blackletter().args(arguments).output().unwrap().into()
}

fn json_of(arguments: &[&str]) -> Value {
    let ended = run(arguments);
    assert_eq!(ended.code, 0, "{arguments:?}: {}", ended.stderr);
    serde_json::from_str(&ended.stdout).unwrap()
}

fn at<'a>(dir: &TempDir, name: &str, text: &'a mut String) -> &'a str {
    *text = dir.path().join(name).to_str().unwrap().to_owned();
    text
}

#[test]
fn every_document_of_a_build_is_accounted_for_and_audited() {
    let dir = TempDir::new().unwrap();
    let recipe = sources(dir.path());
    let (mut out, mut copy) = (String::new(), String::new());
    let (out, copy) = (at(&dir, "corpus", &mut out), at(&dir, "copy", &mut copy));
    let built = json_of(&["corpus", "build", recipe.to_str().unwrap(), "--out", out]);
    let report: Value =
        serde_json::from_slice(&fs::read(Path::new(out).join("report.json")).unwrap()).unwrap();
    let mut dropped = Vec::new();
    for step in report["steps"].as_array().unwrap() {
        let sum: u64 = step["dropped"].as_object().unwrap().values().map(|n| n.as_u64().unwrap()).sum();
        assert_eq!(step["in"].as_u64(), Some(step["kept"].as_u64().unwrap() + sum), "{step}");
        dropped.push(sum);
    }
    assert_eq!(dropped.iter().sum::<u64>(), 4, "again, unlicensed, empty, broken: {report}");
    assert_eq!(built["documents"], 50);
    assert_eq!(
        json_of(&["corpus", "build", recipe.to_str().unwrap(), "--out", copy, "--threads", "1"])["root"],
        built["root"]
    );
    assert_eq!(json_of(&["corpus", "audit", out])["root"], built["root"]);
    let stats = json_of(&["corpus", "stats", out]);
    assert_eq!(stats["total"]["documents"], 50);
    let shown = run(&["corpus", "show", "usc/3", "--corpus", out]);
    assert!(shown.stdout.contains("license: LicenseRef-public-domain-17-USC-105"), "{}", shown.stdout);
    assert!(shown.stdout.contains("Keeping of harbours"), "{}", shown.stdout);
    assert_eq!(run(&["corpus", "show", "usc/none", "--corpus", out]).code, 1);

    // One byte of one shard.
    let shard = fs::read_dir(Path::new(out).join("train")).unwrap().next().unwrap().unwrap().path();
    let mut bytes = fs::read(&shard).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&shard, bytes).unwrap();
    let audit = run(&["corpus", "audit", out]);
    assert_eq!(audit.code, 1);
    assert!(audit.stderr.contains("train/"), "{}", audit.stderr);
}

#[test]
fn a_build_that_is_killed_again_and_again_ends_as_if_it_never_was() {
    let dir = TempDir::new().unwrap();
    let recipe = sources(dir.path());
    let (mut whole, mut killed) = (String::new(), String::new());
    let (whole, killed) = (at(&dir, "whole", &mut whole), at(&dir, "killed", &mut killed));
    let expected = json_of(&["corpus", "build", recipe.to_str().unwrap(), "--out", whole]);
    for wait in 0..12 {
        let mut child = blackletter()
            .args(["corpus", "build", recipe.to_str().unwrap(), "--out", killed])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        thread::sleep(Duration::from_millis(3 * wait));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let ended = json_of(&["corpus", "build", recipe.to_str().unwrap(), "--out", killed]);
    assert_eq!(ended["root"], expected["root"]);
    assert_eq!(json_of(&["corpus", "audit", killed])["root"], expected["root"]);
    for name in ["report.json", "provenance.json"] {
        assert_eq!(
            fs::read(Path::new(whole).join(name)).unwrap(),
            fs::read(Path::new(killed).join(name)).unwrap(),
            "{name}"
        );
    }
}

#[test]
fn the_steps_stand_alone_and_say_what_was_wrong() {
    let dir = TempDir::new().unwrap();
    sources(dir.path());
    let mut names: [String; 5] = Default::default();
    let [law, read, filtered, unique, parts] = &mut names;
    let law = at(&dir, "law.jsonl", law);
    let (read, filtered) = (at(&dir, "read", read), at(&dir, "filtered", filtered));
    let (unique, parts) = (at(&dir, "unique", unique), at(&dir, "parts", parts));
    assert_eq!(json_of(&["corpus", "ingest", law, "--out", read])["documents"], 51);
    assert_eq!(json_of(&["corpus", "filter", read, "--out", filtered])["documents"], 51);
    assert_eq!(json_of(&["corpus", "dedup", filtered, "--out", unique])["documents"], 50);
    let split = json_of(&["corpus", "split", unique, "--heldout", "0.2", "--out", parts]);
    assert_eq!(split["documents"], 50);
    assert!(split["parts"]["heldout"]["documents"].as_u64().unwrap() > 0, "{split}");
    for step in [read, filtered, unique, parts] {
        for file in ["report.json", "provenance.json", "REPORT.md"] {
            assert!(Path::new(step).join(file).exists(), "{step}/{file}");
        }
    }
    for (arguments, code, says) in [
        (&["corpus", "ingest", law, "--accept", "nothing", "--out", "x"][..], 2, "REF"),
        (&["corpus", "ingest", "/no/such/file", "--out", "x"], 1, "/no/such/file"),
        (&["corpus", "split", unique, "--heldout", "1.5", "--out", "x"], 2, "heldout"),
        (&["corpus", "dedup", unique, "--similarity", "7", "--out", "x"], 2, "similarity"),
        (&["corpus", "audit", law], 1, "provenance.json"),
        (&["corpus", "build", law, "--out", "x"], 1, "law.jsonl"),
    ] {
        let ended = run(arguments);
        assert_eq!(ended.code, code, "{arguments:?}: {}", ended.stderr);
        assert!(
            ended.stderr.to_lowercase().contains(&says.to_lowercase()),
            "{arguments:?}: {}",
            ended.stderr
        );
    }
}

#[test]
fn a_corpus_goes_out_in_the_layout_of_kl3m_data_and_comes_back_the_same() {
    let dir = TempDir::new().unwrap();
    let recipe = sources(dir.path());
    let mut names: [String; 7] = Default::default();
    let [corpus, tokenizer, store, fetched, again, hub, read] = &mut names;
    let (corpus, tokenizer) = (at(&dir, "corpus", corpus), at(&dir, "tokenizer", tokenizer));
    let (store, fetched) = (at(&dir, "store", store), at(&dir, "fetched", fetched));
    let (again, hub) = (at(&dir, "again", again), at(&dir, "hub", hub));
    let built = json_of(&["corpus", "build", recipe.to_str().unwrap(), "--out", corpus]);
    // Held-out documents go out, and are not read with the others.
    let train = built["parts"]["train"]["documents"].as_u64().unwrap();
    let trained =
        run(&["tokenizer", "train", "--corpus", corpus, "--vocab-size", "2048", "--out", tokenizer]);
    assert_eq!(trained.code, 0, "{}", trained.stderr);

    // Two stages and the tokens of 50 documents, and an index.
    let exported = json_of(&["corpus", "export", corpus, "--tokenizer", tokenizer, "--to", store]);
    assert_eq!(exported["written"], 151);
    let stages = ["--stage", "documents", "--stage", "representations", "--dataset", "usc"];
    let fetch = |limit: &[&str]| {
        json_of(&[&["corpus", "fetch", store, "--out", fetched][..], &stages, limit].concat())
    };
    assert_eq!(fetch(&["--limit", "10"])["written"], 20);
    let rest = fetch(&[]);
    assert_eq!((rest["written"].as_u64(), rest["already_there"].as_u64()), (Some(80), Some(20)));
    let representations = Path::new(fetched).join("representations");
    fs::remove_dir_all(Path::new(fetched).join("documents")).unwrap();
    let back = json_of(&["corpus", "ingest", fetched, "--out", again]);
    assert_eq!(back["documents"], train, "{representations:?}");
    let report: Value =
        serde_json::from_slice(&fs::read(Path::new(again).join("report.json")).unwrap()).unwrap();
    assert_eq!(report["steps"][0]["dropped"]["held out"].as_u64().unwrap_or(0), 50 - train);
    let text =
        |corpus: &str| json_of(&["corpus", "show", "usc/3", "--json", "--corpus", corpus])["blake3"].clone();
    assert_eq!(text(corpus), text(again));

    let exported =
        json_of(&["corpus", "export", corpus, "--layout", "hub", "--tokenizer", tokenizer, "--to", hub]);
    assert_eq!(exported["written"], 2);
    assert!(Path::new(hub).join("data/train-00000.parquet").exists());
    // Token ids come back as the texts that they were.
    let read = at(&dir, "read", read);
    let ingest = ["corpus", "ingest", hub, "--license", "CC0-1.0", "--out", read];
    let untold = run(&ingest);
    assert_eq!((untold.code, untold.stderr.contains("--tokenizer")), (1, true), "{}", untold.stderr);
    let back = json_of(&[&ingest[..], &["--tokenizer", tokenizer]].concat());
    assert_eq!((back["documents"].as_u64(), text(corpus)), (Some(train), text(read)));
    let bucket =
        run(&["corpus", "ingest", "s3://bucket/x", "--endpoint", "http://127.0.0.1:1", "--out", read]);
    assert_eq!(bucket.code, 1);
    assert!(bucket.stderr.contains("s3://bucket"), "{}", bucket.stderr);
    let bare = run(&["corpus", "export", corpus, "--layout", "hub", "--to", hub]);
    assert_eq!((bare.code, bare.stderr.contains("--tokenizer")), (2, true));
    let nothing = run(&["corpus", "fetch", corpus, "--out", fetched]);
    assert_eq!((nothing.code, nothing.stderr.contains("no objects")), (1, true), "{}", nothing.stderr);
}

#[test]
fn a_tokenizer_is_the_same_each_time_and_takes_special_tokens_in_texts_as_text() {
    let dir = TempDir::new().unwrap();
    let recipe = sources(dir.path());
    let mut names: [String; 4] = Default::default();
    let [corpus, one, two, text] = &mut names;
    let (corpus, one) = (at(&dir, "corpus", corpus), at(&dir, "one", one));
    let (two, text) = (at(&dir, "two", two), at(&dir, "text", text));
    json_of(&["corpus", "build", recipe.to_str().unwrap(), "--out", corpus]);
    for (out, threads) in [(one, "1"), (two, "2")] {
        let arguments = [
            "tokenizer",
            "train",
            "--corpus",
            corpus,
            "--recipe",
            "kl3m-001",
            "--vocab-size",
            "2048",
            "--out",
            out,
        ];
        let ended: Ended =
            blackletter().args(arguments).env("RAYON_NUM_THREADS", threads).output().unwrap().into();
        assert_eq!(ended.code, 0, "{}", ended.stderr);
    }
    let file = |dir: &str| fs::read(Path::new(dir).join("tokenizer.json")).unwrap();
    assert!(file(one) == file(two));

    let wrote = "(a) § 3.  Lakes<|end|>\r\n\tand 👩‍👩‍👧 ponds\n";
    fs::write(text, wrote).unwrap();
    let ids = run(&["tokenizer", "encode", "--tokenizer", one, text]).stdout;
    let parsed = run(&["tokenizer", "encode", "--tokenizer", one, "--parse-special", text]).stdout;
    assert_ne!(ids, parsed);
    fs::write(text, &ids).unwrap();
    assert_eq!(
        run(&["tokenizer", "decode", "--tokenizer", one, text]).stdout.trim_end_matches('\n'),
        wrote.trim_end_matches('\n')
    );
    fs::write(text, b"\xff\xfe law").unwrap();
    let ended = run(&["tokenizer", "encode", "--tokenizer", one, text]);
    assert_eq!((ended.code, ended.stderr.contains("UTF-8")), (1, true), "{}", ended.stderr);
    let stats = json_of(&["tokenizer", "stats", "--tokenizer", one, corpus]);
    assert!(stats.to_string().contains("usc"), "{stats}");
}
