//! Times whole training steps (loss, gradients, clipping, AdamW) of a random decoder on random tokens.
//!
//! `cargo run --release -p blackletter-model --features burn --example train_step -- --vocab 4096 --steps 5`

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use blackletter_model::{
    MixtralConfig,
    decoder::{AdamW, Batch, Compute, Decoder, Device, LossOptions, adamw, sum_of_squares, take_profile},
};
use burn::tensor::Tensor;
use std::{env, fs, time::Instant};

fn option<T: std::str::FromStr>(name: &str, default: T) -> T {
    let mut args = env::args().skip_while(|a| a != name).skip(1);
    args.next().and_then(|a| a.parse().ok()).unwrap_or(default)
}

fn peak_gib() -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|l| l.starts_with("VmHWM")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|n| n.parse::<f64>().ok()).unwrap_or(0.0) / 1048576.0
}

fn main() {
    let big = MixtralConfig::geometry("kl3m-002-520m").unwrap();
    let mut config = match option("--geometry", "small".to_string()).as_str() {
        "520m" => big,
        _ => MixtralConfig {
            hidden_size: 256,
            intermediate_size: 512,
            num_hidden_layers: 6,
            num_attention_heads: 4,
            num_key_value_heads: 2,
            ..big
        },
    };
    config.vocab_size = option("--vocab", config.vocab_size);
    let (rows, len) = (option("--rows", 8), option("--len", 512usize));
    let steps = option("--steps", 5);
    let device = Device::flex().autodiff();
    let mut decoder = Decoder::random(&config, 1, 0.02, &device);
    let flag = |name: &str| env::args().any(|a| a == name);
    let options = LossOptions {
        recompute: flag("--recompute"),
        compute: if flag("--bf16") { Compute::Bf16 } else { Compute::F32 },
        ..LossOptions::of(&config)
    };
    let plain = Device::flex();
    let zeros = |t: &Tensor<2>| Tensor::<2>::zeros(t.dims(), &plain);
    let mut state: Vec<_> = decoder.parameters().iter().map(|p| (zeros(p.tensor), zeros(p.tensor))).collect();
    let mut seed = 1u64;
    let mut draw = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize
    };
    let mut times = Vec::new();
    for step in 1..=steps + 1 {
        let ids: Vec<u32> = (0..rows * len).map(|_| 3 + (draw() % (config.vocab_size - 3)) as u32).collect();
        let targets =
            ids.chunks(len).flat_map(|r| r[1..].iter().map(|&i| i64::from(i)).chain([-100])).collect();
        let positions = (0..rows).flat_map(|_| 0..len as u32).collect();
        let batch = Batch::new(len, ids, positions, vec![1; rows * len], targets, config.vocab_size).unwrap();
        let start = Instant::now();
        let loss = decoder.loss(&batch, &options);
        let forward = start.elapsed().as_secs_f64();
        let mut gradients = loss.total.backward();
        let backward = start.elapsed().as_secs_f64() - forward;
        let all: Vec<_> =
            decoder.parameters().iter().map(|p| p.tensor.grad_remove(&mut gradients).unwrap()).collect();
        drop(gradients);
        let norm = all.iter().map(sum_of_squares).sum::<f64>().sqrt();
        let rule = AdamW {
            rate: 3e-4,
            beta1: 0.9,
            beta2: 0.95,
            epsilon: 1e-8,
            decay: 0.1,
            gradient_scale: (1.0 / norm).min(1.0) as f32,
            step,
        };
        for ((p, g), (m, v)) in decoder.parameters_mut().into_iter().zip(all).zip(&mut state) {
            let empty = || Tensor::<2>::zeros([0, 0], &plain);
            let w = std::mem::replace(p.tensor, empty()).inner();
            let (mean, square) = (std::mem::replace(m, empty()), std::mem::replace(v, empty()));
            let [w, mean, square] = adamw(&rule, w, g, mean, square);
            (*p.tensor, *m, *v) = (Tensor::from_inner(w).require_grad(), mean, square);
        }
        let total = start.elapsed().as_secs_f64();
        println!(
            "step {step}: loss {:.4}, forward {forward:.3} s, backward {backward:.3}, optimiser {:.3}, {:.0} tokens/s",
            loss.cross_entropy,
            total - forward - backward,
            (rows * len) as f64 / total
        );
        let profile = take_profile();
        if step > 1 {
            times.push(total);
        }
        if step == steps + 1 && flag("--profile") {
            let mut rest = total;
            for b in profile {
                rest -= b.forward_seconds + b.backward_seconds;
                let rate = |flop: f64, s: f64| if s > 0.0 { flop / s / 1e9 } else { 0.0 };
                println!(
                    "{:>10}: forward {:.4} s ({:.0} GFLOP/s), backward {:.4} s ({:.0} GFLOP/s)",
                    b.block,
                    b.forward_seconds,
                    rate(b.forward_operations, b.forward_seconds),
                    b.backward_seconds,
                    rate(b.backward_operations, b.backward_seconds)
                );
            }
            println!("{:>10}: {rest:.4} s", "other");
        }
    }
    times.sort_by(f64::total_cmp);
    println!(
        "median {:.0} tokens/s, peak {:.2} GiB",
        (rows * len) as f64 / times[times.len() / 2],
        peak_gib()
    );
}
