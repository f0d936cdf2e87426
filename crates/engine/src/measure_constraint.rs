//! What constraints cost beside the steps of a model: `blackletter bench constraint`.

use crate::{
    Engine, EngineError, Runner,
    constraint::{ConstraintSpec, Grammar, Vocabulary},
    continuation::Continuation,
    measure::{cpu_name, ids},
    sampling::{Sampler, SamplingOptions},
};
use blackletter_tokenizer::Tokenizer;
use serde::Serialize;
use serde_json::Value;
use std::time::{Duration, Instant};

/// Tokens before the first generated one.
const DEPTH: usize = 16;

/// The cost of constraints on one sequence alone. Steps with and without are the same but for the choice of the token, so each
/// step is taken once, and its token is chosen twice.
#[derive(Clone, Debug, Serialize)]
pub struct ConstraintMeasurement {
    /// The CPU's own name.
    pub cpu: String,
    /// Instruction set of the kernels.
    pub simd: String,
    /// Threads.
    pub threads: usize,
    /// Schemas that texts were made of.
    pub schemas: usize,
    /// Schemas that are refused.
    pub refused: usize,
    /// Tokens in all.
    pub tokens: usize,
    /// Milliseconds of a step without constraint, its token's choice included: median.
    pub step_ms: f64,
    /// Microseconds more that a token takes under a constraint: mean.
    pub extra_us: f64,
    /// The same: median.
    pub extra_us_p50: f64,
    /// The same: of 100 tokens, 99 take less.
    pub extra_us_p99: f64,
    /// The same: most.
    pub extra_us_most: f64,
    /// What a token takes more, as a share of a step without: mean of `extra_us` by `step_ms`.
    pub extra_share: f64,
    /// The largest such share of one schema.
    pub extra_share_worst: f64,
    /// By schema.
    pub by_schema: Vec<SchemaCost>,
}

/// The cost of one schema.
#[derive(Clone, Debug, Serialize)]
pub struct SchemaCost {
    /// Its place in the list, from 1.
    pub number: usize,
    /// Milliseconds to compile it, once.
    pub compile_ms: f64,
    /// Tokens of its text.
    pub tokens: usize,
    /// Microseconds more for a token: mean.
    pub extra_us: f64,
    /// As a share of a step.
    pub extra_share: f64,
}

/// Makes a text of at most `most` tokens under each schema, and measures.
///
/// # Errors
/// When the tokenizer is of a kind that constraints cannot use, or the model fails.
pub fn measure_constraints(
    engine: &Engine,
    tokenizer: &Tokenizer,
    schemas: &[Value],
    most: usize,
) -> Result<ConstraintMeasurement, EngineError> {
    let config = engine.config();
    let vocabulary = Vocabulary::new(tokenizer, config.vocab_size, &config.eos_token_id)?;
    let mut runner = Runner::new(engine);
    // The first steps touch every weight for the first time.
    one_text(&mut runner, None, most.min(8))?;
    let mut costs: Vec<(usize, Duration, Vec<Token>)> = Vec::new();
    for (number, schema) in (1..).zip(schemas) {
        let start = Instant::now();
        let compiled = vocabulary.compile(&ConstraintSpec::JsonSchema(schema.clone()));
        let compiling = start.elapsed();
        if let Ok(grammar) = compiled {
            costs.push((number, compiling, one_text(&mut runner, Some(&grammar), most)?));
        }
    }
    let tokens = || costs.iter().flat_map(|(.., tokens)| tokens);
    let step = Sorted::of(tokens().filter_map(|token| token.step)).at(0.5);
    let extra = Sorted::of(tokens().map(|token| token.extra));
    let by_schema: Vec<SchemaCost> = costs
        .iter()
        .map(|(number, compiling, tokens)| {
            let mean = Sorted::of(tokens.iter().map(|token| token.extra)).mean();
            SchemaCost {
                number: *number,
                compile_ms: compiling.as_secs_f64() * 1e3,
                tokens: tokens.len(),
                extra_us: mean * 1e6,
                extra_share: mean / step,
            }
        })
        .collect();
    Ok(ConstraintMeasurement {
        cpu: cpu_name(),
        simd: engine.isa().to_string(),
        threads: engine.pool().threads(),
        schemas: costs.len(),
        refused: schemas.len() - costs.len(),
        tokens: tokens().count(),
        step_ms: step * 1e3,
        extra_us: extra.mean() * 1e6,
        extra_us_p50: extra.at(0.5) * 1e6,
        extra_us_p99: extra.at(0.99) * 1e6,
        extra_us_most: extra.at(1.0) * 1e6,
        extra_share: extra.mean() / step,
        extra_share_worst: by_schema.iter().map(|s| s.extra_share).fold(0.0, f64::max),
        by_schema,
    })
}

