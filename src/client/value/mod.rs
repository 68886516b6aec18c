//! Values: from serde's types to bytes with flags and back, in the ways other clients write theirs.
//! No I/O.
//!
//! A string, an integer, a boolean, a float and a row of bytes are recognised by how they
//! serialize, and each family of clients has its plain form for them; everything else becomes JSON
//! (or postcard).

pub(in crate::client) mod plain;
pub(in crate::client) mod sniff;

use crate::client::error::Error;
use crate::client::value::plain::{Plain, PlainDeserializer};
use crate::client::value::sniff::sniff;
use flate2::read::{GzDecoder, ZlibDecoder};
use flate2::write::{GzEncoder, ZlibEncoder};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::borrow::Cow;
use std::io::{Read, Write};

/// Bits of the flags as Python's clients and this one use them.
mod python {
    pub const PICKLE: u32 = 1;
    pub const INTEGER: u32 = 2;
    pub const LONG: u32 = 4;
    pub const ZLIB: u32 = 8;
    pub const TEXT: u32 = 16;
    pub const ZSTD: u32 = 32;
    /// Ours, beside the bits above.
    pub const JSON: u32 = 64;
    pub const POSTCARD: u32 = 128;
}

/// Flags of php-memcached: a type in the lowest four bits, then how it is compressed.
mod php {
    pub const TYPE: u32 = 15;
    pub const STRING: u32 = 0;
    pub const LONG: u32 = 1;
    pub const DOUBLE: u32 = 2;
    pub const BOOL: u32 = 3;
    pub const JSON: u32 = 6;
    pub const COMPRESSED: u32 = 16;
    pub const ZLIB: u32 = 32;
    pub const ZSTD: u32 = 128;
}

/// Flags of spymemcached's SerializingTranscoder.
mod java {
    pub const SERIALIZED: u32 = 1;
    pub const GZIP: u32 = 2;
    pub const TYPE: u32 = 0xff00;
    pub const BOOLEAN: u32 = 0x100;
    pub const INT: u32 = 0x200;
    pub const LONG: u32 = 0x300;
    pub const DATE: u32 = 0x400;
    pub const BYTE: u32 = 0x500;
    pub const FLOAT: u32 = 0x600;
    pub const DOUBLE: u32 = 0x700;
    pub const BYTES: u32 = 0x800;
}

/// Whose values are read and written.
///
/// | family | string | integer | bytes | float, boolean | else | compressed |
/// |---|---|---|---|---|---|---|
/// | `Plain` | 0 | digits, 0 | 0 | JSON, 64 | JSON 64, postcard 128 | zlib 8, zstd 32 |
/// | `Python` | 16 | digits, 2 | 0 | JSON, 16 | JSON, 16 | zlib 8 |
/// | `Php` | 0 | digits, 1 | 0 | 2, 3 | JSON, 6 | zlib 48, zstd 144 |
/// | `Spymemcached` | 0 | binary, 0x200, 0x300 | 0x800 | 0x700, 0x100 | JSON, 0 | gzip 2 |
///
/// `Python` is what pymemcache (with its `serde`), pylibmc and python-memcached write; `Plain`
/// reads all of that too. Values serialized by a language for itself (pickle, PHP's and Java's
/// serialization, igbinary) and those compressed with fastlz are refused with `Error::Value`.
///
/// Only digits can be incremented: with `Spymemcached`, set counters as strings, as Java programs
/// do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Family {
    /// What all clients can read, wherever there is such a form.
    #[default]
    Plain,
    /// pymemcache, pylibmc, python-memcached, python-binary-memcached.
    Python,
    /// php-memcached.
    Php,
    /// spymemcached and xmemcached.
    Spymemcached,
}

/// How values without a plain form are written by [`Family::Plain`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Format {
    /// Readable by everybody.
    #[default]
    Json,
    /// Compact; readable where the same Rust type is known.
    #[cfg(feature = "postcard")]
    Postcard,
}

/// Whether large values are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Compression {
    /// No value is.
    #[default]
    Off,
    /// Values of at least so many bytes are, if that makes them smaller: with zlib, or with gzip in
    /// the family `Spymemcached`.
    Zlib {
        /// Smaller values stay as they are.
        bytes_min: usize,
    },
    /// The same with zstd, in the families `Plain` and `Php`.
    #[cfg(feature = "zstd")]
    Zstd {
        /// Smaller values stay as they are.
        bytes_min: usize,
    },
}

