//! The registry of a process, and what metrics are built with.

use std::collections::HashMap;

use prometheus::core::{Collector, Desc};
use prometheus::proto::{Counter, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{
    Encoder, Error, Gauge, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

/// Declares a struct of metrics, one row each: field, type, name, help, and the
/// names of its labels if it has some. `register` creates and registers them.
macro_rules! metrics {
    (
        $(#[$meta:meta])* $vis:vis struct $table:ident {$(
            $field_vis:vis $field:ident: $type:ty = $name:literal, $help:literal
                $(, [$($label:literal),*])?;
        )*}
    ) => {
        $(#[$meta])* $vis struct $table {
            $(#[doc = $help] $field_vis $field: $type,)*
        }

        impl $table {
            fn register(registry: &$crate::telemetry::metrics::Registered) -> Self {
                Self {
                    $($field: registry.metric($name, $help, &[$($($label),*)?]),)*
                }
            }
        }
    };
}
pub(crate) use metrics;

/// The metrics that a process shows.
pub(crate) struct Registered(Registry);

impl Registered {
    /// With those that every process has: its version, and what it uses.
    pub fn new() -> Self {
        let registered = Self(Registry::new());
        #[cfg(target_os = "linux")]
        registered.collector(super::process::ProcessMetrics::new());
        let help = "Always 1; the version is in the label";
        let build: IntGaugeVec = registered.metric("cellgate_build_info", help, &["version"]);
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        registered
    }

    /// Creates and registers a metric.
    ///
    /// # Panics
    /// The name is invalid or taken. Names are constants: a test that creates
    /// all metrics finds it.
    pub fn metric<M: New>(&self, name: &str, help: &str, labels: &[&str]) -> M {
        self.collector(M::new(Opts::new(name, help), labels))
    }

    /// Registers a collector.
    ///
    /// # Panics
    /// As [`metric`](Self::metric).
    pub fn collector<C: Collector + Clone + 'static>(&self, collector: Result<C, Error>) -> C {
        let collector = collector.expect("metric names are valid");
        let registered = self.0.register(Box::new(collector.clone()));
        registered.expect("metric names are unique");
        collector
    }

    /// All metrics in the Prometheus text format 0.0.4.
    pub fn encode(&self) -> String {
        let mut text = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.0.gather(), &mut text) {
            log::warn!(target: "cellgate::telemetry", "cannot encode the metrics: {error}");
        }
        String::from_utf8(text).unwrap_or_default()
    }
}

/// A metric that is created by its name, help and labels.
pub(crate) trait New: Collector + Clone + 'static {
    fn new(opts: Opts, labels: &[&str]) -> Result<Self, Error>;
}

impl New for IntGauge {
    fn new(opts: Opts, _: &[&str]) -> Result<Self, Error> {
        Self::with_opts(opts)
    }
}

impl New for Gauge {
    fn new(opts: Opts, _: &[&str]) -> Result<Self, Error> {
        Self::with_opts(opts)
    }
}

impl New for IntCounter {
    fn new(opts: Opts, _: &[&str]) -> Result<Self, Error> {
        Self::with_opts(opts)
    }
}

impl New for IntGaugeVec {
    fn new(opts: Opts, labels: &[&str]) -> Result<Self, Error> {
        Self::new(opts, labels)
    }
}

impl New for IntCounterVec {
    fn new(opts: Opts, labels: &[&str]) -> Result<Self, Error> {
        Self::new(opts, labels)
    }
}

/// Sets a gauge to an unsigned number; one that does not fit, to the largest.
pub(crate) fn set(gauge: &IntGauge, value: u64) {
    gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
}

/// What a collector declares of a metric.
pub(super) fn describe(name: &str, help: &str, labels: &[&str]) -> Result<Desc, Error> {
    let labels = labels.iter().map(|label| (*label).to_owned()).collect();
    Desc::new(name.to_owned(), help.to_owned(), labels, HashMap::new())
}

/// What a collector shows of a metric.
pub(super) fn family(
    name: &str,
    help: &str,
    kind: MetricType,
    series: Vec<Metric>,
) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family.set_metric(series);
    family
}

/// One series of a counter or a gauge.
pub(super) fn sample(kind: MetricType, pairs: &[(&str, &str)], value: f64) -> Metric {
    let mut metric = Metric::from_label(labels(pairs));
    if kind == MetricType::COUNTER {
        let mut counter = Counter::default();
        counter.set_value(value);
        metric.set_counter(counter);
    } else {
        let mut gauge = prometheus::proto::Gauge::default();
        gauge.set_value(value);
        metric.set_gauge(gauge);
    }
    metric
}

/// Labels are shown in this order.
pub(super) fn labels(pairs: &[(&str, &str)]) -> Vec<LabelPair> {
    let pairs = pairs.iter().map(|(name, value)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    });
    pairs.collect()
}
