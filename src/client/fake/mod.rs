//! A cache in memory, for tests of programs that use one. Owns what each operation does there; it
//! has the keys, values, expiry and errors of a client, and neither sockets nor threads.

mod items;

use crate::client::blocking::waiting::wait_until;
use crate::client::cache::Cache;
use crate::client::clock;
use crate::client::config::{Config, Expiry, WhenDown};
use crate::client::error::Error;
use crate::client::fake::items::{ITEM_BYTES_MAX, Items, until};
use crate::client::operation::Encoded;
use crate::client::operation::flight::{Flights, Following, Leading, Role};
use crate::client::placement::key::{AsKey, KeyRules, WireKey};
use crate::client::wire::outcome::{Cas, Many, Versioned};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

/// What stands for the server's name in errors.
const NAME: &str = "fake";

/// A cache in memory for tests of one's own, without a server: a [`Cache`], and with the feature
/// `tokio` an `asynchronous::Cache`.
///
/// It keeps to what a client on one server does: keys are refused or encoded by
/// `Config::key_policy` and prefixed, values go through `Config::codec` with their flags, items
/// expire by the second, tokens change with each store, and one caller computes a value while the
/// others wait. Nothing is evicted. Of the other settings `expiry`, `when_down` and `lease` count.
/// In the asynchronous face a computation runs in the task of its caller, and ends with it.
///
/// Clones share the items.
///
/// ```
/// use distcache::client::{Cache, Config, Error, FakeCache};
/// use std::sync::{Arc, Mutex};
/// use std::time::{Duration, SystemTime};
///
/// // Time is what the test says.
/// let now = Arc::new(Mutex::new(SystemTime::UNIX_EPOCH));
/// let clock = Arc::clone(&now);
/// let cache = FakeCache::with_clock(Config::default(), move || *clock.lock().unwrap())?;
/// cache.set_with("session", "x", Duration::from_secs(60))?;
/// *now.lock().unwrap() += Duration::from_secs(61);
/// assert_eq!(cache.get::<String>("session")?, None);
///
/// // What does the program do without its cache?
/// cache.set_away(true);
/// assert!(matches!(cache.set("a", 1), Err(Error::Down { .. })));
/// # Ok::<(), Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct FakeCache {
    shared: Arc<Shared>,
}

struct Shared {
    config: Config,
    rules: KeyRules,
    now: Box<dyn Fn() -> SystemTime + Send + Sync>,
    items: Mutex<Items>,
    flights: Arc<Flights>,
    is_away: AtomicBool,
}

impl fmt::Debug for Shared {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Shared")
    }
}

impl Default for FakeCache {
    fn default() -> Self {
        Self::new()
    }
}

impl FakeCache {
    /// An empty cache with default settings and the system's clock.
    ///
    /// ```
    /// use distcache::client::{Cache, FakeCache};
    ///
    /// let cache = FakeCache::new();
    /// cache.set("n", 7)?;
    /// assert_eq!(cache.get::<u32>("n")?, Some(7));
    /// # Ok::<(), distcache::client::Error>(())
    /// ```
    pub fn new() -> Self {
        Self::made(Config::default(), clock::system)
    }

    /// The same with settings, and a clock of the test's.
    ///
    /// # Errors
    /// `Error::Config` for settings that make no sense.
    pub fn with_clock(
        config: Config,
        now: impl Fn() -> SystemTime + Send + Sync + 'static,
    ) -> Result<Self, Error> {
        config.check()?;
        Ok(Self::made(config, now))
    }

    fn made(config: Config, now: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        let shared = Shared {
            rules: config.key_rules(),
            config,
            now: Box::new(now),
            items: Mutex::default(),
            flights: Arc::default(),
            is_away: AtomicBool::new(false),
        };
        Self { shared: Arc::new(shared) }
    }

