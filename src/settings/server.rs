//! Pingora's own keys: the top level of `conf/edge.yaml`.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::Deref;
use std::str::FromStr;
use std::thread::available_parallelism;

use pingora_core::server::configuration::{Opt, ServerConf};
use serde_yaml::{Mapping, Value};

use super::Settings;
use super::reader::{Reader, Section};
use super::value::{self, Parsed};
use super::yaml::Node;

/// What a key of Pingora's takes. The bounds are ours where Pingora has none:
/// what is outside of them is a slip of the finger.
#[derive(Clone, Copy)]
enum Kind {
    Flag,
    Text(&'static str),
    Count(u64, u64),
    /// Like `Count`, or `null` for Pingora's own behaviour.
    CountOrNull(u64, u64),
    Ipv4List,
    Ipv6List,
    HistogramScale,
}

const DAY: u64 = 86_400;

/// Pingora's keys in the order of `conf/edge.yaml`. `ca_file` is not among the
/// kinds: it is checked with our own `tls.ca_file`.
const KEYS: &[(&str, Kind)] = &[
    ("version", Kind::Count(0, 1_000_000)),
    ("threads", Kind::Count(1, 1024)),
    ("work_stealing", Kind::Flag),
    ("listener_tasks_per_fd", Kind::Count(1, 1024)),
    ("max_blocking_threads", Kind::CountOrNull(1, 100_000)),
    ("blocking_threads_ttl_seconds", Kind::CountOrNull(1, DAY)),
    ("grace_period_seconds", Kind::Count(0, DAY)),
    ("graceful_shutdown_timeout_seconds", Kind::Count(0, DAY)),
    ("upgrade_sock", Kind::Text("a path")),
    (
        "upgrade_sock_connect_accept_max_retries",
        Kind::CountOrNull(1, 3600),
    ),
    ("daemon", Kind::Flag),
    ("daemon_wait_for_ready", Kind::Flag),
    ("daemon_ready_timeout_seconds", Kind::CountOrNull(1, DAY)),
    ("daemon_notify_timeout_seconds", Kind::CountOrNull(1, DAY)),
    ("pid_file", Kind::Text("a path")),
    ("error_log", Kind::Text("a path")),
    ("user", Kind::Text("the name of a user")),
    ("group", Kind::Text("the name of a group")),
    ("working_directory", Kind::Text("a path")),
    ("upstream_keepalive_pool_size", Kind::Count(1, 1_000_000)),
    ("max_retries", Kind::Count(1, 100)),
    ("client_bind_to_ipv4", Kind::Ipv4List),
    ("client_bind_to_ipv6", Kind::Ipv6List),
    (
        "upstream_connect_offload_threadpools",
        Kind::CountOrNull(1, 1024),
    ),
    (
        "upstream_connect_offload_thread_per_pool",
        Kind::CountOrNull(1, 1024),
    ),
    (
        "downstream_tls_offload_threadpools",
        Kind::CountOrNull(1, 1024),
    ),
    (
        "downstream_tls_offload_thread_per_pool",
        Kind::CountOrNull(1, 1024),
    ),
    (
        "fast_timeout_to_tokio_threshold_seconds",
        Kind::CountOrNull(1, 365 * DAY),
    ),
    ("upstream_debug_ssl_keylog", Kind::Flag),
    ("runtime_enable_alt_timer", Kind::Flag),
    ("runtime_metrics_poll_time_histogram", Kind::Flag),
    (
        "runtime_metrics_poll_time_histogram_scale",
        Kind::HistogramScale,
    ),
    (
        "runtime_metrics_poll_time_histogram_resolution_micros",
        Kind::CountOrNull(1, 60_000_000),
    ),
    // Pingora's own upper bound: each bucket is there for each worker thread.
    (
        "runtime_metrics_poll_time_histogram_buckets",
        Kind::CountOrNull(1, 1024),
    ),
];

/// Every key of Pingora's.
pub(super) fn keys() -> impl Iterator<Item = &'static str> {
    KEYS.iter().map(|(name, _)| *name).chain(["ca_file"])
}

/// Reads Pingora's keys from the top level. The values go over the defaults as
/// YAML again, so that Pingora's own reading has the last word.
pub(super) fn read<'a>(reader: &mut Reader<'a>, top: &Section<'a>) -> ServerSettings {
    let defaults = ServerSettings::default();
    let mut given = Mapping::new();
    for (name, kind) in KEYS {
        if let Some(value) = reader.read(top, name, |node| kind.parse(node)) {
            given.insert((*name).into(), value);
        }
    }
    let merged = serde_yaml::to_value(&defaults.0).and_then(|mut all| {
        if let Value::Mapping(all) = &mut all {
            all.extend(given);
        }
        serde_yaml::from_value::<ServerConf>(all)
    });
    match merged {
        Ok(conf) => ServerSettings(conf),
        Err(error) => {
            reader.problem_elsewhere("", format!("refused by Pingora: {error}"));
            defaults
        }
    }
}

impl Kind {
    fn parse(self, node: &Node) -> Parsed<Value> {
        match self {
            Kind::Flag => value::flag(node).map(Value::from),
            Kind::Text(want) => value::text(want)(node).map(Value::from),
            Kind::Count(least, most) => value::count(least..=most)(node).map(Value::from),
            Kind::CountOrNull(_, _) if *node == Node::Null => Ok(Value::Null),
            Kind::CountOrNull(least, most) => value::count(least..=most)(node).map(Value::from),
            Kind::Ipv4List => addresses::<Ipv4Addr>(node, "IPv4"),
            Kind::Ipv6List => addresses::<Ipv6Addr>(node, "IPv6"),
            Kind::HistogramScale => {
                value::choice(&[("linear", "linear"), ("log", "log")])(node).map(Value::from)
            }
        }
    }
}

