//! Pingora's words for what the rest of `proxy` speaks of: heads, peers, errors.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use http::header::{HeaderMap, HeaderName};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::l4::ext::TcpKeepalive;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorSource, ErrorType, Result};
use pingora_proxy::Session;

use crate::exchange::{Failure, Timeouts};
use crate::http::{ClientConn, Downstream};
use crate::proxy::attempt::Next;
use crate::proxy::decide::Head;
use crate::proxy::headers::{Change, Changes};

/// How much later than all other deadlines one of last resort is.
const LAST_RESORT: Duration = Duration::from_secs(1);

/// A cell whose machine vanished is noticed within two minutes, also by an idle tunnel and by
/// a connection in the pool.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_PROBES: usize = 6;

/// The connection's side of the request. Every session of our listeners has one.
pub(super) fn downstream(session: &Session) -> Result<Arc<Downstream>> {
    let stream = session.downstream_session.stream();
    let conn = stream.and_then(|stream| stream.as_any().downcast_ref::<ClientConn>());
    let conn = conn.ok_or_else(|| error(Failure::INTERNAL))?;
    Ok(Arc::clone(conn.downstream()))
}

pub(super) fn head(session: &Session) -> Head<'_, HeaderMap> {
    let request = session.req_header();
    Head {
        method: &request.method,
        version: request.version,
        target: request.raw_path(),
        path: request.uri.path(),
        fields: &request.headers,
    }
}

/// A head of Pingora's, which changes are applied to.
pub(super) trait Header {
    fn set(&mut self, name: &'static str, value: HeaderValue) -> Result<()>;
    fn remove(&mut self, name: &HeaderName);
}

impl Header for RequestHeader {
    fn set(&mut self, name: &'static str, value: HeaderValue) -> Result<()> {
        self.insert_header(name, value)
    }

    fn remove(&mut self, name: &HeaderName) {
        self.remove_header(name);
    }
}

impl Header for ResponseHeader {
    fn set(&mut self, name: &'static str, value: HeaderValue) -> Result<()> {
        self.insert_header(name, value)
    }

    fn remove(&mut self, name: &HeaderName) {
        self.remove_header(name);
    }
}

pub(super) fn apply(changes: Changes, header: &mut impl Header) -> Result<()> {
    changes.into_iter().try_for_each(|change| match change {
        Change::Set(name, value) => header.set(name, value),
        Change::Remove(name) => {
            header.remove(&name);
            Ok(())
        }
    })
}

/// The backend of an attempt as Pingora connects to it. `whole`: the request was received to
/// its last byte, and is no upgrade.
///
/// The client's connection sees the bytes of both directions and keeps the deadlines of the
/// exchange, so that a long upload is not taken for a silent cell. Only while a cell takes no
/// more of a request body is that connection not polled: then the kernel ends this one, a
/// moment after the write deadline, which by itself has Pingora wait for an early answer. The
/// read deadline is longer than all others, for where the kernel does not end it. It costs a
/// timer for each read, and a request that is whole does without.
pub(super) fn peer(next: &Next, timeouts: Timeouts, whole: bool) -> HttpPeer {
    let write = timeouts.stream_idle;
    let longest = write.max(timeouts.response_header).max(timeouts.request);
    let mut peer = next.backend.peer();
    let options = &mut peer.options;
    options.connection_timeout = Some(next.connect);
    options.total_connection_timeout = Some(next.connect);
    options.write_timeout = Some(write);
    options.read_timeout = (!whole).then_some(longest + LAST_RESORT);
    options.idle_timeout = Some(timeouts.upstream_idle);
    options.tcp_keepalive = Some(TcpKeepalive {
        idle: KEEPALIVE_IDLE,
        interval: KEEPALIVE_INTERVAL,
        count: KEEPALIVE_PROBES,
        #[cfg(target_os = "linux")]
        user_timeout: write + LAST_RESORT,
    });
    if next.new_connection {
        options.idle_timeout = Some(Duration::ZERO);
        // Part of the key by which kept connections are looked up.
        peer.group_key = rand::random();
    }
    peer
}

/// An error that only carries a failure, which the exchange has as well.
pub(super) fn error(failure: Failure) -> Box<Error> {
    Error::explain(ErrorType::HTTPStatus(failure.status), failure.code)
}

pub(super) fn bad_response(what: &'static str) -> Box<Error> {
    Error::explain(ErrorType::InvalidHTTPHeader, what).into_up()
}

/// The failure of an attempt to connect.
pub(super) fn connect_failure(error: &Error) -> Failure {
    match error.etype() {
        ErrorType::ConnectTimedout | ErrorType::TLSHandshakeTimedout => Failure::CONNECT_TIMEOUT,
        ErrorType::TLSHandshakeFailure | ErrorType::InvalidCert | ErrorType::HandshakeError => {
            Failure::UNVERIFIED
        }
        // No socket or no local port: that is the edge, not the cell.
        ErrorType::InternalError | ErrorType::SocketError | ErrorType::BindError => {
            Failure::INTERNAL
        }
        _ => Failure::UNREACHABLE,
    }
}

/// The failure of an exchange that broke after it was connected.
pub(super) fn exchange_failure(error: &Error) -> Failure {
    match (error.esource(), error.etype()) {
        (
            ErrorSource::Downstream,
            ErrorType::ReadError
            | ErrorType::WriteError
            | ErrorType::ConnectionClosed
            | ErrorType::ReadTimedout
            | ErrorType::WriteTimedout,
        ) => Failure::CLIENT_GONE,
        (ErrorSource::Downstream, _) => Failure::BAD_REQUEST,
        (ErrorSource::Upstream, ErrorType::ReadTimedout) => Failure::RESPONSE_TIMEOUT,
        (ErrorSource::Upstream, ErrorType::WriteTimedout) => Failure::STREAM_TIMEOUT,
        (ErrorSource::Upstream, _) => Failure::BAD_RESPONSE,
        (ErrorSource::Internal | ErrorSource::Unset, _) => Failure::INTERNAL,
    }
}

/// Whether the connection broke before a byte of the answer.
pub(super) fn was_reset(error: &Error) -> bool {
    let broke = matches!(
        error.etype(),
        ErrorType::ConnectionClosed | ErrorType::ReadError | ErrorType::WriteError
    );
    // Pingora says only in the text how far the answer had come.
    let begun = || {
        let text = error.to_string();
        text.contains("bytes already read") && !text.contains("bytes already read: 0")
    };
    broke && !begun()
}
