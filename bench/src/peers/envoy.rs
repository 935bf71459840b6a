//! Envoy, with one of two ways to look a key up.
//!
//! A route for each key would be compared one after the other. A matcher tree
//! with an exact-match map is Envoy's own answer, and can be replaced while
//! running; but each entry is a whole route, which takes several KB. A few lines
//! of Lua over a hash table, read from a file at start, take less of everything.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use super::{Peer, Setting, Way, first_line};
use crate::process::Tree;
use crate::table;

const RDS: Way = "RDS file";
const MANAGER: &str = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
const ROUTER: &str = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";
const LUA: &str = "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua";
const ROUTES: &str = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration";
const ROUTE: &str = "type.googleapis.com/envoy.config.route.v3.Route";
const HEADER: &str = "type.googleapis.com/envoy.type.matcher.v3.HttpRequestHeaderMatchInput";
/// Most keys that the matcher tree is tried with.
const MATCHER_KEYS: u64 = 100_000;

/// How the cell of a key is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    Lua,
    Matcher,
}

pub struct Envoy {
    program: PathBuf,
    lookup: Lookup,
}

impl Envoy {
    pub fn new(peers: &Path, lookup: Lookup) -> Envoy {
        let program = peers.join("envoy/envoy/_bin/envoy");
        Envoy { program, lookup }
    }
}

impl Peer for Envoy {
    fn name(&self) -> &'static str {
        match self.lookup {
            Lookup::Lua => "envoy",
            Lookup::Matcher => "envoy-matcher",
        }
    }

    fn program(&self) -> &Path {
        &self.program
    }

    fn version(&self) -> anyhow::Result<String> {
        let mut command = Command::new(&self.program);
        command.arg("--version");
        let said = first_line(command)?;
        let version = said
            .rsplit_once("version: ")
            .and_then(|(_, build)| build.split('/').nth(1));
        Ok(format!("Envoy {}", version.unwrap_or_default()))
    }

    fn unfit(&self, setting: &Setting) -> Option<&'static str> {
        if setting.access_log {
            return Some("it is not part of this comparison");
        }
        let large = self.lookup == Lookup::Matcher && setting.table.keys > MATCHER_KEYS;
        large.then_some("its matcher tree holds a route of several KB for each key")
    }

    fn set_up(&self, setting: &Setting) -> anyhow::Result<()> {
        let configuration = self.configuration(setting);
        setting.write("envoy.json", |file| write!(file, "{configuration}"))?;
        self.write_table(setting, self.table_file())
    }

    fn command(&self, setting: &Setting, _way: Option<Way>) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("-c").arg(setting.path("envoy.json"));
        command.args([
            "--concurrency",
            "1",
            "--disable-hot-restart",
            "--log-level",
            "warning",
        ]);
        command
    }

    fn ways(&self, _setting: &Setting) -> Vec<Way> {
        match self.lookup {
            // Its table is as old as the process.
            Lookup::Lua => Vec::new(),
            Lookup::Matcher => vec![RDS],
        }
    }

    fn write_table(&self, setting: &Setting, name: &str) -> anyhow::Result<()> {
        match self.lookup {
            Lookup::Lua => setting.write(name, |file| {
                setting
                    .table
                    .write(file, |to, key, cell| writeln!(to, "{key} {cell}"))
            }),
            Lookup::Matcher => setting.write(name, |file| matcher(setting, file)),
        }
    }

    fn apply(&self, setting: &Setting, _way: Way, file: &str, _tree: &Tree) -> anyhow::Result<()> {
        setting.replace(self.table_file(), file)
    }
}

impl Envoy {
    fn table_file(&self) -> &'static str {
        match self.lookup {
            Lookup::Lua => "keys.txt",
            Lookup::Matcher => "routes.json",
        }
    }

    fn configuration(&self, setting: &Setting) -> Value {
        let clusters: Vec<Value> = setting.cells.iter().enumerate().map(cluster).collect();
        let router = json!({"name": "router", "typed_config": {
            "@type": ROUTER,
            "suppress_envoy_headers": true,
        }});
        let mut manager = json!({
            "@type": MANAGER,
            "stat_prefix": "edge",
            "use_remote_address": true,
            "always_set_request_id_in_response": true,
            "request_headers_timeout": "15s",
            "common_http_protocol_options": {"idle_timeout": "60s"},
            "server_header_transformation": "PASS_THROUGH",
            "http_filters": [router],
        });
        match self.lookup {
            Lookup::Lua => {
                let lua = json!({"name": "lua", "typed_config": {
                    "@type": LUA,
                    "default_source_code": {"inline_string": script(setting)},
                }});
                manager["http_filters"] = json!([lua, router]);
                manager["route_config"] = lua_routes();
            }
            Lookup::Matcher => {
                manager["rds"] = json!({
                    "route_config_name": "keys",
                    "config_source": {
                        "resource_api_version": "V3",
                        "path_config_source": {
                            "path": setting.path("routes.json"),
                            "watched_directory": {"path": setting.dir},
                        },
                    },
                });
            }
        }
        json!({
            "node": {"id": "bench", "cluster": "bench"},
            "admin": {"address": socket(&setting.admin)},
            "static_resources": {
                "listeners": [{
                    "name": "edge",
                    "address": socket(&setting.listen),
                    "filter_chains": [{"filters": [{
                        "name": "http",
                        "typed_config": manager,
                    }]}],
                }],
                "clusters": clusters,
            },
        })
    }
}

