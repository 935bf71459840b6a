//! What an edge does with what it is offered: generations only grow.

use crate::table::Digest;

/// A generation and what it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    pub generation: u64,
    pub digest: Digest,
}

/// What an edge does with a delta or a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is next.
    Apply,
    /// It is here already: ack it again, and leave it out.
    Known,
    /// Answer with a nack and this problem.
    Refuse(String),
    /// Ask for a snapshot for this reason.
    Resync(String),
}

/// What to do with a delta that makes `to` of generation `from`. `held` is what
/// the edge serves and had from a control plane.
pub fn delta(held: Option<Mark>, from: u64, to: Mark) -> Verdict {
    match held {
        None => Verdict::Resync(format!(
            "a delta of generation {from}, and nothing here that it could change"
        )),
        Some(held) if held == to => Verdict::Known,
        Some(held) if to.generation <= held.generation => Verdict::Refuse(older(held, to)),
        Some(held) if held.generation == from => Verdict::Apply,
        Some(held) => Verdict::Resync(format!(
            "a delta of generation {from} where one of {} was due",
            held.generation
        )),
    }
}

/// What to do with a snapshot of `to`. One of the same generation with another
/// content mends what a resync was asked for.
pub fn snapshot(held: Option<Mark>, to: Mark) -> Verdict {
    match held {
        Some(held) if held == to => Verdict::Known,
        Some(held) if to.generation < held.generation => Verdict::Refuse(older(held, to)),
        _ => Verdict::Apply,
    }
}

/// The reason to ask for a snapshot after a checkpoint, if there is one.
/// `refused` is the generation that the edge refused last: to be sent it again
/// would change nothing.
pub fn checkpoint(held: Option<Mark>, to: Mark, refused: Option<u64>) -> Option<String> {
    if refused == Some(to.generation) {
        return None;
    }
    match held {
        None => Some(format!(
            "nothing here where generation {} is due",
            to.generation
        )),
        Some(held) if held.generation < to.generation => Some(format!(
            "generation {} here where {} is due",
            held.generation, to.generation
        )),
        Some(held) if held.generation == to.generation && held.digest != to.digest => {
            Some(format!(
                "generation {} has the digest {} here and {} there",
                to.generation, held.digest, to.digest
            ))
        }
        // Its data was lost: it will go on from what edges say they have.
        Some(_) => None,
    }
}

fn older(held: Mark, to: Mark) -> String {
    format!(
        "older generation {} (this edge has {}; generations only grow)",
        to.generation, held.generation
    )
}
