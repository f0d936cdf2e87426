//! Matrix products of every format, on every instruction set, against sums in `f64`; and their independence of batching.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::type_complexity)]

use blackletter_kernels::{
    Arithmetic, Format, GemmScratch, GemvInput, Isa, Matrix, Pool, Routing, gemm, gemm_swiglu, gemv,
    gemv_swiglu, gemv_weighted_sum, quant, route,
};
use proptest::prelude::*;

/// Numbers in −1..1 from a seed.
fn numbers(seed: u64, n: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..n)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        })
        .collect()
}

struct Stored {
    format: Format,
    rows: usize,
    cols: usize,
    data: Vec<u8>,
    scales: Vec<u8>,
    /// What the stored numbers mean.
    values: Vec<f32>,
}

impl Stored {
    fn new(format: Format, rows: usize, cols: usize, seed: u64) -> Self {
        let values = numbers(seed, rows * cols);
        let f32_bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        let (data, scales, values) = match format {
            Format::F32 => (f32_bytes, vec![], values),
            Format::F16 => {
                let half: Vec<_> = values.iter().map(|&x| half::f16::from_f32(x)).collect();
                let bytes = half.iter().flat_map(|x| x.to_le_bytes()).collect();
                (bytes, vec![], half.iter().map(|x| x.to_f32()).collect())
            }
            Format::Bf16 => {
                let half: Vec<_> = values.iter().map(|&x| half::bf16::from_f32(x)).collect();
                let bytes = half.iter().flat_map(|x| x.to_le_bytes()).collect();
                (bytes, vec![], half.iter().map(|x| x.to_f32()).collect())
            }
            Format::Q8 | Format::Q4 => {
                let floats = Matrix::new(Format::F32, rows, cols, &f32_bytes, &[]).unwrap();
                let (data, scales) = quant::quantise(&Pool::new(1), Isa::Scalar, &floats, format);
                let values = quant::dequantise(&Matrix::new(format, rows, cols, &data, &scales).unwrap());
                (data, scales, values)
            }
        };
        Self { format, rows, cols, data, scales, values }
    }

    fn matrix(&self) -> Matrix<'_> {
        Matrix::new(self.format, self.rows, self.cols, &self.data, &self.scales).unwrap()
    }

    /// `x Wᵀ` in f64, and for each output how far off it may be: a part of the sum of the products' magnitudes for f32 sums and bf16
    /// inputs; for inputs of 8 bits half a step of them, which follows from the largest, times the sum of the weights' magnitudes.
    fn product(&self, x: &[f32], arithmetic: Arithmetic) -> (Vec<f64>, Vec<f64>) {
        let mut out = (vec![], vec![]);
        let part = if (self.format, arithmetic) == (Format::Bf16, Arithmetic::Bf16) { 6e-3 } else { 2e-6 };
        for x in x.chunks_exact(self.cols) {
            let largest = x.iter().fold(0.0f64, |m, &x| m.max(f64::from(x).abs()));
            let half_step = if self.format.is_quantised() { largest / 254.0 * 1.001 } else { 0.0 };
            for row in self.values.chunks_exact(self.cols) {
                out.0.push(row.iter().zip(x).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum());
                let magnitude: f64 =
                    row.iter().zip(x).map(|(&a, &b)| (f64::from(a) * f64::from(b)).abs()).sum();
                let weights: f64 = row.iter().map(|&a| f64::from(a).abs()).sum();
                out.1.push(part * magnitude + half_step * weights + 1e-9);
            }
        }
        out
    }
}

const FORMATS: [Format; 5] = [Format::F32, Format::F16, Format::Bf16, Format::Q8, Format::Q4];

fn run_gemm(isa: Isa, pool: &Pool, arithmetic: Arithmetic, w: &Stored, x: &[f32]) -> Vec<f32> {
    let tokens = x.len() / w.cols;
    let mut y = vec![0.0; tokens * w.rows];
    gemm(pool, isa, arithmetic, x, tokens, &w.matrix(), &mut y, false, &mut GemmScratch::default());
    y
}

