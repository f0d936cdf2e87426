//! Speed of a model on this machine, beside what the machine can do: `blackletter bench generate`.

use crate::{Engine, EngineError, LoadOptions, ModelFiles, Runner};
use blackletter_kernels::{ReadCeiling, gemm_rate};
use serde::Serialize;
use std::{fs, time::Instant};

/// What to measure.
#[derive(Clone, Copy, Debug)]
pub struct MeasureOptions {
    /// Tokens of the prompt whose rate is measured.
    pub prompt: usize,
    /// Generated tokens per run.
    pub generate: usize,
    /// Tokens before the first generated one.
    pub depth: usize,
    /// Sequences generated together.
    pub batch: usize,
    /// Runs, of which medians are taken.
    pub runs: usize,
}

/// Medians, and the ceilings measured in the same run.
#[derive(Clone, Debug, Serialize)]
pub struct Measurement {
    /// The CPU's own name.
    pub cpu: String,
    /// Instruction set of the kernels.
    pub simd: String,
    /// Threads.
    pub threads: usize,
    /// Form of the weights that was asked for.
    pub dtype: String,
    /// Prompt tokens.
    pub prompt: usize,
    /// Tokens before the first generated one.
    pub depth: usize,
    /// Generated tokens per run.
    pub gen_tokens: usize,
    /// Sequences together.
    pub batch: usize,
    /// Runs.
    pub runs: usize,
    /// Prompt tokens per second.
    pub prefill_tokens_per_s: f64,
    /// Generated tokens per second of one sequence alone.
    pub decode_tokens_per_s: f64,
    /// Generated tokens per second of all sequences together; with `batch` 1 the same.
    pub batch_decode_tokens_per_s: f64,
    /// Seconds from opening the model to the first token after a 3-token prompt.
    pub first_token_s: f64,
    /// Most memory that the process held until the ceilings were measured.
    pub peak_memory_bytes: u64,
    /// Bytes of the weights.
    pub weight_bytes: u64,
    /// Bytes of weights that one generated token reads.
    pub bytes_per_token: u64,
    /// Read bandwidth of the machine, 10⁹ bytes per second.
    pub read_gb_per_s: f64,
    /// Multiply-add rate of the machine in the arithmetic of the prompt, 10⁹ operations per second.
    pub gemm_gflops: f64,
    /// Share of the read bandwidth that one sequence's decoding reached.
    pub decode_read_fraction: f64,
    /// Share of the read bandwidth that the batch's decoding reached, each distinct expert counted once a step.
    pub batch_read_fraction: f64,
    /// The batch's bytes per second beside those of one sequence: 1 is all that sharing weights allows.
    pub batch_of_single_fraction: f64,
    /// Share of the multiply-add rate that the prompt reached (integer products count like float ones).
    pub prefill_gemm_fraction: f64,
}

/// Loads a model and measures it.
///
/// # Errors
/// When it cannot be loaded, or the lengths do not fit its context.
pub fn measure(
    files: &ModelFiles,
    load: &LoadOptions,
    options: &MeasureOptions,
) -> Result<Measurement, EngineError> {
    let start = Instant::now();
    let engine = Engine::from_checkpoint(&files.checkpoint()?, load)?;
    let mut runner = Runner::new(&engine);
    let mut sequence = runner.start();
    runner.prefill(&mut sequence, &ids(&engine, 3, 0))?;
    let first_token_s = start.elapsed().as_secs_f64();
    runner.finish(sequence);

    let prompt = ids(&engine, options.prompt, 1);
    let mut runs = Runs::default();
    // The first run warms up, and shows how much memory it takes: then come the ceilings.
    one_run(&mut runner, options, &prompt)?;
    let peak_memory_bytes = peak_memory();
    let ceiling = ReadCeiling::new();
    for _ in 0..options.runs.max(1) {
        // Machines drift, by half when others use the same memory: each run has ceilings of its own.
        let before = ceiling.rate(engine.pool(), engine.isa(), 2);
        let run = one_run(&mut runner, options, &prompt)?;
        let read = (before + ceiling.rate(engine.pool(), engine.isa(), 2)) / 2.0;
        let gemm = gemm_rate(engine.pool(), engine.isa(), engine.arithmetic(), 1);
        runs.add(&engine, &prompt, &run, read, gemm);
    }
    let weights = engine.weights();
    let bytes_per_token = weights.bytes_per_token(engine.config().num_experts_per_tok);
    Ok(Measurement {
        cpu: cpu_name(),
        simd: engine.isa().to_string(),
        threads: engine.pool().threads(),
        dtype: load.dtype.map_or("stored".into(), |d| d.to_string()),
        prompt: options.prompt,
        depth: options.depth,
        gen_tokens: options.generate,
        batch: options.batch,
        runs: options.runs,
        prefill_tokens_per_s: median(runs.prefill),
        decode_tokens_per_s: median(runs.single),
        batch_decode_tokens_per_s: median(runs.batch),
        first_token_s,
        peak_memory_bytes,
        weight_bytes: weights.bytes(),
        bytes_per_token,
        read_gb_per_s: median(runs.read) / 1e9,
        gemm_gflops: median(runs.gemm) / 1e9,
        decode_read_fraction: median(runs.single_share),
        batch_read_fraction: median(runs.batch_share),
        batch_of_single_fraction: median(runs.batch_of_single),
        prefill_gemm_fraction: median(runs.prefill_share),
    })
}

