//! Matrix products at the shapes of kl3m-002-520m, as shares of the machine's ceilings measured in the same run.
//!
//! `cargo bench -p blackletter-kernels --bench products [-- threads]`

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::type_complexity)]

use blackletter_kernels::{
    Arithmetic, Format, GemmScratch, GemvInput, Isa, Matrix, Pool, ReadCeiling, gemm, gemm_rate, gemv, quant,
};
use std::time::Instant;

fn median(mut f: impl FnMut(), runs: usize) -> f64 {
    f();
    let mut times: Vec<f64> = (0..runs)
        .map(|_| {
            let start = Instant::now();
            f();
            start.elapsed().as_secs_f64()
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[runs / 2]
}

fn main() {
    let threads = std::env::args().filter_map(|a| a.parse().ok()).next().unwrap_or(2);
    let isa = Isa::from_env().unwrap();
    let pool = Pool::new(threads);
    let read = ReadCeiling::new().rate(&pool, isa, 5);
    let rate = gemm_rate(&pool, isa, Arithmetic::F32, 5);
    let rate16 = gemm_rate(&pool, isa, Arithmetic::Bf16, 5);
    println!(
        "{isa}, {threads} threads: read {:.1} GB/s, f32 {:.0} GFLOP/s, bf16 {:.0}",
        read / 1e9,
        rate / 1e9,
        rate16 / 1e9
    );

    // GEMV: enough different matrices that none is in a cache.
    let (rows, cols, count) = (2048, 1024, 64);
    let f32_bytes: Vec<u8> =
        (0..rows * cols).flat_map(|i| ((i * 7919 % 2048) as f32 / 1024.0 - 1.0).to_le_bytes()).collect();
    for format in [Format::F32, Format::Bf16, Format::Q8, Format::Q4] {
        let floats = Matrix::new(Format::F32, rows, cols, &f32_bytes, &[]).unwrap();
        let (data, scales) = match format {
            Format::F32 => (f32_bytes.clone(), vec![]),
            Format::Bf16 => (f32_bytes.chunks(4).flat_map(|b| [b[2], b[3]]).collect(), vec![]),
            _ => quant::quantise(&pool, isa, &floats, format),
        };
        let (data, scales): (Vec<u8>, Vec<u8>) = (data.repeat(count), scales.repeat(count));
        let (d, s) = (data.len() / count, scales.len() / count);
        let matrix = |i: usize| {
            Matrix::new(format, rows, cols, &data[i * d..(i + 1) * d], &scales[i * s..(i + 1) * s]).unwrap()
        };
        for batch in [1, 3] {
            let mut input = GemvInput::new(batch, cols, true, Arithmetic::Bf16);
            input.rows_mut().fill(0.5);
            input.finish(&pool, isa);
            let mut y = vec![0.0; rows * batch];
            let seconds = median(
                || {
                    for i in 0..count {
                        gemv(&pool, isa, &[matrix(i)], &input, &mut [&mut y]);
                    }
                },
                9,
            );
            let bytes = ((data.len() + scales.len()) as f64) / seconds;
            println!(
                "gemv {format:?} x{batch}: {:.1} GB/s, {:.0} % of read",
                bytes / 1e9,
                100.0 * bytes / read
            );
        }
        for tokens in [16, 256, 512] {
            for arithmetic in [Arithmetic::F32, Arithmetic::Bf16] {
                if arithmetic == Arithmetic::Bf16 && (format != Format::Bf16 || !isa.has_bf16_dot()) {
                    continue;
                }
                let x = vec![0.5; tokens * cols];
                let mut y = vec![0.0; tokens * rows];
                let mut scratch = GemmScratch::default();
                let n = 8;
                let seconds = median(
                    || {
                        for i in 0..n {
                            gemm(&pool, isa, arithmetic, &x, tokens, &matrix(i), &mut y, false, &mut scratch);
                        }
                    },
                    5,
                );
                let flops = 2.0 * (n * tokens * rows * cols) as f64 / seconds;
                let ceiling = if arithmetic == Arithmetic::Bf16 { rate16 } else { rate };
                println!(
                    "gemm {format:?} {arithmetic:?} {tokens} tokens: {:.0} GFLOP/s, {:.0} % of the rate",
                    flops / 1e9,
                    100.0 * flops / ceiling
                );
            }
        }
    }
}
