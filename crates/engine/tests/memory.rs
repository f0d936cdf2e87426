//! How much memory a model takes: one test in a process of its own, since the system counts processes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use blackletter_engine::{Engine, LoadOptions, Runner, WeightDtype};
use blackletter_model::{Dtype, MixtralConfig, random_checkpoint};
use std::fs;

/// Beside its weights, the 520M geometry may take 200 MB; this model is narrower and gets less.
const BESIDE_WEIGHTS: u64 = 64 << 20;

/// 46 million parameters, 184 MB as stored: a copy too many of anything large is over the limit.
fn config() -> MixtralConfig {
    MixtralConfig {
        vocab_size: 4096,
        hidden_size: 512,
        intermediate_size: 1024,
        num_hidden_layers: 6,
        num_attention_heads: 8,
        num_key_value_heads: 4,
        head_dim: 64,
        num_local_experts: 4,
        num_experts_per_tok: 2,
        ..MixtralConfig::geometry("kl3m-002-520m").unwrap()
    }
}

/// The process's largest resident set so far, in bytes, where the system tells.
fn peak() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().trim_end_matches(" kB").parse::<u64>().ok().map(|kib| kib * 1024)
}

#[test]
fn memory_is_that_of_the_weights_in_their_form_and_little_more() {
    if peak().is_none() {
        println!("skipped: this system does not tell a process's memory");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    random_checkpoint(dir.path(), &config(), Dtype::F32, 1).unwrap();
    // The peak never falls: small forms first.
    for dtype in [WeightDtype::Q4, WeightDtype::Q8, WeightDtype::Bf16, WeightDtype::F32] {
        let engine = Engine::load(dir.path(), &LoadOptions { dtype: Some(dtype), threads: Some(2) }).unwrap();
        let mut runner = Runner::new(&engine);
        let mut sequence = runner.start();
        // Each token goes to experts of its own, so that all weights are read; then tokens to the end of the context.
        let prompt: Vec<u32> = (0..1000).map(|i| 7 + i * 4 % 4000).collect();
        runner.prefill(&mut sequence, &prompt).unwrap();
        for id in 0..20 {
            runner.decode(&mut [&mut sequence], &[id]).unwrap();
        }
        let (peak, weights) = (peak().unwrap(), engine.weights().bytes());
        assert!(peak < weights + BESIDE_WEIGHTS, "{dtype}: {peak} bytes with weights of {weights}");
        println!("{dtype}: {} MB beside {} MB of weights", (peak - weights.min(peak)) >> 20, weights >> 20);
    }
}
