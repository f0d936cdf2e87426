//! Tasks in the form of lm-evaluation-harness, to the extent of its basics.
//!
//! A task is a YAML file with `task`, `dataset_path: json`, `dataset_kwargs: {data_files: …}` (a file, or files by split; JSON lines,
//! relative to the YAML), `test_split`, `fewshot_split`, `num_fewshot`, `output_type` (`multiple_choice`, `loglikelihood` or
//! `generate_until`), `doc_to_text`, `doc_to_target`, `doc_to_choice` (each the name of a field, a Jinja template, or for choices
//! a list), `target_delimiter`, `fewshot_delimiter`, `description`, `generation_kwargs: {until, max_gen_toks}`, `metric_list` (for
//! the options of `exact_match`). Keys and metrics that are not known are passed over, and named; a field that is not there is an
//! error. A target that is a number, or that a template makes of digits, is the number of a choice, and any other the text of one.
//! Examples of few shots are the first of their split (`sampler: first_n` there); of the split of the
//! questions, the first but for the question itself.
//!
//! A JSON lines file is a task by itself: lines with `query`, `choices` and `gold` (a number) are multiple choice, lines with `query`
//! and `target` are answered freely.
//!
//! - `acc`: the right choice has the greatest log-probability; `acc_norm`: divided by its length in characters;
//! - `acc` of `loglikelihood`: the target is what the model would say; `perplexity`: exp of its mean negative log-likelihood per
//!   example, as there;
//! - `exact_match`: the answer up to the first of `until` is the target, but for whitespace at the ends and for what the task says
//!   to ignore ([`Matching`]).

mod metrics;
mod read;

pub use metrics::Matching;
pub use read::read;

use crate::{
    EvalError, Watch,
    bootstrap::{Bootstrap, Estimate},
    data::DataFile,
    greedy::{GreedyOptions, greedy},
    markdown::{self, table, whole},
    subject::Subject,
};
use blackletter_engine::{GenerationOptions, Pipeline, generate, sampling::SamplingOptions};
use blackletter_tokenizer::SpecialTokens;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, ops::ControlFlow};

/// What is asked of the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutputType {
    /// One of several choices.
    MultipleChoice,
    /// How likely the target is.
    Loglikelihood,
    /// A text up to a mark.
    GenerateUntil,
}

/// A question, ready to be asked.
#[derive(Clone, Debug, PartialEq)]
pub struct Question {
    /// What stands before the answer.
    pub context: String,
    /// What is scored, or the right answer alone.
    pub continuations: Vec<String>,
    /// Which of them is right.
    pub gold: usize,
}

/// A task, ready to be asked.
#[derive(Clone, Debug, PartialEq)]
pub struct Task {
    /// Its name.
    pub name: String,
    /// What is asked.
    pub output_type: OutputType,
    /// The questions.
    pub questions: Vec<Question>,
    /// Marks that end an answer.
    pub until: Vec<String>,
    /// Most tokens of an answer.
    pub max_gen_toks: usize,
    /// How answers are compared.
    pub matching: Matching,
    /// Solved examples in front of each question.
    pub num_fewshot: usize,
    /// The files it was read from.
    pub files: Vec<DataFile>,
    /// Keys of its YAML, and metrics and their options, that are not known.
    pub unknown: Vec<String>,
}

/// A question with what the model made of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TaskAnswer {
    /// The task.
    pub task: String,
    /// The question's number, from 0.
    pub number: usize,
    /// What stood before the answer.
    pub context: String,
    /// The right answer.
    pub target: String,
    /// The chosen or generated answer.
    pub answer: String,
    /// Log-probabilities of the continuations in nats; empty for generated answers.
    pub logprobs: Vec<f64>,
    /// Values by metric.
    pub metrics: BTreeMap<&'static str, f64>,
}

/// The result of a task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskScore {
    /// Its name.
    pub task: String,
    /// What was asked.
    pub output_type: OutputType,
    /// Solved examples in front of each question.
    pub num_fewshot: usize,
    /// Questions.
    pub questions: u64,
    /// How answers were compared, where not all of them counts.
    #[serde(skip_serializing_if = "Matching::is_plain", default)]
    pub matching: Matching,
    /// By metric.
    pub metrics: BTreeMap<String, Estimate>,
    /// The files.
    pub files: Vec<DataFile>,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TasksResult {
    /// Always `tasks`.
    pub evaluation: String,
    /// The model.
    pub model: Subject,
    /// Whether `<|start|>` stood in front.
    pub start: bool,
    /// Whether it was stopped before its end.
    pub stopped: bool,
    /// By task.
    pub tasks: Vec<TaskScore>,
}

