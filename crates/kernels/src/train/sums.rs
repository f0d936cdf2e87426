//! Sums over whole gradients: the norm, and micro-batches added up.

use crate::{Pool, pool::SharedMut};

/// Numbers that make one part of a sum.
const PART: usize = 1 << 14;

/// Lanes of a part's sums: the same for every instruction set, so that the bits are.
const LANES: usize = 16;

/// `Σ x²` in double precision over parts of fixed size: the same bits for any number of threads.
pub fn sum_of_squares(pool: &Pool, x: &[f32]) -> f64 {
    let mut parts = vec![0.0f64; x.len().div_ceil(PART)];
    let shared = SharedMut::new(&mut parts);
    pool.for_ranges(x.len().div_ceil(PART), 1, |_, range| {
        for part in range {
            let numbers = &x[part * PART..x.len().min((part + 1) * PART)];
            // SAFETY: each part has its own place, and ranges are disjoint.
            let out = unsafe { shared.slice(part, 1) };
            out[0] = squares(numbers);
        }
    });
    parts.iter().sum()
}

fn squares(x: &[f32]) -> f64 {
    let mut total = 0.0f64;
    // Short runs, so that single precision keeps their sums.
    for run in x.chunks(LANES * 64) {
        let mut lanes = [0.0f32; LANES];
        let (whole, rest) = run.as_chunks::<LANES>();
        for block in whole {
            for (lane, x) in lanes.iter_mut().zip(block) {
                *lane += x * x;
            }
        }
        for (lane, x) in lanes.iter_mut().zip(rest) {
            *lane += x * x;
        }
        total += lanes.iter().map(|&x| f64::from(x)).sum::<f64>();
    }
    total
}

/// `sum += x`.
///
/// # Panics
/// When lengths differ.
pub fn add_to(pool: &Pool, x: &[f32], sum: &mut [f32]) {
    assert_eq!(x.len(), sum.len());
    let n = sum.len();
    let sum = SharedMut::new(sum);
    pool.for_ranges(n, PART, |_, range| {
        // SAFETY: ranges are disjoint and within the equal lengths.
        let sum = unsafe { sum.slice(range.start, range.len()) };
        for (sum, x) in sum.iter_mut().zip(&x[range]) {
            *sum += x;
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_those_of_plain_loops_for_any_number_of_threads() {
        for n in [0, 1, 15, 16, 17, PART - 1, PART, 3 * PART + 5] {
            let x: Vec<f32> = (0..n).map(|i| ((i * 37 % 101) as f32 - 50.0) / 10.0).collect();
            let expected: f64 = x.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
            let found = [1, 2, 5].map(|threads| sum_of_squares(&Pool::new(threads), &x));
            assert_eq!(found[0].to_bits(), found[1].to_bits());
            assert_eq!(found[0].to_bits(), found[2].to_bits());
            assert!((found[0] - expected).abs() <= 1e-6 * expected, "{n}: {} {expected}", found[0]);
            let mut sum = vec![1.0f32; n];
            add_to(&Pool::new(2), &x, &mut sum);
            assert!(sum.iter().zip(&x).all(|(sum, x)| *sum == 1.0 + x));
        }
    }
}
