//! Loads the settings: the file, then the environment, then the checks that need both.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::listeners;
use super::reader::{At, Reader, Section};
use super::yaml::{self, Node, Placed};
use super::{
    AccessLogTarget, Settings, SettingsProblem, background, ca, control_plane, keys, sections,
    server,
};

/// The settings file if none is named. It may be missing.
pub const DEFAULT_FILE: &str = "conf/edge.yaml";

/// Largest settings file in bytes; a larger one is another file than was meant.
const LONGEST_FILE: u64 = 1 << 20;

/// Returns the value of an environment variable, if it is set.
type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Settings with their problems, for commands that continue in spite of them.
pub struct Draft {
    /// Invalid settings have their defaults.
    pub settings: Settings,
    /// All problems; empty if the settings are valid.
    pub problems: Vec<SettingsProblem>,
    /// Whether `settings.routing.path` is what the operator asked for. After a
    /// mistake it may be the default only because the mistake hid it.
    pub routing_path_is_known: bool,
}

impl Draft {
    /// The file could not be read or parsed.
    fn refused(problem: SettingsProblem) -> Draft {
        Draft {
            settings: Settings::default(),
            problems: vec![problem],
            routing_path_is_known: false,
        }
    }

    fn into_result(self) -> Result<Settings, Vec<SettingsProblem>> {
        if self.problems.is_empty() {
            Ok(self.settings)
        } else {
            Err(self.problems)
        }
    }
}

impl Settings {
    /// Reads the settings: from `path`; without one, from [`DEFAULT_FILE`] if
    /// there is one, and else the defaults. The variables `CONFIG_PATH`, `PORT` and
    /// `CONTROL_PLANE_URL` override the file, and `SSL_CERT_FILE` names the system's
    /// certificates; an empty variable counts as not set.
    ///
    /// # Errors
    /// All problems at once; never empty.
    pub fn load(path: Option<&Path>, env: Env<'_>) -> Result<Settings, Vec<SettingsProblem>> {
        Settings::read(path, env, false).into_result()
    }

    /// Like [`Settings::load`], for commands that continue in spite of problems. With
    /// `daemon`, the edge runs in the background, whatever the file says.
    pub fn read(path: Option<&Path>, env: Env<'_>, daemon: bool) -> Draft {
        let default = Path::new(DEFAULT_FILE);
        let (path, text) = match path {
            Some(path) => (Some(path), read_file(path)),
            None => match read_file(default) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => (None, Ok(String::new())),
                other => (Some(default), other),
            },
        };
        match text {
            Ok(text) => Settings::read_text(path, &text, env, daemon),
            Err(error) => Draft::refused(SettingsProblem {
                file: path.map(Path::to_owned),
                position: None,
                key: String::new(),
                message: format!("cannot read the settings: {error}"),
            }),
        }
    }

    /// Like `read`, from a text. `file` is used in problems only.
    fn read_text(file: Option<&Path>, text: &str, env: Env<'_>, daemon: bool) -> Draft {
        match yaml::parse(text) {
            Ok(root) => {
                let mut reader = Reader::new(file, &keys::EDGE);
                let (settings, path_is_given) = read(&mut reader, &root, env, daemon);
                let problems = reader.into_problems();
                Draft {
                    settings,
                    routing_path_is_known: path_is_given || problems.is_empty(),
                    problems,
                }
            }
            Err(error) => Draft::refused(SettingsProblem {
                file: file.map(Path::to_owned),
                position: error.position,
                key: String::new(),
                message: format!("not YAML: {}", error.message),
            }),
        }
    }

    #[cfg(test)]
    fn parse(
        file: Option<&Path>,
        text: &str,
        env: Env<'_>,
    ) -> Result<Settings, Vec<SettingsProblem>> {
        Settings::read_text(file, text, env, false).into_result()
    }
}

/// Reads a settings file of at most [`LONGEST_FILE`] bytes.
pub(crate) fn read_file(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let read = File::open(path)?
        .take(LONGEST_FILE + 1)
        .read_to_string(&mut text)?;
    if read as u64 > LONGEST_FILE {
        let message = format!("it has more than {LONGEST_FILE} bytes");
        return Err(io::Error::other(message));
    }
    Ok(text)
}

