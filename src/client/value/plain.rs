//! Plain forms of values: what every client stores alike, and how a type reads them. Owns a serde
//! deserializer over one such form.

use serde::de::value::SeqDeserializer;
use serde::de::{Deserializer, IntoDeserializer, Visitor};
use std::borrow::Cow;
use std::fmt;

/// A value as it is stored plain.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Plain<'a> {
    /// Text, digits or bytes. A type that says what it wants is given that.
    Bytes(&'a [u8], Seen),
    Integer(i64),
    Float(f64),
    Bool(bool),
}

/// What bytes are to a type that takes what comes: serde's untagged enums, `serde_json::Value`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    Text,
    Integer,
    Float,
    Row,
}

/// Whether bytes are an integer as one writes it: no leading zeros, no `+`, within 128 bits.
/// memcached fills up with blanks behind a counter that it decrements, and has it so.
pub(super) fn is_integer(bytes: &[u8]) -> bool {
    let digits = bytes.trim_ascii_end();
    let unsigned = digits.strip_prefix(b"-").unwrap_or(digits);
    let canonical = match unsigned {
        [b'0'] => digits.len() == 1,
        [b'1'..=b'9', rest @ ..] => rest.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    let blanks = &bytes[digits.len()..];
    canonical && blanks.iter().all(|byte| *byte == b' ') && integer(digits).is_some()
}

/// An integer of up to 128 bits.
enum Integer {
    Unsigned(u128),
    Negative(i128),
}

fn integer(digits: &[u8]) -> Option<Integer> {
    let digits = std::str::from_utf8(digits).ok()?.trim_ascii_end();
    match digits.parse() {
        Ok(value) => Some(Integer::Unsigned(value)),
        Err(_) => digits.parse().ok().map(Integer::Negative),
    }
}

/// Why a type cannot be read from a plain form.
#[derive(Debug)]
pub(super) struct Mismatch(pub String);

impl fmt::Display for Mismatch {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl std::error::Error for Mismatch {}

impl serde::de::Error for Mismatch {
    fn custom<T: fmt::Display>(what: T) -> Self {
        Self(what.to_string())
    }
}

pub(super) struct PlainDeserializer<'a>(pub Plain<'a>);

impl<'a> PlainDeserializer<'a> {
    /// As one writes it.
    fn text(&self) -> Cow<'a, str> {
        match self.0 {
            Plain::Bytes(bytes, _) => String::from_utf8_lossy(bytes),
            Plain::Integer(value) => value.to_string().into(),
            Plain::Float(value) => value.to_string().into(),
            Plain::Bool(value) => u8::from(value).to_string().into(),
        }
    }

    /// As a number of this kind: the number itself, or the digits of a text.
    fn parse<T: std::str::FromStr>(&self) -> Result<T, Mismatch> {
        let text = self.text();
        // A counter that was decremented may end in blanks.
        text.trim().parse().map_err(|_| {
            let shown: String = text.chars().take(40).collect();
            Mismatch(format!("{shown:?} is no {}", std::any::type_name::<T>()))
        })
    }

    fn row<V: Visitor<'a>>(
        bytes: &[u8],
        shows_numbers: bool,
        visitor: V,
    ) -> Result<V::Value, Mismatch> {
        let elements = bytes.iter().map(|byte| Byte { byte: *byte, shows_numbers });
        let mut row = SeqDeserializer::<_, Mismatch>::new(elements);
        let value = visitor.visit_seq(&mut row)?;
        row.end()?;
        Ok(value)
    }
}

fn visit_integer<'de, V: Visitor<'de>>(integer: Integer, visitor: V) -> Result<V::Value, Mismatch> {
    match integer {
        Integer::Unsigned(value) => match u64::try_from(value) {
            Ok(value) => visitor.visit_u64(value),
            Err(_) => visitor.visit_u128(value),
        },
        Integer::Negative(value) => match i64::try_from(value) {
            Ok(value) => visitor.visit_i64(value),
            Err(_) => visitor.visit_i128(value),
        },
    }
}

macro_rules! numbers {
    ($($method:ident $visit:ident $kind:ty),*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
            visitor.$visit(self.parse::<$kind>()?)
        }
    )*};
}

