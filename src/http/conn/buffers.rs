//! Buffers that connections borrow from their thread.
//!
//! Most connections wait for their next request most of the time, and need no buffer
//! then. Giving it to the allocator and asking for another costs each request twice;
//! a few that are kept, and warm, cost it nothing.

use std::cell::RefCell;
use std::thread::LocalKey;

/// Bytes of a buffer: most request heads, and most answers with a small body.
pub(super) const SIZE: usize = 4096;
/// A buffer that grew further is not kept.
const LARGEST: usize = 2 * SIZE;
/// Spare buffers of each kind that a thread keeps.
const SPARE: usize = 64;

type Spare = RefCell<Vec<Vec<u8>>>;

thread_local! {
    /// Those of `SIZE` zeroes or old bytes.
    static FULL: Spare = const { RefCell::new(Vec::new()) };
    /// Those without content.
    static EMPTY: Spare = const { RefCell::new(Vec::new()) };
}

/// A buffer whose `SIZE` bytes are there to be overwritten.
pub(super) fn full() -> Vec<u8> {
    take(&FULL).unwrap_or_else(|| vec![0; SIZE])
}

/// A buffer to append to.
pub(super) fn empty() -> Vec<u8> {
    take(&EMPTY).unwrap_or_else(|| Vec::with_capacity(SIZE))
}

/// Gives back what [`full`] lent.
pub(super) fn give_full(mut buffer: Vec<u8>) {
    if buffer.len() >= SIZE && buffer.capacity() <= LARGEST {
        buffer.truncate(SIZE);
        give(&FULL, buffer);
    }
}

/// Gives back what [`empty`] lent.
pub(super) fn give_empty(mut buffer: Vec<u8>) {
    if (SIZE..=LARGEST).contains(&buffer.capacity()) {
        buffer.clear();
        give(&EMPTY, buffer);
    }
}

// The thread's own may be gone while it ends; then the allocator does.

fn take(spare: &'static LocalKey<Spare>) -> Option<Vec<u8>> {
    spare
        .try_with(|spare| spare.borrow_mut().pop())
        .ok()
        .flatten()
}

fn give(spare: &'static LocalKey<Spare>, buffer: Vec<u8>) {
    let _ = spare.try_with(|spare| {
        let mut spare = spare.borrow_mut();
        if spare.len() < SPARE {
            spare.push(buffer);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_is_lent_again() {
        let mut buffer = full();
        assert_eq!(buffer.len(), SIZE);
        buffer.fill(7);
        let place = buffer.as_ptr();
        give_full(buffer);
        let again = full();
        assert_eq!((again.as_ptr(), again.len()), (place, SIZE));

        let mut buffer = empty();
        buffer.extend_from_slice(b"an answer");
        let place = buffer.as_ptr();
        give_empty(buffer);
        let again = empty();
        assert_eq!((again.as_ptr(), again.len()), (place, 0));
    }

    #[test]
    fn neither_large_nor_foreign_nor_too_many_buffers_are_kept() {
        give_full(Vec::new());
        give_full(vec![0; LARGEST + 1]);
        give_empty(Vec::new());
        give_empty(Vec::with_capacity(LARGEST + 1));
        let kept = |spare: &'static LocalKey<Spare>| spare.with(|spare| spare.borrow().len());
        assert_eq!((kept(&FULL), kept(&EMPTY)), (0, 0));
        for _ in 0..=SPARE {
            give_full(vec![0; SIZE]);
            give_empty(Vec::with_capacity(SIZE));
        }
        assert_eq!((kept(&FULL), kept(&EMPTY)), (SPARE, SPARE));
    }
}
