//! No configured secret survives in anything sent, kept, shown or written, wherever it is and however the body is coded.

use std::fs;
use std::io::Read as _;
use std::sync::Arc;

use flate2::Compression;
use flate2::read::{GzEncoder, ZlibEncoder};
use proptest::prelude::*;
use ruzstd::encoding::{CompressionLevel, compress_to_vec};
use serde_json::json;

use super::*;
use crate::compare::{Comparer, Inputs};
use crate::config::Compare;
use crate::exchange::{ConnectionId, Request, Response, Times};
use crate::policy::target::decodings;
use crate::record::{self, Recorder};

/// What a rule names: it is known by where it stands only.
const NAMED: &str = "hunter2qz";

/// What patterns and detectors know by its form, and the part of it that must not be seen.
const FORMS: [(&str, &str); 8] = [
    ("EMP-123456", "123456"),
    ("bob.smith@example.com", "bob.smith"),
    ("4111 1111 1111 1111", "1111 1111"),
    ("DE89370400440532013000", "37040044"),
    ("AKIAIOSFODNN7EXAMPLE", "IOSFODNN"),
    ("Bearer abcDEF123456xyz", "abcDEF123456"),
    ("-----BEGIN PRIVATE KEY-----MIIEvQ-----END PRIVATE KEY-----", "MIIEvQ"),
    ("https://bob:tigers@db.example/x", "tigers"),
];

#[derive(Clone, Copy, Debug)]
enum Kind {
    Json,
    JsonInText,
    Form,
    Parts,
    Text,
    Xml,
}

#[derive(Clone, Copy, Debug)]
enum Coding {
    None,
    Gzip,
    Deflate,
    Zstd,
    Brotli,
    Twice,
}

#[derive(Clone, Debug)]
struct Case {
    kind: Kind,
    coding: Coding,
    /// What is known by its form, and what of it must not be seen.
    form: (&'static str, &'static str),
    filler: String,
    action: MaskAction,
}

fn cases() -> impl Strategy<Value = Case> {
    use {Coding as C, Kind as K};
    (
        proptest::sample::select(vec![K::Json, K::JsonInText, K::Form, K::Parts, K::Text, K::Xml]),
        proptest::sample::select(vec![C::None, C::Gzip, C::Deflate, C::Zstd, C::Brotli, C::Twice]),
        proptest::sample::select(FORMS.to_vec()),
        "[a-z ü]{0,12}",
        proptest::sample::select(vec![MaskAction::Redact, MaskAction::Hash]),
    )
        .prop_map(|(kind, coding, form, filler, action)| Case { kind, coding, form, filler, action })
}

/// Every byte that is not a letter or digit percent-encoded, so many times.
fn quoted(text: &str, times: usize) -> String {
    (0..times).fold(text.to_owned(), |text, _| {
        let byte = |byte: u8| match byte.is_ascii_alphanumeric() {
            true => char::from(byte).to_string(),
            false => format!("%{byte:02X}"),
        };
        text.bytes().map(byte).collect()
    })
}

impl Case {
    fn body(&self) -> (&'static str, String) {
        let Case { form: (form, _), filler, .. } = self;
        let document = json!({
            "email": NAMED,
            "user": {"email": [NAMED, {"email": NAMED}], "note": format!("{filler} {form} {filler}")},
            "log": json!({"email": NAMED, "x": form, "n": {"email": 7}}).to_string(),
            "list": [filler, form, 4111111111111111_u64],
            "names": {(*form): {"x": filler}},
        });
        match self.kind {
            Kind::Json => ("application/json", document.to_string()),
            Kind::JsonInText => ("application/json", json!(document.to_string()).to_string()),
            Kind::Form => (
                "application/x-www-form-urlencoded",
                format!(
                    "a={}&pin={NAMED}&b={}&u%5Bpin%5D={NAMED}&email={NAMED}&c={}&token={NAMED}",
                    quoted(filler, 1),
                    quoted(form, 1),
                    quoted(form, 2)
                ),
            ),
            Kind::Parts => {
                let part = |head: &str, content: &str| {
                    format!("--b\r\nContent-Disposition: form-data; {head}\r\n\r\n{content}\r\n")
                };
                let parts = [
                    part("name=\"pin\"", NAMED),
                    part("name=\"x\"", &format!("{filler}\r\n{form}")),
                    part("filename=\"f\"; name=\"pin\"", NAMED),
                    part(
                        "name=j\r\nContent-Type: application/json",
                        &json!({"email": NAMED, "x": form}).to_string(),
                    ),
                ];
                ("multipart/form-data; boundary=b", parts.concat() + "--b--\r\n")
            }
            Kind::Text => ("text/plain", format!("{filler}\n{form}\n{}\n{filler}", quoted(form, 1))),
            Kind::Xml => ("application/xml", format!("<a b=\"{form}\"><c>{filler}</c><d>{form}</d></a>")),
        }
    }

