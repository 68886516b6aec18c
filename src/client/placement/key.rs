//! Keys: what may be one, how it is sent, and which part of it places it. No I/O.

use crate::client::error::Error;
use crate::limits::KEY_BYTES_MAX;
use sha2::{Digest, Sha256};
use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;

/// What can be a key: strings, bytes, integers (as decimal digits), all of these behind `&`, `Box`,
/// `Rc`, `Arc` and `Cow`; `bytes::Bytes` (feature `bytes`); `uuid::Uuid` in its usual form with
/// hyphens (feature `uuid`); and [`PlacedBy`].
///
/// ```
/// use distcache::client::AsKey;
/// use std::sync::Arc;
///
/// assert_eq!(&*"brazil".as_key(), b"brazil");
/// assert_eq!(&*Arc::<str>::from("brazil").as_key(), b"brazil");
/// assert_eq!(&*(-7i64).as_key(), b"-7");
/// ```
pub trait AsKey {
    /// The bytes of the key.
    fn as_key(&self) -> Cow<'_, [u8]>;

    /// What places it, where that is not the key itself.
    fn placed_by(&self) -> Option<Cow<'_, [u8]>> {
        None
    }
}

macro_rules! bytes_are_keys {
    ($($kind:ty),*) => {$(
        impl AsKey for $kind {
            fn as_key(&self) -> Cow<'_, [u8]> {
                let bytes: &[u8] = self.as_ref();
                Cow::Borrowed(bytes)
            }
        }
    )*};
}

bytes_are_keys!(str, String, [u8], Vec<u8>);

macro_rules! integers_are_keys {
    ($($kind:ty),*) => {$(
        impl AsKey for $kind {
            fn as_key(&self) -> Cow<'_, [u8]> {
                Cow::Owned(itoa::Buffer::new().format(*self).as_bytes().to_vec())
            }
        }
    )*};
}

integers_are_keys!(u8, u16, u32, u64, u128, usize, i8, i16, i32, i64, i128, isize);

impl<const BYTES: usize> AsKey for [u8; BYTES] {
    fn as_key(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(self)
    }
}

macro_rules! pointers_are_keys {
    ($($pointer:ty),*) => {$(
        impl<K: AsKey + ?Sized> AsKey for $pointer {
            fn as_key(&self) -> Cow<'_, [u8]> {
                (**self).as_key()
            }

            fn placed_by(&self) -> Option<Cow<'_, [u8]>> {
                (**self).placed_by()
            }
        }
    )*};
}

pointers_are_keys!(&K, Box<K>, Rc<K>, Arc<K>);

impl<K: AsKey + ToOwned + ?Sized> AsKey for Cow<'_, K> {
    fn as_key(&self) -> Cow<'_, [u8]> {
        (**self).as_key()
    }

    fn placed_by(&self) -> Option<Cow<'_, [u8]>> {
        (**self).placed_by()
    }
}

#[cfg(feature = "bytes")]
impl AsKey for bytes::Bytes {
    fn as_key(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(self)
    }
}

#[cfg(feature = "uuid")]
impl AsKey for uuid::Uuid {
    fn as_key(&self) -> Cow<'_, [u8]> {
        Cow::Owned(self.as_hyphenated().to_string().into_bytes())
    }
}

/// A key on the server that owns another: `PlacedBy(place, key)`. So what belongs together is asked
/// for in one request.
///
/// The first part only chooses the server. What is stored has the second part as its key, alone:
/// two keys that are to be two items differ there, as `user:7:mail` and `user:8:mail` do. Whoever
/// reads the item names the same first part.
///
/// ```
/// use distcache::client::{Client, PlacedBy};
///
/// # fn run(client: &Client) -> Result<(), distcache::client::Error> {
/// let user = "user:7";
/// client.set(PlacedBy(user, "user:7:mail"), "pele@example.com")?;
/// client.set(PlacedBy(user, "user:7:name"), "Pel\u{e9}")?;
/// let keys = [PlacedBy(user, "user:7:mail"), PlacedBy(user, "user:7:name")];
/// let found: Vec<Option<String>> = client.get_many(&keys).all()?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PlacedBy<P, K>(pub P, pub K);

impl<P: AsKey, K: AsKey> AsKey for PlacedBy<P, K> {
    fn as_key(&self) -> Cow<'_, [u8]> {
        self.1.as_key()
    }

    fn placed_by(&self) -> Option<Cow<'_, [u8]>> {
        Some(self.0.as_key())
    }
}

