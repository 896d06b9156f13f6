use tokio_rustls::rustls::{InvalidMessage, PeerIncompatible};

use super::super::tests::target;
use super::*;

const KEY: &str = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";

fn configured(change: impl FnOnce(&mut config::Tls)) -> config::Target {
    let mut target = config::Target { url: "https://localhost".parse().unwrap(), ..target(443) };
    change(&mut target.tls);
    target
}

#[test]
fn files_of_no_use_are_named_with_the_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let own = rcgen::generate_simple_self_signed(vec!["agent".to_owned()]).unwrap();
    let cert = file("cert.pem", own.cert.pem().as_bytes());
    let key = file("key.pem", own.signing_key.serialize_pem().as_bytes());
    let other = file("other.pem", rcgen::KeyPair::generate().unwrap().serialize_pem().as_bytes());
    let full = file("full.pem", &vec![b'\n'; usize::try_from(MAX_PEM).unwrap()]);
    let large = file("large.pem", &vec![b'\n'; usize::try_from(MAX_PEM).unwrap() + 1]);
    let (empty, broken) = (file("empty.pem", b""), file("broken.pem", KEY.as_bytes()));
    let ca = |path: &Path| configured(|tls| tls.ca = Some(path.to_owned()));
    let client = |cert: &Path, key: &Path| {
        configured(|tls| {
            (tls.ca, tls.cert, tls.key) =
                (Some(folder.path().join("cert.pem")), Some(cert.to_owned()), Some(key.to_owned()));
        })
    };
    for (target, expected) in [
        (ca(&cert), None),
        (client(&cert, &key), None),
        (ca(&folder.path().join("none.pem")), Some("cannot be read")),
        (ca(&empty), Some("holds no usable certificate")),
        (ca(&full), Some("holds no usable certificate")),
        (ca(&large), Some("is larger than 1048576 bytes")),
        (client(&empty, &key), Some("holds no usable certificate")),
        (client(&cert, &broken), Some("holds no usable private key")),
        (client(&cert, &empty), Some("holds no usable private key")),
        (client(&cert, &other), Some("is not that of the certificate")),
    ] {
        let error = Tls::new(&target).err().map(|error| error.to_string());
        match (error, expected) {
            (None, None) => {}
            (Some(error), Some(part)) => {
                assert!(error.contains(part) && error.contains(';') | error.contains('?'), "{error}");
            }
            (error, expected) => panic!("{error:?} instead of {expected:?}"),
        }
    }
}

#[test]
fn each_kind_of_failure_is_said_once() {
    let invalid = |error| Error::InvalidCertificate(error);
    for (error, kind) in [
        (invalid(CertificateError::UnknownIssuer), Kind::Untrusted),
        (invalid(CertificateError::Expired), Kind::Expired),
        (invalid(CertificateError::NotValidYet), Kind::NotYetValid),
        (invalid(CertificateError::NotValidForName), Kind::WrongName),
        (invalid(CertificateError::BadSignature), Kind::Certificate),
        (Error::AlertReceived(AlertDescription::CertificateRequired), Kind::Refused),
        (Error::AlertReceived(AlertDescription::NoApplicationProtocol), Kind::NoProtocol),
        (Error::InvalidMessage(InvalidMessage::InvalidContentType), Kind::Broken),
        (Error::PeerIncompatible(PeerIncompatible::NoCipherSuitesInCommon), Kind::Broken),
    ] {
        assert_eq!(Kind::of(&error), kind, "{error:?}");
        assert!(kind.said().contains([';', '?']), "{kind:?} has no remedy");
        let complaints = Complaints { target: "t".to_owned(), said: AtomicU32::new(0) };
        assert!(complaints.about(&io::Error::new(io::ErrorKind::InvalidData, error)));
        assert_eq!(complaints.said.load(Ordering::Relaxed), 1 << kind as u32);
    }
    let complaints = Complaints { target: "t".to_owned(), said: AtomicU32::new(0) };
    assert!(!complaints.about(&io::ErrorKind::ConnectionReset.into()), "that is no failure of TLS");
    assert_eq!(complaints.said.load(Ordering::Relaxed), 0);
}
