//! How a key ranks the members, for rendezvous hashing.
//!
//! All edges must compute the same order, on every platform and in every version. So
//! everything here is a fixed computation:
//!
//! - The hash is XXH3-64 with seed 0 (the xxHash specification, version 0.2.0).
//! - A key and a member: the hash of 16 bytes, the hash of the key and the
//!   member's id, little-endian each.
//! - Weighted: `-ln(u) / weight`, where `u` in 0..1 is made of the hash's upper 52
//!   bits. These are exponentially distributed with the weight as their rate, and
//!   the smallest of several such is each one's as often as its rate's share.
//!   The logarithm is that of the crate `libm`, which is the same on all platforms;
//!   that of the standard library is the platform's.

use std::net::SocketAddr;

use xxhash_rust::xxh3::xxh3_64;

/// The [`Member::id`](super::Member::id) of an address: XXH3-64 of its text, such
/// as `192.0.2.1:80` or `[2001:db8::1]:80` (RFC 5952 §6). An IPv4 address that is
/// mapped to IPv6 is the same as without, and the zone of a link-local one is
/// left out, because it has a meaning on one machine only.
pub fn member_id(address: SocketAddr) -> u64 {
    let canonical = SocketAddr::new(address.ip().to_canonical(), address.port());
    xxh3_64(canonical.to_string().as_bytes())
}

pub(super) fn key_hash(key: &[u8]) -> u64 {
    xxh3_64(key)
}

/// The hash of a key, given by its hash, and a member.
pub(super) fn pair_hash(key: u64, id: u64) -> u64 {
    let pair = u128::from(id) << 64 | u128::from(key);
    xxh3_64(&pair.to_le_bytes())
}

/// A number that orders members as `-ln(u) / weight` does.
pub(super) fn weighted(hash: u64, weight: u32) -> u64 {
    // The half keeps it off both 0 and 1, whose logarithms are of no use.
    let u = ((hash >> 12) as f64 + 0.5) / (1_u64 << 52) as f64;
    let score = -libm::log(u) / f64::from(weight);
    // Numbers that are not negative have the order of their bits.
    score.to_bits()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_ordered_by_hash_and_by_weight() {
        let hashes = [0, 1 << 12, 1 << 52, 1 << 63, u64::MAX - 4096, u64::MAX];
        for pair in hashes.windows(2) {
            assert!(weighted(pair[0], 7) > weighted(pair[1], 7), "{pair:?}");
            assert!(weighted(pair[0], 7) > weighted(pair[0], 8), "{pair:?}");
        }
        assert!(f64::from_bits(weighted(0, 1)).is_finite());
        assert!(f64::from_bits(weighted(u64::MAX, 1000)) > 0.0);
    }

    /// The values of other implementations of the specification.
    #[test]
    fn the_hash_is_xxh3() {
        assert_eq!(key_hash(b""), 0x2d06_8005_38d3_94c2);
        assert_eq!(key_hash(b"a"), 0xe6c6_32b6_1e96_4e1f);
    }
}
