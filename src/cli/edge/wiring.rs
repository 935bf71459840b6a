//! Makes the parts of an edge, and connects them.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use pingora::apps::http_app::HttpServer;
use pingora::server::configuration::ServerConf;
use pingora::server::{RunArgs, Server};
use pingora::services::background::background_service;
use pingora_proxy::http_proxy;

use super::background::{Follower, Keeper, Logs, Ready};
use super::sockets::Sockets;
use crate::admin::AdminApp;
use crate::background;
use crate::cli::process::raise_open_files;
use crate::exchange::Timeouts;
use crate::http::{ConnConfig, Deadlines, EdgeListener, Handover, Lifecycle, Signals};
use crate::protocol::SnapshotLimits;
use crate::proxy::{EdgeProxy, ProxyConfig};
use crate::settings::{Settings, system_bundle};
use crate::source::{ControlOptions, ControlSource, FileSource, load_initial};
use crate::state::{EdgeOptions, EdgeState, PushLimits, StateDir, StateDirOptions};
use crate::telemetry::{AccessLog, Metrics, logging};
use crate::upstream::{Prober, Resolver};

/// The most connections of the admin service.
const ADMIN_CONNECTIONS: usize = 256;
/// Deadline for writing the last lines of a log.
const LOG_FLUSH: Duration = Duration::from_secs(1);

/// An edge that is ready to serve.
pub(super) struct Edge {
    server: Server,
    signals: Signals,
    access_log: AccessLog,
    state_dir: Option<Arc<StateDir>>,
}

impl Edge {
    /// Does everything that can fail: loads the table, opens the log, opens the
    /// sockets. Starts no thread, since the process may still fork.
    ///
    /// # Errors
    /// One line for each reason why the edge cannot serve.
    pub(super) fn prepare(
        settings: &Settings,
        upgrade: bool,
        daemon: bool,
    ) -> Result<Edge, Vec<String>> {
        // Each client connection may need one to a cell.
        let connections = settings.limits.client_connections.saturating_mul(2);
        raise_open_files("limits.client_connections", connections);
        let metrics = Arc::new(Metrics::new());
        // A table that grows by deltas may become as large as one from a file.
        let SnapshotLimits { keys, bytes } =
            SnapshotLimits::of_document(settings.limits.routing_file_bytes);
        let state = EdgeState::new(
            EdgeOptions {
                hosts: settings.hosts.clone(),
                push_limits: PushLimits { keys, bytes },
            },
            metrics.clone(),
        );
        let state_dir = open_state_dir(settings, &state)?;
        let prepared = Self::assemble(settings, upgrade, daemon, state, metrics, state_dir.clone());
        if let (Err(_), Some(state_dir)) = (&prepared, &state_dir) {
            // Records that this was not a crash.
            state_dir.end();
        }
        prepared
    }

    fn assemble(
        settings: &Settings,
        upgrade: bool,
        daemon: bool,
        state: Arc<EdgeState>,
        metrics: Arc<Metrics>,
        state_dir: Option<Arc<StateDir>>,
    ) -> Result<Edge, Vec<String>> {
        let path = absolute(&settings.routing.path)?;
        load_table(&path, settings, &state, state_dir.as_deref())?;
        background::give_memory_back();
        let access_log = AccessLog::open(&settings.access_log, metrics.access_log_dropped.clone())
            .map_err(|error| vec![format!("cellgate.access_log: {error}")])?;

        let (options, conf) = settings
            .server_conf(false, daemon)
            .map_err(|error| vec![format!("settings of Pingora: {error}")])?;
        let handover = Handover::at(Path::new(&conf.upgrade_sock));
        let sockets = Sockets::open(settings, upgrade.then_some(&handover))?;
        let signals = Signals {
            lifecycle: Arc::new(Lifecycle::new()),
            admin: Arc::new(Lifecycle::new()),
            handover,
            sockets: sockets.named(),
            drain_delay: settings.drain_delay,
            grace: Duration::from_secs(conf.grace_period_seconds.unwrap_or_default()),
        };
        let max_attempts = u32::try_from(conf.max_retries).unwrap_or(u32::MAX);
        let conf = ServerConf {
            // Pingora also counts the attempt after a reused connection broke.
            max_retries: conf.max_retries.saturating_add(1),
            // `Signals` waits for the drain. Pingora would always wait for the whole
            // period.
            grace_period_seconds: Some(0),
            ..conf
        };
        let mut server = Server::new_with_opt_and_conf(options, conf);

        let ready = Ready {
            lifecycle: signals.lifecycle.clone(),
            lines: sockets.lines(),
            handover: upgrade.then(|| signals.handover.clone()),
        };
        let proxy = EdgeProxy::new(
            proxy_config(settings, max_attempts),
            state.clone(),
            signals.lifecycle.clone(),
            metrics.clone(),
            access_log.clone(),
        );
        let edge = EdgeListener::new(
            "edge",
            sockets.proxy,
            http_proxy(&server.configuration, proxy),
            conn_config(settings),
            settings.limits.client_connections,
            signals.lifecycle.clone(),
        )
        .with_metrics(metrics.clone());
        let logs = Logs {
            lifecycle: signals.lifecycle.clone(),
            access: access_log.clone(),
            metrics: metrics.clone(),
        };
        let admin = AdminApp::new(state.clone(), metrics.clone(), signals.lifecycle.clone());
        let mut admin = EdgeListener::new(
            "admin",
            vec![sockets.admin],
            HttpServer::new_app(admin),
            conn_config(settings),
            ADMIN_CONNECTIONS,
            signals.admin.clone(),
        );
        admin.set_threads(1);
        // With a control plane, the file was only needed to start.
        match settings.control_plane.urls.is_empty() {
            true => {
                let file = FileSource::new(
                    path,
                    settings.routing.poll_interval,
                    settings.limits.routing_file_bytes,
                    state.clone(),
                );
                server.add_service(background_service("routing", file));
            }
            false => {
                let control = ControlSource::new(control_options(settings)?, state.clone());
                let lifecycle = signals.lifecycle.clone();
                let follower = Follower { control, lifecycle };
                server.add_service(background_service("control", follower));
            }
        }
        let prober = Prober::new(
            state.watch_placements(),
            state.watch_addresses(),
            &server.configuration,
        );
        let resolver = Resolver::new(state.watch_placements(), metrics, settings.dns_refresh);
        server.add_service(background_service("resolver", resolver));
        server.add_service(background_service("health", prober));
        server.add_service(background_service("log", logs));
        if let Some(state_dir) = state_dir.clone() {
            let lifecycle = signals.lifecycle.clone();
            let keeper = Keeper {
                state_dir,
                lifecycle,
            };
            server.add_service(background_service("state", keeper));
        }
        server.add_service(edge);
        server.add_service(admin);
        server.add_service(background_service("ready", ready));
        Ok(Edge {
            server,
            signals,
            access_log,
            state_dir,
        })
    }

