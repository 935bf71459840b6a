//! The table that every proxy routes by: keys of 14 bytes, eight cells.
//!
//! A key and its cell are computed from a number, so the load needs no memory of
//! them, and every table of N keys is that of the numbers below N.

use std::io::{self, Write};

/// Cells that keys live in.
pub const CELLS: usize = 8;
/// The cell for all other keys.
pub const DEFAULT: usize = CELLS;
/// Length of a key in bytes.
pub const KEY: usize = 14;

const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
const MASK: u64 = (1 << 60) - 1;

/// The key of a number below 2^60. No two numbers have the same.
pub fn key(number: u64) -> [u8; KEY] {
    let mut bits = scatter(number);
    let mut key = *b"t-............";
    for byte in &mut key[2..] {
        *byte = ALPHABET[usize::try_from(bits & 31).unwrap_or(0)];
        bits >>= 5;
    }
    key
}

/// The cell of a number's key.
pub fn cell(number: u64) -> usize {
    let mixed = scatter(number ^ 0x5bd1_e995).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 61;
    usize::try_from(mixed).unwrap_or(0)
}

/// Mixes 60 bits so that neighbours are far apart: odd factors and shifts to the
/// right lose nothing.
fn scatter(number: u64) -> u64 {
    let mut bits = (number ^ 0x2545_f491).wrapping_mul(0x9e37_79b9_7f4a_7c15) & MASK;
    bits ^= bits >> 29;
    bits = bits.wrapping_mul(0xbf58_476d_1ce4_e5b9) & MASK;
    bits ^ (bits >> 32)
}

/// A cell's name, such as `cell-3`; the default one's is `spare`.
pub fn name(cell: usize) -> String {
    match cell {
        DEFAULT => "spare".to_owned(),
        cell => format!("cell-{cell}"),
    }
}

/// A table of `keys` keys, with the first one moved `moves` cells on.
#[derive(Clone, Copy, Debug)]
pub struct Table {
    pub keys: u64,
    pub moves: usize,
}

impl Table {
    /// For the load while a change is under way: see [`Table::settled`].
    pub const UNSETTLED: usize = usize::MAX;

    /// Whether it is known which cell a number's key lives in at this moment.
    pub fn settled(self, number: u64) -> bool {
        number != 0 || self.moves != Table::UNSETTLED
    }

    /// Where a number's key lives.
    pub fn cell(self, number: u64) -> usize {
        match number {
            0 => (cell(0) + self.moves % CELLS) % CELLS,
            number if number < self.keys => cell(number),
            _ => DEFAULT,
        }
    }

    /// Writes a line for each key, in the order of numbers.
    pub fn write(
        self,
        to: &mut impl Write,
        mut line: impl FnMut(&mut dyn Write, &str, &str) -> io::Result<()>,
    ) -> io::Result<()> {
        let names: Vec<String> = (0..=CELLS).map(name).collect();
        for number in 0..self.keys {
            let key = key(number);
            let key = std::str::from_utf8(&key).map_err(io::Error::other)?;
            line(to, key, &names[self.cell(number)])?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn keys_differ_and_are_plain() {
        let keys: HashSet<_> = (0..200_000).map(key).collect();
        assert_eq!(keys.len(), 200_000);
        let plain = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-';
        assert!(keys.iter().flatten().all(plain));
    }

    #[test]
    fn cells_have_equal_shares() {
        let mut shares = [0; CELLS];
        for number in 0..80_000 {
            shares[cell(number)] += 1;
        }
        assert!(
            shares.iter().all(|share| (9_500..10_500).contains(share)),
            "{shares:?}"
        );
    }

    #[test]
    fn a_move_changes_one_key() {
        let (before, after) = (Table { keys: 99, moves: 0 }, Table { keys: 99, moves: 1 });
        let changed: Vec<u64> = (0..120)
            .filter(|&n| before.cell(n) != after.cell(n))
            .collect();
        assert_eq!(changed, [0]);
        assert_eq!(before.cell(99), DEFAULT);
    }
}
