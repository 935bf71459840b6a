//! Runs the demo: four cells and an edge in front of them, each a process of its own.

use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::children::{Children, Exit};
use crate::client::get;
use crate::settings::Settings;

/// The cells of config/routing.json: names and ports.
const CELLS: [(&str, u16); 4] = [
    ("tier1", 9001),
    ("tier2", 9002),
    ("tier3", 9003),
    ("visa", 9004),
];

/// A process that is not up after this time is not going to be: all of them are local.
const START_DEADLINE: Duration = Duration::from_secs(20);

const PROBE_INTERVAL: Duration = Duration::from_millis(50);
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
/// The largest answer to a probe, in bytes.
const PROBE_BYTES: usize = 1 << 20;

/// Runs the demo with the settings file `conf` until `stop` resolves, then stops all
/// processes in order. If `stop` resolves a second time, they are killed.
///
/// Has to run on the main thread: Linux kills the processes when the thread that
/// started them ends.
///
/// # Errors
/// Why the demo cannot start, or which process stopped unexpectedly.
pub async fn run(conf: &Path, mut stop: impl AsyncFnMut()) -> Result<(), Vec<String>> {
    let addresses = Addresses::read(conf)?;
    ports_are_free(&addresses)?;

    let mut children = Children::default();
    let ended = tokio::select! {
        ended = start_and_watch(&mut children, conf, &addresses) => ended,
        () = stop() => Ok(()),
    };
    tokio::select! {
        () = children.end() => {}
        // Dropping the children kills them.
        () = stop() => {}
    }
    ended.map_err(|problem| vec![problem])
}

/// Returns only when something fails.
async fn start_and_watch(
    children: &mut Children,
    conf: &Path,
    addresses: &Addresses,
) -> Result<(), String> {
    for (name, port) in CELLS {
        let listen = format!("127.0.0.1:{port}");
        children.start(
            &format!("cell {name}"),
            // The tour makes one of them fail.
            &["cell", "--control", "--name", name, "--listen", &listen],
        )?;
    }
    for (name, port) in CELLS {
        let url = format!("http://127.0.0.1:{port}/health");
        answers(children, &format!("cell {name}"), &url).await?;
    }
    let conf = conf.to_string_lossy();
    children.start("edge", &["edge", "-c", &conf])?;
    answers(
        children,
        "edge",
        &format!("http://{}/readyz", addresses.admin),
    )
    .await?;

    let _ = writeln!(io::stdout(), "{}", tour(addresses));
    Err(died(children.first_exit().await))
}

/// Waits until `url` answers with a 2xx status.
///
/// # Errors
/// A process ended meanwhile, or the deadline passed.
async fn answers(children: &mut Children, name: &str, url: &str) -> Result<(), String> {
    let answered = async {
        let mut last = String::from("no answer yet");
        let probing = async {
            loop {
                match get(url, PROBE_BYTES, PROBE_TIMEOUT).await {
                    Ok(answer) if answer.status.is_success() => return,
                    Ok(answer) => last = format!("the last answer was {}", answer.status),
                    Err(error) => last = error,
                }
                tokio::time::sleep(PROBE_INTERVAL).await;
            }
        };
        match tokio::time::timeout(START_DEADLINE, probing).await {
            Ok(()) => Ok(()),
            Err(_) => Err(format!(
                "{name} was not up after {}: {last}",
                humantime::format_duration(START_DEADLINE)
            )),
        }
    };
    tokio::select! {
        biased;
        exit = children.first_exit() => Err(died(exit)),
        answered = answered => answered,
    }
}

fn died(exit: Exit) -> String {
    format!(
        "{} stopped unexpectedly ({}); see its last log lines above",
        exit.name, exit.status
    )
}

