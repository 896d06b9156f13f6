//! Which version of HTTP a request goes out by. It makes no connection.
//!
//! Without TLS that is the version that production was asked by, unless one is configured. Over TLS the target chooses
//! (ALPN, RFC 7301) from both, production's first; what it chose for requests of a version is remembered until a handshake
//! fails, so that requests need not all wait for each other to find out.

use std::sync::atomic::{AtomicBool, Ordering};

use http::Version;

use super::Offer;
use crate::config::Http;

/// A version of HTTP that can be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::replay) enum Protocol {
    One,
    /// Or whatever the target will choose.
    Two,
}

/// What came of an offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Agreed {
    One,
    Two,
    /// Not what it must be.
    Nothing,
}

/// The choice for one target.
#[derive(Debug)]
pub(super) struct Protocols {
    http: Http,
    tls: bool,
    /// Whether HTTP/1.1 was chosen last for what production was asked by HTTP/1 and by HTTP/2.
    chose_one: [AtomicBool; 2],
}

impl Protocols {
    pub(super) fn new(http: Http, tls: bool) -> Protocols {
        Protocols { http, tls, chose_one: Default::default() }
    }

    /// By which protocol a request of that version goes out, as far as it is known.
    pub(super) fn of(&self, version: Version) -> Protocol {
        match self.http {
            Http::One => Protocol::One,
            Http::Two => Protocol::Two,
            Http::Auto if self.tls => match self.chose_one(version).load(Ordering::Relaxed) {
                false => Protocol::Two,
                true => Protocol::One,
            },
            Http::Auto if version == Version::HTTP_2 => Protocol::Two,
            Http::Auto => Protocol::One,
        }
    }

    /// What a connection for HTTP/2 offers.
    pub(super) fn offer(&self, version: Version) -> Offer {
        match self.http {
            Http::Auto if version == Version::HTTP_2 => Offer::TwoOrOne,
            Http::Auto => Offer::OneOrTwo,
            Http::One | Http::Two => Offer::Two,
        }
    }

    /// Takes in what came of [`Protocols::offer`].
    pub(super) fn agreed(&self, version: Version, on_http2: bool) -> Agreed {
        match (self.tls, self.http) {
            (false, _) => Agreed::Two,
            (true, _) if on_http2 => Agreed::Two,
            (true, Http::Auto) => {
                self.chose_one(version).store(true, Ordering::Relaxed);
                Agreed::One
            }
            (true, Http::One | Http::Two) => Agreed::Nothing,
        }
    }

    /// Forgets what the target chose: it may be another one now.
    pub(super) fn forget(&self) {
        self.chose_one.iter().for_each(|chose| chose.store(false, Ordering::Relaxed));
    }

    fn chose_one(&self, version: Version) -> &AtomicBool {
        let [one, two] = &self.chose_one;
        if version == Version::HTTP_2 { two } else { one }
    }
}
