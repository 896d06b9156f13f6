//! What is written is read back, masked, in files of the size and number that were asked for.

use std::collections::BTreeMap;
use std::fs;
use std::io::Cursor;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

use bytes::Bytes;
use http::{Method, Version};
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::capture::SegmentSource as _;
use crate::capture::file::FileSource;
use crate::config::Limits;
use crate::exchange::{ConnectionId, ExchangeId, Headers, Request, Response, Times};
use crate::shard::{Event, Pipeline, PipelineSettings};
use crate::tcp::Ending;

mod gor;
mod har;
mod pcapng;
mod rotation;

/// Some day.
const DAY: u64 = 1_700_000_000_000_000_000;
const MILLI: u64 = 1_000_000;

fn headers(fields: &[(&str, &str)]) -> Headers {
    Headers(
        fields.iter().map(|(name, value)| ((*name).to_owned().into(), (*value).to_owned().into())).collect(),
    )
}

/// A POST of `asked`, answered by `answered`, so many milliseconds after some day, of a client of that number.
fn exchange(client: u16, at: [u64; 4], asked: &str, answered: &str) -> Exchange {
    let [started, request_done, response_started, response_done] = at.map(|at| Timestamp(DAY + at * MILLI));
    let length = |text: &str| text.len().to_string();
    Exchange {
        id: ExchangeId(1),
        connection: ConnectionId(1),
        client: SocketAddr::from(([10, 0, 0, 1], client)),
        server: SocketAddr::from(([10, 0, 0, 2], 8080)),
        request: Request {
            method: Method::POST,
            target: Bytes::from_static(b"/a?b=c"),
            version: Version::HTTP_11,
            headers: headers(&[("Host", "shop.example"), ("Content-Length", &length(asked))]),
            body: asked.to_owned().into(),
            trailers: Headers::default(),
        },
        response: Response {
            status: 200,
            version: Version::HTTP_11,
            headers: headers(&[("Content-Type", "text/plain"), ("Content-Length", &length(answered))]),
            body: answered.to_owned().into(),
            trailers: Headers::default(),
        },
        times: Times { started, request_done, response_started, response_done },
    }
}

/// Such an exchange, with `at` for its only time.
fn simple(at: u64) -> Exchange {
    exchange(40_000, [at; 4], "ask", "answer")
}

/// A folder that files are recorded to.
struct Place(TempDir);

impl Place {
    fn new() -> Place {
        Place(TempDir::new().unwrap())
    }

    fn options(&self, name: &str) -> Options {
        Options { out: self.0.path().join(name), ..Options::default() }
    }

    fn recorder(&self, name: &str) -> Recorder {
        Recorder::new(&self.options(name), Arc::default()).unwrap()
    }

    /// What is in the folder, by name.
    fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let entries = fs::read_dir(self.0.path()).unwrap().map(|entry| entry.unwrap());
        let named =
            entries.map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()));
        named.collect()
    }
}

/// The bytes of the file that the exchanges are recorded to.
fn recorded(name: &str, exchanges: &[Exchange]) -> Vec<u8> {
    let place = Place::new();
    let mut recorder = place.recorder(name);
    for exchange in exchanges {
        recorder.take(exchange).unwrap();
    }
    recorder.finish().unwrap();
    let summary = recorder.summary();
    let bytes = place.files().remove(name).unwrap();
    assert_eq!(summary.written + summary.left_out.iter().sum::<u64>(), exchanges.len() as u64);
    assert_eq!((summary.files, summary.bytes, summary.pending), (1, bytes.len() as u64, 0));
    bytes
}

/// The exchanges in a file, all of which must be whole.
fn read(bytes: &[u8]) -> Vec<Exchange> {
    let mut source = FileSource::new(Path::new("x"), Box::new(Cursor::new(bytes.to_vec())), None).unwrap();
    let mut pipeline = Pipeline::new(&PipelineSettings::new(&Limits::default(), &[], 1, 0));
    let mut events = Vec::new();
    while source
        .poll(Duration::ZERO, &mut |segment| pipeline.segment(segment, &mut |event| events.push(event)))
        .unwrap()
        .is_some()
    {}
    pipeline.finish(Ending::Shutdown, &mut |event| events.push(event));
    assert_eq!(source.tally().cut, None);
    let whole = events.into_iter().map(|event| match event {
        Event::Exchange(exchange) => exchange,
        other => panic!("{other:?}"),
    });
    whole.collect()
}

