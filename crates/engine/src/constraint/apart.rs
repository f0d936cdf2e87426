//! Whether no value fits two schemas at once: then one of them is any of them, and `oneOf` is `anyOf`.

use serde_json::{Map, Value};

/// References that are followed one after the other.
const FOLLOWED: usize = 16;

/// Kinds of values, as bits.
const KINDS: [&str; 6] = ["null", "boolean", "number", "string", "array", "object"];
const ALL: u8 = (1 << KINDS.len()) - 1;

/// Whether it is certain that no value fits both `a` and `b`, which stand in `root`. Nothing is when `looks`, which what is looked
/// at is taken from, comes to nought: schemas that lead to themselves by several ways have no end.
pub fn are_apart(root: &Value, a: &Value, b: &Value, looks: &mut usize) -> bool {
    let (a, b) = (resolve(root, a), resolve(root, b));
    let both = kinds(root, a, FOLLOWED, looks) & kinds(root, b, FOLLOWED, looks);
    if both == 0 {
        return true;
    }
    if let (Some(a), Some(b)) = (values(a), values(b)) {
        return have_none_in_common(a, b, looks);
    }
    let (Value::Object(a), Value::Object(b)) = (a, b) else { return false };
    if both == bit("number") {
        return ends_before(a, b) || ends_before(b, a);
    }
    both == bit("object") && have_different_marks(root, a, b, looks)
}

/// Whether there is a look left, which is taken.
fn look(looks: &mut usize, times: usize) -> bool {
    *looks = looks.saturating_sub(times);
    *looks > 0
}

fn have_none_in_common(a: &[Value], b: &[Value], looks: &mut usize) -> bool {
    look(looks, a.len() * b.len()) && !a.iter().any(|value| b.contains(value))
}

/// Whether both ask for a property whose values in one are never those in the other.
fn have_different_marks(
    root: &Value,
    a: &Map<String, Value>,
    b: &Map<String, Value>,
    looks: &mut usize,
) -> bool {
    let required = |schema: &Map<String, Value>, name: &str| {
        let list = schema.get("required").and_then(Value::as_array);
        list.is_some_and(|list| list.iter().any(|required| required == name))
    };
    fn property<'s>(root: &'s Value, schema: &'s Map<String, Value>, name: &str) -> Option<&'s Value> {
        let schema = schema.get("properties")?.get(name)?;
        Some(resolve(root, schema))
    }
    let length =
        |schema: &Map<String, Value>| schema.get("required").and_then(Value::as_array).map_or(0, Vec::len);
    let listed = 1 + length(a) + length(b);
    let names = a.get("properties").and_then(Value::as_object).into_iter().flat_map(Map::keys);
    for name in names {
        // Both lists of required names are gone through.
        if !look(looks, listed) || !required(a, name) || !required(b, name) {
            continue;
        }
        let (Some(a), Some(b)) = (property(root, a, name), property(root, b, name)) else { continue };
        let apart = match (values(a), values(b)) {
            (Some(a), Some(b)) => have_none_in_common(a, b, looks),
            _ => kinds(root, a, FOLLOWED, looks) & kinds(root, b, FOLLOWED, looks) == 0,
        };
        if apart {
            return true;
        }
    }
    false
}

/// Whether all numbers of `a` are less than those of `b`.
fn ends_before(a: &Map<String, Value>, b: &Map<String, Value>) -> bool {
    let of = |schema: &Map<String, Value>, key: &str| schema.get(key).and_then(Value::as_f64);
    let (most, below) = (of(a, "maximum"), of(a, "exclusiveMaximum"));
    let (least, above) = (of(b, "minimum"), of(b, "exclusiveMinimum"));
    let less = |x: Option<f64>, y: Option<f64>| x.zip(y).is_some_and(|(x, y)| x < y);
    let same = |x: Option<f64>, y: Option<f64>| x.zip(y).is_some_and(|(x, y)| x <= y);
    less(most, least) || same(most, above) || same(below, least) || same(below, above)
}

fn bit(kind: &str) -> u8 {
    let kind = if kind == "integer" { "number" } else { kind };
    KINDS.iter().position(|known| *known == kind).map_or(ALL, |at| 1 << at)
}

