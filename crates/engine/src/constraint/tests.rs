//! Texts under constraints, drawn from random logits: whatever a model prefers, they parse and validate.

use super::{Constraint, ConstraintError, ConstraintSpec, Grammar, Vocabulary};
use crate::{
    FinishReason,
    continuation::Continuation,
    sampling::{Sampler, SamplingOptions},
};
use blackletter_tokenizer::Tokenizer;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use std::path::Path;

const EOS: u32 = 1;

fn tokenizer() -> Tokenizer {
    Tokenizer::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/tiny")).unwrap()
}

fn vocabulary(tokenizer: &Tokenizer) -> Vocabulary {
    Vocabulary::new(tokenizer, tokenizer.vocab_size(), &[EOS]).unwrap()
}

/// A text of at most `most` tokens, drawn from logits that are random.
fn draw(tokenizer: &Tokenizer, grammar: &Grammar, most: usize, seed: u64) -> (String, FinishReason) {
    let vocab = tokenizer.vocab_size();
    let options = SamplingOptions { top_k: 0, ..SamplingOptions::default() };
    let sampler = Sampler::new(options, seed, 0, vocab);
    let mut continuation = Continuation::new(&[], most, &[EOS], sampler, Some(grammar));
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut logits = vec![0.0; vocab];
    while continuation.finished.is_none() {
        logits.iter_mut().for_each(|l| *l = random.random::<f32>() * 4.0 - 2.0);
        continuation.choose(&mut logits).unwrap();
    }
    let bytes = tokenizer.decode_bytes(&continuation.ids, true);
    let reason = continuation.finished.unwrap();
    // What the limit cuts may end within a character.
    assert!(reason == FinishReason::Length || std::str::from_utf8(&bytes).is_ok());
    (String::from_utf8_lossy(&bytes).into_owned(), reason)
}

fn least(grammar: &Grammar) -> usize {
    Constraint::new(grammar, usize::MAX).least_tokens().expect("the follower knows JSON")
}

/// Draws several documents of a schema with several limits and checks each.
fn check(
    tokenizer: &Tokenizer,
    vocabulary: &Vocabulary,
    schema: &Value,
    seeds: u64,
) -> Result<(), ConstraintError> {
    let grammar = vocabulary.compile(&ConstraintSpec::JsonSchema(schema.clone()))?;
    let validator = jsonschema::options().should_validate_formats(true).build(schema).unwrap();
    let least = least(&grammar);
    for seed in 0..seeds {
        for most in [least, least + 1, least + 7, least + 60] {
            let (text, reason) = draw(tokenizer, &grammar, most, seed);
            assert_ne!(reason, FinishReason::Length, "{schema}: {text} with {most} of at least {least}");
            let value: Value =
                serde_json::from_str(&text).unwrap_or_else(|e| panic!("{schema}: {text}: {e}"));
            let errors: Vec<String> = validator.iter_errors(&value).map(|e| e.to_string()).collect();
            assert!(errors.is_empty(), "{schema}: {text}: {errors:?}");
            assert_eq!(compact(&text), text, "{schema}");
        }
    }
    if least > 1 {
        assert_eq!(draw(tokenizer, &grammar, least - 1, 0).1, FinishReason::Length, "{schema}");
    }
    Ok(())
}

/// The text without white space outside strings.
fn compact(text: &str) -> String {
    let (mut inside, mut escaped) = (false, false);
    text.chars()
        .filter(|&c| {
            let keep = inside || !c.is_whitespace();
            (inside, escaped) =
                (if c == '"' && !escaped { !inside } else { inside }, inside && c == '\\' && !escaped);
            keep
        })
        .collect()
}

