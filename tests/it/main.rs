//! Integration tests: the real binary, real sockets, cells scripted to the byte.
//!
//! One binary, because linking it is most of its cost. Each file is one topic; `harness` is what they
//! share.

mod harness;

mod admin;
mod bodies;
mod commands;
mod connections;
mod dns;
mod drain;
mod forwarding;
mod framing;
mod lifecycle;
mod limits;
mod reload;
mod reload_files;
mod reload_large;
mod routing;
mod sick_cells;
mod soak;
mod startup;
mod streaming;
mod targets;
mod tls;
mod uploads;
mod upstream;
