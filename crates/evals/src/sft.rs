//! How often a model answers examples of tasks right.
//!
//! Examples are the JSON lines that models are fine-tuned on ([`blackletter_dataset::example`]). The prompt is made by the project's one template ([`blackletter_tokenizer::template`]), the answer is the most likely one, and ends with
//! `<|end|>` or with the most new tokens. Of each kind are reported
//!
//! - **exact match**: the answer is the output, but for whitespace at the ends; in kinds whose outputs are JSON, the same value,
//!   in whatever order its keys stand;
//! - **F1**: in kinds of JSON, of the fields with their values over all examples (each place in the value, such as
//!   `party.name`, with what stands there; places in a list do not count their order); otherwise the mean over examples of
//!   the F1 of words, lower-case and without punctuation (as for SQuAD; Rajpurkar et al. 2016).

use crate::{
    EvalError, Watch,
    bootstrap::{Bootstrap, Estimate},
    data::DataFile,
    greedy::{GreedyOptions, greedy},
    markdown::{self, table, whole},
    subject::Subject,
};
use blackletter_dataset::example as dataset;
use blackletter_engine::Pipeline;
use blackletter_tokenizer::template::{self, Message, Special, TemplateError};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// An example of a task.
#[derive(Clone, Debug, PartialEq)]
pub struct Example {
    /// The task.
    pub kind: String,
    /// What is said up to the answer.
    pub messages: Vec<Message>,
    /// The right answer.
    pub output: String,
}

/// How examples are answered.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct SftSettings {
    /// Most new tokens of an answer.
    pub max_new_tokens: usize,
    /// Examples of each kind, the first ones; none for all.
    pub limit: Option<usize>,
    /// Intervals.
    pub bootstrap: Bootstrap,
}

/// An example and what the model made of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answered {
    /// The task.
    pub kind: String,
    /// Place of the example among those that were asked, from 0.
    pub number: usize,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// The right answer.
    pub output: String,
    /// The model's.
    pub answer: String,
    /// Whether it ended its answer itself.
    pub ended: bool,
    /// Whether the prompt fills the context, so that there was no room for an answer.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub too_long: bool,
    /// Whether it is right.
    pub exact: bool,
    /// F1 of this answer alone.
    pub f1: f64,
    /// In kinds of JSON: whether the answer is JSON.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub json: Option<bool>,
    /// Fields that are right, that were answered, that should be: what F1 over examples is made of.
    #[serde(skip)]
    counts: [u32; 3],
}

/// How well a field of JSON is answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FieldScore {
    /// Its key at the outermost level.
    pub field: String,
    /// Examples that have it.
    pub examples: u64,
    /// The share in which the whole value is right.
    pub exact: f64,
    /// F1 of what is in it.
    pub f1: f64,
}

/// How well a kind is answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KindScore {
    /// The kind.
    pub kind: String,
    /// Examples.
    pub examples: u64,
    /// The share of right answers.
    pub exact: Estimate,
    /// F1.
    pub f1: Estimate,
    /// The share of answers that the model ended itself.
    pub ended: f64,
    /// In kinds of JSON: the share of answers that are JSON.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub valid_json: Option<f64>,
    /// In kinds of JSON: by field.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub fields: Vec<FieldScore>,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SftResult {
    /// Always `sft`.
    pub evaluation: String,
    /// The model.
    pub model: Subject,
    /// How it was measured.
    pub settings: SftSettings,
    /// The data.
    pub data: Vec<DataFile>,
    /// Whether it was stopped before all examples were answered.
    pub stopped: bool,
    /// Examples whose prompts fill the context: they could not be answered, and count as any other answer that is not right.
    #[serde(default)]
    pub too_long: u64,
    /// By kind, in the order of the data.
    pub kinds: Vec<KindScore>,
    /// The share of right answers in all.
    pub exact: Estimate,
    /// Mean of the kinds' F1.
    pub mean_f1: f64,
}

