//! Tasks in the form of lm-evaluation-harness, to the extent of its basics.
//!
//! A task is a YAML file with `task`, `dataset_path: json`, `dataset_kwargs: {data_files: …}` (a file, or files by split; JSON lines,
//! relative to the YAML), `test_split`, `fewshot_split`, `num_fewshot`, `output_type` (`multiple_choice`, `loglikelihood` or
//! `generate_until`), `doc_to_text`, `doc_to_target`, `doc_to_choice` (each the name of a field, a Jinja template, or for choices
//! a list), `target_delimiter`, `fewshot_delimiter`, `description`, `generation_kwargs: {until, max_gen_toks}`. Keys that are not known
//! are passed over, and named. Examples of few shots are the first of their split (`sampler: first_n` there); of the split of the
//! questions, the first but for the question itself.
//!
//! A JSON lines file is a task by itself: lines with `query`, `choices` and `gold` (a number) are multiple choice, lines with `query`
//! and `target` are answered freely.
//!
//! - `acc`: the right choice has the greatest log-probability; `acc_norm`: divided by its length in characters;
//! - `acc` of `loglikelihood`: the target is what the model would say; `perplexity`: exp of its mean negative log-likelihood per
//!   example, as there;
//! - `exact_match`: the answer up to the first of `until` is the target, but for whitespace at the ends.

use crate::{
    EvalError, Watch,
    bootstrap::{Bootstrap, Estimate},
    data::DataFile,
    greedy::{GreedyOptions, greedy},
    markdown::{self, table, whole},
    subject::Subject,
};
use blackletter_engine::{GenerationOptions, Pipeline, generate, sampling::SamplingOptions};
use blackletter_provenance::hash;
use blackletter_tokenizer::SpecialTokens;
use minijinja::Environment;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::{
    collections::BTreeMap,
    fs,
    ops::ControlFlow,
    path::{Path, PathBuf},
};

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

#[derive(Deserialize)]
struct Yaml {
    task: String,
    #[serde(default)]
    dataset_kwargs: Map<String, Value>,
    #[serde(default = "test")]
    test_split: String,
    fewshot_split: Option<String>,
    #[serde(default)]
    num_fewshot: usize,
    #[serde(default = "generate_until")]
    output_type: OutputType,
    doc_to_text: String,
    doc_to_target: Value,
    doc_to_choice: Option<Value>,
    #[serde(default = "space")]
    target_delimiter: String,
    #[serde(default = "blank_line")]
    fewshot_delimiter: String,
    #[serde(default)]
    description: String,
    #[serde(default)]
    generation_kwargs: Map<String, Value>,
    #[serde(flatten)]
    other: BTreeMap<String, Value>,
}

fn test() -> String {
    "test".into()
}

fn generate_until() -> OutputType {
    OutputType::GenerateUntil
}

fn space() -> String {
    " ".into()
}

fn blank_line() -> String {
    "\n\n".into()
}

/// Keys that are understood to make no difference here.
const WITHOUT_EFFECT: [&str; 8] = [
    "dataset_path",
    "dataset_name",
    "metric_list",
    "metadata",
    "tag",
    "training_split",
    "validation_split",
    "fewshot_config",
];

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
    /// Solved examples in front of each question.
    pub num_fewshot: usize,
    /// The files it was read from.
    pub files: Vec<DataFile>,
    /// Keys of its YAML that are not known.
    pub unknown: Vec<String>,
}

/// Reads a task from YAML (`.yaml`, `.yml`) or JSON lines.
///
/// # Errors
/// When a file cannot be read, or a template not be filled in.
pub fn read(path: &Path, limit: Option<usize>) -> Result<Task, EvalError> {
    let mut files = Vec::new();
    let is_yaml = path.extension().is_some_and(|e| e == "yaml" || e == "yml");
    let mut task =
        if is_yaml { of_yaml(path, limit, &mut files)? } else { of_lines(path, limit, &mut files)? };
    task.files = files;
    if task.questions.is_empty() {
        return Err(EvalError::Nothing(format!("{} has no question", path.display())));
    }
    Ok(task)
}

