//! Parameters by the names of a checkpoint, in and out.

use super::{
    device::is_cpu,
    network::{Bodies, Decoder, DecoderLayer, floats},
};
use crate::{
    Checkpoint, CheckpointError, Dtype, MixtralConfig, StoredTensor, TensorSource, WriteError,
    names::{self, Layer},
    normal_values, write_checkpoint,
};
use burn::tensor::{Device, Gradients, Tensor, TensorData};
use std::{borrow::Cow, path::Path};

/// A parameter `[rows, columns]`: one tensor of the checkpoint, or all of a layer's experts one below the other.
#[derive(Clone, Debug)]
pub struct Parameter<'a> {
    /// Names in the checkpoint, each an equal share of the rows.
    pub names: Vec<String>,
    /// Shape of each of these in the checkpoint.
    pub shape: Vec<usize>,
    /// The numbers.
    pub tensor: &'a Tensor<2>,
}

/// As [`Parameter`], to be changed.
#[derive(Debug)]
pub struct ParameterMut<'a> {
    /// Names in the checkpoint, each an equal share of the rows.
    pub names: Vec<String>,
    /// Shape of each of these in the checkpoint.
    pub shape: Vec<usize>,
    /// The numbers.
    pub tensor: &'a mut Tensor<2>,
}

impl ParameterMut<'_> {
    /// Rows and columns of the whole parameter, whatever its tensor holds now.
    pub fn size(&self) -> [usize; 2] {
        stacked(self.names.len(), &self.shape)
    }
}

type Named = (Vec<String>, Vec<usize>);

/// Names and shapes of all parameters, in the order of [`Decoder::tensors`].
fn named(config: &MixtralConfig) -> Vec<Named> {
    let (hidden, intermediate) = (config.hidden_size, config.intermediate_size);
    let q = config.num_attention_heads * config.head_dim;
    let kv = config.num_key_value_heads * config.head_dim;
    let experts = 0..config.num_local_experts;
    let one = |name: String, shape: &[usize]| (vec![name], shape.to_vec());
    let mut all = vec![one(names::EMBEDDING.into(), &[config.vocab_size, hidden])];
    for layer in (0..config.num_hidden_layers).map(Layer) {
        all.extend([
            one(layer.attention_norm(), &[hidden]),
            one(layer.query(), &[q, hidden]),
            one(layer.key(), &[kv, hidden]),
            one(layer.value(), &[kv, hidden]),
            one(layer.output(), &[hidden, q]),
            one(layer.expert_norm(), &[hidden]),
            one(layer.router(), &[config.num_local_experts, hidden]),
            (experts.clone().map(|e| layer.w1(e)).collect(), vec![intermediate, hidden]),
            (experts.clone().map(|e| layer.w2(e)).collect(), vec![hidden, intermediate]),
            (experts.clone().map(|e| layer.w3(e)).collect(), vec![intermediate, hidden]),
        ]);
    }
    all.push(one(names::FINAL_NORM.into(), &[hidden]));
    if !config.tie_word_embeddings {
        all.push(one(names::HEAD.into(), &[config.vocab_size, hidden]));
    }
    all
}

/// `[rows, columns]` of a parameter that is `count` tensors of `shape`.
fn stacked(count: usize, shape: &[usize]) -> [usize; 2] {
    match shape {
        [rows, cols] => [count * rows, *cols],
        other => [count, other.iter().product()],
    }
}

impl Decoder {
    /// Puts a checkpoint's weights on a device, as `f32`. `device` may record gradients ([`Device::autodiff`]).
    ///
    /// # Errors
    /// When the weights are quantised: those cannot be trained.
    pub fn from_checkpoint(checkpoint: &Checkpoint, device: &Device) -> Result<Self, CheckpointError> {
        let mut problems = Vec::new();
        let mut load = |names: &[String]| {
            let mut values = Vec::new();
            for name in names {
                match checkpoint.tensor(name) {
                    Some(tensor) => {
                        values.extend(StoredTensor::to_f32(tensor));
                        tensor.release();
                    }
                    None => {
                        problems.push(format!("  {name}: quantised, expected float32, float16 or bfloat16"))
                    }
                }
            }
            values
        };
        let values: Vec<_> = named(&checkpoint.config)
            .into_iter()
            .map(|(names, shape)| (load(&names), stacked(names.len(), &shape)))
            .collect();
        if !problems.is_empty() {
            let path = checkpoint.files().first().map_or_else(String::new, |f| f.display().to_string());
            return Err(CheckpointError::Tensors { path, problems });
        }
        Ok(Self::build(checkpoint.config.clone(), values.into_iter(), device))
    }

    /// A decoder whose weights are yet to be put in place ([`Self::parameters_mut`]); until then it cannot compute.
    pub fn empty(config: &MixtralConfig, device: &Device) -> Self {
        let nothing = named(config).into_iter().map(|_| (vec![0.0], [1, 1]));
        Self::build(config.clone(), nothing, device)
    }

    /// The same weights under a configuration that differs in what is no geometry: context, window, special tokens,
    /// coefficients.
    ///
    /// # Panics
    /// When the shapes of weights differ.
    pub fn set_config(&mut self, config: MixtralConfig) {
        assert_eq!(named(&self.config), named(&config), "a configuration of another geometry");
        self.config = config;
    }