/// Schemas such as people write for contracts, filings and rules.
fn written() -> Vec<Value> {
    let party = json!({ "type": "object", "properties": { "name": { "type": "string", "minLength": 1, "maxLength": 60 },
        "role": { "enum": ["buyer", "seller", "agent"] }, "address": { "type": ["string", "null"] } }, "required": ["name", "role"],
        "additionalProperties": false });
    let money = json!({ "type": "object", "properties": { "amount": { "type": "number", "minimum": 0, "exclusiveMaximum": 1e9 },
        "currency": { "type": "string", "pattern": "^[A-Z]{3}$" } }, "required": ["amount", "currency"] });
    vec![
        json!({}),
        json!(true),
        json!({ "type": "object" }),
        json!({ "type": "array" }),
        json!({ "type": "number" }),
        json!({ "type": "integer" }),
        json!({ "type": "string" }),
        json!({ "type": ["null", "boolean"] }),
        json!({ "type": "object", "properties": { "parties": { "type": "array", "items": party.clone(), "minItems": 2, "maxItems": 5 },
            "effective": { "type": "string", "format": "date" }, "price": money.clone(), "governing_law": { "type": "string", "maxLength": 40 } },
            "required": ["parties", "effective", "governing_law"], "additionalProperties": false }),
        json!({ "$schema": "http://json-schema.org/draft-07/schema#", "$ref": "#/definitions/node", "definitions": { "node": {
            "type": "object", "properties": { "title": { "type": "string" }, "children": { "type": "array", "items": { "$ref": "#/definitions/node" } } },
            "required": ["title", "children"], "additionalProperties": false } } }),
        json!({ "type": "object", "properties": { "citation": { "type": "string", "pattern": "^[0-9]{1,2} U\\.S\\.C\\. § ?[0-9]+[a-z]?$" },
            "section": { "type": "integer", "minimum": 1, "maximum": 9999 } }, "required": ["citation", "section"] }),
        json!({ "anyOf": [party.clone(), money.clone(), { "type": "null" }] }),
        json!({ "oneOf": [{ "type": "string", "maxLength": 4 }, { "type": "integer", "multipleOf": 5 }, { "type": "boolean" }] }),
        json!({ "allOf": [{ "type": "object", "properties": { "a": { "type": "integer" } }, "required": ["a"] },
            { "type": "object", "properties": { "b": { "type": "string" } }, "required": ["b"] }] }),
        json!({ "type": "array", "prefixItems": [{ "const": "v1" }, { "type": "integer", "exclusiveMinimum": -3, "maximum": 12 }],
            "items": { "type": "boolean" }, "minItems": 2 }),
        json!({ "type": "object", "additionalProperties": { "type": "integer", "minimum": 0 } }),
        json!({ "type": "object", "patternProperties": { "^x-[a-z]+$": { "type": "string" } }, "properties": { "id": { "type": "integer" } },
            "required": ["id"], "additionalProperties": false }),
        json!({ "type": "object", "minProperties": 1, "maxProperties": 4, "additionalProperties": { "type": "boolean" } }),
        json!({ "type": "object", "properties": { "when": { "type": "string", "format": "date-time" }, "at": { "type": "string", "format": "time" },
            "mail": { "type": "string", "format": "email" }, "host": { "type": "string", "format": "hostname" }, "link": { "type": "string", "format": "uri" },
            "id": { "type": "string", "format": "uuid" }, "ip": { "type": "string", "format": "ipv4" }, "six": { "type": "string", "format": "ipv6" },
            "for": { "type": "string", "format": "duration" }, "pointer": { "type": "string", "format": "json-pointer" },
            "expression": { "type": "string", "format": "regex" }, "here": { "type": "string", "format": "uri-reference" }, "n": { "format": "int32" } },
            "required": ["when", "at", "mail", "host", "link", "id", "ip", "six", "for", "pointer", "expression", "here"] }),
        json!({ "enum": ["approved", "denied", null, 3, 2.5, { "a": [1, "x"] }, []] }),
        json!({ "const": { "jurisdiction": "Delaware", "§": ["\"quoted\"", "back\\slash", "tab\t"] } }),
        json!({ "type": "string", "minLength": 12, "maxLength": 15 }),
        json!({ "type": "string", "pattern": "^(whereas|therefore), .{3,20}\\.$" }),
        json!({ "type": "string", "pattern": "[0-9]{3}" }),
        json!({ "type": "integer", "minimum": 1000000, "multipleOf": 7 }),
        json!({ "type": "number", "multipleOf": 0.25, "minimum": -2, "maximum": 2 }),
        json!({ "type": "number", "minimum": 1e14 }),
        json!({ "type": "object", "required": ["unlisted"], "properties": { "listed": { "type": "null" } } }),
        json!({ "type": "object", "properties": { "open": true, "never": false }, "required": ["open"] }),
        json!({ "type": "array", "items": { "type": "array", "items": { "type": "array", "maxItems": 2 }, "minItems": 1 }, "maxItems": 3 }),
        json!({ "$ref": "#/$defs/a", "$defs": { "a": { "anyOf": [{ "type": "integer" }, { "type": "array", "items": { "$ref": "#/$defs/a" }, "minItems": 1 }] } } }),
        json!({ "type": "object", "properties": { "a\"b": { "type": "integer" }, "é\n": { "type": "string" } }, "required": ["a\"b", "é\n"] }),
        json!({ "maxLength": 3, "maximum": 10, "maxItems": 1, "type": ["string", "number", "array"] }),
        json!({ "type": "array", "uniqueItems": true, "maxItems": 1 }),
    ]
}

