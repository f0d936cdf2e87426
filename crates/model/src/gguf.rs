//! A checkpoint as a GGUF file (version 3), which llama.cpp loads: architecture `llama` with experts, as Mixtral goes there.
//!
//! Notable choices:
//!
//! - llama.cpp rotates neighbouring pairs of a head where transformers rotates halves: rows of queries and keys are put in its
//!   order;
//! - a layer's experts are one tensor `[experts, rows, columns]`;
//! - the router and normalisations stay f32; rows whose length is no multiple of 32 stay f16 in `q8_0`;
//! - there is no sliding window for this architecture: llama.cpp attends to everything, so that its results are those of the
//!   model as long as prompt and output fit the window ([`Written::window`]).

use crate::{Checkpoint, MixtralConfig, names};
use half::{bf16, f16};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

/// Tensors begin at multiples of this many bytes.
const ALIGNMENT: u64 = 32;
/// Numbers in a block of `q8_0`.
const BLOCK: usize = 32;

/// The form of the matrices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GgufType {
    /// 32-bit floats.
    F32,
    /// IEEE half floats.
    F16,
    /// bfloat16.
    Bf16,
    /// 8-bit blocks of 32 with one scale.
    Q8_0,
}

impl GgufType {
    /// `general.file_type`.
    fn file_type(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q8_0 => 7,
            Self::Bf16 => 32,
        }
    }

    /// The tensor type.
    fn tensor_type(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q8_0 => 8,
            Self::Bf16 => 30,
        }
    }

    fn bytes(self, numbers: u64) -> u64 {
        match self {
            Self::F32 => 4 * numbers,
            Self::F16 | Self::Bf16 => 2 * numbers,
            Self::Q8_0 => numbers / BLOCK as u64 * 34,
        }
    }
}

/// A GGUF file cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum GgufError {
    /// The file system refuses.
    #[error("cannot write {path}: {source}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Already quantised.
    #[error("this checkpoint is quantized and cannot be exported: use the checkpoint it was made from")]
    Quantised,
    /// A tensor is not there.
    #[error("the checkpoint lacks {0}")]
    Missing(String),
    /// The tokenizer is of a kind that cannot be expressed.
    #[error("tokenizer.json cannot be put into GGUF: {0}")]
    Tokenizer(String),
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// Tensors.
    pub tensors: usize,
    /// Bytes of the file.
    pub bytes: u64,
    /// The model's sliding window, which llama.cpp does not know of.
    pub window: Option<usize>,
}

/// Writes the checkpoint to `path` with its tokenizer (`tokenizer.json`), under the name `name`.
///
/// # Errors
/// When the checkpoint is quantised, its tokenizer is no byte-level BPE, or the file cannot be written.
pub fn write_gguf(
    checkpoint: &Checkpoint,
    tokenizer_json: &[u8],
    name: &str,
    kind: GgufType,
    path: &Path,
) -> Result<Written, GgufError> {
    let config = &checkpoint.config;
    let tensors = plan(config, kind);
    for source in tensors.iter().flat_map(|tensor| &tensor.sources) {
        if checkpoint.tensor(source).is_none() {
            let quantised = checkpoint.tensor(&format!("{source}{}", names::QUANTS)).is_some();
            return Err(if quantised { GgufError::Quantised } else { GgufError::Missing(source.clone()) });
        }
    }
    let mut head = Head::default();
    describe(&mut head, config, name, kind);
    vocabulary(&mut head, config, tokenizer_json)?;
    let mut bytes = Vec::new();
    bytes.extend(b"GGUF");
    bytes.extend(3u32.to_le_bytes());
    bytes.extend((tensors.len() as u64).to_le_bytes());
    bytes.extend(head.entries.to_le_bytes());
    bytes.extend(head.bytes);
    let mut offset = 0u64;
    for tensor in &tensors {
        string(&mut bytes, &tensor.name);
        bytes.extend((tensor.shape.len() as u32).to_le_bytes());
        // The innermost dimension comes first.
        for &size in tensor.shape.iter().rev() {
            bytes.extend((size as u64).to_le_bytes());
        }
        bytes.extend(tensor.kind.tensor_type().to_le_bytes());
        bytes.extend(offset.to_le_bytes());
        offset += tensor.bytes().next_multiple_of(ALIGNMENT);
    }
    let failed = |source| GgufError::Write { path: path.into(), source };
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path).map_err(failed)?);
    bytes.resize(bytes.len().next_multiple_of(ALIGNMENT as usize), 0);
    file.write_all(&bytes).map_err(failed)?;
    for tensor in &tensors {
        let mut written = 0;
        for source in &tensor.sources {
            let stored = checkpoint.tensor(source).ok_or_else(|| GgufError::Missing(source.clone()))?;
            let mut values = stored.to_f32();
            if let Some(heads) = tensor.heads {
                values = interleave(&values, heads, config.head_dim, config.hidden_size);
            }
            let data = encode(&values, tensor.kind);
            written += data.len() as u64;
            file.write_all(&data).map_err(failed)?;
        }
        let padding = written.next_multiple_of(ALIGNMENT) - written;
        file.write_all(&vec![0; padding as usize]).map_err(failed)?;
    }
    let file = file.into_inner().map_err(|e| failed(e.into_error()))?;
    file.sync_all().map_err(failed)?;
    let window = config.sliding_window.filter(|&window| window < config.max_position_embeddings);
    Ok(Written { tensors: tensors.len(), bytes: bytes.len() as u64 + offset, window })
}

