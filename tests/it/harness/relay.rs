//! A network between two processes that can stop forwarding in both directions without closing connections.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Forwards what comes to a port of 127.0.0.1. Dropping it breaks all connections.
pub struct Relay {
    pub address: SocketAddr,
    holds: watch::Sender<bool>,
    _accepting: JoinSet<()>,
}

impl Relay {
    /// Forwards to `target`.
    pub async fn to(target: SocketAddr) -> Relay {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let (holds, held) = watch::channel(true);
        let mut accepting = JoinSet::new();
        accepting.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((near, _)) = listener.accept().await {
                connections.spawn(relay(near, target, held.clone()));
            }
        });
        Relay {
            address,
            holds,
            _accepting: accepting,
        }
    }

    /// From now on nothing is forwarded; connections stay open.
    pub fn cut(&self) {
        self.holds.send_replace(false);
    }

    /// Forwards everything that was sent meanwhile, and what follows.
    pub fn mend(&self) {
        self.holds.send_replace(true);
    }
}

async fn relay(near: TcpStream, target: SocketAddr, mut held: watch::Receiver<bool>) {
    // A connection made while nothing is forwarded is passed on later.
    let _ = held.wait_for(|holds| *holds).await;
    let Ok(far) = TcpStream::connect(target).await else {
        return;
    };
    let (near_from, near_to) = near.into_split();
    let (far_from, far_to) = far.into_split();
    tokio::join!(
        forward(near_from, far_to, held.clone()),
        forward(far_from, near_to, held)
    );
}

/// The end of the stream is forwarded as well.
async fn forward(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut held: watch::Receiver<bool>) {
    let mut buffer = vec![0; 16 << 10];
    loop {
        let read = from.read(&mut buffer).await.unwrap_or(0);
        if held.wait_for(|holds| *holds).await.is_err() {
            return;
        }
        let part = buffer.get(..read).unwrap_or_default();
        if part.is_empty() || to.write_all(part).await.is_err() {
            let _ = to.shutdown().await;
            return;
        }
    }
}
