//! The WebSocket of one edge: messages in both directions, pings, deadlines and the close.
//!
//! Large messages are written in fragments of a few kilobytes (RFC 6455, section 5.4): tungstenite
//! copies what it writes into a buffer that never shrinks, so each connection would keep as much
//! memory as its largest message.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Sink, SinkExt, Stream, StreamExt};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncReadExt;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::frame::{CloseFrame, Frame};
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{self, Message, Utf8Bytes};

use super::Hub;
use super::metrics::ConnectMetrics;
use crate::protocol::limits::{CHUNK_HEADER_BYTES, SILENT_PINGS, TO_CONTROL_BYTES};
use crate::protocol::{Close, Refusal};

/// Most bytes of a message in one frame.
const FRAGMENT: usize = 4096;

/// Initial size of the read buffer; it grows with the edge's messages.
const READ_BYTES: usize = 2048;

/// Most bytes in the write buffer: a fragment, and answers to pings.
const WRITE_BYTES: usize = 32 * 1024;

/// How long the closing handshake may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Most bytes that are read and discarded during the closing handshake.
const CLOSE_DISCARD_BYTES: usize = 4 << 20;

/// Why a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Closed by this side, with a close frame.
    Refused(Refusal),
    /// Closed by the edge, with this close frame.
    Left { code: u16, reason: String },
    /// The connection broke.
    Lost(String),
    /// Nothing was received for so long.
    Silent(Duration),
    /// The edge did not read a message for so long.
    Slow(Duration),
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(refusal) => write!(f, "closed with {}: {refusal}", refusal.close.code()),
            Self::Left { code, reason } if reason.is_empty() => {
                write!(f, "the edge closed with {code}")
            }
            Self::Left { code, reason } => write!(f, "the edge closed with {code}: {reason:?}"),
            Self::Lost(why) => write!(f, "the connection broke: {why}"),
            Self::Silent(time) => write!(f, "nothing was received for {} s", time.as_secs()),
            Self::Slow(time) => {
                write!(
                    f,
                    "the edge did not read a message within {} s",
                    time.as_secs()
                )
            }
        }
    }
}

impl From<Refusal> for End {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// What happened on a connection.
#[derive(Debug)]
pub(super) enum Event {
    Text(Utf8Bytes),
    /// All queued messages have been written.
    Written,
}

/// A message that is being written.
struct Outgoing {
    kind: Data,
    /// Written before the payload, which all edges share.
    header: Option<[u8; CHUNK_HEADER_BYTES]>,
    rest: Bytes,
    begun: bool,
    /// Its deadline has been set.
    timed: bool,
}

impl Outgoing {
    fn len(&self) -> usize {
        self.rest.len() + self.header.map_or(0, |header| header.len())
    }

    /// The next frame, and whether it is the last one.
    fn next(&mut self) -> (Frame, bool) {
        let kind = match std::mem::replace(&mut self.begun, true) {
            true => Data::Continue,
            false => self.kind,
        };
        let part = match self.header.take() {
            Some(header) => {
                let part = self
                    .rest
                    .split_to(self.rest.len().min(FRAGMENT - header.len()));
                [&header, &*part].concat().into()
            }
            None => self.rest.split_to(self.rest.len().min(FRAGMENT)),
        };
        let last = self.rest.is_empty();
        (Frame::message(part, OpCode::Data(kind), last), last)
    }
}

/// A WebSocket with a queue of outgoing messages.
pub(super) struct EdgeSocket {
    websocket: WebSocketStream<TokioIo<Upgraded>>,
    queue: VecDeque<Outgoing>,
    /// The write buffer may not be empty.
    unflushed: bool,
    ping: Duration,
    /// When to ping next.
    ping_at: Instant,
    ping_due: bool,
    /// When something was last received.
    heard: Instant,
    /// The deadline of the message that is being written, and its length.
    write_by: Option<(Instant, Duration)>,
    /// Bytes written in frames since the last [`take_written`](Self::take_written).
    written: u64,
    /// The base time to write a message.
    write: Duration,
    /// Bytes a second that the edge must read.
    min_rate: usize,
    metrics: ConnectMetrics,
}

impl EdgeSocket {
    pub async fn new(upgraded: Upgraded, hub: &Hub, min_rate: usize) -> Self {
        let (ping, write) = (hub.control.limits.ping, hub.times.write);
        Self::with(upgraded, ping, write, min_rate, hub.metrics.clone()).await
    }

