//! The most likely answers to many prompts, several stepped together.

use crate::Watch;
use blackletter_engine::{Engine, EngineError, Runner, Sequence};

/// How answers are made.
#[derive(Clone, Copy, Debug)]
pub struct GreedyOptions<'o> {
    /// Most new tokens of an answer.
    pub max_new_tokens: usize,
    /// Prompts that are stepped together; the answers do not depend on it.
    pub batch: usize,
    /// Tokens that end an answer.
    pub end: &'o [u32],
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Its ids, without the token that ended it.
    pub ids: Vec<u32>,
    /// Whether it was ended by such a token.
    pub ended: bool,
}

struct Active {
    index: usize,
    sequence: Sequence,
    last: u32,
    room: usize,
}

fn most_likely(logits: &[f32]) -> u32 {
    let mut best = (0, f32::NEG_INFINITY);
    for (id, &logit) in logits.iter().enumerate() {
        if logit > best.1 {
            best = (id, logit);
        }
    }
    best.0 as u32
}

/// Answers each of `prompts` (ids); none for one that was not answered to its end before it was stopped. A prompt that fills
/// the context has an empty answer.
///
/// # Errors
/// When ids are out of range, or a prompt has none.
pub fn greedy(
    engine: &Engine,
    prompts: &[Vec<u32>],
    options: GreedyOptions<'_>,
    watch: Watch<'_>,
) -> Result<Vec<Option<Answer>>, EngineError> {
    let context = engine.config().max_position_embeddings;
    let mut runner = Runner::new(engine);
    let mut made: Vec<Vec<u32>> = vec![Vec::new(); prompts.len()];
    let mut answers: Vec<Option<Answer>> = vec![None; prompts.len()];
    let mut active: Vec<Active> = Vec::new();
    let (mut next, mut done) = (0, 0);
    // Takes a token in; gives whether the answer goes on.
    let take = |id: u32, room: usize, ids: &mut Vec<u32>, answer: &mut Option<Answer>| {
        let ended = options.end.contains(&id);
        if !ended {
            ids.push(id);
        }
        if ended || ids.len() >= room {
            *answer = Some(Answer { ids: std::mem::take(ids), ended });
        }
        answer.is_none()
    };
    while !(watch.stop)() {
        while active.len() < options.batch.max(1) && next < prompts.len() {
            let (index, prompt) = (next, &prompts[next]);
            next += 1;
            let room = context.saturating_sub(prompt.len()).min(options.max_new_tokens);
            if room == 0 {
                answers[index] = Some(Answer { ids: Vec::new(), ended: false });
                done += 1;
                continue;
            }
            let mut sequence = runner.start();
            runner.prefill(&mut sequence, prompt)?;
            let last = most_likely(runner.logits_mut(0));
            if take(last, room, &mut made[index], &mut answers[index]) {
                active.push(Active { index, sequence, last, room });
            } else {
                runner.finish(sequence);
                done += 1;
            }
        }
        (watch.progress)(done, prompts.len() as u64);
        if active.is_empty() {
            break;
        }
        let ids: Vec<u32> = active.iter().map(|a| a.last).collect();
        let mut sequences: Vec<&mut Sequence> = active.iter_mut().map(|a| &mut a.sequence).collect();
        runner.decode(&mut sequences, &ids)?;
        let mut going = Vec::with_capacity(active.len());
        for (row, mut one) in active.into_iter().enumerate() {
            one.last = most_likely(runner.logits_mut(row));
            if take(one.last, one.room, &mut made[one.index], &mut answers[one.index]) {
                going.push(one);
            } else {
                runner.finish(one.sequence);
                done += 1;
            }
        }
        active = going;
    }
    Ok(answers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use blackletter_engine::{GenerationOptions, LoadOptions, generate, sampling::SamplingOptions};
    use blackletter_model::{Dtype, MixtralConfig, random_checkpoint};
    use std::ops::ControlFlow;

    #[test]
    fn answers_do_not_depend_on_the_batch_and_are_those_of_generate() {
        let dir = tempfile::tempdir().unwrap();
        let config = MixtralConfig {
            vocab_size: 64,
            hidden_size: 32,
            intermediate_size: 32,
            num_hidden_layers: 2,
            num_attention_heads: 4,
            num_key_value_heads: 2,
            head_dim: 8,
            max_position_embeddings: 24,
            sliding_window: Some(8),
            ..MixtralConfig::geometry("kl3m-002-520m").unwrap()
        };
        random_checkpoint(dir.path(), &config, Dtype::F32, 7).unwrap();
        let engine = Engine::load(dir.path(), &LoadOptions::default()).unwrap();
        let prompts: Vec<Vec<u32>> = (1..=9).map(|n| (0..n * 3).map(|id| (id * n) % 64).collect()).collect();
        let end = [5, 6, 7, 8];
        let made: Vec<Option<Answer>> = prompts
            .iter()
            .map(|prompt| {
                let options = GenerationOptions {
                    max_new_tokens: 12,
                    num_return_sequences: 1,
                    sampling: SamplingOptions { greedy: true, ..SamplingOptions::default() },
                    seed: 0,
                    stop: vec![],
                    eos_token_id: end.to_vec(),
                };
                let go = &mut |_, _| ControlFlow::Continue(());
                let Ok(mut one) = generate(&engine, None, prompt, &options, go) else {
                    return Some(Answer { ids: vec![], ended: false });
                };
                let mut ids = one.remove(0).ids;
                let ended = ids.last().is_some_and(|id| end.contains(id));
                ids.truncate(ids.len() - usize::from(ended));
                Some(Answer { ids, ended })
            })
            .collect();
        assert!(made.iter().flatten().any(|a| a.ids.len() == 12), "{made:?}");
        for batch in [1, 3, 20] {
            let options = GreedyOptions { max_new_tokens: 12, batch, end: &end };
            assert_eq!(greedy(&engine, &prompts, options, Watch::default()).unwrap(), made);
        }
        let stopped = Watch { progress: &|_, _| {}, stop: &|| true };
        let options = GreedyOptions { max_new_tokens: 12, batch: 2, end: &end };
        assert!(greedy(&engine, &prompts, options, stopped).unwrap().iter().all(Option::is_none));
    }
}
