//! One sequence's choices.

use super::{SamplingOptions, processors, warpers};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Chooses the tokens of one sequence: the options, a stream of random numbers, and buffers that are reused.
pub struct Sampler {
    options: SamplingOptions,
    random: ChaCha8Rng,
    candidates: Vec<warpers::Candidate>,
    scratch: Vec<f32>,
    seen: Vec<u32>,
}

impl Sampler {
    /// The sampler of sequence number `sequence`, whose numbers depend on it and on `seed` alone.
    pub fn new(options: SamplingOptions, seed: u64, sequence: u64, vocab_size: usize) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        random.set_stream(sequence);
        let room = if options.greedy { 0 } else { vocab_size };
        Self {
            options,
            random,
            candidates: Vec::with_capacity(room),
            scratch: Vec::with_capacity(room),
            seen: Vec::new(),
        }
    }

    /// Chooses the token that follows `history` (prompt and generated tokens); changes `logits` on the way.
    ///
    /// A logit that is not a number counts as −∞, and when all are, the answer is token 0.
    pub fn sample(&mut self, logits: &mut [f32], history: &[u32]) -> u32 {
        for logit in logits.iter_mut().filter(|l| l.is_nan()) {
            *logit = f32::NEG_INFINITY;
        }
        let o = &self.options;
        processors::repetition_penalty(logits, history, o.repetition_penalty, &mut self.seen);
        processors::no_repeat_ngram(logits, history, o.no_repeat_ngram_size);
        if o.greedy {
            return most_likely(logits);
        }
        self.warp(logits);
        self.draw()
    }

    /// Fills the candidates with what the warpers leave of `logits`.
    fn warp(&mut self, logits: &[f32]) {
        let o = &self.options;
        self.candidates.clear();
        let finite = logits.iter().zip(0u32..).filter(|(l, _)| **l > f32::NEG_INFINITY);
        self.candidates.extend(finite.map(|(&l, id)| (l / o.temperature, id)));
        warpers::top_k(&mut self.candidates, o.top_k, &mut self.scratch);
        warpers::top_p(&mut self.candidates, o.top_p, &mut self.scratch);
        warpers::min_p(&mut self.candidates, o.min_p, &mut self.scratch);
        warpers::typical_p(&mut self.candidates, o.typical_p, &mut self.scratch);
        // Whatever order the filters left, the draw walks the vocabulary.
        self.candidates.sort_unstable_by_key(|c| c.1);
    }

    fn draw(&mut self) -> u32 {
        let unit: f64 = self.random.random();
        // Exponentials of differences; infinite logits share all of the probability.
        let largest = self.candidates.iter().map(|c| c.0).fold(f32::NEG_INFINITY, f32::max);
        let weight = |logit: f32| {
            if logit == largest { 1.0 } else { f64::from(logit - largest).exp() }
        };
        let total: f64 = self.candidates.iter().map(|c| weight(c.0)).sum();
        let mut left = unit * total;
        for &(logit, id) in &self.candidates {
            left -= weight(logit);
            if left < 0.0 {
                return id;
            }
        }
        self.candidates.last().map_or(0, |c| c.1)
    }
}

