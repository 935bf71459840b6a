//! What a file is taken for that was not looked at for a while.

use std::fs;

use super::super::state::StateFile;
use super::{Place, eventually, home};
use crate::control::core::tests::set;

#[tokio::test]
async fn an_edit_while_nobody_looked_is_a_generation() {
    let place = Place::with("1", &[("a", "one"), ("b", "one")]);
    let running = place.start().await;
    running.change(set("theirs", "two")).await;
    running.end().await;
    place.save("1", &[("a", "two"), ("b", "one"), ("theirs", "two")]);
    let running = place.start().await;
    let newest = running.newest();
    assert_eq!(newest.record.generation, 3);
    assert_eq!((newest.record.set, newest.record.removed), (1, 0));
    running.end().await;
}

/// The process ended before it could write what was changed last.
#[tokio::test]
async fn a_file_that_is_only_old_takes_nothing_back() {
    let place = Place::with("1", &[("a", "one")]);
    let running = place.start().await;
    running.change(set("theirs", "two")).await;
    running.crash().await;
    place.file_has(&[("a", "one")]).await;
    let running = place.start().await;
    assert_eq!(running.newest().record.generation, 2);
    place.file_has(&[("a", "one"), ("theirs", "two")]).await;
    running.end().await;
}

#[tokio::test]
async fn an_old_file_that_was_edited_gives_its_edit_only() {
    let place = Place::with("1", &[("a", "one")]);
    let running = place.start().await;
    running.change(set("theirs", "two")).await;
    running.crash().await;
    place.save("1", &[("a", "two")]);
    let running = place.start().await;
    let newest = running.newest();
    assert_eq!(newest.record.generation, 3);
    assert_eq!(home(&newest, "theirs"), Some("two"));
    assert_eq!(home(&newest, "a"), Some("two"));
    running.end().await;
}

#[tokio::test]
async fn without_a_memory_what_is_in_history_is_old_and_all_else_an_edit() {
    for damage in [None, Some("nonsense")] {
        let place = Place::with("1", &[("a", "one")]);
        let running = place.start().await;
        running.change(set("theirs", "two")).await;
        running.crash().await;
        match damage {
            None => fs::remove_file(place.state()).unwrap(),
            Some(text) => fs::write(place.state(), text).unwrap(),
        }
        let running = place.start().await;
        assert_eq!(running.newest().record.generation, 2);
        place.file_has(&[("a", "one"), ("theirs", "two")]).await;
        running.end().await;

        fs::remove_file(place.state()).unwrap();
        place.save("1", &[("a", "one"), ("b", "one")]);
        let running = place.start().await;
        let newest = running.newest();
        assert_eq!(newest.record.generation, 3);
        assert_eq!(home(&newest, "theirs"), None);
        running.end().await;
    }
}

#[tokio::test]
async fn a_file_without_changes_is_not_touched() {
    let place = Place::with("1", &[("a", "one")]);
    place.start().await.end().await;
    let before = fs::metadata(place.path()).unwrap().modified().unwrap();
    let running = place.start().await;
    assert_eq!(running.newest().record.generation, 1);
    running.end().await;
    let after = fs::metadata(place.path()).unwrap().modified().unwrap();
    assert_eq!(before, after);
}

/// What cannot be written to the file is no part of it: an edit of the file is one of
/// what is in it.
#[tokio::test]
async fn a_write_that_failed_takes_nothing_back() {
    let place = Place::with("1", &[("a", "one")]);
    let running = place.start().await;
    place.block();
    running.change(set("theirs", "two")).await;
    running.refused("write").await;
    running.crash().await;
    place.save("1", &[("a", "two")]);
    let running = place.start().await;
    let newest = running.newest();
    assert_eq!(newest.record.generation, 3);
    assert_eq!(home(&newest, "theirs"), Some("two"));
    assert_eq!(home(&newest, "a"), Some("two"));
    running.end().await;
}

/// A crash between what is remembered and the writing, after which the file is edited:
/// what was remembered last never was in it.
#[tokio::test]
async fn of_two_contents_the_older_is_what_was_edited() {
    let place = Place::with("1", &[("a", "one")]);
    let running = place.start().await;
    let old = StateFile(place.state()).read();
    running.change(set("theirs", "two")).await;
    place.file_has(&[("a", "one"), ("theirs", "two")]).await;
    running.end().await;
    let new = StateFile(place.state()).read();
    assert_eq!((old.len(), new.len()), (1, 1));
    StateFile(place.state())
        .write(&[new, old].concat())
        .unwrap();
    place.save("1", &[("a", "two")]);
    let running = place.start().await;
    let newest = running.newest();
    assert_eq!(newest.record.generation, 3);
    assert_eq!(home(&newest, "theirs"), Some("two"));
    assert_eq!(home(&newest, "a"), Some("two"));
    running.end().await;
}

/// A merged edit is a generation that says more than the file does, which cannot be
/// written; and is edited again.
#[tokio::test]
async fn an_edit_that_was_merged_is_not_made_again() {
    let place = Place::with("1", &[("a", "one"), ("b", "one")]);
    let running = place.start().await;
    place.block();
    running.change(set("theirs", "two")).await;
    running.refused("write").await;
    place.save("1", &[("a", "two"), ("b", "one")]);
    running.generation(3).await;
    eventually("the edit is remembered", || {
        let contents = StateFile(place.state()).read();
        contents
            .iter()
            .any(|content| content.generation == 3)
            .then_some(())
    })
    .await;
    // Changed back, which the file does not say.
    running.change(set("a", "one")).await;
    running.crash().await;
    place.save("1", &[("a", "two"), ("b", "two")]);
    let running = place.start().await;
    let newest = running.newest();
    assert_eq!(newest.record.generation, 5);
    assert_eq!((newest.record.set, newest.record.removed), (1, 0));
    for (key, expected) in [("a", "one"), ("b", "two"), ("theirs", "two")] {
        assert_eq!(home(&newest, key), Some(expected), "{key}");
    }
    running.end().await;
}
