//! Keyed hashes that take the place of values: equal values stay equal, different ones different, and nobody without the
//! key can tell which is which. The key is never shown, and goes with the process.
//!
//! A hash is written in letters only, so that it never looks like a number of a card or an account.

use std::fmt;
use std::sync::LazyLock;

use hmac::{Hmac, KeyInit, Mac};
use regex::Regex;
use serde_json::{Value, json};
use sha2::Sha256;

use super::detect;

/// Bytes of a hash that are shown: 128 bits, of which two agree by chance once in 2^64 values.
const BYTES: usize = 16;

/// The least number that stands for a number. All have 19 digits with a 1 first: they fit 64 bits with a sign, and no card
/// has such a number. A reader that knows floating-point numbers only still tells 2^52 of them apart.
const LEAST_NUMBER: u64 = 1_000_000_000_000_000_000;

/// The domain of hashed e-mail addresses; it never exists (RFC 6761, section 6.4).
const DOMAIN: &str = "masked.invalid";

/// What the shadow gets in the place of a text.
#[expect(clippy::expect_used, reason = "a constant pattern; tests of this module compile it")]
pub(super) static HASHED: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"masked-[a-p]{32}|[a-p]{32}(?:@|%40)masked\.invalid").expect("the pattern is valid")
});

/// The key of one run.
pub(super) struct Key([u8; 32]);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key")
    }
}

impl Key {
    /// A new key.
    ///
    /// # Errors
    /// When the system has no random bytes.
    pub(super) fn random() -> Result<Key, getrandom::Error> {
        let mut key = [0; 32];
        getrandom::fill(&mut key)?;
        Ok(Key(key))
    }

    /// HMAC with SHA-256 (RFC 2104). `kind` keeps texts, numbers and structures apart.
    fn digest(&self, kind: u8, bytes: &[u8]) -> [u8; 32] {
        // A key of any length is taken, so the other branch is never taken; zeros would still say nothing.
        let Ok(mut hash) = <Hmac<Sha256> as KeyInit>::new_from_slice(&self.0) else { return [0; 32] };
        hash.update(&[kind]);
        hash.update(bytes);
        hash.finalize().into_bytes().into()
    }

    fn written(&self, kind: u8, bytes: &[u8]) -> String {
        let digest = self.digest(kind, bytes);
        let halves = digest.iter().take(BYTES).flat_map(|byte| [byte >> 4, byte & 15]);
        halves.map(|half| char::from(b'a' + half)).collect()
    }

    /// The hash of a text, two letters for each byte.
    pub(super) fn letters(&self, text: &str) -> String {
        self.written(b's', text.as_bytes())
    }

    /// A text in the place of a text: an e-mail address for one, valid wherever a token is.
    pub(super) fn text(&self, text: &str) -> String {
        let letters = self.letters(text);
        match detect::is_email(text) {
            true => format!("{letters}@{DOMAIN}"),
            false => format!("masked-{letters}"),
        }
    }

    /// A value of the same type. Of a list or an object only the hash of all of it is left, in a list or an object.
    pub(super) fn value(&self, value: &Value) -> Value {
        let whole = || format!("masked-{}", self.written(b'v', value.to_string().as_bytes()));
        match value {
            Value::Null => Value::Null,
            Value::Bool(value) => {
                Value::Bool(*value ^ (self.digest(b'b', b"").first().unwrap_or(&0) & 1 == 1))
            }
            Value::Number(number) => {
                let digest = self.digest(b'n', canonical(number).as_bytes());
                let first = digest.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte));
                json!(LEAST_NUMBER + first % LEAST_NUMBER)
            }
            Value::String(text) => Value::String(self.text(text)),
            Value::Array(_) => json!([whole()]),
            Value::Object(_) => json!({ "masked": whole() }),
        }
    }
}

/// The same text for the same number: 1 and 1.0 are one.
fn canonical(number: &serde_json::Number) -> String {
    match (number.as_i64(), number.as_u64(), number.as_f64()) {
        (Some(whole), ..) => whole.to_string(),
        (_, Some(whole), _) => whole.to_string(),
        // Rust writes a float without fraction like a whole number.
        (.., Some(float)) => float.to_string(),
        _ => number.to_string(),
    }
}

/// Whether all of a text is a hash that the shadow may see.
pub(super) fn is_hashed(text: &str) -> bool {
    HASHED.find(text).is_some_and(|found| found.len() == text.len())
}

/// Whether a value may be a hashed one, by its type and form.
pub(super) fn is_hashed_value(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(_) => true,
        Value::Number(number) => {
            number.as_u64().is_some_and(|number| (LEAST_NUMBER..2 * LEAST_NUMBER).contains(&number))
        }
        Value::String(text) => is_hashed(text),
        Value::Array(items) => matches!(&items[..], [Value::String(text)] if is_hashed(text)),
        Value::Object(members) => {
            members.len() == 1 && members.get("masked").and_then(Value::as_str).is_some_and(is_hashed)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_hash_has_the_type_of_its_value_and_says_nothing_of_it() {
        let key = Key::random().unwrap();
        for value in [json!("b0b"), json!("b0b@example.com"), json!(7), json!(-1.5), json!(null), json!(true)]
            .into_iter()
            .chain([json!([1, "b0b"]), json!({"b0b": [1]}), json!([]), json!({})])
        {
            let hashed = key.value(&value);
            assert_eq!(std::mem::discriminant(&hashed), std::mem::discriminant(&value), "{hashed}");
            assert!(is_hashed_value(&hashed) && !hashed.to_string().contains("b0b"), "{hashed}");
        }
        assert!(key.text("b0b@example.com").ends_with("@masked.invalid"));
        assert!(key.text("mail b0b@example.com").starts_with("masked-"));
        for value in [json!("x"), json!(7), json!([1]), json!({"a": 1}), json!({"masked": "b0b"})] {
            assert!(!is_hashed_value(&value), "{value}");
        }
    }

    #[test]
    fn equal_stays_equal_and_different_stays_different_within_a_run() {
        let (one, other) = (Key::random().unwrap(), Key::random().unwrap());
        let values: Vec<Value> =
            (0..500).flat_map(|n| [json!(n), json!(n.to_string()), json!([n]), json!({ "n": n })]).collect();
        let hashed: HashSet<String> = values.iter().map(|value| one.value(value).to_string()).collect();
        assert_eq!(hashed.len(), values.len());
        assert_ne!(one.value(&json!(true)), one.value(&json!(false)));
        assert_eq!(one.value(&json!(1)), one.value(&serde_json::from_str("1.0").unwrap()));
        assert_eq!(one.text("bob"), one.text("bob"));
        assert_ne!(one.text("bob"), other.text("bob"));
        assert_eq!(format!("{one:?}"), "Key");
    }

    proptest! {
        #[test]
        fn no_detector_takes_a_hash_for_something_to_hide(text in "\\PC{0,40}", number in any::<f64>()) {
            let key = Key::random().unwrap();
            let mask = |_, _: &str| Some("found".to_owned());
            for shown in [key.letters(&text), format!("masked-{}", key.letters(&text)), key.value(&json!(number)).to_string()] {
                prop_assert_eq!(&*detect::scrub(&shown, &mask), &*shown);
            }
        }
    }
}
