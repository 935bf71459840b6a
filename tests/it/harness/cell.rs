//! Cells that do exactly what a test scripts, down to the byte.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

use super::eventually;
use super::message::{Head, Request};
use super::wire::{Stream, Wire};

type Running = Pin<Box<dyn Future<Output = io::Result<()>> + Send>>;
type Script = Arc<dyn Fn(Conn) -> Running + Send + Sync>;

/// A listener on a free port of 127.0.0.1 that runs a script on each connection. Dropping it closes the
/// listener and every connection.
pub struct Cell {
    pub name: String,
    pub address: SocketAddr,
    seen: Arc<Seen>,
    listening: watch::Sender<bool>,
    accepting: AbortHandle,
}

#[derive(Default)]
struct Seen {
    connections: AtomicUsize,
    open: AtomicUsize,
    most_open: AtomicUsize,
    requests: AtomicUsize,
    recorded: Mutex<Vec<Request>>,
}

/// One connection to a cell, as its script gets it.
pub struct Conn {
    pub wire: Wire,
    pub cell: String,
    seen: Arc<Seen>,
}

impl Cell {
    /// Runs `script` on each connection. The connection closes when the script returns, whether with an error
    /// or not.
    pub async fn scripted<F, R>(name: &str, script: F) -> Cell
    where
        F: Fn(Conn) -> R + Send + Sync + 'static,
        R: Future<Output = io::Result<()>> + Send + 'static,
    {
        Cell::over(name, script, async |stream: TcpStream| Ok(stream)).await
    }

    /// The same behind a handshake, for TLS.
    pub async fn over<F, R, H, S>(name: &str, script: F, handshake: H) -> Cell
    where
        F: Fn(Conn) -> R + Send + Sync + 'static,
        R: Future<Output = io::Result<()>> + Send + 'static,
        H: Handshake<S>,
        S: Stream + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        Cell::on(listener, name, script, handshake)
    }

    fn on<F, R, H, S>(listener: TcpListener, name: &str, script: F, handshake: H) -> Cell
    where
        F: Fn(Conn) -> R + Send + Sync + 'static,
        R: Future<Output = io::Result<()>> + Send + 'static,
        H: Handshake<S>,
        S: Stream + 'static,
    {
        let address = listener.local_addr().expect("an address");
        let seen = Arc::new(Seen::default());
        let script: Script = Arc::new(move |conn| Box::pin(script(conn)));
        let (listening, listens) = watch::channel(true);
        let accepting = accept(
            listener,
            listens,
            name.to_owned(),
            script,
            seen.clone(),
            Arc::new(handshake),
        );
        let accepting = tokio::spawn(accepting).abort_handle();
        Cell {
            name: name.to_owned(),
            address,
            seen,
            listening,
            accepting,
        }
    }

    /// Answers every request with 200, its name, and keep-alive, and records what it was asked.
    pub async fn echo(name: &str) -> Cell {
        Cell::echo_at(name, ([127, 0, 0, 1], 0).into()).await
    }

    /// The same at a given address, for a cell that comes back.
    pub async fn echo_at(name: &str, address: SocketAddr) -> Cell {
        let listener = TcpListener::bind(address)
            .await
            .expect("the address is free");
        let script = |mut conn: Conn| async move {
            while conn.request().await?.is_some() {
                conn.reply().await?;
            }
            Ok(())
        };
        Cell::on(listener, name, script, async |stream: TcpStream| Ok(stream))
    }

    /// Like [`Cell::echo`], but does not record requests: for load.
    pub async fn quiet(name: &str) -> Cell {
        Cell::scripted(name, |mut conn| async move {
            while let Some(head) = conn.wire.head().await? {
                conn.wire.body(head.framing()).await?;
                conn.count();
                conn.reply().await?;
            }
            Ok(())
        })
        .await
    }

    /// Answers every request with these bytes, and records what it was asked.
    pub async fn answering(name: &str, answer: impl AsRef<[u8]>) -> Cell {
        let answer: Arc<[u8]> = answer.as_ref().into();
        Cell::scripted(name, move |mut conn| {
            let answer = answer.clone();
            async move {
                while conn.request().await?.is_some() {
                    conn.wire.send(&answer).await?;
                }
                Ok(())
            }
        })
        .await
    }

    /// An address where nothing listens until the test ends. The port stays bound, so that no other test gets
    /// it.
    pub async fn nobody() -> SocketAddr {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket
            .bind(([127, 0, 0, 1], 0).into())
            .expect("a free port");
        let address = socket.local_addr().expect("an address");
        std::mem::forget(socket);
        address
    }

    /// Closes the listener and leaves the connections that are open.
    pub async fn stop_accepting(&self) {
        self.listening.send_replace(false);
        let address = self.address;
        eventually("nobody listens any more", async || {
            TcpStream::connect(address).await.is_err().then_some(())
        })
        .await;
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> usize {
        self.seen.connections.load(Ordering::SeqCst)
    }

    /// Connections open now.
    pub fn open(&self) -> usize {
        self.seen.open.load(Ordering::SeqCst)
    }

    /// The most connections that were open at a time.
    pub fn most_open(&self) -> usize {
        self.seen.most_open.load(Ordering::SeqCst)
    }

    /// Requests received so far.
    pub fn requests(&self) -> usize {
        self.seen.requests.load(Ordering::SeqCst)
    }

    /// Every recorded request.
    pub fn recorded(&self) -> Vec<Request> {
        self.seen.recorded().clone()
    }

    /// The newest recorded request.
    #[track_caller]
    pub fn last(&self) -> Request {
        let last = self.seen.recorded().last().cloned();
        last.unwrap_or_else(|| panic!("cell {} recorded no request", self.name))
    }

    /// Waits until `count` requests were received.
    pub async fn wait_requests(&self, count: usize) {
        let what = format!("cell {}: {count} requests", self.name);
        eventually(&what, async || (self.requests() >= count).then_some(())).await;
    }

    /// Waits until no connection is open.
    pub async fn wait_unconnected(&self) {
        let what = format!("cell {}: no open connection", self.name);
        eventually(&what, async || (self.open() == 0).then_some(())).await;
    }
}