    /// As if its server had been ejected: calls do what `Config::when_down` says, errors by
    /// default. It loses nothing by that.
    ///
    /// ```
    /// use distcache::client::{Cache, Config, FakeCache, WhenDown};
    /// use std::time::SystemTime;
    ///
    /// let config = Config { when_down: WhenDown::Miss, ..Config::default() };
    /// let cache = FakeCache::with_clock(config, SystemTime::now)?;
    /// cache.set("n", 7)?;
    /// cache.set_away(true);
    /// assert_eq!(cache.get::<u32>("n")?, None);
    /// # Ok::<(), distcache::client::Error>(())
    /// ```
    pub fn set_away(&self, away: bool) {
        self.shared.is_away.store(away, Ordering::SeqCst);
    }

    fn config(&self) -> &Config {
        &self.shared.config
    }

    fn lock(&self) -> MutexGuard<'_, Items> {
        self.shared.items.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wire(&self, key: &impl AsKey) -> Result<WireKey<'static>, Error> {
        Ok(self.shared.rules.wire(key.as_key())?.into_owned())
    }

    fn down() -> Error {
        Error::Down { server: NAME.to_owned() }
    }

    /// What `run` makes of the items; while the cache is away, `missing` if misses are wanted then.
    fn with<R>(
        &self,
        key: &impl AsKey,
        missing: Option<R>,
        run: impl FnOnce(&mut Items, &[u8], SystemTime) -> Result<R, Error>,
    ) -> Result<R, Error> {
        let key = self.wire(key)?;
        if self.shared.is_away.load(Ordering::SeqCst) {
            let missing = missing.filter(|_| self.config().when_down != WhenDown::Error);
            return missing.ok_or_else(Self::down);
        }
        let now = (self.shared.now)();
        run(&mut self.lock(), &key.bytes, now)
    }

    /// Stores a value if `may` says so of the token of the item there is.
    fn store<R>(
        &self,
        key: &impl AsKey,
        value: &impl Serialize,
        expiry: Expiry,
        [missing, stored]: [R; 2],
        may: impl FnOnce(Option<u64>) -> Result<(), R>,
    ) -> Result<R, Error> {
        let Encoded { data, flags } = Encoded::new(self.config(), value)?;
        self.with(key, Some(missing), |items, key, now| {
            if key.len() + data.len() > ITEM_BYTES_MAX {
                return Err(refused("SERVER_ERROR object too large for cache"));
            }
            if let Err(result) = may(items.find(key, now).map(|item| item.token)) {
                return Ok(result);
            }
            items.put(key, data, flags, until(expiry, now));
            Ok(stored)
        })
    }

    fn count(&self, key: &impl AsKey, up: bool, delta: u64) -> Result<Option<u64>, Error> {
        self.with(key, Some(None), |items, key, now| match items.count(key, up, delta, now) {
            Some(number) => number.map(Some).ok_or_else(not_a_number),
            None => Ok(None),
        })
    }

    /// Takes the place of a value for whoever computes it; `None` while the cache is away.
    fn place(&self, key: &WireKey<'static>) -> Option<Place<'_>> {
        if self.shared.is_away.load(Ordering::SeqCst) {
            return None;
        }
        let mut items = self.lock();
        let now = (self.shared.now)();
        // A value that could not be read is left for whoever can.
        let token = match items.find(key.bytes.as_ref(), now) {
            Some(item) => item.token,
            None => items.reserve(&key.bytes, until(self.config().lease.into(), now)),
        };
        drop(items);
        Some(Place { cache: self, key: key.clone(), token })
    }

    /// A value that is there and can be read.
    fn readable<T: DeserializeOwned>(&self, key: &impl AsKey) -> Result<Option<T>, Error> {
        match Cache::get(self, key) {
            Err(Error::Value(_) | Error::Down { .. }) => Ok(None),
            read => read,
        }
    }

    /// Stores what was computed, and hands it to those who wait for it.
    fn fill<T: Serialize>(
        &self,
        place: Option<&Place<'_>>,
        expiry: Expiry,
        value: &T,
    ) -> Option<Encoded> {
        let encoded = Encoded::new(self.config(), value).ok()?;
        if let Some(place) = place {
            place.fill(&encoded, expiry);
        }
        Some(encoded)
    }

    /// The beginning of a computation: the value if there is one by now, or who computes it.
    fn begin<T: DeserializeOwned>(
        &self,
        key: &impl AsKey,
        wire: &WireKey<'static>,
    ) -> Result<Begun<'_, T>, Error> {
        if let Some(value) = self.readable(key)? {
            return Ok(Begun::Value(value));
        }
        Ok(match self.shared.flights.join(wire) {
            Role::First(leading) => match self.readable(key)? {
                // Whoever was first before has just stored it.
                Some(value) => Begun::Value(value),
                None => Begun::First(leading, self.place(wire)),
            },
            Role::Other(following) => Begun::Other(following),
        })
    }

    /// `try_get_or_compute` for a future that computes.
    #[cfg(feature = "tokio")]
    pub(super) async fn computed<T, E, F>(
        &self,
        key: impl AsKey,
        expiry: impl Into<Expiry>,
        compute: impl FnOnce() -> F,
    ) -> Result<T, E>
    where
        T: DeserializeOwned + Serialize,
        E: From<Error>,
        F: Future<Output = Result<T, E>>,
    {
        let (wire, expiry) = (self.wire(&key)?, expiry.into());
        loop {
            match self.begin(&key, &wire)? {
                Begun::Value(value) => return Ok(value),
                Begun::First(leading, place) => {
                    let value = compute().await?;
                    leading.land(self.fill(place.as_ref(), expiry, &value));
                    return Ok(value);
                }
                Begun::Other(following) => {
                    let landed = following.await;
                    if let Some(value) = landed.and_then(|landed| landed.value(self.config())) {
                        return Ok(value);
                    }
                }
            }
        }
    }
}

