//! `config.json`: what the model is.

use serde_json::{Map, Value, json};
use std::{fs, io::Read, path::Path};

/// The configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// Not JSON, or not an object.
    #[error("config.json is not a JSON object: {0}")]
    Json(String),
    /// Another architecture.
    #[error("architecture {0:?} is not supported: blackletter runs \"mixtral\" (MixtralForCausalLM)")]
    Architecture(String),
    /// A key that must be there is not.
    #[error("config.json lacks {0:?}")]
    Missing(&'static str),
    /// A value that cannot be used.
    #[error("config.json: {key} = {value} is not usable: {allowed}")]
    Value {
        /// The key's path.
        key: &'static str,
        /// What stands there.
        value: String,
        /// What may stand there.
        allowed: String,
    },
}

/// A Mixtral model's geometry and constants, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct MixtralConfig {
    /// Tokens in the vocabulary.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width inside an expert.
    pub intermediate_size: usize,
    /// Decoder layers.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key-value heads.
    pub num_key_value_heads: usize,
    /// Numbers per head.
    pub head_dim: usize,
    /// Experts in a layer.
    pub num_local_experts: usize,
    /// Experts that a token goes to.
    pub num_experts_per_tok: usize,
    /// Context length in tokens.
    pub max_position_embeddings: usize,
    /// A token sees itself and the `window − 1` before it; `None` for all.
    pub sliding_window: Option<usize>,
    /// Base of the rotary angles.
    pub rope_theta: f64,
    /// ε of the normalisations.
    pub rms_norm_eps: f64,
    /// Whether the head is the embedding.
    pub tie_word_embeddings: bool,
    /// Weight of the load-balancing loss in training.
    pub router_aux_loss_coef: f64,
    /// Start of a document.
    pub bos_token_id: Option<u32>,
    /// Ends of a document.
    pub eos_token_id: Vec<u32>,
    /// Padding.
    pub pad_token_id: Option<u32>,
}

/// Beyond this no dimension is plausible; products of two stay far inside `u64`.
const LARGEST: u64 = 1 << 24;

/// Beyond this many experts in all layers, a list of the tensors alone would fill the memory.
const MOST_EXPERTS: u64 = 1 << 16;

/// Beyond this many numbers no file system holds the weights; all byte counts stay inside `u64`.
const MOST_PARAMETERS: u128 = 1 << 50;

/// A `config.json` larger than this is something else.
const LARGEST_FILE: u64 = 16 << 20;

impl MixtralConfig {
    /// Reads `config.json` of a model directory.
    ///
    /// # Errors
    /// When it cannot be read or used; the message names key, value and what is allowed.
    pub fn from_dir(dir: &Path) -> Result<Self, ConfigError> {
        let path = dir.join("config.json");
        let bytes = read_small(&path)
            .map_err(|source| ConfigError::Read { path: path.display().to_string(), source })?;
        Self::from_json(&bytes)
    }