/// A tensor of the file: one of the checkpoint, or several one after the other.
struct Tensor {
    name: String,
    sources: Vec<String>,
    shape: Vec<usize>,
    kind: GgufType,
    /// Heads whose rows are to be put in llama.cpp's order.
    heads: Option<usize>,
}

impl Tensor {
    fn bytes(&self) -> u64 {
        self.kind.bytes(self.shape.iter().map(|&size| size as u64).product())
    }
}

fn plan(config: &MixtralConfig, kind: GgufType) -> Vec<Tensor> {
    let mut all = Vec::new();
    let mut add = |name: String, sources: Vec<String>, shape: &[usize], plain: bool, heads: Option<usize>| {
        let columns = shape.last().copied().unwrap_or_default();
        let kind = match kind {
            _ if plain => GgufType::F32,
            GgufType::Q8_0 if !columns.is_multiple_of(BLOCK) => GgufType::F16,
            kind => kind,
        };
        all.push(Tensor { name, sources, shape: shape.to_vec(), kind, heads });
    };
    let (hidden, inner, experts) = (config.hidden_size, config.intermediate_size, config.num_local_experts);
    let (q_heads, kv_heads) = (config.num_attention_heads, config.num_key_value_heads);
    let (q, kv) = (q_heads * config.head_dim, kv_heads * config.head_dim);
    add("token_embd.weight".into(), vec![names::EMBEDDING.into()], &[config.vocab_size, hidden], false, None);
    add("output_norm.weight".into(), vec![names::FINAL_NORM.into()], &[hidden], true, None);
    if !config.tie_word_embeddings {
        add("output.weight".into(), vec![names::HEAD.into()], &[config.vocab_size, hidden], false, None);
    }
    for number in 0..config.num_hidden_layers {
        let layer = names::Layer(number);
        let own = |part: &str| format!("blk.{number}.{part}.weight");
        let each = |of: fn(names::Layer, usize) -> String| (0..experts).map(|e| of(layer, e)).collect();
        add(own("attn_norm"), vec![layer.attention_norm()], &[hidden], true, None);
        add(own("attn_q"), vec![layer.query()], &[q, hidden], false, Some(q_heads));
        add(own("attn_k"), vec![layer.key()], &[kv, hidden], false, Some(kv_heads));
        add(own("attn_v"), vec![layer.value()], &[kv, hidden], false, None);
        add(own("attn_output"), vec![layer.output()], &[hidden, q], false, None);
        add(own("ffn_norm"), vec![layer.expert_norm()], &[hidden], true, None);
        add(own("ffn_gate_inp"), vec![layer.router()], &[experts, hidden], true, None);
        add(own("ffn_gate_exps"), each(names::Layer::w1), &[experts, inner, hidden], false, None);
        add(own("ffn_down_exps"), each(names::Layer::w2), &[experts, hidden, inner], false, None);
        add(own("ffn_up_exps"), each(names::Layer::w3), &[experts, inner, hidden], false, None);
    }
    all
}

