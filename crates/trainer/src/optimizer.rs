//! Optimisers: each parameter with its own state, updated in place.
//!
//! Who gets what:
//! - Matrices are decayed; normalisations are not, and neither is the embedding (its rows are looked up, and a row that no batch
//!   holds would only shrink), unless it is the output layer too.
//! - With Muon, the matrices of attention and each expert's three are orthogonalised one by one; embedding, output layer, router
//!   and normalisations stay with AdamW.
//! - With an adapter, its matrices are trained by AdamW and all else stays as it is. The decoder computes with the sum of weight
//!   and adapter, so that the gradients of `A` and `B` follow from that of the sum.

use crate::config::{AdapterConfig, OptimizerConfig, OptimizerKind};
use blackletter_model::{
    Adapter, LowRank, base_hash,
    decoder::{AdamW, Compute, Decoder, Muon, Parameter, Tensor, TensorData, adamw, muon, sum_of_squares},
    names, normal_values,
};
use std::{borrow::Cow, collections::BTreeMap, mem};

/// A parameter with AdamW's state.
#[derive(Clone, Debug)]
pub struct Moments {
    /// Mean of gradients.
    pub mean: Tensor<2>,
    /// Mean of squared gradients.
    pub square: Tensor<2>,
}

/// The two matrices that an adapter adds to one.
#[derive(Clone, Debug)]
pub struct Pair {
    /// The weight without the adapter.
    pub base: Tensor<2>,
    /// `[rank, inputs]`.
    pub a: Tensor<2>,
    /// `[outputs, rank]`.
    pub b: Tensor<2>,
    /// State of `a`, and of `b`.
    pub moments: [Moments; 2],
}

/// What is remembered of a parameter.
#[derive(Clone, Debug)]
// A slot is nothing beside the numbers that its tensors hold.
#[allow(clippy::large_enum_variant)]
pub enum Slot {
    /// AdamW updates it.
    AdamW(Moments),
    /// Muon updates it.
    Muon {
        /// Mean of gradients.
        momentum: Tensor<2>,
    },
    /// An adapter is trained in its place.
    LowRank(Box<Pair>),
    /// It stays as it is.
    Frozen,
}

/// The state of all parameters.
#[derive(Debug)]
pub struct Optimizer {
    /// One per parameter, in the order of [`Decoder::parameters`].
    pub slots: Vec<Slot>,
    config: OptimizerConfig,
    adapter: AdapterConfig,
    compute: Compute,
}

/// The gradients of what is trained: for each parameter none, its own, or those of an adapter's `A` and `B`.
pub struct TrainedGradients(Vec<Vec<Tensor<2>>>);

impl TrainedGradients {
    /// The Euclidean norm over all of them.
    pub fn norm(&self) -> f64 {
        self.0.iter().flatten().map(sum_of_squares).sum::<f64>().sqrt()
    }
}

fn moments(like: &Tensor<2>) -> Moments {
    let zeros = || Tensor::zeros(like.dims(), &like.device());
    Moments { mean: zeros(), square: zeros() }
}

impl Optimizer {
    /// The state of the first step. `compute` is for Muon's own products, `seed` for an adapter's `A`; its `B` is zero, so that
    /// it adds nothing yet.
    pub fn new(
        decoder: &Decoder,
        config: &OptimizerConfig,
        adapter: &AdapterConfig,
        compute: Compute,
        seed: u64,
    ) -> Self {
        let slot = |(i, p): (usize, Parameter<'_>)| {
            let tensor = p.tensor.clone().inner();
            if adapter.rank > 0 {
                return match adapter.changes(&p.names) {
                    true => Slot::LowRank(Box::new(pair(tensor, adapter.rank, seed ^ (i as u64 + 1) << 40))),
                    false => Slot::Frozen,
                };
            }
            match config.name == OptimizerKind::Muon && is_hidden_matrix(&p.names, &p.shape) {
                true => Slot::Muon { momentum: Tensor::zeros(tensor.dims(), &tensor.device()) },
                false => Slot::AdamW(moments(&tensor)),
            }
        };
        let slots = decoder.parameters().into_iter().enumerate().map(slot).collect();
        Self { slots, config: config.clone(), adapter: adapter.clone(), compute }
    }

    /// The gradients of what is trained, from those of all parameters.
    pub fn trained(&self, gradients: Vec<Option<Tensor<2>>>) -> TrainedGradients {
        let scale = self.adapter.scale();
        let one = |(slot, gradient): (&Slot, Option<Tensor<2>>)| match (slot, gradient) {
            (Slot::Frozen, _) | (_, None) => Vec::new(),
            (Slot::LowRank(pair), Some(gradient)) => vec![
                pair.b.clone().transpose().matmul(gradient.clone()).mul_scalar(scale),
                gradient.matmul(pair.a.clone().transpose()).mul_scalar(scale),
            ],
            (_, Some(gradient)) => vec![gradient],
        };
        TrainedGradients(self.slots.iter().zip(gradients).map(one).collect())
    }

