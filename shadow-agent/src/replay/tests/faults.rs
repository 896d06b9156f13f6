//! Whatever a shadow does, the request ends with a reason, its connection is closed, and the next one goes out.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

use super::server::Peer;
use super::*;

const HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\n";

#[derive(Clone, Copy, Debug)]
enum Fault {
    ResetInBody,
    HangBeforeHead,
    HangInBody,
    Garbage,
    EndlessHeaders,
    EndlessHeader,
    EndlessInterim,
    EndlessBody,
    EndlessChunkLine,
    EndlessTrailers,
    DripOfHead,
    DripOfBody,
}

async fn answer_badly(fault: Fault, peer: &mut Peer) {
    let endless = match fault {
        Fault::ResetInBody => return peer.send(&format!("{HEAD}ab")).await,
        Fault::HangBeforeHead => return peer.closed().await,
        Fault::HangInBody => {
            peer.send(&format!("{HEAD}ab")).await;
            return peer.closed().await;
        }
        Fault::Garbage => ("", "\u{1}\u{2}garbage\r\n\r\n"),
        Fault::EndlessHeaders => ("HTTP/1.1 200 OK\r\n", "x: y\r\n"),
        Fault::EndlessHeader => ("HTTP/1.1 200 OK\r\nx: ", "yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy"),
        Fault::EndlessInterim => ("", "HTTP/1.1 103 Early Hints\r\n\r\n"),
        Fault::EndlessBody => ("HTTP/1.1 200 OK\r\n\r\n", "body body body body body body body body"),
        Fault::EndlessChunkLine => {
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1;", "extension-extension")
        }
        Fault::EndlessTrailers => ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n", "x: y\r\n"),
        Fault::DripOfHead => ("HTTP/1.1 200 OK\r\nx: ", "y"),
        Fault::DripOfBody => (HEAD, "b"),
    };
    peer.send(endless.0).await;
    let drips = matches!(fault, Fault::DripOfHead | Fault::DripOfBody);
    while peer.try_send(endless.1).await {
        if drips {
            tokio::time::sleep(SHORT / 2).await;
        }
    }
}

#[tokio::test]
async fn every_fault_ends_with_its_reason_closes_its_connection_and_holds_up_nothing() {
    let cases = [
        (Fault::ResetInBody, "failed: closed"),
        (Fault::HangBeforeHead, "failed: timeout"),
        (Fault::HangInBody, "failed: timeout"),
        (Fault::Garbage, "failed: malformed"),
        (Fault::EndlessHeaders, "failed: malformed"),
        (Fault::EndlessHeader, "failed: malformed"),
        (Fault::EndlessInterim, "failed: timeout"),
        (Fault::EndlessBody, "failed: body_too_large"),
        (Fault::EndlessChunkLine, "failed: malformed"),
        (Fault::EndlessTrailers, "failed: malformed"),
        (Fault::DripOfHead, "failed: timeout"),
        (Fault::DripOfBody, "failed: timeout"),
    ];
    for (fault, expected) in cases {
        let gone = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&gone);
        let server = Server::start(move |mut peer| {
            let gone = Arc::clone(&counted);
            async move {
                if peer.request().await.is_none() {
                    return;
                }
                answer_badly(fault, &mut peer).await;
                gone.fetch_add(1, Ordering::SeqCst);
                if matches!(fault, Fault::ResetInBody) {
                    peer.reset();
                }
            }
        })
        .await;
        let quick = Server::answering(OK).await;
        let timeout = if expected == "failed: timeout" { 10 * SHORT } else { LONG };
        let bad = config::Target { timeout, ..target(server.port) };
        let replayer = start(vec![bad], Some(target(quick.port)), &Control::new(true));
        for _ in 0..2 {
            let outcomes = replayer.replay(get()).await;
            assert_eq!(outcomes.iter().map(short).collect::<Vec<_>>(), [expected, "200"], "{fault:?}");
        }
        let closed = async {
            while gone.load(Ordering::SeqCst) < 2 {
                tokio::time::sleep(SHORT / 20).await;
            }
        };
        tokio::time::timeout(LONG, closed).await.unwrap_or_else(|_| panic!("{fault:?} goes on"));
        assert_eq!((server.connections(), server.requests().len()), (2, 2), "{fault:?}");
    }
}

