//! Rate of encoding many documents, by the fast path and by the general one, as one line of JSON.
//!
//! `cargo bench -p blackletter-tokenizer --bench encode -- TOKENIZER_DIR DOCUMENTS.jsonl [fast|parts]`; `RAYON_NUM_THREADS` sets
//! the threads. `scripts/bench_tokenizer.py` runs it beside Python's `tokenizers`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::type_complexity)]

use blackletter_tokenizer::{SpecialTokens, Tokenizer};
use rayon::prelude::*;
use std::{path::Path, time::Instant};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let [dir, documents, rest @ ..] = arguments.as_slice() else {
        println!("encode: needs TOKENIZER_DIR DOCUMENTS.jsonl [fast|parts]");
        return;
    };
    let started = Instant::now();
    let tokenizer = Tokenizer::load(Path::new(dir)).expect("a tokenizer");
    let load_s = started.elapsed().as_secs_f64();
    let lines = std::fs::read_to_string(documents).expect("documents");
    let texts: Vec<String> = lines
        .lines()
        .map(|line| {
            let row: serde_json::Value = serde_json::from_str(line).expect("JSON lines");
            row["text"].as_str().expect("a text").to_string()
        })
        .collect();
    let bytes: usize = texts.iter().map(String::len).sum();
    let by_parts = rest.iter().any(|a| a == "parts");
    let special = SpecialTokens::AsText;
    let started = Instant::now();
    let ids: Vec<Vec<u32>> = if by_parts {
        texts.par_iter().map(|text| tokenizer.encode_by_parts(text, special).unwrap()).collect()
    } else {
        tokenizer.encode_batch(&texts, special).unwrap()
    };
    let seconds = started.elapsed().as_secs_f64();
    let tokens: usize = ids.iter().map(Vec::len).sum();
    let result = serde_json::json!({
        "mb_per_s": bytes as f64 / 1e6 / seconds, "seconds": seconds, "load_s": load_s,
        "bytes": bytes, "tokens": tokens, "threads": rayon::current_num_threads(),
    });
    println!("{result}");
}
