//! Low-rank adapters (LoRA, Hu et al. 2021) in the form of PEFT: `adapter_config.json` and `adapter_model.safetensors`.
//!
//! An adapter adds `scale · B A` to weight matrices, with `A` `[rank, inputs]` and `B` `[outputs, rank]`. One that was trained here
//! says in the header of its weights which matrices it was trained on ([`base_hash`]), and is applied to no others.

use crate::{Checkpoint, Dtype, TensorSource, WriteError, config::read_small, write::write_described};
use safetensors::SafeTensors;
use serde_json::{Value, json};
use std::{
    borrow::Cow,
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";
const PREFIX: &str = "base_model.model.";
/// Where [`Adapter::base`] stands in the header of the weights.
const BASE: &str = "base_blake3";

/// An adapter cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AdapterError {
    /// A file cannot be read.
    #[error("cannot read {}: {source} (an adapter is a directory with {CONFIG} and {WEIGHTS})", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It cannot be followed.
    #[error("the adapter in {}: {reason}", .path.display())]
    Unusable {
        /// The adapter.
        path: PathBuf,
        /// What is in the way.
        reason: String,
    },
    /// It is for another model.
    #[error(
        "the adapter changes {name}, {found:?}; the model has {expected}: the adapter belongs to another model"
    )]
    Mismatch {
        /// The weight.
        name: String,
        /// Outputs and inputs of the adapter.
        found: [usize; 2],
        /// What the model has.
        expected: String,
    },
    /// It was trained on another model of the same geometry.
    #[error(
        "the adapter was trained on another model: the weights that it changes have the BLAKE3 {found} here and had {expected} there; name the model that it was trained on"
    )]
    OtherBase {
        /// Of the model.
        found: String,
        /// Recorded in the adapter.
        expected: String,
    },
}

/// BLAKE3, in hexadecimal, over matrices by name: the length of the name, the name, the number of values (both as 64 bits,
/// little-endian) and the values as 32-bit floats. In whatever form a model stores the same numbers, it has the same hash.
pub fn base_hash<'m>(matrices: impl IntoIterator<Item = (&'m str, Cow<'m, [f32]>)>) -> String {
    let mut hasher = blake3::Hasher::new();
    for (name, values) in matrices {
        hasher.update(&(name.len() as u64).to_le_bytes());
        hasher.update(name.as_bytes());
        hasher.update(&(values.len() as u64).to_le_bytes());
        let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        hasher.update(&bytes);
    }
    hasher.finalize().to_hex().to_string()
}

/// A matrix of a pair, and its shape.
type Half = (Vec<f32>, [usize; 2]);

/// What is added to one matrix.
#[derive(Clone, Debug, PartialEq)]
pub struct LowRank {
    /// `[rank, inputs]`.
    pub a: Vec<f32>,
    /// `[outputs, rank]`.
    pub b: Vec<f32>,
    /// Columns of the matrix.
    pub inputs: usize,
    /// Rows of the matrix.
    pub outputs: usize,
}

impl LowRank {
    /// Rank.
    pub fn rank(&self) -> usize {
        self.a.len() / self.inputs.max(1)
    }

    /// Adds `scale · B A` to a matrix `[outputs, inputs]`.
    pub fn add_to(&self, matrix: &mut [f32], scale: f64) {
        let rank = self.rank();
        for (row, b) in matrix.chunks_exact_mut(self.inputs.max(1)).zip(self.b.chunks_exact(rank.max(1))) {
            // In double precision: a merged weight is rounded once.
            let mut sums: Vec<f64> = row.iter().map(|&x| f64::from(x)).collect();
            for (b, a) in b.iter().zip(self.a.chunks_exact(self.inputs.max(1))) {
                let b = f64::from(*b) * scale;
                for (sum, a) in sums.iter_mut().zip(a) {
                    *sum += b * f64::from(*a);
                }
            }
            for (x, sum) in row.iter_mut().zip(sums) {
                *x = sum as f32;
            }
        }
    }
}

/// An adapter for a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Adapter {
    /// Rank.
    pub rank: usize,
    /// Numerator of the scale.
    pub alpha: f64,
    /// Whether the scale is `alpha / √rank` in place of `alpha / rank`.
    pub rank_stabilised: bool,
    /// By the name of the weight in a checkpoint.
    pub matrices: BTreeMap<String, LowRank>,
    /// [`base_hash`] of the matrices that it was trained on, in the order of their names, where the adapter says so.
    pub base: Option<String>,
}

