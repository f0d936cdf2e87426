//! Any bytes as case law XML: a typed error, or documents whose text has no control characters.
#![no_main]

use blackletter_corpus::parse::{Format, parse_as};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    for document in parse_as(Format::CaseXml, "fuzz", data).unwrap_or_default() {
        assert!(document.markdown.chars().all(|c| matches!(c, '\n' | '\t') || !c.is_control()));
    }
});
