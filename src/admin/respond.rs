//! Every answer of the admin service, as a function of the request.

use std::borrow::Cow;
use std::time::Instant;

use http::header::{ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderValue, Method, Response, StatusCode};
use serde::Serialize;
use serde_json::json;
use url::form_urlencoded;

use super::AdminApp;
use crate::state::ConfigStatus;
use crate::telemetry::metrics;
use crate::upstream::PlacementView;

const JSON: &str = "application/json";
/// How many placements one answer shows. It is written in memory as a whole.
const MAX_PLACEMENTS: usize = 1000;
const TEXT: &str = "text/plain; charset=utf-8";

/// Every path with what it is for, in the order of the index.
const PATHS: [(&str, &str); 7] = [
    ("/", "this list"),
    (
        "/debug/config",
        "what is being served, and how the last attempt to change it went",
    ),
    ("/debug/route?key=KEY", "where a routing key goes, and why"),
    (
        "/debug/placements",
        "how each placement and its addresses are (?placement=NAME: one of them)",
    ),
    ("/healthz", "200 while the process is alive"),
    (
        "/readyz",
        "200 while new clients are welcome, else 503 and why not",
    ),
    ("/metrics", "counters for Prometheus"),
];

/// An answer before it is known whether its body is wanted.
struct Answer {
    status: StatusCode,
    content_type: &'static str,
    body: Vec<u8>,
}

impl AdminApp {
    /// Answers a request for `path` with the query `query` (after the question
    /// mark, still encoded).
    pub fn respond(&self, method: &Method, path: &str, query: Option<&str>) -> Response<Vec<u8>> {
        let head = method == Method::HEAD;
        if !head && method != Method::GET {
            let answer = error(
                StatusCode::METHOD_NOT_ALLOWED,
                "method_not_allowed",
                format!("{method} is not allowed here (allowed: GET, HEAD)"),
            );
            let mut response = answer.into_response(false);
            response
                .headers_mut()
                .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        let answer = match path {
            "/" => index(),
            "/debug/config" => config(&self.state.status()),
            "/debug/route" => self.route(query),
            "/debug/placements" => self.placements(query),
            // Being able to answer is all there is to it.
            "/healthz" => json(StatusCode::OK, &json!({"status": "healthy"})),
            "/readyz" => self.ready(),
            "/metrics" => self.metrics(),
            _ => not_found(path),
        };
        answer.into_response(head)
    }

    fn metrics(&self) -> Answer {
        let gauge = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        // All of these are counted anyway; they are copied when somebody looks.
        self.metrics
            .in_flight
            .set(gauge(self.lifecycle.in_flight()));
        self.metrics
            .client_connections
            .set(gauge(self.lifecycle.connections()));
        self.state.show_gauges();
        Answer {
            status: StatusCode::OK,
            content_type: metrics::CONTENT_TYPE,
            body: self.metrics.encode().into_bytes(),
        }
    }

    fn ready(&self) -> Answer {
        // Draining comes first: it does not pass, whatever the table.
        if self.lifecycle.draining() {
            return error(
                StatusCode::SERVICE_UNAVAILABLE,
                "draining",
                "the edge is shutting down",
            );
        }
        if self.state.current().is_none() {
            return no_table();
        }
        json(StatusCode::OK, &json!({"status": "ready"}))
    }

    fn placements(&self, query: Option<&str>) -> Answer {
        let Some(generation) = self.state.current() else {
            return no_table();
        };
        let now = Instant::now();
        let mut names = parameter(query, "placement");
        let (placements, of) = match (names.next(), names.next()) {
            (None, _) => (
                generation
                    .placements
                    .views(MAX_PLACEMENTS, |id| generation.table.keys_on(id), now),
                generation.placements.len(),
            ),
            (Some(name), None) => match generation.table.placement_named(&name) {
                Ok(id) => {
                    let keys = generation.table.keys_on(id);
                    (vec![generation.placements.view(id, keys, now)], 1)
                }
                Err(unknown) => return error(StatusCode::NOT_FOUND, "unknown_placement", unknown),
            },
            (Some(_), Some(_)) => {
                return error(
                    StatusCode::BAD_REQUEST,
                    "ambiguous_placement",
                    "the parameter \"placement\" is given more than once (example: /debug/placements?placement=tier1)",
                );
            }
        };
        let answer = Placements {
            generation: generation.number,
            omitted: of.saturating_sub(placements.len()),
            placements,
        };
        json(StatusCode::OK, &answer)
    }

    fn route(&self, query: Option<&str>) -> Answer {
        let mut keys = parameter(query, "key");
        let key = match (keys.next(), keys.next()) {
            (Some(key), None) if !key.is_empty() => key,
            (Some(_), Some(_)) => {
                return error(
                    StatusCode::BAD_REQUEST,
                    "ambiguous_routing_key",
                    "the parameter \"key\" is given more than once (example: /debug/route?key=acme)",
                );
            }
            _ => {
                return error(
                    StatusCode::BAD_REQUEST,
                    "missing_routing_key",
                    "the parameter \"key\" is missing or empty (example: /debug/route?key=acme)",
                );
            }
        };
        match self.state.explain(&key) {
            Some(explanation) => json(StatusCode::OK, &explanation),
            None => no_table(),
        }
    }
}

/// The body of `GET /debug/placements`.
#[derive(Serialize)]
struct Placements {
    generation: u64,
    placements: Vec<PlacementView>,
    /// How many more there are.
    omitted: usize,
}

/// Every value of `name` in a query, decoded.
fn parameter<'a>(query: Option<&'a str>, name: &'a str) -> impl Iterator<Item = Cow<'a, str>> + 'a {
    form_urlencoded::parse(query.unwrap_or_default().as_bytes())
        .filter(move |(given, _)| given == name)
        .map(|(_, value)| value)
}

