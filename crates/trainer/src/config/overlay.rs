//! A file and settings of the command line, put over the defaults key by key.

use serde::de::DeserializeOwned;
use std::io;
use toml::{Table, Value};

/// A configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// Not TOML.
    #[error("{name} is not TOML: {reason}")]
    Syntax {
        /// The file.
        name: String,
        /// Where and why.
        reason: String,
    },
    /// A setting of the command line is not `key=value`.
    #[error("{setting:?} is no setting: it must be KEY=VALUE, such as schedule.steps=2000")]
    Setting {
        /// What was given.
        setting: String,
    },
    /// A key that is not known.
    #[error("{name}: the key {key:?} is not known: did you mean {nearest:?}? (--print-config shows all)")]
    Unknown {
        /// The file.
        name: String,
        /// The key's path.
        key: String,
        /// The known key that is nearest.
        nearest: String,
    },
    /// A value that cannot be used.
    #[error("{key} = {value} is not usable: it must be {allowed}")]
    Value {
        /// The key's path.
        key: String,
        /// What stands there.
        value: String,
        /// What may stand there.
        allowed: String,
    },
}

/// Tables whose keys are names that only the data knows.
const FREE: [&str; 1] = ["stream.weights"];

/// Reads `defaults`, `text` and `settings`, the later over the earlier.
pub(super) fn resolve<T: DeserializeOwned>(
    defaults: &str,
    name: &str,
    text: &str,
    settings: &[String],
) -> Result<T, ConfigError> {
    let mut all = parse("the default configuration", defaults)?;
    merge(&mut all, parse(name, text)?, name, "")?;
    for setting in settings {
        merge(&mut all, parse_setting(setting)?, "--set", "")?;
    }
    T::deserialize(Value::Table(all)).map_err(|e| {
        // A key's path comes last, after "in".
        let text = e.to_string();
        let (allowed, key) = text.rsplit_once("in `").unwrap_or((&text, "?"));
        let key = key.trim_end().trim_end_matches('`').to_string();
        ConfigError::Value { key, value: "this".into(), allowed: allowed.trim().to_string() }
    })
}

fn parse(name: &str, text: &str) -> Result<Table, ConfigError> {
    text.parse()
        .map_err(|e: toml::de::Error| ConfigError::Syntax { name: name.into(), reason: e.to_string() })
}

/// `a.b=3` as a table; what is no TOML value is a text.
fn parse_setting(setting: &str) -> Result<Table, ConfigError> {
    let wrong = || ConfigError::Setting { setting: setting.into() };
    let (key, value) = setting.split_once('=').ok_or_else(wrong)?;
    let (key, value) = (key.trim(), value.trim());
    let plain = |part: &str| {
        !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
    };
    if value.is_empty() || !key.split('.').all(plain) {
        return Err(wrong());
    }
    let parsed = format!("v = {value}").parse::<Table>().ok().and_then(|mut table| table.remove("v"));
    let mut value = parsed.unwrap_or_else(|| Value::String(value.to_string()));
    for part in key.rsplit('.') {
        value = Value::Table(Table::from_iter([(part.to_string(), value)]));
    }
    match value {
        Value::Table(table) => Ok(table),
        _ => Err(wrong()),
    }
}

fn merge(known: &mut Table, new: Table, name: &str, path: &str) -> Result<(), ConfigError> {
    for (key, value) in new {
        let full = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        if FREE.contains(&path) {
            known.insert(key, number(value, &full)?);
            continue;
        }
        let Some(old) = known.get_mut(&key) else {
            let nearest = known
                .keys()
                .max_by(|a, b| strsim::jaro_winkler(a, &key).total_cmp(&strsim::jaro_winkler(b, &key)));
            let prefix = if path.is_empty() { String::new() } else { format!("{path}.") };
            let nearest = nearest.map(|n| format!("{prefix}{n}")).unwrap_or_default();
            return Err(ConfigError::Unknown { name: name.into(), key: full, nearest });
        };
        match (old, value) {
            (Value::Table(old), Value::Table(value)) => merge(old, value, name, &full)?,
            (old, value) => *old = like(old, value, &full)?,
        }
    }
    Ok(())
}

/// The value, when it is of the kind of the default.
fn like(default: &Value, value: Value, key: &str) -> Result<Value, ConfigError> {
    let allowed = match (default, &value) {
        (Value::Float(_), _) => return number(value, key),
        (Value::Integer(_), Value::Integer(0..)) | (Value::Boolean(_), Value::Boolean(_)) => {
            return Ok(value);
        }
        (Value::String(_), Value::String(_)) => return Ok(value),
        (Value::Array(_), Value::Array(items)) if items.iter().all(Value::is_str) => return Ok(value),
        // A list of one, as it is written on a command line.
        (Value::Array(_), Value::String(_)) => return Ok(Value::Array(vec![value])),
        (Value::Integer(_), _) => "a whole number from 0",
        (Value::Boolean(_), _) => "true or false",
        (Value::String(_), _) => "a text in quotes",
        (Value::Array(_), _) => "a list of texts in quotes",
        _ => "a table of keys and values",
    };
    Err(refused(key, value, allowed))
}

fn number(value: Value, key: &str) -> Result<Value, ConfigError> {
    match value {
        Value::Integer(n) => Ok(Value::Float(n as f64)),
        Value::Float(x) if x.is_finite() => Ok(value),
        _ => Err(refused(key, value, "a number")),
    }
}

pub(super) fn refused(key: &str, value: impl ToString, allowed: impl Into<String>) -> ConfigError {
    ConfigError::Value { key: key.into(), value: value.to_string(), allowed: allowed.into() }
}
