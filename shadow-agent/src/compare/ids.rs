//! Recognises names that are somebody's or something's id, and not part of the shape of paths and documents.

/// Longer names are taken for data, in bytes.
pub(super) const MAX_NAME: usize = 64;

/// Whether a name is an id: a number, a date, a UUID, a hash, a token, an address, or simply too long.
///
/// Words with a few digits (`v2`, `oauth2`, `sha256`, `report2024`) are not.
pub(super) fn is_id(name: &str) -> bool {
    if name.is_empty() {
        return false;
    }
    name.len() > MAX_NAME
        || name.contains('@')
        || is_numeric(name)
        || is_uuid(name)
        || is_token(name)
        || name.split(['-', '_', '.', ':', '~']).any(is_id_part)
}

/// Digits, with whatever punctuation dates, times, coordinates and amounts have.
fn is_numeric(name: &str) -> bool {
    let mut digits = 0;
    let numeric = name.bytes().all(|byte| {
        digits += usize::from(byte.is_ascii_digit());
        byte.is_ascii_digit() || b"-+.,:_TZ".contains(&byte)
    });
    numeric && digits > 0 && !name.starts_with(['T', 'Z', '.'])
}

fn is_uuid(name: &str) -> bool {
    let lengths = [8, 4, 4, 4, 12];
    let mut parts = name.trim_start_matches("urn:uuid:").split('-');
    lengths.iter().all(|&length| parts.next().is_some_and(|part| part.len() == length && is_hex(part)))
        && parts.next().is_none()
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// ULID, KSUID, nanoid, base64url and the like: 16 characters or more that mix what words do not mix.
fn is_token(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_=+".contains(&byte);
    let has = |class: fn(&u8) -> bool| name.as_bytes().iter().any(class);
    name.len() >= 16
        && name.bytes().all(allowed)
        && has(u8::is_ascii_digit)
        && has(u8::is_ascii_uppercase)
        && (has(u8::is_ascii_lowercase) || !name.contains(['-', '_']))
}

/// One word of a longer name: a hash, a long number, or letters and digits in turn.
fn is_id_part(part: &str) -> bool {
    let digits = part.bytes().filter(u8::is_ascii_digit).count();
    let hash = part.len() >= 8 && is_hex(part) && (digits > 0 || part.len() >= 16);
    let turns = part
        .as_bytes()
        .windows(2)
        .filter(|pair| matches!(pair, [one, other] if one.is_ascii_digit() != other.is_ascii_digit()))
        .count();
    hash || digits >= 5 || (part.len() >= 8 && turns >= 2 && digits >= 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_told_from_names() {
        let ids = [
            "7",
            "1234567890",
            "-5",
            "2024-01-02",
            "2024-01-02T03:04:05Z",
            "52.5,13.4",
            "1.2.3",
            "123e4567-e89b-12d3-a456-426614174000",
            "3f2a9c1b",
            "d41d8cd98f00b204e9800998ecf8427e",
            "01ARZ3NDEKTSV4RRFFQ69G5FAV",
            "0ujtsYcgvSTl8PAuAdqWYSMnLOv",
            "V1StGXR8_Z5jdHi6B-myT",
            "bob@example.com",
            "@alice",
            "cus_9s6XKzkNRiz8i3",
            "ORD12345",
            "iphone-pro-998877",
            "main.3f2a9c1b.js",
            &"x".repeat(MAX_NAME + 1),
        ];
        let names = [
            "",
            "users",
            "v1",
            "v2.1",
            "oauth2",
            "sha256",
            "address1",
            "report2024",
            "deadbeef",
            "facade",
            "my-blog-post",
            "createdAt",
            "HTTP_STATUS_CODE",
            "internationalization",
            "x-forwarded-for",
            "T",
            "index.html",
            &"x".repeat(MAX_NAME),
        ];
        for id in ids {
            assert!(is_id(id), "{id} is an id");
        }
        for name in names {
            assert!(!is_id(name), "{name} is a name");
        }
    }
}
