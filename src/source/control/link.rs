//! One connection: frames in and out, pings, and the deadline of a silent peer.

use std::fmt;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, sleep_until, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Bytes, Error, Message, Utf8Bytes};

use super::CLOSING;
use super::upgrade::Dialect;
use crate::protocol::limits::{PING, SILENT_PINGS, TO_EDGE_BYTES};
use crate::protocol::{Close, Refusal};

/// Size of the read buffer. Most messages are small.
const READ_BYTES: usize = 32 << 10;

/// The most bytes that may wait to be written. Only pongs wait, and they are small.
const WRITE_BYTES: usize = 1 << 20;

/// The largest frame, in bytes, however large documents may be.
const FRAME_BYTES: usize = 64 << 20;

/// A WebSocket connection, and the dialect spoken over it.
pub(super) struct Link {
    pub dialect: Dialect,
    socket: WebSocketStream<Timed<TokioIo<Upgraded>>>,
    /// The interval of pings.
    ping: Duration,
    pings: Interval,
}

/// A received message.
#[derive(Debug)]
pub(super) enum Frame {
    Text(Utf8Bytes),
    /// A binary message: a part of a snapshot.
    Chunk(Bytes),
}

/// Why a connection ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// The edge stops.
    Shutdown,
    /// It could not be opened.
    Undialled(String),
    /// The control plane closed it; ` with CODE: REASON`, if it gave any.
    Closed(String),
    /// It broke off.
    Broken(String),
    /// Nothing was received for so long.
    Silent(Duration),
    /// A message could not be sent within this time.
    Stalled(Duration),
    /// An internal error of the edge.
    Faulty(String),
    /// The control plane violated the protocol.
    Refused(Refusal),
}

impl Ended {
    /// An internal error of the edge.
    pub fn here(why: impl fmt::Display) -> Self {
        Self::Faulty(why.to_string())
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shutdown => f.write_str("the edge is stopping"),
            Self::Undialled(why) | Self::Broken(why) => f.write_str(why),
            Self::Closed(why) => write!(f, "the control plane closed the connection{why}"),
            Self::Silent(time) => write!(f, "nothing was received for {:.1} s", time.as_secs_f32()),
            Self::Stalled(time) => {
                write!(
                    f,
                    "nothing could be sent within {:.1} s",
                    time.as_secs_f32()
                )
            }
            Self::Faulty(why) => write!(f, "internal error: {why}"),
            Self::Refused(refusal) => {
                write!(
                    f,
                    "protocol violation ({}): {refusal}",
                    refusal.close.code()
                )
            }
        }
    }
}

impl From<Refusal> for Ended {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl Link {
    /// Speaks `dialect` over `stream`, with documents of at most `document_bytes`.
    pub async fn new(stream: TokioIo<Upgraded>, dialect: Dialect, document_bytes: usize) -> Self {
        let most = match dialect {
            Dialect::V1 => TO_EDGE_BYTES,
            Dialect::M3 => document_bytes,
        };
        // The library reserves a frame's announced length at once; a message of
        // several frames grows as they come.
        let frame = most.min(FRAME_BYTES);
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BYTES)
            .max_write_buffer_size(WRITE_BYTES)
            .max_message_size(Some(most))
            .max_frame_size(Some(frame));
        let stream = Timed {
            stream,
            received: Instant::now(),
        };
        Self {
            dialect,
            socket: WebSocketStream::from_raw_socket(stream, Role::Client, Some(config)).await,
            ping: PING,
            pings: pings(PING),
        }
    }

    /// Sets the interval of pings.
    pub fn ping_every(&mut self, ping: Duration) {
        self.ping = ping;
        self.pings = pings(ping);
    }

    /// The connection is dead when nothing was received for this long.
    fn timeout(&self) -> Duration {
        self.ping * SILENT_PINGS
    }