/// A random schema; `depth` bounds what lies in what.
fn schema(random: &mut ChaCha8Rng, depth: usize) -> Value {
    let kind = random.random_range(0..if depth == 0 { 8 } else { 13 });
    let mut number = |low: i64, high: i64| random.random_range(low..=high);
    match kind {
        0 => json!({ "type": "boolean" }),
        1 => {
            let low = number(-300, 300);
            json!({ "type": "integer", "minimum": low, "maximum": low + number(0, 2000) })
        }
        2 => {
            let low = number(-50, 50) as f64 / 4.0;
            json!({ "type": "number", "exclusiveMinimum": low, "maximum": low + number(1, 900) as f64 / 8.0 })
        }
        3 => {
            let low = number(0, 6);
            json!({ "type": "string", "minLength": low, "maxLength": low + number(0, 20) })
        }
        4 => {
            let patterns = [
                "^[a-z]{2,5}$",
                "^\\d+(\\.\\d{2})?$",
                "ab+c",
                "^(Art|Sec)\\. [IVX]+$",
                "^.$",
                "^\\S+\\s\\S+$",
                "^[^a-z]*$",
                "x|y",
            ];
            json!({ "type": "string", "pattern": patterns[number(0, 7) as usize] })
        }
        5 => {
            let words = ["plaintiff", "defendant", "the", "§ 12", "", "a\"b", "x"];
            let list: Vec<Value> =
                (0..number(1, 4)).map(|i| json!(words[((number(0, 6) + i) % 7) as usize])).collect();
            json!({ "enum": list })
        }
        6 => {
            let formats = [
                "date",
                "date-time",
                "time",
                "email",
                "uuid",
                "ipv4",
                "hostname",
                "uri",
                "duration",
                "json-pointer",
            ];
            json!({ "type": "string", "format": formats[number(0, 9) as usize] })
        }
        7 => json!({ "const": [number(-9, 9), "v", null] }),
        8 | 9 => {
            let names = ["name", "date", "parties", "amount", "clause", "note", "§", "id number"];
            let count = number(0, 5);
            let mut properties = serde_json::Map::new();
            let mut required = Vec::new();
            for i in 0..count {
                let name = names[((i * 3 + number(0, 1)) % 8) as usize];
                if number(0, 1) == 1 && !required.contains(&name) {
                    required.push(name);
                }
                properties.insert(name.into(), Value::Null);
            }
            let open = number(0, 3);
            for value in properties.values_mut() {
                *value = schema(random, depth - 1);
            }
            let mut object = json!({ "type": "object", "properties": properties, "required": required });
            match open {
                0 | 1 => object["additionalProperties"] = json!(false),
                2 => object["additionalProperties"] = schema(random, depth - 1),
                _ => {}
            }
            object
        }
        10 => {
            let low = number(0, 3);
            let high = low + number(0, 3);
            json!({ "type": "array", "items": schema(random, depth - 1), "minItems": low, "maxItems": high })
        }
        11 => {
            let first = schema(random, depth - 1);
            json!({ "anyOf": [first, schema(random, depth - 1), { "type": "null" }] })
        }
        _ => {
            let first = schema(random, depth - 1);
            json!({ "type": "array", "prefixItems": [first, schema(random, depth - 1)], "items": false, "minItems": 1 })
        }
    }
}