/// Method, target, request body, status and response body.
fn told(exchanges: &[Exchange]) -> Vec<(String, Bytes, Bytes, u16, Bytes)> {
    let told = exchanges.iter().map(|exchange| {
        let Exchange { request, response, .. } = exchange;
        let (asked, answered) = (request.body.clone(), response.body.clone());
        (request.method.to_string(), request.target.clone(), asked, response.status, answered)
    });
    told.collect()
}

/// Bodies of all kinds: empty, text, what would end a record, bytes.
fn bodies() -> impl Strategy<Value = Bytes> {
    let word = prop_oneof![
        Just("\n🐵🙈🙉\n".to_owned()),
        Just("\n🐵🙈🙉".to_owned()),
        Just("🐵🙈🙉\n".to_owned()),
        Just("bob@example.com ".to_owned()),
        Just("\r\n".to_owned()),
        "[ -~]{0,9}",
    ];
    prop_oneof![
        Just(Bytes::new()),
        proptest::collection::vec(word, 0..8).prop_map(|words| words.concat().into()),
        proptest::collection::vec(any::<u8>(), 0..50).prop_map(Bytes::from),
        (1_usize..6000).prop_map(|length| vec![b'x'; length].into()),
    ]
}

fn versions() -> impl Strategy<Value = Version> {
    prop_oneof![Just(Version::HTTP_10), Just(Version::HTTP_11), Just(Version::HTTP_2)]
}

prop_compose! {
    fn any_exchange()(
        method in prop_oneof![Just(Method::GET), Just(Method::POST), Just(Method::HEAD), Just(Method::DELETE)],
        status in prop_oneof![Just(200_u16), Just(204), Just(304), Just(404), Just(299), Just(500)],
        target in prop_oneof!["/[a-z?&=%/;~]{0,20}", Just("*".to_owned()), Just("http://h/x?y".to_owned()), Just("/x#y".to_owned())],
        (asked, answered) in (bodies(), bodies()),
        (asks, answers) in (versions(), versions()),
        (client, is_ipv6) in (1024_u16..1030, any::<bool>()),
        started in 0_u64..50,
        took in proptest::array::uniform3(0_u64..2000),
        trailers in any::<bool>(),
    ) -> Exchange {
        let [a, b, c] = took;
        let mut exchange = exchange(client, [started, started + a, started + a + b, started + a + b + c], "", "");
        if is_ipv6 {
            exchange.client.set_ip("fd00::1".parse().unwrap());
            exchange.server.set_ip("fd00::2".parse().unwrap());
        }
        let bodiless = method == Method::HEAD || matches!(status, 204 | 304);
        let is_get = method == Method::GET;
        let Exchange { request, response, .. } = &mut exchange;
        (request.method, request.target, request.version) = (method, target.into(), asks);
        request.body = if is_get { Bytes::new() } else { asked };
        request.headers = headers(&[("host", "shop.example"), ("accept", "*/*")]);
        (response.status, response.version) = (status, answers);
        response.body = if bodiless { Bytes::new() } else { answered };
        response.headers = headers(&[("Content-Type", "image/x")]);
        if trailers {
            response.trailers = headers(&[("x-sum", "1")]);
        }
        exchange
    }
}

/// What masking leaves of them; those that cannot be masked are not there.
fn masked(exchanges: &[Exchange]) -> Vec<Exchange> {
    exchanges
        .iter()
        .filter_map(|exchange| Some(Masker::default().keep_exchange(exchange).ok()?.get().clone()))
        .collect()
}