impl Adapter {
    /// What `B A` is multiplied with.
    pub fn scale(&self) -> f64 {
        let rank = self.rank.max(1) as f64;
        self.alpha / if self.rank_stabilised { rank.sqrt() } else { rank }
    }

    /// Reads an adapter's directory.
    ///
    /// # Errors
    /// When it is none, or has parts that are not low-rank matrices.
    pub fn read(dir: &Path) -> Result<Self, AdapterError> {
        let read = |name: &str| {
            let path = dir.join(name);
            let bytes = if name == CONFIG { read_small(&path) } else { fs::read(&path) };
            bytes.map_err(|source| AdapterError::Read { path, source })
        };
        let unusable = |reason: String| AdapterError::Unusable { path: dir.into(), reason };
        let config: Value =
            serde_json::from_slice(&read(CONFIG)?).map_err(|e| unusable(format!("{CONFIG}: {e}")))?;
        if config["peft_type"].as_str() != Some("LORA") {
            return Err(unusable(format!("it is of type {}; \"LORA\" is supported", config["peft_type"])));
        }
        for key in ["use_dora", "fan_in_fan_out", "lora_bias"] {
            if config[key].as_bool() == Some(true) {
                return Err(unusable(format!("{key} is true, which is not supported")));
            }
        }
        for key in ["rank_pattern", "alpha_pattern"] {
            if config[key].as_object().is_some_and(|map| !map.is_empty()) {
                return Err(unusable(format!(
                    "{key} is set, which is not supported: all matrices have one rank and alpha"
                )));
            }
        }
        if config["bias"].as_str().is_some_and(|bias| bias != "none") {
            return Err(unusable(format!("bias is {}; \"none\" is supported", config["bias"])));
        }
        let rank = config["r"].as_u64().filter(|&r| (1..=1 << 16).contains(&r));
        let rank =
            rank.ok_or_else(|| unusable(format!("r is {}, and must be a whole number from 1", config["r"])))?;
        let alpha = config["lora_alpha"].as_f64().filter(|a| a.is_finite());
        let alpha = alpha.ok_or_else(|| {
            unusable(format!("lora_alpha is {}, and must be a number", config["lora_alpha"]))
        })?;
        let bytes = read(WEIGHTS)?;
        let file = SafeTensors::deserialize(&bytes).map_err(|e| unusable(format!("{WEIGHTS}: {e}")))?;
        let mut halves: BTreeMap<String, [Option<Half>; 2]> = BTreeMap::new();
        for (name, tensor) in file.iter() {
            let module = name.strip_prefix(PREFIX).unwrap_or(name);
            let (module, half) = if let Some(module) = module.strip_suffix(".lora_A.weight") {
                (module, 0)
            } else if let Some(module) = module.strip_suffix(".lora_B.weight") {
                (module, 1)
            } else {
                return Err(unusable(format!("{name} is no low-rank matrix (lora_A, lora_B)")));
            };
            let &[rows, cols] = tensor.shape() else {
                return Err(unusable(format!("{name} has shape {:?}, and must be a matrix", tensor.shape())));
            };
            let values =
                floats(&tensor).ok_or_else(|| unusable(format!("{name} is {:?}", tensor.dtype())))?;
            if let Some(place) = halves.entry(format!("{module}.weight")).or_default().get_mut(half) {
                *place = Some((values, [rows, cols]));
            }
        }
        let mut matrices = BTreeMap::new();
        for (name, pair) in halves {
            let [Some((a, [rank_a, inputs])), Some((b, [outputs, rank_b]))] = pair else {
                return Err(unusable(format!("{name} has one of lora_A and lora_B and not the other")));
            };
            if rank_a as u64 != rank || rank_b as u64 != rank {
                return Err(unusable(format!("{name} has rank {rank_a} and {rank_b}, {CONFIG} says {rank}")));
            }
            matrices.insert(name, LowRank { a, b, inputs, outputs });
        }
        let rank_stabilised = config["use_rslora"].as_bool() == Some(true);
        let header = SafeTensors::read_metadata(&bytes).ok();
        let base = header.and_then(|(_, header)| header.metadata().as_ref()?.get(BASE).cloned());
        Ok(Self { rank: rank as usize, alpha, rank_stabilised, matrices, base })
    }

