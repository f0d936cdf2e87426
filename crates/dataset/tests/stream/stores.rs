//! Stores: what is in them, and what becomes of wrong inputs and damaged files.

use crate::support::{document, examples, inputs, store};
use blackletter_corpus::document::Document;
use blackletter_dataset::{Kind, Rights, RowStream, StreamConfig, TokenStore, build};
use std::fs;

const DOCUMENTS: [(&str, &str); 3] = [
    ("usc-1", "# § 1. The law\n\nThe law of the land is the law."),
    ("forms-1", "Governing Law. The law of the land <|end|> governs."),
    ("usc-empty", ""),
];

fn documents() -> Vec<Document> {
    DOCUMENTS.iter().map(|(id, text)| document(id, text)).collect()
}

#[test]
fn a_store_holds_every_document_with_its_licence_and_says_what_it_holds() {
    let folder = tempfile::tempdir().unwrap();
    let held = [document("usc-9", "Held out.")];
    let store = store(folder.path(), &documents(), &held, &examples([2, 5]));
    let read: Vec<(String, String, String, String)> = store
        .train()
        .iter()
        .map(|entry| {
            let text = store.tokenizer().decode(&entry.tokens.to_vec(), false);
            assert_eq!(entry.bytes, text.len() as u64);
            (entry.id.into(), text, store.dataset(entry.dataset).into(), store.license(entry.license).into())
        })
        .collect();
    let expected = documents().into_iter().map(|d| (d.id, d.text, d.dataset, d.license));
    assert_eq!(read, expected.collect::<Vec<_>>());
    let held: Vec<&str> = store.heldout().iter().map(|entry| entry.id).collect();
    assert_eq!(held, ["usc-9"]);
    let manifest = store.manifest();
    assert_eq!((manifest.train.total.documents, manifest.heldout.total.documents), (3, 1));
    assert_eq!(manifest.train.total.bytes, DOCUMENTS.iter().map(|(_, text)| text.len() as u64).sum::<u64>());
    let tokens: u64 = store.train().iter().map(|entry| entry.tokens.len() as u64).sum();
    assert_eq!(manifest.train.total.tokens, tokens);
    assert_eq!(manifest.datasets, ["forms", "usc"]);
    let origins: Vec<_> =
        manifest.train.origins.iter().map(|o| (o.license.as_str(), o.count.documents)).collect();
    assert_eq!(origins, [("CC0-1.0", 1), ("LicenseRef-public-domain-17-USC-105", 2)]);
    assert_eq!((manifest.sft.examples, manifest.sft.origins[0].kind.as_str()), (2, "law"));
    // A special token in a text is text: `<|end|>` in the second document is no end.
    let end = manifest.tokenizer.special.end;
    assert!(store.train().iter().all(|entry| !entry.tokens.to_vec().contains(&end)));
}

#[test]
fn the_same_inputs_give_the_same_store_byte_for_byte_and_a_store_is_replaced_whole() {
    let folder = tempfile::tempdir().unwrap();
    let inputs = inputs(folder.path(), &documents(), &[], &examples([2]));
    let files = |out: &str| {
        let out = folder.path().join(out);
        build(&inputs, &out, &mut |_| ()).unwrap();
        ["manifest.json", "tokenizer.json", "train/00000.arrow", "sft/00000.arrow"]
            .map(|name| fs::read(out.join(name)).unwrap())
    };
    let first = files("a");
    assert!(first == files("b") && first == files("a"));
}

#[test]
fn lines_that_are_no_examples_are_counted_by_reason_and_held_out_documents_stay_out() {
    let folder = tempfile::tempdir().unwrap();
    let line = |id: &str| {
        format!("{{\"instruction\":\"a\",\"output\":\"b\",\"document\":\"{id}\",\"license\":\"CC0-1.0\"}}")
    };
    let lines = format!(
        "{}\n\n{}\nnonsense\n{{}}\nmore nonsense\n{}",
        line("usc-1"),
        line("usc-9"),
        line("elsewhere")
    );
    let store = store(folder.path(), &documents(), &[document("usc-9", "Held out.")], &lines);
    let input = &store.manifest().sft.inputs[0];
    assert_eq!((input.lines, input.accepted), (6, 2));
    let refused: Vec<_> = input.refused.iter().map(|(reason, &n)| (reason.as_str(), n)).collect();
    assert_eq!(
        (refused.len(), refused[0], refused[2]),
        (3, ("its document is held out", 1), ("not JSON", 2))
    );
    assert_eq!(store.sft().iter().map(|e| e.id).collect::<Vec<_>>(), ["usc-1", "elsewhere"]);
    assert_eq!(store.license(store.sft().get(0).unwrap().license), "CC0-1.0");
}

