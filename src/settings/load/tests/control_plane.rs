//! `cellgate.control_plane`: rows for its settings, and what depends on more
//! than one of them.

use super::*;

const WANT_URL: &str = "want a ws:// or wss:// URL, such as wss://control:8081/connect";

macro_rules! file {
    ($field:ident) => {
        |settings: &Settings| format!("{:?}", settings.control_plane.$field)
    };
}

pub(super) fn rows() -> Vec<Row> {
    vec![
        Row {
            key: "cellgate.control_plane.urls",
            show: urls,
            default: "",
            good: "[ws://control, \"wss://[::1]:8081/a?b=c\"]",
            shown: "ws://control/connect wss://[::1]:8081/a?b=c",
            bad: &[
                (
                    "ws://control",
                    "got \"ws://control\", want a list of URLs, such as [wss://control:8081/connect]",
                ),
                (
                    "[http://control/connect]",
                    "got \"http://control/connect\", want a ws:// or wss:// URL, such as wss://control:8081/connect",
                ),
                (
                    "[control:8081]",
                    "got \"control:8081\", want a ws:// or wss:// URL, such as wss://control:8081/connect",
                ),
                (
                    "[\"ws://\"]",
                    "got \"ws://\" (empty host), want a ws:// or wss:// URL, such as wss://control:8081/connect",
                ),
                (
                    "[\"ws://control/#a\"]",
                    "got \"ws://control/#a\" with a fragment, want a ws:// or wss:// URL, such as wss://control:8081/connect",
                ),
                (
                    "[\"ws://me:secret@control/\"]",
                    "got a URL with a user name or a password, want a ws:// or wss:// URL, such as \
                     wss://control:8081/connect; secrets go into token_file",
                ),
                (
                    "[ws://control, ws://control/connect]",
                    "\"ws://control/connect\" is here twice",
                ),
                (
                    "[1]",
                    "got 1, want a ws:// or wss:// URL, such as wss://control:8081/connect",
                ),
            ],
        },
        Row {
            key: "cellgate.control_plane.token_file",
            show: file!(token_file),
            default: "None",
            // Any file with one word in it.
            good: "/proc/sys/kernel/ostype",
            shown: "Some(\"/proc/sys/kernel/ostype\")",
            bad: &[
                (
                    "/nowhere/token",
                    "cannot read /nowhere/token: No such file or directory (os error 2)",
                ),
                ("/", "/ is not a file"),
                ("/dev/null", "/dev/null is not a file"),
                (
                    "/proc/version",
                    "/proc/version holds no token (want one word of visible ASCII)",
                ),
            ],
        },
        Row {
            key: "cellgate.control_plane.edge_id",
            show: |settings| match &settings.control_plane.edge_id {
                id if *id == crate::settings::control_plane::host_name() => "the host".to_owned(),
                id => id.clone(),
            },
            default: "the host",
            good: "edge-1",
            shown: "edge-1",
            bad: &[
                ("\"\"", "got \"\", want a name"),
                ("7", "got 7, want a name"),
                (
                    "an edge",
                    "got \"an edge\", want a name of at most 128 bytes of visible ASCII without spaces",
                ),
            ],
        },
        Row {
            key: "cellgate.control_plane.labels",
            show: |settings| format!("{:?}", settings.control_plane.labels),
            default: "{}",
            good: "{region: eu-1, example.com/rack: \"\"}",
            shown: "{\"example.com/rack\": \"\", \"region\": \"eu-1\"}",
            bad: &[
                (
                    "{a b: c}",
                    "got the label \"a b\", want 1 to 63 of: letters, digits, - _ . /",
                ),
                (
                    "{rack: 7}",
                    "got 7, want a text of at most 256 bytes on one line; numbers and truth values need quotes",
                ),
                ("[a]", "got a list, want a map with keys: name: value"),
            ],
        },
        Row {
            key: "cellgate.control_plane.state_dir",
            show: file!(state_dir),
            default: "None",
            // It need not exist.
            good: "/nowhere/state",
            shown: "Some(\"/nowhere/state\")",
            bad: &[("\"\"", "got \"\", want a path")],
        },
        Row {
            key: "cellgate.control_plane.promote_after",
            show: file!(promote_after),
            default: "30s",
            good: "100ms",
            shown: "100ms",
            bad: &[(
                "0s",
                "got \"0s\", want a duration from 100ms to 1day, such as 5s, 500ms or 1m30s",
            )],
        },
    ]
}

fn urls(settings: &Settings) -> String {
    let urls: Vec<&str> = settings
        .control_plane
        .urls
        .iter()
        .map(|url| url.as_str())
        .collect();
    urls.join(" ")
}

