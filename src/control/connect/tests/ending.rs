//! The end of a control plane.

use super::{Setup, Site};
use crate::protocol::SUBPROTOCOL;

#[tokio::test]
async fn all_are_sent_away_and_nobody_is_let_in() {
    let site = Site::with(Setup::default(), 3).await;
    let mut edges = Vec::new();
    for index in 0..20 {
        edges.push(site.synced(&format!("edge-{index}")).await);
    }
    edges.push(site.request(None, None).await.unwrap());
    edges.last_mut().unwrap().next().await;
    assert_eq!(site.edges.connected(), 21);
    site.ending.send_replace(true);
    for edge in &mut edges {
        let (code, why) = edge.closed().await;
        assert_eq!((code, &*why), (1001, "this control plane shuts down"));
    }
    super::within("all are gone", site.edges.none_left()).await;
    let response = site.request(Some(SUBPROTOCOL), None).await.err().unwrap();
    assert_eq!(response.status(), 503);
}
