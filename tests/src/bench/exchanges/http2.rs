//! What client and server say on an HTTP/2 connection that carries small exchanges, several at once.

/// Requests that a client sends before the first of them is answered.
pub(super) const AT_ONCE: u32 = 10;

const HEADERS: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// A field that enters the table (RFC 7541, section 6.2.1), by the index of its name.
const ENTERED: u8 = 0x40;
/// A field in the table (section 6.1), by its index.
const INDEXED: u8 = 0x80;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

fn field(first: u8, value: &str) -> Vec<u8> {
    [&[first, value.len() as u8], value.as_bytes()].concat()
}

/// Preface and settings, of the client and of the server.
pub(super) fn opening() -> [Vec<u8>; 2] {
    let settings = frame(4, 0, 0, &[]);
    [[b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &settings[..]].concat(), settings]
}

/// So many requests from that stream on, and their answers, whose bodies come in turns. The fields that all have are sent
/// once on a connection, and are in the table from then on.
pub(super) fn round(first_stream: u32, count: u32, number: u32) -> [Vec<u8>; 2] {
    let streams = || (0..count).map(|index| (first_stream + 2 * index, number + index));
    let mut requests = Vec::new();
    for (stream, number) in streams() {
        // :method GET, :scheme http, :path.
        let path = field(4, &format!("/api/v1/items/{number}"));
        let shared = if stream == 1 {
            [
                field(ENTERED | 1, "shop.example"),
                field(ENTERED | 58, "made/1.0"),
                field(ENTERED | 19, "application/json"),
            ]
            .concat()
        } else {
            vec![INDEXED | 64, INDEXED | 63, INDEXED | 62]
        };
        let block = [&[INDEXED | 2, INDEXED | 6][..], &path, &shared].concat();
        requests.extend(frame(HEADERS, END_HEADERS | END_STREAM, stream, &block));
    }
    let mut answers = Vec::new();
    for (stream, _) in streams() {
        let shared = if stream == 1 {
            [field(ENTERED | 54, "made"), field(ENTERED | 31, "application/json"), field(ENTERED | 28, "200")]
                .concat()
        } else {
            vec![INDEXED | 64, INDEXED | 63, INDEXED | 62]
        };
        // :status 200.
        answers.extend(frame(HEADERS, END_HEADERS, stream, &[&[INDEXED | 8][..], &shared].concat()));
    }
    for flags in [0, END_STREAM] {
        streams().for_each(|(stream, _)| answers.extend(frame(0, flags, stream, &[b'x'; 100])));
    }
    [requests, answers]
}
