//! What is written, and how.

use std::cell::RefCell;
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use super::super::state::{Content, StateFile};
use super::super::swap::{Disk, How, Prepared, Swapped, System};
use crate::control::document;
use crate::files::Sha256;
use crate::table::{self, Delta};

const RICH: &str = r#"{
  "version": "2.1",
  "routingTable": {"zeta": "two", "acme": "one", "a \"key\" of ütf-8": "two"},
  "defaults": {"concurrency_limit": 7, "timeouts": {"request": "3s"}},
  "placements": {
    "one": {"endpoints": [{"url": "http://127.0.0.1:1", "weight": 3}], "fallback": "two"},
    "two": {"endpoints": [{"url": "http://127.0.0.1:2"}], "health_check": {"path": "/health"}}
  },
  "defaultPlacement": "one"
}"#;

#[test]
fn a_document_for_people_says_what_the_table_does() {
    let table = table::compile(RICH.as_bytes()).unwrap();
    let mut text = Vec::new();
    document::write(&table, &mut text).unwrap();
    let again = table::compile(&text).unwrap();
    assert_eq!(again.digest(), table.digest());
    let text = String::from_utf8(text).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(&lines[..2], ["{", "  \"version\": \"2.1\","]);
    let keys = "  \"routingTable\": {\n    \"a \\\"key\\\" of ütf-8\": \"two\",\n    \
                \"acme\": \"one\",\n    \"zeta\": \"two\"\n  }\n}\n";
    assert!(text.ends_with(keys), "{text}");

    let empty = RICH.replace(
        r#"{"zeta": "two", "acme": "one", "a \"key\" of ütf-8": "two"}"#,
        "{}",
    );
    let empty = table::compile(empty.as_bytes()).unwrap();
    let mut text = Vec::new();
    document::write(&empty, &mut text).unwrap();
    assert_eq!(table::compile(&text).unwrap().digest(), empty.digest());
}

#[test]
fn a_file_is_replaced_only_if_it_is_the_one_that_is_meant() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("routing.json");
    let swap = |content: &str, known: Option<&str>| {
        let known = known.map(|known| Sha256::of(known.as_bytes()));
        let new = Prepared::write(&path, content.as_bytes(), 1000).unwrap();
        new.swap(known).unwrap()
    };
    let content = || fs::read_to_string(&path).unwrap();
    assert_eq!(swap("one", None), Swapped::Done);
    assert_eq!(content(), "one");
    assert_eq!(swap("two", None), Swapped::Edited);
    assert_eq!(content(), "one");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    assert_eq!(swap("two", Some("one")), Swapped::Done);
    assert_eq!(content(), "two");
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o640);
    assert_eq!(swap("three", Some("one")), Swapped::Edited);
    assert_eq!(content(), "two");
    fs::remove_file(&path).unwrap();
    assert_eq!(swap("three", Some("two")), Swapped::Edited);
    assert!(!path.exists());
    let left = fs::read_dir(directory.path()).unwrap().count();
    assert_eq!(left, 0, "something was left beside the file");
}

#[test]
fn a_link_stays_one() {
    let directory = tempfile::tempdir().unwrap();
    let real = directory.path().join("real.json");
    let link = directory.path().join("routing.json");
    fs::write(&real, "one").unwrap();
    symlink("real.json", &link).unwrap();
    let new = Prepared::write(&link, b"two", 1000).unwrap();
    let swapped = new.swap(Some(Sha256::of(b"one"))).unwrap();
    assert_eq!(swapped, Swapped::Done);
    assert_eq!(fs::read_to_string(&real).unwrap(), "two");
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
}

#[test]
fn what_was_in_the_file_is_remembered() {
    let directory = tempfile::tempdir().unwrap();
    let state = StateFile(directory.path().join("routing.state"));
    assert_eq!(state.read(), []);
    let content = |generation| Content {
        sha256: "ab".to_owned(),
        generation,
        digest: "cd".to_owned(),
        edit: (generation == 1).then(Delta::default),
    };
    state.write(&[content(2), content(1)]).unwrap();
    assert_eq!(state.read(), [content(2), content(1)]);
    for damaged in ["", "{", "{\"format\":2,\"contents\":[]}"] {
        fs::write(&state.0, damaged).unwrap();
        assert_eq!(state.read(), [], "{damaged:?}");
    }
}

/// A disk on which somebody saves an edit after each exchange, and which may not sync.
struct Busy {
    edits: RefCell<Vec<&'static str>>,
    syncs: bool,
}

impl Disk for Busy {
    fn rename(&self, from: &Path, to: &Path, how: How) -> io::Result<()> {
        System.rename(from, to, how)?;
        if let Some(edit) = self.edits.borrow_mut().pop() {
            let new = to.with_file_name("of the editor");
            fs::write(&new, edit)?;
            fs::rename(new, to)?;
        }
        Ok(())
    }

    fn sync(&self, _path: &Path) -> io::Result<()> {
        match self.syncs {
            true => Ok(()),
            false => Err(io::Error::other("a bad disk")),
        }
    }
}

#[test]
fn an_edit_that_is_saved_while_another_is_put_back_is_not_lost() {
    for edits in [vec![], vec!["b"], vec!["c", "b"]] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("routing.json");
        fs::write(&path, "a").unwrap();
        let last = edits.first().copied().unwrap_or("a");
        let busy = Busy {
            edits: RefCell::new(edits),
            syncs: true,
        };
        let new = Prepared::write(&path, b"ours", 1000).unwrap();
        let swapped = new.swap_on(Some(Sha256::of(b"known")), &busy).unwrap();
        assert_eq!(swapped, Swapped::Edited);
        assert_eq!(fs::read_to_string(&path).unwrap(), last);
        let left = fs::read_dir(directory.path()).unwrap().count();
        assert_eq!(left, 1, "something was left beside the file");
    }
}

#[test]
fn an_edit_that_cannot_be_put_back_is_kept() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("routing.json");
    fs::write(&path, "a").unwrap();
    let names: Vec<&str> = vec!["b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m"];
    let busy = Busy {
        edits: RefCell::new(names),
        syncs: true,
    };
    let new = Prepared::write(&path, b"ours", 1000).unwrap();
    let error = new.swap_on(Some(Sha256::of(b"known")), &busy).unwrap_err();
    let error = error.to_string();
    let aside = error.rsplit_once("it is in ").expect("a place").1;
    // Each is in one of the two places, or was overwritten by whoever saved the next.
    assert_eq!(fs::read_to_string(aside).unwrap().len(), 1, "{error}");
    assert_eq!(fs::read_to_string(&path).unwrap().len(), 1);
}

#[test]
fn what_was_written_and_may_not_last_was_written() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("routing.json");
    fs::write(&path, "known").unwrap();
    let bad = Busy {
        edits: RefCell::default(),
        syncs: false,
    };
    let new = Prepared::write(&path, b"ours", 1000).unwrap();
    let swapped = new.swap_on(Some(Sha256::of(b"known")), &bad).unwrap();
    assert_eq!(swapped, Swapped::Unsure("a bad disk".to_owned()));
    assert_eq!(fs::read_to_string(&path).unwrap(), "ours");
}
