//! A client that sends the bytes it is given and reads what comes back.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpSocket, TcpStream};

use super::message::{Framing, Head, Response};
use super::wire::Wire;
use super::within;

pub struct Client {
    wire: Wire,
}

impl Client {
    pub async fn connect(address: SocketAddr) -> Client {
        let stream = within("connect", TcpStream::connect(address)).await;
        Client::over(stream.unwrap_or_else(|error| panic!("connect to {address}: {error}")))
    }

    /// Connects with a small receive buffer, so that a client that stops reading soon stalls the sender.
    pub async fn connect_narrow(address: SocketAddr) -> Client {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket
            .set_recv_buffer_size(16 * 1024)
            .expect("a receive buffer size");
        let stream = within("connect", socket.connect(address)).await;
        Client::over(stream.unwrap_or_else(|error| panic!("connect to {address}: {error}")))
    }

    fn over(stream: TcpStream) -> Client {
        stream.set_nodelay(true).expect("nodelay");
        Client {
            wire: Wire::new(stream),
        }
    }

    /// Changes how long a single read or write may take.
    pub fn patience(&mut self, patience: Duration) {
        self.wire.patience(patience);
    }

    pub fn wire(&mut self) -> &mut Wire {
        &mut self.wire
    }

    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> impl Future<Output = ()> {
        let at = std::panic::Location::caller();
        async move {
            let sent = self.wire.send(bytes.as_ref()).await;
            sent.unwrap_or_else(|error| panic!("send at {at}: {error}"));
        }
    }

    /// Sends `GET path` for `key`.
    #[track_caller]
    pub fn ask(&mut self, key: &str, path: &str) -> impl Future<Output = ()> {
        self.send(format!(
            "GET {path} HTTP/1.1\r\nHost: edge\r\nX-Routing-Key: {key}\r\n\r\n"
        ))
    }

    /// Sends `GET path` for `key`, and reads the answer.
    pub async fn get(&mut self, key: &str, path: &str) -> Response {
        self.ask(key, path).await;
        self.response().await
    }

    /// Reads the answer to a request that was not HEAD.
    #[track_caller]
    pub fn response(&mut self) -> impl Future<Output = Response> {
        let at = std::panic::Location::caller();
        async move {
            match self.try_response("GET").await {
                Ok(Some(response)) => response,
                Ok(None) => panic!("at {at}: the connection was closed without an answer"),
                Err(error) => panic!("at {at}: {error}"),
            }
        }
    }

    /// Reads the answer to a `method` request. `None`: closed (or reset) before any byte of it.
    pub async fn try_response(&mut self, method: &str) -> io::Result<Option<Response>> {
        let mut interim = Vec::new();
        loop {
            let head = match self.wire.head().await {
                Ok(Some(head)) => head,
                Ok(None) => return Ok(None),
                Err(error) if is_reset(&error) && self.wire.pending().is_empty() => {
                    return Ok(None);
                }
                Err(error) => return Err(error),
            };
            match head.status() {
                // From here on the connection speaks another protocol (RFC 9110, section 7.8).
                101 => return Ok(Some(whole(head, Vec::new(), Vec::new(), interim))),
                100..=199 => interim.push(head),
                _ => return self.finish_response(method, head, interim).await.map(Some),
            }
        }
    }

    async fn finish_response(
        &mut self,
        method: &str,
        head: Head,
        interim: Vec<Head>,
    ) -> io::Result<Response> {
        let bodiless = method == "HEAD" || matches!(head.status(), 204 | 304);
        let (body, trailers) = match head.framing() {
            _ if bodiless => (Vec::new(), Vec::new()),
            Framing::Unsaid => (self.wire.rest().await?, Vec::new()),
            framing => self.wire.body(framing).await?,
        };
        Ok(whole(head, body, trailers, interim))
    }

    /// Asserts that the other side closes, or resets, without sending another byte.
    #[track_caller]
    pub fn closed(&mut self) -> impl Future<Output = ()> {
        let at = std::panic::Location::caller();
        async move {
            match self.wire.rest().await {
                Ok(rest) if rest.is_empty() => {}
                Ok(rest) => {
                    panic!(
                        "at {at}: bytes before the close: {:?}",
                        String::from_utf8_lossy(&rest)
                    )
                }
                Err(error) if is_reset(&error) => {}
                Err(error) => panic!("at {at}: not closed: {error}"),
            }
        }
    }
}

pub fn is_reset(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset};
    matches!(
        error.kind(),
        ConnectionReset | ConnectionAborted | BrokenPipe
    )
}

fn whole(
    head: Head,
    body: Vec<u8>,
    trailers: Vec<(String, String)>,
    interim: Vec<Head>,
) -> Response {
    Response {
        status: head.status(),
        head,
        body,
        trailers,
        interim,
    }
}
