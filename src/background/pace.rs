//! Pauses within long work, so that requests on the same processor do not wait for it.
//!
//! A low priority is not enough: the scheduler gives a thread of low priority its share in
//! slices of milliseconds, while requests wait. A thread that pauses between the steps of its
//! work holds requests up for at most [`WORK`] or the longest step.

use std::cell::Cell;
use std::time::{Duration, Instant};

use cellgate_core::pace;

/// Processor time between two pauses of a thread.
const WORK: Duration = Duration::from_micros(400);

/// The length of a pause; the system rounds it up to about 150 µs.
const REST: Duration = Duration::from_micros(100);

thread_local! {
    /// The thread's processor time at the end of the last pause.
    static RESTED: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    /// The latest time at which the work since that pause can have begun. Reading the clock
    /// is cheaper than reading the thread's processor time, so it is checked first.
    static ASKED: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Makes this thread pause whenever it has worked for [`WORK`].
pub(crate) fn pace_this_thread() {
    RESTED.set(worked());
    ASKED.set(Some(Instant::now()));
    pace::set(Some(rest_if_due));
}

#[cold]
fn rest_if_due() {
    // A thread cannot have worked for longer than the time that has passed.
    if ASKED.get().is_some_and(|asked| asked.elapsed() < WORK) {
        return;
    }
    let worked = worked();
    let mut since = worked.saturating_sub(RESTED.get());
    if since >= WORK {
        std::thread::sleep(REST);
        #[cfg(test)]
        tests::PAUSES.set(tests::PAUSES.get() + 1);
        RESTED.set(worked);
        since = Duration::ZERO;
    }
    // As if it had worked without interruption.
    ASKED.set(Instant::now().checked_sub(since));
}

/// The processor time of this thread.
fn worked() -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // It cannot fail with this clock. If it did, the thread would not pause.
    // SAFETY: the pointer is to a value that lives longer than the call.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    let nanos = u32::try_from(time.tv_nsec).unwrap_or_default();
    Duration::new(seconds, nanos)
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;
    use std::io::Write as _;

    use super::*;
    use crate::files::Sha256;
    use crate::files::read::read;
    use crate::table::{self, RoutingTable};

    thread_local! {
        pub(super) static PAUSES: Cell<u32> = const { Cell::new(0) };
    }

    /// How often a thread pauses meanwhile.
    fn pauses<T: Send>(paces: bool, work: impl FnOnce() -> T + Send) -> (u32, T) {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                if paces {
                    pace_this_thread();
                }
                let done = work();
                (PAUSES.get(), done)
            });
            thread.join().expect("no panic")
        })
    }

    fn document(keys: u32, placement: &str) -> String {
        let mut table = String::new();
        for key in 0..keys {
            let separator = if key == 0 { "" } else { "," };
            write!(table, "{separator}\"key-{key}\":\"{placement}\"").expect("room");
        }
        let cells = r#"{"a":"http://127.0.0.1:1","b":"http://127.0.0.1:2"}"#;
        format!(
            r#"{{"version":"1","routingTable":{{{table}}},"cellEndpoints":{cells},"defaultPlacement":"a"}}"#
        )
    }

    fn compiled(document: &str) -> RoutingTable {
        table::compile(document.as_bytes()).expect("a good document")
    }

    #[test]
    fn only_who_asked_for_it_pauses() {
        let work = || {
            let start = worked();
            while worked() - start < 10 * WORK {
                pace::step();
            }
            pace::is_set()
        };
        assert_eq!(pauses(false, work), (0, false));
        let (pauses, paced) = pauses(true, work);
        assert!(paced && (1..=10).contains(&pauses), "{pauses}");
    }

    /// All long work on a large table has steps.
    #[test]
    fn long_work_has_steps() {
        const KEYS: u32 = 60_000;
        let (one, other) = (document(KEYS, "a"), document(KEYS, "b"));
        let (old, new) = (compiled(&one), compiled(&other));
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        file.write_all(&vec![b'x'; 64 << 20]).expect("room");
        let wrong = document(KEYS, "nowhere");

        let steps: [(&str, &mut (dyn FnMut() + Send)); 6] = [
            ("read", &mut || assert!(read(file.path(), 1 << 30).is_ok())),
            ("hash", &mut || {
                assert_ne!(Sha256::of(&vec![0; 16 << 20]).0, [0; 32])
            }),
            ("compile", &mut || drop(compiled(&one))),
            ("diagnose", &mut || {
                assert!(table::compile(wrong.as_bytes()).is_err());
            }),
            ("compare", &mut || drop(table::diff(&old, &new))),
            ("list", &mut || {
                assert_eq!(new.keys().count(), KEYS as usize)
            }),
        ];
        for (step, work) in steps {
            let (pauses, ()) = pauses(true, work);
            assert!(pauses > 0, "{step}");
        }
        let tables: Vec<_> = (0..5).map(|_| compiled(&one)).collect();
        let (pauses, ()) = pauses(true, || drop(tables));
        assert!(pauses > 0, "free");
    }
}
