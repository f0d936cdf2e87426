//! Who may ask.

use crate::{error::ApiError, state::Shared};
use axum::{
    extract::{Request, State},
    http::{HeaderMap, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use std::sync::Arc;

/// Lets a request through that brings a known key, or any when no keys are set.
pub async fn check(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let keys = &shared.settings.keys;
    if !keys.is_empty() {
        let key = bearer(request.headers());
        if !keys.allow(key.unwrap_or_default()) {
            return ApiError::key(key.is_some()).into_response();
        }
    }
    next.run(request).await
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, key) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
}