/// The first of the largest logits.
fn most_likely(logits: &[f32]) -> u32 {
    let mut best = (f32::NEG_INFINITY, 0);
    for (&logit, id) in logits.iter().zip(0u32..) {
        if logit > best.0 {
            best = (logit, id);
        }
    }
    best.1
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    fn options() -> SamplingOptions {
        SamplingOptions { top_k: 0, ..SamplingOptions::default() }
    }

    fn kept(options: &SamplingOptions, logits: &[f32]) -> Vec<u32> {
        let mut sampler = Sampler::new(options.clone(), 0, 0, logits.len());
        sampler.warp(logits);
        sampler.candidates.iter().map(|c| c.1).collect()
    }

    #[test]
    fn filters_keep_what_transformers_keeps() {
        // Made by scripts/make_goldens.py with transformers' own classes.
        let golden: Value = serde_json::from_str(include_str!("../../tests/goldens/sampling.json")).unwrap();
        let floats = |v: &Value| -> Vec<f32> {
            v.as_array().unwrap().iter().map(|x| x.as_f64().map_or(f32::NEG_INFINITY, |x| x as f32)).collect()
        };
        let cases = golden["cases"].as_array().unwrap();
        assert!(cases.len() >= 20);
        for case in cases {
            let o = &case["options"];
            let float = |key: &str, default: f32| o[key].as_f64().map_or(default, |x| x as f32);
            let options = SamplingOptions {
                greedy: false,
                temperature: float("temperature", 1.0),
                top_k: o["top_k"].as_u64().unwrap_or(0) as usize,
                top_p: float("top_p", 1.0),
                min_p: float("min_p", 0.0),
                typical_p: float("typical_p", 1.0),
                repetition_penalty: float("repetition_penalty", 1.0),
                no_repeat_ngram_size: o["no_repeat_ngram_size"].as_u64().unwrap_or(0) as usize,
            };
            let history: Vec<u32> =
                case["history"].as_array().unwrap().iter().map(|x| x.as_u64().unwrap() as u32).collect();
            let mut logits = floats(&golden["logits"][case["logits"].as_u64().unwrap() as usize]);
            processors::repetition_penalty(
                &mut logits,
                &history,
                options.repetition_penalty,
                &mut Vec::new(),
            );
            processors::no_repeat_ngram(&mut logits, &history, options.no_repeat_ngram_size);
            let mut sampler = Sampler::new(options, 0, 0, logits.len());
            sampler.warp(&logits);
            let expected = floats(&case["expected"]);
            let mut found = vec![f32::NEG_INFINITY; logits.len()];
            for &(logit, id) in &sampler.candidates {
                found[id as usize] = logit;
            }
            for (id, (a, b)) in found.iter().zip(&expected).enumerate() {
                let same = (a == b) || (a - b).abs() <= 1e-5 * b.abs();
                assert!(same, "{o}: token {id} is {a}, transformers has {b}");
            }
        }
    }

    #[test]
    fn draws_follow_the_distribution_and_the_seed() {
        let logits: [f32; 3] = [0.5f32.ln(), 0.3f32.ln(), 0.2f32.ln()];
        let draw = |seed: u64, stream: u64| {
            let mut sampler = Sampler::new(options(), seed, stream, 3);
            (0..20_000).map(|_| sampler.sample(&mut logits.clone(), &[])).collect::<Vec<_>>()
        };
        let one = draw(1, 0);
        for (id, share) in [(0, 0.5), (1, 0.3), (2, 0.2)] {
            let found = one.iter().filter(|&&d| d == id).count() as f64 / one.len() as f64;
            // Four standard deviations.
            assert!(
                (found - share).abs() < 4.0 * (share * (1.0 - share) / 20_000.0f64).sqrt(),
                "{id}: {found}"
            );
        }
        assert_eq!(one, draw(1, 0));
        assert_ne!(one, draw(2, 0));
        assert_ne!(one, draw(1, 1));
    }

    #[test]
    fn logits_that_are_not_numbers_never_win() {
        let mut sampler = Sampler::new(options(), 0, 0, 3);
        assert_eq!(sampler.sample(&mut [f32::NAN, 0.0, f32::NAN], &[]), 1);
        assert_eq!(sampler.sample(&mut [f32::NAN; 3], &[]), 0);
        assert_eq!(sampler.sample(&mut [0.0, f32::INFINITY, 0.0], &[]), 1);
    }

    #[test]
    fn an_option_out_of_range_is_named() {
        for (bad, name) in [
            (SamplingOptions { temperature: 0.0, ..options() }, "temperature"),
            (SamplingOptions { temperature: f32::NAN, ..options() }, "temperature"),
            (SamplingOptions { top_p: 1.5, ..options() }, "top-p"),
            (SamplingOptions { min_p: -0.1, ..options() }, "min-p"),
            (SamplingOptions { typical_p: 0.0, ..options() }, "typical-p"),
            (SamplingOptions { repetition_penalty: 0.0, ..options() }, "repetition-penalty"),
        ] {
            assert_eq!(bad.validate().unwrap_err().option, name);
        }
        assert!(SamplingOptions::default().validate().is_ok());
    }

    proptest! {
        #[test]
        fn top_one_is_greedy(logits in proptest::collection::vec(-5.0f32..5.0, 1..50), seed: u64) {
            let greedy = SamplingOptions { greedy: true, ..options() };
            let one = SamplingOptions { top_k: 1, ..options() };
            let expected = Sampler::new(greedy, 0, 0, 50).sample(&mut logits.clone(), &[]);
            let found = Sampler::new(one, seed, 0, 50).sample(&mut logits.clone(), &[]);
            prop_assert_eq!(logits[expected as usize], logits[found as usize]);
        }

        #[test]
        fn a_stricter_filter_keeps_a_part_of_what_a_laxer_one_keeps(
            logits in proptest::collection::vec(-5.0f32..5.0, 1..50), p in 0.01f32..0.99, less in 0.01f32..0.99,
        ) {
            let (low, high) = (p.min(less), p.max(less));
            for (strict, lax) in [
                (SamplingOptions { top_p: low, ..options() }, SamplingOptions { top_p: high, ..options() }),
                (SamplingOptions { min_p: high, ..options() }, SamplingOptions { min_p: low, ..options() }),
                (SamplingOptions { top_k: 2, ..options() }, SamplingOptions { top_k: 5, ..options() }),
            ] {
                let (strict, lax) = (kept(&strict, &logits), kept(&lax, &logits));
                prop_assert!(!strict.is_empty() && strict.iter().all(|id| lax.contains(id)));
            }
        }
    }
}
