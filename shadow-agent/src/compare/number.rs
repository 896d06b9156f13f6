//! Compares JSON numbers by value, exactly: 1 equals 1.0 and 10e-1, and no digit is lost however long a number is.

use serde_json::Number;

/// Whether two numbers have the same value.
pub(super) fn same(one: &Number, other: &Number) -> bool {
    let (one, other) = (one.as_str(), other.as_str());
    one == other || canonical(one).is_some_and(|value| canonical(other) == Some(value))
}

/// A decimal number as its sign, its significant digits, and the power of ten of the last of them.
///
/// `None` when the exponent does not fit; such numbers are equal only when they are written alike.
fn canonical(text: &str) -> Option<(bool, String, i64)> {
    let (negative, text) = match text.strip_prefix('-') {
        Some(text) => (true, text),
        None => (false, text),
    };
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i64>().ok()?),
        None => (text, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let digits = digits.trim_start_matches('0');
    let significant = digits.trim_end_matches('0');
    if significant.is_empty() {
        return Some((false, String::new(), 0));
    }
    let fraction = i64::try_from(fraction.len()).ok()?;
    let zeros = i64::try_from(digits.len() - significant.len()).ok()?;
    Some((negative, significant.to_owned(), exponent.checked_sub(fraction)?.checked_add(zeros)?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_are_compared_by_value() {
        let cases = [
            ("1", "1.0", true),
            ("10e-1", "1", true),
            ("1E2", "100.00", true),
            ("0.50", "5e-1", true),
            ("-0", "0.0", true),
            ("0e5", "0", true),
            ("1", "-1", false),
            ("0.1", "0.10000000000000001", false),
            ("18446744073709551616", "18446744073709551617", false),
            ("123456789012345678901234567890", "123456789012345678901234567890.0", true),
            ("1e99999999999999999999", "1e99999999999999999999", true),
            ("1e99999999999999999999", "1e99999999999999999998", false),
        ];
        for (one, other, expected) in cases {
            let (one, other): (Number, Number) = (one.parse().unwrap(), other.parse().unwrap());
            assert_eq!(same(&one, &other), expected, "{one} and {other}");
            assert_eq!(same(&other, &one), expected, "{other} and {one}");
        }
    }

    proptest! {
        #[test]
        fn integers_are_the_same_when_they_are_equal(one: i64, other: i64) {
            let as_float: Number = format!("{one}.000").parse().unwrap();
            prop_assert!(same(&one.into(), &as_float));
            prop_assert_eq!(same(&one.into(), &other.into()), one == other);
        }
    }
}
