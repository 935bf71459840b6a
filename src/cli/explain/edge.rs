//! The part that asks the admin service of a running edge.

use std::fmt::Write as _;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::StatusCode;
use hyper::client::conn::http1;
use hyper::header::HOST;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::TcpStream;

use super::{Answer, Failure, columns};
use crate::table::Endpoint;

/// How long an edge may take to answer, name lookup and connect included.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Far above any answer of an admin service.
pub(super) const ANSWER_BYTES: usize = 1 << 20;

/// How many candidates are spelled out; `--json` has them all.
const LISTED: usize = 20;

/// What `GET /debug/route` answers with; fields that a later edge adds are left
/// to `--json`.
#[derive(Deserialize)]
struct EdgeAnswer {
    key: String,
    placement: String,
    reason: String,
    why: Option<String>,
    endpoint: String,
    #[serde(default)]
    addresses: Vec<String>,
    generation: u64,
    version: String,
    resolution_error: Option<String>,
    served_by: Option<String>,
    failover_reason: Option<String>,
    chosen: Option<String>,
    full: Option<Full>,
    #[serde(default)]
    candidates: Vec<Candidate>,
    #[serde(default)]
    without_address: Vec<WithoutAddress>,
}

/// A placement that takes no more requests.
#[derive(Deserialize)]
struct Full {
    in_flight: u64,
    concurrency_limit: u64,
}

/// An endpoint that cannot come into question.
#[derive(Deserialize)]
struct WithoutAddress {
    placement: String,
    endpoint: String,
    why: String,
}

/// An address that comes into question.
#[derive(Deserialize)]
struct Candidate {
    placement: String,
    endpoint: String,
    address: String,
    why_not: Option<String>,
    last_failure: Option<LastFailure>,
}

#[derive(Deserialize)]
struct LastFailure {
    at: String,
    detail: String,
}

/// Any error of the admin service.
#[derive(Deserialize)]
struct EdgeError {
    error: String,
    message: String,
}

