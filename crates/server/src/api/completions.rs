//! `POST /v1/completions`

use super::{
    events::{self, Events, StreamEvent},
    options::{
        self, Checked, Choice, ResponseFormat, Stop, StreamOptions, Usage, check_amount, check_model, refuse,
    },
    read,
};
use crate::{
    answer::{Piece, Reader, Reply, ReplyToken, collect, spell},
    error::{ApiError, ErrorBody},
    state::Shared,
};
use axum::{
    Json,
    body::Body,
    extract::State,
    http::HeaderMap,
    response::{IntoResponse, Response},
};
use blackletter_engine::{Request, TokenInfo};
use blackletter_tokenizer::{SpecialTokens, Tokenizer};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::{collections::BTreeMap, sync::Arc};
use utoipa::ToSchema;

/// What is to be continued.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(
    untagged,
    expecting = "expected a text, a list of texts, a list of token ids, or a list of lists of token ids"
)]
pub enum Prompts {
    /// A text.
    Text(String),
    /// Several texts.
    Texts(Vec<String>),
    /// Token ids.
    Ids(Vec<u32>),
    /// Several lists of token ids.
    IdLists(Vec<Vec<u32>>),
}

impl Prompts {
    /// Bytes of text, and ids.
    fn size(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Texts(texts) => texts.iter().map(String::len).sum(),
            Self::Ids(ids) => ids.len(),
            Self::IdLists(lists) => lists.iter().map(Vec::len).sum(),
        }
    }
}

options::request! {
    /// A request to continue prompts.
    pub struct CompletionRequest {
        /// What to continue. Special tokens in texts are plain characters.
        pub prompt: Prompts,
        /// Most new tokens of each continuation.
        #[serde(default)]
        #[schema(minimum = 0, maximum = 4_294_967_295_i64, format = Int64, default = 16)]
        pub max_tokens: Option<u32>,
        /// Make so many continuations and answer with the `n` most likely ones, by the mean log-probability of their tokens.
        #[serde(default)]
        #[schema(minimum = 1)]
        pub best_of: Option<u16>,
        /// Log-probabilities of tokens, with so many of the most likely ones.
        #[serde(default)]
        #[schema(minimum = 0, maximum = 20)]
        pub logprobs: Option<u8>,
        /// Put the prompt in front of its continuations.
        #[serde(default)]
        pub echo: Option<bool>,
        /// Not supported: text is made from its beginning to its end.
        #[serde(default)]
        #[schema(value_type = Option<String>, nullable, max_length = 0)]
        pub suffix: Option<Value>,
    }
}

/// Continuations.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct CompletionResponse {
    /// Identifies the answer.
    pub id: String,
    /// `text_completion`
    pub object: &'static str,
    /// Seconds since 1970.
    pub created: u64,
    /// The model.
    pub model: String,
    /// `n` for each prompt, in the order of the prompts.
    pub choices: Vec<CompletionChoice>,
    /// Numbers of tokens; in a streamed answer in the last event alone, when asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
}

/// A continuation, or a piece of one.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct CompletionChoice {
    /// The text.
    pub text: String,
    /// Which: `n` times the prompt's place, plus the continuation's.
    pub index: usize,
    /// Log-probabilities, when asked for.
    pub logprobs: Option<CompletionLogprobs>,
    /// `stop` or `length`; null while it goes on.
    pub finish_reason: Option<&'static str>,
}

/// Natural log-probabilities, a value for each token.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub struct CompletionLogprobs {
    /// The tokens' texts; one that is no text by itself is spelled `bytes:\x..`.
    pub tokens: Vec<String>,
    /// Null for a first token, which nothing predicts.
    pub token_logprobs: Vec<Option<f32>>,
    /// The most likely tokens, the chosen one included.
    pub top_logprobs: Vec<Option<BTreeMap<String, f32>>>,
    /// Where tokens begin in the text, in characters.
    pub text_offset: Vec<usize>,
}

