//! The weights of a checkpoint in the form in which the kernels read them.

use crate::engine::{EngineError, WeightDtype};
use blackletter_kernels::{Format, Isa, Matrix, MatrixError, Pool, RopeTable, quant};
use blackletter_model::{
    Checkpoint, Dtype, StoredTensor,
    names::{self, Layer, QUANTS, SCALES},
};
use memmap2::MmapMut;
use std::{collections::BTreeMap, ops::Range, sync::Arc};

/// One weight matrix: inside the checkpoint's memory map, or converted at load.
pub(crate) struct Weight {
    format: Format,
    rows: usize,
    cols: usize,
    data: Bytes,
    scales: Bytes,
}

enum Bytes {
    Stored(StoredTensor),
    /// A part of the memory that all converted weights share.
    Converted(Arc<MmapMut>, Range<usize>),
    Empty,
}

impl Bytes {
    fn as_slice(&self) -> &[u8] {
        match self {
            Self::Stored(tensor) => tensor.data(),
            Self::Converted(memory, range) => &memory[range.clone()],
            Self::Empty => &[],
        }
    }
}

impl Weight {
    /// The matrix that the kernels take.
    pub(crate) fn matrix(&self) -> Result<Matrix<'_>, MatrixError> {
        Matrix::new(self.format, self.rows, self.cols, self.data.as_slice(), self.scales.as_slice())
    }
}

pub(crate) struct LayerWeights {
    pub(crate) attention_norm: Vec<f32>,
    /// Queries, keys, values.
    pub(crate) qkv: [Weight; 3],
    pub(crate) output: Weight,
    pub(crate) expert_norm: Vec<f32>,
    /// `[experts, hidden]`
    pub(crate) router: Vec<f32>,
    pub(crate) experts: Vec<Expert>,
}

pub(crate) struct Expert {
    pub(crate) w1: Weight,
    pub(crate) w2: Weight,
    pub(crate) w3: Weight,
}

/// All weights of a model.
pub struct Weights {
    pub(crate) embedding: Weight,
    pub(crate) layers: Vec<LayerWeights>,
    pub(crate) final_norm: Vec<f32>,
    /// `None` when the head is the embedding, as stored.
    head: Option<Weight>,
    pub(crate) rope: RopeTable,
}

/// A matrix of a quantised checkpoint: its name, shape, numbers and scales.
pub(crate) type Quantised<'a> = (String, [usize; 2], Format, &'a [u8], &'a [u8]);

impl Weights {
    pub(crate) fn load(
        checkpoint: &Checkpoint,
        dtype: Option<WeightDtype>,
        pool: &Pool,
        isa: Isa,
    ) -> Result<Self, EngineError> {
        let config = &checkpoint.config;
        let mut loader = Loader { checkpoint, dtype, converted: BTreeMap::new() };
        loader.convert(pool, isa)?;
        let layers = (0..config.num_hidden_layers)
            .map(|i| {
                let layer = Layer(i);
                let experts = (0..config.num_local_experts)
                    .map(|e| {
                        Ok(Expert {
                            w1: loader.matrix(&layer.w1(e))?,
                            w2: loader.matrix(&layer.w2(e))?,
                            w3: loader.matrix(&layer.w3(e))?,
                        })
                    })
                    .collect::<Result<_, EngineError>>()?;
                Ok(LayerWeights {
                    attention_norm: loader.floats(&layer.attention_norm())?,
                    qkv: [
                        loader.matrix(&layer.query())?,
                        loader.matrix(&layer.key())?,
                        loader.matrix(&layer.value())?,
                    ],
                    output: loader.matrix(&layer.output())?,
                    expert_norm: loader.floats(&layer.expert_norm())?,
                    router: loader.floats(&layer.router())?,
                    experts,
                })
            })
            .collect::<Result<_, EngineError>>()?;
        Ok(Self {
            embedding: loader.stored(names::EMBEDDING)?,
            layers,
            final_norm: loader.floats(names::FINAL_NORM)?,
            head: loader.head()?,
            rope: RopeTable::new(config.head_dim, config.rope_theta, config.max_position_embeddings),
        })
    }

    pub(crate) fn head(&self) -> &Weight {
        self.head.as_ref().unwrap_or(&self.embedding)
    }

    fn matrices(&self) -> impl Iterator<Item = &Weight> {
        let layers = self.layers.iter().flat_map(|layer| {
            let experts = layer.experts.iter().flat_map(|e| [&e.w1, &e.w2, &e.w3]);
            layer.qkv.iter().chain([&layer.output]).chain(experts)
        });
        layers.chain([self.head()])
    }

