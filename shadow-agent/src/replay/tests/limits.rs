//! What holds requests back or ends them early: time, queue, rate, breaker, kill switch, shutdown.

use tokio::task::JoinSet;

use super::*;
use crate::replay::slots::QUEUE_REQUESTS;

/// A server that answers nothing before it is released.
async fn answering_when(released: tokio::sync::watch::Receiver<bool>) -> Server {
    Server::start(move |mut peer| {
        let mut released = released.clone();
        async move {
            peer.request().await;
            released.wait_for(|released| *released).await.unwrap();
            peer.send(OK).await;
        }
    })
    .await
}

#[tokio::test]
async fn no_answer_in_time_is_a_timeout_and_closes() {
    for begun in ["", "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nab"] {
        let server = Server::start(move |mut peer| async move {
            peer.request().await;
            peer.send(begun).await;
            peer.closed().await;
        })
        .await;
        let replayer = only(config::Target { timeout: SHORT, ..target(server.port) });
        assert_eq!(end(&replayer, get()).await, "failed: timeout", "{begun:?}");
        assert_eq!(end(&replayer, get()).await, "failed: timeout", "{begun:?}");
        assert_eq!(server.connections(), 2);
    }
}

#[tokio::test]
async fn a_connection_that_is_not_made_in_time_is_a_failure_to_connect() {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap();
    let _never_accepting = socket.listen(1).unwrap();
    let mut waiting = Vec::new();
    while let Ok(stream) = tokio::time::timeout(SHORT, tokio::net::TcpStream::connect(address)).await {
        waiting.push(stream.unwrap());
    }
    let replayer = only(config::Target { timeout: SHORT, ..target(address.port()) });
    assert_eq!(end(&replayer, get()).await, "failed: connect");
}

#[tokio::test]
async fn a_target_that_refuses_opens_its_breaker_and_no_other() {
    let server = Server::answering(OK).await;
    let control = Control::new(true);
    let replayer = start(vec![target(refused_port().await)], Some(target(server.port)), &control);
    assert_eq!(replayer.breakers_open(), [false, false]);
    for _ in 0..breaker::MAX_UNREACHABLE {
        let outcomes = replayer.replay(get()).await;
        assert_eq!(outcomes.iter().map(short).collect::<Vec<_>>(), ["failed: connect", "200"]);
    }
    assert_eq!(replayer.breakers_open(), [true, false]);
    let outcomes = replayer.replay(get()).await;
    assert_eq!(outcomes.iter().map(short).collect::<Vec<_>>(), ["dropped: breaker", "200"]);
}

#[tokio::test]
async fn answers_that_wait_for_another_target_are_bounded() {
    const HELD: usize = 7;
    let hanging = Server::start(|mut peer| async move {
        peer.request().await;
        peer.closed().await;
    })
    .await;
    let quick = Server::answering(OK).await;
    let config = config::Replay {
        credentials: config::Credentials::Forward,
        targets: vec![target(quick.port)],
        baseline: Some(config::Target { timeout: SHORT, ..target(hanging.port) }),
        ..config::Replay::default()
    };
    let settings = Settings { held_limit: HELD, ..SETTINGS };
    let replayer = Arc::new(Replayer::start(&config, &settings, Control::new(true)).unwrap());
    let mut replays = JoinSet::new();
    // Four answers of two bytes fill the room.
    for number in 1..=4 {
        let replayer = Arc::clone(&replayer);
        replays.spawn(async move { replayer.replay(get()).await });
        quick.received(number).await;
        tokio::time::sleep(SHORT / 20).await;
    }
    let outcomes = replayer.replay(get()).await;
    assert_eq!(outcomes.iter().map(short).collect::<Vec<_>>(), ["dropped: memory", "dropped: memory"]);
    assert_eq!(quick.requests().len(), 4);
    for outcomes in replays.join_all().await {
        assert_eq!(outcomes.iter().map(short).collect::<Vec<_>>(), ["200", "failed: timeout"]);
    }
    let outcomes = replayer.replay(get()).await;
    assert_eq!(short(&outcomes[0]), "200", "there is room again");
}

