//! The OpenAPI 3.1 description: what concerns the API as a whole, and what several handlers share.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use serde_json::{Value, json};
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{ContentBuilder, Ref, RefOr, Response, ResponseBuilder};
use utoipa::{IntoParams, IntoResponses, OpenApi, PartialSchema, ToSchema};

use super::error::ApiError;
use super::response::JSON;
use crate::control::core::Etag;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Cellgate control plane",
        version = "1.0.0",
        description = "Reads and changes the routing document that all edges serve. Every change \
            is a new generation, validated as a whole before it is stored and pushed. Reading \
            requires a token with the role `read`, everything else one with the role `write`, \
            unless the control plane has no tokens. Errors are JSON with `error`, `message` and \
            `problems`. HEAD works wherever GET does; any other method that a path does not have \
            is answered 405 with `Allow`.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    security(("token" = []), ()),
    tags(
        (name = "document"),
        (name = "keys"),
        (name = "generations"),
        (name = "edges"),
        (name = "status")
    ),
    components(schemas(ApiError, Etag))
)]
struct Description;

/// The description without its paths.
pub(super) fn base() -> utoipa::openapi::OpenApi {
    let mut base = Description::openapi();
    let bearer = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
    let components = base.components.get_or_insert_default();
    components.add_security_scheme("token", bearer);
    base
}

/// The whole description as JSON.
pub(super) static OPENAPI: LazyLock<String> = LazyLock::new(|| {
    let openapi = super::routes().into_openapi();
    let mut openapi = serde_json::to_value(openapi).unwrap_or_default();
    if let Some(schemas) = openapi.pointer_mut("/components/schemas") {
        merge_flattened(schemas);
        close_objects(schemas);
    }
    let text = openapi.to_string();
    if let Some(Value::Object(schemas)) = openapi.pointer_mut("/components/schemas") {
        // A merged type may have been the only one that referred to its parts.
        schemas.retain(|name, _| text.contains(&format!("\"#/components/schemas/{name}\"")));
    }
    openapi.to_string()
});

/// Get this description
#[utoipa::path(
    get, path = "/api/v1/openapi.json", operation_id = "getOpenapi", tag = "status",
    responses((status = 200, description = "The OpenAPI 3.1 document", body = Object), Denied)
)]
pub(super) async fn get() -> impl IntoResponse {
    ([(CONTENT_TYPE, JSON)], OPENAPI.as_str())
}

/// Replaces the `allOf` of a type with flattened fields by one list of all its fields, so that the
/// type can be closed to unknown ones.
fn merge_flattened(schemas: &mut Value) {
    let all = schemas.clone();
    for schema in schemas
        .as_object_mut()
        .into_iter()
        .flat_map(|map| map.values_mut())
    {
        let Some(Value::Array(parts)) = schema.get("allOf").cloned() else {
            continue;
        };
        let (mut properties, mut required) = (serde_json::Map::new(), Vec::new());
        for part in &parts {
            let name = part["$ref"].as_str().and_then(|to| to.rsplit('/').next());
            let part = name.map_or(part, |name| &all[name]);
            properties.extend(part["properties"].as_object().cloned().unwrap_or_default());
            required.extend(part["required"].as_array().cloned().unwrap_or_default());
        }
        let mut merged = json!({"type": "object", "properties": properties, "required": required});
        if let Some(description) = schema.get("description") {
            merged["description"] = description.clone();
        }
        *schema = merged;
    }
}

/// Says of every object with fields that it has no others.
fn close_objects(value: &mut Value) {
    match value {
        Value::Object(members) => {
            if members.contains_key("properties") && members.get("type") == Some(&json!("object")) {
                members.insert("additionalProperties".to_owned(), json!(false));
            }
            members.values_mut().for_each(close_objects);
        }
        Value::Array(elements) => elements.iter_mut().for_each(close_objects),
        _ => {}
    }
}

