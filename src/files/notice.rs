//! Notifications from the operating system that a file may have changed.
//!
//! Directories are watched, not the file: replacing a file is an event of its directory.
//! Every symbolic link on the path is in a directory that may change, so all of these are
//! watched. In a Kubernetes ConfigMap, `routing.json` links to `..data/routing.json`, and
//! `..data` to a directory with a time in its name: an update replaces only `..data`.
//!
//! Notifications make changes quick. Nothing depends on them: network file systems send
//! none, and the file is polled all the same.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use notify::event::{AccessKind, AccessMode, ModifyKind};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;

/// Most symbolic links in a path: the limit of Linux.
const MAX_LINKS: usize = 40;

/// A watch on the file at a path.
pub(crate) struct Notice {
    shared: Arc<Shared>,
    /// None if the platform has no notifications or refuses them.
    watcher: Option<RecommendedWatcher>,
    /// The directories that are watched, with their identity at that time: one that was
    /// removed and made again under the same name is a different directory.
    watched: BTreeMap<PathBuf, Identity>,
    warned: bool,
}

type Identity = (u64, u64);

#[derive(Default)]
struct Shared {
    /// Keeps at most one notification until someone waits for it.
    wake: Notify,
    /// The file was written to and has not been closed since.
    writing: AtomicBool,
    /// Names in the watched directories that are part of the path.
    names: Mutex<BTreeSet<OsString>>,
}

impl Notice {
    pub(crate) fn new() -> Self {
        let shared = Arc::<Shared>::default();
        let handler = {
            let shared = Arc::clone(&shared);
            move |event: notify::Result<notify::Event>| {
                if shared.concerns(&event) {
                    shared.note(&event);
                    shared.wake.notify_one();
                }
            }
        };
        let (watcher, warned) = match notify::recommended_watcher(handler) {
            Ok(watcher) => (Some(watcher), false),
            Err(error) => {
                log::warn!(
                    target: "cellgate::source",
                    "no file notification, changes are found by polling: {error}"
                );
                (None, true)
            }
        };
        Self {
            shared,
            watcher,
            watched: BTreeMap::new(),
            warned,
        }
    }

    /// A notice that never notifies.
    pub(crate) fn off() -> Self {
        Self {
            shared: Arc::default(),
            watcher: None,
            watched: BTreeMap::new(),
            warned: true,
        }
    }

    /// Watches the directories on the path to `path` as it is now. Read the file after this,
    /// not before: later changes notify. Returns whether a directory was added.
    pub(crate) fn arm(&mut self, path: &Path) -> bool {
        let Some(watcher) = &mut self.watcher else {
            return false;
        };
        let mut more = false;
        let route = Route::to(path);
        *self
            .shared
            .names
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = route.names;
        self.watched.retain(|directory, identity| {
            let kept = route.directories.get(directory) == Some(identity);
            if !kept {
                // Fails if the directory is gone, and the watch with it.
                let _ = watcher.unwatch(directory);
            }
            kept
        });
        for (directory, identity) in route.directories {
            if self.watched.contains_key(&directory) {
                continue;
            }
            match watcher.watch(&directory, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    self.watched.insert(directory, identity);
                    more = true;
                }
                Err(error) if !self.warned => {
                    self.warned = true;
                    log::warn!(
                        target: "cellgate::source",
                        "no file notification for {}, changes are found by polling: {error}",
                        directory.display()
                    );
                }
                Err(_) => {}
            }
        }
        more
    }

    /// Whether, as far as is known, a process has written to the file and not closed it yet.
    pub(crate) fn writing(&self) -> bool {
        self.shared.writing.load(Ordering::Relaxed)
    }

    /// Returns when the file may have changed since [`Notice::arm`].
    pub(crate) async fn changed(&self) {
        self.shared.wake.notified().await;
    }
}

impl Shared {
    /// Records whether the file is open for writing. Any event other than a write resets
    /// that: the file was replaced, or events were lost.
    fn note(&self, event: &notify::Result<notify::Event>) {
        let writing = match event {
            Ok(event) => match event.kind {
                EventKind::Modify(ModifyKind::Data(_)) => true,
                // A change of owner or mode is neither.
                EventKind::Modify(ModifyKind::Metadata(_)) => return,
                _ => false,
            },
            Err(_) => false,
        };
        self.writing.store(writing, Ordering::Relaxed);
    }

