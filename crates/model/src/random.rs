//! Checkpoints of random weights, for measuring speed without real ones.

use crate::{Dtype, MixtralConfig, TensorSource, WriteError, names, write_checkpoint};
use std::{borrow::Cow, path::Path};

/// Writes a checkpoint of `config` with seeded weights: normal with deviation 0.02, normalisations 1.
///
/// # Errors
/// When the disk refuses.
pub fn random_checkpoint(
    dir: &Path,
    config: &MixtralConfig,
    dtype: Dtype,
    seed: u64,
) -> Result<(), WriteError> {
    let tensors = names::expected(config)
        .into_iter()
        .enumerate()
        .map(|(i, expected)| {
            let (count, norm) = (expected.shape.iter().product::<usize>(), expected.shape.len() == 1);
            let bytes = move || {
                let values: Vec<f32> = if norm {
                    vec![1.0; count]
                } else {
                    normal_values(seed ^ (i as u64 + 1) << 32, 0.02, count)
                };
                Cow::Owned(to_bytes(&values, dtype))
            };
            TensorSource { name: expected.name, dtype, shape: expected.shape, bytes: Box::new(bytes) }
        })
        .collect();
    write_checkpoint(dir, config, dtype, tensors, u64::MAX, &[])
}

/// Numbers as stored, little-endian, rounded to `dtype`.
pub(crate) fn to_bytes(values: &[f32], dtype: Dtype) -> Vec<u8> {
    match dtype {
        Dtype::BF16 => values.iter().flat_map(|&x| half::bf16::from_f32(x).to_le_bytes()).collect(),
        Dtype::F16 => values.iter().flat_map(|&x| half::f16::from_f32(x).to_le_bytes()).collect(),
        _ => values.iter().flat_map(|x| x.to_le_bytes()).collect(),
    }
}

/// About normal numbers of that deviation: sums of eight bytes of a SplitMix64 stream (Irwin–Hall), which is close
/// enough for weights and fast.
pub fn normal_values(seed: u64, deviation: f32, count: usize) -> Vec<f32> {
    let mut state = seed;
    // A byte's variance is (256² − 1) / 12; of eight, 43690.
    let scale = deviation / (8.0f32 * 65_535.0 / 12.0).sqrt();
    (0..count)
        .map(|_| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^= z >> 31;
            let sum: u32 = z.to_le_bytes().iter().map(|&b| u32::from(b)).sum();
            (sum as f32 - 1020.0) * scale
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_numbers_have_the_deviation_asked_for() {
        let values = normal_values(7, 0.02, 100_000);
        let mean = values.iter().sum::<f32>() / values.len() as f32;
        let variance = values.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / values.len() as f32;
        assert!(mean.abs() < 5e-4 && (variance.sqrt() - 0.02).abs() < 5e-4, "{mean} {}", variance.sqrt());
    }
}
