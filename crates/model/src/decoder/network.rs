//! The decoder: parameters, and the loss of a batch.

use super::{
    batch::{Batch, IGNORED},
    blocks::{AttentionBlock, ExpertBlock, HeadBlock},
    cpu::Cpu,
    ops::DecoderOps,
    plain,
};
use crate::MixtralConfig;
use blackletter_kernels::{
    RopeTable,
    train::{Assignment, AttentionGeometry, Compute, HeadOptions, assign},
};
use burn::{
    backend::Dispatch,
    tensor::{Device, Tensor, TensorData},
};
use std::sync::Arc;

/// Which bodies the operations have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bodies {
    /// Kernels with hand-derived gradients; on the CPU only.
    Fused,
    /// Plain tensor operations, on every device.
    Plain,
}

/// One layer's parameters.
#[derive(Clone, Debug)]
pub(super) struct DecoderLayer {
    pub(super) attention_norm: Tensor<2>,
    pub(super) query: Tensor<2>,
    pub(super) key: Tensor<2>,
    pub(super) value: Tensor<2>,
    pub(super) output: Tensor<2>,
    pub(super) expert_norm: Tensor<2>,
    pub(super) router: Tensor<2>,
    pub(super) w1: Tensor<2>,
    pub(super) w2: Tensor<2>,
    pub(super) w3: Tensor<2>,
}

/// A Mixtral decoder on a device.
#[derive(Clone, Debug)]
pub struct Decoder {
    pub(super) config: MixtralConfig,
    pub(super) embedding: Tensor<2>,
    pub(super) layers: Vec<DecoderLayer>,
    pub(super) final_norm: Tensor<2>,
    /// `None` when it is the embedding.
    pub(super) head: Option<Tensor<2>>,
    pub(super) bodies: Bodies,
}

/// What the loss is made of beside cross-entropy.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LossOptions {
    /// The sum over targets is multiplied with this; `None` is one over the targets of the batch.
    pub scale: Option<f32>,
    /// Coefficient of the load-balancing loss.
    pub aux_coefficient: f64,
    /// Coefficient of the z-loss.
    pub z_coefficient: f64,
    /// Makes what a layer's backward pass needs anew instead of keeping it: less memory, a third more time.
    pub recompute: bool,
    /// With what the fused bodies compute products; weights, sums, gradients and what lies between the blocks are `f32`.
    pub compute: Compute,
}

impl LossOptions {
    /// As `transformers` trains: the coefficient of the configuration, no z-loss.
    pub fn of(config: &MixtralConfig) -> Self {
        Self {
            scale: None,
            aux_coefficient: config.router_aux_loss_coef,
            z_coefficient: 0.0,
            recompute: false,
            compute: Compute::F32,
        }
    }
}

/// The loss of a batch.
#[derive(Clone, Debug)]
pub struct Loss {
    /// All parts, coefficients included: `[1]`. `backward()` of it gives the gradients.
    pub total: Tensor<1>,
    /// Cross-entropy.
    pub cross_entropy: f64,
    /// z-loss, its coefficient included.
    pub z_loss: f64,
    /// Load-balancing loss without its coefficient: the experts of a token when balanced.
    pub aux_loss: f64,
}

impl Decoder {
    /// What the model is.
    pub fn config(&self) -> &MixtralConfig {
        &self.config
    }

    /// Where it is.
    pub fn device(&self) -> Device {
        self.embedding.device()
    }

    /// The same with other bodies; [`Bodies::Fused`] is for the CPU.
    pub fn with_bodies(mut self, bodies: Bodies) -> Self {
        self.bodies = bodies;
        self
    }

