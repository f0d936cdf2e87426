//! A text under a constraint: which tokens may come, and the way out that is kept in reserve.

use super::{
    ConstraintError, Grammar,
    closing::{Follower, tokens_of},
    json_guard::JsonGuard,
};
use llguidance::{
    TokenParser,
    toktrie::{SimpleVob, TokEnv},
};

/// A candidate was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is part of the text now.
    Taken,
    /// Another has to be chosen.
    Refused,
}

/// The state of one text under a constraint.
pub struct Constraint {
    parser: TokenParser,
    follower: Option<Follower>,
    guard: Option<JsonGuard>,
    env: TokEnv,
    /// Tokens of a lawful end, first one last; empty when none has been needed so far.
    reserve: Vec<u32>,
    mask: Option<SimpleVob>,
    ended: bool,
}

impl Constraint {
    /// The beginning of a text of at most `most` tokens. When no whole text fits into so few, nothing is kept in reserve.
    pub fn new(grammar: &Grammar, most: usize) -> Self {
        let mut constraint = Self {
            parser: grammar.parser.clone(),
            follower: grammar.follower.clone(),
            guard: grammar.json.then(JsonGuard::default),
            env: grammar.env.clone(),
            reserve: Vec::new(),
            mask: None,
            ended: false,
        };
        if constraint.least_tokens().is_none_or(|least| least > most) {
            constraint.follower = None;
        }
        constraint
    }

    /// Least tokens of a whole text, so far as is known.
    pub fn least_tokens(&self) -> Option<usize> {
        let closing = self.follower.as_ref()?.closing()?;
        tokens_of(self.env.tok_trie(), &closing).map(|tokens| tokens.len())
    }

    /// Whether nothing may follow: the text is whole.
    pub fn is_ended(&self) -> bool {
        self.ended
    }

    /// Whether the text so far is whole, though more may follow.
    pub fn is_whole(&mut self) -> bool {
        self.ended || self.parser.is_accepting()
    }

    /// Rules out the tokens that must not come next.
    ///
    /// # Errors
    /// When the grammar has become too complex to tell.
    pub fn mask(&mut self, logits: &mut [f32]) -> Result<(), ConstraintError> {
        let mask = self.parser.compute_mask().map_err(too_complex)?;
        for (logit, id) in logits.iter_mut().zip(0u32..) {
            if id as usize >= mask.len() || !mask.is_allowed(id) {
                *logit = f32::NEG_INFINITY;
            }
        }
        self.mask = Some(mask);
        Ok(())
    }

    /// Takes a token that the last mask allows, unless no lawful end would fit into the `left` tokens after it.
    ///
    /// # Errors
    /// When the grammar has become too complex to tell.
    pub fn offer(&mut self, id: u32, left: usize) -> Result<Verdict, ConstraintError> {
        if !self.mask.as_ref().is_some_and(|mask| (id as usize) < mask.len() && mask.is_allowed(id)) {
            return Ok(Verdict::Refused);
        }
        let trie = self.env.tok_trie();
        if trie.eos_tokens().contains(&id) {
            self.ended = true;
            return Ok(Verdict::Taken);
        }
        let bytes = trie.token(id).to_vec();
        let reserved = self.reserve.last() == Some(&id);
        let mut guard = self.guard.clone();
        if !guard.as_mut().is_none_or(|guard| guard.push(&bytes)) && !reserved {
            return Ok(Verdict::Refused);
        }
        if let Some(follower) = &mut self.follower {
            let mark = follower.mark();
            if !follower.push(&bytes) {
                self.follower = None;
                self.reserve.clear();
            } else if follower.left().is_none_or(|tokens| tokens > left) {
                // By the quick answer it does not fit; by the exact one it may.
                match follower.closing().and_then(|closing| tokens_of(trie, &closing)) {
                    Some(tokens) if tokens.len() <= left => self.reserve = tokens,
                    _ if reserved => {
                        self.reserve.pop();
                    }
                    _ => {
                        follower.back_to(mark);
                        return Ok(Verdict::Refused);
                    }
                }
            } else {
                self.reserve.clear();
            }
        }
        self.guard = guard;
        self.take(id)?;
        Ok(Verdict::Taken)
    }

    fn take(&mut self, id: u32) -> Result<(), ConstraintError> {
        self.parser.consume_token(id).map_err(too_complex)?;
        self.ended = self.parser.check_stop().map_err(too_complex)?;
        Ok(())
    }

    /// The first token of the lawful end that is kept in reserve, made now when there is none yet.
    pub fn way_out(&mut self) -> Option<u32> {
        if self.reserve.is_empty() {
            let closing = self.follower.as_ref()?.closing()?;
            let mut tokens = tokens_of(self.env.tok_trie(), &closing)?;
            tokens.reverse();
            // A lexeme may take in what was meant to follow it; then there is nothing to go by.
            if self.parser.validate_tokens_raw(&tokens).ok()? < tokens.len() {
                self.follower = None;
                return None;
            }
            tokens.reverse();
            self.reserve = tokens;
        }
        self.reserve.last().copied()
    }

    /// Takes the first token that the last mask allows, whatever comes of it.
    ///
    /// # Errors
    /// When there is none, or the grammar has become too complex to tell.
    pub fn any(&mut self, left: usize) -> Result<u32, ConstraintError> {
        let allowed: Vec<u32> = self.mask.iter().flat_map(|mask| mask.iter()).collect();
        for &id in &allowed {
            if self.offer(id, left)? == Verdict::Taken {
                return Ok(id);
            }
        }
        let Some(&id) = allowed.first() else { return Err(too_complex("no token is allowed")) };
        (self.follower, self.guard) = (None, None);
        self.offer(id, left)?;
        Ok(id)
    }
}

/// What `llguidance` says when it gives up.
pub(super) fn too_complex(error: impl std::fmt::Display) -> ConstraintError {
    ConstraintError::TooComplex(error.to_string().lines().next().unwrap_or_default().to_string())
}