#[test]
fn documents_of_schemas_as_people_write_them_parse_validate_and_end_in_time() {
    let tokenizer = tokenizer();
    let vocabulary = vocabulary(&tokenizer);
    for schema in written() {
        check(&tokenizer, &vocabulary, &schema, 6).unwrap_or_else(|e| panic!("{schema}: {e}"));
    }
}

#[test]
fn documents_of_schemas_of_all_trades_parse_validate_and_end_in_time() {
    let tokenizer = tokenizer();
    let vocabulary = vocabulary(&tokenizer);
    for line in include_str!("../../tests/schemas.jsonl").lines() {
        let schema = serde_json::from_str(line).unwrap();
        check(&tokenizer, &vocabulary, &schema, 2).unwrap_or_else(|e| panic!("{schema}: {e}"));
    }
}

#[test]
fn schemas_that_would_take_too_long_come_to_an_end() {
    let tokenizer = tokenizer();
    let vocabulary = vocabulary(&tokenizer);
    let compile = |schema: Value| vocabulary.compile(&ConstraintSpec::JsonSchema(schema));
    // A long row of references is followed to its end.
    let mut row: serde_json::Map<String, Value> =
        (0..4000).map(|i| (format!("d{i}"), json!({ "$ref": format!("#/$defs/d{}", i + 1) }))).collect();
    row.insert("d4000".into(), json!({ "type": "null" }));
    let grammar = compile(json!({ "$ref": "#/$defs/d0", "$defs": row })).unwrap();
    assert_eq!(draw(&tokenizer, &grammar, 20, 0).0, "null");
    // The one place that cannot be kept is found among thousands.
    let fine = json!({ "oneOf": [{ "type": "integer" }, { "type": "string" }] });
    let mut properties: serde_json::Map<String, Value> =
        (0..1000).map(|i| (format!("p{i}"), fine.clone())).collect();
    properties.insert("p777".into(), json!({ "oneOf": [{ "type": "integer" }, { "type": "number" }] }));
    let refused = compile(json!({ "type": "object", "properties": properties })).err().unwrap().to_string();
    assert!(refused.starts_with("unsupported keyword: oneOf at /properties/p777/oneOf"), "{refused}");
    // Alternatives that lead to themselves in eight ways, sixteen deep, are not followed through all of them.
    let again = vec![json!({ "$ref": "#/$defs/x" }); 8];
    let alternatives = [json!({ "$ref": "#/$defs/x" }), json!({ "type": "string" })];
    assert!(compile(json!({ "$defs": { "x": { "anyOf": again } }, "oneOf": alternatives })).is_err());
    // More choices for one of the first tokens than can be followed are refused before any text is made.
    let properties: serde_json::Map<String, Value> =
        (0..3000).map(|i| (format!("p{i}"), json!({ "type": "integer" }))).collect();
    let wide = compile(json!({ "type": "object", "properties": properties, "additionalProperties": false }));
    assert!(matches!(wide.err().unwrap(), ConstraintError::TooComplex(_)));
    // Patterns that multiply each other, and a shortest text beyond all limits.
    let patterns: Vec<Value> =
        (0..300).map(|i| json!({ "type": "string", "pattern": format!(".*a.*{i}.*") })).collect();
    let refused = compile(json!({ "properties": { "a": { "allOf": patterns } } })).err().unwrap().to_string();
    assert!(refused.starts_with("unsupported keyword: allOf at /properties/a/allOf"), "{refused}");
    let doubling: serde_json::Map<String, Value> = (0..28)
        .map(|i| {
            let next = json!({ "$ref": format!("#/$defs/d{}", i + 1) });
            (format!("d{i}"), json!({ "type": "array", "prefixItems": [next.clone(), next], "minItems": 2, "items": false }))
        })
        .chain([("d28".to_string(), json!({ "type": "null" }))])
        .collect();
    let grammar = compile(json!({ "$ref": "#/$defs/d0", "$defs": doubling })).unwrap();
    assert_eq!(draw(&tokenizer, &grammar, 20, 0).1, FinishReason::Length);
}