    /// Step number `step`, counted from 1. A parameter without a gradient stays as it is.
    pub fn step(
        &mut self,
        decoder: &mut Decoder,
        gradients: TrainedGradients,
        step: u64,
        rate: f64,
        gradient_scale: f32,
    ) {
        let device = decoder.device().without_autodiff();
        let tied = decoder.config().tie_word_embeddings;
        let Self { slots, config, adapter, compute } = self;
        // Nobody else may hold what is updated, or it would be copied first.
        let take = |tensor: &mut Tensor<2>| mem::replace(tensor, Tensor::empty([1, 1], &device)).inner();
        let update = |old: Tensor<2>, state: &mut Moments, gradient: Tensor<2>, decay: f64| {
            let rule = AdamW {
                rate: rate as f32,
                beta1: config.beta1 as f32,
                beta2: config.beta2 as f32,
                epsilon: config.epsilon as f32,
                decay: decay as f32,
                gradient_scale,
                step: u32::try_from(step).unwrap_or(u32::MAX),
            };
            let [new, mean, square] =
                adamw(&rule, old, gradient, take(&mut state.mean), take(&mut state.square));
            *state = Moments { mean, square };
            new
        };
        for ((parameter, slot), gradients) in decoder.parameters_mut().into_iter().zip(slots).zip(gradients.0)
        {
            let mut gradients = gradients.into_iter();
            let Some(gradient) = gradients.next() else { continue };
            let decayed = is_decayed(&parameter.names, &parameter.shape, tied);
            let decay = if decayed { config.weight_decay } else { 0.0 };
            let new = match slot {
                Slot::Frozen => continue,
                Slot::AdamW(state) => update(take(parameter.tensor), state, gradient, decay),
                Slot::Muon { momentum } => {
                    let (rate, mu, decay) = (rate as f32, config.momentum as f32, decay as f32);
                    let rule = Muon { rate, momentum: mu, decay, gradient_scale };
                    let (old, count) = (take(parameter.tensor), parameter.names.len());
                    let [new, m] = muon(&rule, count, *compute, old, gradient, take(momentum));
                    *momentum = m;
                    new
                }
                Slot::LowRank(pair) => {
                    let Pair { base, a, b, moments: [of_a, of_b] } = &mut **pair;
                    *a = update(take(a), of_a, gradient, config.weight_decay);
                    if let Some(gradient) = gradients.next() {
                        *b = update(take(b), of_b, gradient, config.weight_decay);
                    }
                    base.clone() + b.clone().matmul(a.clone()).mul_scalar(adapter.scale())
                }
            };
            *parameter.tensor = new.autodiff().require_grad();
        }
    }

    /// The adapter that has been trained; `None` when the weights themselves are.
    pub fn adapter(&self, decoder: &Decoder) -> Option<Adapter> {
        let numbers = |tensor: &Tensor<2>| -> Vec<f32> { tensor.clone().into_data().iter::<f32>().collect() };
        let (mut matrices, mut bases) = (BTreeMap::new(), BTreeMap::new());
        let parameters = decoder.parameters();
        for (parameter, slot) in parameters.iter().zip(&self.slots) {
            if let (Slot::LowRank(pair), Some(name)) = (slot, parameter.names.first()) {
                let [outputs, inputs] = pair.base.dims();
                let m = LowRank { a: numbers(&pair.a), b: numbers(&pair.b), inputs, outputs };
                matrices.insert(name.clone(), m);
                bases.insert(name.as_str(), numbers(&pair.base));
            }
        }
        let AdapterConfig { rank, alpha, .. } = self.adapter;
        let base = Some(base_hash(bases.iter().map(|(name, values)| (*name, Cow::from(values)))));
        (rank > 0).then_some(Adapter { rank, alpha, rank_stabilised: false, matrices, base })
    }
}

/// `A` uniform in ±1/√inputs, about, as PEFT begins; `B` zero.
fn pair(base: Tensor<2>, rank: usize, seed: u64) -> Pair {
    let ([outputs, inputs], device) = (base.dims(), base.device());
    let values = normal_values(seed, 1.0 / (3.0 * inputs as f32).sqrt(), rank * inputs);
    let a = Tensor::from_data(TensorData::new(values, [rank, inputs]), &device);
    let b = Tensor::zeros([outputs, rank], &device);
    let moments = [moments(&a), moments(&b)];
    Pair { base, a, b, moments }
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
