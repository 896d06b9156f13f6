//! Sessions and tokens on real sockets.

use std::sync::Mutex;

use tokio::task::JoinSet;

use super::*;
use crate::config::{Missing, TokenPlace, TokenRule};
use crate::exchange::SessionId;
use crate::policy::fixture::response;

fn of_session(session: u64, path: &str, cookie: &str) -> Sendable {
    let headers = [("host", "shop.example"), ("cookie", cookie)];
    Sendable::clone(&sendable("GET", path, &headers, "")).in_session(Some(SessionId(session)))
}

#[tokio::test]
async fn a_session_has_a_connection_of_its_own_as_long_as_that_lives() {
    let seen: Arc<Mutex<Vec<(usize, String)>>> = Arc::default();
    let log = Arc::clone(&seen);
    let server = Server::start(move |mut peer| {
        let log = Arc::clone(&log);
        async move {
            while let Some(request) = peer.request().await {
                let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
                let is_last = path == "/bye";
                log.lock().unwrap().push((peer.number, path));
                peer.send(OK).await;
                if is_last {
                    return;
                }
            }
        }
    })
    .await;
    let replayer = only(target(server.port));
    for (session, path) in [(1, "/1"), (2, "/2"), (1, "/1"), (2, "/bye"), (1, "/1"), (2, "/2"), (2, "/2")] {
        assert_eq!(end(&replayer, Arc::new(of_session(session, path, ""))).await, "200");
    }
    let seen = seen.lock().unwrap();
    let connections = |path: &str| -> Vec<usize> {
        seen.iter().filter(|(_, seen)| seen == path).map(|(connection, _)| *connection).collect()
    };
    assert_eq!((connections("/1"), connections("/bye")), (vec![1, 1, 1], vec![2]));
    assert_eq!(connections("/2"), [2, 3, 3]);
}

#[tokio::test]
async fn a_target_that_hangs_holds_up_a_session_there_and_nowhere_else() {
    const REQUESTS: usize = 5;
    let hanging = Server::hanging().await;
    let quick = Server::answering(OK).await;
    let hanging_target = config::Target { timeout: SHORT, ..target(hanging.port) };
    let replayer = Arc::new(start(vec![hanging_target], Some(target(quick.port)), &Control::new(true)));
    let mut replays = JoinSet::new();
    for _ in 0..REQUESTS {
        let replayer = Arc::clone(&replayer);
        replays.spawn(async move { replayer.replay(Arc::new(of_session(1, "/", ""))).await });
    }
    quick.received(REQUESTS).await;
    let ends: Vec<_> = replays.join_all().await.iter().map(|outcomes| short(&outcomes[0])).collect();
    assert!(ends.iter().any(|end| end == "dropped: order"), "{ends:?}");
    assert!(ends.iter().all(|end| end == "dropped: order" || end == "failed: timeout"), "{ends:?}");
    assert!(hanging.requests().len() < REQUESTS);
}

#[tokio::test]
async fn each_target_gets_the_token_that_it_issued_and_the_answers_are_equal() {
    let first =
        Server::answering("HTTP/1.1 200 OK\r\nset-cookie: sid=a\r\nx-csrf: ca\r\ncontent-length: 0\r\n\r\n")
            .await;
    let second =
        Server::answering("HTTP/1.1 200 OK\r\nset-cookie: sid=b\r\nx-csrf: cb\r\ncontent-length: 0\r\n\r\n")
            .await;
    let silent = Server::answering(OK).await;
    let sid = || vec![TokenPlace::Cookie("sid".to_owned())];
    let rule = |name: &str, issued: Vec<TokenPlace>| TokenRule {
        name: name.to_owned(),
        issued,
        carried: sid(),
        missing: Missing::Drop,
    };
    let rules = [rule("sid", sid()), rule("csrf", vec![TokenPlace::Header("x-csrf".to_owned())])];
    let tokens = Arc::new(Tokens::new(&rules).unwrap());
    let settings = Settings { tokens: Some(Arc::clone(&tokens)), ..SETTINGS };
    let targets = [&first, &second, &silent].map(|server| target(server.port)).to_vec();
    let config = config::Replay { targets, ..config::Replay::default() };
    let replayer = Replayer::start(&config, &settings, Control::new(true)).unwrap();

    let issued = tokens.issued(&response("200\nset-cookie: sid=p\nx-csrf: cp"));
    let outcomes = replayer.replay(Arc::new(of_session(1, "/login", "").issuing(issued))).await;
    for outcome in outcomes.iter().take(2) {
        let Outcome::Answered(answer) = outcome else { panic!("{outcome:?}") };
        assert_eq!(answer.response.headers.get("x-csrf").unwrap(), "cp");
    }
    let outcomes = replayer.replay(Arc::new(of_session(1, "/account", "x=1; sid=p"))).await;
    assert_eq!(outcomes.iter().map(short).collect::<Vec<_>>(), ["200", "200", "dropped: token"]);
    for (server, cookie) in [(&first, "x=1; sid=a"), (&second, "x=1; sid=b")] {
        let requests = server.requests();
        let account = requests.iter().find(|request| request.contains("/account")).unwrap();
        assert!(account.contains(&format!("cookie: {cookie}\r\n")), "{account}");
    }
    assert!(!silent.requests().iter().any(|request| request.contains("/account")));
}
