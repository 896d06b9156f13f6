//! Generated conversations: however they are cut, they give the same events; whatever is missing, nothing wrong is given;
//! and anything at all is survived, with the books balanced.

use proptest::prelude::*;

use super::encoder::{CONTINUATION, PING, literal, reset, settings};
use super::*;

/// What is done on one stream.
#[derive(Clone, Debug)]
struct Plan {
    method: &'static str,
    body: Vec<Vec<u8>>,
    trailers: bool,
    status: &'static str,
    answer: Vec<Vec<u8>>,
    padding: u8,
    pieces: usize,
    /// Whether the client, or the server, resets it in place of its end.
    reset: Option<bool>,
}

fn plan() -> impl Strategy<Value = Plan> {
    let body = || prop::collection::vec(prop::collection::vec(any::<u8>(), 0..30), 0..4);
    let method = prop_oneof![Just("GET"), Just("POST"), Just("HEAD"), Just("CONNECT")];
    let status = prop_oneof![4 => Just("200"), 1 => Just("204"), 1 => Just("404"), 1 => Just("20")];
    let reset = prop::option::weighted(0.1, any::<bool>());
    (method, body(), any::<bool>(), status, body(), 0u8..20, 1usize..4, reset).prop_map(
        |(method, body, trailers, status, answer, padding, pieces, reset)| Plan {
            method,
            body,
            trailers,
            status,
            answer,
            padding,
            pieces,
            reset,
        },
    )
}

/// The frames of one message. Its trailers are of the kind that both tables know.
fn message(block: &[u8], body: &[Vec<u8>], trailers: bool, plan: &Plan, stream: u32) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    let ends = body.is_empty() && !trailers;
    let mut pieces = block.chunks(block.len().div_ceil(plan.pieces));
    let mut head = frame(HEADERS, if ends { END_STREAM } else { 0 }, stream, pieces.next().unwrap());
    let rest: Vec<_> = pieces.collect();
    for piece in &rest {
        head.extend(frame(CONTINUATION, 0, stream, piece));
    }
    head.extend(frame(CONTINUATION, END_HEADERS, stream, &[]));
    frames.push(head);
    for (index, data) in body.iter().enumerate() {
        let flags = if !trailers && index + 1 == body.len() { END_STREAM } else { 0 };
        let padding = usize::from(plan.padding);
        frames.push(if padding == 0 {
            frame(DATA, flags, stream, data)
        } else {
            frame(DATA, flags | PADDED, stream, &[&[plan.padding], &data[..], &vec![0; padding]].concat())
        });
    }
    if trailers {
        frames.push(frame(HEADERS, END_HEADERS | END_STREAM, stream, &literal("checksum", "1")));
    }
    frames
}

/// Steps of streams that are interleaved as `order` says. Header blocks are encoded in the order in which they are sent.
fn steps_of(plans: &[Plan], order: &[usize]) -> Vec<Step> {
    let mut talk = Talk::new();
    let mut steps = hello();
    let mut open: Vec<(usize, Vec<Step>)> = Vec::new();
    let mut waiting = plans.iter().enumerate();
    let mut order = order.iter().cycle();
    loop {
        let pick = order.next().unwrap() % 4;
        if open.len() <= pick
            && let Some((index, plan)) = waiting.next()
        {
            let stream = 1 + 2 * index as u32;
            let path = format!("/{index}");
            let fields =
                [(":method", plan.method), (":scheme", "http"), (":path", &path), ("x", plan.status)];
            let block = talk.client.encode(&fields);
            let mut request: Vec<Step> =
                message(&block, &plan.body, plan.trailers, plan, stream).into_iter().map(Up).collect();
            steps.push(request.remove(0));
            let interim = talk.status(stream, "103", &[], 0);
            let head = talk.server.encode(&[(":status", plan.status), ("server", "s")]);
            let mut answer = message(&head, &plan.answer, plan.trailers, plan, stream);
            steps.push(Down(interim));
            steps.push(Down(answer.remove(0)));
            let mut rest = request;
            rest.extend(answer.into_iter().map(Down));
            if let Some(by_client) = plan.reset {
                rest.pop();
                rest.push(if by_client { Up(reset(stream, 8)) } else { Down(reset(stream, 2)) });
            }
            rest.push(Up(frame(PING, 0, 0, &[0; 8])));
            rest.reverse();
            open.push((index, rest));
            continue;
        }
        if open.is_empty() {
            return steps;
        }
        let at = pick % open.len();
        match open[at].1.pop() {
            Some(step) => steps.push(step),
            None => drop(open.remove(at)),
        }
    }
}

fn play(steps: &[Step], joined: bool, size: usize) -> Vec<Event> {
    let mut peer = Peer::new(joined);
    for step in steps {
        peer.play(step, size);
    }
    peer.input(crate::tcp::Event::Over(Ending::Shutdown));
    assert_eq!(peer.connection.load(), Load::default());
    peer.events
}

/// What an event says, whenever it was seen and whatever it is called.
fn content(event: &Event) -> String {
    match event {
        Event::Exchange(exchange) => {
            let (request, response) = (&exchange.request, &exchange.response);
            let asked =
                (&request.method, &request.target, &request.headers.0, &request.body, &request.trailers.0);
            format!(
                "{asked:?} {:?}",
                (response.status, &response.headers.0, &response.body, &response.trailers.0)
            )
        }
        Event::Skipped(reason) => format!("skipped {reason}"),
        Event::Lost(lost) => format!("lost {}", lost.reason),
    }
}

