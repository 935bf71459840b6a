//! What the integration tests are made of: a real edge, scripted cells, a client that works on bytes, and
//! load.
//!
//! Every wait has a deadline and waits for something to happen. Nothing here sleeps for a fixed time and
//! hopes.

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
pub use etcd::EtcdCluster;
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

/// How long anything that should happen at once may take. Generous: the machine may be busy, and a test
/// that passes never waits for it.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// How often a state that sends no event is looked at.
pub const LOOK: Duration = Duration::from_millis(10);

/// Waits for `future`; panics, naming `what`, when it takes longer than [`DEADLINE`].
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(DEADLINE, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: nothing within {DEADLINE:?}"),
    }
}

/// Looks until `look` sees something; panics, naming `what`, after [`DEADLINE`].
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

/// The middle one of these, which are not in order.
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// An address of this machine that no other test uses, for listeners that must come back on the port they
/// had. Outgoing connections start from 127.0.0.1, so none of them takes the port meanwhile.
pub fn own_address(port: u16) -> SocketAddr {
    let mut random = rand::rng();
    let mut part = || random.random_range(1..=254);
    SocketAddr::from(([127, part(), part(), part()], port))
}
