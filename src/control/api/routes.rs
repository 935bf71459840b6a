//! Every path and method, listed once: for the router, and for the test that holds
//! the description against it.

use axum::Router;
use axum::handler::Handler;
use axum::http::Method;
use axum::routing::{MethodFilter, on};

use super::{diff, document, generations, keys, status};
use crate::control::Control;

/// A router, and what is in it.
pub(super) struct Routes {
    router: Router<Control>,
    listed: Vec<(Method, &'static str)>,
}

pub(super) fn all() -> Routes {
    Routes {
        router: Router::new(),
        listed: Vec::new(),
    }
    .get("/api/v1/document", document::get)
    .put("/api/v1/document", document::put)
    .get("/api/v1/keys", keys::list)
    .post("/api/v1/keys:batch", keys::batch)
    .get("/api/v1/keys/{key}", keys::get)
    .put("/api/v1/keys/{key}", keys::put)
    .delete("/api/v1/keys/{key}", keys::delete)
    .get("/api/v1/generations", generations::list)
    .get("/api/v1/generations/{generation}", generations::get)
    .get(
        "/api/v1/generations/{generation}/document",
        generations::document,
    )
    .get("/api/v1/generations/{generation}/diff", diff::get)
    .post(
        "/api/v1/generations/{generation}/restore",
        generations::restore,
    )
    .get("/api/v1/edges", status::edges)
    .get("/api/v1/edges/{edge_id}", status::edge)
    .get("/api/v1/status", status::status)
    .get("/api/v1/openapi.json", super::openapi)
}

impl Routes {
    pub fn into_router(self) -> Router<Control> {
        self.router
    }

    #[cfg(test)]
    pub fn listed(&self) -> &[(Method, &'static str)] {
        &self.listed
    }

    fn get<T: 'static>(self, path: &'static str, handler: impl Handler<T, Control>) -> Self {
        // Which takes HEAD as well, and drops the body.
        self.add(Method::GET, MethodFilter::GET, path, handler)
    }

    fn put<T: 'static>(self, path: &'static str, handler: impl Handler<T, Control>) -> Self {
        self.add(Method::PUT, MethodFilter::PUT, path, handler)
    }

    fn post<T: 'static>(self, path: &'static str, handler: impl Handler<T, Control>) -> Self {
        self.add(Method::POST, MethodFilter::POST, path, handler)
    }

    fn delete<T: 'static>(self, path: &'static str, handler: impl Handler<T, Control>) -> Self {
        self.add(Method::DELETE, MethodFilter::DELETE, path, handler)
    }

    fn add<T: 'static>(
        mut self,
        method: Method,
        filter: MethodFilter,
        path: &'static str,
        handler: impl Handler<T, Control>,
    ) -> Self {
        self.router = self.router.route(path, on(filter, handler));
        self.listed.push((method, path));
        self
    }
}
