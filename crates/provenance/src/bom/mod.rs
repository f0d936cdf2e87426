//! Bills of materials of a model, made from its record: the same facts in the forms that others read.
//!
//! - [`cyclonedx()`]: CycloneDX 1.7 with a model card (ML-BOM);
//! - [`spdx()`]: SPDX 3.0.1 with the profiles AI and Dataset;
//! - [`eu_summary()`]: the European Commission's template of 24 July 2025 for the public summary of training content.

mod cyclonedx;
mod eu_summary;
mod spdx;

pub use cyclonedx::cyclonedx;
pub use eu_summary::eu_summary;
pub use spdx::spdx;

use crate::{ModelRecord, SourceUse};
use serde_json::Value;

/// What a bill says beyond the record.
#[derive(Clone, Debug, Default)]
pub struct BomOptions {
    /// When the bill is made, in seconds since 1970.
    pub time: u64,
    /// What evaluations came to.
    pub metrics: Vec<Metric>,
    /// Internet domains that documents state as their address, with the number of documents; the most frequent first.
    pub domains: Vec<(String, u64)>,
}

/// A measured value.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metric {
    /// What was measured, with its unit.
    pub name: String,
    /// On which data.
    pub slice: String,
    /// The value.
    pub value: f64,
    /// The interval.
    pub interval: Option<(f64, f64)>,
}

