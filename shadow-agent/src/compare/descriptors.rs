//! Decodes protobuf messages by a descriptor set (`protoc --descriptor_set_out --include_imports`) into JSON, as
//! protobuf's own mapping has it: names in lowerCamelCase, fields at their default left out; but integers of 64 bits
//! are numbers, so that they are compared as such. Pure.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

use prost_reflect::prost::Message;
use prost_reflect::prost_types::FileDescriptorSet;
use prost_reflect::{
    DescriptorPool, DynamicMessage, MessageDescriptor, ReflectMessage, SerializeOptions, Value as Field,
};
use serde_json::Value;
use sha2::{Digest, Sha256};
use thiserror::Error;

/// Messages within messages are looked into so many levels deep; deeper ones are not decoded.
pub const MAX_DEPTH: usize = 100;

/// The levels that the content of a `google.protobuf.Any` counts for: it is decoded anew, and decoding starts to count
/// levels again.
const ANY_LEVELS: usize = 12;

/// The member under which fields stand that the descriptor does not know.
const UNKNOWN: &str = "@unknown";

/// Unknown fields that are named at most.
const NAMED_FIELDS: usize = 8;

/// Why a descriptor set cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DescriptorsError {
    /// The bytes are something else.
    #[error(
        "is no descriptor set ({0}); write one with `protoc --include_imports --descriptor_set_out=FILE`"
    )]
    NotASet(String),
    /// A file is imported and not there.
    #[error(
        "lacks `{import}`, which `{file}` imports; write it again with `protoc --include_imports --descriptor_set_out=FILE`"
    )]
    Import {
        /// The file that imports.
        file: String,
        /// The file that is imported.
        import: String,
    },
    /// A file is written in a syntax that is not understood.
    #[error(
        "holds `{file}`, whose syntax `{syntax}` is not understood; write it from files with syntax proto2 or proto3"
    )]
    Syntax {
        /// The file.
        file: String,
        /// Its syntax.
        syntax: String,
    },
    /// The definitions make no sense together.
    #[error("cannot be used ({0}); write it from files that protoc accepts")]
    Invalid(String),
    /// There is no method, so nothing would ever be decoded.
    #[error("names no method of any service; write it from the files that define the services")]
    NoMethod,
}

/// The types of what methods answer. Cloning is cheap.
#[derive(Clone, Default)]
pub struct Descriptors {
    /// By the path of the method: `/pkg.Service/Method`.
    answers: Arc<HashMap<String, MessageDescriptor>>,
    digest: [u8; 32],
}

impl fmt::Debug for Descriptors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Descriptors({} methods)", self.answers.len())
    }
}

/// They are equal when they come from the same bytes.
impl PartialEq for Descriptors {
    fn eq(&self, other: &Descriptors) -> bool {
        self.digest == other.digest
    }
}

impl Eq for Descriptors {}

impl Descriptors {
    /// Reads a serialized `FileDescriptorSet`.
    ///
    /// # Errors
    /// When it is none, is not whole, or has no method.
    pub fn parse(bytes: &[u8]) -> Result<Descriptors, DescriptorsError> {
        let set =
            FileDescriptorSet::decode(bytes).map_err(|error| DescriptorsError::NotASet(error.to_string()))?;
        let names: BTreeSet<&str> = set.file.iter().map(|file| file.name()).collect();
        for file in &set.file {
            if let Some(import) = file.dependency.iter().find(|import| !names.contains(import.as_str())) {
                let (file, import) = (file.name().to_owned(), import.clone());
                return Err(DescriptorsError::Import { file, import });
            }
            if !["", "proto2", "proto3"].contains(&file.syntax()) {
                let (file, syntax) = (file.name().to_owned(), file.syntax().to_owned());
                return Err(DescriptorsError::Syntax { file, syntax });
            }
        }
        let pool =
            DescriptorPool::decode(bytes).map_err(|error| DescriptorsError::Invalid(error.to_string()))?;
        let mut answers = HashMap::new();
        for service in pool.services() {
            for method in service.methods() {
                answers.insert(format!("/{}/{}", service.full_name(), method.name()), method.output());
            }
        }
        if answers.is_empty() {
            return Err(DescriptorsError::NoMethod);
        }
        Ok(Descriptors { answers: Arc::new(answers), digest: Sha256::digest(bytes).into() })
    }

