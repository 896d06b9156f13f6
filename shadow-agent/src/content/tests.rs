use std::io::Read;

use flate2::Compression;
use flate2::read::{DeflateEncoder, GzEncoder, ZlibEncoder};
use proptest::prelude::*;
use ruzstd::encoding::{CompressionLevel, compress_to_vec};

use super::*;

const LIMIT: usize = 1 << 20;
const TEXT: &[u8] = b"hello, hello, hello shadow";
const TEXT_BR: &[u8] = &[
    27, 25, 0, 248, 141, 212, 78, 249, 195, 80, 84, 101, 104, 13, 194, 194, 246, 166, 24, 137, 167, 18, 192,
    99, 213, 2, 1,
];
/// 10 MiB of zeros.
const BOMB_BR: &[u8] = &[
    203, 255, 255, 63, 248, 39, 0, 226, 177, 64, 32, 247, 254, 47, 255, 255, 63, 240, 79, 0, 196, 97, 17,
    128, 238, 253, 7,
];
/// `TEXT` with a checksum.
const TEXT_ZSTD: &[u8] = &[
    0x28, 0xb5, 0x2f, 0xfd, 0x04, 0x58, 0xa5, 0x00, 0x00, 0x70, 0x68, 0x65, 0x6c, 0x6c, 0x6f, 0x2c, 0x20,
    0x20, 0x73, 0x68, 0x61, 0x64, 0x6f, 0x77, 0x01, 0x00, 0xe2, 0x8a, 0x11, 0x92, 0x32, 0x99, 0x37,
];

fn headers(encoding: &str) -> Headers {
    Headers(vec![(Bytes::from_static(b"Content-Encoding"), Bytes::from(encoding.to_owned()))])
}

fn all(mut reader: impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes).unwrap();
    bytes
}

fn gzip(data: &[u8]) -> Vec<u8> {
    all(GzEncoder::new(data, Compression::default()))
}

fn zlib(data: &[u8]) -> Vec<u8> {
    all(ZlibEncoder::new(data, Compression::default()))
}

fn raw(data: &[u8]) -> Vec<u8> {
    all(DeflateEncoder::new(data, Compression::default()))
}

fn zstd_encode(data: &[u8]) -> Vec<u8> {
    compress_to_vec(data, CompressionLevel::Fastest)
}

#[track_caller]
fn check(encoding: &str, body: &[u8], limit: usize, expected: Result<&[u8], DecodeError>) {
    let decoded = decode(&headers(encoding), &Bytes::copy_from_slice(body), limit);
    assert_eq!(decoded.as_deref(), expected.as_ref().copied(), "{encoding}, {} bytes", body.len());
}

#[test]
fn a_body_is_encoded_as_its_head_says_where_there_is_one_coding_with_an_encoder() {
    for coding in ["gzip", "X-Gzip", "deflate", "zstd", "gzip, identity"] {
        let encoded = encode_alike(&headers(coding), TEXT).unwrap();
        check(coding, &encoded, LIMIT, Ok(TEXT));
        assert_ne!(encoded, TEXT, "{coding}");
    }
    for coding in ["", "identity", "br", "compress", "gzip, gzip"] {
        assert_eq!(encode_alike(&headers(coding), TEXT), None, "{coding}");
    }
}

#[test]
fn every_coding_is_undone() {
    let skippable = [&[0x50, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 9, 9], TEXT_ZSTD].concat();
    let twice = [TEXT_ZSTD, TEXT_ZSTD].concat();
    check("", TEXT, LIMIT, Ok(TEXT));
    check("identity", TEXT, LIMIT, Ok(TEXT));
    check("gzip", &gzip(TEXT), LIMIT, Ok(TEXT));
    check("X-Gzip", &gzip(TEXT), LIMIT, Ok(TEXT));
    check("gzip", &[gzip(TEXT), gzip(TEXT)].concat(), LIMIT, Ok(&TEXT.repeat(2)));
    check("deflate", &zlib(TEXT), LIMIT, Ok(TEXT));
    check("deflate", &raw(TEXT), LIMIT, Ok(TEXT));
    check("br", TEXT_BR, LIMIT, Ok(TEXT));
    check("zstd", TEXT_ZSTD, LIMIT, Ok(TEXT));
    check("zstd", &twice, LIMIT, Ok(&TEXT.repeat(2)));
    check("zstd", &skippable, LIMIT, Ok(TEXT));
    check("zstd, gzip", &gzip(&zstd_encode(TEXT)), LIMIT, Ok(TEXT));
    check("gzip", b"", LIMIT, Ok(b""));
}

#[test]
fn one_coding_is_undone_by_its_name_and_within_the_limit() {
    let one = |name: &str, body: &[u8], limit| decode_one(name, &Bytes::copy_from_slice(body), limit);
    for (name, body) in [("gzip", gzip(TEXT)), (" Deflate", zlib(TEXT)), ("identity", TEXT.to_vec())] {
        assert_eq!(one(name, &body, TEXT.len()).as_deref(), Ok(TEXT), "{name}");
        assert_eq!(one(name, &body, TEXT.len() - 1), Err(DecodeError::TooLarge(TEXT.len() - 1)), "{name}");
    }
    assert_eq!(one("gzip, gzip", TEXT, LIMIT), Err(DecodeError::Unknown("gzip, gzip".to_owned())));
    assert_eq!(one("gzip", TEXT, LIMIT), Err(DecodeError::Broken("gzip")));
}

