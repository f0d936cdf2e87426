//! Any bytes as `config.json` and as `generation_config.json`: an error, or a configuration whose derived numbers are
//! finite and which is read back from what it writes.
#![no_main]

use blackletter_model::{GenerationConfig, MixtralConfig, names};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = GenerationConfig::from_json(data);
    let Ok(config) = MixtralConfig::from_json(data) else { return };
    assert!(config.active_parameters() <= config.total_parameters());
    let written = config.to_json("float32").to_string();
    assert_eq!(MixtralConfig::from_json(written.as_bytes()).ok(), Some(config.clone()));
    // The list itself is only made for sizes at which making it does not dominate the run.
    if config.num_hidden_layers * config.num_local_experts <= 64 {
        let counted: u64 =
            names::expected(&config).iter().map(|t| t.shape.iter().map(|&n| n as u64).product::<u64>()).sum();
        assert_eq!(counted, config.total_parameters());
    }
});
