//! The edits that can be committed, and the table that results.

use std::sync::Arc;

use bytes::Bytes;

use crate::protocol::sendable;
use crate::table::{self, Delta, Problem, RoutingTable};

/// A requested change.
#[derive(Clone, Debug)]
pub enum Edit {
    /// This routing document replaces the table.
    Document(Bytes),
    /// This table, such as that of an earlier generation, replaces the table.
    Table(Arc<RoutingTable>),
    /// Changes keys and, with a head, everything but keys of the newest generation.
    Delta(Delta),
}

/// A valid result.
pub(super) struct Outcome {
    pub table: Arc<RoutingTable>,
    /// The difference from the table before; none if there was none.
    pub delta: Option<Delta>,
}

/// An edit, prepared as far as is possible without the table that it applies to.
pub(super) enum Ready {
    Table(Result<Arc<RoutingTable>, Vec<Problem>>),
    Delta(Delta),
}

impl Edit {
    /// Takes time proportional to the document or table.
    pub(super) fn ready(self) -> Ready {
        let table = match self {
            Self::Delta(delta) => return Ready::Delta(delta),
            Self::Table(table) => Ok(table),
            Self::Document(document) => table::compile(&document).map(Arc::new),
        };
        Ready::Table(table.and_then(|table| {
            check_sendable(table.keys().map(|(key, _)| key), "/routingTable")?;
            Ok(table)
        }))
    }
}

impl Ready {
    /// Whether applying it takes well below a millisecond.
    pub fn is_small(&self) -> bool {
        match self {
            Self::Delta(delta) => {
                delta.head.is_none() && delta.set.len() + delta.remove.len() < 100
            }
            Self::Table(table) => table.is_err(),
        }
    }

    /// Applies this to `current`. Takes time proportional to the table or delta.
    ///
    /// # Errors
    /// All problems.
    pub fn on(&self, current: Option<&RoutingTable>) -> Result<Outcome, Vec<Problem>> {
        match (self, current) {
            (Self::Table(table), _) => match table {
                Ok(table) => Ok(replace(Arc::clone(table), current)),
                Err(problems) => Err(problems.clone()),
            },
            (Self::Delta(delta), None) => {
                let table = RoutingTable::founded_by(delta)?;
                check_sendable(table.keys().map(|(key, _)| key), "/set")?;
                Ok(Outcome {
                    table: Arc::new(table),
                    delta: None,
                })
            }
            (Self::Delta(delta), Some(current)) => {
                let table = Arc::new(current.apply(delta)?);
                check_sendable(delta.set.iter().map(|(key, _)| &**key), "/set")?;
                // Without what changes nothing.
                let delta = current.delta_to(&table);
                Ok(Outcome {
                    table,
                    delta: Some(delta),
                })
            }
        }
    }
}

/// Replaces `current` by `next`, sharing memory for what is the same in both.
fn replace(next: Arc<RoutingTable>, current: Option<&RoutingTable>) -> Outcome {
    let Some(current) = current else {
        return Outcome {
            table: next,
            delta: None,
        };
    };
    let delta = current.delta_to(&next);
    let shared = current.apply(&delta).map(Arc::new);
    let table = shared
        .ok()
        .filter(|shared| shared.digest() == next.digest());
    Outcome {
        table: table.unwrap_or(next),
        delta: Some(delta),
    }
}

/// Refuses a key that does not fit a message: no edge could receive this generation or
/// any later one.
fn check_sendable<'k>(
    keys: impl Iterator<Item = &'k str>,
    pointer: &str,
) -> Result<(), Vec<Problem>> {
    let problems: Vec<Problem> = keys
        .filter_map(|key| sendable(key).err())
        .take(1)
        .map(|error| Problem {
            pointer: pointer.to_owned(),
            ..Problem::without_place(error.to_string())
        })
        .collect();
    match problems.is_empty() {
        true => Ok(()),
        false => Err(problems),
    }
}
