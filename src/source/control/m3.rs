//! What follows from each message of M3: a document, compiled as a file would be.

use std::sync::Arc;
use std::time::SystemTime;

use super::link::{Ended, Frame};
use super::v1::broke_off;
use crate::background;
use crate::protocol::m3::{ConfigSnapshot, Reply};
use crate::protocol::{Close, Received, Refusal};
use crate::state::{Applied, EdgeState, Source};

/// What came of a frame.
#[derive(Debug)]
pub(super) enum Outcome {
    Answer(Reply),
    /// Nothing: it is of this type, which nobody here knows.
    Unknown(String),
}

/// Takes a frame of at most `most` bytes.
///
/// # Errors
///
/// How the connection ends.
pub(super) async fn receive(
    edge: &Arc<EdgeState>,
    frame: Frame,
    most: usize,
) -> Result<Outcome, Ended> {
    let Frame::Text(text) = frame else {
        let refusal = Refusal::new(Close::Protocol, "a binary frame, of which M3 has none");
        return Err(Ended::Refused(refusal));
    };
    let edge = Arc::clone(edge);
    let received = background::run(move || {
        // Each of these may be as large as the document, so none is kept for
        // longer than it has to be.
        let received = ConfigSnapshot::decode(text.as_bytes(), most);
        drop(text);
        received.map(|received| match received {
            Received::Unknown(kind) => Outcome::Unknown(kind),
            Received::Message(ConfigSnapshot { version, document }) => {
                let now = SystemTime::now();
                let reply = match edge.apply(document.as_bytes(), Source::ControlPlane, now) {
                    Applied::Changed(_) | Applied::Unchanged => Reply::ack(&version),
                    Applied::Refused(problems) => Reply::nack(&version, &problems),
                };
                Outcome::Answer(reply)
            }
        })
    });
    received.await.map_err(broke_off)?.map_err(Ended::Refused)
}
