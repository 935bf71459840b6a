//! A row for each of Pingora's keys.

use super::*;
use crate::settings::ServerSettings;

macro_rules! row {
    ($field:ident, $default:literal, $good:literal => $shown:literal, $bad:literal => $message:literal) => {
        Row {
            key: stringify!($field),
            show: |settings| format!("{:?}", settings.server_conf(false, false).1.$field),
            default: $default,
            good: $good,
            shown: $shown,
            bad: &[($bad, $message)],
        }
    };
}

fn rows() -> Vec<Row> {
    vec![
        row!(version, "1", "2" => "2", "one" => "got \"one\", want a whole number from 0 to 1000000"),
        row!(work_stealing, "true", "false" => "false", "no" => "got \"no\", want true or false"),
        row!(listener_tasks_per_fd, "1", "4" => "4", "0" => "got 0, want a whole number from 1 to 1024"),
        row!(max_blocking_threads, "None", "16" => "Some(16)", "0" => "got 0, want a whole number from 1 to 100000"),
        row!(blocking_threads_ttl_seconds, "None", "60" => "Some(60)", "0" => "got 0, want a whole number from 1 to 86400"),
        row!(grace_period_seconds, "Some(30)", "0" => "Some(0)", "null" => "got no value, want a whole number from 0 to 86400"),
        row!(graceful_shutdown_timeout_seconds, "Some(5)", "1" => "Some(1)", "-1" => "got -1, want a whole number from 0 to 86400"),
        row!(upgrade_sock, "\"/tmp/cellgate_upgrade.sock\"", "/run/a.sock" => "\"/run/a.sock\"", "1" => "got 1, want a path"),
        row!(upgrade_sock_connect_accept_max_retries, "None", "30" => "Some(30)", "0" => "got 0, want a whole number from 1 to 3600"),
        row!(daemon, "false", "true" => "true", "1" => "got 1, want true or false"),
        row!(daemon_wait_for_ready, "false", "true" => "true", "1" => "got 1, want true or false"),
        row!(daemon_ready_timeout_seconds, "None", "10" => "Some(10)", "0" => "got 0, want a whole number from 1 to 86400"),
        row!(daemon_notify_timeout_seconds, "None", "null" => "None", "0" => "got 0, want a whole number from 1 to 86400"),
        row!(pid_file, "\"/tmp/cellgate.pid\"", "a.pid" => "\"a.pid\"", "[a]" => "got a list, want a path"),
        row!(error_log, "None", "edge.log" => "Some(\"edge.log\")", "\"\"" => "got \"\", want a path"),
        row!(user, "None", "daemon" => "Some(\"daemon\")", "no one" => "got \"no one\", want a user that exists on this system"),
        row!(group, "None", "daemon" => "Some(\"daemon\")", "0" => "got 0, want the name of a group"),
        row!(working_directory, "None", "/" => "Some(\"/\")", "/nowhere" => "got \"/nowhere\", want a directory that exists"),
        row!(upstream_keepalive_pool_size, "1024", "64" => "64", "0" => "got 0, want a whole number from 1 to 1000000"),
        row!(max_retries, "16", "1" => "1", "0" => "got 0, want a whole number from 1 to 100"),
        row!(client_bind_to_ipv4, "[]", "[127.0.0.1]" => "[\"127.0.0.1\"]", "[127.0.0.1, \"::1\"]" => "got \"::1\" in the list, want IPv4 addresses"),
        row!(client_bind_to_ipv6, "[]", "[\"::1\"]" => "[\"::1\"]", "::1" => "got \"::1\", want a list of IPv6 addresses"),
        row!(upstream_connect_offload_threadpools, "None", "2" => "Some(2)", "0" => "got 0, want a whole number from 1 to 1024"),
        row!(upstream_connect_offload_thread_per_pool, "None", "2" => "Some(2)", "0" => "got 0, want a whole number from 1 to 1024"),
        row!(downstream_tls_offload_threadpools, "None", "2" => "Some(2)", "0" => "got 0, want a whole number from 1 to 1024"),
        row!(downstream_tls_offload_thread_per_pool, "None", "2" => "Some(2)", "0" => "got 0, want a whole number from 1 to 1024"),
        row!(fast_timeout_to_tokio_threshold_seconds, "Some(900)", "null" => "None", "15m" => "got \"15m\", want a whole number from 1 to 31536000"),
        row!(upstream_debug_ssl_keylog, "false", "true" => "true", "1" => "got 1, want true or false"),
        row!(runtime_enable_alt_timer, "false", "true" => "true", "1" => "got 1, want true or false"),
        row!(runtime_metrics_poll_time_histogram, "false", "true" => "true", "1" => "got 1, want true or false"),
        row!(runtime_metrics_poll_time_histogram_scale, "None", "log" => "Some(Log)", "cubic" => "got \"cubic\", want linear or log"),
        row!(runtime_metrics_poll_time_histogram_resolution_micros, "None", "50" => "Some(50)", "0" => "got 0, want a whole number from 1 to 60000000"),
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

#[test]
fn no_key_is_left_out() {
    let pingoras = serde_yaml::to_value(&*ServerSettings::default()).unwrap();
    let mut pingoras: Vec<String> = pingoras
        .as_mapping()
        .unwrap()
        .keys()
        .map(|key| key.as_str().unwrap().to_owned())
        .collect();
    let mut known: Vec<&str> = server::keys().collect();
    pingoras.sort();
    known.sort_unstable();
    assert_eq!(known, pingoras, "the table against Pingora's own fields");

    // These two have tests of their own.
    let tested = rows().into_iter().map(|row| row.key);
    let mut tested: Vec<&str> = tested.chain(["threads", "ca_file"]).collect();
    tested.sort_unstable();
    assert_eq!(tested, known);
}

#[test]
fn the_command_line_is_passed_on() {
    let settings = load("", &[]).unwrap();
    let (opt, conf) = settings.server_conf(false, false);
    assert!(!opt.upgrade && !opt.daemon && !opt.test && opt.conf.is_none());
    assert!(!conf.daemon);
    assert_eq!(conf.working_directory, None);

    let (opt, conf) = settings.server_conf(true, true);
    assert!(opt.upgrade && opt.daemon && conf.daemon);
    let here = std::env::current_dir().unwrap();
    assert_eq!(conf.working_directory, Some(here), "not /");
}

#[test]
fn a_clone_is_the_same() {
    let text =
        "threads: 3\nuser: daemon\ngroup: daemon\nerror_log: c\nclient_bind_to_ipv4: [127.0.0.1]\n";
    let settings = load(text, &[]).unwrap();
    assert_eq!(settings.clone(), settings);
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
    let conf = settings.server_conf(false, true).1;
    assert_eq!(conf.pid_file, here.join("a.pid").display().to_string());
    assert_eq!(conf.upgrade_sock, "/tmp/cellgate_upgrade.sock");
    assert_eq!(conf.working_directory, Some("/".into()));
}
