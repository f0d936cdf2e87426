//! Trains a checkpoint on stored tokens and prints the loss of each step, to be compared with another trainer's.
//!
//! `train_losses CHECKPOINT TOKENS ROWS LEN [--bf16] [--recompute] [--threads N]`: TOKENS are 32-bit ids, step after step of ROWS × LEN.
//! AdamW with rate 3e-4, betas 0.9 and 0.95, decay 0.1 for all weights; gradients are clipped to a norm of 1.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use blackletter_model::{
    Checkpoint,
    decoder::{
        AdamW, Batch, Compute, Decoder, Device, LossOptions, Tensor, adamw, sum_of_squares, use_threads,
    },
};
use std::{env, fs, mem, path::Path};

fn main() {
    let args: Vec<String> = env::args().skip(1).collect();
    let flag = |name: &str| args.iter().position(|a| a == name);
    if let Some(at) = flag("--threads") {
        use_threads(args[at + 1].parse().unwrap());
    }
    let [rows, len] = [2, 3].map(|i| args[i].parse::<usize>().unwrap());
    let checkpoint = Checkpoint::open(Path::new(&args[0])).unwrap();
    let mut decoder = Decoder::from_checkpoint(&checkpoint, &Device::flex().autodiff()).unwrap();
    let options = LossOptions {
        compute: if flag("--bf16").is_some() { Compute::Bf16 } else { Compute::F32 },
        recompute: flag("--recompute").is_some(),
        ..LossOptions::of(decoder.config())
    };
    let plain = Device::flex();
    let zeros = |t: &Tensor<2>| Tensor::<2>::zeros(t.dims(), &plain);
    let mut state: Vec<_> = decoder.parameters().iter().map(|p| (zeros(p.tensor), zeros(p.tensor))).collect();
    let bytes = fs::read(&args[1]).unwrap();
    let ids: Vec<u32> = bytes.as_chunks().0.iter().map(|b| u32::from_le_bytes(*b)).collect();
    for (step, ids) in ids.chunks_exact(rows * len).enumerate() {
        let targets =
            ids.chunks(len).flat_map(|r| r[1..].iter().map(|&id| i64::from(id)).chain([-100])).collect();
        let positions = (0..rows).flat_map(|_| 0..len as u32).collect();
        let segments = vec![1; ids.len()];
        let vocabulary = decoder.config().vocab_size;
        let batch = Batch::new(len, ids.to_vec(), positions, segments, targets, vocabulary).unwrap();
        let loss = decoder.loss(&batch, &options);
        println!("{}", loss.cross_entropy + options.aux_coefficient * loss.aux_loss);
        let mut gradients = loss.total.backward();
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
            gradient_scale: (1.0 / (norm + 1e-6)).min(1.0) as f32,
            step: step as u32 + 1,
        };
        for ((p, g), (m, v)) in decoder.parameters_mut().into_iter().zip(all).zip(&mut state) {
            let empty = || Tensor::<2>::zeros([0, 0], &plain);
            let w = mem::replace(p.tensor, empty()).inner();
            let (mean, square) = (mem::replace(m, empty()), mem::replace(v, empty()));
            let [w, mean, square] = adamw(&rule, w, g, mean, square);
            (*p.tensor, *m, *v) = (Tensor::from_inner(w).require_grad(), mean, square);
        }
    }
}
