use crate::support::*;
use blackletter_kernels::{
    Isa, Pool,
    train::{
        AdamW, Assignment, Compute, ExpertGradients, ExpertSaved, ExpertScratch, ExpertWeights, HeadOptions,
        HeadScratch, Product, ProductScratch, adamw_step, assign, experts_backward, experts_forward,
        head_loss, rms_norm_backward, rms_norm_rows, router_backward, router_forward,
    },
};

const EPSILON: f32 = 1e-5;

#[test]
fn normalisation_and_its_gradients_are_those_of_plain_loops() {
    for (tokens, width) in [(3, 5), (70, 16), (130, 37)] {
        let (x, w, dy) = (random(1, tokens * width), random(2, width), random(3, tokens * width));
        let (xw, ww) = (wide(&x), wide(&w));
        let loss = |x: &[f64], w: &[f64]| weighted(&norm(x, w, f64::from(EPSILON)), &dy);
        let (dx, dw) = (slopes(&x, |x| loss(x, &ww)), slopes(&w, |w| loss(&xw, w)));
        everywhere(|on, what| {
            let mut y = vec![0.0; x.len()];
            rms_norm_rows(on.pool, on.isa, &x, &w, EPSILON, &mut y);
            close(&y, &norm(&xw, &ww, f64::from(EPSILON)), 1e-6, what);
            let (mut found_x, mut found_w) = (vec![0.0; x.len()], vec![0.0; width]);
            rms_norm_backward(on.pool, on.isa, &x, &w, EPSILON, &dy, None, &mut found_x, &mut found_w);
            close(&found_x, &dx, 1e-5, what);
            close(&found_w, &dw, 1e-5, what);
        });
    }
}

fn probabilities(x: &[f64], w: &[f64], gate: &[f64]) -> Vec<f64> {
    let mut logits = project(&norm(x, w, f64::from(EPSILON)), gate, w.len());
    logits.chunks_exact_mut(gate.len() / w.len()).for_each(softmax);
    logits
}

#[test]
fn the_router_and_its_gradients_are_those_of_plain_loops() {
    let (tokens, width, experts) = (70, 11, 5);
    let (x, w, gate) = (random(1, tokens * width), random(2, width), random(3, experts * width));
    let dy = random(4, tokens * experts);
    let (xw, ww, gw) = (wide(&x), wide(&w), wide(&gate));
    let loss = |x: &[f64], w: &[f64], gate: &[f64]| weighted(&probabilities(x, w, gate), &dy);
    let slope = [
        slopes(&x, |x| loss(x, &ww, &gw)),
        slopes(&w, |w| loss(&xw, w, &gw)),
        slopes(&gate, |gate| loss(&xw, &ww, gate)),
    ];
    everywhere(|on, what| {
        let mut p = vec![0.0; tokens * experts];
        router_forward(on, &x, &w, EPSILON, &gate, &mut p);
        close(&p, &probabilities(&xw, &ww, &gw), 1e-6, what);
        let mut found = [&x, &w, &gate].map(|x| vec![0.0; x.len()]);
        router_backward(on, &x, &w, EPSILON, &gate, &p, &dy, found.each_mut().map(Vec::as_mut_slice));
        for (found, slope) in found.iter().zip(&slope) {
            close(found, slope, 1e-5, what);
        }
    });
}

#[test]
fn every_token_goes_to_its_top_experts_with_weights_that_sum_to_one() {
    let p = [0.1, 0.6, 0.3, 0.5, 0.2, 0.3];
    let Assignment { offsets, tokens, weights } = assign(&p, 3, 2);
    assert_eq!(offsets, [0, 1, 2, 4]);
    assert_eq!(tokens, [1, 0, 0, 1]);
    close(&weights, &[0.625, 2.0 / 3.0, 1.0 / 3.0, 0.375], 1e-6, "weights");
}

/// Inputs of the experts, in `f64`.
struct Mixture<'a> {
    x: &'a [f64],
    p: &'a [f64],
    norm: &'a [f64],
    w: [&'a [f64]; 3],
}

