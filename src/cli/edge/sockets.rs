//! The edge's listening sockets: bound, or taken over from a running edge.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsRawFd;

use crate::http::{Handover, NamedSockets};
use crate::http::{bind, inherit};
use crate::settings::Settings;

/// One socket for each configured listener, open before the edge serves.
pub(super) struct Sockets {
    pub proxy: Vec<TcpListener>,
    pub admin: TcpListener,
    names: Vec<String>,
}

impl Sockets {
    /// Binds all listeners, or takes them over from the process at `handover`.
    ///
    /// # Errors
    /// One line for each listener that cannot be opened.
    pub(super) fn open(
        settings: &Settings,
        handover: Option<&Handover>,
    ) -> Result<Sockets, Vec<String>> {
        let proxies = settings
            .listen
            .iter()
            .map(|listen| ("listen", listen.address));
        let wanted: Vec<(&str, SocketAddr)> = proxies
            .chain([("admin_listen", settings.admin_listen)])
            .collect();
        let names: Vec<String> = wanted.iter().enumerate().map(name).collect();
        let mut proxy = match handover {
            Some(handover) => take_over(&names, handover)?,
            None => bind_all(&wanted)?,
        };
        // The admin listener is the last one.
        let admin = proxy
            .pop()
            .ok_or_else(|| vec!["no listener is configured".to_owned()])?;
        Ok(Sockets {
            proxy,
            admin,
            names,
        })
    }

    /// The sockets by name, for a successor that takes them over.
    pub(super) fn named(&self) -> NamedSockets {
        let fds = self
            .proxy
            .iter()
            .chain([&self.admin])
            .map(AsRawFd::as_raw_fd);
        self.names.iter().cloned().zip(fds).collect()
    }

    /// One log line for each listener, with the port that it is bound to.
    pub(super) fn lines(&self) -> Vec<String> {
        let line = |what: &str, listener: &TcpListener| match listener.local_addr() {
            Ok(address) => format!("{what} listening on {address}"),
            Err(error) => format!("{what} listening, address unknown: {error}"),
        };
        let proxies = self.proxy.iter().map(|listener| line("proxy", listener));
        proxies.chain([line("admin", &self.admin)]).collect()
    }
}

/// The name of a listener in a handover. The index distinguishes listeners with port 0;
/// the address reveals that the successor has other settings.
fn name((index, (what, address)): (usize, &(&str, SocketAddr))) -> String {
    format!("{what}/{index}/{address}")
}

fn take_over(names: &[String], handover: &Handover) -> Result<Vec<TcpListener>, Vec<String>> {
    let refuse = |error| vec![format!("upgrade: {error}")];
    let fds = handover.take_over(names).map_err(refuse)?;
    // SAFETY: the descriptors were just received, so nothing else owns them.
    fds.into_iter()
        .map(|fd| unsafe { inherit(fd) }.map_err(refuse))
        .collect()
}

fn bind_all(wanted: &[(&str, SocketAddr)]) -> Result<Vec<TcpListener>, Vec<String>> {
    let mut problems = Vec::new();
    let mut sockets = Vec::new();
    for (what, address) in wanted {
        match bind(*address) {
            Ok(socket) => sockets.push(socket),
            Err(error) => problems.push(format!(
                "cellgate.{what}: cannot listen on {address}: {error}"
            )),
        }
    }
    if problems.is_empty() {
        Ok(sockets)
    } else {
        Err(problems)
    }
}
