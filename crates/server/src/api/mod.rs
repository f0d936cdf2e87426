//! What may be asked and how it is answered.

pub mod chat;
pub mod completions;
pub mod events;
pub mod models;
mod openapi;
pub mod options;
mod strict;

pub use openapi::document;

use crate::{auth, error::ApiError, page, state::Shared, telemetry};
use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{MatchedPath, Request, State},
    http::{HeaderMap, HeaderValue, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::de::DeserializeOwned;
use std::{sync::Arc, time::Instant};
use tower_http::{catch_panic::CatchPanicLayer, set_header::SetResponseHeaderLayer};

/// All routes.
pub fn router(shared: Arc<Shared>) -> Router {
    let keyed = Router::new()
        .route("/v1/completions", post(completions::completions))
        .route("/v1/chat/completions", post(chat::chat))
        .route("/v1/models", get(models::list))
        .route("/v1/models/{*model}", get(models::one))
        .route("/about", get(models::about))
        .route("/metrics", get(models::metrics))
        .route_layer(middleware::from_fn_with_state(shared.clone(), auth::check));
    let open = Router::new()
        .route("/health", get(models::health))
        .route("/ready", get(models::ready))
        .route("/openapi.json", get(openapi::get))
        .merge(page::router());
    let plain = |name: &'static str, value: &'static str| {
        let name = header::HeaderName::from_static(name);
        SetResponseHeaderLayer::if_not_present(name, HeaderValue::from_static(value))
    };
    keyed
        .merge(open)
        .fallback(|request: Request| async move { ApiError::not_found(request.uri().path()).into_response() })
        .method_not_allowed_fallback(|| async { ApiError::method().into_response() })
        .layer(middleware::from_fn_with_state(shared.clone(), count))
        .layer(CatchPanicLayer::custom(|_: Box<dyn std::any::Any + Send>| {
            ApiError::internal("the request could not be handled").into_response()
        }))
        .layer(plain("x-content-type-options", "nosniff"))
        .layer(plain("referrer-policy", "no-referrer"))
        .layer(plain("content-security-policy", "default-src 'none'; frame-ancestors 'none'"))
        .layer(plain("cache-control", "no-store"))
        .with_state(shared)
}

/// Counts requests, and turns new ones away when the server ends.
async fn count(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let start = Instant::now();
    let path = request.extensions().get::<MatchedPath>().map_or("other", MatchedPath::as_str).to_string();
    let response = if shared.is_ending() && path.starts_with("/v1/") {
        ApiError::ending().into_response()
    } else {
        next.run(request).await
    };
    telemetry::request(&path, response.status().as_u16(), start.elapsed());
    response
}

/// Reads a JSON body.
///
/// # Errors
/// When it is none, too large, too slow, or says what is not understood.
pub async fn read<T: DeserializeOwned>(
    shared: &Shared,
    headers: &HeaderMap,
    body: Body,
) -> Result<T, ApiError> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    if !kind.eq_ignore_ascii_case("application/json") {
        return Err(ApiError::media_type());
    }
    let limit = shared.settings.max_body;
    let length =
        headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()).and_then(|v| v.parse::<u64>().ok());
    if length.is_some_and(|length| length > limit as u64) {
        return Err(ApiError::too_large(limit));
    }
    let bytes = tokio::time::timeout(shared.settings.read_timeout, to_bytes(body, limit)).await;
    let bytes = bytes.map_err(|_| ApiError::slow_body())?.map_err(|e| {
        // What ends a body early is its length or its connection.
        let mut cause: Option<&dyn std::error::Error> = Some(&e);
        while let Some(error) = cause {
            if error.to_string().contains("length limit") {
                return ApiError::too_large(limit);
            }
            cause = error.source();
        }
        ApiError::request("the body ended early")
    })?;
    parse(&bytes)
}

/// Reads a request from the bytes of a body.
///
/// # Errors
/// Says which parameter is not understood.
pub fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let read = serde_path_to_error::deserialize(&mut json).map_err(|e| {
        let path = e.path().to_string();
        let error = e.into_inner();
        // A field that is missing or not known has no path of its own.
        let message = error.to_string();
        let named = message.strip_prefix("missing field `").or(message.strip_prefix("unknown field `"));
        let named = named.and_then(|rest| rest.split('`').next());
        match (named, path.as_str()) {
            (Some(field), "." | "") => ApiError::param(field, error),
            _ if error.is_data() && path != "." => ApiError::param(path, error),
            _ => ApiError::request(format!("the body is not understood: {error}")),
        }
    })?;
    json.end().map_err(|e| ApiError::request(format!("the body is not understood: {e}")))?;
    Ok(read)
}
