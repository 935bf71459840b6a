//! The HTTP server: HTTP/1.1 with WebSockets, with or without TLS.
//!
//! - `connection_limits` bounds the open connections.
//! - `write_timeout` ends those whose clients read too slowly.
//! - `cross_site` rejects requests from web pages when there are no tokens.
//! - `tls` does handshakes.
//!
//! At shutdown, the server stops accepting, lets requests in progress finish, and signals the
//! WebSockets through `ending`.

mod connection_limits;
mod cross_site;
mod tls;
mod write_timeout;

#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::net::TcpListener as StdListener;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::header::{CONNECTION, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

pub use self::connection_limits::{ConnectionLimits, ConnectionSlot};
pub use self::tls::Acceptor;

use self::write_timeout::WriteTimeout;
use super::metrics::ControlMetrics;
use super::{Control, Peer, api, connect};
use crate::telemetry::metrics::CONTENT_TYPE as PROMETHEUS;

/// How long a client may take to send a request's header, or to send its next request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a TLS handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long requests and WebSockets may take to end at shutdown.
pub const GRACE: Duration = Duration::from_secs(10);

/// The pause after a failed accept, such as when no file descriptor is left.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// All routes of the control plane. `ending` becomes true at shutdown.
pub fn routes(control: Control, ending: watch::Receiver<bool>) -> Router {
    let metrics = Arc::clone(&control.metrics);
    let edges = connect::router(control.clone(), ending);
    Router::new()
        .route("/health", get(health))
        .route("/metrics", get(show_metrics))
        .with_state(control.clone())
        .merge(api::router(control.clone()))
        .merge(edges)
        .layer(middleware::from_fn_with_state(control, cross_site::reject))
        .layer(middleware::from_fn_with_state(metrics, count))
}

/// The liveness check, public because load balancers have no token.
async fn health() -> impl IntoResponse {
    (
        [(CONTENT_TYPE, "application/json")],
        r#"{"status":"healthy"}"#,
    )
}

async fn show_metrics(State(control): State<Control>) -> impl IntoResponse {
    ([(CONTENT_TYPE, PROMETHEUS)], control.metrics.encode())
}

/// Counts responses by route, method and status.
async fn count(
    State(metrics): State<Arc<ControlMetrics>>,
    request: Request,
    next: Next,
) -> Response {
    // The route's pattern, as a path may have a key in it.
    let route = request.extensions().get::<MatchedPath>().cloned();
    let method = match *request.method() {
        http::Method::GET => "GET",
        http::Method::PUT => "PUT",
        http::Method::POST => "POST",
        http::Method::DELETE => "DELETE",
        http::Method::HEAD => "HEAD",
        _ => "other",
    };
    let response = next.run(request).await;
    let route = route.as_ref().map_or("none", MatchedPath::as_str);
    metrics.answered(route, method, response.status().as_u16());
    response
}

/// A listening socket and what serves it.
pub struct Server {
    pub listener: StdListener,
    /// None: plain HTTP.
    pub tls: Option<Arc<Acceptor>>,
    pub limits: Arc<ConnectionLimits>,
    pub metrics: Arc<ControlMetrics>,
}

/// What each connection needs.
#[derive(Clone)]
struct Service {
    router: Router,
    tls: Option<Arc<Acceptor>>,
    metrics: Arc<ControlMetrics>,
    ending: watch::Receiver<bool>,
}

