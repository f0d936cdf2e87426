//! Whether an audit finds what was altered.

use crate::support::{Kitchen, bytes};
use blackletter_corpus::{
    audit::audit,
    document::{Document, Rows, to_batch},
    shards::{Effort, ShardReader, ShardWriter},
};
use blackletter_provenance::Provenance;
use std::fs;

fn found(kitchen: &Kitchen) -> String {
    audit(&kitchen.path("out")).unwrap_err().to_string()
}

#[test]
fn a_corpus_as_it_was_made_is_in_order() {
    let kitchen = Kitchen::stocked();
    let record = kitchen.build("out");
    let audited = audit(&kitchen.path("out")).unwrap();
    assert_eq!((audited.documents, audited.root), (record.documents, record.root));
    assert_eq!(audited.shards, 2);
}

#[test]
fn one_altered_byte_anywhere_is_found_and_its_file_named() {
    let kitchen = Kitchen::stocked();
    let record = kitchen.build("out");
    let mut documents = 0;
    for shard in &record.shards {
        let path = kitchen.path("out").join(&shard.path);
        let whole = fs::read(&path).unwrap();
        for at in (0..whole.len()).step_by(101) {
            let mut altered = whole.clone();
            altered[at] ^= 1;
            fs::write(&path, altered).unwrap();
            let found = found(&kitchen);
            assert!(found.starts_with(&format!("{} differs from its record", shard.path)), "{found}");
            documents += usize::from(found.contains("document "));
        }
        fs::write(&path, whole).unwrap();
    }
    assert!(documents > 20, "{documents} name a document");
    audit(&kitchen.path("out")).unwrap();
}

#[test]
fn an_altered_document_is_named_even_when_its_hash_was_altered_with_it() {
    let kitchen = Kitchen::stocked();
    let record = kitchen.build("out");
    let shard = record.shards.iter().find(|shard| shard.part == "train").unwrap();
    let forge = |alter: &dyn Fn(&mut Document)| {
        let mut documents = Vec::new();
        for batch in ShardReader::open(&kitchen.path("out").join(&shard.path)).unwrap() {
            let batch = batch.unwrap();
            let rows = Rows::of(&batch).unwrap();
            documents.extend((0..rows.len()).map(|row| rows.document(row)));
        }
        alter(&mut documents[9]);
        let path = kitchen.path("out").join(&shard.path);
        let mut writer = ShardWriter::create(&path, Effort::Best).unwrap();
        writer.write(&to_batch(&documents).unwrap()).unwrap();
        writer.finish().unwrap();
        documents[9].id.clone()
    };
    let whole = bytes(&kitchen.path("out"));
    let same = forge(&|_| {});
    assert!(same.starts_with("usc/"));
    audit(&kitchen.path("out")).unwrap();
    let alterations: [&dyn Fn(&mut Document); 3] = [
        &|document| {
            document.text.push('!');
            document.blake3 = blackletter_provenance::hash::hex(document.text.as_bytes());
        },
        &|document| document.license = "MIT".into(),
        &|document| document.title = None,
    ];
    for alter in alterations {
        let id = forge(alter);
        let found = found(&kitchen);
        assert!(found.contains(&format!("document {id} is not the one that was recorded")), "{found}");
        fs::write(kitchen.path("out").join(&shard.path), &whole[std::path::Path::new(&shard.path)]).unwrap();
    }
}

#[test]
fn an_altered_record_is_found() {
    let kitchen = Kitchen::stocked();
    kitchen.build("out");
    let path = kitchen.path("out/provenance.json");
    let whole = fs::read(&path).unwrap();
    let alter = |change: &dyn Fn(&mut Provenance), words: &str| {
        let mut record = Provenance::from_json(&whole).unwrap();
        change(&mut record);
        fs::write(&path, record.to_json().unwrap()).unwrap();
        let found = found(&kitchen);
        assert!(found.contains(words), "{found}");
    };
    alter(&|record| record.documents += 1, "the number of documents");
    alter(&|record| record.text_bytes += 1, "the number of bytes");
    alter(&|record| record.root = "00".repeat(32), "the root over documents.blake3");
    alter(&|record| record.sources[0].documents += 1, "the number of documents of");
    alter(&|record| record.sources[0].license = "MIT".into(), "under ");
    alter(
        &|record| record.parts.values_mut().next().unwrap().root = "00".repeat(32),
        "of the part `heldout`",
    );
    alter(
        &|record| record.parts.values_mut().next().unwrap().documents += 1,
        "the number of documents of the part `heldout`",
    );
    alter(
        &|record| record.parts.values_mut().next().unwrap().text_bytes += 1,
        "the number of bytes of text of the part `heldout`",
    );
    alter(&|record| drop(record.parts.remove("train")), "of the part `train`");
    alter(&|record| record.sources[0].text_bytes += 1, "bytes of text");
    alter(&|record| record.shards.truncate(1), "");
    alter(&|record| record.shards[0].path = "../x".into(), "leads out of the corpus");
    fs::write(&path, "{}").unwrap();
    assert!(found(&kitchen).contains("not a provenance record"));
    fs::remove_file(&path).unwrap();
    assert!(found(&kitchen).contains("holds no finished corpus"));
}

#[test]
fn a_shard_that_was_smuggled_in_is_found() {
    let kitchen = Kitchen::stocked();
    kitchen.build("out");
    fs::copy(kitchen.path("out/train/00000.parquet"), kitchen.path("out/train/00001.parquet")).unwrap();
    assert!(found(&kitchen).contains("00001.parquet is not in the record"));
}
