//! The notation of numbers with a unit: durations, sizes, rates, shares, ports. Pure.
//!
//! Every unit is parsed and written here, so that what `config show` prints is what a file may say.

use std::time::Duration;

use super::{Problem, Share};

/// The longest duration that can be written, in seconds.
const MAX_SECONDS: f64 = 366.0 * 86_400.0;

/// The largest size that can be written, in bytes.
const MAX_SIZE: f64 = (1u64 << 50) as f64;

/// Splits `250ms` into its number and its unit. Signs, exponents and names of numbers are no numbers here.
fn split(text: &str) -> Option<(f64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(end)?;
    if !number.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    Some((number.parse().ok()?, unit.trim_start()))
}

/// A boolean: `true` or `false`.
///
/// # Errors
/// When it is neither.
pub fn boolean(text: &str) -> Result<bool, Problem> {
    match text {
        "true" => Ok(true),
        "false" => Ok(false),
        other => Err(Problem::Boolean(other.to_owned())),
    }
}

/// A whole number, decimal or hexadecimal (`0x5AD0`).
///
/// # Errors
/// When it is none.
pub fn number(text: &str) -> Result<u64, Problem> {
    let parsed = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) if digits.starts_with(|c: char| c.is_ascii_hexdigit()) => {
            u64::from_str_radix(digits, 16).ok()
        }
        Some(_) => None,
        None if text.starts_with('+') => None,
        None => text.parse().ok(),
    };
    parsed.ok_or_else(|| Problem::Number(text.to_owned()))
}

/// A decimal number, not negative.
///
/// # Errors
/// When it is none.
pub fn decimal(text: &str) -> Result<f64, Problem> {
    match split(text) {
        Some((number, "")) => Ok(number),
        _ => Err(Problem::Decimal(text.to_owned())),
    }
}

/// A duration: `250ms`, `30s`, `10m`, `1h`, `7d`.
///
/// # Errors
/// When it is none, or is longer than a year.
pub fn duration(text: &str) -> Result<Duration, Problem> {
    let seconds = match split(text) {
        Some((number, "us")) => number / 1e6,
        Some((number, "ms")) => number / 1e3,
        Some((number, "s")) => number,
        Some((number, "m")) => number * 60.0,
        Some((number, "h")) => number * 3_600.0,
        Some((number, "d")) => number * 86_400.0,
        _ => return Err(Problem::Duration(text.to_owned())),
    };
    if seconds > MAX_SECONDS {
        return Err(Problem::Duration(text.to_owned()));
    }
    // In whole microseconds: 0.1 s is not a binary fraction.
    Ok(Duration::from_micros((seconds * 1e6).round() as u64))
}

/// A size in bytes: `512B`, `64KiB`, `16MiB`, `1GiB`.
///
/// # Errors
/// When it is none, or is larger than 1 PiB. Decimal units (`KB`) are refused, because half the world reads them as
/// binary ones.
pub fn size(text: &str) -> Result<u64, Problem> {
    let bytes = match split(text) {
        Some((number, "B")) => number,
        Some((number, "KiB")) => number * f64::from(1u32 << 10),
        Some((number, "MiB")) => number * f64::from(1u32 << 20),
        Some((number, "GiB")) => number * f64::from(1u32 << 30),
        _ => return Err(Problem::Size(text.to_owned())),
    };
    if bytes > MAX_SIZE || bytes.fract() != 0.0 {
        return Err(Problem::Size(text.to_owned()));
    }
    Ok(bytes as u64)
}

/// Bytes per second: a size and `/s` (`100MiB/s`), or `unlimited`.
///
/// # Errors
/// When it is none.
pub fn byte_rate(text: &str) -> Result<Option<u64>, Problem> {
    if text == "unlimited" {
        return Ok(None);
    }
    let refused = || Problem::ByteRate(text.to_owned());
    text.strip_suffix("/s").and_then(|bytes| size(bytes.trim_end()).ok()).map(Some).ok_or_else(refused)
}

