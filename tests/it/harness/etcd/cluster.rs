//! A cluster of real etcd processes that belongs to one test, or to the keeper of the shared one.

use std::fs::File;
use std::net::SocketAddr;
use std::ops::Deref;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use etcd_client::{Client, ConnectOptions};
use tempfile::TempDir;

use super::Etcd;
use crate::harness::{Authority, eventually, own_address, send_signal};

/// etcd members that a test may kill, pause, compact or set passwords in. Dropping it kills them; when a
/// test fails, the end of their logs is printed.
pub struct EtcdCluster {
    etcd: Etcd,
    members: Vec<EtcdMember>,
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
    /// Starts three members and waits until they have a leader.
    pub async fn start() -> EtcdCluster {
        EtcdCluster::start_with(3, None).await
    }

    /// Starts one member, for tests of what does not depend on the number of members.
    pub async fn start_one() -> EtcdCluster {
        EtcdCluster::start_with(1, None).await
    }

    /// Starts one member that accepts only clients with a certificate of `authority`, and shows one itself.
    pub async fn start_tls(authority: &Authority) -> EtcdCluster {
        EtcdCluster::start_with(1, Some(authority)).await
    }

    async fn start_with(size: usize, authority: Option<&Authority>) -> EtcdCluster {
        let directory = TempDir::with_prefix_in("cellgate-etcd-", fast_directory());
        let directory = directory.expect("a temporary directory");
        // Addresses of its own, so that a member comes back at the address it had.
        let member = |index: usize| EtcdMember {
            name: format!("m{index}"),
            clients: own_address(2379),
            plain: own_address(2378),
            peers: own_address(2380),
            child: None,
        };
        let members: Vec<EtcdMember> = (0..size).map(member).collect();
        let etcd = Etcd {
            clients: members.iter().map(|member| member.clients).collect(),
            plain: members.iter().map(|member| member.plain).collect(),
            tls: authority.is_some(),
            prefix: "/cellgate".to_owned(),
        };
        let mut cluster = EtcdCluster {
            etcd,
            members,
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
        for index in 0..size {
            cluster.spawn(index);
        }
        cluster.leader().await;
        cluster
    }

    /// A file in the cluster's directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The member that leads, once all that run agree on one that runs.
    pub async fn leader(&self) -> usize {
        let all: Vec<usize> = (0..self.members.len()).collect();
        self.leader_among(&all).await
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

    /// Stops a member (SIGSTOP): its connections stay open, and nothing comes over them.
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
        let scheme = self.etcd.scheme();
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
        if self.etcd.tls {
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

impl Deref for EtcdCluster {
    type Target = Etcd;

    fn deref(&self) -> &Etcd {
        &self.etcd
    }
}

/// Where etcd keeps its data: in memory where the system has a place for that, since every commit is synced
/// by every member. The tests kill processes, which loses no written page; none cuts the power.
fn fast_directory() -> PathBuf {
    let memory = Path::new("/dev/shm");
    match memory.is_dir() {
        true => memory.to_owned(),
        false => std::env::temp_dir(),
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
