//! The decoder against transformers: loss, load-balancing loss and every gradient; fused bodies against plain ones.
//!
//! The checkpoints in `goldens/` come from `scripts/make_gradient_goldens.py`. The reference checkpoint beside the
//! repository is tried too when it is there.

#![cfg(feature = "burn")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[cfg(any(feature = "wgpu", feature = "cuda"))]
use blackletter_model::decoder::Place;
use blackletter_model::{
    Checkpoint, Dtype, MixtralConfig,
    decoder::{AdamW, Batch, Bodies, Decoder, Device, IGNORED, Loss, LossOptions, adamw},
};
use burn::tensor::{Tensor, TensorData};
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
    load_on(&Device::flex(), dir, bodies)
}

fn load_on(device: &Device, dir: &Path, bodies: Bodies) -> Decoder {
    let device = device.clone().autodiff();
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
    check_on(&Device::flex(), dir, batch_file, gradient_file, bodies, recompute);
}

fn check_on(
    device: &Device,
    dir: &Path,
    batch_file: &str,
    gradient_file: &str,
    bodies: Bodies,
    recompute: bool,
) {
    let golden: Value = serde_json::from_slice(&fs::read(dir.join("golden.json")).unwrap()).unwrap();
    let decoder = load_on(device, dir, bodies);
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

/// On a GPU, or on a processor that stands for one by software Vulkan: `scripts/check_gpu.sh`.
#[cfg(feature = "wgpu")]
#[test]
fn a_gpu_gives_the_losses_and_gradients_of_transformers() {
    let device = Place::Wgpu.open().unwrap();
    for name in CASES {
        let files = ["batch.safetensors", "gradients.safetensors"];
        check_on(&device, &goldens(name), files[0], files[1], Bodies::Plain, false);
    }
}

/// On an NVIDIA card: `scripts/check_gpu.sh`. Burn's products have 10 bits of each factor there (TF32), so that this is looser.
#[cfg(feature = "cuda")]
#[test]
fn an_nvidia_gpu_gives_the_losses_and_gradients_of_transformers() {
    let device = Place::Cuda.open().unwrap();
    // Of tokens between two experts, a last bit decides: how many went elsewhere than on the processor.
    let (mut worst, mut sure) = ([0.0f64; 2], 0);
    for name in CASES {
        let dir = goldens(name);
        let golden: Value = serde_json::from_slice(&fs::read(dir.join("golden.json")).unwrap()).unwrap();
        let decoder = load_on(&device, &dir, Bodies::Plain);
        let batch = batch(&dir.join("batch.safetensors"), &decoder);
        let (here, there) = (load(&dir, Bodies::Fused).routing(&batch), decoder.routing(&batch));
        let pairs = here.iter().flatten().zip(there.iter().flatten());
        let strayed: usize = pairs.map(|(a, b)| b.iter().filter(|t| !a.contains(t)).count()).sum();
        let loss = decoder.loss(&batch, &LossOptions::of(decoder.config()));
        let expected = golden["cross_entropy"].as_f64().unwrap();
        let of_loss = (loss.cross_entropy - expected).abs() / expected;
        let found = gradients(&decoder, &loss);
        let file = fs::read(dir.join("gradients.safetensors")).unwrap();
        let mut of_gradients = 0.0f64;
        for (tensor, expected) in SafeTensors::deserialize(&file).unwrap().iter() {
            let expected = floats(expected.data());
            let largest = expected.iter().fold(1e-6f32, |a, b| a.max(b.abs()));
            let differ = |(a, b): (&f32, &f32)| f64::from((a - b).abs() / largest);
            let differ = found[tensor].iter().zip(&expected).map(differ).fold(0.0, f64::max);
            assert!(differ.is_finite(), "{name} {tensor}");
            of_gradients = of_gradients.max(differ);
        }
        println!(
            "{name}: loss differs by {of_loss:.1e} of it, gradients by {of_gradients:.1e} of the largest; \
             {strayed} tokens went to another expert"
        );
        assert!(of_loss < 1e-3 && strayed <= 2, "{name}");
        if strayed == 0 {
            sure += 1;
            worst = [worst[0].max(of_loss), worst[1].max(of_gradients)];
        }
    }
    assert!(sure >= 4 && worst[0] < 2e-4 && worst[1] < 3e-2, "{sure} {worst:?}");
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

/// Two segments in one row of 30 with padding behind, and the same as two rows.
fn packed(vocab: usize) -> [Batch; 2] {
    let ids: Vec<u32> = (0..30u32).map(|i| (i * i + 5 * i + 3) % vocab as u32).collect();
    let target = |i: usize, end: usize| if i + 1 < end { i64::from(ids[i + 1]) } else { IGNORED };
    let targets: Vec<i64> = (0..30).map(|i| if i < 12 { target(i, 12) } else { target(i, 26) }).collect();
    let positions: Vec<u32> = (0..30).map(|i| if i < 12 { i } else { i - 12 }).collect();
    let segments: Vec<u32> =
        (0..30).map(|i| [1, 2, 0][usize::from(i >= 12) + usize::from(i >= 26)]).collect();
    let one = Batch::new(30, ids.clone(), positions, segments, targets.clone(), vocab).unwrap();
    let row = |range: std::ops::Range<usize>| {
        let pad = 14 - range.len();
        let mut ids = ids[range.clone()].to_vec();
        let mut segments = vec![1; range.len()];
        let mut targets = targets[range].to_vec();
        ids.extend(vec![2; pad]);
        segments.extend(vec![0; pad]);
        targets.extend(vec![IGNORED; pad]);
        (ids, segments, targets)
    };
    let (a, b) = (row(0..12), row(12..26));
    let positions = (0..14).chain(0..14).collect();
    let two = Batch::new(14, [a.0, b.0].concat(), positions, [a.1, b.1].concat(), [a.2, b.2].concat(), vocab);
    [one, two.unwrap()]
}

#[test]
fn packed_segments_train_as_if_each_had_a_row_of_its_own() {
    for bodies in [Bodies::Fused, Bodies::Plain] {
        let decoder = load(&goldens("gqa-window"), bodies);
        let options = LossOptions { z_coefficient: 1e-2, ..LossOptions::of(decoder.config()) };
        let [one, two] = packed(decoder.config().vocab_size).map(|batch| {
            let loss = decoder.loss(&batch, &options);
            (loss.cross_entropy, loss.z_loss, loss.aux_loss, gradients(&decoder, &loss))
        });
        near(one.0, two.0, "cross-entropy");
        near(one.1, two.1, "z-loss");
        near(one.2, two.2, "load-balancing loss");
        for (name, gradient) in &one.3 {
            close(gradient, &two.3[name], name);
        }
    }
}

#[test]
fn fused_and_plain_bodies_agree_on_packed_rows_with_z_loss() {
    let [fused, plain] = [Bodies::Fused, Bodies::Plain].map(|bodies| {
        let decoder = load(&goldens("top-3"), bodies);
        let options =
            LossOptions { z_coefficient: 0.1, scale: Some(0.25), ..LossOptions::of(decoder.config()) };
        let loss = decoder.loss(&packed(decoder.config().vocab_size)[0], &options);
        (loss.cross_entropy, loss.z_loss, gradients(&decoder, &loss))
    });
    near(fused.0, plain.0, "cross-entropy");
    near(fused.1, plain.1, "z-loss");
    assert!(fused.1 > 0.0);
    for (name, gradient) in &fused.2 {
        close(gradient, &plain.2[name], name);
    }
}

#[test]
fn the_same_step_gives_the_same_bits() {
    let decoder = load(&goldens("gqa-window"), Bodies::Fused);
    let batch = batch(&goldens("gqa-window").join("batch.safetensors"), &decoder);
    let run = || gradients(&decoder, &decoder.loss(&batch, &LossOptions::of(decoder.config())));
    assert_eq!(run(), run());
}

#[test]
fn a_decoder_that_was_written_is_read_back() {
    for name in ["gqa-window", "tied"] {
        let decoder = load(&goldens(name), Bodies::Fused);
        let dir = tempfile::TempDir::new().unwrap();
        decoder.write(dir.path(), Dtype::F32, 20_000).unwrap();
        let (before, after) =
            (Checkpoint::open(&goldens(name)).unwrap(), Checkpoint::open(dir.path()).unwrap());
        assert_eq!(before.config, after.config);
        assert!(after.files().len() > 1);
        for name in before.names() {
            assert_eq!(before.tensor(name).unwrap().to_f32(), after.tensor(name).unwrap().to_f32(), "{name}");
        }
    }
}

#[test]
fn steps_of_adamw_lower_the_loss() {
    let config = MixtralConfig {
        vocab_size: 61,
        hidden_size: 16,
        intermediate_size: 20,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: 8,
        ..MixtralConfig::geometry("kl3m-002-520m").unwrap()
    };
    let mut decoder = Decoder::random(&config, 3, 0.1, &Device::flex().autodiff());
    let batch = packed(61)[0].clone();
    let options = LossOptions::of(&config);
    let mut state: Vec<[Tensor<2>; 2]> = decoder
        .parameters()
        .iter()
        .map(|p| [(); 2].map(|()| Tensor::zeros(p.tensor.dims(), &Device::flex())))
        .collect();
    let first = decoder.loss(&batch, &options).cross_entropy;
    for step in 1..=20 {
        let gradients = decoder.loss(&batch, &options).total.backward();
        let rule = AdamW {
            rate: 0.01,
            beta1: 0.9,
            beta2: 0.95,
            epsilon: 1e-8,
            decay: 0.1,
            gradient_scale: 1.0,
            step,
        };
        for (parameter, state) in decoder.parameters_mut().into_iter().zip(&mut state) {
            let gradient = parameter.tensor.grad(&gradients).unwrap();
            let [mean, square] = state.clone();
            let old = parameter.tensor.clone().inner();
            let [new, mean, square] = adamw(&rule, old, gradient, mean, square);
            *state = [mean, square];
            *parameter.tensor = new.autodiff().require_grad();
        }
    }
    let last = decoder.loss(&batch, &options).cross_entropy;
    assert!(last < 0.5 * first, "{first} → {last}");
}

#[test]
fn one_step_of_adamw_is_that_of_its_formula() {
    let device = Device::flex();
    let make = |values: [f32; 2]| Tensor::<2>::from_data(TensorData::new(values.to_vec(), [1, 2]), &device);
    let rule =
        AdamW { rate: 0.1, beta1: 0.9, beta2: 0.99, epsilon: 1e-8, decay: 0.5, gradient_scale: 2.0, step: 1 };
    let held = make([1.0, -1.0]);
    let [p, m, v] = adamw(&rule, held.clone(), make([0.5, -0.5]), make([0.0; 2]), make([0.0; 2]));
    let values = |t: Tensor<2>| t.into_data().iter::<f32>().collect::<Vec<f32>>();
    close(&values(p), &[0.85, -0.85], "parameter");
    close(&values(m), &[0.1, -0.1], "mean");
    close(&values(v), &[0.01, 0.01], "mean square");
    // A tensor that somebody else holds is not changed under them.
    assert_eq!(values(held), [1.0, -1.0]);
}
