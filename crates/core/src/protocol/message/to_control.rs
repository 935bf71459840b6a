//! Messages from an edge to a control plane.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Received, TooLarge, decode, encode};
use crate::protocol::bounds::{count, cut, generation, line, name, number, problems};
use crate::protocol::limits::{
    LABELS, MAX_FRAME_LEAST, NAME_BYTES, PROBLEM_BYTES, PROBLEMS, REASON_BYTES, STATUS_PLACEMENTS,
    TO_CONTROL_BYTES, VALUE_BYTES,
};
use crate::protocol::refusal::Refusal;
use crate::table::{Digest, Problem};

/// A message from an edge to a control plane.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ToControl {
    Hello(Hello),
    Ack(Ack),
    Nack(Nack),
    Resync(Resync),
    Status(Status),
}

/// The first message: which edge connects, and what it has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The edge's name, which it keeps across restarts.
    pub edge_id: String,
    /// Identifies the process; different after every start.
    pub instance: String,
    /// The version of the program.
    pub version: String,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// The generation that the edge serves; 0 when it did not come from a control plane.
    pub generation: u64,
    /// The digest of what the edge serves; none when it serves nothing.
    #[serde(default)]
    pub digest: Option<Digest>,
    /// Largest frame that the edge accepts, in bytes.
    pub max_frame: u64,
}

/// The edge serves a generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ack {
    pub generation: u64,
    /// Computed from the table that is served.
    pub digest: Digest,
}

/// The edge refuses a generation, and still serves the previous one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nack {
    pub generation: u64,
    /// Never empty.
    pub problems: Vec<Problem>,
}

/// The edge does not have what it should have, and asks for a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resync {
    /// For people.
    pub reason: String,
}

/// The state of an edge, for operators.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// As in [`Hello`].
    pub generation: u64,
    #[serde(default)]
    pub digest: Option<Digest>,
    /// When the edge began to serve it (RFC 3339).
    #[serde(default)]
    pub serving_since: Option<String>,
    /// Where it came from: `file`, `control_plane`, or a value of a later version.
    #[serde(default)]
    pub source: Option<String>,
    /// How long the edge had been without a control plane before this connection, in seconds.
    #[serde(default)]
    pub stale_seconds: u64,
    /// Why the newest content is not being served.
    #[serde(default)]
    pub last_error: Option<LastError>,
    /// The busiest placements, by name. None: unchanged since the last status that had them, as in a
    /// status that is sent because something else changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placements: Option<BTreeMap<String, Load>>,
}

/// The last error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LastError {
    /// When it happened (RFC 3339).
    pub at: String,
    pub problems: Vec<Problem>,
}

/// The load of a placement.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Load {
    pub requests_per_second: f64,
    pub errors_per_second: f64,
    pub in_flight: u64,
}

/// Longest `serving_since`, `at` and `source`, in bytes.
const WORD_BYTES: usize = 64;

impl ToControl {
    /// Decodes a text frame.
    ///
    /// # Errors
    ///
    /// The frame is too large, not JSON, or out of bounds; the connection must be closed so.
    pub fn decode(frame: &[u8]) -> Result<Received<Self>, Refusal> {
        let read = |kind: &str, text: &str| {
            Some(match kind {
                "hello" => serde_json::from_str(text).map(Self::Hello),
                "ack" => serde_json::from_str(text).map(Self::Ack),
                "nack" => serde_json::from_str(text).map(Self::Nack),
                "resync" => serde_json::from_str(text).map(Self::Resync),
                "status" => serde_json::from_str(text).map(Self::Status),
                _ => return None,
            })
        };
        decode(frame, TO_CONTROL_BYTES, read, Self::check)
    }

    /// Encodes the message. Texts, problems and the placements of a status (of which the busiest are
    /// kept) are cut to their bounds, and further if the message is still too large.
    ///
    /// # Errors
    ///
    /// The message is too large even so, because its names are too long.
    pub fn encode(&self) -> Result<String, TooLarge> {
        let mut share = 1;
        loop {
            match encode(&self.cut(share), TO_CONTROL_BYTES) {
                Err(_) if share <= STATUS_PLACEMENTS => share *= 2,
                result => return result,
            }
        }
    }