impl CompletionLogprobs {
    fn push(&mut self, tokenizer: &Tokenizer, info: &TokenInfo, offset: usize) {
        let mut top: BTreeMap<String, f32> = BTreeMap::new();
        for &(id, logprob) in info.top.iter().rev().chain([&(info.id, info.logprob)]) {
            // Two tokens may have the same text: the likelier one counts.
            let known = top.entry(spell(tokenizer, id)).or_insert(logprob);
            *known = known.max(logprob);
        }
        self.tokens.push(spell(tokenizer, info.id));
        self.token_logprobs.push(Some(info.logprob));
        self.top_logprobs.push(Some(top));
        self.text_offset.push(offset);
    }

    /// The prompt's tokens; the first has no log-probability.
    fn prompt(tokenizer: &Tokenizer, ids: &[u32], infos: &[TokenInfo]) -> Self {
        let mut logprobs = Self::default();
        let mut stream = tokenizer.decode_stream(false);
        let mut offset = 0;
        for (i, &id) in ids.iter().enumerate() {
            match i.checked_sub(1).and_then(|i| infos.get(i)) {
                Some(info) => logprobs.push(tokenizer, info, offset),
                None => {
                    logprobs.tokens.push(spell(tokenizer, id));
                    logprobs.token_logprobs.push(None);
                    logprobs.top_logprobs.push(None);
                    logprobs.text_offset.push(offset);
                }
            }
            offset += stream.push(id).unwrap_or_default().chars().count();
        }
        logprobs
    }

    fn tokens(&mut self, tokenizer: &Tokenizer, tokens: &[ReplyToken]) {
        for token in tokens {
            if let Some(info) = &token.info {
                self.push(tokenizer, info, token.offset);
            }
        }
    }
}

struct Prompt {
    text: String,
    ids: Vec<u32>,
}

/// Everything about a request that answers take.
struct Asked {
    id: String,
    created: u64,
    prompts: Vec<Prompt>,
    choices: usize,
    n: usize,
    logprobs: bool,
    echo: bool,
    usage: bool,
    checked: Checked,
}