    /// The type that the method at a path answers with.
    pub(super) fn answer(&self, path: &[u8]) -> Option<&MessageDescriptor> {
        self.answers.get(std::str::from_utf8(path).ok()?)
    }
}

/// A message as JSON. Fields that the type does not know are one member of the whole, `@unknown`, by their bytes.
///
/// `None` when the bytes are no such message, or JSON cannot say what is in it.
pub(super) fn decode(message_type: &MessageDescriptor, bytes: &[u8]) -> Option<Value> {
    let message = DynamicMessage::decode(message_type.clone(), bytes).ok()?;
    let mut unknown = Unknown::default();
    unknown.gather(&message, 0)?;
    let options = SerializeOptions::new().stringify_64_bit_integers(false);
    let mut value = message.serialize_with_options(serde_json::value::Serializer, &options).ok()?;
    if let Some(shown) = unknown.shown() {
        value.as_object_mut()?.insert(UNKNOWN.to_owned(), Value::String(shown));
    }
    Some(value)
}

/// Bytes as they are told apart and shown: by length and digest, which is never shortened here.
pub(super) fn digest(what: &str, length: usize, digest: &[u8]) -> String {
    use fmt::Write as _;
    let mut shown = format!("[{what}{length} bytes, sha256 ");
    for byte in digest {
        // Writing to a string cannot fail.
        let _ = write!(shown, "{byte:02x}");
    }
    shown + "]"
}

/// The fields of a message that its type does not know, at any depth.
#[derive(Default)]
struct Unknown {
    /// Messages looked into so far: where in the whole a field stands.
    position: usize,
    numbers: BTreeSet<u32>,
    length: usize,
    hash: Sha256,
    buffer: Vec<u8>,
}

impl Unknown {
    /// `None` when JSON could not say all that is in the message.
    fn gather(&mut self, message: &DynamicMessage, depth: usize) -> Option<()> {
        if depth > MAX_DEPTH {
            return None;
        }
        self.position += 1;
        for field in message.unknown_fields() {
            self.buffer.clear();
            field.encode(&mut self.buffer);
            if self.numbers.len() < NAMED_FIELDS {
                self.numbers.insert(field.number());
            }
            self.length += self.buffer.len();
            self.hash.update(self.position.to_le_bytes());
            self.hash.update(&self.buffer);
        }
        match message.descriptor().full_name() {
            "google.protobuf.Any" => return self.gather_any(message, depth),
            "google.protobuf.FloatValue" | "google.protobuf.DoubleValue" if !is_finite(message) => {
                return None;
            }
            _ => {}
        }
        for (_, value) in message.fields() {
            self.gather_value(value, depth + 1)?;
        }
        Some(())
    }

    fn gather_value(&mut self, value: &Field, depth: usize) -> Option<()> {
        match value {
            Field::Message(message) => self.gather(message, depth),
            Field::List(items) => items.iter().try_for_each(|item| self.gather_value(item, depth)),
            // In the order of keys: that of the map is another one each time.
            Field::Map(entries) if entries.values().any(|value| matches!(value, Field::Message(_))) => {
                let mut entries: Vec<_> = entries.iter().collect();
                entries.sort_unstable_by_key(|(key, _)| *key);
                entries.into_iter().try_for_each(|(_, value)| self.gather_value(value, depth))
            }
            _ => Some(()),
        }
    }

    fn gather_any(&mut self, any: &DynamicMessage, depth: usize) -> Option<()> {
        let (url, value) = (any.get_field_by_number(1)?, any.get_field_by_number(2)?);
        let (_, name) = url.as_str()?.rsplit_once('/')?;
        let inner = any.descriptor().parent_pool().get_message_by_name(name)?;
        let inner = DynamicMessage::decode(inner, value.as_bytes()?.as_ref()).ok()?;
        self.gather(&inner, depth + ANY_LEVELS)
    }

    fn shown(self) -> Option<String> {
        if self.length == 0 {
            return None;
        }
        let numbers: Vec<String> = self.numbers.iter().map(u32::to_string).collect();
        Some(digest(&format!("fields {}: ", numbers.join(", ")), self.length, &self.hash.finalize()))
    }
}

/// JSON has no other numbers, and those in wrappers would all become null.
fn is_finite(wrapper: &DynamicMessage) -> bool {
    wrapper.fields().all(|(_, value)| match value {
        Field::F32(number) => number.is_finite(),
        Field::F64(number) => number.is_finite(),
        _ => true,
    })
}

#[cfg(test)]
pub(crate) mod tests;