    /// Whether any product needs inputs in 8 bits.
    pub(crate) fn any_quantised(&self) -> bool {
        self.matrices().any(|w| w.format.is_quantised())
    }

    /// Checks every matrix once, so that the kernels can be given them without looking again.
    pub(crate) fn check(&self) -> Result<(), EngineError> {
        self.embedding.matrix()?;
        for weight in self.matrices() {
            weight.matrix()?;
        }
        Ok(())
    }

    /// Bytes that one generated token's products read: all but the experts that it does not go to.
    pub fn bytes_per_token(&self, top_k: usize) -> u64 {
        let bytes = |w: &Weight| (w.data.as_slice().len() + w.scales.as_slice().len()) as u64;
        let mut total = bytes(self.head());
        for layer in &self.layers {
            total += layer.qkv.iter().map(bytes).sum::<u64>()
                + bytes(&layer.output)
                + 4 * layer.router.len() as u64;
            let experts: u64 = layer.experts.iter().map(|e| bytes(&e.w1) + bytes(&e.w2) + bytes(&e.w3)).sum();
            total += experts * top_k as u64 / layer.experts.len().max(1) as u64;
        }
        total
    }

    /// Bytes of one expert of each layer, summed over layers.
    pub fn expert_bytes(&self) -> u64 {
        let bytes = |w: &Weight| (w.data.as_slice().len() + w.scales.as_slice().len()) as u64;
        self.layers
            .iter()
            .filter_map(|l| l.experts.first())
            .map(|e| bytes(&e.w1) + bytes(&e.w2) + bytes(&e.w3))
            .sum()
    }

    /// Bytes of all weights that are used.
    pub fn bytes(&self) -> u64 {
        let bytes = |w: &Weight| (w.data.as_slice().len() + w.scales.as_slice().len()) as u64;
        let embedding = if self.head.is_some() { bytes(&self.embedding) } else { 0 };
        embedding + self.matrices().map(bytes).sum::<u64>()
    }

    /// The quantised matrices with their names, for saving.
    pub(crate) fn quantised(&self) -> Vec<Quantised<'_>> {
        let mut named: Vec<(String, &Weight)> = Vec::new();
        for (i, layer) in self.layers.iter().enumerate() {
            let name = Layer(i);
            let [q, k, v] = &layer.qkv;
            named.extend([
                (name.query(), q),
                (name.key(), k),
                (name.value(), v),
                (name.output(), &layer.output),
            ]);
            for (e, expert) in layer.experts.iter().enumerate() {
                named.extend([(name.w1(e), &expert.w1), (name.w2(e), &expert.w2), (name.w3(e), &expert.w3)]);
            }
        }
        named.push((names::HEAD.into(), self.head()));
        named
            .into_iter()
            .filter(|(_, w)| w.format.is_quantised())
            .map(|(name, w)| (name, [w.rows, w.cols], w.format, w.data.as_slice(), w.scales.as_slice()))
            .collect()
    }
}

struct Loader<'a> {
    checkpoint: &'a Checkpoint,
    dtype: Option<WeightDtype>,
    /// By name, until they are taken.
    converted: BTreeMap<String, Weight>,
}

