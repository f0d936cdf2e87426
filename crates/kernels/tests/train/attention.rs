use crate::support::*;
use blackletter_kernels::{
    Isa, Pool, RopeTable, rope,
    train::{
        AttentionGeometry, AttentionInputs, AttentionScratch, Compute, Layout, Product, attention_backward,
        attention_forward,
    },
};

struct Case {
    shape: AttentionGeometry,
    len: usize,
    segments: Vec<u32>,
}

fn cases() -> Vec<Case> {
    let shape = AttentionGeometry { heads: 4, kv_heads: 2, head_dim: 6, window: Some(7) };
    let packed: Vec<u32> = (0..40).map(|i| [1, 2, 3][i / 14]).collect();
    let padded: Vec<u32> = (0..40).map(|i| u32::from((5..37).contains(&i))).collect();
    let holes: Vec<u32> = (0..37).map(|i| [1, 1, 0, 2, 1][i % 5]).collect();
    vec![
        Case { shape, len: 40, segments: vec![1; 80] },
        Case { shape, len: 40, segments: [packed, padded].concat() },
        Case { shape: AttentionGeometry { window: None, ..shape }, len: 37, segments: holes },
        Case {
            shape: AttentionGeometry { heads: 1, kv_heads: 1, head_dim: 40, window: Some(1) },
            len: 9,
            segments: vec![1; 9],
        },
        Case {
            shape: AttentionGeometry { heads: 2, kv_heads: 1, head_dim: 34, window: Some(50) },
            len: 61,
            segments: vec![1; 61],
        },
    ]
}

impl Case {
    fn tokens(&self) -> usize {
        self.segments.len()
    }

    fn sees(&self, q: usize, k: usize) -> bool {
        let row = q / self.len == k / self.len;
        let blind = self.segments[q] == 0;
        let near = k <= q && q - k < self.shape.window.unwrap_or(usize::MAX);
        row && (blind || near && self.segments[q] == self.segments[k])
    }

    /// A query of padding takes the mean of all keys of its row, yet its gradient goes through a softmax, as if its scores
    /// were all 0 at the point `at` (queries, keys): transformers adds the least number of all to scores, which rounds them to
    /// one value and leaves their gradient alone.
    fn forward(&self, q: &[f64], k: &[f64], v: &[f64], at: (&[f64], &[f64])) -> Vec<f64> {
        let s = &self.shape;
        let mut out = vec![0.0; q.len()];
        for t in 0..self.tokens() {
            for h in 0..s.heads {
                let kv = h / (s.heads / s.kv_heads);
                let keys: Vec<usize> = (0..self.tokens()).filter(|&other| self.sees(t, other)).collect();
                let dot = |q: &[f64], k: &[f64], other: usize| -> f64 {
                    let (q, k) =
                        (&q[(t * s.heads + h) * s.head_dim..], &k[(other * s.kv_heads + kv) * s.head_dim..]);
                    q[..s.head_dim].iter().zip(k).map(|(a, b)| a * b).sum::<f64>()
                        / (s.head_dim as f64).sqrt()
                };
                let mut weights: Vec<f64> = keys
                    .iter()
                    .map(|&other| {
                        // A constant is taken off the scores of padding, so that they are all 0 at this point.
                        let constant = if self.segments[t] == 0 { dot(at.0, at.1, other) } else { 0.0 };
                        dot(q, k, other) - constant
                    })
                    .collect();
                softmax(&mut weights);
                for (weight, &other) in weights.iter().zip(&keys) {
                    for i in 0..s.head_dim {
                        out[(t * s.heads + h) * s.head_dim + i] +=
                            weight * v[(other * s.kv_heads + kv) * s.head_dim + i];
                    }
                }
            }
        }
        out
    }
}