impl Server {
    /// Serves `router` until `ending` becomes true, and then for at most [`GRACE`] until all
    /// requests and WebSockets have ended.
    ///
    /// # Errors
    /// The socket cannot be used.
    pub async fn serve(
        self,
        router: Router,
        mut ending: watch::Receiver<bool>,
    ) -> std::io::Result<()> {
        let listener = TcpListener::from_std(self.listener)?;
        let limits = self.limits;
        let service = Service {
            router,
            tls: self.tls,
            metrics: self.metrics,
            ending: ending.clone(),
        };
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                () = told(&mut ending) => break,
                Some(_) = connections.join_next(), if !connections.is_empty() => continue,
                accepted = listener.accept() => accepted,
            };
            let (stream, address) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    log::warn!(target: "cellgate::control", "accept: {error}");
                    sleep(ACCEPT_RETRY).await;
                    continue;
                }
            };
            let Some(slot) = limits.accept(address.ip()) else {
                service.metrics.connections_refused.inc();
                continue;
            };
            let service = service.clone();
            connections.spawn(async move {
                service.metrics.connections.inc();
                service.clone().connection(stream, address, slot).await;
                service.metrics.connections.dec();
            });
        }
        drop(listener);
        drop(service);
        let ended = async { while connections.join_next().await.is_some() {} };
        if timeout(GRACE, ended).await.is_err() {
            log::warn!(
                target: "cellgate::control",
                connections = connections.len();
                "cutting the requests that are not over"
            );
        }
        Ok(())
    }
}

/// Returns when the process is to end.
async fn told(ending: &mut watch::Receiver<bool>) {
    let _ = ending.wait_for(|ending| *ending).await;
}

impl Service {
    async fn connection(
        self,
        stream: TcpStream,
        address: std::net::SocketAddr,
        slot: Arc<ConnectionSlot>,
    ) {
        let _ = stream.set_nodelay(true);
        let Some(tls) = self.tls.clone() else {
            let certificate = None;
            let peer = Peer {
                address,
                certificate,
            };
            return self.http(stream, peer, slot).await;
        };
        match timeout(HANDSHAKE_TIMEOUT, tls.accept(stream)).await {
            Ok(Ok((stream, certificate))) => {
                let peer = Peer {
                    address,
                    certificate,
                };
                self.http(stream, peer, slot).await;
            }
            failed => {
                self.metrics.handshakes_failed.inc();
                let why = match failed {
                    Ok(Err(error)) => error.to_string(),
                    _ => format!("no handshake within {HANDSHAKE_TIMEOUT:?}"),
                };
                log::debug!(
                    target: "cellgate::control",
                    peer:% = address;
                    "tls handshake failed: {why}"
                );
            }
        }
    }

    async fn http<S>(mut self, stream: S, peer: Peer, slot: Arc<ConnectionSlot>)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let router = TowerToHyperService::new(self.router);
        let metrics = Arc::clone(&self.metrics);
        let service = service_fn(move |mut request: hyper::Request<Incoming>| {
            let connects = request.uri().path() == "/connect";
            let accepted = connects || slot.use_api();
            request.extensions_mut().insert(peer.clone());
            request.extensions_mut().insert(Arc::clone(&slot));
            let answer = accepted.then(|| hyper::service::Service::call(&router, request));
            let metrics = Arc::clone(&metrics);
            async move {
                let Some(answer) = answer else {
                    metrics.connections_refused.inc();
                    return Ok::<_, Infallible>(busy());
                };
                let mut answer = answer.await.unwrap_or_else(|never| match never {});
                if connects && answer.status() != StatusCode::SWITCHING_PROTOCOLS {
                    close(&mut answer);
                }
                Ok(answer)
            }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .serve_connection(TokioIo::new(WriteTimeout::new(stream)), service)
            .with_upgrades();
        tokio::pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = told(&mut self.ending) => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            log::debug!(target: "cellgate::control", "connection ended: {error}");
        }
    }
}

/// The response to a request when all API slots are taken.
fn busy() -> Response {
    let body = concat!(
        r#"{"error":"busy","message":"too many open connections of API clients","problems":[]}"#,
        "\n"
    );
    let headers = [(CONTENT_TYPE, "application/json"), (RETRY_AFTER, "5")];
    let mut answer = (StatusCode::SERVICE_UNAVAILABLE, headers, body).into_response();
    close(&mut answer);
    answer
}

fn close(answer: &mut Response) {
    let close = HeaderValue::from_static("close");
    answer.headers_mut().insert(CONNECTION, close);
}
