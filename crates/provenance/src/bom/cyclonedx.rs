//! [CycloneDX 1.7](https://cyclonedx.org/docs/1.7/json/).

use super::{BomOptions, learned_from, source_id, timestamp, uuid, version};
use crate::{Derivation, DerivedFrom, InputKind, ModelFile, ModelRecord, SourceUse, SupervisedUse};
use serde_json::{Value, json};

/// The bill of a model: the model with its card, its files, and its sources as components of data.
pub fn cyclonedx(record: &ModelRecord, options: &BomOptions) -> Value {
    let model = &record.model;
    let mut components: Vec<Value> = record.sources.iter().map(|source| data(record, source)).collect();
    components.extend(record.supervised.iter().map(|examples| {
        let name = name_of(examples);
        json!({
            "type": "data",
            "bom-ref": format!("examples:{}:{}:{}", examples.kind, examples.dataset, examples.license),
            "name": name,
            "licenses": licenses(&examples.license),
            "data": [{
                "type": "dataset",
                "name": name,
                "contents": { "properties": properties(&[
                    ("examples", examples.examples.to_string()), ("tokens", examples.tokens.to_string()),
                ]) },
            }],
        })
    }));
    let datasets: Vec<Value> = components.iter().map(|c| json!({ "ref": c["bom-ref"] })).collect();
    components.extend(record.files.iter().map(|f| file("file", f)));
    let depends: Vec<&Value> = components.iter().map(|c| &c["bom-ref"]).collect();
    let metrics: Vec<Value> = options
        .metrics
        .iter()
        .map(|metric| {
            let mut value =
                json!({ "type": metric.name, "value": metric.value.to_string(), "slice": metric.slice });
            if let Some((low, high)) = metric.interval {
                value["confidenceInterval"] =
                    json!({ "lowerBound": low.to_string(), "upperBound": high.to_string() });
            }
            value
        })
        .collect();
    let mut card = json!({
        "modelParameters": {
            "approach": { "type": "self-supervised" },
            "task": "text-generation",
            "architectureFamily": "transformer, mixture of experts",
            "modelArchitecture": model.architecture,
            "datasets": datasets,
            "inputs": [{ "format": "text" }],
            "outputs": [{ "format": "text" }],
        },
        "considerations": {
            "useCases": ["continuing and drafting legal text", "a base for fine-tuning on legal tasks"],
            "technicalLimitations": [
                "texts it makes may be wrong and are no legal advice",
                "what it saw last of the law is as old as its corpus",
            ],
        },
        "properties": properties(&[
            ("parameters", model.parameters.to_string()),
            ("training tokens", record.training.tokens.to_string()),
            ("optimiser steps", record.training.steps.to_string()),
            ("corpus root (BLAKE3)", record.corpus.root.clone()),
            ("record seal (BLAKE3)", record.seal.clone()),
        ]),
    });
    if !metrics.is_empty() {
        card["quantitativeAnalysis"] = json!({ "performanceMetrics": metrics });
    }
    let mut component = json!({
        "type": "machine-learning-model",
        "bom-ref": "model",
        "name": model.name,
        "version": version(record),
        "description": model.description,
        "modelCard": card,
    });
    if let Some(pedigree) = pedigree(record) {
        component["pedigree"] = pedigree;
    }
    if let Some(license) = &model.license {
        component["licenses"] = licenses(license);
    }
    if let Some(creator) = &model.creator {
        component["supplier"] = json!({ "name": creator });
    }
    if let Some(url) = &model.url {
        component["externalReferences"] = json!([{ "type": "website", "url": url }]);
    }
    json!({
        "$schema": "http://cyclonedx.org/schema/bom-1.7.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.7",
        "serialNumber": format!("urn:uuid:{}", uuid(record)),
        "version": 1,
        "metadata": {
            "timestamp": timestamp(options.time),
            "tools": { "components": [{
                "type": "application", "name": record.generator.name, "version": record.generator.version,
            }] },
            "component": component,
        },
        "components": components,
        "dependencies": [{ "ref": "model", "dependsOn": depends }],
    })
}

fn properties(pairs: &[(&str, String)]) -> Value {
    pairs
        .iter()
        .map(|(name, value)| json!({ "name": format!("blackletter:{name}"), "value": value }))
        .collect()
}

fn name_of(examples: &SupervisedUse) -> String {
    format!("examples of {} from {} under {}", examples.kind, examples.dataset, examples.license)
}

fn licenses(expression: &str) -> Value {
    json!([{ "expression": expression }])
}

fn data(record: &ModelRecord, source: &SourceUse) -> Value {
    let mut facts = vec![
        ("documents", source.documents.to_string()),
        ("text bytes", source.text_bytes.to_string()),
        ("tokens", source.tokens.to_string()),
    ];
    for (name, value) in [("source", &source.source), ("licence basis", &source.license_basis)] {
        facts.extend(value.clone().map(|value| (name, value)));
    }
    let accepted = record.accepted.iter().find(|accepted| accepted.license == source.license);
    facts.extend(accepted.map(|accepted| ("accepted because", accepted.reason.clone())));
    let name = format!("{} under {}", source.dataset, source.license);
    json!({
        "type": "data",
        "bom-ref": format!("dataset:{}", source_id(source)),
        "name": name,
        "licenses": licenses(&source.license),
        "data": [{
            "type": "dataset",
            "name": name,
            "contents": { "properties": properties(&facts) },
        }],
    })
}