fn plans() -> impl Strategy<Value = (Vec<Plan>, Vec<usize>)> {
    (prop::collection::vec(plan(), 1..8), prop::collection::vec(0usize..4, 1..20))
}

/// Frames and bytes of any kind.
fn anything() -> impl Strategy<Value = Step> {
    let frames = (0u8..11, any::<u8>(), 0u32..8, prop::collection::vec(any::<u8>(), 0..40))
        .prop_map(|(kind, flags, stream, payload)| frame(kind, flags, stream, &payload));
    let heads = (0u32..8, any::<u8>(), any::<bool>()).prop_map(|(stream, flags, asks)| {
        let block = if asks { &[0x82, 0x86, 0x84, 0xBE][..] } else { &[0x88, 0x0F, 0x0D, 0x01, b'2'] };
        frame(HEADERS, flags, stream, block)
    });
    let bytes = prop_oneof![
        4 => frames,
        6 => heads,
        2 => (0u32..8).prop_map(|stream| data(stream, "ab")),
        1 => Just(settings(&[(5, 1 << 20), (1, 0)])),
        1 => Just(b"GET / HTTP/1.1\r\n\r\n".to_vec()),
        1 => Just(b"HTTP/1.1 101 S\r\nUpgrade: h2c\r\n\r\n".to_vec()),
        1 => Just(b"GET / HTTP/1.1\r\nUpgrade: h2c\r\nHTTP2-Settings:\r\n\r\n".to_vec()),
        1 => prop::collection::vec(any::<u8>(), 1..30),
    ];
    let direction = || prop_oneof![Just(ToServer), Just(ToClient)];
    prop_oneof![
        10 => bytes.clone().prop_map(Up),
        10 => bytes.prop_map(Down),
        2 => (direction(), 1u64..40).prop_map(|(direction, length)| Gap(direction, length)),
        1 => direction().prop_map(End),
        1 => Just(Wait(std::time::Duration::from_secs(61))),
    ]
}

proptest! {
    #[test]
    fn the_same_bytes_give_the_same_events((plans, order) in plans(), size in 1usize..60) {
        let steps = steps_of(&plans, &order);
        let whole: Vec<_> = play(&steps, false, usize::MAX).iter().map(content).collect();
        prop_assert_eq!(whole.len(), plans.len(), "{:?}", whole);
        let cut: Vec<_> = play(&steps, false, size).iter().map(content).collect();
        prop_assert_eq!(whole, cut);
    }

    #[test]
    fn what_is_missing_never_makes_a_wrong_exchange(
        (plans, order) in plans(),
        size in 1usize..200,
        gaps in prop::collection::btree_set(0usize..120, 0..4),
        met in prop::option::of(0usize..20),
    ) {
        let steps = steps_of(&plans, &order);
        let whole: Vec<_> = play(&steps, false, usize::MAX).iter().map(content).collect();
        let mut index = 0;
        let mut holed = Vec::new();
        for step in steps.iter().skip(met.unwrap_or(0)) {
            let (Up(bytes) | Down(bytes)) = step else { continue };
            for piece in bytes.chunks(size) {
                let (up, missing) = (matches!(step, Up(_)), gaps.contains(&index));
                let direction = if up { ToServer } else { ToClient };
                let piece = piece.to_vec();
                holed.push(match (missing, up) {
                    (true, _) => Gap(direction, piece.len() as u64),
                    (_, true) => Up(piece),
                    _ => Down(piece),
                });
                index += 1;
            }
        }
        for event in play(&holed, met.is_some(), usize::MAX) {
            if matches!(event, Event::Exchange(_)) {
                prop_assert!(whole.contains(&content(&event)), "{}", content(&event));
            }
        }
    }

    #[test]
    fn anything_at_all_is_survived(
        steps in prop::collection::vec(anything(), 0..60),
        preface in any::<bool>(),
        joined in any::<bool>(),
        size in prop_oneof![Just(usize::MAX), 1usize..40],
    ) {
        let start = if preface { hello() } else { Vec::new() };
        play(&[start, steps].concat(), joined, size);
    }

    #[test]
    fn a_body_in_http_1_is_a_body_whatever_is_in_it(
        steps in prop::collection::vec(anything(), 1..10),
        size in prop_oneof![Just(usize::MAX), 1usize..40],
    ) {
        let bytes = steps.iter().filter_map(|step| match step {
            Up(bytes) | Down(bytes) => Some(&bytes[..]),
            _ => None,
        });
        let body: Vec<u8> = bytes.flatten().copied().take(LIMIT).collect();
        let length = body.len();
        let posted = up([format!("POST /a HTTP/1.1\r\nContent-Length: {length}\r\n\r\n").as_bytes(), &body].concat());
        let answered = down([format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n").as_bytes(), &body].concat());
        for joined in [false, true] {
            let steps = [get("/0"), ok("-"), posted.clone(), answered.clone()];
            let events = play(&steps, joined, if joined { usize::MAX } else { size });
            let bodies: Vec<_> = events.iter().map(|event| match event {
                Event::Exchange(exchange) => (exchange.request.body.clone(), exchange.response.body.clone()),
                other => panic!("{other:?}"),
            }).collect();
            prop_assert_eq!(&bodies[1], &(body.clone().into(), body.clone().into()));
        }
    }
}
