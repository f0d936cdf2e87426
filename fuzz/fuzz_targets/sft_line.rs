//! Any bytes as a line of supervised examples: an example that can be encoded, or one of a few reasons.
#![no_main]

use blackletter_dataset::example::Example;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    match Example::parse(data) {
        Ok(example) => {
            assert!(example.messages.last().is_some_and(|last| last.role == "assistant"));
            assert!(example.bytes() <= data.len() as u64 + 2);
        }
        Err(reason) => assert!(!reason.to_string().is_empty()),
    }
});
