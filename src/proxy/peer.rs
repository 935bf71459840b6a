//! The proxy library's description of one address of a cell.

use std::time::Duration;

use pingora::protocols::l4::ext::TcpKeepalive;
use pingora::upstreams::peer::HttpPeer;

use crate::upstream::Backend;

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
    /// One read, as a last resort; none where the client's connection is asked at all
    /// times.
    pub read: Option<Duration>,
    /// An idle connection in the pool.
    pub idle: Duration,
}

/// `backend` as a peer, with the deadlines of a request.
///
/// The client's connection sees the bytes of both directions and keeps the
/// deadlines of the exchange, so that a long upload is not taken for a silent
/// cell. Only while a cell takes no more of a request body is that connection
/// not asked: the kernel ends this one, a moment after the write deadline, which
/// by itself has the proxy library wait for an early answer. The read deadline
/// is for where the kernel does not, and longer than all others: a timer for each
/// read, which a request without a body does without.
pub(super) fn peer(backend: &Backend, timeouts: PeerTimeouts) -> HttpPeer {
    let mut peer = backend.peer();
    peer.options.connection_timeout = Some(timeouts.connect);
    peer.options.total_connection_timeout = Some(timeouts.connect);
    peer.options.write_timeout = Some(timeouts.write);
    peer.options.read_timeout = timeouts.read;
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

/// Has the request sent on a connection of its own, which is closed after it.
pub(super) fn keep_apart(peer: &mut HttpPeer) {
    // Part of what the pool of kept connections is searched by.
    peer.group_key = rand::random();
    peer.options.idle_timeout = Some(Duration::ZERO);
}
