//! What completions and chat completions have in common: how text is to be made.

use super::strict::{object, tagged};
use crate::{error::ApiError, settings::Settings, state::Shared};
use blackletter_engine::{
    Bias, EngineError, GenerationRequest,
    constraint::{ConstraintSpec, Grammar},
    sampling::SamplingOptions,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::{collections::BTreeMap, sync::Arc};
use utoipa::ToSchema;

/// One stop text or several.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(untagged, expecting = "expected a text or a list of texts")]
pub enum Stop {
    /// One.
    One(String),
    /// Several.
    Several(Vec<String>),
}

impl Stop {
    /// As a list.
    pub fn list(stop: Option<Self>) -> Vec<String> {
        match stop {
            None => Vec::new(),
            Some(Self::One(text)) => vec![text],
            Some(Self::Several(texts)) => texts,
        }
    }
}

/// What a streamed answer holds besides text.
#[derive(Clone, Copy, Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, remote = "Self")]
pub struct StreamOptions {
    /// Send a last event with the numbers of tokens.
    #[serde(default)]
    pub include_usage: Option<bool>,
    /// Accepted; events are not padded.
    #[serde(default)]
    pub include_obfuscation: Option<bool>,
}

/// What the text has to be.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields, remote = "Self")]
pub enum ResponseFormat {
    /// Any text.
    Text {},
    /// A JSON object.
    JsonObject {
        /// A schema that it has to fit besides, as some clients ask for it here.
        #[serde(default)]
        #[schema(value_type = Option<Object>)]
        schema: Option<Map<String, Value>>,
        /// The same under another name.
        #[serde(default)]
        #[schema(value_type = Option<Object>)]
        value: Option<Map<String, Value>>,
    },
    /// A JSON document that a schema accepts.
    JsonSchema {
        /// The schema.
        json_schema: NamedSchema,
    },
}

/// One of the answers that are allowed.
#[derive(ToSchema)]
#[schema(as = Choice, min_length = 1)]
#[allow(dead_code, reason = "it stands for a text in the description alone")]
pub struct Choice(String);

/// A JSON schema with a name.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, remote = "Self")]
pub struct NamedSchema {
    /// Accepted; not used.
    #[serde(default)]
    pub name: Option<String>,
    /// Accepted; not used.
    #[serde(default)]
    pub description: Option<String>,
    /// The schema; without one, a JSON object.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    pub schema: Option<Map<String, Value>>,
    /// Accepted: answers always keep to the schema.
    #[serde(default)]
    pub strict: Option<bool>,
}

object!(StreamOptions, NamedSchema);
tagged!(ResponseFormat);

/// Numbers of tokens.
#[derive(Clone, Copy, Debug, Default, Serialize, ToSchema)]
pub struct Usage {
    /// Of the prompts.
    pub prompt_tokens: usize,
    /// Of what was made.
    pub completion_tokens: usize,
    /// Of both.
    pub total_tokens: usize,
}

impl Usage {
    /// From both numbers.
    pub fn new(prompt_tokens: usize, completion_tokens: usize) -> Self {
        Self { prompt_tokens, completion_tokens, total_tokens: prompt_tokens + completion_tokens }
    }
}

/// Declares a request: its own fields, and those that both endpoints have.
macro_rules! request {
    ($(#[$about:meta])* pub struct $name:ident { $($own:tt)* }) => {
        $(#[$about])*
        #[derive(Clone, Debug, serde::Deserialize, utoipa::ToSchema)]
        #[serde(deny_unknown_fields, remote = "Self")]
        pub struct $name {
            $($own)*
            /// The model; the one that is served when left out.
            #[serde(default)]
            pub model: Option<String>,
            /// Continuations of each prompt.
            #[serde(default)]
            #[schema(minimum = 1, default = 1)]
            pub n: Option<u16>,
            /// Divides the logits; 0 for the most likely token always.
            #[serde(default)]
            #[schema(minimum = 0, maximum = 2, default = 1)]
            pub temperature: Option<f32>,
            /// Keep the most likely tokens up to this probability.
            #[serde(default)]
            #[schema(minimum = 0, maximum = 1, default = 1)]
            pub top_p: Option<f32>,
            /// Keep so many of the most likely tokens; 0 for all.
            #[serde(default)]
            pub top_k: Option<u32>,
            /// Keep tokens of at least this share of the largest probability.
            #[serde(default)]
            #[schema(minimum = 0, maximum = 1)]
            pub min_p: Option<f32>,
            /// Divides or multiplies logits of tokens seen; 1 for none.
            #[serde(default)]
            #[schema(minimum = 0.01, maximum = 100)]
            pub repetition_penalty: Option<f32>,
            /// Subtracted from logits of tokens made before.
            #[serde(default)]
            #[schema(minimum = -2, maximum = 2)]
            pub presence_penalty: Option<f32>,
            /// Subtracted from logits for each time a token was made before.
            #[serde(default)]
            #[schema(minimum = -2, maximum = 2)]
            pub frequency_penalty: Option<f32>,
            /// Added to logits, by token id.
            #[serde(default)]
            pub logit_bias: Option<BTreeMap<String, f32>>,
            /// End a continuation before this text.
            #[serde(default)]
            pub stop: Option<Stop>,
            /// The same seed and request give the same answer.
            #[serde(default)]
            pub seed: Option<i64>,
            /// Send the answer as it is made.
            #[serde(default)]
            pub stream: Option<bool>,
            /// What a streamed answer holds besides.
            #[serde(default)]
            pub stream_options: Option<StreamOptions>,
            /// What continuations have to be.
            #[serde(default)]
            pub response_format: Option<ResponseFormat>,
            /// Continuations have to match this regular expression.
            #[serde(default)]
            pub guided_regex: Option<String>,
            /// Continuations have to be one of these.
            #[serde(default)]
            #[schema(value_type = Option<Vec<Choice>>, min_items = 1)]
            pub guided_choice: Option<Vec<String>>,
            /// Continuations have to follow this grammar, in llguidance's variant of Lark.
            #[serde(default)]
            pub guided_grammar: Option<String>,
            /// Accepted; not used.
            #[serde(default)]
            pub user: Option<String>,
        }

        super::strict::object!($name);

        impl $name {
            /// Takes out how text is to be made.
            pub fn options(&mut self) -> $crate::api::options::Options {
                $crate::api::options::Options {
                    temperature: self.temperature,
                    top_p: self.top_p,
                    top_k: self.top_k,
                    min_p: self.min_p,
                    repetition_penalty: self.repetition_penalty,
                    presence_penalty: self.presence_penalty,
                    frequency_penalty: self.frequency_penalty,
                    logit_bias: self.logit_bias.take(),
                    seed: self.seed,
                    stop: $crate::api::options::Stop::list(self.stop.take()),
                    response_format: self.response_format.take(),
                    guided_regex: self.guided_regex.take(),
                    guided_choice: self.guided_choice.take(),
                    guided_grammar: self.guided_grammar.take(),
                }
            }
        }
    };
}

pub(super) use request;

/// How text is to be made: the options of both endpoints.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// See the fields of the requests.
    pub temperature: Option<f32>,
    /// The same.
    pub top_p: Option<f32>,
    /// The same.
    pub top_k: Option<u32>,
    /// The same.
    pub min_p: Option<f32>,
    /// The same.
    pub repetition_penalty: Option<f32>,
    /// The same.
    pub presence_penalty: Option<f32>,
    /// The same.
    pub frequency_penalty: Option<f32>,
    /// The same.
    pub logit_bias: Option<BTreeMap<String, f32>>,
    /// The same.
    pub seed: Option<i64>,
    /// The same.
    pub stop: Vec<String>,
    /// The same.
    pub response_format: Option<ResponseFormat>,
    /// The same.
    pub guided_regex: Option<String>,
    /// The same.
    pub guided_choice: Option<Vec<String>>,
    /// The same.
    pub guided_grammar: Option<String>,
}

/// Options that have been checked.
pub struct Checked {
    /// How tokens are chosen.
    pub sampling: SamplingOptions,
    /// What is added to logits.
    pub bias: Bias,
    /// What makes the choices repeatable.
    pub seed: u64,
    /// Texts that end a continuation.
    pub stop: Vec<String>,
    /// What continuations have to follow.
    pub grammar: Option<Arc<Grammar>>,
}

impl Options {
    /// Checks all options; compiles the constraint, when there is one.
    ///
    /// # Errors
    /// Names the first that cannot be used.
    pub async fn check(self, shared: &Arc<Shared>) -> Result<Checked, ApiError> {
        let within = |name: &str, value: Option<f32>, low: f32, high: f32| match value {
            Some(value) if !(low..=high).contains(&value) => Err(ApiError::param(
                name,
                format!("{value} is out of range: it must be from {low} to {high}"),
            )),
            _ => Ok(()),
        };
        within("temperature", self.temperature, 0.0, 2.0)?;
        within("top_p", self.top_p, 0.0, 1.0)?;
        within("min_p", self.min_p, 0.0, 1.0)?;
        within("presence_penalty", self.presence_penalty, -2.0, 2.0)?;
        within("frequency_penalty", self.frequency_penalty, -2.0, 2.0)?;
        within("repetition_penalty", self.repetition_penalty, 0.01, 100.0)?;
        let bias = Bias {
            presence: self.presence_penalty.unwrap_or(0.0),
            frequency: self.frequency_penalty.unwrap_or(0.0),
            tokens: self.biases(shared.pipeline.engine.config().vocab_size)?,
        };
        check_stop(&self.stop, &shared.settings)?;
        let spec = self.constraint(&shared.settings)?;
        if spec.is_some() && !self.stop.is_empty() {
            return Err(ApiError::param(
                "stop",
                "a stop text could end a text that a constraint keeps whole",
            ));
        }
        if let Some(k) = self.top_k.filter(|&k| i32::try_from(k).is_err()) {
            let limit = i32::MAX;
            return Err(ApiError::param(
                "top_k",
                format!("{k} is out of range: it must be from 0 to {limit}"),
            ));
        }
        let greedy = self.temperature == Some(0.0);
        let asked = GenerationRequest {
            greedy,
            temperature: self.temperature.filter(|&t| t > 0.0),
            top_p: self.top_p,
            top_k: self.top_k.map(|k| k as usize),
            min_p: self.min_p,
            repetition_penalty: self.repetition_penalty,
            ..GenerationRequest::default()
        };
        let (file, model) = (&shared.pipeline.generation_config, shared.pipeline.engine.config());
        let mut sampling =
            asked.resolve(file, model).map_err(|e| ApiError::from(&EngineError::from(e)))?.sampling;
        // The API's default is all tokens, transformers' the fifty most likely ones.
        if self.top_k.is_none() && file.top_k.is_none() {
            sampling.top_k = 0;
        }
        let seed = match self.seed {
            Some(seed) => seed as u64,
            None => {
                let hash = *blake3::hash(shared.reply_id("seed").as_bytes()).as_bytes();
                hash.iter().take(8).fold(0, |seed, &byte| seed << 8 | u64::from(byte))
            }
        };
        let grammar = match spec {
            Some(spec) => Some(shared.grammar(spec).await?),
            None => None,
        };
        Ok(Checked { sampling, bias, seed, stop: self.stop, grammar })
    }

    fn biases(&self, vocab: usize) -> Result<Vec<(u32, f32)>, ApiError> {
        let mut biases = Vec::new();
        for (token, &bias) in self.logit_bias.iter().flatten() {
            let id = token.parse().ok().filter(|&id: &u32| (id as usize) < vocab);
            let Some(id) = id else {
                return Err(ApiError::param(
                    "logit_bias",
                    format!("{token:?} is no token id: ids are 0 to {}", vocab - 1),
                ));
            };
            if !(-100.0..=100.0).contains(&bias) {
                return Err(ApiError::param(
                    "logit_bias",
                    format!("{bias} is out of range: it must be from -100 to 100"),
                ));
            }
            biases.push((id, bias));
        }
        Ok(biases)
    }

    fn constraint(&self, settings: &Settings) -> Result<Option<ConstraintSpec>, ApiError> {
        let mut specs = Vec::new();
        let schemas = match &self.response_format {
            None | Some(ResponseFormat::Text {}) => None,
            Some(ResponseFormat::JsonObject { schema, value }) => Some([schema, value]),
            Some(ResponseFormat::JsonSchema { json_schema }) => Some([&json_schema.schema, &None]),
        };
        if let Some(schemas) = schemas {
            let given = schemas.into_iter().flatten().cloned().map(Value::Object);
            specs.extend(given.map(ConstraintSpec::JsonSchema));
            if specs.is_empty() {
                specs.push(ConstraintSpec::JsonSchema(json!({ "type": "object" })));
            }
        }
        specs.extend(self.guided_regex.clone().map(ConstraintSpec::Regex));
        specs.extend(self.guided_choice.clone().map(ConstraintSpec::Choice));
        specs.extend(self.guided_grammar.clone().map(ConstraintSpec::Lark));
        if specs.len() > 1 {
            return Err(ApiError::param(
                "response_format",
                "several constraints are asked for: leave all but one out",
            ));
        }
        let spec = specs.pop();
        let size = match &spec {
            Some(ConstraintSpec::JsonSchema(schema)) => schema.to_string().len(),
            Some(ConstraintSpec::Regex(text) | ConstraintSpec::Lark(text)) => text.len(),
            Some(ConstraintSpec::Choice(texts)) => texts.iter().map(String::len).sum(),
            None => 0,
        };
        if size > settings.max_schema {
            let limit = settings.max_schema;
            return Err(ApiError::param(
                "response_format",
                format!("the constraint has {size} bytes; the limit is {limit}"),
            ));
        }
        Ok(spec)
    }
}

fn check_stop(stop: &[String], settings: &Settings) -> Result<(), ApiError> {
    let limit = settings.max_stop;
    if stop.len() > limit {
        return Err(ApiError::param(
            "stop",
            format!("there are {} stop texts; the limit is {limit}", stop.len()),
        ));
    }
    if stop.iter().any(String::is_empty) {
        return Err(ApiError::param(
            "stop",
            "an empty stop text would end every text before its first token",
        ));
    }
    if stop.iter().any(|stop| stop.len() > 1024) {
        return Err(ApiError::param("stop", "a stop text has more than 1024 bytes"));
    }
    Ok(())
}

/// Checks that the model that is asked for is the one that is served.
///
/// # Errors
/// When it is not.
pub fn check_model(asked: Option<&str>, shared: &Shared) -> Result<(), ApiError> {
    match asked {
        Some(asked) if asked != shared.settings.model => Err(ApiError::model(asked, &shared.settings.model)),
        _ => Ok(()),
    }
}

/// Refuses parameters that would change an answer and are not supported, unless they are null or ask for nothing, as the third
/// of each says it.
///
/// # Errors
/// Names the first that is given.
pub fn refuse(parameters: &[(&str, &Option<Value>, Value)]) -> Result<(), ApiError> {
    let given = |value: &Option<Value>, nothing: &Value| value.as_ref().is_some_and(|v| v != nothing);
    match parameters.iter().find(|(_, value, nothing)| given(value, nothing)) {
        Some((name, ..)) => Err(ApiError::param(name, format!("{name} is not supported"))),
        None => Ok(()),
    }
}

/// Checks how much is asked for: continuations of prompts, and new tokens of each.
///
/// # Errors
/// When it is more than the server allows.
pub fn check_amount(
    shared: &Shared,
    choices: usize,
    prompts: &[Vec<u32>],
    tokens: usize,
) -> Result<(), ApiError> {
    let settings = &shared.settings;
    let most = settings.max_concurrent;
    if choices > most {
        return Err(ApiError::param(
            "n",
            format!("{choices} continuations are asked for; the limit is {most}"),
        ));
    }
    let context = shared.pipeline.engine.config().max_position_embeddings;
    let mut asked = 0;
    for prompt in prompts {
        if prompt.is_empty() {
            return Err(ApiError::param("prompt", "the prompt has no tokens"));
        }
        if prompt.len() > context {
            let error = EngineError::PromptTooLong { tokens: prompt.len(), context };
            return Err(ApiError::from(&error));
        }
        shared.pipeline.engine.check_ids(prompt).map_err(|e| ApiError::from(&e))?;
        asked += tokens.min(context - prompt.len()) * choices;
    }
    if asked > settings.max_tokens {
        let limit = settings.max_tokens;
        return Err(ApiError::param(
            "max_tokens",
            format!("{asked} tokens are asked for in all; the limit is {limit}"),
        ));
    }
    Ok(())
}
