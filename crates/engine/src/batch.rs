//! Continuations of many prompts, each with its own options, stepped together.
//!
//! A [`Request`] joins with [`Batch::add`]; each [`Batch::step`] reads a part of one prompt that waits, and makes one token of
//! every continuation that runs. What is made goes to the request's [`Listener`], which may break a continuation off. No
//! request's tokens depend on the others: rows of a step do not, and prompts have the same bits in any parts.

use crate::{
    Engine, EngineError, FinishReason, Runner, Sequence,
    constraint::Grammar,
    continuation::Continuation,
    prefixes::{Prefixes, STEP},
    sampling::{Sampler, SamplingOptions},
};
use std::{collections::VecDeque, ops::ControlFlow, sync::Arc};

/// Prompt tokens read in one step when nothing else runs: whoever leaves, and whoever ends everything, is heard between.
const ALONE: usize = 512;

/// How much a batch takes on.
#[derive(Clone, Copy, Debug)]
pub struct BatchLimits {
    /// Continuations that run together.
    pub sequences: usize,
    /// Prompt tokens read between two steps, when continuations run.
    pub chunk: usize,
    /// Pages of 32 positions for sequences and kept beginnings of prompts; beginnings are given up beyond it.
    pub pages: usize,
}

impl Default for BatchLimits {
    fn default() -> Self {
        Self { sequences: 16, chunk: 128, pages: 512 }
    }
}

/// What is added to logits, by the OpenAI API's definition.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Bias {
    /// Subtracted once from each token that has been made.
    pub presence: f32,
    /// Subtracted for each time a token has been made.
    pub frequency: f32,
    /// Added to single tokens.
    pub tokens: Vec<(u32, f32)>,
}

/// A prompt and what to do with it.
pub struct Request {
    /// The prompt's tokens, at least one.
    pub prompt: Vec<u32>,
    /// Continuations.
    pub choices: usize,
    /// Most new tokens of each.
    pub max_new_tokens: usize,
    /// How tokens are chosen.
    pub sampling: SamplingOptions,
    /// What is added to logits before.
    pub bias: Bias,
    /// What makes the choices repeatable; continuation `i` has its own stream of it.
    pub seed: u64,
    /// Tokens that end a continuation.
    pub eos_token_id: Vec<u32>,
    /// What continuations have to follow.
    pub grammar: Option<Arc<Grammar>>,
    /// Log-probabilities of new tokens, with as many of the most likely ones.
    pub logprobs: Option<usize>,
    /// The same of the prompt's tokens.
    pub prompt_logprobs: Option<usize>,
}

/// A token's natural log-probability as the model has it, before any option of sampling.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenInfo {
    /// The token.
    pub id: u32,
    /// Its log-probability.
    pub logprob: f32,
    /// The most likely tokens and theirs, most likely first.
    pub top: Vec<(u32, f32)>,
}

/// Whoever waits for a request.
pub trait Listener {
    /// Whether nobody waits any more.
    fn is_gone(&self) -> bool;

    /// The prompt's tokens from the second on, when their log-probabilities were asked for.
    fn prompt(&mut self, tokens: Vec<TokenInfo>);

    /// Continuation `choice` has a new token; a break ends it.
    fn token(&mut self, choice: usize, id: u32, info: Option<TokenInfo>) -> ControlFlow<()>;

    /// Continuation `choice` has ended by itself.
    fn finish(&mut self, choice: usize, reason: FinishReason);

    /// Nothing more comes.
    fn fail(&mut self, error: &EngineError);
}

/// Requests in progress.
pub struct Batch<'e, L> {
    runner: Runner<'e>,
    limits: BatchLimits,
    prefixes: Prefixes,
    waiting: VecDeque<Waiting<L>>,
    running: Vec<Running<L>>,
    logits: Vec<f32>,
    prompt_tokens: u64,
    reused_tokens: u64,
}

/// A request whose prompt has not been read to its end.
struct Waiting<L> {
    request: Request,
    listener: L,
    /// What has been read.
    sequence: Option<Sequence>,
    infos: Vec<TokenInfo>,
    /// The logits of the last prompt token read, when they are needed for the first of the next part.
    pending: Option<Vec<f32>>,
}

struct Running<L> {
    request: Request,
    listener: L,
    choices: Vec<Choice>,
}

