//! The edge's own log: lines on stderr, as text or as JSON.
//!
//! ```text
//! 2026-11-23T23:00:00.123Z INFO  cellgate::live config reloaded generation=3
//! {"timestamp":"2026-11-23T23:00:00.123Z","level":"INFO","target":"cellgate::live","message":"config reloaded","generation":3}
//! ```
//!
//! One record is one line whatever a client managed to get into it: control
//! characters are escaped.
//!
//! Once the edge serves, lines are written off the request path: whoever reads
//! stderr may stop reading, and requests go on.

use std::fmt::{Display, Write as _};
use std::io::{self, Write};
use std::panic;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use env_logger::{Builder, Target};
use log::kv::{Error, Key, Value, VisitSource, VisitValue};
use log::{LevelFilter, Record, error, log_enabled, warn};
use prometheus::IntCounter;

use super::line_log::{self, LineLog, Queue};
use super::{json, time};
use crate::settings::LogFormat;

/// What is logged when `RUST_LOG` does not say otherwise.
///
/// Pingora's proxy logs every client that goes away as an error, and its
/// protocol code every odd header as a warning; the edge accounts for both in
/// its access log and metrics, so here they would only let clients fill disks.
pub const DEFAULT_FILTER: &str = "info,notify=warn,pingora_core=warn,pingora_core::apps=off,pingora_core::protocols=error,pingora_core::server::transfer_fd=off,pingora_proxy=off";

/// Starts logging to stderr; to be called once, first thing. `RUST_LOG`
/// replaces [`DEFAULT_FILTER`]; what it has of unusable directives is named in
/// the log and ignored. Starts no thread, so forking afterwards is fine.
///
/// A panic is logged as well (target `cellgate::panic`): it would otherwise
/// end up between the lines of a log that is meant to be read by machines.
pub fn init(format: LogFormat) {
    let spec = std::env::var("RUST_LOG").unwrap_or_default();
    let filter = Filter::parse(&spec);
    let mut builder = Builder::new();
    builder
        .parse_filters(&filter.usable)
        // Whatever is silenced, not the word on what was misunderstood.
        .filter_module(module_path!(), LevelFilter::Warn)
        .target(Target::Pipe(Box::new(Out)))
        .format(move |out, record| out.write_all(&line(format, SystemTime::now(), record)));
    if builder.try_init().is_err() {
        // Somebody's logger is there already, as in a test: it stays.
        return;
    }
    for directive in &filter.unusable {
        warn!(
            "RUST_LOG: ignored {directive:?}: want a level (off, error, warn, info, debug, trace), \
             a target, or target=level, separated by commas"
        );
    }
    log_panics();
}

/// Some seconds of a cell that is down and asked for a thousand times a second.
const QUEUE: Queue = Queue {
    lines: 8192,
    bytes: 4 << 20,
};

/// How long a panic waits until its line is out.
const PANIC_FLUSH: Duration = Duration::from_secs(1);

/// Set once no line may make its thread wait any more.
static LINES: OnceLock<LineLog> = OnceLock::new();

/// Has a thread write the lines from now on; those that it cannot keep up with
/// are dropped and counted in `dropped`. To be called when requests may come
/// and the process will not fork any more.
pub fn write_in_background(dropped: IntCounter) {
    match LineLog::open("log", line_log::Target::Stderr, QUEUE, dropped) {
        // Started before it is used: what it says of itself would wait for itself.
        Ok(lines) if lines.start() => {
            let _ = LINES.set(lines);
        }
        Ok(_) => {}
        Err(error) => error!("log: lines are written as they come: {error}"),
    }
}

/// Waits until every line logged before was written or dropped, at most for
/// `timeout`. For shutdown: it blocks its thread.
pub fn flush(timeout: Duration) {
    if let Some(lines) = LINES.get() {
        lines.flush(timeout);
    }
}

/// Where finished lines go. Each comes in one piece.
struct Out;

impl Write for Out {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match LINES.get() {
            Some(lines) => {
                lines.push(line.to_vec());
                Ok(line.len())
            }
            None => io::stderr().write(line),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A `RUST_LOG`, sorted into what can be used and what cannot.
#[derive(Debug, PartialEq, Eq)]
struct Filter {
    usable: String,
    unusable: Vec<String>,
}

impl Filter {
    fn parse(spec: &str) -> Filter {
        // `directives/text` also filters by text in the message.
        let (directives, text) = match spec.split_once('/') {
            Some((directives, text)) => (directives, Some(text)),
            None => (spec, None),
        };
        let (mut usable, mut unusable) = (Vec::new(), Vec::new());
        for directive in directives.split(',').map(str::trim) {
            match directive {
                "" => {}
                _ if is_directive(directive) => usable.push(directive),
                _ => unusable.push(directive.to_owned()),
            }
        }
        let mut usable = match usable.as_slice() {
            [] => DEFAULT_FILTER.to_owned(),
            some => some.join(","),
        };
        match text {
            Some(text) if text.contains('/') => unusable.push(format!("/{text}")),
            Some(text) => {
                usable.push('/');
                usable.push_str(text);
            }
            None => {}
        }
        Filter { usable, unusable }
    }
}

fn is_directive(directive: &str) -> bool {
    match directive.split_once('=') {
        // A mistyped level would be a target that silences all others.
        None => directive.parse::<LevelFilter>().is_ok() || is_target(directive),
        Some((target, level)) => {
            let level = level.trim();
            !target.trim().is_empty() && (level.is_empty() || level.parse::<LevelFilter>().is_ok())
        }
    }
}

/// Whether the name can be the one of a module that logs here.
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
        let place = info.location().map(ToString::to_string);
        error!(
            target: TARGET,
            thread = thread.name().unwrap_or("unnamed"),
            location = place.as_deref().unwrap_or("unknown");
            "panicked: {message}"
        );
        if thread.name() == Some("main") {
            // It is the last thing that this process does.
            flush(PANIC_FLUSH);
        }
    }));
}

