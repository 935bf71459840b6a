//! What may be asked of the truth, and what comes of it.

use std::sync::Arc;

use bytes::Bytes;

use crate::protocol::sendable;
use crate::table::{self, Delta, Problem, RoutingTable};

/// A change that was asked for.
#[derive(Clone, Debug)]
pub enum Edit {
    /// This routing document takes the place of all there is.
    Document(Bytes),
    /// The content of an earlier generation takes the place of all there is.
    Table(Arc<RoutingTable>),
    /// Keys and, with a head, everything but keys. On the newest generation,
    /// whatever it is.
    Delta(Delta),
}

/// A valid outcome.
pub(super) struct Outcome {
    pub table: Arc<RoutingTable>,
    /// What makes it of what was there; none if nothing was.
    pub delta: Option<Delta>,
}

/// An edit, as far as it can be got without knowing what it is made on.
pub(super) enum Ready {
    Table(Result<Arc<RoutingTable>, Vec<Problem>>),
    Delta(Delta),
}

impl Edit {
    /// Takes time that grows with the document, or the table.
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
    /// Whether it is done at once.
    pub fn is_small(&self) -> bool {
        match self {
            Self::Delta(delta) => {
                delta.head.is_none() && delta.set.len() + delta.remove.len() < 100
            }
            Self::Table(table) => table.is_err(),
        }
    }

    /// What comes of this on top of `current`. Takes time that grows with the
    /// table, or with the delta.
    ///
    /// # Errors
    /// Everything that is wrong, at once.
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
                // What it says twice, or says again, is left out.
                let delta = current.delta_to(&table);
                Ok(Outcome {
                    table,
                    delta: Some(delta),
                })
            }
        }
    }
}

/// `next` instead of `current`, sharing with it what is the same in both.
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

/// A key that no message can carry would cut all edges off from every later
/// change.
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
