//! Work that takes long and that no request waits for: reading, compiling and freeing
//! tables.
//!
//! It shares its processors with requests. On a thread like theirs, a table of a
//! million keys holds up whatever is on the same processor for half a second.

mod pace;

use tokio::task::{JoinError, spawn_blocking};

/// How nice such a thread is (setpriority(2)): about a tenth of a processor that
/// requests keep busy, and all that they leave.
const NICE: libc::c_int = 10;

/// Does `work` on a thread of its own with a low priority, and gives the memory back
/// that it leaves.
///
/// # Errors
/// It panicked.
pub(crate) async fn run<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, JoinError> {
    spawn_blocking(|| wait_for(work)).await
}

/// The same for a thread that may wait for it.
///
/// # Panics
/// As `work` does.
pub(crate) fn wait_for<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    // A thread of its own: the runtime keeps its threads, and what is nice stays so.
    on_nice_thread(|| {
        let done = on_nice_thread(work);
        // Only now, as a thread that ends leaves memory as well; and here, as it takes
        // milliseconds.
        give_memory_back();
        done
    })
}

/// What `work` returns, or its panic.
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

/// Returns freed memory to the system. The allocator would keep it until something else
/// of that size is freed: for a table, twice of what the table takes.
pub(crate) fn give_memory_back() {
    // SAFETY: may be called at any time from any thread; without the allocator in use
    // there is nothing to return.
    unsafe { libmimalloc_sys::mi_collect(true) };
}

#[cfg(target_os = "linux")]
fn lower_priority() {
    // It fails only where that is forbidden; then the work is done all the same. 0 is
    // the calling thread, and on Linux nothing but that.
    // SAFETY: takes no pointers.
    let _ = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICE) };
}

#[cfg(not(target_os = "linux"))]
fn lower_priority() {}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_chore_is_nice_and_leaves_others_as_they_are() {
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
    async fn a_panic_is_told() {
        let broke = run(|| panic!("as planned")).await;
        assert!(broke.is_err_and(|error| error.is_panic()));
    }
}
