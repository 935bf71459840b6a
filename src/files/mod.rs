//! A file that somebody else may be writing: word that it changed, and its content
//! when it holds still.
//!
//! `source` and `control` import this; it imports value types of `live` and
//! `routing`.

pub(crate) mod notice;
pub(crate) mod read;
pub(crate) mod settle;
