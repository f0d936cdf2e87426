//! `POST /v1/chat/completions`

use super::{
    completions::tokenizer,
    events::{self, Events, StreamEvent},
    options::{
        self, Checked, Choice, ResponseFormat, Stop, StreamOptions, Usage, check_amount, check_model, refuse,
    },
    read,
    strict::{object, tagged, word},
};
use crate::{
    answer::{Reader, ReplyToken, collect, spell},
    error::{ApiError, ErrorBody},
    scheduler::Stream,
    state::Shared,
};
use axum::{
    Json,
    body::Body,
    extract::State,
    http::HeaderMap,
    response::{IntoResponse, Response},
};
use blackletter_engine::Request;
use blackletter_tokenizer::{Tokenizer, template::Message};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::{collections::BTreeMap, sync::Arc};
use utoipa::ToSchema;

/// Who says something.
#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase", remote = "Self")]
pub enum Role {
    /// Whoever sets the rules.
    System,
    /// The same.
    Developer,
    /// Whoever asks.
    User,
    /// The model.
    Assistant,
}

/// Something said.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, remote = "Self")]
pub struct ChatMessage {
    /// Who says it.
    pub role: Role,
    /// The text.
    pub content: Content,
    /// Accepted; not used.
    #[serde(default)]
    pub name: Option<String>,
    /// Accepted, as answers have it; not used.
    #[serde(default)]
    pub refusal: Option<String>,
}

/// A text, whole or in parts.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(untagged, expecting = "expected a text or a list of parts of type text")]
pub enum Content {
    /// Whole.
    Text(String),
    /// In parts.
    Parts(Vec<Part>),
}

/// A part of a text.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields, remote = "Self")]
pub enum Part {
    /// Text; nothing else is supported.
    Text {
        /// The text.
        text: String,
    },
}

word!(Role);
object!(ChatMessage);
tagged!(Part);

impl Content {
    fn text(self) -> String {
        match self {
            Self::Text(text) => text,
            Self::Parts(parts) => parts.into_iter().map(|Part::Text { text }| text).collect(),
        }
    }
}

options::request! {
    /// A request to go on with a conversation.
    pub struct ChatRequest {
        /// What was said. Special tokens in it are plain characters.
        #[schema(min_items = 1)]
        pub messages: Vec<ChatMessage>,
        /// Most new tokens of each answer; what the context leaves when left out.
        #[serde(default)]
        #[schema(minimum = 0, maximum = 4_294_967_295_i64, format = Int64)]
        pub max_tokens: Option<u32>,
        /// The same under its newer name.
        #[serde(default)]
        #[schema(minimum = 0, maximum = 4_294_967_295_i64, format = Int64)]
        pub max_completion_tokens: Option<u32>,
        /// Log-probabilities of tokens.
        #[serde(default)]
        pub logprobs: Option<bool>,
        /// With so many of the most likely ones.
        #[serde(default)]
        #[schema(minimum = 0, maximum = 20)]
        pub top_logprobs: Option<u8>,
        /// Not supported.
        #[serde(default)]
        #[schema(value_type = Option<Vec<Object>>, nullable, max_items = 0)]
        pub tools: Option<Value>,
        /// Not supported, `none` aside.
        #[serde(default)]
        #[schema(value_type = Option<String>, nullable, pattern = "^none$")]
        pub tool_choice: Option<Value>,
        /// Not supported.
        #[serde(default)]
        #[schema(value_type = Option<Vec<Object>>, nullable, max_items = 0)]
        pub functions: Option<Value>,
        /// Accepted; not used.
        #[serde(default)]
        pub metadata: Option<BTreeMap<String, String>>,
        /// Accepted; nothing is stored.
        #[serde(default)]
        pub store: Option<bool>,
        /// Accepted; not used.
        #[serde(default)]
        pub parallel_tool_calls: Option<bool>,
    }
}

/// Answers.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ChatResponse {
    /// Identifies the answer.
    pub id: String,
    /// `chat.completion`, or `chat.completion.chunk` in a stream.
    pub object: &'static str,
    /// Seconds since 1970.
    pub created: u64,
    /// The model.
    pub model: String,
    /// The answers.
    pub choices: Vec<ChatChoice>,
    /// Numbers of tokens; in a streamed answer in the last event alone, when asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
}

/// An answer, or a piece of one.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ChatChoice {
    /// Which.
    pub index: usize,
    /// The answer; not in a stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<AnswerMessage>,
    /// A piece of it; in a stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delta: Option<Delta>,
    /// Log-probabilities, when asked for.
    pub logprobs: Option<ChatLogprobs>,
    /// `stop` or `length`; null while it goes on.
    pub finish_reason: Option<&'static str>,
}

