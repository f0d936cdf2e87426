//! What a JSON schema may ask for.
//!
//! [`prepare`] walks every schema that can be reached from the root, follows local references, and
//!
//! - refuses keywords that nobody holds to here, with their place;
//! - takes out annotations, and keywords that say nothing where they stand;
//! - narrows what validators read in different ways: `.` in a pattern matches no line separator of any kind, formats are
//!   patterns that the strictest validators accept. A narrower schema accepts less, never more;
//! - refuses more for one value than can be compiled (`merged`).

use super::{ConstraintError, apart::are_apart, merged};
use llguidance::{derivre::RegexBuilder, regex_to_lark};
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value, json};
use std::collections::HashSet;

/// Schemas within schemas.
const DEEPEST: usize = 64;

/// Schemas in all: they are followed by recursion, which takes room.
const MOST_SCHEMAS: usize = 20_000;

/// Schemas that are looked at to tell alternatives apart, in all.
const MOST_COMPARED: usize = 2_000_000;

/// Keywords that say something and are not kept here.
const UNSUPPORTED: [&str; 19] = [
    "not",
    "if",
    "contains",
    "minContains",
    "maxContains",
    "uniqueItems",
    "propertyNames",
    "dependencies",
    "dependentRequired",
    "dependentSchemas",
    "unevaluatedProperties",
    "unevaluatedItems",
    "$dynamicRef",
    "$recursiveRef",
    "then",
    "else",
    "extends",
    "disallow",
    "divisibleBy",
];

/// Keywords that say nothing about what is valid.
const ANNOTATIONS: [&str; 15] = [
    "title",
    "description",
    "default",
    "examples",
    "$comment",
    "readOnly",
    "writeOnly",
    "deprecated",
    "contentMediaType",
    "contentEncoding",
    "contentSchema",
    "$vocabulary",
    "$dynamicAnchor",
    "$recursiveAnchor",
    "x-guidance",
];

/// The largest integer to which all smaller ones are floats.
const LARGEST_EXACT: u64 = 1 << 53;

/// Checks a schema and makes it ready.
///
/// # Errors
/// Names the first keyword that cannot be kept.
pub fn prepare(schema: &Value) -> Result<Value, ConstraintError> {
    let named = schema.to_string().contains("/oneOf/");
    let mut walk = Walk {
        root: schema.clone(),
        original: schema.clone(),
        named,
        looks: MOST_COMPARED,
        ..Walk::default()
    };
    let done = walk.schema(schema, "", 0)?;
    walk.replace("", done);
    while let Some((pointer, from)) = walk.wanted.pop() {
        if !walk.seen.insert(pointer.clone()) {
            continue;
        }
        match walk.root.pointer(&pointer).cloned() {
            Some(target) => {
                let done = walk.schema(&target, &pointer, 0)?;
                walk.replace(&pointer, done);
            }
            None => return Err(unsupported("$ref", &from, &format!("there is nothing at #{pointer}"))),
        }
    }
    merged::check(&walk.root, schema)?;
    Ok(walk.root)
}

/// Says which keyword `message` of the compiler is about; `compile` tells what it says of another schema.
pub fn explain(schema: &Value, message: &str, compile: impl Fn(&Value) -> Option<String>) -> ConstraintError {
    let kinds: [(&str, &[&str]); 3] = [
        ("oneOf constraints are not supported", &["oneOf"]),
        ("min/maxProperties only supported", &["minProperties", "maxProperties"]),
        ("circular references with sibling keys", &["$ref"]),
    ];
    for (part, keywords) in kinds {
        if !message.contains(part) {
            continue;
        }
        let mut places = Vec::new();
        find(schema, "", keywords, &mut places);
        let complains = |kept: &[String]| {
            let mut alone = schema.clone();
            places.iter().filter(|place| !kept.contains(place)).for_each(|place| take_out(&mut alone, place));
            compile(&alone).is_some_and(|m| m.contains(part))
        };
        // The place that is still complained about when it is the only one left, by halves.
        let mut left = places.as_slice();
        while let Some((first, second)) = left.split_at_checked(left.len() / 2).filter(|_| left.len() > 1) {
            left = if complains(first) { first } else { second };
        }
        if let [place] = left
            && (places.len() == 1 || complains(left))
        {
            let keyword = place.rsplit('/').next().unwrap_or_default();
            let why = match keyword {
                "oneOf" => "its alternatives cannot be told apart; use anyOf",
                "$ref" => "it leads back to itself beside other keywords",
                _ => "beside optional properties",
            };
            return unsupported(keyword, place, why);
        }
    }
    ConstraintError::Schema(message.trim_start_matches("Unsatisfiable schema: ").to_string())
}

