use tokio_util::task::TaskTracker;

use super::super::tests::target;
use super::*;
use crate::control::Control;

fn means(mark: Option<u32>) -> Means {
    Means {
        mark,
        own: Registrar::none(),
        lookup: Lookup::system(),
        tasks: TaskTracker::new(),
        gate: Arc::new(Gate::new(Control::new(true))),
    }
}

#[test]
fn hosts_of_every_form_are_understood() {
    let cases = [
        ("http://10.0.0.9", Some("10.0.0.9:80")),
        ("http://[::1]:8080/api", Some("[::1]:8080")),
        ("https://[::1]/api", Some("[::1]:443")),
        ("http://shadow.local:81", Some("shadow.local:81")),
        ("https://shadow.local", Some("shadow.local:443")),
        ("ftp://shadow.local", None),
        ("/path", None),
    ];
    for (url, expected) in cases {
        let target = config::Target {
            url: url.parse().unwrap(),
            tls: config::Tls { verify: false, ..config::Tls::default() },
            ..target(80)
        };
        let found = Connector::new(&target, means(None)).ok().map(|connector| match connector.host {
            Host::Address(address) => address.to_string(),
            Host::Name(names) => names.to_string(),
        });
        assert_eq!(found.as_deref(), expected, "{url}");
    }
}

#[tokio::test]
async fn sockets_carry_the_mark_and_do_not_delay() {
    assert_eq!(usable_mark(0), None);
    let mark = usable_mark(0x5AD0);
    if mark.is_none() {
        eprintln!("the mark itself is not tested: it needs CAP_NET_ADMIN");
    }
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let connector = Connector::new(&target(listener.local_addr().unwrap().port()), means(mark)).unwrap();
    let Stream::Plain(stream) = connector.connect(Offer::One).await.unwrap().stream else {
        panic!("TLS without being asked for")
    };
    assert_eq!(SockRef::from(&stream).mark().unwrap(), mark.unwrap_or(0));
    assert!(stream.nodelay().unwrap());
}