fn socket(address: &SocketAddr) -> Value {
    json!({"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}})
}

fn cluster((cell, address): (usize, &SocketAddr)) -> Value {
    let name = table::name(cell);
    json!({
        "name": name,
        "connect_timeout": "5s",
        "type": "STATIC",
        "health_checks": [{
            "timeout": "2s",
            "interval": "10s",
            "unhealthy_threshold": 3,
            "healthy_threshold": 2,
            "http_health_check": {"path": "/health"},
        }],
        "circuit_breakers": {"thresholds": [{"max_connections": 10_000, "max_requests": 10_000}]},
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": socket(address)}}]}],
        },
    })
}

/// The table is read once, by each worker.
fn script(setting: &Setting) -> String {
    format!(
        "local cells = {{}}
for line in io.lines(\"{}\") do
  cells[line:sub(1, {key})] = line:sub({key} + 2)
end
function envoy_on_request(handle)
  local headers = handle:headers()
  local key = headers:get(\"x-routing-key\")
  if key == nil then
    handle:respond({{[\":status\"] = \"400\"}}, \"\")
    return
  end
  -- What a client says in it counts for nothing.
  headers:remove(\"x-cell-reason\")
  local cell = cells[key]
  if cell == nil then
    headers:replace(\"x-cell-name\", \"{default}\")
    headers:replace(\"x-cell-reason\", \"default\")
  else
    headers:replace(\"x-cell-name\", cell)
  end
  headers:replace(\"x-forwarded-host\", headers:get(\":authority\"))
end
",
        setting.path("keys.txt").display(),
        key = table::KEY,
        default = table::name(table::DEFAULT),
    )
}

fn tell_client(reason: &str) -> Value {
    json!([
        {"header": {"key": "x-routed-to", "value": "%UPSTREAM_CLUSTER%"}},
        {"header": {"key": "x-route-reason", "value": reason}},
    ])
}

fn lua_routes() -> Value {
    json!({
        "name": "keys",
        "request_headers_to_remove": ["x-cell-name", "x-cell-reason"],
        "virtual_hosts": [{
            "name": "all",
            "domains": ["*"],
            "routes": [
                {
                    "match": {
                        "prefix": "/",
                        "headers": [{"name": "x-cell-reason", "present_match": true}],
                    },
                    "route": {"cluster_header": "x-cell-name", "timeout": "30s"},
                    "response_headers_to_add": tell_client("default"),
                },
                {
                    "match": {"prefix": "/"},
                    "route": {"cluster_header": "x-cell-name", "timeout": "30s"},
                    "response_headers_to_add": tell_client("tier"),
                },
            ],
        }],
    })
}

/// What RDS reads: one route a key.
fn matcher(setting: &Setting, file: &mut impl Write) -> io::Result<()> {
    let route = |cell: &str, reason: &str| {
        json!({"name": "route", "typed_config": {
            "@type": ROUTE,
            "match": {"prefix": "/"},
            "route": {"cluster": cell, "timeout": "30s"},
            "response_headers_to_add": tell_client(reason),
        }})
    };
    let input = json!({
        "name": "key",
        "typed_config": {"@type": HEADER, "header_name": "x-routing-key"},
    });
    let by_cell: Vec<(String, String)> = (0..=table::DEFAULT)
        .map(table::name)
        .map(|name| (name.clone(), route(&name, "tier").to_string()))
        .collect();
    write!(
        file,
        "{{\"version_info\":\"{}\",\"resources\":[{{\"@type\":\"{ROUTES}\",\"name\":\"keys\",\
         \"request_headers_to_add\":[{{\"header\":{{\"key\":\"x-forwarded-host\",\
         \"value\":\"%REQ(:AUTHORITY)%\"}}}}],\
         \"virtual_hosts\":[{{\"name\":\"all\",\"domains\":[\"*\"],\"matcher\":{{\
         \"on_no_match\":{},\"matcher_tree\":{{\"input\":{},\"exact_match_map\":{{\"map\":{{",
        setting.table.moves + 1,
        not_in_table(&input, &route(&table::name(table::DEFAULT), "default")),
        input,
    )?;
    let mut comma = "\n";
    setting.table.write(file, |to, key, cell| {
        let action = by_cell
            .iter()
            .find(|(name, _)| name == cell)
            .map_or("", |(_, action)| action);
        write!(to, "{comma}\"{key}\":{{\"action\":{action}}}")?;
        comma = ",\n";
        Ok(())
    })?;
    file.write_all(b"}}}}}]}]}\n")
}

/// The default cell for keys that nobody knows, 400 for requests without one.
fn not_in_table(input: &Value, default: &Value) -> Value {
    let refuse = json!({"name": "route", "typed_config": {
        "@type": ROUTE,
        "match": {"prefix": "/"},
        "direct_response": {"status": 400},
    }});
    json!({"matcher": {
        "matcher_list": {"matchers": [{
            "predicate": {"single_predicate": {
                "input": input,
                "value_match": {"safe_regex": {"google_re2": {}, "regex": ".+"}},
            }},
            "on_match": {"action": default},
        }]},
        "on_no_match": {"action": refuse},
    }})
}
