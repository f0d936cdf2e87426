//! Everything of a run that must survive beside its tensors, as one struct with a version.

use serde::{Deserialize, Serialize};

/// Version of [`RunState`]'s form.
pub const VERSION: u32 = 1;

/// Where a run stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunState {
    /// [`VERSION`].
    pub version: u32,
    /// Steps done.
    pub step: u64,
    /// The next row.
    pub place: Place,
    /// Tokens consumed, padding left out.
    pub tokens: u64,
    /// Targets consumed.
    pub targets: u64,
    /// Tokens by origin.
    pub consumed: Vec<Consumed>,
    /// Norms of past gradients, for clipping by percentile.
    pub norms: Vec<f64>,
    /// The checkpoint with the lowest held-out loss.
    pub best: Option<Best>,
    /// Updates of the average.
    pub averaged: u64,
    /// Seconds spent in steps.
    pub seconds: f64,
    /// Root hash of the corpus that the store was made from.
    pub corpus: String,
    /// Hash of the tokenizer.
    pub tokenizer: String,
}

/// A row of the stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Place {
    /// Epoch, from 0.
    pub epoch: u64,
    /// Row of the epoch, from 0.
    pub row: u64,
}

/// Tokens of one origin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Consumed {
    /// The dataset.
    pub dataset: String,
    /// The licence.
    pub license: String,
    /// Of supervised examples, their kind; empty for documents.
    pub task: String,
    /// Tokens seen, again in later epochs.
    pub tokens: u64,
}

/// A checkpoint and its held-out loss.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Best {
    /// Its step.
    pub step: u64,
    /// Its held-out loss.
    pub loss: f64,
}

impl RunState {
    /// Of a run that has done nothing.
    pub fn new(corpus: &str, tokenizer: &str) -> Self {
        Self {
            version: VERSION,
            step: 0,
            place: Place::default(),
            tokens: 0,
            targets: 0,
            consumed: Vec::new(),
            norms: Vec::new(),
            best: None,
            averaged: 0,
            seconds: 0.0,
            corpus: corpus.into(),
            tokenizer: tokenizer.into(),
        }
    }

    /// Counts tokens of an origin.
    pub fn consume(&mut self, dataset: &str, license: &str, task: &str, tokens: u64) {
        self.tokens += tokens;
        let key = |c: &Consumed| (c.dataset.clone(), c.license.clone(), c.task.clone());
        let new = Consumed { dataset: dataset.into(), license: license.into(), task: task.into(), tokens };
        match self.consumed.binary_search_by_key(&key(&new), key) {
            Ok(at) => {
                if let Some(found) = self.consumed.get_mut(at) {
                    found.tokens += tokens;
                }
            }
            Err(at) => self.consumed.insert(at, new),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_counted_by_origin() {
        let mut state = RunState::new("c", "t");
        for (dataset, license, tokens) in
            [("usc", "PD", 3), ("dc", "PD", 4), ("usc", "PD", 5), ("usc", "CC0-1.0", 1)]
        {
            state.consume(dataset, license, "", tokens);
        }
        assert_eq!(state.tokens, 13);
        let all: Vec<_> =
            state.consumed.iter().map(|c| (c.dataset.as_str(), c.license.as_str(), c.tokens)).collect();
        assert_eq!(all, [("dc", "PD", 4), ("usc", "CC0-1.0", 1), ("usc", "PD", 8)]);
    }

    #[test]
    fn a_state_of_version_1_is_read() {
        let text = r#"{"version":1,"step":200,"place":{"epoch":1,"row":17},"tokens":1000,"targets":990,
            "consumed":[{"dataset":"usc","license":"17 U.S.C. 105","task":"","tokens":1000}],"norms":[0.1,2.5e-7],
            "best":{"step":100,"loss":3.141592653589793},"averaged":20,"seconds":12.5,"corpus":"aa","tokenizer":"bb"}"#;
        let state: RunState = serde_json::from_str(text).unwrap();
        assert_eq!(
            (state.place.row, state.norms[1], state.best.unwrap().loss),
            (17, 2.5e-7, std::f64::consts::PI)
        );
        assert_eq!(serde_json::from_str::<RunState>(&serde_json::to_string(&state).unwrap()).unwrap(), state);
    }
}
