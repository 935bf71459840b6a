//! Files of trusted certificates: checked when the settings are read, so that a bad
//! one is a problem to report. Pingora panics on a file that it cannot load.

use std::fs;
use std::path::{Path, PathBuf};

use pingora_core::tls::ssl::{SslContext, SslMethod};

use super::files::shown;

/// The usual paths of the system's root certificates: Debian and Alpine, Red Hat,
/// others.
const SYSTEM_BUNDLES: [&str; 3] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
];

/// Checks that Pingora can load `path`, with the call that Pingora makes.
///
/// # Errors
/// The file cannot be read, or holds no usable PEM certificate.
pub(crate) fn check(path: &Path) -> Result<(), String> {
    let metadata = fs::metadata(path).map_err(|error| cannot_read(path, &error))?;
    if !metadata.is_file() {
        return Err(format!("{} is not a file", shown(path)));
    }
    let pem = fs::read(path).map_err(|error| cannot_read(path, &error))?;
    if memchr::memmem::find(&pem, b"-----BEGIN ").is_none() {
        return Err(format!("{} has no PEM certificate in it", shown(path)));
    }
    SslContext::builder(SslMethod::tls())
        .and_then(|mut builder| builder.set_ca_file(path))
        .map_err(|error| {
            format!(
                "{} has no usable PEM certificate in it: {error}",
                shown(path)
            )
        })
}

fn cannot_read(path: &Path, error: &std::io::Error) -> String {
    format!("cannot read {}: {error}", shown(path))
}

/// The first usable one of [`SYSTEM_BUNDLES`].
pub fn system_bundle() -> Option<PathBuf> {
    SYSTEM_BUNDLES
        .iter()
        .map(PathBuf::from)
        .find(|path| check(path).is_ok())
}
