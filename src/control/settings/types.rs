//! The settings as the rest of the control plane reads them: validated, typed,
//! defaulted. What an operator reads is `docs/configuration.md`.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use url::Url;

use crate::control::access::Token;
use crate::settings::LogFormat;
use crate::settings::control_plane::host_name;

/// Everything that is decided before the control plane serves.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Where edges and operators connect. Port 0 asks the system for a free port.
    pub listen: SocketAddr,
    /// None: plain HTTP.
    pub tls: Option<Tls>,
    /// Empty: whoever can connect may do everything.
    pub tokens: Vec<Token>,
    pub store: StoreSettings,
    /// How many generations are kept for looking back, 1 or more. A store keeps a
    /// few more than that at times.
    pub history: u64,
    /// How many bytes they may take in the file store.
    pub history_bytes: u64,
    /// Edges that may be connected at a time.
    pub max_edges: usize,
    /// Snapshots that may be under way at a time.
    pub max_snapshots: usize,
    /// Seconds between two pings to an edge.
    pub ping_seconds: u64,
    /// The largest routing document that is taken, in bytes.
    pub document_bytes: u64,
    /// What edges and operators call this control plane: visible ASCII without
    /// spaces, never empty, at most 128 bytes.
    pub id: String,
    /// How the process's own log (stderr) is written.
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

/// PEM files that belong together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    pub cert: PathBuf,
    /// Of the certificate.
    pub key: PathBuf,
    /// Every client has to show a certificate that one in this file signed.
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
    /// The routing document, for people to read and to edit.
    pub path: PathBuf,
    /// None: beside `path`.
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
    /// Where the generations are: `data_dir`, or `path` with `.d` after it.
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
    /// `http://` or `https://` with a host and perhaps a port; never empty.
    pub endpoints: Vec<Url>,
    /// In front of every key there. Begins with a slash and does not end with one.
    pub prefix: String,
    /// With a password, or not at all.
    pub username: Option<String>,
    pub password_file: Option<PathBuf>,
    /// PEM certificates that etcd is verified against; none: the system's.
    pub ca_file: Option<PathBuf>,
    /// PEM certificate that is shown to etcd, with its key or not at all.
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
