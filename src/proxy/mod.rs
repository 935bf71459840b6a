//! The data plane: each request's way from its routing key to a cell and back.
//!
//! The only folder that knows the proxy library's request types. `service` is
//! the walk through its phases; every other file is a part of that walk.
//! Imported by `cli`, which wires it, and by nothing else.

mod checks;
mod context;
mod edge;
mod exchange;
mod failure;
mod fields;
mod forward;
mod outcome;
mod over;
mod peer;
mod reply;
mod request_id;
mod response;
mod service;
mod upstream;

pub use edge::{EdgeProxy, ProxyConfig};
pub use forward::origin_fields;
