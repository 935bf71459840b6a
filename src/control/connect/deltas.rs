//! Encoded deltas, each made once for all edges that need the same.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::sync::OnceCell;

use super::metrics::ConnectMetrics;
use crate::control::core::Step;
use crate::protocol::{self, Mark, ToEdge, batch};

/// Most cached deltas, and most bytes of them.
const MAX_CACHED: usize = 64;
const MAX_BYTES: usize = 16 << 20;

/// A delta with more changed keys is encoded on a blocking thread.
const MANY_KEYS: usize = 2_000;

/// The messages that lead from one generation to another. None: only a snapshot does.
pub(super) type Messages = Option<Arc<[Bytes]>>;

/// From which generation, to which, and the maximum size of each message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Key {
    from: Mark,
    to: Mark,
    max: usize,
}

type Cached = Arc<OnceCell<Messages>>;

/// A cache of encoded deltas.
pub(super) struct Deltas {
    /// The newest last.
    cached: Mutex<VecDeque<(Key, Cached)>>,
    metrics: ConnectMetrics,
}

impl Deltas {
    pub fn new(metrics: ConnectMetrics) -> Self {
        Self {
            cached: Mutex::default(),
            metrics,
        }
    }

    /// The messages, of at most `max` bytes each, that lead from `from` through `steps`.
    pub async fn get(&self, from: Mark, steps: Vec<Step>, max: usize) -> Messages {
        let to = steps.last()?.to;
        let cell = self.cell(Key { from, to, max });
        let keys = |step: &Step| step.delta.set.len() + step.delta.remove.len();
        let many = steps.iter().map(keys).sum::<usize>() > MANY_KEYS;
        let counted = self.metrics.deltas_encoded.clone();
        let make = move || {
            counted.inc();
            encode(from.generation, &steps, max)
        };
        // Edges that need the same delta wait for one encoding; if it fails, the next one retries.
        let messages = cell.get_or_try_init(|| async {
            match many {
                true => tokio::task::spawn_blocking(make).await,
                false => Ok(make()),
            }
        });
        messages.await.ok()?.clone()
    }

    fn cell(&self, key: Key) -> Cached {
        let mut kept = self.cached.lock().unwrap_or_else(PoisonError::into_inner);
        let known = kept.iter().rev().find(|(other, _)| *other == key);
        if let Some((_, made)) = known {
            return Arc::clone(made);
        }
        let made = Cached::default();
        kept.push_back((key, Arc::clone(&made)));
        let mut bytes: usize = kept.iter().map(|(_, made)| size(made)).sum();
        while kept.len() > MAX_CACHED || (bytes > MAX_BYTES && kept.len() > 1) {
            let Some((_, oldest)) = kept.pop_front() else {
                break;
            };
            bytes -= size(&oldest);
        }
        made
    }
}

fn size(made: &Cached) -> usize {
    let messages = made.get().and_then(Option::as_ref);
    messages.map_or(0, |messages| messages.iter().map(Bytes::len).sum())
}

fn encode(from: u64, steps: &[Step], max: usize) -> Messages {
    let steps = steps.iter().map(|step| protocol::Step {
        to: step.to,
        delta: &step.delta,
    });
    let messages = batch(from, steps, max)?;
    let texts = messages.into_iter().map(|delta| {
        let text = ToEdge::Delta(delta).encode(max).ok()?;
        Some(Bytes::from(text))
    });
    texts.collect()
}
