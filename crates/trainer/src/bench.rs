//! Speed of training steps on this machine, beside its multiply-add rate: `blackletter bench train`.

use crate::{
    clip,
    config::{AdapterConfig, DtypeKind, OptimizerConfig, OptimizerKind},
    optimizer::Optimizer,
    step::GlobalGradient,
};
use blackletter_kernels::{Isa, Pool, gemm_rate};
use blackletter_model::{
    MixtralConfig,
    decoder::{
        Batch, BatchError, BlockTime, Decoder, DeviceError, LossOptions, Place, product_rate, take_profile,
        use_threads,
    },
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;
use std::{fs, thread, time::Instant};

/// What to measure.
#[derive(Clone, Copy, Debug)]
pub struct BenchOptions {
    /// Rows of a step.
    pub batch: usize,
    /// Tokens of a row.
    pub seq: usize,
    /// Steps that are measured; one more comes before them.
    pub steps: usize,
    /// Threads; `None` is one per core.
    pub threads: Option<usize>,
    /// Makes activations anew in the backward pass.
    pub recompute: bool,
    /// Of weights and tokens.
    pub seed: u64,
    /// How parameters are updated.
    pub optimizer: OptimizerKind,
    /// Arithmetic of matrix products.
    pub dtype: DtypeKind,
    /// Where tensors are.
    pub device: Place,
    /// Tells where the time goes.
    pub profile: bool,
}

/// Where the time of a step goes, for one kind of block.
#[derive(Clone, Debug, Serialize)]
pub struct BlockShare {
    /// `embedding`, `attention`, `router`, `experts`, `norm`, `head` (its gradients are made in the forward pass), `optimiser`,
    /// or `other`.
    pub block: String,
    /// Seconds of a step, forward.
    pub forward_s: f64,
    /// Seconds of a step, backward.
    pub backward_s: f64,
    /// Share of a step.
    pub share: f64,
    /// Products of the forward pass per second, as a share of the machine's rate.
    pub forward_mfu: f64,
    /// The same of the backward pass.
    pub backward_mfu: f64,
}

/// What came out.
#[derive(Clone, Debug, Serialize)]
pub struct BenchReport {
    /// Numbers in all weights.
    pub parameters: u64,
    /// Rows of a step.
    pub batch: usize,
    /// Tokens of a row.
    pub seq: usize,
    /// Arithmetic of products.
    pub dtype: DtypeKind,
    /// Where tensors were.
    pub device: Place,
    /// Instruction set, on a processor.
    pub simd: String,
    /// Threads.
    pub threads: usize,
    /// Median over the steps: forward, backward, clipping and update.
    pub tokens_per_s: f64,
    /// Floating-point operations of the products per second, as a share of `gemm_gflops`.
    pub mfu: f64,
    /// Rate of products on the device, measured in the same run, 10⁹ operations per second.
    pub gemm_gflops: f64,
    /// Most memory that the process held during the steps.
    pub peak_memory_bytes: u64,
    /// Seconds of each step.
    pub step_s: Vec<f64>,
    /// Seconds of forward and backward (median).
    pub gradient_s: f64,
    /// Seconds of clipping and update (median).
    pub update_s: f64,
    /// Loss of each step, the first one included, which is not timed.
    pub losses: Vec<f64>,
    /// Where the time goes, when it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile: Option<Vec<BlockShare>>,
}

/// A measurement cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The lengths make no batch.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// The device cannot be used.
    #[error(transparent)]
    Device(#[from] DeviceError),
}

/// Trains a model of random weights on random tokens.
///
/// # Errors
/// When the lengths make no batch, or the device cannot be used.
pub fn bench(config: &MixtralConfig, options: &BenchOptions) -> Result<BenchReport, BenchError> {
    let BenchOptions { batch, seq, steps, threads, recompute, seed, optimizer, dtype, device, profile } =
        *options;
    let place = device;
    let device = place.open()?;
    let threads = threads.unwrap_or_else(|| thread::available_parallelism().map_or(1, usize::from));
    use_threads(threads);
    let mut decoder = Decoder::random(config, seed, 0.02, &device.clone().autodiff());
    let rule = OptimizerConfig {
        name: optimizer,
        beta1: 0.9,
        beta2: 0.95,
        epsilon: 1e-8,
        weight_decay: 0.1,
        momentum: 0.95,
    };
    let mut optimizer = Optimizer::new(&decoder, &rule, &AdapterConfig::none(), dtype.compute(), seed);
    let loss_options = LossOptions { recompute, compute: dtype.compute(), ..LossOptions::of(config) };
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let (mut losses, mut step_s, mut gradient_s, mut update_s) = (vec![], vec![], vec![], vec![]);
    for step in 0..=steps {
        if step == 1 {
            // The first step warms up.
            take_profile();
        }
        let batch = random_batch(&mut random, config, batch, seq)?;
        let start = Instant::now();
        let gradient = GlobalGradient::of(&decoder, &[batch], &loss_options);
        let gradient_time = start.elapsed().as_secs_f64();
        losses.push(gradient.loss.total);
        let gradients = optimizer.trained(gradient.gradients);
        let scale = clip::scale(gradients.norm(), 1.0);
        optimizer.step(&mut decoder, gradients, step as u64 + 1, 3e-4, scale);
        let time = start.elapsed().as_secs_f64();
        if step > 0 {
            step_s.push(time);
            gradient_s.push(gradient_time);
            update_s.push(time - gradient_time);
        }
    }
    let peak_memory_bytes = peak_memory();
    let times = take_profile();
    let isa = Isa::from_env().unwrap_or_else(|_| Isa::best());
    let rate = match place {
        Place::Cpu => gemm_rate(&Pool::new(threads), isa, dtype.arithmetic(), 5),
        Place::Wgpu | Place::Cuda => product_rate(&device).unwrap_or(f64::NAN),
    };
    let tokens_per_s = (batch * seq) as f64 / median(&step_s);
    Ok(BenchReport {
        parameters: config.total_parameters(),
        batch,
        seq,
        dtype,
        device: place,
        simd: isa.to_string(),
        threads,
        tokens_per_s,
        mfu: flops_per_token(config) * tokens_per_s / rate,
        gemm_gflops: rate / 1e9,
        peak_memory_bytes,
        gradient_s: median(&gradient_s),
        update_s: median(&update_s),
        profile: profile.then(|| shares(&times, &step_s, rate)),
        step_s,
        losses,
    })
}

/// Times of all steps as shares of one.
fn shares(times: &[BlockTime], step_s: &[f64], rate: f64) -> Vec<BlockShare> {
    let (steps, whole) = (step_s.len().max(1) as f64, step_s.iter().sum::<f64>());
    let reached =
        |operations: f64, seconds: f64| if seconds > 0.0 { operations / seconds / rate } else { 0.0 };
    let share = |block: &str, forward: f64, backward: f64, mfu: [f64; 2]| BlockShare {
        block: block.into(),
        forward_s: forward / steps,
        backward_s: backward / steps,
        share: (forward + backward) / whole,
        forward_mfu: mfu[0],
        backward_mfu: mfu[1],
    };
    let known: f64 = times.iter().map(|t| t.forward_seconds + t.backward_seconds).sum();
    times
        .iter()
        .map(|t| {
            let forward = reached(t.forward_operations, t.forward_seconds);
            let backward = reached(t.backward_operations, t.backward_seconds);
            share(t.block, t.forward_seconds, t.backward_seconds, [forward, backward])
        })
        .chain([share("other", (whole - known).max(0.0), 0.0, [0.0; 2])])
        .collect()
}

/// Floating-point operations of the matrix products per token, forward and backward: 6 per weight that the token is
/// multiplied with. Attention's own products, which depend on the layout of rows, are not counted.
pub fn flops_per_token(config: &MixtralConfig) -> f64 {
    6.0 * config.active_parameters() as f64
}

/// Random tokens; each predicts the next one of its row.
fn random_batch(
    random: &mut ChaCha8Rng,
    config: &MixtralConfig,
    rows: usize,
    len: usize,
) -> Result<Batch, BatchError> {
    let vocabulary = config.vocab_size as u32;
    // Special tokens stand before the others.
    let first = if vocabulary > 3 { 3 } else { 0 };
    let ids: Vec<u32> = (0..rows * len).map(|_| random.random_range(first..vocabulary)).collect();
    let targets = ids
        .chunks(len.max(1))
        .flat_map(|row| {
            row.iter().skip(1).map(|&id| i64::from(id)).chain([blackletter_model::decoder::IGNORED])
        })
        .collect();
    let positions = (0..rows).flat_map(|_| 0..len as u32).collect();
    Batch::new(len, ids, positions, vec![1; rows * len], targets, config.vocab_size)
}

/// The most memory that this process has held.
pub fn peak_memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
