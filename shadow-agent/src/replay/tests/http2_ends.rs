//! How replaying by HTTP/2 ends early: resets, GOAWAY, time, targets that do not speak it.

use h2::Reason;
use h2::server::Builder;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::http2::{get2, replays};
use super::http2_server::Http2Server;
use super::*;

fn unsafe2() -> Arc<Sendable> {
    sendable_by(Version::HTTP_2, "POST", "/", &[], "x=1")
}

#[tokio::test]
async fn a_stream_that_the_target_resets_is_closed_and_disturbs_no_other() {
    let (release, released) = tokio::sync::watch::channel(false);
    let server = Http2Server::start(Builder::new(), move |mut call| {
        let mut released = released.clone();
        async move {
            match call.number {
                1 => {
                    released.wait_for(|released| *released).await.unwrap();
                    call.answer(200, "ok").await;
                }
                2 => call.respond.send_reset(Reason::INTERNAL_ERROR),
                3 => call.begin(200, false).send_reset(Reason::CANCEL),
                _ => call.respond.send_reset(Reason::NO_ERROR),
            }
        }
    })
    .await;
    let replayer = Arc::new(only(target(server.port)));
    let first = replays(&replayer, 1);
    server.received(1).await;
    for number in 2..=4 {
        assert_eq!(end(&replayer, get2()).await, "failed: closed");
        assert_eq!(server.requests().len(), number, "it was processed, so it is not sent again");
    }
    release.send(true).unwrap();
    assert_eq!(first.join_all().await, ["200"]);
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn a_refused_stream_is_tried_again_on_another_connection_if_it_is_safe() {
    // (request, whether the second connection answers, how it ends, requests that the server has seen)
    let cases = [
        (get2(), true, "200", 3),
        (get2(), false, "failed: closed", 3),
        (unsafe2(), true, "failed: closed", 2),
    ];
    for (request, recovers, expected, seen) in cases {
        let server = Http2Server::start(Builder::new(), move |mut call| async move {
            if call.number == 1 || (call.connection == 2 && recovers) {
                call.answer(200, "ok").await;
            } else {
                call.respond.send_reset(Reason::REFUSED_STREAM);
            }
        })
        .await;
        let replayer = only(target(server.port));
        assert_eq!(end(&replayer, get2()).await, "200");
        assert_eq!(end(&replayer, request).await, expected);
        assert_eq!((server.requests().len(), server.connections()), (seen, if seen == 3 { 2 } else { 1 }));
    }
}

#[tokio::test]
async fn a_connection_that_the_target_leaves_is_replaced_and_only_safe_requests_are_sent_again() {
    // (request on the connection that ends, how it ends, connections)
    for (request, expected, connections) in [(get2(), "200", 2), (unsafe2(), "failed: closed", 1)] {
        for abrupt in [false, true] {
            let server = Http2Server::scripted(Builder::new(), move |number, mut connection| async move {
                let mut requests = 0;
                while let Some(Ok((_, mut respond))) = connection.accept().await {
                    requests += 1;
                    if number == 1 && requests == 2 {
                        if abrupt {
                            return;
                        }
                        connection.abrupt_shutdown(Reason::NO_ERROR);
                        continue;
                    }
                    respond.send_response(http::Response::new(()), true).unwrap();
                }
            })
            .await;
            let replayer = only(target(server.port));
            assert_eq!(end(&replayer, get2()).await, "200");
            assert_eq!(end(&replayer, request.clone()).await, expected, "abrupt: {abrupt}");
            assert_eq!(server.connections(), connections, "abrupt: {abrupt}");
        }
    }
}

#[tokio::test]
async fn after_a_graceful_goaway_nothing_is_lost() {
    let server = Http2Server::scripted(Builder::new(), |_, mut connection| async move {
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            respond.send_response(http::Response::new(()), true).unwrap();
            connection.graceful_shutdown();
        }
    })
    .await;
    let replayer = only(target(server.port));
    for connections in 1..=3 {
        assert_eq!(end(&replayer, unsafe2()).await, "200");
        tokio::time::sleep(SHORT).await;
        assert_eq!(server.connections(), connections);
    }
}

