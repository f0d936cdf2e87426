//! Generating continuations of a prompt.

use crate::{
    Engine, EngineError, Runner,
    constraint::Grammar,
    continuation::Continuation,
    sampling::{Sampler, SamplingOptions},
};
use blackletter_tokenizer::{DecodeStream, Tokenizer};
use std::ops::ControlFlow;

/// What to generate.
#[derive(Clone, Debug)]
pub struct GenerationOptions {
    /// Most new tokens.
    pub max_new_tokens: usize,
    /// Continuations of the same prompt.
    pub num_return_sequences: usize,
    /// How tokens are chosen.
    pub sampling: SamplingOptions,
    /// What makes the choices repeatable; sequence `i` has its own stream of it.
    pub seed: u64,
    /// Texts that end a continuation when it contains them.
    pub stop: Vec<String>,
    /// Tokens that end a continuation.
    pub eos_token_id: Vec<u32>,
}

/// Why a continuation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// An end token.
    Eos,
    /// A stop text.
    Stop,
    /// The text is whole: its constraint lets nothing follow, or it came to the most new tokens just then.
    Whole,
    /// The most new tokens, or the end of the context.
    Length,
    /// The caller.
    Interrupted,
}

/// One continuation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generated {
    /// The new tokens, an end token included.
    pub ids: Vec<u32>,
    /// Why it ended.
    pub finish_reason: FinishReason,
}

/// The text of a continuation as it grows, in which stop texts are looked for.
type Text<'t> = Option<(DecodeStream<'t>, String)>;

/// Continues `prompt` in `num_return_sequences` ways, stepping them together; the prompt itself runs once.
///
/// `on_token(sequence, id)` is told each new token as it is made, and may break the generation off. Stop texts need
/// the tokenizer. The result depends on the prompt, the options and the seed; not on threads, nor on how
/// many sequences there are.
///
/// # Errors
/// When the prompt does not fit, ids are out of range or options cannot be used.
pub fn generate(
    engine: &Engine,
    tokenizer: Option<&Tokenizer>,
    prompt: &[u32],
    options: &GenerationOptions,
    on_token: &mut dyn FnMut(usize, u32) -> ControlFlow<()>,
) -> Result<Vec<Generated>, EngineError> {
    generate_constrained(engine, tokenizer, prompt, options, None, on_token)
}

/// As [`generate()`], with continuations that follow a grammar, when there is one.
///
/// # Errors
/// As [`generate()`]; also when the grammar becomes too complex.
pub fn generate_constrained(
    engine: &Engine,
    tokenizer: Option<&Tokenizer>,
    prompt: &[u32],
    options: &GenerationOptions,
    grammar: Option<&Grammar>,
    on_token: &mut dyn FnMut(usize, u32) -> ControlFlow<()>,
) -> Result<Vec<Generated>, EngineError> {
    options.sampling.validate()?;
    if prompt.is_empty() {
        return Err(EngineError::Empty("the prompt has no tokens: a model needs at least one to go on from"));
    }
    let context = engine.config().max_position_embeddings;
    if prompt.len() > context {
        return Err(EngineError::PromptTooLong { tokens: prompt.len(), context });
    }
    engine.check_ids(prompt)?;
    // The last token of a full context is sampled but never run.
    let most = options.max_new_tokens.min(context - prompt.len());
    let watch_text = !options.stop.is_empty();
    let vocab = engine.config().vocab_size;
    let mut continuations: Vec<Continuation> = (0..options.num_return_sequences)
        .map(|i| {
            let sampler = Sampler::new(options.sampling.clone(), options.seed, i as u64, vocab);
            Continuation::new(prompt, most, &options.eos_token_id, sampler, grammar)
        })
        .collect();
    let text = |_| tokenizer.filter(|_| watch_text).map(|t| (t.decode_stream(true), String::new()));
    let mut texts: Vec<Text<'_>> = (0..continuations.len()).map(text).collect();
    let mut runner = Runner::new(engine);
    if most > 0 && !continuations.is_empty() {
        run(&mut runner, prompt, &options.stop, &mut continuations, &mut texts, on_token)?;
    }
    Ok(continuations
        .into_iter()
        .map(|c| Generated { ids: c.ids, finish_reason: c.finished.unwrap_or(FinishReason::Interrupted) })
        .collect())
}

fn run(
    runner: &mut Runner<'_>,
    prompt: &[u32],
    stop: &[String],
    continuations: &mut [Continuation],
    texts: &mut [Text<'_>],
    on_token: &mut dyn FnMut(usize, u32) -> ControlFlow<()>,
) -> Result<(), EngineError> {
    let mut first = runner.start();
    runner.prefill(&mut first, prompt)?;
    let mut sequences: Vec<_> = continuations.iter().map(|_| runner.fork(&first)).collect();
    runner.finish(first);
    let vocab = runner.engine().config().vocab_size;
    let mut logits = vec![0.0; vocab];
    // Which continuation each row of the logits belongs to; at first, all share row 0.
    let mut rows: Vec<usize> = (0..continuations.len()).collect();
    let mut ids: Vec<u32> = Vec::with_capacity(rows.len());
    let mut shared = true;
    loop {
        for (row, &index) in rows.iter().enumerate() {
            let c = &mut continuations[index];
            logits.copy_from_slice(runner.logits_mut(if shared { 0 } else { row }));
            let id = c.choose(&mut logits)?;
            if has_stop(&mut texts[index], id, stop) && c.finished != Some(FinishReason::Eos) {
                c.finished = Some(FinishReason::Stop);
            }
            if on_token(index, id).is_break() {
                return Ok(());
            }
        }
        shared = false;
        rows.retain(|&index| continuations[index].finished.is_none());
        if rows.is_empty() {
            return Ok(());
        }
        ids.clear();
        ids.extend(rows.iter().filter_map(|&index| continuations[index].ids.last().copied()));
        let mut active: Vec<_> = sequences
            .iter_mut()
            .enumerate()
            .filter(|(index, _)| continuations[*index].finished.is_none())
            .map(|(_, sequence)| sequence)
            .collect();
        runner.decode(&mut active, &ids)?;
    }
}

/// Whether a text contains a stop text now that `id` has been added.
fn has_stop(text: &mut Text<'_>, id: u32, stop: &[String]) -> bool {
    let Some((stream, text)) = text else { return false };
    let Some(piece) = stream.push(id) else { return false };
    // A stop text that ends in the new piece begins at most its own length before it.
    let longest = stop.iter().map(String::len).max().unwrap_or(0);
    let mut from = text.len().saturating_sub(longest);
    while !text.is_char_boundary(from) {
        from -= 1;
    }
    text.push_str(&piece);
    stop.iter().any(|s| !s.is_empty() && text[from..].contains(s.as_str()))
}
