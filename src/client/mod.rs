//! The connections that Cellgate opens as an HTTP client, except those to cells,
//! which are Pingora's: commands ask an edge or a control plane, an edge connects to
//! its control plane, a control plane to etcd.
//!
//! - `stream` opens TCP connections, and secures them with [`Tls`];
//! - `tls` makes the TLS connector: trusted roots, client certificate, protocol;
//! - `http` sends HTTP/1.1 requests over a stream.
//!
//! Imports nothing of ours; `cli`, `source` and `control::store::etcd` import it.

mod http;
mod stream;
mod tls;

pub(crate) use http::{Connection, encode, get};
pub(crate) use stream::{Address, Stream, authority, connect, secure};
pub(crate) use tls::{Alpn, Tls, TlsFiles};
