//! The built-in encoding: families, formats, and which of them a value and its flags are. Owns the
//! choice; the module above has the rules.

use crate::client::error::Error;
use crate::client::value::codec::{Direct, Slot};
use crate::client::value::flags::{java, ours, php, python};
use crate::client::value::plain::{Plain, PlainDeserializer, Seen, is_integer};
use crate::client::value::sniff::{Sniffed, sniff};
use crate::client::value::strict;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Whose values are read and written.
///
/// | family | string | integer | bytes | float, boolean | else | compressed |
/// |---|---|---|---|---|---|---|
/// | `Plain` | 0 | digits, 0 | 0 | JSON, 64 | JSON 64, postcard 128 | zlib 8, zstd 32 |
/// | `Python` | 16 | digits, 2 | 0 | JSON, 80 | JSON, 80 | zlib 8 |
/// | `Php` | 0 | digits, 1 | 0 | 2, 3 | JSON, 6 | zlib 48, zstd 144 |
/// | `Spymemcached` | 0 | binary, 0x200, 0x300 | 0x800 | 0x600, 0x700, 0x100 | JSON, 64 | gzip 2 |
///
/// The numbers are the flags beside the value. Where 0 alone would be ambiguous, it is 0x10000 for
/// a string and 0x20000 for bytes: a string of digits in `Plain`, bytes that are text in `Plain`
/// and `Php`, bytes that are digits or begin like a JSON array in `Python`. Other clients take
/// these for 0, except python-memcached, which refuses them.
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

impl Family {
    /// What bytes are that nobody marked.
    fn unmarked(self, bytes: &[u8]) -> Seen {
        let is_text = || std::str::from_utf8(bytes).is_ok();
        match self {
            Self::Plain | Self::Python if is_integer(bytes) => Seen::Integer,
            // Python's clients mark their strings. Without a mark, text in JSON is what programs
            // encoded themselves.
            Self::Python if bytes.first() != Some(&b'[') => Seen::Row,
            _ if is_text() => Seen::Text,
            _ => Seen::Row,
        }
    }

    /// The flags of JSON.
    fn json(self) -> u32 {
        match self {
            Self::Plain | Self::Spymemcached => ours::JSON,
            Self::Python => python::TEXT | ours::JSON,
            Self::Php => php::JSON,
        }
    }
}

/// How values that are not stored plain are written by [`Family::Plain`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Format {
    /// Readable by everybody.
    #[default]
    Json,
    /// Compact; readable where the same Rust type is known. Types that look at the data to find out
    /// what it is (untagged and internally tagged enums, `serde(flatten)`, `serde_json::Value`)
    /// cannot be read from it: it does not say.
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

/// The built-in way in which values become bytes and flags.
///
/// ```
/// use distcache::client::{Config, Encoding, Family};
///
/// let encoding = Encoding::default();
/// assert_eq!(encoding.encode("football")?, (b"football".to_vec(), 0));
/// assert_eq!(encoding.encode(&42)?, (b"42".to_vec(), 0));
/// assert_eq!(encoding.encode(&(1, "a"))?, (br#"[1,"a"]"#.to_vec(), 64));
/// assert_eq!(encoding.decode::<u8>(b"42", 0)?, 42);
///
/// let php = Encoding { family: Family::Php, ..Encoding::default() };
/// assert_eq!(php.encode(&true)?, (b"1".to_vec(), 3));
/// let config = Config { codec: php.into(), ..Config::default() };
/// # Ok::<(), distcache::client::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Encoding {
    /// Whose values.
    pub family: Family,
    /// How values that are not stored plain are written.
    pub format: Format,
    /// Whether large values are compressed.
    pub compression: Compression,
    /// A compressed value that would become larger than this is refused: a few bytes may hold
    /// gigabytes.
    pub decompressed_bytes_max: usize,
}

impl Default for Encoding {
    fn default() -> Self {
        Self {
            family: Family::default(),
            format: Format::default(),
            compression: Compression::default(),
            decompressed_bytes_max: 1 << 30,
        }
    }
}

/// What bytes and flags are.
enum Stored<'a> {
    Plain(Plain<'a>),
    Json,
    Postcard,
}

pub(super) fn wrong(what: impl Into<String>) -> Error {
    Error::Value(what.into())
}

impl Encoding {
    /// The bytes and flags that stand for a value.
    ///
    /// # Errors
    /// `Error::Value`: the value cannot be written, or would not be read back as it is: a map whose
    /// keys are no strings, NaN, or `Some(None)` in JSON.
    pub fn encode<T: Serialize + ?Sized>(&self, value: &T) -> Result<(Vec<u8>, u32), Error> {
        let (bytes, flags) = match sniff(value) {
            Some(sniffed) => match self.plain(sniffed)? {
                Some(plain) => plain,
                None => self.structured(value)?,
            },
            None => self.structured(value)?,
        };
        self.compress(bytes, flags)
    }