/// Asks all questions of all tasks.
///
/// # Errors
/// When the model cannot be run, or nothing was asked.
pub fn measure(
    pipeline: &Pipeline,
    model: Subject,
    tasks: &[Task],
    start: bool,
    bootstrap: Bootstrap,
    watch: Watch<'_>,
) -> Result<(TasksResult, Vec<TaskAnswer>), EvalError> {
    let total: usize = tasks.iter().map(|task| task.questions.len()).sum();
    let (mut all, mut scores, mut stopped) = (Vec::new(), Vec::new(), false);
    for task in tasks {
        let mut answers: Vec<TaskAnswer> = Vec::new();
        for (number, question) in task.questions.iter().enumerate() {
            (watch.progress)((all.len() + answers.len()) as u64, total as u64);
            if (watch.stop)() {
                stopped = true;
                break;
            }
            let mut answer = match task.output_type {
                OutputType::GenerateUntil => generated(pipeline, task, question, start)?,
                _ => chosen(pipeline, task, question, start)?,
            };
            answer.number = number;
            answers.push(answer);
        }
        if answers.is_empty() {
            continue;
        }
        let names: Vec<&'static str> =
            answers.first().map(|a| a.metrics.keys().copied().collect()).unwrap_or_default();
        let metrics = names.into_iter().map(|name| {
            let values: Vec<f64> = answers.iter().filter_map(|a| a.metrics.get(name).copied()).collect();
            let mean = bootstrap.mean(&values);
            // Mean negative log-likelihood becomes perplexity at the end.
            (name.to_owned(), if name == "perplexity" { mean.map(f64::exp) } else { mean })
        });
        scores.push(TaskScore {
            task: task.name.clone(),
            output_type: task.output_type,
            num_fewshot: task.num_fewshot,
            questions: answers.len() as u64,
            matching: task.matching,
            metrics: metrics.collect(),
            files: task.files.clone(),
        });
        all.extend(answers);
    }
    if all.is_empty() {
        return Err(EvalError::Nothing("no question was asked".into()));
    }
    Ok((TasksResult { evaluation: "tasks".into(), model, start, stopped, tasks: scores }, all))
}

/// Ids of a context and of what continues it: whitespace between goes to the continuation, and the two are encoded as one text.
fn encode(pipeline: &Pipeline, context: &str, continuation: &str) -> Result<(Vec<u32>, usize), EvalError> {
    let Some(tokenizer) = pipeline.tokenizer() else {
        return Err(EvalError::Nothing("tasks need a tokenizer, and the model has none".into()));
    };
    let kept = context.trim_end();
    let continuation = format!("{}{continuation}", context.get(kept.len()..).unwrap_or_default());
    let whole = tokenizer.encode(&format!("{kept}{continuation}"), SpecialTokens::AsText)?;
    let front = tokenizer.encode(kept, SpecialTokens::AsText)?.len();
    let back = whole.len().saturating_sub(front);
    Ok((whole, back))
}

fn chosen(
    pipeline: &Pipeline,
    task: &Task,
    question: &Question,
    start: bool,
) -> Result<TaskAnswer, EvalError> {
    let context_size = pipeline.engine.config().max_position_embeddings;
    let (mut logprobs, mut said) = (Vec::new(), false);
    for continuation in &question.continuations {
        let (mut ids, back) = encode(pipeline, &question.context, continuation)?;
        // The beginning goes where it does not fit, as in the harness.
        let room = context_size - usize::from(start);
        ids.drain(..ids.len().saturating_sub(room));
        // Without anything before it the first token is predicted from the start token, there and here.
        let alone = start || ids.len() <= back;
        said = task.output_type == OutputType::Loglikelihood && says(pipeline, &ids, back, alone)?;
        let report = pipeline.score_ids(ids, alone)?;
        let tail = report.token_logprobs.len().saturating_sub(back);
        logprobs.push(report.token_logprobs.iter().skip(tail).map(|&x| f64::from(x)).sum::<f64>());
    }
    let best = |scores: &[f64]| {
        let mut best = 0;
        for (at, score) in scores.iter().enumerate() {
            if scores.get(best).is_none_or(|b| score > b) {
                best = at;
            }
        }
        best
    };
    let truth = |right: bool| f64::from(u8::from(right));
    let mut metrics = BTreeMap::new();
    let mut answer = String::new();
    if task.output_type == OutputType::MultipleChoice {
        let chosen = best(&logprobs);
        let length = |text: &String| text.trim_start().chars().count().max(1) as f64;
        let normed: Vec<f64> =
            logprobs.iter().zip(&question.continuations).map(|(l, c)| l / length(c)).collect();
        metrics.insert("acc", truth(chosen == question.gold));
        metrics.insert("acc_norm", truth(best(&normed) == question.gold));
        answer = question.continuations.get(chosen).cloned().unwrap_or_default();
    } else {
        metrics.insert("acc", truth(said));
        metrics.insert("perplexity", -logprobs.iter().sum::<f64>());
    }
    Ok(TaskAnswer {
        task: task.name.clone(),
        number: 0,
        context: question.context.clone(),
        target: question.continuations.get(question.gold).cloned().unwrap_or_default(),
        answer,
        logprobs,
        metrics,
    })
}

