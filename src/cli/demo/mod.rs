//! `cellgate demo`: four cells and an edge on this machine, and what to try on them.

mod children;
mod tour;

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use self::children::{Children, Exit};
use super::fetch::get;
use super::print;
use crate::settings::Settings;

/// The cells of config/routing.json: names and ports.
const CELLS: [(&str, u16); 4] = [
    ("tier1", 9001),
    ("tier2", 9002),
    ("tier3", 9003),
    ("visa", 9004),
];

/// Everything starts on this machine, so what is not up after this long is not coming up.
const START_DEADLINE: Duration = Duration::from_secs(20);

const PROBE_INTERVAL: Duration = Duration::from_millis(50);
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// Run four demo cells and an edge on this machine, and print what to try
///
/// Starts the cells tier1, tier2, tier3 and visa on 127.0.0.1:9001 to 9004 and an edge in front of them,
/// each a process of its own. Run it in the directory that holds conf/ and config/. Ctrl-C ends all of it.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Settings of the demo's edge
    #[arg(short, long, value_name = "FILE", default_value = "conf/demo.yaml")]
    conf: PathBuf,
}

/// Runs until Ctrl-C or SIGTERM (exit 0), or until a part of the demo fails to start or dies (exit 1).
pub fn run(args: Args) -> ExitCode {
    // One thread on purpose: the kernel ends the children when the *thread* that started them ends.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(demo(&args)),
        Err(error) => Err(vec![format!("cannot start: {error}")]),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(problems) => {
            for problem in problems {
                print::error(format_args!("demo: {problem}"));
            }
            ExitCode::FAILURE
        }
    }
}

async fn demo(args: &Args) -> Result<(), Vec<String>> {
    let addresses = Addresses::read(&args.conf)?;
    ports_are_free(&addresses)?;

    let mut stop =
        Stop::listen().map_err(|error| vec![format!("cannot catch signals: {error}")])?;
    let mut children = Children::default();
    let ended = tokio::select! {
        ended = start_and_watch(&mut children, args, &addresses) => ended,
        () = stop.requested() => Ok(()),
    };
    tokio::select! {
        () = children.end() => {}
        // Asked a second time: no more patience. Dropping the children kills them.
        () = stop.requested() => {}
    }
    ended.map_err(|problem| vec![problem])
}

/// Returns only when something went wrong.
async fn start_and_watch(
    children: &mut Children,
    args: &Args,
    addresses: &Addresses,
) -> Result<(), String> {
    for (name, port) in CELLS {
        let listen = format!("127.0.0.1:{port}");
        children.start(
            &format!("cell {name}"),
            // So that the tour can make one sick.
            &["cell", "--control", "--name", name, "--listen", &listen],
        )?;
    }
    for (name, port) in CELLS {
        let url = format!("http://127.0.0.1:{port}/health");
        answers(children, &format!("cell {name}"), &url).await?;
    }
    let conf = args.conf.to_string_lossy();
    children.start("edge", &["edge", "-c", &conf])?;
    answers(
        children,
        "edge",
        &format!("http://{}/readyz", addresses.admin),
    )
    .await?;

    print::line(tour::text(addresses));
    Err(died(children.first_exit().await))
}

/// Waits until `url` answers 200. A child that ends meanwhile, or the deadline, is an error.
async fn answers(children: &mut Children, name: &str, url: &str) -> Result<(), String> {
    let answered = async {
        let mut last = String::from("no answer yet");
        let probing = async {
            loop {
                match get(url, PROBE_TIMEOUT).await {
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
        "{} ended by itself ({}); its last lines above say why",
        exit.name, exit.status
    )
}

/// Names every port that is taken, before anything starts: a stranger that answers on one of them would
/// otherwise pass for a cell.
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
                "{name} needs {address}, and another program listens there (`ss -ltnp` names it)"
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

/// Where the edge will listen, and what it will read.
struct Addresses {
    proxy: SocketAddr,
    admin: SocketAddr,
    /// The routing file, which the tour tells the reader to edit.
    routing: PathBuf,
}

impl Addresses {
    /// From the settings that the edge itself will read, environment included.
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

/// Ctrl-C and SIGTERM.
struct Stop {
    interrupt: Signal,
    terminate: Signal,
}

impl Stop {
    fn listen() -> io::Result<Stop> {
        Ok(Stop {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn requested(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
