//! Facts of a document as JSON, each with the place where the document says it.
//!
//! In flow a schema and documents; out flow one [`Extraction`] a document. The model answers under the schema's constraint, so every
//! answer parses and validates. A document that does not fit the context is read in windows that end where paragraphs or
//! sentences do and overlap a little; what they say is put together field by field, what stands in the document before what does
//! not.

use crate::{
    GenerationOptions, Pipeline, PipelineError,
    constraint::{ConstraintSpec, Grammar},
    generate::FinishReason,
    generate_constrained,
    sampling::SamplingOptions,
};
use blackletter_tokenizer::{
    SpecialTokens,
    template::{self, Message, Special, TemplateError},
};
use serde::Serialize;
use serde_json::{Map, Value};
use std::{collections::BTreeMap, ops::ControlFlow, ops::Range};

/// What is asked of documents.
#[derive(Clone, Debug)]
pub struct ExtractOptions {
    /// What an answer has to be.
    pub schema: Value,
    /// What is asked; none for the names of the schema's properties.
    pub instructions: Option<String>,
    /// Most tokens of an answer.
    pub max_new_tokens: usize,
}

/// Documents cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum ExtractError {
    /// The model refuses.
    #[error(transparent)]
    Pipeline(#[from] PipelineError),
    /// The template refuses.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// Too little of the context is left.
    #[error(
        "instructions and answer leave {left} of the context's {context} tokens to the document: shorten the instructions or lower --max-new-tokens"
    )]
    NoRoom {
        /// Tokens that are left.
        left: usize,
        /// The context.
        context: usize,
    },
}

/// Where a document says something: `start` to `end`, in characters (Unicode code points) from its beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Evidence {
    /// The first character.
    pub start: usize,
    /// The one after the last.
    pub end: usize,
}

/// What a document says.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Extraction {
    /// The answer.
    pub value: Value,
    /// For each single value in it, by JSON pointer, where the document says it word for word; null where it does not.
    pub evidence: BTreeMap<String, Option<Evidence>>,
    /// Windows that the document was read in.
    pub windows: usize,
    /// Whether every window's answer came to its end.
    pub complete: bool,
}

/// Asks documents.
pub struct Extractor<'p> {
    pipeline: &'p Pipeline,
    options: ExtractOptions,
    grammar: Grammar,
    instructions: String,
    special: Option<Special>,
    eos: Vec<u32>,
}

/// Least tokens of a document in a window.
const LEAST_ROOM: usize = 32;

impl<'p> Extractor<'p> {
    /// Compiles the schema.
    ///
    /// # Errors
    /// When it asks for what cannot be kept, or the model has no tokenizer.
    pub fn new(pipeline: &'p Pipeline, options: ExtractOptions) -> Result<Self, ExtractError> {
        let eos = pipeline.eos_token_id();
        let spec = ConstraintSpec::JsonSchema(options.schema.clone());
        let grammar = pipeline.vocabulary(&eos)?.compile(&spec).map_err(PipelineError::from)?;
        let special = pipeline.tokenizer().and_then(|t| Special::of(t).ok());
        let instructions = options.instructions.clone().unwrap_or_else(|| ask_for(&options.schema));
        Ok(Self { pipeline, options, grammar, instructions, special, eos })
    }

    /// Asks a document.
    ///
    /// # Errors
    /// When the instructions leave it no room, or the model fails.
    pub fn extract(&self, document: &str) -> Result<Extraction, ExtractError> {
        let windows = self.windows(document)?;
        let mut answers = Vec::new();
        let mut complete = true;
        for window in &windows {
            let (value, whole) = self.answer(document.get(window.clone()).unwrap_or_default())?;
            complete &= whole;
            answers.push((value, window.clone()));
        }
        let (value, evidence) = combine(document, answers, &self.options.schema);
        let characters = |byte: usize| document.get(..byte).map_or(0, |text| text.chars().count());
        let place =
            |range: Range<usize>| Evidence { start: characters(range.start), end: characters(range.end) };
        let evidence = evidence.into_iter().map(|(pointer, range)| (pointer, range.map(place))).collect();
        Ok(Extraction { value, evidence, windows: windows.len(), complete })
    }

    fn prompt(&self, text: &str) -> Result<Vec<u32>, ExtractError> {
        let asked = template::ask(&self.instructions, Some(text));
        match (self.special, self.pipeline.tokenizer()) {
            (Some(special), Some(tokenizer)) => {
                Ok(template::prompt(tokenizer, special, &[Message::user(asked)])?)
            }
            _ => Ok(self.pipeline.prompt(format!("{asked}\n\n"), SpecialTokens::AsText)?.ids),
        }
    }