impl Drop for Cell {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Seen {
    fn recorded(&self) -> std::sync::MutexGuard<'_, Vec<Request>> {
        self.recorded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Conn {
    /// Reads and records one request with its body, sending `100 Continue` first where it was asked for.
    /// `None`: the connection ended before another request.
    pub async fn request(&mut self) -> io::Result<Option<Request>> {
        let Some(head) = self.wire.head().await? else {
            return Ok(None);
        };
        if head
            .get("expect")
            .is_some_and(|expect| expect.eq_ignore_ascii_case("100-continue"))
        {
            self.wire.send(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
        }
        let (body, trailers) = self.wire.body(head.framing()).await?;
        let request = Request {
            head,
            body,
            trailers,
        };
        self.record(request.clone());
        Ok(Some(request))
    }

    /// Reads and records a request's head and leaves its body unread.
    pub async fn head(&mut self) -> io::Result<Option<Head>> {
        let head = self.wire.head().await?;
        if let Some(head) = &head {
            let request = Request {
                head: head.clone(),
                ..Request::default()
            };
            self.record(request);
        }
        Ok(head)
    }

    fn record(&self, request: Request) {
        self.seen.recorded().push(request);
        self.count();
    }

    fn count(&self) {
        self.seen.requests.fetch_add(1, Ordering::SeqCst);
    }

    /// Answers 200 with the cell's name, in a header and as the body.
    pub async fn reply(&mut self) -> io::Result<()> {
        let (name, length) = (&self.cell, self.cell.len());
        let answer = format!(
            "HTTP/1.1 200 OK\r\nX-Cell-Name: {name}\r\nContent-Type: text/plain\r\n\
             Content-Length: {length}\r\n\r\n{name}"
        );
        self.wire.send(answer.as_bytes()).await
    }
}

impl Drop for Conn {
    fn drop(&mut self) {
        self.seen.open.fetch_sub(1, Ordering::SeqCst);
    }
}

/// What turns an accepted connection into the stream that the script sees.
pub trait Handshake<S>: Send + Sync + 'static {
    fn run(&self, stream: TcpStream) -> impl Future<Output = io::Result<S>> + Send;
}

impl<S, F, R> Handshake<S> for F
where
    F: Fn(TcpStream) -> R + Send + Sync + 'static,
    R: Future<Output = io::Result<S>> + Send,
{
    fn run(&self, stream: TcpStream) -> impl Future<Output = io::Result<S>> + Send {
        self(stream)
    }
}

async fn accept<S: Stream + 'static>(
    listener: TcpListener,
    mut listens: watch::Receiver<bool>,
    cell: String,
    script: Script,
    seen: Arc<Seen>,
    handshake: Arc<impl Handshake<S>>,
) {
    // Dropping the set, when this task is aborted, ends the connections as well.
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = listens.wait_for(|listens| !listens) => break,
        };
        let Ok((stream, _)) = accepted else {
            continue;
        };
        let _ = stream.set_nodelay(true);
        seen.connections.fetch_add(1, Ordering::SeqCst);
        let open = seen.open.fetch_add(1, Ordering::SeqCst) + 1;
        seen.most_open.fetch_max(open, Ordering::SeqCst);
        let (cell, script, seen) = (cell.clone(), script.clone(), seen.clone());
        let handshake = handshake.clone();
        connections.spawn(async move {
            match handshake.run(stream).await {
                Ok(stream) => {
                    let _ = script(Conn {
                        wire: Wire::new(stream),
                        cell,
                        seen,
                    })
                    .await;
                }
                Err(_) => drop(seen.open.fetch_sub(1, Ordering::SeqCst)),
            }
        });
        while connections.try_join_next().is_some() {}
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}
