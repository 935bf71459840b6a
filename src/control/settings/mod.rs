//! The control plane's settings: `conf/control.yaml` and the environment, read once
//! at start into one [`Settings`], and the tokens and certificates again at SIGHUP.
//!
//! Reads with the parts of `crate::settings` that know no key of the edge's.

mod load;
mod read;
mod types;

#[cfg(test)]
mod tests;

pub use load::DEFAULT_FILE;
pub use types::{EtcdSettings, FileSettings, Settings, StoreSettings, Tls};