/// Pingora parses these when it first connects, and panics.
fn addresses<A: FromStr>(node: &Node, family: &str) -> Parsed<Value> {
    let Node::List(items) = node else {
        return Err(format!("got {node}, want a list of {family} addresses"));
    };
    let address = |item: &Node| match item {
        Node::Text(text) if text.parse::<A>().is_ok() => Ok(Value::from(text.as_str())),
        _ => Err(format!("got {item} in the list, want {family} addresses")),
    };
    items.iter().map(address).collect()
}

/// Pingora's configuration with defaults fit for an edge. Reads as the
/// [`ServerConf`] that it wraps; [`Settings::server_conf`] gives an owned one.
#[derive(Debug, PartialEq, Eq)]
pub struct ServerSettings(pub(super) ServerConf);

impl Default for ServerSettings {
    fn default() -> ServerSettings {
        ServerSettings(ServerConf {
            version: 1,
            // Pingora's default is one thread.
            threads: available_parallelism().map_or(1, usize::from),
            // Pingora's default is 300: a deployment would wait five minutes
            // for one stuck client.
            grace_period_seconds: Some(30),
            graceful_shutdown_timeout_seconds: Some(5),
            // Per thread. Pingora's 128 closes connections that a busy edge
            // opens again a moment later.
            upstream_keepalive_pool_size: 1024,
            // Places where an edge without privileges can write, too.
            pid_file: "/tmp/cellgate.pid".to_owned(),
            upgrade_sock: "/tmp/cellgate_upgrade.sock".to_owned(),
            ..ServerConf::default()
        })
    }
}

impl Deref for ServerSettings {
    type Target = ServerConf;

    fn deref(&self) -> &ServerConf {
        &self.0
    }
}

impl Clone for ServerSettings {
    /// Field by field, because `ServerConf` is not `Clone`. A key that a new
    /// Pingora adds stops this from compiling, so that none is passed over.
    fn clone(&self) -> ServerSettings {
        let conf = &self.0;
        ServerSettings(ServerConf {
            version: conf.version,
            daemon: conf.daemon,
            error_log: conf.error_log.clone(),
            pid_file: conf.pid_file.clone(),
            upgrade_sock: conf.upgrade_sock.clone(),
            user: conf.user.clone(),
            group: conf.group.clone(),
            working_directory: conf.working_directory.clone(),
            threads: conf.threads,
            listener_tasks_per_fd: conf.listener_tasks_per_fd,
            work_stealing: conf.work_stealing,
            runtime_enable_alt_timer: conf.runtime_enable_alt_timer,
            ca_file: conf.ca_file.clone(),
            grace_period_seconds: conf.grace_period_seconds,
            graceful_shutdown_timeout_seconds: conf.graceful_shutdown_timeout_seconds,
            client_bind_to_ipv4: conf.client_bind_to_ipv4.clone(),
            client_bind_to_ipv6: conf.client_bind_to_ipv6.clone(),
            upstream_keepalive_pool_size: conf.upstream_keepalive_pool_size,
            upstream_connect_offload_threadpools: conf.upstream_connect_offload_threadpools,
            upstream_connect_offload_thread_per_pool: conf.upstream_connect_offload_thread_per_pool,
            downstream_tls_offload_threadpools: conf.downstream_tls_offload_threadpools,
            downstream_tls_offload_thread_per_pool: conf.downstream_tls_offload_thread_per_pool,
            upstream_debug_ssl_keylog: conf.upstream_debug_ssl_keylog,
            max_retries: conf.max_retries,
            upgrade_sock_connect_accept_max_retries: conf.upgrade_sock_connect_accept_max_retries,
            max_blocking_threads: conf.max_blocking_threads,
            blocking_threads_ttl_seconds: conf.blocking_threads_ttl_seconds,
            fast_timeout_to_tokio_threshold_seconds: conf.fast_timeout_to_tokio_threshold_seconds,
            runtime_metrics_poll_time_histogram: conf.runtime_metrics_poll_time_histogram,
            runtime_metrics_poll_time_histogram_scale: conf
                .runtime_metrics_poll_time_histogram_scale,
            runtime_metrics_poll_time_histogram_resolution_micros: conf
                .runtime_metrics_poll_time_histogram_resolution_micros,
            runtime_metrics_poll_time_histogram_buckets: conf
                .runtime_metrics_poll_time_histogram_buckets,
            daemon_wait_for_ready: conf.daemon_wait_for_ready,
            daemon_ready_timeout_seconds: conf.daemon_ready_timeout_seconds,
            daemon_notify_timeout_seconds: conf.daemon_notify_timeout_seconds,
        })
    }
}

impl Settings {
    /// What `pingora::server::Server::new_with_opt_and_conf` takes: the options
    /// of the command line and the configuration.
    pub fn server_conf(&self, upgrade: bool, daemon: bool) -> (Opt, ServerConf) {
        let mut conf = self.server.clone().0;
        conf.daemon |= daemon;
        if conf.daemon && conf.working_directory.is_none() {
            // Daemonizing goes to `/` otherwise, and every relative path in the
            // settings would mean another file from then on.
            conf.working_directory = std::env::current_dir().ok();
        }
        conf.ca_file = self
            .tls
            .ca_file
            .as_ref()
            .and_then(|path| path.to_str().map(str::to_owned));
        let opt = Opt {
            upgrade,
            daemon,
            ..Opt::default()
        };
        (opt, conf)
    }
}