#[test]
fn examples_pass_the_licence_gate_as_documents_do() {
    let folder = tempfile::tempdir().unwrap();
    let public = "LicenseRef-public-domain-17-USC-105";
    let agency =
        Document { license: "LicenseRef-agency".into(), ..document("dotgov-1", "A guide to the law.") };
    let line = |more: serde_json::Value| {
        let mut line = serde_json::json!({ "instruction": "Say law", "output": "law" });
        line.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        format!("{line}\n")
    };
    let lines = [
        // As the corpus' own record has it, and as it does not.
        serde_json::json!({ "document": "usc-1", "dataset": "usc", "license": public }),
        serde_json::json!({ "document": "dotgov-1", "dataset": "dotgov", "license": "LicenseRef-agency" }),
        serde_json::json!({ "document": "usc-1", "dataset": "usc", "license": "LicenseRef-filed" }),
        serde_json::json!({ "license": "CC-BY-4.0" }),
        serde_json::json!({ "license": "CC-BY-NC-4.0" }),
        serde_json::json!({ "license": "LicenseRef-public-domain-other" }),
        serde_json::json!({ "license": "LicenseRef-public-domain-other", "license_basis": "a notice" }),
        serde_json::json!({}),
    ];
    let text: String = lines.into_iter().map(line).collect();
    let mut inputs = inputs(folder.path(), &[documents(), vec![agency]].concat(), &[], &text);
    let out = folder.path().join("out");
    let made = |inputs: &blackletter_dataset::Inputs| build(inputs, &out, &mut |_| ()).unwrap().sft;
    let sft = made(&inputs);
    assert_eq!((sft.inputs[0].lines, sft.inputs[0].accepted, sft.accepted), (8, 4, vec![]));
    let refused: Vec<_> = sft.inputs[0].refused.keys().map(String::as_str).collect();
    let expected = [
        "licence refused: CC-BY-NC-4.0 is neither allowed nor accepted",
        "licence refused: LicenseRef-filed is neither allowed nor accepted",
        "licence refused: LicenseRef-public-domain-other is stated without its basis (`license_basis`)",
        "licence refused: no licence is stated",
    ];
    assert_eq!(refused, expected);
    // Stated for all, and accepted by name.
    let accept = [("LicenseRef-filed".to_owned(), "for all to read".to_owned())].into();
    let gate = blackletter_provenance::Gate::new(None, &accept).unwrap();
    inputs.rights = Rights { gate, license: Some("LicenseRef-filed".into()), license_basis: None };
    let sft = made(&inputs);
    assert_eq!(sft.inputs[0].accepted, 6);
    let accepted = &sft.accepted[0];
    let found = (accepted.license.as_str(), accepted.reason.as_str(), accepted.documents);
    assert_eq!(found, ("LicenseRef-filed", "for all to read", 2));
    assert!(TokenStore::open(&out).unwrap().manifest().licenses.contains(&"LicenseRef-filed".to_owned()));
}

