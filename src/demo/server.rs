//! The demo cell's listener: accepts connections, speaks HTTP/1.1 on them, ends in order.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::answer::{answer, is_health};
use super::control::{self, Manners};
use super::faults::Offence;
use super::misbehaviour::{Fault, Misbehaviour};

/// How long requests in flight may take to finish once the cell was told to end.
const DRAIN: Duration = Duration::from_secs(2);

/// Pause after `accept` failed, so that running out of file descriptors does not become a busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A demo cell's identity and manners.
#[derive(Debug)]
pub struct Cell {
    /// Answers carry it as `X-Cell-Name` and in their bodies. Must be a valid header value.
    pub name: String,
    /// How it misbehaves; the default is not at all.
    pub misbehaviour: Misbehaviour,
    /// Whether `/_cell/misbehaviour` shows and changes that. Whoever reaches the cell may use it.
    pub control: bool,
}

/// What its connections share.
struct Serving {
    name: String,
    manners: Manners,
    control: bool,
}

/// Serves on `listener` until `stop` resolves, then lets requests in flight finish, for at most two
/// seconds.
pub async fn serve(listener: TcpListener, cell: Cell, stop: impl Future<Output = ()>) {
    let cell = Arc::new(Serving {
        name: cell.name,
        manners: Manners::new(cell.misbehaviour),
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
            // Reaps finished connections, so that the set holds open ones only.
            Some(_) = connections.join_next() => {}
        }
    }
    drop(listener);
    ending.send_replace(true);
    let drained = async { while connections.join_next().await.is_some() {} };
    // What is still open after the deadline is cut when the set drops.
    let _ = tokio::time::timeout(DRAIN, drained).await;
}

async fn connection(stream: TcpStream, cell: Arc<Serving>, mut ending: watch::Receiver<bool>) {
    // Answers are one small write each; waiting to fill a packet would only add latency.
    let _ = stream.set_nodelay(true);
    let (offend, mut offences) = mpsc::channel(1);
    // Boxed, because only a connection that may move can give its stream back.
    let service =
        service_fn(move |request| Box::pin(respond(cell.clone(), request, offend.clone())));
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new());
    let mut connection = http.serve_connection(TokioIo::new(stream), service);
    let mut told_to_end = false;
    loop {
        // What fails here is the caller's business: it broke off, or did not speak HTTP.
        tokio::select! {
            _ = &mut connection => return,
            Some(offence) = offences.recv() => {
                let stream = connection.into_parts().io.into_inner();
                let _ = offence.commit(stream).await;
                return;
            }
            _ = ending.changed(), if !told_to_end => {
                told_to_end = true;
                std::pin::Pin::new(&mut connection).graceful_shutdown();
            }
        }
    }
}

async fn respond(
    cell: Arc<Serving>,
    request: Request<Incoming>,
    offend: mpsc::Sender<Offence>,
) -> Result<Response<Full<Bytes>>, io::Error> {
    if cell.control && request.uri().path() == control::PATH {
        return Ok(cell
            .manners
            .control(&cell.name, request)
            .await
            .map(Full::new));
    }
    let misbehaviour = cell.manners.now();
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
        let offence = Offence {
            fault,
            answer,
            head_only: head.method == Method::HEAD,
        };
        // Fails only when the connection is gone.
        let _ = offend.send(offence).await;
    }
    // The connection is taken away, or waits in vain until its peer leaves.
    std::future::pending().await
}

impl Serving {
    /// Whether a new connection is closed before it was read. A controlled cell reads first: its way back
    /// comes over a connection as well.
    fn closes_at_once(&self) -> bool {
        !self.control && self.manners.now().fault() == Some(Fault::Close)
    }
}

/// Reads a body to its end, one frame at a time, and counts its bytes.
async fn discard(mut body: Incoming) -> Result<u64, io::Error> {
    let mut bytes = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(io::Error::other)?;
        bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
    }
    Ok(bytes)
}