/// The models that the training began with, and the models and adapters that the model was made from after it.
fn pedigree(record: &ModelRecord) -> Option<Value> {
    let (mut ancestors, mut notes) = (Vec::new(), Vec::new());
    for (number, base) in record.bases().into_iter().enumerate() {
        let mut component = ancestor(&base.model, &format!("base:{number}"));
        if let Some(record) = &base.record {
            let of = |source: &SourceUse| data(record, source)["data"][0].clone();
            let mut datasets: Vec<Value> = record.sources.iter().map(of).collect();
            let of = |examples| json!({ "type": "dataset", "name": name_of(examples) });
            datasets.extend(record.supervised.iter().map(of));
            component["modelCard"] = json!({ "modelParameters": { "datasets": datasets } });
            if let Some(license) = &record.model.license {
                component["licenses"] = licenses(license);
            }
        }
        ancestors.push(component);
    }
    notes.extend(record.base.iter().map(|base| format!("trained further from {}", base.sentence())));
    for (number, step) in record.derivations.iter().enumerate() {
        let inputs = step.inputs.iter().enumerate();
        ancestors.extend(inputs.map(|(n, input)| ancestor(input, &format!("ancestor:{number}:{n}"))));
    }
    notes.extend(record.derivations.iter().map(Derivation::sentence));
    (!ancestors.is_empty()).then(|| json!({ "ancestors": ancestors, "notes": notes.join("; ") }))
}

fn ancestor(input: &DerivedFrom, reference: &str) -> Value {
    let files: Vec<Value> = input.files.iter().map(|f| file(reference, f)).collect();
    let mut facts =
        vec![("kind", if input.kind == InputKind::Model { "model" } else { "adapter" }.to_owned())];
    facts.extend(input.seal.clone().map(|seal| ("record seal (BLAKE3)", seal)));
    let mut component = json!({
        "type": "machine-learning-model",
        "bom-ref": reference,
        "name": input.name,
        "properties": properties(&facts),
        "components": files,
    });
    let datasets: Vec<Value> = learned_from(&input.data)
        .map(|(name, license, facts)| {
            let contents = json!({ "properties": properties(&facts) });
            json!({ "type": "dataset", "name": format!("{name} under {license}"), "contents": contents })
        })
        .collect();
    if !datasets.is_empty() {
        component["modelCard"] = json!({ "modelParameters": { "datasets": datasets } });
    }
    component
}

fn file(reference: &str, file: &ModelFile) -> Value {
    json!({
        "type": "file",
        "bom-ref": format!("{reference}:{}", file.path),
        "name": file.path,
        "hashes": [{ "alg": "SHA-256", "content": file.sha256 }, { "alg": "BLAKE3", "content": file.blake3 }],
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{derivations, options, record, trained_further};
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_model_trained_further_names_what_its_base_was_trained_on() {
        let record = trained_further();
        let bom = cyclonedx(&record, &options());
        let pedigree = &bom["metadata"]["component"]["pedigree"];
        let notes = pedigree["notes"].as_str().unwrap();
        assert!(notes.starts_with("trained further from nano") && notes.contains("12 documents"), "{notes}");
        let names = pedigree["ancestors"][0]["modelCard"]["modelParameters"]["datasets"].to_string();
        for dataset in ["usc under", "edgar under LicenseRef-SEC-EDGAR", "examples of qa from usc"] {
            assert!(names.contains(dataset), "{names}");
        }
    }

    #[test]
    fn a_model_made_from_models_names_them_with_their_hashes() {
        let mut record = record();
        assert!(cyclonedx(&record, &options())["metadata"]["component"]["pedigree"].is_null());
        record.derivations = derivations();
        let bom = cyclonedx(&record, &options());
        let pedigree = &bom["metadata"]["component"]["pedigree"];
        assert_eq!(pedigree["notes"], "merge of base (BLAKE3 1212121212121212…), the adapter letters");
        let [base, adapter] = [0, 1].map(|n| &pedigree["ancestors"][n]);
        assert_eq!(base["components"][0]["hashes"][1]["content"], "12".repeat(32));
        let learned = &adapter["modelCard"]["modelParameters"]["datasets"][0];
        assert_eq!(learned["name"], "letters under CC0-1.0");
        assert!(learned["contents"].to_string().contains("\"7\""), "{learned}");
        assert_ne!(base["bom-ref"], adapter["bom-ref"]);
    }

    #[test]
    fn every_source_and_file_is_a_component_that_the_model_depends_on() {
        let record = record();
        let bom = cyclonedx(&record, &options());
        let refs: BTreeSet<&str> =
            bom["components"].as_array().unwrap().iter().map(|c| c["bom-ref"].as_str().unwrap()).collect();
        assert_eq!(refs.len(), 2 + 1 + 2, "references are unique: {refs:?}");
        let depends: BTreeSet<&str> = bom["dependencies"][0]["dependsOn"]
            .as_array()
            .unwrap()
            .iter()
            .map(|r| r.as_str().unwrap())
            .collect();
        assert_eq!(refs, depends);
        let model = &bom["metadata"]["component"];
        assert_eq!(model["modelCard"]["modelParameters"]["datasets"].as_array().unwrap().len(), 3);
        let metric = &model["modelCard"]["quantitativeAnalysis"]["performanceMetrics"][0];
        assert_eq!(metric["confidenceInterval"]["lowerBound"], "0.8");
        let edgar = bom["components"]
            .as_array()
            .unwrap()
            .iter()
            .find(|c| c["name"] == "edgar under LicenseRef-SEC-EDGAR");
        let facts = edgar.unwrap()["data"][0]["contents"]["properties"].to_string();
        assert!(facts.contains("publicly filed") && facts.contains("17 U.S.C. 105"), "{facts}");
        assert_eq!(bom, cyclonedx(&record, &options()));
    }
}