/// Reads examples from JSON lines.
///
/// # Errors
/// When a file cannot be read, or a line is no example.
pub fn read(paths: &[PathBuf], limit: Option<usize>) -> Result<(Vec<Example>, Vec<DataFile>), EvalError> {
    let (mut examples, mut files) = (Vec::new(), Vec::new());
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    for path in paths {
        let bytes = fs::read(path).map_err(EvalError::file("read", path))?;
        files.push(DataFile::of(path, &bytes));
        for (number, line) in (1..).zip(bytes.split(|&b| b == b'\n')) {
            if line.trim_ascii().is_empty() {
                continue;
            }
            let example = example(path, number, line)?;
            let n = kinds.entry(example.kind.clone()).or_default();
            *n += 1;
            if limit.is_none_or(|limit| *n <= limit) {
                examples.push(example);
            }
        }
    }
    if examples.is_empty() {
        return Err(EvalError::Nothing("there is no example in the files".into()));
    }
    Ok((examples, files))
}

fn example(path: &Path, number: usize, line: &[u8]) -> Result<Example, EvalError> {
    let wrong = |reason: String| EvalError::Line { path: path.into(), line: number, reason };
    let mut read = dataset::Example::parse(line).map_err(|e| wrong(e.to_string()))?;
    let output = read.messages.pop().map(|answer| answer.content).unwrap_or_default();
    Ok(Example { kind: read.kind, messages: read.messages, output })
}

/// Answers the examples and compares.
///
/// # Errors
/// When the model cannot be run, lacks the template's special tokens, or nothing was answered before it was stopped.
pub fn measure(
    pipeline: &Pipeline,
    model: Subject,
    (examples, data): (&[Example], Vec<DataFile>),
    settings: SftSettings,
    batch: usize,
    watch: Watch<'_>,
) -> Result<(SftResult, Vec<Answered>), EvalError> {
    let Some(tokenizer) = pipeline.tokenizer() else {
        return Err(EvalError::Nothing("examples need a tokenizer, and the model has none".into()));
    };
    let special = Special::of(tokenizer)?;
    let prompts: Vec<Vec<u32>> = examples
        .iter()
        .map(|example| template::prompt(tokenizer, special, &example.messages))
        .collect::<Result<_, TemplateError>>()?;
    let end = [special.end];
    let options = GreedyOptions { max_new_tokens: settings.max_new_tokens, batch, end: &end };
    let answers = greedy(&pipeline.engine, &prompts, options, watch)?;
    let stopped = answers.iter().any(Option::is_none);
    let context = pipeline.engine.config().max_position_embeddings;
    let kinds_of_json = kinds_of_json(examples);
    let answered: Vec<Answered> = examples
        .iter()
        .zip(&prompts)
        .zip(answers)
        .enumerate()
        .filter_map(|(number, ((example, prompt), answer))| {
            let answer = answer?;
            let text = tokenizer.decode(&answer.ids, true);
            let json = kinds_of_json.contains(&example.kind.as_str());
            let judged = judge(&example.output, &text, json);
            Some(Answered {
                kind: example.kind.clone(),
                number,
                prompt_tokens: prompt.len(),
                output: example.output.clone(),
                answer: text,
                ended: answer.ended,
                too_long: prompt.len() >= context,
                exact: judged.exact,
                f1: f1(judged.counts),
                json: judged.json,
                counts: judged.counts,
            })
        })
        .collect();
    if answered.is_empty() {
        return Err(EvalError::Nothing("no example was answered".into()));
    }
    Ok((summarise(model, settings, data, stopped, &answered), answered))
}

/// The kinds all of whose outputs are JSON objects or lists.
fn kinds_of_json(examples: &[Example]) -> Vec<&str> {
    let mut kinds: BTreeMap<&str, bool> = BTreeMap::new();
    for example in examples {
        let json = structured(&example.output).is_some();
        kinds.entry(&example.kind).and_modify(|all| *all &= json).or_insert(json);
    }
    kinds.into_iter().filter(|(_, json)| *json).map(|(kind, _)| kind).collect()
}