/// Rows of each head from halves to pairs: row `i` and row `i + dim / 2` become neighbours.
fn interleave(values: &[f32], heads: usize, dim: usize, columns: usize) -> Vec<f32> {
    let mut out = Vec::with_capacity(values.len());
    for head in 0..heads {
        for pair in 0..dim / 2 {
            for half in 0..2 {
                let row = head * dim + half * (dim / 2) + pair;
                out.extend_from_slice(values.get(row * columns..(row + 1) * columns).unwrap_or_default());
            }
        }
    }
    out
}

fn encode(values: &[f32], kind: GgufType) -> Vec<u8> {
    let mut out = Vec::with_capacity(kind.bytes(values.len() as u64) as usize);
    match kind {
        GgufType::F32 => values.iter().for_each(|v| out.extend(v.to_le_bytes())),
        GgufType::F16 => values.iter().for_each(|&v| out.extend(f16::from_f32(v).to_le_bytes())),
        GgufType::Bf16 => values.iter().for_each(|&v| out.extend(bf16::from_f32(v).to_le_bytes())),
        GgufType::Q8_0 => {
            for block in values.chunks(BLOCK) {
                let largest = block.iter().fold(0.0f32, |m, v| m.max(v.abs()));
                let scale = largest / 127.0;
                let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
                out.extend(f16::from_f32(scale).to_le_bytes());
                out.extend(block.iter().map(|v| (v * inverse).round() as i8 as u8));
            }
        }
    }
    out
}

/// Keys with values, as they stand in the file.
#[derive(Default)]
struct Head {
    entries: u64,
    bytes: Vec<u8>,
}

fn string(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend((text.len() as u64).to_le_bytes());
    bytes.extend(text.as_bytes());
}

impl Head {
    fn key(&mut self, key: &str, kind: u32) {
        string(&mut self.bytes, key);
        self.bytes.extend(kind.to_le_bytes());
        self.entries += 1;
    }

    fn u32(&mut self, key: &str, value: usize) {
        self.key(key, 4);
        self.bytes.extend(u32::try_from(value).unwrap_or(u32::MAX).to_le_bytes());
    }

    fn f32(&mut self, key: &str, value: f64) {
        self.key(key, 6);
        self.bytes.extend((value as f32).to_le_bytes());
    }

    fn bool(&mut self, key: &str, value: bool) {
        self.key(key, 7);
        self.bytes.push(value.into());
    }

    fn text(&mut self, key: &str, value: &str) {
        self.key(key, 8);
        string(&mut self.bytes, value);
    }

    fn texts(&mut self, key: &str, values: &[String]) {
        self.key(key, 9);
        self.bytes.extend(8u32.to_le_bytes());
        self.bytes.extend((values.len() as u64).to_le_bytes());
        values.iter().for_each(|value| string(&mut self.bytes, value));
    }

    fn i32s(&mut self, key: &str, values: &[i32]) {
        self.key(key, 9);
        self.bytes.extend(5u32.to_le_bytes());
        self.bytes.extend((values.len() as u64).to_le_bytes());
        values.iter().for_each(|value| self.bytes.extend(value.to_le_bytes()));
    }
}

