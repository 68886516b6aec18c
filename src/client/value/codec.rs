//! Encodings of one's own: the trait, and what hides a value's type from it. Owns no encoding.

use crate::client::error::Error;
use crate::client::value::encoding::{Encoding, wrong};
use serde::de::{DeserializeOwned, Deserializer};
use serde::{Serialize, Serializer};
use std::fmt;
use std::sync::Arc;

/// An encoding of your own, for all values of a client: MessagePack, or the built-in one with
/// encryption around it.
///
/// The flags are stored beside the bytes and handed back with them. Other programs that share the
/// cache have to know the encoding; `incr` wants digits, which [`Encoding`] makes of integers.
/// `set_raw` and `get_raw` go past it.
///
/// ```
/// use distcache::client::{Codec, Config, Encoding, Error, Source, Target};
///
/// /// The built-in encoding, masked.
/// #[derive(Debug)]
/// struct Masked {
///     inner: Encoding,
///     mask: u8,
/// }
///
/// impl Codec for Masked {
///     fn encode(&self, value: Source<'_>) -> Result<(Vec<u8>, u32), Error> {
///         let (mut bytes, flags) = self.inner.encode(&value)?;
///         bytes.iter_mut().for_each(|byte| *byte ^= self.mask);
///         Ok((bytes, flags))
///     }
///
///     fn decode(&self, bytes: &[u8], flags: u32, into: &mut Target<'_>) -> Result<(), Error> {
///         let bytes: Vec<u8> = bytes.iter().map(|byte| byte ^ self.mask).collect();
///         // A format of serde's: into.read(&mut its_deserializer).map_err(...)
///         Codec::decode(&self.inner, &bytes, flags, into)
///     }
/// }
///
/// let codec = distcache::client::AnyCodec::new(Masked { inner: Encoding::default(), mask: 0x55 });
/// let (bytes, flags) = codec.encode("football")?;
/// assert_ne!(bytes, b"football");
/// assert_eq!(codec.decode::<String>(&bytes, flags)?, "football");
/// let config = Config { codec, ..Config::default() };
/// # Ok::<(), Error>(())
/// ```
pub trait Codec: fmt::Debug + Send + Sync {
    /// The bytes and flags that stand for a value.
    ///
    /// # Errors
    /// `Error::Value`: it cannot be written, or would not be read back as it is.
    fn encode(&self, value: Source<'_>) -> Result<(Vec<u8>, u32), Error>;

    /// Reads the value that bytes and flags stand for, with [`Target::read`].
    ///
    /// # Errors
    /// `Error::Value`: the bytes are no value of the type asked for.
    fn decode(&self, bytes: &[u8], flags: u32, into: &mut Target<'_>) -> Result<(), Error>;
}

/// A value to encode, of whatever type: hand it to a serializer of serde's.
pub struct Source<'a>(&'a dyn erased_serde::Serialize);

impl fmt::Debug for Source<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Source")
    }
}

impl Serialize for Source<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        erased_serde::serialize(self.0, serializer)
    }
}

/// The place for a decoded value, of whatever type.
pub struct Target<'a>(&'a mut dyn ErasedSlot);

impl fmt::Debug for Target<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Target")
    }
}

impl Target<'_> {
    /// Reads the value. May be tried again with another deserializer if this one fails.
    ///
    /// # Errors
    /// The deserializer's: what it holds is no value of the type asked for.
    pub fn read<'de, D: Deserializer<'de>>(&mut self, deserializer: D) -> Result<(), D::Error> {
        self.fill(deserializer)
    }
}

/// Where a value of some type goes.
pub(super) trait Slot {
    fn fill<'de, D: Deserializer<'de>>(&mut self, deserializer: D) -> Result<(), D::Error>;
}

/// A value of a type that is known.
pub(super) struct Direct<T>(pub Option<T>);

impl<T: DeserializeOwned> Slot for Direct<T> {
    fn fill<'de, D: Deserializer<'de>>(&mut self, deserializer: D) -> Result<(), D::Error> {
        self.0 = Some(T::deserialize(deserializer)?);
        Ok(())
    }
}

/// The same behind a pointer.
trait ErasedSlot {
    fn fill_erased(
        &mut self,
        deserializer: &mut dyn erased_serde::Deserializer<'_>,
    ) -> Result<(), erased_serde::Error>;
}

impl<T: DeserializeOwned> ErasedSlot for Direct<T> {
    fn fill_erased(
        &mut self,
        deserializer: &mut dyn erased_serde::Deserializer<'_>,
    ) -> Result<(), erased_serde::Error> {
        self.fill(deserializer)
    }
}

impl Slot for Target<'_> {
    fn fill<'de, D: Deserializer<'de>>(&mut self, deserializer: D) -> Result<(), D::Error> {
        let mut erased = <dyn erased_serde::Deserializer<'_>>::erase(deserializer);
        self.0.fill_erased(&mut erased).map_err(serde::de::Error::custom)
    }
}

impl Codec for Encoding {
    fn encode(&self, value: Source<'_>) -> Result<(Vec<u8>, u32), Error> {
        Self::encode(self, &value)
    }

    fn decode(&self, bytes: &[u8], flags: u32, into: &mut Target<'_>) -> Result<(), Error> {
        self.decode_into(bytes, flags, into)
    }
}

/// The encoding of a client: the built-in one, or one of your own.
#[derive(Debug, Clone)]
pub struct AnyCodec(Kind);

#[derive(Debug, Clone)]
enum Kind {
    BuiltIn(Encoding),
    Own(Arc<dyn Codec>),
}

impl Default for AnyCodec {
    fn default() -> Self {
        Encoding::default().into()
    }
}

impl From<Encoding> for AnyCodec {
    fn from(encoding: Encoding) -> Self {
        Self(Kind::BuiltIn(encoding))
    }
}

impl AnyCodec {
    /// An encoding of your own.
    pub fn new(codec: impl Codec + 'static) -> Self {
        Self(Kind::Own(Arc::new(codec)))
    }

    /// The bytes and flags that stand for a value.
    ///
    /// # Errors
    /// The encoding's own.
    pub fn encode<T: Serialize + ?Sized>(&self, value: &T) -> Result<(Vec<u8>, u32), Error> {
        match &self.0 {
            Kind::BuiltIn(encoding) => encoding.encode(value),
            Kind::Own(codec) => codec.encode(Source(&value)),
        }
    }

    /// The value that bytes and flags stand for.
    ///
    /// # Errors
    /// The encoding's own; `Error::Value` if it says that it has read and has not.
    pub fn decode<T: DeserializeOwned>(&self, bytes: &[u8], flags: u32) -> Result<T, Error> {
        match &self.0 {
            Kind::BuiltIn(encoding) => encoding.decode(bytes, flags),
            Kind::Own(codec) => {
                let mut slot = Direct(None);
                codec.decode(bytes, flags, &mut Target(&mut slot))?;
                slot.0.ok_or_else(|| wrong("the codec read nothing: it has to call Target::read"))
            }
        }
    }
}
