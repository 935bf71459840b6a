//! The router on a truth in memory. Every answer of every test is held against the
//! description.

mod access;
mod conditions;
mod description;
mod documents;
mod generations;
mod hostile;
mod keys;
mod limits;
mod races;
mod status;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, StatusCode};
use axum::{Extension, Router};
use http_body::Body as _;
use http_body_util::BodyExt;
use serde_json::Value;
use tower::ServiceExt;

use self::description::Description;
use super::router;
use crate::control::access::{Access, Token};
use crate::control::core::tests::document;
use crate::control::core::tests::memory::Memory;
use crate::control::core::{Edges, Truth};
use crate::control::{Control, Peer};

const PEER: SocketAddr = SocketAddr::new(
    std::net::IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)),
    4711,
);

/// Largest document that is taken here.
const DOCUMENT_BYTES: usize = 1 << 20;

#[derive(Clone)]
struct Api {
    router: Router,
    truth: Arc<Truth>,
    edges: Arc<Edges>,
    store: Arc<Memory>,
    description: Arc<Description>,
    limits: Arc<crate::control::api::RequestLimits>,
}

#[derive(Debug)]
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        value.map_or("", |value| value.to_str().unwrap())
    }

    #[track_caller]
    fn is(self, status: u16) -> Self {
        assert_eq!(self.status.as_u16(), status, "{}", self.body);
        self
    }

    /// The status, and the word for what is wrong.
    fn refusal(&self) -> (u16, String) {
        let error = self.json()["error"].as_str().unwrap().to_owned();
        (self.status.as_u16(), error)
    }

    fn message(&self) -> String {
        self.json()["message"].as_str().unwrap().to_owned()
    }
}

impl Api {
    /// Without a document.
    async fn empty() -> Self {
        Self::with(Vec::new(), None).await
    }

    /// With `acme` on `one`.
    async fn new() -> Self {
        let api = Self::empty().await;
        let document = document("1", &[("acme", "one")]);
        api.ask("PUT", "/document", &[], document).await.is(201);
        api
    }

    async fn with(tokens: Vec<Token>, certificate: Option<&str>) -> Self {
        Self::behind(Access::new(tokens), certificate).await
    }

    async fn behind(access: Access, certificate: Option<&str>) -> Self {
        let store = Arc::new(Memory::default());
        let truth = Truth::open(Arc::clone(&store) as _).await.unwrap();
        let peer = Peer {
            address: PEER,
            certificate: certificate.map(str::to_owned),
        };
        let mut control = Control::new("test", Arc::clone(&truth), access);
        control.document_bytes = DOCUMENT_BYTES as u64;
        Self {
            router: router(control.clone()).layer(Extension(peer)),
            truth,
            edges: control.edges,
            limits: control.request_limits,
            store,
            description: Arc::new(Description::read()),
        }
    }

    /// Another control plane on the same store.
    async fn beside(&self) -> Self {
        let mut other = Self::empty().await;
        other.truth = Truth::open(Arc::clone(&self.store) as _).await.unwrap();
        let control = Control::new("other", Arc::clone(&other.truth), Access::default());
        other.router = router(control);
        other.store = Arc::clone(&self.store);
        other
    }

    async fn get(&self, target: &str) -> Answer {
        self.ask("GET", target, &[], "").await
    }

    async fn put_json(&self, target: &str, body: impl Into<Body>) -> Answer {
        let json = [("content-type", "application/json")];
        self.ask("PUT", target, &json, body).await
    }

    async fn post(&self, target: &str, body: impl Into<Body>) -> Answer {
        self.ask("POST", target, &[], body).await
    }

    /// Asks for a target below `/api/v1`.
    async fn ask(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> Answer {
        let target = format!("/api/v1{target}");
        let mut request = Request::builder().method(method).uri(&target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = body.into();
        let typed = headers.iter().any(|(name, _)| *name == "content-type");
        if !typed && !body.is_end_stream() {
            request = request.header("content-type", "application/json");
        }
        let request = request.body(body).unwrap();
        let method: Method = method.parse().unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (head, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let answer = Answer {
            status: head.status,
            headers: head.headers,
            body: String::from_utf8(body.into()).unwrap(),
        };
        self.description.check(&method, &target, &answer);
        answer
    }
}
