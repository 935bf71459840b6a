//! Where routing documents come from.
//!
//! Each source is a background service that hands bytes to
//! [`Live::apply`](crate::live::Live::apply) and knows nothing of what becomes
//! of them. Only `cli` imports this folder; it imports `live`.

mod file;

#[cfg(test)]
mod tests;

pub use file::{FileSource, load_initial};
