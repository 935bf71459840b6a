//! What Cellgate tells its operator: logs and metrics, and the form in which it
//! writes times.
//!
//! Anything may import this folder. It imports `settings`, and value types of
//! `table`.

pub mod access_log;
pub mod json;
mod log_writer;
pub mod logging;
pub mod metrics;
pub mod once_per;
pub mod time;

pub use access_log::{AccessLog, AccessRecord};
pub use metrics::Metrics;
