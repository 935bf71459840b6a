//! Whole documents for edges that speak M3, each made once for all of them.
//!
//! A document is in memory for as long as it is being sent to someone, and so many
//! edges are sent one at a time: that dialect has no smaller pieces.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytes::Bytes;
use tokio::sync::{OnceCell, OwnedSemaphorePermit, Semaphore};

use super::metrics::ConnectMetrics;
use crate::control::store::Generation;
use crate::protocol::m3::encode_snapshot;

pub(super) struct Documents {
    turns: Arc<Semaphore>,
    /// What is being sent, by generation.
    last: Mutex<(u64, Weak<OnceCell<Bytes>>)>,
    metrics: ConnectMetrics,
}

/// A document, and the right to send it.
pub(super) struct Document {
    pub generation: Arc<Generation>,
    made: Arc<OnceCell<Bytes>>,
    metrics: ConnectMetrics,
    _permit: OwnedSemaphorePermit,
}

impl Documents {
    pub fn new(most: usize, metrics: ConnectMetrics) -> Self {
        Self {
            turns: Arc::new(Semaphore::new(most.max(1))),
            last: Mutex::default(),
            metrics,
        }
    }

    /// What `newest` gives when it is this one's turn, as a message. None: nothing,
    /// or the process ends.
    pub async fn get(
        &self,
        newest: impl FnOnce() -> Option<Arc<Generation>>,
    ) -> Option<(Document, Bytes)> {
        let permit = self.turn().await?;
        let generation = newest()?;
        self.metrics.snapshots_sending.inc();
        let document = Document {
            made: self.made(generation.record.generation),
            generation,
            metrics: self.metrics.clone(),
            _permit: permit,
        };
        let of = Arc::clone(&document.generation);
        let make = || async {
            let encoded = tokio::task::spawn_blocking(move || encode_snapshot(&of.table));
            encoded.await.map(Bytes::from)
        };
        let bytes = document.made.get_or_try_init(make).await.ok()?.clone();
        Some((document, bytes))
    }

    async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        struct Waits<'a>(&'a ConnectMetrics);
        impl Drop for Waits<'_> {
            fn drop(&mut self) {
                self.0.snapshots_waiting.dec();
            }
        }
        self.metrics.snapshots_waiting.inc();
        let _waits = Waits(&self.metrics);
        Arc::clone(&self.turns).acquire_owned().await.ok()
    }

    fn made(&self, generation: u64) -> Arc<OnceCell<Bytes>> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let known = last.1.upgrade().filter(|_| last.0 == generation);
        known.unwrap_or_else(|| {
            let made = Arc::default();
            *last = (generation, Arc::downgrade(&made));
            made
        })
    }
}

impl Drop for Document {
    fn drop(&mut self) {
        self.metrics.snapshots_sending.dec();
    }
}
