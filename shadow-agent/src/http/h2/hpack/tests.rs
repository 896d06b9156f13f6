//! The examples of RFC 7541, appendix C, and blocks that nobody should send.

use super::*;

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

/// The fields of a block as lines; `?` for one that is unknown.
fn lines(decoder: &mut Decoder, block: &[u8]) -> Result<Vec<String>, HpackError> {
    let mut lines = Vec::new();
    let text = |bytes: Bytes| String::from_utf8(bytes.to_vec()).unwrap();
    decoder.decode(block, &mut |field| {
        lines.push(match field {
            Field::Known(name, value) => format!("{}: {}", text(name), text(value)),
            Field::Unknown => "?".to_owned(),
        });
    })?;
    Ok(lines)
}

/// Decodes blocks one after the other; after each, the table must hold so many entries.
#[track_caller]
fn check(max: usize, blocks: &[(&str, &[&str], usize)]) {
    let mut decoder = Decoder::new();
    decoder.table.resize(max);
    for (hex, expected, entries) in blocks {
        assert_eq!(lines(&mut decoder, &bytes(hex)).unwrap(), *expected, "{hex}");
        assert!(decoder.table.get(61 + entries).is_ok(), "{entries} entries behind {hex}");
        assert_eq!(decoder.table.get(62 + entries), Err(HpackError::Index), "{entries} entries behind {hex}");
    }
}

const FIRST: &[&str] = &[":method: GET", ":scheme: http", ":path: /", ":authority: www.example.com"];
const SECOND: &[&str] =
    &[":method: GET", ":scheme: http", ":path: /", ":authority: www.example.com", "cache-control: no-cache"];
const THIRD: &[&str] = &[
    ":method: GET",
    ":scheme: https",
    ":path: /index.html",
    ":authority: www.example.com",
    "custom-key: custom-value",
];
const FOUND: &[&str] = &[
    ":status: 302",
    "cache-control: private",
    "date: Mon, 21 Oct 2013 20:13:21 GMT",
    "location: https://www.example.com",
];
const MOVED: &[&str] = &[
    ":status: 307",
    "cache-control: private",
    "date: Mon, 21 Oct 2013 20:13:21 GMT",
    "location: https://www.example.com",
];
const OK: &[&str] = &[
    ":status: 200",
    "cache-control: private",
    "date: Mon, 21 Oct 2013 20:13:22 GMT",
    "location: https://www.example.com",
    "content-encoding: gzip",
    "set-cookie: foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1",
];

#[test]
fn fields_of_appendix_c_2() {
    let header: &[&str] = &["custom-key: custom-header"];
    check(4096, &[("400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572", header, 1)]);
    check(4096, &[("040c 2f73 616d 706c 652f 7061 7468", &[":path: /sample/path"], 0)]);
    check(4096, &[("1008 7061 7373 776f 7264 0673 6563 7265 74", &["password: secret"], 0)]);
    check(4096, &[("82", &[":method: GET"], 0)]);
}

#[test]
fn requests_of_appendix_c_3_and_c_4() {
    check(
        4096,
        &[
            ("8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d", FIRST, 1),
            ("8286 84be 5808 6e6f 2d63 6163 6865", SECOND, 2),
            ("8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65", THIRD, 3),
        ],
    );
    check(
        4096,
        &[
            ("8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff", FIRST, 1),
            ("8286 84be 5886 a8eb 1064 9cbf", SECOND, 2),
            ("8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf", THIRD, 3),
        ],
    );
}

#[test]
fn responses_of_appendix_c_5_and_c_6() {
    check(
        256,
        &[
            (
                "4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133
                 2032 303a 3133 3a32 3120 474d 546e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70
                 6c65 2e63 6f6d",
                FOUND,
                4,
            ),
            ("4803 3330 37c1 c0bf", MOVED, 4),
            (
                "88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d
                 54c0 5a04 677a 6970 7738 666f 6f3d 4153 444a 4b48 514b 425a 584f 5157 454f 5049
                 5541 5851 5745 4f49 553b 206d 6178 2d61 6765 3d33 3630 303b 2076 6572 7369 6f6e
                 3d31",
                OK,
                3,
            ),
        ],
    );
    check(
        256,
        &[
            (
                "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6
                 2d1b ff6e 919d 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3",
                FOUND,
                4,
            ),
            ("4883 640e ffc1 c0bf", MOVED, 4),
            (
                "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab
                 77ad 94e7 821d d7f2 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f
                 9587 3160 65c0 03ed 4ee5 b106 3d50 07",
                OK,
                3,
            ),
        ],
    );
}

