//! Targets by name: looked up again, and what happens to connections when a name moves.

use std::io;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::task::JoinSet;

use super::*;
use crate::replay::names::MAX_ADDRESSES;

/// What a name means, as the test says it.
#[derive(Default)]
struct Zone {
    addresses: Mutex<Vec<SocketAddr>>,
    looked: AtomicUsize,
    at_once: AtomicUsize,
}

impl Zone {
    fn set(&self, ports: &[u16]) {
        *self.addresses.lock().unwrap() = ports.iter().map(|&port| ([127, 0, 0, 1], port).into()).collect();
    }

    fn lookup(self: &Arc<Zone>) -> Lookup {
        let zone = Arc::clone(self);
        Lookup::by(move |name, port| {
            assert_eq!((name, port), ("shadow.test", 80));
            assert_eq!(zone.at_once.fetch_add(1, Ordering::SeqCst), 0, "two look-ups at once");
            std::thread::sleep(SHORT / 20);
            zone.at_once.fetch_sub(1, Ordering::SeqCst);
            zone.looked.fetch_add(1, Ordering::SeqCst);
            let found = zone.addresses.lock().unwrap().clone();
            if found.is_empty() { Err(io::ErrorKind::NotFound.into()) } else { Ok(found) }
        })
    }

    fn replayer(self: &Arc<Zone>) -> Arc<Replayer> {
        let target = config::Target {
            url: "http://shadow.test".parse().unwrap(),
            dns_refresh: Duration::from_millis(1),
            ..target(80)
        };
        let config = config::Replay {
            credentials: config::Credentials::Forward,
            targets: vec![target],
            ..config::Replay::default()
        };
        let settings = Settings { lookup: self.lookup(), ..SETTINGS };
        Arc::new(Replayer::start(&config, &settings, Control::new(true)).unwrap())
    }
}

async fn until(reached: impl Fn() -> bool) {
    let waiting = async {
        while !reached() {
            tokio::time::sleep(SHORT / 10).await;
        }
    };
    tokio::time::timeout(LONG, waiting).await.expect("it comes to that");
}

#[tokio::test]
async fn when_a_name_moves_idle_connections_are_closed_and_those_in_use_are_not_used_again() {
    let closed = Arc::new(AtomicUsize::new(0));
    let (release, released) = tokio::sync::watch::channel(false);
    let old = {
        let closed = Arc::clone(&closed);
        Server::start(move |mut peer| {
            let (closed, mut released) = (Arc::clone(&closed), released.clone());
            async move {
                while let Some(request) = peer.request().await {
                    if request.starts_with("POST") {
                        released.wait_for(|released| *released).await.unwrap();
                    }
                    peer.send(OK).await;
                }
                closed.fetch_add(1, Ordering::SeqCst);
            }
        })
        .await
    };
    let new = Server::answering(OK).await;
    let zone = Arc::new(Zone::default());
    zone.set(&[old.port]);
    let replayer = zone.replayer();
    let in_use = {
        let replayer = Arc::clone(&replayer);
        tokio::spawn(async move { end(&replayer, sendable("POST", "/", &[("host", "h")], "")).await })
    };
    old.received(1).await;
    assert_eq!(end(&replayer, get()).await, "200");
    assert_eq!((old.connections(), new.connections()), (2, 0));
    zone.set(&[new.port]);
    until(|| closed.load(Ordering::SeqCst) == 1).await;
    release.send(true).unwrap();
    assert_eq!(in_use.await.unwrap(), "200", "what is under way ends where it is");
    assert_eq!(end(&replayer, get()).await, "200");
    assert_eq!((old.requests().len(), new.requests().len()), (2, 1));
    until(|| closed.load(Ordering::SeqCst) == 2).await;
}

#[tokio::test]
async fn when_a_name_moves_shared_connections_take_no_further_request() {
    let (old, new) = (
        http2_server::Http2Server::answering(200, "ok").await,
        http2_server::Http2Server::answering(200, "ok").await,
    );
    let zone = Arc::new(Zone::default());
    zone.set(&[old.port]);
    let replayer = zone.replayer();
    assert_eq!(end(&replayer, http2::get2()).await, "200");
    zone.set(&[new.port]);
    let moved = async {
        while new.requests().is_empty() {
            assert_eq!(end(&replayer, http2::get2()).await, "200");
            tokio::time::sleep(SHORT / 2).await;
        }
    };
    tokio::time::timeout(LONG, moved).await.expect("requests follow the name");
    let before = old.requests().len();
    assert_eq!(end(&replayer, http2::get2()).await, "200");
    assert_eq!((old.requests().len(), new.requests().len()), (before, 2));
}

#[tokio::test]
async fn a_name_that_is_not_found_any_more_leaves_the_addresses_of_before() {
    let server = Server::answering(OK).await;
    let zone = Arc::new(Zone::default());
    zone.set(&[server.port]);
    let replayer = zone.replayer();
    assert_eq!(end(&replayer, get()).await, "200");
    zone.set(&[]);
    let looked = zone.looked.load(Ordering::SeqCst);
    until(|| zone.looked.load(Ordering::SeqCst) >= looked + 2).await;
    assert_eq!(end(&replayer, get()).await, "200");
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn a_name_that_was_never_found_is_a_failure_to_connect_and_is_looked_up_once_at_a_time() {
    let zone = Arc::new(Zone::default());
    let replayer = zone.replayer();
    let mut replays = JoinSet::new();
    for _ in 0..8 {
        let replayer = Arc::clone(&replayer);
        replays.spawn(async move { end(&replayer, get()).await });
    }
    assert!(replays.join_all().await.iter().all(|end| end == "failed: connect"));
    let server = Server::answering(OK).await;
    zone.set(&[server.port]);
    assert_eq!(end(&replayer, get()).await, "200", "it is looked up again for the next request");
}

#[tokio::test]
async fn addresses_are_tried_in_order_and_bounded() {
    let server = Server::answering(OK).await;
    let zone = Arc::new(Zone::default());
    let refused = refused_port().await;
    for (before, expected) in [(MAX_ADDRESSES - 1, "200"), (MAX_ADDRESSES, "failed: connect")] {
        let ports = [vec![refused; before], vec![server.port]].concat();
        zone.set(&ports);
        assert_eq!(end(&zone.replayer(), get()).await, expected, "behind {before} others");
    }
}
