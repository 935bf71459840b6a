//! The edges, and the control plane itself.

use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;

use super::answer;
use super::call::Call;
use super::refused::Refused;
use super::turns::holding;
use crate::control::core::{EdgeView, Etag};
use crate::control::mirror::FileError;
use crate::control::store::Record;

#[derive(Serialize)]
struct Edges {
    edges: Vec<EdgeView>,
}

/// `GET edges`.
pub(super) async fn edges(call: Call) -> Result<Response, Refused> {
    call.query(&[])?;
    let turn = call.control.turns.answer().await?;
    let edges = call.control.edges.list();
    Ok(holding(
        answer::json(StatusCode::OK, &Edges { edges }),
        turn,
    ))
}

/// `GET edges/{edge_id}`.
pub(super) async fn edge(call: Call) -> Result<Response, Refused> {
    call.query(&[])?;
    let edge_id = call.name()?;
    match call.control.edges.get(&edge_id) {
        Some(edge) => Ok(answer::json(StatusCode::OK, &edge)),
        None => {
            let message = format!("no edge {edge_id:?} is connected here, or was lately");
            Err(Refused::not_found("unknown_edge", message))
        }
    }
}

#[derive(Serialize)]
struct Status {
    id: String,
    /// Of the program.
    version: &'static str,
    store: String,
    newest: Option<Record>,
    /// Of the newest generation, as a header has it.
    etag: Option<String>,
    edges: Counted,
    /// Why the routing file is not the same as the newest generation.
    file_error: Option<FileError>,
}

#[derive(Serialize)]
struct Counted {
    connected: usize,
    in_sync: usize,
}

/// `GET status`.
pub(super) async fn status(call: Call) -> Result<Response, Refused> {
    call.query(&[])?;
    let newest = call.truth().newest().map(|newest| newest.record.clone());
    let counts = call.control.edges.counts();
    let status = Status {
        id: call.control.id.to_string(),
        version: env!("CARGO_PKG_VERSION"),
        store: call.truth().store().name(),
        etag: newest
            .as_ref()
            .map(|newest| Etag::of(newest.mark()).to_string()),
        newest,
        edges: Counted {
            connected: counts.connected,
            in_sync: counts.in_sync,
        },
        file_error: call.control.file.as_ref().and_then(|file| file.error()),
    };
    Ok(answer::json(StatusCode::OK, &status))
}
