//! Listening sockets and the accept loop of the proxy's own listeners.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener as StdListener};
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use log::{error, info, warn};
use pingora::services::Service;
use pingora_core::apps::HttpServerApp;
use pingora_core::protocols::http::ServerSession;
use pingora_core::server::{ListenFds, ShutdownWatch};
use socket2::{Domain, Protocol, SockFilter, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::conn::{ClientConn, ConnConfig};
use crate::http::{Accepting, Lifecycle};
use crate::telemetry::Metrics;

/// Connections the kernel may hold for us; it caps this at `net.core.somaxconn`.
const BACKLOG: i32 = 65_535;
/// Pause after the process ran out of descriptors, so that some can be closed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long a handshake that began may take to end once we stop listening.
const LAST_HANDSHAKES: Duration = Duration::from_millis(100);
/// At most one line of the same complaint in this time.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(10);
/// What a client over the connection limit is told.
const OVERLOADED: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\n\
    Content-Type: application/json\r\nContent-Length: 73\r\nRetry-After: 1\r\n\
    Connection: close\r\n\r\n\
    {\"error\":\"overloaded\",\"message\":\"too many client connections, try again\"}";

/// Binds a listening socket at once, so that a port in use is known before
/// anything else starts.
///
/// # Errors
/// Whatever the system says: the address is in use, not ours, or not permitted.
pub fn bind(address: SocketAddr) -> io::Result<StdListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Takes over a listening socket that another process handed to this one.
///
/// # Errors
/// The descriptor is not a socket.
///
/// # Safety
/// `fd` must be open and owned by nobody else.
pub unsafe fn inherit(fd: RawFd) -> io::Result<StdListener> {
    // SAFETY: the caller vouches for it.
    let socket = Socket::from(unsafe { OwnedFd::from_raw_fd(fd) });
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Serves HTTP on its listening sockets, each connection through a [`ClientConn`].
pub struct EdgeListener<A> {
    name: &'static str,
    threads: Option<usize>,
    /// The accept loops' sockets, taken when the service starts.
    listeners: Vec<StdListener>,
    shared: Arc<Shared<A>>,
}

struct Shared<A> {
    app: Arc<A>,
    config: Arc<ConnConfig>,
    max_connections: usize,
    lifecycle: Arc<Lifecycle>,
    metrics: Option<Arc<Metrics>>,
}

impl<A: HttpServerApp + Send + Sync + 'static> EdgeListener<A> {
    /// A service for `listeners`, which holds at most `max_connections` at a time.
    pub fn new(
        name: &'static str,
        listeners: Vec<StdListener>,
        app: A,
        config: ConnConfig,
        max_connections: usize,
        lifecycle: Arc<Lifecycle>,
    ) -> Self {
        let shared = Shared {
            app: Arc::new(app),
            config: Arc::new(config),
            max_connections,
            lifecycle,
            metrics: None,
        };
        EdgeListener {
            name,
            threads: None,
            listeners,
            shared: Arc::new(shared),
        }
    }

    /// Counts connections that are refused in `metrics`.
    pub fn counted_by(mut self, metrics: Arc<Metrics>) -> Self {
        if let Some(shared) = Arc::get_mut(&mut self.shared) {
            shared.metrics = Some(metrics);
        }
        self
    }

    /// Gives the service `threads` threads instead of as many as the server has.
    pub fn set_threads(&mut self, threads: usize) {
        self.threads = Some(threads);
    }
}

#[async_trait]
impl<A: HttpServerApp + Send + Sync + 'static> Service for EdgeListener<A> {
    async fn start_service(
        &mut self,
        _fds: Option<ListenFds>,
        shutdown: ShutdownWatch,
        listeners_per_fd: usize,
    ) {
        let runtime = pingora_runtime::current_handle();
        for listener in self.listeners.drain(..) {
            let listener = match TcpListener::from_std(listener) {
                Ok(listener) => Arc::new(listener),
                Err(error) => {
                    error!("a listening socket cannot be used: {error}");
                    continue;
                }
            };
            for _ in 0..listeners_per_fd.max(1) {
                // Counted here, not in the task: nobody may find no loop running
                // only because none was polled yet.
                let running = self.shared.lifecycle.listener();
                let shared = self.shared.clone();
                let (listener, shutdown) = (listener.clone(), shutdown.clone());
                runtime.spawn(async move {
                    accept_loop(&listener, &shared, &shutdown).await;
                    drop(listener);
                    drop(running);
                });
            }
        }
        self.shared.lifecycle.set_listening();
        self.shared.lifecycle.listeners_closed().await;
        self.shared.lifecycle.connections_closed().await;
    }

    fn name(&self) -> &str {
        self.name
    }

    fn threads(&self) -> Option<usize> {
        self.threads
    }
}

async fn accept_loop<A: HttpServerApp + Send + Sync + 'static>(
    listener: &TcpListener,
    shared: &Arc<Shared<A>>,
    shutdown: &ShutdownWatch,
) {
    let mut orders = shared.lifecycle.watch_accepting();
    let mut complaints = Complaints::default();
    loop {
        let accepted = tokio::select! {
            biased;
            order = left_open(&mut orders) => {
                if order == Accepting::Closed {
                    accept_rest(listener, shared, shutdown, &mut complaints).await;
                }
                return;
            }
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => serve(stream, peer, shared, shutdown, &mut complaints),
            Err(error) if is_connection_error(&error) => {}
            Err(error) => {
                if complaints.due() {
                    error!("accept failed: {error}; clients wait until it succeeds again");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Returns the order that ends accepting.
async fn left_open(orders: &mut watch::Receiver<Accepting>) -> Accepting {
    match orders.wait_for(|order| *order != Accepting::Open).await {
        Ok(order) => *order,
        Err(_) => Accepting::Closed,
    }
}

/// Serves the connections that the kernel completes before we stop listening:
/// closing the socket would reset them, requests and all.
async fn accept_rest<A: HttpServerApp + Send + Sync + 'static>(
    listener: &TcpListener,
    shared: &Arc<Shared<A>>,
    shutdown: &ShutdownWatch,
    complaints: &mut Complaints,
) {
    if let Err(error) = SockRef::from(listener).attach_filter(&drop_new_handshakes()) {
        info!("cannot stop handshakes before closing a listener: {error}");
    }
    // Clients that were answered before the filter finish their handshakes now.
    let last = tokio::time::Instant::now() + LAST_HANDSHAKES;
    while let Ok(accepted) = tokio::time::timeout_at(last, listener.accept()).await {
        if let Ok((stream, peer)) = accepted {
            serve(stream, peer, shared, shutdown, complaints);
        }
    }
    // Asks the kernel itself: the runtime may not have heard of the last ones yet.
    loop {
        match SockRef::from(listener).accept() {
            Ok((socket, peer)) => {
                if socket.set_nonblocking(true).is_ok()
                    && let Ok(stream) = TcpStream::from_std(socket.into())
                    && let Some(peer) = peer.as_socket()
                {
                    serve(stream, peer, shared, shutdown, complaints);
                }
            }
            Err(error) if is_connection_error(&error) => {}
            Err(_) => return,
        }
    }
}

/// A socket filter (classic BPF, over the TCP header) that drops segments with
/// SYN and without ACK: no handshake begins, those under way complete.
fn drop_new_handshakes() -> [SockFilter; 5] {
    const FLAGS: u32 = 13;
    const SYN: u32 = 0x02;
    const SYN_ACK: u32 = 0x12;
    [
        SockFilter::new(0x30, 0, 0, FLAGS),    // ldb [13]
        SockFilter::new(0x54, 0, 0, SYN_ACK),  // and #0x12
        SockFilter::new(0x15, 0, 1, SYN),      // jeq #0x02, +0, +1
        SockFilter::new(0x06, 0, 0, 0),        // ret #0
        SockFilter::new(0x06, 0, 0, u32::MAX), // ret #-1
    ]
}

/// Errors that concern one connection only (accept(2)).
fn is_connection_error(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

fn serve<A: HttpServerApp + Send + Sync + 'static>(
    stream: TcpStream,
    peer: SocketAddr,
    shared: &Arc<Shared<A>>,
    shutdown: &ShutdownWatch,
    complaints: &mut Complaints,
) {
    let slot = shared.lifecycle.connection();
    if shared.lifecycle.connections() > shared.max_connections {
        if let Some(metrics) = &shared.metrics {
            metrics.client_connections_refused.inc();
        }
        if complaints.due() {
            warn!(
                limit = shared.max_connections;
                "client connection limit reached, refusing connections"
            );
        }
        refuse(stream);
        return;
    }
    // Without it small responses wait for the client's delayed acknowledgement.
    // It fails only on a connection that is gone, which the next read finds out.
    let _ = stream.set_nodelay(true);
    let conn = ClientConn::new(stream, peer, shared.config.clone(), slot);
    let (app, shutdown) = (shared.app.clone(), shutdown.clone());
    pingora_runtime::current_handle().spawn(converse(Box::new(conn), app, shutdown));
}

/// Serves one request after the other.
async fn converse<A: HttpServerApp + Send + Sync + 'static>(
    mut conn: Box<ClientConn>,
    app: Arc<A>,
    shutdown: ShutdownWatch,
) {
    // The library has its buffers from the start of a session to its end.
    while conn.next().await {
        let session = ServerSession::new_http1(conn);
        let Some(reused) = app.process_new_http(session, &shutdown).await else {
            return;
        };
        // What the library would keep beside it are settings that nobody here sets.
        let (stream, _) = reused.consume();
        // It is the one that the session was given.
        let Ok(same) = stream.into_any().downcast::<ClientConn>() else {
            return;
        };
        same.request_finished();
        conn = same;
    }
}

/// Tells the client why, as far as its socket takes it without waiting.
fn refuse(stream: TcpStream) {
    if let Ok(mut stream) = stream.into_std() {
        // Best effort by design: an edge that is full waits for nobody.
        let _ = stream.write(OVERLOADED);
        let _ = stream.shutdown(std::net::Shutdown::Write);
    }
}

/// Keeps one complaint from filling the log.
#[derive(Default)]
struct Complaints {
    last: Option<tokio::time::Instant>,
}

impl Complaints {
    fn due(&mut self) -> bool {
        let now = tokio::time::Instant::now();
        let due = self
            .last
            .is_none_or(|last| now - last >= COMPLAINT_INTERVAL);
        if due {
            self.last = Some(now);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_overload_answer_is_framed_right() {
        let text = String::from_utf8_lossy(OVERLOADED);
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_default();
        assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())));
        assert!(serde_json::from_str::<serde_json::Value>(body).is_ok());
    }

    #[test]
    fn binding_a_port_in_use_fails_at_once() -> io::Result<()> {
        let first = bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
        let error = bind(first.local_addr()?).map(drop);
        assert_eq!(
            error.map_err(|error| error.kind()),
            Err(io::ErrorKind::AddrInUse)
        );
        Ok(())
    }
}
