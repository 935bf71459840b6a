//! Integration tests: the real binary, real sockets, cells scripted to the byte.
//!
//! One binary, because linking it is most of its cost. Each file is one topic; `harness` is what they
//! share.

mod harness;

mod admin;
mod bodies;
mod breaker;
mod breaker_probes;
mod commands;
mod connections;
mod control_access;
mod control_api;
mod control_ctl;
mod control_edges;
mod control_etcd;
mod control_plane;
mod control_plane_cost;
mod control_plane_failures;
mod control_plane_real;
mod control_plane_restart;
mod control_plane_tls;
mod control_process;
mod cost;
mod dns;
mod drain;
mod endpoints;
mod etcd_access;
mod etcd_faults;
mod etcd_store;
mod flapping;
mod forwarding;
mod framing;
mod health;
mod isolation;
mod lifecycle;
mod limits;
mod placement_limits;
mod placements;
mod reload;
mod reload_files;
mod reload_large;
mod routing;
mod sick_cells;
mod soak;
mod startup;
mod state_dir;
mod streaming;
mod targets;
mod tls;
mod under_fire;
mod uploads;
mod upstream;
