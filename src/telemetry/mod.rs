//! What the edge tells its operator: the log, the access log, metrics, and the
//! one way it writes a point in time.
//!
//! Anything may import this folder; it imports `settings` for what was asked
//! of it, and value types of `routing`.
pub mod access_log;
pub mod json;
mod line_log;
pub mod logging;
pub mod metrics;
pub mod once_per;
pub mod time;

pub use access_log::{AccessLog, AccessRecord};
pub use metrics::Metrics;
