//! Allocations a request: those of the edge with all of a placement's features on, and those of a Pingora that
//! does nothing, for the same requests. The difference is the edge's own.
//!
//! `cargo bench --bench allocations`, and with `-- where` the lines of the edge that they come from. The program runs
//! itself: each proxy is a process with a counting allocator, and reports its counts on request.

use std::alloc::{GlobalAlloc, Layout};
use std::backtrace::Backtrace;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use mimalloc::MiMalloc;
use serde_json::json;

#[path = "../bench/src/bare/proxy.rs"]
mod bare;
mod shared;

/// The most that the edge may add for a request. Pingora makes about three allocations for each field that is set in
/// a head, and the edge sets nine.
const GOAL: f64 = 35.0;
const WARM_UP: u64 = 2_000;
const REQUESTS: u64 = 20_000;
/// Requests whose allocations are traced, which is slow.
const TRACED: u64 = 50;
/// How long a proxy may take to serve, and an answer to come.
const PATIENCE: Duration = Duration::from_secs(20);
const BODY: usize = 128;

/// The edge's allocator, and how often it was called.
struct Counting;

static CALLS: AtomicU64 = AtomicU64::new(0);
static BYTES: AtomicU64 = AtomicU64::new(0);

/// Whether allocations are traced.
static TRACING: AtomicBool = AtomicBool::new(false);
/// Traced allocations by the nearest line of the edge, or function of Pingora.
static PLACES: Mutex<BTreeMap<String, u64>> = Mutex::new(BTreeMap::new());

thread_local! {
    /// Tracing allocates as well.
    static LOOKING: Cell<bool> = const { Cell::new(false) };
}

fn count(size: usize) {
    CALLS.fetch_add(1, Relaxed);
    BYTES.fetch_add(size as u64, Relaxed);
    if TRACING.load(Relaxed) && !LOOKING.replace(true) {
        let trace = Backtrace::force_capture().to_string();
        if let Ok(mut places) = PLACES.lock() {
            *places.entry(place(&trace)).or_default() += 1;
        }
        LOOKING.set(false);
    }
}

/// The first frame of the edge's own, else the first of the proxy library, with its line.
fn place(trace: &str) -> String {
    let lines: Vec<&str> = trace.lines().map(str::trim).collect();
    let function = |line: &&str| {
        let (number, function) = line.split_once(": ")?;
        number.parse::<u32>().ok().map(|_| function.to_owned())
    };
    let frames = || {
        lines
            .iter()
            .enumerate()
            .filter_map(|(at, line)| Some((at, function(line)?)))
    };
    let found = frames()
        .find(|(_, name)| name.starts_with("cellgate::") || name.starts_with("new<cellgate::"))
        .or_else(|| frames().find(|(_, name)| name.contains("pingora")));
    let Some((at, name)) = found else {
        return "others".to_owned();
    };
    let line = lines.get(at + 1).and_then(|line| line.strip_prefix("at "));
    let line = line.unwrap_or_default();
    let source = line.rsplit_once("/src/").map_or(line, |(_, rest)| rest);
    format!("{name} {source}")
}

