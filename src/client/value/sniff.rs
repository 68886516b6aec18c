//! Finds out whether a value may be stored plain, by looking on while it serializes. Owns a serde
//! serializer that writes nothing.

use serde::ser::{Impossible, Serialize, SerializeSeq, SerializeTuple, Serializer};
use std::fmt;

/// Room that a row asks for before its elements are there: lengths are what types say of
/// themselves.
const ROW_CAPACITY_MAX: usize = 1 << 20;

/// A value that can be stored plain, as it showed itself.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Sniffed {
    Text(String),
    Integer {
        digits: String,
        /// Width of the type it had.
        bits: u32,
    },
    Float {
        value: f64,
        /// Width of the type it had.
        bits: u32,
    },
    Bool(bool),
    Row(Vec<u8>),
    /// One element of a row; never what a whole value is.
    Byte(u8),
}

/// How a value shows itself; `None` for what has structure, or fails.
pub(super) fn sniff<T: Serialize + ?Sized>(value: &T) -> Option<Sniffed> {
    value.serialize(Sniffer { in_row: false }).ok()
}

/// The value is not to be stored plain.
#[derive(Debug)]
pub(super) struct Structured;

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

struct Sniffer {
    /// An element of a row: a byte and nothing else.
    in_row: bool,
}

impl Sniffer {
    fn whole(self, found: impl FnOnce() -> Sniffed) -> Result<Sniffed, Structured> {
        if self.in_row { Err(Structured) } else { Ok(found()) }
    }
}

macro_rules! integers {
    ($($method:ident $kind:ty),*) => {$(
        fn $method(self, value: $kind) -> Result<Sniffed, Structured> {
            self.whole(|| Sniffed::Integer {
                digits: itoa::Buffer::new().format(value).to_owned(),
                bits: <$kind>::BITS,
            })
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
    type Ok = Sniffed;
    type Error = Structured;
    type SerializeSeq = Row;
    type SerializeTuple = Row;
    type SerializeTupleStruct = Impossible<Sniffed, Structured>;
    type SerializeTupleVariant = Impossible<Sniffed, Structured>;
    type SerializeMap = Impossible<Sniffed, Structured>;
    type SerializeStruct = Impossible<Sniffed, Structured>;
    type SerializeStructVariant = Impossible<Sniffed, Structured>;

    integers!(serialize_i8 i8, serialize_i16 i16, serialize_i32 i32, serialize_i64 i64,
        serialize_u16 u16, serialize_u32 u32, serialize_u64 u64,
        serialize_i128 i128, serialize_u128 u128);

    structured!(
        serialize_none() -> Sniffed,
        serialize_unit() -> Sniffed,
        serialize_unit_struct(&'static str) -> Sniffed,
        serialize_unit_variant(&'static str, u32, &'static str) -> Sniffed,
        serialize_tuple_struct(&'static str, usize) -> Self::SerializeTupleStruct,
        serialize_tuple_variant(&'static str, u32, &'static str, usize)
            -> Self::SerializeTupleVariant,
        serialize_map(Option<usize>) -> Self::SerializeMap,
        serialize_struct(&'static str, usize) -> Self::SerializeStruct,
        serialize_struct_variant(&'static str, u32, &'static str, usize)
            -> Self::SerializeStructVariant,
    );

    fn serialize_u8(self, value: u8) -> Result<Sniffed, Structured> {
        if self.in_row {
            return Ok(Sniffed::Byte(value));
        }
        Ok(Sniffed::Integer { digits: value.to_string(), bits: u8::BITS })
    }

    fn serialize_bool(self, value: bool) -> Result<Sniffed, Structured> {
        self.whole(|| Sniffed::Bool(value))
    }

    fn serialize_f32(self, value: f32) -> Result<Sniffed, Structured> {
        self.whole(|| Sniffed::Float { value: value.into(), bits: 32 })
    }

    fn serialize_f64(self, value: f64) -> Result<Sniffed, Structured> {
        self.whole(|| Sniffed::Float { value, bits: 64 })
    }

    fn serialize_char(self, value: char) -> Result<Sniffed, Structured> {
        self.whole(|| Sniffed::Text(value.into()))
    }

    fn serialize_str(self, value: &str) -> Result<Sniffed, Structured> {
        self.whole(|| Sniffed::Text(value.to_owned()))
    }

    fn serialize_bytes(self, value: &[u8]) -> Result<Sniffed, Structured> {
        self.whole(|| Sniffed::Row(value.to_vec()))
    }

    fn serialize_some<T: Serialize + ?Sized>(self, _: &T) -> Result<Sniffed, Structured> {
        Err(Structured)
    }

    /// A wrapper is what it wraps, except in a row, whose elements would be read as wrappers.
    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<Sniffed, Structured> {
        if self.in_row { Err(Structured) } else { value.serialize(self) }
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Result<Sniffed, Structured> {
        Err(Structured)
    }

    fn serialize_seq(self, length: Option<usize>) -> Result<Row, Structured> {
        match self.in_row {
            true => Err(Structured),
            false => Ok(Row(Vec::with_capacity(length.unwrap_or(0).min(ROW_CAPACITY_MAX)))),
        }
    }

    fn serialize_tuple(self, length: usize) -> Result<Row, Structured> {
        self.serialize_seq(Some(length))
    }
}

/// A row whose elements so far are all bytes.
pub(super) struct Row(Vec<u8>);

impl Row {
    fn push<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Structured> {
        match value.serialize(Sniffer { in_row: true })? {
            Sniffed::Byte(byte) => {
                self.0.push(byte);
                Ok(())
            }
            _ => Err(Structured),
        }
    }
}

impl SerializeSeq for Row {
    type Ok = Sniffed;
    type Error = Structured;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Structured> {
        self.push(value)
    }

    fn end(self) -> Result<Sniffed, Structured> {
        Ok(Sniffed::Row(self.0))
    }
}

impl SerializeTuple for Row {
    type Ok = Sniffed;
    type Error = Structured;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Structured> {
        SerializeSeq::serialize_element(self, value)
    }

    fn end(self) -> Result<Sniffed, Structured> {
        SerializeSeq::end(self)
    }
}
