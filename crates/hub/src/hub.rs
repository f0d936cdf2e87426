//! Questions to the Hub.
//!
//! What a repository is, `hf-hub` asks. Files are asked for here, because what is needed of the answers is not passed on by
//! that crate: the headers of a redirection (large files lie elsewhere, and only the redirection states their hash), and
//! whether a request for the rest of a file was followed.

use crate::{
    HubError, Repository, Settings,
    error::may_pass,
    payload::{Payload, Way, while_moving},
};
use hf_hub::{HFClient, HFError, repository::ModelInfo};
use reqwest::{
    Client, Method, Response, StatusCode,
    header::{ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderMap, LOCATION, RANGE},
    redirect::Policy,
};
use std::{env, fs, path::Path, sync::Arc, time::Duration};

/// How often something that may pass is tried, and how long is waited the first time; each time after, twice as long.
pub(crate) const TRIES: u32 = 5;
pub(crate) const PAUSE: Duration = Duration::from_millis(200);

/// What is sent may stand still for so many times the patience that there is with questions: lines are slow, and a commit is more
/// work than an answer.
const SENDING: u32 = 5;

/// Redirections within the Hub that are followed, such as those to a repository's new name.
const REDIRECTIONS: usize = 5;

/// The Hub, as one repository's reader meets it.
pub(crate) struct Hub<'r> {
    pub(crate) repository: &'r Repository,
    client: HFClient,
    /// Follows redirections, and leaves the token behind when they lead to another host.
    following: Client,
    staying: Client,
    token: Option<String>,
    /// How long the Hub may take to answer, or to go on with an answer.
    pub(crate) patience: Duration,
}

/// What the Hub says a file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Content {
    /// Names it in the cache: the SHA-256 of large files, the git hash of small ones.
    pub(crate) hash: String,
    /// Bytes.
    pub(crate) size: u64,
}

impl<'r> Hub<'r> {
    pub(crate) fn new(repository: &'r Repository, settings: &Settings) -> Result<Self, HubError> {
        let token = settings.token.clone().or_else(saved_token);
        let agent = concat!("blackletter/", env!("CARGO_PKG_VERSION"));
        let mut builder = HFClient::builder().user_agent(agent);
        if let Some(endpoint) = &settings.endpoint {
            builder = builder.endpoint(endpoint);
        }
        if let Some(token) = &token {
            builder = builder.token(token);
        }
        if let Some(dir) = &settings.cache_dir {
            builder = builder.cache_dir(dir);
        }
        let failed = |e: HFError| {
            let endpoint =
                settings.endpoint.clone().or(env::var("HF_ENDPOINT").ok()).unwrap_or("the Hub".into());
            HubError::of(repository, &endpoint, e)
        };
        let http = |policy| Client::builder().user_agent(agent).redirect(policy).build();
        Ok(Self {
            repository,
            client: builder.build().map_err(failed)?,
            following: http(Policy::default()).map_err(|e| failed(e.into()))?,
            staying: http(Policy::none()).map_err(|e| failed(e.into()))?,
            token,
            patience: settings.patience,
        })
    }

    pub(crate) fn endpoint(&self) -> &str {
        self.client.endpoint()
    }

    pub(crate) fn cache_dir(&self) -> &Path {
        self.client.cache_dir()
    }

    /// Commit and files of the revision.
    pub(crate) async fn info(&self, patience: Duration) -> Result<ModelInfo, HubError> {
        let model = self.client.model(&self.repository.owner, &self.repository.name);
        let asked = model.info().revision(&self.repository.revision).send();
        match tokio::time::timeout(patience, asked).await {
            Ok(answered) => answered.map_err(|e| self.error(e)),
            Err(_) => Err(self.unavailable(format!("no answer for {} seconds", patience.as_secs()))),
        }
    }

