//! Reads the YAML tree into [`Settings`].

use std::path::PathBuf;

use url::Url;

use super::{EtcdSettings, FileSettings, Settings, StoreSettings, Tls};
use crate::control::access::{Role, Token};
use crate::files::token::read as read_token;
use crate::protocol::limits::{NAME_BYTES, PING_SECONDS};
use crate::settings::control_plane::{client_cert, key_of};
use crate::settings::keys::Keys;
use crate::settings::reader::{At, Reader, Section};
use crate::settings::value::{self, Parsed};
use crate::settings::yaml::Node;
use crate::settings::{ca, files};

/// All keys.
pub(super) static KEYS: Keys = Keys {
    top: || TOP.to_vec(),
    sections: SECTIONS,
};

pub(super) const TOP: &[&str] = &[
    "listen",
    "tls",
    "tokens",
    "store",
    "history",
    "history_bytes",
    "max_edges",
    "max_snapshots",
    "ping_seconds",
    "document_bytes",
    "id",
    "log_format",
];

pub(super) const SECTIONS: &[(&str, &[&str])] = &[
    ("tls", &["cert", "key", "client_ca"]),
    ("tokens[]", &["name", "token", "token_file", "roles"]),
    ("store", &["file", "etcd"]),
    ("store.file", &["path", "data_dir"]),
    (
        "store.etcd",
        &[
            "endpoints",
            "prefix",
            "username",
            "password_file",
            "ca_file",
            "client_cert",
            "client_key",
        ],
    ),
];

/// Reserved names, for changes that were not made with a token.
const NOT_NAMES: [&str; 3] = ["anonymous", "file", "store"];

/// Most tokens; a few are usual, one for each kind of client.
const MOST_TOKENS: usize = 1000;

/// Reads all keys into `settings`, which has the defaults.
pub(super) fn read<'a>(reader: &mut Reader<'a>, top: &Section<'a>, settings: &mut Settings) {
    let of = settings;
    reader.set(top, "listen", &mut of.listen, value::socket_address);
    of.tls = read_tls(reader, top);
    if let Some(at) = top.get("tokens") {
        of.tokens = read_tokens(reader, &at.clone());
    }
    of.store = read_store(reader, top);
    reader.set(top, "history", &mut of.history, value::count(1..=1_000_000));
    let bytes = value::bytes(1 << 20..=1 << 50);
    reader.set(top, "history_bytes", &mut of.history_bytes, bytes);
    let edges = value::count(1..=1_000_000);
    reader.set(top, "max_edges", &mut of.max_edges, edges);
    let snapshots = value::count(1..=1000);
    reader.set(top, "max_snapshots", &mut of.max_snapshots, snapshots);
    let seconds = value::count(PING_SECONDS);
    reader.set(top, "ping_seconds", &mut of.ping_seconds, seconds);
    let bytes = value::bytes(1 << 10..=64 << 30);
    reader.set(top, "document_bytes", &mut of.document_bytes, bytes);
    reader.set(top, "id", &mut of.id, name);
    reader.set(top, "log_format", &mut of.log_format, value::log_format);
}

/// Whether client certificates are required, even if the setting has an error.
pub(super) fn client_ca_is_given(top: &Section<'_>) -> bool {
    match top.get("tls").map(|at| at.node) {
        Some(Node::Map(entries)) => entries.iter().any(|(name, _)| name.value == "client_ca"),
        _ => false,
    }
}

fn path(node: &Node) -> Parsed<PathBuf> {
    value::path(node).map(PathBuf::from)
}

fn ca_file(node: &Node) -> Parsed<PathBuf> {
    let path = path(node)?;
    ca::check(&path)?;
    Ok(path)
}

/// An identifier.
fn name(node: &Node) -> Parsed<String> {
    match value::text("a name")(node)? {
        name if name.len() <= NAME_BYTES && name.bytes().all(|byte| byte.is_ascii_graphic()) => {
            Ok(name)
        }
        _ => Err(format!(
            "got {node}, want a name of at most {NAME_BYTES} bytes of visible ASCII without spaces"
        )),
    }
}

