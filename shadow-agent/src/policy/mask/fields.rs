//! Masks the fields of JSON documents that JSON paths (RFC 9535) name, those of documents inside strings as well.
//!
//! It works on parsed values, and says which strings it could not look into; what that means is decided by its callers.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use serde_json::{Map, Value};
use serde_json_path::JsonPath;

use super::rules::Hit;
use crate::policy::{PolicyError, credentials};

/// JSON inside strings inside JSON is followed so many levels deep.
pub(super) const MAX_NESTING: usize = 8;

/// One step of a location in a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step<'a> {
    /// A member of an object.
    Key(&'a str),
    /// An element of an array.
    Index(usize),
}

/// The JSON pointer of a location (RFC 6901).
pub(super) fn pointer(path: &[Step<'_>]) -> String {
    let mut pointer = String::new();
    for step in path {
        push_step(&mut pointer, *step);
    }
    pointer
}

/// Appends one step to a JSON pointer.
pub(super) fn push_step(pointer: &mut String, step: Step<'_>) {
    pointer.push('/');
    match step {
        Step::Key(key) => pointer.push_str(&key.replace('~', "~0").replace('/', "~1")),
        Step::Index(index) => pointer.push_str(&index.to_string()),
    }
}

/// The fields of one section of the configuration.
#[derive(Debug, Default)]
pub(super) struct Fields(Vec<(JsonPath, Hit)>);

/// What became of a document.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Masked {
    /// JSON pointers of the nodes that were replaced, those inside strings included.
    pub replaced: BTreeSet<String>,
    /// JSON pointers of strings that hold something like JSON that cannot be looked into.
    pub opaque: BTreeSet<String>,
}

impl Masked {
    /// Whether a location is in a replaced node.
    pub(super) fn covers(&self, pointer: &str) -> bool {
        let ends = pointer.match_indices('/').map(|(at, _)| at).chain([pointer.len()]);
        ends.filter_map(|end| pointer.get(..end)).any(|ancestor| self.replaced.contains(ancestor))
    }
}

impl Fields {
    /// # Errors
    /// When one of them is not a JSON path.
    pub(super) fn new<'a>(
        section: &'static str,
        paths: impl Iterator<Item = (&'a str, Hit)>,
    ) -> Result<Fields, PolicyError> {
        let parse = |(path, hit): (&str, Hit)| match JsonPath::parse(path) {
            Ok(parsed) => Ok((parsed, hit)),
            Err(source) => Err(PolicyError::JsonPath { section, path: path.to_owned(), source }),
        };
        Ok(Fields(paths.map(parse).collect::<Result<_, _>>()?))
    }

    /// Whether there is no rule, so that nothing has to be parsed.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The rule that names a parameter of a form as a member of an object: `email`, and `user[email]` or `user.email` as a
    /// member of a member, too.
    pub(super) fn names(&self, name: &str) -> Option<Hit> {
        if self.is_empty() {
            return None;
        }
        let named = |steps: &mut dyn Iterator<Item = &str>| {
            let within = |inner: Value, step: &str| Value::Object(Map::from_iter([(step.to_owned(), inner)]));
            let document = steps.fold(Value::String(String::new()), within);
            self.0.iter().find(|(path, _)| !path.query(&document).is_empty()).map(|(_, hit)| *hit)
        };
        named(&mut std::iter::once(name)).or_else(|| named(&mut credentials::steps(name).rev()))
    }

    /// The first rule by which there is a value in a document that is not as `is_masked` wants it.
    pub(super) fn find_unmasked(&self, document: &Value, is_masked: fn(&Value) -> bool) -> Option<Hit> {
        let shown = |path: &JsonPath| path.query(document).iter().any(|value| !is_masked(value));
        self.0.iter().find(|(path, _)| shown(path)).map(|(_, hit)| *hit)
    }