    /// Writes a directory that PEFT loads; `base` is what it is told of the model below.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn write(&self, dir: &Path, base: &str) -> Result<(), WriteError> {
        let mut targets: Vec<&str> = self
            .matrices
            .keys()
            .filter_map(|name| name.strip_suffix(".weight")?.rsplit('.').next())
            .collect();
        targets.sort_unstable();
        targets.dedup();
        let config = json!({
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": base,
            "r": self.rank,
            "lora_alpha": self.alpha,
            "lora_dropout": 0.0,
            "use_rslora": self.rank_stabilised,
            "use_dora": false,
            "bias": "none",
            "fan_in_fan_out": false,
            "inference_mode": true,
            "target_modules": targets,
            "rank_pattern": {},
            "alpha_pattern": {},
            "modules_to_save": null,
        });
        let tensor = |name: &str, half: &str, values: &[f32], shape: [usize; 2]| {
            let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
            TensorSource {
                name: format!("{PREFIX}{}.{half}.weight", name.trim_end_matches(".weight")),
                dtype: Dtype::F32,
                shape: shape.to_vec(),
                bytes: Box::new(move || Cow::Owned(bytes)),
            }
        };
        let tensors = self
            .matrices
            .iter()
            .flat_map(|(name, m)| {
                [
                    tensor(name, "lora_A", &m.a, [m.rank(), m.inputs]),
                    tensor(name, "lora_B", &m.b, [m.outputs, m.rank()]),
                ]
            })
            .collect();
        fs::create_dir_all(dir).map_err(|source| WriteError { path: dir.display().to_string(), source })?;
        let base: Vec<(&str, &str)> = self.base.iter().map(|hash| (BASE, hash.as_str())).collect();
        write_described(&dir.join(WEIGHTS), tensors, &base)?;
        let path = dir.join(CONFIG);
        let text = serde_json::to_string_pretty(&config).unwrap_or_default() + "\n";
        fs::write(&path, text).map_err(|source| WriteError { path: path.display().to_string(), source })
    }

    /// Puts the adapter into a checkpoint's weights, which are `f32` then.
    ///
    /// # Errors
    /// When the checkpoint has no such matrix, or the adapter was trained on others.
    pub fn apply(&self, checkpoint: &mut Checkpoint) -> Result<(), AdapterError> {
        let mut matrices: BTreeMap<&str, Vec<f32>> = BTreeMap::new();
        for (name, m) in &self.matrices {
            let found = [m.outputs, m.inputs];
            let values = match checkpoint.tensor(name) {
                Some(tensor) if tensor.shape() == found => tensor.to_f32(),
                Some(tensor) => {
                    let expected = format!("{:?} there", tensor.shape());
                    return Err(AdapterError::Mismatch { name: name.clone(), found, expected });
                }
                None => {
                    let expected = "no such weight (adapters are for weights that are not quantised)".into();
                    return Err(AdapterError::Mismatch { name: name.clone(), found, expected });
                }
            };
            matrices.insert(name, values);
        }
        if let Some(expected) = &self.base {
            let found = base_hash(matrices.iter().map(|(name, values)| (*name, Cow::from(values))));
            if found != *expected {
                return Err(AdapterError::OtherBase { found, expected: expected.clone() });
            }
        }
        for (name, m) in &self.matrices {
            let Some(mut values) = matrices.remove(name.as_str()) else { continue };
            m.add_to(&mut values, self.scale());
            checkpoint.replace(name, &values, vec![m.outputs, m.inputs]);
        }
        Ok(())
    }
}

