//! docs/benchmarks.md is what its template makes of the records of measurements, and no figure of it is typed by hand.

#![allow(clippy::unwrap_used)]

use blackletter_evals::markdown::whole;
use minijinja::{Environment, UndefinedBehavior};
use serde_json::{Map, Value};
use std::{env, fs, path::Path};

/// A number with so many digits after the point, and commas between thousands.
fn number(value: f64, digits: usize) -> String {
    let text = format!("{:.digits$}", value.abs());
    let (before, after) =
        text.split_once('.').map_or((&*text, None), |(before, after)| (before, Some(after)));
    let sign =
        if value < 0.0 && text.contains(|c: char| c.is_ascii_digit() && c != '0') { "−" } else { "" };
    let after = after.map(|after| format!(".{after}")).unwrap_or_default();
    format!("{sign}{}{after}", whole(before.parse().unwrap()))
}

fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::SemiStrict);
    environment.add_filter("n", number);
    environment.add_filter("pct", |value: f64, digits: usize| format!("{} %", number(100.0 * value, digits)));
    environment
        .add_filter("sci", |value: f64| if value == 0.0 { "0".to_string() } else { format!("{value:.1e}") });
    environment
}

#[test]
fn benchmarks_are_what_the_records_give() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
    let folder = docs.join("measurements");
    let mut records = Map::new();
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "json") {
            let name = path.file_stem().unwrap().to_str().unwrap().replace('-', "_");
            let record: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
            records.insert(name, record);
        }
    }
    let template = fs::read_to_string(folder.join("benchmarks.md.jinja")).unwrap();
    for name in records.keys() {
        assert!(template.contains(name.as_str()), "no page shows the record {name}");
    }
    let page = environment().render_str(&template, minijinja::value::Serde(&records));
    let page = page.unwrap_or_else(|e| panic!("{e:#}")) + "\n";
    let path = docs.join("benchmarks.md");
    if env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, &page).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        page == written,
        "docs/benchmarks.md is not what the records give: run this test with UPDATE_DOCS=1"
    );
}

/// A text without what stands between these marks.
fn without(text: &str, open: &str, close: &str) -> String {
    let mut parts = text.split(open);
    let mut kept = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        kept.push_str(part.split_once(close).unwrap().1);
    }
    kept
}

#[test]
fn no_figure_is_typed_into_the_template() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/measurements");
    let mut text = fs::read_to_string(docs.join("benchmarks.md.jinja")).unwrap();
    for (open, close) in [("{#", "#}"), ("{{", "}}"), ("{%", "%}")] {
        text = without(&text, open, close);
    }
    // What stands between backquotes is code.
    let prose: String = text.split('`').step_by(2).collect();
    let is_figure = |word: &str| {
        let word: String = word.trim_matches(|c: char| !c.is_alphanumeric()).replace(',', "");
        // Small whole numbers count threads, ranks and tokens of a setting.
        word.parse::<f64>().is_ok_and(|n| n > 512.0 || word.contains('.'))
    };
    let typed: Vec<&str> = prose.split_whitespace().filter(|word| is_figure(word)).collect();
    assert!(typed.is_empty(), "{typed:?}");
    assert!(
        is_figure("1.83")
            && is_figure("(4,824)")
            && is_figure("**2.1**")
            && !is_figure("512")
            && !is_figure("520M")
    );
}

#[test]
fn numbers_are_written_as_people_read_them() {
    let cases = [
        (1234567.0, 0, "1,234,567"),
        (0.5, 2, "0.50"),
        (-1234.56, 1, "−1,234.6"),
        (-0.001, 1, "0.0"),
        (999.96, 1, "1,000.0"),
    ];
    for (value, digits, text) in cases {
        assert_eq!(number(value, digits), text);
    }
}
