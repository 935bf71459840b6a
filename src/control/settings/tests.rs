//! Settings as an operator meets them: text in, settings or problems out.

use std::fs;
use std::path::Path;

use super::read::{SECTIONS, TOP};
use super::{Settings, StoreSettings};
use crate::control::access::{Access, Role};
use crate::settings::SettingsProblem;

fn load(text: &str) -> Result<Settings, Vec<SettingsProblem>> {
    load_with(text, &[], false)
}

fn load_with(
    text: &str,
    env: &[(&str, &str)],
    insecure: bool,
) -> Result<Settings, Vec<SettingsProblem>> {
    let env = |name: &str| {
        let value = env.iter().find(|(known, _)| *known == name);
        value.map(|(_, value)| (*value).to_owned())
    };
    Settings::parse(Some(Path::new("control.yaml")), text, &env, insecure)
}

fn refused(text: &str) -> Vec<String> {
    let problems = load(text).unwrap_err();
    problems.iter().map(ToString::to_string).collect()
}

fn shipped(path: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    fs::read_to_string(root.join(path)).unwrap()
}

#[test]
fn without_a_file_there_are_defaults() {
    let settings = load("").unwrap();
    assert_eq!(settings.listen.to_string(), "127.0.0.1:8081");
    let StoreSettings::File(file) = &settings.store else {
        panic!("{:?}", settings.store);
    };
    assert_eq!(file.path, Path::new("config/routing.json"));
    assert_eq!(file.directory(), Path::new("config/routing.json.d"));
    assert_eq!((settings.history, settings.max_edges), (1000, 10_000));
    assert_eq!((settings.max_snapshots, settings.ping_seconds), (8, 15));
    assert_eq!(settings.document_bytes, 1 << 30);
    assert!(settings.tokens.is_empty() && settings.tls.is_none());
}

#[test]
fn conf_control_yaml_is_the_defaults_and_has_every_key() {
    let text = shipped("conf/control.yaml");
    assert_eq!(load(&text), load(""));
    let keys = SECTIONS.iter().flat_map(|(_, keys)| keys.iter());
    for key in TOP.iter().chain(keys) {
        let found = text.contains(&format!("{key}:"));
        assert!(found, "{key}");
    }
}

#[test]
fn docs_control_plane_md_has_every_key() {
    let text = shipped("docs/control-plane.md");
    let below = SECTIONS.iter().flat_map(|(section, keys)| {
        let section = section.trim_end_matches("[]");
        keys.iter().map(move |key| format!("{section}.{key}"))
    });
    for key in TOP.iter().map(|key| (*key).to_owned()).chain(below) {
        // A section is there by its keys.
        let found = [format!("`{key}`"), format!("`{key}.")]
            .iter()
            .any(|quoted| text.contains(quoted));
        assert!(found, "{key}");
    }
}

#[test]
fn everything_can_be_set() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).display().to_string();
    fs::write(path("token"), "  secret-of-the-fleet\n").unwrap();
    let text = format!(
        "listen: 0.0.0.0:9000\n\
         tokens:\n\
         - {{name: ops, token: secret-of-ops, roles: [write]}}\n\
         - {{name: fleet, token_file: {}, roles: [edge, read]}}\n\
         store: {{file: {{path: {}, data_dir: {}}}}}\n\
         history: 5\nhistory_bytes: 1GiB\nmax_edges: 7\nmax_snapshots: 2\nping_seconds: 3\n\
         document_bytes: 64MiB\nid: control-1\nlog_format: json\n",
        path("token"),
        path("routing.json"),
        path("data"),
    );
    let settings = load(&text).unwrap();
    assert_eq!(settings.listen.to_string(), "0.0.0.0:9000");
    assert_eq!((settings.history, settings.history_bytes), (5, 1 << 30));
    assert_eq!((settings.max_edges, settings.max_snapshots), (7, 2));
    assert_eq!(
        (settings.ping_seconds, settings.document_bytes),
        (3, 64 << 20)
    );
    assert_eq!(settings.id, "control-1");
    let StoreSettings::File(file) = &settings.store else {
        panic!("{:?}", settings.store);
    };
    assert_eq!(file.directory(), Path::new(&path("data")));
    let access = Access::new(settings.tokens);
    let who = |secret: &str, role| {
        let header = http::HeaderValue::from_str(&format!("Bearer {secret}")).unwrap();
        access.check(Some(&header), role).map(|caller| caller.name)
    };
    assert_eq!(who("secret-of-the-fleet", Role::Edge).unwrap(), "fleet");
    assert_eq!(who("secret-of-ops", Role::Write).unwrap(), "ops");
    assert!(who("secret-of-ops", Role::Edge).is_err());
}

#[test]
fn etcd_can_be_set() {
    let directory = tempfile::tempdir().unwrap();
    let password = directory.path().join("password");
    fs::write(&password, "secret").unwrap();
    let text = format!(
        "store:\n  etcd:\n    endpoints: [http://127.0.0.1:2379, 'https://[::1]:2379']\n    \
         prefix: /routing\n    username: cellgate\n    password_file: {}\n",
        password.display()
    );
    let StoreSettings::Etcd(etcd) = load(&text).unwrap().store else {
        panic!("it is the file store");
    };
    let endpoints: Vec<&str> = etcd.endpoints.iter().map(url::Url::as_str).collect();
    assert_eq!(endpoints, ["http://127.0.0.1:2379/", "https://[::1]:2379/"]);
    assert_eq!(etcd.prefix, "/routing");
    assert_eq!(etcd.username.as_deref(), Some("cellgate"));
    assert_eq!(etcd.password_file, Some(password));
}

