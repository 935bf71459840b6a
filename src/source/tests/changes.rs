use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use tokio::time::sleep;

use super::{Edge, MODES, document};

#[tokio::test]
async fn an_atomic_rename_is_applied() {
    for mode in MODES {
        let mut edge = Edge::start(mode);
        for version in ["v2", "v3", "v4"] {
            edge.replace(&document(version));
            edge.becomes(version).await;
        }
        assert_eq!(edge.status().generation, Some(4), "{mode:?}");
        assert_eq!(edge.status().last_error, None);
    }
}

#[tokio::test]
async fn a_rewrite_in_place_is_applied() {
    for mode in MODES {
        let mut edge = Edge::start(mode);
        // The same size each time.
        for version in ["v2", "v3"] {
            fs::write(&edge.path, document(version)).unwrap();
            edge.becomes(version).await;
        }
        assert_eq!(edge.reloads("refused"), 0, "{mode:?}");
    }
}

#[tokio::test]
async fn a_config_map_is_followed() {
    let write = |directory: &Path, name: &str, version: &str| {
        fs::create_dir(directory.join(name)).unwrap();
        fs::write(directory.join(name).join("routing.json"), document(version)).unwrap();
    };
    for mode in MODES {
        let mut edge = Edge::start_at(mode, |directory| {
            write(directory, "..1", "v1");
            symlink("..1", directory.join("..data")).unwrap();
            symlink("..data/routing.json", directory.join("routing.json")).unwrap();
            directory.join("routing.json")
        });
        let directory = edge.directory.path().to_owned();
        // As the kubelet does: a new directory, one rename, the old one removed.
        for (old, new, version) in [("..1", "..2", "v2"), ("..2", "..3", "v3")] {
            write(&directory, new, version);
            symlink(new, directory.join("..data_tmp")).unwrap();
            fs::rename(directory.join("..data_tmp"), directory.join("..data")).unwrap();
            fs::remove_dir_all(directory.join(old)).unwrap();
            edge.becomes(version).await;
        }
        assert_eq!(edge.reloads("unreadable"), 0, "{mode:?}");
    }
}

#[tokio::test]
async fn a_linked_file_changes_where_it_is() {
    for mode in MODES {
        let mut edge = Edge::start_at(mode, |directory| {
            fs::create_dir(directory.join("elsewhere")).unwrap();
            fs::write(directory.join("elsewhere/real.json"), document("v1")).unwrap();
            symlink("elsewhere/real.json", directory.join("routing.json")).unwrap();
            directory.join("routing.json")
        });
        let real = edge.directory.path().join("elsewhere/real.json");
        fs::write(&real, document("v2")).unwrap();
        edge.becomes("v2").await;
    }
}

#[tokio::test]
async fn deleted_and_created_again_is_no_error() {
    for mode in MODES {
        let mut edge = Edge::start(mode);
        for version in ["v2", "v3"] {
            fs::remove_file(&edge.path).unwrap();
            sleep(Duration::from_millis(100)).await;
            fs::write(&edge.path, document(version)).unwrap();
            edge.becomes(version).await;
        }
        assert_eq!(edge.status().last_error, None, "{mode:?}");
    }
}

/// A deployment may replace the whole directory, in one step or in two.
#[tokio::test]
async fn a_replaced_directory_is_followed() {
    for mode in MODES {
        let mut edge = Edge::start_at(mode, |directory| {
            fs::create_dir(directory.join("conf")).unwrap();
            fs::write(directory.join("conf/routing.json"), document("v1")).unwrap();
            directory.join("conf/routing.json")
        });
        let directory = edge.directory.path().to_owned();
        for version in ["v2", "v3"] {
            fs::create_dir(directory.join("new")).unwrap();
            fs::write(directory.join("new/routing.json"), document(version)).unwrap();
            fs::rename(directory.join("conf"), directory.join("old")).unwrap();
            fs::rename(directory.join("new"), directory.join("conf")).unwrap();
            fs::remove_dir_all(directory.join("old")).unwrap();
            edge.becomes(version).await;
        }
        fs::remove_dir_all(directory.join("conf")).unwrap();
        sleep(Duration::from_millis(200)).await;
        fs::create_dir(directory.join("conf")).unwrap();
        sleep(Duration::from_millis(200)).await;
        fs::write(&edge.path, document("v4")).unwrap();
        edge.becomes("v4").await;
        // And what comes after that.
        edge.replace(&document("v5"));
        edge.becomes("v5").await;
    }
}

/// Two swaps in a row: the second comes while the first is being looked at, and
/// what it leads to has to be watched as well.
#[tokio::test]
async fn a_link_that_is_swapped_twice_is_followed() {
    let write = |directory: &Path, name: &str, version: &str| {
        fs::create_dir_all(directory.join(name)).unwrap();
        let new = directory.join(name).join("new");
        fs::write(&new, document(version)).unwrap();
        fs::rename(new, directory.join(name).join("routing.json")).unwrap();
    };
    let swap = |directory: &Path, to: &str| {
        symlink(to, directory.join("tmp")).unwrap();
        fs::rename(directory.join("tmp"), directory.join("current")).unwrap();
    };
    let mut edge = Edge::start_at(super::Mode::Notification, |directory| {
        write(directory, "1", "v1");
        swap(directory, "1");
        directory.join("current/routing.json")
    });
    let directory = edge.directory.path().to_owned();
    write(&directory, "2", "v2");
    write(&directory, "3", "v3");
    swap(&directory, "2");
    // Within the time that the first one takes to settle.
    sleep(Duration::from_millis(20)).await;
    swap(&directory, "3");
    edge.becomes("v3").await;
    write(&directory, "3", "v4");
    edge.becomes("v4").await;
}

/// A file that is touched all the time, and never changed, holds still.
#[tokio::test]
async fn touching_does_not_hold_up_a_change() {
    for mode in MODES {
        let mut edge = Edge::start(mode);
        edge.replace(&document("v2"));
        let path = edge.path.clone();
        let touching = tokio::spawn(async move {
            loop {
                let file = fs::File::options().append(true).open(&path).unwrap();
                file.set_modified(std::time::SystemTime::now()).unwrap();
                drop(file);
                sleep(Duration::from_millis(30)).await;
            }
        });
        edge.becomes("v2").await;
        assert_eq!(edge.reloads("unreadable"), 0, "{mode:?}");
        touching.abort();
    }
}
