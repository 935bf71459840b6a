//! Pingora without Cellgate: no table, the cells in turn.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Peer, Setting, Way};
use crate::load::Expect;

pub struct Bare {
    program: PathBuf,
}

impl Bare {
    pub fn new(program: &Path) -> Bare {
        let program = program.to_owned();
        Bare { program }
    }
}

impl Peer for Bare {
    fn name(&self) -> &'static str {
        "pingora"
    }

    fn program(&self) -> &Path {
        &self.program
    }

    fn version(&self) -> anyhow::Result<String> {
        let lock = include_str!("../../Cargo.lock");
        let version = lock.split("name = \"pingora\"\nversion = \"").nth(1);
        let version = version.and_then(|rest| rest.split('"').next());
        Ok(format!("pingora {}", version.unwrap_or("unknown")))
    }

    fn expect(&self) -> Expect {
        Expect::Any
    }

    fn unfit(&self, setting: &Setting) -> Option<&'static str> {
        setting.access_log.then_some("it has no access log")
    }

    fn set_up(&self, _setting: &Setting) -> anyhow::Result<()> {
        Ok(())
    }

    fn command(&self, setting: &Setting, _way: Option<Way>) -> Command {
        let mut command = Command::new(&self.program);
        command.arg(setting.listen.to_string());
        command.args(setting.cells.iter().map(ToString::to_string));
        command
    }
}
