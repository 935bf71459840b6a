//! What is written to the client.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWrite;
use tokio::time::Instant;

use super::{BUFFER, ClientConn};

impl ClientConn {
    /// Sends all of `output`.
    pub(super) fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.output.is_empty() {
            return Poll::Ready(Ok(()));
        }
        self.poll_send(cx, &[]).map_ok(drop)
    }

    /// Sends all of `output`, and with it in one system call what of `bytes` can be sent
    /// now: a head and the beginning of a body.
    fn poll_send(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let Some(stream) = &mut self.stream else {
                return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
            };
            let rest = self.output.get(self.sent..).unwrap_or_default();
            let parts = [IoSlice::new(rest), IoSlice::new(bytes)];
            let stream = Pin::new(stream);
            let sent = match (rest.is_empty(), bytes.is_empty()) {
                (true, _) => stream.poll_write(cx, bytes)?,
                (_, true) => stream.poll_write(cx, rest)?,
                _ => stream.poll_write_vectored(cx, &parts)?,
            };
            let Poll::Ready(count) = sent else {
                ready!(self.poll_stalled(cx))?;
                return Poll::Pending;
            };
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.active = Instant::now();
            let Some(count_of_bytes) = count.checked_sub(rest.len()) else {
                self.sent += count;
                continue;
            };
            self.output.clear();
            self.sent = 0;
            // So far only what was buffered: 0 would mean that the stream takes no more.
            if count_of_bytes > 0 || bytes.is_empty() {
                return Poll::Ready(Ok(count_of_bytes));
            }
        }
    }
}

impl AsyncWrite for ClientConn {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        // Few bytes wait for more, so that a head and a small body are one segment.
        if this.output.len() + bytes.len() > BUFFER {
            return this.poll_send(cx, bytes);
        }
        if this.output.capacity() == 0 {
            this.output = Vec::with_capacity(BUFFER);
        }
        this.output.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_drain(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_drain(cx))?;
        match &mut this.stream {
            Some(stream) => Pin::new(stream).poll_shutdown(cx),
            None => Poll::Ready(Ok(())),
        }
    }
}
