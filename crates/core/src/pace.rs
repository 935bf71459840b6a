//! Points within long work at which a thread may pause.
//!
//! Compiling, comparing or freeing a large table holds up everything else on the processor.
//! Such work calls [`step`] and [`stride`]. A thread that is to pause there registers a
//! function with [`set`]; on other threads they do nothing.

use std::cell::Cell;

/// Steps between two calls of the registered function, which reads a clock and so costs as
/// much as several steps.
const STEPS: u32 = 128;

thread_local! {
    static PAUSE: Cell<Option<fn()>> = const { Cell::new(None) };
    static LEFT: Cell<u32> = const { Cell::new(STEPS) };
}

/// Registers the function that this thread calls between steps; `None` removes it.
pub fn set(pause: Option<fn()>) {
    PAUSE.set(pause);
    LEFT.set(STEPS);
}

/// Marks the end of a step of at most about 1 µs.
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

/// Marks the end of a step of at most about 100 µs.
pub fn stride() {
    if let Some(pause) = PAUSE.get() {
        pause();
    }
}

/// Whether this thread has a function registered.
pub fn is_set() -> bool {
    PAUSE.get().is_some()
}
