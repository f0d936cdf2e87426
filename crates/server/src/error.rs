//! How requests are refused: always `{"error": {"message", "type", "param", "code"}}`.

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use blackletter_engine::{EngineError, constraint::ConstraintError};
use serde::Serialize;
use utoipa::ToSchema;

/// A refusal.
#[derive(Clone, Debug, PartialEq)]
pub struct ApiError {
    /// The HTTP status.
    pub status: StatusCode,
    /// Seconds to wait before trying again.
    pub retry_after: Option<u32>,
    /// What clients are told.
    pub body: ErrorBody,
}

/// The body of every answer with a status of 400 or more.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct ErrorBody {
    /// What was wrong.
    pub error: ErrorDetail,
}

/// What was wrong.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct ErrorDetail {
    /// A sentence for people.
    pub message: String,
    /// The kind, such as `invalid_request_error`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The parameter that was wrong, if it was one.
    pub param: Option<String>,
    /// A word for programs, if there is one.
    pub code: Option<String>,
}

impl ApiError {
    fn new(status: StatusCode, kind: &str, code: Option<&str>, message: impl ToString) -> Self {
        let error = ErrorDetail {
            message: message.to_string(),
            kind: kind.into(),
            param: None,
            code: code.map(Into::into),
        };
        Self { status, retry_after: None, body: ErrorBody { error } }
    }

    /// A parameter cannot be used.
    pub fn param(param: impl ToString, message: impl ToString) -> Self {
        let mut error = Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", None, message);
        error.body.error.param = Some(param.to_string());
        error
    }

    /// The request cannot be understood.
    pub fn request(message: impl ToString) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", None, message)
    }

    /// The head of the request cannot be read.
    pub fn head(status: StatusCode) -> Self {
        let message = match status {
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => {
                "the request has too many headers, or too long ones"
            }
            StatusCode::URI_TOO_LONG => "the path is too long",
            _ => "the request is not HTTP as this server understands it",
        };
        Self::new(status, "invalid_request_error", Some("bad_request"), message)
    }

    /// The path leads nowhere.
    pub fn not_found(path: &str) -> Self {
        let message = format!("there is nothing at {path}; see /openapi.json");
        Self::new(StatusCode::NOT_FOUND, "invalid_request_error", Some("not_found"), message)
    }

    /// The model is not served.
    pub fn model(asked: &str, served: &str) -> Self {
        let message = format!("the model {asked:?} is not served here; {served:?} is");
        let mut error =
            Self::new(StatusCode::NOT_FOUND, "invalid_request_error", Some("model_not_found"), message);
        error.body.error.param = Some("model".into());
        error
    }

    /// The path does not take the method.
    pub fn method() -> Self {
        let message = "the method is not allowed here; the Allow header says which are";
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "invalid_request_error",
            Some("method_not_allowed"),
            message,
        )
    }

    /// The body is too large.
    pub fn too_large(limit: usize) -> Self {
        let message = format!("the body is larger than {limit} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "invalid_request_error", Some("body_too_large"), message)
    }

    /// The body is not JSON.
    pub fn media_type() -> Self {
        let message = "the body has to be JSON: send the header Content-Type: application/json";
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "invalid_request_error",
            Some("unsupported_media_type"),
            message,
        )
    }

    /// The body did not come in time.
    pub fn slow_body() -> Self {
        let message = "the body did not come in time";
        Self::new(StatusCode::REQUEST_TIMEOUT, "invalid_request_error", Some("body_timeout"), message)
    }

    /// No key, or none that is known.
    pub fn key(given: bool) -> Self {
        let message = if given {
            "the API key is not known here"
        } else {
            "an API key is needed: send the header Authorization: Bearer KEY"
        };
        Self::new(StatusCode::UNAUTHORIZED, "invalid_request_error", Some("invalid_api_key"), message)
    }

    /// The queue is full.
    pub fn busy(waiting: usize) -> Self {
        let message = format!("{waiting} prompts wait already: try again later");
        let mut error =
            Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", Some("queue_full"), message);
        error.retry_after = Some(1);
        error
    }

    /// Constraints of others are being compiled.
    pub fn compiling() -> Self {
        let message = "other constraints are being compiled: try again later";
        let mut error =
            Self::new(StatusCode::SERVICE_UNAVAILABLE, "server_error", Some("constraints_busy"), message);
        error.retry_after = Some(5);
        error
    }

    /// The server is ending.
    pub fn ending() -> Self {
        let mut error = Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "server_error",
            Some("shutting_down"),
            "the server is ending",
        );
        error.retry_after = Some(5);
        error
    }

    /// The answer took too long.
    pub fn timeout() -> Self {
        let message = "the answer was not done in the time that the server allows";
        Self::new(StatusCode::GATEWAY_TIMEOUT, "server_error", Some("timeout"), message)
    }

    /// Something that should not have happened.
    pub fn internal(message: impl ToString) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "server_error", Some("internal_error"), message)
    }

    /// As JSON text.
    pub fn json(&self) -> String {
        serde_json::to_string(&self.body).unwrap_or_default()
    }
}

impl From<&EngineError> for ApiError {
    fn from(error: &EngineError) -> Self {
        match error {
            EngineError::PromptTooLong { .. } => {
                let mut refused = Self::request(error.to_string().split(": ").next().unwrap_or_default());
                refused.body.error.code = Some("context_length_exceeded".into());
                refused.body.error.param = Some("prompt".into());
                refused
            }
            EngineError::TokenOutOfRange { .. } | EngineError::Empty(_) => Self::param("prompt", error),
            EngineError::Sampling(e) => {
                Self::param(e.option.replace('-', "_"), format!("{}: {}", e.value, e.allowed))
            }
            EngineError::Constraint(e) => Self::from(e),
            _ => Self::internal(error),
        }
    }
}

impl From<&ConstraintError> for ApiError {
    fn from(error: &ConstraintError) -> Self {
        let mut refused = Self::param("response_format", error);
        if matches!(error, ConstraintError::UnsupportedKeyword { .. }) {
            refused.body.error.code = Some("unsupported_schema_keyword".into());
        }
        refused
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = self.json();
        let mut response = (self.status, [(header::CONTENT_TYPE, "application/json")], body).into_response();
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