fn describe(head: &mut Head, config: &MixtralConfig, name: &str, kind: GgufType) {
    head.text("general.architecture", "llama");
    head.text("general.name", name);
    head.u32("general.file_type", kind.file_type() as usize);
    head.u32("general.alignment", ALIGNMENT as usize);
    head.u32("llama.block_count", config.num_hidden_layers);
    head.u32("llama.context_length", config.max_position_embeddings);
    head.u32("llama.embedding_length", config.hidden_size);
    head.u32("llama.feed_forward_length", config.intermediate_size);
    head.u32("llama.attention.head_count", config.num_attention_heads);
    head.u32("llama.attention.head_count_kv", config.num_key_value_heads);
    head.u32("llama.attention.key_length", config.head_dim);
    head.u32("llama.attention.value_length", config.head_dim);
    head.u32("llama.rope.dimension_count", config.head_dim);
    head.f32("llama.rope.freq_base", config.rope_theta);
    head.f32("llama.attention.layer_norm_rms_epsilon", config.rms_norm_eps);
    head.u32("llama.expert_count", config.num_local_experts);
    head.u32("llama.expert_used_count", config.num_experts_per_tok);
    head.u32("llama.vocab_size", config.vocab_size);
}

/// Kinds of tokens in GGUF.
const NORMAL: i32 = 1;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const UNUSED: i32 = 5;

