//! A small model made on the spot, and the command under test.

use blackletter_model::{Dtype, MixtralConfig, random_checkpoint};
use serde_json::{Map, Value, json};
use std::{
    fs,
    path::Path,
    process::{Command, Output, Stdio},
};
use tempfile::TempDir;

/// Bytes, then the seven special tokens.
pub const VOCAB: usize = 256 + SPECIAL.len();
const SPECIAL: [&str; 7] = ["<|start|>", "<|end|>", "<|pad|>", "<|unk|>", "<|sep|>", "<|cls|>", "<|mask|>"];
pub const END: u64 = 257;

/// A model of seeded random weights whose tokens are single bytes, and which never ends a text by itself.
pub fn model(context: usize) -> TempDir {
    let dir = TempDir::new().unwrap();
    let config = MixtralConfig {
        vocab_size: VOCAB,
        hidden_size: 32,
        intermediate_size: 32,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: 8,
        max_position_embeddings: context,
        sliding_window: Some(32),
        bos_token_id: Some(256),
        eos_token_id: vec![],
        ..MixtralConfig::geometry("kl3m-002-520m").unwrap()
    };
    random_checkpoint(dir.path(), &config, Dtype::F32, 7).unwrap();
    write_tokenizer(dir.path(), &SPECIAL);
    dir
}

/// Writes a byte-level tokenizer without merges: bytes are ids 0 to 255 in the order of their characters.
pub fn write_tokenizer(dir: &Path, special: &[&str]) {
    let plain = |b: &u32| matches!(b, 33..=126 | 161..=172 | 174..=255);
    let mut characters: Vec<u32> = (0..256).filter(plain).collect();
    // Bytes that are no visible characters are written as those from 256 on.
    characters.extend(256..256 + (256 - characters.len() as u32));
    let vocab: Map<String, Value> = characters
        .iter()
        .enumerate()
        .map(|(id, &c)| (char::from_u32(c).unwrap().to_string(), json!(id)))
        .collect();
    let added: Vec<Value> = special
        .iter()
        .enumerate()
        .map(|(i, content)| {
            json!({ "id": 256 + i, "content": content, "special": true, "single_word": false, "lstrip": false,
                "rstrip": false, "normalized": false })
        })
        .collect();
    let byte_level =
        json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true });
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": null,
        "pre_tokenizer": byte_level, "post_processor": null, "decoder": byte_level,
        "model": { "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "vocab": vocab, "merges": [] },
    });
    fs::write(dir.join("tokenizer.json"), tokenizer.to_string()).unwrap();
}

/// The command, with nothing of the user's settings and no network.
pub fn blackletter() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_blackletter"));
    command.env("HF_HUB_OFFLINE", "1").env("HF_HOME", "/nonexistent").stdin(Stdio::null());
    for name in ["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_ENDPOINT", "HF_TOKEN", "BLACKLETTER_SIMD"] {
        command.env_remove(name);
    }
    command
}

/// How a run ended.
pub struct Ended {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// Runs the command on a model.
pub fn run(model: &TempDir, arguments: &[&str]) -> Ended {
    blackletter().args(arguments).arg("--model").arg(model.path()).output().unwrap().into()
}

/// Runs the command on a model; it has to end well and say nothing on standard error.
pub fn succeed(model: &TempDir, arguments: &[&str]) -> String {
    let ended = run(model, arguments);
    assert_eq!((ended.code, ended.stderr.as_str()), (0, ""), "{arguments:?}");
    ended.stdout
}
