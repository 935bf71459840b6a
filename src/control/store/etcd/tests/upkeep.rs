//! What is deleted, and what is not, while somebody is late. Over an etcd of one
//! member; whole clusters are in `tests/it/etcd_*.rs`.

use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use super::super::EtcdStore;
use super::super::blob::Written;
use super::super::keys::{BlobId, Kind};
use super::super::upkeep::Claim;
use super::super::value;
use super::*;
use crate::control::core::tests::{author, document, set};
use crate::control::core::{Edit, Expected, Truth};
use crate::control::store::Generation;

/// An etcd, which is killed when this is dropped.
struct Member {
    child: Child,
    settings: EtcdSettings,
    _directory: TempDir,
}

impl Member {
    async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        // An address of this machine that nobody else is likely to use.
        let part = || rand::random_range(1..=254_u8);
        let host = format!("127.{}.{}.{}", part(), part(), part());
        let (clients, peers) = (format!("http://{host}:2379"), format!("http://{host}:2380"));
        let mut command = Command::new("etcd");
        command
            .args(["--name", "m", "--logger", "zap", "--log-level", "error"])
            .args(["--listen-client-urls", &clients])
            .args(["--advertise-client-urls", &clients])
            .args(["--listen-peer-urls", &peers])
            .args(["--initial-advertise-peer-urls", &peers])
            .args(["--initial-cluster", &format!("m={peers}")])
            .arg("--data-dir")
            .arg(directory.path().join("data"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        // SAFETY: one system call, which may be made between fork and exec.
        unsafe {
            command.pre_exec(|| {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                Ok(())
            });
        }
        let child = command.spawn().unwrap_or_else(|error| {
            panic!("etcd cannot be started: {error}; `scripts/setup.sh --test` installs it")
        });
        let settings = EtcdSettings {
            endpoints: vec![Url::parse(&clients).unwrap()],
            ..settings()
        };
        let member = Self {
            child,
            settings,
            _directory: directory,
        };
        let store = member.store();
        let deadline = Instant::now() + Duration::from_secs(30);
        while let Err(error) = store.newest().await {
            assert!(Instant::now() < deadline, "{error}");
            sleep(Duration::from_millis(50)).await;
        }
        member
    }

    fn store(&self) -> EtcdStore {
        EtcdStore::new(&self.settings, 1000).unwrap()
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Makes so many generations, and gives the newest.
async fn generations(member: &Member, count: usize) -> Arc<Generation> {
    let truth = Truth::open(Arc::new(member.store())).await.unwrap();
    let first = Edit::Document(document("1", &[("acme", "one")]));
    let edits = (1..count).map(|number| set(&format!("key-{number}"), "two"));
    for edit in std::iter::once(first).chain(edits) {
        let made = truth.commit(edit, &Expected::Anything, author("test"));
        made.await.unwrap();
    }
    truth.newest().unwrap()
}

/// Writes a base of `generation`, and does not name it yet.
async fn write(store: &EtcdStore, generation: &Generation) -> (BlobId, Written) {
    let number = generation.record.generation;
    let id = BlobId::new(number, Kind::Base);
    let table = Arc::clone(&generation.table);
    let produce = move |out: &mut dyn std::io::Write| value::write_table(&table, number, out);
    let written = store.0.write_blob(&id, produce).await.unwrap();
    (id, written)
}

/// As when the claim of a process that was held up for a minute has run out.
async fn lose(store: &EtcdStore, claim: &Claim) {
    let lease = claim.lease;
    let revoked = store
        .0
        .members
        .ask(|client| async move { client.lease_client().revoke(lease).await });
    revoked.await.unwrap();
}

#[tokio::test]
async fn what_is_named_between_the_look_and_the_deletion_stays() {
    let member = Member::start().await;
    let newest = generations(&member, 3).await;
    let store = member.store();
    let (id, blob) = write(&store, &newest).await;
    let claim = store.0.claim().await.unwrap().expect("a claim");
    let delete = store.0.unnamed(&claim, &id).await.unwrap();
    let delete = delete.expect("nothing names it");
    let named = store.0.name_base(&claim, newest.record.clone(), &blob);
    assert!(named.await.unwrap());
    assert!(!store.0.try_txn(delete).await.unwrap());
    assert!(store.0.unnamed(&claim, &id).await.unwrap().is_none());
    let read = store.newest().await.unwrap().unwrap();
    assert_eq!(read.table.digest(), newest.table.digest());
    let base = store.0.last_base(u64::MAX - 1).await.unwrap().unwrap();
    assert_eq!(base.record.generation, 3);
}

/// Also when a late request puts the first piece there again.
#[tokio::test]
async fn what_was_deleted_is_not_named() {
    let member = Member::start().await;
    let newest = generations(&member, 3).await;
    let store = member.store();
    for late in [false, true] {
        let claim = store.0.claim().await.unwrap().expect("a claim");
        let (id, blob) = write(&store, &newest).await;
        let delete = store.0.unnamed(&claim, &id).await.unwrap();
        assert!(store.0.try_txn(delete.expect("it")).await.unwrap());
        if late {
            let piece = store.0.keys.piece(&id.text, 0);
            let put = store.0.members.ask(|client| {
                let piece = piece.clone();
                async move { client.kv_client().put(piece, "late", None).await }
            });
            put.await.unwrap();
        }
        let named = store.0.name_base(&claim, newest.record.clone(), &blob);
        assert!(!named.await.unwrap(), "{late}");
        lose(&store, &claim).await;
    }
    let read = store.newest().await.unwrap().unwrap();
    assert_eq!(read.table.digest(), newest.table.digest());
}

#[tokio::test]
async fn whoever_has_lost_the_claim_does_nothing() {
    let member = Member::start().await;
    let newest = generations(&member, 3).await;
    let (store, other) = (member.store(), member.store());
    let (id, blob) = write(&store, &newest).await;
    let claim = store.0.claim().await.unwrap().expect("a claim");
    assert!(other.0.claim().await.unwrap().is_none());
    let delete = store.0.unnamed(&claim, &id).await.unwrap();
    lose(&store, &claim).await;
    let theirs = other.0.claim().await.unwrap().expect("a claim");

    assert!(!store.0.try_txn(delete.expect("it")).await.unwrap());
    let named = store.0.name_base(&claim, newest.record.clone(), &blob);
    assert!(!named.await.unwrap());
    // It is all there for whoever has it.
    let named = other.0.name_base(&theirs, newest.record.clone(), &blob);
    assert!(named.await.unwrap());
    let base = store.0.last_base(u64::MAX - 1).await.unwrap().unwrap();
    store.0.delete_below(&claim, &base).await.unwrap();
    assert_eq!(store.records(None, 10).await.unwrap().len(), 3);
    other.0.delete_below(&theirs, &base).await.unwrap();
    assert_eq!(store.records(None, 10).await.unwrap().len(), 1);
}

/// The base before it, and what followed on that, lead to the same.
#[tokio::test]
async fn a_base_whose_table_is_gone_is_passed_over() {
    let member = Member::start().await;
    let newest = generations(&member, 3).await;
    let store = member.store();
    let claim = store.0.claim().await.unwrap().expect("a claim");
    let (id, blob) = write(&store, &newest).await;
    let named = store.0.name_base(&claim, newest.record.clone(), &blob);
    assert!(named.await.unwrap());
    store.0.delete_blob(&id.text).await;
    let read = store.newest().await.unwrap().unwrap();
    assert_eq!(read.record.mark(), newest.record.mark());
    assert_eq!(read.table.digest(), newest.table.digest());
    // Nor is anything deleted that it would take to do without it.
    let base = store.0.last_base(u64::MAX - 1).await.unwrap().unwrap();
    store.0.delete_below(&claim, &base).await.unwrap();
    assert_eq!(store.records(None, 10).await.unwrap().len(), 3);
}
