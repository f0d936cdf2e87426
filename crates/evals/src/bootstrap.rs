//! Percentile bootstrap intervals over documents (Efron & Tibshirani, *An Introduction to the Bootstrap*, 1993, chapter 13).
//!
//! Documents are the units: tokens of one document depend on each other, so that intervals over tokens would be too narrow.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

/// How intervals are made.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bootstrap {
    /// Times that units are drawn anew; 0 for no intervals.
    pub resamples: usize,
    /// The share of resamples that the interval holds.
    pub level: f64,
    /// What makes the draws repeatable.
    pub seed: u64,
}

impl Default for Bootstrap {
    fn default() -> Self {
        Self { resamples: 1000, level: 0.95, seed: 0 }
    }
}

/// A value and its interval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// The value; null when it is not a number, or beyond all.
    #[serde(deserialize_with = "not_a_number_as_null")]
    pub value: f64,
    /// Lower end; none where there are fewer than two units.
    pub low: Option<f64>,
    /// Upper end.
    pub high: Option<f64>,
}

fn not_a_number_as_null<'d, D: serde::Deserializer<'d>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(f64::NAN))
}

impl Estimate {
    /// Value and interval by a function that grows.
    pub fn map(&self, f: impl Fn(f64) -> f64) -> Self {
        Self { value: f(self.value), low: self.low.map(&f), high: self.high.map(&f) }
    }
}

impl Bootstrap {
    /// Draws units anew, group by group (a group keeps its number of units), and gives for each of the `statistics` its value
    /// on all units and its interval. `statistics` is handed how often each unit of each group was drawn.
    pub fn estimates(&self, groups: &[usize], statistics: impl Fn(&[Vec<u32>]) -> Vec<f64>) -> Vec<Estimate> {
        let mut weights: Vec<Vec<u32>> = groups.iter().map(|&units| vec![1; units]).collect();
        let values = statistics(&weights);
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        let mut drawn: Vec<Vec<f64>> = vec![Vec::with_capacity(self.resamples); values.len()];
        let enough = groups.iter().any(|&units| units > 1);
        for _ in 0..if enough { self.resamples } else { 0 } {
            for group in weights.iter_mut().filter(|group| !group.is_empty()) {
                group.fill(0);
                for _ in 0..group.len() {
                    let unit = rng.random_range(0..group.len());
                    group[unit] += 1;
                }
            }
            for (all, value) in drawn.iter_mut().zip(statistics(&weights)) {
                all.push(value);
            }
        }
        values
            .into_iter()
            .zip(drawn)
            .map(|(value, mut all)| {
                all.retain(|x| x.is_finite());
                all.sort_unstable_by(f64::total_cmp);
                let at = |share: f64| {
                    let place = share * all.len().saturating_sub(1) as f64;
                    all.get(place.round() as usize).copied()
                };
                let tail = (1.0 - self.level) / 2.0;
                Estimate { value, low: at(tail), high: at(1.0 - tail) }
            })
            .collect()
    }

    /// The mean of `values` and its interval.
    pub fn mean(&self, values: &[f64]) -> Estimate {
        let mean = |weights: &[Vec<u32>]| {
            let drawn = weights.first().map(Vec::as_slice).unwrap_or_default();
            let (mut sum, mut n) = (0.0, 0u32);
            for (value, &times) in values.iter().zip(drawn) {
                sum += value * f64::from(times);
                n += times;
            }
            vec![sum / f64::from(n)]
        };
        self.estimates(&[values.len()], mean).first().copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_of_a_mean_is_near_that_of_the_normal_distribution() {
        // 0 and 1, 200 each: standard error of the mean 0.025.
        let values: Vec<f64> = (0..400).map(|n| f64::from(n % 2)).collect();
        let estimate = Bootstrap { resamples: 4000, ..Bootstrap::default() }.mean(&values);
        assert_eq!(estimate.value, 0.5);
        assert!((estimate.low.unwrap() - 0.451).abs() < 0.006, "{estimate:?}");
        assert!((estimate.high.unwrap() - 0.549).abs() < 0.006, "{estimate:?}");
    }

    #[test]
    fn one_unit_has_no_interval_and_the_same_seed_gives_the_same() {
        let bootstrap = Bootstrap::default();
        assert_eq!(bootstrap.mean(&[3.0]), Estimate { value: 3.0, low: None, high: None });
        assert_eq!(bootstrap.mean(&[1.0, 2.0, 4.0]), bootstrap.mean(&[1.0, 2.0, 4.0]));
        assert!(bootstrap.mean(&[]).value.is_nan());
    }

    #[test]
    fn groups_keep_their_sizes() {
        let sums = |weights: &[Vec<u32>]| weights.iter().map(|g| f64::from(g.iter().sum::<u32>())).collect();
        for (estimate, size) in Bootstrap::default().estimates(&[5, 1, 0], sums).iter().zip([5.0, 1.0, 0.0]) {
            assert_eq!((estimate.value, estimate.low, estimate.high), (size, Some(size), Some(size)));
        }
    }
}