fn refused(line: &str) -> Error {
    Error::Refused { server: NAME.to_owned(), line: line.to_owned() }
}

fn not_a_number() -> Error {
    refused("CLIENT_ERROR cannot increment or decrement non-numeric value")
}

/// See [`FakeCache::begin`].
enum Begun<'c, T> {
    Value(T),
    First(Leading, Option<Place<'c>>),
    Other(Following),
}

/// The place of a value that is being computed; given back when it is dropped.
struct Place<'c> {
    cache: &'c FakeCache,
    key: WireKey<'static>,
    token: u64,
}

impl Place<'_> {
    /// Stores the value, unless the key was set or deleted meanwhile.
    fn fill(&self, value: &Encoded, expiry: Expiry) {
        let (mut items, now) = (self.cache.lock(), (self.cache.shared.now)());
        let is_small = self.key.bytes.len() + value.data.len() <= ITEM_BYTES_MAX;
        if is_small && items.token(&self.key.bytes, now) == Some(self.token) {
            items.put(&self.key.bytes, value.data.clone(), value.flags, until(expiry, now));
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.cache.lock().give_back(&self.key.bytes, self.token);
    }
}

impl Cache for FakeCache {
    fn get<T: DeserializeOwned>(&self, key: impl AsKey) -> Result<Option<T>, Error> {
        Ok(Cache::get_versioned(self, key)?.map(|read| read.value))
    }

    fn get_versioned<T: DeserializeOwned>(
        &self,
        key: impl AsKey,
    ) -> Result<Option<Versioned<T>>, Error> {
        let codec = &self.config().codec;
        self.with(&key, Some(None), |items, key, now| {
            let Some(item) = items.find(key, now) else { return Ok(None) };
            let value = codec.decode(&item.data, item.flags)?;
            Ok(Some(Versioned { value, flags: item.flags, token: item.token }))
        })
    }

    fn get_many<T: DeserializeOwned>(&self, keys: &[impl AsKey]) -> Many<Option<T>> {
        Many(keys.iter().map(|key| Cache::get(self, key)).collect())
    }

    fn set(&self, key: impl AsKey, value: impl Serialize) -> Result<(), Error> {
        Cache::set_with(self, key, value, self.config().expiry)
    }

    fn set_with(
        &self,
        key: impl AsKey,
        value: impl Serialize,
        expiry: impl Into<Expiry>,
    ) -> Result<(), Error> {
        self.store(&key, &value, expiry.into(), [(), ()], |_| Ok(()))
    }

