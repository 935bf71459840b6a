//! The settings as the edge reads them: validated, typed, with defaults.
//!
//! Every field has its default in a `Default` impl beside it. The reasons for
//! the less obvious ones are here; what an operator reads is
//! `docs/settings.md`.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use http::HeaderName;
use ipnet::IpNet;
use url::Url;

use super::server::ServerSettings;

/// Everything that is decided before the edge serves its first request.
#[derive(Debug, PartialEq)]
pub struct Settings {
    /// Where clients connect. Never empty, no address twice. Port 0 asks the
    /// system for a free port.
    pub listen: Vec<Listen>,
    /// The admin service. Loopback by default, because it does not authenticate clients.
    pub admin_listen: SocketAddr,
    pub routing: Routing,
    pub control_plane: ControlPlane,
    pub routing_key: RoutingKey,
    pub access_log: AccessLogTarget,
    /// How the edge's own log (stderr) is written.
    pub log_format: LogFormat,
    /// Names that are never looked up: host name (lowercase) to address, as
    /// curl's `--resolve`.
    pub hosts: HashMap<String, IpAddr>,
    /// How often the addresses of endpoints are looked up again, 1 s or more.
    pub dns_refresh: Duration,
    pub tls: Tls,
    pub timeouts: Timeouts,
    pub limits: Limits,
    /// Peers whose `X-Forwarded-*` headers are trusted. Empty: none.
    pub trusted_proxies: Vec<IpNet>,
    /// Answer `/debug/config` on the proxy's own listeners as well.
    pub debug_config_on_proxy: bool,
    /// How long listeners stay open after SIGTERM while `/readyz` already says
    /// 503, so that a load balancer can remove the edge first.
    pub drain_delay: Duration,
    /// Pingora's own keys.
    pub server: ServerSettings,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            listen: vec![Listen::default()],
            admin_listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 9901)),
            routing: Routing::default(),
            control_plane: ControlPlane::default(),
            routing_key: RoutingKey::default(),
            access_log: AccessLogTarget::default(),
            log_format: LogFormat::default(),
            hosts: HashMap::new(),
            dns_refresh: Duration::from_secs(30),
            tls: Tls::default(),
            timeouts: Timeouts::default(),
            limits: Limits::default(),
            trusted_proxies: Vec::new(),
            debug_config_on_proxy: false,
            drain_delay: Duration::ZERO,
            server: ServerSettings::default(),
        }
    }
}

/// One listener of the proxy. An object in the file, so that TLS settings can be added to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    pub address: SocketAddr,
}

impl Default for Listen {
    fn default() -> Listen {
        Listen {
            address: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 8080)),
        }
    }
}

/// Where the routing document is, and how often it is checked for changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Routing {
    /// Relative paths are relative to the directory the edge was started in.
    pub path: PathBuf,
    /// Finds changes that file notification misses.
    pub poll_interval: Duration,
}

impl Default for Routing {
    fn default() -> Routing {
        Routing {
            path: PathBuf::from("config/routing.json"),
            poll_interval: Duration::from_secs(5),
        }
    }
}

/// Who pushes routing documents, and what the edge keeps of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlPlane {
    /// `ws://` or `wss://`, each with a path; none twice. Empty: there is no
    /// control plane, and documents come from the routing file.
    pub urls: Vec<Url>,
    /// Holds the bearer token. Only with `wss://` or loopback URLs.
    pub token_file: Option<PathBuf>,
    /// PEM certificates that control planes are verified against; none: the
    /// system's.
    pub ca_file: Option<PathBuf>,
    /// PEM certificate that the edge presents; set together with its key.
    pub client_cert: Option<PathBuf>,
    pub client_key: Option<PathBuf>,
    /// What the control plane calls this edge: visible ASCII, never empty; the
    /// host's name unless configured.
    pub edge_id: String,
    /// Shown to operators to tell edges apart.
    pub labels: BTreeMap<String, String>,
    /// Directory of the last known good tables for a restart; none: they are not kept. An
    /// edge that cannot write there serves all the same.
    pub state_dir: Option<PathBuf>,
    /// How long a table has to serve before it counts as good, 100 ms or more.
    pub promote_after: Duration,
}

/// Where a request carries its routing key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoutingKey {
    /// Never a framing or hop-by-hop header.
    pub header: HeaderName,
}

impl Default for RoutingKey {
    fn default() -> RoutingKey {
        RoutingKey {
            header: HeaderName::from_static("x-routing-key"),
        }
    }
}

/// Where the access log goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AccessLogTarget {
    Off,
    #[default]
    Stdout,
    File(PathBuf),
}

/// How the edge's own log is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

/// TLS towards cells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// PEM certificates that cells are verified against. After
    /// [`Settings::load`]: what was configured, else the system's bundle, else
    /// `None` when this machine has none (https endpoints then answer 502).
    pub ca_file: Option<PathBuf>,
}

/// Timeouts of the edge. None is zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// One connection attempt to a cell, TCP and TLS together.
    pub connect: Duration,
    /// From the request sent to the response header, one attempt.
    pub response_header: Duration,
    /// From the request read to the response header, all attempts together.
    pub request: Duration,
    /// No byte in either direction.
    pub stream_idle: Duration,
    /// An unused connection to a cell is closed after this.
    pub upstream_idle: Duration,
    /// A client's whole request header, from its first byte.
    pub client_header: Duration,
    /// A client's keepalive connection between two requests.
    pub client_idle: Duration,
}

impl Default for Timeouts {
    fn default() -> Timeouts {
        Timeouts {
            connect: Duration::from_secs(5),
            response_header: Duration::from_secs(10),
            request: Duration::from_secs(30),
            stream_idle: Duration::from_secs(60),
            upstream_idle: Duration::from_secs(90),
            client_header: Duration::from_secs(15),
            client_idle: Duration::from_secs(60),
        }
    }
}

/// Limits of the edge. None is zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Client connections at a time, over all listeners. An idle one costs
    /// about 2 KB. With one connection to a cell each, the default of 16384 needs 32768
    /// descriptors, half of the 65536 that the systemd unit grants.
    pub client_connections: usize,
    /// The largest routing document that is read, in bytes.
    pub routing_file_bytes: u64,
    /// The largest request header, in bytes; Pingora's own limit is 1 MiB.
    pub header_bytes: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            client_connections: 16_384,
            routing_file_bytes: 1 << 30,
            header_bytes: 64 << 10,
        }
    }
}
