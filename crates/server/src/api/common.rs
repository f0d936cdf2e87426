//! What completions and chat completions have in common.

use crate::{error::ApiError, settings::Settings, state::Shared};
use axum::{
    body::{Body, Bytes},
    http::header,
    response::{IntoResponse, Response},
};
use blackletter_engine::{
    Bias, EngineError, GenerationRequest,
    constraint::{ConstraintSpec, Grammar},
    sampling::SamplingOptions,
};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{MapAccess, Visitor, value::MapAccessDeserializer},
};
use serde_json::{Value, json};
use std::{collections::BTreeMap, fmt, marker::PhantomData, sync::Arc, time::Duration};
use tokio::sync::mpsc;
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

/// A value that has to be an object: a structure whose fields may all be missing would be read from a list, too.
pub fn object<'de, T, D>(deserializer: D) -> Result<Option<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    struct Object<T>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>> Visitor<'de> for Object<T> {
        type Value = Option<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(None)
        }

        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
            T::deserialize(MapAccessDeserializer::new(map)).map(Some)
        }
    }

    deserializer.deserialize_any(Object(PhantomData))
}

/// What a streamed answer holds besides text.
#[derive(Clone, Copy, Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
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
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum ResponseFormat {
    /// Any text.
    Text,
    /// A JSON object.
    JsonObject {
        /// A schema that it has to fit besides, as some clients ask for it here (also under the name `value`).
        #[serde(default, alias = "value")]
        #[schema(value_type = Option<Object>)]
        schema: Option<Value>,
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
#[serde(deny_unknown_fields)]
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
    pub schema: Option<Value>,
    /// Accepted: answers always keep to the schema.
    #[serde(default)]
    pub strict: Option<bool>,
}

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

/// The options of both endpoints, in one form.
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
        let object = || ConstraintSpec::JsonSchema(json!({ "type": "object" }));
        let mut specs = Vec::new();
        match &self.response_format {
            None | Some(ResponseFormat::Text) => {}
            Some(ResponseFormat::JsonObject { schema }) => {
                specs.push(schema.clone().map_or_else(object, ConstraintSpec::JsonSchema));
            }
            Some(ResponseFormat::JsonSchema { json_schema }) => {
                specs.push(json_schema.schema.clone().map_or_else(object, ConstraintSpec::JsonSchema));
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

/// Refuses parameters that would change an answer and are not supported.
///
/// # Errors
/// Names the first that is given.
pub fn refuse(parameters: &[(&str, &Option<Value>)]) -> Result<(), ApiError> {
    let given = |value: &Value| match value {
        Value::Null => false,
        Value::Array(list) => !list.is_empty(),
        Value::String(text) => !text.is_empty() && text != "none",
        _ => true,
    };
    match parameters.iter().find(|(_, value)| value.as_ref().is_some_and(given)) {
        Some((name, _)) => Err(ApiError::param(name, format!("{name} is not supported"))),
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

/// Events of a streamed answer; a send fails when the client has left.
#[derive(Clone)]
pub struct Events(mpsc::Sender<Bytes>);

impl Events {
    /// Sends a value.
    ///
    /// # Errors
    /// When the client has left.
    pub async fn send(&self, value: &impl Serialize) -> Result<(), Left> {
        let json = serde_json::to_string(value).unwrap_or_default();
        self.send_text(&json).await
    }

    /// Sends text.
    ///
    /// # Errors
    /// When the client has left.
    pub async fn send_text(&self, data: &str) -> Result<(), Left> {
        self.0.send(Bytes::from(format!("data: {data}\n\n"))).await.map_err(|_| Left)
    }
}

/// The client has left.
pub struct Left;

/// An answer whose events `write` sends; an error is the last of them. Silence is broken by comments, so that nobody on the way
/// takes it for an end.
pub fn stream<W, F>(shared: &Arc<Shared>, write: W) -> Response
where
    W: FnOnce(Events) -> F + Send + 'static,
    F: Future<Output = Result<(), ApiError>> + Send + 'static,
{
    let (sender, receiver) = mpsc::channel(64);
    let limit = shared.settings.request_timeout;
    tokio::spawn(async move {
        let events = Events(sender.clone());
        let mut quiet = tokio::time::interval(Duration::from_secs(15));
        quiet.tick().await;
        let mut written = Box::pin(tokio::time::timeout(limit, write(events.clone())));
        let outcome = loop {
            tokio::select! {
                outcome = &mut written => break outcome,
                () = sender.closed() => return,
                _ = quiet.tick() => {
                    let _ = sender.try_send(Bytes::from_static(b": still at it\n\n"));
                }
            }
        };
        // Whatever is still being made has nobody left to go to, however slowly the client reads what follows.
        drop(written);
        let error = match outcome {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error),
            Err(_) => Some(ApiError::timeout()),
        };
        if let Some(error) = error {
            let _ = events.send(&error.body).await;
        }
        let _ = events.send_text("[DONE]").await;
    });
    let body = futures_util::stream::unfold(receiver, |mut receiver| async {
        let bytes = receiver.recv().await?;
        Some((Ok::<_, std::convert::Infallible>(bytes), receiver))
    });
    (
        [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-cache")],
        Body::from_stream(body),
    )
        .into_response()
}
