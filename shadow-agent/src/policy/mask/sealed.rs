//! The compartment in which credentials travel: whoever gets hold of a request can pass it on, and only `replay` can open it.

use std::fmt;

use bytes::Bytes;

use crate::exchange::Headers;
use crate::replay::Key;

/// A value that only `replay` can look at. `Debug` shows nothing of it, and nothing compares or serialises it.
///
/// Its one way out takes a [`Key`]:
///
/// ```compile_fail
/// fn look(sendable: &shadow_agent::policy::mask::Sendable) {
///     sendable.credentials().open();
/// }
/// ```
#[derive(Clone)]
pub struct Sealed<T>(T);

impl<T> Sealed<T> {
    pub(super) fn new(value: T) -> Sealed<T> {
        Sealed(value)
    }

    /// The value, for the self-check of what was put in.
    pub(super) fn peek(&self) -> &T {
        &self.0
    }

    /// The value.
    #[must_use]
    pub fn open(&self, _key: &Key) -> &T {
        &self.0
    }
}

impl<T> fmt::Debug for Sealed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealed")
    }
}

/// What a request carries apart from what others may see of it.
#[derive(Clone)]
pub enum Compartment {
    /// Nothing.
    Nothing,
    /// Production's credentials, which a target is sent as they are.
    Forward(Withheld),
    /// Production's credentials were left behind; a target is sent its own.
    Replace,
}

/// What was taken out of a request.
#[derive(Clone)]
pub struct Withheld {
    /// The whole target, where parameters were taken out of it.
    pub(super) target: Option<Bytes>,
    pub(super) headers: Fields,
    pub(super) trailers: Fields,
}

/// Fields, each with its place among all.
pub(super) type Fields = Vec<(usize, (Bytes, Bytes))>;

impl Withheld {
    pub(super) fn is_empty(&self) -> bool {
        self.target.is_none() && self.headers.is_empty() && self.trailers.is_empty()
    }

    /// The whole target, where parameters were taken out of it.
    #[must_use]
    pub fn target(&self) -> Option<&Bytes> {
        self.target.as_ref()
    }

    /// The header fields that are left, with those taken out in their places again.
    #[must_use]
    pub fn headers(&self, left: &Headers) -> Headers {
        put_back(&self.headers, left)
    }

    /// The trailer fields that are left, with those taken out in their places again.
    #[must_use]
    pub fn trailers(&self, left: &Headers) -> Headers {
        put_back(&self.trailers, left)
    }

    /// The size of everything taken out, in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        let fields = self.headers.iter().chain(&self.trailers);
        let fields: usize = fields.map(|(_, (name, value))| name.len() + value.len()).sum();
        fields + self.target.as_ref().map_or(0, Bytes::len)
    }
}

fn put_back(taken: &Fields, left: &Headers) -> Headers {
    let mut all = left.0.clone();
    for (place, field) in taken {
        all.insert((*place).min(all.len()), field.clone());
    }
    Headers(all)
}
