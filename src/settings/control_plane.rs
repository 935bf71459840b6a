//! The `cellgate.control_plane` section: the control planes, the credentials of the edge, and
//! where it keeps tables.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pingora_core::tls::ssl::{SslContext, SslFiletype, SslMethod};
use url::{Host, Url};

use super::files::shown;
use super::reader::{At, Reader, Section};
use super::sections::{self, path};
use super::value::{self, Parsed};
use super::yaml::Node;
use super::{ControlPlane, Settings};
use crate::files::token;
use crate::protocol::limits::{LABELS, NAME_BYTES, VALUE_BYTES};

/// The variable that overrides `urls`.
pub(super) const URLS: &str = "CONTROL_PLANE_URL";

/// The most control planes of an edge.
const MOST_URLS: usize = 100;

/// The longest `edge_id`: that of the protocol.
const LONGEST_ID: usize = NAME_BYTES;

/// Bounds of labels, which operators search by.
const MOST_LABELS: usize = LABELS;
const LONGEST_LABEL_NAME: usize = 63;
const LONGEST_LABEL: usize = VALUE_BYTES;

/// Range of `promote_after`.
const PROMOTE_AFTER: RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(86_400);

/// The places of the URLs and the token file, for problems that are found later.
#[derive(Default)]
pub(super) struct Given<'a> {
    urls: Vec<At<'a>>,
    token_file: Option<At<'a>>,
}

/// Reads the section over the defaults in `settings`.
pub(super) fn read<'a>(
    reader: &mut Reader<'a>,
    cellgate: &Section<'a>,
    settings: &mut Settings,
) -> Given<'a> {
    let section = reader.section(cellgate, "control_plane");
    let of = &mut settings.control_plane;
    let mut given = Given::default();
    if let Some(at) = section.get("urls") {
        let read = read_urls(reader, &at.clone());
        (of.urls, given.urls) = read.into_iter().unzip();
    }
    of.token_file = reader.read(&section, "token_file", token_file);
    given.token_file = section.get("token_file").cloned();
    of.ca_file = reader.read(&section, "ca_file", sections::ca_file);
    (of.client_cert, of.client_key) = read_pair(reader, &section);
    reader.set(&section, "edge_id", &mut of.edge_id, edge_id);
    if let Some(at) = section.get("labels") {
        of.labels = read_labels(reader, &at.clone());
    }
    of.state_dir = reader.read(&section, "state_dir", path);
    reader.set(
        &section,
        "promote_after",
        &mut of.promote_after,
        value::duration(PROMOTE_AFTER),
    );
    given
}

/// Applies [`URLS`] and checks what depends on more than one key.
pub(super) fn check(
    reader: &mut Reader<'_>,
    settings: &mut Settings,
    given: &Given<'_>,
    variable: Option<String>,
) {
    let of = &mut settings.control_plane;
    let from_variable = variable.is_some();
    if let Some(variable) = variable {
        match parse_list(&variable) {
            Ok(urls) => of.urls = urls,
            Err(message) => reader.problem_elsewhere(URLS, message),
        }
    }
    if given.token_file.is_none() {
        return;
    }
    for (nth, url) in of.urls.iter().enumerate().filter(|(_, url)| !private(url)) {
        let message = format!(
            "got {:?}, want wss:// because of token_file: over ws:// everyone on the way to a host \
             that is not loopback could read the token",
            url.as_str()
        );
        match given.urls.get(nth).filter(|_| !from_variable) {
            Some(at) => reader.problem(at, message),
            None => reader.problem_elsewhere(URLS, message),
        }
    }
}

/// Whether a token can be sent there without being overheard: TLS, or loopback.
fn private(url: &Url) -> bool {
    url.scheme() == "wss"
        || match url.host() {
            Some(Host::Domain(name)) => name == "localhost",
            Some(Host::Ipv4(address)) => IpAddr::from(address).is_loopback(),
            Some(Host::Ipv6(address)) => IpAddr::from(address).is_loopback(),
            None => false,
        }
}

