//! Memory in which keys are collected before the trie is built.

use memmap2::MmapMut;

/// Bytes of the first chunk of a part, and of the largest one; each is twice as large as
/// the one before.
const FIRST: usize = 256;
const LARGEST: usize = 4 << 20;

/// From this size on, a chunk has pages of its own, which return to the system with it. The
/// allocator would keep the pages until the chunks of other parts next to it are free as
/// well, so that the table would be in memory twice.
const PAGES: usize = 64 << 10;

/// Memory that is filled from the front.
pub(super) struct Chunk {
    room: Room,
    used: usize,
}

enum Room {
    Heap(Box<[u8]>),
    Pages(MmapMut),
}

impl Chunk {
    /// A chunk that follows one of `before` bytes, with room for at least `size`.
    pub fn after(before: usize, size: usize) -> Self {
        let size = before.clamp(FIRST, LARGEST).max(size);
        // Without pages the heap does as well.
        let pages = (size >= PAGES).then(|| MmapMut::map_anon(size).ok());
        let room = match pages.flatten() {
            Some(pages) => Room::Pages(pages),
            None => Room::Heap(vec![0; size].into()),
        };
        Self { room, used: 0 }
    }

    /// Appends `parts`; false if there is no room for all of them.
    pub fn put<const N: usize>(&mut self, parts: [&[u8]; N]) -> bool {
        let size: usize = parts.iter().map(|part| part.len()).sum();
        let room = match &mut self.room {
            Room::Heap(bytes) => bytes.get_mut(self.used..),
            Room::Pages(bytes) => bytes.get_mut(self.used..),
        };
        let Some(mut room) = room.and_then(|room| room.get_mut(..size)) else {
            return false;
        };
        for part in parts {
            let (here, rest) = room.split_at_mut(part.len());
            here.copy_from_slice(part);
            room = rest;
        }
        self.used += size;
        true
    }

    /// The content.
    pub fn bytes(&self) -> &[u8] {
        let bytes = match &self.room {
            Room::Heap(bytes) => bytes.get(..self.used),
            Room::Pages(bytes) => bytes.get(..self.used),
        };
        bytes.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_takes_what_fits() {
        for (before, size) in [(0, 10), (PAGES, 1), (0, PAGES), (usize::MAX, 1)] {
            let mut chunk = Chunk::after(before, size);
            let room = before.clamp(FIRST, LARGEST).max(size);
            assert_eq!(matches!(chunk.room, Room::Pages(_)), room >= PAGES);
            let half = vec![1; room / 2];
            assert!(chunk.put([&half, b"ab"]));
            let rest = vec![2; room - chunk.used];
            assert!(!chunk.put([&rest, b"c"]));
            assert!(chunk.put([&rest]));
            assert_eq!(chunk.bytes(), [&half[..], b"ab", &rest].concat());
            assert!(chunk.put([]) && !chunk.put([b"d"]));
        }
    }
}
