//! The process's own log: lines on stderr, as text or as JSON.
//!
//! ```text
//! 2026-11-23T23:00:00.123Z INFO  cellgate::state config reloaded generation=3
//! {"timestamp":"2026-11-23T23:00:00.123Z","level":"INFO","target":"cellgate::state","message":"config reloaded","generation":3}
//! ```
//!
//! One record is one line: control characters are escaped, whatever a client
//! managed to get into it.
//!
//! This is a backend of our own for the `log` facade. `tracing-log` 0.2 passes a
//! record's message on to a `tracing` subscriber, but not its key-values.

use std::io::{self, Write};
use std::panic;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use log::kv::{Error, Key, Value, VisitSource, VisitValue};
use log::{LevelFilter, Log, Metadata, Record, error, log_enabled, warn};
use prometheus::IntCounter;

use super::log_writer::{LogWriter, Queue, Target};
use super::{json, time};
use crate::settings::LogFormat;

/// What is logged unless `RUST_LOG` is set.
///
/// Pingora's proxy logs every client that leaves as an error, and its protocol
/// code every unusual header as a warning. The edge counts both in its access
/// log and metrics; in the log they would let clients fill disks.
pub const DEFAULT_FILTER: &str = "info,notify=warn,pingora_core=warn,pingora_core::apps=off,pingora_core::protocols=error,pingora_core::server::transfer_fd=off,pingora_proxy=off";

/// Eight seconds of 1,000 lines a second, as when a busy cell fails.
const QUEUE: Queue = Queue {
    lines: 8192,
    bytes: 4 << 20,
};

/// How long a panic of the main thread waits for its line to be written.
const PANIC_FLUSH: Duration = Duration::from_secs(1);

/// Set by [`write_in_background`].
static WRITER: OnceLock<LogWriter> = OnceLock::new();

/// Starts logging to stderr; to be called once, first thing. `RUST_LOG` replaces
/// [`DEFAULT_FILTER`]; invalid directives in it are ignored and logged. Starts
/// no thread, so the process may fork afterwards.
///
/// Panics are logged as well, with the target `cellgate::panic`: on stderr
/// itself they would stand between the lines of a log that machines read.
pub fn init(format: LogFormat) {
    let spec = std::env::var("RUST_LOG").unwrap_or_default();
    let directives = Directives::parse(&spec);
    let filter = env_filter::Builder::new()
        .parse(&directives.valid)
        // Whatever else is off, the warning about RUST_LOG is logged.
        .filter_module(module_path!(), LevelFilter::Warn)
        .build();
    let level = filter.filter();
    if log::set_boxed_logger(Box::new(Logger { format, filter })).is_err() {
        // There is a logger already, as in a test: it stays.
        return;
    }
    log::set_max_level(level);
    for directive in &directives.invalid {
        warn!(
            "RUST_LOG: ignored {directive:?}: want a level (off, error, warn, info, debug, trace), \
             a target, or target=level, separated by commas"
        );
    }
    log_panics();
}

/// From now on, a thread writes the lines. Those that do not fit into its queue
/// are dropped and counted in `dropped`. To be called before requests are
/// accepted, and when the process will not fork any more.
pub fn write_in_background(dropped: IntCounter) {
    let started = LogWriter::open("log", Target::Stderr, QUEUE, dropped)
        .and_then(|writer| writer.start().map(|()| writer));
    match started {
        Ok(writer) => {
            let _ = WRITER.set(writer);
        }
        Err(error) => error!("log: the threads that log write the lines themselves: {error}"),
    }
}

/// Waits until all lines logged before are written or dropped, at most for
/// `timeout`. For shutdown: it blocks its thread.
pub fn flush(timeout: Duration) {
    if let Some(writer) = WRITER.get() {
        writer.flush(timeout);
    }
}

struct Logger {
    format: LogFormat,
    filter: env_filter::Filter,
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.filter.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if !self.filter.matches(record) {
            return;
        }
        let line = line(self.format, SystemTime::now(), record);
        match WRITER.get() {
            Some(writer) => writer.push(line),
            // There is nowhere to report an error to.
            None => drop(io::stderr().write_all(&line)),
        }
    }

    fn flush(&self) {}
}

/// The directives of a `RUST_LOG`.
#[derive(Debug, PartialEq, Eq)]
struct Directives {
    valid: String,
    invalid: Vec<String>,
}

impl Directives {
    fn parse(spec: &str) -> Directives {
        // `directives/text` also filters by text in the message.
        let (directives, text) = match spec.split_once('/') {
            Some((directives, text)) => (directives, Some(text)),
            None => (spec, None),
        };
        let directives = directives.split(',').map(str::trim);
        let (valid, invalid): (Vec<&str>, Vec<&str>) = directives
            .filter(|directive| !directive.is_empty())
            .partition(|directive| is_directive(directive));
        let mut invalid: Vec<String> = invalid.into_iter().map(str::to_owned).collect();
        let mut valid = valid.join(",");
        if valid.is_empty() {
            DEFAULT_FILTER.clone_into(&mut valid);
        }
        match text {
            Some(text) if text.contains('/') => invalid.push(format!("/{text}")),
            Some(text) => {
                valid.push('/');
                valid.push_str(text);
            }
            None => {}
        }
        Directives { valid, invalid }
    }
}

