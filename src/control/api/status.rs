//! The status of the edges, and of the control plane itself.

use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use super::error::ApiError;
use super::limits::holding;
use super::openapi::{Fails, ReadErrors};
use super::request::ApiRequest;
use super::response;
use crate::control::core::{EdgeView, Etag};
use crate::control::mirror::FileError;
use crate::control::store::Record;

/// The edges of this control plane.
#[derive(Serialize, ToSchema)]
struct EdgeList {
    /// Sorted by name.
    edges: Vec<EdgeView>,
}

/// List the edges that are connected to this control plane, or were lately
#[utoipa::path(
    get, path = "/api/v1/edges", operation_id = "listEdges", tag = "edges",
    responses((status = 200, description = "All edges.", body = EdgeList), ReadErrors, Fails<503>)
)]
pub(super) async fn edges(request: ApiRequest) -> Result<Response, ApiError> {
    request.query(&[])?;
    let permit = request.control.request_limits.response().await?;
    let edges = request.control.edges.list();
    let response = response::json(StatusCode::OK, &EdgeList { edges });
    Ok(holding(response, permit))
}

/// Get one edge
#[utoipa::path(
    get, path = "/api/v1/edges/{edge_id}", operation_id = "getEdge", tag = "edges",
    params(("edge_id" = String, Path)),
    responses((status = 200, description = "The edge.", body = EdgeView), ReadErrors, Fails<404>)
)]
pub(super) async fn edge(request: ApiRequest) -> Result<Response, ApiError> {
    request.query(&[])?;
    let edge_id = request.name()?;
    match request.control.edges.get(&edge_id) {
        Some(edge) => Ok(response::json(StatusCode::OK, &edge)),
        None => {
            let message = format!("no edge {edge_id:?} is or was lately connected here");
            Err(ApiError::not_found("unknown_edge", message))
        }
    }
}

/// The state of this control plane.
#[derive(Serialize, ToSchema)]
struct Status {
    /// The name of this control plane.
    id: String,
    /// The version of the program.
    version: &'static str,
    /// Where generations are stored.
    store: String,
    /// The newest generation; null before the first.
    #[schema(required)]
    newest: Option<Record>,
    /// The entity tag of the newest generation, as in the header.
    #[schema(required, value_type = Option<Etag>)]
    etag: Option<String>,
    /// The edges of this control plane.
    edges: EdgeCounts,
    /// Why the routing file differs from the newest generation; null if it does not.
    #[schema(required)]
    file_error: Option<FileError>,
}

/// How many edges there are.
#[derive(Serialize, ToSchema)]
struct EdgeCounts {
    connected: usize,
    /// Connected edges that serve the newest generation.
    in_sync: usize,
}

/// Get the status of this control plane
#[utoipa::path(
    get, path = "/api/v1/status", operation_id = "getStatus", tag = "status",
    responses((status = 200, description = "The status.", body = Status), ReadErrors)
)]
pub(super) async fn status(request: ApiRequest) -> Result<Response, ApiError> {
    request.query(&[])?;
    let newest = request.truth().newest();
    let newest = newest.map(|newest| newest.record.clone());
    let counts = request.control.edges.counts();
    let status = Status {
        id: request.control.id.to_string(),
        version: env!("CARGO_PKG_VERSION"),
        store: request.truth().store().name(),
        etag: newest
            .as_ref()
            .map(|newest| Etag::of(newest.mark()).to_string()),
        newest,
        edges: EdgeCounts {
            connected: counts.connected,
            in_sync: counts.in_sync,
        },
        file_error: request.control.file.as_ref().and_then(|file| file.error()),
    };
    Ok(response::json(StatusCode::OK, &status))
}
