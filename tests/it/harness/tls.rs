//! A certificate authority for tests, and cells and control planes with certificates from it.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;

use boring::asn1::Asn1Time;
use boring::bn::{BigNum, MsbOption};
use boring::ec::{EcGroup, EcKey};
use boring::hash::MessageDigest;
use boring::nid::Nid;
use boring::pkey::{PKey, Private};
use boring::ssl::{Ssl, SslAcceptor, SslConnector, SslMethod, SslVerifyMode};
use boring::x509::extension::{BasicConstraints, KeyUsage, SubjectAlternativeName};
use boring::x509::{X509, X509Builder, X509Name};
use pingora_core::tls::tokio_ssl::SslStream;
use tokio::net::TcpStream;

use super::cell::{Cell, Conn};
use super::fake_control::{Dialect, FakeControl};
use super::wire::Stream;

/// Signs certificates.
pub struct Authority {
    certificate: X509,
    key: PKey<Private>,
}

/// A certificate and its key.
pub struct Identity {
    certificate: X509,
    key: PKey<Private>,
}

impl Authority {
    pub fn new(name: &str) -> Authority {
        let (mut builder, key) = begin(name, 0, 1);
        builder.set_issuer_name(&subject(name)).expect("issuer");
        let ca = BasicConstraints::new()
            .critical()
            .ca()
            .build()
            .expect("constraints");
        builder.append_extension(&ca).expect("constraints");
        let usage = KeyUsage::new()
            .critical()
            .key_cert_sign()
            .crl_sign()
            .build()
            .expect("usage");
        builder.append_extension(&usage).expect("usage");
        builder.sign(&key, MessageDigest::sha256()).expect("sign");
        Authority {
            certificate: builder.build(),
            key,
        }
    }

    /// Writes the certificate for `tls.ca_file`.
    pub fn write(&self, path: &Path) {
        let pem = self.certificate.to_pem().expect("PEM");
        std::fs::write(path, pem).expect("write the CA file");
    }

    /// A certificate for a host name or an address.
    pub fn issue(&self, host: &str) -> Identity {
        self.issue_for(host, 0, 1)
    }

    /// An expired certificate.
    pub fn issue_expired(&self, host: &str) -> Identity {
        self.issue_for(host, -3, -1)
    }

    /// Valid from `from` to `to`, in days from now.
    fn issue_for(&self, host: &str, from: i64, to: i64) -> Identity {
        let (mut builder, key) = begin(host, from, to);
        builder
            .set_issuer_name(self.certificate.subject_name())
            .expect("issuer");
        let mut names = SubjectAlternativeName::new();
        match host.parse::<std::net::IpAddr>() {
            Ok(_) => names.ip(host),
            Err(_) => names.dns(host),
        };
        let context = builder.x509v3_context(Some(&self.certificate), None);
        let names = names.build(&context).expect("names");
        builder.append_extension(&names).expect("names");
        builder
            .sign(&self.key, MessageDigest::sha256())
            .expect("sign");
        Identity {
            certificate: builder.build(),
            key,
        }
    }
}

impl Identity {
    /// Writes the certificate and its key to files.
    pub fn write(&self, certificate: &Path, key: &Path) {
        let pem = self.certificate.to_pem().expect("PEM");
        std::fs::write(certificate, pem).expect("write the certificate");
        let pem = self.key.private_key_to_pem_pkcs8().expect("PEM");
        std::fs::write(key, pem).expect("write the key");
    }
}

/// A TLS connector that trusts the certificates in a file, and presents a certificate of its own if it has
/// one.
pub fn tls_client(trusted: &Path, own: Option<&Identity>) -> SslConnector {
    let mut connector = SslConnector::builder(SslMethod::tls()).expect("a connector");
    connector
        .set_ca_file(trusted)
        .expect("trusted certificates");
    if let Some(own) = own {
        connector
            .set_certificate(&own.certificate)
            .expect("certificate");
        connector.set_private_key(&own.key).expect("key");
    }
    connector.build()
}

fn begin(name: &str, from: i64, to: i64) -> (X509Builder, PKey<Private>) {
    const DAY: i64 = 86_400;
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).expect("a curve");
    let key = PKey::from_ec_key(EcKey::generate(&group).expect("a key")).expect("a key");
    let mut builder = X509::builder().expect("a builder");
    builder.set_version(2).expect("version");
    let mut serial = BigNum::new().expect("a number");
    serial
        .rand(127, MsbOption::MAYBE_ZERO, false)
        .expect("a number");
    builder
        .set_serial_number(&serial.to_asn1_integer().expect("a number"))
        .expect("serial");
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("a clock");
    let now = i64::try_from(now.as_secs()).expect("a clock");
    // A minute back, since rounding to seconds can put "now" into the future.
    let time = |days: i64| Asn1Time::from_unix(now - 60 + days * DAY).expect("a time");
    builder.set_not_before(&time(from)).expect("from");
    builder.set_not_after(&time(to)).expect("to");
    builder.set_subject_name(&subject(name)).expect("subject");
    builder.set_pubkey(&key).expect("key");
    (builder, key)
}

fn subject(name: &str) -> X509Name {
    let mut subject = X509Name::builder().expect("a name");
    subject
        .append_entry_by_nid(Nid::COMMONNAME, name)
        .expect("a name");
    subject.build()
}

/// A control plane behind TLS. With `clients`, edges must present a certificate of this authority.
pub async fn tls_control(
    dialect: Dialect,
    identity: &Identity,
    clients: Option<&Authority>,
) -> FakeControl {
    let mut acceptor = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls()).expect("an acceptor");
    acceptor
        .set_certificate(&identity.certificate)
        .expect("certificate");
    acceptor.set_private_key(&identity.key).expect("key");
    if let Some(clients) = clients {
        let trusted = clients.certificate.clone();
        acceptor.cert_store_mut().add_cert(trusted).expect("trust");
        acceptor.set_verify(SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT);
    }
    let acceptor = acceptor.build();
    let handshake = move |stream: TcpStream| {
        let ssl = Ssl::new(acceptor.context()).map_err(io::Error::other);
        async move {
            let mut stream = SslStream::new(ssl?, stream).map_err(io::Error::other)?;
            Pin::new(&mut stream)
                .accept()
                .await
                .map_err(io::Error::other)?;
            let shown = stream.ssl().peer_certificate();
            let name = shown.and_then(|shown| {
                let name = shown.subject_name().entries().next()?;
                Some(String::from_utf8_lossy(name.data().as_slice()).into_owned())
            });
            Ok((Box::new(stream) as Box<dyn Stream>, name))
        }
    };
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    FakeControl::over("wss", dialect, address, handshake).await
}

/// A cell behind TLS that answers every request with its name.
pub async fn tls_cell(name: &str, identity: &Identity) -> Cell {
    let mut acceptor = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls()).expect("an acceptor");
    acceptor
        .set_certificate(&identity.certificate)
        .expect("certificate");
    acceptor.set_private_key(&identity.key).expect("key");
    let acceptor = acceptor.build();
    let script = |mut conn: Conn| async move {
        while conn.request().await?.is_some() {
            conn.reply().await?;
        }
        Ok(())
    };
    Cell::over(name, script, move |stream: TcpStream| {
        let ssl = Ssl::new(acceptor.context()).map_err(io::Error::other);
        async move {
            let mut stream = SslStream::new(ssl?, stream).map_err(io::Error::other)?;
            Pin::new(&mut stream)
                .accept()
                .await
                .map_err(io::Error::other)?;
            Ok(stream)
        }
    })
    .await
}
