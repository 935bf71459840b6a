//! When backends are probed, on a paused clock, and what becomes of the outcomes.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use pingora_core::services::background::BackgroundService;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::resilience::Health;
use crate::state::Generation;
use crate::state::tests::Fixture;
use crate::table::HealthCheck;
use crate::upstream::{Backend, Probe, Probed, Prober};

/// What one probe does. The last one of a script goes on for ever.
#[derive(Clone, Copy)]
enum Answer {
    Well,
    Fails,
    /// For the whole timeout.
    Hangs,
    /// Is well after so many milliseconds.
    Takes(u64),
    Panics,
}
use Answer::*;

/// A probe by script, by port, that remembers when it was asked for what.
struct Script {
    start: Instant,
    answers: Mutex<HashMap<u16, VecDeque<Answer>>>,
    asked: Mutex<Vec<(Duration, u16, String)>>,
    running: Mutex<(usize, usize)>,
}

struct Place<'a>(&'a Script);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.running.lock().unwrap().0 -= 1;
    }
}

#[async_trait]
impl Probe for Script {
    async fn probe(&self, backend: &Backend, check: &HealthCheck) -> Probed {
        let port = backend.address.port();
        let at = self.start.elapsed();
        self.asked
            .lock()
            .unwrap()
            .push((at, port, check.path.clone()));
        let answer = match self.answers.lock().unwrap().get_mut(&port) {
            Some(script) if script.len() > 1 => script.pop_front().unwrap(),
            Some(script) => script[0],
            None => Well,
        };
        let _place = {
            let mut running = self.running.lock().unwrap();
            running.0 += 1;
            running.1 = running.1.max(running.0);
            Place(self)
        };
        let (outcome, timed_out) = match answer {
            Well => (Ok(()), false),
            Fails => (Err("answered 503 (expected 200-299)".to_owned()), false),
            Hangs => {
                sleep(check.timeout).await;
                (Err("timed out".to_owned()), true)
            }
            Takes(millis) => {
                sleep(Duration::from_millis(millis)).await;
                (Ok(()), false)
            }
            Panics => panic!("as the script says"),
        };
        Probed { outcome, timed_out }
    }
}

struct Running {
    edge: Fixture,
    script: Arc<Script>,
    shutdown: watch::Sender<bool>,
    service: tokio::task::JoinHandle<()>,
}

fn start<const N: usize>(answers: [(u16, &[Answer]); N]) -> Running {
    let edge = Fixture::new();
    let answers = answers.map(|(port, script)| (port, script.iter().copied().collect()));
    let script = Arc::new(Script {
        start: Instant::now(),
        answers: Mutex::new(answers.into()),
        asked: Mutex::default(),
        running: Mutex::default(),
    });
    let prober = Prober::with_probe(
        edge.state.watch_placements(),
        edge.state.watch_addresses(),
        Arc::clone(&script) as Arc<dyn Probe>,
    );
    let (shutdown, watch) = watch::channel(false);
    let service = tokio::spawn(async move { prober.start(watch).await });
    Running {
        edge,
        script,
        shutdown,
        service,
    }
}

/// The backends of a generation, in their order.
fn backends(generation: &Generation) -> Vec<Arc<Backend>> {
    let placements = generation.placements.iter();
    placements
        .flat_map(|placement| placement.backends())
        .collect()
}

/// A placement on this port of 127.0.0.1.
fn on(port: u16, mut fields: Value) -> Value {
    fields["url"] = format!("http://127.0.0.1:{port}").into();
    fields
}

/// Probed every ten seconds, with a timeout of two.
fn checked(port: u16) -> Value {
    on(port, json!({"health_check": {"unhealthy_threshold": 2}}))
}

impl Running {
    fn apply(&self, version: &str, placements: &[Value]) -> Arc<Generation> {
        let named = placements.iter().enumerate();
        let named = named.map(|(n, placement)| (format!("cell{n}"), placement.clone()));
        let document = json!({
            "version": version,
            "routingTable": {},
            "placements": named.collect::<serde_json::Map<_, _>>(),
            "defaultPlacement": "cell0",
        });
        self.edge.changed(&serde_json::to_vec(&document).unwrap())
    }

