//! Long work that no request waits for: reading, compiling and freeing tables.
//!
//! It shares the processors with requests. At their priority, compiling a table of a million
//! keys would hold up the requests on the same processor for half a second. So it runs on
//! threads of low priority that also pause every 400 µs.

mod pace;

use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinError, spawn_blocking};

/// The nice value of such a thread (setpriority(2)): it gets about a tenth of a processor
/// that requests keep busy, and all of an idle one.
const NICE: libc::c_int = 10;

/// How often [`drop_when_unshared`] looks.
const LOOK: Duration = Duration::from_millis(10);

/// Does `work` on a thread of its own with low priority, and returns the memory that it
/// freed to the system.
///
/// # Errors
/// `work` panicked.
pub(crate) async fn run<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, JoinError> {
    spawn_blocking(|| wait_for(work)).await
}

/// As [`run`], for a thread that may block.
///
/// # Panics
/// If `work` does.
pub(crate) fn wait_for<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    // A new thread: a thread of the runtime would keep the low priority for later tasks.
    on_nice_thread(|| {
        let done = on_nice_thread(work);
        // After the inner thread has ended, which frees memory as well. It takes
        // milliseconds, so it is done at low priority, too.
        give_memory_back();
        done
    })
}

/// Drops `last` on a thread of low priority, once nothing else holds it. If there can be no
/// thread, whatever holds it last drops it.
pub(crate) fn drop_when_unshared<T: Send + Sync + 'static>(last: Arc<T>) {
    let wait = move || {
        while Arc::strong_count(&last) > 1 {
            std::thread::sleep(LOOK);
        }
        wait_for(|| drop(last));
    };
    let _ = std::thread::Builder::new().spawn(wait);
}

/// Returns what `work` returns; panics if it does.
fn on_nice_thread<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            lower_priority();
            pace::pace_this_thread();
            work()
        });
        let done = thread.join();
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Returns freed memory to the system. By itself the allocator keeps it until more is freed:
/// after a reload, twice the size of the table.
pub(crate) fn give_memory_back() {
    // SAFETY: it may be called at any time from any thread. If another allocator is in use,
    // it has nothing to return.
    unsafe { libmimalloc_sys::mi_collect(true) };
}

#[cfg(target_os = "linux")]
fn lower_priority() {
    // It fails only where it is forbidden; then the work is done at normal priority. On
    // Linux, 0 is the calling thread, not the process.
    // SAFETY: takes no pointers.
    let _ = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICE) };
}

#[cfg(not(target_os = "linux"))]
fn lower_priority() {}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_thread_of_the_work_has_low_priority() {
        let nice = || unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) };
        let before = nice();
        let (during, paced) = run(move || (nice(), cellgate_core::pace::is_set()))
            .await
            .expect("no panic");
        assert!(paced && !cellgate_core::pace::is_set());
        assert!(during >= NICE || cfg!(not(target_os = "linux")), "{during}");
        assert_eq!(nice(), before);
        let after = spawn_blocking(nice).await.expect("no panic");
        assert_eq!(after, before, "the runtime's threads");
    }

    #[tokio::test]
    async fn a_panic_is_an_error() {
        let broke = run(|| panic!("as planned")).await;
        assert!(broke.is_err_and(|error| error.is_panic()));
    }
}
