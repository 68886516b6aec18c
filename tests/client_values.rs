//! Values come back as they were. Goal: whatever serde can write is read by the same type as what
//! it was, or refused when it is stored; never changed, never stored and unreadable. Method: the
//! faults that were found, as a table in every encoding; then random values of every shape that
//! serde knows through families, formats and compressions. What may be refused is named: all else
//! has to come back. Also: what other programs store, and encodings of one's own.

#![cfg(feature = "client")]

use distcache::client::{AnyCodec, Codec, Compression, Encoding, Error, Family, Format};
use distcache::client::{Source, Target};
use proptest::prelude::*;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::net::IpAddr;
use std::time::Duration;

const FAMILIES: [Family; 4] = [Family::Plain, Family::Python, Family::Php, Family::Spymemcached];

/// Every way in which values are written, without compression.
fn encodings() -> Vec<Encoding> {
    let encoding = |family| Encoding { family, ..Encoding::default() };
    let all = FAMILIES.map(encoding);
    #[cfg(feature = "postcard")]
    let all = [&all[..], &[Encoding { format: Format::Postcard, ..Encoding::default() }]].concat();
    all.to_vec()
}

/// What became of a value.
#[derive(Debug, PartialEq)]
enum Outcome {
    Same,
    /// Not stored.
    Refused(String),
    /// Stored, and an error to read.
    Unreadable(String),
    /// Stored, and read as something else.
    Changed(String),
}