#[test]
fn the_end_of_the_name_says_the_kind() {
    let cases = [
        ("a.gor", Some(Kind::Gor)),
        ("/x/a.b.gor.gz", Some(Kind::GorGz)),
        ("a.har", Some(Kind::Har)),
        ("a.pcapng", Some(Kind::PcapNg)),
        (".gor", None),
        ("a.pcap", None),
        ("a.har.gz", None),
        ("a.gz", None),
        ("-", None),
        ("a.gor/", Some(Kind::Gor)),
        ("..", None),
    ];
    for (name, expected) in cases {
        assert_eq!(Kind::of(Path::new(name)).ok(), expected, "{name}");
    }
    let error = Kind::of(Path::new("x/a.txt")).unwrap_err().to_string();
    assert!(error.contains("x/a.txt") && error.contains(".gor, .gor.gz, .har or .pcapng"), "{error}");
}

#[test]
fn what_cannot_be_masked_is_left_out_and_counted() {
    let place = Place::new();
    let mut recorder = place.recorder("a.gor");
    let mut broken = simple(1);
    broken.response.headers.0.push(("Content-Encoding".into(), "gzip".into()));
    for exchange in [simple(0), broken, simple(2)] {
        recorder.take(&exchange).unwrap();
    }
    recorder.finish().unwrap();
    let summary = recorder.summary();
    assert_eq!((summary.taken, summary.written), (3, 2));
    assert_eq!(summary.json()["left_out"], json!({ "unmaskable": 1 }));
    assert_eq!(read(&place.files()["a.gor"]).len(), 2);
}

#[test]
fn no_file_of_any_kind_has_a_secret_in_it() {
    let mut exchange = exchange(1, [0; 4], "{\"password\": \"sesame\"}", "write to bob@example.com");
    exchange.request.target = Bytes::from_static(b"/u/bob@example.com?token=sesame");
    exchange.request.headers.0.push(("Cookie".into(), "sid=sesame".into()));
    exchange.response.headers.0.push(("Set-Cookie".into(), "sid=sesame".into()));
    for name in ["a.gor", "a.har", "a.pcapng"] {
        let bytes = recorded(name, std::slice::from_ref(&exchange));
        for secret in ["sesame", "bob@", "bob%40"] {
            assert_eq!(memchr::memmem::find(&bytes, secret.as_bytes()), None, "{secret} in {name}");
        }
        let [read] = &read(&bytes)[..] else { panic!() };
        assert_eq!(read.request.body, "{\"password\":\"[masked: field]\"}");
        assert_eq!(read.request.headers.get("content-length").unwrap(), "30");
        assert_eq!(read.response.body, "write to [masked: email]");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn what_is_written_is_read_and_recording_it_again_changes_nothing(
        exchanges in proptest::collection::vec(any_exchange(), 0..6),
    ) {
        for name in ["a.gor", "a.har", "a.pcapng"] {
            let written = recorded(name, &exchanges);
            let found = if exchanges.is_empty() && name == "a.gor" { Vec::new() } else { read(&written) };
            let (mut found, mut expected) = (told(&found), told(&masked(&exchanges)));
            if name != "a.gor" {
                // They come in the order of their ends.
                found.sort();
                expected.sort();
            }
            prop_assert_eq!(found, expected, "{}", name);
        }
        let first = recorded("a.gor", &exchanges);
        if !first.is_empty() {
            prop_assert_eq!(recorded("b.gor", &read(&first)), first);
        }
    }
}

#[test]
fn a_recording_that_shall_stop_has_what_came_before_and_says_so() {
    let exchanges: Vec<Exchange> = (0..600).map(simple).collect();
    let bytes = recorded("a.gor", &exchanges);
    for stopped in [false, true] {
        let place = Place::new();
        let recorder = Mutex::new(place.recorder("b.gor"));
        let source = FileSource::new(Path::new("a.gor"), Box::new(Cursor::new(bytes.clone())), None).unwrap();
        let settings = PipelineSettings::new(&Limits::default(), &[], 1, 7);
        let mut said = Vec::new();
        run(source, &settings, &recorder, &AtomicBool::new(stopped), &mut said, false).unwrap();
        let said: Value = serde_json::from_slice(&said).unwrap();
        let written = said.pointer("/summary/record/written").and_then(Value::as_u64).unwrap();
        assert_eq!(read(&place.files()["b.gor"]).len() as u64, written);
        assert_eq!(written < 600, stopped, "{said}");
    }
}
