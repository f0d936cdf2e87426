//! `blackletter eval toxicity`

use super::{ResultOptions, Unit, load, watched};
use crate::{
    commands::{model::ModelOptions, text::read_text},
    failure::Failure,
};
use blackletter_evals::{
    bootstrap::Bootstrap,
    toxicity::{self, ToxicitySettings, judge::Judge, lexicon::Lexicon, prompts::Prompts},
};
use std::{env, path::PathBuf};

/// Measure what a model says when it is invited to say what it should not
///
/// Completes prompts three times at temperature 0.5 and scores the completions: by a list of bad words always, by a judge (any
/// server with OpenAI's chat completions) where one is named, three times each, from 0 to 10. BLACKLETTER_JUDGE_KEY is sent to it
/// as a key. Completions that --out writes hold what the model said, which may be offensive.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "EXAMPLE:\n  blackletter eval toxicity --model ./nano --experiment 3 --judge http://localhost:8000/v1 --judge-model big --out evals/"
)]
pub struct Args {
    /// 1: ordinary prompts (20); 2: hostile prompts made by rules, with random casing (500); 3: prompts about protected classes
    /// (50), judged for bias, too.
    #[arg(long, value_name = "1|2|3", value_parser = clap::value_parser!(u8).range(1..=3))]
    experiment: u8,
    /// Prompts to use in place of the experiment's own, one a line.
    #[arg(long, value_name = "FILE")]
    prompts: Option<PathBuf>,
    /// Use only the first N prompts.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
    /// Where the judge is, such as http://localhost:8000/v1.
    #[arg(long, value_name = "URL", requires = "judge_model")]
    judge: Option<String>,
    /// The judge's name there.
    #[arg(long, value_name = "NAME", requires = "judge")]
    judge_model: Option<String>,
    /// Bad words to look for in place of the built-in list, one a line, each a single word.
    #[arg(long, value_name = "FILE")]
    lexicon: Option<PathBuf>,
    /// Completions of each prompt.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=1024))]
    completions: u16,
    /// Judgements of each completion.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=100))]
    judgements: u16,
    /// Temperature of completions.
    #[arg(long, value_name = "T", default_value_t = 0.5)]
    temperature: f32,
    /// Most new tokens of a completion.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    max_new_tokens: u32,
    /// What makes prompts and completions repeatable.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    model: ModelOptions,
    #[command(flatten)]
    result: ResultOptions,
}

impl Args {
    pub fn run(self) -> Result<(), Failure> {
        if !(self.temperature.is_finite() && self.temperature > 0.0) {
            return Err(Failure::usage("--temperature must be above 0"));
        }
        let mut prompts = match &self.prompts {
            Some(path) => Prompts::parse(path, &read_text(path)?)?,
            None => Prompts::of_experiment(self.experiment, self.seed),
        };
        prompts.truncate(self.limit.map_or(usize::MAX, |n| n as usize));
        let lexicon = match &self.lexicon {
            Some(path) => Lexicon::parse(path, &read_text(path)?)?,
            None => Lexicon::default(),
        };
        let judge = match (&self.judge, &self.judge_model) {
            (Some(url), Some(name)) => Some(Judge::new(url, name, env::var("BLACKLETTER_JUDGE_KEY").ok())?),
            _ => None,
        };
        let settings = ToxicitySettings {
            experiment: self.experiment,
            prompts: prompts.len(),
            completions: usize::from(self.completions),
            max_new_tokens: self.max_new_tokens as usize,
            temperature: self.temperature,
            judgements: usize::from(self.judgements),
            judge: self.judge_model.clone(),
            seed: self.seed,
            bootstrap: Bootstrap::default(),
        };
        let name = format!("toxicity-{}", self.experiment);
        let (pipeline, subject) = load(&self.model, &self.result)?;
        let (result, completions) = watched(Unit::Things, |watch| {
            toxicity::measure(&pipeline, subject, &prompts, &lexicon, judge, settings, watch)
        })?;
        if let Some(refusals) = &result.refusals {
            eprintln!(
                "note: the judge refused {} of its judgements, which are left out; the last with: {}",
                refusals.judgements, refusals.last
            );
        }
        let (csv, csv_name) = (toxicity::to_csv(&completions), format!("{name}.csv"));
        let others = [(csv_name.as_str(), csv.as_str())];
        let finished = self.result.finish_with(&name, &result, &result.to_markdown(), &completions, &others);
        match (finished, result.failure) {
            // What there is has been printed and written, and it is not all.
            (Ok(()) | Err(Failure::OutputClosed), Some(failure)) => Err(Failure::failed(failure)),
            (finished, _) => finished,
        }
    }
}
