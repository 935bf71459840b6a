//! Reads the `cellgate:` section of the tree into the types.

use std::collections::HashMap;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use super::listeners::{self, Listeners};
use super::reader::{At, Reader, Section};
use super::yaml::Node;
use super::{AccessLogTarget, Settings};
use super::{ca, control_plane, files, value};

const DAY: Duration = Duration::from_secs(86_400);

/// Range of timeouts.
const WAIT: RangeInclusive<Duration> = Duration::from_millis(1)..=DAY;

/// Range of polling intervals; shorter ones only cost CPU time.
const INTERVAL: RangeInclusive<Duration> = Duration::from_millis(100)..=DAY;

/// Range of `dns_refresh`. A failed lookup is repeated after a second, a good one not earlier.
const DNS_INTERVAL: RangeInclusive<Duration> = Duration::from_secs(1)..=DAY;

/// What later checks need to know about the section.
pub(super) struct Given<'a> {
    /// Checked when all of them are known.
    pub listeners: Listeners<'a>,
    /// Whether `routing.path` is set and valid.
    pub routing_path: bool,
    /// Checked after the environment is applied.
    pub control_plane: control_plane::Given<'a>,
}

/// Reads the section over the defaults in `settings`.
pub(super) fn read<'a>(
    reader: &mut Reader<'a>,
    top: &Section<'a>,
    settings: &mut Settings,
) -> Given<'a> {
    let section = reader.section(top, "cellgate");

    let listeners = listeners::read(reader, &section, settings);

    let routing = reader.section(&section, "routing");
    let routing_path = reader.read(&routing, "path", path);
    let given = Given {
        listeners,
        routing_path: routing_path.is_some(),
        control_plane: control_plane::read(reader, &section, settings),
    };
    if let Some(path) = routing_path {
        settings.routing.path = path;
    }
    reader.set(
        &routing,
        "poll_interval",
        &mut settings.routing.poll_interval,
        value::duration(INTERVAL),
    );

    let routing_key = reader.section(&section, "routing_key");
    reader.set(
        &routing_key,
        "header",
        &mut settings.routing_key.header,
        value::routing_key_header,
    );

    reader.set(
        &section,
        "access_log",
        &mut settings.access_log,
        |node| match value::access_log(node)? {
            AccessLogTarget::File(path) => {
                files::parent_exists(&path)?;
                Ok(AccessLogTarget::File(path))
            }
            other => Ok(other),
        },
    );
    reader.set(
        &section,
        "log_format",
        &mut settings.log_format,
        value::log_format,
    );
    if let Some(at) = section.get("hosts") {
        settings.hosts = read_hosts(reader, &at.clone());
    }
    reader.set(
        &section,
        "dns_refresh",
        &mut settings.dns_refresh,
        value::duration(DNS_INTERVAL),
    );

    let tls = reader.section(&section, "tls");
    settings.tls.ca_file = reader.read(&tls, "ca_file", ca_file);

    read_timeouts(reader, &section, settings);
    read_limits(reader, &section, settings);

    if let Some(at) = section.get("trusted_proxies") {
        settings.trusted_proxies = read_networks(reader, &at.clone());
    }
    reader.set(
        &section,
        "debug_config_on_proxy",
        &mut settings.debug_config_on_proxy,
        value::flag,
    );
    reader.set(
        &section,
        "drain_delay",
        &mut settings.drain_delay,
        value::duration(Duration::ZERO..=Duration::from_secs(3600)),
    );
    given
}

fn read_timeouts<'a>(reader: &mut Reader<'a>, section: &Section<'a>, settings: &mut Settings) {
    let timeouts = reader.section(section, "timeouts");
    let of = &mut settings.timeouts;
    for (key, target) in [
        ("connect", &mut of.connect),
        ("response_header", &mut of.response_header),
        ("request", &mut of.request),
        ("stream_idle", &mut of.stream_idle),
        ("upstream_idle", &mut of.upstream_idle),
        ("client_header", &mut of.client_header),
        ("client_idle", &mut of.client_idle),
    ] {
        reader.set(&timeouts, key, target, value::duration(WAIT));
    }
}

fn read_limits<'a>(reader: &mut Reader<'a>, section: &Section<'a>, settings: &mut Settings) {
    let limits = reader.section(section, "limits");
    let of = &mut settings.limits;
    reader.set(
        &limits,
        "client_connections",
        &mut of.client_connections,
        value::count(1..=10_000_000),
    );
    reader.set(
        &limits,
        "routing_file_bytes",
        &mut of.routing_file_bytes,
        value::bytes(1..=64 << 30),
    );
    let header_bytes = reader.read(
        &limits,
        "header_bytes",
        // The upper bound is Pingora's own limit.
        value::bytes(1 << 10..=1 << 20),
    );
    if let Some(bytes) = header_bytes.and_then(|bytes| usize::try_from(bytes).ok()) {
        of.header_bytes = bytes;
    }
}

fn read_hosts<'a>(reader: &mut Reader<'a>, at: &At<'a>) -> HashMap<String, IpAddr> {
    let mut hosts = HashMap::new();
    for (name, at) in reader.map(at) {
        let name = value::host_name(name).map_err(|message| reader.problem(&at, message));
        let address = value::ip_address(at.node).map_err(|message| reader.problem(&at, message));
        if let (Ok(name), Ok(address)) = (name, address)
            && hosts.insert(name, address).is_some()
        {
            let message = "this name is here twice; upper and lower case are one".to_owned();
            reader.problem(&at, message);
        }
    }
    hosts
}

fn read_networks<'a>(reader: &mut Reader<'a>, at: &At<'a>) -> Vec<IpNet> {
    let items = reader.list(at, "a list of addresses and networks, such as [10.0.0.0/8]");
    let read = |item: At<'_>| {
        value::network(item.node)
            .map_err(|message| reader.problem(&item, message))
            .ok()
    };
    items
        .unwrap_or_default()
        .into_iter()
        .filter_map(read)
        .collect()
}

pub(super) fn path(node: &Node) -> value::Parsed<PathBuf> {
    value::path(node).map(PathBuf::from)
}

/// A file that can be loaded now: Pingora panics later on one that cannot.
pub(super) fn ca_file(node: &Node) -> value::Parsed<PathBuf> {
    let path = path(node)?;
    ca::check(&path)?;
    Ok(path)
}
