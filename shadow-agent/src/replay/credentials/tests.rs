use std::fs;

use super::*;
use crate::config::OwnCredentials;

fn target(headers: Vec<(String, Secret)>) -> config::Target {
    let credentials = OwnCredentials { headers, query: Vec::new() };
    config::Target { credentials, ..super::super::tests::target(80) }
}

fn from_file(path: &Path) -> Result<Credentials, CredentialsError> {
    Credentials::new(&target(vec![("authorization".into(), Secret::File(path.to_owned()))]))
}

fn value(credentials: &Credentials) -> String {
    let mut headers = HeaderMap::new();
    credentials.put(&mut headers).unwrap();
    let value = &headers["authorization"];
    assert!(value.is_sensitive(), "kept out of the tables of HTTP/2");
    value.to_str().unwrap().to_owned()
}

#[test]
fn a_file_is_read_again_when_it_changes_and_what_is_of_no_use_leaves_the_value_of_before() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    fs::write(&path, "Bearer one\n").unwrap();
    let credentials = from_file(&path).unwrap();
    assert_eq!(value(&credentials), "Bearer one");
    let complained = || credentials.headers[0].1.lock().complained;
    let too_long = "x".repeat(MAX_VALUE + 1);
    for of_no_use in ["", "  \n", "two\nlines", &too_long] {
        fs::write(&path, of_no_use).unwrap();
        credentials.reread();
        assert!(value(&credentials) == "Bearer one" && complained(), "{of_no_use:.10}");
    }
    fs::remove_file(&path).unwrap();
    credentials.reread();
    assert_eq!(value(&credentials), "Bearer one");
    let other = folder.path().join("other");
    fs::write(&other, "Bearer two").unwrap();
    fs::rename(&other, &path).unwrap();
    credentials.reread();
    assert!(value(&credentials) == "Bearer two" && !complained());
}

#[test]
fn a_file_of_the_same_size_and_time_is_known_as_another_one() {
    let folder = tempfile::tempdir().unwrap();
    let (path, other) = (folder.path().join("token"), folder.path().join("other"));
    fs::write(&path, "one").unwrap();
    let credentials = from_file(&path).unwrap();
    fs::write(&other, "two").unwrap();
    let time = fs::metadata(&path).unwrap().modified().unwrap();
    File::options().write(true).open(&other).unwrap().set_modified(time).unwrap();
    fs::rename(&other, &path).unwrap();
    credentials.reread();
    assert_eq!(value(&credentials), "two");
}

#[test]
fn a_value_has_a_bound_and_is_never_shown() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    for (length, accepted) in [(1, true), (MAX_VALUE, true), (MAX_VALUE + 1, false), (0, false)] {
        fs::write(&path, format!("{}\r\n", "s".repeat(length))).unwrap();
        let read = from_file(&path);
        assert_eq!(read.is_ok(), accepted, "{length} bytes");
        let shown = format!("{read:?}");
        assert!(!shown.contains("sss"), "{shown}");
        if let Err(error) = read {
            let said = error.to_string();
            assert!(said.contains("authorization") && (said.contains(';')), "{said}");
        }
    }
}

#[test]
fn a_variable_is_read_once_and_must_be_there() {
    let of = |variable: &str| {
        Credentials::new(&target(vec![("authorization".into(), Secret::Env(variable.to_owned()))]))
    };
    // One that cargo sets for every test.
    let credentials = of("CARGO_PKG_NAME").unwrap();
    assert_eq!(value(&credentials), "shadow-agent");
    assert!(!credentials.can_change());
    let error = of("SHADOW_TESTS_NO_SUCH_VARIABLE").unwrap_err().to_string();
    assert!(error.contains("SHADOW_TESTS_NO_SUCH_VARIABLE") && error.contains("not set"), "{error}");
}
