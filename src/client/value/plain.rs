//! Plain forms of values: what every client stores alike, and how a type reads them. Owns a serde
//! deserializer over one such form.

use serde::de::value::SeqDeserializer;
use serde::de::{Deserializer, IntoDeserializer, Visitor};
use std::borrow::Cow;
use std::fmt;

/// A value that needs no format.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::client) enum Plain {
    Text(String),
    Integer {
        value: i128,
        /// Width of the type it had.
        bits: u32,
    },
    Float(f64),
    Bool(bool),
    /// Bytes, or text or digits that nobody marked as such: the type asked for decides.
    Bytes(Vec<u8>),
}

/// Why a type cannot be read from a plain form.
#[derive(Debug)]
pub(in crate::client) struct Mismatch(pub String);

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

pub(in crate::client) struct PlainDeserializer(pub Plain);

impl PlainDeserializer {
    /// As a number of this kind: the number itself, or the digits of a text.
    fn parse<T: std::str::FromStr>(&self) -> Result<T, Mismatch> {
        let text = match &self.0 {
            Plain::Text(text) => Cow::Borrowed(text.as_str()),
            // A counter that was decremented may end in blanks.
            Plain::Bytes(bytes) => String::from_utf8_lossy(bytes),
            Plain::Integer { value, .. } => value.to_string().into(),
            Plain::Float(value) => value.to_string().into(),
            Plain::Bool(value) => u8::from(*value).to_string().into(),
        };
        text.trim().parse().map_err(|_| {
            let shown: String = text.chars().take(40).collect();
            Mismatch(format!("{shown:?} is no {}", std::any::type_name::<T>()))
        })
    }
}

macro_rules! numbers {
    ($($method:ident $visit:ident $kind:ty),*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
            visitor.$visit(self.parse::<$kind>()?)
        }
    )*};
}

impl<'de> Deserializer<'de> for PlainDeserializer {
    type Error = Mismatch;

    numbers!(deserialize_i8 visit_i8 i8, deserialize_i16 visit_i16 i16,
        deserialize_i32 visit_i32 i32, deserialize_i64 visit_i64 i64,
        deserialize_i128 visit_i128 i128, deserialize_u8 visit_u8 u8,
        deserialize_u16 visit_u16 u16, deserialize_u32 visit_u32 u32,
        deserialize_u64 visit_u64 u64, deserialize_u128 visit_u128 u128,
        deserialize_f32 visit_f32 f32, deserialize_f64 visit_f64 f64);

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        match self.0 {
            Plain::Text(text) => visitor.visit_string(text),
            Plain::Integer { value, .. } => match i64::try_from(value) {
                Ok(value) => visitor.visit_i64(value),
                Err(_) => visitor.visit_i128(value),
            },
            Plain::Float(value) => visitor.visit_f64(value),
            Plain::Bool(value) => visitor.visit_bool(value),
            Plain::Bytes(bytes) => match String::from_utf8(bytes) {
                Ok(text) => visitor.visit_string(text),
                Err(error) => visitor.visit_byte_buf(error.into_bytes()),
            },
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        match &self.0 {
            Plain::Bool(value) => visitor.visit_bool(*value),
            _ => match self.parse::<String>()?.as_str() {
                "1" | "true" | "True" => visitor.visit_bool(true),
                "0" | "false" | "False" => visitor.visit_bool(false),
                other => Err(Mismatch(format!("{other:?} is no bool"))),
            },
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        match self.0 {
            Plain::Text(text) => visitor.visit_string(text),
            Plain::Bytes(bytes) => {
                let text = String::from_utf8(bytes);
                visitor.visit_string(text.map_err(|_| Mismatch("bytes that are no text".into()))?)
            }
            _ => visitor.visit_string(self.parse()?),
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
            Plain::Bytes(bytes) => visitor.visit_byte_buf(bytes),
            Plain::Text(text) => visitor.visit_byte_buf(text.into_bytes()),
            _ => visitor.visit_byte_buf(self.parse::<String>()?.into_bytes()),
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

    /// Rows of bytes. The elements are offered as bytes only, so that a row of anything else falls
    /// back to JSON.
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        let bytes = match self.0 {
            Plain::Bytes(bytes) => bytes,
            // An empty row is written as JSON, and some families mark that as text.
            Plain::Text(text) if text == "[]" => Vec::new(),
            Plain::Text(text) => text.into_bytes(),
            _ => return Err(Mismatch("a single value is no row".into())),
        };
        let mut row = SeqDeserializer::<_, Mismatch>::new(bytes.into_iter().map(Byte));
        let value = visitor.visit_seq(&mut row)?;
        row.end()?;
        Ok(value)
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

/// One byte of a row.
struct Byte(u8);

impl IntoDeserializer<'_, Mismatch> for Byte {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> Deserializer<'de> for Byte {
    type Error = Mismatch;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Mismatch> {
        Err(Mismatch("bytes are no row of this type".into()))
    }

    fn deserialize_u8<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        visitor.visit_u8(self.0)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit unit_struct newtype_struct seq tuple tuple_struct map struct enum identifier
        ignored_any
    }
}