#[test]
fn what_came_before_is_unknown_and_what_came_since_is_not() {
    let mut decoder = Decoder::joined();
    let block = bytes("82 be 41 0161 bf be 7f81 00 0162");
    let expected = [":method: GET", "?", ":authority: a", "?", ":authority: a", "?"];
    assert_eq!(lines(&mut decoder, &block).unwrap(), expected);
    // The last one was inserted, with a name that nobody knows.
    assert_eq!(lines(&mut decoder, &bytes("be bf c0")).unwrap(), ["?", ":authority: a", "?"]);
    decoder.forget();
    assert_eq!(lines(&mut decoder, &bytes("bf 82")).unwrap(), ["?", ":method: GET"]);
}

#[test]
fn blocks_that_are_none_are_refused_and_make_the_table_unknown() {
    let cases = [
        ("80", HpackError::Index),
        ("be", HpackError::Index),
        ("7f 00 00", HpackError::Index),
        ("40 0161", HpackError::Truncated),
        ("40 01", HpackError::Truncated),
        ("ff", HpackError::Truncated),
        ("ff ffff ffff ffff", HpackError::Integer),
        ("82 20", HpackError::SizeUpdate),
        ("41 81 03", HpackError::Huffman),
    ];
    for (hex, error) in cases {
        let mut decoder = Decoder::new();
        lines(&mut decoder, &bytes("41 0161")).unwrap();
        let block = if hex == "be" { "bf" } else { hex };
        assert_eq!(lines(&mut decoder, &bytes(block)), Err(error), "{hex}");
        assert_eq!(lines(&mut decoder, &bytes("be")).unwrap(), ["?"], "behind {hex}");
    }
    assert_eq!(lines(&mut Decoder::new(), &bytes("20 3f e1 1f 82")).unwrap(), [":method: GET"]);
}

/// A string of plain octets.
fn plain(text: &[u8]) -> Vec<u8> {
    let mut coded = match u32::try_from(text.len()).unwrap() {
        length @ 0..127 => vec![length as u8],
        length => {
            let (mut rest, mut coded) = (length - 127, vec![0x7F]);
            while rest >= 128 {
                coded.push(rest as u8 | 0x80);
                rest >>= 7;
            }
            coded.push(rest as u8);
            coded
        }
    };
    coded.extend_from_slice(text);
    coded
}

#[test]
fn a_name_that_is_used_again_keeps_no_large_value_in_memory() {
    for (length, shared) in [(MAX_UNCOUNTED, true), (MAX_UNCOUNTED + 1, false)] {
        let mut decoder = Decoder::new();
        let block = [&[0x40][..], &plain(b"name"), &plain(&vec![b'v'; length])].concat();
        decoder.decode(&block, &mut |_| {}).unwrap();
        let Ok(Entry::Known(name, value)) = decoder.table.get(62) else { panic!("it is known") };
        assert_eq!((&name[..], value.len()), (&b"name"[..], length));
        assert_eq!(name.as_ptr_range().end == value.as_ptr(), shared, "a value of {length} bytes");
    }
}

#[test]
fn a_string_takes_hardly_more_memory_than_its_length() {
    // Symbols whose codes have 30 bits: far fewer octets come out than could.
    let coded = huffman_for_tests::encode(&[b'\n'; 1000]);
    let mut string = plain(&coded);
    string[0] |= 0x80;
    let mut fields = Vec::new();
    let named = [&[0x40][..], &plain(b"name"), &string, &[0x0f, 0x2f], &string].concat();
    Decoder::new().decode(&named, &mut |field| fields.push(field)).unwrap();
    for field in fields {
        let Field::Known(_, value) = field else { panic!("it is known") };
        assert_eq!(value.len(), 1000);
        let allocated = Vec::from(value).capacity();
        assert!(allocated <= 1000 + MAX_UNCOUNTED, "{allocated} bytes");
    }
}
