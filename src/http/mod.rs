//! Client connections: the accept loops, and a stream that frames HTTP/1.x
//! strictly and keeps every deadline.
//!
//! The proxy library reads requests from a [`ClientConn`], which hands it one
//! whole, checked request head at a time, with what the proxy tells a cell of the
//! client, and never a byte beyond the request's own body. `proxy` and `admin` ask the connection what went wrong; `cli` wires
//! the listeners. Nothing else may import this folder.

mod chunked;
mod conn;
mod handover;
mod head;
mod lifecycle;
mod listener;
mod signals;
mod timer;

pub use conn::{ClientConn, ConnConfig, Deadlines, Expiry, OriginFields};
pub use handover::{Handover, NamedSockets};
pub use head::{ORIGIN_FIELDS, Refusal};
pub use lifecycle::{Accepting, CountGuard, Lifecycle};
pub use listener::{EdgeListener, bind, inherit};
pub use signals::{Signals, ignore_until_handled};
