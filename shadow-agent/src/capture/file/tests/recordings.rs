//! What others recorded takes the way of captured traffic, to exchanges.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::super::gor::SEPARATOR;
use super::super::*;
use crate::config::Limits;
use crate::exchange::Exchange;
use crate::shard::{Event, Pipeline, PipelineSettings};
use crate::tcp::Ending;

/// What a file gives: exchanges, losses by name, the tally, and how it ends.
struct Found {
    exchanges: Vec<Exchange>,
    lost: Vec<&'static str>,
    tally: Tally,
    ended: Result<(), String>,
}

impl Found {
    /// Method, target, request body, status and response body of every exchange.
    fn told(&self) -> Vec<String> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let told = self.exchanges.iter().map(|exchange| {
            let Exchange { request, response, .. } = exchange;
            let (target, asked, answer) = (text(&request.target), text(&request.body), text(&response.body));
            format!("{} {target} {asked} -> {} {answer}", request.method, response.status)
        });
        told.collect()
    }

    fn count(&self, record: FileRecord) -> u64 {
        self.tally.records[record as usize]
    }
}

fn read(bytes: &[u8]) -> Found {
    let mut source =
        FileSource::new(Path::new("x"), Box::new(io::Cursor::new(bytes.to_vec())), None).unwrap();
    let settings = PipelineSettings::new(&Limits::default(), &[], 1, 0);
    let mut pipeline = Pipeline::new(&settings);
    let mut events = Vec::new();
    let ended = loop {
        let polled = source.poll(Duration::ZERO, &mut |segment| {
            pipeline.segment(segment, &mut |event| events.push(event));
        });
        match polled {
            Ok(Some(_)) => {}
            Ok(None) => break Ok(()),
            Err(error) => break Err(error.to_string()),
        }
    };
    pipeline.finish(Ending::Shutdown, &mut |event| events.push(event));
    assert_eq!(pipeline.stats().imbalance(), 0);
    let mut found = Found { exchanges: Vec::new(), lost: Vec::new(), tally: source.tally(), ended };
    for event in events {
        match event {
            Event::Exchange(exchange) => found.exchanges.push(exchange),
            Event::Lost(lost) => found.lost.push(lost.reason.as_str()),
            Event::Skipped(reason) => panic!("skipped {reason}"),
        }
    }
    found
}

fn gor(records: &[(&str, &str)]) -> Vec<u8> {
    let record =
        |(meta, message): &(&str, &str)| [meta.as_bytes(), b"\n", message.as_bytes(), SEPARATOR].concat();
    records.iter().flat_map(record).collect()
}

const ASK: &str = "GET /a?b HTTP/1.1\r\nHost: x\r\n\r\n";
const SAY: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[test]
fn goreplay_s_recordings() {
    let post = "POST /p HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n";
    let until_close = "HTTP/1.0 200 OK\r\n\r\nto the end";
    let monkeys = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n\n\u{1F435}\u{1F648} ";
    let found = read(&gor(&[
        ("1 aaaa 1700000000000000001 0", ASK),
        ("1 bbbb 1700000000000000002", post),
        ("2 bbbb 1700000000000000003 5", until_close),
        ("3 aaaa 1700000000000000004 5", SAY),
        ("2 aaaa 1700000000000000009 5", SAY),
        ("1 cccc 1700000000000000010 0", ASK),
        ("2 cccc 1700000000000000011 0", monkeys),
        // A name may come again.
        ("1 aaaa 1700000000000000012 0", ASK),
        ("2 aaaa 1700000000000000013 0", SAY),
        ("2 dddd 1700000000000000014 0", SAY),
        ("1 eeee 1700000000000000015 0", ASK),
        ("what", "ever"),
        ("1 ffff soon 0", ASK),
        ("1 gggg 1700000000000000016 0", "GET / HTTP/1.1\r\n"),
        ("2 gggg 1700000000000000017 0", SAY),
    ]));
    let plain = "GET /a?b  -> 200 ok";
    let expected = ["POST /p hi -> 200 to the end", plain, "GET /a?b  -> 200 \n\u{1F435}\u{1F648} ", plain];
    assert_eq!(found.told(), expected);
    assert_eq!(found.lost.len(), 2, "{:?}", found.lost);
    let times = &found.exchanges[1].times;
    let seen = [times.started, times.request_done, times.response_started, times.response_done];
    assert_eq!(seen.map(|time| time.0 - 1_700_000_000_000_000_000), [1, 1, 9, 9]);
    let records = [
        (FileRecord::Message, 11),
        (FileRecord::Replayed, 1),
        (FileRecord::Unasked, 1),
        (FileRecord::Malformed, 2),
    ];
    for (record, count) in records {
        assert_eq!(found.count(record), count, "{record}");
    }
    assert_eq!((found.tally.cut, found.ended), (None, Ok(())));
}

