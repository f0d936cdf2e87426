//! Muon (Jordan et al. 2024): steps along the orthogonal matrix that is nearest to the momentum, found by Newton–Schulz
//! iteration.

use super::product::{Operand, Product, ProductScratch};
use crate::pool::SharedMut;

/// What a step of Muon does to a matrix.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Muon {
    /// Learning rate, on the scale of AdamW's: the update is `0.2 √max(rows, columns)` times an orthogonal matrix, whose
    /// entries have about the root mean square of AdamW's updates (Liu et al. 2025).
    pub rate: f32,
    /// Decay of the mean of gradients; the step looks one gradient ahead (Nesterov).
    pub momentum: f32,
    /// Weight decay, times the rate, decoupled from the gradient.
    pub decay: f32,
    /// Gradients are multiplied with this first (clipping by norm): it weighs them in the momentum.
    pub gradient_scale: f32,
}

/// Coefficients of the quintic iteration that the authors of Muon chose: singular values come to lie between 0.7 and 1.2.
pub const COEFFICIENTS: [f32; 3] = [3.4445, -4.7750, 2.0315];

/// Iterations: enough for singular values down to a thousandth of the largest.
pub const ITERATIONS: usize = 5;

/// Buffers that calls reuse.
#[derive(Default)]
pub struct MuonScratch {
    gram: Vec<f32>,
    polynomial: Vec<f32>,
    next: Vec<f32>,
}

/// Numbers that a thread takes at a time.
const GRAIN: usize = 1 << 14;

/// One step on matrices of `[rows, cols]` that lie one below the other: changes parameters and `momentum`; `gradient` is used
/// up. The scale of gradients, the same at all steps, does not matter.
///
/// # Panics
/// When lengths differ or are no multiple of the shape.
pub fn muon_step(
    on: &Product<'_>,
    options: &Muon,
    [rows, cols]: [usize; 2],
    gradient: &mut [f32],
    parameters: &mut [f32],
    momentum: &mut [f32],
    products: &mut ProductScratch,
    scratch: &mut MuonScratch,
) {
    let (n, size) = (parameters.len(), rows * cols);
    assert!(size > 0 && n.is_multiple_of(size) && gradient.len() == n && momentum.len() == n);
    let Muon { rate, momentum: mu, decay, gradient_scale } = *options;
    {
        let (g, m) = (SharedMut::new(gradient), SharedMut::new(momentum));
        on.pool.for_ranges(n, GRAIN, |_, range| {
            // SAFETY: ranges are disjoint and within the equal lengths.
            let (g, m) = unsafe { (g.slice(range.start, range.len()), m.slice(range.start, range.len())) };
            for (g, m) in g.iter_mut().zip(m) {
                let x = *g * gradient_scale;
                *m = mu * *m + (1.0 - mu) * x;
                *g = mu * *m + (1.0 - mu) * x;
            }
        });
    }
    for matrix in gradient.chunks_exact_mut(size) {
        orthogonalise(on, matrix, rows, cols, products, scratch);
    }
    let (keep, step) = (1.0 - rate * decay, rate * 0.2 * (rows.max(cols) as f32).sqrt());
    let (gradient, p) = (&*gradient, SharedMut::new(parameters));
    on.pool.for_ranges(n, GRAIN, |_, range| {
        // SAFETY: as above.
        let p = unsafe { p.slice(range.start, range.len()) };
        for (p, update) in p.iter_mut().zip(&gradient[range]) {
            *p = keep * *p - step * update;
        }
    });
}

