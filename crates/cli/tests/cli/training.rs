//! `loss` and `bench train`.

use crate::support::{Ended, VOCAB, blackletter, model};
use blackletter_model::{Checkpoint, names};
use safetensors::{Dtype, serialize_to_file, tensor::TensorView};
use serde_json::Value;
use std::{fs, path::Path};
use tempfile::TempDir;

/// Two rows of eight tokens; the second one begins with padding.
fn write_batch(path: &Path, label: i64) {
    let ids: Vec<i64> = (0..16).map(|i| if (8..10).contains(&i) { 2 } else { (i * 7 % 90) + 40 }).collect();
    let mask: Vec<i64> = (0..16).map(|i| i64::from(!(8..10).contains(&i))).collect();
    let labels: Vec<i64> = ids.iter().zip(&mask).map(|(&id, &m)| if m == 0 { label } else { id }).collect();
    let bytes = |values: &[i64]| values.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
    let all =
        [("padded_input_ids", bytes(&ids)), ("attention_mask", bytes(&mask)), ("labels", bytes(&labels))];
    let views = all.iter().map(|(name, b)| (*name, TensorView::new(Dtype::I64, vec![2, 8], b).unwrap()));
    serialize_to_file(views, None, path).unwrap();
}

fn json(ended: &Ended) -> Value {
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    serde_json::from_str(&ended.stdout).unwrap()
}

#[test]
fn the_loss_of_a_stored_batch_and_the_gradients_of_all_weights_come_out() {
    let (model, dir) = (model(64), TempDir::new().unwrap());
    let (batch, gradients) = (dir.path().join("b.safetensors"), dir.path().join("g.safetensors"));
    write_batch(&batch, -100);
    let run = |more: &[&Path]| {
        let mut command = blackletter();
        command.args(["loss", "--model"]).arg(model.path()).arg("--batch").arg(&batch);
        if let [path] = more {
            command.arg("--gradients").arg(path);
        }
        Ended::from(command.output().unwrap())
    };
    let report = json(&run(&[&gradients]));
    // Random weights know nothing: each of the tokens is about as likely.
    let expected = (VOCAB as f64).ln();
    assert!((report["cross_entropy"].as_f64().unwrap() - expected).abs() < 0.5, "{report}");
    assert_eq!(report["targets"], 7 + 6);
    let whole = report["cross_entropy"].as_f64().unwrap()
        + report["aux_coefficient"].as_f64().unwrap() * report["aux_loss"].as_f64().unwrap();
    assert!((report["loss"].as_f64().unwrap() - whole).abs() < 1e-12);
    assert_eq!(report, json(&run(&[])));
    let bytes = fs::read(&gradients).unwrap();
    let written = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let config = Checkpoint::open(model.path()).unwrap().config;
    for expected in names::expected(&config) {
        let tensor = written.tensor(&expected.name).unwrap();
        assert_eq!((tensor.dtype(), tensor.shape()), (Dtype::F32, expected.shape.as_slice()));
    }
}

#[test]
fn a_batch_that_cannot_be_used_is_refused_by_name() {
    let (model, dir) = (model(64), TempDir::new().unwrap());
    let batch = dir.path().join("b.safetensors");
    write_batch(&batch, 5000);
    let mut command = blackletter();
    command.args(["loss", "--model"]).arg(model.path()).arg("--batch").arg(&batch);
    let ended = Ended::from(command.output().unwrap());
    assert_eq!(ended.code, 1);
    assert!(ended.stderr.contains("labels") && ended.stderr.contains("5000"), "{}", ended.stderr);
}

#[test]
fn bench_train_reports_speed_memory_and_losses_that_threads_do_not_change() {
    let model = model(64);
    let run = |threads: &str| {
        let mut command = blackletter();
        command.args(["bench", "train", "--batch", "2", "--seq", "16", "--steps", "2", "--threads", threads]);
        json(&command.arg("--geometry").arg(model.path().join("config.json")).output().unwrap().into())
    };
    let report = run("2");
    for key in ["tokens_per_s", "mfu", "peak_memory_bytes", "gemm_gflops"] {
        assert!(report[key].as_f64().is_some_and(|x| x > 0.0), "{key}: {report}");
    }
    assert_eq!(report["losses"].as_array().unwrap().len(), 3);
    assert_eq!(report["losses"], run("1")["losses"]);
    let ended: Ended =
        blackletter().args(["bench", "train", "--geometry", "no-such"]).output().unwrap().into();
    assert_eq!(ended.code, 1);
    assert!(ended.stderr.contains("kl3m-002-520m"), "{}", ended.stderr);
}