/// What happens to a key that memcached's text protocol cannot carry: empty, with blanks or control
/// characters, or longer than 250 bytes.
///
/// | policy | blanks, control characters | too long |
/// |---|---|---|
/// | `Error` | `Error::Key` | `Error::Key` |
/// | `Base64` | sent in base64, by the meta commands | up to 186 bytes, else `Error::Key` |
/// | `Hash` | replaced by `sha256:` and 64 hexadecimal digits | the same |
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KeyPolicy {
    /// The call fails before anything is sent.
    #[default]
    Error,
    /// Sent in base64 by the meta commands, which need memcached 1.6.10 or later.
    Base64,
    /// Replaced by its SHA-256; two keys do not meet by accident nor by intent.
    Hash,
}

/// How keys are made and placed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(in crate::client) struct KeyRules {
    pub policy: KeyPolicy,
    pub prefix: Vec<u8>,
    /// The prefix takes part in placing the key. libmemcached and php do without.
    pub place_by_prefix: bool,
    /// What stands between these two bytes places the key.
    pub hash_tag: Option<(u8, u8)>,
    /// Keys travel in frames, which carry any bytes. What may be a key stays the same, so that a
    /// program finds its items whichever protocol it speaks.
    pub in_frames: bool,
}

/// How a key travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::client) enum Form {
    /// In a line, as it is.
    Plain,
    /// In a line, in base64.
    Base64,
    /// In a frame of the binary protocol, as it is.
    Frame,
}

/// A key as it is sent.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(in crate::client) struct WireKey<'a> {
    pub bytes: Cow<'a, [u8]>,
    pub form: Form,
}

impl WireKey<'_> {
    /// Appends it as it stands in a line.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        crate::protocol::meta::write_key(out, &self.bytes, self.form == Form::Base64);
    }

    pub(crate) fn into_owned(self) -> WireKey<'static> {
        WireKey { bytes: Cow::Owned(self.bytes.into_owned()), form: self.form }
    }
}

impl KeyRules {
    /// The key as it is sent.
    pub(crate) fn wire<'a>(&self, key: Cow<'a, [u8]>) -> Result<WireKey<'a>, Error> {
        let bytes = if self.prefix.is_empty() {
            key
        } else {
            Cow::Owned([&self.prefix[..], &key].concat())
        };
        let form = |in_lines| if self.in_frames { Form::Frame } else { in_lines };
        let Some(what) = fault(&bytes) else {
            return Ok(WireKey { bytes, form: form(Form::Plain) });
        };
        let refused = |what| {
            let key = String::from_utf8_lossy(&bytes[..bytes.len().min(40)]).into_owned();
            Err(Error::Key { what, key })
        };
        match self.policy {
            KeyPolicy::Error => refused(what),
            KeyPolicy::Base64 if bytes.is_empty() => refused(what),
            KeyPolicy::Base64 if bytes.len().div_ceil(3) * 4 > KEY_BYTES_MAX => {
                refused("longer than 186 bytes, with blanks or control characters or too long")
            }
            KeyPolicy::Base64 => Ok(WireKey { bytes, form: form(Form::Base64) }),
            KeyPolicy::Hash => {
                let bytes = Cow::Owned(hashed(&self.prefix, &bytes));
                Ok(WireKey { bytes, form: form(Form::Plain) })
            }
        }
    }

    /// The part of a key that places it on a server.
    pub(crate) fn placing<'a>(&self, key: &'a [u8], placed_by: Option<&'a [u8]>) -> Cow<'a, [u8]> {
        let key = placed_by.unwrap_or(key);
        let whole = if self.place_by_prefix && !self.prefix.is_empty() {
            Cow::Owned([&self.prefix[..], key].concat())
        } else {
            Cow::Borrowed(key)
        };
        match self.hash_tag.and_then(|tag| tagged(&whole, tag)) {
            Some((start, end)) => match whole {
                Cow::Borrowed(whole) => Cow::Borrowed(&whole[start..end]),
                Cow::Owned(whole) => Cow::Owned(whole[start..end].to_vec()),
            },
            None => whole,
        }
    }
}

/// What keeps a key off the text protocol.
fn fault(key: &[u8]) -> Option<&'static str> {
    if key.is_empty() {
        Some("it is empty")
    } else if key.len() > KEY_BYTES_MAX {
        Some("longer than 250 bytes, the prefix included")
    } else if key.iter().any(|byte| *byte <= b' ' || *byte == 0x7f) {
        Some("it holds blanks or control characters")
    } else {
        None
    }
}

/// A key of the prefix, if that can stand in a key, and the digest of the whole.
fn hashed(prefix: &[u8], key: &[u8]) -> Vec<u8> {
    const DIGEST_BYTES: usize = 7 + 64;
    let keeps = prefix.len() + DIGEST_BYTES <= KEY_BYTES_MAX && fault(prefix).is_none();
    let mut out = if keeps { prefix.to_vec() } else { Vec::new() };
    out.extend_from_slice(b"sha256:");
    for byte in Sha256::digest(key) {
        out.extend_from_slice(format!("{byte:02x}").as_bytes());
    }
    out
}