    /// The loss of a batch.
    pub fn loss(&self, batch: &Batch, options: &LossOptions) -> Loss {
        let (x, probabilities, assignments) = self.hidden(batch, options.recompute, options.compute);
        let scale = options.scale.unwrap_or(1.0 / batch.targets().max(1) as f32);
        let block = HeadBlock {
            targets: Arc::clone(&batch.targets),
            options: HeadOptions { scale, z_loss: options.z_coefficient as f32 },
            compute: options.compute,
        };
        let head = self.head.clone().unwrap_or_else(|| self.embedding.clone());
        let parts: Tensor<1> = match self.bodies {
            Bodies::Fused => {
                Tensor::from_dispatch(Dispatch::head_loss(x.into_dispatch(), head.into_dispatch(), block))
            }
            Bodies::Plain => plain::head_loss(x, head, &block),
        };
        let aux = self.balance(batch, probabilities, &assignments);
        let [cross_entropy, z_loss] = [1, 2].map(|i| scalar(parts.clone().slice(i..i + 1)));
        let aux_loss = scalar(aux.clone());
        let total = parts.slice(0..1) + aux.mul_scalar(options.aux_coefficient);
        Loss { total, cross_entropy, z_loss, aux_loss }
    }

    /// Logits of every token, `[tokens, vocabulary]`: for tests and small batches, as all of them are in memory.
    pub fn logits(&self, batch: &Batch) -> Tensor<2> {
        let (x, _, _) = self.hidden(batch, false, Compute::F32);
        let head = self.head.clone().unwrap_or_else(|| self.embedding.clone());
        x.matmul(head.transpose())
    }

    /// The tokens that each expert of each layer is sent: `[layers][experts]`.
    pub fn routing(&self, batch: &Batch) -> Vec<Vec<Vec<u32>>> {
        let (_, _, assignments) = self.hidden(batch, false, Compute::F32);
        let tokens = |a: &Assignment, e| a.tokens.get(a.range(e)).unwrap_or_default().to_vec();
        let experts = self.config.num_local_experts;
        assignments.iter().map(|a| (0..experts).map(|e| tokens(a, e)).collect()).collect()
    }

    /// The output of the last normalisation, the routers' probabilities of all layers, and what they chose.
    fn hidden(
        &self,
        batch: &Batch,
        recompute: bool,
        compute: Compute,
    ) -> (Tensor<2>, Vec<Tensor<2>>, Vec<Arc<Assignment>>) {
        let config = &self.config;
        let epsilon = config.rms_norm_eps as f32;
        let positions = batch.positions.iter().max().map_or(0, |&p| p as usize + 1);
        let attention = AttentionBlock {
            geometry: AttentionGeometry {
                heads: config.num_attention_heads,
                kv_heads: config.num_key_value_heads,
                head_dim: config.head_dim,
                window: config.sliding_window,
            },
            epsilon,
            batch: batch.clone(),
            rope: Arc::new(RopeTable::new(config.head_dim, config.rope_theta, positions)),
            recompute,
            compute,
        };
        let (experts, top_k) = (config.num_local_experts, config.num_experts_per_tok);
        let fused = self.bodies == Bodies::Fused;
        if fused {
            Cpu::lock().shelf.begin(batch.tokens());
        }
        let padding = config.pad_token_id;
        let mut x: Tensor<2> = if fused {
            let ids = Arc::clone(&batch.ids);
            Tensor::from_dispatch(Dispatch::embed(self.embedding.clone().into_dispatch(), ids, padding))
        } else {
            plain::embed(self.embedding.clone(), &batch.ids, padding)
        };
        let mut all = Vec::with_capacity(self.layers.len());
        let mut assignments = Vec::with_capacity(self.layers.len());
        let plain_inputs = (!fused).then(|| plain::Inputs::new(&attention, &self.device()));
        for layer in self.layers.iter().cloned() {
            let DecoderLayer { attention_norm, query, key, value, output, expert_norm, router, w1, w2, w3 } =
                layer;
            x = match &plain_inputs {
                None => Tensor::from_dispatch(Dispatch::attention_block(
                    x.into_dispatch(),
                    attention_norm.into_dispatch(),
                    query.into_dispatch(),
                    key.into_dispatch(),
                    value.into_dispatch(),
                    output.into_dispatch(),
                    attention.clone(),
                )),
                Some(inputs) => {
                    plain::attention_block(x, attention_norm, [query, key, value, output], &attention, inputs)
                }
            };
            let probabilities: Tensor<2> = if fused {
                Tensor::from_dispatch(Dispatch::router(
                    x.clone().into_dispatch(),
                    expert_norm.clone().into_dispatch(),
                    router.into_dispatch(),
                    epsilon,
                ))
            } else {
                plain::router(x.clone(), expert_norm.clone(), router, epsilon)
            };
            let assignment = Arc::new(assign(&floats(probabilities.clone()), experts, top_k));
            assignments.push(Arc::clone(&assignment));
            let block = ExpertBlock { experts, epsilon, assignment, recompute, compute };
            x = if fused {
                Tensor::from_dispatch(Dispatch::expert_block(
                    x.into_dispatch(),
                    probabilities.clone().into_dispatch(),
                    expert_norm.into_dispatch(),
                    w1.into_dispatch(),
                    w2.into_dispatch(),
                    w3.into_dispatch(),
                    block,
                ))
            } else {
                plain::expert_block(x, probabilities.clone(), expert_norm, [w1, w2, w3], &block)
            };
            all.push(probabilities);
        }
        let x = if fused {
            let norm = self.final_norm.clone().into_dispatch();
            Tensor::from_dispatch(Dispatch::rms_norm(x.into_dispatch(), norm, epsilon))
        } else {
            plain::rms_norm(x, self.final_norm.clone(), epsilon)
        };
        (x, all, assignments)
    }

