//! Probes the backends of placements with a health check in the background, so that requests
//! are not the first to meet a failed backend.
//!
//! One task owns the schedule: each backend with the time of its next probe. Probes run beside
//! it, a bounded number at a time, and return to it. It follows the current placements and the
//! addresses of their endpoints.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use pingora_core::server::ShutdownWatch;
use pingora_core::server::configuration::ServerConf;
use pingora_core::services::background::BackgroundService;
use tokio::sync::watch;
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};
use tokio::time::Instant;

use super::backend::Backend;
use super::placement::Placement;
use super::placements::Placements;
use super::probe::{HttpProbe, Probe, Probed};
use super::schedule::{Lane, Place, Schedule, sleep_until};
use crate::resilience::jittered;
use crate::table::{HealthCheck, PlacementId};

/// Most probes that run at a time; those of backends that hang may be half of them.
const CONCURRENT: usize = 128;

/// New backends get their first probes spread over this time, or over their
/// interval if that is shorter.
const FIRST_WITHIN: Duration = Duration::from_secs(1);

/// How long changes of addresses are collected: following them visits all placements with a
/// health check.
const COLLECT: Duration = Duration::from_millis(100);

/// The background service that probes the backends of the current placements.
pub struct Prober {
    placements: watch::Receiver<Placements>,
    addresses: watch::Receiver<()>,
    probe: Arc<dyn Probe>,
}

impl Prober {
    /// Probes connect as the proxy does that is made from `conf`.
    ///
    /// # Panics
    ///
    /// As the proxy does, if `conf.ca_file` cannot be used.
    pub fn new(
        placements: watch::Receiver<Placements>,
        addresses: watch::Receiver<()>,
        conf: &ServerConf,
    ) -> Self {
        Self::with_probe(placements, addresses, Arc::new(HttpProbe::new(conf)))
    }

    /// As [`new`](Self::new), with probes of another kind.
    pub fn with_probe(
        placements: watch::Receiver<Placements>,
        addresses: watch::Receiver<()>,
        probe: Arc<dyn Probe>,
    ) -> Self {
        Self {
            placements,
            addresses,
            probe,
        }
    }
}

#[async_trait]
impl BackgroundService for Prober {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        let mut placements = self.placements.clone();
        placements.mark_changed();
        let mut addresses = self.addresses.clone();
        let mut targets = Targets::new();
        let mut probes: JoinSet<Done> = JoinSet::new();
        let mut running: HashMap<Id, (u64, Place)> = HashMap::new();
        let mut look: Option<Instant> = None;
        loop {
            let now = Instant::now();
            while let Some((serial, place)) = targets.schedule.pop_due(now) {
                let Some(target) = targets.by_serial.get_mut(&serial) else {
                    targets.schedule.release(place);
                    continue;
                };
                let probe = Arc::clone(&self.probe);
                let backend = Arc::clone(&target.backend);
                let check = Arc::clone(&target.check);
                let task = probes.spawn(async move {
                    let probed = probe.probe(&backend, &check).await;
                    (check, probed)
                });
                running.insert(task.id(), (serial, place));
                target.running = Some(Running { task, started: now });
            }
            let next = targets.schedule.next_due();
            tokio::select! {
                _ = shutdown.changed() => return,
                changed = placements.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let current = placements.borrow_and_update().clone();
                    targets.adopt(current, Instant::now());
                }
                Ok(()) = addresses.changed(), if look.is_none() => {
                    look = Some(Instant::now() + COLLECT);
                }
                () = sleep_until(look) => {
                    look = None;
                    targets.follow_addresses(Instant::now());
                }
                Some(done) = probes.join_next_with_id(), if !probes.is_empty() => {
                    let (id, done) = match done {
                        Ok((id, done)) => (id, Ok(done)),
                        Err(error) => (error.id(), Err(error)),
                    };
                    if let Some((serial, place)) = running.remove(&id) {
                        targets.schedule.release(place);
                        targets.finish(serial, id, done, Instant::now());
                    }
                }
                () = sleep_until(next) => {}
            }
        }
    }
}

/// The health check that a probe was made for, and its outcome.
type Done = (Arc<HealthCheck>, Probed);

/// The backends to probe, and when each is due.
struct Targets {
    /// The placements that they belong to.
    placements: Placements,
    /// How often `placements` was replaced.
    round: u64,
    /// The placements that have a health check.
    checked: Vec<Checked>,
    /// By [`Backend::serial`].
    by_serial: HashMap<u64, Target>,
    /// The targets that are not being probed now.
    schedule: Schedule<u64>,
}

/// A placement that has a health check.
struct Checked {
    id: PlacementId,
    /// [`PlacementState::changes`](super::PlacementState::changes) before its backends were
    /// looked at.
    change: u64,
    /// The backends at that time.
    serials: Vec<u64>,
}

