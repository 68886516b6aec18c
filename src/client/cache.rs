//! What a service needs of a cache, as a trait: so that it runs on a [`Client`] and is tested with
//! a [`FakeCache`](crate::client::FakeCache). Owns the signatures of the blocking face; those of
//! the asynchronous one are in `asynchronous::cache`.

use crate::client::blocking::client::Client;
use crate::client::config::Expiry;
use crate::client::error::Error;
use crate::client::placement::key::AsKey;
use crate::client::wire::outcome::{Cas, Many, Versioned};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The operations of a [`Client`] that services use, for code that is to run on something else too:
/// on a [`FakeCache`](crate::client::FakeCache) in tests, or on what you put around a client.
///
/// The methods are those of [`Client`], with its meaning; take it as `&impl Cache` or as a type
/// parameter. (They are generic, so there is no `dyn Cache`.)
///
/// ```
/// use distcache::client::{Cache, Error, FakeCache};
/// use std::time::Duration;
///
/// /// The service: it neither knows nor cares which cache that is.
/// fn greeting(cache: &impl Cache, user: u32) -> Result<String, Error> {
///     let minute = Duration::from_secs(60);
///     cache.incr_or_with(format!("seen:{user}"), 1, 1, minute)?;
///     cache.get_or_compute(format!("greeting:{user}"), minute, || format!("Hello, {user}"))
/// }
///
/// // Its test, without a server.
/// let cache = FakeCache::new();
/// assert_eq!(greeting(&cache, 7)?, "Hello, 7");
/// assert_eq!(cache.get::<u64>("seen:7")?, Some(1));
/// # Ok::<(), Error>(())
/// ```
pub trait Cache {
    /// As [`Client::get`].
    ///
    /// # Errors
    /// As there.
    fn get<T: DeserializeOwned>(&self, key: impl AsKey) -> Result<Option<T>, Error>;

    /// As [`Client::get_versioned`].
    ///
    /// # Errors
    /// As there.
    fn get_versioned<T: DeserializeOwned>(
        &self,
        key: impl AsKey,
    ) -> Result<Option<Versioned<T>>, Error>;

    /// As [`Client::get_many`].
    fn get_many<T: DeserializeOwned>(&self, keys: &[impl AsKey]) -> Many<Option<T>>;

    /// As [`Client::set`].
    ///
    /// # Errors
    /// As there.
    fn set(&self, key: impl AsKey, value: impl Serialize) -> Result<(), Error>;

    /// As [`Client::set_with`].
    ///
    /// # Errors
    /// As there.
    fn set_with(
        &self,
        key: impl AsKey,
        value: impl Serialize,
        expiry: impl Into<Expiry>,
    ) -> Result<(), Error>;

    /// As [`Client::add_with`].
    ///
    /// # Errors
    /// As there.
    fn add_with(
        &self,
        key: impl AsKey,
        value: impl Serialize,
        expiry: impl Into<Expiry>,
    ) -> Result<bool, Error>;

    /// As [`Client::cas_with`].
    ///
    /// # Errors
    /// As there.
    fn cas_with(
        &self,
        key: impl AsKey,
        value: impl Serialize,
        token: u64,
        expiry: impl Into<Expiry>,
    ) -> Result<Cas, Error>;

    /// As [`Client::update_with`].
    ///
    /// # Errors
    /// As there.
    fn update_with<T: DeserializeOwned + Serialize>(
        &self,
        key: impl AsKey,
        expiry: impl Into<Expiry>,
        change: impl FnMut(Option<T>) -> Option<T>,
    ) -> Result<Option<T>, Error>;

    /// As [`Client::delete`].
    ///
    /// # Errors
    /// As there.
    fn delete(&self, key: impl AsKey) -> Result<bool, Error>;

    /// As [`Client::take`].
    ///
    /// # Errors
    /// As there.
    fn take<T: DeserializeOwned>(&self, key: impl AsKey) -> Result<Option<T>, Error>;

    /// As [`Client::touch`].
    ///
    /// # Errors
    /// As there.
    fn touch(&self, key: impl AsKey, expiry: impl Into<Expiry>) -> Result<bool, Error>;