impl<'de> Deserializer<'de> for PlainDeserializer<'de> {
    type Error = Mismatch;

    numbers!(deserialize_i8 visit_i8 i8, deserialize_i16 visit_i16 i16,
        deserialize_i32 visit_i32 i32, deserialize_i64 visit_i64 i64,
        deserialize_i128 visit_i128 i128, deserialize_u8 visit_u8 u8,
        deserialize_u16 visit_u16 u16, deserialize_u32 visit_u32 u32,
        deserialize_u64 visit_u64 u64, deserialize_u128 visit_u128 u128,
        deserialize_f32 visit_f32 f32, deserialize_f64 visit_f64 f64);

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        match self.0 {
            Plain::Integer(value) => visit_integer(integer_of(value), visitor),
            Plain::Float(value) => visitor.visit_f64(value),
            Plain::Bool(value) => visitor.visit_bool(value),
            Plain::Bytes(bytes, Seen::Row) => Self::row(bytes, true, visitor),
            Plain::Bytes(_, Seen::Float) => visitor.visit_f64(self.parse()?),
            Plain::Bytes(bytes, Seen::Integer) => match integer(bytes) {
                Some(integer) => visit_integer(integer, visitor),
                None => self.deserialize_str(visitor),
            },
            Plain::Bytes(_, Seen::Text) => self.deserialize_str(visitor),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        match self.0 {
            Plain::Bool(value) => visitor.visit_bool(value),
            _ => match self.parse::<String>()?.as_str() {
                "1" | "true" | "True" => visitor.visit_bool(true),
                "0" | "false" | "False" => visitor.visit_bool(false),
                other => Err(Mismatch(format!("{other:?} is no bool"))),
            },
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        match self.0 {
            Plain::Bytes(bytes, _) => {
                let text = std::str::from_utf8(bytes);
                let text = text.map_err(|_| Mismatch("bytes that are no text".into()))?;
                visitor.visit_borrowed_str(text)
            }
            _ => visitor.visit_str(&self.text()),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        self.deserialize_str(visitor)
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        self.deserialize_str(visitor)
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        match self.0 {
            Plain::Bytes(bytes, _) => visitor.visit_borrowed_bytes(bytes),
            _ => visitor.visit_bytes(self.text().as_bytes()),
        }
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        self.deserialize_bytes(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Mismatch> {
        visitor.visit_newtype_struct(self)
    }

    /// Rows of bytes. Text is offered as bytes only, so that a row of anything else falls back to
    /// JSON.
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        match self.0 {
            Plain::Bytes(bytes, seen) => Self::row(bytes, seen == Seen::Row, visitor),
            _ => Err(Mismatch("a single value is no row".into())),
        }
    }

    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, Mismatch> {
        self.deserialize_seq(visitor)
    }

    serde::forward_to_deserialize_any! {
        unit unit_struct tuple_struct map struct enum identifier ignored_any
    }
}

fn integer_of(value: i64) -> Integer {
    match u128::try_from(value) {
        Ok(value) => Integer::Unsigned(value),
        Err(_) => Integer::Negative(value.into()),
    }
}

/// One byte of a row.
struct Byte {
    byte: u8,
    /// To a type that takes what comes it is a number.
    shows_numbers: bool,
}

impl IntoDeserializer<'_, Mismatch> for Byte {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

/// Types that name another kind of element are not what was stored as bytes.
fn no_such_row() -> Mismatch {
    Mismatch("bytes are no row of this type".into())
}

macro_rules! refused {
    ($($method:ident($($argument:ty),*)),* $(,)?) => {$(
        fn $method<V: Visitor<'de>>(self, $(_: $argument,)* _: V) -> Result<V::Value, Mismatch> {
            Err(no_such_row())
        }
    )*};
}

impl<'de> Deserializer<'de> for Byte {
    type Error = Mismatch;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        if self.shows_numbers { visitor.visit_u8(self.byte) } else { Err(no_such_row()) }
    }

    fn deserialize_u8<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        visitor.visit_u8(self.byte)
    }

    refused!(
        deserialize_bool(),
        deserialize_i8(),
        deserialize_i16(),
        deserialize_i32(),
        deserialize_i64(),
        deserialize_i128(),
        deserialize_u16(),
        deserialize_u32(),
        deserialize_u64(),
        deserialize_u128(),
        deserialize_f32(),
        deserialize_f64(),
        deserialize_char(),
        deserialize_str(),
        deserialize_string(),
        deserialize_bytes(),
        deserialize_byte_buf(),
        deserialize_option(),
        deserialize_unit(),
        deserialize_unit_struct(&'static str),
        deserialize_newtype_struct(&'static str),
        deserialize_seq(),
        deserialize_tuple(usize),
        deserialize_tuple_struct(&'static str, usize),
        deserialize_map(),
        deserialize_struct(&'static str, &'static [&'static str]),
        deserialize_enum(&'static str, &'static [&'static str]),
        deserialize_identifier(),
        deserialize_ignored_any(),
    );
}
