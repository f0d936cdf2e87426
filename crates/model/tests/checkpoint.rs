//! Opening model directories: what is right opens, what is wrong gets a sentence that names it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::type_complexity)]

// The lint exempts test functions; these helpers are only called by them.
use blackletter_model::{
    Checkpoint, CheckpointError, Dtype, MixtralConfig, describe, names, random_checkpoint,
};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::{collections::BTreeMap, fs, path::Path};
use tempfile::TempDir;

/// `(dtype, shape, bytes)` of tensors by name, as a test wants them in a file.
type Tensors = BTreeMap<String, (&'static str, Vec<usize>, Vec<u8>)>;

fn config() -> MixtralConfig {
    MixtralConfig {
        vocab_size: 6,
        hidden_size: 4,
        intermediate_size: 6,
        num_hidden_layers: 2,
        num_attention_heads: 2,
        num_key_value_heads: 1,
        head_dim: 2,
        num_local_experts: 3,
        num_experts_per_tok: 2,
        max_position_embeddings: 16,
        eos_token_id: vec![1],
        ..MixtralConfig::geometry("kl3m-002-520m").unwrap()
    }
}

/// Tensor `i` is filled with the number `i`, so that none can be taken for another.
fn tensors(config: &MixtralConfig) -> Tensors {
    let number = |(i, want): (usize, names::Expected)| {
        let count: usize = want.shape.iter().product();
        (want.name, ("F32", want.shape, (i as f32).to_le_bytes().repeat(count)))
    };
    names::expected(config).into_iter().enumerate().map(number).collect()
}

fn safetensors(tensors: &Tensors) -> Vec<u8> {
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for (name, (dtype, shape, bytes)) in tensors {
        let offsets = [data.len(), data.len() + bytes.len()];
        header.insert(name.clone(), json!({ "dtype": dtype, "shape": shape, "data_offsets": offsets }));
        data.extend(bytes);
    }
    file(&Value::Object(header).to_string(), &data)
}

fn file(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
}

fn directory(config: &MixtralConfig, weights: &[u8]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("config.json"), config.to_json("float32").to_string()).unwrap();
    fs::write(dir.path().join("model.safetensors"), weights).unwrap();
    dir
}

fn refusal(dir: &Path) -> String {
    Checkpoint::open(dir).expect_err("this must not open").to_string()
}

fn refusal_of(weights: &[u8]) -> String {
    refusal(directory(&config(), weights).path())
}

/// Splits the tensors over two files and an index; `edit` may spoil the index.
fn sharded(first: &Tensors, second: &Tensors, edit: impl FnOnce(&mut Value)) -> TempDir {
    let dir = directory(&config(), b"");
    fs::remove_file(dir.path().join("model.safetensors")).unwrap();
    let mut map = serde_json::Map::new();
    for (name, shard) in [("a.safetensors", first), ("b.safetensors", second)] {
        fs::write(dir.path().join(name), safetensors(shard)).unwrap();
        map.extend(shard.keys().map(|tensor| (tensor.clone(), json!(name))));
    }
    let mut index = json!({ "metadata": {}, "weight_map": map });
    edit(&mut index);
    fs::write(dir.path().join("model.safetensors.index.json"), index.to_string()).unwrap();
    dir
}

fn halves() -> (Tensors, Tensors) {
    let mut first = tensors(&config());
    let second = first.split_off(names::FINAL_NORM);
    assert!(!first.is_empty() && !second.is_empty());
    (first, second)
}

#[test]
fn every_tensor_is_found_with_its_own_numbers() {
    let all = tensors(&config());
    let (first, second) = halves();
    let one = directory(&config(), &safetensors(&all));
    let many = sharded(&first, &second, |_| {});
    for dir in [one.path(), many.path()] {
        let checkpoint = Checkpoint::open(dir).unwrap();
        assert_eq!(checkpoint.names().count(), all.len());
        for (name, (_, shape, bytes)) in &all {
            let tensor = checkpoint.tensor(name).unwrap();
            assert_eq!((tensor.shape(), tensor.data()), (shape.as_slice(), bytes.as_slice()), "{name}");
        }
    }
}