pub(super) fn ask(admin: &Endpoint, key: &str) -> Result<Answer, Failure> {
    let unreachable = |error: String| {
        Failure::unreachable("unreachable", format!("no answer from {admin}: {error}"))
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| unreachable(error.to_string()))?;
    let answer = runtime.block_on(async {
        match tokio::time::timeout(ANSWER_TIMEOUT, get_route(admin, key)).await {
            Ok(answer) => answer.map_err(|error| error.to_string()),
            Err(_) => Err(format!("timed out after {} s", ANSWER_TIMEOUT.as_secs())),
        }
    });
    // A name lookup that still hangs must not hold up the exit.
    runtime.shutdown_background();
    let (status, body) = answer.map_err(unreachable)?;
    read_answer(admin, status, &body)
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

async fn get_route(admin: &Endpoint, key: &str) -> Result<(StatusCode, Bytes), BoxError> {
    let stream = TcpStream::connect((admin.host.as_str(), admin.port)).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // Whatever ends the connection, the request reports it.
    tokio::spawn(connection);
    let request = hyper::Request::get(format!("/debug/route?key={}", percent_encoded(key)))
        .header(HOST, admin.authority())
        .body(Empty::<Bytes>::new())?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = Limited::new(response.into_body(), ANSWER_BYTES)
        .collect()
        .await?;
    Ok((status, body.to_bytes()))
}

fn read_answer(admin: &Endpoint, status: StatusCode, body: &[u8]) -> Result<Answer, Failure> {
    let stranger = || {
        let message = format!("{admin} does not answer like an admin service of Cellgate");
        Failure::unreachable("unexpected_answer", format!("{message} (status {status})"))
    };
    if status != StatusCode::OK {
        let refusal: EdgeError = serde_json::from_slice(body).map_err(|_| stranger())?;
        return Err(Failure::refused(&refusal.error, refusal.message));
    }
    let json: serde_json::Value = serde_json::from_slice(body).map_err(|_| stranger())?;
    let answer = EdgeAnswer::deserialize(&json).map_err(|_| stranger())?;
    let text = columns(&answer.rows());
    Ok(Answer { text, json })
}

impl EdgeAnswer {
    fn rows(&self) -> Vec<(&'static str, String)> {
        let reason = format!("{} ({})", self.reason, self.why());
        let mut rows = vec![
            ("key", self.key.clone()),
            ("placement", self.placement.clone()),
            ("reason", reason),
        ];
        let troubled = self.candidates.len() > 1
            || !self.candidates.is_empty() && !self.without_address.is_empty()
            || self
                .candidates
                .iter()
                .any(|candidate| candidate.why_not.is_some());
        if self.failover_reason.is_some() || troubled {
            self.add_candidates(&mut rows);
        } else {
            rows.push(("endpoint", self.endpoint.clone()));
            rows.push(("addresses", self.addresses()));
        }
        if let Some(Full {
            in_flight,
            concurrency_limit,
        }) = &self.full
        {
            let limit = format!("{in_flight} of {concurrency_limit} in flight: requests get 429");
            rows.push(("limit", limit));
        }
        let generation = format!("{} (version {})", self.generation, self.version);
        rows.push(("generation", generation));
        rows
    }

    fn why(&self) -> String {
        let placement = &self.placement;
        if let Some(why) = &self.why {
            return why.clone();
        }
        match self.reason.as_str() {
            "dedicated" => format!("{placement} serves this key alone"),
            "tier" => format!("{placement} serves several keys or is a shared tier"),
            "default" => format!("the key is not in the table, and {placement} is the default"),
            _ => "unknown to this version of the command".to_owned(),
        }
    }

    fn addresses(&self) -> String {
        match (self.addresses.as_slice(), &self.resolution_error) {
            ([], Some(why)) => format!("none: the name is not resolved ({why})"),
            ([], None) => "none: the name is not resolved".to_owned(),
            (addresses, _) => addresses.join(", "),
        }
    }

    /// Who would serve, and what the edge thinks of each address in question.
    fn add_candidates(&self, rows: &mut Vec<(&'static str, String)>) {
        let served_by = match (&self.served_by, &self.failover_reason) {
            (Some(name), Some(why)) => format!("{name}, as a fallback ({why})"),
            (Some(name), None) => name.clone(),
            (None, Some(why)) => format!("nobody: requests get 503 ({why})"),
            (None, None) => "nobody: requests get 502".to_owned(),
        };
        rows.push(("served by", served_by));
        let chosen = self.candidates.iter().position(|candidate| {
            self.served_by.as_ref() == Some(&candidate.placement)
                && self.chosen.as_ref() == Some(&candidate.address)
        });
        if let Some(candidate) = chosen.and_then(|index| self.candidates.get(index)) {
            rows.push(("endpoint", candidate.endpoint.clone()));
        }
        let mut name = "candidates";
        for (index, candidate) in self.candidates.iter().take(LISTED).enumerate() {
            let line = format!(
                "{}  {}  {}  {}",
                candidate.placement,
                candidate.endpoint,
                candidate.address,
                candidate.verdict(chosen == Some(index))
            );
            rows.push((std::mem::take(&mut name), line));
        }
        for endpoint in self.without_address.iter().take(LISTED) {
            let WithoutAddress {
                placement,
                endpoint,
                why,
            } = endpoint;
            let line = format!("{placement}  {endpoint}  no address: {why}");
            rows.push((std::mem::take(&mut name), line));
        }
        if let Some(more @ 1..) = self.candidates.len().checked_sub(LISTED) {
            rows.push(("", format!("and {more} more (--json shows all)")));
        }
    }
}

impl Candidate {
    fn verdict(&self, chosen: bool) -> String {
        let mut verdict = match (chosen, &self.why_not) {
            (true, None) => return "would be chosen now".to_owned(),
            (false, None) => return "could be chosen as well".to_owned(),
            (true, Some(why)) => format!("would be chosen now, for want of a better one; {why}"),
            (false, Some(why)) => why.clone(),
        };
        if let Some(LastFailure { at, detail }) = &self.last_failure {
            let _ = write!(verdict, "; last failure at {at}: {detail}");
        }
        verdict
    }
}

/// All but the unreserved characters of RFC 3986, section 2.3.
fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}