/// A share of one core, which may be more than all of it: `50%`, `200%`.
///
/// # Errors
/// When it is none.
pub fn cores(text: &str) -> Result<Share, Problem> {
    match split(text) {
        Some((percent, "%")) => Ok(Share(percent / 100.0)),
        _ => Err(Problem::Cores(text.to_owned())),
    }
}

/// A rate in requests per second: `500/s`, `0.5/s`, or `unlimited`.
///
/// # Errors
/// When it is none, or is 0: a target that gets nothing is a target to leave out.
pub fn rate(text: &str) -> Result<Option<f64>, Problem> {
    if text == "unlimited" {
        return Ok(None);
    }
    match split(text) {
        Some((number, "/s")) if number > 0.0 => Ok(Some(number)),
        _ => Err(Problem::Rate(text.to_owned())),
    }
}

/// A share: `25%`, `0.1%`.
///
/// # Errors
/// When it is none, or is more than the whole.
pub fn share(text: &str) -> Result<Share, Problem> {
    match split(text) {
        Some((number, "%")) if number <= 100.0 => Ok(Share(number / 100.0)),
        _ => Err(Problem::Share(text.to_owned())),
    }
}

/// A port or an inclusive range of ports: `8080`, `9000-9010`.
///
/// # Errors
/// When it is none, contains port 0, or runs backwards.
pub fn ports(text: &str) -> Result<(u16, u16), Problem> {
    let port = |text: &str| match text.bytes().all(|b| b.is_ascii_digit()) {
        true => text.parse::<u16>().ok().filter(|&port| port > 0),
        false => None,
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (port(first), port(last)) {
        (Some(first), Some(last)) if first <= last => Ok((first, last)),
        _ => Err(Problem::Ports(text.to_owned())),
    }
}

/// Writes a duration so that [`duration`] reads it back, to the microsecond.
#[must_use]
pub fn write_duration(duration: Duration) -> String {
    let micros = duration.as_micros();
    match micros {
        _ if micros.is_multiple_of(1_000_000) => format!("{}s", micros / 1_000_000),
        _ if micros.is_multiple_of(1_000) => format!("{}ms", micros / 1_000),
        _ => format!("{micros}us"),
    }
}

/// Writes a size so that [`size`] reads it back.
#[must_use]
pub fn write_size(bytes: u64) -> String {
    [("GiB", 30), ("MiB", 20), ("KiB", 10)]
        .into_iter()
        .find(|(_, shift)| bytes > 0 && bytes.is_multiple_of(1 << shift))
        .map_or_else(|| format!("{bytes}B"), |(unit, shift)| format!("{}{unit}", bytes >> shift))
}

/// Writes a rate so that [`rate`] reads it back.
#[must_use]
pub fn write_rate(rate: Option<f64>) -> String {
    rate.map_or_else(|| "unlimited".to_owned(), |rate| format!("{rate}/s"))
}

/// Writes a number of bytes per second so that [`byte_rate`] reads it back.
#[must_use]
pub fn write_byte_rate(rate: Option<u64>) -> String {
    rate.map_or_else(|| "unlimited".to_owned(), |bytes| format!("{}/s", write_size(bytes)))
}

/// Writes a share in per cent, to a millionth of a per cent.
#[must_use]
pub fn write_share(share: Share) -> String {
    let percent = (share.0 * 1e8).round() / 1e6;
    format!("{percent}%")
}

/// Writes a range of ports so that [`ports`] reads it back.
#[must_use]
pub fn write_ports((first, last): (u16, u16)) -> String {
    if first == last { first.to_string() } else { format!("{first}-{last}") }
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use proptest::prelude::*;

    use super::*;

    fn check<T: PartialEq + Debug>(parse: fn(&str) -> Result<T, Problem>, good: &[(&str, T)], bad: &[&str]) {
        for (text, value) in good {
            assert_eq!(parse(text).as_ref(), Ok(value), "{text}");
        }
        for text in bad {
            assert!(parse(text).is_err(), "{text} was read as {:?}", parse(text));
        }
    }

    #[test]
    fn booleans_and_numbers() {
        check(boolean, &[("true", true), ("false", false)], &["yes", "1", "True", ""]);
        check(
            number,
            &[("0", 0), ("23248", 23248), ("0x5AD0", 0x5AD0), ("18446744073709551615", u64::MAX)],
            &["", "-1", "+1", "0x", "0x+1", "1.5", "18446744073709551616", "1 000"],
        );
        check(
            decimal,
            &[("1.2", 1.2), ("2", 2.0), ("0", 0.0)],
            &["", "-1", "NaN", "inf", "1e3", ".5", "1.2.3"],
        );
    }

    #[test]
    fn durations() {
        let good = [
            ("250ms", Duration::from_millis(250)),
            ("0.1s", Duration::from_millis(100)),
            ("30s", Duration::from_secs(30)),
            ("1.5m", Duration::from_secs(90)),
            ("2h", Duration::from_secs(7200)),
            ("366d", Duration::from_secs(366 * 86_400)),
            ("0s", Duration::ZERO),
        ];
        check(duration, &good, &["", "5", "-5s", "5 sec", "s", "367d", "infs", "1e9s", "5S"]);
    }

    #[test]
    fn sizes() {
        let good =
            [("0B", 0), ("64KiB", 65_536), ("1.5MiB", 3 << 19), ("1GiB", 1 << 30), ("1048576GiB", 1 << 50)];
        check(size, &good, &["", "64", "64KB", "64K", "0.3B", "-1KiB", "1048577GiB", "MiB"]);
    }

    #[test]
    fn rates_and_shares() {
        let good = [("500/s", Some(500.0)), ("0.5/s", Some(0.5)), ("unlimited", None)];
        check(rate, &good, &["", "0/s", "500", "500/m", "-5/s", "none"]);
        let good = [("25%", Share(0.25)), ("0%", Share(0.0)), ("100%", Share(1.0)), ("0.1%", Share(0.001))];
        check(share, &good, &["", "0.25", "100.1%", "-1%", "%", "NaN%", "25"]);
    }

    #[test]
    fn a_share_becomes_the_matching_part_of_all_hashes() {
        for (share, expected) in [
            (0.0, 0),
            (-1.0, 0),
            (f64::NAN, 0),
            (0.25, 0x3FFF_FFFF),
            (0.999_999_999_999, u32::MAX - 1),
            (1.0, u32::MAX),
            (7.0, u32::MAX),
        ] {
            assert_eq!(Share(share).threshold(), expected, "{share}");
        }
    }

    #[test]
    fn port_ranges() {
        let good =
            [("1", (1, 1)), ("8080", (8080, 8080)), ("9000-9010", (9000, 9010)), ("65535", (65535, 65535))];
        check(ports, &good, &["", "0", "65536", "0-10", "9010-9000", "1-2-3", "-1", "80x", "+80", "80-"]);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(micros in 0u64..86_400_000_000, bytes in 0u64..1 << 40, ppm in 0u32..=1_000_000) {
            let time = Duration::from_micros(micros);
            prop_assert_eq!(duration(&write_duration(time)), Ok(time));
            prop_assert_eq!(size(&write_size(bytes)), Ok(bytes));
            prop_assert_eq!(byte_rate(&write_byte_rate(Some(bytes))), Ok(Some(bytes)));
            let part = Share(f64::from(ppm) / 1e6);
            let read = share(&write_share(part)).unwrap();
            prop_assert!((read.0 - part.0).abs() < 1e-12);
        }

        #[test]
        fn nothing_panics(text in "\\PC{0,12}") {
            let _ = (duration(&text), size(&text), byte_rate(&text), cores(&text), rate(&text), share(&text), ports(&text), number(&text), decimal(&text));
        }
    }
}
