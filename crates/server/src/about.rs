//! What the model is and what it was made from, for the page and whoever asks.

use crate::{settings::Settings, template::ChatTemplate};
use blackletter_engine::{ModelFiles, Pipeline};
use blackletter_model::Description;
use serde_json::{Value, json};

/// One JSON object: name, context, form of the weights, template, what `inspect` shows, and `provenance.json` when the model
/// has one.
pub fn document(
    settings: &Settings,
    files: &ModelFiles,
    pipeline: &Pipeline,
    template: &ChatTemplate,
) -> String {
    let described = files.checkpoint().ok().map(|c| Description::new(&c, &|name| files.read(name)));
    let described = described.and_then(|d| serde_json::to_value(d).ok()).unwrap_or_default();
    let provenance = files.read("provenance.json").and_then(|text| serde_json::from_str::<Value>(&text).ok());
    let engine = &pipeline.engine;
    json!({
        "model": settings.model,
        "server": concat!("blackletter ", env!("CARGO_PKG_VERSION")),
        "context": engine.config().max_position_embeddings,
        "weight_bytes": engine.weights().bytes(),
        "threads": engine.pool().threads(),
        "simd": engine.isa().to_string(),
        "template": template.name(),
        "max_concurrent": settings.max_concurrent,
        "description": described,
        "provenance": provenance,
    })
    .to_string()
}
