//! A real control plane: the binary, with settings, a routing file and a data directory of its own in a
//! temporary directory.

use std::fs;
use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::client::Client;
use super::edge::address;
use super::eventually;
use super::message::Response;
use super::process::{self, Ended, Process};

/// Settings, environment and arguments of a control plane. Every process started from one builder uses the
/// same files.
#[derive(Clone)]
pub struct ControlBuilder {
    directory: Arc<TempDir>,
    settings: Value,
    environment: Vec<(String, String)>,
    arguments: Vec<String>,
}

/// A running control plane. Dropping it kills the process; when a test fails, its log is printed.
pub struct ControlProcess {
    process: Process,
    pub address: SocketAddr,
}

impl ControlBuilder {
    fn new() -> ControlBuilder {
        let directory = TempDir::with_prefix("cellgate-control-").expect("a temporary directory");
        let directory = Arc::new(directory);
        let path = directory.path().join("routing.json");
        let settings = json!({
            "listen": "127.0.0.1:0",
            "store": {"file": {"path": path.to_string_lossy()}},
        });
        ControlBuilder {
            directory,
            settings,
            environment: Vec::new(),
            arguments: Vec::new(),
        }
    }

    /// Sets one setting by its dotted path, for instance `store.file.data_dir`.
    pub fn set(mut self, path: &str, value: impl Into<Value>) -> ControlBuilder {
        process::set(&mut self.settings, path, value.into());
        self
    }

    /// Writes this routing document.
    pub fn routing(self, document: &Value) -> ControlBuilder {
        self.routing_bytes(document.to_string())
    }

    pub fn routing_bytes(self, document: impl AsRef<[u8]>) -> ControlBuilder {
        fs::write(self.routing_path(), document).expect("write the routing file");
        self
    }

    pub fn env(mut self, name: &str, value: impl Into<String>) -> ControlBuilder {
        self.environment.push((name.to_owned(), value.into()));
        self
    }

    /// One more argument, after `control -c FILE`.
    pub fn arg(mut self, argument: &str) -> ControlBuilder {
        self.arguments.push(argument.to_owned());
        self
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn routing_path(&self) -> PathBuf {
        self.path("routing.json")
    }

    /// Where the generations are, unless it was set otherwise.
    pub fn data_dir(&self) -> PathBuf {
        self.path("routing.json.d")
    }

    /// Starts it and waits until it serves.
    pub async fn start(&self) -> ControlProcess {
        self.spawn().ready().await
    }

    /// Starts it without waiting; its address is not known yet.
    pub fn spawn(&self) -> ControlProcess {
        self.spawn_by(Command::new(env!("CARGO_BIN_EXE_cellgate")))
    }

    /// The same with a prepared command, for instance with resource limits.
    pub fn spawn_by(&self, mut command: Command) -> ControlProcess {
        command.arg("control").arg("-c").arg(self.conf());
        command.args(&self.arguments);
        let process = Process::spawn(
            "control plane",
            &mut command,
            &self.environment,
            &self.directory,
        );
        ControlProcess {
            process,
            address: SocketAddr::from(([0, 0, 0, 0], 0)),
        }
    }

    /// Starts it and waits for it to end by itself.
    pub async fn run(&self) -> Ended {
        self.spawn().ended().await
    }

    /// Writes the settings file.
    pub fn conf(&self) -> PathBuf {
        // JSON is YAML, so the settings need no writer of their own.
        let conf = self.path("control.yaml");
        fs::write(&conf, format!("{:#}\n", self.settings)).expect("write the settings");
        conf
    }
}

impl ControlProcess {
    pub fn builder() -> ControlBuilder {
        ControlBuilder::new()
    }

    /// Waits until it serves, and learns its address from its log.
    pub async fn ready(mut self) -> ControlProcess {
        self.address = address(&self.log.wait("control listening on ").await);
        self.log.wait_ready().await;
        self
    }

    pub async fn client(&self) -> Client {
        Client::connect(self.address).await
    }

    /// Sends a GET request without a token, on a connection of its own.
    pub async fn get(&self, path: &str) -> Response {
        self.request("GET", path, &[], "").await
    }

    /// Sends a request with these headers (names and values) and this body, on a connection of its own.
    pub async fn request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl AsRef<[u8]>,
    ) -> Response {
        let body = body.as_ref();
        let headers: String = headers
            .iter()
            .map(|(name, value)| format!("{name}: {value}\r\n"))
            .collect();
        // Without a token, a request with a body needs a Content-Type.
        let said = headers.to_ascii_lowercase().contains("content-type:");
        let kind = match said || body.is_empty() {
            true => "",
            false => "Content-Type: application/json\r\n",
        };
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Length: {}\r\n\
             {kind}{headers}\r\n",
            self.address,
            body.len()
        );
        let mut client = self.client().await;
        client.send([head.as_bytes(), body].concat()).await;
        let response = client.try_response(method).await;
        response
            .unwrap_or_else(|error| panic!("{method} {path}: {error}"))
            .unwrap_or_else(|| panic!("{method} {path}: closed without an answer"))
    }

    /// The value of one metric: see [`Response::metric`].
    pub async fn metric(&self, parts: &[&str]) -> f64 {
        self.get("/metrics").await.metric(parts)
    }

    /// Waits until the newest generation has this number.
    pub async fn wait_generation(&self, generation: u64) {
        let what = format!("generation {generation} is the newest");
        eventually(&what, async || {
            let newest = self.metric(&["cellgate_control_generation "]).await;
            (newest == generation as f64).then_some(())
        })
        .await;
    }

    /// The content of the routing file, if it is JSON.
    pub fn read_routing(&self) -> Option<Value> {
        let document = fs::read(self.routing_path()).ok()?;
        serde_json::from_slice(&document).ok()
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

impl Deref for ControlProcess {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}

impl DerefMut for ControlProcess {
    fn deref_mut(&mut self) -> &mut Process {
        &mut self.process
    }
}
