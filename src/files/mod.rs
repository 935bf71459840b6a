//! A file that somebody else may be writing: word that it changed, and its content
//! when it holds still; and one that has a secret in it.
//!
//! `source`, `control` and `settings` import this; it imports value types of `live` and
//! `routing`.

pub(crate) mod notice;
pub(crate) mod read;
pub(crate) mod settle;
pub(crate) mod token;