#[test]
fn the_environment_wins() {
    let env = [("PORT", "9999"), ("CONFIG_PATH", "elsewhere/r.json")];
    let settings = load_with("listen: 127.0.0.1:1\n", &env, false).unwrap();
    assert_eq!(settings.listen.to_string(), "127.0.0.1:9999");
    let StoreSettings::File(file) = &settings.store else {
        panic!("{:?}", settings.store);
    };
    assert_eq!(file.directory(), Path::new("elsewhere/r.json.d"));
    let refused = load_with("", &[("PORT", "eighty")], false).unwrap_err();
    let refused = refused[0].to_string();
    assert_eq!(refused, "PORT: got \"eighty\", want a port from 0 to 65535");
    assert_eq!(
        load_with("", &[("PORT", ""), ("CONFIG_PATH", "")], false),
        load("")
    );
}

#[test]
fn beyond_loopback_only_with_tokens_or_in_as_many_words() {
    for address in ["0.0.0.0:8081", "192.0.2.1:8081", "'[::]:8081'"] {
        let text = format!("listen: {address}\n");
        let problems = refused(&text);
        assert_eq!(problems.len(), 1);
        let start = "control.yaml:1:9: listen: got ";
        assert!(problems[0].starts_with(start), "{}", problems[0]);
        assert!(problems[0].contains("--insecure"), "{}", problems[0]);
        assert!(load_with(&text, &[], true).is_ok());
        let guarded = format!("{text}tokens: [{{name: a, token: t, roles: [read]}}]\n");
        assert!(load(&guarded).is_ok());
    }
    for address in ["127.0.0.1:8081", "127.1.2.3:1", "'[::1]:8081'"] {
        assert!(load(&format!("listen: {address}\n")).is_ok(), "{address}");
    }
}

#[test]
fn all_problems_at_once_with_their_places() {
    let text = "\
listn: 127.0.0.1:1
history: 0
ping_seconds: 301
tokens:
- name: file
  token: secret
  roles: [write]
- name: a
  token: two words
  roles: [admin]
- name: b
- {name: c, token: same, roles: [read]}
- {name: c, token: other, roles: [read]}
- {name: d, token: same, roles: []}
store:
  file: {data: x}
";
    let problems = refused(text);
    let expected = [
        "control.yaml:1:1: listn: unknown key (did you mean \"listen\"?)",
        "control.yaml:2:10: history: got 0, want a whole number from 1 to 1000000",
        "control.yaml:3:15: ping_seconds: got 301, want a whole number from 1 to 300",
        "control.yaml:5:9: tokens[0].name: got \"file\", want another name",
        "control.yaml:9:10: tokens[1].token: not a token",
        "control.yaml:10:11: tokens[1].roles[0]: got \"admin\", want edge or read or write",
        "control.yaml:11:3: tokens[2]: want token_file (or token) and roles as well",
        "control.yaml:13:3: tokens[4]: the name of another token",
        "control.yaml:14:33: tokens[5].roles: got an empty list",
        "control.yaml:16:10: store.file.data: unknown key",
    ];
    assert_eq!(problems.len(), expected.len(), "{problems:#?}");
    for (problem, expected) in problems.iter().zip(expected) {
        assert!(problem.starts_with(expected), "{problem}\n{expected}");
    }
}

#[test]
fn what_does_not_go_together() {
    for (text, said) in [
        (
            "store: {file: {}, etcd: {endpoints: [http://a]}}",
            "store.etcd: want only one of file and etcd",
        ),
        ("store: {etcd: {}}", "store.etcd: want endpoints"),
        (
            "store: {etcd: {endpoints: [etcd:2379]}}",
            "store.etcd.endpoints[0]: not the URL of an etcd member",
        ),
        (
            "store: {etcd: {endpoints: [http://a], username: u}}",
            "store.etcd.username: want password_file as well",
        ),
        (
            "store: {etcd: {endpoints: [http://a], prefix: /a/}}",
            "store.etcd.prefix: got \"/a/\"",
        ),
        ("tls: {key: k}", "tls.key: want cert as well"),
        ("tls: {cert: /nowhere, key: k}", "cannot read /nowhere"),
        ("tokens: []", "tokens: got an empty list"),
        (
            "tokens: [{name: a, token: s, token_file: f, roles: [read]}]",
            "want only one of token and token_file",
        ),
        (
            "tokens: [{name: a, token: s, roles: [read]}, {name: b, token: s, roles: [edge]}]",
            "tokens[1]: the secret of another token",
        ),
        ("id: 'a b'", "id: got \"a b\", want a name"),
        ("- a", "got a list, want a map"),
        ("a: [", "not YAML"),
    ] {
        let problems = refused(text);
        let found = problems.iter().any(|problem| problem.contains(said));
        assert!(found, "{text}: {problems:#?}");
    }
}

#[test]
fn a_secret_is_in_no_problem_and_no_debug_output() {
    let text = "tokens: [{name: a, token: 'top secret', roles: [read]}]\n";
    assert!(!refused(text)[0].contains("secret"));
    let settings = load("tokens: [{name: a, token: topsecret, roles: [read]}]").unwrap();
    assert!(!format!("{settings:?}").contains("topsecret"));
}

#[test]
fn a_file_that_is_not_there() {
    let missing = Some(Path::new("/nowhere/control.yaml"));
    let problems = Settings::load(missing, &|_| None, false).unwrap_err();
    let said = problems[0].to_string();
    let start = "/nowhere/control.yaml: cannot read the settings: ";
    assert!(said.starts_with(start), "{said}");
}