/// Where the part between the first of these two bytes and the next other one lies; not if empty.
fn tagged(key: &[u8], (open, close): (u8, u8)) -> Option<(usize, usize)> {
    let start = memchr::memchr(open, key)? + 1;
    let length = memchr::memchr(close, &key[start..])?;
    (length > 0).then_some((start, start + length))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(policy: KeyPolicy, prefix: &str) -> KeyRules {
        KeyRules { policy, prefix: prefix.into(), ..KeyRules::default() }
    }

    fn sent(rules: &KeyRules, key: &[u8]) -> Option<String> {
        let mut out = Vec::new();
        rules.wire(Cow::Borrowed(key)).ok()?.write(&mut out);
        Some(String::from_utf8_lossy(&out).into_owned())
    }

    #[test]
    fn keys_as_they_are_sent() {
        let long = [b'k'; 251];
        for (policy, key, expected) in [
            (KeyPolicy::Error, &b"plain"[..], Some("p:plain")),
            (KeyPolicy::Error, b"a b", None),
            (KeyPolicy::Error, b"a\x7f", None),
            (KeyPolicy::Error, &long, None),
            (KeyPolicy::Base64, b"a b", Some("cDphIGI=")),
            (KeyPolicy::Base64, b"plain", Some("p:plain")),
            (KeyPolicy::Base64, &long, None),
            (KeyPolicy::Hash, b"plain", Some("p:plain")),
        ] {
            let found = sent(&rules(policy, "p:"), key);
            assert_eq!(found.as_deref(), expected, "{policy:?} {key:?}");
        }
        let hashed = sent(&rules(KeyPolicy::Hash, "p:"), &long).unwrap();
        assert!(hashed.starts_with("p:sha256:") && hashed.len() == 2 + 7 + 64, "{hashed}");
        assert_eq!(sent(&rules(KeyPolicy::Error, ""), b""), None);
        assert!(sent(&rules(KeyPolicy::Base64, ""), &[1; 186]).unwrap().len() <= KEY_BYTES_MAX);
        assert_eq!(sent(&rules(KeyPolicy::Base64, ""), &[1; 187]), None);
    }

    #[test]
    fn what_can_be_a_key() {
        let text = || "brazil".to_owned();
        let keys: [&dyn AsKey; 10] = [
            &"brazil",
            &&"brazil",
            &text(),
            &Box::<str>::from("brazil"),
            &Rc::<str>::from("brazil"),
            &Arc::<str>::from("brazil"),
            &Arc::new(text()),
            &Cow::Borrowed("brazil"),
            &Cow::<[u8]>::Owned(text().into_bytes()),
            &PlacedBy("somewhere", "brazil"),
        ];
        for (at, key) in keys.into_iter().enumerate() {
            assert_eq!(&*key.as_key(), b"brazil", "{at}");
        }
        assert_eq!(Arc::new(PlacedBy(7, "x")).placed_by().as_deref(), Some(&b"7"[..]));
        assert_eq!(Arc::<str>::from("x").placed_by(), None);
        #[cfg(feature = "bytes")]
        assert_eq!(&*bytes::Bytes::from_static(b"brazil").as_key(), b"brazil");
        #[cfg(feature = "uuid")]
        assert_eq!(
            &*uuid::Uuid::from_u128(0xa1a2_a3a4_b1b2_c1c2_d1d2_d3d4_d5d6_d7d8).as_key(),
            b"a1a2a3a4-b1b2-c1c2-d1d2-d3d4d5d6d7d8"
        );
    }

    #[test]
    fn what_places_a_key() {
        let tag = KeyRules { hash_tag: Some((b'{', b'}')), ..KeyRules::default() };
        for (key, expected) in [
            ("user:{7}:mail", "7"),
            ("user:{}:mail", "user:{}:mail"),
            ("user:{7", "user:{7"),
            ("}{7}", "7"),
            ("a{b{c}d}", "b{c"),
        ] {
            assert_eq!(&*tag.placing(key.as_bytes(), None), expected.as_bytes(), "{key}");
        }
        assert_eq!(&*tag.placing(b"x", Some(b"y")), b"y");
        let mut prefix = rules(KeyPolicy::Error, "p:");
        assert_eq!(&*prefix.placing(b"x", None), b"x");
        prefix.place_by_prefix = true;
        assert_eq!(&*prefix.placing(b"x", None), b"p:x");
    }
}
