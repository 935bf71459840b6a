//! The memory: its decisions as tables, its files as a restart finds them.

mod chain;
mod changes;
mod disk;
mod journal;
mod record;
mod schedule;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::super::tests::{Fixture, at, document};
use super::{Memory, MemoryOptions};
use crate::state::EdgeState;

/// A document whose news is its version.
fn version(version: &str) -> Vec<u8> {
    document(
        version,
        &[("one", "http://127.0.0.1:1"), ("two", "http://127.0.0.1:2")],
        &[("acme", "one"), ("a \"key\" of ütf-8", "two")],
    )
}

fn open(dir: &Path, edge: &Arc<EdgeState>, seconds: u64) -> Arc<Memory> {
    let options = MemoryOptions {
        dir: dir.to_owned(),
        max_bytes: 1 << 20,
        promote_after: Duration::from_secs(30),
    };
    Memory::open(options, Arc::clone(edge), at(seconds))
}
