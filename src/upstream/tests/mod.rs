//! Placements, endpoints and backends as their users see them.

mod admit;
mod probe;
mod prober;
mod resolver;
mod view;
