//! Whole runs.

use crate::support::{metrics, store, write_config};
use blackletter_corpus::{audit_model::audit_model, consumed, steps::Watch};
use blackletter_dataset::TokenStore;
use blackletter_engine::{GenerationRequest, LoadOptions, ModelFiles, Pipeline, generate};
use blackletter_model::{Adapter, Checkpoint, Dtype, GenerationConfig, surgery};
use blackletter_provenance::ModelRecord;
use blackletter_tokenizer::{SpecialTokens, Tokenizer};
use blackletter_trainer::{
    Event, ExportOptions, Identity, Outcome, RunConfig, TrainError, Which, export, prepare_own_data, train,
};
use std::{cell::Cell, fs, ops::ControlFlow, path::Path};
use tempfile::TempDir;

fn folder() -> TempDir {
    let dir = TempDir::new().unwrap();
    store(dir.path());
    write_config(dir.path());
    dir
}

fn config(dir: &Path, settings: &[&str]) -> RunConfig {
    let settings: Vec<String> = settings.iter().map(|s| (*s).to_string()).collect();
    RunConfig::load(&dir.join("run.toml"), &settings).unwrap()
}

fn plain() -> ExportOptions {
    ExportOptions {
        dtype: Dtype::F32,
        averaged: false,
        which: Which::Last,
        corpus: None,
        identity: Identity::default(),
    }
}

/// Runs until `stop_after` steps are done in this call.
fn run(config: &RunConfig, resume: bool, stop_after: u64) -> (Result<Outcome, TrainError>, Vec<String>) {
    let (done, mut notes) = (Cell::new(0), Vec::new());
    let outcome = train(config, resume, &|| done.get() >= stop_after, &mut |event| match event {
        Event::Step(_) => done.set(done.get() + 1),
        Event::Note(note) => notes.push(note.to_string()),
        _ => {}
    });
    (outcome, notes)
}

#[test]
fn a_run_that_is_stopped_and_resumed_has_the_losses_of_one_that_is_not() {
    let dir = folder();
    for more in [
        &["optimizer.name=adamw"][..],
        &["optimizer.name=muon", "stream.padding=random", "recompute=true", "loss.z_loss=1e-4"],
        &["dtype=bf16"],
        &["adapter.rank=4", "averaging.decay=0", "model.geometry=\"\"", "MODEL"],
    ] {
        let base = format!("model.from={}", base_model(dir.path()).display());
        let more: Vec<&str> = more.iter().map(|s| if *s == "MODEL" { base.as_str() } else { *s }).collect();
        let more = more.as_slice();
        let at = |name: &str| format!("run={}", dir.path().join(name).display());
        let whole = config(dir.path(), &[more, &[&at("whole")]].concat());
        assert_eq!(run(&whole, false, u64::MAX).0.unwrap(), Outcome::Finished);
        let expected = metrics(&whole.run);
        assert_eq!(expected.len(), 12 + if more.contains(&"adapter.rank=4") { 3 } else { 2 * 3 });
        // Threads do not change a bit of it.
        let parts = config(dir.path(), &[more, &[&at("parts")]].concat());
        for (resume, steps) in [(false, 3), (true, 1), (true, 5)] {
            assert_eq!(run(&parts, resume, steps).0.unwrap(), Outcome::Stopped);
        }
        assert_eq!(run(&parts, true, u64::MAX).0.unwrap(), Outcome::Finished);
        assert_eq!(metrics(&parts.run), expected, "{more:?}");
        fs::remove_dir_all(&whole.run).unwrap();
        fs::remove_dir_all(&parts.run).unwrap();
    }
}

/// A model directory with the store's tokenizer and random weights.
fn base_model(dir: &Path) -> std::path::PathBuf {
    let out = dir.join("base");
    if !out.exists() {
        let at = format!("run={}", dir.join("base-run").display());
        let config = config(dir, &[&at, "schedule.steps=1", "schedule.warmup=0", "schedule.cooldown=0"]);
        run(&config, false, u64::MAX).0.unwrap();
        export(&config.run, &out, &plain(), &mut |_| {}).unwrap();
    }
    out
}

