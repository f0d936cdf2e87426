//! The engine against transformers: logits, log-probabilities, padded batches and greedy ids.
//!
//! The checkpoints in `goldens/` and what transformers makes of them come from `scripts/make_goldens.py`. The reference
//! checkpoints beside the repository are tried too when they are there.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::type_complexity)]

use blackletter_engine::{
    Engine, GenerationOptions, LoadOptions, Runner, WeightDtype, generate, sampling::SamplingOptions, score,
};
use blackletter_tokenizer::{SpecialTokens, Tokenizer};
use safetensors::SafeTensors;
use serde_json::Value;
use std::{
    fs,
    ops::ControlFlow,
    path::{Path, PathBuf},
};

fn goldens() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/goldens")
}

fn reference(name: &str) -> Option<PathBuf> {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/reference").join(name);
    if dir.is_dir() {
        return Some(dir);
    }
    println!("skipped: the reference checkpoint {name} is not beside the repository");
    None
}

fn json(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|x| x.as_u64().unwrap() as u32).collect()
}

fn load(dir: &Path) -> Engine {
    Engine::load(dir, &LoadOptions::default()).unwrap()
}

fn greedy(engine: &Engine, prompt: &[u32], max_new_tokens: usize, eos: Vec<u32>) -> Vec<u32> {
    let options = GenerationOptions {
        max_new_tokens,
        num_return_sequences: 1,
        sampling: SamplingOptions { greedy: true, ..SamplingOptions::default() },
        seed: 0,
        stop: vec![],
        eos_token_id: eos,
    };
    generate(engine, None, prompt, &options, &mut |_, _| ControlFlow::Continue(())).unwrap().remove(0).ids
}

/// Equal to 1e-4 of the largest value of the row: both sides are f32, and values near zero are differences of large ones.
fn close(found: &[f32], expected: &[f32], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let largest = expected.iter().fold(1.0f32, |m, x| m.max(x.abs()));
    for (a, b) in found.iter().zip(expected) {
        assert!((a - b).abs() <= 1e-4 * largest, "{what}: {a}, transformers has {b} (largest {largest})");
    }
}

struct Golden {
    file: Vec<u8>,
}

impl Golden {
    fn open(dir: &Path) -> Self {
        Self { file: fs::read(dir.join("golden.safetensors")).unwrap() }
    }

    fn has(&self, name: &str) -> bool {
        SafeTensors::deserialize(&self.file).unwrap().tensor(name).is_ok()
    }

    fn floats(&self, name: &str) -> Vec<f32> {
        let tensors = SafeTensors::deserialize(&self.file).unwrap();
        let data = tensors.tensor(name).unwrap().data().to_vec();
        data.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
    }

    /// Rows of ids, and their length.
    fn ids(&self, name: &str) -> (Vec<u32>, usize) {
        let tensors = SafeTensors::deserialize(&self.file).unwrap();
        let tensor = tensors.tensor(name).unwrap();
        let ids = tensor.data().chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap()) as u32);
        (ids.collect(), tensor.shape()[1])
    }
}

fn check_logits(engine: &Engine, row: &[u32], expected: &[f32], what: &str) {
    let vocab = engine.config().vocab_size;
    let mut runner = Runner::new(engine);
    let mut sequence = runner.start();
    let mut count = 0;
    runner
        .prefill_all(&mut sequence, row, |i, logits| {
            count += 1;
            close(logits, &expected[i * vocab..(i + 1) * vocab], what);
        })
        .unwrap();
    assert_eq!(count, row.len());
    runner.finish(sequence);
    // The same tokens one by one, as if they had been generated.
    let mut sequence = runner.start();
    runner.prefill(&mut sequence, &row[..1]).unwrap();
    for (i, &id) in row.iter().enumerate().skip(1) {
        runner.decode(&mut [&mut sequence], &[id]).unwrap();
        close(runner.logits_mut(0), &expected[i * vocab..(i + 1) * vocab], &format!("{what} of a step"));
    }
}