#[test]
fn attention_and_its_gradients_are_those_of_plain_loops() {
    for (n, case) in cases().iter().enumerate() {
        let s = case.shape;
        let tokens = case.tokens();
        let q = random(1, tokens * s.heads * s.head_dim);
        let [k, v] = [2, 3].map(|seed| random(seed, tokens * s.kv_heads * s.head_dim));
        let dout = random(4, q.len());
        let (qw, kw, vw) = (wide(&q), wide(&k), wide(&v));
        let at = (&qw[..], &kw[..]);
        let expected = case.forward(&qw, &kw, &vw, at);
        let loss = |q: &[f64], k: &[f64], v: &[f64]| weighted(&case.forward(q, k, v, at), &dout);
        let slope = [
            slopes(&q, |q| loss(q, &kw, &vw)),
            slopes(&k, |k| loss(&qw, k, &vw)),
            slopes(&v, |v| loss(&qw, &kw, v)),
        ];
        let positions = vec![0; tokens];
        let layout = Layout { len: case.len, positions: &positions, segments: &case.segments };
        let inputs = AttentionInputs { q: &q, k: &k, v: &v, rope: None };
        everywhere(|on, what| {
            let what = format!("case {n}, {what}");
            let mut scratch = AttentionScratch::default();
            let (mut out, mut lse) = (vec![9.0; q.len()], vec![9.0; tokens * s.heads]);
            attention_forward(on, s, layout, inputs, &mut out, &mut lse, &mut scratch);
            close(&out, &expected, 1e-5, &what);
            let mut gradients = [vec![9.0; q.len()], vec![9.0; k.len()], vec![9.0; v.len()]];
            let parts = gradients.each_mut().map(Vec::as_mut_slice);
            attention_backward(on, s, layout, inputs, &out, &lse, &dout, parts, &mut scratch);
            for ((found, expected), name) in gradients.iter().zip(&slope).zip(["dq", "dk", "dv"]) {
                close(found, expected, 2e-5, &format!("{what}: {name}"));
            }
        });
    }
}

#[test]
fn window_hides_tokens_older_than_w() {
    let shape = AttentionGeometry { heads: 2, kv_heads: 1, head_dim: 8, window: Some(16) };
    let tokens = 100;
    let (positions, segments) = (vec![0; tokens], vec![1; tokens]);
    let layout = Layout { len: tokens, positions: &positions, segments: &segments };
    let (q, k, v) = (random(1, tokens * 16), random(2, tokens * 8), random(3, tokens * 8));
    let pool = Pool::new(2);
    let on = Product { pool: &pool, isa: Isa::best(), compute: Compute::F32 };
    let run = |k: &[f32], v: &[f32]| {
        let (mut out, mut lse) = (vec![0.0; q.len()], vec![0.0; tokens * 2]);
        let inputs = AttentionInputs { q: &q, k, v, rope: None };
        attention_forward(&on, shape, layout, inputs, &mut out, &mut lse, &mut AttentionScratch::default());
        out
    };
    let before = run(&k, &v);
    let (mut k2, mut v2) = (k.clone(), v.clone());
    k2[40 * 8..41 * 8].fill(50.0);
    v2[40 * 8..41 * 8].fill(-1e6);
    let after = run(&k2, &v2);
    let changed: Vec<usize> =
        (0..tokens).filter(|t| before[t * 16..][..16] != after[t * 16..][..16]).collect();
    assert_eq!(changed, (40..56).collect::<Vec<_>>());
}

#[test]
fn packed_segments_do_not_see_each_other() {
    let shape = AttentionGeometry { heads: 2, kv_heads: 2, head_dim: 8, window: None };
    let pool = Pool::new(2);
    let on = Product { pool: &pool, isa: Isa::best(), compute: Compute::F32 };
    let (q, k, v) = (random(1, 50 * 16), random(2, 50 * 16), random(3, 50 * 16));
    let run = |segments: &[u32], range: std::ops::Range<usize>| {
        let at = range.start * 16..range.end * 16;
        let positions = vec![0; range.len()];
        let layout = Layout { len: range.len(), positions: &positions, segments };
        let inputs = AttentionInputs { q: &q[at.clone()], k: &k[at.clone()], v: &v[at.clone()], rope: None };
        let (mut out, mut lse) = (vec![0.0; at.len()], vec![0.0; range.len() * 2]);
        attention_forward(&on, shape, layout, inputs, &mut out, &mut lse, &mut AttentionScratch::default());
        out
    };
    let segments: Vec<u32> = (0..50).map(|i| if i < 20 { 1 } else { 2 }).collect();
    let whole = run(&segments, 0..50);
    for (range, which) in [(0..20, 1), (20..50, 2)] {
        let alone = run(&vec![which; range.len()], range.clone());
        close(&whole[range.start * 16..range.end * 16], &wide(&alone), 1e-6, "segment");
    }
}

