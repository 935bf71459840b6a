//! An endpoint: a URL of a cell, and the addresses that its host resolves to.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use arc_swap::ArcSwap;
use http::HeaderValue;
use serde::Serialize;

use super::backend::Backend;
use super::placement_state::PlacementState;
use crate::table;

/// One endpoint of one placement, shared by the generations that name it. It keeps the
/// state of its backends.
pub struct Endpoint {
    pub origin: Arc<Origin>,
    /// Of its placement.
    state: Arc<PlacementState>,
    lookup: Lookup,
    addresses: ArcSwap<Addresses>,
}

/// An endpoint in the forms that requests need.
#[derive(Debug)]
pub struct Origin {
    pub endpoint: table::Endpoint,
    /// The canonical URL.
    pub url: String,
    /// Host and port as the value of a Host header: without the default port of the scheme
    /// (RFC 9110 §7.2).
    pub authority: HeaderValue,
}

impl Origin {
    fn new(endpoint: table::Endpoint) -> Self {
        let authority = endpoint.authority();
        Self {
            url: endpoint.to_string(),
            // A host is ASCII without spaces, so this does not fail.
            authority: HeaderValue::try_from(authority)
                .unwrap_or(HeaderValue::from_static("invalid")),
            endpoint,
        }
    }
}

/// How an endpoint gets its addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lookup {
    /// The host is an address, or the settings have its address.
    Fixed,
    /// The resolver looks the host up.
    ByName,
}

/// The addresses of an endpoint as of the last lookup.
#[derive(Clone, Debug)]
pub struct Addresses {
    pub state: Resolution,
    /// One for each address, without duplicates, in the resolver's order of preference;
    /// empty unless resolved.
    pub backends: Vec<Arc<Backend>>,
    /// Why the last lookup failed, if it did. With [`Resolution::Resolved`], the addresses
    /// are those of the last lookup that succeeded.
    pub error: Option<String>,
}

/// The state of the lookups of an endpoint's host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Resolution {
    /// The first lookup is pending.
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

impl Endpoint {
    /// An endpoint of the placement of `state`. It needs no lookup if its host is an
    /// address or if `known` is given; else it waits for the resolver.
    pub(crate) fn new(
        endpoint: table::Endpoint,
        known: Option<IpAddr>,
        state: Arc<PlacementState>,
    ) -> Self {
        let address = known.or_else(|| endpoint.host.parse().ok());
        let this = Self {
            origin: Arc::new(Origin::new(endpoint)),
            state,
            lookup: match address {
                Some(_) => Lookup::Fixed,
                None => Lookup::ByName,
            },
            addresses: ArcSwap::from_pointee(Addresses {
                state: Resolution::Unresolved,
                backends: Vec::new(),
                error: None,
            }),
        };
        if let Some(address) = address {
            this.resolved(&[address]);
        }
        this
    }

    /// The addresses as of now.
    pub fn addresses(&self) -> Arc<Addresses> {
        self.addresses.load_full()
    }

    /// Returns when the first lookup has succeeded or failed.
    pub async fn first_resolution(&self) {
        let resolved = || self.addresses.load().state != Resolution::Unresolved;
        self.state.addresses_until(resolved).await;
    }

    /// Why the last lookup failed; none if it did not.
    pub fn last_error(&self) -> Option<String> {
        self.addresses.load().error.clone()
    }

    /// Whether the resolver has to look up this endpoint's host.
    pub(crate) fn needs_lookup(&self) -> bool {
        self.lookup == Lookup::ByName
    }

    /// Records the result of a lookup, which is never empty. Known addresses keep their
    /// backends.
    pub(crate) fn resolved(&self, addresses: &[IpAddr]) {
        let last = self.addresses.load();
        let mut backends: Vec<Arc<Backend>> = Vec::with_capacity(addresses.len());
        for address in addresses {
            let socket = SocketAddr::new(*address, self.origin.endpoint.port);
            let same = |backend: &&Arc<Backend>| backend.address == socket;
            if backends.iter().any(|backend| same(&backend)) {
                continue;
            }
            backends.push(match last.backends.iter().find(same) {
                Some(backend) => Arc::clone(backend),
                None => Arc::new(Backend::new(
                    socket,
                    Arc::clone(&self.origin),
                    self.state.metrics.clone(),
                )),
            });
        }
        self.publish(
            &last,
            Addresses {
                state: Resolution::Resolved,
                backends,
                error: None,
            },
        );
    }

    /// Records that a lookup failed. The addresses of the last one are kept.
    pub(crate) fn resolution_failed(&self, why: &str) {
        let last = self.addresses.load();
        let state = match last.state {
            Resolution::Resolved => Resolution::Resolved,
            Resolution::Unresolved | Resolution::Failed => Resolution::Failed,
        };
        self.publish(
            &last,
            Addresses {
                state,
                backends: last.backends.clone(),
                error: Some(why.to_owned()),
            },
        );
    }

