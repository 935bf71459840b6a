//! Limits on open connections.
//!
//! Edges and API clients have limits of their own, so that API clients cannot keep edges out: a
//! connection with a request for anything but `/connect` needs one of the few API slots. One client
//! address has at most half of all slots with connections that are not edges.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The slots of all connections.
pub struct ConnectionLimits {
    all: Arc<Semaphore>,
    api: Arc<Semaphore>,
    /// Connections that are not edges, by client address.
    by_address: Mutex<HashMap<IpAddr, usize>>,
    max_by_address: usize,
}

/// The slot of one connection, given back when dropped.
pub struct ConnectionSlot {
    limits: Arc<ConnectionLimits>,
    address: IpAddr,
    state: Mutex<State>,
    _permit: OwnedSemaphorePermit,
}

enum State {
    /// No request yet, or only one for `/connect`.
    New,
    Api {
        _permit: OwnedSemaphorePermit,
    },
    Edge,
}

impl ConnectionLimits {
    /// Slots for `edges` edges and `api_clients` API clients.
    pub fn new(edges: usize, api_clients: usize) -> Arc<Self> {
        let all = edges
            .saturating_add(api_clients)
            .min(Semaphore::MAX_PERMITS);
        Arc::new(Self {
            all: Arc::new(Semaphore::new(all)),
            api: Arc::new(Semaphore::new(api_clients.min(all))),
            by_address: Mutex::default(),
            max_by_address: (all / 2).max(1),
        })
    }

    /// A slot for a connection from `address`, if one is free.
    pub fn accept(self: &Arc<Self>, address: IpAddr) -> Option<Arc<ConnectionSlot>> {
        let permit = Arc::clone(&self.all).try_acquire_owned().ok()?;
        let from = network(address);
        let mut all = lock(&self.by_address);
        let count = all.entry(from).or_default();
        if *count >= self.max_by_address {
            return None;
        }
        *count += 1;
        drop(all);
        Some(Arc::new(ConnectionSlot {
            limits: Arc::clone(self),
            address: from,
            state: Mutex::new(State::New),
            _permit: permit,
        }))
    }

    fn release(&self, from: IpAddr) {
        let mut all = lock(&self.by_address);
        if let Some(count) = all.get_mut(&from) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                all.remove(&from);
            }
        }
    }
}

impl ConnectionSlot {
    /// Marks the connection as an API client. False: there are too many.
    pub fn use_api(&self) -> bool {
        let mut state = lock(&self.state);
        if let State::New = *state {
            let Ok(permit) = Arc::clone(&self.limits.api).try_acquire_owned() else {
                return false;
            };
            *state = State::Api { _permit: permit };
        }
        true
    }

    /// Marks the connection as an edge, for as long as this value lives.
    pub fn become_edge(&self) {
        let before = std::mem::replace(&mut *lock(&self.state), State::Edge);
        if !matches!(before, State::Edge) {
            self.limits.release(self.address);
        }
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        if !matches!(*lock(&self.state), State::Edge) {
            self.limits.release(self.address);
        }
    }
}

/// What counts as one client: an IPv4 address, or a /64 network of IPv6.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into()
        }
        address => address,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    #[test]
    fn api_clients_do_not_take_the_slots_of_edges() {
        let limits = ConnectionLimits::new(4, 2);
        let clients: Vec<_> = (0..3)
            .map(|host| limits.accept(at(host)).unwrap())
            .collect();
        let accepted: Vec<_> = clients.iter().map(|slot| slot.use_api()).collect();
        assert_eq!(accepted, [true, true, false]);
        assert!(clients[0].use_api(), "it keeps its slot");
        drop(clients);
        // An edge that used the API before gives the API slot back.
        let edges: Vec<_> = (0..4)
            .map(|host| limits.accept(at(host)).unwrap())
            .collect();
        for edge in &edges {
            assert!(edge.use_api());
            edge.become_edge();
        }
        let others: Vec<_> = (0..2)
            .map(|host| limits.accept(at(host)).unwrap())
            .collect();
        assert!(others.iter().all(|other| other.use_api()));
        assert!(limits.accept(at(9)).is_none());
        drop(edges);
        assert!(limits.accept(at(9)).is_some());
    }

    #[test]
    fn no_address_gets_all_slots() {
        let limits = ConnectionLimits::new(6, 4);
        let mut of_one: Vec<_> = (0..5).map(|_| limits.accept(at(1)).unwrap()).collect();
        assert!(limits.accept(at(1)).is_none());
        let mapped = "::ffff:192.0.2.1".parse().unwrap();
        assert!(limits.accept(mapped).is_none());
        assert!(limits.accept(at(2)).is_some());
        // An edge does not count, and is not counted twice when it leaves.
        of_one[0].become_edge();
        of_one[0].become_edge();
        let more = limits.accept(at(1)).unwrap();
        assert!(limits.accept(at(1)).is_none());
        of_one.remove(0);
        assert!(limits.accept(at(1)).is_none());
        drop((of_one, more));
        assert!(lock(&limits.by_address).is_empty());
        assert_eq!(limits.all.available_permits(), 10);
    }

    #[test]
    fn an_ipv6_network_is_one_client() {
        let of = |text: &str| network(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:2"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:192.0.2.1"), at(1));
    }
}