    /// The next frame. Cancel safe: no frame is lost when the future is dropped.
    ///
    /// # Errors
    /// Why the connection ended.
    pub async fn next(&mut self) -> Result<Frame, Ended> {
        loop {
            let silent = self.socket.get_ref().received + self.timeout();
            tokio::select! {
                message = self.socket.next() => match message {
                    Some(Ok(Message::Text(text))) => return Ok(Frame::Text(text)),
                    Some(Ok(Message::Binary(chunk))) => return Ok(Frame::Chunk(chunk)),
                    Some(Ok(Message::Close(frame))) => return Err(Ended::Closed(code_and_reason(frame))),
                    // The library answers pings.
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return Err(broken(error)),
                    None => return Err(Ended::Closed(String::new())),
                },
                _ = self.pings.tick() => self.ping().await?,
                // Parts of a long message count as well, so the stream itself is asked.
                () = sleep_until(silent) => {
                    let quiet = self.socket.get_ref().received.elapsed();
                    if quiet >= self.timeout() {
                        return Err(Ended::Silent(quiet));
                    }
                }
            }
        }
    }

    /// Sends pings while `work` keeps the edge from reading.
    ///
    /// # Errors
    /// Why the connection ended; `work` is dropped then.
    pub async fn busy_with<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Ended> {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                done = &mut work => {
                    // What came meanwhile has not been read yet.
                    self.socket.get_mut().received = Instant::now();
                    return Ok(done);
                }
                _ = self.pings.tick() => self.ping().await?,
            }
        }
    }

    async fn ping(&mut self) -> Result<(), Ended> {
        self.write(Message::Ping(Bytes::new())).await
    }

    /// Sends a text frame.
    ///
    /// # Errors
    /// Why the connection ended.
    pub async fn send(&mut self, text: String) -> Result<(), Ended> {
        self.write(Message::text(text)).await
    }

    async fn write(&mut self, message: Message) -> Result<(), Ended> {
        match timeout(self.timeout(), self.socket.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(broken(error)),
            Err(_) => Err(Ended::Stalled(self.timeout())),
        }
    }

    /// Sends a close frame that says why the connection ended, unless the control plane
    /// ended it, or nothing can be sent.
    pub async fn close(mut self, ended: &Ended) {
        let (close, reason) = match ended {
            Ended::Shutdown => (Close::GoingAway, "the edge is stopping"),
            Ended::Silent(_) => (Close::Internal, "nothing was received"),
            Ended::Refused(refusal) => (refusal.close, refusal.reason()),
            Ended::Faulty(_) => (Close::Internal, "internal error"),
            Ended::Undialled(_) | Ended::Closed(_) | Ended::Broken(_) | Ended::Stalled(_) => {
                return;
            }
        };
        let frame = CloseFrame {
            code: close.code().into(),
            reason: reason.into(),
        };
        // The peer may be gone.
        let _ = timeout(CLOSING, self.socket.close(Some(frame))).await;
    }
}

fn pings(every: Duration) -> Interval {
    let mut pings = interval_at(Instant::now() + every, every);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    pings
}

/// As in ` with 1001: shutting down`.
fn code_and_reason(frame: Option<CloseFrame>) -> String {
    match frame {
        None => String::new(),
        Some(frame) if frame.reason.is_empty() => format!(" with {}", u16::from(frame.code)),
        Some(frame) => {
            let reason = frame.reason.as_str().escape_debug();
            format!(" with {}: {reason}", u16::from(frame.code))
        }
    }
}

fn broken(error: Error) -> Ended {
    match error {
        Error::Capacity(error) => Refusal::new(Close::TooLarge, error).into(),
        Error::Utf8(error) => Refusal::new(Close::Malformed, error).into(),
        // The sender is not to blame for a connection that broke off.
        Error::Protocol(
            error @ tokio_tungstenite::tungstenite::error::ProtocolError::ResetWithoutClosingHandshake,
        ) => Ended::Broken(error.to_string()),
        Error::Protocol(error) => Refusal::new(Close::Protocol, error).into(),
        error => Ended::Broken(error.to_string()),
    }
}

/// A stream that knows when it received something last.
struct Timed<S> {
    stream: S,
    received: Instant,
}

impl<S: AsyncRead + Unpin> AsyncRead for Timed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.received = Instant::now();
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Timed<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