/// A time as SPDX and CycloneDX write it, `YYYY-MM-DDThh:mm:ssZ` (proleptic Gregorian calendar).
pub(crate) fn timestamp(time: u64) -> String {
    // Years have four digits: the last second of 9999 is the last.
    let time = time.min(253_402_300_799);
    let (mut days, seconds) = (time / 86_400, time % 86_400);
    let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let mut year = 1970;
    while days >= 365 + u64::from(leap(year)) {
        days -= 365 + u64::from(leap(year));
        year += 1;
    }
    let months = [31, 28 + u64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 1;
    for length in months {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{:02}T{hour:02}:{minute:02}:{second:02}Z", days + 1)
}

/// A name for a source that is the same whenever its dataset, source, licence and basis are.
fn source_id(source: &SourceUse) -> String {
    let key = format!("{:?}", (&source.dataset, &source.source, &source.license, &source.license_basis));
    let hash = crate::hash::hex(key.as_bytes());
    let name: String =
        source.dataset.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    format!("{name}-{}", hash.get(..8).unwrap_or_default())
}

/// What an adapter says that it learned from (see [`crate::DerivedFrom::data`]): name, licence and numbers of each part.
fn learned_from(data: &Value) -> impl Iterator<Item = (String, &str, Vec<(&'static str, String)>)> {
    let parts =
        ["documents", "examples"].into_iter().filter_map(|part| Some((part, data.get(part)?.as_array()?)));
    parts.flat_map(|(part, origins)| {
        origins.iter().map(move |origin| {
            let text = |key: &str| origin.get(key).and_then(Value::as_str);
            let dataset = text("dataset").unwrap_or("texts");
            let name = match text("kind") {
                Some(kind) => format!("examples of {kind} from {dataset}"),
                None => dataset.to_owned(),
            };
            let mut facts = Vec::new();
            for key in ["documents", "examples", "bytes", "tokens"] {
                facts.extend(origin.get(key).and_then(Value::as_u64).map(|n| (key, n.to_string())));
            }
            facts.push(("part", part.to_owned()));
            (name, text("license").unwrap_or("NOASSERTION"), facts)
        })
    })
}

/// A UUID (RFC 9562, version 8) that follows from the record's seal.
fn uuid(record: &ModelRecord) -> String {
    let hash = crate::hash::hex(record.seal.as_bytes());
    let part = |from: usize, to: usize| hash.get(from..to).unwrap_or_default();
    format!("{}-{}-8{}-8{}-{}", part(0, 8), part(8, 12), part(13, 16), part(17, 20), part(20, 32))
}

/// The first 16 digits of what all files come to: the version of a model whose content is its version.
fn version(record: &ModelRecord) -> String {
    record.seal.get(..16).unwrap_or_default().to_owned()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::{
        Accepted, CorpusUse, DOCUMENTS_FILE, Derivation, DerivedFrom, DocumentList, Generator, InputKind,
        ModelFile, ModelIdentity, RecordKind, SupervisedUse, Training,
    };

    pub(crate) fn record() -> ModelRecord {
        let source = |dataset: &str, license: &str, documents| SourceUse {
            dataset: dataset.into(),
            source: Some("GPO".into()),
            license: license.into(),
            license_basis: Some("17 U.S.C. 105".into()),
            documents,
            text_bytes: 1000 * documents,
            tokens: 300 * documents,
        };
        let file = |path: &str| ModelFile {
            path: path.into(),
            bytes: 9,
            blake3: "ab".repeat(32),
            sha256: "cd".repeat(32),
        };
        let mut record = ModelRecord {
            version: 1,
            kind: RecordKind::Model,
            model: ModelIdentity {
                name: "nano".into(),
                description: "A small legal model.".into(),
                architecture: "MixtralForCausalLM".into(),
                parameters: 12_000_000,
                active_parameters: Some(7_000_000),
                license: Some("CC-BY-4.0".into()),
                url: None,
                creator: Some("The authors".into()),
                published: Some("2026-11-26".into()),
            },
            generator: Generator { name: "blackletter".into(), version: "0.1.0".into() },
            corpus: CorpusUse { root: "ef".repeat(32), record: None },
            tokenizer: "ab".repeat(32),
            training: Training {
                recipe: serde_json::json!({ "steps": 10 }),
                steps: 10,
                tokens: 3600,
                ..Training::default()
            },
            sources: vec![
                source("usc", "LicenseRef-public-domain-17-USC-105", 10),
                source("edgar", "LicenseRef-SEC-EDGAR", 2),
            ],
            supervised: vec![SupervisedUse {
                kind: "qa".into(),
                dataset: "usc".into(),
                license: "CC0-1.0".into(),
                examples: 5,
                tokens: 50,
            }],
            accepted: vec![Accepted {
                license: "LicenseRef-SEC-EDGAR".into(),
                reason: "publicly filed".into(),
                documents: 2,
            }],
            documents: DocumentList { path: DOCUMENTS_FILE.into(), documents: 12, consumed: 12 },
            base: None,
            derivations: vec![],
            files: vec![file("model.safetensors"), file("tokenizer.json")],
            seal: String::new(),
        };
        record.seal = record.expected_seal().unwrap();
        record
    }

    /// The same, trained further on other documents.
    pub(crate) fn trained_further() -> ModelRecord {
        let before = record();
        let mut record = record();
        record.sources.truncate(1);
        record.sources[0].dataset = "mine".into();
        record.supervised.clear();
        record.accepted.clear();
        let model = DerivedFrom {
            name: "nano".into(),
            kind: InputKind::Model,
            seal: Some(before.seal.clone()),
            files: before.files.clone(),
            data: Value::Null,
        };
        record.base = Some(Box::new(crate::BaseModel { model, record: Some(Box::new(before)) }));
        record.seal = record.expected_seal().unwrap();
        record
    }

    /// An adapter merged into a model.
    pub(crate) fn derivations() -> Vec<Derivation> {
        let file = |path: &str, digit: &str| ModelFile {
            path: path.into(),
            bytes: 9,
            blake3: digit.repeat(32),
            sha256: "cd".repeat(32),
        };
        let base = DerivedFrom {
            name: "base".into(),
            kind: InputKind::Model,
            seal: Some("ab".repeat(32)),
            files: vec![file("model.safetensors", "12")],
            data: Value::Null,
        };
        let adapter = DerivedFrom {
            name: "letters".into(),
            kind: InputKind::Adapter,
            seal: None,
            files: vec![file("adapter_config.json", "34")],
            data: serde_json::json!({ "documents": [{ "dataset": "letters", "license": "CC0-1.0", "documents": 7 }] }),
        };
        vec![Derivation {
            operation: "merge".into(),
            settings: Value::Null,
            generator: Generator { name: "blackletter".into(), version: "0.1.0".into() },
            inputs: vec![base, adapter],
        }]
    }

    pub(crate) fn options() -> BomOptions {
        let metric = Metric {
            name: "bits per byte".into(),
            slice: "usc".into(),
            value: 0.9,
            interval: Some((0.8, 1.0)),
        };
        BomOptions {
            time: 1_795_686_653,
            metrics: vec![metric],
            domains: vec![("www.govinfo.gov".into(), 10)],
        }
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        for (time, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_799, "2000-02-29T23:59:59Z"),
            (1_795_686_653, "2026-11-26T09:50:53Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (u64::MAX, "9999-12-31T23:59:59Z"),
        ] {
            assert_eq!(timestamp(time), text);
        }
    }

    #[test]
    fn names_follow_from_what_they_name() {
        let record = record();
        let id = uuid(&record);
        assert_eq!((id.len(), id.as_bytes()[14], id.as_bytes()[19]), (36, b'8', b'8'), "{id}");
        assert_eq!(id, uuid(&record));
        assert_ne!(source_id(&record.sources[0]), source_id(&record.sources[1]));
        assert!(source_id(&record.sources[0]).starts_with("usc-"));
    }
}
