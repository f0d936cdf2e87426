//! What can be asked about a document, and what it answers.
//!
//! Each kind of question is asked in a few ways; which one follows from the document. Answers are words of the document.

use super::{
    clause::{self, agreement, as_title},
    definition::{Definition, definitions},
    facts,
    section::Section,
    text::{self, Lines, beginning, paragraphs, patterns},
};
use regex::Regex;
use serde_json::{Map, Value};
use std::sync::LazyLock;

patterns! {
    ENTERED = r"(?i)\b(?:made|entered|dated|effective|executed)\b";
    NAMED = r"^(?:This|THIS) ((?:(?:[A-Z][\w’'-]+|and|to|of|the) ){0,8}(?:Agreement|Lease|Contract|Note|Amendment|Guaranty|AGREEMENT|LEASE|CONTRACT|NOTE|AMENDMENT|GUARANTY))(?: \(|, | is | made | dated | effective | entered | by and | between )";
    OPENS = r"(?i)^.{0,150}?\bthis (?:[\w’'-]+ ){0,8}(?:agreement|lease|contract|note|amendment|guaranty)\b";
    DOCKET = r"No\. [0-9]{1,3}[-–][0-9]{1,5}";
    ARGUED = r"(?:Monday|Tuesday|Wednesday|Thursday|Friday), ((?:January|February|March|April|May|June|July|August|September|October|November|December) [0-9]{1,2}, [0-9]{4})";
    ROLE = r"^,? ?(?:Petitioners?|Appellants?|Plaintiffs?)\b";
}

/// The kinds, as lines name them.
pub const KINDS: [&str; 7] = [
    "heading_to_text",
    "text_to_heading",
    "text_to_citation",
    "definition",
    "definition_in_text",
    "extract_json",
    "clause",
];

/// A document to ask about.
#[derive(Clone, Copy, Debug)]
pub(super) struct Source<'d> {
    pub(super) id: &'d str,
    pub(super) dataset: &'d str,
    pub(super) title: Option<&'d str>,
    pub(super) text: &'d str,
}

/// A question with its answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Question {
    pub(super) kind: &'static str,
    pub(super) instruction: String,
    pub(super) input: String,
    pub(super) output: String,
    /// Names of the fields of an answer in JSON.
    pub(super) fields: Vec<&'static str>,
    /// What must stand in the document word for word; the output where nothing is said.
    pub(super) support: Vec<String>,
    /// The term that is asked for without saying where; then this is what to ask where it has several meanings.
    pub(super) plain: Option<(String, String)>,
}

/// Bytes that a question with its answer may have, and the shares of its parts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) input: usize,
    /// Of an answer beside an input.
    pub(super) output: usize,
    /// Of an answer without one.
    pub(super) text: usize,
}

/// Picks one of several by what it is for, the same each time.
fn pick<'c, T: ?Sized>(of: &str, salt: &str, choices: &[&'c T]) -> &'c T {
    let hash = blake3::hash(format!("{salt}\n{of}").as_bytes());
    let number = hash.as_bytes().first().map_or(0, |&byte| usize::from(byte));
    choices[number % choices.len()]
}

/// Whether one in `of` is chosen.
fn chance(id: &str, salt: &str, of: u8) -> bool {
    blake3::hash(format!("{salt}\n{id}").as_bytes()).as_bytes().get(1).is_some_and(|byte| byte % of == 0)
}

