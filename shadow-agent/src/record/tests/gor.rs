//! GoReplay's recordings.

use std::io::Read as _;

use super::*;

const SEPARATOR: &str = "\n🐵🙈🙉\n";

#[test]
fn a_recording_as_goreplay_has_it() {
    let mut second = simple(7);
    second.request.version = Version::HTTP_2;
    second.request.headers = headers(&[("host", "h"), ("accept", "*/*")]);
    second.request.body = Bytes::from_static(b"x");
    second.response.version = Version::HTTP_10;
    second.response.headers = Headers::default();
    let bytes = recorded("a.gor", &[exchange(1, [0, 1, 2, 5], "ask", "answer"), second]);
    let text = String::from_utf8(bytes).unwrap();
    let parts: Vec<&str> = text.split(SEPARATOR).collect();
    let [asked, answered, again, last, ""] = parts[..] else { panic!("{parts:?}") };
    let (meta, message) = asked.split_once('\n').unwrap();
    let [kind, name, time, latency] = meta.split(' ').collect::<Vec<_>>()[..] else { panic!("{meta}") };
    assert_eq!((kind, time, latency), ("1", DAY.to_string().as_str(), "0"));
    assert!(name.len() == 24 && name.bytes().all(|byte| byte.is_ascii_hexdigit()), "{name}");
    assert_eq!(message, "POST /a?b=c HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 3\r\n\r\nask");
    let expected = format!(
        "2 {name} {} {}\nHTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 6\r\n\r\nanswer",
        DAY + 5 * MILLI,
        5 * MILLI
    );
    assert_eq!(answered, expected);
    assert!(
        again.ends_with("POST /a?b=c HTTP/1.1\r\nhost: h\r\naccept: */*\r\ncontent-length: 1\r\n\r\nx"),
        "{again}"
    );
    assert!(last.ends_with("\nHTTP/1.0 200 OK\r\nContent-Length: 6\r\n\r\nanswer"), "{last}");
}

#[test]
fn equal_requests_of_one_time_have_names_of_their_own() {
    let text = String::from_utf8(recorded("a.gor", &[simple(1), simple(1), simple(1)])).unwrap();
    let names =
        text.lines().filter(|line| line.starts_with("1 ")).map(|line| line.split(' ').nth(1).unwrap());
    let names: Vec<&str> = names.collect();
    assert!(names[0] != names[1] && names[1] != names[2] && names[0] != names[2], "{names:?}");
    let read = read(text.as_bytes());
    assert_eq!(read.len(), 3);
    assert_eq!(recorded("b.gor", &read), text.as_bytes());
}

#[test]
fn a_body_with_a_separator_is_cut_in_chunks() {
    let bodies = [
        SEPARATOR.to_owned(),
        SEPARATOR.repeat(3),
        format!("a{SEPARATOR}🐵🙈🙉\nb"),
        "ends like one\n🐵🙈🙉".to_owned(),
        "🐵🙈🙉\n".to_owned(),
    ];
    for body in bodies {
        let exchanges = [exchange(1, [0; 4], &body, &body), simple(1)];
        let written = recorded("a.gor", &exchanges);
        assert_eq!(memchr::memmem::find_iter(&written, SEPARATOR).count(), 4, "{body:?}");
        let read = read(&written);
        assert_eq!(told(&read), told(&exchanges), "{body:?}");
        assert_eq!(recorded("b.gor", &read), written);
    }
}

#[test]
fn what_others_wrote_is_normalised_once() {
    let record = |meta: &str, message: &str| format!("{meta}\n{message}{SEPARATOR}");
    let by_hand = [
        record(
            "1 932079936fa4306fc308d67588178d17d823647c 1439818823587396305 200",
            "POST /p HTTP/1.1\r\nHost:  x \r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
        ),
        record(
            "2 932079936fa4306fc308d67588178d17d823647c 1439818823587396999 9",
            "HTTP/1.1 299 Whatever\r\nCookie: a\r\n\r\nto the end",
        ),
    ];
    let first = recorded("a.gor", &read(by_hand.concat().as_bytes()));
    let text = String::from_utf8(first.clone()).unwrap();
    // Name and latency, spaces around values, framing, reason phrase; and masks.
    let [asked, answered, ""] = text.split(SEPARATOR).collect::<Vec<_>>()[..] else { panic!("{text}") };
    let (meta, message) = asked.split_once('\n').unwrap();
    assert!(meta.starts_with("1 ") && meta.ends_with(" 1439818823587396305 0"), "{meta}");
    assert_eq!(message, "POST /p HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi");
    let (meta, message) = answered.split_once('\n').unwrap();
    assert!(meta.starts_with("2 ") && meta.ends_with(" 1439818823587396999 694"), "{meta}");
    assert_eq!(message, "HTTP/1.1 299 \r\nCookie: [masked: header]\r\nContent-Length: 10\r\n\r\nto the end");
    assert_eq!(recorded("b.gor", &read(&first)), first);
}

#[test]
fn compressed_it_holds_the_same_and_is_whole_after_every_tick() {
    let exchanges = [simple(0), simple(1000), simple(3000)];
    let place = Place::new();
    let mut recorder = place.recorder("a.gor.gz");
    recorder.take(&exchanges[0]).unwrap();
    recorder.tick(Timestamp(DAY + 250 * MILLI)).unwrap();
    let mut plain = Vec::new();
    let files = place.files();
    let mut so_far = flate2::read::GzDecoder::new(&files["a.gor.gz"][..]);
    assert!(so_far.read_to_end(&mut plain).is_err(), "the end is still missing");
    assert_eq!(plain, recorded("b.gor", &exchanges[..1]));
    recorder.take(&exchanges[1]).unwrap();
    recorder.take(&exchanges[2]).unwrap();
    recorder.finish().unwrap();
    let bytes = place.files().remove("a.gor.gz").unwrap();
    assert_eq!(recorder.summary().bytes, bytes.len() as u64);
    assert_eq!(told(&read(&bytes)), told(&exchanges));
}

#[test]
fn so_many_requests_are_remembered_and_no_more() {
    const MAX_EQUALS: u64 = 16_384;
    // Whether the first request still counts after so many others.
    let counts = |others: u64| {
        let mut gor = super::super::gor::Gor::default();
        let first = gor.record(&simple(0));
        let mut other = exchange(1, [0; 4], "", "");
        for number in 0..others {
            other.times.started = Timestamp(number);
            gor.record(&other);
        }
        gor.record(&simple(0)) != first
    };
    assert!(counts(MAX_EQUALS - 1));
    assert!(!counts(MAX_EQUALS));
}