    /// With lists cut to their bounds divided by `share`.
    fn cut(&self, share: usize) -> Self {
        let mut message = self.clone();
        match &mut message {
            Self::Nack(nack) => cut_problems(&mut nack.problems, share),
            Self::Resync(resync) => cut_line(&mut resync.reason, REASON_BYTES),
            Self::Status(status) => {
                if let Some(placements) = &mut status.placements {
                    keep_busiest(placements, STATUS_PLACEMENTS / share);
                }
                if let Some(error) = &mut status.last_error {
                    cut_problems(&mut error.problems, share);
                }
            }
            Self::Hello(_) | Self::Ack(_) => {}
        }
        message
    }

    fn check(&self) -> Result<(), String> {
        match self {
            Self::Hello(hello) => hello.check(),
            Self::Ack(ack) => generation("generation", ack.generation),
            Self::Nack(nack) => {
                generation("generation", nack.generation)?;
                if nack.problems.is_empty() {
                    return Err("problems: empty".to_owned());
                }
                problems(&nack.problems)
            }
            Self::Resync(resync) => line("reason", &resync.reason, REASON_BYTES),
            Self::Status(status) => status.check(),
        }
    }
}

impl Hello {
    fn check(&self) -> Result<(), String> {
        name("edge_id", &self.edge_id, NAME_BYTES)?;
        name("instance", &self.instance, NAME_BYTES)?;
        line("version", &self.version, VALUE_BYTES)?;
        count("labels", self.labels.len(), "labels", LABELS)?;
        for (label, value) in &self.labels {
            name("labels", label, NAME_BYTES)?;
            line("labels", value, VALUE_BYTES)?;
        }
        number("generation", self.generation)?;
        number("max_frame", self.max_frame)?;
        match self.max_frame < MAX_FRAME_LEAST as u64 {
            true => Err(format!(
                "max_frame: {} (at least {MAX_FRAME_LEAST})",
                self.max_frame
            )),
            false => Ok(()),
        }
    }
}

impl Status {
    fn check(&self) -> Result<(), String> {
        number("generation", self.generation)?;
        number("stale_seconds", self.stale_seconds)?;
        let words = [
            ("serving_since", &self.serving_since),
            ("source", &self.source),
        ];
        for (field, word) in words {
            line(field, word.as_deref().unwrap_or_default(), WORD_BYTES)?;
        }
        if let Some(error) = &self.last_error {
            line("last_error: at", &error.at, WORD_BYTES)?;
            problems(&error.problems)?;
        }
        let Some(placements) = &self.placements else {
            return Ok(());
        };
        count(
            "placements",
            placements.len(),
            "placements",
            STATUS_PLACEMENTS,
        )?;
        for (placement, load) in placements {
            name("placements", placement, NAME_BYTES)?;
            number("placements: in_flight", load.in_flight)?;
            if load.requests_per_second < 0.0 || load.errors_per_second < 0.0 {
                return Err(format!("placements: rate of {placement:?} below 0"));
            }
        }
        Ok(())
    }
}

fn keep_busiest(placements: &mut BTreeMap<String, Load>, most: usize) {
    for load in placements.values_mut() {
        // JSON has neither NaN nor infinity.
        for rate in [&mut load.requests_per_second, &mut load.errors_per_second] {
            *rate = if rate.is_finite() { rate.max(0.0) } else { 0.0 };
        }
    }
    if placements.len() > most {
        let mut all: Vec<_> = std::mem::take(placements).into_iter().collect();
        all.sort_by(|(_, one), (_, other)| {
            let rate = other
                .requests_per_second
                .total_cmp(&one.requests_per_second);
            rate.then(other.in_flight.cmp(&one.in_flight))
        });
        all.truncate(most);
        placements.extend(all);
    }
}

fn cut_problems(problems: &mut Vec<Problem>, share: usize) {
    let most = PROBLEMS / share;
    if problems.len() > most {
        problems.truncate(most.saturating_sub(1));
        problems.push(Problem::without_place("and more problems"));
    }
    for problem in problems {
        cut(&mut problem.pointer, PROBLEM_BYTES);
        cut_line(&mut problem.message, PROBLEM_BYTES);
    }
}

fn cut_line(text: &mut String, most: usize) {
    if text.contains(char::is_control) {
        *text = text.replace(char::is_control, " ");
    }
    cut(text, most);
}