/// All questions about a document.
pub(super) fn questions(source: Source<'_>, limits: Limits) -> Vec<Question> {
    let mut all = Vec::new();
    let is_agreement = matches!(source.dataset, "edgar" | "contracts")
        || source.title.is_some_and(|title| agreement(title).is_some());
    if let Some(section) = Section::of(source.title, source.dataset, source.text) {
        ask_section(source, &section, limits, &mut all);
        ask_definitions(source, Some(&section), &section.body, limits, &mut all);
    } else if is_agreement {
        let paragraphs = paragraphs(source.text, Lines::Wrapped);
        ask_clauses(source, &paragraphs, limits, &mut all);
        all.extend(introduction(source, &paragraphs, limits));
        all.extend(
            paragraphs.iter().filter_map(|paragraph| provision(source, paragraph, limits)).take(PROVISIONS),
        );
    } else if source.text.starts_with("IN THE SUPREME COURT") {
        all.extend(transcript(source, limits));
    } else {
        let paragraphs = paragraphs(source.text, Lines::Paragraphs);
        ask_definitions(source, None, &paragraphs, limits, &mut all);
        all.extend(notice(source, &paragraphs, limits));
    }
    all
}

/// Terms that a document defines and that may be asked for without naming it.
pub(super) fn terms(source: Source<'_>, limits: Limits) -> Vec<String> {
    questions(source, limits).into_iter().filter_map(|question| Some(question.plain?.0)).collect()
}

fn ask_section(source: Source<'_>, section: &Section, limits: Limits, all: &mut Vec<Question>) {
    let sound = section.body.iter().take_while(|paragraph| text::is_prose(paragraph) || paragraph.len() < 60);
    let prose: Vec<String> = sound.cloned().collect();
    let (name, heading) = (&section.name, &section.heading);
    if let Some((output, whole)) = beginning(&prose, limits.text).filter(|(text, _)| text.len() >= 60) {
        let asked = match whole && prose.len() == section.body.len() {
            true => [
                format!("What does {name} say under the heading “{heading}”?"),
                format!("State the text of {name}, “{heading}”."),
            ],
            false => [
                format!("How does {name}, “{heading}”, begin?"),
                format!("State the beginning of {name}, “{heading}”."),
            ],
        };
        let instruction = pick(source.id, "heading_to_text", &[asked[0].as_str(), &asked[1]]).to_owned();
        all.push(Question { kind: "heading_to_text", instruction, output, ..Question::default() });
    }
    let Some((input, _)) = beginning(&prose, limits.input).filter(|(text, _)| text.len() >= 80) else {
        return;
    };
    // Whoever reads the heading in the text need not think of one.
    if !text::squash(&input).contains(&text::squash(heading)) && heading.split(' ').count() >= 2 {
        all.push(Question {
            kind: "text_to_heading",
            instruction: pick(
                source.id,
                "text_to_heading",
                &[
                    "Give the heading of this section.",
                    "What is this section about? Answer with its heading.",
                ],
            )
            .to_owned(),
            input: input.clone(),
            output: heading.clone(),
            ..Question::default()
        });
    }
    let cited = |instruction: &str, input: String, output: &str| Question {
        kind: "text_to_citation",
        instruction: instruction.to_owned(),
        input,
        output: output.to_owned(),
        ..Question::default()
    };
    let head = section.head();
    let short = beginning(&prose, limits.input / 2).map(|(text, _)| text);
    if let Some(code) = &section.code {
        let input = format!("{head}\n\n{}", short.as_deref().unwrap_or(&input));
        all.push(cited("Which section of the United States Code is this?", input, code));
    }
    let credit =
        section.credit.as_deref().and_then(|credit| credit.get(..credit.len().min(limits.input / 2)));
    if let (Some(credit), Some(short)) = (credit, short) {
        let input = format!("{head}\n\n{short}\n\n{credit}");
        let stated = |what: Option<&str>| what.filter(|what| credit.contains(what)).map(str::to_owned);
        let (law, statutes, register) =
            (stated(section.law()), stated(section.statutes()), stated(section.register()));
        let choices = [
            ("Which law enacted this section?", law),
            ("Where in the Statutes at Large was this section enacted?", statutes),
            ("Where in the Federal Register was this section published?", register),
        ];
        let known: Vec<&(&str, Option<String>)> =
            choices.iter().filter(|(_, answer)| answer.is_some()).collect();
        // One of two that have a question about their code already.
        if !known.is_empty()
            && (section.code.is_none() || chance(source.id, "credit", 2))
            && let (instruction, Some(answer)) = pick(source.id, "credit", &known)
        {
            all.push(cited(instruction, input.clone(), answer));
        }
        all.extend(json(
            source,
            input,
            [
                ("title", Some(Value::from(heading.clone()))),
                ("citation", Some(Value::from(section.number.clone()))),
                ("date", facts::dates(credit).first().map(|date| Value::from(*date))),
            ],
        ));
    }
    // The paragraphs that name amounts.
    let with_amounts: Vec<String> = prose.iter().filter(|p| !facts::amounts(p).is_empty()).cloned().collect();
    if let Some((part, _)) = beginning(&with_amounts, limits.input).filter(|(part, _)| part.len() >= 60) {
        let amounts = Value::from(facts::amounts(&part));
        let input = format!("{head}\n\n{part}");
        let title = ("title", Some(Value::from(heading.clone())));
        let citation = ("citation", Some(Value::from(section.number.clone())));
        all.extend(json(source, input, [title, citation, ("amounts", Some(amounts))]));
    }
}

