//! Names the place of a difference in a document, so that it is the same from exchange to exchange and holds no data.

use super::ids::is_id;
use crate::policy::mask::Step;

/// The longest place, in bytes; a longer one is cut and marked by an ellipsis.
pub(super) const MAX_PLACE: usize = 256;

/// The longest name of a member that is taken for part of the document's shape, in bytes.
const MAX_KEY: usize = 48;

/// The place of a location: `body:$.items[*].price`. Names that look like ids or personal data are `*`.
pub(super) fn of_json(path: &[Step<'_>]) -> String {
    of("body:$".to_owned(), path)
}

/// The place of a location in the messages of a gRPC body: `body:$[0].items[*].price`. The first message is named,
/// because most calls have no other.
pub(super) fn of_message(path: &[Step<'_>]) -> String {
    match path {
        [Step::Index(0), rest @ ..] => of("body:$[0]".to_owned(), rest),
        path => of_json(path),
    }
}

fn of(mut place: String, path: &[Step<'_>]) -> String {
    for step in path {
        match step {
            Step::Index(_) => place.push_str("[*]"),
            Step::Key(key) if !is_name(key) => place.push_str(".*"),
            Step::Key(key) if is_shorthand(key) => {
                place.push('.');
                place.push_str(key);
            }
            Step::Key(key) => {
                place.push_str("['");
                place.push_str(key);
                place.push_str("']");
            }
        }
    }
    if place.len() > MAX_PLACE {
        place.truncate(place.floor_char_boundary(MAX_PLACE - '…'.len_utf8()));
        place.push('…');
    }
    place
}

/// Whether the name of a member belongs to the shape of documents: `price`, `@type`, `$ref`, `content-type`.
fn is_name(key: &str) -> bool {
    let bare = key.strip_prefix(['@', '$']).unwrap_or(key);
    !bare.is_empty()
        && key.len() <= MAX_KEY
        && bare.chars().all(|char| char.is_alphanumeric() || "_-.:/".contains(char))
        && !is_id(bare)
}

/// Whether a name may follow a dot (RFC 9535, section 2.5.1).
fn is_shorthand(key: &str) -> bool {
    !key.starts_with(|char: char| char.is_ascii_digit())
        && key.chars().all(|char| char.is_alphanumeric() || char == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_have_a_stable_shape() {
        use Step::{Index, Key};
        let long = "k".repeat(MAX_KEY + 1);
        let cases: [(&[Step<'_>], &str); 11] = [
            (&[], "body:$"),
            (&[Key("items"), Index(3), Key("price")], "body:$.items[*].price"),
            (&[Key("users"), Key("42")], "body:$.users.*"),
            (&[Key("bob@example.com"), Key("x")], "body:$.*.x"),
            (&[Key("123e4567-e89b-12d3-a456-426614174000")], "body:$.*"),
            (&[Key("content-type")], "body:$['content-type']"),
            (&[Key("@type"), Key("$ref")], "body:$['@type']['$ref']"),
            (&[Key("Bob Smith")], "body:$.*"),
            (&[Key("it's")], "body:$.*"),
            (&[Key(""), Key(&long)], "body:$.*.*"),
            (&[Key("größe"), Key("address1")], "body:$.größe.address1"),
        ];
        for (path, expected) in cases {
            assert_eq!(of_json(path), expected);
        }
    }

    #[test]
    fn the_first_message_of_a_call_is_named() {
        use Step::{Index, Key};
        let cases: [(&[Step<'_>], &str); 4] = [
            (&[], "body:$"),
            (&[Index(0)], "body:$[0]"),
            (&[Index(0), Key("items"), Index(0), Key("42")], "body:$[0].items[*].*"),
            (&[Index(1), Key("price")], "body:$[*].price"),
        ];
        for (path, expected) in cases {
            assert_eq!(of_message(path), expected);
        }
    }

    #[test]
    fn places_are_bounded() {
        let fits = vec![Step::Key("a"); (MAX_PLACE - 6) / 2];
        assert_eq!(of_json(&fits).len(), MAX_PLACE);
        let longer = vec![Step::Key("a"); (MAX_PLACE - 6) / 2 + 1];
        let place = of_json(&longer);
        assert!(place.len() <= MAX_PLACE && place.ends_with('…'));
    }
}
