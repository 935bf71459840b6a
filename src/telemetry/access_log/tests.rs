use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};

use super::*;

const SOON: Duration = Duration::from_secs(10);

fn counter() -> IntCounter {
    IntCounter::new("dropped", "lines that were not written").unwrap()
}

fn record(path: &str) -> AccessRecord<'_> {
    AccessRecord {
        request_id: "r",
        method: "GET",
        path,
        routing_key: Some(b"acme"),
        placement: Some("tier1"),
        reason: Some("tier"),
        upstream: Some("http://cell-tier1:9001"),
        upstream_address: None,
        failover_reason: None,
        status: 200,
        duration: Duration::from_millis(1),
        bytes_sent: 0,
        client: None,
        error: None,
        generation: Some(1),
    }
}

fn paths_in(file: &Path) -> Vec<String> {
    paths(&fs::read_to_string(file).unwrap())
}

fn paths(lines: &str) -> Vec<String> {
    lines
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .map(|line| line["path"].as_str().unwrap().to_owned())
        .collect()
}

fn numbered(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|n| format!("/{n}")).collect()
}

fn log_numbered(log: &AccessLog, range: std::ops::Range<usize>) {
    for path in numbered(range) {
        log.log(&record(&path));
    }
}

/// A log that writes to `out`.
fn log_to(out: impl Write + Send + 'static, queue: Queue, dropped: &IntCounter) -> AccessLog {
    let log = AccessLog::over(Target::Test(Box::new(out)), queue, dropped.clone()).unwrap();
    log.start();
    log
}

/// Says when a write begins, and ends it when told to.
struct Gate {
    entered: Sender<Vec<u8>>,
    leave: Receiver<io::Result<usize>>,
}

impl Gate {
    fn new() -> (Gate, Receiver<Vec<u8>>, Sender<io::Result<usize>>) {
        let (entered, entries) = channel();
        let (results, leave) = channel();
        (Gate { entered, leave }, entries, results)
    }
}

impl Write for Gate {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.entered.send(bytes.to_vec()).unwrap();
        self.leave.recv().unwrap()
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn off_is_off() {
    let log = AccessLog::open(&AccessLogTarget::Off, counter()).unwrap();
    assert!(!log.is_enabled());
    log.log(&record("/"));
    log.reopen();
    assert!(log.flush(Duration::ZERO));
}

#[test]
fn lines_arrive_in_order_and_after_those_of_another_process() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("access.log");
    fs::write(&file, "{\"path\":\"/before\"}\n").unwrap();
    let dropped = counter();
    let log = AccessLog::open(&AccessLogTarget::File(file.clone()), dropped.clone()).unwrap();
    assert!(log.is_enabled());
    log_numbered(&log, 0..3000);
    assert!(log.flush(SOON));
    let mut expected = vec!["/before".to_owned()];
    expected.extend(numbered(0..3000));
    assert_eq!(paths_in(&file), expected);
    assert_eq!(dropped.get(), 0);
}

#[test]
fn a_path_that_cannot_be_opened_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("none/access.log");
    let error = AccessLog::open(&AccessLogTarget::File(file.clone()), counter())
        .err()
        .unwrap();
    let expected = format!("cannot open access log {}: ", file.display());
    assert!(error.to_string().starts_with(&expected), "{error}");
}

#[test]
fn a_full_queue_drops_and_counts_and_does_not_block() {
    let (gate, entries, results) = Gate::new();
    let dropped = counter();
    let queue = Queue {
        lines: 4,
        bytes: 1 << 20,
    };
    let log = log_to(gate, queue, &dropped);
    log.log(&record("/0"));
    let first = entries.recv_timeout(SOON).unwrap();
    // The writer is stuck in its write: four lines fit, three do not.
    log_numbered(&log, 1..8);
    assert_eq!(dropped.get(), 3);
    assert!(!log.flush(Duration::from_millis(5)));

    results.send(Ok(first.len())).unwrap();
    let second = entries.recv_timeout(SOON).unwrap();
    assert_eq!(
        paths(std::str::from_utf8(&second).unwrap()),
        numbered(1..5),
        "the queued lines are written as one batch"
    );
    results.send(Ok(second.len())).unwrap();
    assert!(log.flush(SOON));
    assert_eq!(dropped.get(), 3);
}

