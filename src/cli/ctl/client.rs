//! Requests to the API of a control plane, over one connection while it lasts.

use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, ETAG, HOST, HeaderValue, IF_MATCH};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::timeout;
use url::Url;

use super::Server;
use crate::cli::failure::{Failure, REFUSED, UNREACHABLE};
use crate::client::{Address, Alpn, Connection, Tls, TlsFiles, authority, connect};
use crate::control::core::Etag;
use crate::control::store::Record;
use crate::files::token;
use crate::settings::system_bundle;
use crate::table::Problem;

/// Deadline of a connection, TLS handshake included.
const CONNECT: Duration = Duration::from_secs(10);

/// The largest answer that is read into memory, in bytes.
const ANSWER_BYTES: usize = 256 << 20;

/// A control plane.
pub(super) struct Client {
    /// Without a slash at its end.
    url: String,
    address: Address,
    authority: String,
    /// In front of every path.
    prefix: String,
    /// None: plain HTTP.
    tls: Option<Tls>,
    authorization: Option<HeaderValue>,
    timeout: Duration,
    connection: Option<Connection>,
}

/// A request.
#[derive(Default)]
pub(super) struct Ask<'a> {
    pub method: Method,
    /// Below `/api/v1`, percent-encoded, with the query.
    pub path: String,
    /// JSON, or empty.
    pub body: Bytes,
    /// An etag, with or without its quotes.
    pub if_match: Option<&'a str>,
}

impl Ask<'_> {
    pub fn get(path: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            ..Self::default()
        }
    }
}

/// A successful answer, whose body is still to be read.
pub(super) struct Answer {
    response: Response<Incoming>,
    url: String,
    timeout: Duration,
}

impl Client {
    /// Connects with the first request.
    ///
    /// # Errors
    /// Which of the arguments cannot be used.
    pub fn new(server: &Server) -> Result<Self, Failure> {
        let url = server.url.trim_end_matches('/');
        let bad = |why: &str| {
            let message = format!("{url} {why} (valid: http://HOST:PORT or https://HOST:PORT)");
            Failure::unreachable(message)
        };
        let parsed = Url::parse(url).map_err(|_| bad("is not a URL"))?;
        let tls = match parsed.scheme() {
            "http" => None,
            "https" => Some(tls(server).map_err(Failure::unreachable)?),
            _ => return Err(bad("does not begin with http:// or https://")),
        };
        let address = Address::of(&parsed).ok_or_else(|| bad("names no host"))?;
        let user = !parsed.username().is_empty() || parsed.password().is_some();
        if user || parsed.query().is_some() || parsed.fragment().is_some() {
            return Err(bad("has more than a host, a port and a path"));
        }
        Ok(Self {
            address,
            authority: authority(&parsed),
            prefix: parsed.path().trim_end_matches('/').to_owned(),
            url: url.to_owned(),
            tls,
            authorization: authorization(server).map_err(Failure::unreachable)?,
            timeout: server.timeout,
            connection: None,
        })
    }

    /// Sends a request, and reads the answer as JSON.
    ///
    /// # Errors
    /// There is no answer, it is a refusal, or it is not a `T`.
    pub async fn json<T: DeserializeOwned>(&mut self, ask: Ask<'_>) -> Result<T, Failure> {
        let answer = self.send(ask).await?;
        let url = answer.url.clone();
        let body = answer.whole().await?;
        serde_json::from_slice(&body).map_err(|error| {
            Failure::unreachable(format!("{url}: not an answer of a control plane: {error}"))
        })
    }

    /// Reads what is at `path` as JSON.
    ///
    /// # Errors
    /// As [`json`](Self::json).
    pub async fn get(&mut self, path: impl Into<String>) -> Result<Value, Failure> {
        self.json(Ask::get(path)).await
    }

    /// Sends a request. The body of the answer may be of any size.
    ///
    /// # Errors
    /// There is no answer, or it is a refusal.
    pub async fn send(&mut self, ask: Ask<'_>) -> Result<Answer, Failure> {
        let url = format!("{}/api/v1{}", self.url, ask.path);
        let request = self.request(ask).map_err(Failure::unreachable)?;
        let mut reused = self.connection.take();
        if let Some(connection) = &mut reused
            && !connection.reusable().await
        {
            reused = None;
        }
        let mut connection = match reused {
            Some(connection) => connection,
            None => self.connect().await.map_err(Failure::unreachable)?,
        };
        let response = timeout(self.timeout, connection.send(request))
            .await
            .map_err(|_| silent(&url, self.timeout))?
            .map_err(|error| {
                Failure::unreachable(format!("{url} did not answer as HTTP: {error}"))
            })?;
        self.connection = Some(connection);
        let status = response.status();
        let answer = Answer {
            response,
            url,
            timeout: self.timeout,
        };
        match status.is_success() {
            true => Ok(answer),
            false => {
                let url = answer.url.clone();
                Err(refusal(status, &url, &answer.whole().await?))
            }
        }
    }

