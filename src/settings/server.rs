//! Pingora's own keys: the top level of `conf/edge.yaml`.
//!
//! Pingora parses them itself. Checked here are the values that it accepts and that do harm:
//! they make it panic later, or exhaust memory or descriptors.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::Deref;
use std::str::FromStr;
use std::sync::LazyLock;
use std::thread::available_parallelism;

use pingora_core::server::configuration::{Opt, ServerConf};
use serde_json::Value;

use super::Settings;
use super::reader::{Reader, Section};
use super::value::{self, Parsed};
use super::yaml::Node;

const DAY: u64 = 86_400;

/// Keys with bounds of ours: Pingora has none, or checks them only when it runs.
const BOUNDS: [(&str, u64, u64); 6] = [
    ("threads", 1, 1024),
    ("listener_tasks_per_fd", 1, 1024),
    ("grace_period_seconds", 0, DAY),
    ("graceful_shutdown_timeout_seconds", 0, DAY),
    ("upstream_keepalive_pool_size", 1, 1_000_000),
    ("max_retries", 1, 100),
];

/// The same for keys that may be `null`: Pingora decides.
const OPTIONAL_BOUNDS: [(&str, u64, u64); 7] = [
    ("max_blocking_threads", 1, 100_000),
    ("upgrade_sock_connect_accept_max_retries", 1, 3600),
    ("upstream_connect_offload_threadpools", 1, 1024),
    ("upstream_connect_offload_thread_per_pool", 1, 1024),
    ("downstream_tls_offload_threadpools", 1, 1024),
    ("downstream_tls_offload_thread_per_pool", 1, 1024),
    // Each worker thread has as many counters.
    ("runtime_metrics_poll_time_histogram_buckets", 1, 1024),
];

/// The name of every key that Pingora has.
static KEYS: LazyLock<Vec<String>> = LazyLock::new(|| match as_json(&ServerConf::default()) {
    Ok(Value::Object(all)) => all.keys().cloned().collect(),
    _ => Vec::new(),
});

/// The names of all keys that Pingora has.
pub(super) fn keys() -> impl Iterator<Item = &'static str> {
    KEYS.iter().map(String::as_str)
}

/// Reads Pingora's keys from the top level, over the defaults for an edge.
pub(super) fn read<'a>(reader: &mut Reader<'a>, top: &Section<'a>) -> ServerSettings {
    let mut settings = ServerSettings::default();
    // `ca_file` is read with our own `tls.ca_file`.
    for name in keys().filter(|name| *name != "ca_file") {
        let conf = reader.read(top, name, |node| {
            check(name, node)?;
            with(&settings.0, name, node)
        });
        if let Some(conf) = conf {
            settings.0 = conf;
        }
    }
    settings
}

fn check(name: &str, node: &Node) -> Parsed<()> {
    let optional = OPTIONAL_BOUNDS.iter().filter(|_| *node != Node::Null);
    let bounded = BOUNDS.iter().chain(optional).find(|it| it.0 == name);
    if let Some((_, least, most)) = bounded {
        return value::count(*least..=*most)(node).map(drop);
    }
    match name {
        "client_bind_to_ipv4" => addresses::<Ipv4Addr>(node, "IPv4"),
        "client_bind_to_ipv6" => addresses::<Ipv6Addr>(node, "IPv6"),
        // Empty texts, and those that the system would cut at a NUL.
        _ if matches!(node, Node::Text(_)) => value::text("a text")(node).map(drop),
        _ => Ok(()),
    }
}

/// Pingora parses these when it first connects to a cell, and panics.
fn addresses<A: FromStr>(node: &Node, family: &str) -> Parsed<()> {
    let Node::List(items) = node else {
        return Err(format!("got {node}, want a list of {family} addresses"));
    };
    let good = |node: &Node| matches!(node, Node::Text(text) if text.parse::<A>().is_ok());
    match items.iter().find(|item| !good(&item.value)) {
        Some(bad) => Err(format!(
            "got {} in the list, want {family} addresses",
            bad.value
        )),
        None => Ok(()),
    }
}

/// `conf` with another value of one key.
fn with(conf: &ServerConf, name: &str, node: &Node) -> Parsed<ServerConf> {
    let changed = as_json(conf).and_then(|mut all| {
        if let Value::Object(all) = &mut all {
            all.insert(name.to_owned(), node.to_json());
        }
        serde_json::from_value(all)
    });
    changed.map_err(|error| format!("got {node}, which Pingora refuses: {error}"))
}

fn as_json(conf: &ServerConf) -> serde_json::Result<Value> {
    serde_json::to_value(conf)
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
            // Pingora's default is 300 s: one stuck client would delay a deployment by five
            // minutes.
            grace_period_seconds: Some(30),
            graceful_shutdown_timeout_seconds: Some(5),
            // Per thread. With Pingora's 128, a busy edge closes connections that it opens
            // again at once.
            upstream_keepalive_pool_size: 1024,
            // Directories where a process without privileges can write.
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

impl Settings {
    /// What `pingora::server::Server::new_with_opt_and_conf` takes: the options
    /// of the command line and the configuration.
    ///
    /// # Errors
    /// A configuration that cannot be copied, such as a path that is not UTF-8.
    pub fn server_conf(
        &self,
        upgrade: bool,
        daemon: bool,
    ) -> serde_json::Result<(Opt, ServerConf)> {
        // The type has no Clone.
        let mut conf: ServerConf = serde_json::from_value(as_json(&self.server)?)?;
        conf.daemon |= daemon;
        if conf.daemon && conf.working_directory.is_none() {
            // Without it, a daemon changes to `/`, and relative paths in the settings would
            // name other files.
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
        Ok((opt, conf))
    }
}
