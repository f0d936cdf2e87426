//! What a model directory holds, for people: `blackletter inspect`.

use crate::{Checkpoint, CheckpointError, Dtype, MixtralConfig};
use serde::Serialize;
use serde_json::Value;
use std::{collections::BTreeMap, fs, path::Path};

/// The directory cannot be described.
#[derive(Debug, thiserror::Error)]
pub enum DescribeError {
    /// The checkpoint cannot be used.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
}

/// What `inspect` shows.
#[derive(Clone, Debug, Serialize)]
pub struct Description {
    /// The class that `transformers` would load.
    pub architecture: &'static str,
    /// Geometry, in the order of reading.
    pub geometry: BTreeMap<&'static str, Value>,
    /// Numbers in all tensors.
    pub total_parameters: u64,
    /// Numbers that one token is multiplied with.
    pub active_parameters: u64,
    /// Tensors of each dtype.
    pub dtypes: BTreeMap<&'static str, usize>,
    /// Weight files.
    pub weight_files: usize,
    /// Bytes of the weight files.
    pub weight_bytes: u64,
    /// Tensors in the files that the model does not use.
    pub unused_tensors: Vec<String>,
    /// Kind and number of tokens of `tokenizer.json`; `None` when there is none.
    pub tokenizer: Option<TokenizerDescription>,
    /// Where a licence is stated, and what: the model card's metadata, `provenance.json`.
    pub licence: BTreeMap<&'static str, String>,
}

/// What `tokenizer.json` says of itself.
#[derive(Clone, Debug, Serialize)]
pub struct TokenizerDescription {
    /// Such as `BPE`.
    pub kind: String,
    /// Learned entries.
    pub entries: usize,
    /// Added tokens, some of which may be entries too.
    pub added_tokens: usize,
    /// Special tokens.
    pub special_tokens: Vec<String>,
}

/// Describes a model directory.
///
/// # Errors
/// When the checkpoint cannot be used.
pub fn describe(dir: &Path) -> Result<Description, DescribeError> {
    let checkpoint = Checkpoint::open(dir)?;
    let read = |name: &str| fs::read_to_string(dir.join(name)).ok();
    Ok(Description::new(&checkpoint, &read))
}

impl Description {
    /// Describes an open checkpoint; `read` gives the text of a file beside it.
    pub fn new(checkpoint: &Checkpoint, read: &dyn Fn(&str) -> Option<String>) -> Self {
        let config = &checkpoint.config;
        let mut dtypes = BTreeMap::new();
        for tensor in checkpoint.names().filter_map(|name| checkpoint.tensor(name)) {
            let name = match tensor.dtype() {
                Dtype::U8 if tensor.shape().last() == Some(&512) => "q8",
                Dtype::U8 => "q4",
                other => other.name(),
            };
            *dtypes.entry(name).or_insert(0) += 1;
        }
        Self {
            architecture: "MixtralForCausalLM",
            geometry: geometry(config),
            total_parameters: config.total_parameters(),
            active_parameters: config.active_parameters(),
            dtypes,
            weight_files: checkpoint.files().len(),
            weight_bytes: checkpoint.bytes(),
            unused_tensors: checkpoint.extra().to_vec(),
            tokenizer: read("tokenizer.json").as_deref().and_then(tokenizer),
            licence: licence(read),
        }
    }
}

fn geometry(config: &MixtralConfig) -> BTreeMap<&'static str, Value> {
    let size = |n: usize| Value::from(n);
    BTreeMap::from([
        ("vocab_size", size(config.vocab_size)),
        ("hidden_size", size(config.hidden_size)),
        ("intermediate_size", size(config.intermediate_size)),
        ("num_hidden_layers", size(config.num_hidden_layers)),
        ("num_attention_heads", size(config.num_attention_heads)),
        ("num_key_value_heads", size(config.num_key_value_heads)),
        ("head_dim", size(config.head_dim)),
        ("num_local_experts", size(config.num_local_experts)),
        ("num_experts_per_tok", size(config.num_experts_per_tok)),
        ("max_position_embeddings", size(config.max_position_embeddings)),
        ("sliding_window", config.sliding_window.map_or(Value::Null, Value::from)),
        ("rope_theta", Value::from(config.rope_theta)),
        ("rms_norm_eps", Value::from(config.rms_norm_eps)),
        ("tie_word_embeddings", Value::from(config.tie_word_embeddings)),
    ])
}

