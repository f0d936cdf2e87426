//! The loss and the gradients of a global batch, made micro-batch by micro-batch.
//!
//! Cross-entropy is the sum over the targets of the whole global batch divided by their count; the load-balancing loss is
//! pooled within each micro-batch and averaged over them. So neither depends on how micro-batches are dealt out.

use crate::{error::TrainError, ranks::Ranks};
use blackletter_model::decoder::{
    Batch, Decoder, LossOptions, Tensor, TensorData, add_gradients, sum_of_squares,
};
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

impl StepLoss {
    fn add(&mut self, more: &Self) {
        self.total += more.total;
        self.cross_entropy += more.cross_entropy;
        self.z_loss += more.z_loss;
        self.aux_loss += more.aux_loss;
    }
}

/// How much of a global batch's loss a micro-batch is.
struct Share {
    options: LossOptions,
    share: f64,
}

impl Share {
    fn of(micro_batches: &[Batch], options: &LossOptions) -> Self {
        let targets: usize = micro_batches.iter().map(Batch::targets).sum();
        let share = 1.0 / micro_batches.len().max(1) as f64;
        let options = LossOptions {
            scale: Some(1.0 / targets.max(1) as f32),
            aux_coefficient: options.aux_coefficient * share,
            ..*options
        };
        Self { options, share }
    }

    /// A micro-batch's share of the loss, and its gradient.
    fn gradient(&self, decoder: &Decoder, batch: &Batch) -> (StepLoss, Vec<Option<Tensor<2>>>) {
        let part = decoder.loss(batch, &self.options);
        let loss = StepLoss {
            total: part.cross_entropy + part.z_loss + self.options.aux_coefficient * part.aux_loss,
            cross_entropy: part.cross_entropy,
            z_loss: part.z_loss,
            aux_loss: part.aux_loss * self.share,
        };
        let mut gradients = part.total.backward();
        drop(part);
        let of = decoder.parameters().into_iter().map(|p| p.tensor.grad_remove(&mut gradients));
        (loss, of.collect())
    }
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
        let part = Share::of(micro_batches, options);
        let mut gradients: Vec<Option<Tensor<2>>> = Vec::new();
        let mut loss = StepLoss::default();
        for batch in micro_batches {
            let (of_batch, new) = part.gradient(decoder, batch);
            loss.add(&of_batch);
            if gradients.is_empty() {
                gradients = new;
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

    /// The same over all ranks, each of which has the same weights and `micro_batches`: they are dealt out in rounds, and the
    /// gradients of a round are summed while the next is made. All ranks get the whole gradient and loss.
    ///
    /// # Errors
    /// When the ranks do not hear each other any more.
    pub fn of_ranks(
        decoder: &Decoder,
        micro_batches: &[Batch],
        options: &LossOptions,
        ranks: &Ranks,
    ) -> Result<Self, TrainError> {
        if ranks.count() == 1 {
            return Ok(Self::of(decoder, micro_batches, options));
        }
        let part = Share::of(micro_batches, options);
        let parameters = decoder.parameters().len();
        let mut loss = StepLoss::default();
        // For each parameter whether it has a gradient; then the loss.
        let mut numbers = vec![0.0; parameters];
        let mut sums: Vec<Vec<f32>> = Vec::new();
        let finish = |sums: &mut Vec<Vec<f32>>| -> Result<(), TrainError> {
            let first = sums.is_empty();
            for at in 0..parameters {
                let new = ranks.finish_sum()?;
                match sums.get_mut(at).filter(|_| !first) {
                    Some(sum) => sum.iter_mut().zip(new).for_each(|(sum, new)| *sum += new),
                    None => sums.push(new),
                }
            }
            Ok(())
        };
        let rounds = micro_batches.len().div_ceil(ranks.count());
        for round in 0..rounds {
            let mut gradients: Vec<Option<Tensor<2>>> = vec![None; parameters];
            if let Some(batch) = ranks.share(micro_batches, round) {
                let (of_batch, new) = part.gradient(decoder, batch);
                loss.add(&of_batch);
                gradients = new;
            }
            if round > 0 {
                finish(&mut sums)?;
            }
            for (at, (gradient, parameter)) in gradients.into_iter().zip(decoder.parameters()).enumerate() {
                let values = match gradient {
                    Some(gradient) => {
                        numbers[at] = 1.0;
                        gradient.into_data().try_to_vec().unwrap_or_default()
                    }
                    None => vec![0.0; parameter.tensor.dims().iter().product()],
                };
                ranks.start_sum(values)?;
            }
        }
        if rounds > 0 {
            finish(&mut sums)?;
        }
        numbers.extend([loss.total, loss.cross_entropy, loss.z_loss, loss.aux_loss]);
        ranks.sum(&mut numbers)?;
        let device = decoder.device().without_autodiff();
        let gradients = sums
            .into_iter()
            .zip(decoder.parameters())
            .zip(&numbers)
            .map(|((sum, parameter), has)| {
                (*has > 0.0)
                    .then(|| Tensor::from_data(TensorData::new(sum, parameter.tensor.dims()), &device))
            })
            .collect();
        let [total, cross_entropy, z_loss, aux_loss] = [0, 1, 2, 3].map(|at| numbers[parameters + at]);
        Ok(Self { gradients, loss: StepLoss { total, cross_entropy, z_loss, aux_loss } })
    }

    /// The Euclidean norm over all parameters.
    pub fn norm(&self) -> f64 {
        self.gradients.iter().flatten().map(sum_of_squares).sum::<f64>().sqrt()
    }
}
