//! SIGHUP: tokens and certificates are read again.

use std::net::SocketAddr;
use std::path::Path;

use super::{Args, load};
use crate::control::Control;
use crate::control::server::Acceptor;
use crate::control::settings::Settings;

/// Reads the settings again, and replaces tokens and certificates, which need no
/// restart. Either all of them are replaced, or none.
pub(super) fn reload(
    args: &Args,
    before: &Settings,
    bound: SocketAddr,
    control: &Control,
    tls: Option<&Acceptor>,
) {
    let problems = match load(args) {
        Ok(settings) => match prepare(&settings, before, bound, args.insecure) {
            Ok(acceptor) => return replace(settings, acceptor, before, control, tls),
            Err(problem) => vec![problem],
        },
        Err(problems) => problems,
    };
    for problem in problems {
        log::error!("reload: {problem}");
    }
    log::error!("reload: nothing has changed");
}

/// Checks the new settings, and opens what they need, without changing anything.
fn prepare(
    settings: &Settings,
    before: &Settings,
    bound: SocketAddr,
    insecure: bool,
) -> Result<Option<Acceptor>, String> {
    permitted(settings, before, bound, insecure)?;
    settings.tls.as_ref().map(Acceptor::new).transpose()
}

/// Whether `settings` may replace those of `before`. `bound` is the address that the
/// process listens on, which may no longer be the one in the file.
///
/// # Errors
/// Why they may not.
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
             could change the routing table"
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
            return Err(format!("{what} can be turned {turned} by a restart only"));
        }
    }
    Ok(())
}

/// Cannot fail.
fn replace(
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
        log::warn!("reload: settings other than tokens and tls need a restart");
    }
    if let (Some(tls), Some(acceptor)) = (tls, acceptor) {
        tls.replace(acceptor);
    }
    control.access.replace(settings.tokens);
    log::info!("reload: tokens and certificates replaced");
}

/// The file of certificates that clients are verified against, if they are.
pub(super) fn client_ca(settings: &Settings) -> Option<&Path> {
    settings.tls.as_ref()?.client_ca.as_deref()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

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
                Some("tokens can be turned off"),
            ),
            (
                (None, 0),
                (None, 1),
                here,
                false,
                Some("tokens can be turned on"),
            ),
            (
                (ca, 1),
                (Some(None), 1),
                beyond,
                false,
                Some("tls.client_ca can be turned off"),
            ),
            (
                (Some(None), 1),
                (ca, 1),
                beyond,
                false,
                Some("tls.client_ca can be turned on"),
            ),
            (
                (Some(None), 1),
                (None, 1),
                beyond,
                false,
                Some("tls can be turned off"),
            ),
            (
                (None, 1),
                (ca, 0),
                beyond,
                false,
                Some("tls can be turned on"),
            ),
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
