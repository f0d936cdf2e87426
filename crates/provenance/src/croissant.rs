//! The record as [Croissant 1.1](http://mlcommons.org/croissant/1.1): JSON-LD of the ML Commons that dataset catalogues
//! read, with provenance in terms of PROV-O and usage terms.

use crate::{license::License, record::Provenance};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// A corpus in Croissant. `columns` are the shards' columns: name, Croissant data type (`sc:Text`, `sc:Float`, …) and what
/// is in it.
pub fn croissant(record: &Provenance, columns: &[(&str, &str, &str)]) -> Value {
    let mut out = Map::new();
    let mut put = |key: &str, value: Value| {
        out.insert(key.to_owned(), value);
    };
    put("@context", context());
    put("@type", "sc:Dataset".into());
    put("conformsTo", "http://mlcommons.org/croissant/1.1".into());
    put("name", record.dataset.name.clone().into());
    put("description", record.dataset.description.clone().into());
    // The content is the version.
    put("version", format!("1.0.0+{}", record.root.get(..16).unwrap_or_default()).into());
    for (key, value) in [("url", &record.dataset.url), ("datePublished", &record.dataset.published)] {
        if let Some(value) = value {
            put(key, value.clone().into());
        }
    }
    if let Some(creator) = &record.dataset.creator {
        put("creator", json!({ "@type": "sc:Organization", "name": creator }));
    }
    put("license", licenses(record));
    put("usageInfo", usage(record));
    put("prov:wasDerivedFrom", derived_from(record));
    put(
        "prov:wasGeneratedBy",
        json!({
            "@type": "prov:Activity",
            "prov:label": "parsing, cleaning, licence gate, deduplication and splitting",
            "prov:wasAssociatedWith": {
                "@type": "prov:SoftwareAgent",
                "prov:label": format!("{} {}", record.generator.name, record.generator.version),
            },
        }),
    );
    put("distribution", distribution(record));
    put("recordSet", record_sets(record, columns));
    Value::Object(out)
}

/// Words of Croissant's own vocabulary.
const TERMS: [&str; 35] = [
    "annotation",
    "arrayShape",
    "citeAs",
    "column",
    "containedIn",
    "equivalentProperty",
    "excludes",
    "extract",
    "field",
    "fileObject",
    "fileProperty",
    "fileSet",
    "format",
    "includes",
    "isArray",
    "isLiveDataset",
    "jsonPath",
    "key",
    "md5",
    "parentField",
    "path",
    "readLines",
    "recordSet",
    "references",
    "regex",
    "repeated",
    "replace",
    "samplingRate",
    "sdVersion",
    "separator",
    "source",
    "subField",
    "transform",
    "unArchive",
    "value",
];

/// The terms of Appendix 1 of the specification, and PROV-O's.
fn context() -> Value {
    let mut context = json!({
        "@language": "en", "@vocab": "https://schema.org/", "conformsTo": "dct:conformsTo",
        "cr": "http://mlcommons.org/croissant/", "data": { "@id": "cr:data", "@type": "@json" },
        "dataType": { "@id": "cr:dataType", "@type": "@vocab" }, "dct": "http://purl.org/dc/terms/",
        "description": { "@container": "@language" }, "examples": { "@id": "cr:examples", "@type": "@json" },
        "name": { "@container": "@language" }, "prov": "http://www.w3.org/ns/prov#",
        "rai": "http://mlcommons.org/croissant/RAI/", "sc": "https://schema.org/",
    });
    if let Some(context) = context.as_object_mut() {
        context.extend(TERMS.iter().map(|term| ((*term).to_owned(), format!("cr:{term}").into())));
    }
    context
}

/// Each licence once: an SPDX id by its address, anything else by name and basis.
fn licenses(record: &Provenance) -> Value {
    let mut names: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    for source in &record.sources {
        let of = License::parse(&source.license).map_or_else(|_| vec![source.license.clone()], |l| l.names());
        for name in of {
            names.entry(name).or_default().extend(source.license_basis.as_deref());
        }
    }
    let one = |(name, bases): (&String, &BTreeSet<&str>)| {
        if !name.contains("LicenseRef-") {
            return json!(format!("https://spdx.org/licenses/{name}.html"));
        }
        let bases: Vec<&str> = bases.iter().copied().collect();
        json!({ "@type": "sc:CreativeWork", "name": name, "description": bases.join("; ") })
    };
    names.iter().map(one).collect()
}

fn usage(record: &Provenance) -> Value {
    let by_name = record.accepted.iter().map(|accepted| {
        format!(
            "{} ({} documents) was accepted by name: {}",
            accepted.license, accepted.documents, accepted.reason
        )
    });
    let each = "Each document carries its own licence and its basis in the columns `license` and `license_basis`; attribution \
                that a licence asks for is due to the `source` and `url` of the document.";
    std::iter::once(each.to_owned())
        .chain(by_name)
        .map(|text| json!({ "@type": "sc:CreativeWork", "name": "Terms of use", "text": text }))
        .collect()
}

