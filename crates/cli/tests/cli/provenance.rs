//! `audit`, `bom`, `sign` and `verify`

use crate::support::{Ended, blackletter, model};
use blackletter_corpus::consumed;
use blackletter_provenance::{
    CorpusUse, DOCUMENTS_FILE, DocumentList, Generator, MODEL_RECORD_VERSION, ModelIdentity, ModelRecord,
    Provenance, RecordKind, Training, hash,
};
use serde_json::{Value, json};
use std::{fs, path::Path};
use tempfile::TempDir;

fn run(arguments: &[&str]) -> Ended {
    blackletter().env("SOURCE_DATE_EPOCH", "1795686653").args(arguments).output().unwrap().into()
}

/// A corpus of ten sections in `dir/corpus`, and a model in a folder of its own that says it was trained on it.
fn trained(dir: &Path) -> TempDir {
    let rows: String = (0..10)
        .map(|n| {
            let text = format!("§ {n}. A keeper of lake {n} may ask each vessel for notice {} before a gate closes.", n * 7);
            json!({ "id": format!("usc/{n}"), "dataset": "usc", "text": text, "license": "CC0-1.0", "title": format!("§ {n}"),
                "url": "https://www.govinfo.gov/x" })
            .to_string()
                + "\n"
        })
        .collect();
    fs::write(dir.join("law.jsonl"), rows).unwrap();
    let corpus = dir.join("corpus");
    let ended = run(&[
        "corpus",
        "ingest",
        dir.join("law.jsonl").to_str().unwrap(),
        "--out",
        corpus.to_str().unwrap(),
    ]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let model = model(64);
    let documents = consumed::of_corpus(&corpus, |_, id| if id == "usc/9" { 0 } else { 5 }).unwrap();
    consumed::write(&model.path().join(DOCUMENTS_FILE), &documents).unwrap();
    let record = Provenance::from_json(&fs::read(corpus.join("provenance.json")).unwrap()).unwrap();
    ModelRecord {
        version: MODEL_RECORD_VERSION,
        kind: RecordKind::Model,
        model: ModelIdentity {
            name: "test".into(),
            architecture: "MixtralForCausalLM".into(),
            ..ModelIdentity::default()
        },
        generator: Generator { name: "blackletter".into(), version: "0".into() },
        corpus: CorpusUse { root: record.root.clone(), record: Some(Box::new(record)) },
        tokenizer: hash::hex(&fs::read(model.path().join("tokenizer.json")).unwrap()),
        training: Training { steps: 1, tokens: 45, seconds: Some(0.3), ..Training::default() },
        sources: consumed::sources(&documents),
        documents: DocumentList { path: DOCUMENTS_FILE.into(), documents: 10, consumed: 9 },
        ..ModelRecord::default()
    }
    .write(model.path())
    .unwrap();
    model
}

fn flip(path: &Path, from_the_end: usize) {
    let mut bytes = fs::read(path).unwrap();
    let at = bytes.len() - 1 - from_the_end;
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

#[test]
fn an_audit_finds_any_changed_byte_and_names_its_file_or_document() {
    let dir = TempDir::new().unwrap();
    let model = trained(dir.path());
    let corpus = dir.path().join("corpus");
    let (folder, corpus_folder) = (model.path().to_str().unwrap(), corpus.to_str().unwrap());
    let audit = |with_corpus: bool| {
        let mut arguments = vec!["audit", folder];
        if with_corpus {
            arguments.extend(["--corpus", corpus_folder]);
        }
        let ended = run(&arguments);
        let found: Value = serde_json::from_str(&ended.stdout).unwrap_or_else(|_| panic!("{}", ended.stderr));
        (ended.code, found["findings"].to_string())
    };
    assert_eq!(audit(true), (0, "[]".into()));
    for name in ["model.safetensors", "config.json", "tokenizer.json", DOCUMENTS_FILE] {
        let path = model.path().join(name);
        let before = fs::read(&path).unwrap();
        flip(&path, 40);
        let (code, findings) = audit(false);
        assert!(code == 1 && findings.contains(&format!("{name} was changed")), "{name}: {findings}");
        fs::write(&path, before).unwrap();
    }
    let record = model.path().join("provenance.json");
    let before = fs::read_to_string(&record).unwrap();
    fs::write(&record, before.replace("\"tokens\": 45", "\"tokens\": 54")).unwrap();
    assert!(audit(false).1.contains("provenance.json itself was changed"));
    fs::write(&record, before).unwrap();
    fs::write(model.path().join("more.bin"), "x").unwrap();
    assert!(audit(false).1.contains("more.bin is not in the record"));
    fs::remove_file(model.path().join("more.bin")).unwrap();
    // Another corpus: one document has another word, and all of its own sums agree.
    let text = fs::read_to_string(dir.path().join("law.jsonl")).unwrap().replace("lake 3", "pond 3");
    fs::write(dir.path().join("law.jsonl"), text).unwrap();
    let ended =
        run(&["corpus", "ingest", dir.path().join("law.jsonl").to_str().unwrap(), "--out", corpus_folder]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let (code, findings) = audit(true);
    assert!(code == 1 && findings.contains("the document usc/3 is not the document"), "{findings}");
    assert!(!findings.contains("usc/4"), "{findings}");
    assert_eq!(audit(false).0, 0, "without the corpus there is nothing to find");
}

#[test]
fn models_made_from_a_model_go_on_with_its_record() {
    let dir = TempDir::new().unwrap();
    let model = trained(dir.path());
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (folder, corpus) = (model.path().to_str().unwrap(), at("corpus"));
    let base = ModelRecord::read(model.path()).unwrap();
    let (mean, longer, deeper, wider, small) =
        (at("mean"), at("longer"), at("deeper"), at("wider"), at("small"));
    for (operation, arguments) in [
        ("average", vec!["surgery", "average", folder, folder, "--out", &mean]),
        (
            "extend-context",
            vec!["surgery", "extend-context", "--model", folder, "--context", "128", "--out", &longer],
        ),
        ("add-layers", vec!["surgery", "add-layers", "--model", &longer, "--layers", "1", "--out", &deeper]),
        (
            "resize-vocab",
            vec!["surgery", "resize-vocab", "--model", folder, "--tokens", "300", "--out", &wider],
        ),
        ("quantize", vec!["quantize", folder, &small, "--dtype", "q8"]),
    ] {
        let ended = run(&arguments);
        assert!(ended.code == 0 && !ended.stderr.contains("note:"), "{operation}: {}", ended.stderr);
        let out = if operation == "quantize" {
            small.as_str()
        } else {
            arguments.last().copied().unwrap_or_default()
        };
        let record = ModelRecord::read(Path::new(out)).unwrap();
        let step = record.derivations.last().unwrap();
        assert_eq!(step.operation, operation);
        let seal = if operation == "add-layers" {
            ModelRecord::read(Path::new(&longer)).unwrap().seal
        } else {
            base.seal.clone()
        };
        assert!(step.inputs.iter().all(|input| input.seal.as_ref() == Some(&seal)), "{step:?}");
        let ended = run(&["audit", out, "--corpus", &corpus]);
        let audit: Value = serde_json::from_str(&ended.stdout).unwrap();
        assert_eq!((ended.code, &audit["findings"]), (0, &json!([])), "{operation}");
        let told = audit["derivations"].as_array().unwrap();
        assert_eq!(told.len(), if operation == "add-layers" { 2 } else { 1 });
        assert!(told.last().unwrap().as_str().unwrap().starts_with(operation), "{told:?}");
        flip(&Path::new(out).join("model.safetensors"), 40);
        assert_eq!(run(&["audit", out]).code, 1);
        flip(&Path::new(out).join("model.safetensors"), 40);
    }
    // One without a record has none to carry on, and says so.
    let plain = crate::support::model(64);
    let out = at("plain");
    let ended = run(&["surgery", "average", folder, plain.path().to_str().unwrap(), "--out", &out]);
    assert!(ended.code == 0 && ended.stderr.contains("nothing is recorded"), "{}", ended.stderr);
    assert!(!Path::new(&out).join("provenance.json").exists());
}

#[test]
fn bills_of_materials_are_made_from_the_record() {
    let dir = TempDir::new().unwrap();
    let model = trained(dir.path());
    let folder = model.path().to_str().unwrap();
    let bom = |format: &str| run(&["bom", "--model", folder, "--format", format]).stdout;
    let cyclonedx: Value = serde_json::from_str(&bom("cyclonedx")).unwrap();
    assert_eq!(
        (&cyclonedx["specVersion"], &cyclonedx["metadata"]["timestamp"]),
        (&json!("1.7"), &json!("2026-11-26T09:50:53Z"))
    );
    let spdx: Value = serde_json::from_str(&bom("spdx")).unwrap();
    assert!(
        spdx["@graph"].as_array().unwrap().iter().any(|e| e["type"] == "ai_AIPackage" && e["name"] == "test")
    );
    let summary = bom("eu-summary");
    assert!(summary.contains("| www.govinfo.gov | 10 |") && summary.contains("CC0-1.0"), "{summary}");
    let without = run(&["bom", "--model", dir.path().to_str().unwrap(), "--format", "spdx"]);
    assert!(without.code == 1 && without.stderr.contains("nothing is recorded"), "{}", without.stderr);
}

#[test]
fn a_signature_holds_until_something_changes() {
    // Made for this test by `openssl ecparam -genkey -name prime256v1 -noout`; it protects nothing.
    let private = "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEEIOuvJKCetMzv4B4L7/SGlXjdKS7hW4JPVDs4qDk0ns+0oAoGCCqGSM49\nAwEHoUQDQgAEWF5e1uUdMb+ovLbGXNAA3DFo64RaK82HGyY9D1hrGW8nmt98cOop\na6RJz0yTiPyD5FOE74tmmpkkkAjjh5EAqA==\n-----END EC PRIVATE KEY-----\n";
    let public = "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEWF5e1uUdMb+ovLbGXNAA3DFo64Ra\nK82HGyY9D1hrGW8nmt98cOopa6RJz0yTiPyD5FOE74tmmpkkkAjjh5EAqA==\n-----END PUBLIC KEY-----\n";
    let dir = TempDir::new().unwrap();
    let model = model(64);
    let (key, shown) = (dir.path().join("key.pem"), dir.path().join("key.pub"));
    fs::write(&key, private).unwrap();
    fs::write(&shown, public).unwrap();
    let folder = model.path().to_str().unwrap();
    assert_eq!(run(&["sign", folder, "--key", key.to_str().unwrap()]).code, 0);
    let verify = || run(&["verify", folder, "--key", shown.to_str().unwrap()]);
    assert_eq!(verify().code, 0, "{}", verify().stderr);
    let among = model.path().join("other.sig");
    let ended =
        run(&["sign", folder, "--key", key.to_str().unwrap(), "--signature", among.to_str().unwrap()]);
    assert!(ended.code == 2 && ended.stderr.contains("elsewhere") && !among.exists(), "{}", ended.stderr);
    flip(&model.path().join("model.safetensors"), 3);
    let ended = verify();
    assert!(ended.code == 1 && ended.stderr.contains("model.safetensors was changed"), "{}", ended.stderr);
    let ended = run(&["sign", folder, "--key", shown.to_str().unwrap()]);
    assert!(ended.code == 1 && ended.stderr.contains("private key"), "{}", ended.stderr);
}
