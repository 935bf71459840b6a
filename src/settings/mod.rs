//! The edge's settings: `conf/edge.yaml` and the environment, read once at
//! start into one [`Settings`].
//!
//! From text to settings in stages, each in its file: `yaml` makes a tree,
//! `reader` looks up the known `keys` and collects problems, `server` and
//! `sections` (`listeners` and `control_plane` for theirs) turn values into `types` with the parsers of `value`, and `load`
//! puts the environment on top and checks what depends on more than one key.
//! `ca`, `files` and `background` try what a value names, and change nothing.
//!
//! Everything may import the types; only the command line loads them. This
//! folder imports nothing of ours.
mod background;
mod ca;
mod control_plane;
mod files;
mod keys;
mod listeners;
mod load;
mod problem;
mod reader;
mod sections;
mod server;
mod types;
mod value;
mod yaml;

pub use load::{DEFAULT_FILE, Draft};
pub use problem::SettingsProblem;
pub use server::ServerSettings;
pub use types::{
    AccessLogTarget, ControlPlane, Limits, Listen, LogFormat, Routing, RoutingKey, Settings,
    Timeouts, Tls,
};
