//! Real etcd: one cluster that all tests of a run share, and clusters of a test's own.

mod cluster;
mod shared;

use std::net::SocketAddr;

use cellgate::control::settings::EtcdSettings;
use etcd_client::{Client, ConnectOptions, GetOptions};
use url::Url;

pub use cluster::EtcdCluster;

/// An etcd cluster as its clients see it, and the prefix below which a test keeps its keys.
#[derive(Clone)]
pub struct Etcd {
    clients: Vec<SocketAddr>,
    /// The same members without TLS.
    plain: Vec<SocketAddr>,
    /// Whether stores are to use TLS. Clients of [`Etcd::client`] do not.
    tls: bool,
    prefix: String,
}

impl Etcd {
    /// The cluster of three members that all tests of this run share, with a prefix that no other test uses.
    /// For tests that neither disturb the members nor change what is not below the prefix.
    pub async fn shared() -> Etcd {
        let mut etcd = shared::cluster().await;
        etcd.prefix = format!("/test-{:032x}", rand::random::<u128>());
        etcd
    }

    /// How a store is to reach it.
    pub fn settings(&self) -> EtcdSettings {
        let url = |address: &SocketAddr| {
            let url = Url::parse(&format!("{}://{address}", self.scheme()));
            url.expect("a URL")
        };
        EtcdSettings {
            endpoints: self.clients.iter().map(url).collect(),
            prefix: self.prefix.clone(),
            ..EtcdSettings::default()
        }
    }

    fn scheme(&self) -> &'static str {
        if self.tls { "https" } else { "http" }
    }

    /// A client to look into it with.
    pub async fn client(&self) -> Client {
        self.client_with(ConnectOptions::new()).await
    }

    pub async fn client_with(&self, options: ConnectOptions) -> Client {
        let urls = self.plain.iter().map(|address| format!("http://{address}"));
        let client = Client::connect(urls.collect::<Vec<_>>(), Some(options)).await;
        client.expect("a client of etcd")
    }

    /// The full key of `name`, which is below the prefix.
    pub fn key(&self, name: &str) -> String {
        format!("{}/{name}", self.prefix)
    }

    /// Names below the prefix that start with `start`.
    pub async fn keys(&self, start: &str) -> Vec<String> {
        let options = GetOptions::new().with_prefix().with_keys_only();
        let mut client = self.client().await;
        let found = client.get(self.key(start), Some(options)).await;
        let root = self.key("").len();
        let name = |key: &[u8]| String::from_utf8_lossy(key)[root..].to_owned();
        let found = found.expect("keys");
        found.kvs().iter().map(|found| name(found.key())).collect()
    }
}