#[test]
fn damaged_files_are_told_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let root = store(folder.path(), &documents(), &[], &examples([2])).folder().to_owned();
    let error = || TokenStore::open(&root).err().map(|e| e.to_string()).unwrap_or_default();
    assert_eq!(error(), "");
    for name in ["train/00000.arrow", "sft/00000.arrow", "tokenizer.json", "manifest.json"] {
        let path = root.join(name);
        let whole = fs::read(&path).unwrap();
        // Every byte of the beginning and the end, where the form is, and some between.
        let places = (0..whole.len()).filter(|&at| at % 97 == 0 || at < 64 || at + 200 > whole.len());
        for at in places.step_by(if name == "tokenizer.json" { 50 } else { 1 }) {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x41;
            fs::write(&path, damaged).unwrap();
            let error = error();
            // A manifest can be changed into another one; what does not fit the files is found.
            assert!(
                name == "manifest.json" || error.contains("00000.arrow") || error.contains(name),
                "{name} {at}: {error}"
            );
        }
        for len in [0, 5, whole.len() / 2, whole.len() - 2] {
            fs::write(&path, &whole[..len]).unwrap();
            assert!(error().contains(name), "{name}, {len} bytes: {}", error());
        }
        fs::remove_file(&path).unwrap();
        assert!(error().contains(name), "{}", error());
        fs::write(&path, whole).unwrap();
    }
    assert_eq!(error(), "");
}

#[test]
fn wrong_inputs_are_told_and_leave_nothing_that_passes_for_a_store() {
    let folder = tempfile::tempdir().unwrap();
    let good = inputs(folder.path(), &documents(), &[], "");
    let out = folder.path().join("out");
    let error = |inputs: &blackletter_dataset::Inputs| {
        let error = build(inputs, &out, &mut |_| ()).unwrap_err().to_string();
        assert!(!out.join("manifest.json").exists());
        error
    };
    let gone = folder.path().join("gone");
    for inputs in [
        blackletter_dataset::Inputs { corpus: Some(gone.clone()), ..good.clone() },
        blackletter_dataset::Inputs { tokenizer: gone.clone(), ..good.clone() },
        blackletter_dataset::Inputs { sft: vec![gone.join("x.jsonl")], ..good.clone() },
    ] {
        assert!(error(&inputs).contains("gone"), "{}", error(&inputs));
        assert!(!out.exists());
    }
    let json = fs::read_to_string(good.tokenizer.join("tokenizer.json")).unwrap();
    fs::write(good.tokenizer.join("tokenizer.json"), json.replace("<|sep|>", "<|sip|>")).unwrap();
    assert!(error(&good).contains("no <|sep|>"), "{}", error(&good));
    fs::write(good.tokenizer.join("tokenizer.json"), json).unwrap();
    // What lies there already is not swept away.
    fs::create_dir(&out).unwrap();
    fs::write(out.join("thesis.txt"), "years of work").unwrap();
    assert!(error(&good).contains("other files"));
    // A tokenizer's own directory neither.
    let own = build(&good, &good.tokenizer, &mut |_| ()).unwrap_err().to_string();
    assert!(own.contains("other files"), "{own}");
    // Nor folders that are called like those of a store.
    fs::remove_dir_all(&out).unwrap();
    fs::create_dir_all(out.join("train")).unwrap();
    fs::write(out.join("train/data-00000-of-00001.arrow"), "years of work").unwrap();
    assert!(error(&good).contains("other files"));
    assert!(out.join("train/data-00000-of-00001.arrow").exists());
    // A shard of the corpus that is damaged.
    fs::remove_dir_all(&out).unwrap();
    fs::write(folder.path().join("corpus/train/00000.parquet"), "no parquet").unwrap();
    assert!(error(&good).contains("00000.parquet"));
    assert!(TokenStore::open(&out).err().unwrap().to_string().contains("no token store"));
}

