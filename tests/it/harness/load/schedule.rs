//! When the clients of a load send.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{Mutex, mpsc};

use super::Pace;

/// How long requests that fell due may still be sent after the last one did.
const GRACE: Duration = Duration::from_secs(10);

/// How soon a pacer that waits notices that it should stop.
const LOOK: Duration = Duration::from_millis(20);

/// One request to send.
#[derive(Clone, Copy, Debug)]
pub(super) struct Turn {
    /// Counts the requests; says which key is next.
    pub(super) number: usize,
    /// What its latency counts from.
    pub(super) due: Instant,
}

/// Where a client gets its turns from.
pub(super) enum Schedule {
    /// Each when the one before is over.
    AtOnce {
        stop: Arc<AtomicBool>,
        next: usize,
    },
    Paced(Arc<Pacer>),
}

impl Schedule {
    /// The next turn; `None` when there is none any more.
    pub(super) async fn next(&mut self) -> Option<Turn> {
        match self {
            Schedule::AtOnce { stop, .. } if stop.load(Ordering::Relaxed) => None,
            Schedule::AtOnce { next, .. } => {
                let number = *next;
                *next += 1;
                let due = Instant::now();
                Some(Turn { number, due })
            }
            Schedule::Paced(pacer) => pacer.next().await,
        }
    }
}

/// Turns at a fixed rate, for whichever client is free.
///
/// They come from a thread of their own: the runtime's timers count whole milliseconds, which is longer
/// than most answers take.
pub(super) struct Pacer {
    turns: Mutex<mpsc::UnboundedReceiver<Turn>>,
    /// No turn is taken after this.
    ends: Instant,
}

impl Pacer {
    pub(super) fn start(pace: Pace, began: Instant, stop: Arc<AtomicBool>) -> Pacer {
        let (sender, turns) = mpsc::unbounded_channel();
        std::thread::spawn(move || {
            for number in 0..pace.requests {
                let due = began + Duration::from_secs_f64(number as f64 / pace.per_second);
                loop {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    match due.saturating_duration_since(Instant::now()) {
                        Duration::ZERO => break,
                        left => std::thread::sleep(left.min(LOOK)),
                    }
                }
                if sender.send(Turn { number, due }).is_err() {
                    return;
                }
            }
        });
        Pacer {
            turns: Mutex::new(turns),
            ends: began + pace.lasts() + GRACE,
        }
    }

    async fn next(&self) -> Option<Turn> {
        let next = async { self.turns.lock().await.recv().await };
        tokio::time::timeout_at(self.ends.into(), next).await.ok()?
    }

    pub(super) fn time_left(&self) -> Duration {
        self.ends.saturating_duration_since(Instant::now())
    }

    /// Turns that were due and that no client took.
    pub(super) async fn unsent(&self) -> u64 {
        let mut turns = self.turns.lock().await;
        let mut unsent = 0;
        while turns.recv().await.is_some() {
            unsent += 1;
        }
        unsent
    }
}