/// Replaces `x` `[rows, cols]` by `U Vᵀ` (about) of its singular value decomposition `U S Vᵀ`; a matrix of zeros stays.
///
/// # Panics
/// When the length is not that of the shape.
fn orthogonalise(
    on: &Product<'_>,
    x: &mut [f32],
    rows: usize,
    cols: usize,
    products: &mut ProductScratch,
    scratch: &mut MuonScratch,
) {
    assert_eq!(x.len(), rows * cols);
    let norm = x.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt();
    if norm == 0.0 || !norm.is_finite() {
        return;
    }
    let scale = (1.0 / norm) as f32;
    x.iter_mut().for_each(|x| *x *= scale);
    let [a, b, c] = COEFFICIENTS;
    // The Gram matrix is of the shorter side.
    let wide = rows <= cols;
    let side = rows.min(cols);
    scratch.gram.resize(side * side, 0.0);
    scratch.polynomial.resize(side * side, 0.0);
    scratch.next.resize(x.len(), 0.0);
    for _ in 0..ITERATIONS {
        let both = if wide { Operand::rows(x, rows, cols) } else { Operand::columns(x, rows, cols) };
        on.write(both, both, &mut scratch.gram, false, products);
        // The Gram matrix is symmetric: its rows are its columns.
        let gram = Operand::rows(&scratch.gram, side, side);
        on.write(gram, gram, &mut scratch.polynomial, false, products);
        for (p, g) in scratch.polynomial.iter_mut().zip(&scratch.gram) {
            *p = b * g + c * *p;
        }
        let polynomial = Operand::rows(&scratch.polynomial, side, side);
        if wide {
            on.write(polynomial, Operand::columns(x, rows, cols), &mut scratch.next, false, products);
        } else {
            on.write(Operand::rows(x, rows, cols), polynomial, &mut scratch.next, false, products);
        }
        for (x, next) in x.iter_mut().zip(&scratch.next) {
            *x = a * *x + next;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Isa, Pool, train::Compute};

    #[test]
    fn rows_or_columns_become_nearly_orthonormal_and_keep_their_directions() {
        for (rows, cols) in [(6, 6), (5, 17), (40, 12), (1, 9)] {
            let original: Vec<f32> =
                (0..rows * cols).map(|i| ((i * i * 31 + 7 * i) % 97) as f32 - 48.0).collect();
            let mut results = Vec::new();
            for threads in [1, 3] {
                let pool = Pool::new(threads);
                let on = Product { pool: &pool, isa: Isa::best(), compute: Compute::F32 };
                let mut x = original.clone();
                orthogonalise(
                    &on,
                    &mut x,
                    rows,
                    cols,
                    &mut ProductScratch::default(),
                    &mut MuonScratch::default(),
                );
                results.push(x);
            }
            assert_eq!(results[0], results[1]);
            let x = &results[0];
            let side = rows.min(cols);
            let dot = |m: &[f32], i: usize, j: usize| -> f64 {
                if rows <= cols {
                    (0..cols).map(|k| f64::from(m[i * cols + k]) * f64::from(m[j * cols + k])).sum()
                } else {
                    (0..rows).map(|k| f64::from(m[k * cols + i]) * f64::from(m[k * cols + j])).sum()
                }
            };
            // Singular values between 0.6 and 1.3: the Gram matrix is near the identity.
            for i in 0..side {
                assert!((0.4..1.6).contains(&dot(x, i, i)), "{rows}x{cols}: {}", dot(x, i, i));
            }
            let inner: f64 = x.iter().zip(&original).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
            assert!(inner > 0.0);
        }
    }

    #[test]
    fn a_step_goes_against_the_gradient_by_the_rate_whatever_its_scale() {
        let pool = Pool::new(2);
        let on = Product { pool: &pool, isa: Isa::best(), compute: Compute::F32 };
        let options = Muon { rate: 0.01, momentum: 0.9, decay: 0.1, gradient_scale: 1.0 };
        // Two matrices, one below the other; the second one's gradient is a thousand times larger.
        let gradient: Vec<f32> =
            (0..8).map(|i| [3.0, 0.0, 0.0, 2.0][i % 4] * if i < 4 { 1.0 } else { 1e3 }).collect();
        let (mut p, mut m) = (vec![1.0f32; 8], vec![0.0f32; 8]);
        let mut scratch = (ProductScratch::default(), MuonScratch::default());
        muon_step(
            &on,
            &options,
            [2, 2],
            &mut gradient.clone(),
            &mut p,
            &mut m,
            &mut scratch.0,
            &mut scratch.1,
        );
        for (i, (p, m)) in p.iter().zip(&m).enumerate() {
            assert!((m - 0.1 * gradient[i]).abs() <= 1e-6 * gradient[i].abs());
            let step = 0.999 - p;
            let size = 0.01 * 0.2 * 2f32.sqrt();
            let expected = if gradient[i] == 0.0 { 0.0..0.05 } else { 0.6..1.3 };
            assert!(expected.contains(&(step / size).abs()) && step >= -1e-6, "{i}: {step} {size}");
        }
        assert!((p[0] - p[4]).abs() < 1e-6);
    }

    #[test]
    fn zeros_stay_zeros() {
        let pool = Pool::new(1);
        let on = Product { pool: &pool, isa: Isa::best(), compute: Compute::F32 };
        let mut x = vec![0.0; 12];
        orthogonalise(&on, &mut x, 3, 4, &mut ProductScratch::default(), &mut MuonScratch::default());
        assert!(x.iter().all(|&x| x == 0.0));
    }
}