/// Schemas of a kilobyte or two of which too much comes together on one value, by the keyword that brings it there.
fn without_end() -> Vec<(&'static str, Value)> {
    let pattern = |i: usize| json!({ "type": "string", "pattern": format!(".*a.*{i}.*") });
    let all = |of: &dyn Fn(usize) -> Value| json!({ "allOf": (0..12).map(of).collect::<Vec<Value>>() });
    let list = |i: usize| json!({ "type": "array", "items": pattern(i) });
    let object = |i: usize, key: &str| json!({ "type": "object", key: { "x": pattern(i) } });
    let nested = |key: &str| {
        let one = |inner, i| json!({ "type": "string", "pattern": format!(".*a.*{i}.*"), key: [inner] });
        (1..12).fold(pattern(0), one)
    };
    let beside = |target: String, i: usize| json!({ "$ref": target, "pattern": format!(".*a.*{i}.*") });
    let mut row: serde_json::Map<String, Value> =
        (0..12).map(|i| (format!("d{i}"), beside(format!("#/$defs/d{}", i + 1), i))).collect();
    row.insert("d12".into(), pattern(12));
    let defs: serde_json::Map<String, Value> = (0..12).map(|i| (format!("d{i}"), pattern(i))).collect();
    let mut encoded = all(&|i| json!({ "$ref": format!("#/%24defs/%64{i}") }));
    encoded["$defs"] = json!(defs);
    // Both parts of each are copies of the next.
    let copy = |i: usize, name: &str| json!({ "$ref": format!("#/$defs/d{}", i + 1), "required": [name] });
    let mut copies: serde_json::Map<String, Value> = (0..30)
        .map(|i| {
            (
                format!("d{i}"),
                json!({ "type": "object", "properties": { "a": copy(i, "a"), "b": copy(i, "b") } }),
            )
        })
        .collect();
    copies.insert("d30".into(), json!({ "type": "object" }));
    let again = |i: usize| vec![json!({ "$ref": format!("#/$defs/d{}", i + 1) }); 2];
    let mut doubled: serde_json::Map<String, Value> =
        (0..28).map(|i| (format!("d{i}"), json!({ "allOf": again(i) }))).collect();
    doubled.insert("d28".into(), json!({ "const": "a" }));
    let mut other = all(&|i| json!({ "type": "object", "additionalProperties": pattern(i) }));
    other["properties"] = json!({ "x": { "type": "string" } });
    vec![
        ("anyOf", nested("anyOf")),
        ("oneOf", nested("oneOf")),
        ("allOf", nested("allOf")),
        ("$ref", json!({ "$ref": "#/$defs/d0", "$defs": row })),
        ("allOf", encoded),
        ("allOf", all(&|i| object(i, "properties"))),
        ("allOf", all(&|i| object(i, "patternProperties"))),
        ("allOf", all(&|i| json!({ "type": "object", "properties": { "y": object(i, "properties") } }))),
        ("allOf", all(&list)),
        ("allOf", all(&|i| json!({ "type": "array", "items": [pattern(i)] }))),
        ("allOf", all(&|i| json!({ "type": "array", "prefixItems": [{}, list(i)] }))),
        (
            "allOf",
            all(&|i| json!({ "type": "array", "prefixItems": vec![json!({}); i], "items": pattern(i) })),
        ),
        ("allOf", other),
        ("allOf", all(&|i| json!({ "anyOf": [pattern(i), { "type": "null" }] }))),
        (
            "allOf",
            json!({ "allOf": vec![json!({ "anyOf": [pattern(1), pattern(2), pattern(3), pattern(4)] }); 6] }),
        ),
        ("$ref", json!({ "$ref": "#/$defs/d0", "$defs": copies })),
        ("multipleOf", json!({ "properties": { "a": { "type": "integer", "multipleOf": 1000003 } } })),
        ("allOf", json!({ "$ref": "#/$defs/d0", "$defs": doubled })),
    ]
}

