//! Finds secrets and personal data in text by their own form, and replaces them by a placeholder that names the rule.
//!
//! It knows no configuration: what is hidden of what it finds, and how, is for its callers to say. It errs on the side of
//! hiding.

use std::borrow::Cow;
use std::sync::LazyLock;

use regex::{Captures, Regex};

use crate::config::Detector;

/// Digits of a payment card number (ISO/IEC 7812-1 allows fewer; nobody issues them).
const CARD_DIGITS: std::ops::RangeInclusive<usize> = 13..=19;

/// Characters of an IBAN without spaces (ISO 13616).
const IBAN_LENGTH: std::ops::RangeInclusive<usize> = 15..=34;

/// Declares a constant pattern; the tests of this module compile each of them.
macro_rules! pattern {
    ($name:ident, $pattern:expr) => {
        static $name: LazyLock<Regex> = LazyLock::new(|| Regex::new($pattern).expect("the pattern is valid"));
    };
}

pattern!(
    PRIVATE_KEY,
    r"(?s)-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----.*?(?:-----END [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----|$)"
);
pattern!(JWT, r"\beyJ[A-Za-z0-9_-]{4,}\.[A-Za-z0-9_-]{2,}(?:\.[A-Za-z0-9_-]*){0,3}");
pattern!(AUTHORIZATION, r"(?i)\b(?P<scheme>bearer|basic)(?:\s|%20|\+)+(?P<token>[A-Za-z0-9._~+/=-]{8,})");
pattern!(
    ISSUED_TOKEN,
    r"\b(?:(?:AKIA|ASIA)[0-9A-Z]{16}\b|gh[opsur]_[A-Za-z0-9]{20,}|xox[abprs]-[A-Za-z0-9-]{10,}|[rs]k_live_[A-Za-z0-9]{10,})"
);
pattern!(
    EMAIL,
    r"(?i)[\p{L}\p{N}!#$'*+^_`~.%-]*[\p{L}\p{N}_+-](?:@|%40|\\u0040)(?:[\p{L}\p{N}](?:[\p{L}\p{N}-]*[\p{L}\p{N}])?\.)+\p{L}{2,}"
);
pattern!(USER_INFO, r#"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*:)?//(?P<user>[^\s/?#"'<>\\]+)@"#);
pattern!(DIGITS, r"[0-9](?:[ -]?[0-9]){12,}");
pattern!(IBAN, r"(?i)\b[A-Z]{2}[0-9]{2}(?: ?[A-Z0-9]){11,40}");

/// The placeholder of a rule.
pub(super) fn placeholder(rule: &str) -> String {
    format!("[masked: {rule}]")
}

/// What stands in the place of what a detector found; `None` leaves it.
pub(super) type With<'a> = &'a dyn Fn(Detector, &str) -> Option<String>;

/// The text with everything that detectors recognise replaced.
pub(super) fn scrub<'t>(text: &'t str, with: With<'_>) -> Cow<'t, str> {
    let mut text = Cow::Borrowed(text);
    replace(&mut text, &PRIVATE_KEY, |found| with(Detector::PrivateKey, found.get(0)?.as_str()));
    replace(&mut text, &JWT, |found| with(Detector::Token, found.get(0)?.as_str()));
    replace(&mut text, &ISSUED_TOKEN, |found| with(Detector::Token, found.get(0)?.as_str()));
    replace(&mut text, &AUTHORIZATION, |found| {
        let scheme = found.name("scheme")?.as_str();
        let token = found.name("token")?.as_str();
        if !is_token(token) {
            return None;
        }
        with(Detector::Token, token).map(|shown| format!("{scheme} {shown}"))
    });
    // What stands before the host of a URL (RFC 3986, section 3.2.1); alone it may be a token.
    replace(&mut text, &USER_INFO, |found| {
        let user = found.name("user")?.as_str();
        let scheme = found.name("scheme").map_or("", |scheme| scheme.as_str());
        if !user.contains(':') && scheme.is_empty() {
            return None;
        }
        with(Detector::User, user).map(|shown| format!("{scheme}//{shown}@"))
    });
    replace(&mut text, &EMAIL, |found| with(Detector::Email, found.get(0)?.as_str()));
    replace(&mut text, &IBAN, |found| hide_iban(found.get(0)?.as_str(), with));
    let before = text.clone();
    replace(&mut text, &DIGITS, |found| {
        let found = found.get(0)?;
        let fraction = before.get(..found.start()).is_some_and(ends_in_decimal_point);
        hide_cards(found.as_str(), fraction, with)
    });
    text
}

/// Whether all of a text is one e-mail address.
pub(super) fn is_email(text: &str) -> bool {
    EMAIL.find(text).is_some_and(|found| found.len() == text.len())
}

/// Replaces each match for which `with` gives something.
fn replace(text: &mut Cow<'_, str>, pattern: &Regex, with: impl Fn(&Captures<'_>) -> Option<String>) {
    let replaced = match pattern.replace_all(text, |found: &Captures<'_>| {
        with(found).unwrap_or_else(|| found.get(0).map(|whole| whole.as_str().to_owned()).unwrap_or_default())
    }) {
        Cow::Borrowed(_) => return,
        // A match that was left alone, as a number that is no card's.
        Cow::Owned(replaced) if replaced == **text => return,
        Cow::Owned(replaced) => replaced,
    };
    *text = Cow::Owned(replaced);
}