/// A routing document; docs/routing-document.md describes it. Fields are in the order version,
/// defaultPlacement, defaults, placements, cellEndpoints, routingTable; their members are sorted by
/// name, keys by their bytes.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
#[expect(
    dead_code,
    reason = "describes a document, which is never held in this form"
)]
pub(super) struct Document {
    version: String,
    default_placement: String,
    #[schema(nullable = false)]
    defaults: Option<Object>,
    #[schema(nullable = false)]
    placements: Option<Object>,
    #[schema(nullable = false)]
    cell_endpoints: Option<BTreeMap<String, String>>,
    routing_table: BTreeMap<String, String>,
}

/// Any JSON object.
type Object = serde_json::Map<String, Value>;

/// The condition of a read.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "describes headers that request.rs reads")]
pub(super) struct Cached {
    /// Entity tags of what the caller has already. The answer is 304 if one of them is current.
    #[param(rename = "If-None-Match", nullable = false)]
    if_none_match: Option<String>,
}

/// The conditions of a change.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "describes headers that request.rs reads")]
pub(super) struct Conditions {
    /// Make the change only if the newest generation is one of these; `*`: if there is any. For a
    /// single key, `*`: only if the key exists.
    #[param(rename = "If-Match", nullable = false)]
    if_match: Option<String>,
    /// `*`: make the change only if there is no generation yet. For a single key: only if the key
    /// does not exist.
    #[param(rename = "If-None-Match", nullable = false)]
    if_none_match: Option<String>,
}

/// What an error status means, by status.
const ERRORS: [(u16, &str); 13] = [
    (400, "The request cannot be read."),
    (401, "No token, or not one of the configured tokens."),
    (
        403,
        "The token lacks the required role. Or no tokens are configured, and the request is \
         cross-site or comes from a client whose certificate only allows it to connect as an edge.",
    ),
    (404, "The requested resource does not exist."),
    (408, "Less than 64 KiB of the body arrived in 30 s."),
    (
        409,
        "There is no routing document yet whose keys could be changed.",
    ),
    (
        412,
        "The newest generation is not the expected one, and nothing was changed. The ETag is that \
         of the newest generation, if there is one.",
    ),
    (413, "The body is too large."),
    (415, "The body is not JSON, or it is compressed."),
    (
        422,
        "The resulting document would be invalid, and nothing was changed. All problems are listed.",
    ),
    (500, "A defect; see the log of the control plane."),
    (
        503,
        "The store cannot be read, did not accept the change, or too many such requests are in \
         progress (`busy`, with Retry-After). Nothing was changed.",
    ),
    (504, "The store may or may not have accepted the change."),
];

fn errors(statuses: &[u16]) -> BTreeMap<String, RefOr<Response>> {
    let described = ERRORS
        .iter()
        .filter(|(status, _)| statuses.contains(status));
    described
        .map(|(status, description)| {
            let content = ContentBuilder::new()
                .schema(Some(Ref::from_schema_name("Error")))
                .build();
            let mut response = ResponseBuilder::new()
                .description(*description)
                .content(JSON, content);
            let header = match status {
                401 => Some(("WWW-Authenticate", String::schema())),
                404 | 412 => Some(("ETag", Ref::from_schema_name("ETag").into())),
                _ => None,
            };
            if let Some((name, schema)) = header {
                let header = HeaderBuilder::new().schema(Some(schema)).build();
                response = response.header(name, header);
            }
            (status.to_string(), response.build().into())
        })
        .collect()
}

/// The answer with one error status.
pub(super) struct Fails<const STATUS: u16>;

impl<const STATUS: u16> IntoResponses for Fails<STATUS> {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        errors(&[STATUS])
    }
}

/// The errors of every operation.
pub(super) struct Denied;

impl IntoResponses for Denied {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        errors(&[401, 403])
    }
}

/// The errors of every read that takes a path or a query.
pub(super) struct ReadErrors;

impl IntoResponses for ReadErrors {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        errors(&[400, 401, 403])
    }
}

/// The errors of every change.
pub(super) struct WriteErrors;

impl IntoResponses for WriteErrors {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        errors(&[400, 401, 403, 408, 412, 413, 415, 422, 503, 504])
    }
}

/// The answer to a read whose condition is met.
#[derive(IntoResponses)]
#[response(
    status = 304,
    description = "The generation named in If-None-Match is still current.",
    headers(("ETag" = Etag, description = "The generation that the answer describes."))
)]
pub(super) struct NotModified;
