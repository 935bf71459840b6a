//! How a connection ends.

use std::io;
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{ClientConn, RESET, Stage};
use crate::http::CountGuard;

/// How long a closed connection goes on reading, so that the client can read
/// our last answer before a reset destroys it (RFC 9112 §9.6).
const LINGER: Duration = Duration::from_secs(2);

impl Drop for ClientConn {
    fn drop(&mut self) {
        let reset = self.told(RESET);
        let unread = self.start < self.end
            || self.refusal.is_some()
            || !matches!(self.stage, Stage::Head | Stage::Whole);
        let (Some(tcp), Some(slot)) = (self.tcp.take(), self.slot.take()) else {
            return;
        };
        if reset {
            // It fails only on a socket that is gone.
            let _ = SockRef::from(&tcp).set_linger(Some(Duration::ZERO));
            return;
        }
        // Closing a socket with unread bytes resets it, and the reset can
        // overtake the answer that the client has not read yet.
        let unread =
            unread || !self.departed && tcp.try_read(&mut [0]).is_ok_and(|count| count > 0);
        if unread && let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(linger(tcp, slot));
        }
    }
}

async fn linger(mut tcp: TcpStream, slot: CountGuard) {
    let drain = async {
        tcp.shutdown().await?;
        let mut sink = [0; 4096];
        while tcp.read(&mut sink).await? > 0 {}
        io::Result::Ok(())
    };
    // Whatever ends it, the connection is closed; there is nobody left to tell.
    let _ = tokio::time::timeout(LINGER, drain).await;
    drop(slot);
}
