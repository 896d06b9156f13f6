//! `replay.order`, `replay.session` and `replay.tokens` as the rest of the agent uses them.

/// Which requests go one after the other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// None wait for others.
    #[default]
    None,
    /// Those of one of production's connections.
    Connection,
    /// Those that have the same value in this place.
    Session(Place),
}

/// A place in a message that holds a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A cookie of that name: in `Cookie`, or as set by `Set-Cookie`.
    Cookie(String),
    /// A header field of that name, lower case.
    Header(String),
    /// A parameter of that name in the query.
    Query(String),
    /// A JSON path (RFC 9535) into the body.
    Field(String),
    /// The segments `{token}` of a pattern over the path; `*` is any segment, `**` at its end any number of them.
    Path(String),
}

/// A value that production issues, and that a shadow issues anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRule {
    /// Its name.
    pub name: String,
    /// Where responses issue it: cookies, headers, fields.
    pub issued: Vec<Place>,
    /// Where requests carry it.
    pub carried: Vec<Place>,
    /// What happens to a request that carries one of which the target has none of its own.
    pub missing: Missing,
}

/// What happens to a request that carries a token of production's of which the target has none of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Missing {
    /// It is not sent to that target.
    #[default]
    Drop,
    /// It is sent as it is.
    Send,
}