#[test]
fn an_adapter_that_was_trained_gives_what_the_run_gave_and_so_does_the_merged_model() {
    let dir = folder();
    let base = base_model(dir.path());
    let from = format!("model.from={}", base.display());
    let settings = [
        "adapter.rank=4",
        "adapter.targets=[\"q_proj\", \"v_proj\"]",
        "averaging.decay=0",
        "model.geometry=\"\"",
        &from,
        "schedule.peak=0.01",
    ];
    let config = config(dir.path(), &settings);
    run(&config, false, u64::MAX).0.unwrap();
    let lines = metrics(&config.run);
    let held: Vec<f64> = lines
        .iter()
        .filter(|l| l["kind"] == "evaluation")
        .map(|l| l["all"]["loss"].as_f64().unwrap())
        .collect();
    assert!(held[2] < held[0], "{held:?}");
    // Exported from the run, with the adapter, and merged: the same log-probabilities.
    let (whole, merged, adapter) =
        (dir.path().join("whole"), dir.path().join("merged"), config.run.join("adapter"));
    export(&config.run, &whole, &plain(), &mut |_| {}).unwrap();
    let read = Adapter::read(&adapter).unwrap();
    assert_eq!(read.matrices.len(), 2 * 2);
    surgery::merge(Checkpoint::open(&base).unwrap(), &read, Dtype::F32, &merged).unwrap();
    surgery::copy_companions(&base, &merged).unwrap();
    let adapted = ModelFiles::Adapted { model: Box::new(ModelFiles::Directory(base.clone())), adapter };
    let ids: Vec<u32> = (0..40).map(|i| 7 + i * 3 % 90).collect();
    let scores = |files: &ModelFiles| {
        let pipeline = Pipeline::load(files, &LoadOptions::default(), true).unwrap();
        pipeline.score_ids(ids.clone(), true).unwrap().token_logprobs
    };
    let expected = scores(&ModelFiles::Directory(whole));
    for files in [&adapted, &ModelFiles::Directory(merged)] {
        let found = scores(files);
        assert!(found.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-5));
    }
    // It says what it was trained on, by which it knows its model again, and what from.
    let whole = Checkpoint::open(&dir.path().join("whole")).unwrap();
    let message =
        surgery::merge(whole, &read, Dtype::F32, &dir.path().join("twice")).unwrap_err().to_string();
    assert!(message.contains("trained on another model"), "{message}");
    assert_eq!(
        fs::read(config.run.join("adapter/dataset.json")).unwrap(),
        fs::read(dir.path().join("store/manifest.json")).unwrap()
    );
    let plain = scores(&ModelFiles::Directory(base));
    assert!(plain.iter().zip(&expected).any(|(a, b)| (a - b).abs() > 1e-2));
}

