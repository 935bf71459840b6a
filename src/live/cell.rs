//! A cell as the running edge knows it: an endpoint and where it resolves to.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use arc_swap::ArcSwap;
use serde::Serialize;
use tokio::sync::Notify;

use crate::routing::Endpoint;

/// One cell. It outlives the generations that name it: as long as a new
/// generation names the same [`Endpoint`], it has the same `Cell`, and with it
/// everything that the edge has learned about the cell.
pub struct Cell {
    pub endpoint: Endpoint,
    lookup: Lookup,
    addresses: ArcSwap<Addresses>,
    /// Where the next request starts in the list of addresses; wraps.
    rotation: AtomicUsize,
    /// Woken when `addresses` leaves [`Resolution::Unresolved`].
    settled: Notify,
}

/// How a cell comes by its addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lookup {
    /// The host is an address, or the settings say what it is.
    Fixed(IpAddr),
    /// The resolver looks the host up.
    ByName,
}

/// Where a cell can be reached, as of the last lookup that said anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses {
    pub state: Resolution,
    /// Without duplicates, in the order that the resolver prefers; empty unless
    /// resolved.
    pub sockets: Vec<SocketAddr>,
    /// Why the last lookup failed, if it did. With [`Resolution::Resolved`], the
    /// addresses are those of the last lookup that did not.
    pub error: Option<String>,
}

/// Whether a cell's host name is known to be somewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Resolution {
    /// The first lookup is not back yet.
    Unresolved,
    /// There are addresses.
    Resolved,
    /// Every lookup so far failed.
    Failed,
}

impl Resolution {
    pub const ALL: [Resolution; 3] = [Self::Unresolved, Self::Resolved, Self::Failed];

    /// `unresolved`, `resolved` or `failed`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unresolved => "unresolved",
            Self::Resolved => "resolved",
            Self::Failed => "failed",
        }
    }
}

impl Cell {
    /// A cell that needs no lookup, if its host is an address or is overridden
    /// by `known`, and else one that waits for the resolver.
    pub(super) fn new(endpoint: Endpoint, known: Option<IpAddr>) -> Self {
        let lookup = match known.or_else(|| endpoint.host.parse().ok()) {
            Some(address) => Lookup::Fixed(address),
            None => Lookup::ByName,
        };
        let addresses = match lookup {
            Lookup::Fixed(address) => {
                Addresses::resolved(vec![SocketAddr::new(address, endpoint.port)])
            }
            Lookup::ByName => Addresses {
                state: Resolution::Unresolved,
                sockets: Vec::new(),
                error: None,
            },
        };
        Self {
            endpoint,
            lookup,
            addresses: ArcSwap::from_pointee(addresses),
            rotation: AtomicUsize::new(0),
            settled: Notify::new(),
        }
    }

    /// Where the cell can be reached now.
    pub fn addresses(&self) -> Arc<Addresses> {
        self.addresses.load_full()
    }

    /// Where a new request starts in the list of addresses. Take it once per
    /// request and give it to [`Cell::address`] with each attempt.
    pub fn rotation(&self) -> usize {
        self.rotation.fetch_add(1, Relaxed)
    }

    /// The address for attempt number `attempt` (from 0) of a request that
    /// started at `rotation`. As many attempts in a row as there are addresses
    /// get different ones, whatever other requests do meanwhile. None when the
    /// cell has no address.
    pub fn address(&self, rotation: usize, attempt: usize) -> Option<SocketAddr> {
        let addresses = self.addresses.load();
        let index = rotation
            .wrapping_add(attempt)
            .checked_rem(addresses.sockets.len())?;
        addresses.sockets.get(index).copied()
    }

    /// Returns when the first lookup is back, well or not; at once if it is.
    pub async fn first_resolution(&self) {
        loop {
            // Listening comes before looking: whatever happens in between wakes.
            let mut settled = std::pin::pin!(self.settled.notified());
            settled.as_mut().enable();
            if self.addresses.load().state != Resolution::Unresolved {
                return;
            }
            settled.await;
        }
    }

    /// Why the last lookup failed; none if it did not.
    pub fn last_error(&self) -> Option<String> {
        self.addresses.load().error.clone()
    }

    /// Whether the resolver has to look up this cell's host.
    pub(super) fn needs_lookup(&self) -> bool {
        self.lookup == Lookup::ByName
    }

    /// A lookup found these addresses, never none.
    pub(super) fn resolved(&self, addresses: &[IpAddr]) {
        let mut sockets: Vec<SocketAddr> = Vec::with_capacity(addresses.len());
        for address in addresses {
            let socket = SocketAddr::new(*address, self.endpoint.port);
            if !sockets.contains(&socket) {
                sockets.push(socket);
            }
        }
        self.publish(Addresses::resolved(sockets));
    }