/// Tells a token from an English word: it mixes cases, or has digits or symbols.
fn is_token(text: &str) -> bool {
    let upper = text.chars().skip(1).any(|char| char.is_ascii_uppercase());
    let lower = text.chars().any(|char| char.is_ascii_lowercase());
    (upper && lower) || text.chars().any(|char| !char.is_ascii_alphabetic() && char != '.')
}

fn ends_in_decimal_point(text: &str) -> bool {
    let mut back = text.chars().rev();
    back.next() == Some('.') && back.next().is_some_and(|char| char.is_ascii_digit())
}

/// Replaces the longest prefix of `text` that is an IBAN and ends where a word does.
fn hide_iban(text: &str, with: With<'_>) -> Option<String> {
    let ends = text.char_indices().map(|(at, char)| at + char.len_utf8()).rev();
    for end in ends {
        let (candidate, rest) = text.split_at_checked(end)?;
        let bare: String = candidate.chars().filter(|&char| char != ' ').collect();
        let whole = !rest.starts_with(|char: char| char.is_ascii_alphanumeric()) && !candidate.ends_with(' ');
        if whole && IBAN_LENGTH.contains(&bare.len()) && is_iban(&bare) {
            return Some(with(Detector::Iban, candidate)? + &scrub(rest, with));
        }
    }
    None
}

/// The check of ISO 7064, MOD 97-10, with the first four characters moved to the end.
fn is_iban(bare: &str) -> bool {
    let Some((head, tail)) = bare.split_at_checked(4) else { return false };
    let mut remainder = 0;
    for char in tail.chars().chain(head.chars()) {
        let Some(value) = char.to_digit(36) else { return false };
        remainder = if value < 10 { remainder * 10 + value } else { remainder * 100 + value } % 97;
    }
    remainder == 1
}

/// Replaces every card number in a run of digit groups; a number spans whole groups.
///
/// `fraction` says that the run is what follows a decimal point.
fn hide_cards(run: &str, fraction: bool, with: With<'_>) -> Option<String> {
    let mut groups: Vec<(usize, &str)> = Vec::new();
    for group in run.split([' ', '-']) {
        let at = groups.last().map_or(0, |(at, group)| at + group.len() + 1);
        groups.push((at, group));
    }
    let mut hidden = String::new();
    let mut shown_to = 0;
    let mut first = usize::from(fraction);
    while first < groups.len() {
        match card_at(groups.get(first..).unwrap_or_default()) {
            Some(count) => {
                let (start, _) = groups.get(first)?;
                let (last, group) = groups.get(first + count - 1)?;
                let end = last + group.len();
                hidden.push_str(run.get(shown_to..*start)?);
                hidden.push_str(&with(Detector::Card, run.get(*start..end)?)?);
                shown_to = end;
                first += count;
            }
            None => first += 1,
        }
    }
    if shown_to == 0 {
        return None;
    }
    hidden.push_str(run.get(shown_to..)?);
    Some(hidden)
}

/// The number of groups from the first on that make up a card number, the longest one.
fn card_at(groups: &[(usize, &str)]) -> Option<usize> {
    let mut digits: Vec<u32> = Vec::new();
    let mut found = None;
    for (count, (_, group)) in groups.iter().enumerate() {
        if digits.len() + group.len() > *CARD_DIGITS.end() {
            break;
        }
        digits.extend(group.chars().filter_map(|char| char.to_digit(10)));
        if CARD_DIGITS.contains(&digits.len()) && is_card(&digits) {
            found = Some(count + 1);
        }
    }
    found
}