/// Whether the last `back` of `ids` are what the model would say after those before; `alone` puts the start token in front.
fn says(pipeline: &Pipeline, ids: &[u32], back: usize, alone: bool) -> Result<bool, EvalError> {
    let (front, target) = ids.split_at(ids.len().saturating_sub(back));
    let mut prompt = Vec::new();
    if alone {
        prompt = pipeline.prompt(String::new(), SpecialTokens::AsText)?.ids;
    }
    prompt.extend_from_slice(front);
    let options = GreedyOptions { max_new_tokens: target.len(), batch: 1, end: &[] };
    let answers = greedy(&pipeline.engine, &[prompt], options, Watch::default())?;
    Ok(answers.into_iter().flatten().any(|answer| answer.ids == target))
}

fn generated(
    pipeline: &Pipeline,
    task: &Task,
    question: &Question,
    start: bool,
) -> Result<TaskAnswer, EvalError> {
    let mut prompt = pipeline.prompt(question.context.clone(), SpecialTokens::AsText)?;
    if start && !question.context.is_empty() {
        let first = pipeline.prompt(String::new(), SpecialTokens::AsText)?;
        prompt.ids.splice(0..0, first.ids);
    }
    let options = GenerationOptions {
        max_new_tokens: task.max_gen_toks,
        num_return_sequences: 1,
        sampling: SamplingOptions { greedy: true, ..SamplingOptions::default() },
        seed: 0,
        stop: task.until.clone(),
        eos_token_id: pipeline.eos_token_id(),
    };
    pipeline.truncate(&mut prompt, &options);
    let go = &mut |_, _| ControlFlow::Continue(());
    let made = generate(&pipeline.engine, pipeline.tokenizer(), &prompt.ids, &options, go)?;
    let ids = made.into_iter().next().map(|one| one.ids).unwrap_or_default();
    let mut answer = pipeline.tokenizer().map(|t| t.decode(&ids, true)).unwrap_or_default();
    if let Some(at) =
        task.until.iter().filter(|m| !m.is_empty()).filter_map(|mark| answer.find(mark.as_str())).min()
    {
        answer.truncate(at);
    }
    let target = question.continuations.first().cloned().unwrap_or_default();
    let right = task.matching.same(&answer, &target);
    Ok(TaskAnswer {
        task: task.name.clone(),
        number: 0,
        context: question.context.clone(),
        target,
        answer,
        logprobs: Vec::new(),
        metrics: BTreeMap::from([("exact_match", f64::from(u8::from(right)))]),
    })
}

impl TasksResult {
    /// The result for people.
    pub fn to_markdown(&self) -> String {
        let mut rows = Vec::new();
        for task in &self.tasks {
            for (metric, e) in &task.metrics {
                rows.push(vec![
                    task.task.clone(),
                    whole(task.questions),
                    task.num_fewshot.to_string(),
                    if metric == "exact_match" && !task.matching.is_plain() {
                        format!("{metric}, ignoring {}", task.matching.ignored())
                    } else {
                        metric.clone()
                    },
                    markdown::estimate(e, 3),
                ]);
            }
        }
        let stopped = if self.stopped { "\nStopped before its end.\n" } else { "" };
        format!(
            "## Tasks: {}\n\n{}{stopped}",
            markdown::text(&self.model.title()),
            table(&["task", "questions", "shots", "metric", "value"], &rows)
        )
    }
}