struct Choice {
    continuation: Continuation,
    /// Given back when the continuation has ended.
    sequence: Option<Sequence>,
}

impl<'e, L: Listener> Batch<'e, L> {
    /// Nothing to do yet.
    pub fn new(engine: &'e Engine, limits: BatchLimits) -> Self {
        Self {
            runner: Runner::new(engine),
            limits,
            prefixes: Prefixes::default(),
            waiting: VecDeque::new(),
            running: Vec::new(),
            logits: Vec::new(),
            prompt_tokens: 0,
            reused_tokens: 0,
        }
    }

    /// Takes a request on. Who asks for more continuations than run together is refused; a request that has no room yet
    /// waits.
    pub fn add(&mut self, request: Request, mut listener: L) {
        if let Err(error) = self.check(&request) {
            listener.fail(&error);
            return;
        }
        let (infos, pending) = (Vec::new(), None);
        self.waiting.push_back(Waiting { request, listener, sequence: None, infos, pending });
    }

    fn check(&self, request: &Request) -> Result<(), EngineError> {
        let engine = self.runner.engine();
        request.sampling.validate()?;
        if request.prompt.is_empty() {
            return Err(EngineError::Empty(
                "the prompt has no tokens: a model needs at least one to go on from",
            ));
        }
        let context = engine.config().max_position_embeddings;
        if request.prompt.len() > context {
            return Err(EngineError::PromptTooLong { tokens: request.prompt.len(), context });
        }
        if request.choices > self.limits.sequences {
            return Err(EngineError::Empty("more continuations are asked for than run together"));
        }
        engine.check_ids(&request.prompt)
    }

    /// Requests whose prompts have not been read.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Continuations that run.
    pub fn running(&self) -> usize {
        self.running.iter().flat_map(|r| &r.choices).filter(|c| c.sequence.is_some()).count()
    }

