//! What this machine can do at best, measured: the ceilings that speeds are compared with.

use crate::{
    Isa,
    buffer::Buffer,
    gemm::{Arithmetic, peak_tile, tile_shape},
    pool::Pool,
    simd::{Simd, dispatch},
};
#[cfg(target_os = "linux")]
use memmap2::Advice;
use memmap2::MmapMut;
use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

/// Bytes that are read per measurement: far more than any cache.
const READ_BYTES: usize = 1 << 30;

/// Measures how fast memory is read. It keeps 1 GiB, so that it can be asked again and again: rates drift.
pub struct ReadCeiling {
    memory: Option<MmapMut>,
}

impl Default for ReadCeiling {
    fn default() -> Self {
        Self::new()
    }
}

impl ReadCeiling {
    /// Takes the memory; without that much of it, all rates are 0.
    pub fn new() -> Self {
        // Huge pages, as for converted weights: a ceiling with more address translations than the work would be none.
        let Ok(mut memory) = MmapMut::map_anon(READ_BYTES) else { return Self { memory: None } };
        #[cfg(target_os = "linux")]
        let _ = memory.advise(Advice::HugePage);
        // Touched, so that it is memory and not one shared page of zeros.
        for byte in memory.iter_mut().step_by(4096) {
            *byte = 1;
        }
        Self { memory: Some(memory) }
    }

    /// Best rate with all threads, in bytes per second, of `passes` over the memory.
    pub fn rate(&self, pool: &Pool, isa: Isa, passes: usize) -> f64 {
        let Some(memory) = &self.memory else { return 0.0 };
        let mut best = 0.0f64;
        let sink = AtomicU64::new(0);
        for _ in 0..passes.max(1) {
            let start = Instant::now();
            pool.for_ranges(memory.len() / 64, 4096, |_, range| {
                let part = &memory[range.start * 64..range.end * 64];
                // SAFETY: the pointer covers the part, a multiple of 16 floats; any bytes are floats; `isa` is available on this
                // CPU.
                let sum = unsafe { sum_all(isa, part.as_ptr().cast(), part.len() / 4) };
                sink.fetch_add(u64::from(sum.to_bits()), Ordering::Relaxed);
            });
            best = best.max(READ_BYTES as f64 / start.elapsed().as_secs_f64());
        }
        std::hint::black_box(sink.into_inner());
        best
    }
}

dispatch! {
    unsafe fn sum_all(p: *const f32, n: usize) -> f32 = sum_all_kernel;
}

#[inline(always)]
unsafe fn sum_all_kernel<S: Simd>(p: *const f32, n: usize) -> f32 {
    let mut acc = [S::splat(0.0); 8];
    let mut i = 0;
    while i + 8 * S::LANES <= n {
        for (j, acc) in acc.iter_mut().enumerate() {
            *acc = S::add(*acc, S::load(p.add(i + j * S::LANES)));
        }
        i += 8 * S::LANES;
    }
    S::sum(S::add(
        S::add(S::add(acc[0], acc[1]), S::add(acc[2], acc[3])),
        S::add(S::add(acc[4], acc[5]), S::add(acc[6], acc[7])),
    ))
}

/// Best rate of multiply-adds of the inner loop on operands in the first-level cache with all threads, in floating-point
/// operations per second: what a matrix product could reach if packing and memory cost nothing.
pub fn gemm_rate(pool: &Pool, isa: Isa, arithmetic: Arithmetic, runs: usize) -> f64 {
    const STEPS: usize = 128;
    const ROUNDS: usize = 4000;
    let (tile, panel) = tile_shape(isa);
    let per_step = if arithmetic == Arithmetic::Bf16 && isa.has_bf16_dot() { 2 } else { 1 };
    let flops = 2.0 * (tile * panel * STEPS * ROUNDS * per_step * pool.threads()) as f64;
    let mut best = 0.0f64;
    for _ in 0..runs.max(1) {
        let start = Instant::now();
        pool.run(|_| {
            let (x, w) = (Buffer::zeros(STEPS * tile), Buffer::zeros(STEPS * panel));
            let mut sums = Buffer::zeros(tile * panel);
            for _ in 0..ROUNDS {
                // SAFETY: the buffers have the lengths that the counts ask for; `isa` is available on this CPU.
                unsafe { peak_tile(isa, arithmetic, STEPS, x.as_ptr(), w.as_ptr(), sums.as_mut_ptr()) };
            }
            std::hint::black_box(sums[0]);
        });
        best = best.max(flops / start.elapsed().as_secs_f64());
    }
    best
}