fn tokenizer(text: &str) -> Option<TokenizerDescription> {
    let value: Value = serde_json::from_str(text).ok()?;
    let model = value.get("model")?;
    let entries = match model.get("vocab")? {
        Value::Object(map) => map.len(),
        Value::Array(list) => list.len(),
        _ => return None,
    };
    let added = value.get("added_tokens").and_then(Value::as_array).cloned().unwrap_or_default();
    let special = |token: &&Value| token.get("special").and_then(Value::as_bool) == Some(true);
    let content = |token: &Value| token.get("content").and_then(Value::as_str).map(str::to_string);
    Some(TokenizerDescription {
        kind: model.get("type").and_then(Value::as_str).unwrap_or("BPE").to_string(),
        entries,
        added_tokens: added.len(),
        special_tokens: added.iter().filter(special).filter_map(content).collect(),
    })
}

fn licence(read: &dyn Fn(&str) -> Option<String>) -> BTreeMap<&'static str, String> {
    let mut found = BTreeMap::new();
    if let Some(card) = read("README.md") {
        let mut lines = card.lines();
        if lines.next().map(str::trim) == Some("---") {
            for line in lines.take_while(|line| line.trim() != "---") {
                if let Some((key, value)) = line.split_once(':') {
                    let value = value.trim().trim_matches(['"', '\'']).to_string();
                    match key {
                        "license" => drop(found.insert("license", value)),
                        "license_name" => drop(found.insert("license_name", value)),
                        "license_link" => drop(found.insert("license_link", value)),
                        _ => {}
                    }
                }
            }
        }
    }
    let provenance = read("provenance.json").and_then(|text| serde_json::from_str::<Value>(&text).ok());
    // A model's record has it with the model's name, other files of that name at the top.
    let stated = provenance.as_ref().and_then(|p| p.pointer("/model/license").or_else(|| p.get("license")));
    if let Some(license) = stated.and_then(Value::as_str) {
        found.insert("provenance.json license", license.to_string());
    }
    if read("LICENSE").is_some() {
        found.insert("file", "LICENSE".into());
    }
    found
}

impl std::fmt::Display for Description {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let million = |n: u64| format!("{n} ({:.1} M)", n as f64 / 1e6);
        writeln!(f, "architecture       {}", self.architecture)?;
        writeln!(f, "parameters total   {}", million(self.total_parameters))?;
        writeln!(f, "parameters active  {}", million(self.active_parameters))?;
        let dtypes: Vec<String> =
            self.dtypes.iter().map(|(name, n)| format!("{name} ({n} tensors)")).collect();
        writeln!(f, "dtypes             {}", dtypes.join(", "))?;
        let mb = self.weight_bytes as f64 / 1e6;
        writeln!(f, "weights            {mb:.1} MB in {} file(s)", self.weight_files)?;
        if !self.unused_tensors.is_empty() {
            writeln!(f, "unused tensors     {}", self.unused_tensors.join(", "))?;
        }
        for (key, value) in &self.geometry {
            writeln!(f, "  {key:<24} {value}")?;
        }
        match &self.tokenizer {
            Some(t) => writeln!(
                f,
                "tokenizer          {}, {} entries, {} added tokens; special: {}",
                t.kind,
                t.entries,
                t.added_tokens,
                t.special_tokens.join(" ")
            )?,
            None => writeln!(f, "tokenizer          none (commands on token ids work)")?,
        }
        if self.licence.is_empty() {
            writeln!(f, "licence            not stated in this directory")?;
        }
        for (key, value) in &self.licence {
            writeln!(f, "licence            {key}: {value}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_licence_in_a_models_record_is_found() {
        for record in [r#"{"model":{"name":"m","license":"CC-BY-4.0"}}"#, r#"{"license":"CC-BY-4.0"}"#] {
            let read = |name: &str| (name == "provenance.json").then(|| record.to_string());
            assert_eq!(licence(&read)["provenance.json license"], "CC-BY-4.0");
        }
        assert!(licence(&|_| None).is_empty());
    }
}