// SAFETY: every call goes to mimalloc unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        unsafe { MiMalloc.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        unsafe { MiMalloc.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size);
        unsafe { MiMalloc.realloc(block, layout, size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        unsafe { MiMalloc.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("edge") => {
            answer_counts();
            cellgate::cli::run()
        }
        Some("bare") => {
            answer_counts();
            let cell = arguments[2].parse().expect("an address");
            bare::serve(&arguments[1], vec![cell])
        }
        Some("where") => compare(true),
        _ => compare(false),
    }
}

/// Answers each byte on standard input with a line on standard output: `?` with the counts so far, `w` after it began
/// to trace, `e` with what it traced.
fn answer_counts() {
    std::thread::spawn(|| {
        let mut asked = [0];
        while let Ok(1) = std::io::stdin().read(&mut asked) {
            match asked {
                [b'w'] => {
                    TRACING.store(true, Relaxed);
                    println!();
                }
                [b'e'] => {
                    TRACING.store(false, Relaxed);
                    LOOKING.set(true);
                    let places = PLACES.lock().map(|places| json!(*places));
                    println!("{}", places.unwrap_or_default());
                }
                _ => println!("{} {}", CALLS.load(Relaxed), BYTES.load(Relaxed)),
            }
        }
        std::process::exit(0);
    });
}

fn compare(places: bool) -> ExitCode {
    let cell = start_cell();
    let dir = tempfile::tempdir().expect("a directory");
    let bare = measure(false, |listen| {
        let cell = cell.to_string();
        vec!["bare".into(), listen.to_string(), cell]
    });
    let edge = |access_log: &str| {
        let settings = dir.path().join("edge.yaml");
        let routing = dir.path().join("routing.json");
        std::fs::write(&routing, shared::document(cell).to_string()).expect("a document");
        let access_log = match access_log {
            "off" => json!("off"),
            name => json!(dir.path().join(name)),
        };
        measure(places && access_log == json!("off"), |listen| {
            let text = json!({
                "cellgate": {
                    "listen": [listen.to_string()],
                    "admin_listen": "127.0.0.1:0",
                    "routing": {"path": routing, "poll_interval": "1day"},
                    "access_log": access_log,
                },
                "threads": 1,
                "upgrade_sock": dir.path().join("upgrade.sock"),
            });
            std::fs::write(&settings, text.to_string()).expect("settings");
            vec!["edge".into(), "-c".into(), settings.display().to_string()]
        })
    };
    let (off, on) = (edge("off"), edge("access.log"));

    println!("allocations a request, over {REQUESTS} requests on one connection:");
    for (name, found) in [
        ("bare Pingora", bare),
        ("edge", off),
        ("edge, access log on", on),
    ] {
        println!(
            "  {name:<20} {:>7.2}  {:>8.0} bytes",
            found.calls, found.bytes
        );
    }
    let ours = off.calls - bare.calls;
    let reached = if ours <= GOAL { "reached" } else { "missed" };
    println!(
        "  {:<20} {ours:>+7.2}  goal: at most {GOAL}, {reached}",
        "edge over bare"
    );
    ExitCode::SUCCESS
}

/// For one request.
#[derive(Clone, Copy)]
struct Found {
    calls: f64,
    bytes: f64,
}

fn measure(places: bool, arguments: impl FnOnce(SocketAddr) -> Vec<String>) -> Found {
    let listen = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let listen = listen.expect("a free port");
    let mut proxy = Proxy::start(&arguments(listen));
    let mut client = connect(listen);
    ask(&mut client, WARM_UP);
    let (calls, bytes) = proxy.counts();
    ask(&mut client, REQUESTS);
    let (more_calls, more_bytes) = proxy.counts();
    if places {
        proxy.ask("w");
        ask(&mut client, TRACED);
        let found: BTreeMap<String, u64> = serde_json::from_str(&proxy.ask("e")).expect("places");
        let mut found: Vec<_> = found.into_iter().collect();
        found.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        for (place, count) in found {
            println!("{:>6.2}  {place}", count as f64 / TRACED as f64);
        }
    }
    let each = |more: u64| more as f64 / REQUESTS as f64;
    Found {
        calls: each(more_calls - calls),
        bytes: each(more_bytes - bytes),
    }
}

/// A proxy that ends with its standard input, or when this is dropped.
struct Proxy {
    child: Child,
    asks: ChildStdin,
    says: BufReader<ChildStdout>,
}

impl Proxy {
    fn start(arguments: &[String]) -> Proxy {
        let program = std::env::current_exe().expect("this program");
        let mut child = Command::new(program)
            .args(arguments)
            .env("RUST_LOG", "error")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this program");
        let (asks, says) = (child.stdin.take(), child.stdout.take());
        Proxy {
            child,
            asks: asks.expect("its input"),
            says: BufReader::new(says.expect("its output")),
        }
    }

    fn counts(&mut self) -> (u64, u64) {
        let line = self.ask("?");
        let (calls, bytes) = line.trim().split_once(' ').expect("two numbers");
        (
            calls.parse().expect("a number"),
            bytes.parse().expect("a number"),
        )
    }

    fn ask(&mut self, what: &str) -> String {
        self.asks
            .write_all(what.as_bytes())
            .expect("the proxy runs");
        let mut line = String::new();
        self.says.read_line(&mut line).expect("the proxy runs");
        line
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn connect(proxy: SocketAddr) -> TcpStream {
    let end = Instant::now() + PATIENCE;
    loop {
        match TcpStream::connect(proxy) {
            Ok(stream) => {
                stream.set_nodelay(true).expect("a socket");
                stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
                return stream;
            }
            Err(error) if Instant::now() > end => panic!("the proxy does not serve: {error}"),
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}

/// Sends `requests` requests, each after the answer to the one before.
fn ask(client: &mut TcpStream, requests: u64) {
    let request =
        b"GET /hello HTTP/1.1\r\nHost: example.com\r\nUser-Agent: count\r\nAccept: */*\r\n\
        X-Routing-Key: acme\r\n\r\n";
    let mut buffer = [0; 4096];
    for _ in 0..requests {
        client.write_all(request).expect("the proxy reads");
        let mut length = 0;
        loop {
            let count = client.read(&mut buffer[length..]).expect("an answer");
            assert!(count > 0, "the proxy closed");
            length += count;
            let answer = &buffer[..length];
            let head = answer.windows(4).position(|window| window == b"\r\n\r\n");
            if head.is_some_and(|head| length == head + 4 + BODY) {
                assert!(
                    answer.starts_with(b"HTTP/1.1 200 "),
                    "{}",
                    answer.escape_ascii()
                );
                break;
            }
        }
    }
}

/// A cell that gives every request the same answer.
fn start_cell() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    let head = format!(
        "HTTP/1.1 200 OK\r\nServer: cell\r\nDate: Tue, 01 Sep 2026 00:00:00 GMT\r\n\
         Content-Type: text/plain\r\nContent-Length: {BODY}\r\n\r\n"
    );
    let answer = [head.as_bytes(), &[b'x'; BODY]].concat();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, answer) = (stream.expect("a client"), answer.clone());
            std::thread::spawn(move || {
                let mut request = [0; 4096];
                while stream.read(&mut request).is_ok_and(|count| count > 0) {
                    if stream.write_all(&answer).is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}
