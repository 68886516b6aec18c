//! Values that are kept in the process beside the servers: off unless `Config::near` says so. Owns
//! what is kept, for how long, and what ends it; no I/O, and time is an argument.
//!
//! A key is kept when it is read for the second time within a while, as a small table of
//! fingerprints remembers. What this client writes is forgotten when the write has ended, however
//! it ended; a read that was under way then may have brought the old value, and is not kept, since
//! the epoch of its key has changed.

use crate::client::config::Config;
use crate::client::error::Error;
use crate::client::operation::Encoded;
use crate::client::placement::key::WireKey;
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Keys whose last sight is remembered.
const SEEN: usize = 1 << 14;

/// Epochs; keys share them.
const EPOCHS: usize = 1 << 12;

/// A value is kept if it takes no more than this part of the room.
const PART_MAX: u64 = 16;

/// Less room than this is of no use.
const ROOM_MIN: u64 = 64 << 10;

/// What an item costs beside its key and bytes.
const ITEM_BYTES: u64 = 128;

/// A near cache: values of keys that are read often, in the process itself. Feature `near`.
///
/// `get`, `get_raw`, `get_many` and `get_map` read from it what this client has read lately; all
/// other calls ask the servers. What this client writes or deletes is not read from it any more.
/// **What others write may be read for `lifetime` longer**, and so may what has expired, what a
/// `flush_all` with a delay has ended, or what a call wrote that failed or was cancelled: right for
/// what changes rarely, wrong for balances.
///
/// ```
/// # let server = distcache::server::Server::bind("127.0.0.1:0")?;
/// use distcache::client::{Client, Config, NearCache};
/// use std::time::Duration;
///
/// let near = NearCache { bytes_max: 64 << 20, lifetime: Duration::from_secs(1) };
/// let config = Config { near: Some(near), ..Config::default() };
/// let client = Client::with_config([server.addresses()[0].to_string()], config)?;
/// client.set("menu", "feijoada")?;
/// for _ in 0..10 {
///     assert_eq!(client.get::<String>("menu")?.as_deref(), Some("feijoada"));
/// }
/// assert_eq!(client.counters().near_hits, 8, "kept at the second sight");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NearCache {
    /// Room for keys and values, with what they cost in memory.
    pub bytes_max: u64,
    /// How long a value is read from here before a server is asked again.
    pub lifetime: Duration,
}

/// What a near cache holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct NearStatus {
    /// Keys.
    pub items: usize,
    /// What they take of `bytes_max`.
    pub bytes: u64,
}

impl NearCache {
    pub(super) fn check(&self) -> Result<(), Error> {
        let is_short = self.lifetime < Duration::from_millis(1);
        match is_short || self.lifetime > Duration::from_secs(86_400) || self.bytes_max < ROOM_MIN {
            true => Err(Error::Config(format!(
                "near: bytes_max is at least {ROOM_MIN}, lifetime between a millisecond and a day"
            ))),
            false => Ok(()),
        }
    }
}

/// One value.
#[derive(Debug, Clone)]
struct Kept {
    value: Arc<Encoded>,
    until: Instant,
}

#[derive(Debug, Clone, Copy)]
struct Bytes;

impl Weighter<Box<[u8]>, Kept> for Bytes {
    fn weight(&self, key: &Box<[u8]>, kept: &Kept) -> u64 {
        weight(key, &kept.value.data)
    }
}

fn weight(key: &[u8], data: &[u8]) -> u64 {
    ITEM_BYTES + key.len() as u64 + data.len() as u64
}

#[derive(Debug)]
struct Room {
    settings: NearCache,
    cache: Cache<Box<[u8]>, Kept, Bytes>,
    secret: RandomState,
    /// Fingerprints of keys that were asked for.
    seen: Box<[AtomicU32]>,
    /// Each changes when one of its keys is written.
    epochs: Box<[AtomicU64]>,
}

impl Room {
    fn hash(&self, key: &[u8]) -> u64 {
        self.secret.hash_one(key)
    }

    fn epoch(&self, hash: u64) -> &AtomicU64 {
        &self.epochs[hash as usize % EPOCHS]
    }

    /// Whether the key was asked for before, as far as that is remembered.
    fn is_seen_again(&self, hash: u64) -> bool {
        let fingerprint = (hash >> 32) as u32 | 1;
        let place = &self.seen[hash as usize % SEEN];
        place.swap(fingerprint, Ordering::Relaxed) == fingerprint
    }

    fn forget(&self, key: &[u8]) {
        self.epoch(self.hash(key)).fetch_add(1, Ordering::AcqRel);
        self.cache.remove(key);
    }
}

/// What is kept of a cluster's values.
#[derive(Debug)]
pub(in crate::client) struct Near(Option<Arc<Room>>);

/// The right to keep what a read brings, unless its key is written meanwhile.
#[derive(Debug)]
pub(in crate::client) struct Ticket {
    key: Box<[u8]>,
    hash: u64,
    epoch: u64,
}

/// A write under way: its key is forgotten when it ends, however it ends.
#[derive(Debug)]
pub(in crate::client) struct Writing {
    room: Arc<Room>,
    key: Box<[u8]>,
}

impl Drop for Writing {
    fn drop(&mut self) {
        self.room.forget(&self.key);
    }
}

impl Near {
    pub(super) fn new(config: &Config) -> Self {
        let room = |settings: NearCache| {
            // What a small item takes decides how much is set aside for the table.
            let items = settings.bytes_max / (4 * ITEM_BYTES);
            let items = usize::try_from(items).unwrap_or(usize::MAX).min(1 << 20);
            Arc::new(Room {
                settings,
                cache: Cache::with_weighter(items, settings.bytes_max, Bytes),
                secret: RandomState::new(),
                seen: (0..SEEN).map(|_| AtomicU32::new(0)).collect(),
                epochs: (0..EPOCHS).map(|_| AtomicU64::new(0)).collect(),
            })
        };
        Self(config.near.map(room))
    }

