//! Integers of the on-disk records: LEB128 of at most ten bytes, zigzag for signed ones. Decoders take from the front of a
//! slice and say `None` where bytes are missing or malformed; they never allocate because of a number they read.

/// Appends an unsigned integer.
pub(super) fn put_u64(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a signed integer; small ones of either sign are short.
pub(super) fn put_i64(out: &mut Vec<u8>, value: i64) {
    put_u64(out, ((value << 1) ^ (value >> 63)) as u64);
}

/// Takes an unsigned integer.
pub(super) fn take_u64(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let low = u64::from(byte & 0x7f);
        if shift == 63 && low > 1 {
            return None;
        }
        value |= low << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

/// Takes a signed integer.
pub(super) fn take_i64(bytes: &mut &[u8]) -> Option<i64> {
    let value = take_u64(bytes)?;
    Some((value >> 1) as i64 ^ -((value & 1) as i64))
}

/// Takes an unsigned integer of 32 bits.
pub(super) fn take_u32(bytes: &mut &[u8]) -> Option<u32> {
    u32::try_from(take_u64(bytes)?).ok()
}

/// Takes a byte.
pub(super) fn take_u8(bytes: &mut &[u8]) -> Option<u8> {
    let (&byte, rest) = bytes.split_first()?;
    *bytes = rest;
    Some(byte)
}

/// Takes what [`put_bytes`] wrote.
pub(super) fn take_bytes<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(take_u64(bytes)?).ok()?;
    let (head, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(head)
}

/// Appends bytes behind their length.
pub(super) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_u64(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn integers_come_back(unsigned in any::<u64>(), signed in any::<i64>(), small in -3i64..3, bytes in any::<Vec<u8>>()) {
            let mut out = vec![];
            put_u64(&mut out, unsigned);
            put_i64(&mut out, signed);
            put_i64(&mut out, small);
            put_bytes(&mut out, &bytes);
            let mut rest = out.as_slice();
            prop_assert_eq!(take_u64(&mut rest), Some(unsigned));
            prop_assert_eq!(take_i64(&mut rest), Some(signed));
            prop_assert_eq!(take_i64(&mut rest), Some(small));
            prop_assert_eq!(take_bytes(&mut rest), Some(bytes.as_slice()));
            prop_assert!(rest.is_empty());
        }

        #[test]
        fn hostile_bytes_end_in_none_or_a_number(bytes in any::<Vec<u8>>()) {
            let mut rest = bytes.as_slice();
            while take_u64(&mut rest).is_some() {}
            let mut rest = bytes.as_slice();
            while take_bytes(&mut rest).is_some() {}
        }
    }

    #[test]
    fn more_than_64_bits_are_refused() {
        assert_eq!(take_u64(&mut &[0xff; 10][..]), None);
        assert_eq!(take_u64(&mut &[&[0xff; 9][..], &[1]].concat()[..]), Some(u64::MAX));
    }
}
