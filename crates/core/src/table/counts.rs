//! Numbers by small index that are cheap to clone and to change one at a time.

use std::sync::Arc;

/// How many numbers a change copies, and a pointer for each so many.
const CHUNK: usize = 512;

/// All zero at first.
#[derive(Clone, Default)]
pub(super) struct Counts(Arc<Vec<Arc<[usize; CHUNK]>>>);

impl Counts {
    pub fn get(&self, index: usize) -> usize {
        self.0
            .get(index / CHUNK)
            .map_or(0, |chunk| chunk[index % CHUNK])
    }

    pub fn at(&mut self, index: usize) -> &mut usize {
        let chunks = Arc::make_mut(&mut self.0);
        while chunks.len() <= index / CHUNK {
            chunks.push(Arc::new([0; CHUNK]));
        }
        &mut Arc::make_mut(&mut chunks[index / CHUNK])[index % CHUNK]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_keep_what_they_had() {
        let mut counts = Counts::default();
        for index in [0, 511, 512, 5000] {
            assert_eq!(counts.get(index), 0);
            *counts.at(index) += index + 1;
        }
        let before = counts.clone();
        *counts.at(512) = 7;
        *counts.at(9000) = 8;
        let seen = |counts: &Counts| [0, 1, 511, 512, 5000, 9000, 90_000].map(|at| counts.get(at));
        assert_eq!(seen(&before), [1, 0, 512, 513, 5001, 0, 0]);
        assert_eq!(seen(&counts), [1, 0, 512, 7, 5001, 8, 0]);
        assert!(
            Arc::ptr_eq(&before.0[0], &counts.0[0]),
            "what did not change is shared"
        );
    }
}