#[test]
fn what_would_come_together_without_end_is_refused_at_once() {
    let tokenizer = tokenizer();
    let vocabulary = std::sync::Arc::new(vocabulary(&tokenizer));
    for (keyword, schema) in without_end() {
        let (told, refused) = std::sync::mpsc::channel();
        let (vocabulary, text) = (vocabulary.clone(), schema.to_string());
        std::thread::spawn(move || {
            told.send(vocabulary.compile(&ConstraintSpec::JsonSchema(schema)).err()).unwrap();
        });
        let refused = refused.recv_timeout(std::time::Duration::from_secs(20));
        let refused = refused.unwrap_or_else(|_| panic!("no end: {text}"));
        let told = refused.unwrap_or_else(|| panic!("not refused: {text}")).to_string();
        let expected = format!("unsupported keyword: {keyword} at ");
        assert!(told.starts_with(&expected) && told.contains("/") && told.contains(" ("), "{text}: {told}");
    }
}

#[test]
fn documents_of_random_schemas_parse_validate_and_end_in_time() {
    let tokenizer = tokenizer();
    let vocabulary = vocabulary(&tokenizer);
    let mut refused = 0;
    for seed in 0..300 {
        let schema = schema(&mut ChaCha8Rng::seed_from_u64(seed), 3);
        match check(&tokenizer, &vocabulary, &schema, 2) {
            Ok(()) => {}
            Err(ConstraintError::Schema(_)) => refused += 1,
            Err(e) => panic!("{schema}: {e}"),
        }
    }
    assert!(refused < 15, "{refused} of 300");
}

#[test]
fn what_cannot_be_kept_is_refused_with_its_place() {
    let tokenizer = tokenizer();
    let vocabulary = vocabulary(&tokenizer);
    let refused =
        |schema: Value| vocabulary.compile(&ConstraintSpec::JsonSchema(schema)).err().unwrap().to_string();
    let one = json!({ "oneOf": [{ "type": "integer" }, { "type": "number" }] });
    let schema = json!({ "properties": { "fine": { "oneOf": [{ "type": "integer" }, { "type": "null" }] }, "bad": one } });
    assert!(refused(schema).starts_with("unsupported keyword: oneOf at /properties/bad/oneOf"));
    let schema = json!({ "items": { "type": "object", "properties": { "a": {}, "b": {} }, "minProperties": 1 }, "type": "array" });
    assert!(refused(schema).starts_with("unsupported keyword: minProperties at /items/minProperties"));
    assert!(
        refused(json!({ "type": "integer", "minimum": 3, "maximum": 2 }))
            .starts_with("the JSON schema cannot be used")
    );
    assert!(
        refused(json!({ "type": "number", "minimum": 1e20 })).starts_with("the JSON schema cannot be used")
    );
    assert!(
        refused(json!({ "type": "number", "multipleOf": 0.01 }))
            .starts_with("unsupported keyword: multipleOf at /multipleOf (")
    );
    assert!(refused(json!(false)).starts_with("the JSON schema cannot be used"));
    assert!(refused(json!({ "type": "wrong" })).starts_with("the JSON schema cannot be used"));
    assert!(
        refused(json!({ "const": 9007199254740993u64 })).starts_with("unsupported keyword: const at /const")
    );
    // A schema cannot change how schemas are read.
    let lenient = json!({ "x-guidance": { "lenient": true }, "not": {} });
    assert_eq!(refused(lenient), "unsupported keyword: not at /not");
}

