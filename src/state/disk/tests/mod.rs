//! The pure parts as tables; the directory as the next process finds it.

mod damage;
mod database;
mod deltas;
mod journal;
mod process;
mod schedule;
mod state_dir;

use super::super::tests::{Fixture, at, document};

/// A document with this version.
fn version(version: &str) -> Vec<u8> {
    document(
        version,
        &[("one", "http://127.0.0.1:1"), ("two", "http://127.0.0.1:2")],
        &[("acme", "one"), ("a \"key\" of ütf-8", "two")],
    )
}
