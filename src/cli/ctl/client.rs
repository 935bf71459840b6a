//! Requests to a control plane, over one connection as long as it lasts.

use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, ETAG, HOST, HeaderValue, IF_MATCH};
use http::{Method, Request, Response, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use pingora_core::tls::ssl::SslConnector;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::failure::Failure;
use super::{Server, tls};
use crate::files::token;

/// How long the system may take to connect.
const CONNECT: Duration = Duration::from_secs(10);

/// Longest answer that is read as a whole, in bytes.
const MOST: usize = 256 << 20;

/// A control plane.
pub(super) struct Client {
    /// Without a slash at its end.
    url: String,
    host: String,
    port: u16,
    authority: String,
    /// In front of every path.
    prefix: String,
    /// None: plain HTTP.
    tls: Option<SslConnector>,
    authorization: Option<HeaderValue>,
    timeout: Duration,
    open: Option<SendRequest<Full<Bytes>>>,
}

/// What is asked.
#[derive(Default)]
pub(super) struct Ask<'a> {
    pub method: Method,
    /// Below `/api/v1`, encoded.
    pub path: String,
    pub body: Bytes,
    /// An etag, with its quotes or without.
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

/// An answer that is no failure, whose body is still to come.
pub(super) struct Answer {
    response: Response<Incoming>,
    url: String,
    timeout: Duration,
}

impl Client {
    /// # Errors
    /// What of the arguments cannot be used.
    pub fn new(server: &Server) -> Result<Self, Failure> {
        let url = server.url.trim_end_matches('/');
        let bad = |why: &str| {
            let message = format!("{url} {why} (valid: http://HOST:PORT or https://HOST:PORT)");
            Failure::unreachable(message)
        };
        let uri: Uri = url.parse().map_err(|_| bad("is not a URL"))?;
        let tls = match uri.scheme_str() {
            Some("http") => None,
            Some("https") => Some(tls::connector(server).map_err(Failure::unreachable)?),
            _ => return Err(bad("does not begin with http:// or https://")),
        };
        let authority = uri.authority().ok_or_else(|| bad("names no host"))?;
        if authority.as_str().contains('@') || uri.query().is_some() {
            return Err(bad("has more than a host, a port and a path"));
        }
        let host = authority.host();
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let usual = if tls.is_some() { 443 } else { 80 };
        Ok(Self {
            host: host.to_owned(),
            port: authority.port_u16().unwrap_or(usual),
            authority: authority.to_string(),
            prefix: uri.path().trim_end_matches('/').to_owned(),
            url: url.to_owned(),
            tls,
            authorization: authorization(server).map_err(Failure::unreachable)?,
            timeout: server.timeout,
            open: None,
        })
    }

    /// Asks, and reads the answer as JSON.
    ///
    /// # Errors
    /// No answer, a refusal, or an answer that is something else.
    pub async fn json<T: DeserializeOwned>(&mut self, ask: Ask<'_>) -> Result<T, Failure> {
        let answer = self.send(ask).await?;
        let url = answer.url.clone();
        let body = answer.whole().await?;
        serde_json::from_slice(&body).map_err(|error| {
            Failure::unreachable(format!("{url}: not the answer of a control plane: {error}"))
        })
    }

    /// [`json`](Self::json) with nothing but a path.
    ///
    /// # Errors
    /// As there.
    pub async fn get(&mut self, path: impl Into<String>) -> Result<Value, Failure> {
        self.json(Ask::get(path)).await
    }

    /// # Errors
    /// No answer, or a refusal.
    pub async fn send(&mut self, ask: Ask<'_>) -> Result<Answer, Failure> {
        let url = format!("{}/api/v1{}", self.url, ask.path);
        let request = self.request(ask).map_err(Failure::unreachable)?;
        let mut usable = None;
        if let Some(mut open) = self.open.take()
            && open.ready().await.is_ok()
        {
            usable = Some(open);
        }
        let mut open = match usable {
            Some(open) => open,
            None => self.connect().await.map_err(Failure::unreachable)?,
        };
        let sent = tokio::time::timeout(self.timeout, open.send_request(request)).await;
        let response = sent
            .map_err(|_| Failure::unreachable(silent(&url, self.timeout)))?
            .map_err(|error| {
                Failure::unreachable(format!("{url} did not answer as HTTP: {error}"))
            })?;
        self.open = Some(open);
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
                Err(Failure::answered(status, &url, &answer.whole().await?))
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
            .map_err(|error| format!("{} cannot be asked: {error}", self.url))
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, String> {
        let connecting = TcpStream::connect((self.host.as_str(), self.port));
        let limit = CONNECT.min(self.timeout);
        let stream = tokio::time::timeout(limit, connecting)
            .await
            .map_err(|_| format!("cannot connect to {}: no answer", self.authority))?
            .map_err(|error| format!("cannot connect to {}: {error}", self.authority))?;
        match &self.tls {
            None => handshake(stream).await,
            Some(connector) => {
                let secured = tls::connect(connector, &self.host, stream);
                let stream = tokio::time::timeout(limit, secured)
                    .await
                    .map_err(|_| silent(&self.url, limit))?
                    .map_err(|error| format!("cannot connect to {}: {error}", self.url))?;
                handshake(stream).await
            }
        }
    }
}

async fn handshake<S>(stream: S) -> Result<SendRequest<Full<Bytes>>, String>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    // Its end is known from what is sent over it.
    tokio::spawn(connection);
    Ok(sender)
}

impl Answer {
    /// The etag, without its quotes.
    pub fn etag(&self) -> Option<String> {
        let etag = self.response.headers().get(ETAG)?.to_str().ok()?;
        Some(etag.trim_matches('"').to_owned())
    }

    /// The next piece of the body; none at its end.
    ///
    /// # Errors
    /// It broke off.
    pub async fn piece(&mut self) -> Result<Option<Bytes>, Failure> {
        loop {
            let next = tokio::time::timeout(self.timeout, self.response.frame()).await;
            let next = next.map_err(|_| Failure::unreachable(silent(&self.url, self.timeout)))?;
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
            if piece.len() > MOST - body.len() {
                let message = format!("{}: an answer of more than {MOST} bytes", self.url);
                return Err(Failure::unreachable(message));
            }
            body.extend_from_slice(&piece);
        }
        Ok(body)
    }
}

fn silent(url: &str, timeout: Duration) -> String {
    let timeout = humantime::format_duration(timeout);
    format!("{url} did not answer within {timeout}")
}

/// The token of the file, or of the environment, where an empty one is as good as
/// none.
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
        .map_err(|_| "CELLGATE_TOKEN: not a token: it is not on one line".to_owned())?;
    header.set_sensitive(true);
    Ok(Some(header))
}
