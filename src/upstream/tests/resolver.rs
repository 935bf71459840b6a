use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use pingora_core::services::background::BackgroundService;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::state::tests::{Fixture, document};
use crate::upstream::{Endpoint, Resolution};
use crate::upstream::{Lookup, Resolver};

/// What one lookup does. The last one of a script goes on for ever.
#[derive(Clone)]
enum Answer {
    Found(&'static [&'static str]),
    Fails(&'static str),
    Hangs,
    /// Finds 10.0.0.1 after a second.
    Slow,
}
use Answer::*;

/// A resolver that answers by script and remembers what it was asked, when.
struct Script {
    start: Instant,
    answers: Mutex<HashMap<&'static str, VecDeque<Answer>>>,
    asked: Mutex<Vec<(u64, String)>>,
    running: Mutex<(usize, usize)>,
}

#[async_trait]
impl Lookup for Script {
    async fn lookup(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        let second = self.start.elapsed().as_secs();
        self.asked.lock().unwrap().push((second, host.to_owned()));
        let answer = {
            let mut answers = self.answers.lock().unwrap();
            match answers.get_mut(host) {
                Some(script) if script.len() > 1 => script.pop_front().unwrap(),
                Some(script) => script[0].clone(),
                None => Slow,
            }
        };
        {
            let mut running = self.running.lock().unwrap();
            running.0 += 1;
            running.1 = running.1.max(running.0);
        }
        let found = match answer {
            Found(list) => Ok(list.iter().map(|ip| ip.parse().unwrap()).collect()),
            Fails(why) => Err(io::Error::other(why)),
            Hangs => std::future::pending().await,
            Slow => {
                sleep(Duration::from_secs(1)).await;
                Ok(vec!["10.0.0.1".parse().unwrap()])
            }
        };
        self.running.lock().unwrap().0 -= 1;
        found
    }
}

/// A resolver at work on a paused clock.
struct Running {
    edge: Fixture,
    script: Arc<Script>,
    _shutdown: watch::Sender<bool>,
}