#[test]
fn settings_that_cannot_be_followed_are_refused_with_what_is_allowed() {
    let folder = tempfile::tempdir().unwrap();
    let with = store(folder.path(), &documents(), &[], &examples([2]));
    let error = |config: StreamConfig| {
        RowStream::new(&with, &config).err().map(|e| e.to_string()).unwrap_or_default()
    };
    let config = StreamConfig::default;
    assert_eq!(error(config()), "");
    assert!(error(StreamConfig { context: 7, ..config() }).starts_with("context is 7; a row has from 8"));
    assert!(error(StreamConfig { sft_weight: 1.5, ..config() }).starts_with("sft_weight is 1.5"));
    assert!(error(StreamConfig { sft_weight: f64::NAN, ..config() }).starts_with("sft_weight is NaN"));
    assert!(error(StreamConfig { sft_weight: 0.5, context: 8, ..config() }).contains("fits 8 tokens"));
    // Nearly nothing but examples would be rows without end.
    let nearly = error(StreamConfig { sft_weight: 1.0 - 1e-12, ..config() });
    assert!(nearly.contains("segments of an epoch"), "{nearly}");
    assert_eq!(error(StreamConfig { sft_weight: 1.0, ..config() }), "");
    let weights = |name: &str, weight| [(name.to_owned(), weight)].into();
    let unknown = error(StreamConfig { weights: weights("usx", 1.0), ..config() });
    assert!(unknown.contains("forms, usc; did you mean usc?"), "{unknown}");
    assert!(error(StreamConfig { weights: weights("usc", -1.0), ..config() }).contains("0 to 1000"));
    let none = [("usc".to_owned(), 0.0), ("forms".to_owned(), 0.0)].into();
    assert!(error(StreamConfig { weights: none, ..config() }).contains("no document is left"));
    let without = tempfile::tempdir().unwrap();
    let without = store(without.path(), &documents(), &[], "");
    let error =
        RowStream::new(&without, &StreamConfig { sft_weight: 0.1, ..config() }).err().unwrap().to_string();
    assert!(error.contains("build it with --sft"), "{error}");
    // Settings in files: unknown keys are no settings.
    assert!(serde_json::from_str::<StreamConfig>("{\"contxt\":8}").is_err());
    let read: StreamConfig = serde_json::from_str("{\"context\":64,\"padding\":\"random\"}").unwrap();
    assert_eq!((read.context, read.segments), (64, config().segments));
}

#[test]
fn weights_show_documents_more_or_less_often() {
    let folder = tempfile::tempdir().unwrap();
    let many: Vec<_> = (0..200)
        .flat_map(|n| [document(&format!("usc-{n}"), "The law."), document(&format!("forms-{n}"), "A form.")])
        .collect();
    let store = store(folder.path(), &many, &[], "");
    let weights = [("usc".to_owned(), 2.5), ("forms".to_owned(), 0.25)].into();
    let stream = RowStream::new(&store, &StreamConfig { weights, ..StreamConfig::default() }).unwrap();
    let seen = |epoch: u64, name: &str| {
        let parts = (0..stream.rows(epoch)).flat_map(|n| stream.row(epoch, n).parts);
        let mut times = vec![0; many.len()];
        parts.for_each(|part| times[part.document as usize] += 1);
        let of = (0..many.len()).filter(|&n| many[n].dataset == name);
        of.map(|n| times[n]).collect::<Vec<i32>>()
    };
    assert!(seen(0, "usc").iter().all(|&n| n == 2 || n == 3));
    let sum = |times: Vec<i32>| times.iter().sum::<i32>();
    assert!((460..540).contains(&sum(seen(0, "usc"))), "{}", sum(seen(0, "usc")));
    assert!((25..75).contains(&sum(seen(0, "forms"))), "{}", sum(seen(0, "forms")));
    // Others are chosen in another epoch.
    assert_ne!(seen(0, "forms"), seen(1, "forms"));
}

#[test]
fn rows_of_examples_come_with_their_weight() {
    let folder = tempfile::tempdir().unwrap();
    let many: Vec<_> =
        (0..300).map(|n| document(&format!("usc-{n}"), &"The law of the land. ".repeat(12))).collect();
    let store = store(folder.path(), &many, &[], &examples((0..40).map(|n| n % 7 + 1)));
    for padding in [blackletter_dataset::Padding::Random, blackletter_dataset::Padding::Pack] {
        let config = StreamConfig { context: 64, sft_weight: 0.3, padding, ..StreamConfig::default() };
        let stream = RowStream::new(&store, &config).unwrap();
        let kinds: Vec<Kind> = (0..stream.rows(0)).map(|n| stream.row(0, n).kind).collect();
        let share = kinds.iter().filter(|&&kind| kind == Kind::Sft).count() as f64 / kinds.len() as f64;
        assert!((0.25..0.35).contains(&share), "{share}");
        // Epochs differ.
        assert!((0..20).any(|n| stream.row(0, n) != stream.row(1, n)));
    }
}