fn load(path: &Path, files: &mut Vec<DataFile>) -> Result<Vec<u8>, EvalError> {
    let bytes = fs::read(path).map_err(EvalError::file("read", path))?;
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    files.push(DataFile { name, bytes: bytes.len() as u64, blake3: hash::hex(&bytes) });
    Ok(bytes)
}

fn documents(path: &Path, files: &mut Vec<DataFile>) -> Result<Vec<Map<String, Value>>, EvalError> {
    let bytes = load(path, files)?;
    let lines = (1..).zip(bytes.split(|&b| b == b'\n')).filter(|(_, line)| !line.trim_ascii().is_empty());
    lines
        .map(|(line, text)| {
            let wrong =
                |e: serde_json::Error| EvalError::Line { path: path.into(), line, reason: e.to_string() };
            serde_json::from_slice(text).map_err(wrong)
        })
        .collect()
}

/// Fills templates in.
struct Templates<'t> {
    environment: Environment<'t>,
    path: &'t Path,
}

impl Templates<'_> {
    fn wrong(&self, reason: String) -> EvalError {
        EvalError::Line { path: self.path.into(), line: 1, reason }
    }

    /// A field's value, or what the template comes to.
    fn text(&self, template: &str, document: &Map<String, Value>) -> Result<String, EvalError> {
        if let Some(value) = document.get(template) {
            return Ok(value.as_str().map_or_else(|| value.to_string(), str::to_owned));
        }
        self.environment
            .render_str(template, minijinja::value::Serde(document))
            .map_err(|e| self.wrong(format!("{template:?}: {e}")))
    }

    fn choices(&self, how: &Value, document: &Map<String, Value>) -> Result<Vec<String>, EvalError> {
        let texts = |list: &[Value]| -> Vec<String> {
            list.iter().map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned)).collect()
        };
        match how {
            Value::Array(list) => {
                list.iter().map(|v| self.text(v.as_str().unwrap_or_default(), document)).collect()
            }
            Value::String(name) => {
                if let Some(Value::Array(list)) = document.get(name) {
                    return Ok(texts(list));
                }
                // `{{choices}}` stands for a list, not for its text.
                let expression = name.trim().trim_start_matches("{{").trim_end_matches("}}");
                let compiled = self.environment.compile_expression(expression);
                let value = compiled
                    .and_then(|e| e.eval(minijinja::value::Serde(document)))
                    .map_err(|e| self.wrong(format!("{name:?}: {e}")))?;
                let value = serde_json::to_value(&value)?;
                let list =
                    value.as_array().ok_or_else(|| self.wrong(format!("{name:?} is no list of choices")))?;
                Ok(texts(list))
            }
            other => {
                Err(self
                    .wrong(format!("doc_to_choice is {other}, and should be a field, a template or a list")))
            }
        }
    }

    fn target(&self, how: &Value, document: &Map<String, Value>) -> Result<String, EvalError> {
        match how {
            Value::String(template) => self.text(template, document),
            other => Ok(other.to_string()),
        }
    }
}

