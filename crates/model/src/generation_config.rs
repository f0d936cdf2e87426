//! `generation_config.json`: the settings that a model's authors generate with.

use crate::config::{ConfigError, ids, read_small};
use serde_json::{Map, Value};
use std::path::Path;

/// What stands in `generation_config.json`; `None` where it says nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GenerationConfig {
    /// Divides the logits.
    pub temperature: Option<f64>,
    /// How many of the most likely tokens stay.
    pub top_k: Option<u64>,
    /// How much probability stays.
    pub top_p: Option<f64>,
    /// Least probability, as a share of the largest.
    pub min_p: Option<f64>,
    /// How much typical probability stays.
    pub typical_p: Option<f64>,
    /// Divides or multiplies logits of tokens seen.
    pub repetition_penalty: Option<f64>,
    /// Length of n-grams that must not come twice.
    pub no_repeat_ngram_size: Option<u64>,
    /// Most tokens to generate.
    pub max_new_tokens: Option<u64>,
    /// Tokens that end a text; `None` leaves them to `config.json`.
    pub eos_token_id: Option<Vec<u32>>,
}

impl GenerationConfig {
    /// Reads `generation_config.json` of a model directory; `None` when there is none.
    ///
    /// # Errors
    /// When the file is there and cannot be read or used.
    pub fn from_dir(dir: &Path) -> Result<Option<Self>, ConfigError> {
        let path = dir.join("generation_config.json");
        match read_small(&path) {
            Ok(bytes) => Self::from_json(&bytes).map(Some),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(ConfigError::Read { path: path.display().to_string(), source }),
        }
    }

    /// Reads the text of a `generation_config.json`.
    ///
    /// # Errors
    /// As [`Self::from_dir`].
    pub fn from_json(bytes: &[u8]) -> Result<Self, ConfigError> {
        let map: Map<String, Value> = serde_json::from_slice(bytes)
            .map_err(|e| ConfigError::Json(format!("generation_config.json: {e}")))?;
        let float = |key: &'static str| match map.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(v) => v.as_f64().map(Some).ok_or_else(|| wrong(key, v, "a number")),
        };
        let whole = |key: &'static str| match map.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(v) => v.as_u64().map(Some).ok_or_else(|| wrong(key, v, "a whole number")),
        };
        let eos = ids(&map, "eos_token_id")?;
        Ok(Self {
            temperature: float("temperature")?,
            top_k: whole("top_k")?,
            top_p: float("top_p")?,
            min_p: float("min_p")?,
            typical_p: float("typical_p")?,
            repetition_penalty: float("repetition_penalty")?,
            no_repeat_ngram_size: whole("no_repeat_ngram_size")?,
            max_new_tokens: whole("max_new_tokens")?,
            eos_token_id: (!eos.is_empty()).then_some(eos),
        })
    }
}

fn wrong(key: &'static str, value: &Value, allowed: &str) -> ConfigError {
    ConfigError::Value {
        key,
        value: value.to_string(),
        allowed: format!("must be {allowed} (generation_config.json)"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_and_null_say_nothing_and_wrong_types_are_refused() {
        let read = |s: &str| GenerationConfig::from_json(s.as_bytes());
        assert_eq!(read("{}").unwrap(), GenerationConfig::default());
        let some = read(r#"{"temperature": 0.5, "top_k": null, "eos_token_id": [1, 2]}"#).unwrap();
        assert_eq!((some.temperature, some.top_k, some.eos_token_id), (Some(0.5), None, Some(vec![1, 2])));
        assert!(read(r#"{"top_k": -1}"#).unwrap_err().to_string().contains("top_k"));
        assert!(read("7").is_err());
    }
}