/// Checks that all ports are free, before anything starts. Otherwise another program that answers on one
/// of them would pass for a cell.
fn ports_are_free(addresses: &Addresses) -> Result<(), Vec<String>> {
    let cells = CELLS.map(|(name, port)| {
        (
            format!("cell {name}"),
            SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
        )
    });
    let edge = [
        ("edge".to_owned(), addresses.proxy),
        ("edge admin".to_owned(), addresses.admin),
    ];
    let problems: Vec<String> = cells
        .into_iter()
        .chain(edge)
        .filter_map(|(name, address)| match TcpListener::bind(address) {
            Ok(_) => None,
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => Some(format!(
                "{name} needs {address}, where another program listens (`ss -ltnp` shows which)"
            )),
            Err(error) => Some(format!("{name} cannot listen on {address}: {error}")),
        })
        .collect();
    if problems.is_empty() {
        Ok(())
    } else {
        Err(problems)
    }
}

/// Where the edge is going to listen, and its routing file.
struct Addresses {
    proxy: SocketAddr,
    admin: SocketAddr,
    /// The routing file, which the reader edits during the tour.
    routing: PathBuf,
}

impl Addresses {
    /// From the settings that the edge is going to read, environment included.
    fn read(conf: &Path) -> Result<Addresses, Vec<String>> {
        is_here(conf).map_err(|problem| vec![problem])?;
        let settings = Settings::load(Some(conf), &|name| std::env::var(name).ok())
            .map_err(|problems| problems.iter().map(ToString::to_string).collect::<Vec<_>>())?;
        let proxy = settings
            .listen
            .first()
            .map_or(settings.admin_listen, |first| first.address);
        let addresses = Addresses {
            proxy,
            admin: settings.admin_listen,
            routing: settings.routing.path,
        };
        is_here(&addresses.routing).map_err(|problem| vec![problem])?;
        Ok(addresses)
    }
}

fn is_here(path: &Path) -> Result<(), String> {
    if path.is_file() {
        return Ok(());
    }
    Err(format!(
        "there is no {} here; run the demo in the directory of the project, which holds conf/ and \
         config/",
        path.display()
    ))
}

/// What to try, printed once everything is up.
fn tour(addresses: &Addresses) -> String {
    let port = addresses.proxy.port();
    let admin = addresses.admin;
    let routing = addresses.routing.display();
    let proxy = format!("http://localhost:{port}");
    format!(
        "
Four cells and an edge are running. The edge logs each request below here, as one JSON line.

  A tenant of a shared cell, and one with a dedicated cell (see X-Routed-To and X-Route-Reason):
    curl -i -H 'X-Routing-Key: acme' {proxy}/hello
    curl -i -H 'X-Routing-Key: visa' '{proxy}/pay?amount=1'

  An unknown key goes to the default cell; a request without a key is refused:
    curl -i -H 'X-Routing-Key: nobody' {proxy}/
    curl -i {proxy}/

  The routing table that the edge serves, and where a key goes and why:
    curl {proxy}/debug/config
    curl http://{admin}/debug/config
    curl 'http://{admin}/debug/route?key=acme'

  Move acme to another cell while the edge runs, and back:
    sed -i 's/\"acme\": \"tier1\"/\"acme\": \"tier2\"/' {routing}
    curl -i -H 'X-Routing-Key: acme' {proxy}/hello
    sed -i 's/\"acme\": \"tier2\"/\"acme\": \"tier1\"/' {routing}

  Break the routing file: the edge keeps serving, and shows the mistake as last_error:
    sed -i 's/\"acme\": \"tier1\"/\"acme\": \"tier9\"/' {routing}
    curl http://{admin}/debug/config
    sed -i 's/\"acme\": \"tier9\"/\"acme\": \"tier1\"/' {routing}

  Let a cell fail: its tenants are served by its fallback (see X-Failover-Reason):
    cp config/resilience.json {routing}
    curl -X PUT localhost:9001/_cell/misbehaviour -d '{{\"status\":503}}'
    for i in 1 2 3 4 5 6; do curl -so /dev/null -w '%{{http_code}}\n' -H 'X-Routing-Key: acme' {proxy}/; done
    curl -i -H 'X-Routing-Key: acme' {proxy}/hello
    curl 'http://{admin}/debug/placements?placement=tier1'
    curl -X PUT localhost:9001/_cell/misbehaviour -d '{{}}'

  Metrics, and the index of the admin service:
    curl http://{admin}/metrics
    curl http://{admin}/

Ctrl-C stops the edge and its cells.
"
    )
}
