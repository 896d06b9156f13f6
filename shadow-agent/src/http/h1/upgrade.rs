//! The upgrade from HTTP/1.1 to HTTP/2 without TLS (RFC 7540, section 3.2; RFC 9113 only warns of it). Recognises it,
//! and gives what HTTP/2 goes on with.

use base64::Engine as _;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::connection::{Connection, Requests, Responses};
use super::head::{Kind, ResponseHead};
use super::open::Open;
use crate::exchange::{ExchangeId, Headers, Request, Times};

/// `HTTP2-Settings` is base64url, without padding; who pads is understood.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What HTTP/2 goes on with.
#[derive(Debug)]
pub(in crate::http) struct Upgrade {
    /// The payload of the client's first SETTINGS frame.
    pub(in crate::http) settings: Vec<u8>,
    /// The exchange whose response comes on stream 1.
    pub(in crate::http) exchange: Upgraded,
    /// So many bytes of HTTP/2 came with the last bytes of HTTP/1.
    pub(in crate::http) unread: usize,
}

/// The request that asked for it.
#[derive(Debug)]
pub(in crate::http) struct Upgraded {
    pub(in crate::http) id: ExchangeId,
    pub(in crate::http) request: Request,
    pub(in crate::http) times: Times,
    /// Bytes kept for it.
    pub(in crate::http) cost: usize,
}

impl Connection {
    /// Whether this response makes the connection HTTP/2. It must answer a request that asked for it, is whole, and has
    /// none behind it.
    pub(super) fn leads_to_http2(&self, head: &ResponseHead) -> bool {
        let asked =
            |open: &Open| open.end.is_some() && open.kind != Kind::Connect && settings(open).is_some();
        head.status == 101
            && names_h2c(&head.headers)
            && matches!(self.requests, Requests::Boundary)
            && self.queue.len() == 1
            && self.queue.front().is_some_and(|open| asked(open))
    }

    /// Gives what HTTP/2 goes on with, once. Nothing is left here then.
    pub(in crate::http) fn take_upgrade(&mut self) -> Option<Upgrade> {
        let Responses::Http2(unread) = self.responses else { return None };
        let mut open = self.queue.pop_front()?;
        let settings = settings(&open)?;
        let Open { id, times, cost, .. } = *open;
        let request = open.request.take()?;
        Some(Upgrade { settings, exchange: Upgraded { id, request, times, cost }, unread })
    }
}

/// The settings of a request that asks for HTTP/2: there must be exactly one such field, and it must be understood.
fn settings(open: &Open) -> Option<Vec<u8>> {
    let headers = &open.request.as_ref()?.headers;
    let mut fields = headers.all("http2-settings");
    let (field, None) = (fields.next()?, fields.next()) else { return None };
    let settings = BASE64.decode(field.trim_ascii()).ok()?;
    (names_h2c(headers) && settings.len().is_multiple_of(6)).then_some(settings)
}

fn names_h2c(headers: &Headers) -> bool {
    headers
        .all("upgrade")
        .flat_map(|value| value.split(|&byte| byte == b','))
        .any(|protocol| protocol.trim_ascii().eq_ignore_ascii_case(b"h2c"))
}
