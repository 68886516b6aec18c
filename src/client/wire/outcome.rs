//! What replies mean to a caller. Owns the types of results and how a reply becomes one; no I/O.

use crate::client::error::Error;
use crate::client::placement::node::Node;
use crate::client::value::AnyCodec;
use crate::client::wire::command::{Command, Mode};
use crate::client::wire::reply::{Item, Reply};
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

/// What became of a `cas`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cas {
    /// Nobody had changed the item: the new value is stored.
    Stored,
    /// Somebody had: nothing was stored.
    Changed,
    /// There is no such item.
    Missing,
}

/// A value with what belongs to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Versioned<T> {
    /// The value.
    pub value: T,
    /// The flags it was stored with.
    pub flags: u32,
    /// What `cas` compares.
    pub token: u64,
}

/// A value as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Raw {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// The flags.
    pub flags: u32,
}

/// What the meta protocol tells about an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Inspection {
    /// Length of the stored value in bytes.
    pub size: u64,
    /// The flags it was stored with.
    pub flags: u32,
    /// What `cas` compares.
    pub token: u64,
    /// Seconds until it expires; `None` is never.
    pub ttl_seconds: Option<u64>,
    /// Seconds since it was last asked for (as the server counts them).
    pub idle_seconds: u64,
    /// Whether it was asked for before.
    pub hit_before: bool,
    /// Whether it was marked stale.
    pub stale: bool,
}

/// The results for many keys, in the order of the keys. A server that fails costs the results of
/// its own keys only.
///
/// ```
/// # let server = distcache::server::Server::bind("127.0.0.1:0")?;
/// # let client = distcache::client::Client::connect([server.addresses()[0].to_string()])?;
/// client.set("a", 1)?;
/// let found = client.get_many::<u32>(["a", "b"]);
/// assert_eq!(found.iter().filter(|result| result.is_err()).count(), 0);
/// assert_eq!(found.all()?, [Some(1), None]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "some keys may have failed"]
pub struct Many<T>(pub(in crate::client) Vec<Result<T, Error>>);

impl<T> Many<T> {
    /// Each result in turn.
    pub fn iter(&self) -> std::slice::Iter<'_, Result<T, Error>> {
        self.0.iter()
    }

    /// All results.
    pub fn into_results(self) -> Vec<Result<T, Error>> {
        self.0
    }

    /// All results, if none failed.
    ///
    /// # Errors
    /// The first failure.
    pub fn all(self) -> Result<Vec<T>, Error> {
        self.0.into_iter().collect()
    }

    /// The results by the keys that were asked for, which are given once more in the same order.
    ///
    /// ```
    /// # let server = distcache::server::Server::bind("127.0.0.1:0")?;
    /// # let client = distcache::client::Client::connect([server.addresses()[0].to_string()])?;
    /// client.set("a", 1)?;
    /// let deleted = client.delete_many(["a", "b"]).by_key(["a", "b"]);
    /// assert_eq!((&deleted["a"], &deleted["b"]), (&Ok(true), &Ok(false)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn by_key<K: Eq + Hash>(
        self,
        keys: impl IntoIterator<Item = K>,
    ) -> HashMap<K, Result<T, Error>> {
        keys.into_iter().zip(self.0).collect()
    }
}

impl<T> Many<Option<T>> {
    /// What was found; failed keys count as not found.
    pub fn found(self) -> Vec<Option<T>> {
        self.0.into_iter().map(|result| result.ok().flatten()).collect()
    }

    /// What was found, by key, if no key failed.
    pub(in crate::client) fn into_map<K: Eq + Hash>(
        self,
        keys: Vec<K>,
    ) -> Result<HashMap<K, T>, Error> {
        let found = |(key, found): (K, Result<Option<T>, Error>)| {
            found.transpose().map(|found| found.map(|value| (key, value)))
        };
        keys.into_iter().zip(self.0).filter_map(found).collect()
    }
}

