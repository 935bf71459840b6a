//! The demo cell's listener: accepts connections, speaks HTTP/1.1 on them, ends in order.

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::answer::{Misbehaviour, answer};

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
}

/// Serves on `listener` until `stop` resolves, then lets requests in flight finish, for at most two
/// seconds.
pub async fn serve(listener: TcpListener, cell: Cell, stop: impl Future<Output = ()>) {
    let cell = Arc::new(cell);
    let (ending, _) = watch::channel(false);
    let mut connections = JoinSet::new();
    let mut stop = std::pin::pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) if cell.misbehaviour.close => drop(stream),
                Ok((stream, _)) => {
                    connections.spawn(connection(stream, cell.clone(), ending.subscribe()));
                }
                Err(error) => {
                    eprintln!("cell {}: cannot accept a connection: {error}", cell.name);
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

async fn connection(stream: TcpStream, cell: Arc<Cell>, mut ending: watch::Receiver<bool>) {
    // Answers are one small write each; waiting to fill a packet would only add latency.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| respond(cell.clone(), request));
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new());
    let mut connection = std::pin::pin!(http.serve_connection(TokioIo::new(stream), service));
    // A connection that fails is the caller's business: it broke off, or did not speak HTTP.
    tokio::select! {
        _ = connection.as_mut() => {}
        _ = ending.changed() => {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    }
}

async fn respond(
    cell: Arc<Cell>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, io::Error> {
    let (head, body) = request.into_parts();
    let body_bytes = discard(body).await?;
    if !cell.misbehaviour.delay.is_zero() {
        tokio::time::sleep(cell.misbehaviour.delay).await;
    }
    let (now, chance) = (SystemTime::now(), rand::random());
    Ok(answer(
        &cell.name,
        &cell.misbehaviour,
        &head,
        body_bytes,
        now,
        chance,
    ))
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
