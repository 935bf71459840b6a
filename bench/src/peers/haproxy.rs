//! HAProxy, with a map file from key to backend.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::bail;

use super::{Peer, Setting, Way, first_line, unpacked};
use crate::process::Tree;
use crate::table;

const RELOAD: Way = "reload";
/// One entry of the map is changed in memory: the next reload brings back what the file says.
const RUNTIME: Way = "runtime API";
const MAP: &str = "keys.map";

pub struct Haproxy {
    peers: PathBuf,
    program: PathBuf,
}

impl Haproxy {
    pub fn new(peers: &Path) -> Haproxy {
        Haproxy {
            peers: peers.to_owned(),
            program: peers.join("debian/usr/sbin/haproxy"),
        }
    }
}

impl Peer for Haproxy {
    fn name(&self) -> &'static str {
        "haproxy"
    }

    fn program(&self) -> &Path {
        &self.program
    }

    fn version(&self) -> anyhow::Result<String> {
        let mut command = unpacked(&self.peers, "usr/sbin/haproxy");
        command.arg("-v");
        let said = first_line(command)?;
        let version = said.split_whitespace().nth(2).unwrap_or_default();
        Ok(format!("HAProxy {version}"))
    }

    fn unfit(&self, setting: &Setting) -> Option<&'static str> {
        setting
            .access_log
            .then_some("it logs to syslog only, which is another process")
    }

    fn set_up(&self, setting: &Setting) -> anyhow::Result<()> {
        let text = configuration(setting);
        setting.write("haproxy.cfg", |file| file.write_all(text.as_bytes()))?;
        self.write_table(setting, MAP)
    }

    fn command(&self, setting: &Setting, _way: Option<Way>) -> Command {
        let mut command = unpacked(&self.peers, "usr/sbin/haproxy");
        // A master and its worker, as Debian's service runs it.
        command
            .args(["-W", "-db", "-f"])
            .arg(setting.path("haproxy.cfg"));
        command
    }

    fn ways(&self, _setting: &Setting) -> Vec<Way> {
        vec![RELOAD, RUNTIME]
    }

    fn write_table(&self, setting: &Setting, name: &str) -> anyhow::Result<()> {
        setting.write(name, |file| {
            setting
                .table
                .write(file, |to, key, cell| writeln!(to, "{key} {cell}"))
        })
    }

    fn apply(&self, setting: &Setting, way: Way, file: &str, tree: &Tree) -> anyhow::Result<()> {
        if way == RUNTIME {
            return set(setting);
        }
        setting.replace(MAP, file)?;
        tree.signal(libc::SIGUSR2)
    }
}

/// Changes the first key in the running process.
fn set(setting: &Setting) -> anyhow::Result<()> {
    let key = table::key(0);
    let (key, cell) = (
        String::from_utf8_lossy(&key),
        table::name(setting.table.cell(0)),
    );
    let mut socket = UnixStream::connect(setting.path("admin.sock"))?;
    writeln!(
        socket,
        "set map {} {key} {cell}",
        setting.path(MAP).display()
    )?;
    let mut said = String::new();
    socket.read_to_string(&mut said)?;
    if !said.trim().is_empty() {
        bail!("set map: {}", said.trim());
    }
    Ok(())
}

fn configuration(setting: &Setting) -> String {
    let dir = setting.dir.display();
    let listen = setting.listen;
    let default = table::name(table::DEFAULT);
    let backends: String = setting
        .cells
        .iter()
        .enumerate()
        .map(|(cell, address)| {
            let name = table::name(cell);
            format!(
                "backend {name}\n    option httpchk GET /health\n    \
                 server a {address} check inter 10s\n"
            )
        })
        .collect();
    format!(
        "global
    nbthread 1
    maxconn 8000
    stats socket {dir}/admin.sock mode 600 level admin
    hard-stop-after 30s
defaults
    mode http
    http-reuse always
    retries 3
    option redispatch
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    timeout http-request 15s
    timeout http-keep-alive 60s
frontend edge
    bind {listen} backlog 4096
    http-request deny status 400 unless {{ req.hdr(x-routing-key) -m found }}
    http-request set-var(txn.cell) req.hdr(x-routing-key),map_str({dir}/{MAP},{default})
    http-request set-header X-Request-Id %[uuid()] unless {{ req.hdr(x-request-id) -m found }}
    http-request set-var(txn.id) req.hdr(x-request-id)
    http-request set-header X-Forwarded-For %[src]
    http-request set-header X-Forwarded-Proto http
    http-request set-header X-Forwarded-Host %[req.hdr(host)]
    http-response set-header X-Routed-To %[var(txn.cell)]
    http-response set-header X-Route-Reason tier
    http-response set-header X-Route-Reason default if {{ var(txn.cell) -m str {default} }}
    http-response set-header X-Request-Id %[var(txn.id)]
    use_backend %[var(txn.cell)]
{backends}"
    )
}
