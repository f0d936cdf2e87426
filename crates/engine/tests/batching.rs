//! A text depends on its own prompt, options and seed alone: not on threads, chunks, shared prefixes or neighbours.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::type_complexity)]

use blackletter_engine::{
    Engine, GenerationOptions, LoadOptions, Runner, WeightDtype, generate, sampling::SamplingOptions,
};
use proptest::prelude::*;
use std::{ops::ControlFlow, path::PathBuf};

const DTYPES: [Option<WeightDtype>; 4] =
    [None, Some(WeightDtype::Bf16), Some(WeightDtype::Q8), Some(WeightDtype::Q4)];

fn engine(dtype: Option<WeightDtype>, threads: usize) -> Engine {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/gqa-window");
    Engine::load(&dir, &LoadOptions { dtype, threads: Some(threads) }).unwrap()
}

fn options(sequences: usize, seed: u64) -> GenerationOptions {
    GenerationOptions {
        max_new_tokens: 30,
        num_return_sequences: sequences,
        sampling: SamplingOptions::default(),
        seed,
        stop: vec![],
        eos_token_id: vec![1],
    }
}

fn bits(logits: &[f32]) -> Vec<u32> {
    logits.iter().map(|x| x.to_bits()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn the_same_seed_gives_the_same_texts_with_any_threads_and_number_of_sequences(
        prompt in proptest::collection::vec(3u32..160, 1..80), seed: u64, dtype in 0usize..4,
    ) {
        let mut go = |_: usize, _: u32| ControlFlow::Continue(());
        let one = engine(DTYPES[dtype], 1);
        let three = engine(DTYPES[dtype], 3);
        let many = generate(&three, None, &prompt, &options(5, seed), &mut go).unwrap();
        let few = generate(&one, None, &prompt, &options(2, seed), &mut go).unwrap();
        prop_assert_eq!(&many[..2], &few[..]);
    }

    #[test]
    fn a_prompt_has_the_same_bits_in_any_parts_and_on_a_shared_prefix(
        prompt in proptest::collection::vec(3u32..160, 2..120), cut in 1usize..120, dtype in 0usize..4,
    ) {
        let engine = engine(DTYPES[dtype], 2);
        let cut = cut.min(prompt.len() - 1);
        let mut runner = Runner::new(&engine);
        let mut whole = runner.start();
        runner.prefill(&mut whole, &prompt).unwrap();
        let expected = bits(runner.logits_mut(0));
        let mut prefix = runner.start();
        runner.prefill(&mut prefix, &prompt[..cut]).unwrap();
        let mut shared = runner.fork(&prefix);
        runner.prefill(&mut shared, &prompt[cut..]).unwrap();
        prop_assert_eq!(&bits(runner.logits_mut(0)), &expected);
        // Steps beside other sequences, and alone.
        let mut other = runner.fork(&prefix);
        runner.decode(&mut [&mut other, &mut shared, &mut prefix], &[9, 5, 7]).unwrap();
        let beside = bits(runner.logits_mut(1));
        runner.decode(&mut [&mut whole], &[5]).unwrap();
        prop_assert_eq!(beside, bits(runner.logits_mut(0)));
        for sequence in [whole, prefix, shared, other] {
            runner.finish(sequence);
        }
        prop_assert_eq!(runner.pages_in_use(), 0);
    }
}

#[test]
fn memory_does_not_grow_past_the_window() {
    let engine = engine(None, 1);
    let mut runner = Runner::new(&engine);
    let mut sequence = runner.start();
    runner.prefill(&mut sequence, &[5; 10]).unwrap();
    for i in 0..100 {
        runner.decode(&mut [&mut sequence], &[3 + i]).unwrap();
        assert!(runner.pages_in_use() <= 2, "a window of 16 lies in at most two pages");
    }
}
