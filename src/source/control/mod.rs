//! The control plane as a source: dialled, listened to, and done without while
//! it is away.
//!
//! - `dial` makes a connection: name, TCP, TLS, the upgrade to a WebSocket;
//! - `link` is one: frames in and out, pings, the deadline of a silent link;
//! - `v1` and `m3` say what follows from each message, one for each dialect.
//!   They know `live` and no socket;
//! - `converse` brings the two together, and adds the clock: greeting, status;
//! - `report` has what is logged, shown and counted of it.
//!
//! Whatever goes wrong here ends a connection, and the next one is made after a
//! pause. Nothing on the path of a request is ever touched.

mod converse;
mod dial;
mod link;
mod m3;
mod report;
mod resync;
mod status;
mod tls;
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

use self::dial::Dialect;
use self::link::Ended;
use self::report::Report;
use crate::protocol::Backoff;
use crate::state::EdgeState;

/// Where the control plane is, and how the edge proves who it is. Files are read
/// with every attempt to connect, so that they can be replaced.
#[derive(Clone, Debug, Default)]
pub struct ControlOptions {
    /// Control planes, all equal; at least one.
    pub urls: Vec<Url>,
    /// Has the bearer token.
    pub token_file: Option<PathBuf>,
    /// Has the certificates that control planes are verified against; without it,
    /// no `wss` URL can be dialled.
    pub ca_file: Option<PathBuf>,
    /// The edge's own certificate, and its key.
    pub client_identity: Option<(PathBuf, PathBuf)>,
    /// What this edge is called.
    pub edge_id: String,
    pub labels: BTreeMap<String, String>,
    /// Addresses of hosts that are not to be looked up.
    pub hosts: HashMap<String, IpAddr>,
    /// The largest document, in bytes, be it one message of M3 or what a snapshot
    /// has in it.
    pub document_bytes: usize,
}

/// Follows the control plane.
pub struct ControlSource(Arc<Client>);

/// What lasts from one connection to the next.
struct Client {
    options: ControlOptions,
    edge: Arc<EdgeState>,
    report: Report,
    /// Of this process.
    instance: String,
}

impl ControlSource {
    /// Follows one of `options.urls` at a time.
    pub fn new(options: ControlOptions, edge: Arc<EdgeState>) -> Self {
        let report = Report::new(Arc::clone(&edge), options.urls.first());
        Self(Arc::new(Client {
            options,
            edge,
            report,
            instance: format!("{:016x}", rand::random::<u64>()),
        }))
    }

    /// Follows it until `stop`, and says goodbye.
    pub async fn follow(&self, stop: impl Future<Output = ()>) {
        let (stopping, stopped) = watch::channel(false);
        let mut following = std::pin::pin!(self.dial_on(stopped));
        tokio::select! {
            () = &mut following => return,
            () = stop => {}
        }
        stopping.send_replace(true);
        let _ = timeout(2 * GOODBYE, following).await;
    }

    /// One connection after the other.
    async fn dial_on(&self, mut stopped: Stopped) {
        let urls = &self.0.options.urls;
        // Edges spread over the list.
        let mut backoff = Backoff::new(urls.len(), rand::random::<u32>() as usize);
        while let Some(url) = urls.get(backoff.address()) {
            // A task of its own: should it panic, that is one more way for a
            // connection to end.
            let attempt = Arc::clone(&self.0).attempt(url.clone(), stopped.clone());
            let ended = tokio::spawn(attempt).await.unwrap_or_else(|error| {
                Ended::here(format_args!("the connection's task broke off: {error}"))
            });
            if matches!(ended, Ended::Shutdown) {
                return;
            }
            let held = self.0.report.ended(url, &ended);
            let wait = backoff.failed(held, rand::random());
            tokio::select! {
                _ = stopped.changed() => return,
                () = sleep(wait) => {}
            }
        }
    }
}

impl Client {
    /// Connects, and follows for as long as it goes well. Says why it ended.
    async fn attempt(self: Arc<Self>, url: Url, mut stopped: Stopped) -> Ended {
        self.report.connecting(&url);
        let dialled = tokio::select! {
            _ = stopped.changed() => return Ended::Shutdown,
            dialled = dial::dial(&self.options, &url) => dialled,
        };
        let mut link = match dialled {
            Ok(link) => link,
            Err(why) => return Ended::Undialled(why),
        };
        let ended = match link.dialect {
            Dialect::V1 => self.converse_v1(&url, &mut link, &mut stopped).await,
            Dialect::M3 => self.converse_m3(&url, &mut link, &mut stopped).await,
        };
        link.say_goodbye(&ended).await;
        ended
    }
}

/// Changes when the edge ends.
type Stopped = watch::Receiver<bool>;

/// How long a goodbye may take.
const GOODBYE: Duration = Duration::from_secs(1);
