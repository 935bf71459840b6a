//! Keeps this folder free of runtimes, sockets, clocks and the rest of
//! Cellgate: what is here must stay a function of its input.

use std::fs;
use std::path::Path;

/// What may not appear in the sources of this folder. Spelled in halves, so
/// that this file may be read along with the others.
const FORBIDDEN: [(&str, &str); 14] = [
    ("tok", "io"),
    ("pin", "gora"),
    ("hy", "per::"),
    ("System", "Time"),
    ("Inst", "ant::"),
    ("std::", "net::Tcp"),
    ("std::", "env"),
    ("crate::", "live"),
    ("crate::", "source"),
    ("crate::", "proxy"),
    ("crate::", "admin"),
    ("crate::", "settings"),
    ("crate::", "telemetry"),
    ("crate::", "cli"),
];

#[test]
fn routing_imports_no_runtime_no_clock_and_none_of_the_rest() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/routing");
    let files = search(&folder);
    assert!(files >= 10, "only {files} files in {}", folder.display());
}

/// Searches all sources below `folder`; returns how many there are.
fn search(folder: &Path) -> usize {
    let mut files = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files += search(&path);
            continue;
        }
        files += 1;
        let source = fs::read_to_string(&path).unwrap();
        for (number, line) in source.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            for (head, tail) in FORBIDDEN {
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
