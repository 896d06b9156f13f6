use std::sync::LazyLock;

use proptest::prelude::*;
use prost_reflect::prost_types::field_descriptor_proto::{Label, Type};
use prost_reflect::prost_types::{
    DescriptorProto, EnumDescriptorProto, EnumValueDescriptorProto, FieldDescriptorProto,
    FileDescriptorProto, MessageOptions, MethodDescriptorProto, OneofDescriptorProto, ServiceDescriptorProto,
};
use serde_json::json;

use super::*;

/// The path of the only method, which answers with [`answer`].
pub(crate) const METHOD: &str = "/shop.Shop/Find";

fn field(name: &str, number: i32, of: Type, type_name: &str) -> FieldDescriptorProto {
    FieldDescriptorProto {
        name: Some(name.to_owned()),
        number: Some(number),
        label: Some(Label::Optional.into()),
        r#type: Some(of.into()),
        type_name: if type_name.is_empty() { None } else { Some(type_name.to_owned()) },
        ..FieldDescriptorProto::default()
    }
}

fn repeated(field: FieldDescriptorProto) -> FieldDescriptorProto {
    FieldDescriptorProto { label: Some(Label::Repeated.into()), ..field }
}

fn message(name: &str, field: Vec<FieldDescriptorProto>) -> DescriptorProto {
    DescriptorProto { name: Some(name.to_owned()), field, ..DescriptorProto::default() }
}

/// `shop.proto` with one service, and what it imports.
pub(crate) fn set() -> FileDescriptorSet {
    let imports = ["any", "timestamp", "wrappers"].map(|name| format!("google/protobuf/{name}.proto"));
    let known = DescriptorPool::global();
    let mut file: Vec<FileDescriptorProto> = imports
        .iter()
        .map(|name| known.get_file_by_name(name).unwrap().file_descriptor_proto().clone())
        .collect();
    let mut entry = message(
        "ByNameEntry",
        vec![field("key", 1, Type::String, ""), field("value", 2, Type::Message, ".shop.Item")],
    );
    entry.options = Some(MessageOptions { map_entry: Some(true), ..MessageOptions::default() });
    let optional = FieldDescriptorProto {
        proto3_optional: Some(true),
        oneof_index: Some(0),
        ..field("in_stock", 5, Type::Int32, "")
    };
    let mut product = message(
        "Product",
        vec![
            field("id", 1, Type::Int32, ""),
            field("name", 2, Type::String, ""),
            field("price", 3, Type::Double, ""),
            repeated(field("items", 4, Type::Message, ".shop.Item")),
            optional,
            repeated(field("by_name", 6, Type::Message, ".shop.Product.ByNameEntry")),
            field("big", 7, Type::Uint64, ""),
            field("kind", 8, Type::Enum, ".shop.Kind"),
            field("at", 9, Type::Message, ".google.protobuf.Timestamp"),
            field("extra", 10, Type::Message, ".google.protobuf.Any"),
            field("inner", 11, Type::Message, ".shop.Product"),
            field("data", 12, Type::Bytes, ""),
            field("email", 13, Type::String, ""),
            field("weight", 14, Type::Message, ".google.protobuf.DoubleValue"),
        ],
    );
    product.nested_type.push(entry);
    product.oneof_decl.push(OneofDescriptorProto { name: Some("_in_stock".to_owned()), options: None });
    let value = |name: &str, number| EnumValueDescriptorProto {
        name: Some(name.to_owned()),
        number: Some(number),
        options: None,
    };
    let method = MethodDescriptorProto {
        name: Some("Find".to_owned()),
        input_type: Some(".shop.Item".to_owned()),
        output_type: Some(".shop.Product".to_owned()),
        ..MethodDescriptorProto::default()
    };
    file.push(FileDescriptorProto {
        name: Some("shop.proto".to_owned()),
        package: Some("shop".to_owned()),
        syntax: Some("proto3".to_owned()),
        dependency: imports.to_vec(),
        message_type: vec![
            product,
            message("Item", vec![field("id", 1, Type::Int32, ""), field("price", 2, Type::Float, "")]),
        ],
        enum_type: vec![EnumDescriptorProto {
            name: Some("Kind".to_owned()),
            value: vec![value("NONE", 0), value("BOOK", 1)],
            ..EnumDescriptorProto::default()
        }],
        service: vec![ServiceDescriptorProto {
            name: Some("Shop".to_owned()),
            method: vec![method],
            options: None,
        }],
        ..FileDescriptorProto::default()
    });
    FileDescriptorSet { file }
}

pub(crate) fn descriptors() -> Descriptors {
    static DESCRIPTORS: LazyLock<Descriptors> =
        LazyLock::new(|| Descriptors::parse(&set().encode_to_vec()).unwrap());
    DESCRIPTORS.clone()
}

