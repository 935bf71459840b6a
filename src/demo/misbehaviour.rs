//! How a demo cell misbehaves: the options of its command line, and the JSON object of
//! `/_cell/misbehaviour`.

use std::num::NonZeroU32;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::faults::Fault;

/// The largest `body_bytes`; each answer is built in memory.
const MAX_BODY_BYTES: usize = 64 << 20;

/// The ways in which a demo cell can misbehave. The default is none.
///
/// The fields are both the options of the command line and the fields of the JSON object, where `-` in a
/// name is `_`, and durations are strings. Defaults are left out of the JSON.
///
/// Unless a field says otherwise, it does not affect `GET /health`: a cell that fails while its health
/// checks pass is the hardest case to detect.
#[derive(clap::Args, Clone, Copy, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Misbehaviour {
    /// Wait this long before each answer, such as 500ms or 12s; affects /health as well
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    #[serde(with = "duration", skip_serializing_if = "is_default")]
    pub delay: Option<Duration>,

    /// Answer with this status, 200 to 599, instead of 200
    #[arg(long, value_name = "CODE")]
    #[serde(skip_serializing_if = "is_default")]
    pub status: Option<u16>,

    /// Answer this fraction of requests, 0 to 1, with 500
    #[arg(
        long,
        value_name = "FRACTION",
        default_value_t = 0.0,
        hide_default_value = true
    )]
    #[serde(skip_serializing_if = "is_default")]
    pub fail_rate: f64,

    /// Close each connection without an answer; affects /health as well
    #[arg(long)]
    #[serde(skip_serializing_if = "is_default")]
    pub close: bool,

    /// Read each request, then reset the connection instead of answering
    #[arg(long)]
    #[serde(skip_serializing_if = "is_default")]
    pub reset: bool,

    /// Close the connection half-way through the body of each answer
    #[arg(long)]
    #[serde(skip_serializing_if = "is_default")]
    pub truncate: bool,

    /// Reset the connection half-way through the body of each answer
    #[arg(long)]
    #[serde(skip_serializing_if = "is_default")]
    pub cut: bool,

    /// Read each request, and never answer
    #[arg(long)]
    #[serde(skip_serializing_if = "is_default")]
    pub hang: bool,

    /// Send each answer, header included, at this rate, then close the connection
    #[arg(long, value_name = "BYTES_PER_SECOND")]
    #[serde(skip_serializing_if = "is_default")]
    pub drip: Option<NonZeroU32>,

    /// Answer with bytes that are not HTTP, then close the connection
    #[arg(long)]
    #[serde(skip_serializing_if = "is_default")]
    pub garbage: bool,

    /// Answer GET /health with 503
    #[arg(long)]
    #[serde(skip_serializing_if = "is_default")]
    pub unhealthy: bool,

    /// Misbehave on GET /health as on other requests
    #[arg(long)]
    #[serde(skip_serializing_if = "is_default")]
    pub health_too: bool,

    /// Alternate between behaving and misbehaving, each for this long, behaving first; affects /health as well
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    #[serde(with = "duration", skip_serializing_if = "is_default")]
    pub flap: Option<Duration>,

    /// Add this many bytes to the body of each answer, at most 64 MiB; useful with --truncate, --cut and
    /// --drip
    #[arg(
        long,
        value_name = "BYTES",
        default_value_t = 0,
        hide_default_value = true
    )]
    #[serde(skip_serializing_if = "is_default")]
    pub body_bytes: usize,
}

impl Misbehaviour {
    /// Checks ranges, and that at most one fault is set.
    ///
    /// # Errors
    /// What is wrong, and what would be valid.
    pub fn check(&self) -> Result<(), String> {
        // After a 1xx status the client would wait for the final one.
        if let Some(status) = self.status.filter(|status| !(200..=599).contains(status)) {
            return Err(format!("status {status}: expected 200 to 599"));
        }
        if !(0.0..=1.0).contains(&self.fail_rate) {
            let share = self.fail_rate;
            return Err(format!(
                "fail_rate {share}: expected 0 to 1, for instance 0.3"
            ));
        }
        if self.flap.is_some_and(|turn| turn.is_zero()) {
            return Err("flap 0s: expected a duration above zero, for instance 2s".to_owned());
        }
        if self.body_bytes > MAX_BODY_BYTES {
            let bytes = self.body_bytes;
            return Err(format!(
                "body_bytes {bytes}: expected 0 to {MAX_BODY_BYTES}"
            ));
        }
        let named: Vec<&str> = self.faults().map(|(name, _)| name).collect();
        match named.len() {
            0 | 1 => Ok(()),
            _ => Err(format!(
                "{} exclude each other: expected one of them",
                named.join(" and ")
            )),
        }
    }