    fn concerns(&self, event: &notify::Result<notify::Event>) -> bool {
        let Ok(event) = event else {
            // Events were lost.
            return true;
        };
        match event.kind {
            // Reading the file is an event as well.
            EventKind::Access(AccessKind::Close(AccessMode::Write)) => {}
            EventKind::Access(_) => return false,
            _ => {}
        }
        if event.need_rescan() || event.paths.is_empty() {
            return true;
        }
        let names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        event
            .paths
            .iter()
            .filter_map(|path| path.file_name())
            .any(|name| names.contains(name))
    }
}

/// The path to a file: every directory in which a change could make the path lead to another
/// file, and the names in them that would change.
#[derive(Debug, Default)]
struct Route {
    directories: BTreeMap<PathBuf, Identity>,
    names: BTreeSet<OsString>,
}

impl Route {
    /// Follows the path as far as it exists. Of the directories above the first symbolic
    /// link, only the last is watched; the others are left to polling.
    fn to(path: &Path) -> Self {
        let mut route = Self::default();
        let mut rest: Vec<OsString> = names_of(path);
        // Canonical at every step.
        let mut at = if path.is_absolute() {
            PathBuf::from("/")
        } else {
            std::env::current_dir().unwrap_or_else(|_| PathBuf::from("."))
        };
        let mut links = 0;
        while let Some(name) = rest.pop() {
            if name == OsStr::new("..") {
                at.pop();
                continue;
            }
            let next = at.join(&name);
            match fs::read_link(&next) {
                Ok(target) if links < MAX_LINKS => {
                    links += 1;
                    route.add(&at, name);
                    if target.is_absolute() {
                        at = PathBuf::from("/");
                    }
                    rest.extend(names_of(&target));
                }
                // Not a link, missing, or a loop.
                _ if rest.is_empty() => route.add(&at, name),
                _ if next.exists() => at = next,
                _ => {
                    // A directory that is missing.
                    route.add(&at, name);
                    break;
                }
            }
        }
        route
    }

    fn add(&mut self, directory: &Path, name: OsString) {
        if let Ok(metadata) = fs::metadata(directory) {
            self.directories
                .insert(directory.to_owned(), (metadata.dev(), metadata.ino()));
            self.names.insert(name.clone());
        }
        // The removal of the directory itself is an event with its name.
        if let Some(own) = directory.file_name() {
            self.names.insert(own.to_owned());
        }
    }
}

/// The names of a path in reverse, for use as a stack.
fn names_of(path: &Path) -> Vec<OsString> {
    let mut names: Vec<OsString> = path
        .components()
        .filter_map(|component| match component {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some("..".into()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
        })
        .collect();
    names.reverse();
    names
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn directories(path: &Path) -> Vec<PathBuf> {
        Route::to(path).directories.into_keys().collect()
    }

    fn root() -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().canonicalize().unwrap();
        (directory, root)
    }

    #[test]
    fn a_plain_file_is_watched_in_its_directory() {
        let (_keep, root) = root();
        fs::write(root.join("routing.json"), "{}").unwrap();
        // There or not, and where the way to it stops.
        for path in ["routing.json", "other.json", "x/../other.json"] {
            assert_eq!(directories(&root.join(path)), std::slice::from_ref(&root));
        }
    }

    #[test]
    fn a_config_map_is_watched_at_every_link() {
        let (_keep, root) = root();
        fs::create_dir(root.join("..2026")).unwrap();
        fs::write(root.join("..2026/routing.json"), "{}").unwrap();
        symlink("..2026", root.join("..data")).unwrap();
        symlink("..data/routing.json", root.join("routing.json")).unwrap();
        let route = Route::to(&root.join("routing.json"));
        let watched: Vec<_> = route.directories.into_keys().collect();
        assert_eq!(watched, [root.clone(), root.join("..2026")]);
        assert!(route.names.contains(OsStr::new("..data")));
        assert!(route.names.contains(OsStr::new("routing.json")));
    }

    #[test]
    fn a_linked_directory_on_the_way_is_watched() {
        let (_keep, root) = root();
        fs::create_dir_all(root.join("releases/1")).unwrap();
        symlink(root.join("releases/1"), root.join("current")).unwrap();
        assert_eq!(
            directories(&root.join("current/routing.json")),
            [root.clone(), root.join("releases/1")]
        );
    }

    #[test]
    fn a_loop_ends() {
        let (_keep, root) = root();
        symlink("b", root.join("a")).unwrap();
        symlink("a", root.join("b")).unwrap();
        assert_eq!(directories(&root.join("a")), [root]);
    }

    #[test]
    fn a_missing_directory_is_awaited_in_the_one_above() {
        let (_keep, root) = root();
        let route = Route::to(&root.join("later/routing.json"));
        let watched: Vec<_> = route.directories.into_keys().collect();
        assert_eq!(watched, [root]);
        assert!(route.names.contains(OsStr::new("later")));
    }
}