impl<T> IntoIterator for Many<T> {
    type Item = Result<T, Error>;
    type IntoIter = std::vec::IntoIter<Result<T, Error>>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

/// What each server answered.
pub type PerServer<T> = Vec<(Node, Result<T, Error>)>;

fn unexpected<R>(reply: &Reply<'_>) -> Result<R, Error> {
    let mut what = format!("{reply:?}");
    what.truncate(what.char_indices().nth(120).map_or(what.len(), |(at, _)| at));
    Err(Error::protocol("", what))
}

/// The reply that stands for an ejected server whose keys count as missing.
pub(in crate::client) fn nowhere(command: &Command<'_>) -> Reply<'static> {
    match command {
        Command::Store { mode: Mode::Set, .. } => Reply::Stored,
        Command::Store { mode: Mode::Cas(_), .. } => Reply::NotFound,
        Command::Store { .. } | Command::Extend { .. } => Reply::NotStored,
        _ => Reply::NotFound,
    }
}

/// Collects statistics until their end.
pub(in crate::client) fn stat(
    reply: Reply<'_>,
    stats: &mut BTreeMap<String, String>,
) -> Result<(), Error> {
    match reply {
        Reply::Stat(name, value) => {
            stats.insert(name.to_owned(), value.to_owned());
            Ok(())
        }
        Reply::End => Ok(()),
        other => unexpected(&other),
    }
}

pub(in crate::client) fn set(reply: Reply<'_>) -> Result<(), Error> {
    match reply {
        Reply::Stored | Reply::Done(_) => Ok(()),
        other => unexpected(&other),
    }
}

pub(in crate::client) fn stored(reply: Reply<'_>) -> Result<bool, Error> {
    match reply {
        Reply::Stored | Reply::Done(_) => Ok(true),
        Reply::NotStored | Reply::NotFound | Reply::Exists => Ok(false),
        other => unexpected(&other),
    }
}

pub(in crate::client) fn cas(reply: Reply<'_>) -> Result<Cas, Error> {
    match reply {
        Reply::Stored | Reply::Done(_) => Ok(Cas::Stored),
        Reply::Exists => Ok(Cas::Changed),
        Reply::NotFound | Reply::NotStored => Ok(Cas::Missing),
        other => unexpected(&other),
    }
}

/// Whether there was an item to delete, touch or invalidate.
pub(in crate::client) fn existed(reply: Reply<'_>) -> Result<bool, Error> {
    match reply {
        Reply::Deleted | Reply::Touched | Reply::Done(_) => Ok(true),
        Reply::NotFound | Reply::Exists => Ok(false),
        other => unexpected(&other),
    }
}

pub(in crate::client) fn number(reply: Reply<'_>) -> Result<Option<u64>, Error> {
    match reply {
        Reply::Number(number) => Ok(Some(number)),
        Reply::NotFound => Ok(None),
        Reply::Value(Item { data, .. }) => {
            let digits = std::str::from_utf8(data).ok().and_then(|text| text.trim().parse().ok());
            digits.map_or_else(
                || unexpected(&Reply::Value(Item::default())),
                |number| Ok(Some(number)),
            )
        }
        other => unexpected(&other),
    }
}

pub(in crate::client) fn item<R>(
    reply: Reply<'_>,
    read: impl FnOnce(Item<'_>) -> Result<R, Error>,
) -> Result<Option<R>, Error> {
    match reply {
        Reply::Value(item) => read(item).map(Some),
        Reply::NotFound => Ok(None),
        other => unexpected(&other),
    }
}

pub(in crate::client) fn value<T: DeserializeOwned>(
    codec: &AnyCodec,
    reply: Reply<'_>,
) -> Result<Option<T>, Error> {
    item(reply, |item| codec.decode(item.data, item.flags))
}

pub(in crate::client) fn raw(reply: Reply<'_>) -> Result<Option<Raw>, Error> {
    item(reply, |item| Ok(Raw { bytes: item.data.to_vec(), flags: item.flags }))
}

pub(in crate::client) fn versioned<T: DeserializeOwned>(
    codec: &AnyCodec,
    reply: Reply<'_>,
) -> Result<Option<Versioned<T>>, Error> {
    versioned_by(reply, |item| codec.decode(item.data, item.flags))
}

pub(in crate::client) fn versioned_by<T>(
    reply: Reply<'_>,
    read: impl FnOnce(&Item<'_>) -> Result<T, Error>,
) -> Result<Option<Versioned<T>>, Error> {
    item(reply, |item| {
        let value = read(&item)?;
        let token = item.token.ok_or_else(|| Error::protocol("", "a value without its token"))?;
        Ok(Versioned { value, flags: item.flags, token })
    })
}

pub(in crate::client) fn inspection(reply: Reply<'_>) -> Result<Option<Inspection>, Error> {
    match reply {
        Reply::NotFound => Ok(None),
        Reply::Done(item) => Ok(Some(Inspection {
            size: item.size.unwrap_or(0),
            flags: item.flags,
            token: item.token.unwrap_or(0),
            ttl_seconds: item.ttl.and_then(|seconds| u64::try_from(seconds).ok()),
            idle_seconds: item.last_access.unwrap_or(0),
            hit_before: item.hit_before.unwrap_or(false),
            stale: item.stale,
        })),
        other => unexpected(&other),
    }
}

/// What an item is, asked for without its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::client) enum Look {
    Nothing,
    /// The place of a value that somebody computes, with its token.
    Place(u64),
    /// A value, with its token.
    Item(u64),
    /// The server cannot be asked, and so has no such places.
    Unknown,
}

pub(in crate::client) fn look(reply: Reply<'_>) -> Result<Look, Error> {
    match reply {
        Reply::Done(item) => {
            let token = item.token.unwrap_or(0);
            let is_place = (item.taken || item.won) && item.size == Some(0);
            Ok(if is_place { Look::Place(token) } else { Look::Item(token) })
        }
        Reply::NotFound => Ok(Look::Nothing),
        other => unexpected(&other),
    }
}

/// What a caller of `get_or_compute` is told.
#[derive(Debug)]
pub(in crate::client) enum Leased<T> {
    /// Here is the value.
    Value(T),
    /// Make it; store it over this token.
    Won(u64),
    /// Somebody else makes it, and there is nothing to read meanwhile.
    Taken,
    /// What is there cannot be read; a value may be stored over this token.
    Spoiled(Option<u64>),
    /// The server is not there to ask.
    Nowhere,
}

pub(in crate::client) fn leased<T: DeserializeOwned>(
    codec: &AnyCodec,
    reply: Reply<'_>,
) -> Result<Leased<T>, Error> {
    match reply {
        Reply::NotFound => Ok(Leased::Nowhere),
        Reply::Value(item) if item.won => match item.token {
            Some(token) => Ok(Leased::Won(token)),
            None => Err(Error::protocol("", "a lease without its token")),
        },
        // An empty item that somebody has won is the place for a value, not a value.
        Reply::Value(item) if item.taken && item.data.is_empty() => Ok(Leased::Taken),
        Reply::Value(item) => match codec.decode(item.data, item.flags) {
            Err(Error::Value(_)) => Ok(Leased::Spoiled(item.token)),
            decoded => decoded.map(Leased::Value),
        },
        other => unexpected(&other),
    }
}
