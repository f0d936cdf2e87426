//! Models made from models keep the outputs that theory says they keep.
#![cfg(feature = "burn")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use blackletter_model::{
    Checkpoint, Dtype, MixtralConfig,
    decoder::{Batch, Decoder, Device},
    random_checkpoint,
    surgery::{SurgeryError, add_layers, average, copy_companions, extend_context, resize_vocab},
};
use std::{fs, path::Path};
use tempfile::TempDir;

const TOKENS: usize = 24;

fn model(dir: &Path, seed: u64) -> Checkpoint {
    let config = MixtralConfig {
        vocab_size: 61,
        hidden_size: 16,
        intermediate_size: 20,
        num_hidden_layers: 3,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: 8,
        max_position_embeddings: TOKENS,
        ..MixtralConfig::geometry("kl3m-002-520m").unwrap()
    };
    random_checkpoint(dir, &config, Dtype::F32, seed).unwrap();
    Checkpoint::open(dir).unwrap()
}

/// Logits of a text, `[tokens, vocabulary]`.
fn logits(checkpoint: &Checkpoint) -> Vec<Vec<f32>> {
    let decoder = Decoder::from_checkpoint(checkpoint, &Device::flex()).unwrap();
    let ids: Vec<u32> = (0..TOKENS as u32).map(|i| 3 + i * 13 % 50).collect();
    let targets = vec![5; TOKENS];
    let batch = Batch::new(TOKENS, ids, (0..TOKENS as u32).collect(), vec![1; TOKENS], targets, 61).unwrap();
    let all: Vec<f32> = decoder.logits(&batch).into_data().iter::<f32>().collect();
    all.chunks(all.len() / TOKENS).map(<[f32]>::to_vec).collect()
}

/// Makes a model and gives its logits, cut to the first 61 tokens of the vocabulary.
fn made(operation: impl FnOnce(&Path) -> Result<(), SurgeryError>) -> (Checkpoint, Vec<Vec<f32>>) {
    let dir = TempDir::new().unwrap();
    operation(dir.path()).unwrap();
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    let logits = logits(&checkpoint);
    (checkpoint, logits.into_iter().map(|row| row.into_iter().take(61).collect()).collect())
}

fn same(found: &[Vec<f32>], expected: &[Vec<f32>]) -> bool {
    found.iter().flatten().zip(expected.iter().flatten()).all(|(a, b)| (a - b).abs() < 1e-6)
}

#[test]
fn a_longer_context_more_layers_and_more_tokens_leave_logits_as_they_are() {
    let dir = TempDir::new().unwrap();
    let checkpoint = model(dir.path(), 1);
    let expected = logits(&checkpoint);
    let (longer, found) = made(|out| extend_context(&checkpoint, 96, None, out));
    assert!(same(&found, &expected) && longer.config.max_position_embeddings == 96);
    for more in [1, 2, 3, 7] {
        let (deeper, found) = made(|out| add_layers(&checkpoint, more, out));
        assert!(same(&found, &expected) && deeper.config.num_hidden_layers == 3 + more, "{more}");
    }
    let (larger, found) = made(|out| resize_vocab(&checkpoint, 70, out));
    assert!(same(&found, &expected) && larger.config.vocab_size == 70);
    let (turned, found) = made(|out| extend_context(&checkpoint, 96, Some(50_000.0), out));
    assert!(!same(&found, &expected) && turned.config.rope_theta == 50_000.0);
}

#[test]
fn an_average_lies_between_its_models_and_of_one_model_is_that_model() {
    let (one, two) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let (a, b) = (model(one.path(), 1), model(two.path(), 2));
    let open = |dir: &TempDir| Checkpoint::open(dir.path()).unwrap();
    let (_, found) = made(|out| average(&[open(&one), open(&one), open(&one)], out));
    assert!(same(&found, &logits(&a)));
    let (mean, _) = made(|out| average(&[open(&one), open(&two)], out));
    for name in a.names() {
        let [x, y, m] = [&a, &b, &mean].map(|c| c.tensor(name).unwrap().to_f32());
        assert!(m.iter().zip(x.iter().zip(&y)).all(|(m, (x, y))| (m - (x + y) / 2.0).abs() < 1e-7), "{name}");
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let (one, other) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let checkpoint = model(one.path(), 1);
    add_layers(&checkpoint, 1, other.path()).unwrap();
    let out = one.path().join("out");
    let deeper = Checkpoint::open(other.path()).unwrap();
    assert!(average(&[model(one.path(), 1), deeper], &out).is_err());
    assert!(extend_context(&checkpoint, 8, None, &out).unwrap_err().to_string().contains("24"));
    for theta in [f64::NAN, f64::INFINITY, 0.5, -1e4] {
        assert!(extend_context(&checkpoint, 96, Some(theta), &out).is_err(), "{theta}");
    }
    assert!(resize_vocab(&checkpoint, 2, &out).is_err());
    assert!(!out.exists());
}

#[test]
fn a_model_that_is_changed_where_it_lies_keeps_its_tokenizer() {
    let dir = TempDir::new().unwrap();
    let checkpoint = model(dir.path(), 1);
    fs::write(dir.path().join("tokenizer.json"), "{}").unwrap();
    extend_context(&checkpoint, 96, None, dir.path()).unwrap();
    copy_companions(dir.path(), &dir.path().join(".")).unwrap();
    assert_eq!(fs::read_to_string(dir.path().join("tokenizer.json")).unwrap(), "{}");
    assert_eq!(Checkpoint::open(dir.path()).unwrap().config.max_position_embeddings, 96);
}
