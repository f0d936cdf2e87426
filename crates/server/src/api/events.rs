//! Streamed answers.

use crate::{error::ApiError, state::Shared};
use axum::{
    body::{Body, Bytes},
    http::header,
    response::{IntoResponse, Response},
};
use serde::Serialize;
use std::{sync::Arc, time::Duration};
use tokio::sync::mpsc;
use utoipa::ToSchema;

/// An event of a streamed answer.
#[derive(ToSchema)]
#[allow(dead_code, reason = "it stands for an event in the description alone")]
pub struct StreamEvent {
    /// A piece of the answer, or a refusal, as JSON; `[DONE]` at the end.
    data: String,
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
