//! The proxy library's description of one address of a cell.

use std::net::SocketAddr;
use std::time::Duration;

use pingora::protocols::l4::ext::TcpKeepalive;
use pingora::upstreams::peer::HttpPeer;

use crate::routing::{Endpoint, Scheme};

/// How much later than all other deadlines one of last resort is.
pub(super) const LAST_RESORT: Duration = Duration::from_secs(1);

/// A cell whose machine is gone without a word is found out within two minutes,
/// also by an idle tunnel and in the pool.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_PROBES: usize = 6;

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
/// not asked: the kernel ends this one, a moment after the write deadline, which
/// by itself has the proxy library wait for an early answer. The read deadline
/// is for where the kernel does not, and longer than all others.
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
    peer.options.tcp_keepalive = Some(TcpKeepalive {
        idle: KEEPALIVE_IDLE,
        interval: KEEPALIVE_INTERVAL,
        count: KEEPALIVE_PROBES,
        #[cfg(target_os = "linux")]
        user_timeout: timeouts.write + LAST_RESORT,
    });
    peer
}
