//! Figures as people read them, and text that came from the network made safe for a terminal.

use std::fmt::Write;
use std::time::Duration;

/// `12,345`.
pub(crate) fn thousands(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A share as a percentage of about two significant digits: `0.012 %`, `3.1 %`, `100 %`.
pub(crate) fn percent(share: f64) -> String {
    let value = share * 100.0;
    let size = value.abs();
    if size < 1e-4 {
        return if size == 0.0 { "0 %".to_owned() } else { "<0.0001 %".to_owned() };
    }
    // Whole percentages from 10 on, one digit behind the first significant one below that.
    let places = if size >= 99.95 || (size >= 10.0 && value.fract() == 0.0) {
        0
    } else {
        (1.0 - size.log10().floor()).clamp(1.0, 6.0) as usize
    };
    let text = format!("{value:.places$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text} %")
}

/// A duration with three significant digits: `870 µs`, `1.24 ms`, `12.3 s`.
pub(crate) fn duration(duration: Duration) -> String {
    let micros = duration.as_secs_f64() * 1e6;
    let (value, unit) = if micros < 1e3 {
        (micros, "µs")
    } else if micros < 1e6 {
        (micros / 1e3, "ms")
    } else {
        (micros / 1e6, "s")
    };
    let places = if value >= 100.0 || unit == "µs" {
        0
    } else if value >= 10.0 {
        1
    } else {
        2
    };
    format!("{value:.places$} {unit}")
}

/// Text from the network with everything escaped that a terminal could act on, cut to `width` characters.
pub(crate) fn printable(text: &str, width: usize) -> String {
    let mut clean = String::new();
    let mut left = width;
    for character in text.chars() {
        let mut piece = String::new();
        if acts_on_terminals(character) {
            let _ = write!(piece, "{}", character.escape_unicode());
        } else {
            piece.push(character);
        }
        let length = piece.chars().count();
        if length > left || (left == length && clean.chars().count() + length < text.chars().count()) {
            clean.push('…');
            break;
        }
        left -= length;
        clean.push_str(&piece);
    }
    clean
}

/// Control characters, and the format characters that reorder or hide text.
fn acts_on_terminals(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures() {
        for (value, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(thousands(value), text);
        }
        let shares = [
            (0.0, "0 %"),
            (0.001, "0.1 %"),
            (0.01, "1 %"),
            (0.0123, "1.2 %"),
            (0.000_12, "0.012 %"),
            (0.5, "50 %"),
            (0.123_4, "12.3 %"),
            (1.0, "100 %"),
            (-0.02, "-2 %"),
            (1e-9, "<0.0001 %"),
        ];
        for (share, text) in shares {
            assert_eq!(percent(share), text);
        }
        for (micros, text) in [(7, "7 µs"), (1_240, "1.24 ms"), (45_600, "45.6 ms"), (12_300_000, "12.3 s")]
        {
            assert_eq!(duration(Duration::from_micros(micros)), text);
        }
    }

    #[test]
    fn nothing_that_acts_on_a_terminal_gets_through() {
        let cases = [
            ("plain /a?x=1", 40, "plain /a?x=1"),
            ("a\u{1b}[2Jb", 40, "a\\u{1b}[2Jb"),
            ("line\nline", 40, "line\\u{a}line"),
            ("\u{202e}gpj", 40, "\\u{202e}gpj"),
            ("exactly", 7, "exactly"),
            ("one more", 7, "one mo…"),
        ];
        for (text, width, expected) in cases {
            assert_eq!(printable(text, width), expected, "{text:?}");
        }
    }
}
