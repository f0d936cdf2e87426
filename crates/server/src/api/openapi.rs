//! The description of the API at `/openapi.json`.

use super::{chat, completions, models};
use axum::{
    http::header,
    response::{IntoResponse, Response},
};
use utoipa::{
    Modify, OpenApi,
    openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "blackletter",
        description = "Completions of one model, as the OpenAI API has them. Every refusal has the body `{\"error\": {\"message\", \"type\", \"param\", \"code\"}}`."
    ),
    paths(
        completions::completions, chat::chat, models::list, models::one, models::about, models::health, models::ready,
        models::metrics, get
    ),
    modifiers(&Key)
)]
struct Api;

struct Key;

impl Modify for Key {
    fn modify(&self, api: &mut utoipa::openapi::OpenApi) {
        let scheme = SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build());
        api.components.get_or_insert_default().add_security_scheme("key", scheme);
    }
}

/// The description, as JSON.
pub fn document() -> String {
    Api::openapi().to_json().unwrap_or_default()
}

/// This description.
#[utoipa::path(get, path = "/openapi.json", tag = "blackletter", responses(
    (status = 200, description = "An OpenAPI document", body = Object, content_type = "application/json"),
))]
pub async fn get() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], document()).into_response()
}
