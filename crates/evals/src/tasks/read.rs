//! Reading tasks: YAML with templates, or JSON lines alone.

use super::{OutputType, Question, Task, metrics};
use crate::{EvalError, data::DataFile};
use minijinja::{Environment, ErrorKind, UndefinedBehavior, syntax::SyntaxConfig, value::Serde};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    fmt::Display,
    fs,
    path::{Path, PathBuf},
};

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
    metric_list: Option<Vec<Map<String, Value>>>,
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
const WITHOUT_EFFECT: [&str; 7] = [
    "dataset_path",
    "dataset_name",
    "metadata",
    "tag",
    "training_split",
    "validation_split",
    "fewshot_config",
];

/// Reads a task from YAML (`.yaml`, `.yml`) or JSON lines.
///
/// # Errors
/// When a file cannot be read, a template not be filled in, or what is asked for is not understood and would change a metric.
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
    files.push(DataFile::of(path, &bytes));
    Ok(bytes)
}

/// The documents of a file.
struct Documents {
    path: PathBuf,
    /// Each with its line, from 1.
    list: Vec<(usize, Map<String, Value>)>,
    /// Fields that any of them has.
    fields: BTreeSet<String>,
}

impl Documents {
    fn read(path: &Path, files: &mut Vec<DataFile>) -> Result<Self, EvalError> {
        let bytes = load(path, files)?;
        let lines = (1..).zip(bytes.split(|&b| b == b'\n')).filter(|(_, line)| !line.trim_ascii().is_empty());
        let mut list: Vec<(usize, Map<String, Value>)> = Vec::new();
        for (line, text) in lines {
            let wrong =
                |e: serde_json::Error| EvalError::Line { path: path.into(), line, reason: e.to_string() };
            list.push((line, serde_json::from_slice(text).map_err(wrong)?));
        }
        let fields = list.iter().flat_map(|(_, fields)| fields.keys().cloned()).collect();
        Ok(Self { path: path.into(), list, fields })
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Fills templates in as lm-evaluation-harness does.
fn environment() -> Result<Environment<'static>, minijinja::Error> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_syntax(SyntaxConfig::builder().keep_trailing_newline(true).build()?);
    Ok(environment)
}

/// The right answer, as a task states it: where there are choices, a number is that of a choice, and a text is one.
struct Target {
    text: String,
    number: Option<i128>,
}

impl Target {
    fn of(value: &Value) -> Self {
        let number = match value {
            Value::Bool(truth) => Some(i128::from(*truth)),
            Value::Number(n) => n.as_i64().map(i128::from).or_else(|| n.as_u64().map(i128::from)),
            _ => None,
        };
        Self { text: plain(value), number }
    }
}

/// A document that becomes a question, or an example in front of questions.
struct Asked<'a> {
    environment: &'a Environment<'static>,
    documents: &'a Documents,
    line: usize,
    fields: &'a Map<String, Value>,
    /// What it is called in errors.
    called: String,
}

