//! Places within long work where a thread may pause.
//!
//! Compiling, comparing and freeing a large table takes long enough to hold up whatever
//! shares the processor. Such work calls [`step`] and [`stride`]; a thread that shall
//! pause between them sets a function that does so ([`set`]). On other threads they do
//! nothing.

use std::cell::Cell;

/// Steps between two calls of the thread's function, which looks at a clock and so costs
/// as much as some steps.
const STEPS: u32 = 128;

thread_local! {
    static PAUSE: Cell<Option<fn()>> = const { Cell::new(None) };
    static LEFT: Cell<u32> = const { Cell::new(STEPS) };
}

/// Has this thread call `pause` between steps from now on; `None`: nothing.
pub fn set(pause: Option<fn()>) {
    PAUSE.set(pause);
    LEFT.set(STEPS);
}

/// Ends a step of about a microsecond or less.
#[inline]
pub fn step() {
    if let Some(pause) = PAUSE.get() {
        let left = LEFT.get();
        if left > 1 {
            LEFT.set(left - 1);
        } else {
            LEFT.set(STEPS);
            pause();
        }
    }
}

/// Ends a step of up to a tenth of a millisecond.
pub fn stride() {
    if let Some(pause) = PAUSE.get() {
        pause();
    }
}

/// Whether this thread pauses.
pub fn is_set() -> bool {
    PAUSE.get().is_some()
}
