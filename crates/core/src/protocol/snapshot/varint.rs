//! Unsigned LEB128: seven bits a byte, the lowest first, with the high bit set on all bytes but the
//! last.

/// The maximum length of a `u32`, in bytes.
pub(super) const MOST: usize = 5;

pub(super) fn write(mut value: u32, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// The length of `value`, in bytes.
pub(super) fn bytes(value: u32) -> usize {
    (u32::BITS - value.leading_zeros()).div_ceil(7).max(1) as usize
}

/// Reads a number from the start of `rest`. None: there is none, it does not fit a `u32`, or it is
/// not in the shortest form.
pub(super) fn read(rest: &mut &[u8]) -> Option<u32> {
    let mut value = 0_u64;
    for index in 0..MOST {
        let (&byte, after) = rest.split_first()?;
        *rest = after;
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte < 0x80 {
            let shortest = byte != 0 || index == 0;
            return u32::try_from(value).ok().filter(|_| shortest);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn invalid_numbers_are_refused() {
        for (bytes, expected) in [
            (&[0_u8][..], Some(0)),
            (&[0x7f], Some(127)),
            (&[0x80, 0x01], Some(128)),
            (&[0xff, 0xff, 0xff, 0xff, 0x0f], Some(u32::MAX)),
            (&[0xff, 0xff, 0xff, 0xff, 0x1f], None),
            (&[0x80, 0x80, 0x80, 0x80, 0x80, 0x00], None),
            (&[0x80, 0x00], None),
            (&[0x80], None),
            (&[], None),
        ] {
            assert_eq!(read(&mut &*bytes), expected, "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn every_number_is_read_back(value in any::<u32>(), shift in 0..32_u32, after in any::<u8>()) {
            let value = value >> shift;
            let mut out = Vec::new();
            write(value, &mut out);
            prop_assert_eq!(out.len(), bytes(value));
            out.push(after);
            let mut rest = &*out;
            prop_assert_eq!(read(&mut rest), Some(value));
            prop_assert_eq!(rest, &[after]);
        }
    }
}
