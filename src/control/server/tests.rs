//! Slow clients, and too many of them.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::*;
use crate::control::core::Truth;
use crate::control::core::tests::memory::Memory;

/// A service, and what its connections need to stay open.
struct Site {
    service: Service,
    limits: Arc<ConnectionLimits>,
    _ending: watch::Sender<bool>,
}

impl Site {
    /// With slots for one edge and `others` API clients.
    async fn new(others: usize) -> Self {
        let truth = Truth::open(Arc::new(Memory::default())).await.unwrap();
        let (end, ending) = watch::channel(false);
        let router = Router::new()
            .route("/large", get(|| async { vec![b'a'; 1 << 20] }))
            .route("/small", get(|| async { "small" }));
        Self {
            service: Service {
                router,
                tls: None,
                metrics: Arc::new(ControlMetrics::new(truth)),
                ending,
            },
            limits: ConnectionLimits::new(1, others),
            _ending: end,
        }
    }

    fn connect(&self) -> (DuplexStream, JoinHandle<()>) {
        let (here, there) = duplex(16 * 1024);
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        let peer = Peer {
            address,
            certificate: None,
        };
        let slot = self.limits.accept(address.ip()).unwrap();
        (
            there,
            tokio::spawn(self.service.clone().http(here, peer, slot)),
        )
    }
}

async fn ask(client: &mut DuplexStream, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
    client.write_all(request.as_bytes()).await.unwrap();
    let mut answer = vec![0; 4096];
    let read = client.read(&mut answer).await.unwrap();
    String::from_utf8(answer[..read].to_vec())
        .unwrap()
        .to_lowercase()
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_is_disconnected() {
    let site = Site::new(8).await;
    let (mut client, served) = site.connect();
    let begun = Instant::now();
    let answer = ask(&mut client, "/large").await;
    assert!(answer.starts_with("http/1.1 200 "), "{answer}");
    served.await.unwrap();
    assert_eq!(begun.elapsed().as_secs(), 30);
}

#[tokio::test]
async fn api_clients_are_limited() {
    let site = Site::new(3).await;
    let (mut first, _served) = site.connect();
    assert!(ask(&mut first, "/small").await.starts_with("http/1.1 200 "));
    // It keeps its slot, one of three, while idle.
    let (mut second, _served) = site.connect();
    assert!(
        ask(&mut second, "/small")
            .await
            .starts_with("http/1.1 200 ")
    );
    drop(site.limits.accept([192, 0, 2, 1].into()).unwrap());
    let third = site.limits.accept([192, 0, 2, 1].into()).unwrap();
    assert!(third.use_api());
    drop(second);
    _served.await.unwrap();
    let (mut again, served) = site.connect();
    let answer = ask(&mut again, "/small").await;
    assert!(answer.starts_with("http/1.1 200 "), "{answer}");
    drop(again);
    served.await.unwrap();
    let fourth = site.limits.accept([192, 0, 2, 2].into()).unwrap();
    assert!(fourth.use_api());
    let (mut late, served) = site.connect();
    let answer = ask(&mut late, "/small").await;
    assert!(answer.starts_with("http/1.1 503 "), "{answer}");
    for part in ["connection: close", "retry-after: 5", "\"error\":\"busy\""] {
        assert!(answer.contains(part), "{part}: {answer}");
    }
    served.await.unwrap();
    // An edge would be accepted.
    let (mut edge, served) = site.connect();
    let answer = ask(&mut edge, "/connect").await;
    assert!(answer.starts_with("http/1.1 404 "), "{answer}");
    assert!(answer.contains("connection: close"), "{answer}");
    served.await.unwrap();
    // Connections with a slot are not affected.
    assert!(ask(&mut first, "/small").await.starts_with("http/1.1 200 "));
}
