//! Takes request targets apart: percent-decoding, normalised paths, query parameters. It decides nothing.

use std::borrow::Cow;

/// Undoes percent-encoding (RFC 3986, section 2.1); what is not a valid triplet stays as it is.
pub(crate) fn percent_decode(encoded: &[u8]) -> Cow<'_, [u8]> {
    if !encoded.contains(&b'%') {
        return Cow::Borrowed(encoded);
    }
    let mut decoded = Vec::with_capacity(encoded.len());
    let mut rest = encoded;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        let triplet = match (byte, tail) {
            (b'%', [high, low, ..]) => hex(*high).zip(hex(*low)),
            _ => None,
        };
        match triplet {
            Some((high, low)) => {
                decoded.push(high << 4 | low);
                rest = tail.get(2..).unwrap_or_default();
            }
            None => decoded.push(byte),
        }
    }
    Cow::Owned(decoded)
}

/// Percent-encoding is undone so many times: a target in a target in a target.
pub(crate) const MAX_DECODINGS: usize = 3;

/// A text after percent-encoding was undone once, twice, and so on, while that changes it.
pub(crate) fn decodings(encoded: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let once = |encoded: &[u8]| match percent_decode(encoded) {
        Cow::Owned(decoded) if decoded != encoded => Some(decoded),
        _ => None,
    };
    std::iter::successors(once(encoded), move |decoded| once(decoded)).take(MAX_DECODINGS)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

/// The path that a server acts on, whatever way it is spelt: percent-encoding undone within segments, dot segments
/// and empty segments removed (RFC 3986, section 6.2.2), parameters after `;` dropped, invalid UTF-8 replaced.
pub(crate) fn normalised(path: &[u8]) -> String {
    let mut segments: Vec<Cow<'_, [u8]>> = Vec::new();
    let mut directory = false;
    for segment in path.split(|&byte| byte == b'/') {
        let segment = segment.split(|&byte| byte == b';').next().unwrap_or_default();
        let decoded = percent_decode(segment);
        directory = matches!(decoded.as_ref(), b"" | b"." | b"..");
        match decoded.as_ref() {
            b"" | b"." => {}
            b".." => {
                segments.pop();
            }
            _ => segments.push(decoded),
        }
    }
    let mut normalised = String::with_capacity(path.len() + 1);
    for segment in &segments {
        normalised.push('/');
        normalised.push_str(&String::from_utf8_lossy(segment));
    }
    if directory || segments.is_empty() {
        normalised.push('/');
    }
    normalised
}

/// The parameters of a query: each with its decoded name, and whole as received.
pub(crate) fn parameters(query: &[u8]) -> impl Iterator<Item = (String, &[u8])> {
    query.split(|&byte| byte == b'&').map(|parameter| (parameter_name(parameter), parameter))
}

/// The decoded name of one parameter.
pub(crate) fn parameter_name(parameter: &[u8]) -> String {
    let name = parameter.split(|&byte| byte == b'=').next().unwrap_or_default();
    let name: Vec<u8> = name.iter().map(|&byte| if byte == b'+' { b' ' } else { byte }).collect();
    String::from_utf8_lossy(&percent_decode(&name)).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_one_spelling() {
        let cases: [(&[u8], &str); 12] = [
            (b"/a/b", "/a/b"),
            (b"/a/b/", "/a/b/"),
            (b"/%61dmin//x", "/admin/x"),
            (b"/a/./b/../c", "/a/c"),
            (b"/a/%2e%2e/c", "/c"),
            (b"/../..", "/"),
            (b"/a%2Fb", "/a/b"),
            (b"/a;jsessionid=1/b;x", "/a/b"),
            (b"/%zz%4", "/%zz%4"),
            (b"/%ff", "/\u{fffd}"),
            (b"", "/"),
            (b"*", "/*"),
        ];
        for (path, expected) in cases {
            assert_eq!(normalised(path), expected, "{}", path.escape_ascii());
        }
    }

    #[test]
    fn parameter_names_are_decoded() {
        let names: Vec<_> = parameters(b"a=1&%74oken=2&&x+y&b=c=d").map(|(name, _)| name).collect();
        assert_eq!(names, ["a", "token", "", "x y", "b"]);
    }
}
