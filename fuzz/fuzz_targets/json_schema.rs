//! Schemas from anywhere are compiled or refused, never crash.
#![no_main]

use blackletter_engine::constraint::{Constraint, ConstraintSpec, Vocabulary};
use blackletter_tokenizer::Tokenizer;
use libfuzzer_sys::fuzz_target;
use std::sync::OnceLock;

static VOCABULARY: OnceLock<Vocabulary> = OnceLock::new();

fuzz_target!(|bytes: &[u8]| {
    let Ok(schema) = serde_json::from_slice(bytes) else { return };
    let vocabulary = VOCABULARY.get_or_init(|| {
        let tokenizer = Tokenizer::from_bytes(include_bytes!("../../models/tiny/tokenizer.json")).expect("it is sound");
        Vocabulary::new(&tokenizer, tokenizer.vocab_size(), &[1]).expect("it is byte-level")
    });
    if let Ok(grammar) = vocabulary.compile(&ConstraintSpec::JsonSchema(schema)) {
        let mut constraint = Constraint::new(&grammar, 64);
        let mut logits = vec![0.0; 512];
        let _ = constraint.mask(&mut logits);
    }
});