    /// Whether there is nothing to do.
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.running.is_empty()
    }

    /// Prompt tokens that have been read, and those that were not because a prompt with the same beginning had been.
    pub fn prompt_tokens(&self) -> (u64, u64) {
        (self.prompt_tokens, self.reused_tokens)
    }

    /// Ends everything.
    pub fn fail_all(&mut self, error: &EngineError) {
        for mut waiting in std::mem::take(&mut self.waiting) {
            waiting.listener.fail(error);
            self.give_back(waiting.sequence);
        }
        for mut running in std::mem::take(&mut self.running) {
            running.listener.fail(error);
            running.choices.into_iter().for_each(|choice| self.give_back(choice.sequence));
        }
    }

    /// Reads a part of the first prompt that waits, when there is room for its continuations; then makes a token for each
    /// continuation that runs.
    pub fn step(&mut self) {
        self.drop_gone();
        let before = self.running.len();
        self.read_prompts();
        // Continuations that have just begun have their first token already.
        self.step_running(before);
        self.running.retain(|r| r.choices.iter().any(|c| c.sequence.is_some()));
        self.prefixes.shrink(&mut self.runner, self.limits.pages);
    }

    fn give_back(&mut self, sequence: Option<Sequence>) {
        if let Some(sequence) = sequence {
            self.runner.finish(sequence);
        }
    }

    /// Lets go of requests that nobody waits for.
    fn drop_gone(&mut self) {
        let (gone, stay): (Vec<_>, Vec<_>) = self.waiting.drain(..).partition(|w| w.listener.is_gone());
        self.waiting.extend(stay);
        gone.into_iter().for_each(|w| self.give_back(w.sequence));
        let (gone, stay): (Vec<_>, Vec<_>) = self.running.drain(..).partition(|r| r.listener.is_gone());
        self.running.extend(stay);
        for choice in gone.into_iter().flat_map(|r| r.choices) {
            self.give_back(choice.sequence);
        }
    }

    fn read_prompts(&mut self) {
        loop {
            let running = self.running();
            let Some(first) = self.waiting.front() else { return };
            if running + first.request.choices.max(1) > self.limits.sequences {
                return;
            }
            let Some(mut waiting) = self.waiting.pop_front() else { return };
            let busy = running > 0;
            match self.read_part(&mut waiting, busy) {
                Err(error) => {
                    waiting.listener.fail(&error);
                    self.give_back(waiting.sequence);
                }
                // The next part comes with the next step.
                Ok(None) => {
                    self.waiting.push_front(waiting);
                    return;
                }
                Ok(Some(logits)) => self.begin(waiting, logits),
            }
            if busy {
                return;
            }
        }
    }

    /// Reads a part of a prompt; at its end, gives the logits of what follows.
    fn read_part(&mut self, waiting: &mut Waiting<L>, busy: bool) -> Result<Option<Vec<f32>>, EngineError> {
        let runner = &mut self.runner;
        let prompt = &waiting.request.prompt;
        let top = waiting.request.prompt_logprobs;
        let mut sequence = match waiting.sequence.take() {
            Some(sequence) => sequence,
            // Log-probabilities of a prompt take every position's logits.
            None if top.is_some() => runner.start(),
            None => match self.prefixes.find(runner, prompt) {
                Some(found) => {
                    self.reused_tokens += found.sequence.len() as u64;
                    if let Some(logits) = found.logits {
                        waiting.sequence = Some(found.sequence);
                        return Ok(Some(logits));
                    }
                    found.sequence
                }
                None => runner.start(),
            },
        };
        let from = sequence.len();
        let room = self.limits.chunk.max(if busy { 1 } else { ALONE });
        // Parts end where beginnings are kept.
        let mut to = prompt.len().min(from + room);
        if to < prompt.len() && to / STEP * STEP > from {
            to = to / STEP * STEP;
        }
        self.prompt_tokens += (to - from) as u64;
        let last = to == prompt.len();
        let read = (|| {
            if let Some(top) = top {
                // What is drawn from comes from the same kernels with and without log-probabilities of the prompt.
                let stop = if last { to - 1 } else { to };
                let (infos, pending) = (&mut waiting.infos, &mut waiting.pending);
                if let (Some(logits), Some(&id)) = (pending.take(), prompt.get(from)) {
                    infos.push(info(&logits, id, top));
                }
                runner.prefill_all(&mut sequence, &prompt[from..stop], |i, logits| {
                    match prompt.get(from + i + 1).filter(|_| from + i + 1 < stop) {
                        Some(&id) => infos.push(info(logits, id, top)),
                        None => *pending = Some(logits.to_vec()),
                    }
                })?;
                if last {
                    if let (Some(logits), Some(&id)) = (pending.take(), prompt.get(stop)) {
                        infos.push(info(&logits, id, top));
                    }
                    runner.prefill(&mut sequence, &prompt[stop..])?;
                }
                return Ok(());
            }
            let mut at = from;
            while at < to {
                let end = ((at / STEP + 1) * STEP).min(to);
                // In one go where nothing is kept on the way.
                if end == prompt.len() {
                    runner.prefill(&mut sequence, &prompt[at..end])?;
                } else {
                    runner.prefill_part(&mut sequence, &prompt[at..end])?;
                    self.prefixes.keep(runner, &prompt[..end], &sequence, None);
                }
                at = end;
            }
            Ok::<_, EngineError>(())
        })();
        waiting.sequence = Some(sequence);
        read?;
        if !last {
            return Ok(None);
        }
        let logits = self.runner.logits_mut(0).to_vec();
        if let (None, Some(sequence)) = (top, &waiting.sequence) {
            self.prefixes.keep(&mut self.runner, &waiting.request.prompt, sequence, Some(&logits));
        }
        Ok(Some(logits))
    }

    /// Makes a request's continuations and their first tokens.
    fn begin(&mut self, waiting: Waiting<L>, logits: Vec<f32>) {
        let Waiting { request, mut listener, sequence, infos, .. } = waiting;
        if request.prompt_logprobs.is_some() {
            listener.prompt(infos);
        }
        let engine = self.runner.engine();
        let room = engine.config().max_position_embeddings - request.prompt.len();
        let most = request.max_new_tokens.min(room);
        let mut choices = Vec::new();
        for i in 0..request.choices {
            let vocab = engine.config().vocab_size;
            let sampler = Sampler::new(request.sampling.clone(), request.seed, i as u64, vocab);
            let grammar = request.grammar.as_deref();
            let continuation =
                Continuation::new(&request.prompt, most, &request.eos_token_id, sampler, grammar);
            if most == 0 {
                listener.finish(i, FinishReason::Length);
                continue;
            }
            let sequence = sequence.as_ref().map(|sequence| self.runner.fork(sequence));
            choices.push(Choice { continuation, sequence });
        }
        self.give_back(sequence);
        let mut running = Running { request, listener, choices };
        for i in 0..running.choices.len() {
            self.choose(&mut running, i, &logits);
        }
        self.running.push(running);
    }

    /// Makes a token for each continuation of the first `requests` requests.
    fn step_running(&mut self, requests: usize) {
        let mut running = std::mem::take(&mut self.running);
        let mut rows = Vec::new();
        let mut ids = Vec::new();
        let mut sequences = Vec::new();
        for (r, request) in running.iter_mut().take(requests).enumerate() {
            for (c, choice) in request.choices.iter_mut().enumerate() {
                if let (Some(sequence), Some(&id)) = (&mut choice.sequence, choice.continuation.ids.last()) {
                    rows.push((r, c));
                    ids.push(id);
                    sequences.push(sequence);
                }
            }
        }
        let stepped = self.runner.decode(&mut sequences, &ids);
        match stepped {
            Err(error) => {
                self.running = running;
                self.fail_all(&error);
                return;
            }
            Ok(()) => {
                for (row, (r, c)) in rows.into_iter().enumerate() {
                    let logits = self.runner.logits_mut(row).to_vec();
                    self.choose(&mut running[r], c, &logits);
                }
            }
        }
        self.running = running;
    }

    /// Chooses a continuation's next token and tells it.
    fn choose(&mut self, running: &mut Running<L>, index: usize, raw: &[f32]) {
        let Running { request, listener, choices } = running;
        let Some(choice) = choices.get_mut(index).filter(|c| c.sequence.is_some()) else { return };
        self.logits.clear();
        self.logits.extend_from_slice(raw);
        apply(&request.bias, &choice.continuation.ids, &mut self.logits);
        let ended = match choice.continuation.choose(&mut self.logits) {
            Err(error) => {
                listener.fail(&error);
                for choice in choices {
                    if let Some(sequence) = choice.sequence.take() {
                        self.runner.finish(sequence);
                    }
                }
                return;
            }
            Ok(id) => {
                let info = request.logprobs.map(|top| info(raw, id, top));
                let broken = listener.token(index, id, info).is_break();
                if let (Some(reason), false) = (choice.continuation.finished, broken) {
                    listener.finish(index, reason);
                }
                broken || choice.continuation.finished.is_some()
            }
        };
        if ended && let Some(sequence) = choice.sequence.take() {
            self.runner.finish(sequence);
        }
    }
}