/// How values become bytes and flags.
///
/// ```
/// use distcache::client::{Codec, Family};
///
/// let codec = Codec::default();
/// assert_eq!(codec.encode("football")?, (b"football".to_vec(), 0));
/// assert_eq!(codec.encode(&42)?, (b"42".to_vec(), 0));
/// assert_eq!(codec.encode(&(1, "a"))?, (br#"[1,"a"]"#.to_vec(), 64));
/// assert_eq!(codec.decode::<u8>(b"42", 0)?, 42);
///
/// let php = Codec { family: Family::Php, ..Codec::default() };
/// assert_eq!(php.encode(&true)?, (b"1".to_vec(), 3));
/// # Ok::<(), distcache::client::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Codec {
    /// Whose values.
    pub family: Family,
    /// How values without a plain form are written.
    pub format: Format,
    /// Whether large values are compressed.
    pub compression: Compression,
    /// A compressed value that would become larger than this is refused: a few bytes may hold
    /// gigabytes.
    pub decompressed_bytes_max: usize,
}

impl Default for Codec {
    fn default() -> Self {
        Self {
            family: Family::default(),
            format: Format::default(),
            compression: Compression::default(),
            decompressed_bytes_max: 1 << 30,
        }
    }
}

fn wrong(what: impl Into<String>) -> Error {
    Error::Value(what.into())
}

impl Codec {
    /// The bytes and flags that stand for a value.
    ///
    /// # Errors
    /// `Error::Value`: the value cannot be serialized, such as a map whose keys are no strings in
    /// JSON.
    pub fn encode<T: Serialize + ?Sized>(&self, value: &T) -> Result<(Vec<u8>, u32), Error> {
        let (bytes, flags) = match sniff(value) {
            Some(plain) => self.encode_plain(plain)?,
            None => self.encode_other(value)?,
        };
        self.compress(bytes, flags)
    }

    fn encode_plain(&self, plain: Plain) -> Result<(Vec<u8>, u32), Error> {
        Ok(match (self.family, plain) {
            (Family::Python, Plain::Text(text)) => (text.into_bytes(), python::TEXT),
            (Family::Python, Plain::Integer { value, .. }) => {
                (value.to_string().into_bytes(), python::INTEGER)
            }
            (Family::Php, Plain::Integer { value, .. }) => {
                (value.to_string().into_bytes(), php::LONG)
            }
            (Family::Php, Plain::Float(value)) => (value.to_string().into_bytes(), php::DOUBLE),
            (Family::Php, Plain::Bool(value)) => {
                (if value { b"1".to_vec() } else { Vec::new() }, php::BOOL)
            }
            (Family::Spymemcached, plain) => java_plain(plain)?,
            (_, Plain::Text(text)) => (text.into_bytes(), 0),
            (_, Plain::Integer { value, .. }) => {
                (itoa::Buffer::new().format(value).as_bytes().to_vec(), 0)
            }
            (_, Plain::Bytes(bytes)) => (bytes, 0),
            (_, Plain::Float(value)) => self.encode_other(&value)?,
            (_, Plain::Bool(value)) => self.encode_other(&value)?,
        })
    }

    fn encode_other<T: Serialize + ?Sized>(&self, value: &T) -> Result<(Vec<u8>, u32), Error> {
        #[cfg(feature = "postcard")]
        if self.format == Format::Postcard && self.family == Family::Plain {
            let bytes = postcard::to_stdvec(value);
            let bytes = bytes.map_err(|error| wrong(format!("cannot be written: {error}")))?;
            return Ok((bytes, python::POSTCARD));
        }
        let bytes = serde_json::to_vec(value);
        let bytes = bytes.map_err(|error| wrong(format!("cannot be written as JSON: {error}")))?;
        Ok(match self.family {
            Family::Plain => (bytes, python::JSON),
            Family::Python => (bytes, python::TEXT),
            Family::Php => (bytes, php::JSON),
            Family::Spymemcached => (bytes, 0),
        })
    }