fn derived_from(record: &Provenance) -> Value {
    let sources = record.sources.iter().map(|source| {
        let mut entity = Map::new();
        entity.insert("@type".into(), "prov:Entity".into());
        let label =
            source.source.as_ref().map_or(source.dataset.clone(), |s| format!("{}: {s}", source.dataset));
        entity.insert("prov:label".into(), label.into());
        entity.insert("license".into(), source.license.clone().into());
        if let Some(basis) = &source.license_basis {
            entity.insert("usageInfo".into(), basis.clone().into());
        }
        entity.insert(
            "size".into(),
            format!("{} documents, {} bytes of text", source.documents, source.text_bytes).into(),
        );
        Value::Object(entity)
    });
    sources.collect()
}

fn set_id(part: &str) -> String {
    format!("{part}-shards")
}

fn distribution(record: &Provenance) -> Value {
    let mut all: Vec<Value> = record
        .shards
        .iter()
        .map(|shard| {
            json!({
                "@type": "cr:FileObject", "@id": shard.path, "name": shard.path, "contentUrl": shard.path,
                "contentSize": format!("{} B", shard.bytes), "encodingFormat": "application/x-parquet",
                "sha256": shard.sha256,
            })
        })
        .collect();
    for part in record.parts.keys() {
        let includes: Vec<&str> =
            record.shards.iter().filter(|s| s.part == *part).map(|s| s.path.as_str()).collect();
        if !includes.is_empty() {
            all.push(json!({
                "@type": "cr:FileSet", "@id": set_id(part), "name": set_id(part),
                "description": format!("The documents of the part `{part}`."),
                "encodingFormat": "application/x-parquet", "includes": includes,
            }));
        }
    }
    all.into()
}

fn record_sets(record: &Provenance, columns: &[(&str, &str, &str)]) -> Value {
    let parts =
        record.parts.iter().filter(|(part, _)| record.shards.iter().any(|shard| shard.part == **part));
    parts
        .map(|(part, counts)| {
            let field = |(name, data_type, what): &(&str, &str, &str)| {
                json!({
                    "@type": "cr:Field", "@id": format!("{part}/{name}"), "name": format!("{part}/{name}"), "description": what,
                    "dataType": data_type,
                    "source": { "fileSet": { "@id": set_id(part) }, "extract": { "column": name } },
                })
            };
            json!({
                "@type": "cr:RecordSet", "@id": part, "name": part,
                "description": format!("{} documents, {} bytes of text; root {}", counts.documents, counts.text_bytes, counts.root),
                "key": { "@id": format!("{part}/id") },
                "field": columns.iter().map(field).collect::<Vec<_>>(),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Accepted, Dataset, Generator, Part, Shard, SourceRecord, VERSION};

    fn record() -> Provenance {
        let source = |license: &str, basis: Option<&str>| SourceRecord {
            dataset: "usc".into(),
            source: Some("GPO".into()),
            license: license.into(),
            license_basis: basis.map(str::to_owned),
            documents: 1,
            text_bytes: 10,
        };
        Provenance {
            version: VERSION,
            dataset: Dataset { name: "law".into(), description: "Law.".into(), ..Dataset::default() },
            generator: Generator { name: "blackletter".into(), version: "0".into() },
            documents: 2,
            text_bytes: 20,
            root: "ab".repeat(32),
            parts: [("train".into(), Part { documents: 2, text_bytes: 20, root: "ab".repeat(32) })].into(),
            sources: vec![
                source("LicenseRef-public-domain-17-USC-105", Some("17 U.S.C. 105")),
                source("CC-BY-4.0", None),
            ],
            accepted: vec![Accepted {
                license: "LicenseRef-x".into(),
                reason: "as filed".into(),
                documents: 1,
            }],
            refused: vec![],
            inputs: vec![],
            evaluations: vec![],
            settings: json!({}),
            shards: vec![Shard {
                path: "train/0.parquet".into(),
                part: "train".into(),
                documents: 2,
                text_bytes: 20,
                bytes: 30,
                blake3: "cd".repeat(32),
                sha256: "ef".repeat(32),
            }],
        }
    }

    #[test]
    fn licences_terms_sources_and_files_are_all_there() {
        let out = croissant(&record(), &[("id", "sc:Text", "Name")]);
        assert_eq!(out["license"][0], "https://spdx.org/licenses/CC-BY-4.0.html");
        assert_eq!(out["license"][1]["description"], "17 U.S.C. 105");
        assert!(out["usageInfo"][1]["text"].as_str().unwrap().contains("as filed"));
        assert_eq!(out["prov:wasDerivedFrom"][0]["prov:label"], "usc: GPO");
        assert_eq!(out["distribution"][0]["sha256"], "ef".repeat(32));
        assert_eq!(out["distribution"][1]["includes"][0], "train/0.parquet");
        assert_eq!(out["recordSet"][0]["field"][0]["source"]["fileSet"]["@id"], "train-shards");
    }

    #[test]
    fn a_record_comes_back_and_other_versions_are_refused() {
        let json = record().to_json().unwrap();
        assert_eq!(Provenance::from_json(&json).unwrap(), record());
        let other = String::from_utf8(json).unwrap().replacen("\"version\": 1", "\"version\": 9", 1);
        let error = Provenance::from_json(other.as_bytes()).unwrap_err().to_string();
        assert!(error.contains("version 9"), "{error}");
    }
}