fn start<const N: usize>(refresh: u64, answers: [(&'static str, &[Answer]); N]) -> Running {
    let edge = Fixture::with_hosts(&[("known", "127.0.0.1")]);
    let answers = answers
        .into_iter()
        .map(|(host, script)| (host, script.iter().cloned().collect()));
    let script = Arc::new(Script {
        start: Instant::now(),
        answers: Mutex::new(answers.collect()),
        asked: Mutex::default(),
        running: Mutex::default(),
    });
    let resolver = Resolver::with_lookup(
        edge.state.watch_placements(),
        Arc::clone(&edge.metrics),
        Duration::from_secs(refresh),
        Arc::clone(&script) as Arc<dyn Lookup>,
    );
    let (shutdown, watch) = watch::channel(false);
    tokio::spawn(async move { resolver.start(watch).await });
    Running {
        edge,
        script,
        _shutdown: shutdown,
    }
}

/// Where the endpoint can be reached.
fn sockets(endpoint: &Endpoint) -> Vec<String> {
    let backends = &endpoint.addresses().backends;
    let addresses = backends.iter().map(|backend| backend.address.to_string());
    addresses.collect()
}

impl Running {
    /// The endpoints of a new generation, in their order, each of a placement of
    /// its own.
    fn apply(&self, version: &str, urls: &[&str]) -> Vec<Arc<Endpoint>> {
        let names: Vec<String> = (0..urls.len()).map(|n| format!("cell{n}")).collect();
        let placements: Vec<_> = names
            .iter()
            .zip(urls)
            .map(|(name, url)| (name.as_str(), *url))
            .collect();
        let generation = self.edge.changed(&document(version, &placements, &[]));
        let placements = generation.placements.iter();
        placements
            .map(|placement| Arc::clone(&placement.endpoints()[0].0))
            .collect()
    }

    /// The seconds at which `host` was looked up.
    fn asked(&self, host: &str) -> Vec<u64> {
        let asked = self.script.asked.lock().unwrap();
        asked
            .iter()
            .filter(|(_, asked)| asked == host)
            .map(|(second, _)| *second)
            .collect()
    }

    /// Lets the clock run until `second` and a half, and all that is due by then.
    async fn until(&self, second: u64) {
        let time = self.script.start + Duration::from_millis(second * 1000 + 500);
        tokio::time::sleep_until(time).await;
    }
}

#[tokio::test(start_paused = true)]
async fn names_are_resolved_and_refreshed() {
    let all = start(
        30,
        [("a", &[Found(&["10.0.0.1", "::1"]), Found(&["10.0.0.2"])])],
    );
    let endpoints = all.apply("1", &["http://a:80"]);
    assert_eq!(endpoints[0].addresses().state, Resolution::Unresolved);
    endpoints[0].first_resolution().await;
    let both = ["10.0.0.1:80", "[::1]:80"];
    assert_eq!(sockets(&endpoints[0]), both);
    all.until(29).await;
    assert_eq!(sockets(&endpoints[0]), both);
    all.until(90).await;
    assert_eq!(sockets(&endpoints[0]), ["10.0.0.2:80"]);
    assert_eq!(all.asked("a"), [0, 30, 60, 90]);
}

#[tokio::test(start_paused = true)]
async fn a_failing_name_is_retried_with_growing_pauses() {
    let all = start(10, [("a", &[Fails("no such host")])]);
    let endpoints = all.apply("1", &["http://a:80"]);
    endpoints[0].first_resolution().await;
    assert_eq!(endpoints[0].addresses().state, Resolution::Failed);
    assert_eq!(endpoints[0].last_error().as_deref(), Some("no such host"));
    all.until(40).await;
    assert_eq!(all.asked("a"), [0, 1, 3, 7, 15, 25, 35]);
    let series = "cellgate_dns_failures_total{host=\"a\"}";
    assert_eq!(all.edge.metric(series), Some(7.0));
    assert_eq!(
        all.edge.metric("cellgate_endpoints{state=\"failed\"}"),
        Some(1.0)
    );
}

#[tokio::test(start_paused = true)]
async fn the_last_good_answer_outlives_failures() {
    let script = [
        Found(&["10.0.0.1"]),
        Fails("broken"),
        Found(&[]),
        Found(&["10.0.0.2"]),
    ];
    let all = start(30, [("a", &script)]);
    let endpoints = all.apply("1", &["http://a:80"]);
    all.until(30).await;
    assert_eq!(endpoints[0].last_error().as_deref(), Some("broken"));
    assert_eq!(sockets(&endpoints[0]), ["10.0.0.1:80"]);
    all.until(31).await;
    assert_eq!(
        endpoints[0].last_error().as_deref(),
        Some("it has no address")
    );
    assert_eq!(sockets(&endpoints[0]), ["10.0.0.1:80"]);
    all.until(33).await;
    assert_eq!(endpoints[0].last_error(), None);
    assert_eq!(sockets(&endpoints[0]), ["10.0.0.2:80"]);
    all.until(63).await;
    assert_eq!(all.asked("a"), [0, 30, 31, 33, 63]);
}

#[tokio::test(start_paused = true)]
async fn a_hung_lookup_delays_no_other_and_times_out() {
    let all = start(30, [("hung", &[Hangs]), ("b", &[Found(&["10.0.0.2"])])]);
    let endpoints = all.apply("1", &["http://hung:80", "http://b:80"]);
    endpoints[1].first_resolution().await;
    assert_eq!(all.script.start.elapsed(), Duration::ZERO);
    endpoints[0].first_resolution().await;
    assert_eq!(all.script.start.elapsed(), Duration::from_secs(5));
    assert_eq!(
        endpoints[0].last_error().as_deref(),
        Some("no answer within 5 s")
    );
    all.until(20).await;
    assert_eq!(all.asked("hung"), [0, 6, 13]);
}

/// A request that began on a generation finishes on it, also when its endpoint's
/// first lookup is still under way while the next generation comes.
#[tokio::test(start_paused = true)]
async fn an_endpoint_of_a_replaced_generation_is_told_as_well() {
    let all = start(30, [("hung", &[Hangs])]);
    let old = all.apply("1", &["http://hung:80"]);
    all.until(1).await;
    let new = all.apply("2", &["http://hung:81"]);
    for endpoint in [&old[0], &new[0]] {
        let told = tokio::time::timeout(Duration::from_secs(20), endpoint.first_resolution());
        assert!(told.await.is_ok(), "{endpoint:?} waits for ever");
    }
    let gone = all.apply("3", &["http://127.0.0.1:80"]);
    all.until(60).await;
    assert_eq!(gone.len(), 1);
    assert!(
        all.asked("hung").iter().all(|at| *at < 30),
        "nobody waits for it any more"
    );
}

#[tokio::test(start_paused = true)]
async fn lookups_are_bounded_and_all_come_to_their_turn() {
    let all = start(30, []);
    let urls: Vec<String> = (0..40).map(|n| format!("http://cell-{n}:80")).collect();
    let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
    let endpoints = all.apply("1", &urls);
    for endpoint in &endpoints {
        endpoint.first_resolution().await;
        assert_eq!(endpoint.addresses().state, Resolution::Resolved);
    }
    // 16, 16 and 8 of them, a second each.
    assert_eq!(all.script.start.elapsed(), Duration::from_secs(3));
    assert_eq!(all.script.running.lock().unwrap().1, 16);
    all.until(4).await;
    assert_eq!(
        all.edge.metric("cellgate_endpoints{state=\"resolved\"}"),
        Some(40.0)
    );
    assert_eq!(
        all.edge.metric("cellgate_endpoints{state=\"unresolved\"}"),
        Some(0.0)
    );
}

/// Names that were never asked for before do not wait behind those that hang.
#[tokio::test(start_paused = true)]
async fn names_that_hang_delay_no_new_one() {
    let names: Vec<String> = (0..200).map(|n| format!("hung-{n}")).collect();
    let names: Vec<&'static str> = names.into_iter().map(|name| &*name.leak()).collect();
    let all = start(30, []);
    let script = names.iter().map(|name| (*name, VecDeque::from([Hangs])));
    all.script.answers.lock().unwrap().extend(script);
    let urls: Vec<String> = names
        .iter()
        .map(|name| format!("http://{name}:80"))
        .collect();
    let mut urls: Vec<&str> = urls.iter().map(String::as_str).collect();
    let endpoints = all.apply("1", &urls);
    for endpoint in &endpoints {
        endpoint.first_resolution().await;
    }
    // All of them were tried, sixteen at a time, and are tried again and again.
    all.until(90).await;
    urls.push("http://new:80");
    let endpoints = all.apply("2", &urls);
    let asked = Instant::now();
    let new = endpoints
        .iter()
        .find(|endpoint| endpoint.origin.endpoint.host == "new")
        .unwrap();
    new.first_resolution().await;
    assert_eq!(
        asked.elapsed(),
        Duration::from_secs(1),
        "it answers in a second"
    );
    all.until(300).await;
    let again = names.iter().filter(|name| all.asked(name).len() > 1);
    assert_eq!(again.count(), 200, "they come to their turn as well");
}

#[tokio::test(start_paused = true)]
async fn a_new_generation_is_followed_at_once() {
    let good: &[Answer] = &[Found(&["10.0.0.1"])];
    let all = start(30, [("a", good), ("b", &[Fails("no")]), ("c", good)]);
    all.apply("1", &["http://a:80", "http://b:80"]);
    all.until(10).await;
    assert_eq!(all.asked("b"), [0, 1, 3, 7]);
    let failures = "cellgate_dns_failures_total{host=\"b\"}";
    assert!(all.edge.metric(failures).is_some());

    let endpoints = all.apply("2", &["http://a:80", "http://c:80"]);
    endpoints[1].first_resolution().await;
    all.until(45).await;
    assert_eq!(all.asked("a"), [0, 30], "its time stayed as it was");
    assert_eq!(all.asked("b"), [0, 1, 3, 7], "nobody names it any more");
    assert_eq!(all.edge.metric(failures), None);
    assert_eq!(all.asked("c"), [10, 40]);

    // And back again: it is due at once.
    all.apply("3", &["http://b:80"]);
    all.until(47).await;
    assert_eq!(all.asked("b"), [0, 1, 3, 7, 45, 46]);
}

#[tokio::test(start_paused = true)]
async fn a_new_port_on_a_known_host_does_not_wait() {
    let all = start(30, [("a", &[Found(&["10.0.0.1"])])]);
    all.apply("1", &["http://a:80"]);
    all.until(10).await;
    let endpoints = all.apply("2", &["http://a:80", "http://a:81"]);
    endpoints[1].first_resolution().await;
    assert_eq!(sockets(&endpoints[1]), ["10.0.0.1:81"]);
    all.until(12).await;
    assert_eq!(all.asked("a"), [0, 10], "one lookup for both");
}

#[tokio::test(start_paused = true)]
async fn addresses_and_overrides_are_never_looked_up() {
    let all = start(30, []);
    let endpoints = all.apply(
        "1",
        &["http://127.0.0.1:1", "http://[::1]:2", "http://known:3"],
    );
    for endpoint in &endpoints {
        endpoint.first_resolution().await;
    }
    all.until(100).await;
    assert!(all.script.asked.lock().unwrap().is_empty());
    assert_eq!(
        all.edge.metric("cellgate_endpoints{state=\"resolved\"}"),
        Some(3.0)
    );
}

#[tokio::test(start_paused = true)]
async fn what_was_replaced_is_freed_in_the_background() {
    let all = start(30, []);
    let first = all
        .edge
        .changed(&document("1", &[("a", "http://127.0.0.1:1")], &[]));
    let weak = Arc::downgrade(&first);
    all.until(1).await;
    all.apply("2", &["http://127.0.0.1:2"]);
    all.until(5).await;
    assert!(weak.upgrade().is_some());
    drop(first);
    // By a thread of its own, whose time is not paused.
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while weak.upgrade().is_some() {
        assert!(std::time::Instant::now() < deadline, "it is not freed");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[tokio::test]
async fn the_system_knows_localhost() {
    let found = crate::upstream::SystemLookup
        .lookup("localhost")
        .await
        .unwrap();
    assert!(
        found.iter().all(IpAddr::is_loopback) && !found.is_empty(),
        "{found:?}"
    );
}
