//! What a run that goes on may have otherwise than it was begun, and what not.

use super::{DEFAULT, RunConfig, overlay};
use crate::config::ConfigError;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};
use toml::{Table, Value};

/// Keys, or beginnings of keys, that say what is learned and into what: rows would be others, or weights.
const FIXED: [&str; 7] =
    ["model.", "data.license", "data.rows", "stream.", "adapter.", "averaging.decay", "optimizer.name"];

/// Keys, or beginnings of keys, that change no loss.
const FREE: [&str; 7] =
    ["run", "threads", "recompute", "data.micro_batch_rows", "evaluation.", "samples.", "checkpoints."];

/// Keys that are compared elsewhere: a store by what it holds, wherever it lies.
const ELSEWHERE: [&str; 3] = ["data.store", "data.texts", "data.examples"];

/// Keys whose values are places of files.
const PATHS: [&str; 2] = ["model.from", "model.geometry"];

/// A key whose value is not what it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The key's path.
    pub key: String,
    /// The value that the run was begun with.
    pub then: String,
    /// The value now.
    pub now: String,
}

/// What has changed since a run was begun.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// With which it would be another run.
    pub refused: Vec<Change>,
    /// That change what is learned from now on.
    pub noted: Vec<Change>,
}

/// Compares a run's configuration as it was written down (`text`, in the file `name`) with the one to go on with.
///
/// # Errors
/// When the text is no configuration.
pub fn changes(name: &str, text: &str, now: &RunConfig) -> Result<Changes, ConfigError> {
    // As tables: a value that this build cannot use, such as a device, is compared all the same.
    let then = flat(overlay::resolve(DEFAULT, name, text, &[])?);
    let now = flat(overlay::resolve(DEFAULT, "the configuration", &now.to_toml(), &[])?);
    let mut changes = Changes::default();
    let keys: BTreeSet<&String> = then.keys().chain(now.keys()).collect();
    for key in keys {
        let is =
            |list: &[&str]| list.iter().any(|k| if k.ends_with('.') { key.starts_with(k) } else { key == k });
        let (old, new) = (then.get(key), now.get(key));
        if old == new || is(&ELSEWHERE) || is(&FREE) || (is(&PATHS) && same_place(old, new)) {
            continue;
        }
        let shown = |value: Option<&Value>| value.map_or_else(|| "none".to_owned(), Value::to_string);
        let change = Change { key: key.clone(), then: shown(old), now: shown(new) };
        if is(&FIXED) { changes.refused.push(change) } else { changes.noted.push(change) }
    }
    Ok(changes)
}

fn same_place(then: Option<&Value>, now: Option<&Value>) -> bool {
    let place = |value: Option<&Value>| Path::new(value?.as_str()?).canonicalize().ok();
    place(then).is_some_and(|then| place(now).is_some_and(|now| now == then))
}

/// Values by the path of their keys.
fn flat(table: Table) -> BTreeMap<String, Value> {
    let mut all = BTreeMap::new();
    let mut left = vec![(String::new(), table)];
    while let Some((path, table)) = left.pop() {
        for (key, value) in table {
            let key = if path.is_empty() { key } else { format!("{path}.{key}") };
            match value {
                Value::Table(table) => left.push((key, table)),
                value => {
                    all.insert(key, value);
                }
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: &str = "run = \"r\"\n[data]\nstore = \"s\"\n[model]\ngeometry = \"kl3m-002-520m\"\n";

    fn compared(then: &[&str], now: &[&str]) -> Changes {
        let config = |settings: &[&str]| {
            let settings: Vec<String> = settings.iter().map(|s| (*s).to_owned()).collect();
            RunConfig::parse("run.toml", LEAST, &settings).unwrap()
        };
        changes("config.toml", &config(then).to_toml(), &config(now)).unwrap()
    }

    #[test]
    fn what_makes_another_run_is_refused_with_both_values() {
        for (then, now, key, values) in [
            ("stream.context=512", "stream.context=256", "stream.context", ["512", "256"]),
            ("stream.weights.usc=2", "stream.weights.usc=3", "stream.weights.usc", ["2.0", "3.0"]),
            ("stream.weights.usc=2", "threads=1", "stream.weights.usc", ["2.0", "none"]),
            ("stream.segments.longest=0.5", "threads=1", "stream.segments.longest", ["0.5", "1.0"]),
            ("data.rows=16", "data.rows=32", "data.rows", ["16", "32"]),
            ("model.seed=2", "model.seed=3", "model.seed", ["2", "3"]),
            ("optimizer.name=adamw", "threads=1", "optimizer.name", ["\"adamw\"", "\"muon\""]),
        ] {
            let [then_value, now_value] = values.map(str::to_owned);
            let change = Change { key: key.into(), then: then_value, now: now_value };
            assert_eq!(compared(&[then], &[now]), Changes { refused: vec![change], noted: vec![] });
        }
    }

    #[test]
    fn what_changes_no_loss_is_free_and_what_changes_learning_is_noted() {
        let now = [
            "run=other",
            "threads=3",
            "recompute=true",
            "data.micro_batch_rows=4",
            "evaluation.every=7",
            "samples.prompts=x",
            "checkpoints.keep=9",
            "data.store=moved",
        ];
        assert_eq!(compared(&[], &now), Changes::default());
        let noted = compared(&["schedule.peak=0.001"], &["schedule.steps=5000", "dtype=bf16"]);
        let keys: Vec<&str> = noted.noted.iter().map(|change| change.key.as_str()).collect();
        assert_eq!((keys, noted.refused), (vec!["dtype", "schedule.peak", "schedule.steps"], vec![]));
    }

    #[test]
    fn one_model_is_the_same_by_another_path_and_another_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a", "b"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        let text = |place: &str| {
            let place = dir.path().join(place).display().to_string();
            format!("run = \"r\"\n[data]\nstore = \"s\"\n[model]\nfrom = {place:?}\n")
        };
        let now = RunConfig::parse("run.toml", &text("a/../a"), &[]).unwrap();
        assert_eq!(changes("config.toml", &text("a"), &now).unwrap(), Changes::default());
        assert_eq!(changes("config.toml", &text("b"), &now).unwrap().refused.len(), 1);
    }
}
