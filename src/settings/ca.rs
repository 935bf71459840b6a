//! The certificates that cells are verified against.
//!
//! Pingora panics on a file it cannot use, so a file is tried first, with the
//! very call that Pingora makes.

use std::fs;
use std::path::{Path, PathBuf};

use pingora_core::tls::ssl::{SslConnector, SslConnectorBuilder, SslMethod};
use pingora_core::tls::x509::X509;
use pingora_core::tls::x509::store::X509StoreBuilder;

use super::files::shown;

/// Where systems keep their roots: Debian and Alpine, Red Hat, others.
const SYSTEM_BUNDLES: [&str; 3] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
];

/// Refuses a file without usable certificates.
pub(crate) fn check(path: &Path) -> Result<(), String> {
    let metadata = fs::metadata(path).map_err(|error| cannot_read(path, &error))?;
    if !metadata.is_file() {
        return Err(format!("{} is not a file", shown(path)));
    }
    let pem = fs::read(path).map_err(|error| cannot_read(path, &error))?;
    if memchr::memmem::find(&pem, b"-----BEGIN ").is_none() {
        return Err(format!("{} has no PEM certificate in it", shown(path)));
    }
    SslConnector::builder(SslMethod::tls())
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

/// The first of the system's bundles that can be used.
pub fn system_bundle() -> Option<PathBuf> {
    SYSTEM_BUNDLES
        .iter()
        .map(PathBuf::from)
        .find(|path| check(path).is_ok())
}

/// Trusts what is in `file`, and nothing else: not what the system does, either.
pub(crate) fn trust(builder: &mut SslConnectorBuilder, file: &Path) -> Result<(), String> {
    let pem = fs::read(file).map_err(|error| format!("cannot be read: {error}"))?;
    let roots = X509::stack_from_pem(&pem)
        .ok()
        .filter(|roots| !roots.is_empty())
        .ok_or("no usable PEM certificate in it")?;
    let mut store = X509StoreBuilder::new().map_err(|error| error.to_string())?;
    for root in roots {
        store.add_cert(root).map_err(|error| error.to_string())?;
    }
    builder.set_cert_store(store.build());
    Ok(())
}
