//! One small HTTP GET, for the commands that talk to a running edge or cell.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// An answer larger than this, in bytes, is refused: whatever sent it is not one of ours.
const MAX_BODY: usize = 16 << 20;

pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: Bytes,
}

/// Fetches an `http` URL. `timeout` covers the whole exchange. Errors name the URL.
pub(super) async fn get(url: &str, timeout: Duration) -> Result<Answer, String> {
    match tokio::time::timeout(timeout, exchange(url)).await {
        Ok(result) => result,
        Err(_) => Err(format!(
            "{url} did not answer within {}",
            humantime::format_duration(timeout)
        )),
    }
}

async fn exchange(url: &str) -> Result<Answer, String> {
    let uri: Uri = url
        .parse()
        .map_err(|error| format!("{url} is not a valid URL: {error}"))?;
    if uri.scheme_str() != Some("http") {
        return Err(format!("{url} does not begin with http://"));
    }
    let authority = uri
        .authority()
        .ok_or_else(|| format!("{url} names no host"))?;
    let host = authority
        .host()
        .trim_start_matches('[')
        .trim_end_matches(']');
    let stream = TcpStream::connect((host, authority.port_u16().unwrap_or(80)))
        .await
        .map_err(|error| format!("cannot connect to {authority}: {error}"))?;

    let broken = |error: hyper::Error| format!("{url} did not answer as HTTP: {error}");
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(broken)?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::get(path)
        .header(http::header::HOST, authority.as_str())
        .header(http::header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| format!("{url} cannot be asked for: {error}"))?;

    let answer = async {
        let response = sender.send_request(request).await.map_err(broken)?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_BODY)
            .collect()
            .await
            .map_err(|error| format!("{url} broke off its answer: {error}"))?;
        Ok(Answer {
            status,
            body: body.to_bytes(),
        })
    };
    let mut answer = std::pin::pin!(answer);
    tokio::select! {
        answer = &mut answer => answer,
        // The connection may end first; what it carried is then already with the answer.
        _ = connection => answer.await,
    }
}
