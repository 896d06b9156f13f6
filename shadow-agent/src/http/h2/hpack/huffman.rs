//! The Huffman code of HPACK (RFC 7541, section 5.2 and appendix B).
//!
//! It is canonical: codes of one length are consecutive, in the order of their symbols, and follow those that are
//! shorter. So the symbols in the order of their codes, and how many codes each length has, are all of it.

use super::HpackError;

/// The longest code, in bits.
const LONGEST: usize = 30;

/// How many codes have so many bits. The last one is that of EOS, which no string may hold.
const COUNTS: [u16; LONGEST + 1] =
    [0, 0, 0, 0, 0, 10, 26, 32, 6, 0, 5, 3, 2, 6, 2, 3, 0, 0, 0, 3, 8, 13, 26, 29, 12, 4, 15, 19, 29, 0, 4];

/// The symbols in the order of their codes.
const SYMBOLS: &[u8; 256] =
    b"012aceiost %-./3456789=A_bdfghlmnpru:BCDEFGHIJKLMNOPQRSTUVWYjkqvwxyz&*,;XZ!\"()?'+|#>\x00$@[]~^}<`{\
      \\\xc3\xd0\x80\x82\x83\xa2\xb8\xc2\xe0\xe2\x99\xa1\xa7\xac\xb0\xb1\xb3\xd1\xd8\xd9\xe3\xe5\xe6\x81\
      \x84\x85\x86\x88\x92\x9a\x9c\xa0\xa3\xa4\xa9\xaa\xad\xb2\xb5\xb9\xba\xbb\xbd\xbe\xc4\xc6\xe4\xe8\xe9\
      \x01\x87\x89\x8a\x8b\x8c\x8d\x8f\x93\x95\x96\x97\x98\x9b\x9d\x9e\xa5\xa6\xa8\xae\xaf\xb4\xb6\xb7\xbc\
      \xbf\xc5\xe7\xef\x09\x8e\x90\x91\x94\x9f\xab\xce\xd7\xe1\xec\xed\xc7\xcf\xea\xeb\xc0\xc1\xc8\xc9\xca\
      \xcd\xd2\xd5\xda\xdb\xee\xf0\xf2\xf3\xff\xcb\xcc\xd3\xd4\xd6\xdd\xde\xdf\xf1\xf4\xf5\xf6\xf7\xf8\xfa\
      \xfb\xfc\xfd\xfe\x02\x03\x04\x05\x06\x07\x08\x0b\x0c\x0e\x0f\x10\x11\x12\x13\x14\x15\x17\x18\x19\x1a\
      \x1b\x1c\x1d\x1e\x1f\x7f\xdc\xf9\x0a\x0d\x16";

/// The codes of one length, as the first bits of a word of 32.
#[derive(Clone, Copy)]
struct Codes {
    /// The first of them.
    first: u32,
    /// Behind the last of them.
    end: u64,
    /// The position of the first one's symbol.
    position: usize,
}

/// The codes by their length.
const CODES: [Codes; LONGEST + 1] = codes();

/// The symbols and lengths of codes of up to eight bits, by every octet that starts with one; the rest has length 0.
static SHORT: [(u8, u8); 256] = short();

#[expect(clippy::indexing_slicing, reason = "evaluated by the compiler")]
const fn codes() -> [Codes; LONGEST + 1] {
    let mut codes = [Codes { first: 0, end: 0, position: 0 }; LONGEST + 1];
    let (mut length, mut next, mut position) = (1, 0_u64, 0);
    while length <= LONGEST {
        let count = COUNTS[length];
        let end = next + ((count as u64) << (32 - length));
        codes[length] = Codes { first: next as u32, end, position };
        next = end;
        position += count as usize;
        length += 1;
    }
    assert!(next == 1 << 32 && position == 257, "every sequence of bits starts with exactly one code");
    codes
}

#[expect(clippy::indexing_slicing, reason = "evaluated by the compiler")]
const fn short() -> [(u8, u8); 256] {
    let mut short = [(0, 0); 256];
    let mut octet = 0;
    while octet < 256 {
        let word = (octet as u32) << 24;
        let mut length = 1;
        while length <= 8 && short[octet].1 == 0 {
            let codes = CODES[length];
            if (word as u64) < codes.end {
                let at = codes.position + ((word - codes.first) >> (32 - length)) as usize;
                short[octet] = (SYMBOLS[at], length as u8);
            }
            length += 1;
        }
        octet += 1;
    }
    short
}

/// Undoes the code, and appends what comes of it to `text`.
pub(super) fn decode(coded: &[u8], text: &mut Vec<u8>) -> Result<(), HpackError> {
    text.reserve(coded.len() * 8 / 5);
    let mut octets = coded.iter();
    let (mut bits, mut count) = (0_u64, 0_u32);
    loop {
        while count <= 56
            && let Some(&octet) = octets.next()
        {
            bits = bits << 8 | u64::from(octet);
            count += 8;
        }
        // What is behind the end reads as ones, which is how the last octet is filled.
        let word = if count >= 32 { bits >> (count - 32) } else { !(!bits << (32 - count)) } as u32;
        let (symbol, length) = first_code(word)?;
        if length > count {
            let padding = count < 8 && word == u32::MAX;
            return if padding { Ok(()) } else { Err(HpackError::Huffman) };
        }
        text.push(symbol.ok_or(HpackError::Huffman)?);
        count -= length;
        bits &= (1 << count) - 1;
    }
}

