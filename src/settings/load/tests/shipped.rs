//! The files that are shipped say what the code does.

use super::*;
use crate::settings::keys::SECTIONS;

fn shipped(path: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(root.join(path)).unwrap()
}

/// Every key there is, without its section.
fn all_keys() -> impl Iterator<Item = &'static str> {
    let ours = SECTIONS.iter().flat_map(|(_, keys)| keys.iter().copied());
    server::keys().chain(["cellgate"]).chain(ours)
}

#[test]
fn conf_edge_yaml_is_the_defaults() {
    let settings = load(&shipped("conf/edge.yaml"), &[]);
    assert_eq!(settings, load("", &[]));
}

#[test]
fn conf_edge_yaml_has_every_key() {
    let text = shipped("conf/edge.yaml");
    for key in all_keys() {
        let start = format!("{key}:");
        let found = text
            .lines()
            .any(|line| line.trim_start_matches([' ', '#']).starts_with(&start));
        // Of a listener's map there is only a word in a comment.
        assert!(found || key == "address", "{key}");
    }
}

#[test]
fn conf_edge_yaml_with_everything_uncommented_has_only_known_keys() {
    let text = shipped("conf/edge.yaml");
    let is_key = |line: &str| {
        let name = line.split(':').next().unwrap_or_default();
        all_keys().any(|key| key == name)
    };
    // A comment that is a key, too, stands where the key would: after `# `.
    let mut section = "";
    let lines = text.lines().filter_map(|line| {
        let (indent, comment) = line.split_once("# ").unwrap_or((line, ""));
        if let Some(name) = indent
            .strip_prefix("  ")
            .filter(|name| !name.starts_with(' '))
        {
            section = name.split(':').next().unwrap_or_default();
        }
        let alone = indent.trim().is_empty();
        (alone && is_key(comment)).then_some((indent.len(), section, comment))
    });
    let mut seen = 0;
    for (indent, section, line) in lines.filter(|(_, _, line)| !line.contains("/etc/cellgate")) {
        let text = match indent {
            0 => line.to_owned(),
            2 => format!("cellgate:\n  {line}\n"),
            _ => format!("cellgate:\n  {section}:\n    {line}\n"),
        };
        // Directories and users in the examples need not exist here.
        if let Err(problems) = load(&text, &[]) {
            let missing = |problem: &SettingsProblem| problem.message.contains("exists");
            assert!(problems.iter().all(missing), "{line}: {problems:?}");
        }
        seen += 1;
    }
    assert!(seen >= 10, "{seen}");
}

#[test]
fn conf_demo_yaml() {
    let settings = load(&shipped("conf/demo.yaml"), &[]).unwrap();
    assert_eq!(settings.listen[0].address.to_string(), "0.0.0.0:8080");
    assert_eq!(settings.admin_listen.to_string(), "127.0.0.1:9901");
    assert_eq!(settings.routing.path, Path::new("config/routing.json"));
    assert!(settings.debug_config_on_proxy);
    for name in ["cell-tier1", "cell-tier2", "cell-tier3", "cell-visa"] {
        assert_eq!(settings.hosts[name].to_string(), "127.0.0.1");
    }
}

#[test]
fn docs_settings_md_has_every_key() {
    let text = shipped("docs/settings.md");
    let ours = SECTIONS.iter().flat_map(|(section, keys)| {
        let section = section.trim_end_matches("[]");
        keys.iter().map(move |key| format!("{section}.{key}"))
    });
    for key in server::keys().map(str::to_owned).chain(ours) {
        // A section is there by its keys.
        let found = [format!("`{key}`"), format!("`{key}.")]
            .iter()
            .any(|quoted| text.contains(quoted));
        assert!(found || key == "cellgate.listen.address", "{key}");
    }
    for variable in [
        "CONFIG_PATH",
        "CONTROL_PLANE_URL",
        "PORT",
        "RUST_LOG",
        "SSL_CERT_FILE",
    ] {
        assert!(text.contains(&format!("`{variable}`")), "{variable}");
    }
}

#[test]
fn docs_logs_md_has_the_default_filter() {
    let text = shipped("docs/logs.md");
    assert!(text.contains(crate::telemetry::logging::DEFAULT_FILTER));
}