fn structured(text: &str) -> Option<Value> {
    serde_json::from_str(text.trim()).ok().filter(|v: &Value| v.is_object() || v.is_array())
}

struct Judged {
    exact: bool,
    json: Option<bool>,
    counts: [u32; 3],
}

fn judge(output: &str, answer: &str, json: bool) -> Judged {
    if !json {
        let exact = output.trim() == answer.trim();
        return Judged { exact, json: None, counts: overlap(words(answer), words(output)) };
    }
    let (right, given) = (structured(output), structured(answer));
    let counts = overlap(leaves(given.as_ref()), leaves(right.as_ref()));
    Judged { exact: given.is_some() && right == given, json: Some(given.is_some()), counts }
}

/// Lower-case words without punctuation.
fn words(text: &str) -> Vec<String> {
    text.split(|c: char| !c.is_alphanumeric()).filter(|w| !w.is_empty()).map(str::to_lowercase).collect()
}

/// Every place of a value with what stands there; an empty object or list stands for itself.
fn leaves(value: Option<&Value>) -> Vec<String> {
    fn walk(value: &Value, path: &str, out: &mut Vec<String>) {
        match value {
            Value::Object(fields) if !fields.is_empty() => {
                fields.iter().for_each(|(key, value)| walk(value, &format!("{path}.{key}"), out));
            }
            Value::Array(items) if !items.is_empty() => {
                items.iter().for_each(|value| walk(value, &format!("{path}[]"), out));
            }
            Value::String(text) => out.push(format!("{path}={:?}", text.trim())),
            other => out.push(format!("{path}={other}")),
        }
    }
    let mut out = Vec::new();
    if let Some(value) = value {
        walk(value, "", &mut out);
    }
    out
}

/// How many of two bags of things are in both, in the first and in the second.
fn overlap(given: Vec<String>, right: Vec<String>) -> [u32; 3] {
    let (a, b) = (given.len() as u32, right.len() as u32);
    let mut left: BTreeMap<String, u32> = BTreeMap::new();
    right.into_iter().for_each(|thing| *left.entry(thing).or_default() += 1);
    let both = given.into_iter().filter(|thing| match left.get_mut(thing) {
        Some(n) if *n > 0 => {
            *n -= 1;
            true
        }
        _ => false,
    });
    [both.count() as u32, a, b]
}

/// Harmonic mean of precision and recall; 1 when nothing was to be said and nothing was.
fn f1([both, given, right]: [u32; 3]) -> f64 {
    if given + right == 0 { 1.0 } else { 2.0 * f64::from(both) / f64::from(given + right) }
}

fn summarise(
    model: Subject,
    settings: SftSettings,
    data: Vec<DataFile>,
    stopped: bool,
    answered: &[Answered],
) -> SftResult {
    let mut kinds: Vec<(&str, Vec<&Answered>)> = Vec::new();
    for one in answered {
        match kinds.iter_mut().find(|(kind, _)| *kind == one.kind) {
            Some((_, all)) => all.push(one),
            None => kinds.push((&one.kind, vec![one])),
        }
    }
    let share = |all: &[&Answered], of: fn(&Answered) -> bool| {
        all.iter().filter(|one| of(one)).count() as f64 / all.len() as f64
    };
    let scores: Vec<KindScore> = kinds
        .iter()
        .map(|(kind, all)| {
            let json = all.iter().all(|one| one.json.is_some());
            let statistics = |weights: &[Vec<u32>]| {
                let drawn = weights.first().map(Vec::as_slice).unwrap_or_default();
                let (mut n, mut exact, mut mean, mut counts) = (0.0, 0.0, 0.0, [0; 3]);
                for (one, &times) in all.iter().zip(drawn) {
                    n += f64::from(times);
                    exact += f64::from(times * u32::from(one.exact));
                    mean += f64::from(times) * one.f1;
                    counts.iter_mut().zip(one.counts).for_each(|(sum, count)| *sum += times * count);
                }
                vec![exact / n, if json { f1(counts) } else { mean / n }]
            };
            let estimates = settings.bootstrap.estimates(&[all.len()], statistics);
            KindScore {
                kind: (*kind).into(),
                examples: all.len() as u64,
                exact: estimates.first().copied().unwrap_or_default(),
                f1: estimates.get(1).copied().unwrap_or_default(),
                ended: share(all, |one| one.ended),
                valid_json: json.then(|| share(all, |one| one.json == Some(true))),
                fields: if json { fields(all) } else { Vec::new() },
            }
        })
        .collect();
    let exact: Vec<f64> = answered.iter().map(|one| f64::from(u8::from(one.exact))).collect();
    SftResult {
        evaluation: "sft".into(),
        model,
        settings,
        data,
        stopped,
        too_long: answered.iter().filter(|one| one.too_long).count() as u64,
        exact: settings.bootstrap.mean(&exact),
        mean_f1: scores.iter().map(|k| k.f1.value).sum::<f64>() / scores.len() as f64,
        kinds: scores,
    }
}