pub(super) fn unsupported(keyword: &str, pointer: &str, why: &str) -> ConstraintError {
    ConstraintError::UnsupportedKeyword { keyword: keyword.into(), pointer: pointer.into(), why: why.into() }
}

/// Pointers to keywords, wherever they stand.
fn find(value: &Value, pointer: &str, keywords: &[&str], out: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            for (key, inner) in map {
                let at = format!("{pointer}/{}", escape(key));
                if keywords.contains(&key.as_str()) {
                    out.push(at.clone());
                }
                find(inner, &at, keywords, out);
            }
        }
        Value::Array(list) => {
            for (i, inner) in list.iter().enumerate() {
                find(inner, &format!("{pointer}/{i}"), keywords, out);
            }
        }
        _ => {}
    }
}

fn take_out(schema: &mut Value, pointer: &str) {
    let Some((parent, key)) = pointer.rsplit_once('/') else { return };
    if let Some(Value::Object(map)) = schema.pointer_mut(parent) {
        map.remove(&unescape(key));
    }
}

pub(super) fn escape(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

fn unescape(key: &str) -> String {
    key.replace("~1", "/").replace("~0", "~")
}

#[derive(Default)]
struct Walk {
    root: Value,
    /// The root before anything was made ready.
    original: Value,
    /// Whether a reference may lead through `oneOf`, whose name stays then.
    named: bool,
    /// How much more may be looked at to tell alternatives apart.
    looks: usize,
    /// Pointers of schemas that have been made ready.
    seen: HashSet<String>,
    /// Pointers that references lead to, and the references.
    wanted: Vec<(String, String)>,
}

impl Walk {
    fn replace(&mut self, pointer: &str, schema: Value) {
        if let Some(place) = self.root.pointer_mut(pointer) {
            *place = schema;
        }
    }

    fn schema(&mut self, schema: &Value, pointer: &str, depth: usize) -> Result<Value, ConstraintError> {
        self.seen.insert(pointer.into());
        if self.seen.len() > MOST_SCHEMAS {
            return Err(ConstraintError::Schema(format!(
                "it has more than {MOST_SCHEMAS} schemas within it"
            )));
        }
        if depth > DEEPEST {
            return Err(ConstraintError::Schema(format!(
                "schemas lie more than {DEEPEST} deep in each other, at {pointer}"
            )));
        }
        let map = match schema {
            Value::Bool(_) => return Ok(schema.clone()),
            Value::Object(map) => map,
            _ => {
                let at = if pointer.is_empty() { "the root" } else { pointer };
                return Err(ConstraintError::Schema(format!("{at} is neither an object nor true or false")));
            }
        };
        let mut out = Map::new();
        for (key, value) in map {
            let at = format!("{pointer}/{}", escape(key));
            if let Some(kept) = self.keyword(key, value, map, &at, depth)? {
                let any = key == "oneOf" && !map.contains_key("anyOf") && self.is_any(value);
                out.insert(if any { "anyOf".into() } else { key.clone() }, kept);
            }
        }
        if let Some(format) = map.get("format").and_then(Value::as_str)
            && let Some(pattern) = format_pattern(format)
        {
            // Beside a pattern, the wider form of the format that the compiler knows may be all that can be met.
            if !map.contains_key("pattern") {
                out.remove("format");
                out.insert("pattern".into(), json!(pattern));
            } else if !COMPILED_FORMATS.contains(&format) {
                out.remove("format");
                let both = out.entry("allOf").or_insert_with(|| json!([]));
                if let Value::Array(all) = both {
                    all.push(json!({ "pattern": pattern }));
                }
            }
        }
        Ok(Value::Object(out))
    }

    /// Whether no value fits two of these schemas.
    fn is_any(&mut self, schemas: &Value) -> bool {
        let list = schemas.as_array().map(Vec::as_slice).unwrap_or_default();
        let Self { original, looks, named, .. } = self;
        !*named
            && (1..)
                .zip(list)
                .all(|(next, a)| list.iter().skip(next).all(|b| are_apart(original, a, b, looks)))
    }

    /// A keyword as it stays; none when it goes.
    fn keyword(
        &mut self,
        key: &str,
        value: &Value,
        beside: &Map<String, Value>,
        at: &str,
        depth: usize,
    ) -> Result<Option<Value>, ConstraintError> {
        if ANNOTATIONS.contains(&key) || says_nothing(key, value, beside) {
            return Ok(None);
        }
        if UNSUPPORTED.contains(&key) {
            return Err(unsupported(key, at, ""));
        }
        let required = beside.get("required").and_then(Value::as_array).map_or(0, Vec::len) as u64;
        if key == "minProperties" && value.as_u64().is_some_and(|least| least > required + 1) {
            return Err(unsupported(key, at, "more than one property whose name is not required"));
        }
        let kept = match key {
            "properties" | "patternProperties" => {
                let Value::Object(map) = value else { return Ok(Some(value.clone())) };
                let mut out = Map::new();
                for (name, schema) in map {
                    let at = format!("{at}/{}", escape(name));
                    let name =
                        if key == "properties" { name.clone() } else { check_pattern(key, name, &at)? };
                    out.insert(name, self.schema(schema, &at, depth + 1)?);
                }
                Value::Object(out)
            }
            "items" | "prefixItems" | "allOf" | "anyOf" | "oneOf" if value.is_array() => {
                let list = value.as_array().map(Vec::as_slice).unwrap_or_default();
                let mut out = Vec::new();
                for (i, schema) in list.iter().enumerate() {
                    out.push(self.schema(schema, &format!("{at}/{i}"), depth + 1)?);
                }
                Value::Array(out)
            }
            "items" | "additionalItems" | "additionalProperties" => self.schema(value, at, depth + 1)?,
            "$ref" => {
                let target = value.as_str().unwrap_or_default();
                let Some(pointer) = target.strip_prefix('#').filter(|p| p.is_empty() || p.starts_with('/'))
                else {
                    return Err(unsupported(
                        "$ref",
                        at,
                        "only references within the schema, such as #/$defs/name",
                    ));
                };
                let pointer = percent_decode_str(pointer).decode_utf8_lossy();
                self.wanted.push((pointer.into_owned(), at.into()));
                value.clone()
            }
            "multipleOf" if value.as_f64().is_some_and(|step| (step * f64::from(1 << 20)).fract() != 0.0) => {
                let why = "validators that reckon in binary do not agree on its multiples; use a sum of halves, quarters and so on";
                return Err(unsupported(key, at, why));
            }
            "pattern" => match value.as_str() {
                Some(pattern) => json!(check_pattern(key, pattern, at)?),
                None => value.clone(),
            },
            "enum" | "const" => {
                if has_inexact(value) {
                    return Err(unsupported(
                        key,
                        at,
                        "an integer beyond 2^53 is not told apart from its neighbours",
                    ));
                }
                value.clone()
            }
            _ => value.clone(),
        };
        Ok(Some(kept))
    }
}

/// Whether a keyword changes nothing where it stands.
fn says_nothing(key: &str, value: &Value, beside: &Map<String, Value>) -> bool {
    let empty = |v: &Value| v.as_object().is_some_and(Map::is_empty);
    match key {
        "uniqueItems" => {
            *value == false || beside.get("maxItems").and_then(Value::as_u64).is_some_and(|n| n <= 1)
        }
        "if" => !beside.contains_key("then") && !beside.contains_key("else"),
        "then" | "else" => !beside.contains_key("if"),
        "minContains" | "maxContains" => !beside.contains_key("contains"),
        "unevaluatedProperties" | "unevaluatedItems" | "propertyNames" => *value == true || empty(value),
        "dependencies" | "dependentRequired" | "dependentSchemas" => empty(value),
        "not" => *value == false,
        "$schema" => !value.as_str().is_some_and(|s| DRAFTS.contains(&s.trim_end_matches('#'))),
        "format" => {
            value.as_str().is_some_and(|f| !COMPILED_FORMATS.contains(&f) && format_pattern(f).is_none())
        }
        // Identifiers matter to references by identifier alone, which are refused.
        "$id" | "id" | "$anchor" => true,
        _ => false,
    }
}

const DRAFTS: [&str; 5] = [
    "https://json-schema.org/draft/2020-12/schema",
    "https://json-schema.org/draft/2019-09/schema",
    "http://json-schema.org/draft-07/schema",
    "http://json-schema.org/draft-06/schema",
    "http://json-schema.org/draft-04/schema",
];

/// Formats that the compiler knows in their widest form.
const COMPILED_FORMATS: [&str; 10] =
    ["date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri"];

/// A pattern whose matches every validator takes for the format.
fn format_pattern(format: &str) -> Option<&'static str> {
    const URI: &str = "^https?://[a-z0-9]{1,20}(\\.[a-z]{2,12}){1,3}(/[A-Za-z0-9._~-]{0,40}){0,6}(\\?[A-Za-z0-9=&_-]{1,40})?$";
    Some(match format {
        "date" => "^[12][0-9]{3}-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])$",
        "date-time" => {
            "^[12][0-9]{3}-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,6})?(Z|[+-](0[0-9]|1[0-2]):[0-5][0-9])$"
        }
        "time" => {
            "^([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,6})?(Z|[+-](0[0-9]|1[0-2]):[0-5][0-9])$"
        }
        "email" | "idn-email" => {
            "^[a-zA-Z0-9_]{1,24}([.+-][a-zA-Z0-9_]{1,16}){0,2}@[a-zA-Z0-9]{1,24}(-[a-zA-Z0-9]{1,16})?(\\.[a-zA-Z]{2,10}){1,2}$"
        }
        "hostname" | "idn-hostname" => {
            "^[a-zA-Z][a-zA-Z0-9]{0,20}(-[a-zA-Z0-9]{1,16})?(\\.[a-zA-Z]{2,12}){0,3}$"
        }
        "uri" | "iri" | "uri-reference" | "iri-reference" | "uri-template" => URI,
        "json-pointer" => "^(/[A-Za-z0-9_-]{0,40}){0,8}$",
        "relative-json-pointer" => "^(0|[1-9][0-9]{0,3})(#|(/[A-Za-z0-9_-]{0,40}){0,8})$",
        "regex" => "^[A-Za-z0-9 _-]{0,60}$",
        _ => return None,
    })
}

