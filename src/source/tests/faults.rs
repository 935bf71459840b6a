use std::fs::{self, File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::sleep;

use super::{Edge, MODES, Mode, document};

#[tokio::test]
async fn half_a_file_is_never_applied() {
    for mode in MODES {
        let mut edge = Edge::start(mode);
        let whole = document("v2");
        let (first, second) = whole.split_at(whole.len() / 2);
        let mut file = File::create(&edge.path).unwrap();
        file.write_all(first.as_bytes()).unwrap();
        // Many times as long as a look takes.
        sleep(Duration::from_millis(400)).await;
        assert_eq!(edge.version(), "v1");
        file.write_all(second.as_bytes()).unwrap();
        drop(file);
        edge.becomes("v2").await;
        assert_eq!(edge.status().generation, Some(2), "{mode:?}");
    }
}

/// Half of one document and half of another may be valid together. Whoever
/// writes that has the file open until it is whole.
#[tokio::test]
async fn a_mixture_is_not_applied_while_it_is_open() {
    let mut edge = Edge::start(Mode::Notification);
    let old = "{\"version\": \"v2\", \"routingTable\": {},\
               \"cellEndpoints\": {\"a\": \"http://127.0.0.1:2\"}, \"defaultPlacement\": \"a\"}";
    edge.replace(old);
    edge.becomes("v2").await;

    let mut file = OpenOptions::new().write(true).open(&edge.path).unwrap();
    let version = old.find("v2").unwrap() as u64;
    let port = old.find(":2\"").unwrap() as u64;
    file.seek(SeekFrom::Start(version)).unwrap();
    file.write_all(b"v3").unwrap();
    sleep(Duration::from_millis(400)).await;
    assert_eq!(edge.version(), "v2");
    file.seek(SeekFrom::Start(port)).unwrap();
    file.write_all(b":3").unwrap();
    drop(file);
    edge.becomes("v3").await;
    let generation = edge.state.current().unwrap();
    assert_eq!(
        generation.placements[0].backends()[0].origin.url,
        "http://127.0.0.1:3"
    );
}

#[tokio::test]
async fn a_file_that_stays_half_is_reported() {
    for mode in MODES {
        let mut edge = Edge::start(mode);
        let whole = document("v2");
        fs::write(&edge.path, &whole[..whole.len() / 2]).unwrap();
        edge.error_becomes(Some("")).await;
        assert_eq!(edge.version(), "v1", "{mode:?}");
        fs::write(&edge.path, &whole).unwrap();
        edge.becomes("v2").await;
        assert_eq!(edge.status().last_error, None);
    }
}

#[tokio::test]
async fn what_cannot_be_read_is_reported_and_recovered_from() {
    type Breaks = fn(&Path);
    let ways: [(Breaks, &str); 4] = [
        (|path| fs::remove_file(path).unwrap(), "No such file"),
        (
            |path| {
                fs::remove_file(path).unwrap();
                fs::create_dir(path).unwrap();
            },
            "it is a directory",
        ),
        (
            |path| {
                fs::remove_file(path).unwrap();
                let made = std::process::Command::new("mkfifo").arg(path).status();
                assert!(made.unwrap().success());
            },
            "pipe",
        ),
        (
            |path| fs::write(path, " ".repeat(4097)).unwrap(),
            "more than 4096 bytes",
        ),
    ];
    // At the same time, because each takes its while to be reported.
    let mut cases = JoinSet::new();
    for mode in MODES {
        for (breaks, wanted) in ways {
            cases.spawn(async move {
                let mut edge = Edge::start(mode);
                breaks(&edge.path);
                edge.error_becomes(Some(wanted)).await;
                assert_eq!(edge.version(), "v1");
                assert_eq!(edge.reloads("unreadable"), 1, "{mode:?} {wanted}");

                // What is being served comes back: that is no new generation.
                if edge.path.is_dir() {
                    fs::remove_dir(&edge.path).unwrap();
                }
                edge.replace(&document("v1"));
                edge.error_becomes(None).await;
                assert_eq!(edge.status().generation, Some(1), "{mode:?} {wanted}");
                edge.replace(&document("v2"));
                edge.becomes("v2").await;
            });
        }
    }
    while let Some(case) = cases.join_next().await {
        case.unwrap();
    }
}

#[tokio::test]
async fn an_invalid_file_is_refused_once_and_a_valid_one_follows() {
    for mode in MODES {
        let mut edge = Edge::start(mode);
        edge.replace(&document("v2").replace(
            "\"defaultPlacement\": \"v2\"",
            "\"defaultPlacement\": \"x\"",
        ));
        edge.error_becomes(Some("\"x\"")).await;
        assert_eq!(edge.version(), "v1");
        let at = edge.status().last_error.unwrap().at;
        // Many polls later it is still the one refusal.
        sleep(Duration::from_millis(300)).await;
        assert_eq!(edge.reloads("refused"), 1, "{mode:?}");
        assert_eq!(edge.status().last_error.unwrap().at, at);

        // Back to what is being served.
        edge.replace(&document("v1"));
        edge.error_becomes(None).await;
        assert_eq!(edge.status().generation, Some(1));
        edge.replace(&document("v2"));
        edge.becomes("v2").await;
    }
}
