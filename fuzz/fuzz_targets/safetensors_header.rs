//! Any bytes as `model.safetensors` beside a small configuration: an error, or a checkpoint whose tensors can be read.
#![no_main]

use blackletter_model::Checkpoint;
use libfuzzer_sys::fuzz_target;

/// The geometry that `scripts/make_fuzz_seeds.py` writes weights for.
const CONFIG: &[u8] =
    br#"{"model_type": "mixtral", "vocab_size": 4, "hidden_size": 2, "intermediate_size": 2,
    "num_hidden_layers": 1, "num_attention_heads": 1, "num_local_experts": 1, "num_experts_per_tok": 1,
    "max_position_embeddings": 8}"#;

fuzz_target!(|data: &[u8]| {
    match Checkpoint::from_bytes(CONFIG, data.into()) {
        Ok(checkpoint) => {
            for name in checkpoint.names() {
                let Some(tensor) = checkpoint.tensor(name) else { continue };
                let numbers: usize = tensor.shape().iter().product();
                assert_eq!(tensor.data().len(), numbers * tensor.dtype().bytes());
                assert_eq!(tensor.to_f32().len(), numbers);
            }
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