    fn request(&self, ask: Ask<'_>) -> Result<Request<Full<Bytes>>, String> {
        let path = format!("{}/api/v1{}", self.prefix, ask.path);
        let mut request = Request::builder()
            .method(ask.method)
            .uri(path)
            .header(HOST, &self.authority);
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        if !ask.body.is_empty() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        if let Some(etag) = ask.if_match {
            let etag = match etag {
                "*" => etag.to_owned(),
                etag => format!("\"{}\"", etag.trim_matches('"')),
            };
            request = request.header(IF_MATCH, etag);
        }
        request
            .body(Full::new(ask.body))
            .map_err(|error| format!("cannot make a request to {}: {error}", self.url))
    }

    async fn connect(&self) -> Result<Connection, String> {
        let limit = CONNECT.min(self.timeout);
        let failed = |why: String| format!("cannot connect to {}: {why}", self.authority);
        let stream = timeout(limit, connect(&self.address, self.tls.as_ref()))
            .await
            .map_err(|_| failed(format!("no answer within {limit:?}")))?
            .map_err(|error| failed(error.to_string()))?;
        let opened = Connection::new(stream).await;
        opened.map_err(|error| failed(error.to_string()))
    }
}

impl Answer {
    /// The etag, without its quotes.
    pub fn etag(&self) -> Option<String> {
        let etag = self.response.headers().get(ETAG)?.to_str().ok()?;
        Some(etag.trim_matches('"').to_owned())
    }

    /// The next piece of the body; None at its end.
    ///
    /// # Errors
    /// The answer broke off.
    pub async fn piece(&mut self) -> Result<Option<Bytes>, Failure> {
        loop {
            let next = timeout(self.timeout, self.response.frame()).await;
            let next = next.map_err(|_| silent(&self.url, self.timeout))?;
            match next.transpose() {
                Err(error) => {
                    let message = format!("{} broke off its answer: {error}", self.url);
                    return Err(Failure::unreachable(message));
                }
                Ok(None) => return Ok(None),
                Ok(Some(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }

    async fn whole(mut self) -> Result<Vec<u8>, Failure> {
        let mut body = Vec::new();
        while let Some(piece) = self.piece().await? {
            if piece.len() > ANSWER_BYTES - body.len() {
                let url = &self.url;
                let message = format!("{url}: the answer is larger than {ANSWER_BYTES} bytes");
                return Err(Failure::unreachable(message));
            }
            body.extend_from_slice(&piece);
        }
        Ok(body)
    }
}

fn silent(url: &str, timeout: Duration) -> Failure {
    let timeout = humantime::format_duration(timeout);
    Failure::unreachable(format!("{url} did not answer within {timeout}"))
}

/// A control plane's answer to a request that failed.
#[derive(Deserialize)]
struct Refusal {
    message: String,
    #[serde(default)]
    problems: Vec<Problem>,
    /// The newest generation, where `If-Match` named another.
    newest: Option<Record>,
}

fn refusal(status: StatusCode, url: &str, body: &[u8]) -> Failure {
    let code = match status.is_server_error() {
        true => UNREACHABLE,
        false => REFUSED,
    };
    let json: Option<Value> = serde_json::from_slice(body).ok();
    let refusal = json
        .as_ref()
        .and_then(|json| Refusal::deserialize(json).ok());
    let (Some(json), Some(refusal)) = (json, refusal) else {
        let body = String::from_utf8_lossy(body);
        let start: String = body.trim().chars().take(200).collect();
        let message = format!("{url} answered {status}, but not as a control plane: {start}");
        return Failure::new(code, "unexpected_answer", message);
    };
    let message = match refusal.newest {
        Some(newest) => {
            let etag = Etag::of(newest.mark()).to_string();
            format!("{} (its etag: {})", refusal.message, etag.trim_matches('"'))
        }
        None => refusal.message,
    };
    Failure::answered(code, json, message, refusal.problems)
}

fn tls(server: &Server) -> Result<Tls, String> {
    let roots = server.ca_file.clone().or_else(system_bundle);
    let roots = roots.ok_or("this system has no root certificates (use --ca-file)")?;
    let files = TlsFiles {
        ca_file: Some(&roots),
        client_cert: server.client_cert.as_deref(),
        client_key: server.client_key.as_deref(),
    };
    Tls::new(files, Alpn::Http1).map_err(|error| error.to_string())
}

/// The token of the file, or else of the environment; an empty variable counts as unset.
fn authorization(server: &Server) -> Result<Option<HeaderValue>, String> {
    let token = match &server.token_file {
        Some(file) => token::read(file)?,
        None => match std::env::var("CELLGATE_TOKEN") {
            Ok(token) if !token.trim().is_empty() => token,
            Ok(_) | Err(std::env::VarError::NotPresent) => return Ok(None),
            Err(error) => return Err(format!("CELLGATE_TOKEN: {error}")),
        },
    };
    let mut header = HeaderValue::try_from(format!("Bearer {}", token.trim()))
        .map_err(|_| "CELLGATE_TOKEN: not a token: more than one line".to_owned())?;
    header.set_sensitive(true);
    Ok(Some(header))
}