#[tokio::test]
async fn a_target_that_hangs_delays_no_other() {
    const REQUESTS: usize = 20;
    let (release, released) = tokio::sync::watch::channel(false);
    let slow = answering_when(released).await;
    let quick = Server::answering(OK).await;
    let slow_target = config::Target { concurrency: 1, ..target(slow.port) };
    let replayer = Arc::new(start(vec![slow_target], Some(target(quick.port)), &Control::new(true)));
    let mut replays = JoinSet::new();
    for _ in 0..REQUESTS {
        let replayer = Arc::clone(&replayer);
        replays.spawn(async move { replayer.replay(get()).await });
    }
    quick.received(REQUESTS).await;
    assert_eq!(slow.requests().len(), 1);
    assert_eq!(replayer.queue_lengths(), [REQUESTS - 1, 0]);
    release.send(true).unwrap();
    for outcomes in replays.join_all().await {
        assert_eq!(outcomes.iter().map(short).collect::<Vec<_>>(), ["200", "200"]);
    }
}

#[tokio::test]
async fn the_queue_takes_its_limit_and_the_kill_switch_empties_it() {
    let server = Server::hanging().await;
    let control = Control::new(true);
    let one_at_a_time = config::Target { concurrency: 1, ..target(server.port) };
    let replayer = Arc::new(start(vec![one_at_a_time], None, &control));
    let replay = || {
        let replayer = Arc::clone(&replayer);
        async move { end(&replayer, get()).await }
    };
    let under_way = tokio::spawn(replay());
    server.received(1).await;
    let mut queued = JoinSet::new();
    for _ in 0..QUEUE_REQUESTS {
        queued.spawn(replay());
    }
    while replayer.queue_lengths() != [QUEUE_REQUESTS] {
        tokio::task::yield_now().await;
    }
    assert_eq!(replay().await, "dropped: queue");
    control.set_enabled(false);
    assert!(queued.join_all().await.iter().all(|end| end == "dropped: disabled"));
    assert_eq!(replayer.queue_lengths(), [0]);
    assert_eq!(replay().await, "dropped: disabled");
    assert_eq!(server.requests().len(), 1);
    under_way.abort();
}

#[tokio::test]
async fn over_the_rate_is_dropped() {
    let server = Server::answering(OK).await;
    let replayer = only(config::Target { rate: Some(0.001), ..target(server.port) });
    assert_eq!(end(&replayer, get()).await, "200");
    assert_eq!(end(&replayer, get()).await, "dropped: rate");
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn a_cancelled_replay_gives_its_slot_and_its_place_back() {
    let server = Server::start(|mut peer| async move {
        peer.request().await;
        if peer.number == 1 {
            peer.closed().await;
        }
        peer.send(OK).await;
    })
    .await;
    let replayer = Arc::new(only(config::Target { concurrency: 1, ..target(server.port) }));
    let replay = |replayer: &Arc<Replayer>| {
        let replayer = Arc::clone(replayer);
        tokio::spawn(async move { end(&replayer, get()).await })
    };
    let (under_way, queued) = (replay(&replayer), replay(&replayer));
    server.received(1).await;
    while replayer.queue_lengths() != [1] {
        tokio::task::yield_now().await;
    }
    queued.abort();
    assert!(queued.await.unwrap_err().is_cancelled());
    assert_eq!(replayer.queue_lengths(), [0]);
    under_way.abort();
    assert!(under_way.await.unwrap_err().is_cancelled());
    assert_eq!(end(&replayer, get()).await, "200");
}

#[tokio::test]
async fn shutdown_drops_what_is_queued_and_ends_what_is_under_way_at_the_deadline() {
    let server = Server::hanging().await;
    let replayer = Arc::new(only(config::Target { concurrency: 1, ..target(server.port) }));
    let replay = || {
        let replayer = Arc::clone(&replayer);
        tokio::spawn(async move { end(&replayer, get()).await })
    };
    let under_way = replay();
    server.received(1).await;
    let queued = replay();
    while replayer.queue_lengths() != [1] {
        tokio::task::yield_now().await;
    }
    let ending = {
        let replayer = Arc::clone(&replayer);
        tokio::spawn(async move { replayer.shutdown(SHORT).await })
    };
    assert_eq!(queued.await.unwrap(), "dropped: shutdown");
    assert!(!under_way.is_finished());
    assert_eq!(under_way.await.unwrap(), "failed: shutdown");
    ending.await.unwrap();
    assert_eq!(end(&replayer, get()).await, "dropped: shutdown");
}

#[tokio::test]
async fn shutdown_waits_for_an_answer_under_way() {
    let (release, released) = tokio::sync::watch::channel(false);
    let server = answering_when(released).await;
    let replayer = Arc::new(only(target(server.port)));
    let under_way = {
        let replayer = Arc::clone(&replayer);
        tokio::spawn(async move { end(&replayer, get()).await })
    };
    server.received(1).await;
    let (_, released) = tokio::join!(replayer.shutdown(LONG), async { release.send(true) });
    released.unwrap();
    assert_eq!(under_way.await.unwrap(), "200");
}