    /// Reads the text of a `config.json`.
    ///
    /// # Errors
    /// As [`Self::from_dir`].
    pub fn from_json(bytes: &[u8]) -> Result<Self, ConfigError> {
        let value: Value = serde_json::from_slice(bytes).map_err(|e| ConfigError::Json(e.to_string()))?;
        let Value::Object(map) = value else {
            return Err(ConfigError::Json("it is another kind of value".into()));
        };
        let architecture = match (map.get("model_type"), map.get("architectures")) {
            (Some(Value::String(kind)), _) => kind.clone(),
            (_, Some(Value::Array(list))) => list
                .first()
                .and_then(Value::as_str)
                .unwrap_or_default()
                .replace("MixtralForCausalLM", "mixtral"),
            _ => return Err(ConfigError::Missing("model_type")),
        };
        if architecture != "mixtral" {
            return Err(ConfigError::Architecture(architecture));
        }
        let size = |key| count(&map, key).and_then(|n| n.ok_or(ConfigError::Missing(key)));
        let hidden_size = size("hidden_size")?;
        let num_attention_heads = size("num_attention_heads")?;
        let head_dim = match count(&map, "head_dim")? {
            Some(n) => n,
            None if hidden_size.is_multiple_of(num_attention_heads) => hidden_size / num_attention_heads,
            None => {
                return Err(refused(
                    "hidden_size",
                    &json!(hidden_size),
                    format!("a multiple of num_attention_heads = {num_attention_heads}, or head_dim given"),
                ));
            }
        };
        if let Some(act) = map.get("hidden_act").filter(|a| a.as_str() != Some("silu") && !a.is_null()) {
            return Err(refused("hidden_act", act, "\"silu\""));
        }
        let config = Self {
            vocab_size: size("vocab_size")?,
            hidden_size,
            intermediate_size: size("intermediate_size")?,
            num_hidden_layers: size("num_hidden_layers")?,
            num_attention_heads,
            num_key_value_heads: count(&map, "num_key_value_heads")?.unwrap_or(num_attention_heads),
            head_dim,
            num_local_experts: size("num_local_experts")?,
            num_experts_per_tok: size("num_experts_per_tok")?,
            max_position_embeddings: size("max_position_embeddings")?,
            sliding_window: count(&map, "sliding_window")?,
            rope_theta: rope_theta(&map)?,
            rms_norm_eps: positive(&map, "rms_norm_eps")?.unwrap_or(1e-5),
            tie_word_embeddings: boolean(&map, "tie_word_embeddings")?.unwrap_or(false),
            router_aux_loss_coef: number(&map, "router_aux_loss_coef")?.unwrap_or(0.001),
            bos_token_id: ids(&map, "bos_token_id")?.first().copied(),
            eos_token_id: ids(&map, "eos_token_id")?,
            pad_token_id: ids(&map, "pad_token_id")?.first().copied(),
        };
        config.validate()?;
        Ok(config)
    }