fn vocabulary(head: &mut Head, config: &MixtralConfig, json: &[u8]) -> Result<(), GgufError> {
    let wrong = |why: &str| GgufError::Tokenizer(why.into());
    let tokenizer: Value = serde_json::from_slice(json).map_err(|e| wrong(&e.to_string()))?;
    let model = &tokenizer["model"];
    if model["type"] != "BPE" || !tokenizer["pre_tokenizer"].to_string().contains("ByteLevel") {
        return Err(wrong("it is no byte-level BPE"));
    }
    let mut tokens: BTreeMap<u64, (String, i32)> = BTreeMap::new();
    let vocab = model["vocab"].as_object().ok_or_else(|| wrong("it has no vocabulary"))?;
    for (token, id) in vocab {
        tokens.insert(id.as_u64().ok_or_else(|| wrong("an id is no number"))?, (token.clone(), NORMAL));
    }
    for added in tokenizer["added_tokens"].as_array().into_iter().flatten() {
        let (Some(id), Some(content)) = (added["id"].as_u64(), added["content"].as_str()) else {
            return Err(wrong("an added token has no id or no content"));
        };
        let kind = if added["special"] == true { CONTROL } else { USER_DEFINED };
        tokens.insert(id, (content.to_owned(), kind));
    }
    let (mut texts, mut kinds) = (Vec::new(), Vec::new());
    for id in 0..config.vocab_size as u64 {
        // Rows of the embedding that no token has.
        let (text, kind) = tokens.remove(&id).unwrap_or_else(|| (format!("[unused{id}]"), UNUSED));
        texts.push(text);
        kinds.push(kind);
    }
    if let Some(id) = tokens.keys().next() {
        return Err(wrong(&format!("its id {id} is beyond the embedding's {} rows", config.vocab_size)));
    }
    let merges: Vec<String> = model["merges"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|merge| match merge {
            Value::String(merge) => Some(merge.clone()),
            Value::Array(pair) => Some(format!("{} {}", pair.first()?.as_str()?, pair.get(1)?.as_str()?)),
            _ => None,
        })
        .collect::<Option<_>>()
        .ok_or_else(|| wrong("a merge is no pair"))?;
    head.text("tokenizer.ggml.model", "gpt2");
    head.text("tokenizer.ggml.pre", "gpt-2");
    head.texts("tokenizer.ggml.tokens", &texts);
    head.i32s("tokenizer.ggml.token_type", &kinds);
    head.texts("tokenizer.ggml.merges", &merges);
    let named = |name: &str| texts.iter().position(|text| text == name);
    if let Some(id) = config.bos_token_id {
        head.u32("tokenizer.ggml.bos_token_id", id as usize);
    }
    if let Some(&id) = config.eos_token_id.first() {
        head.u32("tokenizer.ggml.eos_token_id", id as usize);
    }
    if let Some(id) = config.pad_token_id.map(|id| id as usize).or_else(|| named("<|pad|>")) {
        head.u32("tokenizer.ggml.padding_token_id", id);
    }
    head.bool("tokenizer.ggml.add_bos_token", false);
    head.bool("tokenizer.ggml.add_eos_token", false);
    head.bool("tokenizer.ggml.add_space_prefix", false);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Dtype, random_checkpoint};

    const TOKENIZER: &str = r#"{"pre_tokenizer":{"type":"ByteLevel"},"added_tokens":[{"id":2,"content":"<|end|>","special":true},
        {"id":3,"content":" ","special":false}],"model":{"type":"BPE","vocab":{"a":0,"b":1,"ab":4},"merges":[["a","b"]]}}"#;

    fn checkpoint(dir: &Path) -> Checkpoint {
        let config = MixtralConfig {
            vocab_size: 6,
            hidden_size: 32,
            intermediate_size: 48,
            num_hidden_layers: 2,
            num_attention_heads: 4,
            num_key_value_heads: 2,
            head_dim: 8,
            ..MixtralConfig::geometry("kl3m-002-520m").unwrap()
        };
        random_checkpoint(dir, &config, Dtype::F32, 3).unwrap();
        Checkpoint::open(dir).unwrap()
    }

    #[test]
    fn rows_of_a_head_go_from_halves_to_pairs() {
        // Two heads of four rows with one column.
        let rows: Vec<f32> = (0..8).map(|n| n as f32).collect();
        assert_eq!(interleave(&rows, 2, 4, 1), [0.0, 2.0, 1.0, 3.0, 4.0, 6.0, 5.0, 7.0]);
    }

    #[test]
    fn blocks_of_eight_bits_are_within_half_a_step() {
        let values: Vec<f32> = (0..64).map(|n| ((n * 37) % 64) as f32 / 7.0 - 4.0).collect();
        let bytes = encode(&values, GgufType::Q8_0);
        assert_eq!(bytes.len(), 2 * 34);
        for (block, numbers) in bytes.chunks(34).zip(values.chunks(32)) {
            let scale = f16::from_le_bytes([block[0], block[1]]).to_f32();
            for (&q, v) in block[2..].iter().zip(numbers) {
                assert!((f32::from(q as i8) * scale - v).abs() <= 0.51 * scale + 0.002 * v.abs());
            }
        }
        assert!(encode(&[0.0; 32], GgufType::Q8_0).iter().all(|&b| b == 0));
    }

    #[test]
    fn the_files_length_is_what_its_parts_come_to_and_tensors_lie_where_it_says() {
        let dir = tempfile::tempdir().unwrap();
        let checkpoint = checkpoint(dir.path());
        for kind in [GgufType::F32, GgufType::F16, GgufType::Bf16, GgufType::Q8_0] {
            let path = dir.path().join("m.gguf");
            let written = write_gguf(&checkpoint, TOKENIZER.as_bytes(), "m", kind, &path).unwrap();
            let bytes = std::fs::read(&path).unwrap();
            assert_eq!((bytes.len() as u64, written.tensors), (written.bytes, 3 + 2 * 10), "{kind:?}");
            assert_eq!((&bytes[..4], written.window), (&b"GGUF"[..], Some(256)));
            if kind == GgufType::F32 {
                // The embedding comes first of the data.
                let embedding: Vec<u8> = checkpoint.tensor(names::EMBEDDING).unwrap().data().to_vec();
                let at = bytes.windows(embedding.len()).position(|w| w == embedding).unwrap();
                assert!(at.is_multiple_of(32));
            }
        }
    }

    #[test]
    fn other_tokenizers_and_too_large_ones_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let checkpoint = checkpoint(dir.path());
        let refuse = |json: &str| {
            write_gguf(&checkpoint, json.as_bytes(), "m", GgufType::F32, &dir.path().join("m.gguf"))
                .unwrap_err()
                .to_string()
        };
        assert!(refuse(&TOKENIZER.replace("BPE", "Unigram")).contains("byte-level BPE"));
        assert!(refuse(&TOKENIZER.replace("\"ab\":4", "\"ab\":6")).contains("beyond"));
    }
}
