//! Serves a demo cell: its connections, its requests, and `/_cell/misbehaviour`, which tells a running
//! cell how to misbehave.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::header::ALLOW;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::answer::{answer, is_health, json};
use super::faults::{Fault, FaultyAnswer};
use super::misbehaviour::Misbehaviour;

/// How long requests in flight may take to finish once the cell stops.
const DRAIN: Duration = Duration::from_secs(2);

/// Pause after `accept` failed, so that it is no busy loop when file descriptors run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A demo cell.
#[derive(Debug)]
pub struct Cell {
    /// Answers carry it as `X-Cell-Name` and in their bodies. Must be a valid header value.
    pub name: String,
    /// How it misbehaves at first.
    pub misbehaviour: Misbehaviour,
    /// Whether `/_cell/misbehaviour` shows and changes that, for anyone who can connect.
    pub control: bool,
}

/// What the connections of a cell share.
struct Serving {
    name: String,
    settings: Settings,
    control: bool,
}

/// Serves on `listener` until `stop` resolves, then lets requests in flight finish, for at most two
/// seconds.
pub async fn serve(listener: TcpListener, cell: Cell, stop: impl Future<Output = ()>) {
    let cell = Arc::new(Serving {
        name: cell.name,
        settings: Settings::new(cell.misbehaviour),
        control: cell.control,
    });
    let (ending, _) = watch::channel(false);
    let mut connections = JoinSet::new();
    let mut stop = std::pin::pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) if cell.closes_at_once() => drop(stream),
                Ok((stream, _)) => {
                    connections.spawn(connection(stream, cell.clone(), ending.subscribe()));
                }
                Err(error) => {
                    let name = &cell.name;
                    let _ = writeln!(io::stderr(), "cell {name}: cannot accept a connection: {error}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            // Removes finished connections from the set.
            Some(_) = connections.join_next() => {}
        }
    }
    drop(listener);
    ending.send_replace(true);
    let drained = async { while connections.join_next().await.is_some() {} };
    // Dropping the set closes the connections that are still open.
    let _ = tokio::time::timeout(DRAIN, drained).await;
}

async fn connection(stream: TcpStream, cell: Arc<Serving>, mut ending: watch::Receiver<bool>) {
    // Answers are one small write each.
    let _ = stream.set_nodelay(true);
    let (fail, mut failing) = mpsc::channel(1);
    // Boxed, because only a connection that is `Unpin` can give its stream back.
    let service = service_fn(move |request| Box::pin(respond(cell.clone(), request, fail.clone())));
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new());
    let mut connection = http.serve_connection(TokioIo::new(stream), service);
    let mut draining = false;
    loop {
        // Errors are the client's: it closed the connection, or did not speak HTTP.
        tokio::select! {
            _ = &mut connection => return,
            Some(faulty) = failing.recv() => {
                let stream = connection.into_parts().io.into_inner();
                let _ = faulty.send(stream).await;
                return;
            }
            _ = ending.changed(), if !draining => {
                draining = true;
                std::pin::Pin::new(&mut connection).graceful_shutdown();
            }
        }
    }
}

async fn respond(
    cell: Arc<Serving>,
    request: Request<Incoming>,
    fail: mpsc::Sender<FaultyAnswer>,
) -> Result<Response<Full<Bytes>>, io::Error> {
    if cell.control && request.uri().path() == MISBEHAVIOUR_PATH {
        return Ok(cell
            .settings
            .handle(&cell.name, request)
            .await
            .map(Full::new));
    }
    let misbehaviour = cell.settings.now();
    let (head, body) = request.into_parts();
    let body_bytes = discard(body).await?;
    tokio::time::sleep(misbehaviour.delay.unwrap_or_default()).await;
    let (now, chance) = (SystemTime::now(), rand::random());
    let answer = answer(&cell.name, &misbehaviour, &head, body_bytes, now, chance);
    let spared = |fault: &Fault| {
        is_health(&head) && !misbehaviour.health_too && !matches!(fault, Fault::Close)
    };
    let Some(fault) = misbehaviour.fault().filter(|fault| !spared(fault)) else {
        return Ok(answer.map(Full::new));
    };
    if fault != Fault::Hang {
        let faulty = FaultyAnswer {
            fault,
            answer,
            head_only: head.method == Method::HEAD,
        };
        // Fails only if the connection is gone.
        let _ = fail.send(faulty).await;
    }
    // The connection is taken over, or hangs until its client closes it.
    std::future::pending().await
}

impl Serving {
    /// Whether a new connection is closed before anything is read. A cell with `control` reads first, since
    /// a request may ask it to behave again.
    fn closes_at_once(&self) -> bool {
        !self.control && self.settings.now().fault() == Some(Fault::Close)
    }
}

/// Reads a body to its end, and counts its bytes.
async fn discard(mut body: Incoming) -> Result<u64, io::Error> {
    let mut bytes = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(io::Error::other)?;
        bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
    }
    Ok(bytes)
}

const MISBEHAVIOUR_PATH: &str = "/_cell/misbehaviour";

/// The largest object that is read, in bytes; valid ones are far smaller.
const OBJECT_BYTES: usize = 16 << 10;

/// The present misbehaviour, and since when it applies.
struct Settings {
    current: ArcSwap<(Misbehaviour, Instant)>,
}

impl Settings {
    fn new(misbehaviour: Misbehaviour) -> Self {
        Self {
            current: ArcSwap::from_pointee((misbehaviour, Instant::now())),
        }
    }

    /// The misbehaviour at this moment, which `flap` changes with time.
    fn now(&self) -> Misbehaviour {
        let current = self.current.load();
        current.0.after(current.1.elapsed())
    }

    /// Answers a request to [`MISBEHAVIOUR_PATH`]: `GET` shows the misbehaviour, `PUT` replaces it.
    ///
    /// This never misbehaves. Requests in flight keep the misbehaviour that they began with.
    async fn handle(&self, name: &str, request: Request<Incoming>) -> Response<Bytes> {
        match *request.method() {
            Method::GET => json(name, StatusCode::OK, &self.current.load().0),
            Method::PUT => match read(request.into_body()).await {
                Ok(misbehaviour) => {
                    self.current.store((misbehaviour, Instant::now()).into());
                    json(name, StatusCode::OK, &misbehaviour)
                }
                Err(problem) => json(name, StatusCode::BAD_REQUEST, &json!({"error": problem})),
            },
            _ => {
                let problem = json!({"error": "expected GET or PUT"});
                let mut answer = json(name, StatusCode::METHOD_NOT_ALLOWED, &problem);
                let allowed = HeaderValue::from_static("GET, PUT");
                answer.headers_mut().insert(ALLOW, allowed);
                answer
            }
        }
    }
}

async fn read(body: Incoming) -> Result<Misbehaviour, String> {
    let body = Limited::new(body, OBJECT_BYTES).collect().await;
    let body = body.map_err(|error| format!("cannot read the body: {error}"))?;
    let misbehaviour: Misbehaviour = serde_json::from_slice(&body.to_bytes())
        .map_err(|error| format!("cannot read the object: {error}"))?;
    misbehaviour.check()?;
    Ok(misbehaviour)
}
