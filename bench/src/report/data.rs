//! Medians of what was measured, by what is asked for.

use crate::record::{Figures, Of, Record, Run, median};

/// All records of some runs.
pub struct Data {
    pub records: Vec<Record>,
}

/// The order in which peers are shown.
const ORDER: [&str; 7] = [
    "cellgate",
    "cellgate-pgo",
    "pingora",
    "nginx",
    "haproxy",
    "envoy",
    "envoy-matcher",
];

impl Data {
    /// The last run.
    pub fn run(&self) -> Option<&Run> {
        self.records
            .iter()
            .rev()
            .find_map(|record| match &record.of {
                Of::Run(run) => Some(run),
                _ => None,
            })
    }

    /// What each peer says its version is, from all runs.
    pub fn versions(&self) -> Vec<(String, String)> {
        let mut versions: Vec<(String, String)> = Vec::new();
        for record in &self.records {
            if let Of::Run(run) = &record.of {
                for (peer, version) in &run.versions {
                    versions.retain(|(known, _)| known != peer);
                    versions.push((peer.clone(), version.clone()));
                }
            }
        }
        versions.sort_by_key(|(peer, _)| rank(peer));
        versions
    }

    /// Peers with a record that `is` one of those, in the order they are shown.
    pub fn peers(&self, is: impl Fn(&Record) -> bool) -> Vec<String> {
        let mut peers: Vec<String> = Vec::new();
        for record in self.records.iter().filter(|record| is(record)) {
            if !peers.contains(&record.peer) {
                peers.push(record.peer.clone());
            }
        }
        peers.sort_by_key(|peer| rank(peer));
        peers
    }

    /// Sizes of tables with a record that `is` one of those.
    pub fn keys(&self, is: impl Fn(&Record) -> bool) -> Vec<u64> {
        let mut keys: Vec<u64> = self
            .records
            .iter()
            .filter(|r| is(r))
            .map(|r| r.keys)
            .collect();
        keys.sort_unstable();
        keys.dedup();
        keys
    }

    /// All values that `value` finds.
    pub fn all<'d>(&'d self, value: impl Fn(&'d Record) -> Option<f64>) -> Vec<f64> {
        self.records.iter().filter_map(value).collect()
    }

    /// Their median.
    pub fn median<'d>(&'d self, value: impl Fn(&'d Record) -> Option<f64>) -> Option<f64> {
        median(self.all(value))
    }

    /// The same of a peer's figures at a number of keys.
    pub fn of(
        &self,
        which: &Which,
        peer: &str,
        keys: u64,
        value: impl Fn(&Figures) -> Option<f64>,
    ) -> Option<f64> {
        self.median(|record| {
            let ours = record.peer == peer && record.keys == keys;
            value(which.figures(record).filter(|_| ours)?)
        })
    }

    /// As [`Data::of`], the smallest and the largest.
    pub fn range(
        &self,
        which: &Which,
        peer: &str,
        keys: u64,
        value: impl Fn(&Figures) -> Option<f64>,
    ) -> Option<(f64, f64)> {
        let values = self.all(|record| {
            let ours = record.peer == peer && record.keys == keys;
            value(which.figures(record).filter(|_| ours)?)
        });
        let low = values.iter().copied().reduce(f64::min)?;
        Some((low, values.into_iter().reduce(f64::max)?))
    }
}

fn rank(peer: &str) -> usize {
    ORDER
        .iter()
        .position(|known| *known == peer)
        .unwrap_or(ORDER.len())
}

/// A kind of load.
#[derive(Clone, Debug)]
pub enum Which {
    Saturation {
        body: usize,
        keepalive: bool,
    },
    /// A rate that is half of what this peer, or `itself`, can do.
    Rate {
        body: usize,
        half_of: &'static str,
    },
    /// By which way the table changed; empty for not at all.
    Churn(String),
    Log(bool),
}

impl Which {
    /// The figures of a record of this kind.
    pub fn figures<'r>(&self, record: &'r Record) -> Option<&'r Figures> {
        match (self, &record.of) {
            (Which::Saturation { body, keepalive }, Of::Saturation(figures)) => {
                (figures.body == *body && figures.keepalive == *keepalive).then_some(figures)
            }
            (
                Which::Rate { body, half_of },
                Of::Rate {
                    half_of: found,
                    figures,
                    ..
                },
            ) => (figures.body == *body && found == half_of).then_some(figures),
            (
                Which::Churn(way),
                Of::Churn {
                    way: found,
                    figures,
                    ..
                },
            ) => (way == found).then_some(figures),
            (
                Which::Log(on),
                Of::AccessLog {
                    on: found, figures, ..
                },
            ) => (on == found).then_some(figures),
            _ => None,
        }
    }
}
