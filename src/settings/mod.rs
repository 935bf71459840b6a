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
//! folder imports nothing of ours. `control::settings` reads its own file with the
//! parts of this folder that know no key: `yaml`, `reader`, `value`, `files`, `ca`.
mod background;
pub(crate) mod ca;
pub(crate) mod control_plane;
pub(crate) mod files;
pub(crate) mod keys;
mod listeners;
pub(crate) mod load;
mod problem;
pub(crate) mod reader;
mod sections;
mod server;
mod types;
pub(crate) mod value;
pub(crate) mod yaml;

pub use ca::system_bundle;
pub use load::{DEFAULT_FILE, Draft};
pub use problem::SettingsProblem;
pub use server::ServerSettings;
pub use types::{
    AccessLogTarget, ControlPlane, Limits, Listen, LogFormat, Routing, RoutingKey, Settings,
    Timeouts, Tls,
};
