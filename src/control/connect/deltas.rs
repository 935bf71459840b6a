//! Deltas as messages, each made once for all edges that lack the same.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::sync::OnceCell;

use super::metrics::ConnectMetrics;
use crate::control::core::Step;
use crate::protocol::{self, Mark, ToEdge, batch};

/// Most pairs of generations whose messages are kept, and most bytes of these.
const MOST_KEPT: usize = 64;
const MOST_BYTES: usize = 16 << 20;

/// So many changed keys are put into messages off the threads that serve edges.
const MANY_KEYS: usize = 2_000;

/// Messages that make one generation of another; none: a snapshot does.
pub(super) type Messages = Option<Arc<[Bytes]>>;

/// Which messages: from what, to what, and how large each may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Key {
    from: Mark,
    to: Mark,
    most: usize,
}

type Made = Arc<OnceCell<Messages>>;

/// The last messages.
pub(super) struct Deltas {
    /// The newest last.
    kept: Mutex<VecDeque<(Key, Made)>>,
    metrics: ConnectMetrics,
}

impl Deltas {
    pub fn new(metrics: ConnectMetrics) -> Self {
        Self {
            kept: Mutex::default(),
            metrics,
        }
    }

    /// The messages of at most `most` bytes each that lead from `from` through
    /// `steps`.
    pub async fn get(&self, from: Mark, steps: Vec<Step>, most: usize) -> Messages {
        let to = steps.last()?.to;
        let made = self.made(Key { from, to, most });
        let keys = |step: &Step| step.delta.set.len() + step.delta.remove.len();
        let many = steps.iter().map(keys).sum::<usize>() > MANY_KEYS;
        let counted = self.metrics.deltas_encoded.clone();
        let make = move || {
            counted.inc();
            encode(from.generation, &steps, most)
        };
        // All who lack the same wait for one; if it breaks off, the next makes it.
        let messages = made.get_or_try_init(|| async {
            match many {
                true => tokio::task::spawn_blocking(make).await,
                false => Ok(make()),
            }
        });
        messages.await.ok()?.clone()
    }

    fn made(&self, key: Key) -> Made {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let known = kept.iter().rev().find(|(other, _)| *other == key);
        if let Some((_, made)) = known {
            return Arc::clone(made);
        }
        let made = Made::default();
        kept.push_back((key, Arc::clone(&made)));
        let mut bytes: usize = kept.iter().map(|(_, made)| size(made)).sum();
        while kept.len() > MOST_KEPT || (bytes > MOST_BYTES && kept.len() > 1) {
            let Some((_, oldest)) = kept.pop_front() else {
                break;
            };
            bytes -= size(&oldest);
        }
        made
    }
}

fn size(made: &Made) -> usize {
    let messages = made.get().and_then(Option::as_ref);
    messages.map_or(0, |messages| messages.iter().map(Bytes::len).sum())
}

fn encode(from: u64, steps: &[Step], most: usize) -> Messages {
    let steps = steps.iter().map(|step| protocol::Step {
        to: step.to,
        delta: &step.delta,
    });
    let messages = batch(from, steps, most)?;
    let texts = messages.into_iter().map(|delta| {
        let text = ToEdge::Delta(delta).encode(most).ok()?;
        Some(Bytes::from(text))
    });
    texts.collect()
}
