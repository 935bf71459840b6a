//! The edge's settings: `conf/edge.yaml` and the environment, read once at start into one
//! [`Settings`], or every problem at once.
//!
//! `yaml` parses the file into a tree with places, `reader` looks up the known `keys` and
//! collects problems, `server`, `sections`, `listeners` and `control_plane` turn values into
//! `types` with the parsers of `value`, and `load` applies the environment and checks what
//! depends on more than one key. `ca`, `files` and `background` check what a value names and
//! change nothing.
//!
//! Anything may import the types; only `cli` loads them. `control::settings` reads its own
//! file with `yaml`, `reader`, `value`, `files` and `ca`.

mod background;
pub(crate) mod ca;
pub(crate) mod control_plane;
pub(crate) mod files;
pub(crate) mod keys;
mod listeners;
pub(crate) mod load;
pub(crate) mod reader;
mod sections;
mod server;
mod types;
pub(crate) mod value;
pub(crate) mod yaml;

pub use ca::system_bundle;
pub use load::{DEFAULT_FILE, Draft};
pub use reader::SettingsProblem;
pub use server::ServerSettings;
pub use types::{
    AccessLogTarget, ControlPlane, Limits, Listen, LogFormat, Routing, RoutingKey, Settings,
    Timeouts, Tls,
};