    /// `E · Σ f P` over the experts, with `f` the share of tokens sent to one and `P` its mean probability, both over all
    /// layers and all tokens that are not padding (Fedus et al. 2021, pooled as `transformers` does).
    fn balance(
        &self,
        batch: &Batch,
        probabilities: Vec<Tensor<2>>,
        assignments: &[Arc<Assignment>],
    ) -> Tensor<1> {
        let device = self.device();
        let mask: Vec<f32> = batch.segments.iter().map(|&s| f32::from(u8::from(s != 0))).collect();
        let rows = mask.iter().map(|&m| f64::from(m)).sum::<f64>() * self.layers.len() as f64;
        let experts = self.config.num_local_experts;
        let scale = experts as f64 / (rows.max(1.0) * rows.max(1.0));
        let count = |a: &Assignment, e| {
            let tokens = a.tokens.get(a.range(e)).unwrap_or_default();
            tokens.iter().filter(|&&t| batch.segments.get(t as usize).is_some_and(|&s| s != 0)).count()
        };
        let counts = (0..experts).map(|e| assignments.iter().map(|a| count(a, e)).sum::<usize>());
        let shares: Vec<f32> = counts.map(|count| (count as f64 * scale) as f32).collect();
        let mask = Tensor::<2>::from_data(TensorData::new(mask, [batch.tokens(), 1]), &device);
        let shares = Tensor::<2>::from_data(TensorData::new(shares, [1, experts]), &device);
        let sums = probabilities.into_iter().map(|p| (p * mask.clone()).sum_dim(0));
        match sums.reduce(|a, b| a + b) {
            Some(sum) => (sum * shares).sum(),
            None => Tensor::zeros([1], &device),
        }
    }
}

/// The numbers of a tensor, on the host.
pub(super) fn floats<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().iter::<f32>().collect()
}

fn scalar(tensor: Tensor<1>) -> f64 {
    floats(tensor).first().copied().map_or(f64::NAN, f64::from)
}

/// Rows that count, and their targets.
pub(super) fn counted(targets: &[i64]) -> (Vec<i64>, Vec<i64>) {
    targets.iter().enumerate().filter(|(_, t)| **t != IGNORED).map(|(i, &t)| (i as i64, t)).unzip()
}
