//! The decoder against transformers: loss, load-balancing loss and every gradient; fused bodies against plain ones.
//!
//! The checkpoints in `goldens/` come from `scripts/make_gradient_goldens.py`. The reference checkpoint beside the
//! repository is tried too when it is there.

#![cfg(feature = "burn")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use blackletter_model::{
    Checkpoint,
    decoder::{Batch, Bodies, Decoder, Loss, LossOptions},
};
use burn::tensor::Device;
use safetensors::SafeTensors;
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

const CASES: [&str; 6] = ["gqa-window", "no-window", "top-1", "top-3", "tied", "odd-sizes"];

fn goldens(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/goldens").join(name)
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

fn load(dir: &Path, bodies: Bodies) -> Decoder {
    let device = Device::flex().autodiff();
    Decoder::from_checkpoint(&Checkpoint::open(dir).unwrap(), &device).unwrap().with_bodies(bodies)
}

fn batch(path: &Path, decoder: &Decoder) -> Batch {
    Batch::from_safetensors(&fs::read(path).unwrap(), decoder.config().vocab_size).unwrap()
}

type Gradients = BTreeMap<String, Vec<f32>>;

fn gradients(decoder: &Decoder, loss: &Loss) -> Gradients {
    let gradients = loss.total.backward();
    let tensors = decoder.gradient_tensors(&gradients).into_iter();
    tensors.map(|t| (t.name, floats(&(t.bytes)()))).collect()
}

/// Equal to 1e-4 of the tensor's largest number: both sides are f32, and small numbers are differences of large ones.
fn close(found: &[f32], expected: &[f32], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let largest = expected.iter().fold(1e-6f32, |m, x| m.max(x.abs()));
    for (i, (a, b)) in found.iter().zip(expected).enumerate() {
        assert!((a - b).abs() <= 1e-4 * largest, "{what}[{i}]: {a}, expected {b} (largest {largest})");
    }
}

fn near(found: f64, expected: f64, what: &str) {
    assert!(
        (found - expected).abs() <= 1e-5 * expected.abs().max(1e-3),
        "{what}: {found}, expected {expected}"
    );
}

fn check(dir: &Path, batch_file: &str, gradient_file: &str, bodies: Bodies, recompute: bool) {
    let golden: Value = serde_json::from_slice(&fs::read(dir.join("golden.json")).unwrap()).unwrap();
    let decoder = load(dir, bodies);
    let batch = batch(&dir.join(batch_file), &decoder);
    let options = LossOptions { recompute, ..LossOptions::of(decoder.config()) };
    let loss = decoder.loss(&batch, &options);
    let total: f64 = loss.total.clone().into_scalar::<f64>();
    near(loss.cross_entropy, golden["cross_entropy"].as_f64().unwrap(), "cross-entropy");
    near(loss.aux_loss, golden["aux_loss"].as_f64().unwrap(), "load-balancing loss");
    near(total, golden["loss"].as_f64().unwrap(), "loss");
    let found = gradients(&decoder, &loss);
    let file = fs::read(dir.join(gradient_file)).unwrap();
    let expected = SafeTensors::deserialize(&file).unwrap();
    let mut count = 0;
    for (name, tensor) in expected.iter() {
        close(&found[name], &floats(tensor.data()), &format!("{} {name}", dir.display()));
        count += 1;
    }
    assert_eq!(count, found.len());
}

#[test]
fn losses_and_gradients_are_those_of_transformers() {
    for name in CASES {
        check(&goldens(name), "batch.safetensors", "gradients.safetensors", Bodies::Fused, false);
    }
}

#[test]
fn plain_bodies_have_the_same_losses_and_gradients() {
    for name in CASES {
        check(&goldens(name), "batch.safetensors", "gradients.safetensors", Bodies::Plain, false);
    }
}

#[test]
fn recomputing_activations_changes_no_gradient() {
    let dir = goldens("gqa-window");
    let decoder = load(&dir, Bodies::Fused);
    let batch = batch(&dir.join("batch.safetensors"), &decoder);
    let run = |recompute| {
        let options = LossOptions { recompute, ..LossOptions::of(decoder.config()) };
        gradients(&decoder, &decoder.loss(&batch, &options))
    };
    assert_eq!(run(false), run(true));
}

#[test]
fn the_reference_checkpoint_has_the_gradients_of_transformers() {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/reference/mixtral-tiny");
    if !dir.is_dir() {
        println!("skipped: the reference checkpoint is not beside the repository");
        return;
    }
    for bodies in [Bodies::Fused, Bodies::Plain] {
        check(&dir, "golden.safetensors", "golden_grads.safetensors", bodies, false);
    }
}
