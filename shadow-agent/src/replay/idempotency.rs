//! The key by which a service knows an unsafe request that it has had before. Pure.
//!
//! The agent sends an unsafe request once. Its target may yet get it twice: a proxy before it repeats it, or a file is
//! replayed again. With the key, the second one does nothing (draft-ietf-httpapi-idempotency-key-header, section 2).

use http::HeaderValue;
use http::header::InvalidHeaderValue;
use sha2::{Digest, Sha256};

use crate::exchange::{ExchangeId, Timestamp};

/// The key of an exchange for one target: the same whenever it is asked for, and another one for every other exchange
/// and target. It is a string of structured fields (RFC 9651, section 3.3.3), as the draft wants it.
///
/// Exchanges are numbered from a random start, and from a fixed one within some files, so the time is part of it.
pub(super) fn key(id: ExchangeId, seen: Timestamp, target: &str) -> Result<HeaderValue, InvalidHeaderValue> {
    let mut hash = Sha256::new();
    hash.update(b"shadow-agent idempotency key\0");
    hash.update(id.0.to_be_bytes());
    hash.update(seen.0.to_be_bytes());
    hash.update(target.as_bytes());
    let half: String = hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    HeaderValue::try_from(format!("\"{half}\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_stable_and_belongs_to_one_exchange_at_one_target() {
        let of = |id, seen, target| key(ExchangeId(id), Timestamp(seen), target).unwrap();
        let one = of(1, 2, "candidate");
        assert_eq!(one, of(1, 2, "candidate"));
        assert_eq!(one.len(), 34);
        for other in [of(2, 2, "candidate"), of(1, 3, "candidate"), of(1, 2, "baseline")] {
            assert_ne!(one, other);
        }
    }
}