    /// Replaces every field by what `with` makes of it, and every opaque string by what `opaque` makes of it.
    ///
    /// A string that holds a JSON document is looked into: a field is found there whether its path goes through the
    /// string or starts inside it.
    pub(super) fn mask(
        &self,
        document: &mut Value,
        with: &dyn Fn(&Value, Hit) -> Value,
        opaque: &dyn Fn(&str) -> String,
    ) -> Masked {
        let mut masked = Masked::default();
        let mut nested = Vec::new();
        unfold(document, &mut String::new(), 0, &mut nested, &mut masked.opaque);
        let roots = std::iter::once(String::new()).chain(nested.iter().cloned());
        for root in roots.collect::<BTreeSet<_>>() {
            let Some(node) = document.pointer(&root) else { continue };
            let mut found: BTreeMap<String, Hit> = BTreeMap::new();
            for (path, hit) in &self.0 {
                for place in path.query_located(node) {
                    let pointer = format!("{root}{}", place.location().to_json_pointer());
                    found.entry(pointer).or_insert(*hit);
                }
            }
            for (pointer, hit) in found {
                if !masked.covers(&pointer)
                    && let Some(node) = document.pointer_mut(&pointer)
                {
                    *node = with(node, hit);
                    masked.replaced.insert(pointer);
                }
            }
        }
        for pointer in &masked.opaque {
            if let Some(Value::String(text)) = document.pointer_mut(pointer) {
                *text = opaque(text);
            }
        }
        for pointer in nested.iter().rev() {
            if masked.covers(pointer) {
                continue;
            }
            if let Some(node) = document.pointer_mut(pointer) {
                *node = Value::String(node.to_string());
            }
        }
        masked
    }
}

