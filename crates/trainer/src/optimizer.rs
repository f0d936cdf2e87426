//! Optimisers: each parameter with its own state, updated in place.

use blackletter_model::decoder::{AdamW, Decoder, Parameter, Tensor, adamw};
use std::mem;

/// What AdamW remembers of a parameter.
#[derive(Clone, Debug)]
pub struct Moments {
    /// Mean of gradients.
    pub mean: Tensor<2>,
    /// Mean of squared gradients.
    pub square: Tensor<2>,
}

/// The state of all parameters, in the order of [`Decoder::parameters`].
#[derive(Debug)]
pub struct Optimizer {
    /// One per parameter.
    pub moments: Vec<Moments>,
    /// Steps done.
    pub step: u32,
}

impl Optimizer {
    /// A state of zeros.
    pub fn new(decoder: &Decoder) -> Self {
        let device = decoder.device().without_autodiff();
        let zeros = |p: &Parameter<'_>| Tensor::zeros(p.tensor.dims(), &device);
        let moments =
            decoder.parameters().iter().map(|p| Moments { mean: zeros(p), square: zeros(p) }).collect();
        Self { moments, step: 0 }
    }

    /// One step. `rule.step` is set here; `rule.decay` is for matrices: normalisations are not decayed, and neither is what
    /// the loss does not depend on.
    pub fn step(&mut self, decoder: &mut Decoder, gradients: Vec<Option<Tensor<2>>>, rule: &AdamW) {
        self.step += 1;
        let device = decoder.device().without_autodiff();
        for ((parameter, state), gradient) in
            decoder.parameters_mut().into_iter().zip(&mut self.moments).zip(gradients)
        {
            let Some(gradient) = gradient else { continue };
            let decay = if parameter.shape.len() == 1 { 0.0 } else { rule.decay };
            let rule = AdamW { step: self.step, decay, ..*rule };
            // Nobody else may hold what is updated, or it would be copied first.
            let take = |tensor: &mut Tensor<2>| mem::replace(tensor, Tensor::empty([1, 1], &device)).inner();
            let [old, mean, square] =
                [take(parameter.tensor), take(&mut state.mean), take(&mut state.square)];
            let [new, mean, square] = adamw(&rule, old, gradient, mean, square);
            *parameter.tensor = new.autodiff().require_grad();
            *state = Moments { mean, square };
        }
    }
}
