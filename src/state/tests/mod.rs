//! The live state as its users see it.

mod apply;
mod push;
mod readers;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{Applied, EdgeOptions, EdgeState, Generation, Source};
use crate::telemetry::metrics::Metrics;

/// A document with these placements and keys; the first placement is the
/// default one.
pub(crate) fn document(
    version: &str,
    endpoints: &[(&str, &str)],
    keys: &[(&str, &str)],
) -> Vec<u8> {
    let object = |pairs: &[(&str, &str)]| {
        let pairs = pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), serde_json::Value::from(*value)));
        serde_json::Value::Object(pairs.collect())
    };
    serde_json::to_vec(&serde_json::json!({
        "version": version,
        "routingTable": object(keys),
        "cellEndpoints": object(endpoints),
        "defaultPlacement": endpoints[0].0,
    }))
    .unwrap()
}

pub(crate) struct Fixture {
    pub(crate) state: Arc<EdgeState>,
    pub(crate) metrics: Arc<Metrics>,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        Self::with_hosts(&[])
    }

    pub(crate) fn with_hosts(hosts: &[(&str, &str)]) -> Self {
        let hosts = hosts
            .iter()
            .map(|(host, address)| ((*host).to_owned(), address.parse().unwrap()))
            .collect();
        Self::with(EdgeOptions {
            hosts,
            ..EdgeOptions::default()
        })
    }

    pub(crate) fn with(options: EdgeOptions) -> Self {
        let metrics = Arc::new(Metrics::new());
        let state = EdgeState::new(options, Arc::clone(&metrics));
        Self { state, metrics }
    }

    pub(crate) fn apply(&self, document: &[u8]) -> Applied {
        self.state.apply(document, Source::File, at(0))
    }

    #[track_caller]
    pub(crate) fn changed(&self, document: &[u8]) -> Arc<Generation> {
        match self.apply(document) {
            Applied::Changed(generation) => generation,
            other => panic!("not applied: {other:?}"),
        }
    }

    /// The value of a line of `/metrics`.
    pub(crate) fn metric(&self, series: &str) -> Option<f64> {
        let text = self.metrics.encode();
        let line = text.lines().find_map(|line| {
            line.strip_prefix(series)
                .filter(|rest| rest.starts_with(' '))
        })?;
        Some(line.trim().parse().unwrap())
    }
}

/// A time with a readable form: 2026-01-03T20:45:12Z and so many seconds more.
pub(crate) fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_767_473_112 + seconds)
}