    /// A lookup failed: addresses that were good are kept.
    pub(super) fn resolution_failed(&self, why: &str) {
        let last = self.addresses.load();
        let state = match last.state {
            Resolution::Resolved => Resolution::Resolved,
            Resolution::Unresolved | Resolution::Failed => Resolution::Failed,
        };
        self.publish(Addresses {
            state,
            sockets: last.sockets.clone(),
            error: Some(why.to_owned()),
        });
    }

    /// Only the resolver's one task writes, so nothing gets lost in between.
    fn publish(&self, addresses: Addresses) {
        if **self.addresses.load() != addresses {
            self.addresses.store(Arc::new(addresses));
        }
        self.settled.notify_waiters();
    }
}

impl Addresses {
    fn resolved(sockets: Vec<SocketAddr>) -> Self {
        Self {
            state: Resolution::Resolved,
            sockets,
            error: None,
        }
    }
}

impl std::fmt::Debug for Cell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cell")
            .field("endpoint", &self.endpoint)
            .field("addresses", &self.addresses.load())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(url: &str) -> Cell {
        Cell::new(url.parse().expect("an endpoint"), None)
    }

    /// Where the next request goes first.
    fn next(cell: &Cell) -> Option<SocketAddr> {
        cell.address(cell.rotation(), 0)
    }

    fn addresses(list: &[&str]) -> Vec<IpAddr> {
        list.iter()
            .map(|address| address.parse().unwrap())
            .collect()
    }

    #[test]
    fn an_address_needs_no_lookup() {
        for (url, socket) in [
            ("http://127.0.0.1:9001", "127.0.0.1:9001"),
            ("http://[::1]:9001", "[::1]:9001"),
            ("https://192.0.2.1", "192.0.2.1:443"),
        ] {
            let cell = cell(url);
            assert!(!cell.needs_lookup(), "{url}");
            assert_eq!(cell.addresses().state, Resolution::Resolved);
            assert_eq!(next(&cell), Some(socket.parse().unwrap()));
        }
    }

    #[test]
    fn an_override_needs_no_lookup() {
        let endpoint = "http://cell-tier1:9001".parse().unwrap();
        let cell = Cell::new(endpoint, Some("127.0.0.2".parse().unwrap()));
        assert!(!cell.needs_lookup());
        assert_eq!(next(&cell), Some("127.0.0.2:9001".parse().unwrap()));
    }

    #[test]
    fn attempts_of_one_request_differ_whatever_others_do() {
        let cell = cell("http://cell:80");
        assert_eq!(next(&cell), None);
        cell.resolved(&addresses(&["10.0.0.1", "10.0.0.2", "::1", "10.0.0.1"]));
        assert_eq!(cell.addresses().sockets.len(), 3, "duplicates are dropped");

        let rotation = cell.rotation();
        let mut seen = Vec::new();
        for attempt in 0..3 {
            // Other requests come and go between our attempts.
            cell.rotation();
            cell.rotation();
            seen.push(cell.address(rotation, attempt).unwrap());
        }
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), 3);
        assert_eq!(cell.address(usize::MAX, 1), cell.address(0, 0));
    }

    #[test]
    fn requests_go_round_all_addresses() {
        let cell = cell("http://cell:80");
        cell.resolved(&addresses(&["10.0.0.1", "10.0.0.2"]));
        let first: Vec<_> = (0..4).map(|_| next(&cell)).collect();
        assert_eq!(first[0], first[2]);
        assert_eq!(first[1], first[3]);
        assert_ne!(first[0], first[1]);
    }

    #[test]
    fn a_failure_keeps_the_last_good_addresses() {
        let cell = cell("http://cell:80");
        cell.resolution_failed("no such host");
        assert_eq!(cell.addresses().state, Resolution::Failed);
        assert_eq!(cell.last_error().as_deref(), Some("no such host"));
        assert_eq!(next(&cell), None);

        cell.resolved(&addresses(&["10.0.0.1"]));
        assert_eq!(cell.last_error(), None);
        cell.resolution_failed("timed out");
        assert_eq!(cell.addresses().state, Resolution::Resolved);
        assert_eq!(cell.last_error().as_deref(), Some("timed out"));
        assert_eq!(next(&cell), Some("10.0.0.1:80".parse().unwrap()));
    }

    #[tokio::test]
    async fn the_first_resolution_ends_the_wait_either_way() {
        for fail in [false, true] {
            let cell = Arc::new(cell("http://cell:80"));
            let waiting = tokio::spawn({
                let cell = Arc::clone(&cell);
                async move { cell.first_resolution().await }
            });
            tokio::task::yield_now().await;
            assert!(!waiting.is_finished());
            if fail {
                cell.resolution_failed("no such host");
            } else {
                cell.resolved(&addresses(&["10.0.0.1"]));
            }
            waiting.await.unwrap();
            // And it stays over.
            cell.first_resolution().await;
        }
    }
}
