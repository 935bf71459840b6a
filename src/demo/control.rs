//! Telling a running cell how to behave: `/_cell/misbehaviour`.

use std::time::Instant;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::header::ALLOW;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use serde_json::json;

use super::answer::json;
use super::misbehaviour::Misbehaviour;

pub(super) const PATH: &str = "/_cell/misbehaviour";

/// No valid object comes near this many bytes.
const MAX_BODY: usize = 16 << 10;

/// What the cell was told last, and when.
pub(super) struct Manners {
    told: ArcSwap<(Misbehaviour, Instant)>,
}

impl Manners {
    pub(super) fn new(told: Misbehaviour) -> Manners {
        Manners {
            told: ArcSwap::from_pointee((told, Instant::now())),
        }
    }

    /// What holds now.
    pub(super) fn now(&self) -> Misbehaviour {
        let told = self.told.load();
        told.0.after(told.1.elapsed())
    }

    /// Answers a request to [`PATH`]: `GET` shows what the cell was told last, `PUT` replaces it.
    ///
    /// It is answered whatever the cell was told, so there is always a way back. Requests that are being
    /// answered, or never will be, keep to what held when they came.
    pub(super) async fn control(&self, name: &str, request: Request<Incoming>) -> Response<Bytes> {
        match *request.method() {
            Method::GET => json(name, StatusCode::OK, &self.told.load().0),
            Method::PUT => match read(request.into_body()).await {
                Ok(told) => {
                    self.told.store((told, Instant::now()).into());
                    json(name, StatusCode::OK, &told)
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
    let body = Limited::new(body, MAX_BODY).collect().await;
    let body = body.map_err(|error| format!("cannot read the body: {error}"))?;
    let told: Misbehaviour = serde_json::from_slice(&body.to_bytes())
        .map_err(|error| format!("cannot read the object: {error}"))?;
    told.check()?;
    Ok(told)
}