fn run_gemv(isa: Isa, pool: &Pool, arithmetic: Arithmetic, w: &Stored, x: &[f32]) -> Vec<f32> {
    let rows = x.len() / w.cols;
    let mut input = GemvInput::new(rows, w.cols, true, arithmetic);
    input.rows_mut().copy_from_slice(x);
    input.finish(pool, isa);
    let mut y = vec![0.0; rows * w.rows];
    gemv(pool, isa, &[w.matrix()], &input, &mut [&mut y]);
    y
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn products_are_right_on_every_instruction_set(
        rows in 1usize..70, cols in 1usize..600, tokens in 1usize..40, format in 0usize..5, bf16: bool, seed: u64,
    ) {
        let format = FORMATS[format];
        let arithmetic = if bf16 { Arithmetic::Bf16 } else { Arithmetic::F32 };
        let w = Stored::new(format, rows, cols, seed);
        let x = numbers(seed ^ 1, tokens * cols);
        let (expected, allowed) = w.product(&x, arithmetic);
        let pool = Pool::new(2);
        for isa in Isa::available() {
            for found in [
                run_gemm(isa, &pool, arithmetic, &w, &x),
                run_gemv(isa, &pool, arithmetic, &w, &x),
            ] {
                for ((&found, expected), allowed) in found.iter().zip(&expected).zip(&allowed) {
                    let off = (f64::from(found) - expected).abs();
                    prop_assert!(off < *allowed, "{isa} {format:?} [{rows}, {cols}] x {tokens}: {off}, not {allowed}");
                }
            }
        }
    }

    #[test]
    fn a_row_has_the_same_bits_alone_and_in_any_batch_with_any_threads(
        rows in 1usize..70, cols in 1usize..600, tokens in 2usize..50, cut in 1usize..50, format in 0usize..5, bf16: bool,
        seed: u64,
    ) {
        let w = Stored::new(FORMATS[format], rows, cols, seed);
        let x = numbers(seed ^ 1, tokens * cols);
        let arithmetic = if bf16 { Arithmetic::Bf16 } else { Arithmetic::F32 };
        let cut = cut.min(tokens - 1);
        for isa in Isa::available() {
            let (one, three) = (Pool::new(1), Pool::new(3));
            let whole = run_gemm(isa, &one, arithmetic, &w, &x);
            let mut parts = run_gemm(isa, &three, arithmetic, &w, &x[..cut * cols]);
            parts.extend(run_gemm(isa, &three, arithmetic, &w, &x[cut * cols..]));
            prop_assert!(whole.iter().zip(&parts).all(|(a, b)| a.to_bits() == b.to_bits()), "gemm {isa}");
            let whole = run_gemv(isa, &three, arithmetic, &w, &x);
            let alone: Vec<f32> = x.chunks_exact(cols).flat_map(|x| run_gemv(isa, &one, arithmetic, &w, x)).collect();
            prop_assert!(whole.iter().zip(&alone).all(|(a, b)| a.to_bits() == b.to_bits()), "gemv {isa}");
        }
    }

    #[test]
    fn integer_products_are_the_same_on_every_instruction_set(rows in 1usize..40, cols in 1usize..200, eight: bool, seed: u64) {
        // Only the order of the float sums may differ, and it does not: one multiply-add a block.
        let w = Stored::new(if eight { Format::Q8 } else { Format::Q4 }, rows, cols, seed);
        let x = numbers(seed ^ 1, cols);
        let pool = Pool::new(1);
        let expected = run_gemv(Isa::Scalar, &pool, Arithmetic::F32, &w, &x);
        for isa in Isa::available() {
            for (a, b) in expected.iter().zip(run_gemv(isa, &pool, Arithmetic::F32, &w, &x)) {
                prop_assert!((a - b).abs() <= 1e-6 * (1.0 + a.abs()) * cols as f32, "{isa}: {a} {b}");
            }
        }
    }

    #[test]
    fn quantised_weights_stay_within_half_a_step(cols in 1usize..100, seed: u64) {
        let values = numbers(seed, 16 * cols);
        let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        let floats = Matrix::new(Format::F32, 16, cols, &bytes, &[]).unwrap();
        for isa in Isa::available() {
            let (data, scales) = quant::quantise(&Pool::new(2), isa, &floats, Format::Q8);
            let back = quant::dequantise(&Matrix::new(Format::Q8, 16, cols, &data, &scales).unwrap());
            for (row, back) in values.chunks_exact(cols).zip(back.chunks_exact(cols)) {
                for (block, back) in row.chunks(32).zip(back.chunks(32)) {
                    let largest = block.iter().fold(0.0f32, |m, x| m.max(x.abs()));
                    // Half a step, and the rounding of the scale to f16.
                    let step = largest / 127.0 * 0.5 + largest * 1.1e-3 + 1e-6;
                    for (a, b) in block.iter().zip(back) {
                        prop_assert!((a - b).abs() <= step, "{isa} {a} {b} {step}");
                    }
                }
            }
        }
    }
}

