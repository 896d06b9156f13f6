//! Integers of HPACK (RFC 7541, section 5.1).

use super::HpackError;

/// Octets behind the first one, at most: as many as a number of 32 bits takes.
const MAX_MORE: u32 = 5;

/// Takes an integer whose first octet has `prefix` bits for it off the front of `rest`.
pub(super) fn integer(rest: &mut &[u8], prefix: u32) -> Result<usize, HpackError> {
    let mask = (1_u64 << prefix) - 1;
    let mut value = u64::from(octet(rest)?) & mask;
    if value == mask {
        let mut more = 0;
        loop {
            let next = octet(rest)?;
            value += u64::from(next & 0x7F) << (7 * more);
            more += 1;
            if next & 0x80 == 0 {
                break;
            }
            if more == MAX_MORE {
                return Err(HpackError::Integer);
            }
        }
    }
    u32::try_from(value).map(|value| value as usize).map_err(|_| HpackError::Integer)
}

fn octet(rest: &mut &[u8]) -> Result<u8, HpackError> {
    let (&first, behind) = rest.split_first().ok_or(HpackError::Truncated)?;
    *rest = behind;
    Ok(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_of_appendix_c_1_and_their_bounds() {
        let cases: [(&[u8], u32, Result<usize, HpackError>); 10] = [
            (&[0b1110_1010], 5, Ok(10)),
            (&[0b0001_1111, 0b1001_1010, 0b0000_1010], 5, Ok(1337)),
            (&[0b0010_1010], 8, Ok(42)),
            (&[0x1F, 0x00], 5, Ok(31)),
            (&[0x1F], 5, Err(HpackError::Truncated)),
            (&[], 5, Err(HpackError::Truncated)),
            (&[0xFF, 0x80, 0xFF, 0xFF, 0xFF, 0x0F], 7, Ok(u32::MAX as usize)),
            (&[0xFF, 0x81, 0xFF, 0xFF, 0xFF, 0x0F], 7, Err(HpackError::Integer)),
            (&[0xFF, 0x80, 0x80, 0x80, 0x80, 0x00], 7, Ok(127)),
            (&[0xFF, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00], 7, Err(HpackError::Integer)),
        ];
        for (bytes, prefix, expected) in cases {
            assert_eq!(integer(&mut &*bytes, prefix), expected, "{bytes:02x?}");
        }
    }
}
