//! How much of a schema comes together on one value.
//!
//! Where a schema stands in `allOf`, or beside `$ref`, `anyOf` or `oneOf`, the compiler makes one schema of them and of what they
//! say of the same property or item: all patterns of a value become one automaton, whose states multiply, and what references
//! lead to is copied. [`check`] reckons what that comes to, without doing it, and refuses what has no visible end.

use super::{
    ConstraintError,
    schema::{escape, unsupported},
};
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value};
use std::collections::{BTreeSet, HashMap};

/// Patterns and formats that one value has to match: their product takes time and room beyond all bounds.
const MOST_PATTERNS: usize = 8;

/// The same in all ways to choose between alternatives, added up: 8 patterns for one value may be chosen in 64 ways.
const MOST_CHOSEN: u64 = 512;

/// Patterns of the keys of one object, for the same reason.
const MOST_KEY_PATTERNS: usize = 32;

/// The digits of what numbers have to be multiples of, without the point, added up: automata have a state for each remainder.
const MOST_REMAINDERS: u64 = 100_000;

/// Schemas that what comes together on one value may grow to: the compiler holds each of them.
const MOST_COPIES: u64 = 50_000;

/// Schemas that are looked at, in all.
const MOST_LOOKED_AT: usize = 2_000_000;

/// Schemas that meet within schemas that meet.
const DEEPEST: usize = 64;

/// Keywords that say something of a value beside others.
const SAYING: [&str; 27] = [
    "anyOf",
    "oneOf",
    "allOf",
    "$ref",
    "const",
    "enum",
    "type",
    "items",
    "additionalItems",
    "prefixItems",
    "minItems",
    "maxItems",
    "properties",
    "additionalProperties",
    "patternProperties",
    "required",
    "minProperties",
    "maxProperties",
    "minLength",
    "maxLength",
    "pattern",
    "format",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
];

/// Keywords that bring schemas to one value, as their places are told.
const BRINGING: [&str; 4] = ["allOf", "anyOf", "oneOf", "$ref"];

/// Refuses a schema, which has been made ready, when more comes together on one value of it than can be compiled. Places are those
/// of `original`.
///
/// # Errors
/// Names the place where it comes together.
pub fn check(prepared: &Value, original: &Value) -> Result<(), ConstraintError> {
    let mut scales = Scales {
        root: prepared,
        looks: MOST_LOOKED_AT,
        remainders: 0,
        room: 0,
        known: HashMap::new(),
        wanted: vec![prepared],
    };
    let mut all = 0u64;
    while let Some(schema) = scales.wanted.pop() {
        if scales.known.contains_key(&address(schema)) {
            continue;
        }
        let copies = scales.schema(schema).and_then(|copies| {
            all = all.saturating_add(copies);
            if all > MOST_COPIES { Err(TooMuch { at: schema, why: GROWS.into() }) } else { Ok(()) }
        });
        if let Err(TooMuch { at, why }) = copies {
            let pointer = pointer_to(prepared, at).unwrap_or_default();
            let given = original.pointer(&pointer).unwrap_or(at);
            let brings = |map: &Value| {
                BRINGING
                    .into_iter()
                    .chain(["multipleOf", "patternProperties"])
                    .find(|key| map.get(*key).is_some())
            };
            return Err(match brings(given).or_else(|| brings(at)) {
                Some(keyword) => unsupported(keyword, &format!("{pointer}/{keyword}"), &why),
                None => ConstraintError::Schema(format!("at #{pointer}, {why}")),
            });
        }
    }
    Ok(())
}

const GROWS: &str = "what it leads to, put together, grows beyond what can be compiled";

/// More than can be compiled comes together at a schema.
struct TooMuch<'s> {
    at: &'s Value,
    why: String,
}

