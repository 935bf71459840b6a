//! A real etcd cluster of three members on this machine.

use std::fs::File;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use cellgate::control::settings::EtcdSettings;
use etcd_client::{Client, ConnectOptions, GetOptions};
use tempfile::TempDir;
use url::Url;

use super::{Authority, eventually, own_address, send_signal};

/// Three members that make up a cluster, which starts anew with each test. Dropping it kills them; when a
/// test fails, the end of their logs is printed.
pub struct EtcdCluster {
    members: Vec<EtcdMember>,
    /// Whether stores are to use TLS. Clients of [`EtcdCluster::client`] do not.
    tls: bool,
    directory: TempDir,
}

struct EtcdMember {
    name: String,
    clients: SocketAddr,
    plain: SocketAddr,
    peers: SocketAddr,
    child: Option<Child>,
}

impl EtcdCluster {
    /// Starts it and waits until it has a leader.
    pub async fn start() -> EtcdCluster {
        EtcdCluster::start_with(None).await
    }

    /// The same with TLS, with certificates from `authority`, and for those only who have one from it.
    pub async fn start_tls(authority: &Authority) -> EtcdCluster {
        EtcdCluster::start_with(Some(authority)).await
    }

    async fn start_with(authority: Option<&Authority>) -> EtcdCluster {
        let directory = TempDir::with_prefix("cellgate-etcd-").expect("a temporary directory");
        // Of its own, so that it is there again after a restart.
        let member = |index: usize| EtcdMember {
            name: format!("m{index}"),
            clients: own_address(2379),
            plain: own_address(2378),
            peers: own_address(2380),
            child: None,
        };
        let mut cluster = EtcdCluster {
            members: (0..3).map(member).collect(),
            tls: authority.is_some(),
            directory,
        };
        if let Some(authority) = authority {
            authority.write(&cluster.path("ca.pem"));
            for EtcdMember { name, clients, .. } in &cluster.members {
                let identity = authority.issue(&clients.ip().to_string());
                let (cert, key) = (format!("{name}.pem"), format!("{name}.key"));
                identity.write(&cluster.path(&cert), &cluster.path(&key));
            }
        }
        for index in 0..3 {
            cluster.spawn(index);
        }
        cluster.leader().await;
        cluster
    }

    /// A file in the cluster's directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// How a store is to reach it.
    pub fn settings(&self) -> EtcdSettings {
        let url = |member: &EtcdMember| {
            let scheme = if self.tls { "https" } else { "http" };
            Url::parse(&format!("{scheme}://{}", member.clients)).expect("a URL")
        };
        EtcdSettings {
            endpoints: self.members.iter().map(url).collect(),
            ..EtcdSettings::default()
        }
    }

    /// A client to look into it with.
    pub async fn client(&self) -> Client {
        self.client_with(ConnectOptions::new()).await
    }

    pub async fn client_with(&self, options: ConnectOptions) -> Client {
        let urls = self.members.iter().map(|member| member.plain);
        let urls: Vec<String> = urls.map(|address| format!("http://{address}")).collect();
        let client = Client::connect(urls, Some(options)).await;
        client.expect("a client of etcd")
    }

    /// Keys below the prefix `/cellgate/`, without it, that start with this.
    pub async fn keys(&self, prefix: &str) -> Vec<String> {
        let options = GetOptions::new().with_prefix().with_keys_only();
        let mut client = self.client().await;
        let found = client
            .get(format!("/cellgate/{prefix}"), Some(options))
            .await
            .expect("keys");
        let key = |key: &[u8]| String::from_utf8_lossy(key)["/cellgate/".len()..].to_owned();
        found.kvs().iter().map(|found| key(found.key())).collect()
    }

    /// The member that leads, once all that run agree on one that runs.
    pub async fn leader(&self) -> usize {
        self.leader_among(&[0, 1, 2]).await
    }