#[test]
fn half_floats_widen_exactly() {
    let mut all = tensors(&config());
    let norm = |dtype, bits: [u16; 4]| (dtype, vec![4], bits.iter().flat_map(|b| b.to_le_bytes()).collect());
    all.insert(names::FINAL_NORM.into(), norm("BF16", [0x3f80, 0xc000, 0x0001, 0x7f80]));
    all.insert(names::Layer(0).attention_norm(), norm("F16", [0x3c00, 0xc000, 0x0001, 0x7c00]));
    let dir = directory(&config(), &safetensors(&all));
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    let values = |name: &str| checkpoint.tensor(name).unwrap().to_f32();
    assert_eq!(values(names::FINAL_NORM), [1.0, -2.0, f32::from_bits(1 << 16), f32::INFINITY]);
    assert_eq!(values(&names::Layer(0).attention_norm()), [1.0, -2.0, 2f32.powi(-24), f32::INFINITY]);
}

#[test]
fn all_tensors_that_do_not_fit_are_named_at_once() {
    let mut all = tensors(&config());
    all.remove(names::EMBEDDING);
    all.remove(&names::Layer(1).w2(2));
    all.insert(names::FINAL_NORM.into(), ("F32", vec![5], vec![0; 20]));
    all.insert(names::HEAD.into(), ("F64", vec![6, 4], vec![0; 192]));
    let message = refusal_of(&safetensors(&all));
    for line in [
        "model.embed_tokens.weight: missing, expected [6, 4]",
        "model.layers.1.block_sparse_moe.experts.2.w2.weight: missing, expected [4, 6]",
        "model.norm.weight: shape [5], expected [4]",
        "lm_head.weight: dtype F64, expected float32, float16 or bfloat16",
    ] {
        assert!(message.contains(line), "{line:?} is not in {message}");
    }
}

#[test]
fn names_of_a_module_inside_or_around_the_model_are_recognised() {
    for (from, to, shown) in [("model.", "", "\"\""), ("model.", "module.model.", "\"module.model.\"")] {
        let renamed =
            tensors(&config()).into_iter().map(|(name, t)| (name.replacen(from, to, 1), t)).collect();
        let message = refusal_of(&safetensors(&renamed));
        assert!(message.contains(&format!("begin with {shown}")), "{message}");
    }
}

#[test]
fn tensors_that_the_model_does_not_use_are_listed() {
    let mut all = tensors(&config());
    all.insert("model.layers.0.self_attn.rotary_emb.inv_freq".into(), ("F32", vec![1], vec![0; 4]));
    all.insert("steps".into(), ("I64", vec![1], vec![0; 8]));
    let dir = directory(&config(), &safetensors(&all));
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    assert_eq!(checkpoint.extra(), ["model.layers.0.self_attn.rotary_emb.inv_freq", "steps"]);
    assert!(checkpoint.tensor("steps").is_none());
}

#[test]
fn a_tied_head_needs_no_tensor_and_an_untied_one_does() {
    let mut all = tensors(&config());
    all.remove(names::HEAD);
    assert!(refusal_of(&safetensors(&all)).contains("lm_head.weight: missing"));
    let tied = MixtralConfig { tie_word_embeddings: true, ..config() };
    Checkpoint::open(directory(&tied, &safetensors(&all)).path()).unwrap();
}

#[test]
fn quantised_matrices_open_and_their_shapes_are_checked() {
    let name = names::Layer(0).w1(0);
    let mut all = tensors(&config());
    all.remove(&name);
    all.insert(format!("{name}.quants"), ("U8", vec![1, 1, 256], vec![7; 256]));
    all.insert(format!("{name}.scales"), ("F16", vec![1, 1, 16], vec![0; 32]));
    let dir = directory(&config(), &safetensors(&all));
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    assert_eq!(checkpoint.tensor(&format!("{name}.quants")).unwrap().dtype(), Dtype::U8);
    all.insert(format!("{name}.quants"), ("U8", vec![1, 2, 256], vec![7; 512]));
    let message = refusal_of(&safetensors(&all));
    assert!(message.contains("[1, 2, 256], expected uint8 [1, 1, 512] or [1, 1, 256]"), "{message}");
}

