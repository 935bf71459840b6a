//! The deadlines of one connection.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncWriteExt, duplex};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

use crate::control::connect::metrics::ConnectMetrics;
use crate::control::connect::websocket::{EdgeSocket, End};
use crate::control::core::tests::memory::Memory;
use crate::control::core::{Edges, Truth};
use crate::telemetry::metrics::Registered;

/// Messages that fit a frame wait behind one another; what comes meanwhile gives
/// them no more time.
#[tokio::test(start_paused = true)]
async fn a_message_that_waits_has_its_time_once() {
    let (here, mut there) = duplex(200);
    let (send, upgrade) = oneshot::channel();
    let send = std::sync::Mutex::new(Some(send));
    let service = service_fn(move |request: hyper::Request<_>| {
        let send = send.lock().unwrap().take();
        let _ = send.unwrap().send(hyper::upgrade::on(request));
        let answer = hyper::Response::builder()
            .status(101)
            .header("upgrade", "websocket")
            .header("connection", "upgrade")
            .body(String::new());
        async move { Ok::<_, Infallible>(answer.unwrap()) }
    });
    let server = hyper::server::conn::http1::Builder::new();
    let served = server.serve_connection(TokioIo::new(here), service);
    tokio::spawn(served.with_upgrades());
    let request = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
    there.write_all(request).await.unwrap();
    let upgraded = upgrade.await.unwrap();
    // Nothing is read any more, but there are pings all the time.
    tokio::spawn(async move {
        while there.write_all(&[0x89, 0x80, 0, 0, 0, 0]).await.is_ok() {
            sleep(Duration::from_millis(100)).await;
        }
    });
    let truth = Truth::open(Arc::new(Memory::default())).await.unwrap();
    let edges = Edges::new(truth);
    let metrics = ConnectMetrics::new(&Registered::new(), &edges);
    let write = Duration::from_secs(2);
    let (ping, rate) = (Duration::from_secs(60), 1 << 20);
    let mut socket = EdgeSocket::with(upgraded.await.unwrap(), ping, write, rate, metrics).await;
    for _ in 0..10 {
        socket.text(Bytes::from_static(&[b' '; 90]));
    }
    let begun = Instant::now();
    let end = loop {
        assert!(begun.elapsed() < ping, "it is never given up");
        if let Err(end) = socket.event().await {
            break end;
        }
    };
    assert_eq!(end, End::Slow(write));
    assert!(begun.elapsed() < write * 3, "{:?}", begun.elapsed());
}