    /// Pings every `ping`. A message must be read within `write` plus its size divided by `min_rate`
    /// (bytes a second).
    pub(super) async fn with(
        upgraded: Upgraded,
        ping: Duration,
        write: Duration,
        min_rate: usize,
        metrics: ConnectMetrics,
    ) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BYTES)
            .write_buffer_size(0)
            .max_write_buffer_size(WRITE_BYTES)
            .max_message_size(Some(TO_CONTROL_BYTES))
            .max_frame_size(Some(TO_CONTROL_BYTES));
        let io = TokioIo::new(upgraded);
        let now = Instant::now();
        Self {
            websocket: WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await,
            queue: VecDeque::new(),
            unflushed: false,
            ping,
            ping_at: now + ping,
            ping_due: false,
            heard: now,
            write_by: None,
            written: 0,
            write,
            min_rate,
            metrics,
        }
    }

    /// Queues a text message.
    pub fn text(&mut self, text: impl Into<Bytes>) {
        self.push(Data::Text, None, text.into());
    }

    /// Queues a binary message: a header and a shared payload.
    pub fn binary(&mut self, header: [u8; CHUNK_HEADER_BYTES], rest: Bytes) {
        self.push(Data::Binary, Some(header), rest);
    }

    fn push(&mut self, kind: Data, header: Option<[u8; CHUNK_HEADER_BYTES]>, rest: Bytes) {
        self.queue.push_back(Outgoing {
            kind,
            header,
            rest,
            begun: false,
            timed: false,
        });
    }

    /// Whether all queued messages have been written and flushed.
    pub fn is_idle(&self) -> bool {
        self.queue.is_empty() && !self.unflushed
    }

    /// Bytes written in frames since the last call.
    pub fn take_written(&mut self) -> u64 {
        std::mem::take(&mut self.written)
    }

    /// Writes, reads and pings until something happens. Cancel-safe.
    ///
    /// # Errors
    /// The connection ended.
    pub async fn event(&mut self) -> Result<Event, End> {
        loop {
            let silent = self.heard + self.ping * SILENT_PINGS;
            let slow = self.write_by.map(|(by, _)| by);
            let due = silent.min(self.ping_at).min(slow.unwrap_or(silent));
            let polled = timeout_at(due, std::future::poll_fn(|cx| self.poll(cx))).await;
            if let Ok(event) = polled {
                match event? {
                    Some(event) => return Ok(event),
                    None => continue,
                }
            }
            let now = Instant::now();
            if let Some((by, allowed)) = self.write_by
                && by <= now
            {
                return Err(End::Slow(allowed));
            }
            if silent <= now {
                return Err(End::Silent(self.ping * SILENT_PINGS));
            }
            if self.ping_at <= now {
                self.ping_at = now + self.ping;
                self.ping_due = true;
            }
        }
    }

    /// None: only control frames were received.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Event>, End>> {
        match Pin::new(&mut self.websocket).poll_next(cx) {
            Poll::Ready(Some(Ok(message))) => {
                self.heard = Instant::now();
                return Poll::Ready(self.received(message));
            }
            Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(end(error))),
            Poll::Ready(None) => return Poll::Ready(Err(End::Lost("end of stream".to_owned()))),
            Poll::Pending => {}
        }
        if self.is_idle() && !self.ping_due {
            return Poll::Pending;
        }
        ready!(self.poll_write(cx)).map_err(end)?;
        Poll::Ready(Ok(Some(Event::Written)))
    }

    fn received(&mut self, message: Message) -> Result<Option<Event>, End> {
        match message {
            Message::Text(text) => Ok(Some(Event::Text(text))),
            Message::Binary(_) => Err(End::Refused(Refusal::new(
                Close::Protocol,
                "a binary frame (edges send text)",
            ))),
            Message::Close(frame) => Err(match frame {
                Some(CloseFrame { code, reason }) => End::Left {
                    code: code.into(),
                    reason: reason.as_str().to_owned(),
                },
                // RFC 6455, section 7.1.5.
                None => End::Left {
                    code: 1005,
                    reason: String::new(),
                },
            }),
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => Ok(None),
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), tungstenite::Error>> {
        loop {
            // Only once for each message: this runs again at every event.
            let front = self.queue.front_mut();
            let begins = front.filter(|front| !front.timed);
            if begins.is_some() || self.write_by.is_none() {
                let bytes = begins.map_or(0, |front| {
                    front.timed = true;
                    front.len()
                });
                let allowed = self.write + Duration::from_secs((bytes / self.min_rate) as u64);
                self.write_by = Some((Instant::now() + allowed, allowed));
            }
            ready!(Pin::new(&mut self.websocket).poll_ready(cx))?;
            let frame = if std::mem::take(&mut self.ping_due) {
                Frame::ping(Bytes::new())
            } else if let Some(front) = self.queue.front_mut() {
                let (frame, last) = front.next();
                if last {
                    self.queue.pop_front();
                }
                frame
            } else {
                break;
            };
            let bytes = frame.len() as u64;
            self.written += bytes;
            self.metrics.sent_bytes.inc_by(bytes);
            self.unflushed = true;
            Pin::new(&mut self.websocket).start_send(Message::Frame(frame))?;
        }
        ready!(Pin::new(&mut self.websocket).poll_flush(cx))?;
        self.unflushed = false;
        self.write_by = None;
        Poll::Ready(Ok(()))
    }

    /// Closes the connection, with a close frame if this side ends it. Takes at most
    /// [`CLOSE_TIMEOUT`].
    pub async fn finish(mut self, end: &End) {
        let frame = match end {
            End::Refused(refusal) => CloseFrame {
                code: refusal.close.code().into(),
                reason: refusal.reason().into(),
            },
            // Sends the close frame that tungstenite has queued in answer.
            End::Left { .. } => {
                let _ = timeout(CLOSE_TIMEOUT, self.websocket.next()).await;
                return;
            }
            End::Lost(_) | End::Silent(_) | End::Slow(_) => return,
        };
        let _ = timeout(CLOSE_TIMEOUT, self.close(frame)).await;
    }

    /// Waits until the edge has closed as well: closing a TCP socket with unread data resets the
    /// connection, and the edge might never see the close frame.
    async fn close(&mut self, frame: CloseFrame) {
        if self
            .websocket
            .send(Message::Close(Some(frame)))
            .await
            .is_err()
        {
            return;
        }
        while let Some(Ok(_)) = self.websocket.next().await {}
        let mut discarded = [0; 1024];
        let mut bytes = 0;
        while bytes < CLOSE_DISCARD_BYTES {
            match self.websocket.get_mut().read(&mut discarded).await {
                Ok(1..) => bytes += discarded.len(),
                Ok(0) | Err(_) => return,
            }
        }
    }
}

/// The end of a connection after an error of the WebSocket.
fn end(error: tungstenite::Error) -> End {
    let close = match &error {
        tungstenite::Error::Capacity(_) => Close::TooLarge,
        tungstenite::Error::Utf8(_) => Close::Malformed,
        tungstenite::Error::Protocol(
            tungstenite::error::ProtocolError::ResetWithoutClosingHandshake,
        ) => return End::Lost("closed without a close frame".to_owned()),
        tungstenite::Error::Protocol(_) => Close::Protocol,
        _ => return End::Lost(error.to_string()),
    };
    End::Refused(Refusal::new(close, error))
}