#[test]
fn a_model_is_trained_further_on_files_of_ones_own() {
    let dir = folder();
    let from = format!("model.from={}", base_model(dir.path()).display());
    let texts = dir.path().join("my-texts");
    fs::create_dir(&texts).unwrap();
    for n in 0..6 {
        // No two alike: duplicates go.
        let text: String =
            (0..9).map(|i| format!("Item {} of list {n} costs {} dollars. ", i * n + i, i * 7 + n)).collect();
        fs::write(texts.join(format!("{n}.txt")), text).unwrap();
    }
    let none = ["model.geometry=\"\"", "data.store=\"\"", &from];
    let text = format!("data.texts={}", texts.display());
    let example = format!("data.examples={}", dir.path().join("sft.jsonl").display());
    let open = |name: &str, more: &[&str]| {
        let at = format!("run={}", dir.path().join(name).display());
        let mut config = config(dir.path(), &[&none[..], &[&at], more].concat());
        prepare_own_data(&mut config, false, Watch::SILENT).map(|_| config)
    };
    // There is nothing to go on with yet.
    let mut early = config(dir.path(), &[&none[..], &[&text]].concat());
    let nothing = prepare_own_data(&mut early, true, Watch::SILENT);
    assert!(matches!(nothing, Err(TrainError::NoRun(_))), "{nothing:?}");
    for (name, more, documents, examples) in [
        ("texts", &[text.as_str(), "data.license=LicenseRef-ours", "stream.sft_weight=0"][..], 6, 0),
        ("examples", &[&example], 0, 20),
        ("both", &[&text, &example, "data.license=CC0-1.0"], 6, 20),
    ] {
        let config = open(name, more).unwrap();
        assert_eq!(run(&config, false, 2).0.unwrap(), Outcome::Stopped, "{name}");
        assert_eq!(run(&config, true, u64::MAX).0.unwrap(), Outcome::Finished, "{name}");
        let manifest = TokenStore::open(&config.data.store).unwrap().manifest().clone();
        assert_eq!(manifest.train.total.documents + manifest.heldout.total.documents, documents, "{name}");
        assert_eq!(manifest.sft.examples, examples, "{name}");
        // What another run learns from is not written over.
        assert!(matches!(open(name, more), Err(TrainError::Exists(_))), "{name}");
    }
    // A run goes on with the files that it was begun with.
    let at = format!("run={}", dir.path().join("both").display());
    let mut other = config(dir.path(), &[&none[..], &[&at, &example, "data.license=CC0-1.0"]].concat());
    let message = prepare_own_data(&mut other, true, Watch::SILENT).unwrap_err().to_string();
    assert!(message.contains("data.texts is [] now"), "{message}");
    // Texts that state no licence are refused, in words that say what to do.
    let message = open("refused", &[&text, "stream.sft_weight=0"]).unwrap_err().to_string();
    assert!(message.contains("data.license") && message.contains("6 were refused"), "{message}");
    // So are examples, and the key states their licence too.
    let bare = dir.path().join("bare.jsonl");
    fs::write(&bare, "{\"instruction\":\"Say law\",\"output\":\"law\"}\n".repeat(3)).unwrap();
    let bare = format!("data.examples={}", bare.display());
    let message = open("bare", &[&bare]).unwrap_err().to_string();
    assert!(
        message.contains("data.license") && message.contains("3: licence refused: no licence"),
        "{message}"
    );
    let config = open("named", &[&bare, "data.license=LicenseRef-ours"]).unwrap();
    let sft = TokenStore::open(&config.data.store).unwrap().manifest().sft.clone();
    assert_eq!((sft.examples, sft.accepted[0].license.as_str()), (3, "LicenseRef-ours"));
    assert!(sft.accepted[0].reason.contains("data.license"));
    // Examples that state no kind are in the record as well.
    run(&config, false, u64::MAX).0.unwrap();
    let task = metrics_consumed(&config.run);
    assert_eq!(task, ["other"]);
    // What is left out while others remain is told.
    let mixed = dir.path().join("mixed.jsonl");
    fs::write(&mixed, "{\"instruction\":\"Say law\",\"output\":\"law\"}\nno\n").unwrap();
    let (mixed, at) = (format!("data.examples={}", mixed.display()), dir.path().join("mixed"));
    let at = format!("run={}", at.display());
    let mut config = self::config(dir.path(), &[&none[..], &[&at, &mixed, "data.license=CC0-1.0"]].concat());
    let notes = prepare_own_data(&mut config, false, Watch::SILENT).unwrap();
    assert!(
        matches!(&notes[..], [note] if note.starts_with("1 of 2 lines of ") && note.ends_with("not JSON")),
        "{notes:?}"
    );
}

