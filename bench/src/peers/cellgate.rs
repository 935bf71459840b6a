//! Cellgate with all that a placement can have switched on.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::bail;
use serde_json::{Value, json};

use super::{Peer, Setting, Way, first_line};
use crate::client::Client;
use crate::process::Tree;
use crate::table;

const FILE: Way = "file";
/// Through a control plane, which a request tells.
const PUSH: Way = "push";
const SETTINGS: &str = "edge.yaml";
const PUSHED: &str = "edge-pushed.yaml";
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
        let mut settings = settings(setting);
        // JSON is YAML.
        setting.write(SETTINGS, |file| write!(file, "{settings}"))?;
        settings["cellgate"]["control_plane"] = json!({
            "urls": [format!("ws://{}/connect", setting.control)],
        });
        setting.write(PUSHED, |file| write!(file, "{settings}"))?;
        self.write_table(setting, ROUTING)
    }

    fn command(&self, setting: &Setting, way: Option<Way>) -> Command {
        let settings = if way == Some(PUSH) { PUSHED } else { SETTINGS };
        let mut command = Command::new(&self.program);
        command.arg("edge").arg("-c").arg(setting.path(settings));
        command
    }

    fn companion(&self, setting: &Setting, way: Way) -> anyhow::Result<Option<Command>> {
        if way != PUSH {
            return Ok(None);
        }
        let data = setting.path("control-data");
        if data.exists() {
            std::fs::remove_dir_all(&data)?;
        }
        self.write_table(setting, "control-routing.json")?;
        let settings = json!({
            "listen": setting.control.to_string(),
            "store": {"file": {"path": setting.path("control-routing.json"), "data_dir": data}},
        });
        setting.write("control.yaml", |file| write!(file, "{settings}"))?;
        let mut command = Command::new(&self.program);
        command
            .arg("control")
            .arg("-c")
            .arg(setting.path("control.yaml"));
        Ok(Some(command))
    }

    fn ways(&self, _setting: &Setting) -> Vec<Way> {
        let help = Command::new(&self.program)
            .args(["control", "--help"])
            .output();
        match help.is_ok_and(|output| output.status.success()) {
            true => vec![FILE, PUSH],
            false => vec![FILE],
        }
    }

    fn write_table(&self, setting: &Setting, name: &str) -> anyhow::Result<()> {
        setting.write(name, |file| document(setting, file))
    }

    fn apply(&self, setting: &Setting, way: Way, file: &str, _tree: &Tree) -> anyhow::Result<()> {
        match way {
            PUSH => put(setting),
            _ => setting.replace(ROUTING, file),
        }
    }
}

/// Changes the first key at the control plane.
fn put(setting: &Setting) -> anyhow::Result<()> {
    let key = table::key(0);
    let path = format!("/api/v1/keys/{}", String::from_utf8_lossy(&key));
    let body = json!({"placement": table::name(setting.table.cell(0))}).to_string();
    let answer = Client::new(setting.control).put(&path, &body)?;
    if !(200..300).contains(&answer.status) {
        let body = String::from_utf8_lossy(&answer.body);
        bail!("PUT {path}: {} {body}", answer.status);
    }
    Ok(())
}

fn settings(setting: &Setting) -> Value {
    let access_log = match setting.access_log {
        true => json!(setting.path("access.log")),
        false => json!("off"),
    };
    json!({
        "cellgate": {
            "listen": [setting.listen.to_string()],
            "admin_listen": setting.admin.to_string(),
            "routing": {"path": setting.path(ROUTING)},
            "access_log": access_log,
            "limits": {"client_connections": 8_000},
        },
        "threads": 1,
        "pid_file": setting.path("cellgate.pid"),
        "upgrade_sock": setting.path("upgrade.sock"),
    })
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