/// Replaces strings that hold documents by these, outer before inner, and notes where.
fn unfold(
    value: &mut Value,
    at: &mut String,
    depth: usize,
    nested: &mut Vec<String>,
    opaque: &mut BTreeSet<String>,
) {
    let length = at.len();
    match value {
        Value::Array(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                push_step(at, Step::Index(index));
                unfold(item, at, depth, nested, opaque);
                at.truncate(length);
            }
        }
        Value::Object(members) => {
            for (key, member) in members {
                push_step(at, Step::Key(key));
                unfold(member, at, depth, nested, opaque);
                at.truncate(length);
            }
        }
        Value::String(text) => match document_in(text) {
            Some(document) if depth < MAX_NESTING => {
                *value = document;
                nested.push(at.clone());
                unfold(value, at, depth + 1, nested, opaque);
            }
            Some(_) => {
                opaque.insert(at.clone());
            }
            None if resembles_json(text) => {
                opaque.insert(at.clone());
            }
            None => {}
        },
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// The document that a string holds, when it is an object, an array, or again a string.
pub(super) fn document_in(text: &str) -> Option<Value> {
    if !text.trim_start().starts_with(['{', '[', '"']) || repeats_a_key(text.as_bytes()) {
        return None;
    }
    serde_json::from_str(text).ok()
}

/// Whether the start of a JSON object or of an array of strings is anywhere in a text, escaped or not.
pub(super) fn resembles_json(text: &str) -> bool {
    text.match_indices(['{', '[']).any(|(at, _)| {
        let rest = text.get(at + 1..).unwrap_or_default();
        rest.trim_start_matches(|char: char| char.is_whitespace() || matches!(char, '\\' | '{' | '['))
            .starts_with('"')
    })
}

/// Whether an object of a valid JSON text has two members of one name. A parser keeps one of them; which one the
/// receiver keeps is anyone's guess (RFC 8259, section 4), so nobody can say what is in the other.
pub(super) fn repeats_a_key(text: &[u8]) -> bool {
    let mut open: Vec<Option<HashSet<String>>> = Vec::new();
    let mut key_next = false;
    let mut rest = text;
    while let Some((&byte, tail)) = rest.split_first() {
        let mut after = tail;
        match byte {
            b'{' => open.push(Some(HashSet::new())),
            b'[' => open.push(None),
            b'}' | b']' => {
                open.pop();
            }
            b'"' => {
                let end = string_end(tail);
                after = tail.get(end..).unwrap_or_default();
                if let (true, Some(Some(keys))) = (key_next, open.last_mut()) {
                    let literal = rest.get(..=end).unwrap_or_default();
                    let key = serde_json::from_slice(literal).unwrap_or_default();
                    if !keys.insert(key) {
                        return true;
                    }
                }
            }
            _ => {}
        }
        if !byte.is_ascii_whitespace() {
            key_next = matches!(byte, b'{' | b',');
        }
        rest = after;
    }
    false
}

/// The position behind the quote that ends a string literal, its opening quote already passed.
fn string_end(text: &[u8]) -> usize {
    let mut escaped = false;
    for (at, &byte) in text.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::MaskAction;

    fn fields(paths: &[&str]) -> Fields {
        let hit = Hit { action: MaskAction::Redact, rule: 0 };
        Fields::new("mask.keep", paths.iter().map(|path| (*path, hit))).unwrap()
    }

    #[track_caller]
    fn check(paths: &[&str], document: Value, expected: Value) {
        let mut masked = document.clone();
        let result = fields(paths).mask(&mut masked, &|_, _| json!("X"), &str::to_owned);
        assert_eq!(masked, expected, "{document} with {paths:?}");
        assert_eq!(result.replaced.is_empty(), masked == document);
    }

    #[test]
    fn fields_are_masked_wherever_they_are() {
        check(&["$.a"], json!({"a": {"b": [1]}, "c": 2}), json!({"a": "X", "c": 2}));
        check(&["$..e"], json!({"e": 1, "l": [{"e": {"e": 2}}]}), json!({"e": "X", "l": [{"e": "X"}]}));
        check(&["$"], json!([1]), json!("X"));
        check(&["$['a/b']['c~d']"], json!({"a/b": {"c~d": 1}}), json!({"a/b": {"c~d": "X"}}));
        check(
            &["$.l[?@.s == true].v"],
            json!({"l": [{"s": true, "v": 1}, {"v": 2}]}),
            json!({"l": [{"s": true, "v": "X"}, {"v": 2}]}),
        );
        check(&["$.nope"], json!({"a": 1}), json!({"a": 1}));
        check(&["$..e", "$.p"], json!({"p": {"e": 1}}), json!({"p": "X"}));
    }

    #[test]
    fn documents_in_strings_are_looked_into() {
        check(&["$..e"], json!({"p": r#"{"e": "bob"}"#}), json!({"p": r#"{"e":"X"}"#}));
        check(&["$.p.e"], json!({"p": r#"{"e":"bob","f":1}"#}), json!({"p": r#"{"e":"X","f":1}"#}));
        check(&["$.e"], json!({"p": r#"{"e":"bob"}"#}), json!({"p": r#"{"e":"X"}"#}));
        check(&["$..e"], json!(r#""{\"e\":\"bob\"}""#), json!(r#""{\"e\":\"X\"}""#));
        check(&["$.p"], json!({"p": r#"{"e":"bob"}"#}), json!({"p": "X"}));
        check(&["$..e"], json!({"p": r#"[{"q": "{\"e\":1}"}]"#}), json!({"p": r#"[{"q":"{\"e\":\"X\"}"}]"#}));
    }

    #[test]
    fn strings_that_cannot_be_looked_into_are_named() {
        let deepest =
            |levels: usize| (0..levels).fold(json!({"e": 1}), |inner, _| json!({ "p": inner.to_string() }));
        let fields = fields(&["$..e"]);
        let cases = [
            (json!({"a": "see {\"e\":\"bob\"}"}), 1),
            (json!({"a": "{\"e\":\"bob"}), 1),
            (json!({"a": "{\"e\":1,\"e\":2}"}), 1),
            (json!({"a": "[draft] {name} \"x\""}), 0),
            (deepest(MAX_NESTING), 0),
            (deepest(MAX_NESTING + 1), 1),
        ];
        for (mut document, opaque) in cases {
            let masked = fields.mask(&mut document, &|_, _| Value::Null, &str::to_owned);
            assert_eq!(masked.opaque.len(), opaque, "{document}");
        }
    }

    #[test]
    fn repeated_keys_are_seen() {
        let cases = [
            (r#"{"a":1,"b":1}"#, false),
            (r#"{"a":1, "a":1}"#, true),
            (r#"{"a":{"a":1},"b":[{"a":1},{"a":1}]}"#, false),
            (r#"{"a":1,"\u0061":1}"#, true),
            (r#"{"x":"a","y":"a","a":["a","a"]}"#, false),
            (r#"[{"k":"}\"{", "k":1}]"#, true),
            ("{\"a\":[1,2] ,\n \"a\" :1}", true),
            (r#""a"#, false),
        ];
        for (text, expected) in cases {
            assert_eq!(repeats_a_key(text.as_bytes()), expected, "{text}");
        }
    }
}