    /// What a file holds.
    pub(crate) async fn content(&self, commit: &str, file: &str) -> Result<Content, HubError> {
        let mut url = self.url(commit, file);
        for _ in 0..REDIRECTIONS {
            let response = self.patient(&self.staying, Method::HEAD, &url, 0).await?;
            let headers = response.headers();
            let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok());
            let elsewhere = response.status().is_redirection();
            let linked = text("x-linked-etag");
            if elsewhere && linked.is_none() {
                let next = text(LOCATION.as_str()).and_then(|to| response.url().join(to).ok());
                match next.filter(|next| next.origin() == response.url().origin()) {
                    Some(next) => url = next.into(),
                    None => {
                        return Err(self.answer(format!("{file} is elsewhere, and its hash is not stated")));
                    }
                }
                continue;
            }
            let hash = linked
                .or(text(ETAG.as_str()))
                .map(|t| t.trim_start_matches("W/").trim_matches('"').to_string());
            // The length of a redirection is its own.
            let length = if elsewhere { None } else { text(CONTENT_LENGTH.as_str()) };
            let size = text("x-linked-size").or(length).and_then(|t| t.parse().ok());
            return match (hash.filter(|hash| crate::repository::is_name(hash)), size) {
                (Some(hash), Some(size)) => Ok(Content { hash, size }),
                _ => Err(self.answer(format!("hash or size of {file} are not stated"))),
            };
        }
        Err(self.answer(format!("{file} is redirected in circles")))
    }

    /// The bytes of a file from `start` on; from 0 on when the server has no parts.
    pub(crate) async fn bytes(
        &self,
        commit: &str,
        file: &str,
        start: u64,
    ) -> Result<(u64, Response), HubError> {
        let response = self.patient(&self.following, Method::GET, &self.url(commit, file), start).await?;
        let start = if response.status() == StatusCode::PARTIAL_CONTENT { start } else { 0 };
        Ok((start, response))
    }

    /// Asks until the answer is one; what may pass is tried again.
    async fn patient(
        &self,
        http: &Client,
        method: Method,
        url: &str,
        start: u64,
    ) -> Result<Response, HubError> {
        let mut pause = PAUSE;
        let mut tries = 1;
        loop {
            let mut headers = HeaderMap::new();
            if let Some(value) = self.token.as_ref().and_then(|t| format!("Bearer {t}").parse().ok()) {
                headers.insert(AUTHORIZATION, value);
            }
            if let Some(value) =
                Some(start).filter(|&n| n > 0).and_then(|n| format!("bytes={n}-").parse().ok())
            {
                headers.insert(RANGE, value);
            }
            let asked = http.request(method.clone(), url).headers(headers).send();
            let error = match tokio::time::timeout(self.patience, asked).await {
                Ok(Ok(response)) => match self.refusal(&response) {
                    None => return Ok(response),
                    Some((error, true)) => error,
                    Some((error, false)) => return Err(error),
                },
                Ok(Err(error)) => self.error(error.into()),
                Err(_) => self.unavailable(format!("no answer for {} seconds", self.patience.as_secs())),
            };
            if tries == TRIES {
                return Err(error);
            }
            tries += 1;
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
    }

    /// Whether there is a token to show.
    pub(crate) fn has_token(&self) -> bool {
        self.token.is_some()
    }

    /// Sends something to the Hub itself, with the token; gives status and text. What may pass is tried again.
    pub(crate) async fn send(
        &self,
        method: Method,
        url: &str,
        kind: &str,
        body: Vec<u8>,
    ) -> Result<(StatusCode, String), HubError> {
        let mut headers = HeaderMap::new();
        for (name, value) in
            [(CONTENT_TYPE, kind), (ACCEPT, if kind.contains("lfs") { kind } else { "application/json" })]
        {
            headers.insert(name, value.parse().map_err(|_| self.answer("a header is none"))?);
        }
        // An address that the Hub names may be of another server.
        let own = url.strip_prefix(self.endpoint()).is_some_and(|rest| rest.starts_with('/'));
        let token = self.token.as_ref().filter(|_| own);
        if let Some(value) = token.and_then(|t| format!("Bearer {t}").parse().ok()) {
            headers.insert(AUTHORIZATION, value);
        }
        let (status, text, _) = self.patiently(method, url, headers, &Payload::Bytes(body.into())).await?;
        Ok((status, text))
    }

    /// Sends something to where the Hub says, with the headers that it says and without the token; gives status, text and the
    /// tag that what was sent goes by there.
    pub(crate) async fn send_elsewhere(
        &self,
        method: Method,
        url: &str,
        named: &serde_json::Value,
        payload: &Payload<'_>,
    ) -> Result<(StatusCode, String, Option<String>), HubError> {
        let mut headers = HeaderMap::new();
        for (name, value) in named.as_object().into_iter().flatten() {
            let name = reqwest::header::HeaderName::try_from(name.as_str());
            if let (Ok(name), Some(Ok(value))) = (name, value.as_str().map(str::parse)) {
                headers.insert(name, value);
            }
        }
        self.patiently(method, url, headers, payload).await
    }

    async fn patiently(
        &self,
        method: Method,
        url: &str,
        headers: HeaderMap,
        payload: &Payload<'_>,
    ) -> Result<(StatusCode, String, Option<String>), HubError> {
        let patience = self.patience * SENDING;
        let mut pause = PAUSE;
        for attempt in 1.. {
            let way = Arc::new(Way::default());
            let request = self.staying.request(method.clone(), url).headers(headers.clone());
            let request = request.body(payload.body(&way)?);
            let answered = while_moving(patience, &way, async {
                let response = request.send().await?;
                let (status, etag) = (response.status(), response.headers().get(ETAG).cloned());
                Ok::<_, reqwest::Error>((status, etag, response.text().await?))
            });
            let (error, again) = match answered.await {
                Some(Ok((status, ..))) if may_pass(status) && attempt < TRIES => {
                    (self.unavailable(format!("it answers {}", status.as_u16())), true)
                }
                Some(Ok((status, etag, text))) => {
                    return Ok((status, text, etag.and_then(|tag| Some(tag.to_str().ok()?.to_owned()))));
                }
                Some(Err(error)) => match payload.failure(&way) {
                    Some(unread) => (unread, false),
                    None => (self.error(error.into()), true),
                },
                // What is put somewhere can be put there again; what else was asked for may have been done.
                None => {
                    let why = format!("no answer for {} seconds", patience.as_secs());
                    (self.unavailable(why), method == Method::PUT)
                }
            };
            if attempt >= TRIES || !again {
                return Err(error);
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
        Err(self.unavailable("no answer".into()))
    }

    /// A push that is refused.
    pub(crate) fn refused(&self, status: StatusCode, text: &str) -> HubError {
        let (repository, endpoint) = (Box::new(self.repository.clone()), self.endpoint().to_string());
        match status {
            StatusCode::UNAUTHORIZED => HubError::Unauthorized { repository, endpoint },
            _ => {
                let words: String = text.chars().take(300).collect();
                HubError::Refused { repository, endpoint, why: format!("{} {words}", status.as_u16()) }
            }
        }
    }

    /// What a status means that is neither success nor redirection, and whether it may pass.
    fn refusal(&self, response: &Response) -> Option<(HubError, bool)> {
        let (repository, endpoint) = (Box::new(self.repository.clone()), self.endpoint().to_string());
        let status = response.status();
        let passing = may_pass(status);
        let error = match status {
            _ if status.is_success() || status.is_redirection() => return None,
            StatusCode::UNAUTHORIZED => HubError::Unauthorized { repository, endpoint },
            StatusCode::FORBIDDEN => HubError::Forbidden { repository, endpoint },
            _ if passing => self.unavailable(format!("it answers {}", status.as_u16())),
            _ => self.answer(format!("{status} for {}", response.url().path())),
        };
        Some((error, passing))
    }

    fn url(&self, commit: &str, file: &str) -> String {
        let Repository { owner, name, .. } = self.repository;
        format!("{}/{owner}/{name}/resolve/{commit}/{file}", self.endpoint())
    }

    /// An error of `hf-hub` or `reqwest`.
    pub(crate) fn error(&self, error: HFError) -> HubError {
        HubError::of(self.repository, self.endpoint(), error)
    }

    /// No answer, or one that may be another the next time.
    fn unavailable(&self, why: String) -> HubError {
        let (repository, endpoint) = (Box::new(self.repository.clone()), self.endpoint().to_string());
        HubError::Unavailable { repository, endpoint, why }
    }

    /// An answer that cannot be used.
    pub(crate) fn answer(&self, why: impl Into<String>) -> HubError {
        HubError::Answer {
            repository: Box::new(self.repository.clone()),
            endpoint: self.endpoint().to_string(),
            why: why.into(),
        }
    }
}

/// The user's token, as all clients of the Hub find it: `HF_TOKEN`, or the file that logging in writes.
fn saved_token() -> Option<String> {
    let set = |name: &str| env::var(name).ok().map(|v| v.trim().to_string()).filter(|v| !v.is_empty());
    if let Some(token) = set("HF_TOKEN") {
        return Some(token);
    }
    let disabled = set("HF_HUB_DISABLE_IMPLICIT_TOKEN").map(|v| v.to_ascii_uppercase());
    if matches!(disabled.as_deref(), Some("1" | "ON" | "YES" | "TRUE")) {
        return None;
    }
    let path = set("HF_TOKEN_PATH").map_or_else(|| hf_hub::hf_home().join("token"), Into::into);
    fs::read_to_string(path).ok().map(|t| t.trim().to_string()).filter(|t| !t.is_empty())
}