#[test]
fn experts_of_both_families_agree_with_f64() {
    let (hidden, intermediate, experts, tokens) = (72, 40, 4, 11);
    for format in FORMATS {
        let make = |rows, cols, seed| Stored::new(format, rows, cols, seed);
        let w1: Vec<_> = (0..experts).map(|e| make(intermediate, hidden, 10 + e)).collect();
        let w2: Vec<_> = (0..experts).map(|e| make(hidden, intermediate, 20 + e)).collect();
        let w3: Vec<_> = (0..experts).map(|e| make(intermediate, hidden, 30 + e)).collect();
        let x = numbers(1, tokens * hidden);
        let gate = numbers(2, experts as usize * hidden);
        for isa in Isa::available() {
            let pool = Pool::new(2);
            let mut routing = Routing::default();
            route(isa, &x, &gate, hidden, 2, &mut routing);
            let mut input = GemvInput::new(tokens, hidden, true, Arithmetic::F32);
            input.rows_mut().copy_from_slice(&x);
            input.finish(&pool, isa);
            let mut h = vec![0.0; routing.rows().len() * intermediate];
            gemv_swiglu(&pool, isa, |e| (w1[e].matrix(), w3[e].matrix()), &routing, &input, &mut h);
            let mut second = GemvInput::new(routing.rows().len(), intermediate, true, Arithmetic::F32);
            second.rows_mut().copy_from_slice(&h);
            second.finish(&pool, isa);
            let mut y = vec![0.0; tokens * hidden];
            gemv_weighted_sum(&pool, isa, |e| w2[e].matrix(), &routing, &second, &mut y);

            let mut expected = vec![0.0f64; tokens * hidden];
            for e in 0..experts as usize {
                for &(token, weight) in routing.rows_of(e) {
                    let x = &x[token * hidden..(token + 1) * hidden];
                    let (g, u) = (w1[e].product(x, Arithmetic::F32).0, w3[e].product(x, Arithmetic::F32).0);
                    let act: Vec<f32> =
                        g.iter().zip(&u).map(|(g, u)| (g / (1.0 + (-g).exp()) * u) as f32).collect();
                    for (i, o) in w2[e].product(&act, Arithmetic::F32).0.iter().enumerate() {
                        expected[token * hidden + i] += f64::from(weight) * o;
                    }
                }
            }
            let scale = expected.iter().fold(0.0f64, |m, x| m.max(x.abs()));
            let tolerance = if format.is_quantised() { 2e-2 } else { 1e-5 };
            for (a, b) in y.iter().zip(&expected) {
                assert!((f64::from(*a) - b).abs() < tolerance * scale, "{isa} {format:?}: {a} {b}");
            }

            // The prompt's kernels on the tokens of one expert.
            let rows: Vec<f32> = routing
                .rows_of(0)
                .iter()
                .flat_map(|&(t, _)| x[t * hidden..(t + 1) * hidden].to_vec())
                .collect();
            let mut prompt = vec![0.0; routing.rows_of(0).len() * intermediate];
            let (n, s) = (routing.rows_of(0).len(), &mut GemmScratch::default());
            gemm_swiglu(
                &pool,
                isa,
                Arithmetic::F32,
                &rows,
                n,
                &w1[0].matrix(),
                &w3[0].matrix(),
                &mut prompt,
                s,
            );
            for (a, b) in prompt.iter().zip(&h) {
                assert!((a - b).abs() < 1e-4 * (1.0 + b.abs()), "{isa} {format:?}: {a} {b}");
            }
        }
    }
}
