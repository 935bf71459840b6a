//! Time of the request hooks, by step of a request, without what Pingora does between them:
//! `cargo bench --bench hooks`. Requests come over a real connection, whose time is not counted. Each figure includes
//! about 50 ns for reading the clock twice.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream as StdStream};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use cellgate::exchange::Timeouts;
use cellgate::http::{Client, ClientConn, ConnConfig, Deadlines, Lifecycle, Transport};
use cellgate::proxy::{EdgeProxy, ProxyConfig};
use cellgate::state::{EdgeOptions, EdgeState, PushLimits, Source};
use cellgate::telemetry::{AccessLog, Metrics};
use criterion::{Criterion, criterion_group, criterion_main};
use http::HeaderName;
use mimalloc::MiMalloc;
use pingora::http::ResponseHeader;
use pingora::protocols::Stream;
use pingora_proxy::{ProxyHttp, Session};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;

mod shared;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

const MINUTE: Duration = Duration::from_secs(60);
const REQUEST: &[u8] =
    b"GET /hello HTTP/1.1\r\nHost: example.com\r\nUser-Agent: bench\r\nAccept: */*\r\n\
    X-Routing-Key: acme\r\n\r\n";

/// In the order of a request; none is all of them.
#[derive(Clone, Copy, PartialEq)]
enum Step {
    Receive,
    Peer,
    Send,
    Answer,
    Finish,
}

struct Bench {
    runtime: Runtime,
    proxy: EdgeProxy,
    lifecycle: Arc<Lifecycle>,
    config: Arc<ConnConfig>,
    listener: TcpListener,
}

impl Bench {
    fn new() -> Bench {
        let lifecycle = Arc::new(Lifecycle::new());
        let metrics = Arc::new(Metrics::new());
        let options = EdgeOptions {
            hosts: Default::default(),
            push_limits: PushLimits::default(),
        };
        let state = EdgeState::new(options, metrics.clone());
        let document = shared::document(SocketAddr::from(([127, 0, 0, 1], 9))).to_string();
        state.apply(document.as_bytes(), Source::File, SystemTime::now());
        assert!(state.current().is_some(), "a good document");
        let config = ProxyConfig {
            routing_key: HeaderName::from_static("x-routing-key"),
            trusted_proxies: Vec::new(),
            timeouts: Timeouts {
                connect: MINUTE,
                response_header: MINUTE,
                request: MINUTE,
                stream_idle: MINUTE,
                upstream_idle: MINUTE,
            },
            max_attempts: 3,
            debug_config: false,
        };
        let log = AccessLog::default();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        Bench {
            runtime: runtime.expect("a runtime"),
            proxy: EdgeProxy::new(config, state, lifecycle.clone(), metrics, log),
            lifecycle,
            config: Arc::new(ConnConfig {
                client_header: MINUTE,
                client_idle: MINUTE,
                deadlines: Deadlines {
                    response_header: MINUTE,
                    request: MINUTE,
                    stream_idle: MINUTE,
                },
                header_bytes: 32 * 1024,
            }),
            listener: TcpListener::bind("127.0.0.1:0").expect("a port"),
        }
    }

    /// So many requests on one connection; what the step of each took, together.
    fn requests(&self, count: u64, step: Option<Step>) -> Duration {
        let address = self.listener.local_addr().expect("its address");
        let mut client = StdStream::connect(address).expect("a client");
        client.set_nodelay(true).expect("a socket");
        let (server, peer) = self.listener.accept().expect("the client");
        server.set_nonblocking(true).expect("a socket");
        self.runtime.block_on(async {
            let tcp = TcpStream::from_std(server).expect("a socket");
            let slot = self.lifecycle.connection();
            let client_info = Client::new(peer, tcp.local_addr().ok(), Transport::Plain);
            let conn = ClientConn::new(Box::new(tcp), client_info, self.config.clone(), slot);
            let mut stream: Stream = Box::new(conn);
            let mut spent = Duration::ZERO;
            for _ in 0..count {
                client.write_all(REQUEST).expect("room");
                stream = self.request(stream, step, &mut spent).await;
                let mut answer = [0; 4096];
                let read = client.read(&mut answer).expect("an answer");
                assert!(answer[..read].starts_with(b"HTTP/1.1 200 "));
            }
            spent
        })
    }

    async fn request(&self, stream: Stream, step: Option<Step>, spent: &mut Duration) -> Stream {
        let mut session = Session::new_h1(stream);
        session.set_keepalive(Some(0));
        let read = session.downstream_session.read_request().await;
        assert!(read.is_ok_and(|there| there), "a request");
        let mut answer = ResponseHeader::build(200, None).expect("a status");
        for (name, value) in [("Content-Type", "text/plain"), ("Content-Length", "0")] {
            answer.append_header(name, value).expect("a field");
        }
        let mut times = [(); 6].map(|()| Instant::now());
        let proxy = &self.proxy;

        times[0] = Instant::now();
        let mut ctx = proxy.new_ctx();
        let answered = proxy.request_filter(&mut session, &mut ctx).await;
        assert_eq!(answered.ok(), Some(false), "the request is admitted");
        times[1] = Instant::now();
        let peer = proxy.upstream_peer(&mut session, &mut ctx).await;
        let peer = peer.expect("a cell");
        times[2] = Instant::now();
        let connected = proxy.connected_to_upstream(&mut session, true, &peer, 0, None, &mut ctx);
        connected.await.expect("nothing fails");
        let mut request = session.req_header().clone();
        let sent = proxy.upstream_request_filter(&mut session, &mut request, &mut ctx);
        sent.await.expect("nothing fails");
        let mut part = None;
        let body = proxy.request_body_filter(&mut session, &mut part, true, &mut ctx);
        body.await.expect("nothing fails");
        times[3] = Instant::now();
        let taken = proxy.upstream_response_filter(&mut session, &mut answer, &mut ctx);
        taken.await.expect("nothing fails");
        let passed = proxy.response_filter(&mut session, &mut answer, &mut ctx);
        passed.await.expect("nothing fails");
        times[4] = Instant::now();
        let written = session.write_response_header(Box::new(answer), true).await;
        written.expect("room");
        let finishing = Instant::now();
        proxy.logging(&mut session, None, &mut ctx).await;
        drop(ctx);
        times[5] = times[4] + finishing.elapsed();

        *spent += match step {
            Some(step) => times[step as usize + 1] - times[step as usize],
            None => times[5] - times[0],
        };
        let stream = session.downstream_session.finish().await;
        let stream = stream.ok().flatten().expect("a kept connection");
        let (stream, _) = stream.into_parts();
        let conn = stream.into_any().downcast::<ClientConn>();
        let mut conn = conn.expect("the connection of the session");
        conn.request_finished();
        conn
    }
}

fn hooks(criterion: &mut Criterion) {
    let bench = Bench::new();
    let mut group = criterion.benchmark_group("hooks");
    // Of what is counted, which is a small part of what it takes.
    group.measurement_time(Duration::from_millis(300));
    group.warm_up_time(Duration::from_millis(100));
    group.sample_size(20);
    for (name, step) in [
        ("receive", Some(Step::Receive)),
        ("peer", Some(Step::Peer)),
        ("send", Some(Step::Send)),
        ("answer", Some(Step::Answer)),
        ("finish", Some(Step::Finish)),
        ("all", None),
    ] {
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|count| bench.requests(count, step));
        });
    }
    group.finish();
}

criterion_group!(benches, hooks);
criterion_main!(benches);
