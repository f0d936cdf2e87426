//! The output layer and its cross-entropy, with gradients, some tokens at a time: no `[tokens, vocabulary]` in memory.
//!
//! Logits of a few tokens exist in `f32` while they are in the cache; the gradients of logits of more tokens are kept as
//! products take them, so that the gradient of the weights is passed over few times. The weights are packed once.

use super::{
    arithmetic::Compute,
    attention::largest,
    product::{Epilogue, Operand, Packed, Product, ProductScratch, Scatter, Side, Strip, Sums, Write},
    rows::fill,
    stored::Stored,
};
use crate::{
    buffer::Buffer,
    pool::SharedMut,
    simd::{Simd, dispatch},
};
use half::bf16;

/// Logits that exist at a time, in `f32`.
const LOGITS: usize = 1 << 22;

/// Gradients of logits that exist at a time.
const SLOPES: usize = 1 << 24;

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
    floats: Vec<f32>,
    halves: Vec<bf16>,
    /// The weights, with the vocabulary as lanes and with the hidden size as lanes.
    panels: Packed,
    columns: Packed,
}

/// Cross-entropy of `x weightᵀ` with `labels`; −100 is not counted. With `gradients`, writes those of `x` and `weight`.
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
    gradients: Option<[&mut [f32]; 2]>,
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
    let HeadScratch { logits, floats, halves, panels, columns } = scratch;
    let head = Head { run, x, weight, hidden, vocabulary, labels, options: *options };
    match run.compute {
        Compute::F32 => head.loss(&targets, gradients, products, logits, floats, [panels, columns]),
        Compute::Bf16 => head.loss(&targets, gradients, products, logits, halves, [panels, columns]),
    }
}

struct Head<'a> {
    run: &'a Product<'a>,
    x: &'a [f32],
    weight: &'a [f32],
    hidden: usize,
    vocabulary: usize,
    labels: &'a [i64],
    options: HeadOptions,
}

impl Head<'_> {
    fn loss<T: Stored>(
        &self,
        targets: &[u32],
        mut gradients: Option<[&mut [f32]; 2]>,
        products: &mut ProductScratch,
        logits: &mut Buffer,
        slopes: &mut Vec<T>,
        [panels, columns]: [&mut Packed; 2],
    ) -> HeadLoss {
        let (run, hidden, vocabulary) = (self.run, self.hidden, self.vocabulary);
        let chunk = (LOGITS / vocabulary).clamp(32, 512);
        let group = (SLOPES / vocabulary / chunk).max(1) * chunk;
        logits.reserve(targets.len().min(chunk) * vocabulary);
        run.pack(Side::Right, &[&[Operand::rows(self.weight, vocabulary, hidden)]], panels);
        if let Some([dx, dweight]) = &mut gradients {
            run.pack(Side::Right, &[&[Operand::columns(self.weight, vocabulary, hidden)]], columns);
            fill(run.pool, dx, 0.0);
            if targets.is_empty() {
                fill(run.pool, dweight, 0.0);
            }
            let size = targets.len().min(group) * vocabulary;
            if slopes.len() < size {
                slopes.resize(size, T::default());
            }
        }
        let mut loss = HeadLoss::default();
        for (i, group) in targets.chunks(group).enumerate() {
            for (j, rows) in group.chunks(chunk).enumerate() {
                let slopes = gradients.is_some().then(|| &mut slopes[j * chunk * vocabulary..]);
                self.chunk(rows, logits, panels, slopes, products, &mut loss);
            }
            if let Some([dx, dweight]) = &mut gradients {
                let ProductScratch { left, right, sums } = &mut *products;
                let slopes = &slopes[..group.len() * vocabulary];
                run.pack(Side::Left, &[&[Operand::stored_rows(slopes, group.len(), vocabulary)]], left);
                run.multiply(left, columns, &Scatter::new(dx, hidden, group, None), sums);
                // The vocabulary as lanes: whole cache lines of the slopes are packed at a time.
                let input = Operand::columns(self.x, self.labels.len(), hidden).gathered(group);
                run.pack(Side::Left, &[&[input]], left);
                run.pack(Side::Right, &[&[Operand::stored_columns(slopes, group.len(), vocabulary)]], right);
                let out = SharedMut::new(dweight);
                run.multiply(left, right, &Transposed { out, cols: hidden, add: i > 0 }, sums);
            }
        }
        loss
    }

    /// Adds the loss of some rows, and makes the gradients of their logits.
    fn chunk<T: Stored>(
        &self,
        rows: &[u32],
        logits: &mut Buffer,
        panels: &Packed,
        slopes: Option<&mut [T]>,
        products: &mut ProductScratch,
        loss: &mut HeadLoss,
    ) {
        let Self { run, x, hidden, vocabulary, labels, options, .. } = *self;
        let logits = &mut logits[..rows.len() * vocabulary];
        let mut parts = vec![[0.0f64; 2]; rows.len()];
        let ProductScratch { left, sums, .. }: &mut ProductScratch = products;
        let sums: &mut Sums = sums;
        run.pack(Side::Left, &[&[Operand::rows(x, labels.len(), hidden).gathered(rows)]], left);
        let out = [(SharedMut::new(logits), vocabulary)];
        run.multiply(left, panels, &Write { out: &out, pieces: 1, add: false }, sums);
        let (shared, totals) = (SharedMut::new(logits), SharedMut::new(&mut parts));
        let slopes = slopes.map(|slopes| SharedMut::new(&mut slopes[..rows.len() * vocabulary]));
        run.pool.for_ranges(rows.len(), 1, |_, range| {
            for r in range {
                let label = labels[rows[r] as usize] as usize;
                // SAFETY: each row belongs to one thread; `isa` is available on this CPU.
                unsafe {
                    let logits = shared.slice(r * vocabulary, vocabulary);
                    let at_label = logits[label];
                    let (lse, sum) = exponentials(run.isa, logits);
                    let z = f64::from(options.z_loss) * f64::from(lse) * f64::from(lse);
                    totals.slice(r, 1)[0] = [f64::from(lse) - f64::from(at_label), z];
                    if let Some(slopes) = slopes {
                        let factor = options.scale * (1.0 + 2.0 * options.z_loss * lse) / sum;
                        let slopes = slopes.slice(r * vocabulary, vocabulary);
                        scale_row::<T>(run.isa, logits, factor, label, options.scale, slopes);
                    }
                }
            }
        });
        for [cross_entropy, z] in &parts {
            loss.cross_entropy += cross_entropy * f64::from(options.scale);
            loss.z_loss += z * f64::from(options.scale);
        }
    }
}

