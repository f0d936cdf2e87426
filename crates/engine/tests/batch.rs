//! Requests that come and go do not change each other's texts.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use blackletter_engine::{
    Batch, BatchLimits, Bias, Engine, EngineError, FinishReason, GenerationOptions, Listener, LoadOptions,
    Request, TokenInfo, generate, sampling::SamplingOptions, score,
};
use std::{
    cell::{Cell, RefCell},
    ops::ControlFlow,
    path::PathBuf,
    rc::Rc,
};

#[derive(Default)]
struct Heard {
    texts: RefCell<Vec<Vec<u32>>>,
    infos: RefCell<Vec<TokenInfo>>,
    prompt: RefCell<Vec<TokenInfo>>,
    finished: RefCell<Vec<Option<FinishReason>>>,
    failed: RefCell<Option<String>>,
    gone: Cell<bool>,
    most: Cell<usize>,
}

#[derive(Clone, Default)]
struct Ear(Rc<Heard>);

impl Listener for Ear {
    fn is_gone(&self) -> bool {
        self.0.gone.get()
    }

    fn prompt(&mut self, tokens: Vec<TokenInfo>) {
        *self.0.prompt.borrow_mut() = tokens;
    }

    fn token(&mut self, choice: usize, id: u32, info: Option<TokenInfo>) -> ControlFlow<()> {
        let mut texts = self.0.texts.borrow_mut();
        let known = texts.len();
        texts.resize(known.max(choice + 1), Vec::new());
        texts[choice].push(id);
        self.0.infos.borrow_mut().extend(info);
        let most = self.0.most.get();
        if most > 0 && texts[choice].len() == most {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }

    fn finish(&mut self, choice: usize, reason: FinishReason) {
        let mut finished = self.0.finished.borrow_mut();
        let known = finished.len();
        finished.resize(known.max(choice + 1), None);
        finished[choice] = Some(reason);
    }

    fn fail(&mut self, error: &EngineError) {
        *self.0.failed.borrow_mut() = Some(error.to_string());
    }
}

fn engine() -> Engine {
    load("tests/goldens/gqa-window")
}

fn load(dir: &str) -> Engine {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(dir);
    Engine::load(&dir, &LoadOptions { dtype: None, threads: Some(2) }).unwrap()
}

fn request(prompt: &[u32], choices: usize, tokens: usize, seed: u64) -> Request {
    Request {
        prompt: prompt.to_vec(),
        choices,
        max_new_tokens: tokens,
        sampling: SamplingOptions::default(),
        bias: Bias::default(),
        seed,
        eos_token_id: vec![1],
        grammar: None,
        logprobs: None,
        prompt_logprobs: None,
    }
}

fn alone(engine: &Engine, request: &Request) -> Vec<Vec<u32>> {
    let options = GenerationOptions {
        max_new_tokens: request.max_new_tokens,
        num_return_sequences: request.choices,
        sampling: request.sampling.clone(),
        seed: request.seed,
        stop: vec![],
        eos_token_id: request.eos_token_id.clone(),
    };
    let made =
        generate(engine, None, &request.prompt, &options, &mut |_, _| ControlFlow::Continue(())).unwrap();
    made.into_iter().map(|g| g.ids).collect()
}

fn prompt(seed: u32, len: u32) -> Vec<u32> {
    (0..len).map(|i| 3 + (i * 7 + seed * 13 + i * i * seed) % 150).collect()
}

#[test]
fn every_request_of_a_crowd_has_the_text_it_has_alone() {
    let engine = engine();
    let mut batch = Batch::new(&engine, BatchLimits { sequences: 5, chunk: 7, pages: 64 });
    let mut ears = Vec::new();
    let mut expected = Vec::new();
    let mut waiting: Vec<Request> = (0..40)
        .map(|i| {
            request(&prompt(i % 4, 5 + i % 60), 1 + (i as usize % 3), 3 + (i as usize * 5) % 30, u64::from(i))
        })
        .collect();
    let mut steps = 0;
    while !waiting.is_empty() || !batch.is_idle() {
        // They come in the middle of others' texts.
        if steps % 3 == 0
            && let Some(request) = waiting.pop()
        {
            expected.push(alone(&engine, &request));
            let ear = Ear::default();
            batch.add(request, ear.clone());
            ears.push(ear);
        }
        batch.step();
        assert!(batch.running() <= 5);
        steps += 1;
        assert!(steps < 10_000);
    }
    for (ear, expected) in ears.iter().zip(expected) {
        assert_eq!(*ear.0.texts.borrow(), expected);
        assert!(ear.0.finished.borrow().iter().all(Option::is_some));
    }
}

#[test]
fn equal_beginnings_of_prompts_are_read_once() {
    // This one has room for prompts that are kept in parts.
    let engine = load("../../models/tiny");
    let mut batch = Batch::new(&engine, BatchLimits::default());
    let long = prompt(1, 200);
    for seed in 0..3 {
        let ear = Ear::default();
        batch.add(request(&long, 2, 4, seed), ear.clone());
        while !batch.is_idle() {
            batch.step();
        }
        assert_eq!(*ear.0.texts.borrow(), alone(&engine, &request(&long, 2, 4, seed)));
    }
    assert_eq!(batch.prompt_tokens(), (200, 400));
    let other = [&long[..150], &[9; 20][..]].concat();
    batch.add(request(&other, 1, 1, 0), Ear::default());
    batch.step();
    assert_eq!(batch.prompt_tokens(), (200 + 42, 400 + 128), "up to the last place that is kept");
}

#[test]
fn who_leaves_or_has_enough_frees_the_place_at_the_next_token() {
    let engine = engine();
    let mut batch = Batch::new(&engine, BatchLimits { sequences: 2, ..BatchLimits::default() });
    let (leaves, enough, later) = (Ear::default(), Ear::default(), Ear::default());
    enough.0.most.set(3);
    let endless = |seed| Request { eos_token_id: vec![], ..request(&prompt(2, 9), 1, 60, seed) };
    batch.add(endless(1), leaves.clone());
    batch.add(endless(2), enough.clone());
    batch.add(endless(3), later.clone());
    batch.step();
    batch.step();
    leaves.0.gone.set(true);
    while !batch.is_idle() {
        batch.step();
    }
    assert!(leaves.0.texts.borrow()[0].len() <= 3);
    assert_eq!(enough.0.texts.borrow()[0].len(), 3);
    assert_eq!(later.0.texts.borrow()[0].len(), 60);
    assert_eq!(later.0.finished.borrow()[0], Some(FinishReason::Length));
}

#[test]
fn log_probabilities_of_a_prompt_are_those_of_score_in_any_parts() {
    let engine = engine();
    let prompt = prompt(3, 50);
    let expected = score(&engine, &prompt).unwrap();
    for chunk in [1, 7, 64] {
        let mut batch = Batch::new(&engine, BatchLimits { sequences: 3, chunk, pages: 64 });
        // Someone else runs, so that the prompt is read in parts.
        batch.add(request(&[5, 6], 1, 90, 0), Ear::default());
        batch.step();
        let ear = Ear::default();
        let asked = Request { prompt_logprobs: Some(2), logprobs: Some(1), ..request(&prompt, 1, 5, 7) };
        let text = alone(&engine, &asked);
        batch.add(asked, ear.clone());
        while !batch.is_idle() {
            batch.step();
        }
        let infos = ear.0.prompt.borrow();
        assert_eq!(infos.iter().map(|i| i.id).collect::<Vec<_>>(), prompt[1..]);
        for (info, expected) in infos.iter().zip(&expected) {
            assert!((info.logprob - expected).abs() < 1e-4, "{} {expected}", info.logprob);
            assert_eq!(info.top.len(), 2);
            assert!(info.top[0].1 >= info.top[1].1 && info.top[0].1 >= info.logprob);
        }
        assert_eq!(*ear.0.texts.borrow(), text, "the text is the same with log-probabilities and without");
    }
}

#[test]
fn a_bias_rules_tokens_out_and_in() {
    let engine = engine();
    let mut batch = Batch::new(&engine, BatchLimits::default());
    let ear = Ear::default();
    let bias = Bias { presence: 0.0, frequency: 0.0, tokens: vec![(42, 100.0)] };
    batch.add(Request { bias, ..request(&[5, 6, 7], 1, 6, 0) }, ear.clone());
    let varied = Ear::default();
    let bias = Bias { presence: 1000.0, frequency: 0.0, tokens: vec![] };
    batch.add(Request { bias, eos_token_id: vec![], ..request(&[5, 6, 7], 1, 40, 0) }, varied.clone());
    while !batch.is_idle() {
        batch.step();
    }
    assert_eq!(*ear.0.texts.borrow(), [[42; 6]]);
    let mut ids = varied.0.texts.borrow()[0].clone();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 40, "no token comes twice");
}

#[test]
fn a_request_that_cannot_run_fails_and_others_go_on() {
    let engine = engine();
    let mut batch = Batch::new(&engine, BatchLimits { sequences: 2, ..BatchLimits::default() });
    let bad = [
        request(&[], 1, 1, 0),
        request(&[5; 9999], 1, 1, 0),
        request(&[99999], 1, 1, 0),
        request(&[5], 3, 1, 0),
    ];
    let good = Ear::default();
    batch.add(request(&[5], 1, 2, 0), good.clone());
    for request in bad {
        let ear = Ear::default();
        batch.add(request, ear.clone());
        assert!(ear.0.failed.borrow().is_some());
    }
    while !batch.is_idle() {
        batch.step();
    }
    assert_eq!(good.0.texts.borrow()[0].len(), 2);
}