    pub(super) fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// What is kept of a key.
    pub(super) fn get(&self, key: &WireKey<'_>, now: Instant) -> Option<Arc<Encoded>> {
        let room = self.0.as_ref()?;
        let kept = room.cache.get(&*key.bytes)?;
        if kept.until <= now {
            room.cache.remove(&*key.bytes);
            return None;
        }
        Some(kept.value)
    }

    /// A read is about to be sent; `None` if there is no need to keep what it brings.
    pub(super) fn ask(&self, key: &WireKey<'_>) -> Option<Ticket> {
        let room = self.0.as_ref()?;
        let hash = room.hash(&key.bytes);
        room.is_seen_again(hash).then(|| Ticket {
            key: Box::from(&*key.bytes),
            hash,
            epoch: room.epoch(hash).load(Ordering::Acquire),
        })
    }

    /// What the read brought.
    pub(super) fn keep(&self, ticket: Ticket, value: Encoded, now: Instant) {
        let Some(room) = &self.0 else { return };
        let Ticket { key, hash, epoch } = ticket;
        let is_unwritten = || room.epoch(hash).load(Ordering::Acquire) == epoch;
        let fits = weight(&key, &value.data) <= room.settings.bytes_max / PART_MAX;
        if !fits || !is_unwritten() {
            return;
        }
        let kept = Kept { value: Arc::new(value), until: now + room.settings.lifetime };
        room.cache.insert(key.clone(), kept);
        // A write may have come in between.
        if !is_unwritten() {
            room.cache.remove(&key);
        }
    }

    /// A write is about to be sent.
    pub(super) fn writing(&self, key: &WireKey<'_>) -> Option<Writing> {
        let room = self.0.as_ref()?;
        Some(Writing { room: Arc::clone(room), key: Box::from(&*key.bytes) })
    }

    /// All is to be forgotten.
    pub(super) fn clear(&self) {
        let Some(room) = &self.0 else { return };
        for epoch in &room.epochs {
            epoch.fetch_add(1, Ordering::AcqRel);
        }
        room.cache.clear();
    }

    pub(super) fn status(&self) -> NearStatus {
        let status =
            |room: &Arc<Room>| NearStatus { items: room.cache.len(), bytes: room.cache.weight() };
        self.0.as_ref().map(status).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::clock;
    use crate::client::placement::key::Form;
    use std::borrow::Cow;

    fn near(bytes_max: u64) -> Near {
        let lifetime = Duration::from_secs(1);
        Near::new(&Config { near: Some(NearCache { bytes_max, lifetime }), ..Config::default() })
    }

    fn key(name: &str) -> WireKey<'_> {
        WireKey { bytes: Cow::Borrowed(name.as_bytes()), form: Form::Plain }
    }

    fn value(bytes: usize) -> Encoded {
        Encoded { data: vec![7; bytes], flags: 3 }
    }

    #[test]
    fn a_key_is_kept_from_its_second_sight_on_for_its_lifetime() {
        let (near, now) = (near(1 << 20), clock::now());
        assert!(near.ask(&key("a")).is_none());
        let ticket = near.ask(&key("a")).unwrap();
        near.keep(ticket, value(5), now);
        assert_eq!(near.get(&key("a"), now).as_deref(), Some(&value(5)));
        assert!(near.get(&key("b"), now).is_none());
        assert!(near.get(&key("a"), now + Duration::from_secs(1)).is_none());
        assert_eq!(near.status(), NearStatus::default());
    }

    #[test]
    fn what_was_read_before_a_write_is_not_kept_after_it() {
        type Step = fn(&Near) -> Option<Writing>;
        let write: Step = |near| near.writing(&key("a"));
        let nothing: Step = |_| None;
        // What happens between the question and the answer, and after it.
        for (between, after, is_kept) in
            [(nothing, nothing, true), (write, nothing, false), (nothing, write, false)]
        {
            let (near, now) = (near(1 << 20), clock::now());
            near.ask(&key("a"));
            let ticket = near.ask(&key("a")).unwrap();
            let writing = between(&near);
            near.keep(ticket, value(5), now);
            drop(writing);
            drop(after(&near));
            assert_eq!(near.get(&key("a"), now).is_some(), is_kept);
        }
        // A read that began while a write was under way.
        let (near, now) = (near(1 << 20), clock::now());
        let writing = near.writing(&key("a"));
        near.ask(&key("a"));
        near.keep(near.ask(&key("a")).unwrap(), value(5), now);
        drop(writing);
        assert!(near.get(&key("a"), now).is_none());
    }

    #[test]
    fn the_bytes_are_bounded() {
        let (near, now) = (near(100_000), clock::now());
        for number in 0..10_000 {
            let name = format!("key-{number}");
            for _ in 0..2 {
                if let Some(ticket) = near.ask(&key(&name)) {
                    near.keep(ticket, value(number % 2_000), now);
                }
            }
            assert!(near.status().bytes <= 100_000);
        }
        assert!(near.status().bytes > 50_000, "and there is use of them: {:?}", near.status());
        for _ in 0..2 {
            if let Some(ticket) = near.ask(&key("large")) {
                near.keep(ticket, value(50_000), now);
            }
        }
        assert!(near.get(&key("large"), now).is_none(), "one value is not all there is");
        near.clear();
        assert_eq!(near.status(), NearStatus::default());
    }
}
