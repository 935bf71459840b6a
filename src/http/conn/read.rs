//! What the client sends, checked and cut into requests.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::Instant;

use super::{BUFFER, ClientConn, Downstream, Fault, Stage};
use crate::http::chunked::{BadChunk, ChunkedBody};
use crate::http::head::{BodyFraming, HeadScanner, Refusal, Scan};

/// Stands in for a refused request, so that the service behind the connection answers it. The
/// service checks [`Downstream::refusal`] first; if it did not, the stand-in carries no
/// routing key and so reaches no cell.
const STAND_IN: &[u8] = b"GET / HTTP/1.1\r\nHost: refused\r\n\r\n";

impl ClientConn {
    fn buffered(&self) -> &[u8] {
        self.input.get(self.start..self.end).unwrap_or_default()
    }

    /// Receives into `input`; the number of bytes, 0 at the end of the stream.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
        } else if self.end == self.input.len() && self.start > 0 {
            self.input.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        let Some(stream) = &mut self.stream else {
            return Poll::Ready(Ok(0));
        };
        if self.input.is_empty() {
            // While nothing comes, a connection has no buffer.
            ready!(stream.poll_readable(cx))?;
            self.input = vec![0; BUFFER];
        } else if self.end == self.input.len() {
            // A large head makes it grow, or one whose first bytes came with a body.
            self.input.resize((self.input.len() * 2).max(BUFFER), 0);
        }
        let mut space = ReadBuf::new(self.input.get_mut(self.end..).unwrap_or_default());
        ready!(Pin::new(stream).poll_read(cx, &mut space))?;
        let count = space.filled().len();
        self.end += count;
        match count {
            0 => self.departed = true,
            _ => self.active = Instant::now(),
        }
        Poll::Ready(Ok(count))
    }

    /// Forgets the last request.
    fn next_request(&mut self) {
        self.stage = Stage::Head;
        self.scanner = HeadScanner::default();
        self.finished = false;
        let client = Arc::clone(self.downstream.client());
        let next = Downstream::new(client, self.config.deadlines);
        match Arc::get_mut(&mut self.downstream) {
            Some(last) => *last = next,
            // Its exchange is still held by somebody; it must not touch the next one.
            None => self.downstream = Arc::new(next),
        }
        self.head_began = None;
        if self.start < self.end {
            // It came along with the request before, whose time is not its own.
            self.active = Instant::now();
        }
    }

    fn refuse(&mut self, refusal: Refusal) {
        self.downstream.set_fault(Fault::Refused(refusal));
        self.stage = Stage::Refused;
    }

    /// Returns when the next request can be read, or `false` when there will be none.
    ///
    /// A caller that awaits it before it makes a session for the request keeps nothing but
    /// the connection meanwhile.
    pub async fn next(&mut self) -> bool {
        // No request is affected by an error before there is one.
        poll_fn(|cx| self.poll_next(cx)).await.unwrap_or(false)
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        if matches!(self.stage, Stage::Whole) && self.finished {
            if self.downstream.refusal().is_some() {
                return Poll::Ready(Ok(false));
            }
            self.next_request();
        }
        match self.stage {
            Stage::Head => self.poll_head(cx),
            _ => Poll::Ready(Ok(true)),
        }
    }

    /// Frees buffers that hold nothing.
    fn free_buffers(&mut self) {
        if self.start == self.end {
            self.input = Vec::new();
            self.start = 0;
            self.end = 0;
        }
        if self.output.is_empty() {
            self.output = Vec::new();
        }
    }

    /// Reads until a head is complete or refused. `Ok(false)`: the client is
    /// gone, or was idle too long, between requests.
    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let mut fresh = self.start < self.end;
        loop {
            if fresh {
                if self.head_began.is_none() {
                    self.head_began = Some(self.active);
                }
                // RFC 9112 §2.2: an empty line before the request line is ignored.
                if self.buffered().starts_with(b"\r\n") {
                    self.start += 2;
                }
                let input = self.input.get(self.start..self.end).unwrap_or_default();
                match self.scanner.scan(input) {
                    Scan::Complete { length, .. } if length > self.config.header_bytes => {
                        self.refuse(Refusal::TooLarge);
                        return Poll::Ready(Ok(true));
                    }
                    Scan::Complete { length, body } => {
                        self.stage = Stage::HeadOut { left: length, body };
                        return Poll::Ready(Ok(true));
                    }
                    Scan::Partial if input.len() > self.config.header_bytes => {
                        self.refuse(Refusal::TooLarge);
                        return Poll::Ready(Ok(true));
                    }
                    Scan::Partial => {}
                    Scan::Refused(refusal) => {
                        self.refuse(refusal);
                        return Poll::Ready(Ok(true));
                    }
                }
            }
            match self.poll_fill(cx)? {
                Poll::Ready(0) => return Poll::Ready(Ok(false)),
                Poll::Ready(_) => fresh = true,
                Poll::Pending => {
                    let deadline = self.head_deadline(cx);
                    if !self.timer.poll_expired(cx, deadline) {
                        self.free_buffers();
                        return Poll::Pending;
                    }
                    if self.start == self.end {
                        return Poll::Ready(Ok(false));
                    }
                    self.refuse(Refusal::Timeout);
                    return Poll::Ready(Ok(true));
                }
            }
        }
    }

    /// Copies buffered bytes, at most `limit`, to the reader.
    fn hand_out(&mut self, out: &mut ReadBuf<'_>, limit: usize) -> usize {
        let count = (self.end - self.start).min(limit).min(out.remaining());
        out.put_slice(
            self.input
                .get(self.start..self.start + count)
                .unwrap_or_default(),
        );
        self.start += count;
        count
    }

    fn body_begins(&mut self, body: BodyFraming) {
        match body {
            BodyFraming::Length(0) => self.whole(),
            BodyFraming::Length(left) => self.stage = Stage::Sized { left },
            BodyFraming::Chunked => self.stage = Stage::Chunked(ChunkedBody::default()),
        }
    }

    fn whole(&mut self) {
        self.stage = Stage::Whole;
        self.downstream.set_whole(self.active);
    }

    /// Some bytes of a body of known length; 0 at the end of the stream.
    fn poll_sized(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
        left: u64,
    ) -> Poll<io::Result<usize>> {
        let limit = usize::try_from(left).unwrap_or(usize::MAX);
        let count = if self.start < self.end {
            self.hand_out(out, limit)
        } else if limit >= out.remaining() {
            ready!(self.poll_direct(cx, out))?
        } else {
            let Some(stream) = &mut self.stream else {
                return Poll::Ready(Ok(0));
            };
            let mut part = ReadBuf::new(out.initialize_unfilled_to(limit));
            ready!(Pin::new(stream).poll_read(cx, &mut part))?;
            let count = part.filled().len();
            out.advance(count);
            count
        };
        let left = left - count as u64;
        if left == 0 {
            self.whole();
        } else {
            self.stage = Stage::Sized { left };
        }
        Poll::Ready(Ok(count))
    }

    /// Some bytes of a chunked body; 0 at the end of the stream.
    fn poll_chunked(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<usize>> {
        let before = out.filled().len();
        let from_input = self.start < self.end;
        if from_input {
            self.hand_out(out, usize::MAX);
        } else {
            ready!(self.poll_direct(cx, out))?;
        }
        let Stage::Chunked(body) = &mut self.stage else {
            return Poll::Ready(Ok(0));
        };
        let fresh = out.filled().get(before..).unwrap_or_default();
        match body.follow(fresh) {
            Ok(used) => {
                let rest = fresh.get(used..).unwrap_or_default();
                if from_input {
                    self.start -= rest.len();
                } else if !rest.is_empty() {
                    // The next request came along; it stays here.
                    self.input.clear();
                    self.input.extend_from_slice(rest);
                    self.start = 0;
                    self.end = rest.len();
                }
                out.set_filled(before + used);
                if body.done() {
                    self.whole();
                }
                Poll::Ready(Ok(used))
            }
            Err(BadChunk(rule)) => {
                self.downstream.set_fault(Fault::BadBody(rule));
                out.set_filled(before);
                Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, rule)))
            }
        }
    }

    /// Receives straight into the reader's buffer.
    fn poll_direct(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<usize>> {
        let before = out.filled().len();
        let Some(stream) = &mut self.stream else {
            return Poll::Ready(Ok(0));
        };
        ready!(Pin::new(stream).poll_read(cx, out))?;
        Poll::Ready(Ok(out.filled().len() - before))
    }

    /// The proxy listens for a client that leaves while it is being answered.
    /// Bytes that come meanwhile are the next request and stay here.
    fn poll_departure(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.start == self.end {
            match self.poll_fill(cx)? {
                Poll::Ready(0) => return Poll::Ready(Ok(())),
                Poll::Ready(_) | Poll::Pending => {}
            }
        }
        Poll::Pending
    }
}

