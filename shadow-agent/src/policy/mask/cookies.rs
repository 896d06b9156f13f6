//! Masks cookies by name in `Cookie` and `Set-Cookie` (RFC 6265); whatever else the line says stays as it is.

/// Which of the two fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A list of cookies.
    Cookie,
    /// One cookie, and its attributes.
    SetCookie,
}

/// The kind of a field, by its name.
pub(super) fn kind(name: &[u8]) -> Option<Kind> {
    match name {
        name if name.eq_ignore_ascii_case(b"cookie") => Some(Kind::Cookie),
        name if name.eq_ignore_ascii_case(b"set-cookie") => Some(Kind::SetCookie),
        _ => None,
    }
}

/// The line with those values replaced that `cover`, given name and value, has something for; `None` when it has nothing.
pub(super) fn masked(kind: Kind, line: &str, cover: &dyn Fn(&str, &str) -> Option<String>) -> Option<String> {
    let mut shown = String::with_capacity(line.len());
    let mut changed = false;
    let mut rest = line;
    loop {
        let (piece, end) = piece(rest);
        // Some servers take a comma for a semicolon; then the value with the comma in it is more than one cookie.
        let name = piece.split_once('=').map(|(name, value)| (name.trim(), value));
        let covered = name.and_then(|(name, value)| {
            let inner = value.split(',').skip(1).filter_map(|part| Some(part.split_once('=')?.0.trim()));
            let value = value.trim().trim_matches('"');
            std::iter::once(name).chain(inner).find_map(|name| cover(name, value))
        });
        match (covered, piece.split_once('=')) {
            (Some(covered), Some((name, value))) if covered != value => {
                shown.push_str(name);
                shown.push('=');
                shown.push_str(&covered);
                changed = true;
            }
            _ => shown.push_str(piece),
        }
        rest = rest.get(end..).unwrap_or_default();
        if rest.is_empty() || kind == Kind::SetCookie {
            break;
        }
        shown.push(';');
        rest = rest.get(1..).unwrap_or_default();
    }
    shown.push_str(rest);
    changed.then_some(shown)
}

/// The piece before the next semicolon, and where it ends. A value in quotes goes to the closing one, whatever is in it.
fn piece(text: &str) -> (&str, usize) {
    let first = text.find(';').unwrap_or(text.len());
    let opens = text.get(..first).and_then(|piece| piece.split_once('=')).is_some_and(|(_, value)| {
        let value = value.trim_start();
        value.starts_with('"') && !value.get(1..).unwrap_or_default().contains('"')
    });
    let end = match opens {
        false => first,
        true => match text.get(first..).and_then(|behind| behind.find('"')) {
            None => text.len(),
            Some(quote) => {
                let behind = first + quote;
                text.get(behind..).and_then(|rest| rest.find(';')).map_or(text.len(), |at| behind + at)
            }
        },
    };
    (text.get(..end).unwrap_or_default(), end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(kind: Kind, cases: &[(&str, Option<&str>)]) {
        let cover = |name: &str, value: &str| (name == "sid").then(|| format!("<{value}>"));
        for (line, expected) in cases {
            assert_eq!(masked(kind, line, &cover).as_deref(), *expected, "{line}");
        }
    }

    #[test]
    fn a_cookie_that_is_named_is_masked_and_the_others_stay() {
        check(
            Kind::Cookie,
            &[
                ("a=1; sid=2; b=3", Some("a=1; sid=<2>; b=3")),
                ("sid=2", Some("sid=<2>")),
                ("a=1;sid = 2;b", Some("a=1;sid =<2>;b")),
                ("a=1; sid=", Some("a=1; sid=<>")),
                ("sid=\"x;y\"; b=3", Some("sid=<x;y>; b=3")),
                ("sid=\"x;y", Some("sid=<x;y>")),
                ("a=1, sid=2; b=3", Some("a=<1, sid=2>; b=3")),
                ("sid=1; sid=2", Some("sid=<1>; sid=<2>")),
                ("a=sid; xsid=1; sid", None),
                ("", None),
                (";;", None),
            ],
        );
    }

    #[test]
    fn of_a_cookie_that_is_set_the_attributes_stay() {
        check(
            Kind::SetCookie,
            &[
                ("sid=2; Path=/; HttpOnly", Some("sid=<2>; Path=/; HttpOnly")),
                ("a=1; sid=2", None),
                ("sid=x", Some("sid=<x>")),
            ],
        );
        assert_eq!((kind(b"COOKIE"), kind(b"Set-Cookie")), (Some(Kind::Cookie), Some(Kind::SetCookie)));
        assert_eq!(kind(b"cookie2"), None);
    }
}
