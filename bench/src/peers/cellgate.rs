//! Cellgate with all that a placement can have switched on.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use super::{Peer, Setting, Way, first_line};
use crate::process::Tree;
use crate::table;

const FILE: Way = "file";
const ROUTING: &str = "routing.json";

pub struct Cellgate {
    name: &'static str,
    program: PathBuf,
}

impl Cellgate {
    pub fn new(name: &'static str, program: &Path) -> Cellgate {
        let program = program.to_owned();
        Cellgate { name, program }
    }
}

impl Peer for Cellgate {
    fn name(&self) -> &'static str {
        self.name
    }

    fn program(&self) -> &Path {
        &self.program
    }

    fn version(&self) -> anyhow::Result<String> {
        let mut command = Command::new(&self.program);
        command.arg("--version");
        first_line(command)
    }

    fn set_up(&self, setting: &Setting) -> anyhow::Result<()> {
        let settings = json!({
            "cellgate": {
                "listen": [setting.listen.to_string()],
                "admin_listen": setting.admin.to_string(),
                "routing": {"path": setting.path(ROUTING)},
                "access_log": if setting.access_log {
                    json!(setting.path("access.log"))
                } else {
                    json!("off")
                },
                "limits": {"client_connections": 8_000},
            },
            "threads": 1,
            "pid_file": setting.path("cellgate.pid"),
            "upgrade_sock": setting.path("upgrade.sock"),
        });
        // JSON is YAML.
        setting.write("edge.yaml", |file| write!(file, "{settings}"))?;
        self.write_table(setting, ROUTING)
    }

    fn command(&self, setting: &Setting) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("edge").arg("-c").arg(setting.path("edge.yaml"));
        command
    }

    fn ways(&self, _setting: &Setting) -> Vec<Way> {
        vec![FILE]
    }

    fn write_table(&self, setting: &Setting, name: &str) -> anyhow::Result<()> {
        setting.write(name, |file| document(setting, file))
    }

    fn apply(&self, setting: &Setting, _way: Way, file: &str, _tree: &Tree) -> anyhow::Result<()> {
        setting.replace(ROUTING, file)
    }
}

/// The routing document: every feature of a placement is on.
fn document(setting: &Setting, file: &mut impl Write) -> io::Result<()> {
    let placements: serde_json::Map<String, Value> = setting
        .cells
        .iter()
        .enumerate()
        .map(|(cell, address)| (table::name(cell), placement(cell, &address.to_string())))
        .collect();
    let head = json!({
        "version": format!("{}", setting.table.moves + 1),
        "defaultPlacement": table::name(table::DEFAULT),
        "placements": placements,
    });
    let head = head.to_string();
    write!(file, "{},\"routingTable\":{{", &head[..head.len() - 1])?;
    let mut comma = "\n";
    setting.table.write(file, |to, key, cell| {
        write!(to, "{comma}\"{key}\":\"{cell}\"")?;
        comma = ",\n";
        Ok(())
    })?;
    file.write_all(b"}}\n")
}

fn placement(cell: usize, address: &str) -> Value {
    json!({
        "url": format!("http://{address}"),
        "fallback": (cell != table::DEFAULT).then(|| table::name(table::DEFAULT)),
        "tenancy": "shared",
        "health_check": {},
        "circuit_breaker": {},
        "concurrency_limit": 10_000,
        "max_request_body_bytes": 10 << 20,
        "load_balancing": "least_request",
        "retries": {"attempts": 3, "on": ["connect", "reset"]},
    })
}
