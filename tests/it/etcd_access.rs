//! The store in etcd with passwords, and with TLS.

use cellgate::control::core::Edit;
use cellgate::control::settings::EtcdSettings;
use cellgate::control::store::Store;
use cellgate::control::store::etcd::EtcdStore;
use etcd_client::{ConnectOptions, Permission, PermissionType};

use crate::etcd_store::{commit, document, set, store, truth, truth_with};
use crate::harness::{Authority, EtcdCluster, within};

async fn refusal(settings: &EtcdSettings) -> String {
    let store = store(settings);
    let error = within("an error", store.newest()).await;
    error.expect_err("a refusal").0
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_and_a_password_that_changes() {
    let cluster = EtcdCluster::start_one().await;
    let mut admin = cluster.client().await;
    admin
        .user_add("root", "root-secret", None)
        .await
        .expect("root");
    admin.user_grant_role("root", "root").await.expect("root");
    admin.role_add("cellgate").await.expect("a role");
    let mut may = Permission::new(PermissionType::Readwrite, "/cellgate/");
    may = may.with_prefix();
    admin
        .role_grant_permission("cellgate", may)
        .await
        .expect("a permission");
    admin
        .user_add("cellgate", "first", None)
        .await
        .expect("a user");
    admin
        .user_grant_role("cellgate", "cellgate")
        .await
        .expect("a role");
    admin.auth_enable().await.expect("authentication");

    let mut settings = cluster.settings();
    let error = refusal(&settings).await;
    assert!(error.contains("user name is empty"), "{error}");
    let password = cluster.path("password");
    std::fs::write(&password, "wrong\n").expect("a password");
    settings.username = Some("cellgate".to_owned());
    settings.password_file = Some(password.clone());
    let error = refusal(&settings).await;
    assert!(error.contains("authentication failed"), "{error}");

    std::fs::write(&password, "first\n").expect("a password");
    let one = truth_with(&settings, 10).await;
    commit(&one, Edit::Document(document(1).into())).await;
    // Enough changes for bases, leases and deletes.
    for change in 0..40 {
        commit(&one, set(&[&format!("key-{change}")], "two")).await;
    }

    // A new password invalidates the old login; the store reads the file again.
    let options = ConnectOptions::new().with_user("root", "root-secret");
    let mut admin = cluster.client_with(options).await;
    admin
        .user_change_password("cellgate", "second")
        .await
        .expect("a password");
    std::fs::write(&password, "second\n").expect("a password");
    commit(&one, set(&["acme"], "two")).await;

    settings.prefix = "/other".to_owned();
    let error = refusal(&settings).await;
    assert!(error.contains("permission denied"), "{error}");
    std::fs::remove_file(&password).expect("no password");
    let error = EtcdStore::new(&settings, 10).err().expect("a refusal").0;
    assert!(
        error.starts_with("etcd: password_file: cannot read "),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_both_ways() {
    let authority = Authority::new("etcd test CA");
    let cluster = EtcdCluster::start_tls(&authority).await;
    let identity = authority.issue("cellgate");
    let (cert, key) = (cluster.path("client.pem"), cluster.path("client.key"));
    identity.write(&cert, &key);
    let mut settings = cluster.settings();
    settings.ca_file = Some(cluster.path("ca.pem"));
    settings.client_cert = Some(cert);
    settings.client_key = Some(key);
    let one = truth(&settings).await;
    commit(&one, Edit::Document(document(1).into())).await;
    commit(&one, set(&["acme"], "two")).await;
    let newest = store(&settings).newest().await.expect("it").expect("it");
    assert_eq!(newest.record.generation, 2);

    // The store trusts another authority than the cluster's.
    let other = Authority::new("another CA");
    other.write(&cluster.path("other.pem"));
    let mut wrong = settings.clone();
    wrong.ca_file = Some(cluster.path("other.pem"));
    let error = refusal(&wrong).await;
    assert!(error.to_lowercase().contains("certificate"), "{error}");
    // With `ca_file`, the system's trusted certificates do not count.
    let mut control = crate::harness::ControlProcess::builder().set(
        "store",
        serde_json::json!({"etcd": {
            "endpoints": settings.endpoints.iter().map(|url| url.as_str()).collect::<Vec<_>>(),
            "ca_file": cluster.path("other.pem"),
            "client_cert": settings.client_cert.clone(),
            "client_key": settings.client_key.clone(),
        }}),
    );
    control = control.env("SSL_CERT_FILE", cluster.path("ca.pem").to_string_lossy());
    let ended = control.run().await;
    assert!(!ended.status.success(), "{ended:?}");
    let said = ended.log.to_lowercase();
    assert!(said.contains("certificate"), "{ended:?}");
    // The certificate is for another address.
    let mut wrong = settings.clone();
    for url in &mut wrong.endpoints {
        let port = url.port().expect("a port");
        let other = crate::harness::own_address(port);
        // Every address of 127.0.0.0/8 is this machine, but etcd listens on only one of them, so a relay
        // forwards to it.
        let to = url.socket_addrs(|| None).expect("an address")[0];
        relay(other, to).await;
        url.set_ip_host(other.ip()).expect("a host");
    }
    let error = refusal(&wrong).await;
    assert!(error.to_lowercase().contains("certificate"), "{error}");
    // No client certificate.
    let mut wrong = settings.clone();
    (wrong.client_cert, wrong.client_key) = (None, None);
    refusal(&wrong).await;
    // A key that does not belong to the certificate.
    let (cert, key) = (cluster.path("spare.pem"), cluster.path("spare.key"));
    authority.issue("spare").write(&cert, &key);
    let mut wrong = settings.clone();
    wrong.client_key = Some(key);
    let error = EtcdStore::new(&wrong, 10).err().expect("a refusal").0;
    assert!(
        error.starts_with("etcd: client_key: cannot use "),
        "{error}"
    );
    commit(&one, set(&["visa"], "two")).await;
}

/// Forwards connections from one address to another.
async fn relay(from: std::net::SocketAddr, to: std::net::SocketAddr) {
    let listener = tokio::net::TcpListener::bind(from).await.expect("a relay");
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut far = tokio::net::TcpStream::connect(to).await?;
                tokio::io::copy_bidirectional(&mut near, &mut far).await
            });
        }
    });
}