impl Asked<'_> {
    fn wrong(&self, reason: impl Display) -> EvalError {
        let reason = format!("{}: {reason}", self.called);
        EvalError::Line { path: self.documents.path.clone(), line: self.line, reason }
    }

    /// The field of this name; none where no document has one, since the name is a template then.
    fn field(&self, key: &str, name: &str) -> Result<Option<&Value>, EvalError> {
        match self.fields.get(name) {
            None | Some(Value::Null) if self.documents.fields.contains(name) => {
                Err(self.wrong(format!("{key}: there is no field `{name}`")))
            }
            value => Ok(value),
        }
    }

    /// Why a template with these variables cannot be filled in.
    fn unfilled(
        &self,
        key: &str,
        template: &str,
        why: &minijinja::Error,
        named: &HashSet<String>,
    ) -> EvalError {
        let globals: BTreeSet<&str> = self.environment.globals().map(|(name, _)| name).collect();
        let is_missing = |name: &&String| {
            let mut parts = name.split('.');
            let first = parts.next().unwrap_or_default();
            let mut value = self.fields.get(first);
            for part in parts {
                // What is no object has methods, not fields.
                let Some(Value::Object(fields)) = value else { break };
                value = fields.get(part);
            }
            value.is_none() && !globals.contains(first)
        };
        let missing: BTreeSet<String> =
            named.iter().filter(is_missing).map(|name| format!("`{name}`")).collect();
        if why.kind() != ErrorKind::UndefinedError || missing.is_empty() {
            return self.wrong(format!("{key} {template:?}: {why}"));
        }
        let missing: Vec<String> = missing.into_iter().collect();
        self.wrong(format!("{key} {template:?}: there is no field {}", missing.join(", ")))
    }

    fn rendered(&self, key: &str, template: &str) -> Result<String, EvalError> {
        let compiled = self.environment.template_from_str(template);
        let compiled = compiled.map_err(|e| self.wrong(format!("{key} {template:?}: {e}")))?;
        let text = compiled.render(Serde(self.fields));
        text.map_err(|e| self.unfilled(key, template, &e, &compiled.undeclared_variables(true)))
    }

    /// A field's value, or what the template comes to.
    fn text(&self, key: &str, template: &str) -> Result<String, EvalError> {
        match self.field(key, template)? {
            Some(value) => Ok(plain(value)),
            None => self.rendered(key, template),
        }
    }

    fn choices(&self, how: &Value) -> Result<Vec<String>, EvalError> {
        const KEY: &str = "doc_to_choice";
        match how {
            Value::Array(list) => list
                .iter()
                .map(|choice| choice.as_str().map_or_else(|| Ok(plain(choice)), |text| self.text(KEY, text)))
                .collect(),
            Value::String(name) => {
                if let Some(Value::Array(list)) = self.field(KEY, name)? {
                    return Ok(list.iter().map(plain).collect());
                }
                // `{{choices}}` stands for a list, not for its text.
                let expression = name.trim().trim_start_matches("{{").trim_end_matches("}}");
                let compiled = self.environment.compile_expression(expression);
                let compiled = compiled.map_err(|e| self.wrong(format!("{KEY} {name:?}: {e}")))?;
                let unfilled =
                    |e: &minijinja::Error| self.unfilled(KEY, name, e, &compiled.undeclared_variables(true));
                let value = compiled.eval(Serde(self.fields)).map_err(|e| unfilled(&e))?;
                if value.is_undefined() {
                    return Err(unfilled(&ErrorKind::UndefinedError.into()));
                }
                let value = serde_json::to_value(&value)?;
                let list = value.as_array();
                let list = list.ok_or_else(|| self.wrong(format!("{KEY} {name:?} is no list of choices")))?;
                Ok(list.iter().map(plain).collect())
            }
            other => {
                Err(self.wrong(format!("{KEY} is {other}, and should be a field, a template or a list")))
            }
        }
    }

    /// The right answer. What a template makes of digits is a number; a field is what it is.
    fn target(&self, how: &Value) -> Result<Target, EvalError> {
        const KEY: &str = "doc_to_target";
        let Value::String(template) = how else { return Ok(Target::of(how)) };
        if let Some(value) = self.field(KEY, template)? {
            return Ok(Target::of(value));
        }
        let text = self.rendered(KEY, template)?;
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        Ok(Target { number: if digits { text.parse().ok() } else { None }, text })
    }

    /// The number of the right choice.
    fn gold(&self, target: &Target, choices: &[String]) -> Result<usize, EvalError> {
        let found = match target.number {
            Some(number) => usize::try_from(number).ok().filter(|&n| n < choices.len()),
            None => choices.iter().position(|choice| *choice == target.text),
        };
        found.ok_or_else(|| {
            self.wrong(match target.number {
                Some(number) => {
                    format!(
                        "the target {number} is the number of none of the choices {choices:?}, counted from 0"
                    )
                }
                None => format!("the target {:?} is none of the choices {choices:?}", target.text),
            })
        })
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
    let (matching, unknown_metrics) =
        metrics::asked(yaml.metric_list.as_deref().unwrap_or_default(), yaml.output_type).map_err(wrong)?;
    let environment = environment().map_err(|e| wrong(e.to_string()))?;
    let choices_of = |asked: &Asked<'_>| match &yaml.doc_to_choice {
        Some(how) => asked.choices(how),
        None => Ok(Vec::new()),
    };
    let shots_split = yaml.fewshot_split.as_deref().unwrap_or(&yaml.test_split);
    // No question is shown its own answer: of the questions' own split, one more example is read.
    let own = shots_split == yaml.test_split;
    let mut shots: Vec<String> = Vec::new();
    if yaml.num_fewshot > 0 {
        let most = yaml.num_fewshot + usize::from(own);
        let documents = Documents::read(&of_split(shots_split)?, files)?;
        for (number, (line, fields)) in (1..).zip(&documents.list).take(most) {
            let called = format!("example {number}");
            let asked =
                Asked { environment: &environment, documents: &documents, line: *line, fields, called };
            let target = asked.target(&yaml.doc_to_target)?;
            let choices = choices_of(&asked)?;
            let answer = if choices.is_empty() {
                target.text
            } else {
                choices.get(asked.gold(&target, &choices)?).cloned().unwrap_or_default()
            };
            let text = asked.text("doc_to_text", &yaml.doc_to_text)?;
            shots.push(format!("{text}{}{answer}{}", yaml.target_delimiter, yaml.fewshot_delimiter));
        }
    }
    let mut questions = Vec::new();
    let limit = limit.unwrap_or(usize::MAX);
    let documents = Documents::read(&of_split(&yaml.test_split)?, files)?;
    for (number, (line, fields)) in documents.list.iter().take(limit).enumerate() {
        let called = format!("question {}", number + 1);
        let asked = Asked { environment: &environment, documents: &documents, line: *line, fields, called };
        let shown = shots.iter().enumerate().filter(|(at, _)| !own || *at != number).take(yaml.num_fewshot);
        let mut context = yaml.description.clone();
        context.extend(shown.map(|(_, shot)| shot.as_str()));
        context.push_str(&asked.text("doc_to_text", &yaml.doc_to_text)?);
        let target = asked.target(&yaml.doc_to_target)?;
        let delimited = |text: &String| format!("{}{text}", yaml.target_delimiter);
        let (continuations, gold) = match yaml.output_type {
            OutputType::MultipleChoice => {
                let choices = choices_of(&asked)?;
                let gold = asked.gold(&target, &choices)?;
                (choices.iter().map(delimited).collect(), gold)
            }
            OutputType::Loglikelihood => (vec![delimited(&target.text)], 0),
            OutputType::GenerateUntil => {
                let mut choices = choices_of(&asked)?;
                let answer = if choices.is_empty() {
                    target.text
                } else {
                    choices.swap_remove(asked.gold(&target, &choices)?)
                };
                (vec![answer], 0)
            }
        };
        questions.push(Question { context, continuations, gold });
    }
    let until = match yaml.generation_kwargs.get("until") {
        Some(Value::String(mark)) => vec![mark.clone()],
        Some(Value::Array(marks)) => marks.iter().filter_map(|m| Some(m.as_str()?.to_owned())).collect(),
        _ => vec![yaml.fewshot_delimiter.clone()],
    };
    let most = yaml.generation_kwargs.get("max_gen_toks").and_then(Value::as_u64).unwrap_or(256);
    let unknown = yaml.other.into_keys().filter(|key| !WITHOUT_EFFECT.contains(&key.as_str()));
    Ok(Task {
        name: yaml.task,
        output_type: yaml.output_type,
        questions,
        until,
        max_gen_toks: most as usize,
        matching,
        num_fewshot: yaml.num_fewshot,
        files: Vec::new(),
        unknown: unknown.chain(unknown_metrics).collect(),
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
    for (line, document) in Documents::read(path, files)?.list {
        let wrong = |reason: String| EvalError::Line { path: path.into(), line, reason };
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
        matching: metrics::Matching::default(),
        num_fewshot: 0,
        files: Vec::new(),
        unknown: Vec::new(),
    })
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

    /// A task of these lines, the questions alone.
    fn task(keys: &str, lines: &str) -> Result<Task, String> {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let head = "task: t\ndataset_kwargs:\n  data_files: q.jsonl\n";
        fs::write(at("t.yaml"), format!("{head}{keys}\n")).unwrap();
        fs::write(at("q.jsonl"), lines).unwrap();
        read(&at("t.yaml"), None).map_err(|e| e.to_string())
    }

    const CHOICE: &str = "output_type: multiple_choice\ndoc_to_text: question\ndoc_to_choice: choices\n";

    #[test]
    fn a_number_is_that_of_a_choice_and_a_text_is_one() {
        let gold = |target: &str, answer: &str| {
            let line =
                format!("{{\"question\":\"2+2?\",\"choices\":[\"3\",\"4\",\"1\"],\"answer\":{answer}}}");
            task(&format!("{CHOICE}doc_to_target: {target}"), &line).map(|task| task.questions[0].gold)
        };
        // A field is what it is, and digits of a template are a number, as in the harness.
        assert_eq!(gold("answer", "1"), Ok(1));
        assert_eq!(gold("answer", "\"1\""), Ok(2));
        assert_eq!(gold("answer", "true"), Ok(1));
        assert_eq!(gold("\"{{answer}}\"", "1"), Ok(1));
        assert_eq!(gold("\"{{answer}}\"", "\"1\""), Ok(1));
        assert_eq!(gold("\"{{answer - 1}}\"", "1"), Ok(0));
        assert_eq!(gold("2", "1"), Ok(2));
        // A number of no choice is not taken for a text, nor a text for a number.
        for (target, answer) in
            [("answer", "4"), ("answer", "-1"), ("\"{{answer}}\"", "3"), ("answer", "\"0\"")]
        {
            let error = gold(target, answer).unwrap_err();
            assert!(error.contains("q.jsonl, line 1: question 1: the target"), "{error}");
        }
    }

    #[test]
    fn a_number_stands_for_its_choice_in_answers_that_are_written() {
        let keys = "doc_to_text: question\ndoc_to_choice: choices\ndoc_to_target: answer";
        let line = "{\"question\":\"2+2?\",\"choices\":[\"3\",\"4\"],\"answer\":1}";
        assert_eq!(task(keys, line).unwrap().questions[0].continuations, ["4"]);
        let keys = "doc_to_text: question\ndoc_to_target: answer";
        assert_eq!(task(keys, line).unwrap().questions[0].continuations, ["1"]);
        // Choices that YAML reads as numbers are what is written there.
        let keys = format!("{}doc_to_target: answer", CHOICE.replace("choices", "[3, 4]"));
        assert_eq!(task(&keys, line).unwrap().questions[0].continuations, [" 3", " 4"]);
    }

    #[test]
    fn a_field_that_is_not_there_is_an_error_that_names_it() {
        let lines = "{\"q\":\"a\",\"c\":[\"x\"],\"t\":0}\n\n{\"o\":{\"p\":1},\"t\":null}\n";
        let error = |text: &str, choice: &str, target: &str| {
            let keys = format!("output_type: multiple_choice\ndoc_to_text: {text}\ndoc_to_choice: {choice}");
            task(&format!("{keys}\ndoc_to_target: {target}"), lines).unwrap_err()
        };
        let choices = "[x, y]";
        for (error, named) in [
            (error("q", choices, "0"), "doc_to_text: there is no field `q`"),
            (error("\"Q: {{q}}{{o.r}}\"", choices, "0"), "doc_to_text"),
            (error("x", choices, "t"), "doc_to_target: there is no field `t`"),
            (error("x", "c", "0"), "doc_to_choice: there is no field `c`"),
            (error("x", "\"{{c}}\"", "0"), "doc_to_choice \"{{c}}\": there is no field `c`"),
        ] {
            assert!(error.contains(named), "{error}");
        }
        let said = error("\"{{q}} {{range(2)}}\"", choices, "0");
        let expected =
            "q.jsonl, line 3: question 2: doc_to_text \"{{q}} {{range(2)}}\": there is no field `q`";
        assert!(said.ends_with(expected), "{said}");
        let said = error("\"{{o.r}}\"", choices, "0");
        assert!(said.contains("line 1: question 1") && said.contains("no field `o.r`"), "{said}");
        // Of what may be missing a template can say so; other mistakes are told as they are.
        let keys =
            "doc_to_text: \"{{q | default('none')}}{% if o is defined %}!{% endif %}\\n\"\ndoc_to_target: x";
        let made = task(keys, lines).unwrap();
        // The line break at the end is kept.
        assert_eq!(made.questions.iter().map(|q| q.context.as_str()).collect::<Vec<_>>(), ["a\n", "none!\n"]);
        assert!(error("\"{{q | nothing}}\"", choices, "0").contains("unknown filter"));
    }

    #[test]
    fn metrics_that_are_not_known_are_named_and_options_followed_or_refused() {
        let keys = "doc_to_text: q\ndoc_to_target: q\nmetric_list:\n";
        let made = |list: &str| task(&format!("{keys}{list}"), "{\"q\":\"a\"}");
        let known = made(
            "  - metric: exact_match\n    aggregation: mean\n    higher_is_better: true\n    ignore_case: true\n    ignore_punctuation: true",
        );
        let known = known.unwrap();
        assert_eq!(known.unknown, [] as [&str; 0]);
        assert!(
            known.matching.ignore_case && known.matching.ignore_punctuation && !known.matching.ignore_numbers
        );
        let unknown = made("  - metric: bleu\n  - metric: acc\n  - metric: exact_match\n    aggregation: median\n    other: 1").unwrap();
        let expected = [
            "metric_list.bleu",
            "metric_list.acc",
            "metric_list.exact_match.aggregation",
            "metric_list.exact_match.other",
        ];
        assert_eq!(unknown.unknown, expected);
        let refused = made("  - metric: exact_match\n    regexes_to_ignore: [\",\"]").unwrap_err();
        assert!(refused.contains("t.yaml") && refused.contains("regexes_to_ignore"), "{refused}");
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
        fs::write(&path, "\n{\"query\":\"x\",\"choices\":[\"a\"],\"gold\":1}").unwrap();
        assert!(read(&path, None).unwrap_err().to_string().contains("line 2"));
    }
}
