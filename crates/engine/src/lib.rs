//! Inference on a CPU.
//!
//! In flows a model directory and token ids; out flow logits, generated ids, log-probabilities.
//!
//! - [`Engine`]: weights, used in place from the memory map ([`Weights`]) or quantised at load, and the thread pool.
//! - [`Runner`]: buffers and the paged KV cache; runs prompts ([`Runner::prefill`]) and steps of several sequences
//!   ([`Runner::decode`]). Nothing is allocated per token once the buffers have grown.
//! - [`generate()`] and [`score()`]: what the commands of the same names do, on ids.
//! - [`Batch`]: continuations of many prompts that come and go, each with its own options, stepped together.
//! - [`constraint`]: texts that follow a JSON schema, a regular expression or a grammar.
//! - [`Extractor`]: facts of documents as JSON.
//! - [`Pipeline`]: the same on text, with a tokenizer and a model's own settings ([`GenerationRequest`]).
//!
//! Prompt tokens always take the prompt kernels and generated tokens the step kernels, and no row's sums depend on the
//! rows beside it: so a text depends on its own prompt, options and seed alone, not on what it is batched with.

mod batch;
mod cache;
pub mod constraint;
mod continuation;
mod engine;
mod extract;
mod generate;
mod measure;
mod measure_constraint;
mod model_files;
mod pipeline;
mod prefixes;
pub mod python_json;
mod request;
mod runner;
pub mod sampling;
mod score;
mod score_report;
mod weights;

pub use batch::{Batch, BatchLimits, Bias, Listener, Request, TokenInfo};
pub use engine::{Engine, EngineError, LoadOptions, WeightDtype, quantise_checkpoint};
pub use extract::{Evidence, ExtractError, ExtractOptions, Extraction, Extractor};
pub use generate::{FinishReason, Generated, GenerationOptions, generate, generate_constrained};
pub use measure::{MeasureOptions, Measurement, measure};
pub use measure_constraint::{ConstraintMeasurement, SchemaCost, measure_constraints};
pub use model_files::ModelFiles;
pub use pipeline::{Pipeline, PipelineError, Prompt};
pub use request::{DEFAULT_MAX_NEW_TOKENS, GenerationRequest};
pub use runner::{Runner, Sequence};
pub use score::score;
pub use score_report::{ScoreReport, score_report};
pub use weights::Weights;