    /// As [`Client::incr`].
    ///
    /// # Errors
    /// As there.
    fn incr(&self, key: impl AsKey, delta: u64) -> Result<Option<u64>, Error>;

    /// As [`Client::decr`].
    ///
    /// # Errors
    /// As there.
    fn decr(&self, key: impl AsKey, delta: u64) -> Result<Option<u64>, Error>;

    /// As [`Client::incr_or_with`].
    ///
    /// # Errors
    /// As there.
    fn incr_or_with(
        &self,
        key: impl AsKey,
        delta: u64,
        initial: u64,
        expiry: impl Into<Expiry>,
    ) -> Result<u64, Error>;

    /// As [`Client::get_or_compute`].
    ///
    /// # Errors
    /// As there.
    fn get_or_compute<T: DeserializeOwned + Serialize>(
        &self,
        key: impl AsKey,
        expiry: impl Into<Expiry>,
        compute: impl FnOnce() -> T,
    ) -> Result<T, Error> {
        self.try_get_or_compute(key, expiry, || Ok(compute()))
    }

    /// As [`Client::try_get_or_compute`].
    ///
    /// # Errors
    /// As there.
    fn try_get_or_compute<T: DeserializeOwned + Serialize, E: From<Error>>(
        &self,
        key: impl AsKey,
        expiry: impl Into<Expiry>,
        compute: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E>;
}

impl Cache for Client {
    fn get<T: DeserializeOwned>(&self, key: impl AsKey) -> Result<Option<T>, Error> {
        Self::get(self, key)
    }

    fn get_versioned<T: DeserializeOwned>(
        &self,
        key: impl AsKey,
    ) -> Result<Option<Versioned<T>>, Error> {
        Self::get_versioned(self, key)
    }

    fn get_many<T: DeserializeOwned>(&self, keys: &[impl AsKey]) -> Many<Option<T>> {
        Self::get_many(self, keys)
    }

    fn set(&self, key: impl AsKey, value: impl Serialize) -> Result<(), Error> {
        Self::set(self, key, value)
    }

    fn set_with(
        &self,
        key: impl AsKey,
        value: impl Serialize,
        expiry: impl Into<Expiry>,
    ) -> Result<(), Error> {
        Self::set_with(self, key, value, expiry)
    }

    fn add_with(
        &self,
        key: impl AsKey,
        value: impl Serialize,
        expiry: impl Into<Expiry>,
    ) -> Result<bool, Error> {
        Self::add_with(self, key, value, expiry)
    }

    fn cas_with(
        &self,
        key: impl AsKey,
        value: impl Serialize,
        token: u64,
        expiry: impl Into<Expiry>,
    ) -> Result<Cas, Error> {
        Self::cas_with(self, key, value, token, expiry)
    }

    fn update_with<T: DeserializeOwned + Serialize>(
        &self,
        key: impl AsKey,
        expiry: impl Into<Expiry>,
        change: impl FnMut(Option<T>) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        Self::update_with(self, key, expiry, change)
    }

    fn delete(&self, key: impl AsKey) -> Result<bool, Error> {
        Self::delete(self, key)
    }

    fn take<T: DeserializeOwned>(&self, key: impl AsKey) -> Result<Option<T>, Error> {
        Self::take(self, key)
    }

    fn touch(&self, key: impl AsKey, expiry: impl Into<Expiry>) -> Result<bool, Error> {
        Self::touch(self, key, expiry)
    }

    fn incr(&self, key: impl AsKey, delta: u64) -> Result<Option<u64>, Error> {
        Self::incr(self, key, delta)
    }

    fn decr(&self, key: impl AsKey, delta: u64) -> Result<Option<u64>, Error> {
        Self::decr(self, key, delta)
    }

    fn incr_or_with(
        &self,
        key: impl AsKey,
        delta: u64,
        initial: u64,
        expiry: impl Into<Expiry>,
    ) -> Result<u64, Error> {
        Self::incr_or_with(self, key, delta, initial, expiry)
    }

    fn try_get_or_compute<T: DeserializeOwned + Serialize, E: From<Error>>(
        &self,
        key: impl AsKey,
        expiry: impl Into<Expiry>,
        compute: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        Self::try_get_or_compute(self, key, expiry, compute)
    }
}
