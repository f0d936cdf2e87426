//! Windowed attention over pages against a plain computation in `f64`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::type_complexity)]

use blackletter_kernels::{
    AttentionShape, Buffer, Isa, PAGE, PageRef, Pool, decode_attention, prefill_attention, write_kv,
};
use proptest::prelude::*;

fn numbers(seed: u64, n: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..n)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            ((state >> 40) as f32 / (1u64 << 23) as f32 - 1.0) * 3.0
        })
        .collect()
}

struct Pages(Vec<(Vec<f32>, Vec<f32>)>);

impl Pages {
    fn new(shape: &AttentionShape, k: &[f32], v: &[f32]) -> Self {
        let width = shape.kv_heads * shape.head_dim;
        let tokens = k.len() / width;
        // What an earlier sequence left behind must not matter.
        let mut pages =
            vec![(vec![7.0; shape.key_len()], vec![-5.0; shape.value_len()]); tokens.div_ceil(PAGE)];
        for t in 0..tokens {
            let (keys, values) = &mut pages[t / PAGE];
            let at = t * width..(t + 1) * width;
            write_kv(shape, t % PAGE, &k[at.clone()], &v[at], keys, values);
        }
        Self(pages)
    }

    fn page(&self, i: usize) -> PageRef<'_> {
        PageRef { keys: &self.0[i].0, values: &self.0[i].1 }
    }
}

fn expected(shape: &AttentionShape, q: &[f32], k: &[f32], v: &[f32], position: usize) -> Vec<f64> {
    let (dim, width) = (shape.head_dim, shape.heads * shape.head_dim);
    let mut out = vec![];
    for (t, q) in q.chunks_exact(width).enumerate() {
        let position = position + t;
        for head in 0..shape.heads {
            let q = &q[head * dim..(head + 1) * dim];
            let kv = head / (shape.heads / shape.kv_heads);
            let row = |m: &[f32], t: usize, d: usize| f64::from(m[(t * shape.kv_heads + kv) * dim + d]);
            let first = shape.window.map_or(0, |w| (position + 1).saturating_sub(w));
            let scores: Vec<f64> = (first..=position)
                .map(|j| (0..dim).map(|d| f64::from(q[d]) * row(k, j, d)).sum::<f64>() / (dim as f64).sqrt())
                .collect();
            let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = scores.iter().map(|s| (s - largest).exp()).sum();
            for d in 0..dim {
                let o: f64 = scores
                    .iter()
                    .enumerate()
                    .map(|(i, s)| (s - largest).exp() / sum * row(v, first + i, d))
                    .sum();
                out.push(o);
            }
        }
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn attention_is_right_in_any_chunking_and_window(
        kv_heads in 1usize..4, group in 1usize..4, half in 1usize..40, tokens in 1usize..150, window in 0usize..100,
        cut in 0usize..150, seed: u64,
    ) {
        let window = (window > 0).then_some(window);
        let shape = AttentionShape { heads: kv_heads * group, kv_heads, head_dim: 2 * half, window };
        let (q, kv) = (shape.heads * shape.head_dim, kv_heads * shape.head_dim);
        let (q_all, k, v) = (numbers(seed, tokens * q), numbers(seed ^ 1, tokens * kv), numbers(seed ^ 2, tokens * kv));
        let pages = Pages::new(&shape, &k, &v);
        let expected = expected(&shape, &q_all, &k, &v, 0);
        let cut = cut.min(tokens);
        for isa in Isa::available() {
            let pool = Pool::new(2);
            let mut scratch = Buffer::default();
            let mut whole = vec![0.0; tokens * q];
            prefill_attention(&pool, isa, &shape, &q_all, 0, |i| pages.page(i), &mut whole, &mut scratch);
            for (a, b) in whole.iter().zip(&expected) {
                prop_assert!((f64::from(*a) - b).abs() < 2e-5 * (1.0 + b.abs()), "{isa}: {a} {b}");
            }
            // In two chunks: the same bits.
            let mut parts = vec![0.0; tokens * q];
            let (first, second) = parts.split_at_mut(cut * q);
            prefill_attention(&pool, isa, &shape, &q_all[..cut * q], 0, |i| pages.page(i), first, &mut scratch);
            prefill_attention(&pool, isa, &shape, &q_all[cut * q..], cut, |i| pages.page(i), second, &mut scratch);
            prop_assert!(whole.iter().zip(&parts).all(|(a, b)| a.to_bits() == b.to_bits()), "{isa} cut at {cut}");
            // Every token as if it had been generated, two sequences at a time.
            for position in [0, tokens / 2, tokens - 1] {
                let positions = [position, tokens - 1];
                let mut q_two = q_all[position * q..(position + 1) * q].to_vec();
                q_two.extend(&q_all[(tokens - 1) * q..]);
                let mut out = vec![0.0; 2 * q];
                decode_attention(&pool, isa, &shape, &q_two, &positions, |_, i| pages.page(i), &mut out, &mut scratch);
                for (i, a) in out.iter().enumerate() {
                    let b = expected[positions[i / q] * q + i % q];
                    prop_assert!((f64::from(*a) - b).abs() < 2e-5 * (1.0 + b.abs()), "{isa} decode: {a} {b}");
                }
            }
        }
    }
}

#[test]
fn window_hides_tokens_older_than_w() {
    let shape = AttentionShape { heads: 1, kv_heads: 1, head_dim: 2, window: Some(16) };
    assert_eq!(shape.visible(15), 0..16);
    assert_eq!(shape.visible(16), 1..17);
    let tokens = 40;
    let (q, mut k, v) = (numbers(1, tokens * 2), numbers(2, tokens * 2), numbers(3, tokens * 2));
    let run = |k: &[f32]| {
        let pages = Pages::new(&shape, k, &v);
        let mut out = vec![0.0; 2];
        let (pool, mut scratch) = (Pool::new(1), Buffer::default());
        let page = |_, i| pages.page(i);
        decode_attention(&pool, Isa::best(), &shape, &q[78..], &[39], page, &mut out, &mut scratch);
        out
    };
    let before = run(&k);
    k[23 * 2] += 100.0;
    assert_eq!(run(&k), before, "position 23 is 16 before 39 and not seen");
    k[24 * 2] += 100.0;
    assert_ne!(run(&k), before, "position 24 is 15 before 39 and seen");
}