#[tokio::test]
async fn header_blocks_without_end_are_refused_by_http2_too() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let flood = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut received = [0; 4096];
        stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
        let mut read = 0;
        // The preface, and whatever comes with the request.
        while read < 24 + 60 {
            read += stream.read(&mut received).await.unwrap();
        }
        stream.write_all(&[0, 0, 0, 1, 0, 0, 0, 0, 1]).await.unwrap();
        // A literal field, over and over, in blocks that are never the last.
        let field = [0x00, 1, b'x', 1, b'y'].repeat(100);
        let mut frame = vec![0, 1, 244, 9, 0, 0, 0, 0, 1];
        frame.extend(&field);
        while stream.write_all(&frame).await.is_ok() {}
    });
    assert_eq!(end(&only(target(port)), http2::get2()).await, "failed: malformed");
    tokio::time::timeout(LONG, flood).await.expect("the connection is closed").unwrap();
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_is_not_followed() {
    let elsewhere = Server::answering(OK).await;
    let location = format!(
        "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:{}/\r\ncontent-length: 0\r\n\r\n",
        elsewhere.port
    );
    let server = Server::answering(location.leak()).await;
    let answer = answer(&server, get()).await.unwrap();
    assert_eq!(answer.response.status, 302);
    assert!(answer.response.headers.contains("location"), "it is there to be compared");
    assert_eq!((server.requests().len(), elsewhere.connections()), (1, 0));
}

#[tokio::test]
async fn dead_slow_and_broken_targets_change_neither_answers_nor_counts_of_another() {
    const REQUESTS: usize = 60;
    let (release, released) = tokio::sync::watch::channel(false);
    let hanging = Server::start(move |mut peer| {
        let mut released = released.clone();
        async move {
            peer.request().await;
            released.wait_for(|released| *released).await.unwrap();
        }
    })
    .await;
    let breaking = Server::start(|mut peer| async move {
        peer.request().await;
        peer.reset();
    })
    .await;
    let quick = Server::answering(OK).await;
    let baseline = Server::answering(OK).await;
    let targets = vec![
        config::Target { concurrency: 2, ..target(hanging.port) },
        target(refused_port().await),
        target(breaking.port),
        target(quick.port),
    ];
    let replayer = Arc::new(start(targets, Some(target(baseline.port)), &Control::new(true)));
    let mut replays = JoinSet::new();
    for _ in 0..REQUESTS {
        let replayer = Arc::clone(&replayer);
        replays.spawn(async move { replayer.replay(get()).await });
    }
    quick.received(REQUESTS).await;
    baseline.received(REQUESTS).await;
    assert_eq!(hanging.requests().len(), 2, "the slow one has answered nothing so far");
    assert_eq!(replayer.queue_lengths(), [REQUESTS - 2, 0, 0, 0, 0]);
    release.send(true).unwrap();
    let mut ends = replays.join_all().await;
    for outcomes in &mut ends {
        let others: Vec<_> = outcomes.split_off(3).iter().map(short).collect();
        assert_eq!(others, ["200", "200"]);
        let refusing = short(&outcomes[1]);
        assert!(["failed: connect", "dropped: breaker"].contains(&refusing.as_str()), "{refusing}");
        let broken = short(&outcomes[2]);
        assert!(["failed: closed", "dropped: breaker"].contains(&broken.as_str()), "{broken}");
    }
    assert_eq!((quick.requests().len(), baseline.requests().len()), (REQUESTS, REQUESTS));
    assert_eq!(replayer.breakers_open()[3..], [false, false]);
}

#[tokio::test]
async fn answers_slower_than_configured_open_the_breaker_unless_it_is_off() {
    let slow = Server::start(|mut peer| async move {
        while peer.request().await.is_some() {
            tokio::time::sleep(SHORT / 50).await;
            peer.send(OK).await;
        }
    })
    .await;
    let limits = config::Breaker { latency: Some(Duration::from_nanos(1)), ..config::Breaker::default() };
    for (breaker, expected) in [(Some(limits), "dropped: breaker"), (None, "200")] {
        let replayer = only(config::Target { breaker, ..target(slow.port) });
        for _ in 0..breaker::MIN_REQUESTS {
            assert_eq!(end(&replayer, get()).await, "200");
        }
        assert_eq!(end(&replayer, get()).await, expected);
    }
    let off = only(config::Target { breaker: None, ..target(refused_port().await) });
    for _ in 0..2 * breaker::MIN_REQUESTS {
        assert_eq!(end(&off, get()).await, "failed: connect");
    }
}
