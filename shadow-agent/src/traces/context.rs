//! Where a request stands in a trace (W3C Trace Context, sections 3.2 and 3.3). Pure, given a seed.

use std::fmt;

use sha2::{Digest, Sha256};

use crate::config::TraceContext;
use crate::exchange::ExchangeId;

/// The `sampled` bit of the trace flags.
const SAMPLED: u8 = 0x01;

/// The part of a trace that a request belongs to: what `traceparent` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context {
    /// The trace; never 0.
    pub trace: u128,
    /// The span that the request is sent by; never 0.
    pub span: u64,
    /// Whether whoever began the trace keeps it.
    pub sampled: bool,
}

impl Context {
    /// Reads the field lines of `traceparent` (section 3.2.2); a missing, repeated or invalid one is no context.
    pub fn read<'a>(mut lines: impl Iterator<Item = &'a [u8]>) -> Option<Context> {
        let line = lines.next()?;
        if lines.next().is_some() {
            return None;
        }
        let mut parts = line.splitn(5, |&byte| byte == b'-');
        let mut part =
            |len: usize| parts.next().filter(|part| part.len() == len && part.iter().all(is_lower_hex));
        let (version, trace, span, flags) = (part(2)?, part(32)?, part(16)?, part(2)?);
        // Only version 00 is known to end here; later ones may go on.
        let ends = parts.next().is_none();
        let context = Context {
            trace: u128::from_str_radix(str::from_utf8(trace).ok()?, 16).ok()?,
            span: u64::from_str_radix(str::from_utf8(span).ok()?, 16).ok()?,
            sampled: u8::from_str_radix(str::from_utf8(flags).ok()?, 16).ok()? & SAMPLED != 0,
        };
        let valid = version != b"ff" && (version != b"00" || ends) && context.trace != 0 && context.span != 0;
        valid.then_some(context)
    }
}

impl fmt::Display for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flags = if self.sampled { SAMPLED } else { 0 };
        write!(f, "00-{:032x}-{:016x}-{flags:02x}", self.trace, self.span)
    }
}

fn is_lower_hex(byte: &u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

/// Gives every side of an exchange its context: the same one whenever it is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Contexts {
    seed: u64,
    mode: TraceContext,
}

impl Contexts {
    /// Of an agent with that seed, which no other agent may have.
    #[must_use]
    pub const fn new(mode: TraceContext, seed: u64) -> Contexts {
        Contexts { seed, mode }
    }

    /// Whether the trace of the original goes on, with everything that belongs to it.
    #[must_use]
    pub fn propagates(&self) -> bool {
        self.mode == TraceContext::Propagate
    }

    /// The context of the request to the target of that name, or of production for no name.
    ///
    /// Each side has a trace of its own, so that spans of a shadow never join production's; whether the original is
    /// sampled is kept. With [`TraceContext::Propagate`] every side goes on in the original's trace, if there is one.
    #[must_use]
    pub fn of(&self, exchange: ExchangeId, target: Option<&str>, original: Option<&Context>) -> Context {
        let mut hash = Sha256::new();
        hash.update(self.seed.to_be_bytes());
        hash.update(exchange.0.to_be_bytes());
        hash.update([u8::from(target.is_some())]);
        hash.update(target.unwrap_or_default());
        let hash: [u8; 32] = hash.finalize().into();
        let [trace, span, _] = [0, 16, 24].map(|at| {
            let bytes = hash.iter().skip(at).take(if at == 0 { 16 } else { 8 });
            bytes.fold(0_u128, |number, byte| number << 8 | u128::from(*byte))
        });
        let sampled = original.is_some_and(|original| original.sampled);
        // Zero is no id (section 3.2.2.3); a hash of zeros is not to be expected.
        let trace = match original {
            Some(original) if self.propagates() => original.trace,
            _ => trace.max(1),
        };
        Context { trace, span: u64::try_from(span).unwrap_or(u64::MAX).max(1), sampled }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    const SPAN: &str = "b7ad6b7169203331";

    fn read(lines: &[&str]) -> Option<Context> {
        Context::read(lines.iter().map(|line| line.as_bytes()))
    }

    #[test]
    fn valid_contexts_are_read_and_nothing_else() {
        let sampled = format!("00-{TRACE}-{SPAN}-01");
        let cases = [
            (vec![sampled.clone()], Some(true)),
            (vec![format!("00-{TRACE}-{SPAN}-00")], Some(false)),
            (vec![format!("cc-{TRACE}-{SPAN}-03-later")], Some(true)),
            (vec![format!("00-{TRACE}-{SPAN}-01-later")], None),
            (vec![format!("ff-{TRACE}-{SPAN}-01")], None),
            (vec![format!("00-{}-{SPAN}-01", "0".repeat(32))], None),
            (vec![format!("00-{TRACE}-{}-01", "0".repeat(16))], None),
            (vec![format!("00-{}-{SPAN}-01", TRACE.to_uppercase())], None),
            (vec![format!("00-{TRACE}-{SPAN}")], None),
            (vec!["garbage".to_owned()], None),
            (vec![sampled.clone(), sampled.clone()], None),
            (vec![], None),
        ];
        for (lines, expected) in cases {
            let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
            assert_eq!(read(&lines).map(|context| context.sampled), expected, "{lines:?}");
        }
        assert_eq!(read(&[&sampled]).unwrap().to_string(), sampled);
    }

    #[test]
    fn each_side_of_each_exchange_has_a_trace_of_its_own_and_the_same_one_again() {
        let contexts = Contexts::new(TraceContext::Mint, 7);
        let original = read(&[&format!("00-{TRACE}-{SPAN}-01")]).unwrap();
        let of = |exchange, target| contexts.of(ExchangeId(exchange), target, Some(&original));
        let sides = [of(1, None), of(1, Some("")), of(1, Some("a")), of(1, Some("b")), of(2, Some("a"))];
        for (index, side) in sides.iter().enumerate() {
            assert!(side.sampled && side.trace != original.trace);
            assert!(
                sides
                    .iter()
                    .skip(index + 1)
                    .all(|other| other.trace != side.trace && other.span != side.span)
            );
        }
        assert_eq!(of(1, Some("a")), of(1, Some("a")));
        let elsewhere = Contexts::new(TraceContext::Mint, 8);
        assert_ne!(elsewhere.of(ExchangeId(1), Some("a"), None).trace, of(1, Some("a")).trace);
        assert!(!contexts.of(ExchangeId(1), Some("a"), None).sampled);
    }

    #[test]
    fn a_trace_that_is_propagated_goes_on_by_another_span() {
        let contexts = Contexts::new(TraceContext::Propagate, 7);
        let original = read(&[&format!("00-{TRACE}-{SPAN}-01")]).unwrap();
        let context = contexts.of(ExchangeId(1), Some("a"), Some(&original));
        assert_eq!((context.trace, context.sampled), (original.trace, true));
        assert_ne!(context.span, original.span);
        assert_ne!(contexts.of(ExchangeId(1), Some("a"), None).trace, original.trace);
    }
}
