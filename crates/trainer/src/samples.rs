//! Texts that a model in training writes, from prompts that stay the same.

use crate::{config::SamplesConfig, error::TrainError, export};
use blackletter_engine::{
    GenerationRequest, LoadOptions, ModelFiles, Pipeline, generate, sampling::SamplingError,
};
use blackletter_model::{Dtype, GenerationConfig, decoder::Decoder};
use blackletter_tokenizer::SpecialTokens;
use serde::Serialize;
use std::{fs::OpenOptions, io::Write, ops::ControlFlow, path::Path};

/// A prompt and what came after it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Sample {
    /// What was given, after `<|start|>`.
    pub prompt: String,
    /// What came.
    pub text: String,
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

    /// Writes the weights to a temporary model directory of the run, generates there, and appends to `samples.jsonl`.
    ///
    /// # Errors
    /// When the weights cannot be written or run.
    pub fn run(&self, run: &Path, step: u64, decoder: &Decoder) -> Result<Vec<Sample>, TrainError> {
        let dir = tempfile::Builder::new()
            .prefix(".samples-")
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
        let path = run.join("samples.jsonl");
        let lines: String = samples
            .iter()
            .map(|s| {
                serde_json::json!({ "step": step, "prompt": s.prompt, "text": s.text }).to_string() + "\n"
            })
            .collect();
        let file = OpenOptions::new().create(true).append(true).open(&path);
        file.and_then(|mut file| file.write_all(lines.as_bytes()))
            .map_err(TrainError::file("write", &path))?;
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
