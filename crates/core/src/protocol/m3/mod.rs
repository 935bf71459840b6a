//! The M3 dialect, spoken when no subprotocol was agreed on: whole documents to the edge, acks and
//! nacks back. The edge does not report what it has, so every connection begins with a whole
//! document.

mod reply;
mod snapshot;

pub use reply::Reply;
pub use snapshot::{ConfigSnapshot, encode_snapshot};
