//! Any bytes at all: their format is told by content, then read as such.
#![no_main]

use blackletter_corpus::parse::parse;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = parse("fuzz", data);
});