    /// Only the resolver's task writes, so no update is lost.
    fn publish(&self, last: &Addresses, new: Addresses) {
        let moved = last.state != new.state || !last.same_backends(&new);
        if moved || last.error != new.error {
            self.addresses.store(Arc::new(new));
        }
        if moved {
            self.state.addresses_changed();
        }
    }
}

impl Addresses {
    fn same_backends(&self, other: &Self) -> bool {
        self.backends.len() == other.backends.len()
            && self
                .backends
                .iter()
                .zip(&other.backends)
                .all(|(one, other)| Arc::ptr_eq(one, other))
    }
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint")
            .field("endpoint", &self.origin.endpoint)
            .field("addresses", &self.addresses.load())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::watch;

    use crate::telemetry::metrics::Metrics;

    fn with(url: &str, known: Option<&str>) -> Endpoint {
        let metrics = Metrics::new().placement("tier1");
        let state = PlacementState::new("tier1", metrics, watch::Sender::new(()));
        let known = known.map(|address| address.parse().unwrap());
        Endpoint::new(url.parse().expect("an endpoint"), known, Arc::new(state))
    }

    fn endpoint(url: &str) -> Endpoint {
        with(url, None)
    }

    fn sockets(endpoint: &Endpoint) -> Vec<String> {
        let backends = &endpoint.addresses().backends;
        backends
            .iter()
            .map(|backend| backend.address.to_string())
            .collect()
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
            let endpoint = endpoint(url);
            assert!(!endpoint.needs_lookup(), "{url}");
            assert_eq!(endpoint.addresses().state, Resolution::Resolved);
            assert_eq!(sockets(&endpoint), [socket]);
        }
    }

    #[test]
    fn an_override_needs_no_lookup() {
        let endpoint = with("http://cell-tier1:9001", Some("127.0.0.2"));
        assert!(!endpoint.needs_lookup());
        assert_eq!(sockets(&endpoint), ["127.0.0.2:9001"]);
    }

    #[test]
    fn an_address_that_stays_keeps_its_backend() {
        let endpoint = endpoint("http://cell:80");
        assert!(endpoint.needs_lookup());
        assert_eq!(sockets(&endpoint), [""; 0]);
        let before = endpoint.state.changes();
        endpoint.resolved(&addresses(&["10.0.0.1", "10.0.0.2", "::1", "10.0.0.1"]));
        let three = ["10.0.0.1:80", "10.0.0.2:80", "[::1]:80"];
        assert_eq!(sockets(&endpoint), three, "duplicates are dropped");
        let changed = endpoint.state.changes();
        assert_ne!(changed, before);

        let second = Arc::clone(&endpoint.addresses().backends[1]);
        endpoint.resolved(&addresses(&["10.0.0.1", "10.0.0.2", "::1"]));
        assert_eq!(endpoint.state.changes(), changed, "nothing has changed");
        endpoint.resolved(&addresses(&["10.0.0.2", "10.0.0.3"]));
        assert_eq!(sockets(&endpoint), ["10.0.0.2:80", "10.0.0.3:80"]);
        assert!(Arc::ptr_eq(&second, &endpoint.addresses().backends[0]));
        assert_ne!(endpoint.state.changes(), changed);
    }

    #[test]
    fn a_failure_keeps_the_last_good_addresses() {
        let endpoint = endpoint("http://cell:80");
        endpoint.resolution_failed("no such host");
        assert_eq!(endpoint.addresses().state, Resolution::Failed);
        assert_eq!(endpoint.last_error().as_deref(), Some("no such host"));
        assert_eq!(sockets(&endpoint), [""; 0]);

        endpoint.resolved(&addresses(&["10.0.0.1"]));
        assert_eq!(endpoint.last_error(), None);
        endpoint.resolution_failed("timed out");
        assert_eq!(endpoint.addresses().state, Resolution::Resolved);
        assert_eq!(endpoint.last_error().as_deref(), Some("timed out"));
        assert_eq!(sockets(&endpoint), ["10.0.0.1:80"]);
    }

    #[tokio::test]
    async fn the_first_resolution_ends_the_wait_either_way() {
        for fail in [false, true] {
            let endpoint = Arc::new(endpoint("http://cell:80"));
            let waiting = tokio::spawn({
                let endpoint = Arc::clone(&endpoint);
                async move { endpoint.first_resolution().await }
            });
            tokio::task::yield_now().await;
            assert!(!waiting.is_finished());
            if fail {
                endpoint.resolution_failed("no such host");
            } else {
                endpoint.resolved(&addresses(&["10.0.0.1"]));
            }
            waiting.await.unwrap();
            // And it stays over.
            endpoint.first_resolution().await;
        }
    }
}