/// A pattern that can be kept, with what validators differ in made narrow.
fn check_pattern(keyword: &str, pattern: &str, at: &str) -> Result<String, ConstraintError> {
    let narrow = narrow_pattern(pattern);
    let mut builder = RegexBuilder::new();
    match builder.mk_regex_for_serach(&regex_to_lark(&narrow, "dw")) {
        Ok(_) => Ok(narrow),
        Err(e) => {
            let why = e.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
            Err(unsupported(keyword, at, &why))
        }
    }
}

/// White space as any reader of `\s` has it: what a negated one has to leave out.
const ANY_SPACE: &str = concat!(
    r"\u{9}-\u{d}\u{1c}-\u{20}\u{85}\u{a0}\u{1680}\u{2000}-\u{200a}",
    r"\u{2028}\u{2029}\u{202f}\u{205f}\u{3000}\u{feff}"
);

/// `.` without the line ends of ECMAScript, `\s` without what only some take for white space, and what is not `\s` without what
/// any of them do.
fn narrow_pattern(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len());
    let (mut class, mut negated) = (false, false);
    let mut chars = pattern.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some('s') if negated => out.push_str(ANY_SPACE),
                Some('s') if class => out.push_str(r"\t\n\f\r "),
                Some('s') => out.push_str(r"[\t\n\f\r ]"),
                Some('S') if !class => out.extend(["[^", ANY_SPACE, "]"]),
                // An escaped slash is a slash.
                Some('/') => out.push('/'),
                Some(next) => out.extend(['\\', next]),
                None => out.push('\\'),
            },
            '.' if !class => out.push_str(r"[^\n\r\u{2028}\u{2029}]"),
            '[' if class => out.push_str(r"\["),
            _ => {
                negated = if c == '[' { chars.peek() == Some(&'^') } else { negated && c != ']' };
                class = (class || c == '[') && c != ']';
                out.push(c);
            }
        }
    }
    out
}

