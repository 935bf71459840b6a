//! What is printed, the environment, and files that cannot be used.

use super::*;

#[test]
fn all_problems_at_once_in_the_order_of_the_file() {
    let text = "\
threds: 4
cellgate:
  listen: [127.0.0.1:80, nowhere]
  timeouts:
    conect: 5s
    request: 0s
    request: 1s
  threads: 2
bogus: 1
";
    let problems = refused(text, &[("PORT", "eighty")]);
    let starts = [
        "edge.yaml:1:1: threds: unknown key (did you mean \"threads\"?); valid here: blocking_threads_ttl_seconds, ",
        "edge.yaml:3:26: cellgate.listen[1]: got \"nowhere\", want an IP address and a port, ",
        "edge.yaml:5:5: cellgate.timeouts.conect: unknown key (did you mean \"connect\"?); \
         valid here: connect, response_header, ",
        "edge.yaml:6:14: cellgate.timeouts.request: got \"0s\", want a duration from ",
        "edge.yaml:7:5: cellgate.timeouts.request: this key is here twice, first in line 6",
        "edge.yaml:8:3: cellgate.threads: unknown key here (\"threads\" belongs at the top level \
         of the file); valid here: listen, admin_listen, ",
        "edge.yaml:9:1: bogus: unknown key; valid here: blocking_threads_ttl_seconds, ",
        "PORT: got \"eighty\", want a port from 0 to 65535",
    ];
    assert_eq!(problems.len(), starts.len(), "{problems:#?}");
    for (problem, start) in problems.iter().zip(starts) {
        assert!(problem.starts_with(start), "{problem}\n{start}");
    }
}

#[test]
fn not_yaml() {
    assert_eq!(
        refused("cellgate:\n  listen: [a\n", &[]),
        ["edge.yaml:2:11: not YAML: unclosed bracket '['"]
    );
    let [problem] = refused("- a\n- b\n", &[]).try_into().unwrap();
    assert!(
        problem.starts_with(
            "edge.yaml:1:1: got a list, want a map with keys: blocking_threads_ttl_seconds, "
        ),
        "{problem}"
    );
}

#[test]
fn a_key_cannot_break_the_line() {
    let [problem] = refused("\"a\\nb\": 1\n", &[]).try_into().unwrap();
    assert!(
        problem.starts_with("edge.yaml:1:1: a\\nb: unknown key; "),
        "{problem}"
    );
}

#[test]
fn the_environment_wins() {
    let text = "cellgate: {listen: [127.0.0.1:1, 127.0.0.1:2], routing: {path: from-file}}";
    let settings = load(text, &[("PORT", "3"), ("CONFIG_PATH", "from-env")]).unwrap();
    let ports: Vec<u16> = settings.listen.iter().map(|at| at.address.port()).collect();
    assert_eq!(ports, [3, 2]);
    assert_eq!(settings.routing.path, Path::new("from-env"));

    // Empty is as good as not set: how containers unset what an image set.
    let settings = load(text, &[("PORT", ""), ("CONFIG_PATH", "")]).unwrap();
    assert_eq!(settings.listen[0].address.port(), 1);
    assert_eq!(settings.routing.path, Path::new("from-file"));

    let settings = load("", &[("PORT", "0")]).unwrap();
    assert_eq!(settings.listen[0].address.to_string(), "0.0.0.0:0");
}

#[test]
fn a_bad_variable_is_named() {
    for port in ["65536", "-1", "80a", "127.0.0.1:80"] {
        assert_eq!(
            refused("", &[("PORT", port)]),
            [format!("PORT: got {port:?}, want a port from 0 to 65535")]
        );
    }
    assert_eq!(
        refused(
            "cellgate: {listen: [0.0.0.0:80, 0.0.0.0:81]}",
            &[("PORT", "81")]
        ),
        [
            "edge.yaml:1:33: cellgate.listen[1]: got 0.0.0.0:81, want an address that is free: \
          PORT has 0.0.0.0:81"
        ]
    );
    assert_eq!(
        refused("", &[("PORT", "9901")]),
        [
            "cellgate.admin_listen: got 127.0.0.1:9901, want an address that is free: \
          PORT has 0.0.0.0:9901"
        ]
    );
}

