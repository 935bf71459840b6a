//! A row for each of our settings.

use super::*;
use crate::settings::keys::SECTIONS;

/// All rows.
fn every_row() -> impl Iterator<Item = Row> {
    rows().into_iter().chain(control_plane::rows())
}

macro_rules! timeout {
    ($field:ident, $default:literal) => {
        Row {
            key: concat!("cellgate.timeouts.", stringify!($field)),
            show: |settings| format!("{:?}", settings.timeouts.$field),
            default: $default,
            good: "1m30s",
            shown: "90s",
            bad: &[
                ("0s", "got \"0s\", want a duration from 1ms to 1day, such as 5s, 500ms or 1m30s"),
                (
                    "25h",
                    "got \"25h\", want a duration from 1ms to 1day, such as 5s, 500ms or 1m30s",
                ),
                (
                    "5",
                    "got 5 without a unit, want a duration from 1ms to 1day, such as 5s, 500ms or 1m30s",
                ),
                (
                    "soon",
                    "got \"soon\", want a duration from 1ms to 1day, such as 5s, 500ms or 1m30s",
                ),
                (
                    "",
                    "got no value, want a duration from 1ms to 1day, such as 5s, 500ms or 1m30s",
                ),
            ],
        }
    };
}

fn rows() -> Vec<Row> {
    vec![
        Row {
            key: "cellgate.listen",
            show: |settings| {
                let listen = settings.listen.iter();
                format!(
                    "{:?}",
                    listen.map(|listen| listen.address).collect::<Vec<_>>()
                )
            },
            default: "[0.0.0.0:8080]",
            good: "[127.0.0.1:80, {address: \"[::1]:0\"}, \"[::1]:0\"]",
            shown: "[127.0.0.1:80, [::1]:0, [::1]:0]",
            bad: &[
                (
                    "[]",
                    "got an empty list, want a list of addresses, such as [0.0.0.0:8080]",
                ),
                (
                    "0.0.0.0:80",
                    "got \"0.0.0.0:80\", want a list of addresses, such as [0.0.0.0:8080]",
                ),
                (
                    "[8080]",
                    "got 8080, want an IP address and a port, such as 0.0.0.0:8080 or \"[::]:8080\"",
                ),
                (
                    "[localhost:80]",
                    "got \"localhost:80\", want an IP address and a port, such as 0.0.0.0:8080 or \"[::]:8080\"",
                ),
                (
                    "[{}]",
                    "got no address, want a map such as {address: 0.0.0.0:8080}",
                ),
                (
                    "[{address: 0.0.0.0:80, cert: a.pem}]",
                    "unknown key; valid here: address",
                ),
                (
                    "[127.0.0.1:80, 127.0.0.1:80]",
                    "got 127.0.0.1:80, want an address that is free: cellgate.listen[0] has 127.0.0.1:80",
                ),
                (
                    "[0.0.0.0:80, 127.0.0.1:80]",
                    "got 127.0.0.1:80, want an address that is free: cellgate.listen[0] has 0.0.0.0:80",
                ),
            ],
        },
        Row {
            key: "cellgate.admin_listen",
            show: |settings| settings.admin_listen.to_string(),
            default: "127.0.0.1:9901",
            good: "\"[::1]:9902\"",
            shown: "[::1]:9902",
            bad: &[
                (
                    ":9901",
                    "got \":9901\", want an IP address and a port, such as 0.0.0.0:8080 or \"[::]:8080\"",
                ),
                (
                    "127.0.0.1:8080",
                    "got 127.0.0.1:8080, want an address that is free: cellgate.listen has 0.0.0.0:8080",
                ),
            ],
        },
        Row {
            key: "cellgate.routing.path",
            show: |settings| settings.routing.path.display().to_string(),
            default: "config/routing.json",
            good: "/etc/cellgate/routing.json",
            shown: "/etc/cellgate/routing.json",
            bad: &[
                ("\"\"", "got \"\", want a path"),
                ("[a]", "got a list, want a path"),
            ],
        },
        Row {
            key: "cellgate.routing.poll_interval",
            show: |settings| format!("{:?}", settings.routing.poll_interval),
            default: "5s",
            good: "100ms",
            shown: "100ms",
            bad: &[(
                "99ms",
                "got \"99ms\", want a duration from 100ms to 1day, such as 5s, 500ms or 1m30s",
            )],
        },
        Row {
            key: "cellgate.routing_key.header",
            show: |settings| settings.routing_key.header.to_string(),
            default: "x-routing-key",
            good: "X-Tenant",
            shown: "x-tenant",
            bad: &[
                (
                    "x tenant",
                    "got \"x tenant\", want the name of a header, such as X-Routing-Key",
                ),
                (
                    "Transfer-Encoding",
                    "got \"Transfer-Encoding\", want a header that goes from end to end, none of: \
                     connection, content-length, expect, keep-alive, proxy-authenticate, \
                     proxy-authorization, proxy-connection, te, trailer, transfer-encoding, upgrade",
                ),
            ],
        },
        Row {
            key: "cellgate.access_log",
            show: |settings| format!("{:?}", settings.access_log),
            default: "Stdout",
            good: "access.log",
            shown: "File(\"access.log\")",
            bad: &[
                (
                    "stdot",
                    "got \"stdot\", want stdout, off or a path, such as ./access.log",
                ),
                (
                    "true",
                    "got true, want stdout, off or a path, such as ./access.log",
                ),
                (
                    "/nowhere/access.log",
                    "got \"/nowhere/access.log\", want a path in a directory that exists: /nowhere does not",
                ),
            ],
        },
        Row {
            key: "cellgate.log_format",
            show: |settings| format!("{:?}", settings.log_format),
            default: "Text",
            good: "json",
            shown: "Json",
            bad: &[("xml", "got \"xml\", want text or json")],
        },
        Row {
            key: "cellgate.hosts",
            show: |settings| {
                let mut hosts: Vec<_> = settings.hosts.iter().collect();
                hosts.sort();
                format!("{hosts:?}")
            },
            default: "[]",
            good: "{Cell-Tier1.local: 127.0.0.1, cell_2: \"::1\"}",
            shown: "[(\"cell-tier1.local\", 127.0.0.1), (\"cell_2\", ::1)]",
            bad: &[
                (
                    "{a: b}",
                    "got \"b\", want an IP address, such as 127.0.0.1 or \"::1\"",
                ),
                (
                    "{\"a b\": 127.0.0.1}",
                    "got \"a b\", want a host name: letters, digits, - and _, parted by dots",
                ),
                (
                    "{10.0.0.1: 127.0.0.1}",
                    "got the address \"10.0.0.1\", want a host name: addresses are never looked up",
                ),
                (
                    "{a: 127.0.0.1, A: 127.0.0.2}",
                    "this name is here twice; upper and lower case are one",
                ),
                ("[a]", "got a list, want a map with keys: name: value"),
            ],
        },
        Row {
            key: "cellgate.dns_refresh",
            show: |settings| format!("{:?}", settings.dns_refresh),
            default: "30s",
            good: "1s",
            shown: "1s",
            bad: &[
                (
                    "0s",
                    "got \"0s\", want a duration from 1s to 1day, such as 5s, 500ms or 1m30s",
                ),
                (
                    "999ms",
                    "got \"999ms\", want a duration from 1s to 1day, such as 5s, 500ms or 1m30s",
                ),
            ],
        },
        timeout!(connect, "5s"),
        timeout!(response_header, "10s"),
        timeout!(request, "30s"),
        timeout!(stream_idle, "60s"),
        timeout!(upstream_idle, "90s"),
        timeout!(client_header, "15s"),
        timeout!(client_idle, "60s"),
        Row {
            key: "cellgate.limits.client_connections",
            show: |settings| settings.limits.client_connections.to_string(),
            default: "16384",
            good: "100000",
            shown: "100000",
            bad: &[
                ("0", "got 0, want a whole number from 1 to 10000000"),
                (
                    "many",
                    "got \"many\", want a whole number from 1 to 10000000",
                ),
            ],
        },
        Row {
            key: "cellgate.limits.routing_file_bytes",
            show: |settings| settings.limits.routing_file_bytes.to_string(),
            default: "1073741824",
            good: "2 MiB",
            shown: "2097152",
            bad: &[
                (
                    "0",
                    "got 0, want bytes from 1 to 64GiB, such as 65536, 64KiB, 1MiB or 1GiB",
                ),
                (
                    "1MB",
                    "got \"1MB\", want bytes from 1 to 64GiB, such as 65536, 64KiB, 1MiB or 1GiB",
                ),
                (
                    "-1",
                    "got -1, want bytes from 1 to 64GiB, such as 65536, 64KiB, 1MiB or 1GiB",
                ),
                (
                    "99999999999999GiB",
                    "got \"99999999999999GiB\", want bytes from 1 to 64GiB, such as 65536, 64KiB, 1MiB or 1GiB",
                ),
            ],
        },
        Row {
            key: "cellgate.limits.header_bytes",
            show: |settings| settings.limits.header_bytes.to_string(),
            default: "65536",
            good: "1024",
            shown: "1024",
            bad: &[
                (
                    "1023",
                    "got 1023, want bytes from 1KiB to 1MiB, such as 65536, 64KiB, 1MiB or 1GiB",
                ),
                (
                    "2MiB",
                    "got \"2MiB\", want bytes from 1KiB to 1MiB, such as 65536, 64KiB, 1MiB or 1GiB",
                ),
            ],
        },
        Row {
            key: "cellgate.trusted_proxies",
            show: |settings| format!("{:?}", settings.trusted_proxies),
            default: "[]",
            good: "[10.0.0.0/8, 192.0.2.1, \"2001:db8::/32\"]",
            shown: "[10.0.0.0/8, 192.0.2.1/32, 2001:db8::/32]",
            bad: &[
                (
                    "[10.0.0.0/33]",
                    "got \"10.0.0.0/33\", want an IP address or a network, such as 192.0.2.1, \
                     10.0.0.0/8 or 2001:db8::/32",
                ),
                (
                    "[10.1.2.3/8]",
                    "got \"10.1.2.3/8\", want the network 10.0.0.0/8 or the host 10.1.2.3/32",
                ),
                (
                    "10.0.0.0/8",
                    "got \"10.0.0.0/8\", want a list of addresses and networks, such as [10.0.0.0/8]",
                ),
            ],
        },
        Row {
            key: "cellgate.debug_config_on_proxy",
            show: |settings| settings.debug_config_on_proxy.to_string(),
            default: "false",
            good: "true",
            shown: "true",
            bad: &[("yes", "got \"yes\", want true or false")],
        },
        Row {
            key: "cellgate.drain_delay",
            show: |settings| format!("{:?}", settings.drain_delay),
            default: "0ns",
            good: "5s",
            shown: "5s",
            bad: &[(
                "2h",
                "got \"2h\", want a duration from 0s to 1h, such as 5s, 500ms or 1m30s",
            )],
        },
    ]
}

