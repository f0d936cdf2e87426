//! [SPDX 3.0.1](https://spdx.github.io/spdx-spec/v3.0.1/) as JSON-LD, with the profiles AI and Dataset.

use super::{BomOptions, learned_from, source_id, timestamp, uuid, version};
use crate::{DerivedFrom, ModelFile, ModelRecord, SourceUse};
use serde_json::{Value, json};
use std::collections::BTreeSet;

const CREATION: &str = "_:creation";

/// The bill of a model: the model as a package of AI, its sources as packages of data, its files, and how they belong
/// together.
pub fn spdx(record: &ModelRecord, options: &BomOptions) -> Value {
    let base = format!("urn:uuid:{}#", uuid(record));
    let id = |name: &str| format!("{base}{name}");
    let model = &record.model;
    let published = match &model.published {
        Some(date) if date.len() == 10 => format!("{date}T00:00:00Z"),
        _ => timestamp(options.time),
    };
    // Where no page is recorded, the bill speaks of the files beside it.
    let location = model.url.clone().unwrap_or_else(|| id("files"));
    let mut graph = vec![json!({
        "type": "CreationInfo", "@id": CREATION, "specVersion": "3.0.1", "created": timestamp(options.time),
        "createdBy": [id("creator")], "createdUsing": [id("tool")],
    })];
    let mut elements = Vec::new();
    let mut add = |kind: &str, name: &str, fields: Value| {
        let mut value = json!({ "type": kind, "spdxId": id(name), "creationInfo": CREATION });
        if let (Some(value), Value::Object(fields)) = (value.as_object_mut(), fields) {
            value.extend(fields);
        }
        elements.push(id(name));
        graph.push(value);
    };
    let creator = model.creator.clone().unwrap_or_else(|| "the authors of the model".into());
    add("Organization", "creator", json!({ "name": creator }));
    let tool = format!("{} {}", record.generator.name, record.generator.version);
    add("Tool", "tool", json!({ "name": tool }));
    let metrics: Vec<Value> = options
        .metrics
        .iter()
        .map(|metric| {
            let range = metric.interval.map(|(low, high)| format!(" ({low} to {high})")).unwrap_or_default();
            entry(&format!("{} on {}", metric.name, metric.slice), &format!("{}{range}", metric.value))
        })
        .collect();
    let mut package = json!({
        "name": model.name,
        "description": model.description,
        "suppliedBy": id("creator"),
        "software_packageVersion": version(record),
        "software_downloadLocation": location,
        "software_primaryPurpose": "model",
        "releaseTime": published,
        "ai_typeOfModel": ["language model", "transformer", "mixture of experts", model.architecture],
        "ai_domain": ["law"],
        "ai_informationAboutTraining": format!(
            "{} optimiser steps over {} tokens of {} documents; settings: {}",
            record.training.steps, record.training.tokens, record.documents.consumed, record.training.recipe
        ),
        "ai_hyperparameter": [
            entry("parameters", &model.parameters.to_string()),
            entry("steps", &record.training.steps.to_string()),
        ],
        "ai_limitation": "Texts it makes may be wrong and are no legal advice.",
        "verifiedUsing": [hash("blake3", &record.corpus.root, "root over the documents of the corpus")],
    });
    let begun = record.base.iter().map(|base| format!("Trained further from {}.", base.sentence()));
    let steps = record.derivations.iter().map(|step| format!("After its training: {}.", step.sentence()));
    let history: Vec<String> = begun.chain(steps).collect();
    if !history.is_empty() {
        package["comment"] = history.join(" ").into();
    }
    if !metrics.is_empty() {
        package["ai_metric"] = metrics.into();
    }
    add("ai_AIPackage", "model", package);
    let mut licenses: BTreeSet<&str> = record.sources.iter().map(|s| s.license.as_str()).collect();
    licenses.extend(record.supervised.iter().map(|s| s.license.as_str()));
    licenses.extend(model.license.as_deref());
    for base in record.bases().into_iter().filter_map(|base| base.record.as_ref()) {
        licenses.extend(base.sources.iter().map(|s| s.license.as_str()));
        licenses.extend(base.supervised.iter().map(|s| s.license.as_str()));
    }
    let license_name = |license: &str| {
        let plain = |c: char| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' };
        format!("license-{}", license.chars().map(plain).collect::<String>())
    };
    for license in &licenses {
        let fields = json!({ "simplelicensing_licenseExpression": license });
        add("simplelicensing_LicenseExpression", &license_name(license), fields);
    }
    let mut data = |record: &ModelRecord, model: &str, prefix: &str| {
        let mut trained = Vec::new();
        for source in &record.sources {
            let name = format!("{prefix}dataset-{}", source_id(source));
            add(
                "dataset_DatasetPackage",
                &name,
                dataset(record, source, &id("creator"), &location, &published),
            );
            relate(&mut add, &id, &name, "hasDeclaredLicense", &[license_name(&source.license)]);
            trained.push(name);
        }
        for (number, examples) in record.supervised.iter().enumerate() {
            let name = format!("{prefix}examples-{number}");
            let fields = json!({
                "name": format!("examples of {} from {}", examples.kind, examples.dataset),
                "originatedBy": [id("creator")],
                "builtTime": published,
                "releaseTime": published,
                "software_primaryPurpose": "data",
                "software_downloadLocation": location,
                "dataset_datasetType": ["text"],
                "dataset_datasetSize": examples.tokens,
                "dataset_intendedUse": "supervised training of answers",
            });
            add("dataset_DatasetPackage", &name, fields);
            relate(&mut add, &id, &name, "hasDeclaredLicense", &[license_name(&examples.license)]);
            trained.push(name);
        }
        if !trained.is_empty() {
            relate(&mut add, &id, model, "trainedOn", &trained);
        }
    };
    data(record, "model", "");
    for (number, base) in record.bases().into_iter().enumerate() {
        if let Some(record) = &base.record {
            data(record, &format!("base-{number}"), &format!("base-{number}-"));
        }
    }
    if let Some(license) = &model.license {
        relate(&mut add, &id, "model", "hasDeclaredLicense", &[license_name(license)]);
    }
    let mut files = Vec::new();
    for (number, file) in record.files.iter().enumerate() {
        let name = format!("file-{number}");
        add("software_File", &name, file_fields(file));
        files.push(name);
    }
    if !files.is_empty() {
        relate(&mut add, &id, "model", "contains", &files);
    }
    let mut ancestors = Vec::new();
    for (number, base) in record.bases().into_iter().enumerate() {
        let name = format!("base-{number}");
        add("software_Package", &name, ancestor(&base.model));
        ancestors.push(name);
    }
    let steps = record.derivations.iter().enumerate();
    for (step, number, input) in
        steps.flat_map(|(s, step)| step.inputs.iter().enumerate().map(move |(n, i)| (s, n, i)))
    {
        let name = format!("ancestor-{step}-{number}");
        add("software_Package", &name, ancestor(input));
        ancestors.push(name);
    }
    if !ancestors.is_empty() {
        relate(&mut add, &id, "model", "descendantOf", &ancestors);
    }
    let root = id("model");
    let document = json!({
        "type": "SpdxDocument", "spdxId": id("document"), "creationInfo": CREATION,
        "name": format!("bill of materials of {}", model.name),
        "profileConformance": ["core", "software", "ai", "dataset", "simpleLicensing"],
        "rootElement": [root],
        "element": elements,
    });
    graph.push(document);
    json!({ "@context": "https://spdx.org/rdf/3.0.1/spdx-context.jsonld", "@graph": graph })
}

