//! One continuation of a prompt: what has been chosen, what may be chosen next, and when it is done.

use crate::{
    EngineError, FinishReason,
    constraint::{Constraint, Grammar, Verdict},
    sampling::Sampler,
};

/// Draws that a constraint may refuse before the way out is taken.
const MOST_REFUSED: usize = 32;

/// A continuation in progress.
pub(crate) struct Continuation {
    /// The new tokens.
    pub ids: Vec<u32>,
    /// Why it ended, when it has.
    pub finished: Option<FinishReason>,
    /// Prompt and new tokens.
    history: Vec<u32>,
    most: usize,
    eos: Vec<u32>,
    sampler: Sampler,
    constraint: Option<Constraint>,
    spare: Vec<f32>,
}

impl Continuation {
    /// The beginning of a continuation of at most `most` tokens, which ends after one of `eos`.
    pub fn new(
        prompt: &[u32],
        most: usize,
        eos: &[u32],
        sampler: Sampler,
        grammar: Option<&Grammar>,
    ) -> Self {
        let mut history = Vec::with_capacity(prompt.len() + most);
        history.extend_from_slice(prompt);
        Self {
            ids: Vec::with_capacity(most),
            finished: (most == 0).then_some(FinishReason::Length),
            history,
            most,
            eos: eos.to_vec(),
            sampler,
            constraint: grammar.map(|grammar| Constraint::new(grammar, most)),
            spare: Vec::new(),
        }
    }

    /// Chooses the next token from its logits `[vocab]`, which are changed on the way.
    ///
    /// # Errors
    /// When the constraint has become too complex.
    pub fn choose(&mut self, logits: &mut [f32]) -> Result<u32, EngineError> {
        let id = match self.constraint.take() {
            None => self.sampler.sample(logits, &self.history),
            Some(mut constraint) => {
                let id = self.choose_within(&mut constraint, logits)?;
                self.constraint = Some(constraint);
                id
            }
        };
        self.ids.push(id);
        self.history.push(id);
        if self.eos.contains(&id) {
            self.finished = Some(FinishReason::Eos);
        } else if self.constraint.as_ref().is_some_and(Constraint::is_ended) {
            self.finished = Some(FinishReason::Whole);
        } else if self.ids.len() == self.most {
            let whole = self.constraint.as_mut().is_some_and(Constraint::is_whole);
            self.finished = Some(if whole { FinishReason::Whole } else { FinishReason::Length });
        }
        Ok(id)
    }

    fn choose_within(&mut self, constraint: &mut Constraint, logits: &mut [f32]) -> Result<u32, EngineError> {
        let left = self.most - self.ids.len() - 1;
        constraint.mask(logits)?;
        for _ in 0..MOST_REFUSED {
            self.spare.clear();
            self.spare.extend_from_slice(logits);
            let id = self.sampler.sample(&mut self.spare, &self.history);
            if constraint.offer(id, left)? == Verdict::Taken {
                return Ok(id);
            }
            match logits.get_mut(id as usize) {
                // Nothing is left to draw from: a penalty has ruled out what the constraint asks for.
                Some(logit) if *logit == f32::NEG_INFINITY => break,
                Some(logit) => *logit = f32::NEG_INFINITY,
                None => break,
            }
        }
        if let Some(id) = constraint.way_out()
            && constraint.offer(id, left)? == Verdict::Taken
        {
            return Ok(id);
        }
        constraint.any(left).map_err(EngineError::from)
    }
}
