//! What a client connection runs over, and what the proxy library asks of the connection.

use std::fmt;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::protocols::{
    GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl,
    TimingDigest, UniqueID, UniqueIDType,
};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{ClientConn, Stage};
use crate::http::CountGuard;

/// How long a closed connection goes on reading, so that the client can read
/// our last answer before a reset destroys it (RFC 9112 §9.6).
const LINGER: Duration = Duration::from_secs(2);

/// A stream of bytes to a client: a socket, or something over one.
pub trait ClientStream: AsyncRead + AsyncWrite + Unpin + Send + Sync + 'static {
    /// The socket at the bottom, if there is one.
    fn socket(&self) -> Option<&TcpStream> {
        None
    }

    /// Ready when a read is worth a buffer. A stream that cannot tell without reading is
    /// always ready.
    fn poll_readable(&self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl ClientStream for TcpStream {
    fn socket(&self) -> Option<&TcpStream> {
        Some(self)
    }

    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_read_ready(cx)
    }
}

#[cfg(test)]
impl ClientStream for tokio::io::DuplexStream {}

impl Drop for ClientConn {
    fn drop(&mut self) {
        let (Some(stream), Some(slot)) = (self.stream.take(), self.slot.take()) else {
            return;
        };
        if self.downstream.is_to_reset()
            && let Some(socket) = stream.socket()
        {
            // It fails only on a socket that is gone.
            let _ = SockRef::from(socket).set_linger(Some(Duration::ZERO));
            return;
        }
        // Closing a socket with unread bytes resets it, and the reset can
        // overtake the answer that the client has not read yet.
        let unread = self.start < self.end
            || self.downstream.refusal().is_some()
            || !matches!(self.stage, Stage::Head | Stage::Whole);
        let unread_in_kernel = || {
            let socket = stream.socket().filter(|_| !self.departed);
            socket.is_some_and(|socket| socket.try_read(&mut [0]).is_ok_and(|count| count > 0))
        };
        if (unread || unread_in_kernel())
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(linger(stream, slot));
        }
    }
}

async fn linger(mut stream: Box<dyn ClientStream>, slot: CountGuard) {
    let drain = async {
        stream.shutdown().await?;
        let mut sink = [0; 4096];
        while stream.read(&mut sink).await? > 0 {}
        io::Result::Ok(())
    };
    // However it ends, the connection is closed; there is nobody left to tell.
    let _ = tokio::time::timeout(LINGER, drain).await;
    drop(slot);
}

impl fmt::Debug for ClientConn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientConn")
            .field("client", self.downstream.client())
            .field("stage", &self.stage)
            .finish()
    }
}

#[async_trait]
impl Shutdown for ClientConn {
    async fn shutdown(&mut self) {
        // It fails only if the client is gone.
        let _ = AsyncWriteExt::shutdown(self).await;
    }
}

impl UniqueID for ClientConn {
    fn id(&self) -> UniqueIDType {
        let socket = self.stream.as_ref().and_then(|stream| stream.socket());
        socket.map_or(-1, AsRawFd::as_raw_fd)
    }
}

impl GetSocketDigest for ClientConn {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.digest.clone()
    }
}

impl GetTimingDigest for ClientConn {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl GetProxyDigest for ClientConn {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        None
    }
}

impl Ssl for ClientConn {}

impl Peek for ClientConn {}
