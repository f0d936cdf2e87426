//! A token store made from files that a run's configuration names itself: texts and examples.

use crate::{config::RunConfig, error::TrainError, export::write_json, ranks::Ranks, setup};
use blackletter_corpus::{
    build::{self, BuildError, Plan},
    recipe::{Licenses, Recipe, RecipeError},
    source::{Paths, SourceSpec},
    steps::{SplitSettings, Watch},
};
use blackletter_dataset::{Inputs, Rights, manifest::SftRecord};
use blackletter_provenance::Gate;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// Name of the folder in a run that corpus and store are in.
pub const FOLDER: &str = "data";
/// Name of the file beside them that says what they were made of.
const NAMED: &str = "named.json";
/// Share of documents that are held out.
const HELDOUT: f64 = 0.02;
/// Dataset of texts that name none.
const DATASET: &str = "texts";

/// Makes the token store of a run that names files of its own, or finds it made, and sets `data.store` to it. Does nothing for
/// other runs. `watch` hears how far the corpus is and may stop it. Gives what examples were left out, in sentences.
///
/// # Errors
/// When files cannot be read, their licence is refused, or nothing is left of them.
pub fn prepare(config: &mut RunConfig, resume: bool, watch: Watch<'_>) -> Result<Vec<String>, TrainError> {
    let mut notes = Vec::new();
    let (texts, examples) = (&config.data.texts, &config.data.examples);
    if texts.is_empty() && examples.is_empty() {
        return Ok(notes);
    }
    let ranks = Ranks::join();
    let folder = config.run.join(FOLDER);
    let store = folder.join("store");
    if ranks.is_first() {
        // Before anything is written over what another run learns from, or looked for in a run that is not there.
        setup::prepare_directory(config, resume)?;
    }
    if !resume && ranks.is_first() {
        let corpus = match texts.is_empty() {
            true => None,
            false => Some(make_corpus(config, &folder.join("corpus"), watch)?),
        };
        let gate = Gate::new(None, &accepted(config)).map_err(RecipeError::from).map_err(BuildError::from)?;
        let rights = Rights { gate, license: stated_license(config), license_basis: None };
        let tokenizer = PathBuf::from(&config.model.from);
        let manifest = blackletter_dataset::build(
            &Inputs { corpus, tokenizer, sft: examples.clone(), rights },
            &store,
            &mut |_| {},
        )?;
        check_examples(config, &manifest.sft)?;
        notes = manifest.sft.left_out();
        write_json(&folder.join(NAMED), &named(config))?;
    }
    if resume && ranks.is_first() {
        check_named(config, &folder.join(NAMED))?;
    }
    ranks.wait()?;
    if texts.is_empty() {
        config.stream.sft_weight = 1.0;
    }
    config.data.store = store;
    // The configuration as run names the store; the files it was made of stand in the store's record.
    config.data.texts.clear();
    config.data.examples.clear();
    Ok(notes)
}

/// What the configuration names.
fn named(config: &RunConfig) -> Value {
    json!({ "texts": config.data.texts, "examples": config.data.examples, "license": config.data.license })
}

/// Refuses to go on with other files than the store was made of.
fn check_named(config: &RunConfig, path: &Path) -> Result<(), TrainError> {
    let Ok(bytes) = fs::read(path) else { return Ok(()) };
    let then: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let now = named(config);
    for key in ["texts", "examples", "license"] {
        if then[key] != now[key] {
            return Err(TrainError::Changed {
                run: config.run.clone(),
                key: format!("data.{key}"),
                then: then[key].to_string(),
                now: now[key].to_string(),
            });
        }
    }
    Ok(())
}

/// The licence of texts and examples that state none.
fn stated_license(config: &RunConfig) -> Option<String> {
    let license = &config.data.license;
    (!license.is_empty()).then(|| license.clone())
}

/// A reference that the run names itself, with the reason why it is accepted.
fn accepted(config: &RunConfig) -> BTreeMap<String, String> {
    let license = &config.data.license;
    let mut accept = BTreeMap::new();
    if license.starts_with("LicenseRef-") && !license.starts_with("LicenseRef-public-domain") {
        accept.insert(
            license.clone(),
            "Named by whoever trains on these texts (data.license of the run)".into(),
        );
    }
    accept
}

/// Files of examples that leave nothing to learn from are not passed over in silence.
fn check_examples(config: &RunConfig, made: &SftRecord) -> Result<(), TrainError> {
    let (examples, license) = (&config.data.examples, &config.data.license);
    if examples.is_empty() || made.examples > 0 {
        return Ok(());
    }
    let reasons = made.inputs.iter().flat_map(|input| &input.refused);
    let reasons: Vec<String> = reasons.map(|(reason, lines)| format!("{lines}: {reason}")).collect();
    Err(TrainError::Mismatch(format!(
        "data.examples = {examples:?} left no example to train on (data.license = {license:?}); lines left out: {}",
        reasons.join("; ")
    )))
}

/// A corpus of the texts: gated, cleaned, without duplicates, but no text is too odd to learn from.
fn make_corpus(config: &RunConfig, out: &Path, watch: Watch<'_>) -> Result<PathBuf, TrainError> {
    let license = &config.data.license;
    let mut recipe = Recipe {
        name: config.run.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned()),
        source: vec![SourceSpec {
            path: Paths::Many(config.data.texts.clone()),
            dataset: Some(DATASET.into()),
            license: stated_license(config),
            ..SourceSpec::default()
        }],
        licenses: Licenses { allow: None, accept: accepted(config) },
        split: SplitSettings { heldout: HELDOUT, seed: 1 },
        ..Recipe::default()
    };
    recipe.filter.enabled = false;
    let plan = Plan::of_recipe(&recipe, Path::new("."))?;
    let record = build::build(&plan, out, watch)?;
    if record.documents == 0 {
        let refused: u64 = record.refused.iter().map(|r| r.documents).sum();
        return Err(TrainError::Mismatch(format!(
            "data.texts = {:?} left no document to train on, {refused} were refused for their licence (data.license = {license:?}); {} says why",
            config.data.texts,
            out.join(build::REPORT_MARKDOWN).display()
        )));
    }
    Ok(out.into())
}
