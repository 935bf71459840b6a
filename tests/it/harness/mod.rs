//! The parts of the integration tests: real processes, scripted cells and control planes, a client that works
//! on bytes, and load.
//!
//! Every wait is for an event and has a deadline. Tests sleep only where they check that nothing happens, or
//! to set the pace of what they send.

mod cell;
mod client;
mod control;
mod demo_cell;
mod edge;
mod etcd;
mod fake_control;
mod fleet;
mod load;
mod log;
mod message;
mod process;
mod relay;
mod routing;
mod tls;
mod wire;

pub use cell::{Cell, Conn};
pub use client::Client;
pub use control::{ControlBuilder, ControlProcess};
pub use demo_cell::DemoCell;
pub use edge::{Edge, EdgeBuilder};
pub use etcd::{Etcd, EtcdCluster};
pub use fake_control::{Content, Dialect, FakeControl, Link, wait_control};
pub use fleet::{Fleet, Held};
pub use load::{Failure, Load, Pace, Plan};
pub use message::{Framing, Response};
pub use process::{
    cpu_time, memory, open_files, peak_memory, pin, raise_open_files, reset_peak_memory,
    send_signal,
};
pub use relay::Relay;
pub use routing::{Two, document, guarded, placements, table, tiers};
pub use tls::{Authority, tls_cell, tls_client, tls_control};

use std::net::SocketAddr;
use std::time::Duration;

use rand::Rng;
use tokio::time::Instant;

/// The deadline of a wait. It is long because the machine may be busy; a test that passes does not wait for
/// it.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// The polling interval for states that have no event.
pub const LOOK: Duration = Duration::from_millis(10);

/// Waits for `future`; panics, naming `what`, when it takes longer than [`DEADLINE`].
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(DEADLINE, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: nothing within {DEADLINE:?}"),
    }
}

/// Polls until `look` returns something; panics, naming `what`, after [`DEADLINE`].
pub async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(seen) = look().await {
            return seen;
        }
        assert!(Instant::now() < deadline, "{what}: not within {DEADLINE:?}");
        tokio::time::sleep(LOOK).await;
    }
}

/// The median of these values, in any order.
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// An address of this machine that no other test uses, for listeners that must come back on the same port.
/// Outgoing connections come from 127.0.0.1, so that none of them takes the port meanwhile.
pub fn own_address(port: u16) -> SocketAddr {
    let mut random = rand::rng();
    let mut part = || random.random_range(1..=254);
    SocketAddr::from(([127, part(), part(), part()], port))
}
