//! The parts of the control plane, wired together.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::timeout;

use super::reload::{client_ca, reload};
use super::{Args, OTHERS};
use crate::cli::process::Stop;
use crate::control::Control;
use crate::control::access::Access;
use crate::control::connect::Limits;
use crate::control::core::Truth;
use crate::control::mirror::{MirrorOptions, RoutingFile};
use crate::control::server::{Acceptor, ConnectionLimits, GRACE, Server, routes};
use crate::control::settings::{Settings, StoreSettings};
use crate::control::store::Store;
use crate::control::store::etcd::EtcdStore;
use crate::control::store::file::{FileOptions, FileStore};
use crate::http::bind;
use crate::telemetry::logging;

/// Serves until a signal stops it.
///
/// # Errors
/// Why it cannot start, or cannot go on.
pub(super) async fn serve(args: &Args, settings: Settings) -> Result<(), String> {
    let signals = |error| format!("cannot handle signals: {error}");
    let mut stop = Stop::listen().map_err(signals)?;
    let mut hangup = signal(SignalKind::hangup()).map_err(signals)?;
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
    log::info!("store: {}", control.truth.store().name());

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
        // Before edges connect, so that they get the edits made while this was stopped.
        mirror.start().await;
        let ending = end.subscribe();
        mirroring = Some(tokio::spawn(async move { mirror.keep(ending).await }));
    }
    let mut following = tokio::spawn({
        let truth = Arc::clone(&control.truth);
        async move { truth.follow().await }
    });
    let server = Server {
        listener,
        tls: tls.clone(),
        limits: ConnectionLimits::new(settings.max_edges, OTHERS),
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
            ended = &mut following => return Err(failed("following the store", ended)),
            ended = joined(&mut mirroring) => {
                return Err(failed("keeping the routing file", ended));
            }
            Some(()) = hangup.recv() => reload(args, &settings, address, &control, tls.as_deref()),
            () = stop.requested() => break,
        }
    }
    log::info!("stopping");
    end.send_replace(true);
    let drained = async {
        let _ = (&mut serving).await;
        if let Some(mirroring) = mirroring {
            let _ = mirroring.await;
        }
        // Every WebSocket holds a receiver while it lives.
        if timeout(GRACE, end.closed()).await.is_err() {
            log::warn!("closing the connections of edges that have not disconnected");
        }
    };
    tokio::select! {
        () = drained => {}
        () = stop.requested() => log::warn!("second signal, stopping at once"),
    }
    following.abort();
    log::info!("stopped");
    Ok(())
}

/// The end of a task; never resolves if there is none.
async fn joined(task: &mut Option<JoinHandle<()>>) -> Result<(), JoinError> {
    match task {
        Some(task) => task.await,
        None => std::future::pending().await,
    }
}

/// These tasks run as long as the process does, so their end is a defect. The process
/// stops then, since edges would no longer get changes.
fn failed(what: &str, ended: Result<(), JoinError>) -> String {
    match ended {
        Ok(()) => format!("{what} ended"),
        Err(error) => format!("{what} failed: {error}"),
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
                Err(error) => Err(format!("opening the store failed: {error}")),
            }
        }
        StoreSettings::Etcd(etcd) => {
            let store =
                EtcdStore::new(etcd, settings.history).map_err(|error| error.to_string())?;
            Ok(Arc::new(store))
        }
    }
}

/// Warns of settings that leave the control plane open, or shut.
fn warn_of_listeners(settings: &Settings, bound: SocketAddr) {
    let certificates = client_ca(settings).is_some();
    if settings.tokens.is_empty() && certificates {
        log::warn!(
            "tls.client_ca is set without tokens: edges can connect, but nobody can use the API or ctl"
        );
    }
    if bound.ip().is_loopback() {
        return;
    }
    if settings.tokens.is_empty() && !certificates {
        log::warn!("--insecure: anyone who can connect can change the routing table");
    } else if settings.tls.is_none() {
        log::warn!("without tls, tokens can be read on the network");
    }
}
