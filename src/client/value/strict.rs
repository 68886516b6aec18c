//! Refuses values that a format would write and not read back as they were. Owns a serde serializer
//! that writes nothing; knows what JSON and postcard lose.

use serde::ser::{self, Serialize, Serializer};
use std::fmt;

/// Arrays and objects within one another that serde_json reads.
const JSON_DEPTH_MAX: u32 = 127;

/// What is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Json,
    #[cfg(feature = "postcard")]
    Postcard,
}

/// Whether a format gives this value back.
///
/// # Errors
/// What it would lose, or why the value does not serialize.
pub(super) fn check<T: Serialize + ?Sized>(value: &T, format: Format) -> Result<(), Loss> {
    value.serialize(Strict { format, depth: 0 }).map(|_| ())
}

/// What would be lost.
#[derive(Debug)]
pub(super) struct Loss(pub String);

impl fmt::Display for Loss {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl std::error::Error for Loss {}

impl ser::Error for Loss {
    fn custom<T: fmt::Display>(what: T) -> Self {
        Self(what.to_string())
    }
}

/// What a value looks like in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Looks {
    LikeNull,
    Otherwise,
}

#[derive(Clone, Copy)]
struct Strict {
    format: Format,
    /// Arrays and objects around the value.
    depth: u32,
}

impl Strict {
    /// The rules for what stands within one more array or object.
    fn inside(self) -> Result<Self, Loss> {
        let depth = self.depth + 1;
        match self.format {
            Format::Json if depth > JSON_DEPTH_MAX => Err(Loss(format!(
                "more than {JSON_DEPTH_MAX} levels deep, which JSON's reader refuses"
            ))),
            _ => Ok(Self { depth, ..self }),
        }
    }

    fn float(self, is_finite: bool) -> Result<Looks, Loss> {
        match self.format {
            Format::Json if !is_finite => {
                Err(Loss("JSON has no infinity and no NaN; store a string, or use postcard".into()))
            }
            _ => Ok(Looks::Otherwise),
        }
    }

    fn element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Loss> {
        value.serialize(*self).map(|_| ())
    }

    /// postcard tells fields by their places.
    #[cfg_attr(not(feature = "postcard"), allow(unused_variables, reason = "JSON names fields"))]
    fn skipped(self, field: &str) -> Result<(), Loss> {
        match self.format {
            Format::Json => Ok(()),
            #[cfg(feature = "postcard")]
            Format::Postcard => {
                Err(Loss(format!("field {field:?} is left out, after which postcard is lost")))
            }
        }
    }
}

macro_rules! scalars {
    ($($method:ident($($argument:ty),*)),* $(,)?) => {$(
        fn $method(self, $(_: $argument),*) -> Result<Looks, Loss> {
            Ok(Looks::Otherwise)
        }
    )*};
}

macro_rules! containers {
    ($($method:ident($($argument:ty),*)),* $(,)?) => {$(
        fn $method(self, $(_: $argument),*) -> Result<Self, Loss> {
            self.inside()
        }
    )*};
}

impl Serializer for Strict {
    type Ok = Looks;
    type Error = Loss;
    type SerializeSeq = Self;
    type SerializeTuple = Self;
    type SerializeTupleStruct = Self;
    type SerializeTupleVariant = Self;
    type SerializeMap = Self;
    type SerializeStruct = Self;
    type SerializeStructVariant = Self;

    scalars!(
        serialize_bool(bool),
        serialize_i8(i8),
        serialize_i16(i16),
        serialize_i32(i32),
        serialize_i64(i64),
        serialize_i128(i128),
        serialize_u8(u8),
        serialize_u16(u16),
        serialize_u32(u32),
        serialize_u64(u64),
        serialize_u128(u128),
        serialize_char(char),
        serialize_str(&str),
        serialize_bytes(&[u8]),
        serialize_unit_variant(&'static str, u32, &'static str)
    );

    containers!(
        serialize_seq(Option<usize>),
        serialize_tuple(usize),
        serialize_tuple_struct(&'static str, usize),
        serialize_map(Option<usize>),
        serialize_struct(&'static str, usize)
    );

    fn collect_str<T: fmt::Display + ?Sized>(self, _: &T) -> Result<Looks, Loss> {
        Ok(Looks::Otherwise)
    }

    fn is_human_readable(&self) -> bool {
        self.format == Format::Json
    }

    fn serialize_f32(self, value: f32) -> Result<Looks, Loss> {
        self.float(value.is_finite())
    }

    fn serialize_f64(self, value: f64) -> Result<Looks, Loss> {
        self.float(value.is_finite())
    }

    fn serialize_none(self) -> Result<Looks, Loss> {
        Ok(Looks::LikeNull)
    }

    fn serialize_unit(self) -> Result<Looks, Loss> {
        Ok(Looks::LikeNull)
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<Looks, Loss> {
        Ok(Looks::LikeNull)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<Looks, Loss> {
        match value.serialize(self)? {
            Looks::LikeNull if self.format == Format::Json => {
                Err(Loss("JSON cannot tell Some(None) and Some(()) from None".into()))
            }
            looks => Ok(looks),
        }
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<Looks, Loss> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        value: &T,
    ) -> Result<Looks, Loss> {
        value.serialize(self.inside()?)?;
        Ok(Looks::Otherwise)
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self, Loss> {
        self.inside()?.inside()
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self, Loss> {
        self.inside()?.inside()
    }
}

macro_rules! rows {
    ($($kind:ident $method:ident),*) => {$(
        impl ser::$kind for Strict {
            type Ok = Looks;
            type Error = Loss;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Loss> {
                self.element(value)
            }

            fn end(self) -> Result<Looks, Loss> {
                Ok(Looks::Otherwise)
            }
        }
    )*};
}

rows!(SerializeSeq serialize_element, SerializeTuple serialize_element,
    SerializeTupleStruct serialize_field, SerializeTupleVariant serialize_field);

macro_rules! structs {
    ($($kind:ident),*) => {$(
        impl ser::$kind for Strict {
            type Ok = Looks;
            type Error = Loss;

            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                _: &'static str,
                value: &T,
            ) -> Result<(), Loss> {
                self.element(value)
            }

            fn skip_field(&mut self, field: &'static str) -> Result<(), Loss> {
                self.skipped(field)
            }

            fn end(self) -> Result<Looks, Loss> {
                Ok(Looks::Otherwise)
            }
        }
    )*};
}

structs!(SerializeStruct, SerializeStructVariant);

impl ser::SerializeMap for Strict {
    type Ok = Looks;
    type Error = Loss;

    /// The formats themselves refuse what cannot be a key.
    fn serialize_key<T: Serialize + ?Sized>(&mut self, _: &T) -> Result<(), Loss> {
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Loss> {
        self.element(value)
    }

    fn end(self) -> Result<Looks, Loss> {
        Ok(Looks::Otherwise)
    }
}
