//! The way in: file, then environment, then what only both together decide.

use std::io;
use std::path::Path;

use super::read;
use super::{Settings, StoreSettings};
use crate::settings::SettingsProblem;
use crate::settings::load::read_file;
use crate::settings::reader::{At, Reader};
use crate::settings::yaml;

/// Read when no other file is named, and it is there.
pub const DEFAULT_FILE: &str = "conf/control.yaml";

/// A variable's value, if it is set.
type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

impl Settings {
    /// Reads the settings: from `path`; without one, from [`DEFAULT_FILE`] if there
    /// is one, and else the defaults. Of the environment, `CONFIG_PATH` (the routing
    /// file of the file store) and `PORT` win over the file; an empty variable is as
    /// good as none. `insecure`: everyone who can connect may do everything, on any
    /// address.
    ///
    /// # Errors
    /// Everything that is wrong, at once; never empty.
    pub fn load(
        path: Option<&Path>,
        env: Env<'_>,
        insecure: bool,
    ) -> Result<Settings, Vec<SettingsProblem>> {
        let default = Path::new(DEFAULT_FILE);
        let (path, text) = match path {
            Some(path) => (Some(path), read_file(path)),
            None => match read_file(default) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => (None, Ok(String::new())),
                other => (Some(default), other),
            },
        };
        match text {
            Ok(text) => Settings::parse(path, &text, env, insecure),
            Err(error) => Err(vec![SettingsProblem {
                file: path.map(Path::to_owned),
                position: None,
                key: String::new(),
                message: format!("cannot read the settings: {error}"),
            }]),
        }
    }

    /// Like [`Settings::load`], for a text that was read already. `file` is only
    /// named.
    pub(super) fn parse(
        file: Option<&Path>,
        text: &str,
        env: Env<'_>,
        insecure: bool,
    ) -> Result<Settings, Vec<SettingsProblem>> {
        let root = yaml::parse(text).map_err(|error| {
            vec![SettingsProblem {
                file: file.map(Path::to_owned),
                position: error.position,
                key: String::new(),
                message: format!("not YAML: {}", error.message),
            }]
        })?;
        let mut reader = Reader::new(file, &read::KEYS);
        let top = reader.section_at(&At::root(&root), "");
        let mut settings = Settings::default();
        read::read(&mut reader, &top, &mut settings);

        let env = |name| env(name).filter(|value| !value.is_empty());
        if let (Some(path), StoreSettings::File(file)) = (env("CONFIG_PATH"), &mut settings.store) {
            file.path = path.into();
        }
        let port = env("PORT");
        if let Some(port) = &port {
            match port.trim().parse() {
                Ok(port) => settings.listen.set_port(port),
                Err(_) => reader.problem_elsewhere(
                    "PORT",
                    format!("got {port:?}, want a port from 0 to 65535"),
                ),
            }
        }
        let guarded = top.get("tokens").is_some() || read::client_ca_is_given(&top);
        if !guarded && !insecure && !settings.listen.ip().is_loopback() {
            let message = format!(
                "got {}, want a loopback address such as 127.0.0.1:8081, or else tokens (or \
                 tls.client_ca): anyone who can connect could send tenants where they like; \
                 --insecure listens there all the same",
                settings.listen
            );
            match top.get("listen") {
                Some(at) => reader.problem(at, message),
                None => reader.problem_elsewhere("listen", message),
            }
        }
        match reader.into_problems() {
            problems if problems.is_empty() => Ok(settings),
            problems => Err(problems),
        }
    }
}
