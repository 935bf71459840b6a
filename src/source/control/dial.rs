//! Opens a connection to a control plane: token and TLS files, DNS, TCP, TLS, and the
//! upgrade to a WebSocket.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use http::HeaderValue;
use tokio::net::{TcpStream, lookup_host};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout};
use url::Url;

use super::ControlOptions;
use super::link::Link;
use super::upgrade::upgrade;
use crate::client::{Address, Alpn, Tls, TlsFiles, secure};
use crate::files::token;

/// Deadline from reading the files to the answer to the upgrade.
const DIAL: Duration = Duration::from_secs(10);

/// Connects to `url`.
///
/// # Errors
/// Why there is no connection, for an operator.
pub(super) async fn dial(options: &ControlOptions, url: &Url) -> Result<Link, String> {
    match timeout(DIAL, dial_now(options, url)).await {
        Ok(dialled) => dialled,
        Err(_) => Err(format!("no answer within {DIAL:?}")),
    }
}

async fn dial_now(options: &ControlOptions, url: &Url) -> Result<Link, String> {
    let deadline = Instant::now() + DIAL;
    let Some(address) = Address::of(url) else {
        return Err("the URL has no host".to_owned());
    };
    let files = {
        let options = options.clone();
        let secure = url.scheme() == "wss";
        spawn_blocking(move || {
            let token = options.token_file.as_deref().map(bearer).transpose()?;
            let tls = secure.then(|| tls(&options)).transpose()?;
            Ok::<_, String>((token, tls))
        })
    };
    let (token, tls) = files.await.map_err(|error| error.to_string())??;
    let addresses = resolve(options, &address).await?;
    // A random first address spreads edges, and avoids that a dead one always costs
    // its share of the time.
    let first = rand::random::<u32>() as usize;
    let left = deadline.saturating_duration_since(Instant::now());
    let stream = connect_to(addresses, first, left).await?;
    if token.is_some() && tls.is_none() {
        let peer = stream.peer_addr().map_err(|error| error.to_string())?;
        check_plain(peer)?;
    }
    let stream = secure(stream, &address.host, tls.as_ref())
        .await
        .map_err(|error| error.to_string())?;
    let (upgraded, dialect) = upgrade(url, token, stream).await?;
    Ok(Link::new(upgraded, dialect, options.document_bytes).await)
}

fn bearer(path: &Path) -> Result<HeaderValue, String> {
    let token = token::read(path).map_err(|why| format!("token_file: {why}"))?;
    let value = HeaderValue::try_from(format!("Bearer {token}"));
    let mut value = value.map_err(|error| format!("token_file {}: {error}", path.display()))?;
    value.set_sensitive(true);
    Ok(value)
}

fn tls(options: &ControlOptions) -> Result<Tls, String> {
    let Some(ca_file) = &options.ca_file else {
        return Err(
            "no certificates to verify it against (set cellgate.control_plane.ca_file)".to_owned(),
        );
    };
    let identity = options.client_identity.as_ref();
    let files = TlsFiles {
        ca_file: Some(ca_file),
        client_cert: identity.map(|(cert, _)| cert.as_path()),
        client_key: identity.map(|(_, key)| key.as_path()),
    };
    Tls::new(files, Alpn::Http1).map_err(|error| error.to_string())
}

async fn resolve(options: &ControlOptions, address: &Address) -> Result<Vec<SocketAddr>, String> {
    let Address { host, port } = address;
    let literal = host.parse::<IpAddr>().ok();
    let configured = || options.hosts.get(&host.to_ascii_lowercase()).copied();
    if let Some(known) = literal.or_else(configured) {
        return Ok(vec![SocketAddr::new(known, *port)]);
    }
    let found = lookup_host((host.as_str(), *port)).await;
    let found: Vec<_> = found
        .map_err(|error| format!("{host} does not resolve: {error}"))?
        .collect();
    match found.is_empty() {
        true => Err(format!("{host} has no address")),
        false => Ok(found),
    }
}

/// Tries the addresses in turn, beginning with that of index `first`, within `time`
/// for all of them.
async fn connect_to(
    mut addresses: Vec<SocketAddr>,
    first: usize,
    time: Duration,
) -> Result<TcpStream, String> {
    let deadline = Instant::now() + time;
    let count = addresses.len();
    addresses.rotate_left(first.checked_rem(count).unwrap_or_default());
    let mut failure = "no address".to_owned();
    for (tried, address) in addresses.into_iter().enumerate() {
        let left = deadline.saturating_duration_since(Instant::now());
        let share = share(left, count - tried);
        match timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => failure = format!("{address}: {error}"),
            Err(_) => {
                let seconds = share.as_secs_f32();
                failure = format!("{address}: no connection within {seconds:.1} s");
            }
        }
    }
    Err(failure)
}

/// An equal share of `left` for each of so many addresses.
fn share(left: Duration, addresses: usize) -> Duration {
    left / u32::try_from(addresses).unwrap_or(u32::MAX).max(1)
}

/// Whether a token may be sent to `peer` without TLS. The settings allow `ws://` with
/// a token for loopback names only, but such a name may resolve to another address.
fn check_plain(peer: SocketAddr) -> Result<(), String> {
    match peer.ip().to_canonical().is_loopback() {
        true => Ok(()),
        false => Err(format!(
            "{peer} is not a loopback address, and without TLS the token can be read on the \
             network (use wss:// with token_file)"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_goes_to_this_machine_only_without_tls() {
        for (peer, trusted) in [
            ("127.0.0.1:1", true),
            ("127.9.9.9:1", true),
            ("[::1]:1", true),
            ("[::ffff:127.0.0.1]:1", true),
            ("10.0.0.1:1", false),
            ("[::ffff:10.0.0.1]:1", false),
            ("[2001:db8::1]:1", false),
        ] {
            let verdict = check_plain(peer.parse().unwrap());
            assert_eq!(verdict.is_ok(), trusted, "{peer}: {verdict:?}");
        }
    }

    #[test]
    fn each_address_has_its_share_of_the_time() {
        let left = Duration::from_secs(9);
        for (addresses, expected) in [(1, 9), (2, 4), (3, 3), (0, 9)] {
            let share = share(left, addresses).as_secs();
            assert_eq!(share, expected, "{addresses} addresses");
        }
        assert_eq!(share(Duration::ZERO, 3), Duration::ZERO);
    }

    #[tokio::test]
    async fn any_address_of_a_name_will_do() {
        let good = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let good = good.local_addr().map(|address| (good, address)).unwrap();
        let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let refusing = gone.local_addr().unwrap();
        drop(gone);
        // Wherever it begins.
        for first in 0..3 {
            let addresses = vec![refusing, good.1, refusing];
            let stream = connect_to(addresses, first, DIAL).await.unwrap();
            assert_eq!(stream.peer_addr().unwrap(), good.1);
        }
        let error = connect_to(vec![refusing; 2], 1, DIAL).await.unwrap_err();
        assert!(error.starts_with(&format!("{refusing}: ")), "{error}");
        assert!(connect_to(Vec::new(), 7, DIAL).await.is_err());
    }
}