fn of_yaml(path: &Path, limit: Option<usize>, files: &mut Vec<DataFile>) -> Result<Task, EvalError> {
    let bytes = load(path, files)?;
    let wrong = |reason: String| EvalError::Line { path: path.into(), line: 1, reason };
    let text = String::from_utf8(bytes).map_err(|e| wrong(e.to_string()))?;
    let yaml: Yaml = serde_saphyr::from_str(&text).map_err(|e| wrong(format!("no task: {e}")))?;
    let base = path.parent().unwrap_or(Path::new("."));
    let data = yaml.dataset_kwargs.get("data_files");
    let of_split = |split: &str| -> Result<PathBuf, EvalError> {
        let name = match data {
            Some(Value::String(name)) => Some(name.as_str()),
            Some(Value::Object(splits)) => splits.get(split).and_then(Value::as_str),
            _ => None,
        };
        let name = name.ok_or_else(|| {
            wrong(format!("dataset_kwargs.data_files names no file for the split `{split}`"))
        })?;
        Ok(base.join(name))
    };
    let templates = Templates { environment: Environment::new(), path };
    let mut shots: Vec<String> = Vec::new();
    let choices_of = |document: &Map<String, Value>| match &yaml.doc_to_choice {
        Some(how) => templates.choices(how, document),
        None => Ok(Vec::new()),
    };
    // The number of the right choice, whether the target is its number or its text.
    let gold_of = |target: &str, choices: &[String]| {
        let number = target.trim().parse::<usize>().ok().filter(|&n| n < choices.len());
        let found = choices.iter().position(|choice| choice == target).or(number);
        found.ok_or_else(|| wrong(format!("the target {target:?} is none of the choices {choices:?}")))
    };
    let shots_split = yaml.fewshot_split.as_deref().unwrap_or(&yaml.test_split);
    // No question is shown its own answer: of the questions' own split, one more example is read.
    let own = shots_split == yaml.test_split;
    if yaml.num_fewshot > 0 {
        let most = yaml.num_fewshot + usize::from(own);
        for document in documents(&of_split(shots_split)?, files)?.iter().take(most) {
            let mut target = templates.target(&yaml.doc_to_target, document)?;
            let choices = choices_of(document)?;
            if !choices.is_empty() {
                target = choices.get(gold_of(&target, &choices)?).cloned().unwrap_or_default();
            }
            let text = templates.text(&yaml.doc_to_text, document)?;
            shots.push(format!("{text}{}{target}{}", yaml.target_delimiter, yaml.fewshot_delimiter));
        }
    }
    let mut questions = Vec::new();
    let limit = limit.unwrap_or(usize::MAX);
    for (number, document) in documents(&of_split(&yaml.test_split)?, files)?.iter().take(limit).enumerate() {
        let shown = shots.iter().enumerate().filter(|(at, _)| !own || *at != number).take(yaml.num_fewshot);
        let mut context = yaml.description.clone();
        context.extend(shown.map(|(_, shot)| shot.as_str()));
        context.push_str(&templates.text(&yaml.doc_to_text, document)?);
        let target = templates.target(&yaml.doc_to_target, document)?;
        let delimited = |text: &String| format!("{}{text}", yaml.target_delimiter);
        let (continuations, gold) = match yaml.output_type {
            OutputType::MultipleChoice => {
                let choices = choices_of(document)?;
                let gold = gold_of(&target, &choices)?;
                (choices.iter().map(delimited).collect(), gold)
            }
            OutputType::Loglikelihood => (vec![delimited(&target)], 0),
            OutputType::GenerateUntil => (vec![target], 0),
        };
        questions.push(Question { context, continuations, gold });
    }
    let until = match yaml.generation_kwargs.get("until") {
        Some(Value::String(mark)) => vec![mark.clone()],
        Some(Value::Array(marks)) => marks.iter().filter_map(|m| Some(m.as_str()?.to_owned())).collect(),
        _ => vec![yaml.fewshot_delimiter.clone()],
    };
    let most = yaml.generation_kwargs.get("max_gen_toks").and_then(Value::as_u64).unwrap_or(256);
    let unknown = yaml.other.into_keys().filter(|key| !WITHOUT_EFFECT.contains(&key.as_str())).collect();
    Ok(Task {
        name: yaml.task,
        output_type: yaml.output_type,
        questions,
        until,
        max_gen_toks: most as usize,
        num_fewshot: yaml.num_fewshot,
        files: Vec::new(),
        unknown,
    })
}

#[derive(Deserialize)]
struct Line {
    query: String,
    choices: Option<Vec<String>>,
    gold: Option<usize>,
    target: Option<String>,
}

