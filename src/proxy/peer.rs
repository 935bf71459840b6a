//! The proxy library's description of one address of a cell.

use std::net::SocketAddr;
use std::time::Duration;

use pingora::upstreams::peer::HttpPeer;

use crate::routing::{Endpoint, Scheme};

/// Deadlines of a connection to a cell.
#[derive(Clone, Copy, Debug)]
pub(super) struct PeerTimeouts {
    /// TCP and TLS together.
    pub connect: Duration,
    /// One write of at most 64 KiB.
    pub write: Duration,
    /// One read, as a last resort.
    pub read: Duration,
    /// An idle connection in the pool.
    pub idle: Duration,
}

/// A peer at `address`. An https endpoint is verified by its host name: the SNI
/// is never empty, for an empty one would turn verification off.
///
/// The client's connection sees the bytes of both directions and keeps the
/// deadlines of the exchange, so that a long upload is not taken for a silent
/// cell. Only while a cell takes no more of a request body is that connection
/// not asked; the read deadline is for this case and longer than all others.
pub(super) fn peer(endpoint: &Endpoint, address: SocketAddr, timeouts: PeerTimeouts) -> HttpPeer {
    let tls = endpoint.scheme == Scheme::Https;
    let sni = if tls {
        endpoint.host.clone()
    } else {
        String::new()
    };
    let mut peer = HttpPeer::new(address, tls, sni);
    peer.options.connection_timeout = Some(timeouts.connect);
    peer.options.total_connection_timeout = Some(timeouts.connect);
    peer.options.write_timeout = Some(timeouts.write);
    peer.options.read_timeout = Some(timeouts.read);
    peer.options.idle_timeout = Some(timeouts.idle);
    peer
}
