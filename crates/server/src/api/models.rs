//! What is served, and how it fares.

use super::options::check_model;
use crate::{
    error::{ApiError, ErrorBody},
    state::Shared,
    telemetry,
};
use axum::{
    Json,
    extract::{Path, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use std::sync::Arc;
use utoipa::ToSchema;

/// Models.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ModelList {
    /// `list`
    pub object: &'static str,
    /// The one that is served.
    pub data: Vec<Model>,
}

/// A model.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Model {
    /// Its name in requests.
    pub id: String,
    /// `model`
    pub object: &'static str,
    /// When the server started, in seconds since 1970.
    pub created: u64,
    /// Who serves it.
    pub owned_by: &'static str,
    /// Tokens of its context.
    pub max_model_len: usize,
}

/// Whether the server does its work.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Health {
    /// `ok`, or `ending`.
    pub status: &'static str,
    /// Continuations that run.
    pub running: usize,
    /// Prompts that wait.
    pub waiting: usize,
}

fn model(shared: &Shared) -> Model {
    let max_model_len = shared.pipeline.engine.config().max_position_embeddings;
    let id = shared.settings.model.clone();
    Model { id, object: "model", created: shared.created, owned_by: "blackletter", max_model_len }
}

/// List the models that are served: one.
#[utoipa::path(get, path = "/v1/models", tag = "OpenAI", responses(
    (status = 200, description = "The models", body = ModelList),
    (status = 401, description = "No key, or none that is known", body = ErrorBody),
    (status = 503, description = "The server is ending", body = ErrorBody),
), security(("key" = []), ()))]
pub async fn list(State(shared): State<Arc<Shared>>) -> Json<ModelList> {
    Json(ModelList { object: "list", data: vec![model(&shared)] })
}

/// Show a model.
#[utoipa::path(get, path = "/v1/models/{model}", tag = "OpenAI", params(("model" = String, Path, description = "Its name")), responses(
    (status = 200, description = "The model", body = Model),
    (status = 400, description = "The path cannot be read", body = ErrorBody),
    (status = 401, description = "No key, or none that is known", body = ErrorBody),
    (status = 404, description = "It is not served", body = ErrorBody),
    (status = 503, description = "The server is ending", body = ErrorBody),
), security(("key" = []), ()))]
pub async fn one(
    State(shared): State<Arc<Shared>>,
    name: Result<Path<String>, axum::extract::rejection::PathRejection>,
) -> Result<Json<Model>, ApiError> {
    let Path(name) = name.map_err(|e| ApiError::request(e.body_text()))?;
    check_model(Some(&name), &shared)?;
    Ok(Json(model(&shared)))
}

/// Show what the model is and what it was made from.
#[utoipa::path(get, path = "/about", tag = "blackletter", responses(
    (status = 200, description = "Description, provenance and settings", body = Object, content_type = "application/json"),
    (status = 401, description = "No key, or none that is known", body = ErrorBody),
), security(("key" = []), ()))]
pub async fn about(State(shared): State<Arc<Shared>>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], shared.about.clone()).into_response()
}

/// Whether the process is alive.
#[utoipa::path(get, path = "/health", tag = "blackletter", responses((status = 200, description = "It is", body = Health)))]
pub async fn health(State(shared): State<Arc<Shared>>) -> Json<Health> {
    Json(state(&shared))
}

/// Whether requests are taken on.
#[utoipa::path(get, path = "/ready", tag = "blackletter", responses(
    (status = 200, description = "They are", body = Health),
    (status = 503, description = "The server is ending, or its engine has ended", body = ErrorBody),
))]
pub async fn ready(State(shared): State<Arc<Shared>>) -> Response {
    if shared.is_ending() {
        return ApiError::ending().into_response();
    }
    if !shared.scheduler.is_alive() {
        let error = ApiError::internal("the engine has ended");
        return ApiError { status: StatusCode::SERVICE_UNAVAILABLE, ..error }.into_response();
    }
    (StatusCode::OK, Json(state(&shared))).into_response()
}

fn state(shared: &Shared) -> Health {
    let status = if shared.is_ending() { "ending" } else { "ok" };
    Health { status, running: shared.scheduler.running(), waiting: shared.scheduler.waiting() }
}

/// Figures for Prometheus.
#[utoipa::path(get, path = "/metrics", tag = "blackletter", responses(
    (status = 200, description = "In Prometheus' text format", body = String, content_type = "text/plain"),
    (status = 401, description = "No key, or none that is known", body = ErrorBody),
), security(("key" = []), ()))]
pub async fn metrics() -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], telemetry::render())
        .into_response()
}