fn entry(key: &str, value: &str) -> Value {
    json!({ "type": "DictionaryEntry", "key": key, "value": value })
}

fn hash(algorithm: &str, value: &str, comment: &str) -> Value {
    json!({ "type": "Hash", "algorithm": algorithm, "hashValue": value, "comment": comment })
}

/// Adds a relationship from one element to others.
fn relate(
    add: &mut impl FnMut(&str, &str, Value),
    id: &impl Fn(&str) -> String,
    from: &str,
    kind: &str,
    to: &[String],
) {
    let to: Vec<String> = to.iter().map(|name| id(name)).collect();
    let fields = json!({ "from": id(from), "relationshipType": kind, "to": to, "completeness": "complete" });
    add("Relationship", &format!("{from}-{kind}"), fields);
}

fn dataset(record: &ModelRecord, source: &SourceUse, creator: &str, location: &str, time: &str) -> Value {
    let mut about = format!(
        "{} documents, {} bytes of text, {} tokens trained on.",
        source.documents, source.text_bytes, source.tokens
    );
    if let Some(from) = &source.source {
        about.push_str(&format!(" Collected from: {from}."));
    }
    if let Some(basis) = &source.license_basis {
        about.push_str(&format!(" Basis of the licence: {basis}."));
    }
    if let Some(accepted) = record.accepted.iter().find(|a| a.license == source.license) {
        about.push_str(&format!(" Accepted because: {}.", accepted.reason));
    }
    json!({
        "name": source.dataset,
        "description": about,
        "originatedBy": [creator],
        "builtTime": time,
        "releaseTime": time,
        "software_primaryPurpose": "data",
        "software_downloadLocation": location,
        "dataset_datasetType": ["text"],
        "dataset_datasetSize": source.text_bytes,
        "dataset_intendedUse": "training of language models",
    })
}

