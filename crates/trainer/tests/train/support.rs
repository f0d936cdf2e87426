//! A small token store, a small geometry, and runs of them.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use blackletter_corpus::{
    document::{Document, to_batch},
    shards::{self, Effort, ShardWriter},
};
use blackletter_dataset::{Inputs, build};
use blackletter_provenance::{Dataset, Generator, Part, Provenance, Shard, hash};
use blackletter_tokenizer::train::{TrainOptions, Trained, WordCounts, train};
use std::{collections::BTreeMap, fs, path::Path, sync::LazyLock};

const SUBJECTS: [&str; 8] =
    ["The court", "The agency", "A person", "The buyer", "The seller", "Congress", "A state", "The bank"];
const VERBS: [&str; 6] =
    ["shall pay", "may require", "shall not disclose", "must file", "shall review", "may amend"];
const OBJECTS: [&str; 7] =
    ["the fee", "a notice", "the record", "an appeal", "the contract", "the report", "the terms"];

/// Sentences that a small model learns fast.
fn text(seed: usize) -> String {
    let pick = |list: &[&str], n: usize| list[n % list.len()].to_string();
    (0..12 + seed % 9)
        .map(|i| {
            let n = seed * 31 + i * 17;
            format!(
                "{} {} {}.{}",
                pick(&SUBJECTS, n),
                pick(&VERBS, n / 3),
                pick(&OBJECTS, n / 5),
                if i % 4 == 3 { "\n" } else { " " }
            )
        })
        .collect()
}

fn document(dataset: &str, number: usize) -> Document {
    let text = text(number);
    Document {
        id: format!("{dataset}-{number}"),
        dataset: dataset.into(),
        license: if dataset == "forms" { "CC0-1.0" } else { "LicenseRef-public-domain-17-USC-105" }.into(),
        mime_type: "text/plain".into(),
        blake3: hash::hex(text.as_bytes()),
        text,
        ..Document::default()
    }
}

fn corpus(folder: &Path, parts: &[(&str, Vec<Document>)]) {
    let mut record = Provenance {
        version: 1,
        dataset: Dataset { name: "small".into(), ..Dataset::default() },
        generator: Generator { name: "test".into(), version: "0".into() },
        documents: 0,
        text_bytes: 0,
        root: String::new(),
        parts: BTreeMap::new(),
        sources: vec![],
        accepted: vec![],
        refused: vec![],
        inputs: vec![],
        evaluations: vec![],
        settings: serde_json::Value::Null,
        shards: vec![],
    };
    let mut paths = Vec::new();
    for (part, documents) in parts {
        let path = folder.join(part).join("00000.parquet");
        let mut writer = ShardWriter::create(&path, Effort::Fast).unwrap();
        writer.write(&to_batch(documents).unwrap()).unwrap();
        let written = writer.finish().unwrap();
        record.documents += written.documents;
        record.text_bytes += written.text_bytes;
        let root = shards::root(std::slice::from_ref(&path)).unwrap().finish();
        let (documents, text_bytes) = (written.documents, written.text_bytes);
        record.parts.insert((*part).into(), Part { documents, text_bytes, root });
        record.shards.push(Shard {
            path: format!("{part}/00000.parquet"),
            part: (*part).into(),
            documents,
            text_bytes,
            bytes: written.file.bytes,
            blake3: written.file.blake3,
            sha256: written.file.sha256,
        });
        paths.push(path);
    }
    record.root = shards::root(&paths).unwrap().finish();
    fs::write(folder.join("provenance.json"), record.to_json().unwrap()).unwrap();
}

/// Makes `folder/store` (two datasets with held-out documents, and examples) and `folder/geometry.json`.
pub fn store(folder: &Path) {
    static TRAINED: LazyLock<Trained> = LazyLock::new(|| {
        let mut words = WordCounts::new().unwrap();
        words.add(&[("", (0..40).map(text).collect::<String>())]);
        train(words, &TrainOptions { vocab_size: 4096, min_frequency: 2 }).unwrap()
    });
    let part = |from: usize, count: usize| {
        (from..from + count)
            .flat_map(|n| [document("usc", n), document("forms", n + 1000)])
            .collect::<Vec<_>>()
    };
    // Two more texts, one of them held out, under the id of a text before them, as happens in real collections.
    let again = |n: usize| Document { id: document("usc", 0).id, ..document("usc", n) };
    let learned = [part(0, 30), vec![again(70)]].concat();
    let heldout = [part(500, 3), vec![again(71)]].concat();
    corpus(&folder.join("corpus"), &[("train", learned), ("heldout", heldout)]);
    TRAINED.write(&folder.join("tokenizer")).unwrap();
    let examples: String = (0..20)
        .map(|n| {
            serde_json::json!({
                "instruction": format!("Who shall pay in section {n}?"), "output": SUBJECTS[n % 8], "kind": "who",
                "document": format!("usc-{n}"), "dataset": "usc", "license": "CC0-1.0",
            })
            .to_string()
                + "\n"
        })
        .collect();
    fs::write(folder.join("sft.jsonl"), examples).unwrap();
    let at = |name: &str| folder.join(name);
    let inputs = Inputs {
        corpus: Some(at("corpus")),
        tokenizer: at("tokenizer"),
        sft: vec![at("sft.jsonl")],
        ..Inputs::default()
    };
    build(&inputs, &at("store"), &mut |_| ()).unwrap();
    let geometry = serde_json::json!({
        "model_type": "mixtral", "vocab_size": 1, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "num_local_experts": 4, "num_experts_per_tok": 2,
        "max_position_embeddings": 1, "sliding_window": 32, "rms_norm_eps": 1e-5, "router_aux_loss_coef": 0.02,
    });
    fs::write(at("geometry.json"), geometry.to_string()).unwrap();
}

/// Writes `folder/run.toml`: a run of a few steps into `folder/run`.
pub fn write_config(folder: &Path) {
    let at = |name: &str| folder.join(name).display().to_string();
    let text = format!(
        "run = {:?}\nthreads = 2\n[model]\ngeometry = {:?}\ndeviation = 0.05\n[data]\nstore = {:?}\nrows = 4\nmicro_batch_rows = 2\n\
         [stream]\ncontext = 64\nsft_weight = 0.2\n[schedule]\nsteps = 12\nwarmup = 2\ncooldown = 4\npeak = 3e-3\n\
         [clip]\npercentile = 80.0\nhistory = 4\n[evaluation]\nevery = 4\ntokens = 300\n[samples]\nevery = 0\n\
         [checkpoints]\nevery = 4\nkeep = 2\n[averaging]\ndecay = 0.9\nevery = 2\n",
        at("run"),
        at("geometry.json"),
        at("store"),
    );
    fs::write(folder.join("run.toml"), text).unwrap();
}

/// The lines of a run's metrics without what differs from run to run: times.
pub fn metrics(run: &Path) -> Vec<serde_json::Value> {
    fs::read_to_string(run.join("metrics.jsonl"))
        .unwrap()
        .lines()
        .map(|line| {
            let mut value: serde_json::Value = serde_json::from_str(line).unwrap();
            for key in ["seconds", "tokens_per_s", "mfu"] {
                value.as_object_mut().unwrap().remove(key);
            }
            value
        })
        .collect()
}
