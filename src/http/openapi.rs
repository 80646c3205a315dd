//! The OpenAPI 3.1 description. These types only describe bodies. Handlers use the core's types, and a test compares
//! both.
#![allow(dead_code)]

use std::sync::Arc;

use axum::{
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use serde::Serialize;
use serde_json::Value;
use utoipa::{
    IntoParams, Modify, OpenApi, ToSchema,
    openapi::{
        self, ContentBuilder, Ref, ResponseBuilder,
        security::{ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityRequirement, SecurityScheme},
    },
};

use super::HttpState;

#[derive(OpenApi)]
#[openapi(modifiers(&Secured), info(
    title = "Jobcast",
    description = "Publishes job events, and lets watchers follow them live without missing one."
))]
pub struct Description;

/// Every call below `/api` may need a token or a key, and says so.
struct Secured;

impl Modify for Secured {
    fn modify(&self, description: &mut openapi::OpenApi) {
        let components = description.components.get_or_insert_default();
        let bearer = Http::builder()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("A token, or an API key. Watching takes it as ?token= as well."));
        components.add_security_scheme("bearer", SecurityScheme::Http(bearer.build()));
        let key = ApiKeyValue::with_description("X-API-Key", "An API key.");
        components.add_security_scheme("apiKey", SecurityScheme::ApiKey(ApiKey::Header(key)));
    }
}

/// Adds to every call below `/api` what it answers who may not.
pub fn secure(description: &mut openapi::OpenApi) {
    let problem = |text: &str| {
        let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
        ResponseBuilder::new().description(text).content("application/problem+json", content).build()
    };
    let secured = description.paths.paths.iter_mut().filter(|(path, _)| path.starts_with("/api/"));
    for (_, item) in secured {
        for operation in [&mut item.get, &mut item.post].into_iter().flatten() {
            operation.security =
                Some(["bearer", "apiKey"].map(|name| SecurityRequirement::new(name, [""; 0])).to_vec());
            let responses = &mut operation.responses.responses;
            responses.insert("401".to_owned(), problem("No token or key, or a bad one").into());
            responses.insert("403".to_owned(), problem("The caller may not do this").into());
        }
    }
}

/// This description
#[utoipa::path(
    get,
    path = "/openapi.json",
    operation_id = "description",
    tag = "operating",
    responses((status = 200, description = "OpenAPI 3.1", body = Value))
)]
pub async fn serve(State(state): State<Arc<HttpState>>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], state.description.clone()).into_response()
}

#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
pub struct IdempotencyHeader {
    /// 1 to 128 visible characters. Repeating a call under the same key within 10 minutes stores nothing again and
    /// gets the first answer.
    #[param(rename = "Idempotency-Key")]
    key: Option<String>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct UpdateBody {
    /// 1 to 64 characters of the publisher's own.
    #[schema(example = "queued")]
    status: String,
    data: Option<Value>,
    user_id: Option<String>,
    tenant_id: Option<String>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProgressBody {
    #[schema(minimum = 0, maximum = 100, example = 40)]
    progress: f64,
    message: Option<String>,
    user_id: Option<String>,
    tenant_id: Option<String>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CompletedBody {
    result: Option<Value>,
    user_id: Option<String>,
    tenant_id: Option<String>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ErrorBody {
    /// A string, or an object with a `message`.
    #[schema(value_type = String)]
    error: Value,
    user_id: Option<String>,
    tenant_id: Option<String>,
}

/// A job event. What a publisher sends has no `seq` and no `timestamp`.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct EventBody {
    /// `job:update`, `job:progress`, `job:completed` or `job:error`.
    #[schema(example = "job:progress")]
    event: String,
    job_id: String,
    status: Option<String>,
    data: Option<Value>,
    progress: Option<f64>,
    message: Option<String>,
    result: Option<Value>,
    error: Option<String>,
    user_id: Option<String>,
    tenant_id: Option<String>,
    timestamp: Option<String>,
    seq: Option<u64>,
    /// On input only: the event's idempotency key.
    id: Option<String>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PublishedBody {
    job_id: String,
    seq: u64,
    timestamp: String,
}

#[derive(Serialize, ToSchema)]
pub struct Outcome {
    /// In the order of the events.
    results: Vec<ItemOutcome>,
    /// How many were refused.
    failed: u64,
}

#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub enum ItemOutcome {
    Accepted(PublishedBody),
    Refused { index: u64, error: ItemError },
}

#[derive(Serialize, ToSchema)]
pub struct ItemError {
    code: String,
    message: String,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct HistoryBody {
    job_id: String,
    events: Vec<EventBody>,
}

#[derive(Serialize, ToSchema)]
pub struct JobsBody {
    jobs: Vec<EventBody>,
}

#[derive(Serialize, ToSchema)]
pub struct NoticeBody {
    /// 1 to 64 characters of `A-Z a-z 0-9 _ . : -`, and no name that socket.io or the job events use.
    #[schema(example = "refresh")]
    event: String,
    data: Option<Value>,
}

#[derive(Serialize, ToSchema)]
pub struct SentBody {
    timestamp: String,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClientBody {
    client_id: String,
    connected_at: String,
    user_id: Option<String>,
    address: String,
    user_agent: String,
    transport: String,
    node: String,
    subscriptions: Vec<String>,
}

#[derive(Serialize, ToSchema)]
pub struct ClientsBody {
    clients: Vec<ClientBody>,
    cursor: Option<String>,
}

#[derive(Serialize, ToSchema)]
pub struct RoomBody {
    room: String,
    clients: u64,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TokenBody {
    /// The user, whose room and jobs it shows.
    #[schema(example = "ada")]
    sub: Option<String>,
    /// The user's tenant, likewise.
    tenant_id: Option<String>,
    /// Ids of jobs, or their beginnings with a `*` behind them.
    jobs: Option<Vec<String>>,
    /// How long it is good: a span such as `15m`, or seconds; from 1 s to 24 h, 15 minutes by default.
    #[schema(example = "15m")]
    ttl: Option<String>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct MintedBody {
    token: String,
    #[schema(format = DateTime)]
    expires_at: String,
}

/// Exactly one of `sub`, `tenantId` and `jti`.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RevocationBody {
    sub: Option<String>,
    tenant_id: Option<String>,
    jti: Option<String>,
    /// Tokens that were issued before this time are revoked: RFC 3339 or Unix milliseconds; now by default.
    before: Option<String>,
}

#[derive(Serialize, ToSchema)]
pub struct RevokedBody {
    #[schema(format = DateTime)]
    before: String,
}
