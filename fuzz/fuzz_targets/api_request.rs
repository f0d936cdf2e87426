//! Bodies of requests never crash the server, and what is understood keeps its bounds.
#![no_main]

use blackletter_server::api::{chat::ChatRequest, completions::CompletionRequest, parse};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = parse::<CompletionRequest>(bytes);
    let _ = parse::<ChatRequest>(bytes);
});