fn outcome<T: Serialize + DeserializeOwned + Debug>(encoding: &Encoding, value: &T) -> Outcome {
    let (bytes, flags) = match encoding.encode(value) {
        Ok(stored) => stored,
        Err(error) => return Outcome::Refused(error.to_string()),
    };
    match encoding.decode::<T>(&bytes, flags) {
        // Compared as text: there NaN is itself, and 0.0 is not -0.0.
        Ok(read) if format!("{read:?}") == format!("{value:?}") => Outcome::Same,
        Ok(read) => Outcome::Changed(format!("{value:?} as {read:?}")),
        Err(error) => Outcome::Unreadable(format!("{value:?}: {error}")),
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(untagged)]
enum Untagged {
    Nothing(()),
    Number(u64),
    Signed(i64),
    Float(f64),
    Truth(bool),
    Text(String),
    Bytes(Vec<u8>),
    Map(BTreeMap<String, i32>),
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Byte(u8);

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Unit;

/// serde_json writes what it skips as nothing; postcard would read the next field in its place.
#[derive(Debug, Serialize, Deserialize)]
struct Skips {
    #[serde(skip_serializing_if = "Option::is_none", default)]
    first: Option<u8>,
    second: u8,
}

#[derive(Debug, Serialize, Deserialize)]
struct Chain(Option<Box<Chain>>, u8);

/// Values that must come back or be refused, and where to note those that do not.
macro_rules! check {
    ($encoding:expr, $wrong:expr; $($value:expr),* $(,)?) => {$(
        match outcome($encoding, &$value) {
            Outcome::Same | Outcome::Refused(_) => {}
            other => {
                let (family, format) = ($encoding.family, $encoding.format);
                $wrong.push(format!("{family:?} {format:?}: {other:?}"));
            }
        }
    )*};
}

#[test]
fn values_that_came_back_changed_or_not_at_all() {
    let mut wrong = Vec::new();
    for encoding in &encodings() {
        check!(encoding, wrong;
            vec![1i8, 2],
            (1u8, 2i8),
            vec![Some(1u8)],
            vec![Byte(1)],
            0.1f32,
            Some(0.1f32),
            None::<String>,
            Some("null".to_owned()),
            f64::NAN,
            f32::INFINITY,
            vec![f64::NAN],
            Some(f64::NAN),
            Vec::<u8>::new(),
            u128::MAX,
            Some(None::<u8>),
            Some(()),
            (Some(None::<u8>), 1),
            vec![Some(None::<String>)],
            vec![0.1f64, 1.4076569870471224e16, 3.1e-308],
            Skips { first: None, second: 1 },
            (0..130).fold(Chain(None, 0), |chain, _| Chain(Some(Box::new(chain)), 1)),
        );
        if encoding.format == Format::Json {
            check!(encoding, wrong;
                json!(7), json!("7"), json!("9 "), json!(u64::MAX), json!("null"), json!("true"),
                json!("-0"), json!("007"), json!("[1]"), json!(null), json!(true), json!(1.0),
                json!([]), json!(""), json!({}),
                Untagged::Number(7), Untagged::Text("7".into()), Untagged::Text("x".into()),
                Untagged::Bytes(vec![]), Untagged::Bytes(b"7".to_vec()),
                Untagged::Bytes(b"abc".to_vec()), Untagged::Bytes(vec![255, 0]),
                Untagged::Bytes(b"[1]".to_vec()),
                vec![Untagged::Number(7)],
            );
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_a_format_would_lose_is_refused_when_it_is_stored() {
    let json = Encoding::default();
    let refused = |outcome: Outcome, words: &str| {
        assert!(
            matches!(&outcome, Outcome::Refused(error) if error.contains(words)),
            "{outcome:?}"
        );
    };
    refused(outcome(&json, &f64::NAN), "NaN");
    refused(outcome(&json, &[f32::INFINITY]), "infinity");
    refused(outcome(&json, &Some(None::<u8>)), "Some(None)");
    refused(outcome(&json, &(1, Some(Unit))), "Some(())");
    refused(outcome(&json, &BTreeMap::from([((1, 2), 3)])), "key must be a string");
    let chain = |levels| (1..levels).fold(Chain(None, 0), |at, _| Chain(Some(Box::new(at)), 1));
    assert_eq!(outcome(&json, &chain(127)), Outcome::Same);
    refused(outcome(&json, &chain(128)), "127 levels");
    let java = Encoding { family: Family::Spymemcached, ..json };
    refused(outcome(&java, &u64::MAX), "long");
    #[cfg(feature = "postcard")]
    {
        let postcard = Encoding { format: Format::Postcard, ..json };
        refused(outcome(&postcard, &Skips { first: None, second: 1 }), "\"first\"");
        assert_eq!(outcome(&postcard, &Skips { first: Some(1), second: 1 }), Outcome::Same);
        assert_eq!(outcome(&postcard, &Some(None::<u8>)), Outcome::Same);
        assert_eq!(outcome(&postcard, &f64::NAN), Outcome::Same);
    }
}

#[test]
fn only_true_rows_of_bytes_are_plain() {
    let encoding = Encoding::default();
    let stored = |(bytes, flags): (Vec<u8>, u32)| (String::from_utf8(bytes).unwrap(), flags);
    let plain = |text: &str, flags| (text.to_owned(), flags);
    for (found, expected) in [
        (encoding.encode(&vec![0u8, 1]).unwrap(), plain("\0\u{1}", 0x20000)),
        (encoding.encode(&[97u8, 98]).unwrap(), plain("ab", 0x20000)),
        (encoding.encode(&Vec::<u8>::new()).unwrap(), plain("", 0x20000)),
        (encoding.encode(&vec![1i8]).unwrap(), plain("[1]", 64)),
        (encoding.encode(&vec![Some(1u8)]).unwrap(), plain("[1]", 64)),
        (encoding.encode(&vec![Byte(1)]).unwrap(), plain("[1]", 64)),
        (encoding.encode(&(1u8, 2i8)).unwrap(), plain("[1,2]", 64)),
        (encoding.encode(&Some("a")).unwrap(), plain("\"a\"", 64)),
        (encoding.encode(&None::<u8>).unwrap(), plain("null", 64)),
        (encoding.encode(&0.1f32).unwrap(), plain("0.1", 64)),
        (encoding.encode(&Byte(7)).unwrap(), plain("7", 0)),
        (encoding.encode("7").unwrap(), plain("7", 0x10000)),
        (encoding.encode("seven").unwrap(), plain("seven", 0)),
        (encoding.encode("").unwrap(), plain("", 0)),
    ] {
        assert_eq!(stored(found), expected);
    }
    assert_eq!(encoding.encode(&[255u8, 0]).unwrap(), (vec![255, 0], 0));
}

/// memcached fills up with a blank where a counter loses a digit.
#[test]
fn a_decremented_counter_is_a_number_to_every_type() {
    for family in [Family::Plain, Family::Python, Family::Php] {
        let encoding = Encoding { family, ..Encoding::default() };
        let (bytes, flags) = encoding.encode(&10).unwrap();
        assert_eq!(bytes, b"10");
        assert_eq!(encoding.decode(b"9 ", flags), Ok(json!(9)), "{family:?}");
        assert_eq!(encoding.decode(b"9 ", flags), Ok(9u8));
        assert_eq!(encoding.decode(b"9 ", flags), Ok(9.0f64));
        assert_eq!(encoding.decode(b"9 ", flags), Ok(Some(9i128)));
        let read: Untagged = encoding.decode(b"9 ", flags).unwrap();
        assert!(matches!(read, Untagged::Number(9)), "{read:?}");
        let (_, flags) = encoding.encode(&Some(10)).unwrap();
        assert_eq!(encoding.decode(b"9 ", flags), Ok(Some(9)));
    }
    // Counters that `incr` made have no flags, whoever reads them.
    for family in [Family::Plain, Family::Python] {
        let encoding = Encoding { family, ..Encoding::default() };
        assert_eq!(encoding.decode(b"42", 0), Ok(json!(42)));
    }
}

/// Programs in other languages store JSON as text or bytes, without a mark.
#[test]
fn json_that_others_stored_is_read() {
    for (family, flags) in [
        (Family::Plain, 0),
        (Family::Plain, 16),
        (Family::Python, 0),
        (Family::Python, 16),
        (Family::Php, 0),
        (Family::Spymemcached, 0),
    ] {
        let encoding = Encoding { family, ..Encoding::default() };
        assert_eq!(encoding.decode(b"[1, 2]", flags), Ok(vec![1, 2]), "{family:?}");
        assert_eq!(encoding.decode(b"[1, 2]", flags), Ok(vec![json!(1), json!(2)]));
        assert_eq!(encoding.decode(b"[1, \"a\"]", flags), Ok((1, "a".to_owned())));
        assert_eq!(
            encoding.decode(b"{\"a\": 1}", flags),
            Ok(BTreeMap::from([("a".to_owned(), 1)]))
        );
        let text: Result<BTreeMap<String, u8>, _> = encoding.decode(b"a", flags);
        assert!(matches!(text, Err(Error::Value(_))), "{text:?}");
    }
}

#[cfg(feature = "postcard")]
#[test]
fn postcard_says_when_it_was_written_by_another_type() {
    let encoding = Encoding { format: Format::Postcard, ..Encoding::default() };
    let (bytes, flags) = encoding.encode(&(1.5f64, 2.5f64)).unwrap();
    let shorter = encoding.decode::<(f64,)>(&bytes, flags);
    assert!(matches!(&shorter, Err(Error::Value(what)) if what.contains("left over")));
    let (bytes, flags) = encoding.encode(&json!([true])).unwrap();
    let value = encoding.decode::<Value>(&bytes, flags);
    assert!(
        matches!(&value, Err(Error::Value(what)) if what.contains("Format::Json")),
        "{value:?}"
    );
}

#[derive(Debug, Clone, Serialize, Deserialize)]
enum External {
    Unit,
    Newtype(Option<i16>),
    Tuple(u8, String),
    Struct { float: Option<f32>, bytes: Vec<u8> },
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "kind")]
enum Internal {
    Unit,
    Newtype(Record),
    Struct { number: i64, text: String },
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "kind", content = "value")]
enum Adjacent {
    Unit,
    Newtype(u8),
    Struct { number: i64, text: String },
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Record {
    number: u32,
    text: Option<String>,
    letter: char,
    floats: (f32, f64),
    bytes: Vec<u8>,
    more: BTreeMap<String, Vec<i8>>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Flat {
    #[serde(flatten)]
    record: Record,
    #[serde(flatten)]
    rest: BTreeMap<String, Value>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Pair(i8, Option<u8>);

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Wrapped<T>(T);

/// Serializes as bytes, as `bytes::Bytes` does.
#[derive(Debug, Clone)]
struct Blob(Vec<u8>);

impl Serialize for Blob {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Blob;

            fn expecting(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                out.write_str("bytes")
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Blob, E> {
                Ok(Blob(bytes.to_vec()))
            }

            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut row: A) -> Result<Blob, A::Error> {
                let mut bytes = Vec::new();
                while let Some(byte) = row.next_element()? {
                    bytes.push(byte);
                }
                Ok(Blob(bytes))
            }
        }
        deserializer.deserialize_byte_buf(Visitor)
    }
}

/// Whether a type can be read from formats that do not say what the data is.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Reads {
    Everything,
    SelfDescribing,
}

/// In every encoding, compressed and not, the value comes back.
fn comes_back<T>(value: &T, reads: Reads) -> Result<(), TestCaseError>
where
    T: Serialize + DeserializeOwned + Debug,
{
    for encoding in encodings() {
        for compression in [Compression::Off, Compression::Zlib { bytes_min: 0 }] {
            let encoding = Encoding { compression, ..encoding };
            match outcome(&encoding, value) {
                Outcome::Same => {}
                Outcome::Unreadable(_) | Outcome::Refused(_)
                    if reads == Reads::SelfDescribing && encoding.format != Format::Json => {}
                Outcome::Refused(why) if why.contains("Java's long") => {}
                other => {
                    let family = encoding.family;
                    prop_assert!(false, "{family:?} {:?}: {other:?}", encoding.format);
                }
            }
        }
    }
    Ok(())
}

/// In every encoding, the value comes back or is refused.
fn comes_back_or_is_refused<T>(value: &T) -> Result<(), TestCaseError>
where
    T: Serialize + DeserializeOwned + Debug,
{
    for encoding in encodings() {
        let outcome = outcome(&encoding, value);
        let good = matches!(outcome, Outcome::Same | Outcome::Refused(_));
        prop_assert!(good, "{:?} {:?}: {outcome:?}", encoding.family, encoding.format);
    }
    Ok(())
}

fn texts() -> impl Strategy<Value = String> {
    let awkward = [
        "", "null", "true", "7", "-7", "9 ", "-0", "007", "+7", "1e3", "[]", "[1]", "{}", "\"a\"",
        "NaN",
    ];
    prop_oneof![
        proptest::sample::select(awkward.to_vec()).prop_map(str::to_owned),
        "-?[0-9]{1,42} {0,2}",
        "[\\[{\"][0-9a, ]{0,3}[\\]}\"]",
        any::<String>(),
    ]
}

fn rows() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![texts().prop_map(String::into_bytes), any::<Vec<u8>>()]
}

/// Any bits but those of infinities and NaN.
fn floats() -> impl Strategy<Value = f64> {
    any::<u64>().prop_map(f64::from_bits).prop_filter("finite", |float| float.is_finite())
}

fn small_floats() -> impl Strategy<Value = f32> {
    any::<u32>().prop_map(f32::from_bits).prop_filter("finite", |float| float.is_finite())
}

fn untagged() -> impl Strategy<Value = Untagged> {
    prop_oneof![
        Just(Untagged::Nothing(())),
        any::<u64>().prop_map(Untagged::Number),
        (i64::MIN..0).prop_map(Untagged::Signed),
        floats().prop_map(Untagged::Float),
        any::<bool>().prop_map(Untagged::Truth),
        texts().prop_map(Untagged::Text),
        rows().prop_map(Untagged::Bytes),
        proptest::collection::btree_map(texts(), any::<i32>(), 0..4).prop_map(Untagged::Map),
    ]
}

fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        floats().prop_map(Value::from),
        texts().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map(texts(), inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn records() -> impl Strategy<Value = Record> {
    let more = proptest::collection::btree_map(texts(), any::<Vec<i8>>(), 0..3);
    let text = proptest::option::of(texts());
    (any::<u32>(), text, any::<char>(), (small_floats(), floats()), rows(), more).prop_map(
        |(number, text, letter, floats, bytes, more)| Record {
            number,
            text,
            letter,
            floats,
            bytes,
            more,
        },
    )
}

fn externals() -> impl Strategy<Value = External> {
    prop_oneof![
        Just(External::Unit),
        any::<Option<i16>>().prop_map(External::Newtype),
        (any::<u8>(), texts()).prop_map(|(byte, text)| External::Tuple(byte, text)),
        (proptest::option::of(small_floats()), rows())
            .prop_map(|(float, bytes)| External::Struct { float, bytes }),
    ]
}

fn internals() -> impl Strategy<Value = Internal> {
    prop_oneof![
        Just(Internal::Unit),
        records().prop_map(Internal::Newtype),
        (any::<i64>(), texts()).prop_map(|(number, text)| Internal::Struct { number, text }),
    ]
}

fn adjacents() -> impl Strategy<Value = Adjacent> {
    prop_oneof![
        Just(Adjacent::Unit),
        any::<u8>().prop_map(Adjacent::Newtype),
        (any::<i64>(), texts()).prop_map(|(number, text)| Adjacent::Struct { number, text }),
    ]
}

/// One property for each strategy.
macro_rules! properties {
    ($($name:ident: $strategy:expr, $reads:expr;)*) => {
        proptest! {
            #![proptest_config(ProptestConfig::with_cases(128))]
            $(
                #[test]
                fn $name(value in $strategy) {
                    comes_back(&value, $reads)?;
                }
            )*
        }
    };
}

properties! {
    integers: any::<(u8, u16, u32, u64, usize, i8, i16, i32, i64, isize)>(), Reads::Everything;
    wide_integers: any::<(i128, u128)>(), Reads::Everything;
    one_unsigned: any::<u64>(), Reads::Everything;
    one_signed: any::<i64>(), Reads::Everything;
    one_wide_unsigned: any::<u128>(), Reads::Everything;
    one_wide_signed: any::<i128>(), Reads::Everything;
    one_byte: any::<u8>(), Reads::Everything;
    one_small: any::<i8>(), Reads::Everything;
    one_truth: any::<bool>(), Reads::Everything;
    one_letter: any::<char>(), Reads::Everything;
    one_float: floats(), Reads::Everything;
    one_small_float: small_floats(), Reads::Everything;
    float_rows: (proptest::collection::vec(floats(), 0..9), small_floats()), Reads::Everything;
    strings: texts(), Reads::Everything;
    byte_rows: rows(), Reads::Everything;
    byte_arrays: any::<[u8; 4]>(), Reads::Everything;
    byte_tuples: any::<(u8, u8)>(), Reads::Everything;
    mixed_tuples: any::<(u8, i8, bool)>(), Reads::Everything;
    small_rows: any::<Vec<i8>>(), Reads::Everything;
    optional_rows: any::<Vec<Option<u8>>>(), Reads::Everything;
    wrapped_rows: any::<Vec<u8>>().prop_map(|row| row.into_iter().map(Byte).collect::<Vec<_>>()),
        Reads::Everything;
    wide_rows: any::<Vec<u64>>(), Reads::Everything;
    truth_rows: any::<Vec<bool>>(), Reads::Everything;
    unit_rows: any::<Vec<()>>(), Reads::Everything;
    string_rows: proptest::collection::vec(texts(), 0..4), Reads::Everything;
    nested_rows: proptest::collection::vec(rows(), 0..4), Reads::Everything;
    nested_small_rows: proptest::collection::vec(any::<(Option<Vec<i8>>, [Vec<u8>; 2])>(), 0..4),
        Reads::Everything;
    blobs: rows().prop_map(Blob), Reads::Everything;
    blob_rows: proptest::collection::vec(rows().prop_map(Blob), 0..4), Reads::Everything;
    optional_strings: proptest::option::of(texts()), Reads::Everything;
    optional_bytes: proptest::option::of(rows()), Reads::Everything;
    optional_numbers: any::<Option<u64>>(), Reads::Everything;
    optional_floats: proptest::option::of(small_floats()), Reads::Everything;
    results: any::<Result<Option<u8>, String>>(), Reads::Everything;
    wrapped_numbers: any::<u64>().prop_map(Wrapped), Reads::Everything;
    wrapped_strings: texts().prop_map(Wrapped), Reads::Everything;
    wrapped_bytes: rows().prop_map(Wrapped), Reads::Everything;
    wrapped_options: any::<Option<i8>>().prop_map(|value| Wrapped(Wrapped(value))),
        Reads::Everything;
    wrapped_floats: small_floats().prop_map(Wrapped), Reads::Everything;
    tuple_structs: any::<(i8, Option<u8>)>().prop_map(|(a, b)| Pair(a, b)), Reads::Everything;
    structs: records(), Reads::Everything;
    enums: externals(), Reads::Everything;
    enum_rows: proptest::collection::vec(externals(), 0..4), Reads::Everything;
    adjacent_enums: adjacents(), Reads::SelfDescribing;
    internal_enums: internals(), Reads::SelfDescribing;
    untagged_enums: untagged(), Reads::SelfDescribing;
    untagged_rows: proptest::collection::vec(untagged(), 0..4), Reads::SelfDescribing;
    optional_untagged: untagged().prop_filter("Some(())", |it| !matches!(it, Untagged::Nothing(())))
        .prop_map(Some), Reads::SelfDescribing;
    json_values: values(), Reads::SelfDescribing;
    json_rows: proptest::collection::vec(values(), 0..4), Reads::SelfDescribing;
    flattened: (records(), values()).prop_map(|(record, rest)| Flat {
        record,
        rest: BTreeMap::from([("rest".into(), rest)]),
    }), Reads::SelfDescribing;
    maps: proptest::collection::btree_map(texts(), any::<Option<i8>>(), 0..4), Reads::Everything;
    maps_by_number: any::<BTreeMap<i64, char>>(), Reads::Everything;
    maps_by_letter: any::<BTreeMap<char, bool>>(), Reads::Everything;
    addresses: any::<IpAddr>(), Reads::Everything;
    durations: any::<Duration>(), Reads::Everything;
}

proptest! {
    #[test]
    fn what_may_be_refused(
        float in any::<u64>().prop_map(f64::from_bits),
        small in any::<u32>().prop_map(f32::from_bits),
        nested in any::<Option<Option<u8>>>(),
        units in any::<Vec<Option<()>>>(),
    ) {
        comes_back_or_is_refused(&float)?;
        comes_back_or_is_refused(&small)?;
        comes_back_or_is_refused(&nested)?;
        comes_back_or_is_refused(&units)?;
        comes_back_or_is_refused(&(Some(float), nested))?;
        comes_back_or_is_refused(&vec![Wrapped(small)])?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// Whatever a server sends is a value or an error.
    #[test]
    fn any_bytes_with_any_flags_are_read_or_refused(
        bytes in rows(),
        flags in prop_oneof![
            any::<u32>(),
            0..2048u32,
            (0..32u32).prop_map(|bit| 1 << bit),
            proptest::sample::select(vec![0x10000u32, 0x20000, 80, 48, 144, 0x300, 0x600, 0x700]),
        ],
    ) {
        for encoding in encodings() {
            let _ = encoding.decode::<u64>(&bytes, flags);
            let _ = encoding.decode::<i128>(&bytes, flags);
            let _ = encoding.decode::<f32>(&bytes, flags);
            let _ = encoding.decode::<bool>(&bytes, flags);
            let _ = encoding.decode::<char>(&bytes, flags);
            let _ = encoding.decode::<Option<String>>(&bytes, flags);
            let _ = encoding.decode::<Vec<u8>>(&bytes, flags);
            let _ = encoding.decode::<(u8, Value)>(&bytes, flags);
            let _ = encoding.decode::<Untagged>(&bytes, flags);
            let _ = encoding.decode::<Value>(&bytes, flags);
            let _ = encoding.decode::<External>(&bytes, flags);
            let _ = encoding.decode::<Flat>(&bytes, flags);
            let _ = encoding.decode::<()>(&bytes, flags);
        }
    }
}

#[test]
fn units_of_all_kinds() {
    for encoding in encodings() {
        assert_eq!(outcome(&encoding, &()), Outcome::Same);
        assert_eq!(outcome(&encoding, &Unit), Outcome::Same);
        assert_eq!(outcome(&encoding, &None::<()>), Outcome::Same);
        assert_eq!(outcome(&encoding, &[0u8; 0]), Outcome::Same);
        assert_eq!(outcome(&encoding, &[(); 3]), Outcome::Same);
        assert_eq!(outcome(&encoding, &Vec::<String>::new()), Outcome::Same);
        assert_eq!(outcome(&encoding, &BTreeMap::<String, u8>::new()), Outcome::Same);
    }
}

/// JSON backwards, with flags of its own.
#[derive(Debug)]
struct Backwards;

impl Codec for Backwards {
    fn encode(&self, value: Source<'_>) -> Result<(Vec<u8>, u32), Error> {
        let bytes = serde_json::to_vec(&value).map_err(|error| Error::Value(error.to_string()))?;
        Ok((bytes.into_iter().rev().collect(), 1 << 24))
    }

    fn decode(&self, bytes: &[u8], flags: u32, into: &mut Target<'_>) -> Result<(), Error> {
        if flags != 1 << 24 {
            return Err(Error::Value("not ours".into()));
        }
        let json: Vec<u8> = bytes.iter().rev().copied().collect();
        let read = into.read(&mut serde_json::Deserializer::from_slice(&json));
        read.map_err(|error| Error::Value(error.to_string()))
    }
}

/// Says that it has read, and has not.
#[derive(Debug)]
struct Idle;

impl Codec for Idle {
    fn encode(&self, _: Source<'_>) -> Result<(Vec<u8>, u32), Error> {
        Ok((Vec::new(), 0))
    }

    fn decode(&self, _: &[u8], _: u32, _: &mut Target<'_>) -> Result<(), Error> {
        Ok(())
    }
}

#[test]
fn a_codec_of_ones_own() {
    let codec = AnyCodec::new(Backwards);
    assert_eq!(codec.encode(&12).unwrap(), (b"21".to_vec(), 1 << 24));
    assert_eq!(codec.decode::<u8>(b"21", 1 << 24), Ok(12));
    assert_eq!(codec.decode::<u8>(b"21", 0), Err(Error::Value("not ours".into())));
    let wrong = codec.decode::<u8>(b"\"a\"", 1 << 24);
    assert!(matches!(&wrong, Err(Error::Value(what)) if what.contains("expected u8")), "{wrong:?}");
    let value = (i128::MIN, Some("a".to_owned()), 'x', vec![External::Tuple(1, "b".into())]);
    let (bytes, flags) = codec.encode(&value).unwrap();
    let read: (i128, Option<String>, char, Vec<External>) = codec.decode(&bytes, flags).unwrap();
    assert_eq!(format!("{read:?}"), format!("{value:?}"));
    let idle = AnyCodec::new(Idle).decode::<u8>(b"", 0);
    assert!(matches!(&idle, Err(Error::Value(what)) if what.contains("Target::read")), "{idle:?}");
}

/// Behind the trait the built-in encoding does what it does in front.
#[test]
fn the_built_in_encoding_is_a_codec_too() {
    for encoding in encodings() {
        let erased = AnyCodec::new(encoding);
        let (bytes, flags) = encoding.encode("[1, 2]").unwrap();
        assert_eq!(erased.encode("[1, 2]").unwrap(), (bytes, flags));
        // Read as text first, then as JSON: the place for the value may be tried twice.
        assert_eq!(erased.decode::<Vec<u16>>(b"[1, 2]", 0), Ok(vec![1, 2]));
        assert_eq!(erased.decode::<String>(b"[1, 2]", 0), Ok("[1, 2]".to_owned()));
    }
}