fn check(dir: &Path) {
    let name = dir.file_name().unwrap().to_string_lossy().into_owned();
    let engine = load(dir);
    let golden = Golden::open(dir);
    let (rows, len) = golden.ids("input_ids");
    let (logits, log_probabilities) = (golden.floats("logits"), golden.floats("token_logprobs"));
    let vocab = engine.config().vocab_size;
    for (i, row) in rows.chunks_exact(len).enumerate() {
        check_logits(
            &engine,
            row,
            &logits[i * len * vocab..(i + 1) * len * vocab],
            &format!("{name}: logit"),
        );
        let scored = score(&engine, row).unwrap();
        close(
            &scored,
            &log_probabilities[i * (len - 1)..(i + 1) * (len - 1)],
            &format!("{name}: log-probability"),
        );
    }
    if golden.has("padded_input_ids") {
        // Left padding is hidden from attention and shifts positions, which rotary attention sees only the differences of.
        let (rows, len) = golden.ids("padded_input_ids");
        let (mask, _) = golden.ids("attention_mask");
        let logits = golden.floats("padded_logits");
        for (i, row) in rows.chunks_exact(len).enumerate() {
            let pads = mask[i * len..(i + 1) * len].iter().filter(|&&m| m == 0).count();
            let expected = &logits[(i * len + pads) * vocab..(i + 1) * len * vocab];
            check_logits(&engine, &row[pads..], expected, &format!("{name}: padded logit"));
        }
    }
    let golden = json(&dir.join("golden.json"));
    let (prompt, all) = (ids(&golden["greedy_prompt"]), ids(&golden["greedy_ids"]));
    let found = greedy(&engine, &prompt, all.len() - prompt.len(), vec![]);
    assert_eq!(found, all[prompt.len()..], "{name}: greedy ids");
}

#[test]
fn checkpoints_of_many_shapes_give_what_transformers_gives() {
    let mut names = Vec::new();
    for entry in fs::read_dir(goldens()).unwrap() {
        let dir = entry.unwrap().path();
        if dir.is_dir() {
            check(&dir);
            names.push(dir.file_name().unwrap().to_string_lossy().into_owned());
        }
    }
    names.sort();
    let expected =
        ["bf16-sharded", "eight-experts", "f16-odd-sizes", "gqa-window", "no-window", "one-expert", "tied"];
    assert_eq!(names, expected);
}

#[test]
fn the_reference_checkpoint_gives_what_transformers_gives() {
    if let Some(dir) = reference("mixtral-tiny") {
        check(&dir);
    }
}

#[test]
fn a_real_checkpoint_continues_and_scores_as_transformers_does() {
    let Some(dir) = reference("legal-small") else { return };
    let (engine, tokenizer) = (load(&dir), Tokenizer::load(&dir).unwrap());
    let golden = json(&dir.join("golden.json"));
    for case in golden["greedy"].as_array().unwrap() {
        let (text, prompt, all) =
            (case["prompt"].as_str().unwrap(), ids(&case["prompt_ids"]), ids(&case["greedy_ids"]));
        assert_eq!(tokenizer.encode(text, SpecialTokens::AsText).unwrap(), prompt);
        let found = greedy(&engine, &prompt, 64, vec![1]);
        assert_eq!(found, all[prompt.len()..], "{text}");
        let expected = case["greedy_text"].as_str().unwrap();
        assert_eq!(format!("{text}{}", tokenizer.decode(&found, true)), expected);
    }
    let case = &golden["score"];
    let found = score(&engine, &ids(&case["ids"])).unwrap();
    let key = case.as_object().unwrap().keys().find(|k| k.contains("logprob")).unwrap();
    let expected: Vec<f32> =
        case[key].as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect();
    close(&found, &expected, "log-probability");
}

/// Nats per token of a text under a model.
fn loss(dir: &Path, dtype: WeightDtype, ids: &[u32]) -> f64 {
    let engine = Engine::load(dir, &LoadOptions { dtype: Some(dtype), threads: None }).unwrap();
    let scored = score(&engine, ids).unwrap();
    -scored.iter().map(|&x| f64::from(x)).sum::<f64>() / scored.len() as f64
}

#[test]
fn narrower_weights_cost_little_on_a_real_checkpoint() {
    let Some(dir) = reference("legal-small") else { return };
    let case = json(&dir.join("golden.json"))["score"].clone();
    let ids = ids(&case["ids"]);
    let exact = loss(&dir, WeightDtype::F32, &ids);
    for (dtype, most) in [(WeightDtype::Bf16, 0.01), (WeightDtype::Q8, 0.01), (WeightDtype::Q4, 0.06)] {
        let found = loss(&dir, dtype, &ids);
        assert!((found / exact - 1.0).abs() < most, "{dtype}: {found} nats, f32 has {exact}");
    }
}
