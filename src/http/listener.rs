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

use super::conn::{Client, ClientConn, ConnConfig, Transport};
use super::lifecycle::{Accepting, Lifecycle};
use crate::telemetry::Metrics;

/// Connections that the kernel may queue; it caps this at `net.core.somaxconn`.
const BACKLOG: i32 = 65_535;
/// Pause after accept failed for want of descriptors, so that some can be closed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long handshakes that have begun may take to complete once listening stops.
const LAST_HANDSHAKES: Duration = Duration::from_millis(100);
/// At most one log line of the same kind in this time.
const LOG_INTERVAL: Duration = Duration::from_secs(10);
/// The answer to a client over the connection limit.
const OVERLOADED: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\n\
    Content-Type: application/json\r\nContent-Length: 73\r\nRetry-After: 1\r\n\
    Connection: close\r\n\r\n\
    {\"error\":\"overloaded\",\"message\":\"too many client connections, try again\"}";

/// Binds a listening socket at once, so that a port in use is known before
/// anything else starts.
///
/// # Errors
/// The address is in use, not one of this host, or not permitted.
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

/// Takes over a listening socket that another process handed over.
///
/// # Errors
/// The descriptor is not a socket.
///
/// # Safety
/// `fd` must be open and owned by nobody else.
pub unsafe fn inherit(fd: RawFd) -> io::Result<StdListener> {
    // SAFETY: the caller guarantees it.
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
    /// A service for `listeners` that holds at most `max_connections` at a time.
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

    /// Counts refused connections in `metrics`.
    pub fn with_metrics(mut self, metrics: Arc<Metrics>) -> Self {
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
                // Counted here, not in the task: the count must not be 0 only because no
                // loop was polled yet.
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
    let mut limit = LogLimit::default();
    loop {
        let accepted = tokio::select! {
            biased;
            order = stop_order(&mut orders) => {
                if order == Accepting::Closed {
                    accept_rest(listener, shared, shutdown, &mut limit).await;
                }
                return;
            }
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => serve(stream, peer, shared, shutdown, &mut limit),
            Err(error) if is_connection_error(&error) => {}
            Err(error) => {
                if limit.due() {
                    error!("accept failed: {error}; clients wait until it succeeds again");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Returns when accepting is to end, and how.
async fn stop_order(orders: &mut watch::Receiver<Accepting>) -> Accepting {
    match orders.wait_for(|order| *order != Accepting::Open).await {
        Ok(order) => *order,
        Err(_) => Accepting::Closed,
    }
}

/// Serves the connections that the kernel completes before listening stops: closing the
/// socket would reset them, with their requests.
async fn accept_rest<A: HttpServerApp + Send + Sync + 'static>(
    listener: &TcpListener,
    shared: &Arc<Shared<A>>,
    shutdown: &ShutdownWatch,
    limit: &mut LogLimit,
) {
    if let Err(error) = SockRef::from(listener).attach_filter(&drop_new_handshakes()) {
        info!("cannot filter new handshakes before closing a listener: {error}");
    }
    // Handshakes that were answered before the filter complete now.
    let last = tokio::time::Instant::now() + LAST_HANDSHAKES;
    while let Ok(accepted) = tokio::time::timeout_at(last, listener.accept()).await {
        if let Ok((stream, peer)) = accepted {
            serve(stream, peer, shared, shutdown, limit);
        }
    }
    // Asks the kernel directly: the runtime may not know of the last ones yet.
    loop {
        match SockRef::from(listener).accept() {
            Ok((socket, peer)) => {
                if socket.set_nonblocking(true).is_ok()
                    && let Ok(stream) = TcpStream::from_std(socket.into())
                    && let Some(peer) = peer.as_socket()
                {
                    serve(stream, peer, shared, shutdown, limit);
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
    limit: &mut LogLimit,
) {
    let slot = shared.lifecycle.connection();
    if shared.lifecycle.connections() > shared.max_connections {
        if let Some(metrics) = &shared.metrics {
            metrics.client_connections_refused.inc();
        }
        if limit.due() {
            warn!(
                limit = shared.max_connections;
                "client connection limit reached, refusing connections"
            );
        }
        refuse(stream);
        return;
    }
    // Without it small responses wait for the client's delayed acknowledgement. It fails
    // only on a connection that is gone, which the next read shows.
    let _ = stream.set_nodelay(true);
    let client = Client::new(peer, stream.local_addr().ok(), Transport::Plain);
    let conn = ClientConn::new(Box::new(stream), client, shared.config.clone(), slot);
    let (app, shutdown) = (shared.app.clone(), shutdown.clone());
    pingora_runtime::current_handle().spawn(serve_requests(Box::new(conn), app, shutdown));
}

/// Serves one request after the other.
async fn serve_requests<A: HttpServerApp + Send + Sync + 'static>(
    mut conn: Box<ClientConn>,
    app: Arc<A>,
    shutdown: ShutdownWatch,
) {
    // A session of Pingora has buffers from its start to its end, so there is none before a
    // request.
    while conn.next().await {
        let session = ServerSession::new_http1(conn);
        let Some(reused) = app.process_new_http(session, &shutdown).await else {
            return;
        };
        // The settings that Pingora would carry over are not used here.
        let (stream, _) = reused.consume();
        // It is the one that the session was given.
        let Ok(mut same) = stream.into_any().downcast::<ClientConn>() else {
            return;
        };
        same.request_finished();
        conn = same;
    }
}

/// Answers 503, as far as the socket takes it without waiting.
fn refuse(stream: TcpStream) {
    if let Ok(mut stream) = stream.into_std() {
        // Best effort: an edge at its limit waits for no client.
        let _ = stream.write(OVERLOADED);
        let _ = stream.shutdown(std::net::Shutdown::Write);
    }
}

/// Keeps one kind of line from filling the log.
#[derive(Default)]
struct LogLimit {
    last: Option<tokio::time::Instant>,
}

impl LogLimit {
    fn due(&mut self) -> bool {
        let now = tokio::time::Instant::now();
        let due = self.last.is_none_or(|last| now - last >= LOG_INTERVAL);
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