#[test]
fn each_setting() {
    for row in every_row() {
        row.check();
    }
}

#[test]
fn no_setting_is_left_out() {
    let rows: Vec<Row> = every_row().collect();
    for (section, keys) in SECTIONS {
        for key in *keys {
            let key = format!("{section}.{key}");
            let tested = rows.iter().any(|row| row.key.starts_with(&key));
            // These have tests of their own: some need files, one is an item of
            // a list.
            let apart = [
                "cellgate.tls",
                "cellgate.tls.ca_file",
                "cellgate.listen[].address",
                "cellgate.control_plane.ca_file",
                "cellgate.control_plane.client_cert",
                "cellgate.control_plane.client_key",
            ];
            assert!(tested || apart.contains(&key.as_str()), "{key}");
        }
    }
}

#[test]
fn a_section_without_a_value_has_its_defaults() {
    let text = "cellgate:\n  timeouts:\n  routing:\n  hosts:\n  tls:\n";
    assert_eq!(load(text, &[]), load("", &[]));
    assert_eq!(load("cellgate:\n", &[]), load("", &[]));
}

#[test]
fn a_section_that_is_none_is_named() {
    let [problem] = load("cellgate:\n  timeouts: 5s\n", &[])
        .unwrap_err()
        .try_into()
        .unwrap();
    assert_eq!(problem.key, "cellgate.timeouts");
    assert_eq!(
        problem.message,
        "got \"5s\", want a map with keys: connect, response_header, request, stream_idle, \
         upstream_idle, client_header, client_idle"
    );
}
