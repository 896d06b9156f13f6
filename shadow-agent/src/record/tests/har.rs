//! HTTP archives.

use std::io::Write as _;

use serde_json::Value;

use super::*;

fn archive(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap()
}

#[test]
fn an_entry_has_every_member_that_the_format_requires() {
    let mut exchange = exchange(1, [0, 1, 4, 10], "a=1", "\u{fc}");
    exchange.request.headers.0.push(("Content-Type".into(), "application/x-www-form-urlencoded".into()));
    exchange.request.target = Bytes::from_static(b"/a?b=c+d&e=%2F&f");
    exchange.response.headers.0.push(("Location".into(), "/there".into()));
    let archive = archive(&recorded("a.har", &[exchange]));
    let log = &archive["log"];
    assert_eq!((&log["version"], &log["creator"]["name"]), (&json!("1.2"), &json!("shadow-agent")));
    let expected = json!({
        "startedDateTime": "2023-11-14T22:13:20.000000000Z",
        "time": 10.0,
        "request": {
            "method": "POST",
            "url": "http://shop.example/a?b=c+d&e=%2F&f",
            "httpVersion": "HTTP/1.1",
            "cookies": [],
            "headers": [
                { "name": "Host", "value": "shop.example" },
                { "name": "Content-Length", "value": "3" },
                { "name": "Content-Type", "value": "application/x-www-form-urlencoded" },
            ],
            "queryString": [
                { "name": "b", "value": "c d" }, { "name": "e", "value": "/" }, { "name": "f", "value": "" },
            ],
            "postData": { "mimeType": "application/x-www-form-urlencoded", "text": "a=1" },
            "headersSize": "POST /a?b=c+d&e=%2F&f HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 3\r\nContent-Type: application/x-www-form-urlencoded\r\n\r\n".len(),
            "bodySize": 3,
        },
        "response": {
            "status": 200,
            "statusText": "OK",
            "httpVersion": "HTTP/1.1",
            "cookies": [],
            "headers": [
                { "name": "Content-Type", "value": "text/plain" },
                { "name": "Content-Length", "value": "2" },
                { "name": "Location", "value": "/there" },
            ],
            "content": { "size": 2, "mimeType": "text/plain", "text": "\u{fc}" },
            "redirectURL": "/there",
            "headersSize": "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\nLocation: /there\r\n\r\n".len(),
            "bodySize": 2,
        },
        "cache": {},
        "timings": { "blocked": -1, "dns": -1, "connect": -1, "ssl": -1, "send": 1.0, "wait": 3.0, "receive": 6.0 },
        "serverIPAddress": "10.0.0.2",
        "connection": "10.0.0.1:1",
    });
    assert_eq!(log["entries"], json!([expected]));
}

#[test]
fn bodies_that_are_no_text_and_those_that_are_encoded() {
    let mut exchange = simple(0);
    let binary = Bytes::from_static(b"\xff\x00\x01");
    exchange.request.body = binary.clone();
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(&[b'x'; 500]).unwrap();
    let encoded: Bytes = encoder.finish().unwrap().into();
    exchange.response.body = encoded.clone();
    exchange.response.headers.0.push(("Content-Encoding".into(), "gzip".into()));
    let bytes = recorded("a.har", &[exchange]);
    let entry = &archive(&bytes)["log"]["entries"][0];
    assert_eq!(
        entry["request"]["postData"],
        json!({ "mimeType": "", "text": "/wAB", "_encoding": "base64" })
    );
    let content = &entry["response"]["content"];
    assert_eq!((&content["size"], &content["text"]), (&json!(500), &json!("x".repeat(500))));
    assert_eq!(content["compression"], json!(500 - encoded.len()));
    assert_eq!(entry["response"]["bodySize"], json!(encoded.len()));
    let [read] = &read(&bytes)[..] else { panic!() };
    assert_eq!((&read.request.body, &read.response.body), (&binary, &Bytes::from(vec![b'x'; 500])));
    assert!(!read.response.headers.contains("content-encoding"));
}

#[test]
fn the_file_is_an_archive_after_every_write() {
    let place = Place::new();
    let mut recorder = place.recorder("a.har");
    assert_eq!(archive(&place.files()["a.har"])["log"]["entries"], json!([]));
    for count in 0..5 {
        recorder.take(&simple(count * 1000)).unwrap();
        recorder.tick(Timestamp(DAY + (count * 1000 + 250) * MILLI)).unwrap();
        let now = archive(&place.files()["a.har"]);
        assert_eq!(now["log"]["entries"].as_array().unwrap().len() as u64, count + 1);
        assert_eq!(recorder.summary().bytes, place.files()["a.har"].len() as u64);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(50))]

    #[test]
    fn whatever_is_taken_the_file_is_an_archive_after_every_write(
        exchanges in proptest::collection::vec(any_exchange(), 1..5),
    ) {
        let place = Place::new();
        let mut recorder = place.recorder("a.har");
        let mut now = DAY;
        for exchange in &exchanges {
            recorder.take(exchange).unwrap();
            now = now.max(exchange.times.response_done.0) + 250 * MILLI;
            recorder.tick(Timestamp(now)).unwrap();
            let entries = archive(&place.files()["a.har"])["log"]["entries"].as_array().unwrap().len();
            prop_assert_eq!(entries as u64, recorder.summary().written);
            prop_assert_eq!(recorder.summary().pending, 0);
        }
    }
}
