//! The proxies that are measured, each set up to do what Cellgate does.
//!
//! All of them: route by `X-Routing-Key` through the same table to the same nine
//! cells, refuse requests without a key, make `X-Request-Id` and the
//! `X-Forwarded-*` fields for the cell, and tell the client `X-Routed-To`,
//! `X-Route-Reason` and `X-Request-Id`; keep connections on both sides; have the
//! same timeouts, active health checks where they know them, one worker, and no
//! access log unless it is what is measured.

mod bare;
mod cellgate;
mod envoy;
mod haproxy;
mod nginx;

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use crate::load::Expect;
use crate::process::Tree;
use crate::table::Table;

/// What a proxy is set up for.
#[derive(Clone, Debug)]
pub struct Setting {
    /// For its files; nobody else's.
    pub dir: PathBuf,
    pub listen: SocketAddr,
    /// A second port, for whatever the proxy has beside its main one.
    pub admin: SocketAddr,
    /// The port of what brings a changed table, if that is a process of its own.
    pub control: SocketAddr,
    /// By number, the default one last.
    pub cells: Vec<SocketAddr>,
    pub table: Table,
    pub access_log: bool,
}

impl Setting {
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Writes a file of the setting whole, or replaces it at once.
    pub fn write(
        &self,
        name: &str,
        content: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
    ) -> anyhow::Result<()> {
        let (path, draft) = (self.path(name), self.path(&format!("{name}.draft")));
        let write = || {
            let mut file = BufWriter::with_capacity(1 << 20, File::create(&draft)?);
            content(&mut file)?;
            file.flush()?;
            fs::rename(&draft, &path)
        };
        write().with_context(|| path.display().to_string())
    }
}

impl Setting {
    /// Puts a file in another one's place, at once; it is kept as well.
    fn replace(&self, target: &str, file: &str) -> anyhow::Result<()> {
        let draft = self.path("replacement.draft");
        fs::hard_link(self.path(file), &draft)?;
        Ok(fs::rename(draft, self.path(target))?)
    }
}

/// How a change of one key reaches a proxy that runs.
pub type Way = &'static str;

/// A proxy and how to treat it.
pub trait Peer: Sync {
    /// What it is called in results.
    fn name(&self) -> &'static str;

    /// Where its program is.
    fn program(&self) -> &Path;

    /// What it says its version is.
    fn version(&self) -> anyhow::Result<String>;

    /// Which cell has to answer.
    fn expect(&self) -> Expect {
        Expect::Routed
    }

    /// Why it cannot take this setting, if it cannot.
    fn unfit(&self, _setting: &Setting) -> Option<&'static str> {
        None
    }

    /// Writes all files.
    fn set_up(&self, setting: &Setting) -> anyhow::Result<()>;

    /// What to start; `way` is how its table is going to change, if it is.
    fn command(&self, setting: &Setting, way: Option<Way>) -> Command;

    /// A process that has to be there for this way, before the proxy; it is not
    /// weighed, and listens at `setting.control`.
    fn companion(&self, _setting: &Setting, _way: Way) -> anyhow::Result<Option<Command>> {
        Ok(None)
    }

    /// The ways in which it learns of one changed key.
    fn ways(&self, _setting: &Setting) -> Vec<Way> {
        Vec::new()
    }

    /// Writes the table of `setting` to a file of this name.
    fn write_table(&self, _setting: &Setting, _name: &str) -> anyhow::Result<()> {
        Ok(())
    }

    /// Makes the table of `setting`, which was written to this file, the one
    /// that serves. From here on the time counts.
    fn apply(&self, _setting: &Setting, way: Way, _file: &str, _tree: &Tree) -> anyhow::Result<()> {
        bail!("there is no way {way:?}")
    }
}

/// Where the programs are.
#[derive(Clone, Debug)]
pub struct Programs {
    pub cellgate: PathBuf,
    /// The same, built with the profile of a load.
    pub cellgate_pgo: PathBuf,
    pub bare: PathBuf,
    /// What scripts/setup-bench.sh made.
    pub peers: PathBuf,
}

/// All peers that are asked for, in that order.
///
/// # Errors
/// When one is not known or its program is not there.
pub fn chosen(names: &[String], programs: &Programs) -> anyhow::Result<Vec<Box<dyn Peer>>> {
    let peers: Vec<Box<dyn Peer>> = names
        .iter()
        .map(|name| one(name, programs))
        .collect::<anyhow::Result<_>>()?;
    for peer in &peers {
        let program = peer.program();
        if !program.is_file() {
            bail!("{}: there is no {}", peer.name(), program.display());
        }
    }
    Ok(peers)
}

fn one(name: &str, programs: &Programs) -> anyhow::Result<Box<dyn Peer>> {
    Ok(match name {
        "cellgate" => Box::new(cellgate::Cellgate::new("cellgate", &programs.cellgate)),
        "cellgate-pgo" => Box::new(cellgate::Cellgate::new(
            "cellgate-pgo",
            &programs.cellgate_pgo,
        )),
        "pingora" => Box::new(bare::Bare::new(&programs.bare)),
        "nginx" => Box::new(nginx::Nginx::new(&programs.peers)),
        "haproxy" => Box::new(haproxy::Haproxy::new(&programs.peers)),
        "envoy" => Box::new(envoy::Envoy::new(&programs.peers, envoy::Lookup::Lua)),
        "envoy-matcher" => Box::new(envoy::Envoy::new(&programs.peers, envoy::Lookup::Matcher)),
        other => bail!(
            "unknown peer {other:?} (known: cellgate, cellgate-pgo, pingora, nginx, haproxy, envoy, \
             envoy-matcher)"
        ),
    })
}

/// An address of 127.0.0.1 that nobody listens on.
pub fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// A program of Debian's that was unpacked and not installed.
fn unpacked(peers: &Path, program: &str) -> Command {
    let root = peers.join("debian");
    let libraries = [
        "usr/lib/x86_64-linux-gnu",
        "lib/x86_64-linux-gnu",
        "usr/lib/aarch64-linux-gnu",
    ]
    .map(|dir| root.join(dir).display().to_string())
    .join(":");
    let mut command = Command::new(root.join(program));
    command.env("LD_LIBRARY_PATH", libraries);
    command
}

/// Valgrind, as setup-bench.sh unpacked it.
pub fn unpacked_valgrind(peers: &Path) -> Command {
    let mut command = Command::new(peers.join("debian/usr/bin/valgrind"));
    command.env("VALGRIND_LIB", peers.join("debian/usr/libexec/valgrind"));
    command
}

/// The first line that a command says, on either stream, cut at `until`.
fn first_line(mut command: Command) -> anyhow::Result<String> {
    let output = command
        .output()
        .with_context(|| format!("cannot run {:?}", command.get_program()))?;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    Ok(said
        .lines()
        .map(str::trim)
        .find(|line| !line.is_empty())
        .unwrap_or_default()
        .to_owned())
}