#[test]
fn queries_and_keys_are_rotated_to_their_positions_and_their_gradients_back() {
    let shape = AttentionGeometry { heads: 4, kv_heads: 2, head_dim: 6, window: Some(9) };
    let (len, tokens) = (30, 60);
    let table = RopeTable::new(6, 100.0, 40);
    let positions: Vec<u32> = (0..60).map(|i| (i * 7 % 40) as u32).collect();
    let segments = vec![1; tokens];
    let layout = Layout { len, positions: &positions, segments: &segments };
    let (q, k, v, dout) =
        (random(1, tokens * 24), random(2, tokens * 12), random(3, tokens * 12), random(4, tokens * 24));
    let rotated = |x: &[f32]| {
        let mut x = x.to_vec();
        let width = x.len() / tokens;
        x.chunks_exact_mut(width).zip(&positions).for_each(|(row, &p)| rope(&table, p as usize, row));
        x
    };
    let (rotated_q, rotated_k) = (rotated(&q), rotated(&k));
    everywhere(|on, what| {
        let run = |q: &[f32], k: &[f32], rope: Option<&RopeTable>| {
            let inputs = AttentionInputs { q, k, v: &v, rope };
            let mut scratch = AttentionScratch::default();
            let (mut out, mut lse) = (vec![0.0; q.len()], vec![0.0; tokens * 4]);
            attention_forward(on, shape, layout, inputs, &mut out, &mut lse, &mut scratch);
            let mut gradients = [q, k, &v].map(|x| vec![0.0; x.len()]);
            let parts = gradients.each_mut().map(Vec::as_mut_slice);
            attention_backward(on, shape, layout, inputs, &out, &lse, &dout, parts, &mut scratch);
            (out, gradients)
        };
        let (out, [dq, dk, dv]) = run(&q, &k, Some(&table));
        let (expected, [rotated_dq, rotated_dk, expected_dv]) = run(&rotated_q, &rotated_k, None);
        close(&out, &wide(&expected), 1e-6, what);
        // A rotation is the transpose of its inverse.
        close(&rotated(&dq), &wide(&rotated_dq), 1e-5, what);
        close(&rotated(&dk), &wide(&rotated_dk), 1e-5, what);
        close(&dv, &wide(&expected_dv), 1e-5, what);
    });
}

#[test]
fn attention_in_bf16_is_near_that_in_f32_and_the_same_for_any_number_of_threads() {
    let shape = AttentionGeometry { heads: 4, kv_heads: 2, head_dim: 16, window: Some(40) };
    let (len, tokens) = (77, 154);
    let positions = vec![0; tokens];
    let segments: Vec<u32> = (0..tokens).map(|i| u32::from(i % 77 > 8) + u32::from(i > 120)).collect();
    let layout = Layout { len, positions: &positions, segments: &segments };
    let (q, k, v, dout) =
        (random(1, tokens * 64), random(2, tokens * 32), random(3, tokens * 32), random(4, tokens * 64));
    let run = |threads, isa, compute| {
        let pool = Pool::new(threads);
        let on = Product { pool: &pool, isa, compute };
        let inputs = AttentionInputs { q: &q, k: &k, v: &v, rope: None };
        let mut scratch = AttentionScratch::default();
        let (mut out, mut lse) = (vec![0.0; q.len()], vec![0.0; tokens * 4]);
        attention_forward(&on, shape, layout, inputs, &mut out, &mut lse, &mut scratch);
        let mut gradients = [&q, &k, &v].map(|x| vec![0.0; x.len()]);
        let parts = gradients.each_mut().map(Vec::as_mut_slice);
        attention_backward(&on, shape, layout, inputs, &out, &lse, &dout, parts, &mut scratch);
        (out, gradients)
    };
    let (expected, slopes) = run(1, Isa::best(), Compute::F32);
    for isa in Isa::available() {
        let one = run(1, isa, Compute::Bf16);
        close(&one.0, &wide(&expected), 1e-2, "bf16");
        for (found, expected) in one.1.iter().zip(&slopes) {
            close(found, &wide(expected), 2e-2, "bf16 gradients");
        }
        assert_eq!(one, run(3, isa, Compute::Bf16));
    }
}