fn read_urls<'a>(reader: &mut Reader<'a>, at: &At<'a>) -> Vec<(Url, At<'a>)> {
    let items = reader.list(at, "a list of URLs, such as [wss://control:8081/connect]");
    let items = items.unwrap_or_default();
    if items.len() > MOST_URLS {
        let message = format!("got {} URLs, want at most {MOST_URLS}", items.len());
        reader.problem(at, message);
        return Vec::new();
    }
    let mut urls: Vec<(Url, At<'a>)> = Vec::new();
    for item in items {
        let parsed = match item.node {
            Node::Text(text) => parse_url(text),
            other => Err(format!("got {other}, want {A_URL}")),
        };
        let parsed = parsed.and_then(|url| match urls.iter().any(|(seen, _)| *seen == url) {
            true => Err(twice(&url)),
            false => Ok(url),
        });
        match parsed {
            Ok(url) => urls.push((url, item)),
            Err(message) => reader.problem(&item, message),
        }
    }
    urls
}

/// Parses URLs with commas between them.
fn parse_list(text: &str) -> Parsed<Vec<Url>> {
    let mut urls = Vec::new();
    for part in text.split(',') {
        // A password may have a comma in it.
        let url = parse_shown(part.trim(), !text.contains('@'))?;
        if urls.contains(&url) {
            return Err(twice(&url));
        }
        urls.push(url);
    }
    match urls.len() {
        0..=MOST_URLS => Ok(urls),
        more => Err(format!("got {more} URLs, want at most {MOST_URLS}")),
    }
}

fn twice(url: &Url) -> String {
    format!("{:?} is here twice", url.as_str())
}

const A_URL: &str = "a ws:// or wss:// URL, such as wss://control:8081/connect";

/// Parses a URL; without a path, it gets `/connect`.
fn parse_url(text: &str) -> Parsed<Url> {
    parse_shown(text, !text.contains('@'))
}

/// Parses a URL. Problems quote it only if `show`: with an `@`, it may have a password.
fn parse_shown(text: &str, show: bool) -> Parsed<Url> {
    let wrong = |why: &str| match show {
        true => format!("got {text:?}{why}, want {A_URL}"),
        false => format!("got a URL{why} that may have a secret in it, want {A_URL}"),
    };
    let mut url = Url::parse(text).map_err(|error| wrong(&format!(" ({error})")))?;
    if !matches!(url.scheme(), "ws" | "wss") {
        return Err(wrong(""));
    }
    if !url.username().is_empty() || url.password().is_some() {
        // Not repeated: it may be a secret.
        return Err(format!(
            "got a URL with a user name or a password, want {A_URL}; secrets go into token_file"
        ));
    }
    if url.fragment().is_some() {
        return Err(wrong(" with a fragment"));
    }
    if url.path() == "/" {
        url.set_path("/connect");
    }
    Ok(url)
}

/// A file with a token. It is read again for every connection, so that it can be replaced;
/// reading it now finds a wrong path.
fn token_file(node: &Node) -> Parsed<PathBuf> {
    let path = path(node)?;
    token::read(&path)?;
    Ok(path)
}

/// `client_cert` and `client_key`, which need each other.
fn read_pair<'a>(
    reader: &mut Reader<'a>,
    section: &Section<'a>,
) -> (Option<PathBuf>, Option<PathBuf>) {
    let cert = reader.read(section, "client_cert", client_cert);
    let key = reader.read(section, "client_key", path);
    for (name, other) in [("client_cert", "client_key"), ("client_key", "client_cert")] {
        if let (Some(at), None) = (section.get(name), section.get(other)) {
            let message =
                format!("want {other} as well: a certificate is of use only with its key");
            reader.problem(&at.clone(), message);
        }
    }
    if let (Some(cert), Some(key), Some(at)) = (&cert, &key, section.get("client_key"))
        && let Err(message) = key_of(cert, key, "client_cert")
    {
        reader.problem(&at.clone(), message);
    }
    (cert, key)
}