#[test]
fn files() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("edge.yaml");
    let no_env = |_: &str| None;
    let one_problem = || -> String {
        let [problem] = Settings::load(Some(&file), &no_env)
            .unwrap_err()
            .try_into()
            .unwrap();
        let text = problem.to_string();
        let text = text.strip_prefix(&file.display().to_string());
        text.unwrap().to_owned()
    };
    assert_eq!(
        one_problem(),
        ": cannot read the settings: No such file or directory (os error 2)"
    );
    std::fs::write(&file, b"a: \xff").unwrap();
    assert_eq!(
        one_problem(),
        ": cannot read the settings: stream did not contain valid UTF-8"
    );
    std::fs::write(&file, vec![b'#'; 2 << 20]).unwrap();
    assert_eq!(
        one_problem(),
        ": cannot read the settings: it has more than 1048576 bytes"
    );
    std::fs::write(&file, "threads: 3").unwrap();
    let settings = Settings::load(Some(&file), &no_env).unwrap();
    assert_eq!(settings.server.threads, 3);
}

/// Found out before the edge leaves the terminal.
#[test]
fn what_a_daemon_needs() {
    let text = "\
pid_file: /no/such/edge.pid
error_log: /no/such/edge.log
user: no one
group: no group
";
    let accounts = [
        "edge.yaml:3:7: user: got \"no one\", want a user that exists on this system",
        "edge.yaml:4:8: group: got \"no group\", want a group that exists on this system",
    ];
    let files = [
        "edge.yaml:1:11: pid_file: got \"/no/such/edge.pid\", want a path in a directory that exists: \
         /no/such does not",
        "edge.yaml:2:12: error_log: got \"/no/such/edge.log\", want a path in a directory that exists: \
         /no/such does not",
    ];
    assert_eq!(refused(text, &[]), accounts);
    let all = [&files[..], &accounts[..]].concat();
    assert_eq!(refused(&format!("{text}daemon: true"), &[]), all);
    // By the command line.
    let draft = Settings::read_text(Some(Path::new("edge.yaml")), text, &|_| None, true);
    let problems: Vec<String> = draft.problems.iter().map(ToString::to_string).collect();
    assert_eq!(problems, all);
}

/// A mistake may hide which routing file was meant.
#[test]
fn the_routing_file_that_is_meant() {
    let known = |text: &str, env: &[(&str, &str)]| {
        let env = |name: &str| {
            let value = env.iter().find(|(known, _)| *known == name);
            value.map(|(_, value)| (*value).to_owned())
        };
        Settings::read_text(None, text, &env, false).routing_path_is_known
    };
    for (expected, text) in [
        (true, ""),
        (true, "threads: 2"),
        (true, "cellgate: {routing: {path: a.json}}"),
        (true, "thread: 2\ncellgate: {routing: {path: a.json}}"),
        (false, "thread: 2"),
        (false, "cellgat: {routing: {path: a.json}}"),
        (false, "cellgate: {routing: {path: 1}}"),
        (false, "cellgate: {routing: [a.json]}"),
        (false, "cellgate: {routing: {path: a.json}"),
    ] {
        assert_eq!(known(text, &[]), expected, "{text}");
    }
    assert!(known("thread: 2", &[("CONFIG_PATH", "a.json")]));
}

