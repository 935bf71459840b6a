//! The client's side of a connection: accept loops, strict HTTP/1.x framing, deadlines, and
//! the life of the process that serves them.
//!
//! A [`ClientConn`] runs over any [`ClientStream`]. It hands its reader one complete, checked
//! request head at a time and never a byte beyond the request's own body. What the connection
//! and the exchange on it have to tell each other goes through a [`Downstream`].
//!
//! `exchange`, `proxy` and `admin` import this folder; `cli` wires the listeners. It imports
//! `telemetry`.

mod chunked;
mod conn;
mod handover;
mod head;
mod lifecycle;
mod listener;
mod signals;

pub use conn::{
    Client, ClientConn, ClientStream, ConnConfig, Deadlines, Downstream, Expiry, Fault, Transport,
};
pub use handover::{Handover, NamedSockets};
pub use head::Refusal;
pub use lifecycle::{Accepting, CountGuard, Lifecycle};
pub use listener::{EdgeListener, bind, inherit};
pub use signals::{Signals, ignore_until_handled};
