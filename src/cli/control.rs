//! `cellgate control`: the control plane, wired together.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::timeout;

use super::edge::limits::raise_open_files;
use super::print;
use crate::control::Control;
use crate::control::access::Access;
use crate::control::connect::Limits;
use crate::control::core::Truth;
use crate::control::mirror::{MirrorOptions, RoutingFile};
use crate::control::places::Places;
use crate::control::server::{GRACE, Server, routes};
use crate::control::settings::{Settings, StoreSettings};
use crate::control::store::Store;
use crate::control::store::etcd::EtcdStore;
use crate::control::store::file::{FileOptions, FileStore};
use crate::control::tls::Acceptor;
use crate::http::bind;
use crate::http::ignore_until_handled;
use crate::table;
use crate::telemetry::logging;

/// Run the control plane: keep the routing table, and push every change of it to all edges
///
/// Reads its settings from conf/control.yaml (or the file given with -c), keeps every generation
/// of the routing table, takes changes through the API and from the routing file, and serves until
/// it is told to stop.
///
/// Signals: SIGHUP reads tokens and certificates again, SIGTERM tells the edges and ends, a second
/// one and SIGINT end at once.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Settings file; without it conf/control.yaml if there is one, else the defaults
    #[arg(short, long, value_name = "FILE")]
    conf: Option<PathBuf>,

    /// Check the settings and the routing file, list every problem, and exit 0 or 1
    #[arg(short, long)]
    test: bool,

    /// Listen beyond loopback without tokens: whoever can connect may do everything
    #[arg(long)]
    insecure: bool,
}

/// How long the last lines of the log may take to be written.
const LOG_FLUSH: Duration = Duration::from_secs(1);

/// Connections that are not edges': operators, scrapers, load balancers, and edges
/// that are just connecting.
const OTHERS: usize = 1024;

/// Serves until a signal ends it. Exits 1 when it cannot start, with one line a
/// reason on standard error.
pub fn run(args: Args) -> ExitCode {
    ignore_until_handled();
    let settings = match load(&args) {
        Ok(settings) => settings,
        Err(problems) => return refuse(problems),
    };
    if args.test {
        return match check_routing(&settings) {
            Ok(line) => {
                print::line(line);
                ExitCode::SUCCESS
            }
            Err(problems) => refuse(problems),
        };
    }
    logging::init(settings.log_format);
    raise_open_files("max_edges", settings.max_edges.saturating_add(OTHERS));
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return refuse([error.to_string()]),
    };
    let served = runtime.block_on(serve(&args, settings));
    // What still waits for somebody waits in vain.
    runtime.shutdown_background();
    logging::flush(LOG_FLUSH);
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => refuse([problem]),
    }
}

fn load(args: &Args) -> Result<Settings, Vec<String>> {
    let environment = |name: &str| std::env::var(name).ok();
    Settings::load(args.conf.as_deref(), &environment, args.insecure)
        .map_err(|problems| problems.iter().map(ToString::to_string).collect())
}

fn refuse(problems: impl IntoIterator<Item = String>) -> ExitCode {
    for problem in problems {
        print::error(format_args!("error: {problem}"));
    }
    ExitCode::FAILURE
}

/// What `-t` says when the settings are good.
fn check_routing(settings: &Settings) -> Result<String, Vec<String>> {
    let StoreSettings::File(file) = &settings.store else {
        return Ok("settings are valid".to_owned());
    };
    let path = file.path.display();
    let document = match std::fs::read(&file.path) {
        Ok(document) => document,
        // It is written when there is something to be written to it.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Ok(format!(
                "settings are valid; there is no routing file {path} yet"
            ));
        }
        Err(error) => return Err(vec![format!("cannot read {path}: {error}")]),
    };
    match table::compile(&document) {
        Ok(_) => Ok(format!("settings and routing file {path} are valid")),
        Err(problems) => Err(problems
            .iter()
            .map(|problem| format!("{path}: {problem}"))
            .collect()),
    }
}