struct Target {
    backend: Arc<Backend>,
    check: Arc<HealthCheck>,
    /// Of the next probe.
    lane: Lane,
    running: Option<Running>,
    /// The last round in which it was found.
    round: u64,
}

struct Running {
    task: AbortHandle,
    started: Instant,
}

impl Targets {
    fn new() -> Self {
        Self {
            placements: Placements::default(),
            round: 0,
            checked: Vec::new(),
            by_serial: HashMap::new(),
            schedule: Schedule::new(CONCURRENT),
        }
    }

    /// Follows new placements: known backends keep their time.
    fn adopt(&mut self, placements: Placements, now: Instant) {
        self.round += 1;
        self.checked.clear();
        for id in placements.ids() {
            let placement = placements.get(id);
            if let Some(check) = &placement.policy.health_check {
                let mut checked = Checked {
                    id,
                    change: 0,
                    serials: Vec::new(),
                };
                self.look(&mut checked, placement, check, now);
                self.checked.push(checked);
            }
        }
        let targets = self.by_serial.iter();
        let gone: Vec<u64> = targets
            .filter(|(_, target)| target.round != self.round)
            .map(|(serial, _)| *serial)
            .collect();
        for serial in gone {
            self.forget(serial);
        }
        self.placements = placements;
    }

    /// Follows changes of addresses: adds backends that are new and removes those that are
    /// gone.
    fn follow_addresses(&mut self, now: Instant) {
        let placements = self.placements.clone();
        let mut all = std::mem::take(&mut self.checked);
        for checked in &mut all {
            let placement = placements.get(checked.id);
            if placement.state.changes() == checked.change {
                continue;
            }
            if let Some(check) = &placement.policy.health_check {
                let before = std::mem::take(&mut checked.serials);
                self.look(checked, placement, check, now);
                for serial in before {
                    if !checked.serials.contains(&serial) {
                        self.forget(serial);
                    }
                }
            }
        }
        self.checked = all;
    }

    fn look(
        &mut self,
        checked: &mut Checked,
        placement: &Placement,
        check: &HealthCheck,
        now: Instant,
    ) {
        // Read before the addresses, so that a change in between is seen the next time.
        checked.change = placement.state.changes();
        for backend in placement.backends() {
            checked.serials.push(backend.serial);
            self.take_on(backend, check, now);
        }
    }

    fn take_on(&mut self, backend: Arc<Backend>, check: &HealthCheck, now: Instant) {
        let serial = backend.serial;
        let Some(target) = self.by_serial.get_mut(&serial) else {
            let within = check.interval.min(FIRST_WITHIN);
            self.schedule
                .plan(serial, some_time(now, within), Lane::Prompt);
            let target = Target {
                backend,
                check: Arc::new(check.clone()),
                lane: Lane::Prompt,
                running: None,
                round: self.round,
            };
            self.by_serial.insert(serial, target);
            return;
        };
        target.round = self.round;
        if *target.check != *check {
            target.check = Arc::new(check.clone());
            // A shorter interval takes effect at once, not after the longer one has passed.
            let due = self.schedule.due(&serial);
            if due.is_some_and(|due| due > now + check.interval) {
                let at = some_time(now, check.interval);
                self.schedule.plan(serial, at, target.lane);
            }
        }
    }

    fn forget(&mut self, serial: u64) {
        self.schedule.remove(&serial);
        if let Some(target) = self.by_serial.remove(&serial) {
            if let Some(running) = target.running {
                // Its place is released when the task has ended.
                running.task.abort();
            }
            target.backend.unprobed();
        }
    }

    /// Records the outcome of a probe at its backend, and plans the next one.
    fn finish(&mut self, serial: u64, id: Id, done: Result<Done, JoinError>, now: Instant) {
        let Some(target) = self.by_serial.get_mut(&serial) else {
            return;
        };
        let Some(running) = target.running.take_if(|running| running.task.id() == id) else {
            return;
        };
        let (check, probed) = done.unwrap_or_else(|error| {
            let probed = Probed {
                outcome: Err(format!("the probe broke off: {error}")),
                timed_out: false,
            };
            (Arc::clone(&target.check), probed)
        });
        target.lane = if probed.timed_out {
            Lane::Slow
        } else {
            Lane::Prompt
        };
        target
            .backend
            .probed(probed.outcome, &check, now.into_std(), SystemTime::now());
        let pause = jittered(target.check.interval, rand::random());
        self.schedule
            .plan(serial, running.started + pause, target.lane);
    }
}

/// A random time within the next `within`.
fn some_time(now: Instant, within: Duration) -> Instant {
    now + within.mul_f64(rand::random::<f64>())
}