fn floats(tensor: &safetensors::tensor::TensorView<'_>) -> Option<Vec<f32>> {
    let data = tensor.data();
    match tensor.dtype() {
        safetensors::Dtype::F32 => Some(data.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect()),
        safetensors::Dtype::BF16 => {
            Some(data.as_chunks().0.iter().map(|b| half::bf16::from_le_bytes(*b).to_f32()).collect())
        }
        safetensors::Dtype::F16 => {
            Some(data.as_chunks().0.iter().map(|b| half::f16::from_le_bytes(*b).to_f32()).collect())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{MixtralConfig, names::Layer, random_checkpoint};
    use tempfile::TempDir;

    fn adapter() -> Adapter {
        let m = LowRank {
            a: (0..2 * 16).map(|i| (i % 7) as f32 - 3.0).collect(),
            b: (0..8 * 2).map(|i| (i % 5) as f32 * 0.1).collect(),
            inputs: 16,
            outputs: 8,
        };
        Adapter {
            rank: 2,
            alpha: 4.0,
            rank_stabilised: false,
            matrices: BTreeMap::from([(Layer(1).key(), m)]),
            base: None,
        }
    }

    fn model(dir: &Path) -> Checkpoint {
        let config = MixtralConfig {
            vocab_size: 11,
            hidden_size: 16,
            intermediate_size: 12,
            num_hidden_layers: 2,
            num_attention_heads: 2,
            num_key_value_heads: 1,
            head_dim: 8,
            ..MixtralConfig::geometry("kl3m-002-520m").unwrap()
        };
        random_checkpoint(dir, &config, Dtype::BF16, 1).unwrap();
        Checkpoint::open(dir).unwrap()
    }

    #[test]
    fn an_adapter_is_read_as_it_was_written() {
        let dir = TempDir::new().unwrap();
        adapter().write(dir.path(), "base").unwrap();
        assert_eq!(Adapter::read(dir.path()).unwrap(), adapter());
        let config: Value = serde_json::from_slice(&fs::read(dir.path().join(CONFIG)).unwrap()).unwrap();
        assert_eq!(config["target_modules"], json!(["k_proj"]));
    }

    #[test]
    fn applying_adds_the_scaled_product_and_nothing_else() {
        let dir = TempDir::new().unwrap();
        let (before, mut after) = (model(dir.path()), model(dir.path()));
        adapter().apply(&mut after).unwrap();
        for name in before.names() {
            let (old, new) = (before.tensor(name).unwrap().to_f32(), after.tensor(name).unwrap().to_f32());
            let m = &adapter().matrices[&Layer(1).key()];
            for (i, (old, new)) in old.iter().zip(&new).enumerate() {
                let added = if name == Layer(1).key() {
                    2.0 * (0..2).map(|r| m.b[i / 16 * 2 + r] * m.a[r * 16 + i % 16]).sum::<f32>()
                } else {
                    0.0
                };
                assert!((new - old - added).abs() < 1e-5, "{name}[{i}]");
            }
        }
    }

    #[test]
    fn an_adapter_is_applied_to_the_weights_that_it_was_trained_on_and_no_others() {
        let (dir, one, two) = (TempDir::new().unwrap(), TempDir::new().unwrap(), TempDir::new().unwrap());
        let base = model(one.path());
        let key = Layer(1).key();
        let values = base.tensor(&key).unwrap().to_f32();
        let hash = base_hash([(key.as_str(), Cow::from(&values))]);
        Adapter { base: Some(hash.clone()), ..adapter() }.write(dir.path(), "base").unwrap();
        let read = Adapter::read(dir.path()).unwrap();
        assert_eq!(read.base, Some(hash.clone()));
        read.apply(&mut model(one.path())).unwrap();
        // The same numbers in another form.
        let wide: Vec<_> = base.names().map(str::to_owned).collect();
        let tensors = wide.iter().map(|name| {
            let tensor = base.tensor(name).unwrap();
            let bytes: Vec<u8> = tensor.to_f32().iter().flat_map(|x| x.to_le_bytes()).collect();
            let shape = tensor.shape().to_vec();
            TensorSource {
                name: name.clone(),
                dtype: Dtype::F32,
                shape,
                bytes: Box::new(move || Cow::Owned(bytes)),
            }
        });
        crate::write_checkpoint(two.path(), &base.config, Dtype::F32, tensors.collect(), 1 << 30, &[])
            .unwrap();
        read.apply(&mut Checkpoint::open(two.path()).unwrap()).unwrap();
        // One number of the matrix is another one.
        let mut other = model(one.path());
        let mut changed = values;
        changed[3] += 1.0;
        other.replace(&key, &changed, vec![8, 16]);
        let message = read.apply(&mut other).unwrap_err().to_string();
        assert!(message.contains("another model") && message.contains(&hash), "{message}");
    }

    #[test]
    fn what_cannot_be_followed_is_refused_by_name() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join(CONFIG);
        for (key, value) in [
            ("peft_type", json!("IA3")),
            ("use_dora", json!(true)),
            ("bias", json!("all")),
            ("r", json!(3)),
            ("lora_alpha", json!("x")),
            ("rank_pattern", json!({ "q_proj": 4 })),
        ] {
            adapter().write(dir.path(), "base").unwrap();
            let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
            config[key] = value;
            fs::write(&path, config.to_string()).unwrap();
            assert!(Adapter::read(dir.path()).is_err(), "{key}");
        }
        let model_dir = TempDir::new().unwrap();
        let mut other = adapter();
        let m = other.matrices.remove(&Layer(1).key()).unwrap();
        other.matrices.insert(Layer(1).query(), m);
        let message = other.apply(&mut model(model_dir.path())).unwrap_err().to_string();
        assert!(message.contains("q_proj") && message.contains("[16, 16]"), "{message}");
    }
}