    /// All of these ports answer so from now on.
    fn answer(&self, ports: &[u16], answer: Answer) {
        let mut answers = self.script.answers.lock().unwrap();
        answers.extend(ports.iter().map(|port| (*port, VecDeque::from([answer]))));
    }

    /// When this port was probed, and for what.
    fn asked(&self, port: u16) -> Vec<(Duration, String)> {
        let asked = self.script.asked.lock().unwrap();
        let asked = asked.iter().filter(|(_, of, _)| *of == port);
        asked.map(|(at, _, path)| (*at, path.clone())).collect()
    }

    fn times(&self, port: u16) -> usize {
        self.asked(port).len()
    }

    /// Lets the clock run until then, and all that is due by then.
    async fn until(&self, millis: u64) {
        let then = self.script.start + Duration::from_millis(millis);
        tokio::time::sleep_until(then).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_backend_is_probed_soon_and_then_every_interval() {
    let all = start([]);
    let generation = all.apply("1", &[checked(1)]);
    let backend = &backends(&generation)[0];
    assert_eq!(backend.health(), (Health::Unprobed, None));
    all.until(1001).await;
    assert_eq!(all.times(1), 1, "within a second");
    assert_eq!(backend.health().0, Health::Healthy);
    all.until(600_000).await;
    let asked = all.asked(1);
    let pauses: Vec<Duration> = asked.windows(2).map(|two| two[1].0 - two[0].0).collect();
    let (least, most) = (Duration::from_millis(8990), Duration::from_millis(11_010));
    for pause in &pauses {
        assert!((least..=most).contains(pause), "{pauses:?}");
    }
    assert!((54..=67).contains(&pauses.len()), "{}", pauses.len());
    assert!(pauses.windows(2).any(|two| two[0] != two[1]), "{pauses:?}");
}

#[tokio::test(start_paused = true)]
async fn the_first_probes_are_spread() {
    let all = start([]);
    let ports: Vec<Value> = (1..=200).map(checked).collect();
    all.apply("1", &ports);
    all.until(1001).await;
    let asked = all.script.asked.lock().unwrap().clone();
    assert_eq!(asked.len(), 200);
    for part in 0..4 {
        let from = Duration::from_millis(250 * part);
        let to = from + Duration::from_millis(251);
        let there = asked.iter().filter(|(at, ..)| (from..to).contains(at));
        assert!(there.count() > 20, "{part}");
    }
}

#[tokio::test(start_paused = true)]
async fn outcomes_turn_the_backend_at_its_thresholds() {
    let all = start([(1, &[Fails, Fails, Well, Well])]);
    let generation = all.apply("1", &[checked(1)]);
    let backend = &backends(&generation)[0];
    let usable = || generation.placements[0].count_usable(std::time::Instant::now());
    let mut seen = Vec::new();
    for probe in 1..=4 {
        while all.times(1) < probe {
            sleep(Duration::from_millis(10)).await;
        }
        sleep(Duration::from_millis(10)).await;
        seen.push((backend.health().0, usable()));
    }
    assert_eq!(
        seen,
        [
            (Health::Unprobed, (1, 0)),
            (Health::Unhealthy, (0, 1)),
            (Health::Unhealthy, (0, 1)),
            (Health::Healthy, (1, 0)),
        ]
    );
    let failure = backend.last_failure().unwrap();
    assert_eq!(
        (failure.reason, failure.detail.as_str()),
        ("probe", "answered 503 (expected 200-299)")
    );
    for (series, count) in [
        (
            "health_probes_total{placement=\"cell0\",result=\"failed\"}",
            2.0,
        ),
        (
            "health_probes_total{placement=\"cell0\",result=\"ok\"}",
            2.0,
        ),
        (
            "health_transitions_total{placement=\"cell0\",to=\"healthy\"}",
            1.0,
        ),
        (
            "health_transitions_total{placement=\"cell0\",to=\"unhealthy\"}",
            1.0,
        ),
    ] {
        let series = format!("cellgate_{series}");
        assert_eq!(all.edge.metric(&series), Some(count), "{series}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_has_no_health_check_is_not_probed() {
    let all = start([]);
    all.apply("1", &[on(1, json!({})), checked(2)]);
    all.until(60_000).await;
    assert_eq!(all.times(1), 0);
    assert!(all.times(2) > 4);
}

#[tokio::test(start_paused = true)]
async fn a_new_generation_keeps_the_time_of_what_it_keeps() {
    let all = start([]);
    let first = all.apply("1", &[checked(1), checked(2)]);
    all.until(5000).await;
    assert_eq!((all.times(1), all.times(2)), (1, 1));
    let gone = Arc::clone(&backends(&first)[1]);
    assert_eq!(gone.health().0, Health::Healthy);
    // Changes every second do not put a probe off, nor bring one forward.
    for version in 0..20 {
        all.apply(&format!("2.{version}"), &[checked(1), checked(3)]);
        all.until(6000 + 1000 * version).await;
    }
    let asked = all.asked(1);
    let pause = asked[1].0 - asked[0].0;
    assert!(pause >= Duration::from_secs(9) && pause <= Duration::from_millis(11_010));
    assert_eq!(all.times(2), 1, "nobody names it any more");
    assert_eq!(gone.health().0, Health::Unprobed);
    assert!(
        all.asked(3)[0].0 < Duration::from_millis(6001),
        "the new one is due soon"
    );
}

#[tokio::test(start_paused = true)]
async fn without_its_check_a_backend_has_no_health() {
    let all = start([(1, &[Fails])]);
    let generation = all.apply("1", &[checked(1)]);
    let backend = Arc::clone(&backends(&generation)[0]);
    all.until(15_000).await;
    assert_eq!(backend.health().0, Health::Unhealthy);
    let without = all.apply("2", &[on(1, json!({}))]);
    assert!(Arc::ptr_eq(&backend, &backends(&without)[0]));
    all.until(15_001).await;
    assert_eq!(backend.health(), (Health::Unprobed, None));
    let probes = all.times(1);
    all.until(60_000).await;
    assert_eq!(all.times(1), probes);
    // And with it again it begins anew.
    all.apply("3", &[checked(1)]);
    all.until(61_001).await;
    assert_eq!(all.times(1), probes + 1);
    assert_eq!(backend.health().0, Health::Unprobed, "one failure of two");
}

#[tokio::test(start_paused = true)]
async fn a_check_that_changes_counts_from_the_next_probe() {
    let all = start([]);
    all.apply("1", &[on(1, json!({"health_check": {"interval": "1h"}}))]);
    all.until(2000).await;
    assert_eq!(all.asked(1).len(), 1);
    let every_second = json!({"health_check":
        {"path": "/state?deep=1", "interval": "1s", "timeout": "1s"}});
    all.apply("2", &[on(1, every_second)]);
    all.until(4000).await;
    let asked = all.asked(1);
    assert!(asked.len() >= 2, "it does not wait for the hour to pass");
    assert_eq!(asked[0].1, "/health");
    assert!(asked[1..].iter().all(|(_, path)| path == "/state?deep=1"));
}

#[tokio::test(start_paused = true)]
async fn probes_under_way_are_bounded() {
    let all = start([]);
    let ports: Vec<u16> = (1..=1000).collect();
    all.answer(&ports, Takes(500));
    let placements: Vec<Value> = ports.iter().map(|port| checked(*port)).collect();
    all.apply("1", &placements);
    all.until(9000).await;
    assert!(ports.iter().all(|port| all.times(*port) == 1));
    assert_eq!(all.script.running.lock().unwrap().1, 128);
}

/// Backends that hang have half of the places, so the others keep their time.
#[tokio::test(start_paused = true)]
async fn backends_that_hang_delay_no_other() {
    let all = start([]);
    let hung: Vec<u16> = (1..=1000).collect();
    all.answer(&hung, Hangs);
    let mut placements: Vec<Value> = hung.iter().map(|port| checked(*port)).collect();
    all.apply("1", &placements);
    all.until(60_000).await;
    placements.push(checked(2000));
    all.apply("2", &placements);
    all.until(61_001).await;
    assert_eq!(all.times(2000), 1);
    all.until(300_000).await;
    let pauses: Vec<Duration> = all
        .asked(2000)
        .windows(2)
        .map(|two| two[1].0 - two[0].0)
        .collect();
    assert!(
        pauses.iter().all(|pause| pause.as_millis() <= 11_010),
        "{pauses:?}"
    );
    assert!(
        hung.iter().all(|port| all.times(*port) >= 5),
        "they come to their turn"
    );
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_nobody_wants_any_more_gives_its_place_back() {
    let hour = json!({"health_check": {"interval": "1h", "timeout": "1h"}});
    let all = start([]);
    let hung: Vec<u16> = (1..=128).collect();
    all.answer(&hung, Hangs);
    let placements: Vec<Value> = hung.iter().map(|port| on(*port, hour.clone())).collect();
    let first = all.apply("1", &placements);
    all.until(2000).await;
    assert_eq!(all.script.running.lock().unwrap().0, 128);
    all.apply("2", &[checked(500)]);
    all.until(3001).await;
    assert_eq!(all.times(500), 1);
    assert_eq!(all.script.running.lock().unwrap().0, 0);
    let health = |backend: &Arc<Backend>| backend.health().0 == Health::Unprobed;
    assert!(backends(&first).iter().all(health));
}

#[tokio::test(start_paused = true)]
async fn addresses_are_followed() {
    let all = start([(1, &[Fails])]);
    let fields = json!({"url": "http://cell:1", "health_check": {"unhealthy_threshold": 1}});
    let generation = all.apply("1", &[fields]);
    let endpoint = &generation.placements[0].endpoints()[0].0;
    let resolved = |addresses: &[&str]| {
        let addresses: Vec<IpAddr> = addresses.iter().map(|a| a.parse().unwrap()).collect();
        endpoint.resolved(&addresses);
        backends(&generation)
    };
    all.until(5000).await;
    assert_eq!(all.times(1), 0, "there is no address yet");
    let first = resolved(&["10.0.0.1"]);
    all.until(6101).await;
    assert_eq!(all.times(1), 1);
    assert_eq!(first[0].health().0, Health::Unhealthy);
    let both = resolved(&["10.0.0.2", "10.0.0.1"]);
    all.until(7202).await;
    assert_eq!(all.times(1), 2, "only the new one is due");
    assert!(
        both.iter()
            .all(|backend| backend.health().0 == Health::Unhealthy)
    );
    resolved(&["10.0.0.2"]);
    all.until(7400).await;
    assert_eq!(
        first[0].health().0,
        Health::Unprobed,
        "it is no longer probed"
    );
    assert_eq!(both[0].health().0, Health::Unhealthy);
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_breaks_off_is_a_failure_and_not_the_last() {
    let all = start([(1, &[Panics, Panics, Well])]);
    let generation = all.apply("1", &[checked(1)]);
    all.until(12_100).await;
    let backend = &backends(&generation)[0];
    assert_eq!(backend.health().0, Health::Unhealthy);
    let detail = backend.last_failure().unwrap().detail;
    assert!(detail.starts_with("the probe broke off: "), "{detail}");
    all.until(60_000).await;
    assert_eq!(backend.health().0, Health::Healthy);
}

#[tokio::test(start_paused = true)]
async fn the_service_ends_with_the_process() {
    let all = start([(1, &[Hangs])]);
    all.apply("1", &[checked(1)]);
    all.until(1100).await;
    all.shutdown.send(true).unwrap();
    all.service.await.unwrap();
    assert_eq!(all.script.running.lock().unwrap().0, 0);
}
