//! The dialect of M3, which is spoken where no subprotocol was agreed on: whole
//! documents to the edge, and its verdicts back. Nothing says what an edge has, so
//! every connection begins with a whole document.

mod reply;
mod snapshot;

pub use reply::Reply;
pub use snapshot::{ConfigSnapshot, encode_snapshot};