    /// The family's plain form, if it has one.
    fn plain(&self, sniffed: Sniffed) -> Result<Option<(Vec<u8>, u32)>, Error> {
        if self.family == Family::Spymemcached {
            return java_plain(sniffed).map(Some);
        }
        Ok(match sniffed {
            Sniffed::Text(text) => Some(match self.family {
                Family::Python => (text.into_bytes(), python::TEXT),
                _ => self.marked(text.into_bytes(), Seen::Text, ours::TEXT),
            }),
            Sniffed::Integer { digits, .. } => Some((
                digits.into_bytes(),
                match self.family {
                    Family::Python => python::INTEGER,
                    Family::Php => php::LONG,
                    _ => 0,
                },
            )),
            Sniffed::Row(bytes) => Some(self.marked(bytes, Seen::Row, ours::ROW)),
            Sniffed::Float { value, bits } if self.family == Family::Php => {
                Some((php_float(value, bits).into_bytes(), php::DOUBLE))
            }
            Sniffed::Bool(value) if self.family == Family::Php => {
                Some((if value { b"1".to_vec() } else { Vec::new() }, php::BOOL))
            }
            Sniffed::Float { .. } | Sniffed::Bool(_) | Sniffed::Byte(_) => None,
        })
    }

    /// Without flags where the bytes show what they are.
    fn marked(&self, bytes: Vec<u8>, seen: Seen, mark: u32) -> (Vec<u8>, u32) {
        let flags = if self.family.unmarked(&bytes) == seen { 0 } else { mark };
        (bytes, flags)
    }

    fn structured<T: Serialize + ?Sized>(&self, value: &T) -> Result<(Vec<u8>, u32), Error> {
        let check = |format| {
            let checked = strict::check(value, format);
            checked.map_err(|loss| wrong(format!("cannot be stored: {loss}")))
        };
        #[cfg(feature = "postcard")]
        if self.format == Format::Postcard && self.family == Family::Plain {
            check(strict::Format::Postcard)?;
            let bytes = postcard::to_stdvec(value);
            let bytes = bytes.map_err(|error| wrong(format!("cannot be written: {error}")))?;
            return Ok((bytes, ours::POSTCARD));
        }
        check(strict::Format::Json)?;
        let bytes = serde_json::to_vec(value);
        let bytes = bytes.map_err(|error| wrong(format!("cannot be written as JSON: {error}")))?;
        Ok((bytes, self.family.json()))
    }

    /// The value that bytes and flags stand for.
    ///
    /// # Errors
    /// `Error::Value`: the bytes are no such value, or were written in a form that only the other
    /// language reads.
    pub fn decode<T: DeserializeOwned>(&self, bytes: &[u8], flags: u32) -> Result<T, Error> {
        let mut slot = Direct(None);
        self.decode_into(bytes, flags, &mut slot)?;
        slot.0.ok_or_else(|| wrong("nothing was read"))
    }

    pub(super) fn decode_into(
        &self,
        bytes: &[u8],
        flags: u32,
        slot: &mut impl Slot,
    ) -> Result<(), Error> {
        let bytes = self.unpack(bytes, flags)?;
        let stored = match self.family {
            Family::Plain | Family::Python => self.stored_by_python(&bytes, flags)?,
            Family::Php => self.stored_by_php(&bytes, flags)?,
            Family::Spymemcached => self.stored_by_java(&bytes, flags)?,
        };
        match stored {
            Stored::Json => read_json(&bytes, slot),
            Stored::Postcard => read_postcard(&bytes, slot),
            // What the type asked for makes of the bytes, and JSON if that is nothing.
            Stored::Plain(plain) => slot.fill(PlainDeserializer(plain)).or_else(|mismatch| {
                let json = match plain {
                    Plain::Bytes(bytes, _) => read_json(bytes, slot).ok(),
                    _ => None,
                };
                json.ok_or_else(|| wrong(mismatch.0))
            }),
        }
    }