/// An industry that issues payment cards, and the Luhn check (ISO/IEC 7812-1, annex B).
///
/// Leaving out 0, 1 and 9 spares times in milliseconds and nanoseconds.
fn is_card(digits: &[u32]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(place, &digit)| match (place % 2, digit * 2) {
            (0, _) => digit,
            (_, double) if double > 9 => double - 9,
            (_, double) => double,
        })
        .sum();
    matches!(digits.first(), Some(2..=8)) && sum.is_multiple_of(10)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scrub(text: &str) -> Cow<'_, str> {
        super::scrub(text, &|detector, _| Some(placeholder(detector.as_str())))
    }

    #[test]
    fn a_detector_that_is_off_leaves_what_it_would_find() {
        let cases = [
            (Detector::Email, "bob@example.com"),
            (Detector::Card, "4111 1111 1111 1111"),
            (Detector::Iban, "DE89370400440532013000"),
            (Detector::Token, "AKIAIOSFODNN7EXAMPLE"),
            (Detector::PrivateKey, "-----BEGIN PRIVATE KEY-----x-----END PRIVATE KEY-----"),
            (Detector::User, "//bob:x@h"),
        ];
        for (only, _) in cases {
            for (detector, text) in cases {
                let scrubbed = super::scrub(text, &|found, _| (found == only).then(|| "X".to_owned()));
                assert_eq!(scrubbed != text, detector == only, "{only}: {text}");
            }
        }
    }

    #[test]
    fn what_is_recognised_is_replaced() {
        let pem = "-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----";
        let cases = [
            ("nothing here", "nothing here"),
            ("to bob@example.com!", "to [masked: email]!"),
            ("to=bob%40example.co.uk&x", "to=[masked: email]&x"),
            ("<jürgen.o'neill+x@müller.de>", "<[masked: email]>"),
            ("bob@localhost and @type and a@b", "bob@localhost and @type and a@b"),
            ("to http://bob:hunter2@db:5432/x", "to http://[masked: user]@db:5432/x"),
            ("//bob:p@ss:w@db.example.com/x?y", "//[masked: user]@db.example.com/x?y"),
            ("see //a@b and http://h:80/x@y", "see //a@b and http://h:80/x@y"),
            ("clone https://0123abcd@git.example/x", "clone https://[masked: user]@git.example/x"),
            ("4111111111111111", "[masked: card]"),
            ("card 4111 1111 1111 1111, ok", "card [masked: card], ok"),
            ("5500-0000-0000-0004", "[masked: card]"),
            ("on 2024-01-02 4111 1111 1111 1111 12", "on 2024-01-02 [masked: card] 12"),
            ("378282246310005", "[masked: card]"),
            ("4111111111111112", "4111111111111112"),
            ("41111111111111110000000", "41111111111111110000000"),
            ("0.4111111111111111", "0.4111111111111111"),
            ("1700000000000000007", "1700000000000000007"),
            ("DE89370400440532013000", "[masked: iban]"),
            ("iban gb82 west 1234 5698 7654 32 thanks", "iban [masked: iban] thanks"),
            ("DE88370400440532013000", "DE88370400440532013000"),
            ("Authorization: Bearer abcDEF123456", "Authorization: Bearer [masked: token]"),
            ("Basic dXNlcjpwYXNz", "Basic [masked: token]"),
            ("basic understanding, bearer certificates", "basic understanding, bearer certificates"),
            ("x eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln y", "x [masked: token] y"),
            ("AKIAIOSFODNN7EXAMPLE", "[masked: token]"),
            (pem, "[masked: private_key]"),
            ("k: -----BEGIN PRIVATE KEY-----\\nMIIE cut", "k: [masked: private_key]"),
        ];
        for (text, expected) in cases {
            assert_eq!(scrub(text), expected);
        }
    }

    #[test]
    fn a_clean_text_costs_no_copy() {
        for text in ["plain", "/a%20b?t=1700000000000", "basic understanding", "see //a@b"] {
            assert!(matches!(scrub(text), Cow::Borrowed(_)), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_card_number_is_hidden(head in "[2-8][0-9]{11,17}", before in "[a-z ,\"]{0,8}", after in "[a-z ,\"]{0,8}") {
            let digits: Vec<u32> = head.chars().filter_map(|char| char.to_digit(10)).collect();
            let number = (0..10)
                .map(|check| format!("{head}{check}"))
                .find(|number| is_card(&number.chars().filter_map(|char| char.to_digit(10)).collect::<Vec<_>>()))
                .unwrap();
            prop_assert_eq!(number.len(), digits.len() + 1);
            let text = format!("{before}{number}{after}");
            let scrubbed = scrub(&text);
            prop_assert!(!scrubbed.contains(&number), "{}", scrubbed);
        }

        #[test]
        fn any_text_is_taken(text in "\\PC{0,200}") {
            let once = scrub(&text).into_owned();
            prop_assert_eq!(scrub(&once).into_owned(), once);
        }
    }
}