#[test]
fn certificates() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let (good, other, none, bad) = (path("good"), path("other"), path("none"), path("bad"));
    std::fs::write(&good, CERTIFICATE).unwrap();
    std::fs::write(&other, CERTIFICATE).unwrap();
    std::fs::write(&none, "no certificate").unwrap();
    let broken = CERTIFICATE.replace("MII", "AAA");
    std::fs::write(&bad, broken).unwrap();
    let ours = |file: &str| format!("cellgate: {{tls: {{ca_file: {file}}}}}\n");
    let pingoras = |file: &str| format!("ca_file: {file}\n");

    for (text, env, expected) in [
        (ours(&good), &[][..], &good),
        (pingoras(&good), &[][..], &good),
        (ours(&good) + &pingoras(&good), &[][..], &good),
        (ours(&good), &[("SSL_CERT_FILE", other.as_str())][..], &good),
        (
            String::new(),
            &[("SSL_CERT_FILE", other.as_str())][..],
            &other,
        ),
    ] {
        let settings = load(&text, env).unwrap();
        assert_eq!(
            settings.tls.ca_file.as_deref(),
            Some(Path::new(expected)),
            "{text}"
        );
        let conf = settings.server_conf(false, false).unwrap().1;
        assert_eq!(conf.ca_file.as_ref(), Some(expected), "{text}");
    }

    let system = load("", &[]).unwrap().tls.ca_file;
    assert_eq!(system, ca::system_bundle());

    for (file, message) in [
        (
            path("missing"),
            ": cannot read ".to_owned() + &path("missing"),
        ),
        (
            none.clone(),
            format!(": {none} has no PEM certificate in it"),
        ),
        (
            bad.clone(),
            format!(": {bad} has no usable PEM certificate in it: "),
        ),
        (
            dir.path().display().to_string(),
            format!(": {} is not a file", dir.path().display()),
        ),
    ] {
        for (key, text) in [
            ("edge.yaml:1:27: cellgate.tls.ca_file", ours(&file)),
            ("edge.yaml:1:10: ca_file", pingoras(&file)),
        ] {
            let [problem] = refused(&text, &[]).try_into().unwrap();
            let expected = format!("{key}{message}");
            assert!(problem.starts_with(&expected), "{problem}\n{expected}");
        }
        let [problem] = refused("", &[("SSL_CERT_FILE", &file)]).try_into().unwrap();
        let expected = format!("SSL_CERT_FILE{message}");
        assert!(problem.starts_with(&expected), "{problem}\n{expected}");
    }

    assert_eq!(
        refused(&(ours(&good) + &pingoras(&other)), &[]),
        [format!(
            "edge.yaml:2:10: ca_file: got {other:?}, want the file of cellgate.tls.ca_file \
             ({good:?}), or only one of both"
        )]
    );
}

/// Self-signed, P-256, for "Cellgate test".
const CERTIFICATE: &str = "\
-----BEGIN CERTIFICATE-----
MIIBhjCCAS2gAwIBAgIURNymR68xqlobJVmBWYev85FgXHYwCgYIKoZIzj0EAwIw
GDEWMBQGA1UEAwwNQ2VsbGdhdGUgdGVzdDAgFw0yNjExMjMyMzQ1MDNaGA8yMTI2
MTAzMDIzNDUwM1owGDEWMBQGA1UEAwwNQ2VsbGdhdGUgdGVzdDBZMBMGByqGSM49
AgEGCCqGSM49AwEHA0IABBwdorXgUjoORnpZBW8PrrcDb3F1ynSyAfaJDB2dEm42
0cy3+SW9zug8+IaP+aCEdyY4dE4MNj1mn9JDnEQHXbSjUzBRMB0GA1UdDgQWBBT8
sHJjy2NRmqSc6zR8qw2gl0Me+zAfBgNVHSMEGDAWgBT8sHJjy2NRmqSc6zR8qw2g
l0Me+zAPBgNVHRMBAf8EBTADAQH/MAoGCCqGSM49BAMCA0cAMEQCIBJrbdnADeWb
yrJGbaMoCU4LUCvoCCDOHFyL3FzMZzFuAiAJdA7UjzxZ9XVXPYO7XsEr2BS39gCT
yWWG2eXi7xzg3g==
-----END CERTIFICATE-----
";

mod properties {
    use proptest::prelude::*;

    use super::*;

    /// Whatever is loaded: settings, or at least one problem, each on one line.
    fn settings_or_problems(text: &str) -> Result<(), TestCaseError> {
        // A small file in place of the system's keeps a case fast.
        let env = [(
            "SSL_CERT_FILE",
            concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"),
        )];
        let problems = load_as(Some("edge.yaml"), text, &env).unwrap_err();
        prop_assert!(!problems.is_empty());
        for problem in problems {
            let line = problem.to_string();
            prop_assert!(!line.chars().any(char::is_control), "{:?}", line);
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn any_text(text in any::<String>()) {
            settings_or_problems(&text)?;
        }

        #[test]
        fn the_shipped_file_with_a_piece_missing_or_put_in(
            (from, length) in (0usize..4000, 0usize..40),
            piece in "[-a-z0-9:{}\\[\\],'\"#&*!|> \n\t]{0,12}",
        ) {
            let file = concat!(env!("CARGO_MANIFEST_DIR"), "/conf/edge.yaml");
            let mut text = std::fs::read_to_string(file).unwrap();
            let from = from.min(text.len());
            let to = (from + length).min(text.len());
            text.replace_range(from..to, &piece);
            settings_or_problems(&text)?;
        }
    }
}