fn fields(all: &[&Answered]) -> Vec<FieldScore> {
    let mut sums: BTreeMap<String, (u64, u64, [u32; 3])> = BTreeMap::new();
    for one in all {
        let Some(Value::Object(right)) = structured(&one.output) else { continue };
        let given = structured(&one.answer);
        for (key, value) in &right {
            let given = given.as_ref().and_then(|given| given.get(key));
            let sum = sums.entry(key.clone()).or_default();
            sum.0 += 1;
            sum.1 += u64::from(given == Some(value));
            let counts = overlap(leaves(given), leaves(Some(value)));
            sum.2.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
        }
    }
    sums.into_iter()
        .map(|(field, (examples, exact, counts))| FieldScore {
            field,
            examples,
            exact: exact as f64 / examples as f64,
            f1: f1(counts),
        })
        .collect()
}

impl SftResult {
    /// The result for people.
    pub fn to_markdown(&self) -> String {
        let percent = |e: &Estimate| markdown::estimate(&e.map(|x| 100.0 * x), 1);
        let mut rows: Vec<Vec<String>> = self
            .kinds
            .iter()
            .map(|k| {
                let json = k.valid_json.map(|share| format!("{:.1}", 100.0 * share)).unwrap_or_default();
                let ended = format!("{:.1}", 100.0 * k.ended);
                vec![k.kind.clone(), whole(k.examples), percent(&k.exact), percent(&k.f1), json, ended]
            })
            .collect();
        if rows.len() > 1 {
            let examples = self.kinds.iter().map(|k| k.examples).sum();
            let mean = format!("{:.1}", 100.0 * self.mean_f1);
            let last =
                ["all".into(), whole(examples), percent(&self.exact), mean, String::new(), String::new()];
            rows.push(last.to_vec());
        }
        let head = ["kind", "examples", "exact match %", "F1 %", "valid JSON %", "ended by itself %"];
        let mut text = format!(
            "## Answers of {}\n\n{}\nMost likely answers of at most {} tokens.",
            markdown::text(&self.model.title()),
            table(&head, &rows),
            self.settings.max_new_tokens
        );
        if self.settings.bootstrap.resamples > 0 {
            let level = 100.0 * self.settings.bootstrap.level;
            text.push_str(&format!(" In brackets: {level}% bootstrap intervals over examples."));
        }
        match self.too_long {
            0 => {}
            1 => text.push_str(" The prompt of one example fills the context: it could not be answered, and counts as wrong."),
            n => text.push_str(&format!(
                " The prompts of {} examples fill the context: they could not be answered, and count as wrong.",
                whole(n)
            )),
        }
        if self.stopped {
            text.push_str(" Stopped before all examples were answered.");
        }
        text.push('\n');
        for kind in self.kinds.iter().filter(|k| !k.fields.is_empty()) {
            let rows: Vec<Vec<String>> = kind
                .fields
                .iter()
                .map(|f| {
                    let percent = |x: f64| format!("{:.1}", 100.0 * x);
                    vec![f.field.clone(), whole(f.examples), percent(f.exact), percent(f.f1)]
                })
                .collect();
            let head = ["field", "examples", "exact %", "F1 %"];
            text.push_str(&format!(
                "\n### Fields of {}\n\n{}",
                markdown::text(&kind.kind),
                table(&head, &rows)
            ));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(kind: &str, output: &str, answer: &str, json: bool) -> Answered {
        let judged = judge(output, answer, json);
        Answered {
            kind: kind.into(),
            number: 0,
            prompt_tokens: 1,
            output: output.into(),
            answer: answer.into(),
            ended: true,
            too_long: false,
            exact: judged.exact,
            f1: f1(judged.counts),
            json: judged.json,
            counts: judged.counts,
        }
    }

    #[test]
    fn text_is_compared_whole_and_by_words() {
        let one = answered("qa", "The Governing Law.", " the governing laws ", false);
        assert!(!one.exact && (one.f1 - 2.0 / 3.0).abs() < 1e-12, "{one:?}");
        assert!(answered("qa", "x", " x\n", false).exact);
        assert_eq!(answered("qa", "x", "", false).f1, 0.0);
        assert_eq!(answered("qa", "", "", false).f1, 1.0);
    }

    #[test]
    fn json_is_compared_as_values_and_by_field() {
        let right = r#"{"a":1,"b":{"c":"x","d":[1,2]}}"#;
        let same = answered("json", right, "{ \"b\": {\"d\":[1,2], \"c\":\"x\"}, \"a\": 1 }", true);
        assert!(same.exact && same.f1 == 1.0, "{same:?}");
        // Of the four places, a and one item of d are right; the order of a list is not its fields' matter.
        let half = answered("json", right, r#"{"a":1,"b":{"c":"y","d":[2]}}"#, true);
        assert!((half.f1 - 2.0 * 2.0 / 7.0).abs() < 1e-12 && !half.exact, "{half:?}");
        let broken = answered("json", right, r#"{"a":1"#, true);
        assert_eq!((broken.json, broken.f1), (Some(false), 0.0));
        let settings = SftSettings { max_new_tokens: 9, limit: None, bootstrap: Bootstrap::default() };
        let result = summarise(Subject::default(), settings, vec![], false, &[same, half, broken]);
        let kind = &result.kinds[0];
        assert!((kind.exact.value - 1.0 / 3.0).abs() < 1e-12);
        assert_eq!(kind.valid_json, Some(2.0 / 3.0));
        let fields: Vec<_> = kind.fields.iter().map(|f| (f.field.as_str(), f.examples, f.exact)).collect();
        assert_eq!(fields, [("a", 3, 2.0 / 3.0), ("b", 3, 1.0 / 3.0)]);
        assert!(result.to_markdown().contains("### Fields of json"));
    }

    #[test]
    fn lines_are_read_in_both_forms_and_errors_name_them() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("e.jsonl");
        let lines = concat!(
            r#"{"instruction":"Say","input":"x","output":"y","kind":"k"}"#,
            "\n\n",
            r#"{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]}"#,
            "\n",
            r#"{"instruction":"Make","output":"{\"n\":1}","kind":"k","license":"MIT"}"#,
        );
        fs::write(&path, lines).unwrap();
        let paths = [path.clone()];
        let (examples, files) = read(&paths, None).unwrap();
        let shown: Vec<_> = examples.iter().map(|e| (e.kind.as_str(), e.output.as_str())).collect();
        assert_eq!(shown, [("k", "y"), ("other", "b"), ("k", "{\"n\":1}")]);
        assert_eq!(examples[0].messages, [Message::user("Say\n\nx")]);
        assert_eq!(files[0].name, "e.jsonl");
        assert_eq!(read(&paths, Some(1)).unwrap().0.len(), 2);
        fs::write(&path, "{\"instruction\":\"x\"}").unwrap();
        assert!(read(&paths, None).unwrap_err().to_string().contains("e.jsonl, line 1: no object with"));
    }
}