#[test]
fn a_recording_that_is_cut() {
    let whole = gor(&[("1 a 5 0", ASK), ("2 a 6 0", SAY)]);
    let last = whole.len() - gor(&[("1 a 5 0", ASK)]).len();
    for missing in 0..last {
        let found = read(&whole[..whole.len() - missing]);
        assert_eq!(found.exchanges.len(), usize::from(missing == 0), "{missing} bytes missing");
        assert_eq!(found.tally.cut.is_some(), missing > 0, "{missing} bytes missing");
    }
}

fn entry(started: &str, took: u32, request: &Value, response: &Value) -> Value {
    json!({ "startedDateTime": started, "time": took, "request": request, "response": response, "cache": {} })
}

fn header(name: &str, value: &str) -> Value {
    json!({ "name": name, "value": value })
}

#[test]
fn archives() {
    let get = |url: &str| {
        json!({ "method": "GET", "url": url, "httpVersion": "h2", "headers": [
        header(":authority", "shop.example"), header("accept", "*/*"), header("content-length", "77"),
    ] })
    };
    let ok = |text: &str| {
        json!({ "status": 200, "httpVersion": "h2", "headers": [
            header("content-encoding", "gzip"), header("transfer-encoding", "chunked"), header("x-a", "1\n2"),
        ], "content": { "size": 5, "mimeType": "text/plain", "text": text } })
    };
    let post = json!({ "method": "POST", "url": "https://shop.example:8443/p", "headers": [
        header("Host", "other.example"), header("Content-Type", "text/plain"),
    ], "postData": { "mimeType": "text/plain", "text": "hi" } });
    let image = json!({ "status": 201, "headers": [], "content": {
        "size": 3, "mimeType": "image/png", "encoding": "base64", "text": "AAECAw==" } });
    let blocked = json!({ "status": 0, "headers": [], "content": {} });
    let none = json!({ "status": 204, "headers": [header("content-length", "5")], "content": { "size": 0 } });
    let head = json!({ "method": "HEAD", "url": "http://h/h", "headers": [] });
    let archive = json!({ "log": { "version": "1.2", "pages": [{ "id": "p" }], "entries": [
        // It is answered after the next one.
        entry("2026-01-02T03:04:05.000Z", 500, &get("https://shop.example/a?b=c#d"), &ok("first")),
        entry("2026-01-02T03:04:05.100+00:00", 50, &post, &image),
        entry("2026-01-02T03:04:06Z", 5, &get("data:text/plain,x"), &ok("never sent")),
        entry("2026-01-02T03:04:06Z", 5, &get("https://shop.example/blocked"), &blocked),
        entry("2026-01-02T03:04:06Z", 5, &get("https://shop.example?q"), &none),
        entry("2026-01-02T03:04:07Z", 5, &head, &ok("no body comes")),
    ], "comment": "" } });
    for text in [archive.to_string(), format!("\u{FEFF} {archive:#}")] {
        let found = read(text.as_bytes());
        assert_eq!(found.ended, Ok(()));
        let expected = [
            "POST /p hi -> 201 \0\u{1}\u{2}\u{3}",
            "GET /a?b=c  -> 200 first",
            "GET /?q  -> 204 ",
            "HEAD /h  -> 200 ",
        ];
        assert_eq!(found.told(), expected);
        assert_eq!((found.count(FileRecord::Message), found.count(FileRecord::NotHttp)), (8, 2));
        assert_eq!((found.lost.len(), found.tally.cut), (0, None));
        let [second, first, ..] = &found.exchanges[..] else { panic!() };
        let field =
            |exchange: &Exchange, name| exchange.request.headers.get(name).map(|value| value.to_vec());
        assert_eq!(field(first, "host").unwrap(), b"shop.example");
        assert_eq!(field(second, "host").unwrap(), b"other.example");
        assert_eq!(first.response.headers.all("x-a").collect::<Vec<_>>(), ["1", "2"]);
        assert!(!first.response.headers.contains("content-encoding"));
        assert_eq!(first.times.response_done.since(first.times.started), Duration::from_millis(500));
        assert_eq!(first.times.started.to_string(), "2026-01-02T03:04:05.000000000Z");
        for end in [text.len() / 2, text.len() - 30] {
            let cut = read(&text.as_bytes()[..end]);
            assert!(cut.tally.cut.is_some() && cut.ended.is_ok(), "cut at {end}");
        }
    }
}

#[test]
fn what_is_no_archive() {
    for (text, problem) in [
        ("{}", "it has no log with entries"),
        ("{\"log\": {\"version\": 1}}", "it has no log with entries"),
        ("{\"log\": []}", "expected an HTTP archive"),
        ("{\"log\": {\"entries\": [1]}}", "invalid type: integer `1`"),
        ("{\"log\": {\"entries\": []}} more", "trailing characters at line 1 column"),
    ] {
        let ended = read(text.as_bytes()).ended.unwrap_err();
        assert!(
            ended.starts_with("x cannot be read as an HTTP archive (") && ended.contains(problem),
            "{ended}"
        );
    }
}