/// Schemas that one value has to fit.
enum Part<'s> {
    /// A schema, with all that it leads to.
    Whole(&'s Value),
    /// A schema's own keywords, without those that lead to others for the same value.
    Own(&'s Map<String, Value>),
    /// All of them.
    All(Vec<Part<'s>>),
    /// One of them.
    Any(Vec<Part<'s>>),
}

/// A part of a value that schemas say something of.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Place<'s> {
    Property(&'s str),
    Key(&'s str),
    OtherProperties,
    Item(usize),
    OtherItems,
}

/// What schemas come to that one value has to fit.
struct Weight {
    /// Patterns at once, at most.
    patterns: usize,
    /// Patterns in all ways to choose between alternatives.
    chosen: u64,
    /// Patterns of keys.
    keys: usize,
    /// What numbers are multiples of: the digits, and how many of them stand after the point.
    step: Option<(u64, u32)>,
    /// Ways to choose.
    ways: u64,
    /// Schemas that the compiler makes of them.
    copies: u64,
}

struct Scales<'s> {
    root: &'s Value,
    looks: usize,
    /// Remainders that numbers may leave, so far.
    remainders: u64,
    /// Schemas that may still meet on the value that is looked at.
    room: u64,
    /// What schemas come to, by address; nought while that is being found.
    known: HashMap<usize, u64>,
    /// What references lead to.
    wanted: Vec<&'s Value>,
}

impl<'s> Scales<'s> {
    fn look(&mut self, at: &'s Value) -> Result<(), TooMuch<'s>> {
        self.looks = self.looks.saturating_sub(1);
        if self.looks == 0 { Err(TooMuch { at, why: GROWS.into() }) } else { Ok(()) }
    }

    /// How many schemas the compiler makes of a schema.
    fn schema(&mut self, schema: &'s Value) -> Result<u64, TooMuch<'s>> {
        let Value::Object(map) = schema else { return Ok(1) };
        if let Some(&known) = self.known.get(&address(schema)) {
            return Ok(known);
        }
        self.look(schema)?;
        self.known.insert(address(schema), 0);
        let saying = map.keys().filter(|key| SAYING.contains(&key.as_str())).count();
        let alone = |key: &str| map.get(key).filter(|_| saying == 1);
        let copies = if let Some(target) = alone("$ref") {
            // It stays a reference.
            self.wanted.extend(target_of(self.root, target));
            1
        } else if let Some(Value::Array(list)) = alone("anyOf").or_else(|| alone("oneOf")) {
            self.each(list)?
        } else if let Some(Value::Array(list)) = alone("allOf").filter(|all| many(all) == 1) {
            self.each(list)?
        } else {
            self.room = MOST_COPIES;
            let part = self.expand(schema, &mut Vec::new());
            let part = part.map_err(|TooMuch { why, .. }| TooMuch { at: schema, why })?;
            self.meeting(&part, schema, 0)?
        };
        self.known.insert(address(schema), copies);
        Ok(copies)
    }

    fn each(&mut self, list: &'s [Value]) -> Result<u64, TooMuch<'s>> {
        list.iter().try_fold(1u64, |sum, one| Ok(sum.saturating_add(self.schema(one)?)))
    }

    /// All that a schema says of its value itself, through references, which lead to `from` no second time.
    fn expand(&mut self, schema: &'s Value, from: &mut Vec<usize>) -> Result<Part<'s>, TooMuch<'s>> {
        let Value::Object(map) = schema else { return Ok(Part::All(Vec::new())) };
        self.look(schema)?;
        self.room = self.room.saturating_sub(1);
        if self.room == 0 {
            return Err(TooMuch { at: schema, why: GROWS.into() });
        }
        from.push(address(schema));
        let mut parts = vec![Part::Own(map)];
        for key in BRINGING {
            match map.get(key) {
                Some(Value::Array(list)) => {
                    let mut each = Vec::new();
                    for one in list {
                        each.push(self.expand(one, from)?);
                    }
                    if key == "allOf" { parts.extend(each) } else { parts.push(Part::Any(each)) }
                }
                Some(target) => {
                    let found = target_of(self.root, target).filter(|found| !from.contains(&address(found)));
                    if let Some(found) = found {
                        parts.push(self.expand(found, from)?);
                    }
                }
                None => {}
            }
        }
        from.pop();
        Ok(Part::All(parts))
    }

    /// How many schemas the compiler makes of parts that meet on one value; `at` is where.
    fn meeting(&mut self, part: &Part<'s>, at: &'s Value, deep: usize) -> Result<u64, TooMuch<'s>> {
        if deep > DEEPEST {
            return Err(TooMuch { at, why: "what comes together there leads back to itself".into() });
        }
        let weight = self.weigh(part)?;
        let refuse = |why: String| Err(TooMuch { at, why });
        if weight.patterns > MOST_PATTERNS {
            return refuse(format!("more than {MOST_PATTERNS} patterns and formats for one value"));
        }
        if weight.patterns > 1 && weight.chosen > MOST_CHOSEN {
            return refuse(format!(
                "more than {MOST_CHOSEN} patterns and formats for one value in all choices"
            ));
        }
        if weight.keys > MOST_KEY_PATTERNS {
            return refuse(format!("more than {MOST_KEY_PATTERNS} patterns for the keys of one object"));
        }
        let remainders = weight.step.map_or(0, |(digits, _)| digits.saturating_mul(weight.ways));
        self.remainders = self.remainders.saturating_add(remainders);
        if remainders > 0 && self.remainders > MOST_REMAINDERS {
            return refuse(format!(
                "multiples of more than {MOST_REMAINDERS} in all, counted without the point"
            ));
        }
        let mut copies = weight.copies;
        let mut places = BTreeSet::new();
        places_in(part, &mut places);
        for place in places {
            let Some(inner) = self.within(part, place, at)? else { continue };
            if meets(&inner) > 1 {
                self.room = MOST_COPIES;
                let inner = self.expand_part(inner)?;
                let met = self.meeting(&inner, at, deep + 1)?;
                copies = copies.saturating_add(met.saturating_mul(weight.ways));
            }
            if copies > MOST_COPIES {
                return refuse(GROWS.into());
            }
        }
        if copies > MOST_COPIES { refuse(GROWS.into()) } else { Ok(copies) }
    }

    fn expand_part(&mut self, part: Part<'s>) -> Result<Part<'s>, TooMuch<'s>> {
        Ok(match part {
            Part::Whole(schema) => self.expand(schema, &mut Vec::new())?,
            Part::Own(map) => Part::Own(map),
            Part::All(list) => {
                Part::All(list.into_iter().map(|one| self.expand_part(one)).collect::<Result<_, _>>()?)
            }
            Part::Any(list) => {
                Part::Any(list.into_iter().map(|one| self.expand_part(one)).collect::<Result<_, _>>()?)
            }
        })
    }

    fn weigh(&mut self, part: &Part<'s>) -> Result<Weight, TooMuch<'s>> {
        let mut sum = Weight { patterns: 0, chosen: 0, keys: 0, step: None, ways: 1, copies: 1 };
        match part {
            Part::Whole(_) => {}
            Part::Own(map) => {
                sum.patterns = ["pattern", "format"].iter().filter(|key| map.contains_key(**key)).count();
                sum.chosen = sum.patterns as u64;
                sum.keys = map.get("patternProperties").and_then(Value::as_object).map_or(0, Map::len);
                sum.step = map.get("multipleOf").and_then(step);
                for schema in schemas_in(map) {
                    sum.copies = sum.copies.saturating_add(self.schema(schema)?);
                }
            }
            Part::All(list) => {
                for one in list {
                    let one = self.weigh(one)?;
                    sum = Weight {
                        patterns: sum.patterns.saturating_add(one.patterns),
                        chosen: product(sum.chosen, one.ways, one.chosen, sum.ways),
                        keys: sum.keys.saturating_add(one.keys),
                        step: common_step(sum.step, one.step, sum.ways == 1 && one.ways == 1),
                        ways: sum.ways.saturating_mul(one.ways),
                        copies: product(sum.copies, one.ways, one.copies, sum.ways),
                    };
                }
            }
            Part::Any(list) => {
                sum.ways = 0;
                for one in list {
                    let one = self.weigh(one)?;
                    sum = Weight {
                        patterns: sum.patterns.max(one.patterns),
                        chosen: sum.chosen.saturating_add(one.chosen),
                        keys: sum.keys.max(one.keys),
                        step: sum.step.max(one.step),
                        ways: sum.ways.saturating_add(one.ways),
                        copies: sum.copies.saturating_add(one.copies),
                    };
                }
                sum.ways = sum.ways.max(1);
            }
        }
        Ok(sum)
    }

    /// What parts say of a part of their value.
    fn within(
        &mut self,
        part: &Part<'s>,
        place: Place<'s>,
        at: &'s Value,
    ) -> Result<Option<Part<'s>>, TooMuch<'s>> {
        self.look(at)?;
        Ok(match part {
            Part::Whole(_) => None,
            Part::Own(map) => own_within(map, place),
            Part::All(list) | Part::Any(list) => {
                let mut each = Vec::new();
                for one in list {
                    each.extend(self.within(one, place, at)?);
                }
                let all = matches!(part, Part::All(_));
                match each.len() {
                    0 => None,
                    1 => each.pop(),
                    _ if all => Some(Part::All(each)),
                    _ => Some(Part::Any(each)),
                }
            }
        })
    }
}

/// `a` in each of `b_ways` ways, and `b` in each of `a_ways`.
fn product(a: u64, b_ways: u64, b: u64, a_ways: u64) -> u64 {
    a.saturating_mul(b_ways).saturating_add(b.saturating_mul(a_ways))
}

/// The digits of a step, and how many of them stand after the point.
fn step(value: &Value) -> Option<(u64, u32)> {
    let (mut digits, mut after) = (value.as_f64()?.abs(), 0);
    while digits.fract() != 0.0 {
        (digits, after) = (digits * 10.0, after + 1);
    }
    // What is beyond the largest becomes the largest.
    (digits != 0.0).then_some((digits as u64, after))
}

/// What multiples of both are multiples of; no less than that when either is only the largest of several.
fn common_step(a: Option<(u64, u32)>, b: Option<(u64, u32)>, exact: bool) -> Option<(u64, u32)> {
    let (Some(a), Some(b)) = (a, b) else { return a.or(b) };
    let after = a.1.max(b.1);
    let digits = |(digits, own): (u64, u32)| digits.saturating_mul(10u64.saturating_pow(after - own));
    let (a, b) = (digits(a), digits(b));
    let (mut large, mut small) = (a, b);
    while exact && small != 0 {
        (large, small) = (small, large % small);
    }
    let shared = if exact { large } else { 1 };
    Some(((a / shared).saturating_mul(b), after))
}

fn address(value: &Value) -> usize {
    std::ptr::from_ref(value) as usize
}

fn many(list: &Value) -> usize {
    list.as_array().map_or(0, Vec::len)
}

fn target_of<'s>(root: &'s Value, target: &Value) -> Option<&'s Value> {
    root.pointer(&percent_decode_str(target.as_str()?.strip_prefix('#')?).decode_utf8_lossy())
}

/// How many schemas meet, at most, when one of each choice is taken.
fn meets(part: &Part) -> usize {
    match part {
        Part::Whole(schema) => usize::from(schema.as_object().is_some_and(|map| !map.is_empty())),
        Part::Own(_) => 1,
        Part::All(list) => list.iter().map(meets).sum(),
        Part::Any(list) => list.iter().map(meets).max().unwrap_or(0),
    }
}

/// Schemas within a schema for parts of its value.
fn schemas_in(map: &Map<String, Value>) -> impl Iterator<Item = &Value> {
    let named = ["properties", "patternProperties"].into_iter();
    let named = named.filter_map(|key| map.get(key)?.as_object()).flat_map(Map::values);
    let keys = ["items", "prefixItems", "additionalItems", "additionalProperties"].into_iter();
    named.chain(keys.filter_map(|key| map.get(key)).flat_map(|value| match value {
        Value::Array(list) => list.as_slice(),
        one => std::slice::from_ref(one),
    }))
}

/// The parts of a value that are spoken of.
fn places_in<'s>(part: &Part<'s>, places: &mut BTreeSet<Place<'s>>) {
    match part {
        Part::Whole(_) => {}
        Part::Own(map) => {
            let names = |key: &str| map.get(key).and_then(Value::as_object).into_iter().flat_map(Map::keys);
            places.extend(names("properties").map(|name| Place::Property(name)));
            places.extend(names("patternProperties").map(|name| Place::Key(name)));
            places.extend(map.get("additionalProperties").map(|_| Place::OtherProperties));
            let listed = ["items", "prefixItems"].iter().filter_map(|key| map.get(*key)?.as_array());
            places.extend((0..listed.map(Vec::len).max().unwrap_or(0)).map(Place::Item));
            let rest = map.get("items").or_else(|| map.get("additionalItems"));
            places.extend(rest.map(|_| Place::OtherItems));
        }
        Part::All(list) | Part::Any(list) => list.iter().for_each(|one| places_in(one, places)),
    }
}

/// What a schema's own keywords say of a part of its value.
fn own_within<'s>(map: &'s Map<String, Value>, place: Place<'s>) -> Option<Part<'s>> {
    let named = |key: &str, name: &str| map.get(key)?.as_object()?.get(name).map(Part::Whole);
    let other = || map.get("additionalProperties").map(Part::Whole);
    let rest = || match map.get("items") {
        Some(list) if list.is_array() => map.get("additionalItems").map(Part::Whole),
        one => one.map(Part::Whole),
    };
    match place {
        Place::Property(name) => {
            // No two patterns of keys match the same name.
            let patterns = map.get("patternProperties").and_then(Value::as_object);
            let mut matching: Vec<Part> =
                patterns.into_iter().flat_map(Map::values).map(Part::Whole).collect();
            match named("properties", name) {
                Some(own) if matching.is_empty() => Some(own),
                Some(own) => Some(Part::All(vec![own, Part::Any(matching)])),
                None if matching.is_empty() => other(),
                None => {
                    matching.extend(other());
                    Some(Part::Any(matching))
                }
            }
        }
        Place::Key(pattern) => named("patternProperties", pattern).or_else(other),
        Place::OtherProperties => other(),
        Place::Item(i) => {
            let listed = |key: &str| map.get(key).and_then(Value::as_array).and_then(|list| list.get(i));
            listed("items").or_else(|| listed("prefixItems")).map(Part::Whole).or_else(rest)
        }
        Place::OtherItems => rest(),
    }
}

/// The pointer to a value within another.
fn pointer_to(value: &Value, wanted: &Value) -> Option<String> {
    if std::ptr::eq(value, wanted) {
        return Some(String::new());
    }
    match value {
        Value::Object(map) => map
            .iter()
            .find_map(|(key, inner)| Some(format!("/{}{}", escape(key), pointer_to(inner, wanted)?))),
        Value::Array(list) => {
            list.iter().enumerate().find_map(|(i, inner)| Some(format!("/{i}{}", pointer_to(inner, wanted)?)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::schema::prepare;
    use serde_json::{Value, json};

    fn pattern(i: usize) -> Value {
        json!({ "type": "string", "pattern": format!("^{i}[a-z]*$") })
    }

    #[test]
    fn as_much_as_can_be_compiled_is_let_through_wherever_it_comes_from() {
        let eight: Vec<Value> = (0..8).map(pattern).collect();
        let nine: Vec<Value> = (0..9).map(pattern).collect();
        let object = |of: &Value| json!({ "properties": { "x": of } });
        type Form<'f> = &'f dyn Fn(&[Value]) -> Value;
        let forms: [Form<'_>; 5] = [
            &|list| json!({ "allOf": list }),
            &|list| json!({ "allOf": list.iter().map(object).collect::<Vec<_>>() }),
            &|list| json!({ "allOf": [{ "anyOf": [list[0], {}] }, { "oneOf": [{ "allOf": list[1..] }] }] }),
            &|list| json!({ "$ref": "#/$defs/a", "allOf": list[1..], "$defs": { "a": list[0] } }),
            &|list| {
                let others: Vec<Value> =
                    list[1..].iter().map(|of| json!({ "additionalProperties": of })).collect();
                json!({ "properties": { "x": list[0] }, "allOf": others })
            },
        ];
        for form in forms {
            assert!(prepare(&form(&eight)).is_ok(), "{}", form(&eight));
            assert!(prepare(&form(&nine)).is_err(), "{}", form(&nine));
        }
    }

    #[test]
    fn patterns_that_never_meet_are_not_added_up() {
        let many: Vec<Value> = (0..40).map(pattern).collect();
        let named: serde_json::Map<String, Value> = (0..40).map(|i| (format!("p{i}"), pattern(i))).collect();
        let objects: Vec<Value> =
            (0..40).map(|i| json!({ "type": "object", "properties": { "x": pattern(i) } })).collect();
        let tree =
            json!({ "properties": { "name": pattern(0), "in": { "items": { "$ref": "#/$defs/tree" } } } });
        let fine = [
            json!({ "anyOf": many }),
            json!({ "type": "object", "properties": named }),
            json!({ "allOf": [{ "properties": named }, { "required": ["p1"] }] }),
            json!({ "type": "object", "required": ["x"], "anyOf": objects }),
            json!({ "type": "array", "prefixItems": many, "allOf": [{ "minItems": 2 }] }),
            json!({ "allOf": [{ "$ref": "#/$defs/tree" }, { "required": ["name"] }], "$defs": { "tree": tree } }),
        ];
        for schema in fine {
            assert!(prepare(&schema).is_ok(), "{schema}: {:?}", prepare(&schema));
        }
    }

    #[test]
    fn steps_are_as_long_as_their_automaton_can_be() {
        let of = |step: f64| json!({ "type": "number", "multipleOf": step });
        let fine = [
            of(100_000.0),
            of(0.0078125),
            json!({ "allOf": [of(1000.0), of(1000.0), of(500.0), of(3.0)] }),
            json!({ "anyOf": [of(49_999.0), of(49_998.0)], "type": "number" }),
        ];
        for schema in fine {
            assert!(prepare(&schema).is_ok(), "{schema}");
        }
        let refused = |schema: Value| prepare(&schema).unwrap_err().to_string();
        let told = refused(json!({ "properties": { "a": of(1_000_003.0) } }));
        assert!(
            told.starts_with(
                "unsupported keyword: multipleOf at /properties/a/multipleOf (multiples of more"
            )
        );
        assert!(refused(of(0.0009765625)).contains("100000 in all, counted without the point"));
        assert!(refused(json!({ "anyOf": [of(50_001.0), of(50_002.0)] })).contains("multiples"));
        let told = refused(json!({ "allOf": [of(65_536.0), of(65_537.0)] }));
        assert!(told.starts_with("unsupported keyword: allOf at /allOf (multiples of more"), "{told}");
        assert!(
            refused(json!({ "allOf": [of(0.5), { "anyOf": [of(99_999.0), of(99_998.0)] }] }))
                .contains("multiples")
        );
    }

    #[test]
    fn the_place_is_told_as_it_was_given() {
        let of =
            |i: usize| json!({ "type": "string", "maxLength": i, "allOf": [pattern(i), pattern(9 * i)] });
        let list: Vec<Value> = (0..5).map(of).collect();
        let one = json!({ "allOf": list, "oneOf": [{ "maxLength": 3 }] });
        let refused = prepare(&json!({ "properties": { "a/b": { "items": one } } })).unwrap_err().to_string();
        assert!(
            refused.starts_with("unsupported keyword: allOf at /properties/a~1b/items/allOf (more than 8")
        );
        let alternatives = [json!({ "type": "null" }), json!({ "type": "string", "allOf": list })];
        let refused =
            prepare(&json!({ "description": "d", "type": ["string", "null"], "oneOf": alternatives }));
        let refused = refused.unwrap_err().to_string();
        assert!(refused.starts_with("unsupported keyword: oneOf at /oneOf (more than 8"), "{refused}");
    }

    #[test]
    fn schemas_that_lead_back_to_themselves_where_they_meet_are_refused() {
        let tree = |name: &str| json!({ "properties": { "of": { "$ref": format!("#/$defs/{name}") } } });
        let schema = json!({
            "allOf": [{ "$ref": "#/$defs/a" }, { "$ref": "#/$defs/b" }],
            "$defs": { "a": tree("a"), "b": tree("b") },
        });
        let refused = prepare(&schema).unwrap_err().to_string();
        assert!(refused.contains("leads back to itself"), "{refused}");
    }
}
