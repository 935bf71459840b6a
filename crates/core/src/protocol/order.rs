//! What an edge does with a delta, snapshot or checkpoint: generations only grow.

use crate::table::Digest;

/// A generation: its number and the digest of its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    pub generation: u64,
    pub digest: Digest,
}

/// What an edge does with a delta or a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Apply it.
    Apply,
    /// The edge already has it: ack it again, and ignore it.
    Known,
    /// Answer with a nack and this problem.
    Refuse(String),
    /// Ask for a snapshot for this reason.
    Resync(String),
}

/// What to do with a delta from generation `from` to `to`. `held` is what the edge serves, if that
/// came from a control plane.
pub fn delta(held: Option<Mark>, from: u64, to: Mark) -> Verdict {
    match held {
        None => Verdict::Resync(format!(
            "a delta from generation {from}, but this edge has no generation"
        )),
        Some(held) if held == to => Verdict::Known,
        Some(held) if to.generation <= held.generation => Verdict::Refuse(older(held, to)),
        Some(held) if held.generation == from => Verdict::Apply,
        Some(held) => Verdict::Resync(format!(
            "a delta from generation {from}, but this edge has generation {}",
            held.generation
        )),
    }
}

/// What to do with a snapshot of `to`. One of the same generation with another digest is applied: it
/// is the answer to a resync.
pub fn snapshot(held: Option<Mark>, to: Mark) -> Verdict {
    match held {
        Some(held) if held == to => Verdict::Known,
        Some(held) if to.generation < held.generation => Verdict::Refuse(older(held, to)),
        _ => Verdict::Apply,
    }
}

/// The reason to ask for a snapshot after a checkpoint, if there is one. `refused` is the generation
/// that the edge refused last, which is not asked for again.
pub fn checkpoint(held: Option<Mark>, to: Mark, refused: Option<u64>) -> Option<String> {
    if refused == Some(to.generation) {
        return None;
    }
    match held {
        None => Some(format!(
            "this edge has no generation, but should have {}",
            to.generation
        )),
        Some(held) if held.generation < to.generation => Some(format!(
            "this edge has generation {}, but should have {}",
            held.generation, to.generation
        )),
        Some(held) if held.generation == to.generation && held.digest != to.digest => {
            Some(format!(
                "generation {} has the digest {} on this edge, but {} on the control plane",
                to.generation, held.digest, to.digest
            ))
        }
        // The control plane has lost data. It will continue above the generations of its edges.
        Some(_) => None,
    }
}

fn older(held: Mark, to: Mark) -> String {
    format!(
        "older generation {} (this edge has {}; generations only grow)",
        to.generation, held.generation
    )
}