    /// The member that leads, once all of these that run agree on one of them.
    pub async fn leader_among(&self, members: &[usize]) -> usize {
        eventually("a leader", async || {
            let mut agreed = None;
            for &index in members {
                let member = &self.members[index];
                if member.child.is_none() {
                    continue;
                }
                let status = async {
                    let options = ConnectOptions::new().with_timeout(Duration::from_millis(500));
                    let url = format!("http://{}", member.plain);
                    let mut client = Client::connect([url], Some(options)).await.ok()?;
                    client.status().await.ok()
                };
                let status = status.await?;
                if status.leader() == 0
                    || agreed.is_some_and(|(leader, _)| leader != status.leader())
                {
                    return None;
                }
                let own = status.header().map(|header| header.member_id());
                let mine = (own == Some(status.leader())).then_some(index);
                let seen = agreed.and_then(|(_, at)| at);
                agreed = Some((status.leader(), mine.or(seen)));
            }
            agreed.and_then(|(_, at)| at)
        })
        .await
    }

    /// Kills a member at once (SIGKILL).
    pub fn kill(&mut self, index: usize) {
        if let Some(mut child) = self.members[index].child.take() {
            child.kill().expect("kill etcd");
            child.wait().expect("wait for etcd");
        }
    }

    /// Starts a member that was killed.
    pub fn restart(&mut self, index: usize) {
        assert!(self.members[index].child.is_none(), "m{index} runs");
        self.spawn(index);
    }

    /// Stops a member in its tracks (SIGSTOP): its connections are there, and nothing comes over them.
    pub fn pause(&self, index: usize) {
        send_signal(self.pid(index), libc::SIGSTOP);
    }

    pub fn resume(&self, index: usize) {
        send_signal(self.pid(index), libc::SIGCONT);
    }

    fn pid(&self, index: usize) -> u32 {
        let child = self.members[index].child.as_ref();
        child.expect("a member that runs").id()
    }

    fn spawn(&mut self, index: usize) {
        let peers = self
            .members
            .iter()
            .map(|member| format!("{}=http://{}", member.name, member.peers));
        let peers = peers.collect::<Vec<_>>().join(",");
        let member = &self.members[index];
        let log = self.log(index);
        let log = File::options().create(true).append(true).open(log);
        let log = log.expect("a file for the log of etcd");
        let scheme = if self.tls { "https" } else { "http" };
        let clients = format!("{scheme}://{},http://{}", member.clients, member.plain);
        let mut command = Command::new("etcd");
        command
            .args([
                "--name",
                &member.name,
                "--logger",
                "zap",
                "--log-level",
                "warn",
            ])
            .arg("--data-dir")
            .arg(self.directory.path().join(&member.name))
            .args([
                "--listen-client-urls",
                &clients,
                "--advertise-client-urls",
                &clients,
            ])
            .args(["--listen-peer-urls", &format!("http://{}", member.peers)])
            .args([
                "--initial-advertise-peer-urls",
                &format!("http://{}", member.peers),
            ])
            .args(["--initial-cluster", &peers])
            .args([
                "--initial-cluster-token",
                &self.directory.path().to_string_lossy(),
            ])
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the log"))
            .stderr(log);
        if self.tls {
            let file = |ending: &str| self.path(&format!("{}.{ending}", member.name));
            command.arg("--cert-file").arg(file("pem"));
            command.arg("--key-file").arg(file("key"));
            command.arg("--client-cert-auth");
            command.arg("--trusted-ca-file").arg(self.path("ca.pem"));
        }
        // SAFETY: one system call, which may be made between fork and exec.
        unsafe {
            command.pre_exec(|| {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                Ok(())
            });
        }
        let child = command.spawn().unwrap_or_else(|error| {
            panic!(
                "etcd cannot be started: {error}; `scripts/setup.sh --test` installs it \
                 (on Debian: apt-get install etcd-server)"
            )
        });
        self.members[index].child = Some(child);
    }

    fn log(&self, index: usize) -> PathBuf {
        self.path(&format!("m{index}.log"))
    }
}

impl Drop for EtcdCluster {
    fn drop(&mut self) {
        for index in 0..self.members.len() {
            self.kill(index);
            if std::thread::panicking() {
                let log = std::fs::read_to_string(self.log(index)).unwrap_or_default();
                let lines: Vec<&str> = log.lines().rev().take(15).collect();
                eprintln!("--- etcd m{index}");
                lines.iter().rev().for_each(|line| eprintln!("{line}"));
            }
        }
    }
}
