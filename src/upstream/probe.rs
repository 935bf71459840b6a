//! Health probes: one GET each.

use std::io;
use std::time::Duration;

use async_trait::async_trait;
use http::{HeaderValue, StatusCode};
use pingora::http::RequestHeader;
use pingora::{Error, ErrorType};
use pingora_core::connectors::ConnectorOptions;
use pingora_core::connectors::http::v1::Connector;
use pingora_core::protocols::http::v1::client::HttpSession;
use pingora_core::server::configuration::ServerConf;
use tokio::time::{Instant, timeout_at};

use super::backend::Backend;
use crate::table::HealthCheck;

const AGENT: &str = concat!("cellgate/", env!("CARGO_PKG_VERSION"));

/// Most bytes of a response body that are read, so that the cell can finish writing it.
const BODY_BYTES: usize = 64 * 1024;

/// Most interim responses (RFC 9110 §15.2) before the final one.
const INTERIM: usize = 8;

/// Longest error text of a library that is passed on, in characters.
const REASON_CHARS: usize = 120;

/// The outcome of one probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probed {
    /// Why the probe failed, in words for the operator, if it did.
    pub outcome: Result<(), String>,
    /// It ran into its timeout; the next one probably will, too.
    pub timed_out: bool,
}

/// A way to probe a backend.
#[async_trait]
pub trait Probe: Send + Sync + 'static {
    /// Takes no longer than `check.timeout`.
    async fn probe(&self, backend: &Backend, check: &HealthCheck) -> Probed;
}

/// Probes by HTTP/1.1, each time on a new connection: a pooled connection does not show
/// whether a new one can be made.
pub struct HttpProbe {
    /// For HTTP/1.1 only, as for requests.
    connector: Connector,
}

impl HttpProbe {
    /// Connects as the proxy does that is made from `conf`: with the same
    /// addresses of its own, and certificates verified against the same file.
    ///
    /// # Panics
    ///
    /// As the proxy does, if `conf.ca_file` cannot be used.
    pub fn new(conf: &ServerConf) -> Self {
        let options = ConnectorOptions {
            // Probes run on a thread of their own already.
            offload_threadpool: None,
            ..ConnectorOptions::from_server_conf(conf)
        };
        Self {
            connector: Connector::new(Some(options)),
        }
    }

    async fn ask(
        &self,
        backend: &Backend,
        check: &HealthCheck,
    ) -> Result<(HttpSession, StatusCode), String> {
        let request = request(backend, check)?;
        let connected = self.connector.get_http_session(&backend.peer()).await;
        let (mut session, _) = connected.map_err(|error| connect_failure(&error))?;
        let written = session.write_request_header(Box::new(request)).await;
        written.map_err(|error| exchange_failure(&error))?;
        for _ in 0..=INTERIM {
            let read = session.read_response().await;
            read.map_err(|error| exchange_failure(&error))?;
            match session.get_status() {
                // 101 is a final response, though it was not asked for.
                Some(status)
                    if status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS => {}
                Some(status) => return Ok((session, status)),
                None => break,
            }
        }
        Err("sent interim answers only".to_owned())
    }
}

#[async_trait]
impl Probe for HttpProbe {
    async fn probe(&self, backend: &Backend, check: &HealthCheck) -> Probed {
        let deadline = Instant::now() + check.timeout;
        let (mut session, status) = match timeout_at(deadline, self.ask(backend, check)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(why)) => {
                return Probed {
                    outcome: Err(why),
                    timed_out: false,
                };
            }
            Err(_) => {
                return Probed {
                    outcome: Err(format!("timed out after {}", shown(check.timeout))),
                    timed_out: true,
                };
            }
        };
        let status = status.as_u16();
        let outcome = if check.expects(status) {
            Ok(())
        } else {
            Err(format!("answered {status} (expected {})", expected(check)))
        };
        // The outcome does not depend on the body.
        let timed_out = timeout_at(deadline, discard_body(&mut session))
            .await
            .is_err();
        Probed { outcome, timed_out }
    }
}

fn request(backend: &Backend, check: &HealthCheck) -> Result<RequestHeader, String> {
    let unfit = |what: &str, value: &str| format!("the {what} {value:?} cannot be sent");
    let path = &check.path;
    let mut request =
        RequestHeader::build("GET", path.as_bytes(), Some(3)).map_err(|_| unfit("path", path))?;
    let host = match &check.host {
        Some(host) => HeaderValue::from_str(host).map_err(|_| unfit("host", host))?,
        None => backend.origin.authority.clone(),
    };
    for (name, value) in [
        // Given as text, the names keep their case, which some cells expect.
        ("Host", host),
        ("User-Agent", HeaderValue::from_static(AGENT)),
        ("Connection", HeaderValue::from_static("close")),
    ] {
        request
            .insert_header(name, value)
            .map_err(|error| error.to_string())?;
    }
    Ok(request)
}

/// Reads the body: closing a connection with unread data resets it, and the cell would log
/// that.
async fn discard_body(session: &mut HttpSession) {
    while session.body_bytes_received() < BODY_BYTES {
        match session.read_body_ref().await {
            Ok(Some(_)) => {}
            Ok(None) | Err(_) => return,
        }
    }
}

/// `200-299, 401`.
fn expected(check: &HealthCheck) -> String {
    let ranges = check.expected_status.iter().map(|range| {
        if range.start() == range.end() {
            range.start().to_string()
        } else {
            format!("{}-{}", range.start(), range.end())
        }
    });
    ranges.collect::<Vec<_>>().join(", ")
}

fn shown(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}

fn connect_failure(error: &Error) -> String {
    match error.etype() {
        ErrorType::ConnectRefused => "connection refused".to_owned(),
        ErrorType::ConnectTimedout => "connecting timed out".to_owned(),
        ErrorType::ConnectNoRoute => "no route to the address".to_owned(),
        ErrorType::InvalidCert => format!("certificate not valid: {}", tls_reason(error)),
        ErrorType::TLSHandshakeFailure | ErrorType::HandshakeError => {
            format!("tls handshake failed: {}", tls_reason(error))
        }
        _ => format!("connecting failed: {}", reason(error)),
    }
}

fn exchange_failure(error: &Error) -> String {
    match error.etype() {
        ErrorType::ConnectionClosed => "closed the connection without an answer".to_owned(),
        // The library's text repeats all that it has read.
        ErrorType::InvalidHTTPHeader => "the answer is not valid http".to_owned(),
        _ => reason(error),
    }
}

/// The library's reason for a failed handshake, without the text around it.
fn tls_reason(error: &Error) -> String {
    let text = error
        .context
        .as_ref()
        .map_or("", |context| context.as_str());
    let text = text.strip_prefix("TLS connect() failed: ").unwrap_or(text);
    let text = text.split_once(", SNI: ").map_or(text, |(text, _)| text);
    text.chars().take(REASON_CHARS).collect()
}

/// The kind of the I/O error that is the root cause, or the text of the cause.
fn reason(error: &Error) -> String {
    let root = error.root_cause();
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(root);
    while let Some(cause) = next {
        if let Some(error) = cause.downcast_ref::<io::Error>()
            && error.kind() != io::ErrorKind::Other
        {
            return error.kind().to_string();
        }
        next = cause.source();
    }
    root.to_string().chars().take(REASON_CHARS).collect()
}
