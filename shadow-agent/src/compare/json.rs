//! Compares JSON documents by structure: the order of members never matters, numbers count by value, and ignored
//! places (RFC 9535) are not there. Array elements are compared by position.

use std::cell::OnceCell;
use std::collections::HashSet;

use serde_json::Value;
use serde_json_path::JsonPath;

use super::number;
use super::weigh::{Findings, Other, Sort, ValueType};
use crate::policy::mask::{Document, Masker, Step};

/// The values of documents that are ignored, by their address.
#[derive(Debug, Default)]
pub(super) struct Ignored(HashSet<usize>);

impl Ignored {
    /// Adds what the paths find in a document. The document must not move as long as this is used.
    pub(super) fn find(&mut self, paths: &[JsonPath], document: &Value) {
        for path in paths {
            self.0.extend(path.query(document).iter().map(|value| address(value)));
        }
    }

    fn contains(&self, value: &Value) -> bool {
        !self.0.is_empty() && self.0.contains(&address(value))
    }
}

fn address(value: &Value) -> usize {
    std::ptr::from_ref(value).addr()
}

#[derive(Clone, Copy)]
struct Node<'a> {
    value: &'a Value,
    ignored: &'a Ignored,
}

fn value_type(value: &Value) -> ValueType {
    match value {
        Value::Null => ValueType::Null,
        Value::Bool(_) => ValueType::Bool,
        Value::Number(_) => ValueType::Number,
        Value::String(_) => ValueType::String,
        Value::Array(_) => ValueType::Array,
        Value::Object(_) => ValueType::Object,
    }
}

fn same(one: &Value, other: &Value, ignored: &Ignored) -> bool {
    if ignored.contains(one) || ignored.contains(other) {
        return true;
    }
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => number::same(one, other),
        (Value::Array(one), Value::Array(other)) => {
            let longer = one.len().max(other.len());
            (0..longer).all(|index| same_if_there(one.get(index), other.get(index), ignored))
        }
        (Value::Object(one), Value::Object(other)) => {
            one.iter().all(|(key, value)| same_if_there(Some(value), other.get(key), ignored))
                && other.iter().all(|(key, value)| one.contains_key(key) || ignored.contains(value))
        }
        _ => one == other,
    }
}

fn same_if_there(one: Option<&Value>, other: Option<&Value>, ignored: &Ignored) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => same(one, other, ignored),
        (Some(only), None) | (None, Some(only)) => ignored.contains(only),
        (None, None) => true,
    }
}

/// Enters the differences of two documents, as the answers give them; `place` names the place of a location.
pub(super) fn compare<'a>(
    production: &'a Value,
    judged: &'a Value,
    other: Other<&'a Value>,
    ignored: &'a Ignored,
    masker: &'a Masker,
    place: fn(&[Step<'_>]) -> String,
    findings: &mut Findings,
) {
    let mut comparison = Comparison {
        ignored,
        masker,
        place,
        roots: (production, judged),
        documents: (OnceCell::new(), OnceCell::new()),
        path: Vec::new(),
        findings,
    };
    comparison.descend(Some(production), Some(judged), other);
}

struct Comparison<'a, 'f> {
    ignored: &'a Ignored,
    masker: &'a Masker,
    place: fn(&[Step<'_>]) -> String,
    roots: (&'a Value, &'a Value),
    /// Prepared when the first value is shown; most comparisons show none.
    documents: (OnceCell<Document<'a>>, OnceCell<Document<'a>>),
    path: Vec<Step<'a>>,
    findings: &'f mut Findings,
}

impl<'a> Comparison<'a, '_> {
    fn descend(&mut self, production: Option<&'a Value>, judged: Option<&'a Value>, other: Other<&'a Value>) {
        if self.findings.is_full()
            || [production, judged].into_iter().flatten().any(|value| self.ignored.contains(value))
        {
            return;
        }
        match (production, judged) {
            (Some(Value::Object(ours)), Some(Value::Object(theirs))) => {
                let added = theirs.iter().filter(|(key, _)| !ours.contains_key(*key));
                for key in ours.keys().chain(added.map(|(key, _)| key)) {
                    self.path.push(Step::Key(key));
                    self.descend(ours.get(key), theirs.get(key), other.map(|value| value.get(key)));
                    self.path.pop();
                }
            }
            (Some(Value::Array(ours)), Some(Value::Array(theirs))) => {
                for index in 0..ours.len().max(theirs.len()) {
                    self.path.push(Step::Index(index));
                    self.descend(ours.get(index), theirs.get(index), other.map(|value| value.get(index)));
                    self.path.pop();
                }
            }
            _ => self.weigh(production, judged, other),
        }
    }

    fn weigh(&mut self, production: Option<&'a Value>, judged: Option<&'a Value>, other: Other<&'a Value>) {
        let sort: Sort<Node<'a>> = Sort {
            same: |one, other| same(one.value, other.value, one.ignored),
            value_type: |node| value_type(node.value),
            silenced: true,
        };
        let node = |value| Node { value, ignored: self.ignored };
        let found = sort.weigh(
            production.map(node).as_ref(),
            judged.map(node).as_ref(),
            &other.map(|value| Some(node(value))),
        );
        let Some(found) = found else { return };
        let (masker, path, place) = (self.masker, &self.path, self.place);
        let ours = self.documents.0.get_or_init(|| masker.document(self.roots.0));
        let theirs = self.documents.1.get_or_init(|| masker.document(self.roots.1));
        let masked_at = || ours.masked_at(path).into_iter().chain(theirs.masked_at(path)).min();
        let keep = |document| match masked_at() {
            Some(_) => masker.keep_masked(),
            None => masker.keep_json(document, path),
        };
        self.findings.add(
            found,
            || place(&masker.steps_to_name(masked_at().and_then(|steps| path.get(..steps)).unwrap_or(path))),
            || (production.map(|_| keep(ours)), judged.map(|_| keep(theirs))),
        );
    }
}
