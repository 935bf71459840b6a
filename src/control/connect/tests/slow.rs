//! Edges that are slow, silent or dead.

use std::time::Duration;

use futures_util::StreamExt;
use tokio_tungstenite::tungstenite::Message;

use super::{Client, Said, Setup, Site, within};
use crate::control::connect::{Limits, Times};

fn hasty() -> Setup {
    Setup {
        limits: Limits {
            ping: Duration::from_millis(100),
            ..Limits::default()
        },
        ..Setup::default()
    }
}

#[tokio::test]
async fn edges_are_pinged_and_stay_while_they_answer() {
    let site = Site::with(hasty(), 3).await;
    let mut edge = site.synced("edge-1").await;
    for _ in 0..10 {
        let message = within("a ping", edge.socket.next()).await;
        assert!(matches!(message, Some(Ok(Message::Ping(_)))), "{message:?}");
    }
    assert_eq!(site.edges.connected(), 1);
}

#[tokio::test]
async fn an_edge_that_says_nothing_is_dead() {
    let site = Site::with(hasty(), 3).await;
    let edge = site.synced("edge-1").await;
    site.until("it is dropped", |site| site.edges.connected() == 0)
        .await;
    let view = site.edges.get("edge-1").unwrap();
    assert_eq!((view.connected, view.in_sync), (false, true));
    assert_eq!(view.why.as_deref(), Some("nothing was received for 0 s"));
    drop(edge);
}

/// One that keeps talking and does not read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edge_that_does_not_read_is_dropped_and_holds_nobody_up() {
    let setup = Setup {
        times: Times {
            write: Duration::from_secs(2),
            min_rate: 1 << 20,
            ..Times::default()
        },
        ..Setup::default()
    };
    let site = Site::large(setup, 12).await;
    let mut deaf = Client::narrow(&site).await;
    deaf.hello("deaf", None).await;
    let mut others = Vec::new();
    for index in 0..5 {
        others.push(site.synced(&format!("edge-{index}")).await);
    }
    for (round, placement) in ["two", "one", "two"].into_iter().enumerate() {
        deaf.raw(Message::Ping(vec![0; 100].into())).await;
        site.set("acme", placement).await;
        for other in &mut others {
            let delta = other.delta().await;
            assert_eq!(delta.generation, round as u64 + 2);
            other.ack(delta.mark()).await;
        }
    }
    site.until("it is dropped", |site| site.edges.connected() == 5)
        .await;
    let why = site.edges.get("deaf").unwrap().why.unwrap();
    assert!(
        why.starts_with("the edge did not read a message within"),
        "{why}"
    );
    site.until("its turn is over", |site| {
        site.metric("cellgate_control_snapshots{state=\"sending\"}") == 0.0
    })
    .await;
}

#[tokio::test]
async fn a_process_that_connects_anew_takes_the_place_of_its_dead_connection() {
    let site = Site::with(Setup::default(), 3).await;
    let mut dead = site.synced("edge-1").await;
    let _again = site.synced("edge-1").await;
    let (code, why) = dead.closed().await;
    assert_eq!(code, 1008, "{why}");
    site.until("one is left", |site| site.edges.connected() == 1)
        .await;
    assert!(site.edges.get("edge-1").unwrap().connected);
    // Another process of that name may be what replaces it in peace.
    let mut other = site.dial().await;
    let mut hello = super::hello("edge-1", Some(site.mark()));
    hello.instance = "next".to_owned();
    other.send(crate::protocol::ToControl::Hello(hello)).await;
    other.welcome().await;
    let list = site.edges.list();
    let instances: Vec<_> = list.iter().map(|view| &*view.instance).collect();
    assert_eq!(instances, ["edge-1-process", "next"]);
    assert_eq!(site.edges.get("edge-1").unwrap().instance, "next");
}

#[tokio::test]
async fn a_close_is_answered() {
    let site = Site::with(Setup::default(), 3).await;
    let mut edge = site.synced("edge-1").await;
    edge.raw(Message::Close(Some(
        tokio_tungstenite::tungstenite::protocol::CloseFrame {
            code: 1001.into(),
            reason: "a new binary".into(),
        },
    )))
    .await;
    assert!(matches!(edge.next().await, Said::Closed { code: 1001, .. }));
    site.until("it is gone", |site| site.edges.connected() == 0)
        .await;
    let why = site.edges.get("edge-1").unwrap().why.unwrap();
    assert_eq!(why, "the edge closed with 1001: \"a new binary\"");
}