/// The kinds of values that a schema may accept.
fn kinds(root: &Value, schema: &Value, followed: usize, looks: &mut usize) -> u8 {
    if !look(looks, 1) {
        return ALL;
    }
    let schema = resolve(root, schema);
    let Value::Object(map) = schema else { return if *schema == false { 0 } else { ALL } };
    let mut may = ALL;
    match map.get("type") {
        Some(Value::String(kind)) => may &= bit(kind),
        Some(Value::Array(list)) => {
            may &= list.iter().filter_map(Value::as_str).fold(0, |may, kind| may | bit(kind));
        }
        _ => {}
    }
    if let Some(values) = values(schema) {
        if !look(looks, values.len()) {
            return ALL;
        }
        may &= values.iter().fold(0, |may, value| may | bit(kind_of(value)));
    }
    let Some(followed) = followed.checked_sub(1) else { return may };
    for key in ["anyOf", "oneOf", "allOf"] {
        let Some(list) = map.get(key).and_then(Value::as_array) else { continue };
        let each = list.iter().map(|schema| kinds(root, schema, followed, looks));
        may &= if key == "allOf" {
            each.fold(ALL, |may, one| may & one)
        } else {
            each.fold(0, |may, one| may | one)
        };
    }
    may
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// The values of a schema that lists them; none when they may be spelled in several ways.
fn values(schema: &Value) -> Option<&[Value]> {
    let list = match (schema.get("const"), schema.get("enum")) {
        (Some(value), _) => std::slice::from_ref(value),
        (None, Some(Value::Array(list))) => list,
        _ => return None,
    };
    // 1 and 1.0 are one value.
    let plain = |value: &Value| {
        !matches!(value, Value::Number(n) if n.is_f64()) && !value.is_array() && !value.is_object()
    };
    list.iter().all(plain).then_some(list)
}

/// What a reference leads to, when nothing stands beside it.
fn resolve<'s>(root: &'s Value, mut schema: &'s Value) -> &'s Value {
    for _ in 0..FOLLOWED {
        let Value::Object(map) = schema else { return schema };
        let Some(target) = map.get("$ref").and_then(Value::as_str).filter(|_| map.len() == 1) else {
            return schema;
        };
        let Some(found) = target.strip_prefix('#').and_then(|pointer| root.pointer(pointer)) else {
            return schema;
        };
        schema = found;
    }
    schema
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn schemas_are_apart_only_where_that_is_certain() {
        let root = json!({ "$defs": {
            "tree": { "type": "object", "properties": { "kind": { "const": "tree" }, "of": { "$ref": "#/$defs/tree" } }, "required": ["kind"] },
            "leaf": { "type": "object", "properties": { "kind": { "enum": ["leaf", "twig"] } }, "required": ["kind"] },
            "self": { "$ref": "#/$defs/self" },
        } });
        let of = |name: &str| json!({ "$ref": format!("#/$defs/{name}") });
        let apart = [
            (of("tree"), json!({ "type": ["number", "null"] })),
            (of("tree"), of("leaf")),
            (json!({ "const": "a" }), json!({ "enum": ["b", 1] })),
            (json!({ "type": "integer", "maximum": -1 }), json!({ "type": "number", "minimum": 0 })),
            (json!({ "type": "number", "exclusiveMaximum": 3 }), json!({ "type": "integer", "minimum": 3 })),
            (
                json!({ "anyOf": [{ "type": "string" }, { "type": "null" }] }),
                json!({ "allOf": [{}, { "type": "array" }] }),
            ),
            (json!(false), json!({})),
        ];
        let not = [
            (of("tree"), of("tree")),
            (of("tree"), json!({ "type": "object" })),
            (of("tree"), of("self")),
            (json!({ "type": "integer" }), json!({ "type": "number" })),
            (json!({ "type": "number", "maximum": 3 }), json!({ "type": "integer", "minimum": 3 })),
            (json!({ "const": 1 }), json!({ "const": 1.0 })),
            (json!({ "enum": ["a", "b"] }), json!({ "enum": ["b"] })),
            (json!({ "minimum": 5 }), json!({ "maximum": 3 })),
            (
                json!({ "properties": { "k": { "const": 1 } } }),
                json!({ "properties": { "k": { "const": 2 } } }),
            ),
            (json!({}), json!(true)),
        ];
        let certain = |a: &Value, b: &Value| are_apart(&root, a, b, &mut 10_000);
        for (a, b) in apart {
            assert!(certain(&a, &b) && certain(&b, &a), "{a} {b}");
        }
        for (a, b) in not {
            assert!(!certain(&a, &b) && !certain(&b, &a), "{a} {b}");
        }
    }

    #[test]
    fn schemas_that_lead_to_themselves_many_times_over_are_given_up() {
        let again: Vec<Value> = (0..8).map(|_| json!({ "$ref": "#/$defs/x" })).collect();
        let root = json!({ "$defs": { "x": { "anyOf": again } } });
        let mut looks = 10_000;
        assert!(!are_apart(&root, &json!({ "$ref": "#/$defs/x" }), &json!({ "type": "string" }), &mut looks));
        assert_eq!(looks, 0);
    }
}