fn apply(bias: &Bias, made: &[u32], logits: &mut [f32]) {
    if bias.presence != 0.0 || bias.frequency != 0.0 {
        let mut sorted = made.to_vec();
        sorted.sort_unstable();
        for group in sorted.chunk_by(|a, b| a == b) {
            if let Some(logit) = group.first().and_then(|&id| logits.get_mut(id as usize)) {
                *logit -= bias.presence + bias.frequency * group.len() as f32;
            }
        }
    }
    for &(id, add) in &bias.tokens {
        if let Some(logit) = logits.get_mut(id as usize) {
            *logit += add;
        }
    }
}

/// The log-probability of `id`, and the `top` most likely tokens.
fn info(logits: &[f32], id: u32, top: usize) -> TokenInfo {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&l| f64::from(l - largest).exp()).sum();
    let log_sum = f64::from(largest) + sum.ln();
    let logprob =
        |id: u32| logits.get(id as usize).map_or(f32::NEG_INFINITY, |&l| (f64::from(l) - log_sum) as f32);
    let mut best: Vec<u32> = Vec::with_capacity(top + 1);
    if top > 0 {
        // Few are wanted: each better one is put in its place. Of equals, the lower id comes first.
        let worse = |a: u32, b: u32| logits[a as usize] < logits[b as usize];
        for candidate in 0..logits.len() as u32 {
            if best.len() == top && !best.last().is_some_and(|&last| worse(last, candidate)) {
                continue;
            }
            let place = best.partition_point(|&known| !worse(known, candidate));
            best.insert(place, candidate);
            best.truncate(top);
        }
    }
    TokenInfo { id, logprob: logprob(id), top: best.into_iter().map(|id| (id, logprob(id))).collect() }
}