impl AsyncRead for ClientConn {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.downstream.is_tunnel() {
            let read = if this.start < this.end {
                this.hand_out(out, usize::MAX);
                Poll::Ready(Ok(1))
            } else {
                this.poll_direct(cx, out)
            };
            return match read? {
                Poll::Ready(count) => {
                    if count > 0 {
                        this.active = Instant::now();
                    }
                    Poll::Ready(Ok(()))
                }
                Poll::Pending => this.poll_waiting(cx),
            };
        }
        if !ready!(this.poll_next(cx))? {
            return Poll::Ready(Ok(()));
        }
        let read = match this.stage {
            Stage::Refused => {
                out.put_slice(STAND_IN.get(..out.remaining()).unwrap_or(STAND_IN));
                this.whole();
                return Poll::Ready(Ok(()));
            }
            Stage::HeadOut { left, body } => {
                let left = left - this.hand_out(out, left);
                if left == 0 {
                    this.body_begins(body);
                } else {
                    this.stage = Stage::HeadOut { left, body };
                }
                return Poll::Ready(Ok(()));
            }
            Stage::Sized { left } => this.poll_sized(cx, out, left),
            Stage::Chunked(_) => this.poll_chunked(cx, out),
            Stage::Whole | Stage::Head => {
                return match this.poll_departure(cx) {
                    Poll::Pending => this.poll_waiting(cx),
                    departed => departed,
                };
            }
        };
        match read? {
            Poll::Ready(0) => {
                this.departed = true;
                Poll::Ready(Ok(()))
            }
            Poll::Ready(_) => {
                this.active = Instant::now();
                if matches!(this.stage, Stage::Whole) {
                    this.downstream.set_whole(this.active);
                }
                this.downstream.continued();
                Poll::Ready(Ok(()))
            }
            Poll::Pending => this.poll_waiting(cx),
        }
    }
}
