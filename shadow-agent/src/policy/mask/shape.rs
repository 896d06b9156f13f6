//! Takes what patterns match out of what endpoints and places of differences are named after: paths, and names of members.
//! What is an id by its own form is recognised where they are named.

use std::borrow::Cow;

use super::send::plain;
use super::{Masker, Step};

/// What stands for a segment of a path: an id, whatever it was.
const ID: &[u8] = b"0";

impl Masker {
    /// A path without the segments in which a pattern for people finds something, each of them an id instead. Without
    /// patterns it costs nothing.
    #[must_use]
    pub fn path_to_name<'a>(&self, path: &'a [u8]) -> Cow<'a, [u8]> {
        let found = |segment: &[u8]| self.keep.matches(&plain(segment));
        if !self.keep.has_patterns() || !path.split(|&byte| byte == b'/').any(found) {
            return Cow::Borrowed(path);
        }
        let segments =
            path.split(|&byte| byte == b'/').map(|segment| if found(segment) { ID } else { segment });
        Cow::Owned(segments.collect::<Vec<_>>().join(&b'/'))
    }

    /// A location without the names in which a pattern for people finds something; they are empty instead, which is no
    /// name of anything.
    #[must_use]
    pub fn steps_to_name<'a>(&self, steps: &[Step<'a>]) -> Vec<Step<'a>> {
        let shown = |step: &Step<'a>| match step {
            Step::Key(key) if self.keep.matches(key) => Step::Key(""),
            step => *step,
        };
        steps.iter().map(shown).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Credentials, Mask, MaskAction, MaskPattern, MaskRules};

    #[test]
    fn endpoints_and_places_are_not_named_after_what_patterns_match() {
        let pattern =
            MaskPattern { name: "staff".into(), regex: "smith|b b".into(), action: MaskAction::Redact };
        let keep = MaskRules { patterns: vec![pattern], ..Mask::default().keep };
        let masker = Masker::new(&Mask { keep, ..Mask::default() }, Credentials::Skip).unwrap();
        for (path, expected) in [
            ("/users/smith/x", "/users/0/x"),
            ("/users/%73mith;v=1", "/users/0"),
            ("/b+b/b%20b/b", "/0/0/b"),
            ("/users/ann", "/users/ann"),
        ] {
            assert_eq!(masker.path_to_name(path.as_bytes()), expected.as_bytes(), "{path}");
            assert_eq!(Masker::default().path_to_name(path.as_bytes()), path.as_bytes());
        }
        use Step::{Index, Key};
        let steps = masker.steps_to_name(&[Key("users"), Index(1), Key("dr smith")]);
        assert_eq!(steps, [Key("users"), Index(1), Key("")]);
    }
}
