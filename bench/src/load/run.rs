//! The loop that drives all connections.

use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

use anyhow::Context;
use hdrhistogram::Histogram;

use super::answer::Wrong;
use super::conn::{Conn, Template, Turn};
use super::{Errors, Expect, Outcome, Pace, Reuse, Spec};
use crate::cells::body;
use crate::sys::{Epoll, Events, Interest, Ready, wake_punctually};
use crate::table::CELLS;

/// How long the last answers may take.
const DRAIN: Duration = Duration::from_secs(3);
/// The longest wait, so that the end is noticed.
const TICK: Duration = Duration::from_millis(10);
/// From the reading of the gauge to the first latency that counts.
const SETTLE: Duration = Duration::from_millis(20);
/// The longest latency that is told from longer ones, in nanoseconds.
const LONGEST: u64 = 120_000_000_000;
/// After so many errors a run is not worth going on with.
const MOST_ERRORS: u64 = 1_000;

/// Drives the load to its end; `gauge` is called when measuring begins and ends.
///
/// # Errors
/// When the machine refuses sockets. What the proxy does wrong is counted.
pub fn run<G>(spec: &Spec, mut gauge: impl FnMut() -> G) -> anyhow::Result<Outcome<G>> {
    wake_punctually();
    let mut load = Load::new(spec)?;
    load.until(spec.warm_up.as_nanos() as u64)?;
    let before = gauge();
    let (from, requests) = (Instant::now(), load.answered);
    let begin = load.now();
    // What waited while the gauge was read is no fault of the proxy.
    load.until(begin + SETTLE.as_nanos() as u64)?;
    load.latency.reset();
    load.until(begin + spec.measure.as_nanos() as u64)?;
    let latency = load.latency.clone();
    let after = gauge();
    let (elapsed, requests) = (from.elapsed(), load.answered - requests);
    load.drain()?;
    Ok(Outcome {
        requests,
        elapsed,
        latency,
        errors: load.errors,
        before,
        after,
    })
}

struct Load<'s> {
    spec: &'s Spec,
    epoll: Epoll,
    events: Events,
    ready: Vec<Ready>,
    conns: Vec<Option<Conn>>,
    /// Connections without a request, the one that waits longest first.
    idle: VecDeque<usize>,
    /// At a rate: the number of the request that is due next.
    next: u64,
    /// Requests under way.
    under_way: usize,
    sent: u64,
    answered: u64,
    opened: u64,
    template: Template,
    bodies: Vec<Vec<u8>>,
    scratch: Vec<u8>,
    random: u64,
    latency: Histogram<u64>,
    errors: Errors,
    started: Instant,
    stopping: bool,
}

