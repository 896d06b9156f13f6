//! Knows what a credential looks like in a request: header fields, query parameters, path parameters.
//!
//! It finds and removes them; whether they may be used is decided in `select` and `mask`.

use std::collections::HashSet;
use std::sync::LazyLock;

use bytes::Bytes;

use super::target::{parameter_name, parameters};
use crate::exchange::{Headers, Request};

/// Header fields that authenticate the sender, lower case.
const HEADERS: &[&str] = &[
    "api-key",
    "apikey",
    "authorization",
    "cf-access-jwt-assertion",
    "cookie",
    "cookie2",
    "ocp-apim-subscription-key",
    "private-token",
    "proxy-authorization",
    "ssl-client-cert",
    "x-access-token",
    "x-amz-security-token",
    "x-amzn-oidc-accesstoken",
    "x-amzn-oidc-data",
    "x-api-key",
    "x-api-token",
    "x-apikey",
    "x-auth-key",
    "x-auth-token",
    "x-authorization",
    "x-client-cert",
    "x-forwarded-access-token",
    "x-forwarded-client-cert",
    "x-functions-key",
    "x-gitlab-token",
    "x-goog-api-key",
    "x-goog-iap-jwt-assertion",
    "x-id-token",
    "x-session-id",
    "x-session-token",
    "x-ssl-client-cert",
    "x-vault-token",
];

/// Query and path parameters that authenticate the sender, lower case.
const PARAMETERS: &[&str] = &[
    "access_token",
    "accesstoken",
    "api-key",
    "api_key",
    "apikey",
    "auth_token",
    "authtoken",
    "client_secret",
    "id_token",
    "jsessionid",
    "jwt",
    "passwd",
    "password",
    "phpsessid",
    "refresh_token",
    "session_id",
    "sessionid",
    "sig",
    "signature",
    "subscription-key",
    "token",
    "x-amz-credential",
    "x-amz-security-token",
    "x-amz-signature",
    "x-goog-credential",
    "x-goog-signature",
];

/// Members of documents that hold secrets, besides what the other lists name; lower case, without `-` and `_`.
const MEMBERS: &[&str] = &[
    "accesskey",
    "authtoken",
    "bearertoken",
    "clientsecret",
    "csrftoken",
    "passphrase",
    "passwordconfirm",
    "passwordconfirmation",
    "passwordhash",
    "privatekey",
    "pwd",
    "secret",
    "secretaccesskey",
    "secretkey",
    "sessiontoken",
    "setcookie",
    "sharedsecret",
    "xsrftoken",
];

/// What the last words of such members are, whatever stands before them: `new_password`, `appSecret`.
const ENDINGS: &[&str] =
    &["accesstoken", "apikey", "passphrase", "passwd", "password", "privatekey", "refreshtoken", "secret"];

/// Whether a header field of that name carries credentials, whatever its case.
#[must_use]
pub fn is_header(name: &[u8]) -> bool {
    HEADERS.iter().any(|known| name.eq_ignore_ascii_case(known.as_bytes()))
}

/// Whether a query or path parameter of that decoded name carries credentials, whatever its case, or wherever its name
/// leads: `user[token]`.
#[must_use]
pub fn is_parameter(name: &str) -> bool {
    steps(name).any(|step| PARAMETERS.iter().any(|known| step.eq_ignore_ascii_case(known)))
}

/// The names in one that leads into an object: `user[password]`, `user.password`, `password[]`.
pub(super) fn steps(name: &str) -> impl DoubleEndedIterator<Item = &str> {
    name.split(['[', ']', '.']).filter(|step| !step.is_empty())
}

/// Whether a member of a document of that name holds credentials, however its words are joined: `access_token`,
/// `accessToken`, `Access-Token`, `auth.accessToken`.
#[must_use]
pub fn is_member(name: &str) -> bool {
    static KNOWN: LazyLock<HashSet<String>> = LazyLock::new(|| {
        let all = HEADERS.iter().chain(PARAMETERS).chain(MEMBERS);
        all.map(|name| joined(name)).collect()
    });
    steps(name).map(joined).any(|step| KNOWN.contains(&step) || ENDINGS.iter().any(|end| step.ends_with(end)))
}

/// The words of a name in lower case without what joins them.
fn joined(name: &str) -> String {
    name.chars().filter(|char| !matches!(char, '-' | '_')).map(|char| char.to_ascii_lowercase()).collect()
}