/// Tasks of the examples that a run has consumed.
fn metrics_consumed(run: &Path) -> Vec<String> {
    let consumed = fs::read(run.join("consumed.json")).unwrap();
    let consumed: serde_json::Value = serde_json::from_slice(&consumed).unwrap();
    consumed.as_array().unwrap().iter().map(|c| c["task"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_model_learns_and_its_record_is_complete() {
    let dir = folder();
    let config = config(
        dir.path(),
        &["schedule.steps=40", "samples.every=40", "samples.tokens=8", "evaluation.every=20"],
    );
    let (mut held, mut sampled) = (Vec::new(), 0);
    train(&config, false, &|| false, &mut |event| match event {
        Event::Evaluated { average: false, scores, .. } => held.push(scores.clone()),
        Event::Sampled { .. } => sampled += 1,
        _ => {}
    })
    .unwrap();
    assert_eq!(sampled, 3);
    assert!(held[1].all.loss < held[0].all.loss && held[1].all.loss < 5.0, "{held:?}");
    for (name, score) in &held[1].datasets {
        assert!(["usc", "forms"].contains(&name.as_str()));
        assert!((score.perplexity - score.loss.exp()).abs() < 1e-9 && score.bytes > score.tokens);
        let bits = score.loss * score.tokens as f64 / std::f64::consts::LN_2 / score.bytes as f64;
        assert!((score.bits_per_byte - bits).abs() < 1e-9);
    }
    let lines = metrics(&config.run);
    let last = lines.iter().rev().find(|l| l["kind"] == "step").unwrap();
    let consumed: serde_json::Value =
        serde_json::from_slice(&fs::read(config.run.join("consumed.json")).unwrap()).unwrap();
    let sum: u64 = consumed.as_array().unwrap().iter().map(|c| c["tokens"].as_u64().unwrap()).sum();
    assert_eq!(last["tokens"].as_u64().unwrap(), sum);
    let kinds: Vec<(&str, &str)> = consumed
        .as_array()
        .unwrap()
        .iter()
        .map(|c| (c["dataset"].as_str().unwrap(), c["task"].as_str().unwrap()))
        .collect();
    assert_eq!(kinds, [("forms", ""), ("usc", "who"), ("usc", "")]);
    let curves = fs::read_to_string(config.run.join("curves.svg")).unwrap();
    assert!(curves.starts_with("<svg") && curves.contains("bits per byte") && curves.contains("forms"));
    let names: Vec<String> =
        fs::read_dir(&config.run).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    assert!(names.iter().any(|n| n.starts_with("events.out.tfevents.")), "{names:?}");
    assert!(!names.iter().any(|n| n.starts_with('.') && n != ".lock"), "{names:?}");
}

#[test]
fn an_exported_model_has_the_weights_of_the_run_and_writes_text() {
    let dir = folder();
    let config = config(dir.path(), &[]);
    run(&config, false, u64::MAX).0.unwrap();
    let out = dir.path().join("model");
    let options = ExportOptions { which: Which::Last, ..plain() };
    let from = export(&config.run, &out, &options, &mut |note| panic!("{note}")).unwrap();
    assert!(from.ends_with("step-00000012"));
    let checkpoint = Checkpoint::open(&out).unwrap();
    assert_eq!(checkpoint.config.max_position_embeddings, 64);
    let tokenizer = Tokenizer::load(&out).unwrap();
    assert_eq!(checkpoint.config.vocab_size, tokenizer.vocab_size());
    let config_json: serde_json::Value =
        serde_json::from_slice(&fs::read(out.join("tokenizer_config.json")).unwrap()).unwrap();
    assert!(config_json["chat_template"].as_str().unwrap().contains("<|sep|>"));
    // The model scores held-out text as the run's last evaluation did: the same weights.
    let pipeline = Pipeline::load(&ModelFiles::Directory(out), &LoadOptions::default(), true).unwrap();
    let ids = tokenizer.encode("The court shall", SpecialTokens::AsText).unwrap();
    let request = GenerationRequest {
        max_new_tokens: Some(5),
        num_return_sequences: 1,
        greedy: true,
        ..Default::default()
    };
    let options = request.resolve(&GenerationConfig::default(), pipeline.engine.config()).unwrap();
    let made =
        generate(&pipeline.engine, None, &ids, &options, &mut |_, _| ControlFlow::Continue(())).unwrap();
    assert!(!made[0].ids.is_empty());
    for (which, averaged, name) in [(Which::Best, true, "best"), (Which::Step(8), true, "eight")] {
        let options = ExportOptions { dtype: Dtype::BF16, averaged, which, ..plain() };
        export(&config.run, &dir.path().join(name), &options, &mut |_| {}).unwrap();
        assert!(Checkpoint::open(&dir.path().join(name)).is_ok());
    }
    let options = ExportOptions { which: Which::Step(3), ..plain() };
    let message = export(&config.run, &dir.path().join("no"), &options, &mut |_| {}).unwrap_err().to_string();
    assert!(message.contains("step 3") && message.contains("12"), "{message}");
}

#[test]
fn a_run_goes_on_from_the_weights_of_a_model_directory() {
    let dir = folder();
    let first = config(dir.path(), &[]);
    run(&first, false, u64::MAX).0.unwrap();
    let model = dir.path().join("model");
    let options = ExportOptions { which: Which::Last, ..plain() };
    export(&first.run, &model, &options, &mut |_| {}).unwrap();
    let from = [
        format!("model.from={}", model.display()),
        "model.geometry=\"\"".into(),
        format!("run={}", dir.path().join("second").display()),
        "schedule.peak=1e-9".into(),
        "schedule.end=1e-9".into(),
    ];
    let second = config(dir.path(), &from.iter().map(String::as_str).collect::<Vec<_>>());
    run(&second, false, u64::MAX).0.unwrap();
    let held = |run: &Path| {
        let lines = metrics(run);
        let last = lines.iter().rev().find(|l| l["kind"] == "evaluation" && l["of"] == "weights").unwrap();
        last["all"]["loss"].as_f64().unwrap()
    };
    let (then, now) = (held(&first.run), held(&second.run));
    assert!((then - now).abs() < 1e-4, "{then} {now}");
}

#[test]
fn a_run_goes_on_only_from_the_model_that_it_was_begun_from_which_its_own_model_names() {
    let dir = folder();
    let base = dir.path().join("base");
    let identity = Identity { name: "base".into(), ..Identity::default() };
    let corpus = Some(dir.path().join("corpus"));
    let recorded = ExportOptions { corpus, identity, ..plain() };
    let first = config(dir.path(), &[&format!("run={}", dir.path().join("first").display())]);
    run(&first, false, u64::MAX).0.unwrap();
    export(&first.run, &base, &recorded, &mut |_| {}).unwrap();
    let from = format!("model.from={}", base.display());
    let second = config(dir.path(), &["model.geometry=\"\"", &from]);
    assert_eq!(run(&second, false, 3).0.unwrap(), Outcome::Stopped);
    // Other weights of the same shapes in the same place.
    let weights = base.join("model.safetensors");
    let bytes = fs::read(&weights).unwrap();
    let mut other = bytes.clone();
    *other.last_mut().unwrap() ^= 1;
    fs::write(&weights, other).unwrap();
    let refused = run(&second, true, u64::MAX).0.unwrap_err().to_string();
    assert!(refused.starts_with("model.from is") && refused.contains("model.safetensors "), "{refused}");
    fs::write(&weights, bytes).unwrap();
    assert_eq!(run(&second, true, u64::MAX).0.unwrap(), Outcome::Finished);
    // Gone meanwhile, it is in the record all the same.
    let was = ModelRecord::read(&base).unwrap();
    fs::remove_dir_all(&base).unwrap();
    let out = dir.path().join("further");
    export(&second.run, &out, &recorded, &mut |_| {}).unwrap();
    let kept = ModelRecord::read(&out).unwrap().base.unwrap();
    assert_eq!((kept.model.name.as_str(), kept.model.seal.as_ref()), ("base", Some(&was.seal)));
    assert_eq!(*kept.record.unwrap(), was);
    let audit = audit_model(&out, None).unwrap();
    assert!(audit.findings.is_empty(), "{:?}", audit.findings);
    assert!(audit.base.unwrap().starts_with("base (BLAKE3 "));
}

#[test]
fn a_damaged_checkpoint_is_named_and_the_run_goes_on_from_the_one_before() {
    let dir = folder();
    let config = config(dir.path(), &[]);
    assert_eq!(run(&config, false, 9).0.unwrap(), Outcome::Stopped);
    let expected = metrics(&config.run);
    let damaged = config.run.join("checkpoints/step-00000009/tensors.safetensors");
    let mut bytes = fs::read(&damaged).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&damaged, bytes).unwrap();
    let (outcome, notes) = run(&config, true, u64::MAX);
    assert_eq!(outcome.unwrap(), Outcome::Finished);
    assert!(notes[0].contains("step-00000009") && notes[0].contains("step-00000008"), "{notes:?}");
    let all = metrics(&config.run);
    assert_eq!(all[..expected.len()], expected);
}

#[test]
fn a_run_goes_on_from_its_own_data_alone_wherever_they_lie() {
    let dir = folder();
    let at = |name: &str| dir.path().join(name);
    run(&config(dir.path(), &[]), false, 2).0.unwrap();
    let before = fs::read_to_string(at("run/config.toml")).unwrap();
    for (setting, parts) in [
        ("stream.context=32", ["stream.context is 32 now", "begun with 64"]),
        ("stream.weights.usc=2", ["stream.weights.usc is 2.0 now", "begun with none"]),
        ("model.seed=7", ["model.seed is 7 now", "begun with 1"]),
        ("averaging.decay=0.5", ["averaging.decay is 0.5 now", "begun with"]),
    ] {
        let message = run(&config(dir.path(), &[setting]), true, 1).0.unwrap_err().to_string();
        assert!(parts.iter().all(|part| message.contains(part)), "{setting}: {message}");
        assert_eq!(fs::read_to_string(at("run/config.toml")).unwrap(), before);
    }
    // A store that was made anew in the same place, from something else.
    let path = at("store/manifest.json");
    let manifest = fs::read_to_string(&path).unwrap();
    let root = TokenStore::open(&at("store")).unwrap().manifest().corpus.root.clone();
    fs::write(&path, manifest.replace(&root, &root.chars().rev().collect::<String>())).unwrap();
    let message = run(&config(dir.path(), &[]), true, 1).0.unwrap_err().to_string();
    assert!(message.contains("data.store is") && message.contains("other contents"), "{message}");
    // Made by another version of the program, it is the same.
    let generator = format!("\"generator\": \"{}\"", env!("CARGO_PKG_VERSION"));
    fs::write(&path, manifest.replace(&generator, "\"generator\": \"0\"")).unwrap();
    fs::rename(at("store"), at("moved")).unwrap();
    let moved = format!("data.store={}", at("moved").display());
    let free = [&moved, "threads=1", "checkpoints.keep=5", "evaluation.every=0", "samples.every=0"];
    let (outcome, notes) = run(&config(dir.path(), &free), true, 1);
    assert_eq!((outcome.unwrap(), notes), (Outcome::Stopped, vec![]));
    let (outcome, notes) = run(&config(dir.path(), &[&moved, "schedule.steps=14"]), true, u64::MAX);
    assert_eq!(outcome.unwrap(), Outcome::Finished);
    assert_eq!(notes, ["schedule.steps is 14 from now on; the run was begun with 12"]);
    assert!(at("run/checkpoints/step-00000014").is_dir() && at("run/curves.png").is_file());
}

#[test]
fn what_does_not_fit_is_refused_before_anything_is_written() {
    let dir = folder();
    let missing = dir.path().join("nothing").display().to_string();
    for (settings, part) in [
        (vec![format!("data.store={missing}")], "holds no token store"),
        (vec!["stream.weights.ucs=2".to_string()], "usc"),
        (vec![format!("model.geometry={missing}")], "kl3m-002-520m"),
        (vec!["stream.context=3".to_string()], "context"),
    ] {
        let config = config(dir.path(), &settings.iter().map(String::as_str).collect::<Vec<_>>());
        let message = run(&config, false, 1).0.unwrap_err().to_string();
        assert!(message.contains(part), "{message}");
        assert!(!config.run.exists());
    }
    let mut config = config(dir.path(), &[]);
    let (nothing, _) = run(&config, true, 1);
    assert!(matches!(nothing, Err(TrainError::NoRun(_))));
    run(&config, false, 1).0.unwrap();
    assert!(matches!(run(&config, false, 1).0, Err(TrainError::Exists(_))));
    // One that was ended before its configuration was written is begun anew.
    fs::remove_file(config.run.join("config.toml")).unwrap();
    fs::remove_dir_all(config.run.join("checkpoints")).unwrap();
    let left = |name: &str| ["dataset.json", "model.json", "tokenizer.json", ".lock"].contains(&name);
    for entry in fs::read_dir(&config.run).unwrap().flatten() {
        if !left(&entry.file_name().to_string_lossy()) {
            fs::remove_file(entry.path()).unwrap();
        }
    }
    fs::write(config.run.join("base.json"), "half").unwrap();
    assert_eq!(run(&config, false, 1).0.unwrap(), Outcome::Stopped);
    config.run = dir.path().join("store");
    assert!(matches!(run(&config, false, 1).0, Err(TrainError::Occupied(_))));
}

#[test]
fn a_loss_that_is_no_number_ends_the_run_and_its_batch_is_kept() {
    let dir = folder();
    let config = config(
        dir.path(),
        &[
            "schedule.peak=1e6",
            "schedule.warmup=0",
            "schedule.cooldown=0",
            "clip.norm=0",
            "clip.percentile=0",
        ],
    );
    let (outcome, _) = run(&config, false, u64::MAX);
    let Err(TrainError::NotFinite { step, kept, .. }) = outcome else { panic!("{outcome:?}") };
    let bytes = fs::read(kept.join("batch-0.safetensors")).unwrap();
    let batch = blackletter_model::decoder::Batch::from_safetensors(&bytes, 1 << 20).unwrap();
    assert!(step > 1 && batch.tokens() == 2 * 64);
}

#[test]
fn the_record_of_an_exported_model_leads_to_its_documents_and_passes_its_audit() {
    let dir = folder();
    let config = config(dir.path(), &["schedule.steps=20"]);
    run(&config, false, u64::MAX).0.unwrap();
    let (out, corpus) = (dir.path().join("model"), dir.path().join("corpus"));
    let identity = Identity { license: Some("CC-BY-4.0".into()), ..Identity::default() };
    let options = ExportOptions { corpus: Some(corpus), identity, ..plain() };
    export(&config.run, &out, &options, &mut |_| {}).unwrap();
    let audit = audit_model(&out, None).unwrap();
    assert!(audit.findings.is_empty(), "{:?}", audit.findings);
    let record = ModelRecord::read(&out).unwrap();
    let sft: u64 = record.supervised.iter().map(|s| s.tokens).sum();
    let last = metrics(&config.run).into_iter().rfind(|l| l["kind"] == "step").unwrap();
    assert_eq!(record.training.tokens + sft, last["tokens"].as_u64().unwrap());
    assert_eq!((record.training.steps, record.model.name.as_str()), (20, "model"));
    assert_eq!(record.training.recipe["data"]["store"], "store", "no places of this machine");
    // Held-out documents are in the list, and nothing of them was learned from.
    let list = consumed::read(&out.join("documents.parquet")).unwrap();
    assert!(list.iter().filter(|d| d.part == "heldout").all(|d| d.tokens == 0));
    assert!(list.iter().filter(|d| d.part == "train" && d.tokens > 0).count() > 30);
}
