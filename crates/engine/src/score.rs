//! Log-probabilities of given tokens.

use crate::{Engine, EngineError, Runner};
use blackletter_kernels::log_softmax_at;

/// The natural log-probability of `ids[1..]`, each given those before it: one value fewer than ids.
///
/// What is longer than the context goes through in windows of one context that overlap by half: every token is scored
/// once, with at least half a context before it.
///
/// # Errors
/// When there are fewer than two ids or one is out of range.
pub fn score(engine: &Engine, ids: &[u32]) -> Result<Vec<f32>, EngineError> {
    if ids.len() < 2 {
        return Err(EngineError::Empty(
            "there is nothing to score: it takes at least two tokens, of which the second is predicted",
        ));
    }
    engine.check_ids(ids)?;
    let context = engine.config().max_position_embeddings;
    let step = (context / 2).max(1);
    let mut runner = Runner::new(engine);
    let mut scored = Vec::with_capacity(ids.len() - 1);
    let mut start = 0;
    loop {
        let end = (start + context).min(ids.len());
        let window = &ids[start..end];
        let mut sequence = runner.start();
        runner.prefill_all(&mut sequence, window, |i, logits| {
            // Position `i` of the window predicts the next id, unless an earlier window has done so.
            if i + 1 < window.len() && start + i == scored.len() {
                scored.push(log_softmax_at(engine.isa(), logits, window[i + 1] as usize));
            }
        })?;
        runner.finish(sequence);
        if end == ids.len() {
            return Ok(scored);
        }
        start += step;
    }
}