fn mixture(m: &Mixture<'_>, experts: usize, assignment: &Assignment) -> Vec<f64> {
    let hidden = m.norm.len();
    let size = m.w[0].len() / experts;
    let normal = norm(m.x, m.norm, f64::from(EPSILON));
    let mut sums = vec![0.0; m.x.len() / hidden];
    for e in 0..experts {
        for &t in &assignment.tokens[assignment.range(e)] {
            sums[t as usize] += m.p[t as usize * experts + e];
        }
    }
    let mut out = vec![0.0; m.x.len()];
    for e in 0..experts {
        let [w1, w2, w3] = m.w.map(|w| &w[e * size..(e + 1) * size]);
        for &t in &assignment.tokens[assignment.range(e)] {
            let t = t as usize;
            let x = &normal[t * hidden..(t + 1) * hidden];
            let (gate, up) = (project(x, w1, hidden), project(x, w3, hidden));
            let h: Vec<f64> = gate.iter().zip(&up).map(|(g, u)| g / (1.0 + (-g).exp()) * u).collect();
            let y = project(&h, w2, h.len());
            for (out, y) in out[t * hidden..].iter_mut().zip(y) {
                *out += m.p[t * experts + e] / sums[t] * y;
            }
        }
    }
    out
}

#[test]
fn sparse_experts_and_their_gradients_are_those_of_plain_loops() {
    for (tokens, hidden, intermediate, experts, top_k) in
        [(9, 6, 5, 4, 2), (20, 7, 19, 3, 1), (17, 5, 4, 5, 3)]
    {
        let x = random(1, tokens * hidden);
        let p: Vec<f32> = random(2, tokens * experts).iter().map(|x| x.abs() + 0.05).collect();
        let w = random(3, hidden);
        let [w1, w2, w3] = [4, 5, 6].map(|seed| random(seed, experts * intermediate * hidden));
        let dy = random(7, x.len());
        let assignment = assign(&p, experts, top_k);
        let all = [&x, &p, &w, &w1, &w2, &w3].map(|x| wide(x));
        let value = |at: [&[f64]; 6]| {
            let [x, p, norm, w1, w2, w3] = at;
            mixture(&Mixture { x, p, norm, w: [w1, w2, w3] }, experts, &assignment)
        };
        let at = all.each_ref().map(Vec::as_slice);
        let slope: Vec<Vec<f64>> = [&x, &p, &w, &w1, &w2, &w3]
            .iter()
            .enumerate()
            .map(|(i, input)| {
                slopes(input, |changed| {
                    let mut at = at;
                    at[i] = changed;
                    weighted(&value(at), &dy)
                })
            })
            .collect();
        everywhere(|on, what| {
            let weights = ExpertWeights { norm: &w, epsilon: EPSILON, w1: &w1, w2: &w2, w3: &w3, experts };
            let (mut products, mut scratch) = (ProductScratch::default(), ExpertScratch::default());
            let mut out = vec![0.0; x.len()];
            let mut saved = ExpertSaved::default();
            experts_forward(on, &x, &assignment, &weights, &mut out, &mut saved, &mut products, &mut scratch);
            close(&out, &value(at), 1e-5, what);
            // What is in the gradients before does not matter.
            let mut found = [&x, &p, &w, &w1, &w2, &w3].map(|x| vec![7.0; x.len()]);
            let [dx, dp, dnorm, dw1, dw2, dw3] = found.each_mut();
            let mut gradients = ExpertGradients { norm: dnorm, w1: dw1, w2: dw2, w3: dw3 };
            experts_backward(
                on,
                &x,
                &p,
                &assignment,
                &weights,
                &saved,
                &dy,
                dx,
                dp,
                &mut gradients,
                &mut products,
                &mut scratch,
            );
            // That of `x` comes with the residual's.
            found[0].iter_mut().zip(&dy).for_each(|(dx, dy)| *dx -= dy);
            for ((found, slope), name) in found.iter().zip(&slope).zip(["x", "p", "norm", "w1", "w2", "w3"]) {
                close(found, slope, 2e-5, &format!("{what}: {name}"));
            }
        });
    }
}