    /// Random weights: normal with `deviation`, norms 1; a function of `seed` alone.
    pub fn random(config: &MixtralConfig, seed: u64, deviation: f32, device: &Device) -> Self {
        let values = named(config).into_iter().enumerate().map(|(i, (names, shape))| {
            let size = stacked(names.len(), &shape);
            let count = size[0] * size[1];
            let values = if shape.len() == 1 {
                vec![1.0; count]
            } else {
                normal_values(
                    seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(i as u64),
                    deviation,
                    count,
                )
            };
            (values, size)
        });
        Self::build(config.clone(), values, device)
    }

    fn build(
        config: MixtralConfig,
        mut values: impl Iterator<Item = (Vec<f32>, [usize; 2])>,
        device: &Device,
    ) -> Self {
        let mut next = || {
            let (values, shape) = values.next().unwrap_or_default();
            let tensor = Tensor::from_data(TensorData::new(values, shape), device);
            if device.is_autodiff() { tensor.require_grad() } else { tensor }
        };
        let embedding = next();
        let layers = (0..config.num_hidden_layers)
            .map(|_| DecoderLayer {
                attention_norm: next(),
                query: next(),
                key: next(),
                value: next(),
                output: next(),
                expert_norm: next(),
                router: next(),
                w1: next(),
                w2: next(),
                w3: next(),
            })
            .collect();
        let final_norm = next();
        let head = (!config.tie_word_embeddings).then(next);
        let bodies = if is_cpu(device) { Bodies::Fused } else { Bodies::Plain };
        Self { config, embedding, layers, final_norm, head, bodies }
    }

    fn tensors(&self) -> impl Iterator<Item = &Tensor<2>> {
        let layers = self.layers.iter().flat_map(|l| {
            let DecoderLayer { attention_norm, query, key, value, output, expert_norm, router, w1, w2, w3 } =
                l;
            [attention_norm, query, key, value, output, expert_norm, router, w1, w2, w3]
        });
        [&self.embedding].into_iter().chain(layers).chain([&self.final_norm]).chain(&self.head)
    }

    fn tensors_mut(&mut self) -> impl Iterator<Item = &mut Tensor<2>> {
        let layers = self.layers.iter_mut().flat_map(|l| {
            let DecoderLayer { attention_norm, query, key, value, output, expert_norm, router, w1, w2, w3 } =
                l;
            [attention_norm, query, key, value, output, expert_norm, router, w1, w2, w3]
        });
        [&mut self.embedding].into_iter().chain(layers).chain([&mut self.final_norm]).chain(&mut self.head)
    }

    /// The same weights without a record of gradients: for evaluation. While it lives, weights cannot be changed in place.
    pub fn frozen(&self) -> Self {
        let mut frozen = self.clone();
        for tensor in frozen.tensors_mut() {
            *tensor = tensor.clone().inner();
        }
        frozen
    }

    /// All parameters, in the order of the computation.
    pub fn parameters(&self) -> Vec<Parameter<'_>> {
        let named = named(&self.config).into_iter();
        named.zip(self.tensors()).map(|((names, shape), tensor)| Parameter { names, shape, tensor }).collect()
    }

    /// All parameters, to be changed, in the order of the computation.
    pub fn parameters_mut(&mut self) -> Vec<ParameterMut<'_>> {
        let named = named(&self.config).into_iter();
        let tensors = self.tensors_mut();
        named.zip(tensors).map(|((names, shape), tensor)| ParameterMut { names, shape, tensor }).collect()
    }

    /// Gradients under the names of the checkpoint, as tensors to be written; a parameter that the loss does not depend on
    /// has zeros.
    pub fn gradient_tensors(&self, gradients: &Gradients) -> Vec<TensorSource<'static>> {
        sources(self.parameters().into_iter().map(|p| {
            let size = p.tensor.dims();
            let values = p.tensor.grad(gradients).map_or_else(|| vec![0.0; size[0] * size[1]], floats);
            (p.names, p.shape, values)
        }))
    }

    /// Writes a model directory's configuration and weights.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn write(&self, dir: &Path, dtype: Dtype, shard_bytes: u64) -> Result<(), WriteError> {
        let mut tensors = Vec::new();
        for parameter in self.parameters() {
            let count = parameter.names.len();
            for (i, name) in parameter.names.into_iter().enumerate() {
                let tensor = parameter.tensor.clone();
                let bytes = move || {
                    let rows = tensor.dims()[0] / count;
                    let part = floats(tensor.slice_dim(0, i * rows..(i + 1) * rows));
                    Cow::Owned(crate::random::to_bytes(&part, dtype))
                };
                let shape = parameter.shape.clone();
                tensors.push(TensorSource { name, dtype, shape, bytes: Box::new(bytes) });
            }
        }
        write_checkpoint(dir, &self.config, dtype, tensors, shard_bytes, &[])
    }
}

fn sources(all: impl Iterator<Item = (Vec<String>, Vec<usize>, Vec<f32>)>) -> Vec<TensorSource<'static>> {
    let mut out = Vec::new();
    for (names, shape, values) in all {
        let size = shape.iter().product::<usize>().max(1);
        for (name, part) in names.into_iter().zip(values.chunks(size)) {
            let bytes: Vec<u8> = part.iter().flat_map(|x| x.to_le_bytes()).collect();
            let bytes = Box::new(move || Cow::Owned(bytes));
            out.push(TensorSource { name, dtype: Dtype::F32, shape: shape.clone(), bytes });
        }
    }
    out
}
