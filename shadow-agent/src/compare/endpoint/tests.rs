use proptest::prelude::*;

use super::*;
use crate::config::{Compare, EndpointRule};

fn endpoints(patterns: &[&str], max_endpoints: usize) -> Endpoints {
    let rule = |path: &&str| EndpointRule { path: (*path).to_owned(), mismatch: None };
    let endpoints = patterns.iter().map(rule).collect();
    Endpoints::new(&Compare { endpoints, max_endpoints, ..Compare::default() }).unwrap()
}

#[test]
fn ids_are_taken_out_of_paths() {
    let endpoints = endpoints(&["/users/{name}/posts", "/files/{f}.csv", "/v/{major}", "/%61/b"], 100);
    let cases = [
        ("/", "GET /"),
        ("", "GET /"),
        ("*", "GET *"),
        ("/users", "GET /users"),
        ("/users/", "GET /users/"),
        ("/users/7", "GET /users/{id}"),
        ("/users/alice/posts", "GET /users/{name}/posts"),
        ("/users//posts", "GET /users//posts"),
        ("/users/alice/posts/7", "GET /users/alice/posts/{id}"),
        ("/files/x.csv", "GET /files/{f}.csv"),
        ("/files/.csv", "GET /files/.csv"),
        ("/v/1", "GET /v/{major}"),
        ("/a/b", "GET /%61/b"),
        ("/api/v2/orders/123e4567-e89b-12d3-a456-426614174000/lines/3", "GET /api/v2/orders/{id}/lines/{id}"),
        ("/img/3f2a9c1b.png", "GET /img/{id}.png"),
        ("/static/app.3f2a9c1b.js", "GET /static/{id}.js"),
        ("/releases/1.2.3", "GET /releases/{id}"),
        ("/mail/bob@example.com", "GET /mail/{id}"),
        ("/mail/bob%40example.com", "GET /mail/{id}"),
        ("/search/some%20words", "GET /search/{id}"),
        ("/s/%ff", "GET /s/{id}"),
        ("/caf\u{e9}", "GET /{id}"),
        ("/us%65rs", "GET /users"),
        ("/a;jsessionid=1/x", "GET /a/x"),
        ("/models/m:predict", "GET /models/m:predict"),
    ];
    for (path, expected) in cases {
        assert_eq!(&*endpoints.endpoint(&Method::GET, path.as_bytes()), expected, "{path}");
    }
    assert_eq!(&*endpoints.endpoint(&Method::POST, b"/users/7"), "POST /users/{id}");
}

#[test]
fn a_repeated_path_gives_the_same_name() {
    let endpoints = endpoints(&[], 10);
    let first = endpoints.endpoint(&Method::GET, b"/users/7");
    assert!(Arc::ptr_eq(&first, &endpoints.endpoint(&Method::GET, b"/users/8")));
}

#[test]
fn the_number_of_endpoints_is_bounded() {
    let endpoints = endpoints(&["/own/{id}"], 3);
    let get = |path: &str| endpoints.endpoint(&Method::GET, path.as_bytes());
    assert_eq!(&*get("/a"), "GET /a");
    assert_eq!(&*get("/b"), "GET /b");
    assert_eq!(&*get("/c"), "GET {other}", "one place is reserved");
    assert_eq!(&*get("/own/1"), "GET /own/{id}");
    assert_eq!(&*get("/b"), "GET /b");
    assert_eq!(&*endpoints.endpoint(&Method::PUT, b"/own/1"), "PUT {other}");
    assert_eq!(&*endpoints.endpoint(&Method::from_bytes(b"PURGE").unwrap(), b"/a"), "{other}");
}

#[test]
fn the_depth_of_a_path_is_bounded() {
    let endpoints = endpoints(&[], 10);
    let (fits, deeper) = ("/a".repeat(MAX_SEGMENTS), "/a".repeat(MAX_SEGMENTS + 1));
    assert_eq!(&*endpoints.endpoint(&Method::GET, fits.as_bytes()), format!("GET {fits}"));
    assert_eq!(&*endpoints.endpoint(&Method::GET, deeper.as_bytes()), format!("GET {fits}/{{rest}}"));
}

#[test]
fn what_is_not_a_pattern_is_refused() {
    for path in ["users", "", "/a/{", "/a/}", "/a/{}", "/{a}{b}", "/{a{b}}", "/a?b", "/}{a}"] {
        let rule = EndpointRule { path: path.to_owned(), mismatch: None };
        let error = Endpoints::new(&Compare { endpoints: vec![rule], ..Compare::default() }).unwrap_err();
        assert!(error.to_string().contains(&format!("`{path}`")), "{error}");
    }
}

proptest! {
    #[test]
    fn every_path_has_a_short_name(path in proptest::collection::vec(any::<u8>(), 0..400)) {
        let endpoints = endpoints(&["/{a}/b"], 10);
        let name = endpoints.endpoint(&Method::GET, &path);
        prop_assert!(name.len() <= 4 + (MAX_SEGMENTS + 2) * (super::super::ids::MAX_NAME + 1));
        prop_assert_eq!(endpoints.endpoint(&Method::GET, &path), name);
    }
}
