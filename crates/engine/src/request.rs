//! What is asked of a generation, before the model's own settings have been considered.

use crate::{
    GenerationOptions,
    sampling::{SamplingError, SamplingOptions},
};
use blackletter_model::{GenerationConfig, MixtralConfig};

/// New tokens when nobody says how many: what transformers' text-generation pipeline makes.
pub const DEFAULT_MAX_NEW_TOKENS: usize = 256;

/// What a user asks for; `None` leaves it to `generation_config.json`, and that to transformers' defaults.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GenerationRequest {
    /// Most new tokens.
    pub max_new_tokens: Option<usize>,
    /// Continuations of the same prompt.
    pub num_return_sequences: usize,
    /// Take the most likely token always.
    pub greedy: bool,
    /// As in [`SamplingOptions`], and so are the others.
    pub temperature: Option<f32>,
    /// How many of the most likely tokens stay.
    pub top_k: Option<usize>,
    /// How much probability stays.
    pub top_p: Option<f32>,
    /// Least probability, as a share of the largest.
    pub min_p: Option<f32>,
    /// How much typical probability stays.
    pub typical_p: Option<f32>,
    /// Divides or multiplies logits of tokens seen.
    pub repetition_penalty: Option<f32>,
    /// Length of n-grams that must not come twice.
    pub no_repeat_ngram_size: Option<usize>,
    /// Makes the choices repeatable.
    pub seed: u64,
    /// Texts that end a continuation.
    pub stop: Vec<String>,
}

impl GenerationRequest {
    /// Fills in what is not asked for: from `generation_config.json`, then from transformers' defaults. Tokens that end a
    /// text come from `generation_config.json`, else from `config.json`.
    ///
    /// # Errors
    /// Names the first option that is out of its range, wherever it came from.
    pub fn resolve(
        self,
        file: &GenerationConfig,
        model: &MixtralConfig,
    ) -> Result<GenerationOptions, SamplingError> {
        let default = SamplingOptions::default();
        let float = |asked: Option<f32>, file: Option<f64>, default: f32| {
            asked.or(file.map(|x| x as f32)).unwrap_or(default)
        };
        let whole = |asked: Option<usize>, file: Option<u64>, default: usize| {
            asked.or(file.map(|n| usize::try_from(n).unwrap_or(usize::MAX))).unwrap_or(default)
        };
        let sampling = SamplingOptions {
            greedy: self.greedy,
            temperature: float(self.temperature, file.temperature, default.temperature),
            top_k: whole(self.top_k, file.top_k, default.top_k),
            top_p: float(self.top_p, file.top_p, default.top_p),
            min_p: float(self.min_p, file.min_p, default.min_p),
            typical_p: float(self.typical_p, file.typical_p, default.typical_p),
            repetition_penalty: float(
                self.repetition_penalty,
                file.repetition_penalty,
                default.repetition_penalty,
            ),
            no_repeat_ngram_size: whole(
                self.no_repeat_ngram_size,
                file.no_repeat_ngram_size,
                default.no_repeat_ngram_size,
            ),
        };
        sampling.validate()?;
        Ok(GenerationOptions {
            max_new_tokens: whole(self.max_new_tokens, file.max_new_tokens, DEFAULT_MAX_NEW_TOKENS),
            num_return_sequences: self.num_return_sequences,
            sampling,
            seed: self.seed,
            stop: self.stop,
            eos_token_id: file.eos_token_id.clone().unwrap_or_else(|| model.eos_token_id.clone()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model() -> MixtralConfig {
        MixtralConfig::geometry("kl3m-002-520m").unwrap()
    }

    #[test]
    fn what_nobody_says_is_as_in_transformers() {
        let options = GenerationRequest::default().resolve(&GenerationConfig::default(), &model()).unwrap();
        assert_eq!(options.sampling, SamplingOptions::default());
        assert_eq!(
            (options.sampling.temperature, options.sampling.top_k, options.sampling.top_p),
            (1.0, 50, 1.0)
        );
        assert_eq!((options.max_new_tokens, options.eos_token_id), (256, vec![1]));
    }

    #[test]
    fn the_user_comes_before_the_file_and_the_file_before_defaults() {
        let file = GenerationConfig {
            temperature: Some(0.7),
            top_k: Some(5),
            eos_token_id: Some(vec![7, 9]),
            max_new_tokens: Some(3),
            ..GenerationConfig::default()
        };
        let asked = GenerationRequest { temperature: Some(0.25), ..GenerationRequest::default() };
        let options = asked.resolve(&file, &model()).unwrap();
        assert_eq!(
            (options.sampling.temperature, options.sampling.top_k, options.sampling.top_p),
            (0.25, 5, 1.0)
        );
        assert_eq!((options.max_new_tokens, options.eos_token_id), (3, vec![7, 9]));
    }

    #[test]
    fn a_value_out_of_range_is_refused_wherever_it_came_from() {
        let file = GenerationConfig { top_p: Some(1.5), ..GenerationConfig::default() };
        assert_eq!(GenerationRequest::default().resolve(&file, &model()).unwrap_err().option, "top-p");
        let asked = GenerationRequest { temperature: Some(0.0), ..GenerationRequest::default() };
        let error = asked.resolve(&GenerationConfig::default(), &model()).unwrap_err();
        assert_eq!(error.option, "temperature");
    }
}