/// What the model says.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct AnswerMessage {
    /// `assistant`
    pub role: &'static str,
    /// The text.
    pub content: String,
    /// Null.
    pub refusal: Option<String>,
}

/// A piece of what the model says.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub struct Delta {
    /// `assistant`, in the first piece.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<&'static str>,
    /// The text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
}

/// Log-probabilities of an answer.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub struct ChatLogprobs {
    /// A value for each token.
    pub content: Vec<ChatToken>,
    /// Null.
    pub refusal: Option<Vec<ChatToken>>,
}

/// A token with its natural log-probability.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ChatToken {
    /// Its text; one that is no text by itself is spelled `bytes:\x..`.
    pub token: String,
    /// Its log-probability.
    pub logprob: f32,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// The most likely tokens in its place.
    pub top_logprobs: Vec<TopToken>,
}

/// A token that might have stood there.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct TopToken {
    /// Its text.
    pub token: String,
    /// Its log-probability.
    pub logprob: f32,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

fn logprobs(tokenizer: &Tokenizer, tokens: &[ReplyToken]) -> ChatLogprobs {
    let top = |&(id, logprob): &(u32, f32)| TopToken {
        token: spell(tokenizer, id),
        logprob,
        bytes: tokenizer.token_bytes(id),
    };
    let one = |token: &ReplyToken| {
        let info = token.info.as_ref()?;
        let (token, bytes) = (spell(tokenizer, info.id), tokenizer.token_bytes(info.id));
        Some(ChatToken {
            token,
            logprob: info.logprob,
            bytes,
            top_logprobs: info.top.iter().map(top).collect(),
        })
    };
    ChatLogprobs { content: tokens.iter().filter_map(one).collect(), refusal: None }
}

struct Asked {
    id: String,
    created: u64,
    choices: usize,
    prompt_tokens: usize,
    logprobs: bool,
    usage: bool,
    checked: Checked,
}

/// Go on with a conversation.
#[utoipa::path(
    post, path = "/v1/chat/completions", tag = "OpenAI", request_body = ChatRequest,
    responses(
        (status = 200, description = "The answers; with `stream`, events of pieces of them", content(
            (ChatResponse = "application/json"), (StreamEvent = "text/event-stream"))),
        (status = 400, description = "A parameter cannot be used", body = ErrorBody),
        (status = 401, description = "No key, or none that is known", body = ErrorBody),
        (status = 404, description = "The model is not served", body = ErrorBody),
        (status = 413, description = "The body is too large", body = ErrorBody),
        (status = 415, description = "The body is not JSON", body = ErrorBody),
        (status = 429, description = "The queue is full", body = ErrorBody),
        (status = 503, description = "The server is ending", body = ErrorBody),
    ),
    security(("key" = []), ())
)]
pub async fn chat(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let mut request: ChatRequest = read(&shared, &headers, body).await?;
    let options = request.options();
    check_model(request.model.as_deref(), &shared)?;
    refuse(&[
        ("tools", &request.tools, json!([])),
        ("tool_choice", &request.tool_choice, json!("none")),
        ("functions", &request.functions, json!([])),
    ])?;
    let choices = usize::from(request.n.unwrap_or(1));
    if choices == 0 {
        return Err(ApiError::param("n", "n must be at least 1"));
    }
    let wants_logprobs = request.logprobs.unwrap_or(false);
    if request.top_logprobs.is_some_and(|n| n > 20) {
        return Err(ApiError::param("top_logprobs", "it must be from 0 to 20"));
    }
    if request.top_logprobs.is_some_and(|n| n > 0) && !wants_logprobs {
        return Err(ApiError::param("top_logprobs", "it needs logprobs to be true"));
    }
    if request.messages.is_empty() {
        return Err(ApiError::param("messages", "there is no message"));
    }
    let messages: Vec<Message> = request
        .messages
        .into_iter()
        .map(|m| {
            let role = match m.role {
                Role::System | Role::Developer => "system",
                Role::User => "user",
                Role::Assistant => "assistant",
            };
            Message { role: role.into(), content: m.content.text() }
        })
        .collect();
    let length = messages.iter().map(|m| m.content.len()).sum();
    let prompt =
        shared.encode(length, move |shared| shared.template.prompt(tokenizer(shared)?, &messages)).await?;
    let most = request.max_completion_tokens.or(request.max_tokens);
    let most = most.map_or(usize::MAX, |most| most as usize);
    check_amount(&shared, choices, std::slice::from_ref(&prompt), most).map_err(|mut e| {
        if e.body.error.param.as_deref() == Some("prompt") {
            e.body.error.param = Some("messages".into());
        }
        e
    })?;
    let checked = options.check(&shared).await?;
    let prompt_tokens = prompt.len();
    let streams = shared.scheduler.submit(vec![Request {
        prompt,
        choices,
        max_new_tokens: most,
        sampling: checked.sampling.clone(),
        bias: checked.bias.clone(),
        seed: checked.seed,
        eos_token_id: shared.eos.clone(),
        grammar: checked.grammar.clone(),
        logprobs: wants_logprobs.then(|| request.top_logprobs.map_or(0, usize::from)),
        prompt_logprobs: None,
    }])?;
    let asked = Asked {
        id: shared.reply_id("chatcmpl"),
        created: Shared::now(),
        choices,
        prompt_tokens,
        logprobs: wants_logprobs,
        usage: request.stream_options.and_then(|o| o.include_usage).unwrap_or(false),
        checked,
    };
    if request.stream.unwrap_or(false) {
        let writer = shared.clone();
        return Ok(events::stream(&shared, move |events| async move {
            asked.write(&writer, streams, events).await
        }));
    }
    let whole = tokio::time::timeout(shared.settings.request_timeout, asked.collect(&shared, streams));
    Ok(Json(whole.await.map_err(|_| ApiError::timeout())??).into_response())
}

