//! Writing checkpoints: what was written is read back, and nothing half-written is left.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::type_complexity)]

// The lint exempts test functions; these helpers are only called by them.
use blackletter_model::{
    Checkpoint, Dtype, MixtralConfig, TensorSource, names, random_checkpoint, write_checkpoint,
};
use proptest::prelude::*;
use std::{borrow::Cow, fs, path::Path};

fn small(layers: usize, experts: usize, heads: usize, hidden: usize, tied: bool) -> MixtralConfig {
    MixtralConfig {
        vocab_size: 11,
        hidden_size: hidden,
        intermediate_size: hidden + 3,
        num_hidden_layers: layers,
        num_attention_heads: heads,
        num_key_value_heads: 1,
        head_dim: 6,
        num_local_experts: experts,
        num_experts_per_tok: 1,
        max_position_embeddings: 32,
        tie_word_embeddings: tied,
        eos_token_id: vec![1, 3],
        ..MixtralConfig::geometry("kl3m-002-520m").unwrap()
    }
}

/// Bytes that depend on the tensor and the place in it.
fn pattern(tensor: usize, len: usize, salt: u8) -> Vec<u8> {
    (0..len).map(|i| (i.wrapping_mul(31) ^ tensor.wrapping_mul(7)) as u8 ^ salt).collect()
}

fn sources(config: &MixtralConfig, dtype: Dtype, salt: u8) -> Vec<TensorSource<'static>> {
    let source = |(i, want): (usize, names::Expected)| {
        let len = want.shape.iter().product::<usize>() * dtype.bytes();
        let bytes = Box::new(move || Cow::Owned(pattern(i, len, salt)));
        TensorSource { name: want.name, dtype, shape: want.shape, bytes }
    };
    names::expected(config).into_iter().enumerate().map(source).collect()
}

fn files(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|f| f.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn assert_holds(dir: &Path, config: &MixtralConfig, dtype: Dtype, salt: u8) {
    let checkpoint = Checkpoint::open(dir).unwrap();
    assert_eq!(&checkpoint.config, config);
    for (i, want) in names::expected(config).into_iter().enumerate() {
        let tensor = checkpoint.tensor(&want.name).unwrap();
        assert_eq!((tensor.dtype(), tensor.shape()), (dtype, want.shape.as_slice()));
        assert_eq!(tensor.data(), pattern(i, tensor.data().len(), salt), "{}", want.name);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn what_is_written_is_read_back_bit_for_bit(
        (layers, experts, heads, hidden) in (1usize..4, 1usize..5, 1usize..4, 1usize..9),
        tied: bool,
        dtype in prop_oneof![Just(Dtype::F32), Just(Dtype::F16), Just(Dtype::BF16)],
        shard_bytes in prop_oneof![Just(u64::MAX), 1u64..4000],
    ) {
        let (dir, config) = (tempfile::tempdir().unwrap(), small(layers, experts, heads, hidden, tied));
        write_checkpoint(dir.path(), &config, dtype, sources(&config, dtype, 5), shard_bytes, &[]).unwrap();
        assert_holds(dir.path(), &config, dtype, 5);
        let left: Vec<String> = files(dir.path()).into_iter().filter(|name| name.contains("tmp")).collect();
        prop_assert!(left.is_empty(), "{left:?}");
        // No shard outgrows the limit unless a single tensor does.
        let checkpoint = Checkpoint::open(dir.path()).unwrap();
        let largest = checkpoint.names().map(|n| checkpoint.tensor(n).unwrap().data().len()).max().unwrap() as u64;
        for file in checkpoint.files() {
            let bytes = fs::read(file).unwrap();
            let header = u64::from_le_bytes(bytes[..8].try_into().unwrap());
            prop_assert_eq!((header + 8) % 64, 0);
            prop_assert!(bytes.len() as u64 - 8 - header <= shard_bytes.max(largest));
        }
    }
}

#[test]
fn shards_replace_a_single_file_that_stood_there_before() {
    let (dir, config) = (tempfile::tempdir().unwrap(), small(2, 2, 1, 4, false));
    for (shard_bytes, salt) in [(u64::MAX, 1), (300, 2), (u64::MAX, 3)] {
        write_checkpoint(
            dir.path(),
            &config,
            Dtype::F32,
            sources(&config, Dtype::F32, salt),
            shard_bytes,
            &[],
        )
        .unwrap();
        assert_holds(dir.path(), &config, Dtype::F32, salt);
    }
}

#[test]
fn a_failed_write_leaves_the_old_model_and_no_other_file() {
    let (dir, config) = (tempfile::tempdir().unwrap(), small(1, 1, 1, 4, false));
    let write = |tensors| write_checkpoint(dir.path(), &config, Dtype::F32, tensors, u64::MAX, &[]);
    write(sources(&config, Dtype::F32, 1)).unwrap();
    let before = files(dir.path());

    let mut short = sources(&config, Dtype::F32, 2);
    short.last_mut().unwrap().bytes = Box::new(|| Cow::Borrowed(&[]));
    assert!(write(short).unwrap_err().to_string().contains("lm_head.weight has 0 bytes"));
    let mut twice = sources(&config, Dtype::F32, 2);
    twice.extend(sources(&config, Dtype::F32, 2).pop());
    assert!(write(twice).unwrap_err().to_string().contains("two tensors are named lm_head.weight"));

    assert_eq!(files(dir.path()), before);
    assert_holds(dir.path(), &config, Dtype::F32, 1);
}

#[test]
fn a_place_that_cannot_be_written_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let config = small(1, 1, 1, 4, false);
    fs::write(dir.path().join("taken"), "").unwrap();
    let error = random_checkpoint(&dir.path().join("taken"), &config, Dtype::F32, 1).unwrap_err();
    assert!(error.to_string().contains("taken"), "{error}");
}

#[test]
fn random_checkpoints_depend_on_the_seed_alone() {
    let config = small(1, 2, 1, 8, false);
    let weights = |seed| {
        let dir = tempfile::tempdir().unwrap();
        random_checkpoint(dir.path(), &config, Dtype::F32, seed).unwrap();
        let checkpoint = Checkpoint::open(dir.path()).unwrap();
        assert!(checkpoint.tensor(names::FINAL_NORM).unwrap().to_f32().iter().all(|&x| x == 1.0));
        fs::read(dir.path().join("model.safetensors")).unwrap()
    };
    assert_eq!(weights(1), weights(1));
    assert_ne!(weights(1), weights(2));
}