/// The settings, and whether the path of the routing file was among those given.
fn read<'a>(
    reader: &mut Reader<'a>,
    root: &'a Placed<Node>,
    env: Env<'_>,
    daemon: bool,
) -> (Settings, bool) {
    let mut settings = Settings::default();
    let top = reader.section_at(&At::root(root), "");
    settings.server = server::read(reader, &top);
    let daemon = daemon || settings.server.daemon;
    background::check(reader, &top, &settings.server, daemon);
    let given = sections::read(reader, &top, &mut settings);
    let mut path_is_given = given.routing_path;

    let env = |name| env(name).filter(|value| !value.is_empty());
    if let Some(path) = env("CONFIG_PATH") {
        settings.routing.path = path.into();
        path_is_given = true;
    }
    let port_from = env("PORT").and_then(|port| set_port(reader, &mut settings, &port));
    listeners::check(reader, &settings, &given.listeners, port_from);
    let urls = env(control_plane::URLS);
    control_plane::check(reader, &mut settings, &given.control_plane, urls);
    settings.tls.ca_file = certificates(reader, &top, &settings, env("SSL_CERT_FILE"));
    pin_relative_paths(reader, &top, &mut settings);
    (settings, path_is_given)
}

/// Applies `PORT`. Returns the variable's name if it set the port.
fn set_port(reader: &mut Reader<'_>, settings: &mut Settings, port: &str) -> Option<&'static str> {
    const PORT: &str = "PORT";
    match port.trim().parse::<u16>() {
        Ok(port) => {
            settings.listen.first_mut()?.address.set_port(port);
            Some(PORT)
        }
        Err(_) => {
            let message = format!("got {port:?}, want a port from 0 to 65535");
            reader.problem_elsewhere(PORT, message);
            None
        }
    }
}

/// Our `tls.ca_file`, or Pingora's, or the system's.
fn certificates<'a>(
    reader: &mut Reader<'a>,
    top: &Section<'a>,
    settings: &Settings,
    ssl_cert_file: Option<String>,
) -> Option<PathBuf> {
    let ours = settings.tls.ca_file.clone();
    let pingoras = reader.read(top, "ca_file", sections::ca_file);
    match (ours, pingoras) {
        (Some(ours), Some(pingoras)) if ours != pingoras => {
            if let Some(at) = top.get("ca_file") {
                let message = format!(
                    "got {:?}, want the file of cellgate.tls.ca_file ({:?}), or only one of both",
                    pingoras.display().to_string(),
                    ours.display().to_string()
                );
                reader.problem(&at.clone(), message);
            }
            None
        }
        (Some(file), _) | (None, Some(file)) => Some(file),
        // After a problem, do not fall back to other roots than those that were asked for.
        (None, None) => match ssl_cert_file {
            Some(file) => match ca::check(Path::new(&file)) {
                Ok(()) => Some(file.into()),
                Err(message) => {
                    reader.problem_elsewhere("SSL_CERT_FILE", message);
                    None
                }
            },
            None => ca::system_bundle(),
        },
    }
}

/// Makes relative paths absolute if `working_directory` is set, because running in the
/// background changes the directory.
fn pin_relative_paths(reader: &mut Reader<'_>, top: &Section<'_>, settings: &mut Settings) {
    let Some(directory) = settings.server.0.working_directory.clone() else {
        return;
    };
    if !directory.is_dir() {
        if let Some(at) = top.get("working_directory") {
            let message = format!(
                "got {:?}, want a directory that exists",
                directory.display().to_string()
            );
            reader.problem(at, message);
        }
        return;
    }
    let pin = |path: &mut PathBuf| {
        if let Ok(absolute) = std::path::absolute(&*path) {
            *path = absolute;
        }
    };
    pin(&mut settings.routing.path);
    if let AccessLogTarget::File(path) = &mut settings.access_log {
        pin(path);
    }
    let control_plane = &mut settings.control_plane;
    for path in [
        &mut settings.tls.ca_file,
        &mut control_plane.token_file,
        &mut control_plane.ca_file,
        &mut control_plane.client_cert,
        &mut control_plane.client_key,
        &mut control_plane.state_dir,
    ]
    .into_iter()
    .flatten()
    {
        pin(path);
    }
    let conf = &mut settings.server.0;
    for text in [&mut conf.pid_file, &mut conf.upgrade_sock]
        .into_iter()
        .chain(&mut conf.error_log)
    {
        let mut path = PathBuf::from(&*text);
        pin(&mut path);
        if let Ok(absolute) = path.into_os_string().into_string() {
            *text = absolute;
        }
    }
}

#[cfg(test)]
mod tests;