    /// Parts of a document, in bytes, each of which fits the context beside instructions and answer.
    fn windows(&self, document: &str) -> Result<Vec<Range<usize>>, ExtractError> {
        let context = self.pipeline.engine.config().max_position_embeddings;
        let answer = self.options.max_new_tokens.min(context / 2);
        let taken = self.prompt("")?.len() + answer + 2;
        let left = context.saturating_sub(taken);
        if left < LEAST_ROOM {
            return Err(ExtractError::NoRoom { left, context });
        }
        let tokenizer = self.pipeline.tokenizer();
        let count = |text: &str| {
            tokenizer
                .and_then(|t| t.encode(text, SpecialTokens::AsText).ok())
                .map_or(text.len(), |ids| ids.len())
        };
        Ok(split(document, left, &count))
    }

    /// The model's answer to a part of a document, and whether it came to its end.
    fn answer(&self, text: &str) -> Result<(Value, bool), ExtractError> {
        let prompt = self.prompt(text)?;
        let options = GenerationOptions {
            max_new_tokens: self.options.max_new_tokens,
            num_return_sequences: 1,
            sampling: SamplingOptions { greedy: true, ..SamplingOptions::default() },
            seed: 0,
            stop: Vec::new(),
            eos_token_id: self.eos.clone(),
        };
        let (engine, tokenizer) = (&self.pipeline.engine, self.pipeline.tokenizer());
        let mut go_on = |_: usize, _: u32| ControlFlow::Continue(());
        let made =
            generate_constrained(engine, tokenizer, &prompt, &options, Some(&self.grammar), &mut go_on)
                .map_err(PipelineError::from)?;
        let Some(made) = made.into_iter().next() else { return Ok((Value::Null, false)) };
        let text = tokenizer.map(|t| t.decode(&made.ids, true)).unwrap_or_default();
        let value = serde_json::from_str(&text).ok();
        let whole = value.is_some() && made.finish_reason != FinishReason::Length;
        Ok((value.unwrap_or_default(), whole))
    }
}

/// What is asked when nobody says: the schema's own words, in the form that examples of the training data have.
fn ask_for(schema: &Value) -> String {
    let names: Vec<String> = schema["properties"]
        .as_object()
        .into_iter()
        .flat_map(Map::keys)
        .map(|key| key.replace('_', " "))
        .collect();
    match names.split_last() {
        None => "Extract the facts of this text as JSON.".into(),
        Some((only, [])) => format!("Extract {only} as JSON."),
        Some((last, rest)) => format!("Extract {} and {last} as JSON.", rest.join(", ")),
    }
}

/// Cuts a text into parts of at most `most` tokens that overlap by an eighth or so: at the last break of the best kind in the
/// part's second half.
fn split(text: &str, most: usize, count: &dyn Fn(&str) -> usize) -> Vec<Range<usize>> {
    let mut parts = Vec::new();
    let mut start = 0;
    loop {
        let rest = text.get(start..).unwrap_or_default();
        if count(rest) <= most {
            parts.push(start..text.len());
            return parts;
        }
        // The longest beginning that fits, by halves.
        let (mut fits, mut too_long) = (0, rest.len());
        while too_long - fits > 1 {
            let mut middle = fits + (too_long - fits) / 2;
            while !rest.is_char_boundary(middle) {
                middle -= 1;
            }
            if middle <= fits {
                break;
            }
            if count(rest.get(..middle).unwrap_or_default()) <= most {
                fits = middle
            } else {
                too_long = middle
            }
        }
        let fits = fits.max(rest.chars().next().map_or(1, char::len_utf8));
        let cut = last_break(rest.get(..fits).unwrap_or_default()).unwrap_or(fits);
        parts.push(start..start + cut);
        // The next part begins a little before this one's end, at a break.
        let mut back = cut - cut / 8;
        while !rest.is_char_boundary(back) {
            back -= 1;
        }
        let from = rest.get(back..cut).and_then(first_break).map_or(cut, |at| back + at);
        start += if from > 0 { from.min(cut) } else { cut };
    }
}

const BREAKS: [&str; 4] = ["\n\n", "\n", ". ", " "];

