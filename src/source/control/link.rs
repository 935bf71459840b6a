//! One connection: frames in and out, pings, and the deadline of a silent one.

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

use super::GOODBYE;
use super::dial::Dialect;
use crate::protocol::limits::{PING, SILENT_PINGS, TO_EDGE_BYTES};
use crate::protocol::{Close, Refusal};

/// What is read at a time. Messages are mostly small.
const READ_BYTES: usize = 32 << 10;

/// What may wait to be written. Pongs do, and they are small.
const WRITE_BYTES: usize = 1 << 20;

/// The largest frame, in bytes, however large a document may be.
const FRAME_BYTES: usize = 64 << 20;

/// A connection that speaks one dialect.
pub(super) struct Link {
    pub dialect: Dialect,
    socket: WebSocketStream<Heard<TokioIo<Upgraded>>>,
    ping: Duration,
    pings: Interval,
}

/// What is received.
#[derive(Debug)]
pub(super) enum Frame {
    Text(Utf8Bytes),
    Chunk(Bytes),
}

/// Why a connection is over.
#[derive(Debug)]
pub(super) enum Ended {
    /// The edge ends.
    Shutdown,
    /// There was none.
    Undialled(String),
    /// The control plane closed it, and said this.
    Closed(String),
    /// It broke.
    Broken(String),
    /// Nothing came for so long.
    Silent(Duration),
    /// Nothing could be sent for so long.
    Stalled(Duration),
    /// Something is wrong with the edge itself.
    Faulty(String),
    /// What came is not what may come.
    Refused(Refusal),
}

impl Ended {
    /// Something is wrong with the edge itself.
    pub fn here(why: impl fmt::Display) -> Self {
        Self::Faulty(why.to_string())
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shutdown => f.write_str("this edge ends"),
            Self::Undialled(why) | Self::Broken(why) => f.write_str(why),
            Self::Closed(why) => write!(f, "the control plane closed the connection{why}"),
            Self::Silent(time) => write!(f, "nothing came for {:.1} s", time.as_secs_f32()),
            Self::Stalled(time) => {
                write!(f, "nothing could be sent for {:.1} s", time.as_secs_f32())
            }
            Self::Faulty(why) => write!(f, "this edge has a fault: {why}"),
            Self::Refused(refusal) => {
                write!(
                    f,
                    "what came is refused ({}): {refusal}",
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
    pub async fn new(stream: TokioIo<Upgraded>, dialect: Dialect, document_bytes: usize) -> Self {
        let most = match dialect {
            Dialect::V1 => TO_EDGE_BYTES,
            Dialect::M3 => document_bytes,
        };
        // For a frame, its announced length is reserved; a message of several grows
        // with what came.
        let frame = most.min(FRAME_BYTES);
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BYTES)
            .max_write_buffer_size(WRITE_BYTES)
            .max_message_size(Some(most))
            .max_frame_size(Some(frame));
        let stream = Heard {
            stream,
            last: Instant::now(),
        };
        Self {
            dialect,
            socket: WebSocketStream::from_raw_socket(stream, Role::Client, Some(config)).await,
            ping: PING,
            pings: pings(PING),
        }
    }

    /// Pings are due so often from now on.
    pub fn ping_every(&mut self, ping: Duration) {
        self.ping = ping;
        self.pings = pings(ping);
    }

    /// A link on which nothing came for so long is dead.
    fn patience(&self) -> Duration {
        self.ping * SILENT_PINGS
    }

    /// The next frame. Nothing is lost when this is dropped.
    pub async fn next(&mut self) -> Result<Frame, Ended> {
        loop {
            let silent = self.socket.get_ref().last + self.patience();
            tokio::select! {
                message = self.socket.next() => match message {
                    Some(Ok(Message::Text(text))) => return Ok(Frame::Text(text)),
                    Some(Ok(Message::Binary(chunk))) => return Ok(Frame::Chunk(chunk)),
                    Some(Ok(Message::Close(frame))) => return Err(Ended::Closed(said(frame))),
                    // Pings are answered by the library.
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return Err(broken(error)),
                    None => return Err(Ended::Closed(String::new())),
                },
                _ = self.pings.tick() => self.ping().await?,
                // A part of a long message is a sign of life as well.
                () = sleep_until(silent) => {
                    let quiet = self.socket.get_ref().last.elapsed();
                    if quiet >= self.patience() {
                        return Err(Ended::Silent(quiet));
                    }
                }
            }
        }
    }

    /// Pings while `work` keeps the edge from reading.
    pub async fn busy_with<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Ended> {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                done = &mut work => {
                    // Whatever came meanwhile has not been looked at.
                    self.socket.get_mut().last = Instant::now();
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
    pub async fn send(&mut self, text: String) -> Result<(), Ended> {
        self.write(Message::text(text)).await
    }

    async fn write(&mut self, message: Message) -> Result<(), Ended> {
        match timeout(self.patience(), self.socket.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(broken(error)),
            Err(_) => Err(Ended::Stalled(self.patience())),
        }
    }

    /// Says why the connection ends, if that is the edge's doing.
    pub async fn say_goodbye(mut self, ended: &Ended) {
        let (close, reason) = match ended {
            Ended::Shutdown => (Close::GoingAway, "the edge ends"),
            Ended::Silent(_) => (Close::Internal, "nothing came"),
            Ended::Refused(refusal) => (refusal.close, refusal.reason()),
            Ended::Faulty(_) => (Close::Internal, "the edge has a fault"),
            // What cannot be sent now could not be sent then.
            Ended::Undialled(_) | Ended::Closed(_) | Ended::Broken(_) | Ended::Stalled(_) => {
                return;
            }
        };
        let frame = CloseFrame {
            code: close.code().into(),
            reason: reason.into(),
        };
        // Nobody may be there to hear it.
        let _ = timeout(GOODBYE, self.socket.close(Some(frame))).await;
    }
}

fn pings(every: Duration) -> Interval {
    let mut pings = interval_at(Instant::now() + every, every);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    pings
}

/// ` with 1001: shutting down`.
fn said(frame: Option<CloseFrame>) -> String {
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
        // A connection that broke off is none of the sender's mistakes.
        Error::Protocol(
            error @ tokio_tungstenite::tungstenite::error::ProtocolError::ResetWithoutClosingHandshake,
        ) => Ended::Broken(error.to_string()),
        Error::Protocol(error) => Refusal::new(Close::Protocol, error).into(),
        error => Ended::Broken(error.to_string()),
    }
}

/// A stream that notes when something came last.
struct Heard<S> {
    stream: S,
    last: Instant,
}

impl<S: AsyncRead + Unpin> AsyncRead for Heard<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.last = Instant::now();
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Heard<S> {
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