/// A question for facts in JSON: those that are there, and of the others those that are surely not there, now and then.
fn json<const N: usize>(
    source: Source<'_>,
    input: String,
    facts: [(&'static str, Option<Value>); N],
) -> Option<Question> {
    const ORDER: [&str; 5] = ["title", "citation", "date", "parties", "amounts"];
    let mut object = Map::new();
    let mut support = Vec::new();
    let mut fields = Vec::new();
    for field in ORDER {
        let value = match facts.iter().find(|(name, _)| *name == field) {
            Some((_, Some(value))) => value.clone(),
            // What is not there is asked for too, so that the model learns to say so; but only where no doubt is left.
            _ if field == "date" && !facts::may_have_date(&input) && chance(source.id, "date", 3) => {
                Value::Null
            }
            _ if field == "amounts" && !facts::may_have_amount(&input) && chance(source.id, "amounts", 3) => {
                Value::Array(Vec::new())
            }
            _ => continue,
        };
        let texts = value.as_array().map_or_else(|| vec![&value], |all| all.iter().collect());
        support.extend(texts.into_iter().filter_map(Value::as_str).map(str::to_owned));
        fields.push(field);
        object.insert(field.to_owned(), value);
    }
    if support.is_empty() || fields.len() < 2 || support.iter().any(|fact| !input.contains(fact.as_str())) {
        return None;
    }
    let (last, others) = fields.split_last()?;
    let names = format!("{} and {last}", others.join(", "));
    let instruction = match chance(source.id, "json", 2) {
        true => format!("Extract {names} as JSON."),
        false => format!("Give the {names} of this text as JSON."),
    };
    // In the order of the fields: the map would sort them.
    let parts: Vec<String> =
        fields.iter().filter_map(|field| Some(format!("\"{field}\":{}", object.get(*field)?))).collect();
    let output = format!("{{{}}}", parts.join(","));
    Some(Question { kind: "extract_json", instruction, input, output, fields, support, plain: None })
}

fn ask_definitions(
    source: Source<'_>,
    section: Option<&Section>,
    body: &[String],
    limits: Limits,
    all: &mut Vec<Question>,
) {
    let found = definitions(body, limits.output);
    // Many documents are nothing but definitions: some of each, spread over it.
    let step = found.len().div_ceil(6).max(1);
    for definition in found.iter().step_by(step) {
        let term = &definition.term;
        let plain = format!("What does “{term}” mean?");
        let named = section.map(|section| format!("What does “{term}” mean in {}?", section.name));
        let (instruction, plain) = match named {
            Some(named) if !term.contains(' ') || chance(source.id, term, 2) => (named, None),
            named => (plain, Some((term.to_lowercase(), named.unwrap_or_default()))),
        };
        let output = definition.text.clone();
        all.push(Question { kind: "definition", instruction, output, plain, ..Question::default() });
    }
    for definition in found.iter().step_by(step).take(3) {
        if let Some(input) = around(definition, body, limits.input) {
            all.push(Question {
                kind: "definition_in_text",
                instruction: format!("What does “{}” mean in this text?", definition.term),
                input,
                output: definition.text.clone(),
                ..Question::default()
            });
        }
    }
}

/// The paragraph of a definition and those around it, as far as they fit.
fn around(definition: &Definition, body: &[String], most: usize) -> Option<String> {
    let (mut from, mut to) = (definition.paragraph, definition.paragraph + 1);
    let size = |from: usize, to: usize| {
        body.get(from..to).map_or(usize::MAX, |p| p.iter().map(|p| p.len() + 2).sum())
    };
    if size(from, to) > most {
        return None;
    }
    loop {
        let before = from > 0 && size(from - 1, to) <= most;
        from -= usize::from(before);
        let after = to < body.len() && size(from, to + 1) <= most;
        to += usize::from(after);
        if !before && !after {
            break;
        }
    }
    let part = body.get(from..to)?;
    // One paragraph alone would be its own answer.
    (part.len() > 1 && part.iter().all(|p| text::is_prose(p) || p.len() < 40)).then(|| part.join("\n\n"))
}

fn ask_clauses(source: Source<'_>, paragraphs: &[String], limits: Limits, all: &mut Vec<Question>) {
    let kind = source.title.and_then(agreement);
    for clause in clause::clauses(paragraphs, limits.text) {
        let heading = as_title(&clause.heading);
        let of = match (&clause.law, kind) {
            (Some(law), _) if chance(source.id, "law", 2) => format!(" under the laws of {}", the(law)),
            (_, Some(kind)) if chance(source.id, "kind", 2) => {
                match kind.starts_with(['a', 'e', 'i', 'o', 'u']) {
                    true => format!(" for an {kind}"),
                    false => format!(" for a {kind}"),
                }
            }
            _ => String::new(),
        };
        let verb = pick(source.id, &heading, &["Draft", "Write"]);
        let article = if heading.starts_with(['A', 'E', 'I', 'O', 'U']) { "an" } else { "a" };
        all.push(Question {
            kind: "clause",
            instruction: format!("{verb} {article} “{heading}” clause{of}."),
            output: format!("{heading}. {}", clause.text),
            support: vec![clause.heading, clause.text],
            ..Question::default()
        });
    }
}

fn the(law: &str) -> String {
    if law.contains(" of ") { format!("the {law}") } else { law.to_owned() }
}

/// The paragraph in which an agreement names its parties.
fn introduction(source: Source<'_>, paragraphs: &[String], limits: Limits) -> Option<Question> {
    let (opens, entered) = (OPENS.as_ref()?, ENTERED.as_ref()?);
    let paragraph = paragraphs.iter().take(60).find(|p| {
        p.len() >= 80 && p.contains("etween") && opens.is_match(p) && entered.is_match(p) && text::is_prose(p)
    })?;
    let input = text::sentences(paragraph, limits.input)?.to_owned();
    let parties = facts::parties(&input)?;
    let title = NAMED.as_ref()?.captures(&input).and_then(|named| Some(named.get(1)?.as_str().to_owned()));
    let title = title.filter(|title| title.split(' ').count() >= 2);
    // With several dates, which one is meant is a matter of reading.
    let dates = Some(facts::dates(&input)).filter(|dates| dates.len() == 1).unwrap_or_default();
    let amounts = facts::amounts(&input);
    json(
        source,
        input.clone(),
        [
            ("title", title.map(Value::from)),
            ("date", dates.first().map(|date| Value::from(*date))),
            ("parties", Some(Value::from(parties.to_vec()))),
            ("amounts", (!amounts.is_empty()).then(|| Value::from(amounts))),
        ],
    )
}

/// Most provisions of an agreement that are asked for their facts.
const PROVISIONS: usize = 4;

/// A provision that names an amount: its heading, its date, its amounts.
fn provision(source: Source<'_>, paragraph: &str, limits: Limits) -> Option<Question> {
    if facts::amounts(paragraph).is_empty() {
        return None;
    }
    let (heading, _) =
        clause::headed(paragraph).filter(|(_, text)| text.len() >= 60 && text::is_prose(text))?;
    let input = text::sentences(paragraph, limits.input)?.to_owned();
    let amounts = facts::amounts(&input);
    let dates = facts::dates(&input);
    let values = [
        ("title", Some(Value::from(heading))),
        ("date", (dates.len() == 1).then(|| dates.first().map(|date| Value::from(*date))).flatten()),
        ("amounts", (!amounts.is_empty()).then(|| Value::from(amounts))),
    ];
    json(source, input, values)
}

/// The caption of an oral argument: parties, docket number, date.
fn transcript(source: Source<'_>, limits: Limits) -> Option<Question> {
    let caption: Vec<&str> = source.text.lines().map(str::trim).take(24).collect();
    let end = caption
        .iter()
        .position(|line| line.starts_with("APPEARANCES") || line.starts_with("The above-entitled"))?;
    let lines: Vec<&str> = caption
        .get(..end)?
        .iter()
        .copied()
        .filter(|line| !["- -", "---"].iter().any(|rule| line.contains(rule)))
        .collect();
    let input = lines.join("\n");
    let versus = lines.iter().position(|line| line.starts_with("v."))?;
    let party = |lines: &[&str]| {
        let role = ROLE.as_ref()?;
        let names: Vec<&str> = lines
            .iter()
            .map(|line| line.trim_end_matches([':', ' ', 'X']).trim())
            .take_while(|line| !role.is_match(line) && !line.is_empty())
            .collect();
        // A name over several lines does not stand in the text as one.
        match names[..] {
            [name] => {
                let name = name.trim_end_matches(',');
                let short =
                    [" AL.", "INC.", "CORP.", "CO.", "LTD.", "JR."].iter().any(|end| name.ends_with(end));
                Some(if short { name } else { name.trim_end_matches('.') }.to_owned())
            }
            _ => None,
        }
    };
    let first = party(lines.get(1..versus)?)?;
    let second = party(lines.get(versus + 1..)?.get(..1)?)?;
    let docket = DOCKET.as_ref()?.find(&input)?.as_str().to_owned();
    let date = ARGUED.as_ref()?.captures(&input)?.get(1)?.as_str().to_owned();
    let input = input.get(..input.len().min(limits.input))?.to_owned();
    json(
        source,
        input,
        [
            ("citation", Some(Value::from(docket))),
            ("date", Some(Value::from(date))),
            ("parties", Some(Value::from(vec![first, second]))),
        ],
    )
}

/// A notice or rule of the Federal Register: its title, and its summary with the date.
fn notice(source: Source<'_>, paragraphs: &[String], limits: Limits) -> Option<Question> {
    let title = source.title?;
    let at = paragraphs.iter().take(12).position(|p| p == title)?;
    let agency = at.checked_sub(1).and_then(|at| paragraphs.get(at)).filter(|p| p.len() < 100);
    let dates_at = paragraphs.iter().position(|p| p == "DATES:")?;
    let dated = paragraphs.get(dates_at + 1)?;
    let date = (*facts::dates(dated).first()?).to_owned();
    let dated = text::sentences(dated, limits.input)?;
    let input =
        format!("{}{title}\n\nDATES: {dated}", agency.map(|a| format!("{a}\n\n")).unwrap_or_default());
    (title.len() <= 200).then(|| {
        json(source, input, [("title", Some(Value::from(title))), ("date", Some(Value::from(date)))])
    })?
}
