//! Keeps `routing`, `resilience` and `protocol` free of runtimes, sockets, clocks
//! and the rest of Cellgate: what is there must stay a function of its input. That its
//! work has a `pace` changes when it ends, and not what comes of it.

use std::fs;
use std::path::Path;

/// What may not appear in the sources of any of these folders. Spelled in halves,
/// so that a search for one of these does not find this list.
const FORBIDDEN: [(&str, &str); 18] = [
    ("tok", "io"),
    ("pin", "gora"),
    ("hy", "per::"),
    ("System", "Time"),
    ("std::", "net::Tcp"),
    ("std::", "env"),
    ("crate::", "admin"),
    ("crate::", "cell"),
    ("crate::", "cli"),
    ("crate::", "control"),
    ("crate::", "files"),
    ("crate::", "lifecycle"),
    ("crate::", "live"),
    ("crate::", "net"),
    ("crate::", "proxy"),
    ("crate::", "settings"),
    ("crate::", "source"),
    ("crate::", "telemetry"),
];

/// Reading the clock. Tests may: it is the only way to come by a first time.
const CLOCK: (&str, &str) = ("Inst", "ant::");

#[test]
fn routing_imports_no_runtime_no_clock_and_none_of_the_rest() {
    check("src/routing", &[CLOCK, ("crate::", "resilience")], 10);
}

#[test]
fn resilience_imports_no_runtime_no_clock_and_only_values_of_routing() {
    check("src/resilience", &[CLOCK, ("routing::", "compile")], 5);
}

#[test]
fn protocol_imports_no_runtime_no_clock_and_only_routing() {
    let resilience = ("crate::", "resilience");
    check("src/protocol", &[CLOCK, resilience], 10);
}

/// Reads the sources of `folder`, of which there are at least `least`. What is
/// in `untested` is forbidden outside of its folders of tests only.
fn check(folder: &str, untested: &[(&str, &str)], least: usize) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let files = search(&path, &[&FORBIDDEN, untested].concat());
    assert!(files >= least, "only {files} files in {}", path.display());
}

/// Searches all sources below `folder`; returns how many there are.
fn search(folder: &Path, forbidden: &[(&str, &str)]) -> usize {
    let mut files = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            let tests = path.file_name().is_some_and(|name| name == "tests");
            files += search(&path, if tests { &FORBIDDEN } else { forbidden });
            continue;
        }
        files += 1;
        let source = fs::read_to_string(&path).unwrap();
        for (number, line) in source.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            for (head, tail) in forbidden {
                let word = format!("{head}{tail}");
                assert!(
                    !code.contains(&word),
                    "{}:{}: {word}",
                    path.display(),
                    number + 1
                );
            }
        }
    }
    files
}