    fn add_with(
        &self,
        key: impl AsKey,
        value: impl Serialize,
        expiry: impl Into<Expiry>,
    ) -> Result<bool, Error> {
        self.store(&key, &value, expiry.into(), [false, true], |token| match token {
            Some(_) => Err(false),
            None => Ok(()),
        })
    }

    fn cas_with(
        &self,
        key: impl AsKey,
        value: impl Serialize,
        token: u64,
        expiry: impl Into<Expiry>,
    ) -> Result<Cas, Error> {
        let results = [Cas::Missing, Cas::Stored];
        self.store(&key, &value, expiry.into(), results, |there| match there {
            Some(there) if there == token => Ok(()),
            Some(_) => Err(Cas::Changed),
            None => Err(Cas::Missing),
        })
    }

    fn update_with<T: DeserializeOwned + Serialize>(
        &self,
        key: impl AsKey,
        expiry: impl Into<Expiry>,
        mut change: impl FnMut(Option<T>) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        let expiry = expiry.into();
        loop {
            let (value, token) = match Cache::get_versioned(self, &key)? {
                Some(Versioned { value, token, .. }) => (Some(value), Some(token)),
                None => (None, None),
            };
            let Some(value) = change(value) else { return Ok(None) };
            let stored = match token {
                Some(token) => self.cas_with(&key, &value, token, expiry)? == Cas::Stored,
                None => self.add_with(&key, &value, expiry)?,
            };
            if stored {
                return Ok(Some(value));
            }
        }
    }

    fn delete(&self, key: impl AsKey) -> Result<bool, Error> {
        self.with(&key, Some(false), |items, key, now| Ok(items.remove(key, now).is_some()))
    }

    fn take<T: DeserializeOwned>(&self, key: impl AsKey) -> Result<Option<T>, Error> {
        let codec = &self.config().codec;
        self.with(&key, Some(None), |items, key, now| {
            let Some(item) = items.find(key, now) else { return Ok(None) };
            // What cannot be read stays.
            let value = codec.decode(&item.data, item.flags)?;
            items.remove(key, now);
            Ok(Some(value))
        })
    }

    fn touch(&self, key: impl AsKey, expiry: impl Into<Expiry>) -> Result<bool, Error> {
        let expiry = expiry.into();
        self.with(&key, Some(false), |items, key, now| {
            let item = items.find(key, now);
            Ok(item.map(|item| item.until = until(expiry, now)).is_some())
        })
    }

    fn incr(&self, key: impl AsKey, delta: u64) -> Result<Option<u64>, Error> {
        self.count(&key, true, delta)
    }

    fn decr(&self, key: impl AsKey, delta: u64) -> Result<Option<u64>, Error> {
        self.count(&key, false, delta)
    }

    fn incr_or_with(
        &self,
        key: impl AsKey,
        delta: u64,
        initial: u64,
        expiry: impl Into<Expiry>,
    ) -> Result<u64, Error> {
        let expiry = expiry.into();
        self.with(&key, None, |items, key, now| match items.count(key, true, delta, now) {
            Some(number) => number.ok_or_else(not_a_number),
            None => {
                items.put(key, initial.to_string().into_bytes(), 0, until(expiry, now));
                Ok(initial)
            }
        })
    }

    fn try_get_or_compute<T: DeserializeOwned + Serialize, E: From<Error>>(
        &self,
        key: impl AsKey,
        expiry: impl Into<Expiry>,
        compute: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        let (wire, expiry) = (self.wire(&key)?, expiry.into());
        let give_up_at = clock::now() + self.config().lease;
        loop {
            match self.begin(&key, &wire)? {
                Begun::Value(value) => return Ok(value),
                Begun::First(leading, place) => {
                    let value = compute()?;
                    leading.land(self.fill(place.as_ref(), expiry, &value));
                    return Ok(value);
                }
                Begun::Other(_) if clock::now() >= give_up_at => return compute(),
                Begun::Other(following) => {
                    let landed = wait_until(Some(following), give_up_at);
                    if let Some(value) = landed.and_then(|landed| landed.value(self.config())) {
                        return Ok(value);
                    }
                }
            }
        }
    }
}
