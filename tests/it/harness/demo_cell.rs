//! Real `cellgate cell` processes: cells that die, come back, and misbehave on request.

use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Stdio};

use serde_json::Value;

use super::client::Client;
use super::log::Log;
use super::message::Response;
use super::{eventually, own_address};

/// A running demo cell that can be told to misbehave (`--control`). Dropping it kills the process.
pub struct DemoCell {
    pub name: String,
    pub address: SocketAddr,
    switches: Vec<String>,
    child: Child,
}

impl DemoCell {
    /// Starts one on a free port of an address of its own.
    pub async fn start(name: &str, switches: &[&str]) -> DemoCell {
        DemoCell::start_at(own_address(0), name, switches).await
    }

    /// Starts one on this address; port 0 is any free one.
    pub async fn start_at(address: SocketAddr, name: &str, switches: &[&str]) -> DemoCell {
        let switches: Vec<String> = switches.iter().map(|&switch| switch.to_owned()).collect();
        let (child, address) = spawn(name, address, &switches).await;
        DemoCell {
            name: name.to_owned(),
            address,
            switches,
            child,
        }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sets how it behaves from now on, for instance `{"status": 503}`; `{}` is normal.
    pub async fn misbehave(&self, told: Value) {
        let body = told.to_string();
        let request = format!(
            "PUT /_cell/misbehaviour HTTP/1.1\r\nHost: cell\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let response = self.exchange(&request).await;
        assert_eq!(response.status, 200, "{response:?}");
    }

    /// Sends these bytes on a connection of their own and reads one answer.
    pub async fn exchange(&self, request: &str) -> Response {
        let mut client = Client::connect(self.address).await;
        client.send(request).await;
        client.response().await
    }

    /// Kills the process. Connections are refused until [`DemoCell::restart`].
    pub fn kill(&mut self) {
        self.child.kill().expect("kill the cell");
        self.child.wait().expect("its status");
    }

    /// Starts it again after [`DemoCell::kill`], with the same port and arguments.
    pub async fn restart(&mut self) {
        let (child, address) = spawn(&self.name, self.address, &self.switches).await;
        assert_eq!(address, self.address);
        self.child = child;
    }

    /// Waits until the process ends by itself.
    pub async fn exited(&mut self) -> ExitStatus {
        let child = &mut self.child;
        eventually("the cell ends", async || {
            child.try_wait().expect("its status")
        })
        .await
    }
}

impl Drop for DemoCell {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn spawn(name: &str, address: SocketAddr, switches: &[String]) -> (Child, SocketAddr) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cellgate"));
    command.args(["cell", "--control", "--name", name, "--listen"]);
    command.arg(address.to_string()).args(switches);
    command.stdin(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("start the cell");
    let log = Log::collect(child.stderr.take().expect("stderr"));
    let line = log.try_wait_after(0, "listening on ").await;
    let address = line
        .as_ref()
        .ok()
        .and_then(|line| line.rsplit(' ').next()?.parse().ok());
    let Some(address) = address else {
        let _ = child.kill();
        let _ = child.wait();
        panic!("cell {name} says no address: {line:?}; {}", log.text());
    };
    (child, address)
}
