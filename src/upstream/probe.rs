//! One health probe: a GET that asks whether a backend works.

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

/// How much of an answer's body is read, so that a cell may finish writing it.
const BODY_BYTES: usize = 64 * 1024;

/// How many interim answers (RFC 9110 §15.2) may come before the final one.
const INTERIM: usize = 8;

/// Longest reason that is passed on from a library, in characters.
const REASON_CHARS: usize = 120;

/// What came of one probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probed {
    /// In words for the operator why the backend is not well, if it is not.
    pub outcome: Result<(), String>,
    /// It took all the time that it had. The next one probably will as well.
    pub timed_out: bool,
}

/// Asks a backend how it is.
#[async_trait]
pub trait Probe: Send + Sync + 'static {
    /// Takes no longer than `check.timeout`.
    async fn probe(&self, backend: &Backend, check: &HealthCheck) -> Probed;
}

/// Asks by HTTP/1.1, each time on a connection of its own: a connection that is
/// kept says little of whether a new one would come about.
pub struct HttpProbe {
    /// That of HTTP/1.1 alone, which is what requests are sent with, too.
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
            // Probes have a thread of their own as it is.
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
                // 101 is a final answer, though nobody asked for it.
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
        // Whatever becomes of the body, the answer is known.
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
        // As names of their own these keep their case, which some cells expect.
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

/// Closing a connection with something left to read resets it, and resets get
/// into the cell's log.
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
        // The library repeats what it read, all of it.
        ErrorType::InvalidHTTPHeader => "the answer is not valid http".to_owned(),
        _ => reason(error),
    }
}

/// What the library says of a handshake, without what it says around that.
fn tls_reason(error: &Error) -> String {
    let text = error
        .context
        .as_ref()
        .map_or("", |context| context.as_str());
    let text = text.strip_prefix("TLS connect() failed: ").unwrap_or(text);
    let text = text.split_once(", SNI: ").map_or(text, |(text, _)| text);
    text.chars().take(REASON_CHARS).collect()
}

/// The kind of the I/O error at the bottom, or what there is instead.
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