    /// What applies `elapsed` after this was set: all of it, or nothing while `flap` has the cell behave.
    pub(super) fn after(&self, elapsed: Duration) -> Misbehaviour {
        let turn = self.flap.map_or(0, |turn| turn.as_nanos());
        // The first turn and every second one after it behave.
        let behaves = elapsed
            .as_nanos()
            .checked_div(turn)
            .is_some_and(|turns| turns.is_multiple_of(2));
        if behaves {
            Misbehaviour {
                body_bytes: self.body_bytes,
                ..Misbehaviour::default()
            }
        } else {
            *self
        }
    }

    /// The fault that is set, if any.
    pub(super) fn fault(&self) -> Option<Fault> {
        self.faults().next().map(|(_, fault)| fault)
    }

    fn faults(&self) -> impl Iterator<Item = (&'static str, Fault)> {
        let faults = [
            ("close", self.close.then_some(Fault::Close)),
            ("reset", self.reset.then_some(Fault::Reset)),
            ("truncate", self.truncate.then_some(Fault::Truncate)),
            ("cut", self.cut.then_some(Fault::Cut)),
            ("hang", self.hang.then_some(Fault::Hang)),
            ("drip", self.drip.map(Fault::Drip)),
            ("garbage", self.garbage.then_some(Fault::Garbage)),
        ];
        faults
            .into_iter()
            .filter_map(|(name, fault)| fault.map(|fault| (name, fault)))
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Durations as on the command line: `500ms`, `12s`.
mod duration {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(
        value: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match value {
            Some(duration) => serializer.collect_str(&humantime::format_duration(*duration)),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        let Some(text) = Option::<String>::deserialize(deserializer)? else {
            return Ok(None);
        };
        match humantime::parse_duration(&text) {
            Ok(duration) => Ok(Some(duration)),
            Err(error) => Err(D::Error::custom(format!(
                "{text:?} is not a duration such as 500ms: {error}"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn parse(json: Value) -> Result<Misbehaviour, String> {
        let told: Misbehaviour = serde_json::from_value(json).map_err(|error| error.to_string())?;
        told.check().map(|()| told)
    }

    #[test]
    fn every_field_survives_json() {
        for whole in [
            json!({}),
            json!({"delay": "1s 500ms", "status": 503, "fail_rate": 0.25, "close": true}),
            json!({"drip": 100, "body_bytes": 4096, "health_too": true}),
            json!({"reset": true, "unhealthy": true, "flap": "2s"}),
            json!({"truncate": true}),
            json!({"cut": true}),
            json!({"hang": true}),
            json!({"garbage": true}),
        ] {
            let told = parse(whole.clone()).expect("valid");
            assert_eq!(serde_json::to_value(told).expect("json"), whole);
        }
    }

    #[test]
    fn bad_values_are_named_with_what_would_be_valid() {
        let table = [
            (json!({"status": 100}), "status 100: expected 200 to 599"),
            (json!({"status": 600}), "status 600"),
            (json!({"fail_rate": 1.1}), "fail_rate 1.1: expected 0 to 1"),
            (json!({"fail_rate": -0.1}), "fail_rate -0.1"),
            (json!({"flap": "0s"}), "flap 0s"),
            (json!({"flap": "often"}), "\"often\" is not a duration"),
            (json!({"body_bytes": 67_108_865}), "expected 0 to 67108864"),
            (json!({"drip": 0}), "nonzero"),
            (
                json!({"hnag": true}),
                "unknown field `hnag`, expected one of",
            ),
            (
                json!({"hang": true, "cut": true}),
                "cut and hang exclude each other",
            ),
            (json!({"drip": 9, "close": true}), "close and drip exclude"),
        ];
        for (bad, words) in table {
            let error = parse(bad.clone()).expect_err("refused");
            assert!(error.contains(words), "{bad}: {error}");
        }
        let share = Misbehaviour {
            fail_rate: f64::NAN,
            ..Misbehaviour::default()
        };
        assert!(share.check().is_err());
    }

    #[test]
    fn flapping_begins_well_and_takes_turns() {
        let told = parse(json!({"flap": "2s", "status": 503, "unhealthy": true, "body_bytes": 7}));
        let told = told.expect("valid");
        for (milliseconds, well) in [
            (0, true),
            (1_999, true),
            (2_000, false),
            (3_999, false),
            (4_000, true),
            (7_000, false),
        ] {
            let now = told.after(Duration::from_millis(milliseconds));
            let expected = if well { None } else { Some(503) };
            assert_eq!(now.status, expected, "after {milliseconds} ms");
            assert_eq!(now.unhealthy, !well, "after {milliseconds} ms");
            assert_eq!(now.body_bytes, 7);
        }
        let steady = parse(json!({"status": 503})).expect("valid");
        assert_eq!(steady.after(Duration::ZERO), steady);
    }
}