#[test]
fn directories_that_are_no_model_get_a_sentence() {
    let dir = tempfile::tempdir().unwrap();
    assert!(refusal(&dir.path().join("nowhere")).contains("nowhere does not exist"));
    assert!(refusal(dir.path()).contains("config.json"));
    let text = dir.path().join("text");
    fs::write(&text, "").unwrap();
    assert!(refusal(&text).contains("is not a model directory"));
    fs::write(dir.path().join("config.json"), config().to_json("float32").to_string()).unwrap();
    assert!(refusal(dir.path()).contains("has no weights"));
    fs::write(dir.path().join("pytorch_model.bin"), "").unwrap();
    assert!(refusal(dir.path()).contains("convert pytorch_model.bin"));
    fs::write(dir.path().join("config.json"), vec![b' '; (16 << 20) + 1]).unwrap();
    assert!(refusal(dir.path()).contains("larger than"));
}

#[test]
fn a_git_lfs_pointer_is_called_by_its_name() {
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 2080772096\n";
    assert!(refusal_of(pointer).contains("git lfs pull"));
}

#[test]
fn headers_that_lie_are_refused_with_the_file_name() {
    let tensor = |a: &str, b: &str| {
        let header = format!(r#"{{"x":{{"dtype":"F32","shape":{a},"data_offsets":{b}}}}}"#);
        file(&header, &[0; 16])
    };
    let two = r#"{"x":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"y":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}"#;
    for (what, bytes) in [
        ("empty", Vec::new()),
        ("shorter than a length", vec![1, 0, 0]),
        ("longer header than the file", file("{}", b"")[..9].to_vec()),
        ("a header of 2^64 - 1 bytes", [vec![0xff; 8], b"{}".to_vec()].concat()),
        (
            "a header of 100 MB in a file of ten bytes",
            [100_000_000u64.to_le_bytes().to_vec(), b"{}".to_vec()].concat(),
        ),
        ("no JSON", file("not json", b"")),
        ("no UTF-8", [&2u64.to_le_bytes()[..], &[0xff, 0xfe]].concat()),
        ("offsets beyond the file", tensor("[8]", "[0,32]")),
        ("offsets that run backwards", tensor("[4]", "[16,0]")),
        ("offsets that do not fit the shape", tensor("[3]", "[0,16]")),
        ("negative offsets", tensor("[4]", "[-1,15]")),
        ("a shape whose product overflows", tensor("[4294967296,4294967296,4]", "[0,16]")),
        ("offsets near the largest number", tensor("[4]", "[18446744073709551599,18446744073709551615]")),
        ("a gap", tensor("[2]", "[8,16]")),
        ("data that no tensor covers", tensor("[2]", "[0,8]")),
        ("an overlap", file(two, &[0; 12])),
        ("an unknown dtype", file(r#"{"x":{"dtype":"F12","shape":[],"data_offsets":[0,0]}}"#, b"")),
        ("deep nesting", file(&"[".repeat(100_000), b"")),
    ] {
        let dir = directory(&config(), &bytes);
        match Checkpoint::open(dir.path()) {
            Err(CheckpointError::Safetensors { path, .. }) => {
                assert!(path.ends_with("model.safetensors"), "{what}")
            }
            other => panic!("{what}: {other:?}"),
        }
    }
}

#[test]
fn an_index_cannot_name_files_outside_of_the_directory() {
    let (first, second) = halves();
    let outside = tempfile::tempdir().unwrap();
    let elsewhere = outside.path().join("b.safetensors");
    fs::write(&elsewhere, safetensors(&second)).unwrap();
    for bad in [
        json!("../b.safetensors"),
        json!(elsewhere),
        json!("x/b"),
        json!("x\\b"),
        json!(".."),
        json!(""),
        json!(3),
    ] {
        let dir = sharded(&first, &second, |index| index["weight_map"][names::FINAL_NORM] = bad.clone());
        assert!(refusal(dir.path()).contains("not a name in this directory"), "{bad}");
    }
}

#[test]
fn shards_that_are_missing_empty_or_of_two_checkpoints_are_refused() {
    let (first, second) = halves();
    let dir = sharded(&first, &second, |_| {});
    fs::remove_file(dir.path().join("b.safetensors")).unwrap();
    assert!(refusal(dir.path()).contains("b.safetensors"));
    let dir = sharded(&first, &second, |index| index["weight_map"] = json!({}));
    assert!(refusal(dir.path()).contains("is empty"));
    let dir = sharded(&first, &second, |index| *index = json!([]));
    assert!(refusal(dir.path()).contains("weight_map"));
    let dir = sharded(&tensors(&config()), &second, |_| {});
    assert!(refusal(dir.path()).contains("another weight file holds too"));
}

#[test]
fn a_description_names_what_the_directory_states() {
    let dir = tempfile::tempdir().unwrap();
    random_checkpoint(dir.path(), &config(), Dtype::BF16, 1).unwrap();
    let card = "---\nlanguage: en\nlicense: cc-by-4.0\n---\nlicense: not this one\n";
    fs::write(dir.path().join("README.md"), card).unwrap();
    let tokenizer = json!({
        "model": { "type": "BPE", "vocab": { "a": 0, "b": 1 } },
        "added_tokens": [{ "id": 2, "content": "<|end|>", "special": true }, { "id": 3, "content": " ", "special": false }],
    });
    fs::write(dir.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
    let shown = describe(dir.path()).unwrap();
    let size = fs::metadata(dir.path().join("model.safetensors")).unwrap().len();
    assert_eq!((shown.weight_bytes, shown.weight_files), (size, 1));
    assert_eq!(shown.dtypes, BTreeMap::from([("bfloat16", names::expected(&config()).len())]));
    assert_eq!(shown.licence, BTreeMap::from([("license", "cc-by-4.0".to_string())]));
    let tokenizer = shown.tokenizer.as_ref().unwrap();
    assert_eq!((tokenizer.entries, tokenizer.added_tokens), (2, 2));
    assert_eq!(tokenizer.special_tokens, ["<|end|>"]);
    assert!(shown.to_string().contains("cc-by-4.0"));
}

#[test]
fn reference_checkpoints_open() {
    let reference = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/reference");
    if !reference.exists() {
        println!("skipped: no reference checkpoints here");
        return;
    }
    for (name, parameters) in [("legal-small", Some(12_700_000.0)), ("mixtral-tiny", None)] {
        let checkpoint = Checkpoint::open(&reference.join(name)).unwrap();
        let counted: usize =
            checkpoint.names().map(|n| checkpoint.tensor(n).unwrap().shape().iter().product::<usize>()).sum();
        assert_eq!(counted as u64, checkpoint.config.total_parameters());
        if let Some(stated) = parameters {
            assert!((counted as f64 / stated - 1.0).abs() < 0.01, "{counted}");
        }
        assert!(checkpoint.extra().is_empty());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn bytes_changed_anywhere_never_panic(at in 0usize..6000, value: u8, cut in 0usize..6000) {
        let mut bytes = safetensors(&tensors(&config()));
        let (at, cut) = (at % bytes.len(), cut % bytes.len());
        bytes[at] = value;
        let read = |bytes: &[u8]| {
            let config = config().to_json("float32").to_string();
            Checkpoint::from_bytes(config.as_bytes(), bytes.into())
                .map(|c| c.names().map(|n| c.tensor(n).unwrap().data().len()).sum::<usize>())
        };
        // Whatever it makes of one changed byte; a file that is cut off is never whole.
        let _ = read(&bytes);
        prop_assert!(read(&bytes[..cut]).is_err());
    }

    #[test]
    fn any_bytes_are_refused_or_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = MixtralConfig::from_json(&bytes);
        let _ = Checkpoint::from_bytes(config().to_json("float32").to_string().as_bytes(), bytes.as_slice().into());
    }
}