/// Serves until a signal ends it.
async fn serve(args: &Args, settings: Settings) -> Result<(), String> {
    let mut signals = Signals::new().map_err(|error| format!("signals: {error}"))?;
    let listener = bind(settings.listen)
        .map_err(|error| format!("listen: cannot listen on {}: {error}", settings.listen))?;
    let address = listener.local_addr().map_err(|error| error.to_string())?;
    let tls = settings.tls.as_ref().map(Acceptor::new).transpose()?;
    let tls = tls.map(Arc::new);
    let store = open_store(&settings).await?;
    let truth = Truth::open(store)
        .await
        .map_err(|error| error.to_string())?;
    let access = match client_ca(&settings) {
        Some(_) => Access::with_certificates(settings.tokens.clone()),
        None => Access::new(settings.tokens.clone()),
    };
    let mut control = Control::new(&settings.id, truth, access);
    control.document_bytes = settings.document_bytes;
    control.local = address.ip().is_loopback();
    control.limits = Limits {
        max_edges: settings.max_edges,
        max_snapshots: settings.max_snapshots,
        ping: Duration::from_secs(settings.ping_seconds),
    };
    logging::write_in_background(control.metrics.log_dropped.clone());
    warn_of_listeners(&settings, address);
    log::info!("{}", control.truth.store().name());

    let (end, ending) = watch::channel(false);
    let mut mirroring = None;
    if let StoreSettings::File(file) = &settings.store {
        let options = MirrorOptions {
            path: file.path.clone(),
            state: file.directory().join("routing.state"),
            max_bytes: settings.document_bytes,
        };
        let failing = control.metrics.file_error.clone();
        let mirror = RoutingFile::new(options, Arc::clone(&control.truth), failing);
        control.file = Some(Arc::clone(&mirror));
        // Edges are to get what was edited meanwhile, and not what was before.
        mirror.start().await;
        let told = end.subscribe();
        mirroring = Some(tokio::spawn(async move { mirror.keep(told).await }));
    }
    let mut following = tokio::spawn({
        let truth = Arc::clone(&control.truth);
        async move { truth.follow().await }
    });
    let server = Server {
        listener,
        tls: tls.clone(),
        places: Places::new(settings.max_edges, OTHERS),
        metrics: Arc::clone(&control.metrics),
    };
    let router = routes(control.clone(), ending.clone());
    let mut serving = tokio::spawn(server.serve(router, ending));
    log::info!("control listening on {address}");
    log::info!("ready");

    loop {
        tokio::select! {
            served = &mut serving => {
                return Err(match served {
                    Ok(Err(error)) => format!("the listener failed: {error}"),
                    _ => "the listener failed".to_owned(),
                });
            }
            ended = &mut following => return Err(broken_off("following the store", ended)),
            ended = until_it_ends(&mut mirroring) => {
                return Err(broken_off("keeping the routing file", ended));
            }
            told = signals.next() => match told {
                Told::Reload => reload(args, &settings, address, &control, tls.as_deref()),
                Told::End => break,
            },
        }
    }
    log::info!("ending");
    end.send_replace(true);
    let drained = async {
        let _ = (&mut serving).await;
        if let Some(mirroring) = mirroring {
            let _ = mirroring.await;
        }
        // Every WebSocket has a receiver for as long as it lives.
        if timeout(GRACE, end.closed()).await.is_err() {
            log::warn!("cutting the edges that have not left");
        }
    };
    tokio::select! {
        () = drained => {}
        () = signals.end() => log::warn!("told to stop again, leaving at once"),
    }
    following.abort();
    log::info!("ended");
    Ok(())
}

/// Never, if there is no such task.
async fn until_it_ends(task: &mut Option<JoinHandle<()>>) -> Result<(), JoinError> {
    match task {
        Some(task) => task.await,
        None => std::future::pending().await,
    }
}

/// What goes on for as long as the process does has ended, which only a mistake of ours
/// can do. Without it, edges would be left behind without a word.
fn broken_off(what: &str, ended: Result<(), JoinError>) -> String {
    match ended {
        Ok(()) => format!("{what} ended"),
        Err(error) => format!("{what} broke off: {error}"),
    }
}

async fn open_store(settings: &Settings) -> Result<Arc<dyn Store>, String> {
    match &settings.store {
        StoreSettings::File(file) => {
            let options = FileOptions {
                data_dir: file.directory(),
                history: settings.history,
                history_bytes: settings.history_bytes,
            };
            let opened = tokio::task::spawn_blocking(|| FileStore::open(options)).await;
            match opened {
                Ok(Ok(store)) => Ok(Arc::new(store)),
                Ok(Err(error)) => Err(error.to_string()),
                Err(error) => Err(format!("opening the store broke off: {error}")),
            }
        }
        StoreSettings::Etcd(etcd) => {
            let store =
                EtcdStore::new(etcd, settings.history).map_err(|error| error.to_string())?;
            Ok(Arc::new(store))
        }
    }
}

/// What an operator should know before somebody else finds out.
fn warn_of_listeners(settings: &Settings, bound: SocketAddr) {
    let certificates = client_ca(settings).is_some();
    if settings.tokens.is_empty() && certificates {
        log::warn!(
            "tls.client_ca without tokens: edges can connect, and nobody can use the API or ctl"
        );
    }
    if bound.ip().is_loopback() {
        return;
    }
    if settings.tokens.is_empty() && !certificates {
        log::warn!("--insecure: whoever can connect may do everything");
    } else if settings.tls.is_none() {
        log::warn!("without tls, tokens can be read on the way here");
    }
}

/// Takes over what can change without a restart: tokens and certificates. All or
/// nothing.
fn reload(
    args: &Args,
    before: &Settings,
    bound: SocketAddr,
    control: &Control,
    tls: Option<&Acceptor>,
) {
    let problems = match load(args) {
        Ok(settings) => match prepare(&settings, before, bound, args.insecure) {
            Ok(acceptor) => return take_over(settings, acceptor, before, control, tls),
            Err(problem) => vec![problem],
        },
        Err(problems) => problems,
    };
    for problem in problems {
        log::error!("reload: {problem}");
    }
    log::error!("reload: nothing has changed");
}