#[tokio::test]
async fn no_answer_in_time_resets_the_stream_and_keeps_a_connection_that_lives() {
    let (ended, mut reasons) = tokio::sync::mpsc::unbounded_channel();
    let server = Http2Server::start(Builder::new(), move |mut call| {
        let ended = ended.clone();
        async move {
            if call.request.method() == Method::POST {
                let mut stream = call.begin(200, false);
                let _ = stream.send_data(Bytes::from_static(b"half"), false);
                let reset = std::future::poll_fn(|cx| stream.poll_reset(cx)).await;
                ended.send(reset.unwrap()).unwrap();
            } else {
                call.answer(200, "ok").await;
            }
        }
    })
    .await;
    let replayer = only(config::Target { timeout: SHORT, ..target(server.port) });
    assert_eq!(end(&replayer, unsafe2()).await, "failed: timeout");
    assert_eq!(reasons.recv().await, Some(Reason::CANCEL));
    assert_eq!(end(&replayer, get2()).await, "200");
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn a_connection_on_which_nothing_comes_any_more_is_not_used_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let accepted = tokio::spawn(async move {
        let mut silent = Vec::new();
        for _ in 0..2 {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(&SETTINGS_FRAME).await.unwrap();
            silent.push(stream);
        }
        silent
    });
    let replayer = only(config::Target { timeout: SHORT, ..target(port) });
    for _ in 0..2 {
        assert_eq!(end(&replayer, get2()).await, "failed: timeout");
    }
    assert_eq!(accepted.await.unwrap().len(), 2);
}

#[tokio::test]
async fn nothing_waits_behind_a_request_that_the_target_does_not_read() {
    const WINDOW: u32 = (1 << 31) - 1;
    let (accepted, was_accepted) = tokio::sync::watch::channel(());
    let mut builder = Builder::new();
    builder.initial_window_size(WINDOW).initial_connection_window_size(WINDOW);
    let server = Http2Server::scripted(builder, move |number, mut connection| {
        let accepted = accepted.clone();
        async move {
            let (_request, mut respond) = connection.accept().await.unwrap().unwrap();
            if number == 1 {
                accepted.send_replace(());
                // Nobody reads the connection from here on.
                std::future::pending::<()>().await;
            }
            respond.send_response(http::Response::new(()), true).unwrap();
            while connection.accept().await.is_some() {}
        }
    })
    .await;
    let replayer = Arc::new(only(config::Target { timeout: LONG, ..target(server.port) }));
    let large = {
        let replayer = Arc::clone(&replayer);
        let body = "x".repeat(64 << 20);
        tokio::spawn(
            async move { end(&replayer, sendable_by(Version::HTTP_2, "POST", "/", &[], &body)).await },
        )
    };
    was_accepted.clone().changed().await.unwrap();
    // The buffers of both hosts take their time to fill.
    tokio::time::sleep(SHORT * 5).await;
    let ended = tokio::time::timeout(SHORT * 20, end(&replayer, get2())).await;
    assert_eq!(ended.as_deref(), Ok("200"), "it is sent by another connection, at once");
    large.abort();
}

/// An empty one, as every server begins.
const SETTINGS_FRAME: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];

/// A server that says the same on each connection, whatever it is asked, and then waits or closes.
async fn saying(bytes: Vec<u8>, then_closes: bool) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let bytes = bytes.clone();
            tokio::spawn(async move {
                let mut asked = vec![0; 1 << 10];
                let _ = stream.read(&mut asked).await;
                let _ = stream.write_all(&bytes).await;
                while !then_closes && stream.read(&mut asked).await.is_ok_and(|read| read > 0) {}
            });
        }
    });
    port
}

#[tokio::test]
async fn what_is_no_http2_is_malformed_or_closed() {
    let http1 = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_vec();
    let broken = |frame: &[u8]| [&SETTINGS_FRAME, frame].concat();
    // A window update of 0 for the connection; HEADERS whose block is no HPACK; DATA on the connection itself.
    let cases = [
        (http1.clone(), true, "failed: malformed"),
        (http1, false, "failed: malformed"),
        (Vec::new(), true, "failed: closed"),
        (broken(&[0, 0, 4, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0]), false, "failed: malformed"),
        (broken(&[0, 0, 1, 1, 4, 0, 0, 0, 1, 0x80]), false, "failed: malformed"),
        (broken(&[0, 0, 0, 0, 0, 0, 0, 0, 0]), false, "failed: malformed"),
        (broken(&[]), true, "failed: closed"),
    ];
    for (bytes, then_closes, expected) in cases {
        let port = saying(bytes.clone(), then_closes).await;
        assert_eq!(end(&only(target(port)), get2()).await, expected, "{bytes:?}");
    }
}

