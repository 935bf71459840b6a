//! A real edge: the binary, with settings and a routing file of its own in a temporary directory.

use std::fs;
use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::cell::Cell;
use super::client::Client;
use super::eventually;
use super::message::Response;
use super::process::{self, Ended, Process};
use super::routing::{document, placements, table};

/// Settings, environment and arguments of an edge.
pub struct EdgeBuilder {
    directory: Arc<TempDir>,
    settings: Value,
    environment: Vec<(String, String)>,
    arguments: Vec<String>,
}

/// A running edge. Dropping it kills the process; when a test fails, its log is printed.
pub struct Edge {
    process: Process,
    pub proxy: SocketAddr,
    pub admin: SocketAddr,
}

impl EdgeBuilder {
    fn new() -> EdgeBuilder {
        let directory = Arc::new(TempDir::with_prefix("cellgate-").expect("a temporary directory"));
        let at = |name: &str| directory.path().join(name).to_string_lossy().into_owned();
        let settings = json!({
            "threads": 2,
            "pid_file": at("edge.pid"),
            "upgrade_sock": at("upgrade.sock"),
            "grace_period_seconds": 30,
            "graceful_shutdown_timeout_seconds": 5,
            "cellgate": {
                "listen": ["127.0.0.1:0"],
                "admin_listen": "127.0.0.1:0",
                "routing": {"path": at("routing.json"), "poll_interval": "500ms"},
                "access_log": "off",
            }
        });
        EdgeBuilder {
            directory,
            settings,
            environment: Vec::new(),
            arguments: Vec::new(),
        }
    }

    /// Sets one setting by its dotted path, for instance `cellgate.timeouts.connect`.
    pub fn set(mut self, path: &str, value: impl Into<Value>) -> EdgeBuilder {
        process::set(&mut self.settings, path, value.into());
        self
    }

    /// Writes this routing document.
    pub fn routing(self, document: &Value) -> EdgeBuilder {
        self.routing_bytes(document.to_string())
    }

    pub fn routing_bytes(self, document: impl AsRef<[u8]>) -> EdgeBuilder {
        fs::write(self.routing_path(), document).expect("write the routing file");
        self
    }

    pub fn env(mut self, name: &str, value: impl Into<String>) -> EdgeBuilder {
        self.environment.push((name.to_owned(), value.into()));
        self
    }

    /// One more argument, after `edge -c FILE`.
    pub fn arg(mut self, argument: &str) -> EdgeBuilder {
        self.arguments.push(argument.to_owned());
        self
    }

    /// The edge's directory: routing file, sockets.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub fn routing_path(&self) -> PathBuf {
        self.directory.path().join("routing.json")
    }

    /// Starts it and waits until it serves.
    pub async fn start(self) -> Edge {
        self.spawn().ready().await
    }

    /// Starts it without waiting; its addresses are not known yet.
    pub fn spawn(&self) -> Edge {
        self.spawn_with(&self.conf())
    }

    /// The same with a settings file written by the test.
    pub fn spawn_with(&self, conf: &Path) -> Edge {
        self.spawn_arguments(conf, &[])
    }

    /// Writes the settings file.
    fn conf(&self) -> PathBuf {
        // JSON is YAML, so the settings need no writer of their own.
        let conf = self.directory.path().join("edge.yaml");
        fs::write(&conf, format!("{:#}\n", self.settings)).expect("write the settings");
        conf
    }

    fn spawn_arguments(&self, conf: &Path, more: &[&str]) -> Edge {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cellgate"));
        command.arg("edge").arg("-c").arg(conf);
        command.args(&self.arguments).args(more);
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        Edge {
            process: Process::spawn("edge", &mut command, &self.environment, &self.directory),
            proxy: nowhere,
            admin: nowhere,
        }
    }

    /// Starts it as the successor of a running edge with the same settings (`-u`), and waits until it is
    /// ready to take over the listeners. The caller then sends SIGQUIT to the old one and waits for
    /// [`Edge::ready`].
    pub async fn successor(&self) -> Edge {
        let socket = self.directory.path().join("upgrade.sock");
        let _ = fs::remove_file(&socket);
        let mut new = self.spawn_arguments(&self.conf(), &["-u"]);
        eventually("the successor waits for the listeners", async || {
            assert!(new.runs(), "the successor ended: {}", new.log.text());
            socket.exists().then_some(())
        })
        .await;
        new
    }

    /// Starts it and waits for it to end by itself.
    pub async fn run(&self) -> Ended {
        self.spawn().ended().await
    }
}

