//! The loss and gradient of a global batch.

use blackletter_model::{
    MixtralConfig,
    decoder::{Batch, Decoder, Device, IGNORED, LossOptions, Tensor},
};
use blackletter_trainer::step::GlobalGradient;

fn config() -> MixtralConfig {
    MixtralConfig {
        vocab_size: 61,
        hidden_size: 16,
        intermediate_size: 20,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: 8,
        ..MixtralConfig::geometry("kl3m-002-520m").unwrap()
    }
}

/// Rows of ten tokens, each with another number of targets.
fn rows(range: std::ops::Range<u32>) -> Batch {
    let (mut ids, mut targets) = (vec![], vec![]);
    for row in range.clone() {
        for i in 0..10 {
            ids.push(3 + (row * 7 + i * i * 5) % 58);
            targets.push(if i < 2 + row { i64::from(3 + (row + i * 11) % 58) } else { IGNORED });
        }
    }
    let count = range.len() * 10;
    let positions = range.flat_map(|_| 0..10).collect();
    Batch::new(10, ids, positions, vec![1; count], targets, 61).unwrap()
}

fn numbers(tensor: &Tensor<2>) -> Vec<f32> {
    tensor.clone().into_data().iter::<f32>().collect()
}

#[test]
fn cross_entropy_and_its_gradient_do_not_depend_on_how_rows_are_dealt_out() {
    let decoder = Decoder::random(&config(), 3, 0.1, &Device::flex().autodiff());
    let options = LossOptions { aux_coefficient: 0.0, z_coefficient: 1e-3, ..LossOptions::of(&config()) };
    let whole = GlobalGradient::of(&decoder, &[rows(0..6)], &options);
    for parts in [vec![0..3, 3..6], vec![0..1, 1..2, 2..3, 3..4, 4..5, 5..6], vec![0..4, 4..6]] {
        let parts: Vec<Batch> = parts.into_iter().map(rows).collect();
        let dealt = GlobalGradient::of(&decoder, &parts, &options);
        for (found, expected) in [
            (dealt.loss.cross_entropy, whole.loss.cross_entropy),
            (dealt.loss.z_loss, whole.loss.z_loss),
            (dealt.norm(), whole.norm()),
        ] {
            assert!((found - expected).abs() < 1e-5 * expected, "{found} {expected}");
        }
        for (found, expected) in dealt.gradients.iter().zip(&whole.gradients) {
            let (found, expected) = (numbers(found.as_ref().unwrap()), numbers(expected.as_ref().unwrap()));
            let largest = expected.iter().fold(0f32, |m, x| m.max(x.abs()));
            assert!(found.iter().zip(&expected).all(|(a, b)| (a - b).abs() <= 1e-5 * largest));
        }
    }
}

#[test]
fn the_load_balancing_loss_is_the_mean_over_micro_batches() {
    let decoder = Decoder::random(&config(), 3, 0.1, &Device::flex().autodiff());
    let options = LossOptions { aux_coefficient: 0.5, ..LossOptions::of(&config()) };
    let parts = [rows(0..2), rows(2..6)];
    let each: Vec<f64> = parts.iter().map(|b| decoder.loss(b, &options).aux_loss).collect();
    let global = GlobalGradient::of(&decoder, &parts, &options);
    let mean = (each[0] + each[1]) / 2.0;
    assert!((global.loss.aux_loss - mean).abs() < 1e-6);
    assert!((global.loss.total - global.loss.cross_entropy - 0.5 * mean).abs() < 1e-5);
}
