//! How many connections there may be, and whose.
//!
//! There is room for so many edges and for so many others, and others do not take
//! the room of edges: a connection that asks for anything but `/connect` needs one
//! of the few places of those that do. No address has more than half of all places
//! with connections that have become no edge yet.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// All places.
pub struct Places {
    all: Arc<Semaphore>,
    asking: Arc<Semaphore>,
    /// Connections that are no edge's, by where they come from.
    from: Mutex<HashMap<IpAddr, usize>>,
    most_from_one: usize,
}

/// The place of one connection.
pub struct Place {
    places: Arc<Places>,
    from: IpAddr,
    state: Mutex<State>,
    _permit: OwnedSemaphorePermit,
}

enum State {
    /// It has asked for nothing yet, or to be an edge.
    New,
    Asking {
        _permit: OwnedSemaphorePermit,
    },
    Edge,
}

impl Places {
    /// For so many edges, and so many others.
    pub fn new(edges: usize, others: usize) -> Arc<Self> {
        let all = edges.saturating_add(others).min(Semaphore::MAX_PERMITS);
        Arc::new(Self {
            all: Arc::new(Semaphore::new(all)),
            asking: Arc::new(Semaphore::new(others.min(all))),
            from: Mutex::default(),
            most_from_one: (all / 2).max(1),
        })
    }

    /// A place for a connection that comes from `address`, if there is one.
    pub fn enter(self: &Arc<Self>, address: IpAddr) -> Option<Arc<Place>> {
        let permit = Arc::clone(&self.all).try_acquire_owned().ok()?;
        let from = network(address);
        let mut all = lock(&self.from);
        let count = all.entry(from).or_default();
        if *count >= self.most_from_one {
            return None;
        }
        *count += 1;
        drop(all);
        Some(Arc::new(Place {
            places: Arc::clone(self),
            from,
            state: Mutex::new(State::New),
            _permit: permit,
        }))
    }

    fn left(&self, from: IpAddr) {
        let mut all = lock(&self.from);
        if let Some(count) = all.get_mut(&from) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                all.remove(&from);
            }
        }
    }
}

impl Place {
    /// The connection asks for something that is no edge's. False: too many do.
    pub fn ask(&self) -> bool {
        let mut state = lock(&self.state);
        if let State::New = *state {
            let Ok(permit) = Arc::clone(&self.places.asking).try_acquire_owned() else {
                return false;
            };
            *state = State::Asking { _permit: permit };
        }
        true
    }

    /// The connection is an edge's from here on, for as long as this value lives.
    pub fn become_edge(&self) {
        let before = std::mem::replace(&mut *lock(&self.state), State::Edge);
        if !matches!(before, State::Edge) {
            self.places.left(self.from);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !matches!(*lock(&self.state), State::Edge) {
            self.places.left(self.from);
        }
    }
}

/// What one client has: a whole /64 of IPv6.
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
    fn who_asks_does_not_take_the_place_of_edges() {
        let places = Places::new(4, 2);
        let asking: Vec<_> = (0..3).map(|host| places.enter(at(host)).unwrap()).collect();
        let asked: Vec<_> = asking.iter().map(|place| place.ask()).collect();
        assert_eq!(asked, [true, true, false]);
        assert!(asking[0].ask(), "once it may, it may go on");
        drop(asking);
        // An edge that first asked for something else gives that place back.
        let edges: Vec<_> = (0..4).map(|host| places.enter(at(host)).unwrap()).collect();
        for edge in &edges {
            assert!(edge.ask());
            edge.become_edge();
        }
        let others: Vec<_> = (0..2).map(|host| places.enter(at(host)).unwrap()).collect();
        assert!(others.iter().all(|other| other.ask()));
        assert!(places.enter(at(9)).is_none());
        drop(edges);
        assert!(places.enter(at(9)).is_some());
    }

    #[test]
    fn no_address_has_all_places() {
        let places = Places::new(6, 4);
        let mut of_one: Vec<_> = (0..5).map(|_| places.enter(at(1)).unwrap()).collect();
        assert!(places.enter(at(1)).is_none());
        let mapped = "::ffff:192.0.2.1".parse().unwrap();
        assert!(places.enter(mapped).is_none());
        assert!(places.enter(at(2)).is_some());
        // What has become an edge does not count, and counts not twice when it leaves.
        of_one[0].become_edge();
        of_one[0].become_edge();
        let more = places.enter(at(1)).unwrap();
        assert!(places.enter(at(1)).is_none());
        of_one.remove(0);
        assert!(places.enter(at(1)).is_none());
        drop((of_one, more));
        assert!(lock(&places.from).is_empty());
        assert_eq!(places.all.available_permits(), 10);
    }

    #[test]
    fn a_network_of_ipv6_is_one_client() {
        let of = |text: &str| network(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:2"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:192.0.2.1"), at(1));
    }
}
