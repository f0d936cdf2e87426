//! What the log-probabilities of a text come to.

use crate::{Engine, EngineError, score};
use serde::Serialize;

/// The score of a text.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ScoreReport {
    /// The ids that were scored; the first is not predicted.
    pub tokens: Vec<u32>,
    /// The natural log-probability of each id but the first, given those before it.
    pub token_logprobs: Vec<f32>,
    /// Negative log-likelihood: minus the sum of the log-probabilities, in nats.
    pub nll: f64,
    /// `exp(nll / predicted tokens)`.
    pub perplexity: f64,
    /// `nll / ln 2 / UTF-8 bytes of the predicted tokens`; none when the bytes are not known.
    pub bits_per_byte: Option<f64>,
}

/// Scores `ids`, of which those after the first stand for `bytes` bytes of text.
///
/// # Errors
/// As [`score()`].
pub fn score_report(
    engine: &Engine,
    ids: Vec<u32>,
    bytes: Option<usize>,
) -> Result<ScoreReport, EngineError> {
    let token_logprobs = score(engine, &ids)?;
    Ok(ScoreReport::new(ids, token_logprobs, bytes))
}

impl ScoreReport {
    fn new(tokens: Vec<u32>, token_logprobs: Vec<f32>, bytes: Option<usize>) -> Self {
        let nll = -token_logprobs.iter().map(|&x| f64::from(x)).sum::<f64>();
        let perplexity = (nll / token_logprobs.len() as f64).exp();
        let bits_per_byte = bytes.filter(|&n| n > 0).map(|n| nll / std::f64::consts::LN_2 / n as f64);
        Self { tokens, token_logprobs, nll, perplexity, bits_per_byte }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn even_odds_are_one_bit_a_token_and_perplexity_two() {
        let half = 0.5f32.ln();
        let report = ScoreReport::new(vec![9, 8, 7], vec![half, half], Some(4));
        assert!((report.perplexity - 2.0).abs() < 1e-6);
        assert!((report.bits_per_byte.unwrap() - 0.5).abs() < 1e-6, "two bits over four bytes");
        assert_eq!(ScoreReport::new(vec![9, 8], vec![half], None).bits_per_byte, None);
    }
}