fn line(format: LogFormat, now: SystemTime, record: &Record<'_>) -> Vec<u8> {
    let mut line = match format {
        LogFormat::Text => text_line(now, record),
        LogFormat::Json => json_line(now, record),
    };
    line.push(b'\n');
    line
}

fn text_line(now: SystemTime, record: &Record<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    time::write_millis(&mut out, now);
    // Writing to a Vec cannot fail.
    let _ = write!(out, " {:<5} ", record.level());
    let mut text = String::new();
    let _ = write!(text, "{} {}", record.target(), record.args());
    push_printable(&mut out, &text);
    let _ = record.key_values().visit(&mut TextFields(&mut out));
    out
}

struct TextFields<'a>(&'a mut Vec<u8>);

impl<'kvs> VisitSource<'kvs> for TextFields<'_> {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), Error> {
        self.0.push(b' ');
        push_printable(self.0, key.as_str());
        self.0.push(b'=');
        let text = value.to_string();
        let bare = !text.is_empty() && !text.contains([' ', '"', '=', '\\']);
        if bare {
            push_printable(self.0, &text);
        } else {
            json::write_str(self.0, &text);
        }
        Ok(())
    }
}

/// `text` with its control characters as Rust writes them: `\n`, `\u{1b}`.
fn push_printable(out: &mut Vec<u8>, text: &str) {
    let mut rest = text;
    while let Some((index, control)) = rest.char_indices().find(|(_, c)| c.is_control()) {
        let (clean, tail) = rest.split_at(index);
        out.extend_from_slice(clean.as_bytes());
        let _ = write!(out, "{}", control.escape_default());
        rest = &tail[control.len_utf8()..];
    }
    out.extend_from_slice(rest.as_bytes());
}

fn json_line(now: SystemTime, record: &Record<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    out.extend_from_slice(b"{\"timestamp\":\"");
    time::write_millis(&mut out, now);
    out.extend_from_slice(b"\",\"level\":");
    json::write_str(&mut out, record.level().as_str());
    out.extend_from_slice(b",\"target\":");
    json::write_str(&mut out, record.target());
    out.extend_from_slice(b",\"message\":");
    write_display(&mut out, record.args());
    let mut fields = JsonFields {
        out: &mut out,
        seen: vec!["timestamp", "level", "target", "message"]
            .into_iter()
            .map(str::to_owned)
            .collect(),
    };
    let _ = record.key_values().visit(&mut fields);
    out.push(b'}');
    out
}

struct JsonFields<'a> {
    out: &'a mut Vec<u8>,
    seen: Vec<String>,
}

impl<'kvs> VisitSource<'kvs> for JsonFields<'_> {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), Error> {
        // A name twice in one object is what parsers disagree about.
        let mut name = key.as_str().to_owned();
        while self.seen.contains(&name) {
            name.push('_');
        }
        self.out.push(b',');
        json::write_str(self.out, &name);
        self.out.push(b':');
        self.seen.push(name);
        value.visit(JsonValue(self.out))
    }
}

/// Numbers and truth values stay what they are; all else is a string.
struct JsonValue<'a>(&'a mut Vec<u8>);

impl<'v> VisitValue<'v> for JsonValue<'_> {
    fn visit_any(&mut self, value: Value<'_>) -> Result<(), Error> {
        write_display(self.0, value);
        Ok(())
    }

    fn visit_null(&mut self) -> Result<(), Error> {
        self.0.extend_from_slice(b"null");
        Ok(())
    }

    fn visit_u64(&mut self, value: u64) -> Result<(), Error> {
        json::write_u64(self.0, value);
        Ok(())
    }

    fn visit_i64(&mut self, value: i64) -> Result<(), Error> {
        let _ = write!(self.0, "{value}");
        Ok(())
    }

    fn visit_f64(&mut self, value: f64) -> Result<(), Error> {
        // JSON has no word for NaN and the infinities.
        let _ = match value.is_finite() {
            true => write!(self.0, "{value}"),
            false => write!(self.0, "\"{value}\""),
        };
        Ok(())
    }

    fn visit_bool(&mut self, value: bool) -> Result<(), Error> {
        let _ = write!(self.0, "{value}");
        Ok(())
    }

    fn visit_str(&mut self, value: &str) -> Result<(), Error> {
        json::write_str(self.0, value);
        Ok(())
    }
}

fn write_display(out: &mut Vec<u8>, value: impl Display) {
    json::write_str(out, &value.to_string());
}

#[cfg(test)]
mod tests;