/// A model or adapter that the model was made from, of which no more is known than its files and what it says of its data.
fn ancestor(input: &DerivedFrom) -> Value {
    let of = |file: &ModelFile| hash("blake3", &file.blake3, &file.path);
    let mut fields = json!({
        "name": input.name,
        "software_primaryPurpose": "model",
        "verifiedUsing": input.files.iter().map(of).collect::<Vec<_>>(),
    });
    let seal = input.seal.as_ref().map(|seal| format!("Its record has the seal {seal}."));
    let learned: Vec<String> = learned_from(&input.data)
        .map(|(name, license, facts)| {
            let facts: Vec<String> = facts.iter().map(|(key, value)| format!("{key} {value}")).collect();
            format!("{name} under {license} ({})", facts.join(", "))
        })
        .collect();
    let data = (!learned.is_empty()).then(|| format!("It learned from: {}.", learned.join("; ")));
    let about: Vec<String> = seal.into_iter().chain(data).collect();
    if !about.is_empty() {
        fields["description"] = about.join(" ").into();
    }
    fields
}

fn file_fields(file: &ModelFile) -> Value {
    let purpose =
        if file.path.ends_with(".safetensors") || file.path.ends_with(".gguf") { "model" } else { "file" };
    json!({
        "name": file.path,
        "software_primaryPurpose": purpose,
        "verifiedUsing": [
            { "type": "Hash", "algorithm": "sha256", "hashValue": file.sha256 },
            { "type": "Hash", "algorithm": "blake3", "hashValue": file.blake3 },
        ],
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{derivations, options, trained_further};
    use super::*;

    #[test]
    fn every_reference_leads_to_an_element_and_every_element_is_listed() {
        let mut record = trained_further();
        record.derivations = derivations();
        let bill = spdx(&record, &options());
        let graph = bill["@graph"].as_array().unwrap();
        let ids: Vec<&str> = graph.iter().filter_map(|e| e["spdxId"].as_str()).collect();
        let unique: BTreeSet<&str> = ids.iter().copied().collect();
        assert_eq!(ids.len(), unique.len());
        let of = |kind: &str| graph.iter().filter(|e| e["type"] == kind).collect::<Vec<_>>();
        assert_eq!((of("ai_AIPackage").len(), of("dataset_DatasetPackage").len()), (1, 1 + 3));
        for relationship in of("Relationship") {
            assert!(unique.contains(relationship["from"].as_str().unwrap()));
            for to in relationship["to"].as_array().unwrap() {
                assert!(unique.contains(to.as_str().unwrap()), "{to}");
            }
        }
        let trained: Vec<(&str, usize)> = of("Relationship")
            .into_iter()
            .filter(|r| r["relationshipType"] == "trainedOn")
            .map(|r| (r["from"].as_str().unwrap(), r["to"].as_array().unwrap().len()))
            .collect();
        assert!(trained.len() == 2 && trained[0].0.ends_with("#model") && trained[0].1 == 1, "{trained:?}");
        assert!(trained[1].0.ends_with("#base-0") && trained[1].1 == 3, "{trained:?}");
        let from = of("Relationship").into_iter().find(|r| r["relationshipType"] == "descendantOf").unwrap();
        assert_eq!(from["to"].as_array().unwrap().len(), 3);
        let ancestors = of("software_Package");
        assert_eq!(ancestors[1]["verifiedUsing"][0]["hashValue"], "12".repeat(32));
        assert!(ancestors[2]["description"].as_str().unwrap().contains("CC0-1.0"));
        let document = of("SpdxDocument")[0];
        assert_eq!(document["element"].as_array().unwrap().len(), ids.len() - 1);
        assert!(graph.iter().all(|e| e["type"] == "CreationInfo" || e["creationInfo"] == CREATION));
    }
}
