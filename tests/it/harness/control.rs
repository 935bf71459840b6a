//! A real control plane: the binary, with settings, a routing file and a data directory of its own in a
//! temporary directory.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::client::Client;
use super::edge::{Ended, address};
use super::log::Log;
use super::message::Response;
use super::{eventually, process};

/// Settings, environment and arguments of a control plane that is about to start. Every process that is
/// started from one builder has the same files.
#[derive(Clone)]
pub struct ControlBuilder {
    directory: Arc<TempDir>,
    settings: Value,
    environment: Vec<(String, String)>,
    arguments: Vec<String>,
}

/// A running control plane. Dropping it kills the process; when a test fails, its log is printed.
pub struct ControlProcess {
    child: Child,
    pub address: SocketAddr,
    /// What it wrote to stderr.
    pub log: Log,
    /// What it wrote to stdout.
    pub output: Log,
    directory: Arc<TempDir>,
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
        let mut at = &mut self.settings;
        for name in path.split('.') {
            at = &mut at[name];
        }
        *at = value.into();
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

    /// The same with a command that has been prepared, for instance with limits.
    pub fn spawn_by(&self, mut command: Command) -> ControlProcess {
        command.arg("control").arg("-c").arg(self.conf());
        command.args(&self.arguments);
        for name in ["CONFIG_PATH", "PORT"] {
            command.env_remove(name);
        }
        command
            .env("RUST_LOG", "info")
            .envs(self.environment.iter().cloned());
        command.current_dir(self.directory.path());
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("start the control plane");
        ControlProcess {
            log: Log::collect(child.stderr.take().expect("stderr")),
            output: Log::collect(child.stdout.take().expect("stdout")),
            child,
            address: SocketAddr::from(([0, 0, 0, 0], 0)),
            directory: self.directory.clone(),
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
        let log = self.log.clone();
        eventually("the control plane says that it is ready", async || {
            let lines = log.lines();
            let ready = lines.iter().any(|line| line.trim_end().ends_with("ready"));
            ready.then_some(())
        })
        .await;
        self
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where it runs, and all of its files are.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory().join(name)
    }

    pub fn routing_path(&self) -> PathBuf {
        self.path("routing.json")
    }

    pub async fn client(&self) -> Client {
        Client::connect(self.address).await
    }

    /// Asks for something, without a token, on a connection of its own.
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
        // Without a token, a body has to say what it is.
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

    /// The value of one metric, summed over the series whose name and labels contain all of `parts`.
    pub async fn metric(&self, parts: &[&str]) -> f64 {
        let text = self.get("/metrics").await.text();
        let series = text.lines().filter(|line| !line.starts_with('#'));
        let named = series.filter(|line| parts.iter().all(|part| line.contains(part)));
        named
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }

    /// Waits until this is the number of the newest generation.
    pub async fn wait_generation(&self, generation: u64) {
        let what = format!("generation {generation} is the newest");
        eventually(&what, async || {
            let newest = self.metric(&["cellgate_control_generation "]).await;
            (newest == generation as f64).then_some(())
        })
        .await;
    }

    /// Replaces the routing file in one step, as a careful editor does.
    pub fn write_routing(&self, document: &Value) {
        self.write_routing_bytes(document.to_string());
    }

    pub fn write_routing_bytes(&self, document: impl AsRef<[u8]>) {
        let new = self.path("routing.json.new");
        fs::write(&new, document).expect("write the new routing file");
        fs::rename(new, self.routing_path()).expect("rename the new routing file");
    }

    /// What is in the routing file, if that is JSON.
    pub fn read_routing(&self) -> Option<Value> {
        let document = fs::read(self.routing_path()).ok()?;
        serde_json::from_slice(&document).ok()
    }

    pub fn signal(&self, signal: i32) {
        process::send_signal(self.pid(), signal);
    }

    /// Ends it as a crash would.
    pub async fn kill(mut self) {
        self.child.kill().expect("kill it");
        self.exited().await;
    }

    /// Waits until the process ends.
    pub async fn exited(&mut self) -> ExitStatus {
        let child = &mut self.child;
        eventually("the control plane ends", async || {
            child.try_wait().expect("its status")
        })
        .await
    }

    /// Waits until the process ends and everything it wrote was read.
    pub async fn ended(mut self) -> Ended {
        let status = self.exited().await;
        self.log.ended().await;
        self.output.ended().await;
        Ended {
            status,
            log: self.log.text(),
            output: self.output.text(),
        }
    }
}

impl Drop for ControlProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let lines = self.log.lines();
            let tail = &lines[lines.len().saturating_sub(60)..];
            eprintln!(
                "--- log of the control plane {}:\n{}\n---",
                self.pid(),
                tail.join("\n")
            );
        }
    }
}