/// `out[j, i] = sum[i, j]`, or `+=`.
struct Transposed {
    out: SharedMut<f32>,
    cols: usize,
    add: bool,
}

impl Epilogue for Transposed {
    #[inline(always)]
    unsafe fn tile<S: Simd>(&self, left: &Strip, right: &Strip, sums: *const f32, _: *const f32) {
        let n = left.rows;
        let mut c = 0;
        while c < right.rows {
            // A tile has no more rows than a vector has lanes.
            let mut block = [S::splat(0.0); 16];
            for (r, v) in block[..n].iter_mut().enumerate() {
                *v = S::load(sums.add(r * 2 * S::LANES + c));
            }
            S::transpose(&mut block);
            for (j, v) in block[..S::LANES.min(right.rows - c)].iter().enumerate() {
                let at = (right.first + c + j) * self.cols + left.first;
                let out = self.out.slice(at, n).as_mut_ptr();
                let v = if self.add { S::add(f32::load::<S>(out, n), *v) } else { *v };
                f32::store::<S>(out, v, n);
            }
            c += S::LANES;
        }
    }
}

dispatch! {
    unsafe fn exponentials(x: &mut [f32]) -> (f32, f32) = exponentials_kernel;
}

/// `e^(x − largest)` in place; returns the logarithm of the sum of all `e^x`, and the sum of the new numbers.
#[inline(always)]
unsafe fn exponentials_kernel<S: Simd>(x: &mut [f32]) -> (f32, f32) {
    let n = x.len();
    let most = largest::<S>(x);
    let p = x.as_mut_ptr();
    let mut sums = [S::splat(0.0); 2];
    let mut i = 0;
    while i + 2 * S::LANES <= n {
        for (j, sum) in sums.iter_mut().enumerate() {
            let p = p.add(i + j * S::LANES);
            let e = S::exp(S::sub(S::load(p), S::splat(most)));
            *sum = S::add(*sum, e);
            S::store(p, e);
        }
        i += 2 * S::LANES;
    }
    let mut rest = 0.0f32;
    for x in &mut x[i..] {
        *x = (*x - most).exp();
        rest += *x;
    }
    let sum = S::sum(S::add(sums[0], sums[1])) + rest;
    (most + sum.ln(), sum)
}

dispatch! {
    unsafe fn scale_row<T: Stored>(x: &mut [f32], factor: f32, label: usize, less: f32, out: &mut [T]) = scale_row_kernel;
}

/// `out = factor · x`, `less` taken off at `label`.
#[inline(always)]
unsafe fn scale_row_kernel<S: Simd, T: Stored>(
    x: &mut [f32],
    factor: f32,
    label: usize,
    less: f32,
    out: &mut [T],
) {
    let (n, p) = (x.len(), x.as_ptr());
    // Taken off before the rounding.
    x[label] -= less / factor;
    let mut i = 0;
    while i < n {
        T::store::<S>(
            out.as_mut_ptr().add(i),
            S::mul(S::splat(factor), f32::load::<S>(p.add(i), n - i)),
            n - i,
        );
        i += S::LANES;
    }
}