fn read_tls<'a>(reader: &mut Reader<'a>, top: &Section<'a>) -> Option<Tls> {
    let section = reader.section(top, "tls");
    let cert = reader.read(&section, "cert", client_cert);
    let key = reader.read(&section, "key", path);
    let client_ca = reader.read(&section, "client_ca", ca_file);
    for (name, other) in [("cert", "key"), ("key", "cert"), ("client_ca", "cert")] {
        if let (Some(at), None) = (section.get(name), section.get(other)) {
            let message = format!("want {other} as well: without both, nothing is encrypted");
            reader.problem(&at.clone(), message);
        }
    }
    let (cert, key) = (cert?, key?);
    if let Err(message) = key_of(&cert, &key, "cert") {
        reader.problem(section.get("key")?, message);
    }
    Some(Tls {
        cert,
        key,
        client_ca,
    })
}

fn read_tokens<'a>(reader: &mut Reader<'a>, at: &At<'a>) -> Vec<Token> {
    const WANT: &str = "a list of tokens, such as [{name: ops, token_file: FILE, roles: [write]}]";
    let items = reader.list(at, WANT).unwrap_or_default();
    if matches!(at.node, Node::List(items) if items.is_empty()) {
        // Not treated as no tokens, which would give every client every role.
        reader.problem(at, format!("got an empty list, want {WANT}"));
    }
    if items.len() > MOST_TOKENS {
        let message = format!("got {} tokens, want at most {MOST_TOKENS}", items.len());
        reader.problem(at, message);
        return Vec::new();
    }
    let mut tokens: Vec<Token> = Vec::new();
    for item in items {
        let Some(token) = read_one(reader, &item) else {
            continue;
        };
        let clash = match tokens.iter().find(|other| other.clashes_with(&token)) {
            Some(other) if other.name() == token.name() => "the name",
            Some(_) => "the secret",
            None => {
                tokens.push(token);
                continue;
            }
        };
        reader.problem(
            &item,
            format!("{clash} of another token (want a unique one)"),
        );
    }
    tokens
}

fn read_one<'a>(reader: &mut Reader<'a>, at: &At<'a>) -> Option<Token> {
    let section = reader.section_at(at, "tokens[]");
    let name = reader.read(&section, "name", token_name);
    let roles = match section.get("roles") {
        Some(at) => read_roles(reader, &at.clone()),
        None => None,
    };
    let secret = match (section.get("token"), section.get("token_file")) {
        (Some(_), None) => reader.read(&section, "token", token),
        (None, Some(_)) => reader.read(&section, "token_file", |node| read_token(&path(node)?)),
        (Some(at), Some(_)) => {
            reader.problem(
                &at.clone(),
                "want only one of token and token_file".to_owned(),
            );
            return None;
        }
        (None, None) => None,
    };
    let missing: Vec<&str> = [
        ("name", section.get("name").is_none()),
        (
            "token_file (or token)",
            section.get("token").is_none() && section.get("token_file").is_none(),
        ),
        ("roles", section.get("roles").is_none()),
    ]
    .into_iter()
    .filter_map(|(name, missing)| missing.then_some(name))
    .collect();
    // A wrong type has been reported already.
    if !missing.is_empty() && matches!(at.node, Node::Map(_) | Node::Null) {
        reader.problem(at, format!("want {} as well", missing.join(" and ")));
    }
    Some(Token::new(name?, &secret?, roles?))
}

fn token_name(node: &Node) -> Parsed<String> {
    let name = name(node)?;
    if NOT_NAMES.contains(&name.as_str()) {
        return Err(format!(
            "got {node}, want another name: changes that no token made are recorded under {}",
            NOT_NAMES.join(", ")
        ));
    }
    Ok(name)
}

/// A secret, which messages must not repeat.
fn token(node: &Node) -> Parsed<String> {
    match node {
        Node::Text(token) if !token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic()) => {
            Ok(token.clone())
        }
        _ => Err("not a token (want one word of visible ASCII)".to_owned()),
    }
}

fn read_roles<'a>(reader: &mut Reader<'a>, at: &At<'a>) -> Option<Vec<Role>> {
    const ROLES: &[(&str, Role)] = &[
        ("edge", Role::Edge),
        ("read", Role::Read),
        ("write", Role::Write),
    ];
    let items = reader.list(at, "a list of roles: edge, read, write")?;
    if items.is_empty() {
        let message = "got an empty list, want roles: edge, read, write".to_owned();
        reader.problem(at, message);
        return None;
    }
    let mut roles = Vec::new();
    for item in items {
        match value::choice(ROLES)(item.node) {
            Ok(role) => roles.push(role),
            Err(message) => reader.problem(&item, message),
        }
    }
    Some(roles)
}

