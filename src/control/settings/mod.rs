//! The control plane's settings: `conf/control.yaml` and the environment, read at start. Tokens and
//! certificates are read again at SIGHUP.
//!
//! `read` has the keys and their values; the YAML reader is that of `crate::settings`.
//! `docs/control-plane.md` is the reference for operators.

mod read;

#[cfg(test)]
mod tests;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use url::Url;

use crate::control::access::Token;
use crate::settings::control_plane::host_name;
use crate::settings::load::read_file;
use crate::settings::reader::{At, Reader};
use crate::settings::{LogFormat, SettingsProblem, yaml};

/// The validated settings, with defaults filled in.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The address for edges and API clients. Port 0: a free port.
    pub listen: SocketAddr,
    /// None: plain HTTP.
    pub tls: Option<Tls>,
    /// Empty: every client has every role.
    pub tokens: Vec<Token>,
    pub store: StoreSettings,
    /// How many generations are kept, at least 1. A store may keep a few more.
    pub history: u64,
    /// How many bytes they may take in the file store.
    pub history_bytes: u64,
    /// Most connected edges.
    pub max_edges: usize,
    /// Most snapshots that are sent at a time.
    pub max_snapshots: usize,
    /// The interval between pings to an edge, in seconds.
    pub ping_seconds: u64,
    /// The largest routing document that is accepted, in bytes.
    pub document_bytes: u64,
    /// The name of this control plane: 1 to 128 bytes of printable ASCII without spaces.
    pub id: String,
    /// The format of the log on stderr.
    pub log_format: LogFormat,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8081)),
            tls: None,
            tokens: Vec::new(),
            store: StoreSettings::default(),
            history: 1000,
            history_bytes: 8 << 30,
            max_edges: 10_000,
            max_snapshots: 8,
            ping_seconds: 15,
            document_bytes: 1 << 30,
            id: host_name(),
            log_format: LogFormat::default(),
        }
    }
}

/// The PEM files of the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    pub cert: PathBuf,
    /// The key of `cert`.
    pub key: PathBuf,
    /// If set, every client must present a certificate signed by one in this file.
    pub client_ca: Option<PathBuf>,
}

/// Where generations are kept.
#[derive(Clone, Debug, PartialEq)]
pub enum StoreSettings {
    File(FileSettings),
    Etcd(EtcdSettings),
}

impl Default for StoreSettings {
    fn default() -> StoreSettings {
        StoreSettings::File(FileSettings::default())
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileSettings {
    /// The routing file, for operators to read and edit.
    pub path: PathBuf,
    /// None: `path` with `.d` appended.
    pub data_dir: Option<PathBuf>,
}

impl Default for FileSettings {
    fn default() -> FileSettings {
        FileSettings {
            path: PathBuf::from("config/routing.json"),
            data_dir: None,
        }
    }
}

impl FileSettings {
    /// The directory of the store: `data_dir`, or `path` with `.d` appended.
    pub fn directory(&self) -> PathBuf {
        match &self.data_dir {
            Some(directory) => directory.clone(),
            None => beside(&self.path),
        }
    }
}

fn beside(path: &Path) -> PathBuf {
    let mut directory = path.as_os_str().to_owned();
    directory.push(".d");
    directory.into()
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EtcdSettings {
    /// Never empty; each is `http://` or `https://` with a host and an optional port.
    pub endpoints: Vec<Url>,
    /// The prefix of all keys. Begins with a slash and does not end with one.
    pub prefix: String,
    /// Set together with `password_file`.
    pub username: Option<String>,
    pub password_file: Option<PathBuf>,
    /// PEM certificates to verify etcd against; none: those of the system.
    pub ca_file: Option<PathBuf>,
    /// PEM client certificate for etcd, set together with its key.
    pub client_cert: Option<PathBuf>,
    pub client_key: Option<PathBuf>,
}

impl Default for EtcdSettings {
    fn default() -> EtcdSettings {
        EtcdSettings {
            endpoints: Vec::new(),
            prefix: "/cellgate".to_owned(),
            username: None,
            password_file: None,
            ca_file: None,
            client_cert: None,
            client_key: None,
        }
    }
}

/// Read if no other file is given, and if it exists.
pub const DEFAULT_FILE: &str = "conf/control.yaml";

/// Looks up an environment variable.
type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

impl Settings {
    /// Reads the settings from `path`; without one, from [`DEFAULT_FILE`] if it exists, otherwise the
    /// defaults. The environment variables `CONFIG_PATH` (the routing file of the file store) and
    /// `PORT` override the file; an empty variable counts as unset. `insecure` permits an address
    /// beyond loopback without tokens.
    ///
    /// # Errors
    /// All problems; never empty.
    pub fn load(
        path: Option<&Path>,
        env: Env<'_>,
        insecure: bool,
    ) -> Result<Settings, Vec<SettingsProblem>> {
        let default = Path::new(DEFAULT_FILE);
        let (path, text) = match path {
            Some(path) => (Some(path), read_file(path)),
            None => match read_file(default) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => (None, Ok(String::new())),
                other => (Some(default), other),
            },
        };
        match text {
            Ok(text) => Settings::parse(path, &text, env, insecure),
            Err(error) => Err(vec![SettingsProblem {
                file: path.map(Path::to_owned),
                position: None,
                key: String::new(),
                message: format!("cannot read the settings: {error}"),
            }]),
        }
    }

    /// As [`Settings::load`], for a text that has been read. `file` is used for messages only.
    pub(super) fn parse(
        file: Option<&Path>,
        text: &str,
        env: Env<'_>,
        insecure: bool,
    ) -> Result<Settings, Vec<SettingsProblem>> {
        let root = yaml::parse(text).map_err(|error| {
            vec![SettingsProblem {
                file: file.map(Path::to_owned),
                position: error.position,
                key: String::new(),
                message: format!("not YAML: {}", error.message),
            }]
        })?;
        let mut reader = Reader::new(file, &read::KEYS);
        let top = reader.section_at(&At::root(&root), "");
        let mut settings = Settings::default();
        read::read(&mut reader, &top, &mut settings);

        let env = |name| env(name).filter(|value| !value.is_empty());
        if let (Some(path), StoreSettings::File(file)) = (env("CONFIG_PATH"), &mut settings.store) {
            file.path = path.into();
        }
        let port = env("PORT");
        if let Some(port) = &port {
            match port.trim().parse() {
                Ok(port) => settings.listen.set_port(port),
                Err(_) => reader.problem_elsewhere(
                    "PORT",
                    format!("got {port:?}, want a port from 0 to 65535"),
                ),
            }
        }
        let guarded = top.get("tokens").is_some() || read::client_ca_is_given(&top);
        if !guarded && !insecure && !settings.listen.ip().is_loopback() {
            let message = format!(
                "got {}, want a loopback address such as 127.0.0.1:8081, or else tokens (or \
                 tls.client_ca): anyone who can connect could send tenants where they like; \
                 --insecure listens there all the same",
                settings.listen
            );
            match top.get("listen") {
                Some(at) => reader.problem(at, message),
                None => reader.problem_elsewhere("listen", message),
            }
        }
        match reader.into_problems() {
            problems if problems.is_empty() => Ok(settings),
            problems => Err(problems),
        }
    }
}