pub(crate) fn answer() -> MessageDescriptor {
    descriptors().answer(METHOD.as_bytes()).unwrap().clone()
}

/// The bytes of a `shop.Product`.
pub(crate) fn product(json: &Value) -> Vec<u8> {
    DynamicMessage::deserialize(answer(), json).unwrap().encode_to_vec()
}

#[test]
fn a_descriptor_set_names_what_methods_answer() {
    let descriptors = descriptors();
    assert_eq!(descriptors.answer(METHOD.as_bytes()).unwrap().full_name(), "shop.Product");
    for path in ["/shop.Shop/Other", "/shop.Shop", "shop.Shop/Find", "/", ""] {
        assert!(descriptors.answer(path.as_bytes()).is_none(), "{path}");
    }
    assert_eq!(format!("{descriptors:?}"), "Descriptors(1 methods)");
    let again = Descriptors::parse(&set().encode_to_vec()).unwrap();
    assert!(descriptors == again && descriptors != Descriptors::default());
}

#[test]
fn what_is_no_whole_descriptor_set_is_refused_with_the_remedy() {
    type Change = fn(&mut FileDescriptorSet);
    let cases: [(Change, &str); 5] = [
        (
            |set| drop(set.file.remove(0)),
            "lacks `google/protobuf/any.proto`, which `shop.proto` imports; write it again with `protoc --include_imports",
        ),
        (|set| set.file[3].service.clear(), "names no method of any service; write it from"),
        (|set| set.file.clear(), "names no method of any service; write it from"),
        (|set| set.file[3].message_type.truncate(1), "cannot be used (name '.shop.Item' is not defined"),
        (
            |set| set.file[3].syntax = Some("editions".to_owned()),
            "holds `shop.proto`, whose syntax `editions` is not",
        ),
    ];
    for (change, expected) in cases {
        let mut set = set();
        change(&mut set);
        let error = Descriptors::parse(&set.encode_to_vec()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    let error = Descriptors::parse(b"syntax = \"proto3\";").unwrap_err().to_string();
    assert!(
        error.starts_with("is no descriptor set (") && error.contains("protoc --include_imports"),
        "{error}"
    );
}

#[test]
fn messages_become_json_with_defaults_left_out() {
    let cases = [
        (json!({}), json!({})),
        (json!({"id": 0, "name": "", "items": [], "kind": "NONE"}), json!({})),
        (json!({"inStock": 0}), json!({"inStock": 0})),
        (json!({"id": 7, "price": 1.5, "kind": "BOOK"}), json!({"id": 7, "price": 1.5, "kind": "BOOK"})),
        (json!({"big": "18446744073709551615"}), json!({"big": 18_446_744_073_709_551_615_u64})),
        (json!({"items": [{"id": 1}, {}]}), json!({"items": [{"id": 1}, {}]})),
        (json!({"byName": {"a": {"id": 1}}}), json!({"byName": {"a": {"id": 1}}})),
        (json!({"at": "2024-01-02T03:04:05Z"}), json!({"at": "2024-01-02T03:04:05Z"})),
        (json!({"kind": 99}), json!({"kind": 99})),
        (json!({"data": "AAE="}), json!({"data": "AAE="})),
        (
            json!({"extra": {"@type": "type.googleapis.com/shop.Item", "id": 3}}),
            json!({"extra": {"@type": "type.googleapis.com/shop.Item", "id": 3}}),
        ),
    ];
    for (given, expected) in cases {
        assert_eq!(decode(&answer(), &product(&given)), Some(expected), "{given}");
    }
}

/// A length-delimited field.
fn bytes_field(number: u32, bytes: &[u8]) -> Vec<u8> {
    use prost_reflect::prost::encoding::{WireType, encode_key, encode_varint};
    let mut field = Vec::new();
    encode_key(number, WireType::LengthDelimited, &mut field);
    encode_varint(bytes.len() as u64, &mut field);
    field.extend_from_slice(bytes);
    field
}

#[test]
fn unknown_fields_are_told_apart_by_their_bytes_and_named() {
    let unknown = |bytes: &[u8]| {
        let value = decode(&answer(), bytes).unwrap();
        value.get(UNKNOWN).map(|shown| shown.as_str().unwrap().to_owned())
    };
    assert_eq!(unknown(&bytes_field(2, b"known")), None);
    let one = unknown(&bytes_field(99, b"a")).unwrap();
    assert!(one.starts_with("[fields 99: 4 bytes, sha256 "), "{one}");
    assert_ne!(Some(&one), unknown(&bytes_field(99, b"b")).as_ref());
    // Within a message, a list, a map and an Any; in the second of two rather than in the first.
    let item = bytes_field(99, b"a");
    let any = [bytes_field(1, b"x/shop.Item"), bytes_field(2, &item)].concat();
    let entry = [bytes_field(1, b"key"), bytes_field(2, &item)].concat();
    let places = [
        bytes_field(11, &item),
        [bytes_field(4, &item), bytes_field(4, b"")].concat(),
        [bytes_field(4, b""), bytes_field(4, &item)].concat(),
        bytes_field(6, &entry),
        bytes_field(10, &any),
    ];
    let shown: BTreeSet<_> = places.iter().map(|bytes| unknown(bytes).unwrap()).collect();
    assert!(shown.iter().all(|shown| shown.starts_with("[fields 99: 4 bytes, sha256 ")));
    assert!(shown.len() >= 2 && unknown(&places[1]) != unknown(&places[2]), "{shown:?}");
}

#[test]
fn what_is_no_such_message_or_cannot_be_said_in_json_is_not_decoded() {
    let nan = [bytes_field(14, &[9, 0, 0, 0, 0, 0, 0, 0xf8, 0x7f])].concat();
    let cases = [
        b"\xff".to_vec(),
        // A string where a number belongs; text that is no UTF-8; half a message.
        bytes_field(1, b"text"),
        bytes_field(2, b"\xff"),
        bytes_field(11, b"\x12\x7f"),
        bytes_field(10, &bytes_field(1, b"x/shop.Nothing")),
        bytes_field(10, b""),
        // A time in the year 10000.
        bytes_field(9, &[8, 0x80, 0xdc, 0xc2, 0xd9, 0x97, 0x8e, 7]),
        nan,
    ];
    for bytes in cases {
        assert_eq!(decode(&answer(), &bytes), None, "{bytes:?}");
    }
}

#[test]
fn messages_within_messages_are_followed_to_a_bound() {
    let nested = |levels: usize| (0..levels).fold(Vec::new(), |inner, _| bytes_field(11, &inner));
    let of_any = |levels: usize| {
        let wrap = |inner: Vec<u8>| [bytes_field(1, b"x/shop.Product"), bytes_field(2, &inner)].concat();
        (0..levels).fold(Vec::new(), |inner, _| bytes_field(10, &wrap(inner)))
    };
    assert!(decode(&answer(), &nested(MAX_DEPTH - 1)).is_some());
    assert!(decode(&answer(), &nested(MAX_DEPTH + 1)).is_none());
    // Each Any counts for itself and for its content.
    let most = MAX_DEPTH / (ANY_LEVELS + 1);
    assert!(decode(&answer(), &of_any(most)).is_some());
    assert!(decode(&answer(), &of_any(most + 1)).is_none());
    assert!(decode(&answer(), &of_any(10_000)).is_none());
}

proptest! {
    #[test]
    fn a_broken_descriptor_set_is_an_error_and_no_panic(at: proptest::sample::Index, bit in 0..8_u8) {
        let mut bytes = set().encode_to_vec();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        let _ = Descriptors::parse(&bytes);
    }

    #[test]
    fn arbitrary_bytes_are_decoded_or_not(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let first = decode(&answer(), &bytes);
        prop_assert_eq!(first, decode(&answer(), &bytes));
    }

    #[test]
    fn mangled_messages_are_decoded_or_not(
        id: i32,
        name in ".{0,8}",
        prices in proptest::collection::vec(any::<i16>(), 0..4),
        at in 0..60_usize,
        byte: u8,
    ) {
        let items: Vec<_> = prices.iter().map(|price| json!({"price": f32::from(*price)})).collect();
        let mut bytes = product(&json!({
            "id": id, "name": name, "items": items, "at": "2024-01-02T03:04:05Z", "weight": 2.5,
            "extra": {"@type": "x/shop.Item", "id": 3}, "byName": {"a": {"id": 1}},
        }));
        let at = at % bytes.len();
        bytes[at] = byte;
        let _ = decode(&answer(), &bytes);
    }

    #[test]
    fn the_order_of_fields_never_matters(name in "[a-z]{0,9}", email in "[a-z]{0,9}", inner in "[a-z]{0,9}") {
        let inner = bytes_field(2, inner.as_bytes());
        let fields = [bytes_field(2, name.as_bytes()), bytes_field(13, email.as_bytes()), bytes_field(11, &inner)];
        let [one, two, three] = &fields;
        let forward = decode(&answer(), &fields.concat());
        prop_assert!(forward.is_some());
        prop_assert_eq!(forward, decode(&answer(), &[three.as_slice(), two, one].concat()));
    }
}