    /// Checks what ties the values together.
    ///
    /// # Errors
    /// Names the key, its value and what is allowed.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if self.num_key_value_heads == 0 || !self.num_attention_heads.is_multiple_of(self.num_key_value_heads)
        {
            return Err(refused(
                "num_key_value_heads",
                &json!(self.num_key_value_heads),
                format!("a divisor of num_attention_heads = {}", self.num_attention_heads),
            ));
        }
        if !(1..=self.num_local_experts).contains(&self.num_experts_per_tok) {
            return Err(refused(
                "num_experts_per_tok",
                &json!(self.num_experts_per_tok),
                format!("1 to num_local_experts = {}", self.num_local_experts),
            ));
        }
        if !self.head_dim.is_multiple_of(2) {
            return Err(refused("head_dim", &json!(self.head_dim), "an even number"));
        }
        let limits = [
            ("num_hidden_layers", self.num_hidden_layers, 1 << 12),
            ("num_local_experts", self.num_local_experts, 1 << 12),
            ("head_dim", self.head_dim, 1 << 14),
            ("num_attention_heads", self.num_attention_heads, 1 << 12),
            // Angles of all positions are kept.
            ("max_position_embeddings", self.max_position_embeddings, 1 << 22),
        ];
        for (key, value, most) in limits {
            if value > most {
                return Err(refused(key, &json!(value), format!("at most {most}")));
            }
        }
        // With the limits above, neither product can overflow.
        let experts = self.num_hidden_layers as u64 * self.num_local_experts as u64;
        if experts > MOST_EXPERTS {
            return Err(refused(
                "num_local_experts",
                &json!(self.num_local_experts),
                format!(
                    "such that num_hidden_layers x num_local_experts = {experts} is at most {MOST_EXPERTS}"
                ),
            ));
        }
        let parameters = self.count_parameters(self.num_local_experts, true);
        if parameters > MOST_PARAMETERS {
            return Err(refused(
                "hidden_size",
                &json!(self.hidden_size),
                format!("such that all parameters, here {parameters}, are at most {MOST_PARAMETERS}"),
            ));
        }
        for (key, id) in [("bos_token_id", self.bos_token_id), ("pad_token_id", self.pad_token_id)] {
            if id.is_some_and(|id| id as usize >= self.vocab_size) {
                return Err(refused(key, &json!(id), format!("below vocab_size = {}", self.vocab_size)));
            }
        }
        if let Some(id) = self.eos_token_id.iter().find(|&&id| id as usize >= self.vocab_size) {
            return Err(refused(
                "eos_token_id",
                &json!(id),
                format!("below vocab_size = {}", self.vocab_size),
            ));
        }
        Ok(())
    }

    /// The `config.json` that `transformers` reads as this configuration; `dtype` is that of the weights.
    pub fn to_json(&self, dtype: &str) -> Value {
        let eos = match self.eos_token_id.as_slice() {
            [] => Value::Null,
            [one] => json!(one),
            many => json!(many),
        };
        json!({
            "architectures": ["MixtralForCausalLM"],
            "attention_dropout": 0.0,
            "bos_token_id": self.bos_token_id,
            "dtype": dtype,
            "eos_token_id": eos,
            "head_dim": self.head_dim,
            "hidden_act": "silu",
            "hidden_size": self.hidden_size,
            "initializer_range": 0.02,
            "intermediate_size": self.intermediate_size,
            "max_position_embeddings": self.max_position_embeddings,
            "model_type": "mixtral",
            "num_attention_heads": self.num_attention_heads,
            "num_experts_per_tok": self.num_experts_per_tok,
            "num_hidden_layers": self.num_hidden_layers,
            "num_key_value_heads": self.num_key_value_heads,
            "num_local_experts": self.num_local_experts,
            "output_router_logits": false,
            "pad_token_id": self.pad_token_id,
            "rms_norm_eps": self.rms_norm_eps,
            "rope_parameters": { "rope_theta": self.rope_theta, "rope_type": "default" },
            "rope_theta": self.rope_theta,
            "router_aux_loss_coef": self.router_aux_loss_coef,
            "router_jitter_noise": 0.0,
            "sliding_window": self.sliding_window,
            "tie_word_embeddings": self.tie_word_embeddings,
            "torch_dtype": dtype,
            "use_cache": true,
            "vocab_size": self.vocab_size,
        })
    }

    /// A published geometry by name: `kl3m-002-520m` or `kl3m-003-3.7b`.
    pub fn geometry(name: &str) -> Option<Self> {
        let base = Self {
            vocab_size: 32_768,
            hidden_size: 1_024,
            intermediate_size: 2_048,
            num_hidden_layers: 16,
            num_attention_heads: 16,
            num_key_value_heads: 8,
            head_dim: 64,
            num_local_experts: 4,
            num_experts_per_tok: 2,
            max_position_embeddings: 1_024,
            sliding_window: Some(256),
            rope_theta: 10_000.0,
            rms_norm_eps: 1e-5,
            tie_word_embeddings: false,
            router_aux_loss_coef: 0.02,
            bos_token_id: Some(0),
            eos_token_id: vec![1],
            pad_token_id: Some(2),
        };
        match name {
            "kl3m-002-520m" => Some(base),
            "kl3m-003-3.7b" => Some(Self {
                hidden_size: 2_048,
                intermediate_size: 4_096,
                num_hidden_layers: 32,
                num_attention_heads: 32,
                max_position_embeddings: 4_096,
                sliding_window: None,
                router_aux_loss_coef: 0.05,
                ..base
            }),
            _ => None,
        }
    }

    /// Names that [`Self::geometry`] knows.
    pub const GEOMETRIES: [&'static str; 2] = ["kl3m-002-520m", "kl3m-003-3.7b"];

    /// Numbers in all tensors.
    pub fn total_parameters(&self) -> u64 {
        saturating(self.count_parameters(self.num_local_experts, true))
    }

    /// Numbers that one token is multiplied with: all but the experts that it does not go to, and the input embedding, in
    /// which it is only looked up.
    pub fn active_parameters(&self) -> u64 {
        saturating(self.count_parameters(self.num_experts_per_tok, self.tie_word_embeddings))
    }

    /// In `u128`, where no product of four sizes below [`LARGEST`] overflows.
    fn count_parameters(&self, experts: usize, embedding: bool) -> u128 {
        let wide = |n: usize| n as u128;
        let hidden = wide(self.hidden_size);
        let (q, kv) = (wide(self.num_attention_heads), wide(self.num_key_value_heads));
        let attention = 2 * hidden * (q + kv) * wide(self.head_dim);
        let expert = 3 * hidden * wide(self.intermediate_size);
        let norms_and_router = hidden * (wide(self.num_local_experts) + 2);
        let layer = attention + norms_and_router + wide(experts) * expert;
        let head = u128::from(!self.tie_word_embeddings);
        let tables = (u128::from(embedding) + head) * wide(self.vocab_size) * hidden;
        wide(self.num_hidden_layers) * layer + tables + hidden
    }
}