    fn encoded(&self, body: &[u8]) -> (Option<&'static str>, Vec<u8>) {
        let gzip = |body: &[u8]| {
            let mut encoded = Vec::new();
            GzEncoder::new(body, Compression::fast()).read_to_end(&mut encoded).unwrap();
            encoded
        };
        match self.coding {
            Coding::None => (None, body.to_vec()),
            Coding::Gzip => (Some("gzip"), gzip(body)),
            Coding::Twice => (Some("gzip, gzip"), gzip(&gzip(body))),
            Coding::Deflate => {
                let mut encoded = Vec::new();
                ZlibEncoder::new(body, Compression::fast()).read_to_end(&mut encoded).unwrap();
                (Some("deflate"), encoded)
            }
            Coding::Zstd => (Some("zstd"), compress_to_vec(body, CompressionLevel::Fastest)),
            // One block that is stored as it is, and an empty last one (RFC 7932, section 9.2).
            Coding::Brotli => {
                let header = (u32::try_from(body.len()).unwrap() - 1) << 4 | 1 << 20;
                (Some("br"), [&header.to_le_bytes()[..3], body, &[3]].concat())
            }
        }
    }

    fn headers(&self, kind: &str, coding: Option<&str>) -> Headers {
        let Case { form: (form, _), filler, .. } = self;
        let fields = [
            ("Content-Type", kind.to_owned()),
            ("X-User", NAMED.to_owned()),
            ("X-Note", format!("{filler} {form}").trim().to_owned()),
            ("X-Json", json!({"email": NAMED}).to_string()),
            ("Referer", format!("http://h/a?token={NAMED}&x={}", quoted(form, 1))),
        ];
        let mut headers: Vec<_> =
            fields.into_iter().map(|(name, value)| (Bytes::from(name), Bytes::from(value))).collect();
        if let Some(coding) = coding {
            headers.push(("Content-Encoding".into(), coding.to_owned().into()));
        }
        Headers(headers)
    }

    fn exchange(&self) -> Exchange {
        let (kind, text) = self.body();
        let (coding, body) = self.encoded(text.as_bytes());
        let mut headers = self.headers(kind, coding);
        let mut answered = headers.clone();
        headers.0.push(("Cookie".into(), format!("a=1; sid={NAMED}; b=2").into()));
        answered.0.push(("Set-Cookie".into(), format!("sid={NAMED}; Path=/").into()));
        answered.0.push(("Location".into(), format!("/x?token={NAMED}").into()));
        let (form, _) = self.form;
        let target =
            format!("/u/{0}/x?token={NAMED}&u[token]={NAMED}&q={0}&r={1}", quoted(form, 1), quoted(form, 2));
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
        Exchange {
            id: ExchangeId(7),
            connection: ConnectionId(1),
            client: address,
            server: address,
            request: Request {
                method: Method::POST,
                target: target.into(),
                version: Version::HTTP_11,
                headers,
                body: body.clone().into(),
                trailers: Headers::default(),
            },
            response: Response {
                status: 200,
                version: Version::HTTP_11,
                headers: answered,
                body: body.into(),
                trailers: Headers::default(),
            },
            times: Times::default(),
        }
    }

    /// That none of the secrets is there, as it is or behind percent-encoding.
    fn check(&self, what: &str, bytes: &[u8]) -> Result<(), TestCaseError> {
        let texts = std::iter::once(bytes.to_vec()).chain(decodings(bytes));
        for text in texts.map(|text| String::from_utf8_lossy(&text).into_owned()) {
            for secret in [NAMED, self.form.1, "4111111111111111"] {
                prop_assert!(!text.contains(secret), "{} is in {}: {}", secret, what, text);
            }
        }
        Ok(())
    }

    fn check_message(&self, what: &str, headers: &Headers, body: &Bytes) -> Result<(), TestCaseError> {
        for (name, value) in headers.iter() {
            self.check(&format!("{what}, {}", String::from_utf8_lossy(name)), value)?;
        }
        self.check(what, &crate::content::decode(headers, body, 1 << 20).unwrap())
    }
}

fn masker(action: MaskAction) -> Masker {
    let mut keep = every(action);
    keep.headers.extend(Mask::default().keep.headers);
    Masker::new(&Mask { keep, send: every(action) }, Credentials::Forward).unwrap()
}

