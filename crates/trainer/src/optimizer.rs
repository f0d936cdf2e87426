//! Optimisers: each parameter with its own state, updated in place.
//!
//! Who gets what:
//! - Matrices are decayed; normalisations are not, and neither is the embedding (its rows are looked up, and a row that no batch
//!   holds would only shrink), unless it is the output layer too.
//! - With Muon, the matrices of attention and each expert's three are orthogonalised one by one; embedding, output layer, router
//!   and normalisations stay with AdamW.

use crate::config::{OptimizerConfig, OptimizerKind};
use blackletter_model::{
    decoder::{AdamW, Compute, Decoder, Muon, Parameter, Tensor, adamw, muon},
    names,
};
use std::mem;

/// What is remembered of a parameter.
#[derive(Clone, Debug)]
// A slot is nothing beside the numbers that its tensors hold.
#[allow(clippy::large_enum_variant)]
pub enum Slot {
    /// Of one that AdamW updates.
    AdamW {
        /// Mean of gradients.
        mean: Tensor<2>,
        /// Mean of squared gradients.
        square: Tensor<2>,
    },
    /// Of one that Muon updates.
    Muon {
        /// Mean of gradients.
        momentum: Tensor<2>,
    },
}

/// The state of all parameters.
#[derive(Debug)]
pub struct Optimizer {
    /// One per parameter, in the order of [`Decoder::parameters`].
    pub slots: Vec<Slot>,
    config: OptimizerConfig,
    compute: Compute,
}

impl Optimizer {
    /// A state of zeros. `compute` is for Muon's own products.
    pub fn new(decoder: &Decoder, config: &OptimizerConfig, compute: Compute) -> Self {
        let device = decoder.device().without_autodiff();
        let zeros = |p: &Parameter<'_>| Tensor::zeros(p.tensor.dims(), &device);
        let slots = decoder.parameters().into_iter().map(|p| {
            if config.name == OptimizerKind::Muon && is_hidden_matrix(&p.names, &p.shape) {
                Slot::Muon { momentum: zeros(&p) }
            } else {
                Slot::AdamW { mean: zeros(&p), square: zeros(&p) }
            }
        });
        Self { slots: slots.collect(), config: config.clone(), compute }
    }

    /// Step number `step`, counted from 1. A parameter without a gradient stays as it is.
    pub fn step(
        &mut self,
        decoder: &mut Decoder,
        gradients: Vec<Option<Tensor<2>>>,
        step: u64,
        rate: f64,
        gradient_scale: f32,
    ) {
        let device = decoder.device().without_autodiff();
        let tied = decoder.config().tie_word_embeddings;
        let config = &self.config;
        let parameters = decoder.parameters_mut().into_iter().zip(&mut self.slots);
        for ((parameter, slot), gradient) in parameters.zip(gradients) {
            let Some(gradient) = gradient else { continue };
            // Nobody else may hold what is updated, or it would be copied first.
            let take = |tensor: &mut Tensor<2>| mem::replace(tensor, Tensor::empty([1, 1], &device)).inner();
            let old = take(parameter.tensor);
            let decayed = is_decayed(&parameter.names, &parameter.shape, tied);
            let decay = if decayed { config.weight_decay as f32 } else { 0.0 };
            let rate = rate as f32;
            let new = match slot {
                Slot::AdamW { mean, square } => {
                    let rule = AdamW {
                        rate,
                        beta1: config.beta1 as f32,
                        beta2: config.beta2 as f32,
                        epsilon: config.epsilon as f32,
                        decay,
                        gradient_scale,
                        step: u32::try_from(step).unwrap_or(u32::MAX),
                    };
                    let [new, m, v] = adamw(&rule, old, gradient, take(mean), take(square));
                    (*mean, *square) = (m, v);
                    new
                }
                Slot::Muon { momentum } => {
                    let rule = Muon { rate, momentum: config.momentum as f32, decay, gradient_scale };
                    let [new, m] =
                        muon(&rule, parameter.names.len(), self.compute, old, gradient, take(momentum));
                    *momentum = m;
                    new
                }
            };
            *parameter.tensor = new.autodiff().require_grad();
        }
    }
}

/// Whether weight decay acts on a parameter.
fn is_decayed(parameter: &[String], shape: &[usize], tied: bool) -> bool {
    shape.len() > 1 && (tied || parameter.iter().all(|name| name != names::EMBEDDING))
}

/// Whether Muon can update a parameter: matrices between the embedding and the output layer, but for the router.
fn is_hidden_matrix(parameter: &[String], shape: &[usize]) -> bool {
    let other = |name: &String| {
        name == names::EMBEDDING || name == names::HEAD || name.contains("block_sparse_moe.gate.")
    };
    shape.len() > 1 && !parameter.iter().any(other)
}