fn saturating(n: u128) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

/// Reads a file that is small by nature, and refuses one that is not before it fills the memory.
pub(crate) fn read_small(path: &Path) -> std::io::Result<Vec<u8>> {
    // Before opening, which waits for a writer if it is a pipe.
    if !fs::metadata(path)?.is_file() {
        return Err(std::io::Error::other("it is not a file"));
    }
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(LARGEST_FILE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST_FILE {
        return Err(std::io::Error::other(format!("it is larger than {LARGEST_FILE} bytes")));
    }
    Ok(bytes)
}

fn refused(key: &'static str, value: &Value, allowed: impl Into<String>) -> ConfigError {
    ConfigError::Value { key, value: value.to_string(), allowed: format!("must be {}", allowed.into()) }
}

/// A count of at least 1; `None` when absent or null.
fn count(map: &Map<String, Value>, key: &'static str) -> Result<Option<usize>, ConfigError> {
    match map.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match value.as_u64() {
            Some(n @ 1..=LARGEST) => Ok(Some(n as usize)),
            _ => Err(refused(key, value, format!("a whole number from 1 to {LARGEST}"))),
        },
    }
}

fn number(map: &Map<String, Value>, key: &'static str) -> Result<Option<f64>, ConfigError> {
    match map.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match value.as_f64().filter(|x| x.is_finite() && *x >= 0.0) {
            Some(x) => Ok(Some(x)),
            None => Err(refused(key, value, "a number not below 0")),
        },
    }
}

fn positive(map: &Map<String, Value>, key: &'static str) -> Result<Option<f64>, ConfigError> {
    match number(map, key)? {
        // Arithmetic is in f32, where a smaller number is 0 and a larger one infinite.
        Some(x) if (x as f32) < f32::MIN_POSITIVE || (x as f32).is_infinite() => {
            Err(refused(key, &json!(x), "a number above 0 that a 32-bit float can hold"))
        }
        other => Ok(other),
    }
}

fn boolean(map: &Map<String, Value>, key: &'static str) -> Result<Option<bool>, ConfigError> {
    match map.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Bool(b)) => Ok(Some(*b)),
        Some(value) => Err(refused(key, value, "true or false")),
    }
}

/// Both spellings: `rope_theta` beside the rest, or inside `rope_parameters`.
fn rope_theta(map: &Map<String, Value>) -> Result<f64, ConfigError> {
    for key in ["rope_parameters", "rope_scaling"] {
        match map.get(key) {
            None | Some(Value::Null) => {}
            Some(Value::Object(rope)) => {
                let kind = rope.get("rope_type").or_else(|| rope.get("type")).unwrap_or(&Value::Null);
                if !kind.is_null() && kind.as_str() != Some("default") {
                    return Err(refused("rope_parameters.rope_type", kind, "\"default\""));
                }
                if let Some(theta) = base(rope)? {
                    return Ok(theta);
                }
            }
            Some(value) => return Err(refused("rope_parameters", value, "an object or null")),
        }
    }
    Ok(base(map)?.unwrap_or(10_000.0))
}

/// The base of the rotary angles: below 1, later pairs would turn faster than a radian a position.
fn base(map: &Map<String, Value>) -> Result<Option<f64>, ConfigError> {
    match positive(map, "rope_theta")? {
        Some(x) if x < 1.0 => Err(refused("rope_theta", &json!(x), "at least 1")),
        other => Ok(other),
    }
}