#[test]
fn what_cannot_be_decoded_says_why() {
    let mut corrupt = TEXT_ZSTD.to_vec();
    *corrupt.last_mut().unwrap() ^= 1;
    let broken = |coding| Err(DecodeError::Broken(coding));
    check("gzip", TEXT, LIMIT, broken("gzip"));
    check("gzip", &gzip(TEXT)[..20], LIMIT, broken("gzip"));
    check("deflate", &zlib(TEXT)[..12], LIMIT, broken("deflate"));
    check("br", &TEXT_BR[..12], LIMIT, broken("br"));
    check("zstd", &TEXT_ZSTD[..12], LIMIT, broken("zstd"));
    check("zstd", &corrupt, LIMIT, broken("zstd"));
    check("zstd", &[0x50, 0x2a, 0x4d, 0x18, 9, 0, 0, 0, 9], LIMIT, broken("zstd"));
    check("compress", TEXT, LIMIT, Err(DecodeError::Unknown("compress".to_owned())));
    let nested = (0..MAX_CODINGS).fold(TEXT.to_vec(), |data, _| gzip(&data));
    check("gzip,gzip,gzip,gzip", &nested, LIMIT, Ok(TEXT));
    check("gzip,gzip,gzip,gzip,gzip", &gzip(&nested), LIMIT, Err(DecodeError::TooMany(MAX_CODINGS + 1)));
}

#[test]
fn a_bomb_stops_at_the_limit() {
    let zeros = vec![0; 10 << 20];
    let bombs = [
        ("gzip", gzip(&zeros)),
        ("deflate", zlib(&zeros)),
        ("deflate", raw(&zeros)),
        ("br", BOMB_BR.to_vec()),
    ];
    for (coding, bomb) in bombs.iter().chain([&("zstd", zstd_encode(&zeros))]) {
        check(coding, bomb, zeros.len(), Err(DecodeError::Bomb));
        check(coding, bomb, FREE, Err(DecodeError::TooLarge(FREE)));
        check(coding, bomb, 0, Err(DecodeError::TooLarge(0)));
    }
    check("", TEXT, TEXT.len(), Ok(TEXT));
    check("", TEXT, TEXT.len() - 1, Err(DecodeError::TooLarge(TEXT.len() - 1)));
    check("gzip, gzip", &gzip(&gzip(&zeros)), 4096, Err(DecodeError::TooLarge(4096)));
}

#[test]
fn a_body_may_grow_to_so_many_times_its_size_and_no_further() {
    // A frame that is skipped makes a body as large as it is to be.
    let padded = |decoded: usize, size: usize| {
        let mut body = zstd_encode(&vec![0; decoded]);
        let padding = size - body.len() - 8;
        body.extend([0x50, 0x2a, 0x4d, 0x18]);
        body.extend(u32::try_from(padding).unwrap().to_le_bytes());
        body.resize(size, 0);
        (body, vec![0; decoded])
    };
    let (free, zeros) = padded(FREE, FREE / MAX_RATIO - 1);
    check("zstd", &free, 2 * FREE, Ok(&zeros));
    let (over, _) = padded(FREE + 1, FREE / MAX_RATIO);
    check("zstd", &over, 2 * FREE, Err(DecodeError::Bomb));
    let (most, zeros) = padded(2 * FREE, 2 * FREE / MAX_RATIO);
    check("zstd", &most, 4 * FREE, Ok(&zeros));
    let (over, _) = padded(2 * FREE + 1, 2 * FREE / MAX_RATIO);
    check("zstd", &over, 4 * FREE, Err(DecodeError::Bomb));
    let nested = gzip(&gzip(&vec![0; 4 * FREE]));
    check("gzip, gzip", &nested, 8 * FREE, Err(DecodeError::Bomb));
}

#[test]
fn media_types_are_told_apart() {
    let cases = [
        ("application/json", Some("application/json"), true),
        ("Application/Problem+JSON; charset=utf-8", Some("application/problem+json"), true),
        ("text/html;x", Some("text/html"), false),
        ("application/jsonp", Some("application/jsonp"), false),
        ("", None, false),
    ];
    for (value, essence, json) in cases {
        let headers =
            Headers(vec![(Bytes::from_static(b"content-type"), Bytes::from_static(value.as_bytes()))]);
        let found = media_type(&headers);
        assert_eq!(found.as_deref(), essence);
        assert_eq!(found.is_some_and(|found| is_json(&found)), json, "{value}");
    }
}

proptest! {
    #[test]
    fn what_was_encoded_comes_back(data in proptest::collection::vec(any::<u8>(), 0..4096)) {
        for (coding, body) in
            [("gzip", gzip(&data)), ("deflate", zlib(&data)), ("deflate", raw(&data)), ("zstd", zstd_encode(&data))]
        {
            let decoded = decode(&headers(coding), &body.into(), LIMIT);
            prop_assert_eq!(decoded.as_deref(), Ok(&data[..]), "{}", coding);
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic_nor_exceed_the_limit(
        data in proptest::collection::vec(any::<u8>(), 0..512),
        coding in prop_oneof![Just("gzip"), Just("deflate"), Just("br"), Just("zstd")],
    ) {
        if let Ok(decoded) = decode(&headers(coding), &data.into(), 1024) {
            prop_assert!(decoded.len() <= 1024);
        }
    }
}