    fn compress(&self, bytes: Vec<u8>, flags: u32) -> Result<(Vec<u8>, u32), Error> {
        let failed = |error: std::io::Error| wrong(format!("cannot be compressed: {error}"));
        let (packed, flag) = match self.compression {
            Compression::Zlib { bytes_min } if bytes.len() >= bytes_min => match self.family {
                Family::Spymemcached => (gzip(&bytes).map_err(failed)?, java::GZIP),
                Family::Php => (
                    with_length(&bytes, zlib(&bytes).map_err(failed)?),
                    php::COMPRESSED | php::ZLIB,
                ),
                _ => (zlib(&bytes).map_err(failed)?, python::ZLIB),
            },
            #[cfg(feature = "zstd")]
            Compression::Zstd { bytes_min } if bytes.len() >= bytes_min => {
                let packed = || zstd::bulk::compress(&bytes, 0).map_err(failed);
                match self.family {
                    Family::Plain => (packed()?, python::ZSTD),
                    Family::Php => (with_length(&bytes, packed()?), php::COMPRESSED | php::ZSTD),
                    _ => return Ok((bytes, flags)),
                }
            }
            _ => return Ok((bytes, flags)),
        };
        Ok(if packed.len() < bytes.len() { (packed, flags | flag) } else { (bytes, flags) })
    }

    /// The value that bytes and flags stand for.
    ///
    /// # Errors
    /// `Error::Value`: the bytes are no such value, or were written in a form that only the other
    /// language reads.
    pub fn decode<T: DeserializeOwned>(&self, bytes: &[u8], flags: u32) -> Result<T, Error> {
        let bytes = self.unpack(bytes, flags)?;
        let read = |plain| T::deserialize(PlainDeserializer(plain)).map_err(|error| wrong(error.0));
        match self.family {
            Family::Plain | Family::Python => match flags & !(python::ZLIB | python::ZSTD) {
                python::JSON => from_json(&bytes),
                python::POSTCARD => from_postcard(&bytes),
                python::PICKLE => Err(wrong("pickled by Python, which only Python reads")),
                kind @ (0 | python::INTEGER | python::LONG | python::TEXT) => {
                    read_or_json(&bytes, kind == python::TEXT)
                }
                _ => Err(wrong(format!("flags {flags} of an unknown client"))),
            },
            Family::Php => match flags & php::TYPE {
                php::STRING | php::LONG | php::DOUBLE => read_or_json(&bytes, false),
                php::BOOL => read(Plain::Bool(bytes.first().is_some_and(|byte| *byte != b'0'))),
                php::JSON => from_json(&bytes),
                kind => {
                    Err(wrong(format!("serialized by PHP (type {kind}), which only PHP reads")))
                }
            },
            Family::Spymemcached if flags & java::SERIALIZED != 0 => {
                Err(wrong("serialized by Java, which only Java reads"))
            }
            Family::Spymemcached => match java_read(&bytes, flags)? {
                Some(plain) => read(plain),
                None => read_or_json(&bytes, true),
            },
        }
    }

    /// The bytes without their compression.
    pub(in crate::client) fn unpack<'a>(
        &self,
        bytes: &'a [u8],
        flags: u32,
    ) -> Result<Cow<'a, [u8]>, Error> {
        let has = |flag| flags & flag != 0;
        match self.family {
            Family::Plain | Family::Python if has(python::ZLIB) => {
                self.read_all(ZlibDecoder::new(bytes))
            }
            Family::Plain | Family::Python if has(python::ZSTD) => self.unzstd(bytes),
            Family::Spymemcached if has(java::GZIP) => self.read_all(GzDecoder::new(bytes)),
            Family::Php if has(php::COMPRESSED) => {
                let packed = bytes.get(4..).ok_or_else(|| wrong("a compressed value cut short"))?;
                if has(php::ZLIB) {
                    self.read_all(ZlibDecoder::new(packed))
                } else if has(php::ZSTD) {
                    self.unzstd(packed)
                } else {
                    Err(wrong("compressed with fastlz; set memcached.compression_type=zlib in PHP"))
                }
            }
            _ => Ok(Cow::Borrowed(bytes)),
        }
    }

    fn read_all(&self, reader: impl Read) -> Result<Cow<'static, [u8]>, Error> {
        let mut out = Vec::new();
        let limit = self.decompressed_bytes_max as u64;
        let read = reader.take(limit.saturating_add(1)).read_to_end(&mut out);
        read.map_err(|error| wrong(format!("cannot be decompressed: {error}")))?;
        if out.len() > self.decompressed_bytes_max {
            return Err(wrong("decompresses to more than decompressed_bytes_max"));
        }
        Ok(Cow::Owned(out))
    }

    #[cfg(feature = "zstd")]
    fn unzstd(&self, bytes: &[u8]) -> Result<Cow<'static, [u8]>, Error> {
        let reader = zstd::stream::read::Decoder::new(bytes);
        self.read_all(reader.map_err(|error| wrong(format!("cannot be decompressed: {error}")))?)
    }

    #[cfg(not(feature = "zstd"))]
    fn unzstd(&self, _bytes: &[u8]) -> Result<Cow<'static, [u8]>, Error> {
        Err(wrong("compressed with zstd; build with the feature `zstd`"))
    }
}