    fn stored_by_python<'a>(&self, bytes: &'a [u8], flags: u32) -> Result<Stored<'a>, Error> {
        const JSON_TEXT: u32 = python::TEXT | ours::JSON;
        let seen = match flags & !python::COMPRESSED {
            0 => self.family.unmarked(bytes),
            python::INTEGER | python::LONG => Seen::Integer,
            python::TEXT | ours::TEXT => Seen::Text,
            ours::ROW => Seen::Row,
            ours::JSON | JSON_TEXT => return Ok(Stored::Json),
            ours::POSTCARD => return Ok(Stored::Postcard),
            python::PICKLE => return Err(wrong("pickled by Python, which only Python reads")),
            _ => return Err(wrong(format!("flags {flags} of an unknown client"))),
        };
        Ok(Stored::Plain(Plain::Bytes(bytes, seen)))
    }

    fn stored_by_php<'a>(&self, bytes: &'a [u8], flags: u32) -> Result<Stored<'a>, Error> {
        Ok(Stored::Plain(match flags & php::TYPE {
            php::STRING if flags & ours::ROW != 0 => Plain::Bytes(bytes, Seen::Row),
            php::STRING => Plain::Bytes(bytes, self.family.unmarked(bytes)),
            php::LONG => Plain::Bytes(bytes, Seen::Integer),
            php::DOUBLE => Plain::Bytes(bytes, Seen::Float),
            php::BOOL => Plain::Bool(bytes.first().is_some_and(|byte| *byte != b'0')),
            php::JSON => return Ok(Stored::Json),
            kind => {
                let what = format!("serialized by PHP (type {kind}), which only PHP reads");
                return Err(wrong(what));
            }
        }))
    }

    fn stored_by_java<'a>(&self, bytes: &'a [u8], flags: u32) -> Result<Stored<'a>, Error> {
        let number = || {
            let fits = bytes.len() <= 8;
            let number = bytes.iter().fold(0u64, |number, byte| (number << 8) | u64::from(*byte));
            fits.then_some(number).ok_or_else(|| wrong("a number of more than eight bytes"))
        };
        if flags & java::SERIALIZED != 0 {
            return Err(wrong("serialized by Java, which only Java reads"));
        }
        Ok(Stored::Plain(match flags & java::TYPE {
            java::BOOLEAN => Plain::Bool(bytes == b"1"),
            java::INT => Plain::Integer(i64::from(number()? as u32 as i32)),
            java::LONG | java::DATE => Plain::Integer(number()? as i64),
            java::BYTE => Plain::Integer(i64::from(number()? as u8 as i8)),
            java::FLOAT => Plain::Float(f32::from_bits(number()? as u32).into()),
            java::DOUBLE => Plain::Float(f64::from_bits(number()?)),
            java::BYTES => Plain::Bytes(bytes, Seen::Row),
            _ if flags & ours::JSON != 0 => return Ok(Stored::Json),
            _ => Plain::Bytes(bytes, self.family.unmarked(bytes)),
        }))
    }
}

fn read_json(bytes: &[u8], slot: &mut impl Slot) -> Result<(), Error> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let read = slot.fill(&mut json).and_then(|()| json.end());
    read.map_err(|error| wrong(format!("not of this type: {error}")))
}

#[cfg(feature = "postcard")]
fn read_postcard(bytes: &[u8], slot: &mut impl Slot) -> Result<(), Error> {
    let mut reader = postcard::Deserializer::from_bytes(bytes);
    slot.fill(&mut reader).map_err(|error| match error {
        postcard::Error::WontImplement => wrong(
            "of a type that looks at the data to find out what it is, which postcard does not \
             say; store it with Format::Json",
        ),
        error => wrong(format!("not of this type: {error}")),
    })?;
    match reader.finalize() {
        Ok([]) => Ok(()),
        _ => Err(wrong("not of this type: bytes are left over")),
    }
}

#[cfg(not(feature = "postcard"))]
fn read_postcard(_bytes: &[u8], _slot: &mut impl Slot) -> Result<(), Error> {
    Err(wrong("written with postcard; build with the feature `postcard`"))
}

/// As php-memcached writes and reads what has no digits; the digits of the type it had.
fn php_float(value: f64, bits: u32) -> String {
    match value {
        _ if value.is_nan() => "NaN".into(),
        f64::INFINITY => "Infinity".into(),
        f64::NEG_INFINITY => "-Infinity".into(),
        _ if bits == 32 => (value as f32).to_string(),
        _ => value.to_string(),
    }
}

/// spymemcached's form of integers: big-endian, without leading zeros.
fn java_integer(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().copied().skip_while(|byte| *byte == 0).collect()
}

fn java_plain(sniffed: Sniffed) -> Result<(Vec<u8>, u32), Error> {
    Ok(match sniffed {
        Sniffed::Text(text) => (text.into_bytes(), 0),
        Sniffed::Row(bytes) => (bytes, java::BYTES),
        Sniffed::Byte(byte) => (vec![byte], java::BYTES),
        Sniffed::Bool(value) => (if value { b"1".to_vec() } else { b"0".to_vec() }, java::BOOLEAN),
        Sniffed::Float { value, bits: 32 } => {
            (java_integer(&(value as f32).to_bits().to_be_bytes()), java::FLOAT)
        }
        Sniffed::Float { value, .. } => {
            (java_integer(&value.to_bits().to_be_bytes()), java::DOUBLE)
        }
        Sniffed::Integer { digits, bits } => {
            match (bits, digits.parse::<i32>(), digits.parse::<i64>()) {
                (..=32, Ok(value), _) => (java_integer(&value.to_be_bytes()), java::INT),
                (_, _, Ok(value)) => (java_integer(&value.to_be_bytes()), java::LONG),
                _ => return Err(wrong("an integer larger than Java's long")),
            }
        }
    })
}