impl Asked {
    fn response(
        &self,
        shared: &Shared,
        object: &'static str,
        choices: Vec<ChatChoice>,
        usage: Option<Usage>,
    ) -> ChatResponse {
        let model = shared.settings.model.clone();
        ChatResponse { id: self.id.clone(), object, created: self.created, model, choices, usage }
    }

    async fn collect(&self, shared: &Shared, streams: Vec<Stream>) -> Result<ChatResponse, ApiError> {
        let tokenizer = tokenizer(shared)?;
        let mut choices = Vec::new();
        let mut made = 0;
        for stream in streams {
            let mut reader = Reader::new(stream, tokenizer, &self.checked.stop, 0);
            for (index, reply) in collect(&mut reader).await?.into_iter().enumerate() {
                let logprobs = self.logprobs.then(|| logprobs(tokenizer, &reply.tokens));
                let message = AnswerMessage { role: "assistant", content: reply.text, refusal: None };
                let finish_reason = Some(reply.finish_reason);
                choices.push(ChatChoice {
                    index,
                    message: Some(message),
                    delta: None,
                    logprobs,
                    finish_reason,
                });
            }
            made += reader.tokens;
        }
        let usage = Usage::new(self.prompt_tokens, made);
        Ok(self.response(shared, "chat.completion", choices, Some(usage)))
    }

    async fn write(self, shared: &Shared, streams: Vec<Stream>, events: Events) -> Result<(), ApiError> {
        const CHUNK: &str = "chat.completion.chunk";
        let tokenizer = tokenizer(shared)?;
        for index in 0..self.choices {
            let delta = Delta { role: Some("assistant"), content: Some(String::new()) };
            let choice =
                ChatChoice { index, message: None, delta: Some(delta), logprobs: None, finish_reason: None };
            if events.send(&self.response(shared, CHUNK, vec![choice], None)).await.is_err() {
                return Ok(());
            }
        }
        let mut made = 0;
        for stream in streams {
            let mut reader = Reader::new(stream, tokenizer, &self.checked.stop, 0);
            while let Some(piece) = reader.next().await? {
                let logprobs = piece.token.as_ref().filter(|_| self.logprobs);
                let logprobs = logprobs.map(|token| logprobs_of(tokenizer, token));
                if piece.text.is_empty() && logprobs.is_none() && piece.finished.is_none() {
                    continue;
                }
                let content = (!piece.text.is_empty()).then_some(piece.text);
                let delta = Some(Delta { role: None, content });
                let choice = ChatChoice {
                    index: piece.choice,
                    message: None,
                    delta,
                    logprobs,
                    finish_reason: piece.finished,
                };
                if events.send(&self.response(shared, CHUNK, vec![choice], None)).await.is_err() {
                    return Ok(());
                }
            }
            made += reader.tokens;
        }
        if self.usage {
            let usage = Usage::new(self.prompt_tokens, made);
            let _ = events.send(&self.response(shared, CHUNK, Vec::new(), Some(usage))).await;
        }
        Ok(())
    }
}

fn logprobs_of(tokenizer: &Tokenizer, token: &ReplyToken) -> ChatLogprobs {
    logprobs(tokenizer, std::slice::from_ref(token))
}
