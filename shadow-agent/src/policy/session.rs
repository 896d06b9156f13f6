//! Says which session an exchange belongs to. What it is known by is hashed with a key of this run, and not kept.

use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, PoisonError};

use super::PolicyError;
use super::place::{self, Place};
use crate::config::Order;
use crate::exchange::{Exchange, SessionId};
use crate::recent::Recent;

/// Sessions that went on under another value, and are still known by the first: so many are remembered.
const MAX_RENAMED: usize = 16_384;

/// Applies `replay.order`.
#[derive(Debug)]
pub struct Sessions {
    order: Known,
    hasher: RandomState,
    renamed: Mutex<Recent<u64, u64>>,
}

/// What sessions are known by.
#[derive(Debug)]
enum Known {
    Nothing,
    Connection,
    Value(Place),
}

impl Sessions {
    /// # Errors
    /// When a field is not a JSON path.
    pub fn new(order: &Order) -> Result<Sessions, PolicyError> {
        let order = match order {
            Order::None => Known::Nothing,
            Order::Connection => Known::Connection,
            Order::Session(place) => Known::Value(Place::new("replay.session", place)?),
        };
        Ok(Sessions { order, hasher: RandomState::new(), renamed: Mutex::new(Recent::new(MAX_RENAMED)) })
    }

    /// The session of an exchange, if it has one. Ask in the order in which exchanges came.
    ///
    /// A value that production issues belongs to the session of the request, if it has one, and begins a session otherwise:
    /// so a log-in is of the same session as what follows it.
    pub fn of(&self, exchange: &Exchange) -> Option<SessionId> {
        let place = match &self.order {
            Known::Nothing => return None,
            Known::Connection => return Some(SessionId(self.hasher.hash_one(exchange.connection))),
            Known::Value(place) => place,
        };
        let (carried, issued) = values(place, exchange);
        let hash = |value: Vec<u8>| self.hasher.hash_one(value);
        let (carried, issued) = (carried.map(hash), issued.map(hash));
        let mut renamed = self.renamed.lock().unwrap_or_else(PoisonError::into_inner);
        let carried = carried.map(|name| renamed.get(&name).copied().unwrap_or(name));
        let session = carried.or_else(|| {
            let name = issued?;
            Some(renamed.get(&name).copied().unwrap_or(name))
        })?;
        if let Some(name) = issued.filter(|name| *name != session) {
            renamed.insert(name, session);
        }
        Some(SessionId(session))
    }
}

/// What the request carries there, and what the response issues.
fn values(place: &Place, exchange: &Exchange) -> (Option<Vec<u8>>, Option<Vec<u8>>) {
    let (request, response) = (&exchange.request, &exchange.response);
    let of_document = |path: &serde_json_path::JsonPath, headers, body| {
        let document = place::document(headers, body)?;
        path.query(&document).first().and_then(place::text).map(String::into_bytes)
    };
    let owned = |value: Option<&[u8]>| value.filter(|value| place::is_usable(value)).map(<[u8]>::to_vec);
    match place {
        Place::Cookie(name) => {
            (owned(place::cookie(&request.headers, name)), owned(place::set_cookie(&response.headers, name)))
        }
        Place::Header(name) => {
            let value = |headers: &crate::exchange::Headers| {
                owned(headers.get(name).map(|value| value.as_ref().trim_ascii()))
            };
            (value(&request.headers), value(&response.headers))
        }
        Place::Field(path) => (
            of_document(path, &request.headers, &request.body),
            of_document(path, &response.headers, &response.body),
        ),
        Place::Query(_) | Place::Path(_) => (None, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::TokenPlace;
    use crate::exchange::ConnectionId;
    use crate::policy::fixture::exchange;

    fn by(place: TokenPlace) -> Sessions {
        Sessions::new(&Order::Session(place)).unwrap()
    }

    #[test]
    fn a_session_is_known_by_a_cookie_a_header_or_a_field() {
        let document =
            |id: &str| format!("POST /\ncontent-type: application/json\n\n{{\"user\":{{\"id\":{id}}}}}");
        let cases = [
            (
                TokenPlace::Cookie("sid".to_owned()),
                ["GET /\ncookie: a=1; sid=1", "GET /b\ncookie: sid=1"],
                "GET /\ncookie: sid=2",
            ),
            (
                TokenPlace::Header("x-user".to_owned()),
                ["GET /\nX-User: me", "GET /b\nx-user: me "],
                "GET /\nx-user: you",
            ),
            (TokenPlace::Field("$.user.id".to_owned()), [&document("7"), &document(" 7")], &document("8")),
        ];
        for (place, [one, same], other) in cases {
            let sessions = by(place);
            let of = |request: &str| sessions.of(&exchange(request, "200"));
            assert!(of(one).is_some() && of(one) == of(same) && of(one) != of(other), "{one}");
            assert_eq!(of("GET /"), None);
        }
    }

    #[test]
    fn a_connection_is_a_session_and_nothing_is_none() {
        let connections = Sessions::new(&Order::Connection).unwrap();
        let on = |connection: u64| {
            let connection = ConnectionId(connection);
            connections.of(&Exchange { connection, ..exchange("GET /", "200") })
        };
        assert!(on(1).is_some() && on(1) == on(1) && on(1) != on(2));
        let none = Sessions::new(&Order::None).unwrap();
        assert_eq!(none.of(&exchange("GET /\ncookie: sid=1", "200")), None);
    }

    #[test]
    fn a_log_in_is_of_the_session_that_it_begins_or_goes_on_with() {
        let sessions = by(TokenPlace::Cookie("sid".to_owned()));
        let of = |request: &str, response: &str| sessions.of(&exchange(request, response));
        let first = of("GET /", "200\nset-cookie: sid=anonymous").unwrap();
        assert_eq!(of("GET /a\ncookie: sid=anonymous", "200"), Some(first));
        assert_eq!(
            of("POST /login\ncookie: sid=anonymous", "200\nset-cookie: sid=user; HttpOnly"),
            Some(first)
        );
        assert_eq!(of("GET /b\ncookie: sid=user", "200"), Some(first));
        assert_eq!(of("GET /c\ncookie: sid=user", "200\nset-cookie: sid=third"), Some(first));
        assert_eq!(of("GET /d\ncookie: sid=third", "200"), Some(first));
        assert_ne!(of("GET /d\ncookie: sid=fourth", "200"), Some(first));
    }

    #[test]
    fn renamed_sessions_are_remembered_up_to_a_bound_and_values_are_not_shown() {
        let sessions = by(TokenPlace::Cookie("sid".to_owned()));
        for number in 0..=MAX_RENAMED {
            let response = format!("200\nset-cookie: sid=s3cret-new-{number}");
            sessions.of(&exchange(&format!("GET /\ncookie: sid=old-{number}"), &response));
        }
        let renamed = sessions.renamed.lock().unwrap().len();
        assert_eq!(renamed, MAX_RENAMED);
        assert!(!format!("{sessions:?}").contains("s3cret"));
    }
}
