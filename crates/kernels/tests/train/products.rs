use crate::support::*;
use blackletter_kernels::{
    Isa, Pool,
    train::{Compute, Operand, Product, ProductScratch, add_rows_of, gather_rows},
};
use proptest::prelude::*;

/// `Σₖ left[i, k] right[j, k]` of matrices whose rows run along `k`.
fn naive(left: &[f32], right: &[f32], k: usize) -> Vec<f64> {
    project(&wide(left), &wide(right), k)
}

fn transposed(x: &[f32], cols: usize) -> Vec<f32> {
    (0..cols).flat_map(|c| x.iter().skip(c).step_by(cols).copied()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn products_of_any_layout_are_those_of_plain_loops(
        m in 1usize..90, n in 1usize..90, k in 1usize..600, seed in 0u64..1000, threads in 1usize..4,
    ) {
        let (a, b) = (random(seed, m * k), random(seed + 1, n * k));
        let (at, bt) = (transposed(&a, k), transposed(&b, k));
        let expected = naive(&a, &b, k);
        let pool = Pool::new(threads);
        for isa in Isa::available() {
            let on = Product { pool: &pool, isa, compute: Compute::F32 };
            let mut scratch = ProductScratch::default();
            let mut results = Vec::new();
            for left in [Operand::rows(&a, m, k), Operand::columns(&at, k, m)] {
                for right in [Operand::rows(&b, n, k), Operand::columns(&bt, k, n)] {
                    let mut out = vec![1.0; m * n];
                    on.write(left, right, &mut out, false, &mut scratch);
                    close(&out, &expected, 2e-6 * (k as f64).sqrt(), "product");
                    results.push(out);
                }
            }
            // The order of a sum does not depend on the layout.
            prop_assert!(results.windows(2).all(|w| w[0] == w[1]));
            let mut out = vec![1.0; m * n];
            on.write(Operand::rows(&a, m, k), Operand::rows(&b, n, k), &mut out, true, &mut scratch);
            prop_assert!(out.iter().zip(&results[0]).all(|(a, b)| *a == 1.0 + *b));
        }
    }
}

#[test]
fn large_products_have_the_same_bits_for_any_number_of_threads() {
    let (m, n, k) = (1000, 200, 300);
    let (a, b) = (random(1, m * k), random(2, n * k));
    for isa in Isa::available() {
        let run = |threads| {
            let pool = Pool::new(threads);
            let mut out = vec![0.0; m * n];
            let on = Product { pool: &pool, isa, compute: Compute::F32 };
            let (a, b) = (Operand::rows(&a, m, k), Operand::rows(&b, n, k));
            on.write(a, b, &mut out, false, &mut ProductScratch::default());
            out
        };
        let one = run(1);
        close(&one, &naive(&a, &b, k), 1e-5, "product");
        assert_eq!(one, run(2));
        assert_eq!(one, run(5));
    }
}

#[test]
fn gathered_rows_are_multiplied_and_results_go_back_to_their_rows() {
    let (stored, n, k) = (40, 33, 50);
    let rows: Vec<u32> = (0..40).filter(|i| i % 3 != 1).collect();
    let (x, w, scale) = (random(3, stored * k), random(4, n * k), random(5, rows.len()));
    let picked: Vec<f32> = rows.iter().flat_map(|&r| x[r as usize * k..][..k].to_vec()).collect();
    let expected = naive(&picked, &w, k);
    everywhere(|on, what| {
        let mut scratch = ProductScratch::default();
        let mut out = vec![0.5; stored * n];
        let left = Operand::rows(&x, stored, k).gathered(&rows);
        on.scatter_add(left, Operand::rows(&w, n, k), &rows, Some(&scale), &mut out, &mut scratch);
        let mut all = vec![0.5; stored * n];
        for (i, &r) in rows.iter().enumerate() {
            for j in 0..n {
                all[r as usize * n + j] += f64::from(scale[i]) * expected[i * n + j];
            }
        }
        close(&out, &all, 1e-5, what);
        // The gradient of weights: gathered rows along k.
        let d = random(6, rows.len() * n);
        let mut dw = vec![0.0; n * k];
        let right = Operand::columns(&x, stored, k).gathered(&rows);
        on.write(Operand::columns(&d, rows.len(), n), right, &mut dw, false, &mut scratch);
        close(&dw, &naive(&transposed(&d, n), &transposed(&picked, k), rows.len()), 1e-5, what);
    });
}

#[test]
fn an_operand_without_rows_adds_nothing() {
    let pool = Pool::new(2);
    let on = Product { pool: &pool, isa: Isa::best(), compute: Compute::F32 };
    let (x, w) = (random(1, 30), random(2, 20));
    let mut out = vec![3.0; 6];
    let right = Operand::columns(&x, 10, 3).gathered(&[]);
    on.write(Operand::columns(&[], 0, 2), right, &mut out, true, &mut ProductScratch::default());
    assert_eq!(out, [3.0; 6]);
    on.write(Operand::columns(&[], 0, 2), right, &mut out, false, &mut ProductScratch::default());
    assert_eq!(out, [0.0; 6]);
    let left = Operand::rows(&x, 10, 3).gathered(&[]);
    on.write(left, Operand::rows(&w[..6], 2, 3), &mut [], false, &mut ProductScratch::default());
}

#[test]
fn the_gradient_of_an_embedding_adds_up_equal_ids() {
    let pool = Pool::new(3);
    let (ids, width) = ([3u32, 0, 3, 3], 20);
    let table = random(1, 5 * width);
    let mut out = vec![0.0; ids.len() * width];
    gather_rows(&pool, &table, width, &ids, &mut out);
    assert_eq!(out[width..2 * width], table[..width]);
    let dout = random(2, out.len());
    let mut dtable = vec![0.0; table.len()];
    add_rows_of(&pool, &dout, width, &ids, None, &mut dtable);
    for c in 0..width {
        assert_eq!(dtable[3 * width + c], dout[c] + dout[2 * width + c] + dout[3 * width + c]);
        assert_eq!(dtable[c], dout[width + c]);
        assert_eq!(dtable[width + c], 0.0);
    }
    let mut without = vec![0.0; table.len()];
    add_rows_of(&pool, &dout, width, &ids, Some(3), &mut without);
    dtable[3 * width..4 * width].fill(0.0);
    assert_eq!(without, dtable);
}

#[test]
fn products_in_bf16_have_the_same_bits_in_every_instruction_set_and_layout() {
    for (m, n, k) in [(37, 70, 61), (5, 3, 1), (90, 33, 600)] {
        let (a, b) = (random(1, m * k), random(2, n * k));
        let (at, bt) = (transposed(&a, k), transposed(&b, k));
        let round = |x: &[f32]| -> Vec<f32> { x.iter().map(|&x| half::bf16::from_f32(x).to_f32()).collect() };
        let expected = naive(&round(&a), &round(&b), k);
        let mut results: Vec<Vec<f32>> = Vec::new();
        for isa in Isa::available() {
            for threads in [1, 3] {
                let pool = Pool::new(threads);
                let on = Product { pool: &pool, isa, compute: Compute::Bf16 };
                let mut scratch = ProductScratch::default();
                for left in [Operand::rows(&a, m, k), Operand::columns(&at, k, m)] {
                    for right in [Operand::rows(&b, n, k), Operand::columns(&bt, k, n)] {
                        let mut out = vec![1.0; m * n];
                        on.write(left, right, &mut out, false, &mut scratch);
                        close(&out, &expected, 2e-6 * (k as f64).sqrt(), "bf16 product");
                        results.push(out);
                    }
                }
            }
        }
        assert!(results.windows(2).all(|w| w[0] == w[1]));
    }
}