    /// Serves until a signal stops it.
    pub(super) fn serve(self) {
        let Edge {
            server,
            signals,
            access_log,
            state_dir,
        } = self;
        if let Some(state_dir) = state_dir.as_ref().filter(|_| server.configuration.daemon) {
            state_dir.close_before_fork();
        }
        server.run(RunArgs {
            shutdown_signal: Box::new(signals),
        });
        if let Some(state_dir) = state_dir {
            state_dir.end();
        }
        access_log.flush(LOG_FLUSH);
        logging::flush(LOG_FLUSH);
    }
}

/// The tables kept on disk, if the settings name a directory for them.
fn open_state_dir(
    settings: &Settings,
    state: &Arc<EdgeState>,
) -> Result<Option<Arc<StateDir>>, Vec<String>> {
    let Some(dir) = &settings.control_plane.state_dir else {
        return Ok(None);
    };
    let options = StateDirOptions {
        dir: absolute(dir)?,
        max_bytes: settings.limits.routing_file_bytes,
        promote_after: settings.control_plane.promote_after,
    };
    Ok(Some(StateDir::open(
        options,
        state.clone(),
        SystemTime::now(),
    )))
}

/// Loads the table to start with: the last one that this edge served, or else the
/// routing file, or else a kept one that was quarantined.
fn load_table(
    path: &Path,
    settings: &Settings,
    state: &EdgeState,
    state_dir: Option<&StateDir>,
) -> Result<(), Vec<String>> {
    let now = SystemTime::now();
    if state_dir.is_none_or(|state_dir| !state_dir.restore(now)) {
        let loaded = load_initial(path, settings.limits.routing_file_bytes, state);
        if let Err(problems) = loaded
            && state_dir.is_none_or(|state_dir| !state_dir.restore_quarantined(now))
        {
            let named = |problem| format!("{}: {problem}", path.display());
            return Err(problems.iter().map(named).collect());
        }
    }
    if let Some(state_dir) = state_dir {
        state_dir.started(now);
    }
    Ok(())
}

/// The options of the control-plane client.
fn control_options(settings: &Settings) -> Result<ControlOptions, Vec<String>> {
    let of = &settings.control_plane;
    let file = |path: &Option<std::path::PathBuf>| path.as_deref().map(absolute).transpose();
    // Not `tls.ca_file`: cells may have a CA of their own.
    let variable = std::env::var_os("SSL_CERT_FILE").filter(|file| !file.is_empty());
    let ca_file = of.ca_file.clone().or_else(|| variable.map(Into::into));
    let ca_file = ca_file.or_else(system_bundle);
    Ok(ControlOptions {
        urls: of.urls.clone(),
        token_file: file(&of.token_file)?,
        ca_file: file(&ca_file)?,
        client_identity: file(&of.client_cert)?.zip(file(&of.client_key)?),
        edge_id: of.edge_id.clone(),
        labels: of.labels.clone(),
        hosts: settings.hosts.clone(),
        document_bytes: usize::try_from(settings.limits.routing_file_bytes).unwrap_or(usize::MAX),
    })
}

/// `path` from the root, since a daemon changes its working directory.
fn absolute(path: &Path) -> Result<std::path::PathBuf, Vec<String>> {
    std::path::absolute(path).map_err(|error| vec![format!("{}: {error}", path.display())])
}

fn proxy_config(settings: &Settings, max_attempts: u32) -> ProxyConfig {
    ProxyConfig {
        routing_key: settings.routing_key.header.clone(),
        trusted_proxies: settings.trusted_proxies.clone(),
        timeouts: Timeouts {
            connect: settings.timeouts.connect,
            response_header: settings.timeouts.response_header,
            request: settings.timeouts.request,
            stream_idle: settings.timeouts.stream_idle,
            upstream_idle: settings.timeouts.upstream_idle,
        },
        max_attempts,
        debug_config: settings.debug_config_on_proxy,
    }
}

fn conn_config(settings: &Settings) -> ConnConfig {
    ConnConfig {
        client_header: settings.timeouts.client_header,
        client_idle: settings.timeouts.client_idle,
        deadlines: Deadlines {
            response_header: settings.timeouts.response_header,
            request: settings.timeouts.request,
            stream_idle: settings.timeouts.stream_idle,
        },
        header_bytes: settings.limits.header_bytes,
    }
}
