//! Memory that keys are set down in until they have their place.

use memmap2::MmapMut;

/// Bytes of a chunk: the first of a part, and as large as they get by doubling.
const FIRST: usize = 256;
const LARGEST: usize = 4 << 20;

/// From so many bytes on, a chunk has pages of its own, which go back to the system with
/// it. The allocator has the chunks of all parts side by side, and nothing to gain from
/// one before its neighbours are free: a table would be there twice.
const PAGES: usize = 64 << 10;

/// A piece of memory that fills up.
pub(super) struct Chunk {
    room: Room,
    used: usize,
}

enum Room {
    Heap(Box<[u8]>),
    Pages(MmapMut),
}

impl Chunk {
    /// One that comes after those of `before` bytes, with room for `size` at least.
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

    /// Appends all of `parts`, if there is room for them.
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

    /// What was put here.
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