/// Whether a request carries credentials that are known as such.
#[must_use]
pub fn carried(request: &Request) -> bool {
    let fields = request.headers.iter().chain(request.trailers.iter());
    fields.map(|(name, _)| name).any(|name| is_header(name))
        || request.query().is_some_and(|query| parameters(query).any(|(name, _)| is_parameter(&name)))
        || path_parameters(request.path()).any(|parameter| is_parameter(&parameter_name(parameter)))
}

/// Takes out every field that carries credentials, or has one of these names as well; each with the place it had.
pub(super) fn take_headers(headers: &mut Headers, also: &[String]) -> Vec<(usize, (Bytes, Bytes))> {
    let carries = |name: &[u8]| {
        is_header(name) || also.iter().any(|listed| name.eq_ignore_ascii_case(listed.as_bytes()))
    };
    let mut taken = Vec::new();
    if headers.iter().any(|(name, _)| carries(name)) {
        let mut place = 0;
        headers.0.retain(|field| {
            let carries = carries(&field.0);
            if carries {
                taken.push((place, field.clone()));
            }
            place += 1;
            !carries
        });
    }
    taken
}

/// The target without parameters that carry credentials, or have one of these names as well; `None` when there are none.
pub(super) fn strip_target(target: &[u8], also: &[String]) -> Option<Bytes> {
    let carries =
        |name: &str| is_parameter(name) || also.iter().any(|listed| name.eq_ignore_ascii_case(listed));
    let mut parts = target.splitn(2, |&byte| byte == b'?');
    let path = parts.next().unwrap_or_default();
    let query = parts.next();
    let mut stripped = Vec::with_capacity(target.len());
    for (index, segment) in path.split(|&byte| byte == b'/').enumerate() {
        if index > 0 {
            stripped.push(b'/');
        }
        for (index, part) in segment.split(|&byte| byte == b';').enumerate() {
            if index == 0 {
                stripped.extend_from_slice(part);
            } else if !carries(&parameter_name(part)) {
                stripped.push(b';');
                stripped.extend_from_slice(part);
            }
        }
    }
    if let Some(query) = query {
        let kept: Vec<&[u8]> =
            parameters(query).filter(|(name, _)| !carries(name)).map(|(_, whole)| whole).collect();
        if !kept.is_empty() {
            stripped.push(b'?');
            stripped.extend_from_slice(&kept.join(&b'&'));
        }
    }
    if stripped == target { None } else { Some(stripped.into()) }
}

/// The parameters of path segments: `;jsessionid=1` (RFC 3986, section 3.3).
fn path_parameters(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|&byte| byte == b'/').flat_map(|segment| segment.split(|&byte| byte == b';').skip(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_lower_case_and_sorted() {
        for list in [HEADERS, PARAMETERS, MEMBERS, ENDINGS] {
            assert!(list.is_sorted());
            assert!(list.iter().all(|name| *name == name.to_ascii_lowercase()));
        }
    }

    #[test]
    fn members_are_known_however_their_words_are_joined() {
        for name in ["password", "accessToken", "ACCESS_TOKEN", "access-token", "Authorization", "csrf_token"]
        {
            assert!(is_member(name), "{name}");
        }
        for name in ["user[password]", "user.password", "password[]", "new_password", "password-confirmation"]
        {
            assert!(is_member(name), "{name}");
        }
        for name in ["tokens", "next_page", "", "[]", "description", "key", "passwords_changed"] {
            assert!(!is_member(name), "{name}");
        }
    }

    #[test]
    fn a_stripped_target_keeps_everything_else() {
        let cases: [(&str, Option<&str>); 10] = [
            ("/a?x=1", None),
            ("/a", None),
            ("/a?", None),
            ("/a?token=1", Some("/a")),
            ("/a?x=1&Access_Token=2&y=3", Some("/a?x=1&y=3")),
            ("/a?%74oken=2&y", Some("/a?y")),
            ("/a?user%5Btoken%5D=2&user[name]=3", Some("/a?user[name]=3")),
            ("/a;jsessionid=1/b;v=2?x", Some("/a/b;v=2?x")),
            ("/a;v=1;JSESSIONID=2", Some("/a;v=1")),
            ("/token/password", None),
        ];
        for (target, expected) in cases {
            assert_eq!(
                strip_target(target.as_bytes(), &[]).as_deref(),
                expected.map(str::as_bytes),
                "{target}"
            );
        }
    }
}