fn read_store<'a>(reader: &mut Reader<'a>, top: &Section<'a>) -> StoreSettings {
    let section = reader.section(top, "store");
    if let (Some(_), Some(at)) = (section.get("file"), section.get("etcd")) {
        let message = "want only one of file and etcd".to_owned();
        reader.problem(&at.clone(), message);
    }
    match section.get("etcd") {
        Some(_) => StoreSettings::Etcd(read_etcd(reader, &section)),
        None => StoreSettings::File(read_file(reader, &section)),
    }
}

fn read_file<'a>(reader: &mut Reader<'a>, store: &Section<'a>) -> FileSettings {
    let section = reader.section(store, "file");
    let mut file = FileSettings::default();
    reader.set(&section, "path", &mut file.path, |node| {
        let path = path(node)?;
        files::parent_exists(&path)?;
        Ok(path)
    });
    file.data_dir = reader.read(&section, "data_dir", |node| {
        let path = path(node)?;
        files::parent_exists(&path)?;
        Ok(path)
    });
    file
}

fn read_etcd<'a>(reader: &mut Reader<'a>, store: &Section<'a>) -> EtcdSettings {
    let section = reader.section(store, "etcd");
    let mut etcd = EtcdSettings::default();
    match section.get("endpoints").cloned() {
        Some(at) => etcd.endpoints = read_endpoints(reader, &at),
        None => {
            if let Some(at) = store.get("etcd") {
                reader.problem(at, format!("want endpoints: {ENDPOINTS}"));
            }
        }
    }
    reader.set(&section, "prefix", &mut etcd.prefix, prefix);
    etcd.username = reader.read(&section, "username", value::text("a user name"));
    etcd.password_file = reader.read(&section, "password_file", |node| {
        let path = path(node)?;
        read_token(&path)?;
        Ok(path)
    });
    etcd.ca_file = reader.read(&section, "ca_file", ca_file);
    etcd.client_cert = reader.read(&section, "client_cert", client_cert);
    etcd.client_key = reader.read(&section, "client_key", path);
    for (name, other) in [
        ("username", "password_file"),
        ("password_file", "username"),
        ("client_cert", "client_key"),
        ("client_key", "client_cert"),
    ] {
        if let (Some(at), None) = (section.get(name), section.get(other)) {
            reader.problem(&at.clone(), format!("want {other} as well"));
        }
    }
    if let (Some(cert), Some(key), Some(at)) = (
        &etcd.client_cert,
        &etcd.client_key,
        section.get("client_key"),
    ) && let Err(message) = key_of(cert, key, "client_cert")
    {
        reader.problem(at, message);
    }
    etcd
}

const ENDPOINTS: &str = "a list of URLs, such as [http://127.0.0.1:2379]";

fn read_endpoints<'a>(reader: &mut Reader<'a>, at: &At<'a>) -> Vec<Url> {
    let items = reader.list(at, ENDPOINTS);
    if items.as_ref().is_some_and(Vec::is_empty) {
        reader.problem(at, format!("got an empty list, want {ENDPOINTS}"));
    }
    let mut endpoints = Vec::new();
    for item in items.unwrap_or_default() {
        match endpoint(item.node) {
            Ok(url) if endpoints.contains(&url) => {
                reader.problem(&item, format!("{} is here twice", item.node));
            }
            Ok(url) => endpoints.push(url),
            Err(message) => reader.problem(&item, message),
        }
    }
    endpoints
}

fn endpoint(node: &Node) -> Parsed<Url> {
    let url = match node {
        Node::Text(text) => Url::parse(text).ok(),
        _ => None,
    };
    url.filter(|url| {
        matches!(url.scheme(), "http" | "https")
            && url.has_host()
            && url.path() == "/"
            && url.query().is_none()
            && url.fragment().is_none()
            && url.username().is_empty()
            && url.password().is_none()
    })
    .ok_or_else(|| {
        "not the URL of an etcd member (want http:// or https:// with a host and a port, such as \
         http://127.0.0.1:2379)"
            .to_owned()
    })
}

fn prefix(node: &Node) -> Parsed<String> {
    match value::text("a prefix")(node)? {
        prefix if prefix.starts_with('/') && !prefix.ends_with('/') && prefix.len() <= 256 => {
            Ok(prefix)
        }
        _ => Err(format!(
            "got {node}, want a prefix of at most 256 bytes that begins with a slash and does not \
             end with one, such as /cellgate"
        )),
    }
}
