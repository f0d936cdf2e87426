//! The output layer and its cross-entropy, with gradients, some tokens at a time: no `[tokens, vocabulary]` in memory.

use super::product::{Operand, Product, ProductScratch};
use crate::{
    buffer::Buffer,
    pool::SharedMut,
    simd::{Simd, dispatch},
};

/// Tokens whose logits exist at a time.
const CHUNK: usize = 256;

/// A label that is not counted.
const IGNORED: i64 = -100;

/// How the loss is made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HeadOptions {
    /// The sum over targets is multiplied with this: one over the targets of the whole batch.
    pub scale: f32,
    /// Coefficient of the z-loss, the mean square of the logarithm of the sum of exponentials.
    pub z_loss: f32,
}

/// The parts of the loss, both scaled by [`HeadOptions::scale`], in double precision.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct HeadLoss {
    /// Cross-entropy.
    pub cross_entropy: f64,
    /// z-loss, its coefficient included.
    pub z_loss: f64,
}

/// Buffers that calls reuse.
#[derive(Default)]
pub struct HeadScratch {
    logits: Buffer,
}

/// Cross-entropy of `x weightᵀ` with `labels`; −100 is not counted. With `gradients`, adds those of `x` and `weight`.
///
/// `x` is `[tokens, hidden]`, `weight` `[vocabulary, hidden]`, `labels` `[tokens]`: the id that each token is to predict.
///
/// # Panics
/// When lengths do not fit or a label is not an id.
pub fn head_loss(
    run: &Product<'_>,
    x: &[f32],
    weight: &[f32],
    hidden: usize,
    labels: &[i64],
    options: &HeadOptions,
    mut gradients: Option<[&mut [f32]; 2]>,
    products: &mut ProductScratch,
    scratch: &mut HeadScratch,
) -> HeadLoss {
    let vocabulary = weight.len() / hidden;
    assert!(x.len() == labels.len() * hidden && weight.len() == vocabulary * hidden);
    if let Some([dx, dweight]) = &gradients {
        assert!(dx.len() == x.len() && dweight.len() == weight.len());
    }
    let targets: Vec<u32> = (0..labels.len() as u32).filter(|&t| labels[t as usize] != IGNORED).collect();
    assert!(targets.iter().all(|&t| (0..vocabulary as i64).contains(&labels[t as usize])));
    scratch.logits.reserve(targets.len().min(CHUNK) * vocabulary);
    let mut loss = HeadLoss::default();
    let mut parts = [[0.0f64; 2]; CHUNK];
    for rows in targets.chunks(CHUNK) {
        let logits = &mut scratch.logits[..rows.len() * vocabulary];
        let input = Operand::rows(x, labels.len(), hidden).gathered(rows);
        run.write(input, Operand::rows(weight, vocabulary, hidden), logits, false, products);
        let (shared, sums) = (SharedMut::new(logits), SharedMut::new(&mut parts));
        run.pool.for_ranges(rows.len(), 4, |_, range| {
            for r in range {
                // SAFETY: each row belongs to one thread; `isa` is available on this CPU.
                unsafe {
                    let logits = shared.slice(r * vocabulary, vocabulary);
                    let label = labels[rows[r] as usize] as usize;
                    let at_label = logits[label];
                    let lse = softmax_row(run.isa, logits);
                    let z = 2.0 * options.z_loss * lse;
                    if z != 0.0 {
                        logits.iter_mut().for_each(|p| *p *= options.scale * (1.0 + z));
                    } else {
                        logits.iter_mut().for_each(|p| *p *= options.scale);
                    }
                    logits[label] -= options.scale;
                    let z = f64::from(options.z_loss) * f64::from(lse) * f64::from(lse);
                    sums.slice(r, 1)[0] = [f64::from(lse) - f64::from(at_label), z];
                }
            }
        });
        for [cross_entropy, z] in &parts[..rows.len()] {
            loss.cross_entropy += cross_entropy * f64::from(options.scale);
            loss.z_loss += z * f64::from(options.scale);
        }
        if let Some([dx, dweight]) = &mut gradients {
            let weight = Operand::columns(weight, vocabulary, hidden);
            run.scatter_add(Operand::rows(logits, rows.len(), vocabulary), weight, rows, None, dx, products);
            let input = Operand::columns(x, labels.len(), hidden).gathered(rows);
            run.write(Operand::columns(logits, rows.len(), vocabulary), input, dweight, true, products);
        }
    }
    loss
}

dispatch! {
    unsafe fn softmax_row(x: &mut [f32]) -> f32 = softmax_row_kernel;
}

/// Softmax in place; returns the logarithm of the sum of exponentials.
#[inline(always)]
unsafe fn softmax_row_kernel<S: Simd>(x: &mut [f32]) -> f32 {
    let n = x.len();
    let mut largest = f32::NEG_INFINITY;
    let mut i = 0;
    if n >= S::LANES {
        let mut most = S::load(x.as_ptr());
        while i + S::LANES <= n {
            most = S::max(most, S::load(x.as_ptr().add(i)));
            i += S::LANES;
        }
        largest = S::max_lane(most);
    }
    for &x in &x[i..] {
        largest = largest.max(x);
    }
    let mut sums = S::splat(0.0);
    let mut rest = 0.0f32;
    i = 0;
    while i < n {
        let p = x.as_mut_ptr().add(i);
        if n - i >= S::LANES {
            let e = S::exp(S::sub(S::load(p), S::splat(largest)));
            sums = S::add(sums, e);
            S::store(p, e);
        } else {
            for j in 0..n - i {
                *p.add(j) = (*p.add(j) - largest).exp();
                rest += *p.add(j);
            }
        }
        i += S::LANES;
    }
    let sum = S::sum(sums) + rest;
    let scale = 1.0 / sum;
    for x in x.iter_mut() {
        *x *= scale;
    }
    largest + sum.ln()
}