/// A file with a certificate that can be used.
pub(crate) fn client_cert(node: &Node) -> Parsed<PathBuf> {
    let path = path(node)?;
    let refused = |error: &dyn std::fmt::Display| {
        format!(
            "{} has no usable PEM certificate in it: {error}",
            shown(&path)
        )
    };
    std::fs::metadata(&path)
        .map_err(|error| format!("cannot read {}: {error}", shown(&path)))
        .and_then(|_| {
            SslContext::builder(SslMethod::tls())
                .and_then(|mut builder| builder.set_certificate_chain_file(&path))
                .map_err(|error| refused(&error))
        })?;
    Ok(path)
}

/// Refuses a key that is invalid or does not match the certificate of the setting `name`.
pub(crate) fn key_of(cert: &Path, key: &Path, name: &str) -> Parsed<()> {
    std::fs::metadata(key).map_err(|error| format!("cannot read {}: {error}", shown(key)))?;
    let mut builder = SslContext::builder(SslMethod::tls()).map_err(|error| error.to_string())?;
    builder
        .set_certificate_chain_file(cert)
        .and_then(|()| builder.set_private_key_file(key, SslFiletype::PEM))
        .and_then(|()| builder.check_private_key())
        .map_err(|error| {
            format!(
                "{} has no PEM key for the certificate in {name}: {error}",
                shown(key)
            )
        })
}

fn edge_id(node: &Node) -> Parsed<String> {
    let id = value::text("a name")(node)?;
    if id.len() > LONGEST_ID || !id.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(format!(
            "got {node}, want a name of at most {LONGEST_ID} bytes of visible ASCII without spaces"
        ));
    }
    Ok(id)
}

fn read_labels<'a>(reader: &mut Reader<'a>, at: &At<'a>) -> BTreeMap<String, String> {
    let entries = reader.map(at);
    if entries.len() > MOST_LABELS {
        let message = format!("got {} labels, want at most {MOST_LABELS}", entries.len());
        reader.problem(at, message);
    }
    let mut labels = BTreeMap::new();
    for (name, at) in entries.into_iter().take(MOST_LABELS) {
        let checked = label_name(name).and_then(|()| label(at.node));
        match checked {
            Ok(value) => {
                labels.insert(name.to_owned(), value);
            }
            Err(message) => reader.problem(&at, message),
        }
    }
    labels
}

fn label_name(name: &str) -> Parsed<()> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'/');
    if name.is_empty() || name.len() > LONGEST_LABEL_NAME || !name.bytes().all(good) {
        return Err(format!(
            "got the label {name:?}, want 1 to {LONGEST_LABEL_NAME} of: letters, digits, - _ . /"
        ));
    }
    Ok(())
}

fn label(node: &Node) -> Parsed<String> {
    match node {
        Node::Text(text) if text.len() <= LONGEST_LABEL && !text.contains(char::is_control) => {
            Ok(text.clone())
        }
        _ => Err(format!(
            "got {node}, want a text of at most {LONGEST_LABEL} bytes on one line; \
             numbers and truth values need quotes"
        )),
    }
}

/// The host's name: the default `edge_id`.
pub(crate) fn host_name() -> String {
    let mut buffer = [0u8; 256];
    // SAFETY: `buffer` is valid for writing, for its length.
    let failed = unsafe { libc::gethostname(buffer.as_mut_ptr().cast(), buffer.len()) };
    let name = buffer.split(|byte| *byte == 0).next().unwrap_or_default();
    let name = String::from_utf8_lossy(name);
    match edge_id(&Node::Text(name.into_owned())) {
        Ok(name) if failed == 0 => name,
        _ => "localhost".to_owned(),
    }
}

impl Default for ControlPlane {
    fn default() -> ControlPlane {
        ControlPlane {
            urls: Vec::new(),
            token_file: None,
            ca_file: None,
            client_cert: None,
            client_key: None,
            edge_id: host_name(),
            labels: BTreeMap::new(),
            state_dir: None,
            promote_after: Duration::from_secs(30),
        }
    }
}
