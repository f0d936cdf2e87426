//! Any bytes as `tokenizer.json`: an error, or a tokenizer that encodes and decodes without a panic.
#![no_main]

use blackletter_tokenizer::{SpecialTokens, Tokenizer};
use libfuzzer_sys::fuzz_target;

fuzz_target!(
    init: {
        // The fuzzer's own hook aborts at a panic even where it is caught, and catching those of the `tokenizers` crate is
        // what is tested here. One that gets out of the closure below still ends the run as a finding.
        std::panic::set_hook(Box::new(|_| {}));
    },
    |data: &[u8]| {
        let Ok(tokenizer) = Tokenizer::from_bytes(data) else { return };
        for special in [SpecialTokens::AsText, SpecialTokens::Parse] {
            if let Ok(ids) = tokenizer.encode("Sec. 1(a) \u{a7} <|start|>\n\n the  court", special) {
                let _ = tokenizer.decode(&ids, true);
                let mut stream = tokenizer.decode_stream(false);
                for &id in &ids {
                    let _ = stream.push(id);
                    let _ = tokenizer.token_bytes(id);
                }
                let _ = stream.finish();
            }
        }
        let _ = tokenizer.decode(&[0, 1, u32::MAX], false);
        let _ = tokenizer.vocab_size();
    }
);