#[test]
fn the_variable_wins() {
    let text = "cellgate: {control_plane: {urls: [ws://one]}}";
    let variable = [("CONTROL_PLANE_URL", "ws://two:8081/connect, wss://three")];
    let settings = load(text, &variable).unwrap();
    assert_eq!(urls(&settings), "ws://two:8081/connect wss://three/connect");
    assert_eq!(urls(&load("", &variable).unwrap()), urls(&settings));
    let unset = load(text, &[("CONTROL_PLANE_URL", "")]).unwrap();
    assert_eq!(urls(&unset), "ws://one/connect");
    for (wrong, message) in [
        (
            "ws://a,,ws://b",
            format!("got \"\" (relative URL without a base), {WANT_URL}"),
        ),
        ("http://a", format!("got \"http://a\", {WANT_URL}")),
        (
            "ws://a,ws://a/",
            "\"ws://a/connect\" is here twice".to_owned(),
        ),
    ] {
        assert_eq!(
            refused("", &[("CONTROL_PLANE_URL", wrong)]),
            [format!("CONTROL_PLANE_URL: {message}")]
        );
    }
}

#[test]
fn a_token_is_only_for_those_whom_nobody_overhears() {
    let text = |url: &str| {
        format!(
            "cellgate: {{control_plane: {{token_file: /proc/sys/kernel/ostype, urls: [\"{url}\"]}}}}"
        )
    };
    for private in [
        "wss://control",
        "ws://localhost:1",
        "ws://127.0.0.2",
        "ws://[::1]",
    ] {
        assert!(load(&text(private), &[]).is_ok(), "{private}");
    }
    for heard in [
        "ws://control/connect",
        "ws://10.0.0.1/connect",
        "ws://[2001:db8::1]/connect",
    ] {
        let message = format!(
            "got {heard:?}, want wss:// because of token_file: over ws:// everyone on the way to a \
             host that is not loopback could read the token"
        );
        let place = "edge.yaml:1:72: cellgate.control_plane.urls[0]";
        assert_eq!(refused(&text(heard), &[]), [format!("{place}: {message}")]);
        let environment = [("CONTROL_PLANE_URL", heard)];
        assert_eq!(
            refused(&text("wss://control"), &environment),
            [format!("CONTROL_PLANE_URL: {message}")]
        );
    }
}

#[test]
fn a_client_certificate_comes_with_its_key() {
    for (name, other) in [("client_cert", "client_key"), ("client_key", "client_cert")] {
        let problems = refused(
            &format!("cellgate: {{control_plane: {{{name}: /nowhere/file}}}}"),
            &[],
        );
        let said = problems.iter().any(|problem| {
            problem.ends_with(&format!(
                "cellgate.control_plane.{name}: want {other} as well: a certificate is of use only \
                 with its key"
            ))
        });
        assert!(said, "{problems:?}");
    }
}

#[test]
fn certificates_are_tried() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).display().to_string();
    let (one, other) = (identity(), identity());
    for (name, pem) in [
        ("cert", &one.0),
        ("key", &one.1),
        ("other", &other.1),
        ("none", &b"-----BEGIN nothing".to_vec()),
    ] {
        std::fs::write(path(name), pem).unwrap();
    }
    let text = |cert: &str, key: &str| {
        format!(
            "cellgate: {{control_plane: {{client_cert: {}, client_key: {}, ca_file: {}}}}}",
            path(cert),
            path(key),
            path("cert")
        )
    };
    let settings = load(&text("cert", "key"), &[]).unwrap();
    let of = settings.control_plane;
    for (found, name) in [
        (of.ca_file, "cert"),
        (of.client_cert, "cert"),
        (of.client_key, "key"),
    ] {
        assert_eq!(found, Some(path(name).into()));
    }
    for (cert, key, start) in [
        ("absent", "key", format!("cannot read {}: ", path("absent"))),
        (
            "none",
            "key",
            format!("{} has no usable PEM certificate in it: ", path("none")),
        ),
        (
            "cert",
            "absent",
            format!("cannot read {}: ", path("absent")),
        ),
        (
            "cert",
            "other",
            format!(
                "{} has no PEM key for the certificate in client_cert: ",
                path("other")
            ),
        ),
    ] {
        let [problem] = load(&text(cert, key), &[]).unwrap_err().try_into().unwrap();
        assert!(problem.message.starts_with(&start), "{problem}");
    }
}

/// A certificate of one's own, and its key.
fn identity() -> (Vec<u8>, Vec<u8>) {
    use boring::asn1::Asn1Time;
    use boring::hash::MessageDigest;
    use boring::pkey::PKey;
    use boring::rsa::Rsa;
    use boring::x509::{X509, X509Name};

    let key = PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap();
    let mut name = X509Name::builder().unwrap();
    name.append_entry_by_text("CN", "edge").unwrap();
    let name = name.build();
    let mut cert = X509::builder().unwrap();
    cert.set_subject_name(&name).unwrap();
    cert.set_issuer_name(&name).unwrap();
    cert.set_pubkey(&key).unwrap();
    cert.set_not_before(&Asn1Time::days_from_now(0).unwrap())
        .unwrap();
    cert.set_not_after(&Asn1Time::days_from_now(1).unwrap())
        .unwrap();
    cert.sign(&key, MessageDigest::sha256()).unwrap();
    (
        cert.build().to_pem().unwrap(),
        key.private_key_to_pem_pkcs8().unwrap(),
    )
}