/// Continue prompts.
#[utoipa::path(
    post, path = "/v1/completions", tag = "OpenAI", request_body = CompletionRequest,
    responses(
        (status = 200, description = "The continuations; with `stream`, events of pieces of them", content(
            (CompletionResponse = "application/json"), (StreamEvent = "text/event-stream"))),
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
pub async fn completions(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let mut request: CompletionRequest = read(&shared, &headers, body).await?;
    let options = request.options();
    check_model(request.model.as_deref(), &shared)?;
    refuse(&[("suffix", &request.suffix, json!(""))])?;
    let streamed = request.stream.unwrap_or(false);
    let n = usize::from(request.n.unwrap_or(1));
    let choices = request.best_of.map_or(n, usize::from);
    if n == 0 || choices < n {
        return Err(ApiError::param("n", "n must be at least 1, and best_of at least n"));
    }
    if streamed && choices > n {
        return Err(ApiError::param(
            "best_of",
            "the best of several cannot be streamed: they are known at the end alone",
        ));
    }
    if request.logprobs.is_some_and(|n| n > 20) {
        return Err(ApiError::param("logprobs", "it must be from 0 to 20"));
    }
    let prompts = request.prompt;
    let prompts = shared.encode(prompts.size(), move |shared| encode(shared, prompts)).await?;
    let ids: Vec<Vec<u32>> = prompts.iter().map(|p| p.ids.clone()).collect();
    let most = request.max_tokens.unwrap_or(16) as usize;
    check_amount(&shared, choices, &ids, most)?;
    let checked = options.check(&shared).await?;
    let echo = request.echo.unwrap_or(false);
    let top = request.logprobs.map(usize::from);
    let requests = ids
        .into_iter()
        .map(|prompt| Request {
            prompt,
            choices,
            max_new_tokens: most,
            sampling: checked.sampling.clone(),
            bias: checked.bias.clone(),
            seed: checked.seed,
            eos_token_id: shared.eos.clone(),
            grammar: checked.grammar.clone(),
            logprobs: if choices > n { top.or(Some(0)) } else { top },
            prompt_logprobs: top.filter(|_| echo),
        })
        .collect();
    let streams = shared.scheduler.submit(requests)?;
    let asked = Asked {
        id: shared.reply_id("cmpl"),
        created: Shared::now(),
        prompts,
        choices,
        n,
        logprobs: top.is_some(),
        echo,
        usage: request.stream_options.and_then(|o| o.include_usage).unwrap_or(false),
        checked,
    };
    if streamed {
        let writer = shared.clone();
        return Ok(events::stream(&shared, move |events| async move {
            asked.write(&writer, streams, events).await
        }));
    }
    let whole = tokio::time::timeout(shared.settings.request_timeout, asked.collect(&shared, streams));
    Ok(Json(whole.await.map_err(|_| ApiError::timeout())??).into_response())
}

fn encode(shared: &Shared, prompts: Prompts) -> Result<Vec<Prompt>, ApiError> {
    // Making tokens takes time: too many prompts are refused before.
    let limit = shared.settings.max_prompts;
    let count = match &prompts {
        Prompts::Text(_) | Prompts::Ids(_) => 1,
        Prompts::Texts(texts) => texts.len(),
        Prompts::IdLists(lists) => lists.len(),
    };
    if count > limit {
        return Err(ApiError::param("prompt", format!("there are {count} prompts; the limit is {limit}")));
    }
    let text = |text: String| {
        let prompt = shared.pipeline.prompt(text, SpecialTokens::AsText);
        let prompt = prompt.map_err(|e| ApiError::param("prompt", e))?;
        Ok(Prompt { text: prompt.text, ids: prompt.ids })
    };
    let ids = |ids: Vec<u32>| {
        let prompt = shared.pipeline.prompt_of_ids(ids);
        Ok(Prompt { text: prompt.text, ids: prompt.ids })
    };
    let prompts: Result<Vec<Prompt>, ApiError> = match prompts {
        Prompts::Text(given) => text(given).map(|p| vec![p]),
        Prompts::Texts(texts) => texts.into_iter().map(text).collect(),
        Prompts::Ids(given) => ids(given).map(|p| vec![p]),
        Prompts::IdLists(lists) => lists.into_iter().map(ids).collect(),
    };
    let prompts = prompts?;
    if prompts.is_empty() {
        return Err(ApiError::param("prompt", "there is no prompt"));
    }
    Ok(prompts)
}

impl Asked {
    fn response(
        &self,
        shared: &Shared,
        choices: Vec<CompletionChoice>,
        usage: Option<Usage>,
    ) -> CompletionResponse {
        let model = shared.settings.model.clone();
        CompletionResponse {
            id: self.id.clone(),
            object: "text_completion",
            created: self.created,
            model,
            choices,
            usage,
        }
    }

    fn prompt_tokens(&self) -> usize {
        self.prompts.iter().map(|p| p.ids.len()).sum()
    }

    fn reader<'t>(
        &self,
        tokenizer: &'t Tokenizer,
        prompt: &Prompt,
        stream: crate::scheduler::Stream,
    ) -> Reader<'t> {
        let before = if self.echo { prompt.text.chars().count() } else { 0 };
        Reader::new(stream, tokenizer, &self.checked.stop, before)
    }

    async fn collect(
        &self,
        shared: &Shared,
        streams: Vec<crate::scheduler::Stream>,
    ) -> Result<CompletionResponse, ApiError> {
        let tokenizer = tokenizer(shared)?;
        let mut choices = Vec::new();
        let mut made = 0;
        for (at, (prompt, stream)) in self.prompts.iter().zip(streams).enumerate() {
            let mut reader = self.reader(tokenizer, prompt, stream);
            let mut replies = collect(&mut reader).await?;
            made += reader.tokens;
            if self.choices > self.n {
                replies.sort_by(|a, b| b.mean_logprob().total_cmp(&a.mean_logprob()));
                replies.truncate(self.n);
            }
            for (i, reply) in replies.into_iter().enumerate() {
                choices.push(self.choice(tokenizer, prompt, &reader.prompt, at * self.n + i, reply));
            }
        }
        let usage = Usage::new(self.prompt_tokens(), made);
        Ok(self.response(shared, choices, Some(usage)))
    }

    fn choice(
        &self,
        tokenizer: &Tokenizer,
        prompt: &Prompt,
        infos: &[TokenInfo],
        index: usize,
        reply: Reply,
    ) -> CompletionChoice {
        let logprobs = self.logprobs.then(|| {
            let mut logprobs = CompletionLogprobs::default();
            if self.echo {
                logprobs = CompletionLogprobs::prompt(tokenizer, &prompt.ids, infos);
            }
            logprobs.tokens(tokenizer, &reply.tokens);
            logprobs
        });
        let text = if self.echo { prompt.text.clone() + &reply.text } else { reply.text };
        CompletionChoice { text, index, logprobs, finish_reason: Some(reply.finish_reason) }
    }

    async fn write(
        self,
        shared: &Shared,
        streams: Vec<crate::scheduler::Stream>,
        events: Events,
    ) -> Result<(), ApiError> {
        let tokenizer = tokenizer(shared)?;
        let readers = self.prompts.iter().zip(streams).enumerate().map(|(at, (prompt, stream))| {
            let mut reader = self.reader(tokenizer, prompt, stream);
            let (asked, events) = (&self, events.clone());
            async move {
                if asked.echo && !asked.logprobs {
                    for i in 0..asked.n {
                        let choice = CompletionChoice {
                            text: prompt.text.clone(),
                            index: at * asked.n + i,
                            logprobs: None,
                            finish_reason: None,
                        };
                        if events.send(&asked.response(shared, vec![choice], None)).await.is_err() {
                            return Ok(0);
                        }
                    }
                }
                let mut echoed = !(asked.echo && asked.logprobs);
                while let Some(piece) = reader.next().await? {
                    if !echoed {
                        echoed = true;
                        for i in 0..asked.n {
                            let logprobs = CompletionLogprobs::prompt(tokenizer, &prompt.ids, &reader.prompt);
                            let choice = CompletionChoice {
                                text: prompt.text.clone(),
                                index: at * asked.n + i,
                                logprobs: Some(logprobs),
                                finish_reason: None,
                            };
                            if events.send(&asked.response(shared, vec![choice], None)).await.is_err() {
                                return Ok(0);
                            }
                        }
                    }
                    if let Some(choice) = asked.piece(tokenizer, at, piece)
                        && events.send(&asked.response(shared, vec![choice], None)).await.is_err()
                    {
                        return Ok(0);
                    }
                }
                Ok::<usize, ApiError>(reader.tokens)
            }
        });
        let made: usize = futures_util::future::try_join_all(readers).await?.into_iter().sum();
        if self.usage {
            let usage = Usage::new(self.prompt_tokens(), made);
            let _ = events.send(&self.response(shared, Vec::new(), Some(usage))).await;
        }
        Ok(())
    }

    /// A piece as a choice; nothing when there is nothing to show.
    fn piece(&self, tokenizer: &Tokenizer, at: usize, piece: Piece) -> Option<CompletionChoice> {
        let logprobs = match &piece.token {
            Some(token) if self.logprobs => {
                let mut logprobs = CompletionLogprobs::default();
                logprobs.tokens(tokenizer, std::slice::from_ref(token));
                Some(logprobs)
            }
            _ => None,
        };
        if piece.text.is_empty() && logprobs.is_none() && piece.finished.is_none() {
            return None;
        }
        let index = at * self.n + piece.choice;
        Some(CompletionChoice { text: piece.text, index, logprobs, finish_reason: piece.finished })
    }
}

/// The model's tokenizer.
///
/// # Errors
/// When the model has none.
pub fn tokenizer(shared: &Shared) -> Result<&Tokenizer, ApiError> {
    shared.pipeline.tokenizer().ok_or_else(|| ApiError::internal("the model has no tokenizer"))
}
