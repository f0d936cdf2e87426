//! Small corpora and tokenizers, and stores made of them.
#![allow(dead_code, clippy::unwrap_used)]

use blackletter_corpus::{
    document::{Document, to_batch},
    shards::{self, Effort, ShardWriter},
};
use blackletter_dataset::{Inputs, TokenStore, build};
use blackletter_provenance::{Dataset, Generator, Part, Provenance, Shard, SourceRecord, hash};
use blackletter_tokenizer::train::{TrainOptions, Trained, WordCounts, train};
use std::{collections::BTreeMap, fs, path::Path, sync::LazyLock};

/// A document of the dataset that its id begins with, up to `-`.
pub fn document(id: &str, text: &str) -> Document {
    Document {
        id: id.into(),
        dataset: id.split('-').next().unwrap().into(),
        license: if id.starts_with("forms") { "CC0-1.0" } else { "LicenseRef-public-domain-17-USC-105" }
            .into(),
        mime_type: "text/plain".into(),
        blake3: hash::hex(text.as_bytes()),
        text: text.into(),
        ..Document::default()
    }
}

/// Writes a corpus of parts.
pub fn corpus(folder: &Path, parts: &[(&str, &[Document])]) {
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
    let of = |d: &Document| SourceRecord {
        dataset: d.dataset.clone(),
        source: None,
        license: d.license.clone(),
        license_basis: None,
        documents: 1,
        text_bytes: d.text.len() as u64,
    };
    record.sources = parts.iter().flat_map(|(_, documents)| documents.iter().map(of)).collect();
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

/// Writes a tokenizer of the kl3m-001 recipe: bytes, marks and spaces, and little more.
pub fn tokenizer(folder: &Path) {
    static TRAINED: LazyLock<Trained> = LazyLock::new(|| {
        let mut words = WordCounts::new().unwrap();
        words.add(&[("", "the law of the land ".repeat(20))]);
        train(words, &TrainOptions { vocab_size: 4096, min_frequency: 2 }).unwrap()
    });
    TRAINED.write(folder).unwrap();
}

/// A store of these documents and lines of examples; what it was made from lies beside it.
pub fn store(folder: &Path, train: &[Document], heldout: &[Document], examples: &str) -> TokenStore {
    let inputs = inputs(folder, train, heldout, examples);
    build(&inputs, &folder.join("store"), &mut |_| ()).unwrap();
    TokenStore::open(&folder.join("store")).unwrap()
}

/// What a store is made from.
pub fn inputs(folder: &Path, train: &[Document], heldout: &[Document], examples: &str) -> Inputs {
    let at = |name: &str| folder.join(name);
    corpus(&at("corpus"), &[("train", train), ("heldout", heldout)]);
    tokenizer(&at("tokenizer"));
    fs::write(at("sft.jsonl"), examples).unwrap();
    let (corpus, tokenizer, sft) = (Some(at("corpus")), at("tokenizer"), vec![at("sft.jsonl")]);
    Inputs { corpus, tokenizer, sft, ..Inputs::default() }
}

/// Lines of examples whose answers are `n` words long.
pub fn examples(words: impl IntoIterator<Item = usize>) -> String {
    let line = |(number, words): (usize, usize)| {
        let output = "law ".repeat(words);
        let json = serde_json::json!({
            "instruction": format!("Say law, {number}"), "output": output.trim_end(), "kind": "law",
            "document": format!("usc-{number}"), "dataset": "usc", "license": "CC0-1.0",
        });
        format!("{json}\n")
    };
    words.into_iter().enumerate().map(line).collect()
}
