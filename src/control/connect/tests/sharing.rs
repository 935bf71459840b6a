//! What is made once for many.

use super::{Setup, Site};
use crate::control::connect::Limits;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delta_is_made_once_for_all_edges() {
    let site = Site::with(Setup::default(), 3).await;
    let mut edges = Vec::new();
    for index in 0..30 {
        edges.push(site.synced(&format!("edge-{index}")).await);
    }
    for (made, placement) in [(1.0, "two"), (2.0, "one")] {
        site.set("key-0", placement).await;
        for edge in &mut edges {
            let delta = edge.delta().await;
            assert_eq!(delta.mark(), site.mark());
            edge.ack(delta.mark()).await;
        }
        assert_eq!(site.metric("cellgate_control_deltas_encoded_total"), made);
    }
    site.until("all acks", |site| site.edges.counts().in_sync == 30)
        .await;
    assert_eq!(site.metric("cellgate_control_push_seconds_count"), 60.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_small_table_is_made_into_chunks_once_for_a_herd() {
    let limits = Limits {
        max_snapshots: 2,
        ..Limits::default()
    };
    let setup = Setup {
        limits,
        ..Setup::default()
    };
    let site = Site::with(setup, 1000).await;
    let mut herd = tokio::task::JoinSet::new();
    let mut clients = Vec::new();
    for index in 0..20 {
        clients.push(site.edge(&format!("edge-{index}"), None).await.0);
    }
    for mut client in clients {
        herd.spawn(async move { client.snapshot().await.1.key_count() });
    }
    while let Some(keys) = herd.join_next().await {
        assert_eq!(keys.unwrap(), 1000);
    }
    // A head and the keys. Two that begin at once may each begin one of their own.
    let made = site.metric("cellgate_control_chunks_encoded_total");
    assert!(made <= 4.0, "{made} chunks");
}