#[test]
fn long_lines_do_not_fill_the_memory() {
    let (gate, entries, results) = Gate::new();
    let dropped = counter();
    let queue = Queue {
        lines: 100,
        bytes: 10_000,
    };
    let log = log_to(gate, queue, &dropped);
    log.log(&record("/0"));
    let first = entries.recv_timeout(SOON).unwrap();
    let long = format!("/{}", "x".repeat(4000));
    for _ in 0..5 {
        log.log(&record(&long));
    }
    assert_eq!(dropped.get(), 3, "two of 4 KB fit into 10 KB");
    log.log(&record("/short"));
    assert_eq!(dropped.get(), 3, "a short one still fits");
    results.send(Ok(first.len())).unwrap();
    let second = entries.recv_timeout(SOON).unwrap();
    results.send(Ok(second.len())).unwrap();
    assert!(log.flush(SOON));
    // All of it was given back.
    assert_eq!(log.writer.as_ref().unwrap().queued_bytes(), 0);
}

#[test]
fn a_torn_line_costs_only_itself() {
    let (gate, entries, results) = Gate::new();
    let dropped = counter();
    let log = log_to(gate, QUEUE, &dropped);
    log.log(&record("/0"));
    entries.recv_timeout(SOON).unwrap();
    log_numbered(&log, 1..3);
    // Ten bytes of the line, then the disk is full.
    results.send(Ok(10)).unwrap();
    entries.recv_timeout(SOON).unwrap();
    let full = io::Error::from(io::ErrorKind::StorageFull);
    results.send(Err(full)).unwrap();
    assert_eq!(entries.recv_timeout(SOON).unwrap(), b"\n");
    results.send(Ok(1)).unwrap();
    let rest = entries.recv_timeout(SOON).unwrap();
    assert_eq!(paths(std::str::from_utf8(&rest).unwrap()), numbered(1..3));
    results.send(Ok(rest.len())).unwrap();
    assert!(log.flush(SOON));
    assert_eq!(dropped.get(), 1);
}

#[test]
fn an_impatient_flush_gives_up() {
    let (gate, entries, results) = Gate::new();
    let log = log_to(gate, QUEUE, &counter());
    log.log(&record("/0"));
    let first = entries.recv_timeout(SOON).unwrap();
    assert!(!log.flush(Duration::from_millis(5)));
    results.send(Ok(first.len())).unwrap();
    assert!(log.flush(SOON));
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_counts_what_it_lost() {
    let dropped = counter();
    let target = AccessLogTarget::File("/dev/full".into());
    let log = AccessLog::open(&target, dropped.clone()).unwrap();
    log_numbered(&log, 0..5);
    assert!(log.flush(SOON));
    assert_eq!(dropped.get(), 5);
}

#[test]
fn reopen_after_a_rename() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("access.log");
    let rotated = dir.path().join("access.log.1");
    let log = AccessLog::open(&AccessLogTarget::File(file.clone()), counter()).unwrap();
    log_numbered(&log, 0..2);
    assert!(log.flush(SOON));
    fs::rename(&file, &rotated).unwrap();
    log_numbered(&log, 2..3);
    assert!(log.flush(SOON));
    log.reopen();
    log_numbered(&log, 3..5);
    assert!(log.flush(SOON));
    assert_eq!(paths_in(&rotated), numbered(0..3));
    assert_eq!(paths_in(&file), numbered(3..5));
}

#[test]
fn a_reopen_that_fails_keeps_the_old_file() {
    let dir = tempfile::tempdir().unwrap();
    let logs = dir.path().join("logs");
    fs::create_dir(&logs).unwrap();
    let file = logs.join("access.log");
    let log = AccessLog::open(&AccessLogTarget::File(file.clone()), counter()).unwrap();
    log_numbered(&log, 0..1);
    assert!(log.flush(SOON));
    let moved = dir.path().join("moved");
    fs::rename(&logs, &moved).unwrap();
    log.reopen();
    log_numbered(&log, 1..2);
    assert!(log.flush(SOON));
    assert_eq!(paths_in(&moved.join("access.log")), numbered(0..2));
}

#[test]
fn the_last_handle_leaves_nothing_unwritten() {
    let (gate, entries, results) = Gate::new();
    let log = log_to(gate, QUEUE, &counter());
    log.log(&record("/0"));
    let first = entries.recv_timeout(SOON).unwrap();
    log.log(&record("/1"));
    drop(log);
    results.send(Ok(first.len())).unwrap();
    let second = entries.recv_timeout(SOON).unwrap();
    assert_eq!(paths(std::str::from_utf8(&second).unwrap()), ["/1"]);
    results.send(Ok(second.len())).unwrap();
    // The gate is dropped with the writer.
    assert!(entries.recv_timeout(SOON).is_err());
}
