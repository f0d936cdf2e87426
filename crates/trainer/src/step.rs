//! The loss and the gradients of a global batch, made micro-batch by micro-batch.
//!
//! Cross-entropy is the sum over the targets of the whole global batch divided by their count; the load-balancing loss is
//! pooled within each micro-batch and averaged over them. So neither depends on how micro-batches are dealt out.

use blackletter_model::decoder::{Batch, Decoder, LossOptions, Tensor, add_gradients, sum_of_squares};
use serde::{Deserialize, Serialize};

/// The parts of a global batch's loss.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StepLoss {
    /// What is minimised: all parts with their coefficients.
    pub total: f64,
    /// Mean over the targets, natural logarithm.
    pub cross_entropy: f64,
    /// z-loss, its coefficient included.
    pub z_loss: f64,
    /// Load-balancing loss without its coefficient; the experts per token when balanced.
    pub aux_loss: f64,
}

/// The gradient of a global batch, in the order of [`Decoder::parameters`].
pub struct GlobalGradient {
    /// One per parameter; `None` where the loss does not depend on it.
    pub gradients: Vec<Option<Tensor<2>>>,
    /// The loss that it is the gradient of.
    pub loss: StepLoss,
}

impl GlobalGradient {
    /// Runs all micro-batches forward and backward and adds up. `options.scale` is set here.
    pub fn of(decoder: &Decoder, micro_batches: &[Batch], options: &LossOptions) -> Self {
        let targets: usize = micro_batches.iter().map(Batch::targets).sum();
        let share = 1.0 / micro_batches.len().max(1) as f64;
        let options = LossOptions {
            scale: Some(1.0 / targets.max(1) as f32),
            aux_coefficient: options.aux_coefficient * share,
            ..*options
        };
        let mut gradients: Vec<Option<Tensor<2>>> = Vec::new();
        let mut loss = StepLoss::default();
        for batch in micro_batches {
            let part = decoder.loss(batch, &options);
            loss.cross_entropy += part.cross_entropy;
            loss.z_loss += part.z_loss;
            loss.aux_loss += part.aux_loss * share;
            loss.total += part.cross_entropy + part.z_loss + options.aux_coefficient * part.aux_loss;
            let mut new = part.total.backward();
            drop(part);
            let new = decoder.parameters().into_iter().map(|p| p.tensor.grad_remove(&mut new));
            if gradients.is_empty() {
                gradients = new.collect();
                continue;
            }
            for (sum, new) in gradients.iter_mut().zip(new) {
                *sum = match (sum.take(), new) {
                    (Some(sum), Some(new)) => Some(add_gradients(sum, new)),
                    (one, other) => one.or(other),
                };
            }
        }
        Self { gradients, loss }
    }

    /// The Euclidean norm over all parameters.
    pub fn norm(&self) -> f64 {
        self.gradients.iter().flatten().map(sum_of_squares).sum::<f64>().sqrt()
    }
}
