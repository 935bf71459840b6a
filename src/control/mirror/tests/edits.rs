//! Edits and changes while the control plane runs.

use std::fs;

use super::{Place, home};
use crate::control::core::Edit;
use crate::control::core::tests::{document, remove, set};
use crate::control::document as for_people;
use crate::control::store::{AppendError, StoreError};

#[tokio::test]
async fn the_file_is_the_first_generation() {
    let place = Place::with("1", &[("acme", "one")]);
    let running = place.start().await;
    let first = running.newest();
    assert_eq!((first.record.generation, first.record.parent), (1, 0));
    let author = &first.record.author;
    assert_eq!(
        (author.who.as_str(), author.what.as_str()),
        ("file", "load")
    );
    assert_eq!(author.from, place.path().display().to_string());
    assert_eq!(home(&first, "acme"), Some("one"));
    // It was not written again: what somebody wrote stays as they wrote it.
    running.end().await;
    assert_eq!(
        fs::read(place.path()).unwrap(),
        document("1", &[("acme", "one")])
    );
}

#[tokio::test]
async fn an_edit_is_a_generation_and_a_change_is_in_the_file() {
    let place = Place::with("1", &[("acme", "one")]);
    let running = place.start().await;
    place.save("1", &[("acme", "two"), ("visa", "one")]);
    let second = running.generation(2).await;
    assert_eq!((second.record.set, second.record.head), (2, false));
    assert_eq!(second.record.author.what, "edit");

    running.change(set("new", "two")).await;
    running.change(remove("visa")).await;
    place.file_has(&[("acme", "two"), ("new", "two")]).await;
    // What was written is no edit.
    place.save("1", &[("acme", "two"), ("last", "one"), ("new", "two")]);
    let fifth = running.generation(5).await;
    assert_eq!((fifth.record.set, fifth.record.removed), (1, 0));
    running.end().await;
}

#[tokio::test]
async fn an_edit_takes_nothing_back_that_was_changed_meanwhile() {
    let place = Place::with("1", &[("a", "one"), ("b", "one"), ("c", "one")]);
    let running = place.start().await;
    // Invalid, so that the file stays what it is while the API changes things.
    place.save_bytes(b"{ half an edit");
    running.refused("take over").await;
    running.change(set("theirs", "two")).await;
    running.change(set("b", "two")).await;
    running.change(remove("c")).await;
    // The editor knows nothing of this.
    place.save("1", &[("a", "two"), ("b", "one"), ("c", "one")]);
    running.in_order().await;
    let merged = running.generation(5).await;
    assert_eq!((merged.record.set, merged.record.removed), (1, 0));
    place
        .file_has(&[("a", "two"), ("b", "two"), ("theirs", "two")])
        .await;
    running.end().await;
}

#[tokio::test]
async fn what_is_not_valid_is_left_alone() {
    let place = Place::with("1", &[("acme", "one")]);
    let running = place.start().await;
    let invalid = document("2", &[("acme", "nowhere")]);
    place.save_bytes(&invalid);
    let words = running.refused("take over").await;
    assert!(words.contains("\"nowhere\""), "{words}");
    running.change(set("new", "two")).await;
    assert_eq!(running.newest().record.generation, 2);
    running.end().await;
    assert_eq!(fs::read(place.path()).unwrap(), invalid);

    // Nor does a restart touch it, or what was changed.
    let running = place.start().await;
    running.refused("take over").await;
    assert_eq!(running.newest().record.generation, 2);
    place.save("1", &[("acme", "two")]);
    let merged = running.generation(3).await;
    assert_eq!(home(&merged, "new"), Some("two"));
    place.file_has(&[("acme", "two"), ("new", "two")]).await;
    running.in_order().await;
    running.end().await;
}

#[tokio::test]
async fn an_edit_that_is_taken_back_is_none() {
    let place = Place::with("1", &[("acme", "one")]);
    let running = place.start().await;
    place.save_bytes(b"{ half an edit");
    running.refused("take over").await;
    place.save("1", &[("acme", "one")]);
    running.in_order().await;
    assert_eq!(running.newest().record.generation, 1);
    running.end().await;
}

#[tokio::test]
async fn an_edit_that_does_not_fit_waits_until_it_does() {
    let place = Place::with("1", &[("acme", "one")]);
    let running = place.start().await;
    place.save_bytes(b"{ half an edit");
    running.refused("take over").await;
    // The placement that the edit is about to use is gone.
    let other = String::from_utf8(document("1", &[]).to_vec()).unwrap();
    let other = other.replace("\"two\"", "\"three\"");
    running.change(Edit::Document(other.into())).await;
    place.save("1", &[("acme", "two")]);
    let words = loop {
        let words = running.refused("take over").await;
        if words.contains("generation 2") {
            break words;
        }
        tokio::task::yield_now().await;
    };
    assert!(words.contains("\"two\""), "{words}");
    // Its return makes the edit fit.
    running.change(Edit::Document(document("1", &[]))).await;
    let merged = running.generation(4).await;
    assert_eq!(home(&merged, "acme"), Some("two"));
    running.in_order().await;
    running.end().await;
}

#[tokio::test]
async fn a_file_that_is_gone_is_written_again() {
    let place = Place::with("1", &[("acme", "one")]);
    let running = place.start().await;
    fs::remove_file(place.path()).unwrap();
    place.file_has(&[("acme", "one")]).await;
    assert_eq!(running.newest().record.generation, 1);
    running.end().await;
}

#[tokio::test]
async fn without_a_file_there_is_nothing_until_there_is() {
    let place = Place::new();
    let running = place.start().await;
    assert!(running.truth.newest().is_none());
    assert!(running.file.error().is_none());
    running
        .change(Edit::Document(document("1", &[("acme", "one")])))
        .await;
    place.file_has(&[("acme", "one")]).await;
    running.end().await;
}

#[tokio::test]
async fn a_file_that_appears_is_the_first_generation() {
    let place = Place::new();
    let running = place.start().await;
    place.save("1", &[("acme", "one")]);
    let first = running.generation(1).await;
    assert_eq!(first.record.author.who, "file");
    running.end().await;
}

#[tokio::test]
async fn what_the_store_does_not_take_is_tried_again() {
    let place = Place::with("1", &[("acme", "one")]);
    let running = place.start().await;
    let full = StoreError("the disk is full".to_owned());
    place.store.fail(AppendError::Failed(full));
    place.save("1", &[("acme", "two")]);
    let words = running.refused("take over").await;
    assert!(words.contains("the disk is full"), "{words}");
    running.generation(2).await;
    running.in_order().await;
    running.end().await;
}

#[tokio::test]
async fn what_is_left_to_be_written_is_written_at_the_end() {
    let place = Place::with("1", &[("acme", "one")]);
    let running = place.start().await;
    running.change(set("acme", "two")).await;
    let newest = running.newest();
    running.end().await;
    let mut expected = Vec::new();
    for_people::write(&newest.table, &mut expected).unwrap();
    assert_eq!(fs::read(place.path()).unwrap(), expected);
}