#[test]
fn the_loss_of_the_head_and_its_gradients_are_those_of_plain_loops() {
    let (tokens, hidden, vocabulary) = (300, 4, 37);
    let (x, w) = (random(1, tokens * hidden), random(2, vocabulary * hidden));
    let labels: Vec<i64> =
        (0..tokens as i64).map(|t| if t % 11 == 3 { -100 } else { t * 7 % vocabulary as i64 }).collect();
    let options = HeadOptions { scale: 0.01, z_loss: 0.3 };
    let value = |x: &[f64], w: &[f64]| {
        let logits = project(x, w, hidden);
        let mut loss = [0.0; 2];
        for (row, &label) in logits.chunks_exact(vocabulary).zip(&labels) {
            if label >= 0 {
                let lse = row.iter().map(|x| x.exp()).sum::<f64>().ln();
                loss[0] += 0.01 * (lse - row[label as usize]);
                loss[1] += 0.01 * f64::from(0.3f32) * lse * lse;
            }
        }
        loss
    };
    let (xw, ww) = (wide(&x), wide(&w));
    let sum = |x: &[f64], w: &[f64]| value(x, w).iter().sum::<f64>();
    let slope = [slopes(&x, |x| sum(x, &ww)), slopes(&w, |w| sum(&xw, w))];
    everywhere(|on, what| {
        let mut found = [vec![3.0; x.len()], vec![3.0; w.len()]];
        let gradients = Some(found.each_mut().map(Vec::as_mut_slice));
        let (mut products, mut scratch) = (ProductScratch::default(), HeadScratch::default());
        let loss = head_loss(on, &x, &w, hidden, &labels, &options, gradients, &mut products, &mut scratch);
        let [cross_entropy, z_loss] = value(&xw, &ww);
        assert!((loss.cross_entropy - cross_entropy).abs() < 1e-6 * cross_entropy, "{what}");
        assert!((loss.z_loss - z_loss).abs() < 1e-6 * z_loss, "{what}");
        for (found, slope) in found.iter().zip(&slope) {
            close(found, slope, 1e-5, what);
        }
        let alone = head_loss(on, &x, &w, hidden, &labels, &options, None, &mut products, &mut scratch);
        assert_eq!(alone, loss);
    });
}

#[test]
fn adamw_follows_its_formula() {
    let n = 5000;
    let (start, g) = (random(1, n), random(2, n));
    for isa in Isa::available() {
        let pool = Pool::new(2);
        let (mut p, mut m, mut v) = (start.clone(), vec![0.0; n], vec![0.0; n]);
        let (mut pw, mut mw, mut vw) = (wide(&start), vec![0.0f64; n], vec![0.0f64; n]);
        for step in 1..=4u32 {
            let options = AdamW {
                rate: 0.01,
                beta1: 0.9,
                beta2: 0.95,
                epsilon: 1e-8,
                decay: 0.1,
                gradient_scale: 0.5,
                step,
            };
            adamw_step(&pool, isa, &options, &g, &mut p, &mut m, &mut v);
            for i in 0..n {
                let g = 0.5 * f64::from(g[i]);
                mw[i] = 0.9 * mw[i] + 0.1 * g;
                vw[i] = 0.95 * vw[i] + 0.05 * g * g;
                let (first, second) = (1.0 - 0.9f64.powi(step as i32), 1.0 - 0.95f64.powi(step as i32));
                pw[i] -= 0.01 * 0.1 * pw[i] + 0.01 * (mw[i] / first) / ((vw[i] / second).sqrt() + 1e-8);
            }
        }
        close(&p, &pw, 1e-5, "parameters");
        close(&v, &vw, 1e-5, "mean squares");
    }
}

#[test]
fn gradients_have_the_same_bits_for_any_number_of_threads() {
    let (tokens, hidden, intermediate, experts) = (300, 32, 48, 4);
    let x = random(1, tokens * hidden);
    let p: Vec<f32> = random(2, tokens * experts).iter().map(|x| x.abs() + 0.05).collect();
    let w = random(3, hidden);
    let [w1, w2, w3] = [4, 5, 6].map(|seed| random(seed, experts * intermediate * hidden));
    let dy = random(7, x.len());
    let assignment = assign(&p, experts, 2);
    let run = |threads| {
        let pool = Pool::new(threads);
        let on = Product { pool: &pool, isa: Isa::best(), compute: Compute::F32 };
        let weights = ExpertWeights { norm: &w, epsilon: EPSILON, w1: &w1, w2: &w2, w3: &w3, experts };
        let (mut products, mut scratch) = (ProductScratch::default(), ExpertScratch::default());
        let mut out = vec![0.0; x.len()];
        let mut saved = ExpertSaved::default();
        let (products, scratch) = (&mut products, &mut scratch);
        experts_forward(&on, &x, &assignment, &weights, &mut out, &mut saved, products, scratch);
        let mut found = [&x, &p, &w, &w1, &w2, &w3].map(|x| vec![0.0; x.len()]);
        let [dx, dp, dnorm, dw1, dw2, dw3] = found.each_mut();
        let mut gradients = ExpertGradients { norm: dnorm, w1: dw1, w2: dw2, w3: dw3 };
        experts_backward(
            &on,
            &x,
            &p,
            &assignment,
            &weights,
            &saved,
            &dy,
            dx,
            dp,
            &mut gradients,
            products,
            scratch,
        );
        (out, found)
    };
    let one = run(1);
    assert_eq!(one, run(2));
    assert_eq!(one, run(4));
}