/// What names, values and masks are made of.
const SCRAPS: [&str; 37] = [
    "token",
    "password",
    "x-api-key",
    "a",
    "1",
    "=",
    "=",
    "&",
    ";",
    "?",
    "/",
    ".",
    "[",
    "]",
    "(",
    ")",
    "{",
    "}",
    ":",
    "\"",
    "'",
    "\\",
    " ",
    ",",
    "<",
    ">",
    "|",
    "#",
    "\n",
    "%3D",
    "%26",
    "%5B",
    "bob@example.com",
    "4111 1111 1111 1111",
    "eyJabcd.efgh",
    "Bearer abcDEF123",
    "[masked: token]",
];

fn scraps() -> impl Strategy<Value = String> {
    proptest::collection::vec(proptest::sample::select(&SCRAPS[..]), 0..14).prop_map(|scraps| scraps.concat())
}

proptest! {
    #[test]
    fn the_self_check_does_not_cry_wolf(text in scraps()) {
        let masker = Masker::default();
        let shown = masker.scrub_settled(&text);
        prop_assert_eq!(masker.still_shows(&shown), None, "{:?} of {:?}", shown, text);
    }

    #[test]
    fn no_secret_is_sent(case in cases()) {
        let masker = masker(case.action);
        let exchange = case.exchange();
        // Fields of JSON are configured, so what is plain text cannot be masked, and is not sent.
        let sent = match (masker.sendable(&exchange), case.kind) {
            (Err(reason), Kind::Text | Kind::Xml) => {
                prop_assert_eq!(reason, SkipReason::Unmaskable);
                let rules = MaskRules { fields: Vec::new(), ..every(case.action) };
                sending(rules).sendable(&exchange)
            }
            (sent, _) => sent,
        };
        let sent = sent.unwrap();
        prop_assert!(sent.altered());
        let whole = sent.whole_for_test();
        case.check("the target", whole.target())?;
        let hidden = matches!(case.kind, Kind::Text | Kind::Xml);
        // Without that rule, JSON in a header is none of ours.
        let headers = whole.headers().0.iter().filter(|(name, _)| !(hidden && name == "X-Json")).cloned().collect();
        case.check_message("the message", &Headers(headers), whole.body())?;
        case.check("debug", format!("{sent:?} {exchange:?}").as_bytes())?;
        prop_assert_eq!(masker.check_sendable(&whole).is_ok() || hidden, true);
        prop_assert_eq!(masker.failures(), 0);
    }

    #[test]
    fn no_secret_is_kept(case in cases()) {
        let masker = Arc::new(masker(case.action));
        let exchange = case.exchange();
        case.check("the target", masker.keep_target(&exchange.request).get().as_bytes())?;
        let shown = format!("{:?}", masker.keep_exchange(&exchange));
        case.check("debug", shown.as_bytes())?;
        match masker.keep_exchange(&exchange) {
            Ok(kept) => {
                let Exchange { request, response, .. } = kept.get();
                case.check("the kept target", &request.target)?;
                case.check_message("the kept request", &request.headers, &request.body)?;
                case.check_message("the kept response", &response.headers, &response.body)?;
                prop_assert_eq!(masker.check_kept(kept.get()), Ok(()));
            }
            Err(reason) => prop_assert!(false, "{}", reason),
        }
        prop_assert_eq!(masker.failures(), 0);
    }

    #[test]
    fn no_secret_is_in_a_difference(case in cases(), other in cases()) {
        let masker = Arc::new(masker(case.action));
        let compare = Compare {
            headers: ["content-type", "location", "set-cookie", "x-user", "x-note", "x-json"].map(str::to_owned).into(),
            ..Compare::default()
        };
        let comparer = Comparer::new(&compare, Arc::clone(&masker), 1 << 20).unwrap();
        let production = case.exchange();
        let candidate = Case { coding: Coding::None, ..other.clone() }.exchange().response;
        let judgement = comparer.judge(&Inputs {
            request: &production.request,
            request_altered: false,
            production: &production.response,
            candidate: &candidate,
            baseline: None,
        });
        let shown = serde_json::to_string(&judgement.differences).unwrap();
        case.check("the differences", shown.as_bytes())?;
        other.check("the differences", shown.as_bytes())?;
        prop_assert_eq!(masker.failures(), 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn no_secret_is_written_to_a_file(case in cases()) {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a.gor", "a.har", "a.pcapng"] {
            let out = folder.path().join(name);
            let options = record::Options { out: out.clone(), ..record::Options::default() };
            let mut recorder = Recorder::new(&options, Arc::new(masker(case.action))).unwrap();
            recorder.take(&case.exchange()).unwrap();
            recorder.finish().unwrap();
            prop_assert_eq!(recorder.summary().left_out.iter().sum::<u64>(), 0);
            let written = fs::read(&out).unwrap();
            prop_assert!(written.len() > 500);
            case.check(name, &written)?;
        }
    }
}
