//! Choosing the next token from logits, as transformers does.
//!
//! In the order of transformers 5.23: processors ([`processors`]: repetition penalty, no-repeat n-gram) always, then, unless
//! greedy, warpers ([`warpers`]: temperature, top-k, top-p, min-p, typical-p), then a draw ([`Sampler`]).

pub mod processors;
mod sampler;
pub mod warpers;

pub use sampler::Sampler;

/// How tokens are chosen. The default is transformers': sample at temperature 1 among the 50 most likely tokens.
#[derive(Clone, Debug, PartialEq)]
pub struct SamplingOptions {
    /// Take the most likely token, without warpers or chance.
    pub greedy: bool,
    /// Divides the logits; above 0.
    pub temperature: f32,
    /// How many of the most likely tokens stay, ties included; 0 for all.
    pub top_k: usize,
    /// The most likely tokens stay until their probability reaches this; 0 to 1, 1 for all.
    pub top_p: f32,
    /// Tokens stay whose probability is at least this share of the largest; 0 to 1, 0 for all.
    pub min_p: f32,
    /// Tokens nearest to the expected information stay until their probability reaches this; above 0, to 1, 1 for all.
    pub typical_p: f32,
    /// Divides positive and multiplies negative logits of tokens seen; above 0, 1 for none.
    pub repetition_penalty: f32,
    /// No n-gram of this length comes twice; 0 for any.
    pub no_repeat_ngram_size: usize,
}

impl Default for SamplingOptions {
    fn default() -> Self {
        Self {
            greedy: false,
            temperature: 1.0,
            top_k: 50,
            top_p: 1.0,
            min_p: 0.0,
            typical_p: 1.0,
            repetition_penalty: 1.0,
            no_repeat_ngram_size: 0,
        }
    }
}

/// An option is out of its range.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{option} = {value} is out of range: {allowed}")]
pub struct SamplingError {
    /// The option, as the command line spells it, without dashes in front.
    pub option: &'static str,
    /// Its value.
    pub value: f32,
    /// What is allowed.
    pub allowed: &'static str,
}

impl SamplingOptions {
    /// Checks every option against transformers' ranges.
    ///
    /// # Errors
    /// Names the first that is out of range.
    pub fn validate(&self) -> Result<(), SamplingError> {
        let check = |ok: bool, option, value, allowed| {
            if ok { Ok(()) } else { Err(SamplingError { option, value, allowed }) }
        };
        let positive = |x: f32| x.is_finite() && x > 0.0;
        check(
            positive(self.temperature),
            "temperature",
            self.temperature,
            "it must be above 0 (use --greedy for the most likely token)",
        )?;
        check((0.0..=1.0).contains(&self.top_p), "top-p", self.top_p, "it must be from 0 to 1")?;
        check((0.0..=1.0).contains(&self.min_p), "min-p", self.min_p, "it must be from 0 to 1")?;
        check(
            self.typical_p > 0.0 && self.typical_p <= 1.0,
            "typical-p",
            self.typical_p,
            "it must be above 0 and at most 1",
        )?;
        check(
            positive(self.repetition_penalty),
            "repetition-penalty",
            self.repetition_penalty,
            "it must be above 0",
        )
    }
}