/// What one run gave.
struct Run {
    /// Prompt tokens per second.
    prefill: f64,
    /// Tokens and bytes of weights per second of one sequence, and of all together.
    single: (f64, f64),
    batch: (f64, f64),
}

fn one_run(runner: &mut Runner<'_>, options: &MeasureOptions, prompt: &[u32]) -> Result<Run, EngineError> {
    let mut sequence = runner.start();
    let start = Instant::now();
    runner.prefill(&mut sequence, prompt)?;
    let prefill = prompt.len() as f64 / start.elapsed().as_secs_f64();
    runner.finish(sequence);
    let single = decode(runner, options, 1)?;
    let batch = if options.batch > 1 { decode(runner, options, options.batch)? } else { single };
    Ok(Run { prefill, single, batch })
}

/// The runs' rates and shares of the ceilings.
#[derive(Default)]
struct Runs {
    prefill: Vec<f64>,
    single: Vec<f64>,
    batch: Vec<f64>,
    read: Vec<f64>,
    gemm: Vec<f64>,
    single_share: Vec<f64>,
    batch_share: Vec<f64>,
    batch_of_single: Vec<f64>,
    prefill_share: Vec<f64>,
}

impl Runs {
    fn add(&mut self, engine: &Engine, prompt: &[u32], run: &Run, read: f64, gemm: f64) {
        let c = engine.config();
        let head = (c.vocab_size * c.hidden_size) as f64;
        let tokens = prompt.len() as f64;
        let flops = 2.0 * (c.active_parameters() as f64 - head) * tokens + 2.0 * head;
        self.prefill.push(run.prefill);
        self.single.push(run.single.0);
        self.batch.push(run.batch.0);
        self.read.push(read);
        self.gemm.push(gemm);
        self.single_share.push(run.single.1 / read);
        self.batch_share.push(run.batch.1 / read);
        self.batch_of_single.push(run.batch.1 / run.single.1);
        self.prefill_share.push(flops * run.prefill / tokens / gemm);
    }
}

/// Tokens per second of `batch` sequences stepped together, and bytes of weights per second.
fn decode(
    runner: &mut Runner<'_>,
    options: &MeasureOptions,
    batch: usize,
) -> Result<(f64, f64), EngineError> {
    let engine = runner.engine();
    let mut first = runner.start();
    runner.prefill(&mut first, &ids(engine, options.depth.max(1), 2))?;
    let mut sequences: Vec<_> = (0..batch).map(|_| runner.fork(&first)).collect();
    runner.finish(first);
    // Random tokens, other ones for each sequence: a random model's own choices say nothing about experts.
    let tokens: Vec<Vec<u32>> = (0..batch).map(|i| ids(engine, options.generate, 3 + i as u64)).collect();
    let mut bytes = 0.0;
    let mut step = Vec::with_capacity(batch);
    let start = Instant::now();
    for i in 0..options.generate {
        step.clear();
        step.extend(tokens.iter().map(|t| t[i]));
        let mut active: Vec<_> = sequences.iter_mut().collect();
        runner.decode(&mut active, &step)?;
        bytes += runner.last_step_bytes() as f64;
    }
    let seconds = start.elapsed().as_secs_f64();
    for sequence in sequences {
        runner.finish(sequence);
    }
    Ok(((batch * options.generate) as f64 / seconds, bytes / seconds))
}

/// Random ids that are not special in the kl3m family.
pub(crate) fn ids(engine: &Engine, n: usize, seed: u64) -> Vec<u32> {
    let vocab = engine.config().vocab_size as u64;
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) + 1;
    (0..n)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let low = 7.min(vocab - 1);
            (low + state % (vocab - low)) as u32
        })
        .collect()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

/// The process's largest resident set so far, in bytes; 0 where the system does not tell.
fn peak_memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

pub(crate) fn cpu_name() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |key: &str| {
        info.lines()
            .find(|l| l.starts_with(key))
            .and_then(|l| l.split_once(':'))
            .map(|(_, v)| v.trim().to_string())
    };
    match (field("model name"), field("cpu family"), field("model\t")) {
        (Some(name), Some(family), Some(model)) => format!("{name} (family {family}, model {model})"),
        (Some(name), ..) => name,
        _ => std::env::consts::ARCH.to_string(),
    }
}