fn last_break(text: &str) -> Option<usize> {
    let half = text.len() / 2;
    BREAKS.iter().find_map(|b| text.rfind(b).map(|at| at + b.len()).filter(|&at| at > half))
}

fn first_break(text: &str) -> Option<usize> {
    BREAKS.iter().find_map(|b| text.find(b).map(|at| at + b.len()))
}

type Places = BTreeMap<String, Option<Range<usize>>>;

/// Puts the answers of several windows together.
fn combine(document: &str, answers: Vec<(Value, Range<usize>)>, schema: &Value) -> (Value, Places) {
    let located: Vec<(Value, Places)> = answers
        .into_iter()
        .map(|(value, window)| {
            let mut places = Places::new();
            locate(document, &window, &value, "", &mut places);
            (value, places)
        })
        .collect();
    let found = |places: &Places| places.values().filter(|p| p.is_some()).count();
    // Where fields depend on each other, one window's answer stays whole: the one with most in the document.
    let apart = schema["properties"].is_object()
        && !is_narrowed(schema)
        && ["minProperties", "maxProperties"].iter().all(|key| schema.get(key).is_none());
    let objects = located.iter().all(|(value, _)| value.is_object());
    if located.is_empty() || !apart || !objects {
        let best = located.into_iter().rev().max_by_key(|(_, places)| found(places));
        return best.unwrap_or_default();
    }
    let mut value = Map::new();
    let mut places = Places::new();
    let names: Vec<String> =
        schema["properties"].as_object().into_iter().flat_map(Map::keys).cloned().collect();
    let others = located.iter().filter_map(|(v, _)| v.as_object()).flat_map(Map::keys).cloned();
    for name in names.into_iter().chain(others) {
        if value.contains_key(&name) {
            continue;
        }
        let field = format!("/{}", name.replace('~', "~0").replace('/', "~1"));
        let of = |(value, places): &(Value, Places)| {
            let value = value.get(&name)?.clone();
            let inside = |pointer: &String| *pointer == field || pointer.starts_with(&format!("{field}/"));
            let places: Places =
                places.iter().filter(|(p, _)| inside(p)).map(|(p, r)| (p.clone(), r.clone())).collect();
            Some((value, places))
        };
        let candidates: Vec<(Value, Places)> = located.iter().filter_map(of).collect();
        let list = &schema["properties"][&name];
        let most = list["maxItems"].as_u64().map_or(usize::MAX, |n| n as usize);
        let least = list["minItems"].as_u64().unwrap_or(0) as usize;
        // The places of some lists mean something, and of some more is said than how many items they have; and one window's list
        // stays as it is unless it should be the document's words.
        let plain =
            !is_narrowed(list) && ["prefixItems", "contains"].iter().all(|key| list.get(key).is_none());
        let may_join = list["items"].is_object() && plain && schema.get("patternProperties").is_none();
        let joined = if may_join && (located.len() > 1 || is_free_text(&list["items"])) {
            join_lists(&candidates, &field, most)
                .filter(|(value, _)| value.as_array().is_some_and(|l| l.len() >= least))
        } else {
            None
        };
        let best = joined.or_else(|| {
            let score = |(value, places): &&(Value, Places)| (found(places), !value.is_null());
            candidates.iter().rev().max_by_key(score).cloned()
        });
        if let Some((field_value, field_places)) = best {
            value.insert(name, field_value);
            places.extend(field_places);
        }
    }
    (Value::Object(value), places)
}

/// Whether a schema says more of a value as a whole than its other keywords do: parts of values that it accepts, put together,
/// may be a value that it refuses.
fn is_narrowed(schema: &Value) -> bool {
    const KEYWORDS: [&str; 8] = ["allOf", "anyOf", "oneOf", "$ref", "enum", "const", "not", "if"];
    KEYWORDS.iter().any(|key| schema.get(key).is_some())
}

/// Whether values are texts in nobody's words but the document's.
fn is_free_text(schema: &Value) -> bool {
    let told = ["enum", "const", "format", "pattern"].iter().any(|key| schema.get(key).is_some());
    schema["type"] == "string" && !told
}

