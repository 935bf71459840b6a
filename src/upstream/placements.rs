//! The placements of one generation, and the registry that binds them to what the edge
//! already knows of each placement and endpoint.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::ops::Deref;
use std::sync::{Arc, Weak};
use std::time::Instant;

use http::HeaderValue;
use tokio::sync::watch;

use super::backend::uptime;
use super::endpoint::Endpoint;
use super::placement::Placement;
use super::placement_state::PlacementState;
use crate::table::{self, PlacementId, Problem, RoutingTable};
use crate::telemetry::metrics::Metrics;

/// The placements of one generation, by [`PlacementId`]. Cheap to clone: a request keeps
/// them to its end, and so does not keep the keys of its generation in memory.
#[derive(Clone, Debug, Default)]
pub struct Placements(Arc<[Placement]>);

impl Placements {
    /// The placement `id` of the table that these placements were bound to.
    ///
    /// # Panics
    /// May panic when `id` is another table's.
    pub fn get(&self, id: PlacementId) -> &Placement {
        &self.0[id.index()]
    }

    /// The ids of all placements, in the order of the table.
    pub fn ids(&self) -> impl Iterator<Item = PlacementId> + use<> {
        // A table has fewer than 2^32 placements.
        (0..self.len() as u32).map(PlacementId)
    }

    /// Whether both are the placements of the same generation, or of generations that
    /// differ in keys only.
    pub fn ptr_eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// In the order of the table; none before the first generation.
impl Deref for Placements {
    type Target = [Placement];

    fn deref(&self) -> &[Placement] {
        &self.0
    }
}

/// Every placement and endpoint that is still in use, by name. A placement or endpoint
/// that a new table names again keeps its state: health, breakers, requests in flight,
/// addresses.
pub struct Registry {
    states: HashMap<String, Weak<PlacementState>>,
    /// By the name of the placement and the endpoint.
    endpoints: HashMap<(String, table::Endpoint), Weak<Endpoint>>,
    current: watch::Sender<Placements>,
    /// Endpoints of `current`.
    current_endpoints: usize,
    /// Placements that `current` replaced and that requests may still hold. Kept here so
    /// that the last of these requests does not pay for freeing thousands of placements.
    replaced: Vec<Placements>,
    /// Placements were bound or freed since the last sweep, so that there may be endpoints and
    /// states which nothing holds.
    unswept: bool,
    /// Notified when the addresses of any endpoint change.
    addresses: watch::Sender<()>,
    /// Addresses of hosts that are not looked up, by host in lower case.
    hosts: HashMap<String, IpAddr>,
    metrics: Arc<Metrics>,
}

impl Registry {
    /// A registry without placements. The hosts in `hosts` have the address given there
    /// and are not looked up.
    pub fn new(hosts: HashMap<String, IpAddr>, metrics: Arc<Metrics>) -> Self {
        uptime(Instant::now());
        let hosts = hosts
            .into_iter()
            // As endpoints have them.
            .map(|(host, address)| (host.to_ascii_lowercase(), address))
            .collect();
        Self {
            states: HashMap::new(),
            endpoints: HashMap::new(),
            current: watch::Sender::default(),
            current_endpoints: 0,
            replaced: Vec::new(),
            unswept: false,
            addresses: watch::Sender::new(()),
            hosts,
            metrics,
        }
    }

    /// The current placements. Not notified of changes of keys only.
    pub fn watch(&self) -> watch::Receiver<Placements> {
        self.current.subscribe()
    }

    /// Notified when the addresses of any endpoint change.
    pub fn watch_addresses(&self) -> watch::Receiver<()> {
        self.addresses.subscribe()
    }

    /// The placements of `table`.
    ///
    /// # Errors
    /// Names of placements that cannot be the value of a header.
    pub fn bind(&mut self, table: &RoutingTable) -> Result<Placements, Vec<Problem>> {
        // Also if the table is refused.
        self.unswept = true;
        let mut problems = Vec::new();
        let mut placements = Vec::with_capacity(table.placements().len());
        for placement in table.placements() {
            match HeaderValue::from_str(&placement.name) {
                Ok(name) => placements.push(self.bind_one(placement, name)),
                Err(_) => problems.push(Problem::without_place(format!(
                    "the placement name {:?} cannot be a header value",
                    placement.name
                ))),
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        Ok(Placements(placements.into()))
    }

    fn bind_one(&mut self, placement: &table::Placement, name_header: HeaderValue) -> Placement {
        let name = &placement.name;
        let known = self.states.get(name).and_then(Weak::upgrade);
        let state = known.unwrap_or_else(|| {
            let metrics = self.metrics.placement(name);
            let state = PlacementState::new(name, metrics, self.addresses.clone());
            let state = Arc::new(state);
            self.states.insert(name.clone(), Arc::downgrade(&state));
            state
        });
        let endpoints = placement.endpoints.iter().map(|weighted| {
            let endpoint = &weighted.endpoint;
            let key = (name.clone(), endpoint.clone());
            let known = self.endpoints.get(&key).and_then(Weak::upgrade);
            let endpoint = known.unwrap_or_else(|| {
                let address = self.hosts.get(&endpoint.host).copied();
                let endpoint = Endpoint::new(endpoint.clone(), address, Arc::clone(&state));
                let endpoint = Arc::new(endpoint);
                self.endpoints.insert(key, Arc::downgrade(&endpoint));
                endpoint
            });
            (endpoint, weighted.weight)
        });
        let endpoints = endpoints.collect();
        Placement::new(
            name_header,
            state,
            Arc::clone(&placement.policy),
            placement.fallback,
            endpoints,
        )
    }

    /// Makes `placements` the current ones.
    pub fn replace(&mut self, placements: Placements) {
        if placements.ptr_eq(&self.current.borrow()) {
            return;
        }
        let endpoints = placements.iter().map(|it| it.endpoints().len());
        self.current_endpoints = endpoints.sum();
        let old = self.current.send_replace(placements);
        self.replaced.push(old);
    }

    /// Frees replaced placements that nobody holds any more, and forgets the endpoints and
    /// the metrics that only they had. Costs next to nothing while only keys change, also if
    /// requests hold replaced placements.
    pub fn sweep(&mut self) {
        let before = self.replaced.len();
        // A count of one does not grow again: whoever clones holds one as well.
        self.replaced
            .retain(|placements| Arc::strong_count(&placements.0) > 1);
        let freed = self.replaced.len() < before;
        if !std::mem::take(&mut self.unswept) && !freed {
            return;
        }
        if self.endpoints.len() > self.current_endpoints {
            self.endpoints
                .retain(|_, endpoint| Weak::strong_count(endpoint) > 0);
        }
        if self.states.len() > self.current.borrow().len() {
            self.states.retain(|_, state| Weak::strong_count(state) > 0);
            self.metrics
                .forget_placements_except(&|name| self.states.contains_key(name));
        }
    }

    /// Shows the requests in flight at placements that are no longer current.
    pub fn show_replaced(&self) {
        let current = self.current.borrow();
        if self.states.len() <= current.len() {
            return;
        }
        let current: HashSet<&str> = current.iter().map(|it| it.state.name.as_str()).collect();
        for state in self.states.values().filter_map(Weak::upgrade) {
            if !current.contains(state.name.as_str()) {
                state.metrics.show(state.in_flight(), 0, 0);
            }
        }
    }
}
