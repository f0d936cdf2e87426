//! Texts that a model in training writes, from prompts that stay the same.

use crate::{config::SamplesConfig, error::TrainError, export};
use blackletter_engine::{
    GenerationRequest, LoadOptions, ModelFiles, Pipeline, generate, sampling::SamplingError,
};
use blackletter_model::{Dtype, GenerationConfig, decoder::Decoder};
use blackletter_tokenizer::SpecialTokens;
use serde::{Deserialize, Serialize};
use std::{fs, ops::ControlFlow, path::Path};

/// Name of the file of samples in a run.
const FILE: &str = "samples.jsonl";

/// What the names of directories that weights are written to for generating begin with.
const TEMPORARY: &str = ".samples-";

/// Removes what a run that was killed while it generated has left: all of its weights.
pub fn remove_unfinished(run: &Path) {
    for entry in fs::read_dir(run).into_iter().flatten().flatten() {
        if entry.file_name().to_str().is_some_and(|name| name.starts_with(TEMPORARY)) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// A prompt and what came after it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// What was given, after `<|start|>`.
    pub prompt: String,
    /// What came.
    pub text: String,
}

/// The samples of a step of a run; none where none were written.
pub fn of_step(run: &Path, step: u64) -> Vec<Sample> {
    #[derive(Deserialize)]
    struct Line {
        step: u64,
        #[serde(flatten)]
        sample: Sample,
    }
    let text = fs::read_to_string(run.join(FILE)).unwrap_or_default();
    let lines = text.lines().filter_map(|line| serde_json::from_str::<Line>(line).ok());
    lines.filter(|line| line.step == step).map(|line| line.sample).collect()
}

/// Writes the samples of a step behind those of earlier ones. A run that went on from an earlier checkpoint makes them again:
/// what was there of this step and later ones goes.
fn write(run: &Path, step: u64, samples: &[Sample]) -> Result<(), TrainError> {
    let path = run.join(FILE);
    let step_of = |line: &str| serde_json::from_str::<serde_json::Value>(line).ok()?.get("step")?.as_u64();
    let mut text = String::new();
    for line in fs::read_to_string(&path).unwrap_or_default().lines() {
        if step_of(line).is_some_and(|of| of < step) {
            text.push_str(line);
            text.push('\n');
        }
    }
    for Sample { prompt, text: new } in samples {
        text.push_str(&serde_json::json!({ "step": step, "prompt": prompt, "text": new }).to_string());
        text.push('\n');
    }
    let temporary = run.join(format!(".{FILE}.tmp"));
    fs::write(&temporary, text).map_err(TrainError::file("write", &temporary))?;
    fs::rename(&temporary, &path).map_err(TrainError::file("write", &path))
}

/// Generates from prompts; the same weights write the same texts.
pub struct Sampler {
    config: SamplesConfig,
    threads: usize,
}

impl Sampler {
    /// For these prompts.
    pub fn new(config: &SamplesConfig, threads: usize) -> Self {
        Self { config: config.clone(), threads }
    }

    /// Writes the weights to a temporary model directory of the run, generates there, and writes to `samples.jsonl`.
    ///
    /// # Errors
    /// When the weights cannot be written or run.
    pub fn run(&self, run: &Path, step: u64, decoder: &Decoder) -> Result<Vec<Sample>, TrainError> {
        let dir = tempfile::Builder::new()
            .prefix(TEMPORARY)
            .tempdir_in(run)
            .map_err(TrainError::file("make a directory in", run))?;
        export::write_model(decoder, &run.join("tokenizer.json"), dir.path(), Dtype::F32)?;
        let failed = |e: &dyn std::fmt::Display| TrainError::Sample(e.to_string());
        let load =
            LoadOptions { threads: (self.threads > 0).then_some(self.threads), ..LoadOptions::default() };
        let pipeline =
            Pipeline::load(&ModelFiles::Directory(dir.path().into()), &load, true).map_err(|e| failed(&e))?;
        let mut samples = Vec::new();
        for prompt in &self.config.prompts {
            let sample = self.one(&pipeline, decoder, prompt).map_err(|e| failed(&e))?;
            samples.push(sample);
        }
        write(run, step, &samples)?;
        Ok(samples)
    }

    fn one(
        &self,
        pipeline: &Pipeline,
        decoder: &Decoder,
        prompt: &str,
    ) -> Result<Sample, Box<dyn std::error::Error>> {
        let config = decoder.config();
        let mut ids: Vec<u32> = config.bos_token_id.into_iter().collect();
        let tokenizer = pipeline.tokenizer().ok_or("there is no tokenizer")?;
        ids.extend(tokenizer.encode(prompt, SpecialTokens::AsText)?);
        ids.truncate(config.max_position_embeddings / 2);
        let request = GenerationRequest {
            max_new_tokens: Some(self.config.tokens),
            num_return_sequences: 1,
            temperature: Some(self.config.temperature as f32),
            ..GenerationRequest::default()
        };
        let options = request
            .resolve(&GenerationConfig::default(), config)
            .map_err(|e: SamplingError| e.to_string())?;
        let made = generate(&pipeline.engine, Some(tokenizer), &ids, &options, &mut |_, _| {
            ControlFlow::Continue(())
        })?;
        let new = made.first().map(|m| m.ids.as_slice()).unwrap_or_default();
        Ok(Sample { prompt: prompt.into(), text: tokenizer.decode(new, true) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_that_a_killed_run_has_left_go_and_its_files_stay() {
        let dir = tempfile::TempDir::new().unwrap();
        let left = dir.path().join(".samples-x1");
        fs::create_dir(&left).unwrap();
        fs::write(left.join("model.safetensors"), "x").unwrap();
        fs::write(dir.path().join(FILE), "{}").unwrap();
        remove_unfinished(dir.path());
        assert!(!left.exists() && dir.path().join(FILE).is_file());
        remove_unfinished(&dir.path().join("nothing"));
    }

    #[test]
    fn samples_that_are_made_again_are_there_once() {
        let dir = tempfile::TempDir::new().unwrap();
        let sample = |text: &str| Sample { prompt: "p".into(), text: text.into() };
        for (step, text) in [(1, "a"), (2, "b"), (3, "c"), (2, "b")] {
            write(dir.path(), step, &[sample(text), sample("z")]).unwrap();
        }
        assert_eq!(of_step(dir.path(), 1), [sample("a"), sample("z")]);
        assert_eq!(of_step(dir.path(), 2), [sample("b"), sample("z")]);
        assert!(of_step(dir.path(), 3).is_empty());
    }
}