/// The items of lists that the document has word for word, each once; none when a candidate is no list, or nothing is found.
fn join_lists(candidates: &[(Value, Places)], field: &str, most: usize) -> Option<(Value, Places)> {
    let mut items: Vec<Value> = Vec::new();
    let mut places = Places::new();
    for (value, found) in candidates {
        for (i, item) in value.as_array()?.iter().enumerate() {
            let at = format!("{field}/{i}");
            let own = |pointer: &String| *pointer == at || pointer.starts_with(&format!("{at}/"));
            let own: Vec<_> = found.iter().filter(|(pointer, _)| own(pointer)).collect();
            if items.len() == most || items.contains(item) || !own.iter().any(|(_, place)| place.is_some()) {
                continue;
            }
            for (pointer, place) in own {
                let rest = pointer.get(at.len()..).unwrap_or_default();
                places.insert(format!("{field}/{}{rest}", items.len()), place.clone());
            }
            items.push(item.clone());
        }
    }
    (!items.is_empty()).then_some((Value::Array(items), places))
}

/// Finds every single value of an answer in the document: in its window first.
fn locate(document: &str, window: &Range<usize>, value: &Value, pointer: &str, places: &mut Places) {
    match value {
        Value::Object(map) => {
            for (key, inner) in map {
                let key = key.replace('~', "~0").replace('/', "~1");
                locate(document, window, inner, &format!("{pointer}/{key}"), places);
            }
        }
        Value::Array(list) => {
            for (i, inner) in list.iter().enumerate() {
                locate(document, window, inner, &format!("{pointer}/{i}"), places);
            }
        }
        Value::String(text) => {
            places.insert(pointer.into(), find(document, window, text, false));
        }
        Value::Number(number) => {
            places.insert(pointer.into(), find(document, window, &number.to_string(), true));
        }
        Value::Bool(_) | Value::Null => {
            places.insert(pointer.into(), None);
        }
    }
}