/// Seconds of one token.
struct Token {
    /// The step without a constraint; none of the first token, which comes with the prompt.
    step: Option<f64>,
    /// What the constraint takes more.
    extra: f64,
}

fn one_text(
    runner: &mut Runner<'_>,
    grammar: Option<&Grammar>,
    most: usize,
) -> Result<Vec<Token>, EngineError> {
    let engine = runner.engine();
    let config = engine.config();
    let vocab = config.vocab_size;
    let most = most.min(config.max_position_embeddings.saturating_sub(DEPTH));
    let prompt = ids(engine, DEPTH, 1);
    let sampler = || Sampler::new(SamplingOptions { top_k: 0, ..SamplingOptions::default() }, 0, 0, vocab);
    let mut free = sampler();
    let mut continuation = Continuation::new(&prompt, most, &config.eos_token_id, sampler(), grammar);
    let mut sequence = runner.start();
    runner.prefill(&mut sequence, &prompt)?;
    let mut tokens = Vec::new();
    let mut step = None;
    let mut logits = vec![0.0; vocab];
    while continuation.finished.is_none() {
        logits.copy_from_slice(runner.logits_mut(0));
        let start = Instant::now();
        free.sample(&mut logits, &prompt);
        let without = start.elapsed().as_secs_f64();
        logits.copy_from_slice(runner.logits_mut(0));
        let start = Instant::now();
        let id = continuation.choose(&mut logits)?;
        let with = start.elapsed().as_secs_f64();
        tokens.push(Token { step: step.map(|step: f64| step + without), extra: with - without });
        if continuation.finished.is_none() {
            let start = Instant::now();
            runner.decode(&mut [&mut sequence], &[id])?;
            step = Some(start.elapsed().as_secs_f64());
        }
    }
    runner.finish(sequence);
    Ok(tokens)
}

struct Sorted(Vec<f64>);

impl Sorted {
    fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        Self(values)
    }

    fn mean(&self) -> f64 {
        self.0.iter().sum::<f64>() / self.0.len().max(1) as f64
    }

    /// The value below which `share` of all lie.
    fn at(&self, share: f64) -> f64 {
        let place = (self.0.len() as f64 * share) as usize;
        self.0.get(place.min(self.0.len().saturating_sub(1))).copied().unwrap_or(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{LoadOptions, ModelFiles, Pipeline};
    use serde_json::json;
    use std::path::Path;

    #[test]
    fn schemas_are_measured_and_those_that_are_refused_counted() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/tiny");
        let options = LoadOptions { dtype: None, threads: Some(1) };
        let pipeline = Pipeline::load(&ModelFiles::Directory(dir), &options, true).unwrap();
        let schemas = [json!({ "type": "boolean" }), json!({ "not": {} }), json!({ "minLength": 9 })];
        let measured =
            measure_constraints(&pipeline.engine, pipeline.tokenizer().unwrap(), &schemas, 20).unwrap();
        assert_eq!((measured.schemas, measured.refused), (2, 1));
        assert_eq!(measured.tokens, measured.by_schema.iter().map(|s| s.tokens).sum::<usize>());
        assert_eq!(measured.by_schema.iter().map(|s| s.number).collect::<Vec<_>>(), [1, 3]);
        assert!(measured.step_ms > 0.0 && measured.extra_us_most >= measured.extra_us_p50);
    }
}