/// A value without a mark of its kind, or with that of text: what the type asked for makes of the
/// bytes, and JSON if that is nothing.
fn read_or_json<T: DeserializeOwned>(bytes: &[u8], is_text: bool) -> Result<T, Error> {
    let plain = match is_text.then(|| std::str::from_utf8(bytes)) {
        Some(Ok(text)) => Plain::Text(text.to_owned()),
        _ => Plain::Bytes(bytes.to_vec()),
    };
    T::deserialize(PlainDeserializer(plain))
        .or_else(|error| from_json(bytes).map_err(|_| wrong(error.0)))
}

fn from_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(bytes).map_err(|error| wrong(format!("not of this type: {error}")))
}

#[cfg(feature = "postcard")]
fn from_postcard<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    postcard::from_bytes(bytes).map_err(|error| wrong(format!("not of this type: {error}")))
}

#[cfg(not(feature = "postcard"))]
fn from_postcard<T: DeserializeOwned>(_bytes: &[u8]) -> Result<T, Error> {
    Err(wrong("written with postcard; build with the feature `postcard`"))
}

fn zlib(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = ZlibEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes)?;
    encoder.finish()
}

fn gzip(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes)?;
    encoder.finish()
}

/// php-memcached puts the length before the compressed bytes, as the machine stores it.
fn with_length(bytes: &[u8], packed: Vec<u8>) -> Vec<u8> {
    [&(bytes.len() as u32).to_le_bytes()[..], &packed].concat()
}

/// spymemcached's form of integers: big-endian, without leading zeros.
fn java_integer(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().copied().skip_while(|byte| *byte == 0).collect()
}

fn java_plain(plain: Plain) -> Result<(Vec<u8>, u32), Error> {
    Ok(match plain {
        Plain::Text(text) => (text.into_bytes(), 0),
        Plain::Bytes(bytes) => (bytes, java::BYTES),
        Plain::Bool(value) => (if value { b"1".to_vec() } else { b"0".to_vec() }, java::BOOLEAN),
        Plain::Float(value) => (java_integer(&value.to_bits().to_be_bytes()), java::DOUBLE),
        Plain::Integer { value, bits } => {
            match (bits, i32::try_from(value), i64::try_from(value)) {
                (..=32, Ok(value), _) => (java_integer(&value.to_be_bytes()), java::INT),
                (_, _, Ok(value)) => (java_integer(&value.to_be_bytes()), java::LONG),
                _ => return Err(wrong("an integer larger than Java's long")),
            }
        }
    })
}

/// What Java marked with a kind; `None` is a string.
fn java_read(bytes: &[u8], flags: u32) -> Result<Option<Plain>, Error> {
    let number = || {
        let fits = bytes.len() <= 8;
        let number = bytes.iter().fold(0u64, |number, byte| (number << 8) | u64::from(*byte));
        fits.then_some(number).ok_or_else(|| wrong("a number of more than eight bytes"))
    };
    let integer = |value: i64, bits| Plain::Integer { value: value.into(), bits };
    Ok(Some(match flags & java::TYPE {
        java::BOOLEAN => Plain::Bool(bytes == b"1"),
        java::INT => integer(i64::from(number()? as u32 as i32), 32),
        java::LONG | java::DATE => integer(number()? as i64, 64),
        java::BYTE => integer(i64::from(number()? as u8 as i8), 8),
        java::FLOAT => Plain::Float(f32::from_bits(number()? as u32).into()),
        java::DOUBLE => Plain::Float(f64::from_bits(number()?)),
        java::BYTES => Plain::Bytes(bytes.to_vec()),
        _ => return Ok(None),
    }))
}