impl Loader<'_> {
    fn tensor(&self, name: &str) -> Result<&StoredTensor, EngineError> {
        self.checkpoint.tensor(name).ok_or_else(|| EngineError::Missing(name.into()))
    }

    fn floats(&self, name: &str) -> Result<Vec<f32>, EngineError> {
        Ok(self.tensor(name)?.to_f32())
    }

    /// The matrix as it is stored.
    fn stored(&self, name: &str) -> Result<Weight, EngineError> {
        let tensor = self.tensor(name)?.clone();
        let (format, [rows, cols]) = (float_format(&tensor), shape_of(&tensor));
        Ok(Weight { format, rows, cols, data: Bytes::Stored(tensor), scales: Bytes::Empty })
    }

    /// Converts the matrices that are stored in another form than the one asked for, into one piece of memory.
    fn convert(&mut self, pool: &Pool, isa: Isa) -> Result<(), EngineError> {
        let Some(dtype) = self.dtype.filter(|&dtype| dtype != WeightDtype::F32) else { return Ok(()) };
        let format = dtype.format();
        let mut names: Vec<(String, String)> = names::expected(&self.checkpoint.config)
            .into_iter()
            .filter(|t| t.quantisable)
            .map(|t| (t.name.clone(), t.name))
            .collect();
        if self.checkpoint.config.tie_word_embeddings && !self.is_quantised(names::HEAD) {
            names.push((names::HEAD.into(), names::EMBEDDING.into()));
        }
        let mut sources = Vec::new();
        let mut len = 0;
        for (name, source) in names {
            if self.is_quantised(&name) {
                continue;
            }
            let stored = self.stored(&source)?;
            if stored.format == format {
                continue;
            }
            let (data, scales) = format.byte_lengths(stored.rows, stored.cols);
            let data = len..len + data;
            let scales = data.end.next_multiple_of(LINE)..data.end.next_multiple_of(LINE) + scales;
            len = scales.end.next_multiple_of(LINE);
            sources.push((name, stored, data, scales));
        }
        let mut memory = memory(len)?;
        for (_, stored, data, scales) in &sources {
            let (head, tail) = memory[data.start..scales.end].split_at_mut(scales.start - data.start);
            let (data, source) = (&mut head[..data.len()], stored.matrix()?);
            if format.is_quantised() {
                quant::quantise_into(pool, isa, &source, format, data, tail);
            } else {
                blackletter_kernels::to_bf16(pool, &source, data);
            }
            if let Bytes::Stored(tensor) = &stored.data {
                tensor.release();
            }
        }
        let memory = Arc::new(memory);
        for (name, Weight { rows, cols, .. }, data, scales) in sources {
            let part = |range: Range<usize>| Bytes::Converted(Arc::clone(&memory), range);
            let scales = if scales.is_empty() { Bytes::Empty } else { part(scales) };
            self.converted.insert(name, Weight { format, rows, cols, data: part(data), scales });
        }
        Ok(())
    }

    /// Whether the checkpoint holds this matrix in blocks.
    fn is_quantised(&self, name: &str) -> bool {
        self.checkpoint.tensor(&format!("{name}{QUANTS}")).is_some()
    }

    /// The matrix in the dtype that was asked for.
    fn matrix(&mut self, name: &str) -> Result<Weight, EngineError> {
        let Some(quants) = self.checkpoint.tensor(&format!("{name}{QUANTS}")) else {
            return self.converted.remove(name).map_or_else(|| self.stored(name), Ok);
        };
        let format = if quants.shape().last() == Some(&512) { Format::Q8 } else { Format::Q4 };
        let asked = self.dtype.map(WeightDtype::format);
        if asked.is_some_and(|asked| asked != format) {
            let stored = if format == Format::Q8 { WeightDtype::Q8 } else { WeightDtype::Q4 };
            return Err(EngineError::AlreadyQuantised { stored, asked: self.dtype.unwrap_or(stored) });
        }
        let wanted = names::expected(&self.checkpoint.config);
        let head = [self.checkpoint.config.vocab_size, self.checkpoint.config.hidden_size];
        let shape = wanted.iter().find(|t| t.name == name).map_or(head.to_vec(), |t| t.shape.clone());
        let scales = self.tensor(&format!("{name}{SCALES}"))?.clone();
        let (data, scales) = (Bytes::Stored(quants.clone()), Bytes::Stored(scales));
        Ok(Weight { format, rows: shape[0], cols: shape[1], data, scales })
    }

    /// The head; none when it is the embedding as stored.
    fn head(&mut self) -> Result<Option<Weight>, EngineError> {
        let tied = self.checkpoint.config.tie_word_embeddings && !self.is_quantised(names::HEAD);
        if tied { Ok(self.converted.remove(names::HEAD)) } else { self.matrix(names::HEAD).map(Some) }
    }
}

/// Where a converted matrix begins: on a cache line.
const LINE: usize = 64;

/// Zeroed memory, in huge pages where the system gives them: fewer address translations while weights stream by. Each matrix
/// in a piece of its own, the smaller ones would get none.
fn memory(len: usize) -> Result<MmapMut, EngineError> {
    let memory = MmapMut::map_anon(len.max(1)).map_err(EngineError::Memory)?;
    // Only advice; ordinary pages work too.
    #[cfg(target_os = "linux")]
    let _ = memory.advise(memmap2::Advice::HugePage);
    Ok(memory)
}

fn float_format(tensor: &StoredTensor) -> Format {
    match tensor.dtype() {
        Dtype::F32 => Format::F32,
        Dtype::F16 => Format::F16,
        // `Checkpoint` refuses other dtypes under a float tensor's name.
        Dtype::BF16 | Dtype::U8 => Format::Bf16,
    }
}

fn shape_of(tensor: &StoredTensor) -> [usize; 2] {
    match tensor.shape() {
        [rows, cols] => [*rows, *cols],
        other => [1, other.iter().product()],
    }
}