impl<'s> Load<'s> {
    fn new(spec: &'s Spec) -> anyhow::Result<Load<'s>> {
        let close = spec.reuse == Reuse::Never;
        let mut load = Load {
            spec,
            epoll: Epoll::new()?,
            events: Events::new(256),
            ready: Vec::new(),
            conns: Vec::new(),
            idle: (0..spec.connections).collect(),
            next: 0,
            under_way: 0,
            sent: 0,
            answered: 0,
            opened: 0,
            template: Template::new(spec.target, &format!("/{}", spec.body), close),
            bodies: (0..=CELLS).map(|cell| body(cell, spec.body)).collect(),
            scratch: vec![0; 256 << 10],
            random: spec.seed | 1,
            latency: Histogram::new_with_bounds(1, LONGEST, 3)?,
            errors: Errors::default(),
            started: Instant::now(),
            stopping: false,
        };
        load.conns.resize_with(spec.connections, || None);
        if spec.reuse == Reuse::Keepalive {
            for slot in 0..spec.connections {
                load.open(slot).context("connecting to the proxy")?;
            }
        }
        load.started = Instant::now();
        Ok(load)
    }

    fn now(&self) -> u64 {
        self.started.elapsed().as_nanos() as u64
    }

    /// Goes on until `end`, in nanoseconds since the start.
    fn until(&mut self, end: u64) -> anyhow::Result<()> {
        loop {
            let now = self.now();
            if now >= end || self.sent >= self.spec.most || self.errors.total() > MOST_ERRORS {
                return Ok(());
            }
            let wait = self
                .send_what_is_due(now)?
                .min(Duration::from_nanos(end - now));
            self.turn(wait)?;
        }
    }

    fn drain(&mut self) -> anyhow::Result<()> {
        self.stopping = true;
        let late = Instant::now() + DRAIN;
        while self.under_way > 0 && Instant::now() < late {
            self.turn(TICK)?;
        }
        self.errors.unanswered += self.under_way as u64;
        Ok(())
    }

    /// Sends all requests that are due and have a connection; how long it is
    /// until the next one.
    fn send_what_is_due(&mut self, now: u64) -> anyhow::Result<Duration> {
        while !self.idle.is_empty()
            && self.sent < self.spec.most
            && self.errors.total() <= MOST_ERRORS
        {
            let due = match self.spec.pace {
                Pace::Closed => now,
                Pace::Rate(rate) => (self.next as f64 * 1e9 / rate) as u64,
            };
            if due > now {
                return Ok(Duration::from_nanos(due - now).min(TICK));
            }
            let Some(slot) = self.idle.pop_front() else {
                break;
            };
            self.next += 1;
            self.send(slot, due)?;
        }
        Ok(TICK)
    }

    fn send(&mut self, slot: usize, due: u64) -> anyhow::Result<()> {
        if self.conns[slot].is_none()
            && let Err(error) = self.open(slot)
        {
            self.sent += 1;
            self.broken(slot, &format!("no connection: {error}"));
            return Ok(());
        }
        let number = self.pick();
        let cell = match self.spec.expect {
            Expect::Routed if self.spec.table.settled(number) => Some(self.spec.table.cell(number)),
            _ => None,
        };
        let request = self.template.with(number);
        self.sent += 1;
        self.under_way += 1;
        let Some(conn) = &mut self.conns[slot] else {
            return Ok(());
        };
        match conn.send(request, cell, due) {
            Ok(true) => {}
            Ok(false) => self
                .epoll
                .change(conn.stream(), slot as u64, Interest::Write)?,
            Err(error) => self.broken(slot, &error.to_string()),
        }
        Ok(())
    }

    fn open(&mut self, slot: usize) -> io::Result<()> {
        self.opened += 1;
        let conn = Conn::open(self.spec.target, self.opened)?;
        self.epoll.add(conn.stream(), slot as u64, Interest::Read)?;
        self.conns[slot] = Some(conn);
        Ok(())
    }

    fn pick(&mut self) -> u64 {
        // xorshift64*, of which the upper half is good.
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        let random = self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32;
        (random * self.spec.table.keys) >> 32
    }

    /// Waits, and takes what came.
    fn turn(&mut self, wait: Duration) -> anyhow::Result<()> {
        let mut ready = std::mem::take(&mut self.ready);
        ready.clear();
        ready.extend(self.epoll.wait(&mut self.events, wait)?);
        for event in &ready {
            let slot = event.token as usize;
            let Some(conn) = &mut self.conns[slot] else {
                continue;
            };
            if event.writable {
                match conn.flush() {
                    Ok(true) => self
                        .epoll
                        .change(conn.stream(), slot as u64, Interest::Read)?,
                    Ok(false) => {}
                    Err(error) => self.broken(slot, &error.to_string()),
                }
                continue;
            }
            match conn.receive(&mut self.scratch, &self.bodies) {
                Turn::Waiting => {}
                Turn::Answered => self.done(slot)?,
                // Nothing was under way: a proxy may tire of an idle connection.
                Turn::Broken(_) if conn.due.is_none() => self.conns[slot] = None,
                Turn::Broken(why) => self.broken(slot, &why),
                Turn::Wrong(wrong) => self.wrong(slot, &wrong),
            }
        }
        self.ready = ready;
        Ok(())
    }

    fn done(&mut self, slot: usize) -> anyhow::Result<()> {
        let now = self.now();
        let Some(conn) = &mut self.conns[slot] else {
            return Ok(());
        };
        let due = conn.due.take().unwrap_or(now);
        if self.spec.reuse == Reuse::Never || conn.closes() {
            self.conns[slot] = None;
        }
        self.answered += 1;
        self.under_way -= 1;
        self.latency
            .saturating_record(now.saturating_sub(due).max(1));
        match self.spec.pace {
            Pace::Closed if !self.stopping && self.sent < self.spec.most => self.send(slot, now),
            _ => {
                self.idle.push_back(slot);
                Ok(())
            }
        }
    }

    fn broken(&mut self, slot: usize, why: &str) {
        self.errors.broken += 1;
        self.failed(slot, || format!("connection broke: {why}"));
    }

    fn wrong(&mut self, slot: usize, wrong: &Wrong) {
        match wrong {
            Wrong::Status(_) => self.errors.status += 1,
            Wrong::Cell(_) => self.errors.misrouted += 1,
            Wrong::Garbled(_) => self.errors.garbled += 1,
        }
        self.failed(slot, || format!("wrong answer: {wrong:?}"));
    }

    fn failed(&mut self, slot: usize, why: impl FnOnce() -> String) {
        self.errors.first.get_or_insert_with(why);
        if let Some(conn) = self.conns[slot].take()
            && conn.due.is_some()
        {
            self.under_way -= 1;
        }
        self.idle.push_back(slot);
    }
}