/// Whether a value has an integer that a float does not hold.
fn has_inexact(value: &Value) -> bool {
    match value {
        Value::Number(n) => n
            .as_i64()
            .map_or_else(|| n.as_u64(), |n| Some(n.unsigned_abs()))
            .is_some_and(|n| n > LARGEST_EXACT),
        Value::Array(list) => list.iter().any(has_inexact),
        Value::Object(map) => map.values().any(has_inexact),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(schema: Value) -> String {
        prepare(&schema).unwrap_err().to_string()
    }

    #[test]
    fn a_keyword_that_cannot_be_kept_is_named_with_its_place() {
        assert_eq!(
            refused(json!({ "properties": { "a/b": { "items": { "not": {} } } } })),
            "unsupported keyword: not at /properties/a~1b/items/not"
        );
        assert_eq!(
            refused(json!({ "$ref": "#/$defs/x", "$defs": { "x": { "uniqueItems": true } } })),
            "unsupported keyword: uniqueItems at /$defs/x/uniqueItems"
        );
        assert!(
            refused(json!({ "pattern": "(?=a)b" })).starts_with("unsupported keyword: pattern at /pattern (")
        );
        assert!(
            refused(json!({ "$ref": "https://example.com/a" }))
                .starts_with("unsupported keyword: $ref at /$ref (")
        );
    }

    #[test]
    fn names_of_properties_and_values_are_no_keywords() {
        let schema = json!({ "properties": { "not": { "enum": [{ "not": 1, "title": 2 }] }, "title": { "title": "t" } } });
        let expected =
            json!({ "properties": { "not": { "enum": [{ "not": 1, "title": 2 }] }, "title": {} } });
        assert_eq!(prepare(&schema).unwrap(), expected);
    }

    #[test]
    fn what_says_nothing_and_what_is_never_reached_is_no_obstacle() {
        let schema = json!({
            "$schema": "http://json-schema.org/schema#", "uniqueItems": false, "then": {}, "format": "int32",
            "$defs": { "unused": { "not": {} } }, "$ref": "#/components/a", "components": { "a": { "description": "d" } },
        });
        let made = prepare(&schema).unwrap();
        assert_eq!(made["components"]["a"], json!({}));
        assert!(made.get("format").is_none() && made.get("$schema").is_none());
    }

    #[test]
    fn one_of_schemas_that_are_apart_is_any_of_them() {
        let schema = json!({ "oneOf": [{ "type": "null" }, { "items": { "$ref": "#" }, "type": "array" }] });
        assert_eq!(prepare(&schema).unwrap(), json!({ "anyOf": schema["oneOf"] }));
        let named =
            json!({ "oneOf": [{ "type": "null" }, { "items": { "$ref": "#/oneOf/0" }, "type": "array" }] });
        assert_eq!(prepare(&named).unwrap(), named);
        let both = json!({ "oneOf": [{ "type": "null" }, { "type": "array" }], "anyOf": [{}] });
        assert_eq!(prepare(&both).unwrap(), both);
    }

    #[test]
    fn a_dot_matches_no_line_end_and_a_class_keeps_its_dot() {
        assert_eq!(
            narrow_pattern(r"^a.[.\s]\.\s\/$"),
            "^a[^\\n\\r\\u{2028}\\u{2029}][.\\t\\n\\f\\r ]\\.[\\t\\n\\f\\r ]/$"
        );
    }

    #[test]
    fn what_is_no_white_space_is_none_for_any_reader() {
        assert_eq!(narrow_pattern(r"[^\s@]\S[\s^]"), format!(r"[^{ANY_SPACE}@][^{ANY_SPACE}][\t\n\f\r ^]"));
        assert!(check_pattern("pattern", r"^[^\s@]+@\S+$", "/pattern").is_ok());
    }

    #[test]
    fn references_may_go_in_circles_and_be_escaped() {
        let schema =
            json!({ "properties": { "a%b": { "$ref": "#/properties/a%25b" }, "c": { "$ref": "#" } } });
        assert!(prepare(&schema).is_ok());
        assert!(refused(json!({ "$ref": "#/none" })).contains("there is nothing at #/none"));
    }
}