/// What the new settings need, made without touching what is there.
fn prepare(
    settings: &Settings,
    before: &Settings,
    bound: SocketAddr,
    insecure: bool,
) -> Result<Option<Acceptor>, String> {
    permitted(settings, before, bound, insecure)?;
    settings.tls.as_ref().map(Acceptor::new).transpose()
}

/// Whether these settings may take the place of those from before. Who is let in at
/// all was decided at the start, for the address that is listened on, which is not
/// always the one that stands in the file by now.
///
/// # Errors
/// Why not.
fn permitted(
    settings: &Settings,
    before: &Settings,
    bound: SocketAddr,
    insecure: bool,
) -> Result<(), String> {
    let asks = |settings: &Settings| client_ca(settings).is_some();
    let guarded = !settings.tokens.is_empty() || asks(settings);
    if !guarded && !insecure && !bound.ip().is_loopback() {
        return Err(format!(
            "neither tokens nor tls.client_ca, while listening on {bound}: anyone who can connect \
             could send tenants where they like"
        ));
    }
    let has = |settings: &Settings| {
        [
            ("tls", settings.tls.is_some()),
            ("tls.client_ca", asks(settings)),
            ("tokens", !settings.tokens.is_empty()),
        ]
    };
    for ((what, now), (_, then)) in has(settings).into_iter().zip(has(before)) {
        if now != then {
            let turned = if now { "on" } else { "off" };
            return Err(format!("{what} is turned {turned} by a restart only"));
        }
    }
    Ok(())
}

fn client_ca(settings: &Settings) -> Option<&Path> {
    settings.tls.as_ref()?.client_ca.as_deref()
}

/// Nothing in here fails.
fn take_over(
    settings: Settings,
    acceptor: Option<Acceptor>,
    before: &Settings,
    control: &Control,
    tls: Option<&Acceptor>,
) {
    let others = |settings: &Settings| Settings {
        tokens: Vec::new(),
        tls: None,
        ..settings.clone()
    };
    if others(before) != others(&settings) {
        log::warn!("reload: other settings than tokens and tls are read at start only");
    }
    if let (Some(tls), Some(acceptor)) = (tls, acceptor) {
        tls.replace(acceptor);
    }
    control.access.replace(settings.tokens);
    log::info!("reload: tokens and certificates are those of the files");
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Told {
        tokio::select! {
            Some(()) = self.hangup.recv() => Told::Reload,
            () = end(&mut self.terminate, &mut self.interrupt) => Told::End,
        }
    }

    async fn end(&mut self) {
        end(&mut self.terminate, &mut self.interrupt).await;
    }
}

async fn end(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

/// What the process was told.
enum Told {
    Reload,
    End,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::access::{Role, Token};
    use crate::control::settings::Tls;

    fn settings(tls: Option<Option<&str>>, tokens: usize) -> Settings {
        let token = |index| Token::new(format!("t{index}"), &format!("s{index}"), Role::ALL.into());
        Settings {
            tls: tls.map(|client_ca| Tls {
                cert: "cert.pem".into(),
                key: "key.pem".into(),
                client_ca: client_ca.map(PathBuf::from),
            }),
            tokens: (0..tokens).map(token).collect(),
            ..Settings::default()
        }
    }

    #[test]
    fn a_reload_lets_in_nobody_else() {
        let (here, beyond) = ("127.0.0.1:1", "0.0.0.0:1");
        let ca = Some(Some("ca.pem"));
        for (before, after, bound, insecure, refused) in [
            ((None, 1), (None, 2), beyond, false, None),
            ((ca, 0), (Some(Some("other.pem")), 0), beyond, false, None),
            ((None, 0), (None, 0), here, false, None),
            ((None, 0), (None, 0), beyond, true, None),
            // Whatever the file says of the address.
            (
                (None, 1),
                (None, 0),
                beyond,
                false,
                Some("neither tokens nor tls.client_ca"),
            ),
            (
                (ca, 0),
                (Some(None), 0),
                beyond,
                false,
                Some("neither tokens nor tls.client_ca"),
            ),
            (
                (None, 1),
                (None, 0),
                here,
                false,
                Some("tokens is turned off"),
            ),
            (
                (None, 0),
                (None, 1),
                here,
                false,
                Some("tokens is turned on"),
            ),
            (
                (ca, 1),
                (Some(None), 1),
                beyond,
                false,
                Some("tls.client_ca is turned off"),
            ),
            (
                (Some(None), 1),
                (ca, 1),
                beyond,
                false,
                Some("tls.client_ca is turned on"),
            ),
            (
                (Some(None), 1),
                (None, 1),
                beyond,
                false,
                Some("tls is turned off"),
            ),
            ((None, 1), (ca, 0), beyond, false, Some("tls is turned on")),
        ] {
            let of = |(tls, tokens)| settings(tls, tokens);
            let bound = bound.parse().unwrap();
            let said = permitted(&of(after), &of(before), bound, insecure);
            match refused {
                None => assert_eq!(said, Ok(()), "{before:?} -> {after:?}"),
                Some(why) => {
                    let said = said.unwrap_err();
                    assert!(said.contains(why), "{before:?} -> {after:?}: {said}");
                }
            }
        }
    }
}
