//! Asks the admin service of a running edge, and prints its answer.

use std::fmt::Write as _;
use std::time::Duration;

use http::StatusCode;
use serde::Deserialize;
use serde_json::Value;

use crate::cli::failure::{Failure, Printed, REFUSED, UNREACHABLE};
use crate::cli::output::fields;
use crate::client::{encode, get};
use crate::table::Endpoint;

/// Deadline of the request, name lookup and connection included.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// The largest answer in bytes, far above any of an admin service.
pub(super) const ANSWER_BYTES: usize = 1 << 20;

/// How many candidates are listed; `--json` has them all.
const LISTED: usize = 20;

/// The answer to `GET /debug/route`. Fields of later versions are in `--json` only.
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

/// A placement at its concurrency limit.
#[derive(Deserialize)]
struct Full {
    in_flight: u64,
    concurrency_limit: u64,
}

/// An endpoint that did not resolve.
#[derive(Deserialize)]
struct WithoutAddress {
    placement: String,
    endpoint: String,
    why: String,
}

/// An address that may serve the key.
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

/// Asks the edge at `admin` where `key` goes.
///
/// # Errors
/// The edge refuses the key or has no table, is unreachable, or is not an edge.
pub(super) fn ask(admin: &Endpoint, key: &str) -> Result<Printed, Failure> {
    let unreachable =
        |error: String| Failure::unreachable(format!("no answer from {admin}: {error}"));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| unreachable(error.to_string()))?;
    let url = format!(
        "http://{}/debug/route?key={}",
        admin.authority(),
        encode(key)
    );
    let answer = runtime.block_on(get(&url, ANSWER_BYTES, ANSWER_TIMEOUT));
    // The exit does not wait for a name lookup that still hangs.
    runtime.shutdown_background();
    let answer = answer.map_err(unreachable)?;
    read_answer(admin, answer.status, &answer.body)
}

fn read_answer(admin: &Endpoint, status: StatusCode, body: &[u8]) -> Result<Printed, Failure> {
    let stranger = || {
        let message =
            format!("{admin} does not answer like an admin service of Cellgate (status {status})");
        Failure::new(UNREACHABLE, "unexpected_answer", message)
    };
    if status != StatusCode::OK {
        let json: Value = serde_json::from_slice(body).map_err(|_| stranger())?;
        let (Some(_), Some(message)) = (json["error"].as_str(), json["message"].as_str()) else {
            return Err(stranger());
        };
        let message = message.to_owned();
        return Err(Failure::answered(REFUSED, json, message, Vec::new()));
    }
    let json: Value = serde_json::from_slice(body).map_err(|_| stranger())?;
    let answer = EdgeAnswer::deserialize(&json).map_err(|_| stranger())?;
    let text = fields(&answer.rows());
    Ok(Printed { text, json })
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

    /// Which placement would serve the key, and the state of each candidate.
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
            (true, Some(why)) => format!("would be chosen now, as there is no better one; {why}"),
            (false, Some(why)) => why.clone(),
        };
        if let Some(LastFailure { at, detail }) = &self.last_failure {
            let _ = write!(verdict, "; last failure at {at}: {detail}");
        }
        verdict
    }
}
