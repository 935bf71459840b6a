//! What the proxy writes, on its way to the client.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWrite;
use tokio::time::Instant;

use super::{ClientConn, buffers};

/// Writes up to this many bytes wait for more, so that a head and a small body
/// are one segment.
const OUTPUT_SIZE: usize = buffers::SIZE;

impl ClientConn {
    /// Sends all of `output`.
    pub(super) fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.output.len() {
            let Some(tcp) = &mut self.tcp else { break };
            let rest = self.output.get(self.sent..).unwrap_or_default();
            match Pin::new(tcp).poll_write(cx, rest)? {
                Poll::Ready(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(count) => {
                    self.sent += count;
                    self.active = Instant::now();
                }
                Poll::Pending => return self.poll_stalled(cx),
            }
        }
        self.output.clear();
        self.sent = 0;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ClientConn {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.output.len() + bytes.len() > OUTPUT_SIZE {
            ready!(this.poll_drain(cx))?;
        }
        if this.output.capacity() == 0 {
            this.output = buffers::empty();
        }
        if let Some((end, lines)) = this.announced.due(bytes) {
            let (line, rest) = bytes.split_at(end);
            this.output.extend_from_slice(line);
            this.output.append(lines);
            if bytes.len() < OUTPUT_SIZE {
                this.output.extend_from_slice(rest);
                return Poll::Ready(Ok(bytes.len()));
            }
            return Poll::Ready(Ok(end));
        }
        if bytes.len() < OUTPUT_SIZE {
            this.output.extend_from_slice(bytes);
            return Poll::Ready(Ok(bytes.len()));
        }
        let Some(tcp) = &mut this.tcp else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        match Pin::new(tcp).poll_write(cx, bytes)? {
            Poll::Ready(count) => {
                this.active = Instant::now();
                Poll::Ready(Ok(count))
            }
            Poll::Pending => {
                ready!(this.poll_stalled(cx))?;
                Poll::Pending
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_drain(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_drain(cx))?;
        match &mut this.tcp {
            Some(tcp) => Pin::new(tcp).poll_shutdown(cx),
            None => Poll::Ready(Ok(())),
        }
    }
}
