use std::time::{Duration, UNIX_EPOCH};

use log::Level;
use proptest::prelude::*;

use super::*;

fn written(format: LogFormat, message: &str, fields: &[(&str, Value<'_>)]) -> String {
    let now = UNIX_EPOCH + Duration::from_millis(1_767_473_112_007);
    let mut record = Record::builder();
    record
        .level(Level::Info)
        .target("cellgate::state")
        .key_values(&fields);
    let bytes = line(format, now, &record.args(format_args!("{message}")).build());
    String::from_utf8(bytes).unwrap()
}

#[test]
fn text() {
    for (message, fields, expected) in [
        ("ready", &[][..], "ready"),
        (
            "reloaded",
            &[
                ("generation", Value::from(3u64)),
                ("source", Value::from("file")),
                ("path", Value::from("a b")),
                ("none", Value::from("")),
                ("ok", Value::from(true)),
            ][..],
            r#"reloaded generation=3 source=file path="a b" none="" ok=true"#,
        ),
        (
            "evil\n2026 ERROR \u{1b}[2J",
            &[("key", Value::from("a\nb"))][..],
            r"evil\n2026 ERROR \u{1b}[2J key=a\nb",
        ),
    ] {
        let expected = format!("2026-01-03T20:45:12.007Z INFO  cellgate::state {expected}\n");
        assert_eq!(written(LogFormat::Text, message, fields), expected);
    }
}

#[test]
fn json() {
    let error = std::io::Error::other("disk \"full\"");
    let fields = [
        ("generation", Value::from(3u64)),
        ("delta", Value::from(-3i64)),
        ("ratio", Value::from(0.5f64)),
        ("nan", Value::from(f64::NAN)),
        ("ok", Value::from(true)),
        ("source", Value::from("file")),
        ("error", Value::from_display(&error)),
        ("message", Value::from("mine")),
        ("ok", Value::from(false)),
    ];
    assert_eq!(
        written(LogFormat::Json, "a\nb", &fields),
        concat!(
            r#"{"timestamp":"2026-01-03T20:45:12.007Z","level":"INFO","#,
            r#""target":"cellgate::state","message":"a\nb","generation":3,"delta":-3,"#,
            r#""ratio":0.5,"nan":"NaN","ok":true,"source":"file","#,
            r#""error":"disk \"full\"","message_":"mine","ok_":false}"#,
            "\n"
        )
    );
}

proptest! {
    #[test]
    fn one_record_is_one_printable_line(
        message in any::<String>(),
        key in any::<String>(),
        value in any::<String>(),
    ) {
        let fields = [(key.as_str(), Value::from(value.as_str()))];
        for format in [LogFormat::Text, LogFormat::Json] {
            let line = written(format, &message, &fields);
            let text = line.strip_suffix('\n').unwrap();
            prop_assert!(!text.chars().any(char::is_control), "{:?}", text);
        }
        let line = written(LogFormat::Json, &message, &fields);
        let parsed: serde_json::Value = serde_json::from_str(&line).unwrap();
        prop_assert_eq!(&parsed["message"], &message);
    }
}

#[test]
fn rust_log() {
    for (spec, valid, invalid) in [
        ("", DEFAULT_FILTER, &[][..]),
        (" , ", DEFAULT_FILTER, &[]),
        ("debug", "debug", &[]),
        ("warn, cellgate=trace", "warn,cellgate=trace", &[]),
        ("info,cellgate=loud", "info", &["cellgate=loud"]),
        (
            "cellgate=loud,=info",
            DEFAULT_FILTER,
            &["cellgate=loud", "=info"],
        ),
        ("debgu", DEFAULT_FILTER, &["debgu"]),
        ("warn,cellgate::state", "warn,cellgate::state", &[]),
        ("a=b=c", DEFAULT_FILTER, &["a=b=c"]),
        ("info/reload", "info/reload", &[]),
        ("info/a/b", "info", &["/a/b"]),
    ] {
        let expected = Directives {
            valid: valid.to_owned(),
            invalid: invalid.iter().map(|&text| text.to_owned()).collect(),
        };
        assert_eq!(Directives::parse(spec), expected, "{spec:?}");
        let mut builder = env_filter::Builder::new();
        assert!(builder.try_parse(&expected.valid).is_ok(), "{spec:?}");
    }
}

#[test]
fn the_default_keeps_client_noise_out() {
    let filter = env_filter::Builder::new().parse(DEFAULT_FILTER).build();
    for (target, level, logged) in [
        ("cellgate::state", Level::Info, true),
        ("cellgate::state", Level::Debug, false),
        ("pingora_core::server", Level::Warn, true),
        ("pingora_core::server", Level::Info, false),
        (
            "pingora_core::protocols::http::v1::common",
            Level::Warn,
            false,
        ),
        ("pingora_proxy", Level::Error, false),
    ] {
        let metadata = Metadata::builder().target(target).level(level).build();
        assert_eq!(filter.enabled(&metadata), logged, "{target} {level}");
    }
}