impl Edge {
    pub fn builder() -> EdgeBuilder {
        EdgeBuilder::new()
    }

    /// An edge in front of one cell, where `acme` lives and which is the default placement.
    pub fn before(cell: &Cell) -> EdgeBuilder {
        let (routes, endpoints) = (table(&[("acme", &cell.name)]), placements(&[cell]));
        Edge::builder().routing(&document("1", routes, endpoints, &cell.name))
    }

    /// An edge with default settings on this routing document.
    pub async fn serving(document: &Value) -> Edge {
        Edge::builder().routing(document).start().await
    }

    /// Waits until it serves, and learns its addresses from its log.
    pub async fn ready(mut self) -> Edge {
        self.proxy = address(&self.log.wait("proxy listening on ").await);
        self.admin = address(&self.log.wait("admin listening on ").await);
        self.log.wait_ready().await;
        self
    }

    /// The addresses of all its proxy listeners, in the order of its log.
    pub fn proxies(&self) -> Vec<SocketAddr> {
        let lines = self.log.lines();
        lines
            .iter()
            .filter(|l| l.contains("proxy listening on "))
            .map(|l| address(l))
            .collect()
    }

    pub async fn client(&self) -> Client {
        Client::connect(self.proxy).await
    }

    /// `GET path` for `key` on a connection of its own.
    pub async fn get(&self, key: &str, path: &str) -> Response {
        self.client().await.get(key, path).await
    }

    /// Sends these bytes on a connection of their own and reads one answer.
    pub async fn exchange(&self, request: impl AsRef<[u8]>) -> Response {
        let mut client = self.client().await;
        client.send(request).await;
        client.response().await
    }

    pub async fn admin(&self, path: &str) -> Response {
        let mut client = Client::connect(self.admin).await;
        client
            .send(format!(
                "GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
            ))
            .await;
        client.response().await
    }

    /// `/debug/config` of the admin service.
    pub async fn config(&self) -> Value {
        let response = self.admin("/debug/config").await;
        assert_eq!(response.status, 200, "{response:?}");
        response.json()
    }

    /// The value of one metric: see [`Response::metric`].
    pub async fn metric(&self, parts: &[&str]) -> f64 {
        self.admin("/metrics").await.metric(parts)
    }

    /// Waits until the table of this version is live.
    pub async fn wait_version(&self, version: &str) -> Value {
        let what = format!("version {version} is live");
        eventually(&what, async || {
            let config = self.config().await;
            (config["version"] == version).then_some(config)
        })
        .await
    }

    /// Waits until the edge reports a refused document, and returns `last_error`.
    pub async fn wait_refused(&self) -> Value {
        eventually("last_error is reported", async || {
            let error = self.config().await["last_error"].take();
            (!error.is_null()).then_some(error)
        })
        .await
    }

    /// Kills the process, as a crash would, and waits for its end.
    pub async fn kill(self) {
        self.process.kill().await;
    }

    /// Waits until the process ends and everything it wrote was read.
    pub async fn ended(self) -> Ended {
        self.process.ended().await
    }
}

impl Deref for Edge {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}

impl DerefMut for Edge {
    fn deref_mut(&mut self) -> &mut Process {
        &mut self.process
    }
}

/// The address at the end of a line of a log.
pub fn address(line: &str) -> SocketAddr {
    let word = line.rsplit(' ').next().unwrap_or_default();
    word.parse()
        .unwrap_or_else(|_| panic!("no address at the end of {line:?}"))
}
