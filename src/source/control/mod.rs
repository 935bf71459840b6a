//! The control plane as a source: the edge keeps one connection to it, applies what
//! it sends, and serves the last known good table while there is none.
//!
//! - `dial` opens the connection: files, DNS, TCP, TLS; `upgrade` makes it a WebSocket;
//! - `link` is a connection: frames in and out, pings, the deadline of a silent peer;
//! - `v1` and `m3` are the conversations, one for each dialect, readable top-down;
//! - `session` decides what follows from each `cellgate.v1` message. It knows
//!   [`EdgeState`] and no socket; `resync` and `status` say when something is due;
//! - `report` logs, shows and counts the state of the connection.
//!
//! Any error here ends the connection, and the next one is opened after a pause.
//! Requests are never affected.

mod dial;
mod link;
mod m3;
mod report;
mod resync;
mod session;
mod status;
mod upgrade;
mod v1;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use url::Url;

use self::link::Ended;
use self::report::Report;
use self::upgrade::Dialect;
use crate::protocol::Backoff;
use crate::state::EdgeState;

/// Where the control plane is, and how the edge authenticates. Files are read at each
/// attempt to connect, so they can be replaced while the edge runs.
#[derive(Clone, Debug, Default)]
pub struct ControlOptions {
    /// Equivalent control planes; at least one.
    pub urls: Vec<Url>,
    /// Holds the bearer token.
    pub token_file: Option<PathBuf>,
    /// Certificates that control planes are verified against. None: `wss` URLs cannot
    /// be connected to.
    pub ca_file: Option<PathBuf>,
    /// The edge's client certificate and its private key.
    pub client_identity: Option<(PathBuf, PathBuf)>,
    /// The edge's name, unique among the edges.
    pub edge_id: String,
    pub labels: BTreeMap<String, String>,
    /// Addresses of host names that are not looked up in DNS; names in lower case.
    pub hosts: HashMap<String, IpAddr>,
    /// The largest document in bytes: one M3 message, or a decompressed snapshot.
    pub document_bytes: usize,
}

/// Follows the control plane.
pub struct ControlSource(Arc<Follower>);

/// What outlives a connection.
struct Follower {
    options: ControlOptions,
    edge: Arc<EdgeState>,
    report: Report,
    /// A random name of this process, so that a control plane can tell a restarted
    /// edge from two edges with one name.
    instance: String,
}

/// Changes when the edge stops.
type Stopped = watch::Receiver<bool>;

/// How long sending a close frame may take.
const CLOSING: Duration = Duration::from_secs(1);

impl ControlSource {
    /// Follows one of `options.urls` at a time.
    pub fn new(options: ControlOptions, edge: Arc<EdgeState>) -> Self {
        let report = Report::new(Arc::clone(&edge), options.urls.first());
        Self(Arc::new(Follower {
            options,
            edge,
            report,
            instance: format!("{:016x}", rand::random::<u64>()),
        }))
    }

    /// Follows the control plane until `stop` resolves, then closes the connection.
    pub async fn follow(&self, stop: impl Future<Output = ()>) {
        let (stopping, stopped) = watch::channel(false);
        let mut following = std::pin::pin!(self.reconnect(stopped));
        tokio::select! {
            () = &mut following => return,
            () = stop => {}
        }
        stopping.send_replace(true);
        let _ = timeout(2 * CLOSING, following).await;
    }

    /// Opens one connection after the other.
    async fn reconnect(&self, mut stopped: Stopped) {
        let urls = &self.0.options.urls;
        // A random first URL spreads edges over the control planes.
        let mut backoff = Backoff::new(urls.len(), rand::random::<u32>() as usize);
        while let Some(url) = urls.get(backoff.address()) {
            // In a task of its own, so that a panic ends the connection only.
            let connection = Arc::clone(&self.0).connection(url.clone(), stopped.clone());
            let ended = tokio::spawn(connection).await.unwrap_or_else(|error| {
                Ended::here(format_args!("the connection's task failed: {error}"))
            });
            if matches!(ended, Ended::Shutdown) {
                return;
            }
            let lasted = self.0.report.ended(url, &ended);
            let pause = backoff.failed(lasted, rand::random());
            tokio::select! {
                _ = stopped.changed() => return,
                () = sleep(pause) => {}
            }
        }
    }
}

impl Follower {
    /// One connection, from dialling to its end. Returns why it ended.
    async fn connection(self: Arc<Self>, url: Url, mut stopped: Stopped) -> Ended {
        self.report.connecting(&url);
        let dialled = tokio::select! {
            _ = stopped.changed() => return Ended::Shutdown,
            dialled = dial::dial(&self.options, &url) => dialled,
        };
        let mut link = match dialled {
            Ok(link) => link,
            Err(why) => return Ended::Undialled(why),
        };
        let conversation = async {
            match link.dialect {
                Dialect::V1 => v1::converse(&self, &url, &mut link).await,
                Dialect::M3 => m3::converse(&self, &url, &mut link).await,
            }
        };
        // It can be dropped at any point: a table is applied in one step.
        let ended = tokio::select! {
            _ = stopped.changed() => Ended::Shutdown,
            Err(ended) = conversation => ended,
        };
        link.close(&ended).await;
        ended
    }
}
