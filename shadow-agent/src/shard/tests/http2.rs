//! The same for HTTP/2, whose streams have more ways to be cut, and header tables to be lost.

use super::*;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;

/// One stream of a generated conversation.
#[derive(Clone, Debug)]
struct Call {
    request: Vec<u8>,
    response: Vec<u8>,
    padding: u8,
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    [&(payload.len() as u32).to_be_bytes()[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A body in two frames, the first of them padded.
fn body(stream: u32, body: &[u8], padding: u8) -> Vec<u8> {
    let (one, two) = body.split_at(body.len() / 2);
    let padded = [&[padding], one, &vec![0; padding.into()]].concat();
    [frame(DATA, PADDED, stream, &padded), frame(DATA, END_STREAM, stream, two)].concat()
}

impl Call {
    /// The authority is an entry of the table from the first stream on.
    fn request(&self, stream: u32) -> Vec<u8> {
        let path = format!("/{stream:03}");
        let authority: &[u8] = if stream == 1 { b"\x41\x01h" } else { b"\xbe" };
        let block = [b"\x83\x86\x04\x04", path.as_bytes(), authority].concat();
        [frame(HEADERS, END_HEADERS, stream, &block), body(stream, &self.request, self.padding)].concat()
    }

    /// So is the name of the server.
    fn response(&self, stream: u32) -> Vec<u8> {
        let block: &[u8] = if stream == 1 { b"\x88\x76\x01s" } else { b"\x88\xbe" };
        let padding = self.padding / 2;
        [frame(HEADERS, END_HEADERS, stream, block), body(stream, &self.response, padding)].concat()
    }
}

/// Groups of streams that are open together; the responses of a group come in the reverse order.
fn calls() -> impl Strategy<Value = Vec<Vec<Call>>> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..150);
    let call = (bytes(), bytes(), any::<u8>()).prop_map(|(request, response, padding)| Call {
        request,
        response,
        padding,
    });
    prop::collection::vec(prop::collection::vec(call, 1..4), 1..4)
}

fn turns_of(groups: &[Vec<Call>]) -> Vec<(Direction, Vec<u8>)> {
    let settings = frame(4, 0, 0, &[]);
    let mut turns = vec![
        (Direction::ToServer, [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &settings[..]].concat()),
        (Direction::ToClient, settings),
    ];
    let mut stream = 1;
    for group in groups {
        let numbered: Vec<_> = group.iter().zip((stream..).step_by(2)).collect();
        stream += 2 * group.len() as u32;
        // The first of all is answered before others refer to what it put into the table.
        let requests = numbered.iter().flat_map(|(call, stream)| call.request(*stream)).collect();
        let mut responses: Vec<_> = numbered.iter().map(|(call, stream)| call.response(*stream)).collect();
        let first = if numbered.first().is_some_and(|(_, stream)| *stream == 1) { 1 } else { 0 };
        if let Some(rest) = responses.get_mut(first..) {
            rest.reverse();
        }
        turns.push((Direction::ToServer, requests));
        turns.push((Direction::ToClient, responses.concat()));
    }
    turns
}

proptest! {
    #[test]
    fn the_same_streams_give_the_same_exchanges_by_http_2(
        groups in calls(),
        sizes in prop::collection::vec(1usize..120, 1..20),
        fates in fates(),
        start in (any::<u32>(), any::<u32>()),
    ) {
        let turns = turns_of(&groups);
        let whole = run_through(&packets_of(&turns, &[usize::MAX], start), &settings());
        let expected: Vec<_> = whole.iter().map(content).collect();
        prop_assert_eq!(whole.len(), groups.iter().map(Vec::len).sum::<usize>());
        prop_assert!(whole.iter().all(|event| matches!(event, Event::Exchange(_))), "{expected:?}");
        let cut = packets_of(&turns, &sizes, start);
        let told = |packets: &[Packet]| -> Vec<_> { run_through(packets, &settings()).iter().map(content).collect() };
        prop_assert_eq!(told(&cut), expected.clone());
        prop_assert_eq!(told(&disturb(&cut, &fates)), expected);
    }

    #[test]
    fn a_lost_packet_never_makes_a_wrong_exchange_by_http_2(
        groups in calls(),
        sizes in prop::collection::vec(1usize..300, 1..20),
        start in (any::<u32>(), any::<u32>()),
        lost in prop::collection::btree_set(1usize..40, 0..4),
        joined in prop::option::of(0usize..20),
    ) {
        let turns = turns_of(&groups);
        let whole = run_through(&packets_of(&turns, &[usize::MAX], start), &settings());
        let whole: Vec<_> = whole.iter().map(whole_content).collect();
        let mut packets = packets_of(&turns, &sizes, start);
        let mut index = 0;
        packets.retain(|_| {
            index += 1;
            !lost.contains(&(index - 1)) && joined.is_none_or(|joined| index > joined)
        });
        for event in run_through(&packets, &settings()) {
            if matches!(event, Event::Exchange(_)) {
                prop_assert!(whole.contains(&whole_content(&event)), "{}", whole_content(&event));
            }
        }
    }
}

/// What an exchange is, to the last byte.
fn whole_content(event: &Event) -> String {
    match event {
        Event::Exchange(Exchange { request, response, .. }) => {
            let asked = (&request.target, &request.headers.0, &request.body);
            format!("{asked:?} {:?}", (&response.headers.0, &response.body))
        }
        other => format!("{other:?}"),
    }
}
