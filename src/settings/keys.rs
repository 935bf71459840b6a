//! All keys by section, and the message for an unknown one.

use super::server;

/// Our sections and their keys, in the order of `conf/edge.yaml`. Maps whose keys the
/// operator chooses (`hosts`) are not listed.
pub(super) const SECTIONS: &[(&str, &[&str])] = &[
    (
        "cellgate",
        &[
            "listen",
            "admin_listen",
            "routing",
            "control_plane",
            "routing_key",
            "access_log",
            "log_format",
            "hosts",
            "dns_refresh",
            "tls",
            "timeouts",
            "limits",
            "trusted_proxies",
            "debug_config_on_proxy",
            "drain_delay",
        ],
    ),
    ("cellgate.listen[]", &["address"]),
    ("cellgate.routing", &["path", "poll_interval"]),
    (
        "cellgate.control_plane",
        &[
            "urls",
            "token_file",
            "ca_file",
            "client_cert",
            "client_key",
            "edge_id",
            "labels",
            "state_dir",
            "promote_after",
        ],
    ),
    ("cellgate.routing_key", &["header"]),
    ("cellgate.tls", &["ca_file"]),
    (
        "cellgate.timeouts",
        &[
            "connect",
            "response_header",
            "request",
            "stream_idle",
            "upstream_idle",
            "client_header",
            "client_idle",
        ],
    ),
    (
        "cellgate.limits",
        &["client_connections", "routing_file_bytes", "header_bytes"],
    ),
];

/// The keys that a file may have.
pub(crate) struct Keys {
    /// Of the top level.
    pub top: fn() -> Vec<&'static str>,
    /// Of the maps below it.
    pub sections: &'static [(&'static str, &'static [&'static str])],
}

/// Those of the edge's settings.
pub(super) static EDGE: Keys = Keys {
    top: || server::keys().chain(["cellgate"]).collect(),
    sections: SECTIONS,
};

impl Keys {
    /// The keys of a section; of the top level for `""`.
    pub fn of(&self, section: &str) -> Vec<&'static str> {
        if section.is_empty() {
            return (self.top)();
        }
        self.sections
            .iter()
            .find(|(name, _)| *name == section)
            .map(|(_, keys)| keys.to_vec())
            .unwrap_or_default()
    }

    /// The message for a key that `section` does not have.
    pub fn unknown(&self, section: &str, key: &str) -> String {
        let known = self.of(section);
        let hint = match nearest(key, &known) {
            Some(near) => format!(" (did you mean {near:?}?)"),
            None => self.elsewhere(section, key).unwrap_or_default(),
        };
        format!("unknown key{hint}; valid here: {}", known.join(", "))
    }

    /// A hint for a known key in the wrong section, mostly a matter of indentation.
    fn elsewhere(&self, section: &str, key: &str) -> Option<String> {
        if !section.is_empty() && self.of("").contains(&key) {
            return Some(format!(
                " here ({key:?} belongs at the top level of the file)"
            ));
        }
        let (home, _) = self
            .sections
            .iter()
            .filter(|(name, _)| *name != section && !name.ends_with("[]"))
            .find(|(_, keys)| keys.contains(&key))?;
        Some(format!(" here ({key:?} belongs under {home:?})"))
    }
}

fn nearest<'a>(key: &str, known: &[&'a str]) -> Option<&'a str> {
    let key = key.to_lowercase().replace('-', "_");
    // One wrong letter in a short key, a third of a long one.
    let most = (key.chars().count() / 3).max(1);
    known
        .iter()
        .map(|known| (strsim::damerau_levenshtein(&key, known), *known))
        .filter(|(distance, _)| *distance <= most)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_keys_are_met_with_the_nearest_known_one() {
        for (section, key, expected) in [
            (
                "cellgate.routing",
                "pth",
                "unknown key (did you mean \"path\"?); valid here: path, poll_interval",
            ),
            (
                "cellgate.routing",
                "poll-Interval",
                "unknown key (did you mean \"poll_interval\"?); valid here: path, poll_interval",
            ),
            (
                "cellgate.routing",
                "flavour",
                "unknown key; valid here: path, poll_interval",
            ),
            (
                "cellgate.routing",
                "threads",
                "unknown key here (\"threads\" belongs at the top level of the file); \
                 valid here: path, poll_interval",
            ),
            (
                "cellgate.tls",
                "connect",
                "unknown key here (\"connect\" belongs under \"cellgate.timeouts\"); \
                 valid here: ca_file",
            ),
        ] {
            assert_eq!(EDGE.unknown(section, key), expected);
        }
        let top = EDGE.unknown("", "thread");
        assert!(
            top.starts_with("unknown key (did you mean \"threads\"?); valid here: blocking_threads_ttl_seconds, "),
            "{top}"
        );
        assert!(top.ends_with(", cellgate"), "{top}");
        let top = EDGE.unknown("", "listen");
        assert!(
            top.starts_with("unknown key here (\"listen\" belongs under \"cellgate\"); "),
            "{top}"
        );
    }
}