fn is_directive(directive: &str) -> bool {
    match directive.split_once('=') {
        // A mistyped level would be a target, which turns all others off.
        None => directive.parse::<LevelFilter>().is_ok() || is_target(directive),
        Some((target, level)) => {
            let level = level.trim();
            !target.trim().is_empty() && (level.is_empty() || level.parse::<LevelFilter>().is_ok())
        }
    }
}

/// Whether this can be the name of a module that logs here.
fn is_target(name: &str) -> bool {
    name.contains("::")
        || ["cellgate", "pingora", "notify", "hyper", "tokio", "mio"]
            .iter()
            .any(|known| name.starts_with(known))
}

fn log_panics() {
    let default = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        const TARGET: &str = "cellgate::panic";
        if !log_enabled!(target: TARGET, log::Level::Error) {
            return default(info);
        }
        let thread = std::thread::current();
        let payload = info.payload();
        let message = payload
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
            .unwrap_or("no message");
        let location = info.location().map(ToString::to_string);
        error!(
            target: TARGET,
            thread = thread.name().unwrap_or("unnamed"),
            location = location.as_deref().unwrap_or("unknown");
            "panicked: {message}"
        );
        if thread.name() == Some("main") {
            // The process ends after this.
            flush(PANIC_FLUSH);
        }
    }));
}

fn line(format: LogFormat, now: SystemTime, record: &Record<'_>) -> Vec<u8> {
    let mut line = Vec::with_capacity(256);
    match format {
        LogFormat::Text => write_text(&mut line, now, record),
        LogFormat::Json => write_json(&mut line, now, record),
    }
    line.push(b'\n');
    line
}

// Writing to a Vec cannot fail, and neither can the visitors below.

fn write_text(out: &mut Vec<u8>, now: SystemTime, record: &Record<'_>) {
    time::write_millis(out, now);
    let _ = write!(out, " {:<5} ", record.level());
    write_printable(out, &format!("{} {}", record.target(), record.args()));
    let _ = record.key_values().visit(&mut TextFields(out));
}

struct TextFields<'a>(&'a mut Vec<u8>);

impl<'kvs> VisitSource<'kvs> for TextFields<'_> {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), Error> {
        self.0.push(b' ');
        write_printable(self.0, key.as_str());
        self.0.push(b'=');
        let text = value.to_string();
        if text.is_empty() || text.contains([' ', '"', '=', '\\']) {
            json::write_str(self.0, &text);
        } else {
            write_printable(self.0, &text);
        }
        Ok(())
    }
}

/// `text` with its control characters as Rust writes them: `\n`, `\u{1b}`.
fn write_printable(out: &mut Vec<u8>, text: &str) {
    for piece in text.split_inclusive(char::is_control) {
        let clean = piece.trim_end_matches(char::is_control).len();
        let (clean, control) = piece.split_at(clean);
        let _ = write!(out, "{clean}{}", control.escape_default());
    }
}

fn write_json(out: &mut Vec<u8>, now: SystemTime, record: &Record<'_>) {
    out.extend_from_slice(b"{\"timestamp\":\"");
    time::write_millis(out, now);
    out.push(b'"');
    let mut fields = JsonFields {
        out,
        names: vec!["timestamp".to_owned()],
    };
    let _ = fields.visit_pair("level".into(), record.level().as_str().into());
    let _ = fields.visit_pair("target".into(), record.target().into());
    let _ = fields.visit_pair("message".into(), Value::from_display(record.args()));
    let _ = record.key_values().visit(&mut fields);
    out.push(b'}');
}

struct JsonFields<'a> {
    out: &'a mut Vec<u8>,
    names: Vec<String>,
}

impl<'kvs> VisitSource<'kvs> for JsonFields<'_> {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), Error> {
        // Parsers disagree about a name that stands twice in one object.
        let mut name = key.as_str().to_owned();
        while self.names.contains(&name) {
            name.push('_');
        }
        self.out.push(b',');
        json::write_str(self.out, &name);
        self.out.push(b':');
        self.names.push(name);
        value.visit(JsonValue(self.out))
    }
}

/// Numbers and truth values stay what they are; everything else is a string.
struct JsonValue<'a>(&'a mut Vec<u8>);

impl<'v> VisitValue<'v> for JsonValue<'_> {
    fn visit_any(&mut self, value: Value<'_>) -> Result<(), Error> {
        json::write_str(self.0, &value.to_string());
        Ok(())
    }

    fn visit_null(&mut self) -> Result<(), Error> {
        self.0.extend_from_slice(b"null");
        Ok(())
    }

    fn visit_u64(&mut self, value: u64) -> Result<(), Error> {
        self.visit_plain(value)
    }

    fn visit_i64(&mut self, value: i64) -> Result<(), Error> {
        self.visit_plain(value)
    }

    fn visit_f64(&mut self, value: f64) -> Result<(), Error> {
        match value.is_finite() {
            true => self.visit_plain(value),
            // JSON has no NaN and no infinities.
            false => self.visit_any(Value::from(value)),
        }
    }

    fn visit_bool(&mut self, value: bool) -> Result<(), Error> {
        self.visit_plain(value)
    }
}

impl JsonValue<'_> {
    fn visit_plain(&mut self, value: impl std::fmt::Display) -> Result<(), Error> {
        let _ = write!(self.0, "{value}");
        Ok(())
    }
}

#[cfg(test)]
mod tests;
