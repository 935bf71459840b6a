//! Pingora's keys: those with bounds of ours one by one, the others as Pingora has them.

use super::*;
use crate::settings::ServerSettings;

macro_rules! row {
    ($field:ident, $default:literal, $good:literal => $shown:literal, $bad:literal => $message:literal) => {
        Row {
            key: stringify!($field),
            show: |settings| format!("{:?}", settings.server_conf(false, false).unwrap().1.$field),
            default: $default,
            good: $good,
            shown: $shown,
            bad: &[($bad, $message)],
        }
    };
}

fn rows() -> Vec<Row> {
    vec![
        row!(listener_tasks_per_fd, "1", "4" => "4", "0" => "got 0, want a whole number from 1 to 1024"),
        row!(max_blocking_threads, "None", "16" => "Some(16)", "0" => "got 0, want a whole number from 1 to 100000"),
        row!(grace_period_seconds, "Some(30)", "0" => "Some(0)", "null" => "got no value, want a whole number from 0 to 86400"),
        row!(graceful_shutdown_timeout_seconds, "Some(5)", "1" => "Some(1)", "-1" => "got -1, want a whole number from 0 to 86400"),
        row!(upgrade_sock_connect_accept_max_retries, "None", "30" => "Some(30)", "0" => "got 0, want a whole number from 1 to 3600"),
        row!(user, "None", "daemon" => "Some(\"daemon\")", "no one" => "got \"no one\", want a user that exists on this system"),
        row!(group, "None", "daemon" => "Some(\"daemon\")", "0" => "got 0, which Pingora refuses: invalid type: integer `0`, expected a string"),
        row!(working_directory, "None", "/" => "Some(\"/\")", "/nowhere" => "got \"/nowhere\", want a directory that exists"),
        row!(upstream_keepalive_pool_size, "1024", "64" => "64", "0" => "got 0, want a whole number from 1 to 1000000"),
        row!(max_retries, "16", "1" => "1", "0" => "got 0, want a whole number from 1 to 100"),
        row!(client_bind_to_ipv4, "[]", "[127.0.0.1]" => "[\"127.0.0.1\"]", "[127.0.0.1, \"::1\"]" => "got \"::1\" in the list, want IPv4 addresses"),
        row!(client_bind_to_ipv6, "[]", "[\"::1\"]" => "[\"::1\"]", "::1" => "got \"::1\", want a list of IPv6 addresses"),
        row!(runtime_metrics_poll_time_histogram_buckets, "None", "20" => "Some(20)", "1025" => "got 1025, want a whole number from 1 to 1024"),
    ]
}

#[test]
fn each_key() {
    for row in rows() {
        row.check();
    }
}

#[test]
fn threads_are_as_many_as_there_are_cores() {
    let cores = std::thread::available_parallelism().unwrap().get();
    assert_eq!(load("", &[]).unwrap().server.threads, cores);
    assert_eq!(load("threads: 7", &[]).unwrap().server.threads, 7);
    assert_eq!(
        refused("threads: 0", &[]),
        ["edge.yaml:1:10: threads: got 0, want a whole number from 1 to 1024"]
    );
}

/// Whatever key Pingora has is known, keeps its default, takes its own value, and is
/// refused with its place when Pingora refuses it.
#[test]
fn the_others_pass_through() {
    let defaults = serde_json::to_value(&*ServerSettings::default()).unwrap();
    let defaults = defaults.as_object().unwrap();
    assert!(defaults.len() > 30, "{}", defaults.len());
    for (key, default) in defaults.iter().filter(|(key, _)| *key != "ca_file") {
        let written = match default {
            serde_json::Value::Null => continue,
            other => other.to_string(),
        };
        let settings = load(&format!("{key}: {written}"), &[]).unwrap();
        assert_eq!(settings.server, ServerSettings::default(), "{key}");
        let problems = refused(&format!("{key}: {{}}"), &[]);
        let place = format!("edge.yaml:1:{}: {key}: got a map, ", key.len() + 3);
        assert!(problems[0].starts_with(&place), "{problems:?}");
    }
    assert_eq!(
        refused(
            "error_log: 1\nruntime_metrics_poll_time_histogram_scale: cubic",
            &[]
        ),
        [
            "edge.yaml:1:12: error_log: got 1, which Pingora refuses: invalid type: integer `1`, \
             expected a string",
            "edge.yaml:2:44: runtime_metrics_poll_time_histogram_scale: got \"cubic\", which Pingora \
             refuses: unknown variant `cubic`, expected `linear` or `log`",
        ]
    );
    for key in [
        "max_blocking_threads",
        "runtime_metrics_poll_time_histogram_buckets",
    ] {
        load(&format!("{key}: null"), &[]).unwrap();
    }
    assert_eq!(
        refused(
            "upgrade_sock: \"\"\nupstream_connect_offload_threadpools: 5000",
            &[]
        ),
        [
            "edge.yaml:1:15: upgrade_sock: got \"\", want a text",
            "edge.yaml:2:39: upstream_connect_offload_threadpools: got 5000, want a whole number \
             from 1 to 1024",
        ]
    );
    let set = load("fast_timeout_to_tokio_threshold_seconds: null", &[]).unwrap();
    assert_eq!(set.server.fast_timeout_to_tokio_threshold_seconds, None);
}

#[test]
fn the_command_line_is_passed_on() {
    let settings = load("", &[]).unwrap();
    let (opt, conf) = settings.server_conf(false, false).unwrap();
    assert!(!opt.upgrade && !opt.daemon && !opt.test && opt.conf.is_none());
    assert!(!conf.daemon);
    assert_eq!(conf.working_directory, None);

    let (opt, conf) = settings.server_conf(true, true).unwrap();
    assert!(opt.upgrade && opt.daemon && conf.daemon);
    let here = std::env::current_dir().unwrap();
    assert_eq!(conf.working_directory, Some(here), "not /");
}

#[test]
fn relative_paths_keep_their_meaning_in_another_directory() {
    let text = "working_directory: /\npid_file: a.pid\ncellgate: {access_log: ./a.log}\n";
    let settings = load(text, &[]).unwrap();
    let here = std::env::current_dir().unwrap();
    assert_eq!(settings.routing.path, here.join("config/routing.json"));
    assert_eq!(
        settings.access_log,
        AccessLogTarget::File(here.join("a.log"))
    );
    let conf = settings.server_conf(false, true).unwrap().1;
    assert_eq!(conf.pid_file, here.join("a.pid").display().to_string());
    assert_eq!(conf.upgrade_sock, "/tmp/cellgate_upgrade.sock");
    assert_eq!(conf.working_directory, Some("/".into()));
}