#[tokio::test]
async fn a_target_that_does_not_speak_http2_is_named_in_the_log_once() {
    use std::sync::Mutex;

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::WARN)
        .with_ansi(false)
        .with_writer(move || writer.clone());
    let _logging = tracing::subscriber::set_default(subscriber.finish());
    let port = saying(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), true).await;
    let replayer = only(target(port));
    for _ in 0..3 {
        assert_eq!(end(&replayer, get2()).await, "failed: malformed");
    }
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 1, "{text}");
    assert!(lines[0].contains("does not speak HTTP/2") && lines[0].contains(&format!("to-{port}")), "{text}");
}

#[tokio::test]
async fn a_target_that_says_nothing_cannot_be_connected_to() {
    let port = saying(Vec::new(), false).await;
    let replayer = Arc::new(only(config::Target { timeout: SHORT, ..target(port) }));
    let ends = replays(&replayer, 3).join_all().await;
    assert_eq!(ends, ["failed: connect"; 3], "those that wait for the connection, too");
    let refused = only(target(refused_port().await));
    assert_eq!(end(&refused, get2()).await, "failed: connect");
}

#[tokio::test]
async fn a_cancelled_replay_gives_its_place_back_and_disturbs_no_other() {
    let server = Http2Server::start(Builder::new(), |call| async move {
        if call.number == 1 {
            std::future::pending::<()>().await;
        }
        call.answer(200, "ok").await;
    })
    .await;
    let replayer = Arc::new(only(config::Target { concurrency: 1, ..target(server.port) }));
    let mut under_way = replays(&replayer, 1);
    server.received(1).await;
    under_way.abort_all();
    assert!(under_way.join_next().await.unwrap().unwrap_err().is_cancelled());
    assert_eq!(end(&replayer, get2()).await, "200");
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn shutdown_ends_what_is_under_way_at_the_deadline_and_closes_connections() {
    let server = Http2Server::start(Builder::new(), |call| async move {
        if call.number > 1 {
            std::future::pending::<()>().await;
        }
        call.answer(200, "ok").await;
    })
    .await;
    let replayer = Arc::new(only(target(server.port)));
    assert_eq!(end(&replayer, get2()).await, "200");
    let under_way = replays(&replayer, 1);
    server.received(2).await;
    replayer.shutdown(SHORT).await;
    assert_eq!(under_way.join_all().await, ["failed: shutdown"]);
    assert_eq!(end(&replayer, get2()).await, "dropped: shutdown");
}

#[tokio::test]
async fn shutdown_waits_for_nothing_but_what_is_under_way() {
    let server = Http2Server::answering(200, "ok").await;
    let replayer = only(target(server.port));
    assert_eq!(end(&replayer, get2()).await, "200");
    tokio::time::timeout(LONG, replayer.shutdown(LONG * 2))
        .await
        .expect("idle connections do not hold it up");
}

/// What waits behind a target that reads nothing must not go out when it reads again.
#[tokio::test]
async fn the_kill_switch_closes_a_connection_that_the_target_takes_nothing_from() {
    const BODY: usize = 32 << 20;
    // SETTINGS with an initial window as large as can be, and as much for the connection (RFC 9113, sections 6.5 and 6.9).
    let mut greeting = vec![0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 4, 0x7f, 0xff, 0xff, 0xff];
    greeting.extend([0, 0, 4, 8, 0, 0, 0, 0, 0, 0x7f, 0, 0, 0]);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let control = Control::new(true);
    let replayer = start(vec![target(listener.local_addr().unwrap().port())], None, &control);
    let request = sendable_by(Version::HTTP_2, "POST", "/", &[], &"x".repeat(BODY));
    let switching = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(&greeting).await.unwrap();
        // The first bytes have come, and the rest fills the buffers of both sockets.
        stream.readable().await.unwrap();
        tokio::time::sleep(SHORT).await;
        control.set_enabled(false);
        stream
    };
    let (ended, mut stream) =
        tokio::join!(tokio::time::timeout(LONG / 6, end(&replayer, request)), switching);
    assert_eq!(ended.as_deref(), Ok("failed: closed"));
    let mut taken = 0;
    let mut bytes = vec![0; 1 << 16];
    while let Ok(length @ 1..) = stream.read(&mut bytes).await {
        taken += length;
    }
    assert!(taken < BODY, "{taken} bytes came");
}
