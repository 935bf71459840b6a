//! When the clients of a load send.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{Mutex, mpsc};

use super::Pace;

/// How long after the last due time requests may still be sent.
const GRACE: Duration = Duration::from_secs(10);

/// How often a waiting pacer checks whether it should stop.
const LOOK: Duration = Duration::from_millis(20);

/// One request to send.
#[derive(Clone, Copy, Debug)]
pub(super) struct Turn {
    /// The number of the request, which determines its key.
    pub(super) number: usize,
    /// The time from which its latency counts.
    pub(super) due: Instant,
}

/// The source of a client's turns.
pub(super) enum Schedule {
    /// Each turn when the previous one is over.
    AtOnce {
        stop: Arc<AtomicBool>,
        next: usize,
    },
    Paced(Arc<Pacer>),
}

impl Schedule {
    /// The next turn; `None` at the end.
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

/// Turns at a fixed rate, taken by the next free client.
///
/// They come from a thread of their own: the runtime's timers have a resolution of one millisecond, which is
/// longer than most responses take.
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