/// The symbol of the code that a word starts with, or none for EOS; and the code's length.
fn first_code(word: u32) -> Result<(Option<u8>, u32), HpackError> {
    match SHORT.get((word >> 24) as usize) {
        Some(&(symbol, length)) if length > 0 => return Ok((Some(symbol), u32::from(length))),
        _ => {}
    }
    for (length, codes) in (0_u32..).zip(&CODES).skip(9) {
        if u64::from(word) < codes.end {
            let at = codes.position + (word.wrapping_sub(codes.first) >> (32 - length)) as usize;
            return Ok((SYMBOLS.get(at).copied(), length));
        }
    }
    Err(HpackError::Huffman)
}

#[cfg(test)]
pub(in crate::http::h2) mod tests {
    use super::*;

    /// The code of a symbol, 256 being EOS, and its length.
    fn code(symbol: usize) -> (u32, u32) {
        let at = SYMBOLS.iter().position(|&byte| usize::from(byte) == symbol).unwrap_or(256);
        let (length, codes) = (0_u32..)
            .zip(&CODES)
            .filter(|(length, codes)| COUNTS[*length as usize] > 0 && codes.position <= at)
            .last()
            .unwrap();
        ((codes.first >> (32 - length)) + (at - codes.position) as u32, length)
    }

    /// Applies the code.
    pub(in crate::http::h2) fn encode(text: &[u8]) -> Vec<u8> {
        let mut bits = String::new();
        for &byte in text {
            let (code, length) = code(usize::from(byte));
            bits += &format!("{code:0length$b}", length = length as usize);
        }
        bits += &"1".repeat(bits.len().wrapping_neg() % 8);
        bits.as_bytes()
            .chunks(8)
            .map(|octet| u8::from_str_radix(std::str::from_utf8(octet).unwrap(), 2).unwrap())
            .collect()
    }

    fn decoded(coded: &[u8]) -> Result<Vec<u8>, HpackError> {
        let mut text = Vec::new();
        decode(coded, &mut text).map(|()| text)
    }

    #[test]
    fn codes_are_those_of_appendix_b() {
        let cases: [(usize, u32, u32); 24] = [
            (0, 0x1ff8, 13),
            (1, 0x7f_ffd8, 23),
            (2, 0xfff_ffe2, 28),
            (9, 0xff_ffea, 24),
            (10, 0x3fff_fffc, 30),
            (22, 0x3fff_fffe, 30),
            (b' '.into(), 0x14, 6),
            (b'!'.into(), 0x3f8, 10),
            (b'#'.into(), 0xffa, 12),
            (b'&'.into(), 0xf8, 8),
            (b'\''.into(), 0x7fa, 11),
            (b'0'.into(), 0x0, 5),
            (b'9'.into(), 0x1f, 6),
            (b':'.into(), 0x5c, 7),
            (b'<'.into(), 0x7ffc, 15),
            (b'\\'.into(), 0x7_fff0, 19),
            (b'^'.into(), 0x3ffc, 14),
            (b'z'.into(), 0x7b, 7),
            (127, 0xfff_fffc, 28),
            (128, 0xf_ffe6, 20),
            (199, 0x1ff_ffec, 25),
            (249, 0xfff_fffe, 28),
            (255, 0x3ff_ffee, 26),
            (256, 0x3fff_ffff, 30),
        ];
        for (symbol, expected, length) in cases {
            assert_eq!(code(symbol), (expected, length), "the code of {symbol}");
        }
    }

    #[test]
    fn every_symbol_is_decoded_wherever_its_code_begins() {
        for symbol in 0..=255_u8 {
            // Under Miri each takes thousands of times as long.
            for before in
                (0..8).step_by(if cfg!(miri) { 7 } else { 1 }).filter(|_| !cfg!(miri) || symbol % 16 == 0)
            {
                let text = [&b"0a".repeat(before)[..], &[symbol], b"x"].concat();
                assert_eq!(decoded(&encode(&text)), Ok(text), "{symbol} behind {before}");
            }
        }
    }

    #[test]
    fn padding_is_less_than_an_octet_of_ones() {
        assert_eq!(decoded(&[]), Ok(vec![]));
        assert_eq!(decoded(&[0b0000_0111]), Ok(b"0".to_vec()));
        assert_eq!(decoded(&[0b0000_0011]), Err(HpackError::Huffman), "padded with other bits");
        assert_eq!(decoded(&[0b0000_0111, 0xFF]), Err(HpackError::Huffman), "padded with an octet more");
        assert_eq!(decoded(&[0xFF]), Err(HpackError::Huffman), "nothing but padding");
        assert_eq!(decoded(&[0xFF, 0xFF, 0xFF, 0xFF]), Err(HpackError::Huffman), "EOS itself");
    }
}