/// Where a text stands in the document; a number does not stand within another.
fn find(document: &str, window: &Range<usize>, text: &str, number: bool) -> Option<Range<usize>> {
    if text.is_empty() {
        return None;
    }
    let within = |range: Range<usize>| {
        let part = document.get(range.clone())?;
        let stands = |at: usize| {
            let digit = |c: Option<char>| c.is_some_and(|c| c.is_ascii_digit() || c == '.' || c == ',');
            let (from, to) = (range.start + at, range.start + at + text.len());
            let before = document.get(..from).and_then(|t| t.chars().next_back());
            let mut after = document.get(to..).unwrap_or_default().chars();
            let (next, one_more) = (after.next(), after.next());
            let goes_on = next.is_some_and(|c| c.is_ascii_digit())
                || (digit(next) && one_more.is_some_and(|c| c.is_ascii_digit()));
            !number || (!digit(before) && !goes_on)
        };
        part.match_indices(text)
            .map(|(at, _)| at)
            .find(|&at| stands(at))
            .map(|at| range.start + at..range.start + at + text.len())
    };
    within(window.clone()).or_else(|| within(0..document.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn what_stands_in_the_document_has_its_place_and_what_does_not_has_none() {
        let document = "§ 5. Acme Corp. pays 1,250 dollars and 12 cents to Acme Corp.";
        let value = json!({ "payer": "Acme Corp.", "amount": 250, "cents": 12, "law": "Delaware", "late": true, "list": ["dollars", ""] });
        let mut places = Places::new();
        locate(document, &(0..document.len()), &value, "", &mut places);
        let text = |pointer: &str| places[pointer].clone().map(|range| &document[range]);
        assert_eq!(text("/payer"), Some("Acme Corp."));
        assert_eq!(places["/payer"].clone().unwrap().start, "§ 5. ".len());
        assert_eq!((text("/amount"), text("/cents")), (None, Some("12")), "250 is a part of another number");
        assert_eq!(
            (text("/law"), text("/late"), text("/list/0"), text("/list/1")),
            (None, None, Some("dollars"), None)
        );
    }

    #[test]
    fn windows_are_put_together_field_by_field() {
        let document = "First: Ann. Second: Bob. Third: Cid.";
        let names = json!({ "items": { "type": "string" }, "maxItems": 2 });
        let schema = json!({ "properties": { "names": names, "judge": {}, "court": {} } });
        let answers = vec![
            (json!({ "names": ["Ann", "Eve"], "judge": "Dan", "court": null }), 0..12),
            (json!({ "names": ["Ann", "Bob", "Cid"], "judge": "Bob", "court": "Supreme" }), 12..36),
        ];
        let (value, places) = combine(document, answers, &schema);
        assert_eq!(value, json!({ "names": ["Ann", "Bob"], "judge": "Bob", "court": "Supreme" }));
        assert!(places["/names/1"].is_some() && places["/court"].is_none() && places.len() == 4);
    }

    #[test]
    fn lists_of_the_documents_words_have_each_once_and_no_others_beside_them() {
        let document = "Ann pays Bob; Bob pays nobody.";
        let texts = json!({ "items": { "type": "string" } });
        let of = |list: Value, kind: &Value| {
            let schema = json!({ "properties": { "list": kind } });
            combine(document, vec![(json!({ "list": list }), 0..document.len())], &schema)
        };
        let (value, places) = of(json!(["Eve", "Ann", "Bob", "Bob", "Ann"]), &texts);
        assert_eq!(value, json!({ "list": ["Ann", "Bob"] }));
        assert_eq!(places["/list/1"], Some(9..12));
        assert_eq!(places.len(), 2);
        // Nothing is left out where nothing stands in the document, where too few would be left, and of words that the schema gives.
        let all = json!(["Eve", "Dan"]);
        assert_eq!(of(all.clone(), &texts).0["list"], all);
        let some = json!(["Ann", "Dan"]);
        assert_eq!(
            of(some.clone(), &json!({ "items": { "type": "string" }, "minItems": 2 })).0["list"],
            some
        );
        assert_eq!(of(some.clone(), &json!({ "items": { "enum": ["Ann", "Dan"] } })).0["list"], some);
    }

    #[test]
    fn lists_of_which_a_schema_says_more_stay_as_they_are() {
        let document = "Ann pays Bob; Bob pays Cid.";
        let (half, all) = (document.len() / 2, document.len());
        let more = [
            json!({ "allOf": [{ "minItems": 2, "maxItems": 2 }] }),
            json!({ "anyOf": [{ "minItems": 2, "maxItems": 2 }, { "maxItems": 0 }] }),
            json!({ "oneOf": [{ "minItems": 2, "maxItems": 2 }, { "maxItems": 0 }] }),
            json!({ "$ref": "#/$defs/two" }),
            json!({ "enum": [["Ann", "Zed"], ["Bob", "Cid"], []] }),
            json!({ "const": ["Ann", "Zed"] }),
            json!({ "not": { "minItems": 3 } }),
        ];
        let lists = [json!(["Ann", "Zed"]), json!(["Bob", "Cid"])];
        for more in more {
            let mut list = json!({ "type": "array", "items": { "type": "string" } });
            list.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            let schema = json!({ "properties": { "list": list } });
            let one = vec![(json!({ "list": lists[0] }), 0..all)];
            assert_eq!(combine(document, one, &schema).0["list"], lists[0], "{schema}");
            let two = vec![(json!({ "list": lists[0] }), 0..half), (json!({ "list": lists[1] }), half..all)];
            assert_eq!(combine(document, two, &schema).0["list"], lists[1], "{schema}");
        }
        // Nor where another keyword of the object speaks of the list, or of the object as a whole.
        let list = json!({ "type": "array", "items": { "type": "string" } });
        let schema =
            json!({ "properties": { "list": list }, "patternProperties": { "^l": { "minItems": 2 } } });
        let one = vec![(json!({ "list": lists[0] }), 0..all)];
        assert_eq!(combine(document, one, &schema).0["list"], lists[0]);
        let wholes = [json!({ "a": "Ann", "b": "Zed" }), json!({ "a": "Eve", "b": "Bob" })];
        let schema = json!({ "properties": { "a": {}, "b": {} }, "enum": wholes });
        let two = vec![(wholes[0].clone(), 0..half), (wholes[1].clone(), half..all)];
        assert!(wholes.contains(&combine(document, two, &schema).0));
    }

    #[test]
    fn questions_are_made_of_the_names_of_properties() {
        assert_eq!(
            ask_for(&json!({ "properties": { "effective_date": {}, "parties": {}, "law": {} } })),
            "Extract effective date, parties and law as JSON."
        );
        assert_eq!(ask_for(&json!({})), "Extract the facts of this text as JSON.");
    }

    proptest! {
        #[test]
        fn parts_of_a_text_fit_and_leave_nothing_out(text in "[a-d§. \n]{0,400}", most in 1usize..60) {
            let count = |text: &str| text.chars().count();
            let parts = split(&text, most, &count);
            let mut done = 0;
            for part in &parts {
                prop_assert!(part.start <= done && part.end >= done);
                prop_assert!(count(&text[part.clone()]) <= most);
                done = part.end;
            }
            prop_assert_eq!(done, text.len());
        }
    }
}
