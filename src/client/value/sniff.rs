//! Finds out whether a value has a plain form, by looking on while it serializes. Owns a serde
//! serializer that writes nothing.

use crate::client::value::plain::Plain;
use serde::ser::{Impossible, Serialize, SerializeSeq, SerializeTuple, Serializer};
use std::fmt;

/// The plain form of a value; `None` for what has structure, or fails.
pub(in crate::client) fn sniff<T: Serialize + ?Sized>(value: &T) -> Option<Plain> {
    value.serialize(Sniffer).ok()
}

/// The value has no plain form.
#[derive(Debug)]
pub(in crate::client) struct Structured;

impl fmt::Display for Structured {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("no plain form")
    }
}

impl std::error::Error for Structured {}

impl serde::ser::Error for Structured {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self
    }
}

struct Sniffer;

/// Rows whose elements are all bytes.
struct Row(Vec<u8>);

macro_rules! integers {
    ($($method:ident $kind:ty),*) => {$(
        fn $method(self, value: $kind) -> Result<Plain, Structured> {
            let value = i128::try_from(value).map_err(|_| Structured)?;
            Ok(Plain::Integer { value, bits: <$kind>::BITS })
        }
    )*};
}

macro_rules! structured {
    ($($method:ident($($argument:ty),*) -> $result:ty),* $(,)?) => {$(
        fn $method(self, $(_: $argument),*) -> Result<$result, Structured> {
            Err(Structured)
        }
    )*};
}

impl Serializer for Sniffer {
    type Ok = Plain;
    type Error = Structured;
    type SerializeSeq = Row;
    type SerializeTuple = Row;
    type SerializeTupleStruct = Impossible<Plain, Structured>;
    type SerializeTupleVariant = Impossible<Plain, Structured>;
    type SerializeMap = Impossible<Plain, Structured>;
    type SerializeStruct = Impossible<Plain, Structured>;
    type SerializeStructVariant = Impossible<Plain, Structured>;

    integers!(serialize_i8 i8, serialize_i16 i16, serialize_i32 i32, serialize_i64 i64,
        serialize_u8 u8, serialize_u16 u16, serialize_u32 u32, serialize_u64 u64,
        serialize_i128 i128, serialize_u128 u128);

    structured!(
        serialize_none() -> Plain,
        serialize_unit() -> Plain,
        serialize_unit_struct(&'static str) -> Plain,
        serialize_unit_variant(&'static str, u32, &'static str) -> Plain,
        serialize_tuple_struct(&'static str, usize) -> Self::SerializeTupleStruct,
        serialize_tuple_variant(&'static str, u32, &'static str, usize)
            -> Self::SerializeTupleVariant,
        serialize_map(Option<usize>) -> Self::SerializeMap,
        serialize_struct(&'static str, usize) -> Self::SerializeStruct,
        serialize_struct_variant(&'static str, u32, &'static str, usize)
            -> Self::SerializeStructVariant,
    );

    fn serialize_bool(self, value: bool) -> Result<Plain, Structured> {
        Ok(Plain::Bool(value))
    }

    fn serialize_f32(self, value: f32) -> Result<Plain, Structured> {
        self.serialize_f64(value.into())
    }

    fn serialize_f64(self, value: f64) -> Result<Plain, Structured> {
        Ok(Plain::Float(value))
    }

    fn serialize_char(self, value: char) -> Result<Plain, Structured> {
        Ok(Plain::Text(value.into()))
    }

    fn serialize_str(self, value: &str) -> Result<Plain, Structured> {
        Ok(Plain::Text(value.to_owned()))
    }

    fn serialize_bytes(self, value: &[u8]) -> Result<Plain, Structured> {
        Ok(Plain::Bytes(value.to_vec()))
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<Plain, Structured> {
        value.serialize(self)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<Plain, Structured> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Result<Plain, Structured> {
        Err(Structured)
    }

    fn serialize_seq(self, length: Option<usize>) -> Result<Row, Structured> {
        Ok(Row(Vec::with_capacity(length.unwrap_or(0).min(1 << 20))))
    }

    fn serialize_tuple(self, length: usize) -> Result<Row, Structured> {
        self.serialize_seq(Some(length))
    }
}

impl Row {
    fn push<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Structured> {
        match value.serialize(Sniffer) {
            Ok(Plain::Integer { value, bits: 8 }) => {
                self.0.push(u8::try_from(value).map_err(|_| Structured)?);
                Ok(())
            }
            _ => Err(Structured),
        }
    }

    /// A row of nothing may be a row of anything, and JSON tells it from empty bytes.
    fn finish(self) -> Result<Plain, Structured> {
        if self.0.is_empty() { Err(Structured) } else { Ok(Plain::Bytes(self.0)) }
    }
}

impl SerializeSeq for Row {
    type Ok = Plain;
    type Error = Structured;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Structured> {
        self.push(value)
    }

    fn end(self) -> Result<Plain, Structured> {
        self.finish()
    }
}

impl SerializeTuple for Row {
    type Ok = Plain;
    type Error = Structured;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Structured> {
        self.push(value)
    }

    fn end(self) -> Result<Plain, Structured> {
        self.finish()
    }
}
