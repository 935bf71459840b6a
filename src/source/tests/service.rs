use std::fs;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::{DEADLINE, Edge, MAX_BYTES, MODES, Mode, document};
use crate::source::{FileSource, load_initial};
use crate::state::{EdgeOptions, EdgeState};
use crate::telemetry::metrics::Metrics;

#[tokio::test]
async fn identical_content_is_no_new_generation() {
    for mode in MODES {
        let mut edge = Edge::start(mode);
        let first = edge.state.current().unwrap();
        edge.replace(&document("v1"));
        fs::write(&edge.path, document("v1")).unwrap();
        // A request is answered after all that came before it.
        let unchanged = edge.reloads("unchanged");
        edge.request.notify_one();
        let answered = async {
            while edge.reloads("unchanged") == unchanged {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(DEADLINE, answered).await.expect("an answer");
        assert!(Arc::ptr_eq(&first, &edge.state.current().unwrap()));
        edge.replace(&document("v2"));
        edge.becomes("v2").await;
        assert_eq!(edge.status().generation, Some(2), "{mode:?}");
    }
}

#[tokio::test]
async fn a_change_between_load_and_start_is_found() {
    let mut edge = Edge::start_at(Mode::Notification, |directory| {
        let path = directory.join("routing.json");
        fs::write(&path, document("v1")).unwrap();
        path
    });
    // The task has not run yet: this runtime has one thread, and it is ours.
    edge.replace(&document("v2"));
    edge.becomes("v2").await;
}

#[tokio::test]
async fn hangup_makes_it_immediate() {
    // Ours as well, so that an early signal does not end the process.
    let _hangup = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup()).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("routing.json");
    fs::write(&path, document("v1")).unwrap();
    let metrics = Arc::new(Metrics::new());
    let state = EdgeState::new(EdgeOptions::default(), Arc::clone(&metrics));
    load_initial(&path, MAX_BYTES, &state).unwrap();
    let hour = Duration::from_secs(3600);
    let source = FileSource::new(&path, hour, MAX_BYTES, Arc::clone(&state)).without_notification();
    let mut edge = Edge::run(directory, path, state, metrics, source);

    edge.replace(&document("v2"));
    let hanging_up = async {
        loop {
            // SAFETY: a signal to ourselves, which is handled.
            unsafe { libc::kill(libc::getpid(), libc::SIGHUP) };
            // One that came before the source listened is lost.
            sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::select! {
        () = edge.becomes("v2") => {}
        () = hanging_up => {}
    }
}

#[tokio::test]
async fn it_ends_when_the_process_does() {
    for mode in MODES {
        let edge = Edge::start(mode);
        edge.shutdown.send_replace(true);
        timeout(DEADLINE, edge.task)
            .await
            .expect("it ends")
            .unwrap();
    }
}

#[test]
fn the_first_load_says_all_that_is_wrong() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("routing.json");
    let state = EdgeState::new(EdgeOptions::default(), Arc::new(Metrics::new()));
    let problems = |state: &EdgeState| load_initial(&path, MAX_BYTES, state).unwrap_err();

    let missing = problems(&state);
    assert!(missing[0].message.contains("No such file"), "{missing:?}");
    fs::write(
        &path,
        "{\"version\": \"\", \"routingTable\": {\"a\": \"b\"}}",
    )
    .unwrap();
    assert!(problems(&state).len() > 2, "{:?}", problems(&state));
    fs::write(&path, vec![b' '; 4097]).unwrap();
    let large = problems(&state);
    assert!(large[0].message.contains("4096"), "{large:?}");
    assert!(state.current().is_none());

    fs::write(&path, document("v1")).unwrap();
    load_initial(&path, MAX_BYTES, &state).unwrap();
    assert_eq!(state.current().unwrap().number, 1);
}