#[test]
fn texts_match_their_expression_and_choices_are_kept_to() {
    let tokenizer = tokenizer();
    let vocabulary = vocabulary(&tokenizer);
    let grammar = vocabulary.compile(&ConstraintSpec::Regex("(§ )?[0-9]{2,4}(/[a-c]+)?".into())).unwrap();
    let least = least(&grammar);
    assert!(least <= 2);
    for seed in 0..50 {
        let (text, reason) = draw(&tokenizer, &grammar, 12, seed);
        assert_ne!(reason, FinishReason::Length, "{text}");
        let digits = text.trim_start_matches("§ ");
        let (number, rest) = digits.split_once('/').unwrap_or((digits, "a"));
        assert!((2..=4).contains(&number.len()) && number.bytes().all(|b| b.is_ascii_digit()), "{text}");
        assert!(!rest.is_empty() && rest.bytes().all(|b| (b'a'..=b'c').contains(&b)), "{text}");
    }
    let choices = ["granted", "granted in part", "de(n)ied?", "\"§\""];
    let spec = ConstraintSpec::Choice(choices.map(String::from).to_vec());
    let grammar = vocabulary.compile(&spec).unwrap();
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..100 {
        let (text, _) = draw(&tokenizer, &grammar, 40, seed);
        assert!(choices.contains(&text.as_str()), "{text}");
        seen.insert(text);
    }
    assert_eq!(seen.len(), choices.len());
    assert!(vocabulary.compile(&ConstraintSpec::Choice(vec![])).is_err());
    assert!(vocabulary.compile(&ConstraintSpec::Regex("a(?=b)".into())).is_err());
}

#[test]
fn texts_follow_a_grammar_and_end_in_time() {
    let tokenizer = tokenizer();
    let vocabulary = vocabulary(&tokenizer);
    let lark =
        "start: \"(\" sum \")\"\nsum: term (\"+\" term)*\nterm: NUMBER | \"(\" sum \")\"\nNUMBER: /[0-9]+/\n";
    let grammar = vocabulary.compile(&ConstraintSpec::Lark(lark.into())).unwrap();
    for seed in 0..50 {
        let (text, reason) = draw(&tokenizer, &grammar, 25, seed);
        assert_ne!(reason, FinishReason::Length, "{text}");
        let depth = text.bytes().try_fold(0i32, |d, b| {
            let d = d + i32::from(b == b'(') - i32::from(b == b')');
            (d >= 0).then_some(d)
        });
        assert_eq!(depth, Some(0), "{text}");
    }
    assert!(matches!(
        vocabulary.compile(&ConstraintSpec::Lark("start: nothing".into())),
        Err(ConstraintError::Lark(_))
    ));
}

#[test]
fn the_published_tokenizer_writes_documents_with_its_own_space() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/reference/kl3m-001-32k");
    if !dir.exists() {
        println!("skipped: {} is not there", dir.display());
        return;
    }
    let tokenizer = Tokenizer::load(&dir).unwrap();
    let vocabulary = Vocabulary::new(&tokenizer, 32768, &[EOS]).unwrap();
    for schema in written() {
        check(&tokenizer, &vocabulary, &schema, 2).unwrap_or_else(|e| panic!("{schema}: {e}"));
    }
    let grammar = vocabulary.compile(&ConstraintSpec::Choice(vec!["a b".into()])).unwrap();
    let mut constraint = Constraint::new(&grammar, 9);
    let mut ids = Vec::new();
    let mut logits = vec![0.0; 32768];
    let space = blackletter_tokenizer::SpecialTokens::AsText;
    for id in tokenizer.encode("a b", space).unwrap() {
        constraint.mask(&mut logits).unwrap();
        assert_eq!(constraint.offer(id, 9).unwrap(), super::Verdict::Taken, "{id}");
        logits.fill(0.0);
        ids.push(id);
    }
    assert!(ids.contains(&31673) && constraint.is_ended());
}