fn of_lines(path: &Path, limit: Option<usize>, files: &mut Vec<DataFile>) -> Result<Task, EvalError> {
    let mut questions = Vec::new();
    let mut kind = None;
    for (number, document) in (1..).zip(documents(path, files)?) {
        let wrong = |reason: String| EvalError::Line { path: path.into(), line: number, reason };
        let line: Line = serde_json::from_value(Value::Object(document)).map_err(|e| wrong(e.to_string()))?;
        let (own, continuations, gold) = match (line.choices, line.gold, line.target) {
            (Some(choices), Some(gold), None) if gold < choices.len() => {
                (OutputType::MultipleChoice, choices, gold)
            }
            (None, None, Some(target)) => (OutputType::GenerateUntil, vec![target], 0),
            _ => {
                return Err(wrong(
                    "a line has `choices` and `gold`, a number of one of them, or `target`".into(),
                ));
            }
        };
        if kind.is_some_and(|kind| kind != own) {
            return Err(wrong("the lines of one file have all `choices` or all `target`".into()));
        }
        kind = Some(own);
        questions.push(Question { context: line.query, continuations, gold });
    }
    questions.truncate(limit.unwrap_or(usize::MAX));
    Ok(Task {
        name: path.file_stem().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default(),
        output_type: kind.unwrap_or(OutputType::GenerateUntil),
        questions,
        until: vec!["\n".into()],
        max_gen_toks: 256,
        num_fewshot: 0,
        files: Vec::new(),
        unknown: Vec::new(),
    })
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
    let right = answer.trim() == target.trim();
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
                    metric.clone(),
                    markdown::estimate(e, 3),
                ]);
            }
        }
        let stopped = if self.stopped { "\nStopped before its end.\n" } else { "" };
        format!(
            "## Tasks: {}\n\n{}{stopped}",
            self.model.name,
            table(&["task", "questions", "shots", "metric", "value"], &rows)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const YAML: &str = "task: colours
dataset_path: json
dataset_kwargs:
  data_files:
    test: q.jsonl
    train: shots.jsonl
fewshot_split: train
num_fewshot: 1
output_type: multiple_choice
doc_to_text: \"Q: {{question | trim}}\\nA:\"
doc_to_choice: choices
doc_to_target: \"{{answer}}\"
metric_list:
  - metric: acc
process_docs: nothing
";

    #[test]
    fn a_yaml_task_is_filled_in_with_its_shots() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("t.yaml"), YAML).unwrap();
        fs::write(at("q.jsonl"), "{\"question\":\" Sky?\",\"choices\":[\"red\",\"blue\"],\"answer\":1}\n")
            .unwrap();
        fs::write(
            at("shots.jsonl"),
            "{\"question\":\"Grass?\",\"choices\":[\"green\",\"blue\"],\"answer\":\"green\"}\n",
        )
        .unwrap();
        let task = read(&at("t.yaml"), None).unwrap();
        let expected = Question {
            context: "Q: Grass?\nA: green\n\nQ: Sky?\nA:".into(),
            continuations: vec![" red".into(), " blue".into()],
            gold: 1,
        };
        assert_eq!(task.questions, [expected]);
        assert_eq!((task.name.as_str(), task.unknown), ("colours", vec!["process_docs".to_owned()]));
        fs::write(
            at("t.yaml"),
            YAML.replace("doc_to_choice: choices", "doc_to_choice: \"{{[choices[0], 'b']}}\""),
        )
        .unwrap();
        assert_eq!(read(&at("t.yaml"), None).unwrap().questions[0].continuations, [" red", " b"]);
        // Without a split of their own, shots are the other questions: here there is none.
        fs::write(at("t.yaml"), YAML.replace("fewshot_split: train\n", "")).unwrap();
        assert_eq!(read(&at("t.yaml"), None).unwrap().questions[0].context, "Q: Sky?\nA:");
    }

    #[test]
    fn lines_alone_are_a_task() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("own.jsonl");
        fs::write(&path, "{\"query\":\"1+1=\",\"target\":\"2\"}\n{\"query\":\"x\",\"target\":\"y\"}")
            .unwrap();
        let task = read(&path, Some(1)).unwrap();
        assert_eq!(
            (task.name.as_str(), task.output_type, task.questions.len()),
            ("own", OutputType::GenerateUntil, 1)
        );
        fs::write(&path, "{\"query\":\"x\",\"choices\":[\"a\"],\"gold\":1}").unwrap();
        assert!(read(&path, None).unwrap_err().to_string().contains("line 1"));
    }
}