/// The answer to bytes that are no HTTP request.
pub(super) fn refused() -> Response<Vec<u8>> {
    error(
        StatusCode::BAD_REQUEST,
        "bad_request",
        "the request is not valid http",
    )
    .into_response(false)
}

fn config(status: &ConfigStatus) -> Answer {
    if status.generation.is_none() {
        return no_table();
    }
    json(StatusCode::OK, status)
}

fn no_table() -> Answer {
    error(
        StatusCode::SERVICE_UNAVAILABLE,
        "not_ready",
        "there is no routing table yet",
    )
}

fn not_found(path: &str) -> Answer {
    let valid: Vec<&str> = PATHS
        .iter()
        .map(|(path, _)| path.split_once('?').map_or(*path, |(path, _)| path))
        .collect();
    error(
        StatusCode::NOT_FOUND,
        "not_found",
        format!(
            "there is no {} here (valid: {})",
            shorten(path),
            valid.join(", ")
        ),
    )
}

/// Quoted, and no longer than fits on a line.
fn shorten(path: &str) -> String {
    const LONGEST: usize = 80;
    match path.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{:?}…", path.get(..end).unwrap_or_default()),
        None => format!("{path:?}"),
    }
}

fn index() -> Answer {
    let mut text = String::from("Cellgate admin service\n\n");
    let width = PATHS.iter().map(|(path, _)| path.len()).max().unwrap_or(0);
    for (path, purpose) in PATHS {
        text.push_str(&format!("GET {path:width$}  {purpose}\n"));
    }
    Answer {
        status: StatusCode::OK,
        content_type: TEXT,
        body: text.into_bytes(),
    }
}

fn error(status: StatusCode, code: &str, message: impl Into<String>) -> Answer {
    let message = message.into();
    json(status, &json!({"error": code, "message": message}))
}

fn json(status: StatusCode, body: &impl Serialize) -> Answer {
    match serde_json::to_vec(body) {
        Ok(mut body) => {
            // For those who read it in a terminal.
            body.push(b'\n');
            Answer {
                status,
                content_type: JSON,
                body,
            }
        }
        Err(why) => {
            log::error!(target: "cellgate::admin", "an answer could not be written: {why}");
            Answer {
                status: StatusCode::INTERNAL_SERVER_ERROR,
                content_type: JSON,
                body: b"{\"error\":\"internal_error\",\"message\":\"see the log\"}\n".to_vec(),
            }
        }
    }
}

impl Answer {
    fn into_response(self, head: bool) -> Response<Vec<u8>> {
        let mut response = Response::new(Vec::new());
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        // Of the body that a GET would get: RFC 9110, section 8.6.
        headers.insert(CONTENT_LENGTH, HeaderValue::from(self.body.len()));
        // Each answer is true for a moment only.
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if !head {
            *response.body_mut() = self.body;
        }
        response
    }
}