/// A token id, a list of them, or null.
pub(crate) fn ids(map: &Map<String, Value>, key: &'static str) -> Result<Vec<u32>, ConfigError> {
    let one = |value: &Value| {
        value
            .as_u64()
            .and_then(|n| u32::try_from(n).ok())
            .ok_or_else(|| refused(key, value, "a token id, a list of token ids or null"))
    };
    match map.get(key) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(list)) => list.iter().map(one).collect(),
        Some(value) => Ok(vec![one(value)?]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tiny() -> Value {
        MixtralConfig::geometry("kl3m-002-520m").unwrap().to_json("float32")
    }

    fn read(value: &Value) -> Result<MixtralConfig, ConfigError> {
        MixtralConfig::from_json(value.to_string().as_bytes())
    }

    #[test]
    fn the_520m_geometry_has_its_published_parameter_count() {
        let config = MixtralConfig::geometry("kl3m-002-520m").unwrap();
        assert_eq!(config.total_parameters(), 520_193_024);
        assert_eq!(config.active_parameters(), 285_312_000);
        let counted: usize =
            crate::names::expected(&config).iter().map(|t| t.shape.iter().product::<usize>()).sum();
        assert_eq!(counted as u64, config.total_parameters());
    }

    #[test]
    fn what_is_written_is_read_back() {
        for name in MixtralConfig::GEOMETRIES {
            let config = MixtralConfig::geometry(name).unwrap();
            assert_eq!(read(&config.to_json("bfloat16")).unwrap(), config);
        }
    }

    /// Found by fuzzing: a number was read as its neighbour.
    #[test]
    fn numbers_are_read_to_the_last_bit() {
        let text = "1006666666666666666666666666666666666.0";
        let written = tiny().to_string().replace("\"rope_theta\":10000.0", &format!("\"rope_theta\":{text}"));
        let theta = MixtralConfig::from_json(written.as_bytes()).unwrap().rope_theta;
        assert_eq!(theta, text.parse::<f64>().unwrap());
        for theta in [1.0066666666666667e36, 12_345.678_901_234_567, 1.000_000_000_000_000_2, 3.3e38] {
            let config =
                MixtralConfig { rope_theta: theta, ..MixtralConfig::geometry("kl3m-002-520m").unwrap() };
            assert_eq!(read(&config.to_json("float32")).unwrap(), config);
        }
    }

    #[test]
    fn both_spellings_of_rope_are_read() {
        let mut value = tiny();
        value["rope_parameters"] = Value::Null;
        value["rope_theta"] = json!(500.0);
        assert_eq!(read(&value).unwrap().rope_theta, 500.0);
        value["rope_parameters"] = json!({"rope_theta": 700.0, "rope_type": "default"});
        assert_eq!(read(&value).unwrap().rope_theta, 700.0);
        value["rope_parameters"] = json!({"rope_theta": 700.0, "rope_type": "yarn"});
        assert!(read(&value).unwrap_err().to_string().contains("yarn"));
    }

    #[test]
    fn a_value_that_cannot_be_is_refused_by_name() {
        for (key, bad) in [
            ("hidden_size", json!(0)),
            ("hidden_size", json!(1.5)),
            ("vocab_size", json!(u64::MAX)),
            ("num_key_value_heads", json!(3)),
            ("num_experts_per_tok", json!(5)),
            ("head_dim", json!(63)),
            ("sliding_window", json!(-1)),
            ("rms_norm_eps", json!(0)),
            ("rms_norm_eps", json!(1e-50)),
            ("rope_parameters", json!({ "rope_theta": 1e108 })),
            ("rope_parameters", json!({ "rope_theta": 0.5 })),
            ("tie_word_embeddings", json!("no")),
            ("eos_token_id", json!([1, 40000])),
            ("hidden_act", json!("gelu")),
            ("num_hidden_layers", json!(1 << 13)),
            ("num_local_experts", json!(1 << 12 | 1)),
        ] {
            let mut value = tiny();
            value[key] = bad;
            let message = read(&value).unwrap_err().to_string();
            let key = if key == "rope_parameters" { "rope_theta" } else { key };
            assert!(message.contains(key), "{message}");
        }
        // Each size is within its own limit; together they would take gigabytes for the names alone.
        let mut many = tiny();
        (many["num_hidden_layers"], many["num_local_experts"]) = (json!(1 << 12), json!(1 << 12));
        assert!(read(&many).unwrap_err().to_string().contains("num_local_experts"));
        let mut vast = tiny();
        (vast["hidden_size"], vast["intermediate_size"]) = (json!(1 << 24), json!(1 << 24));
        assert!(read(&vast).unwrap_err().to_string().contains("hidden_size"));
        let mut other = tiny();
        other["model_type"] = json!("llama");
        assert!(read(&other).unwrap_err().to_string().contains("llama"));
        assert!(MixtralConfig::from_json(b"[1]").is_err());
        assert!(MixtralConfig::from_json(&[0xff, 0xfe]).is_err());
    }
}
