//! What a service needs of a cache, as a trait: the signatures of the asynchronous face, and that a
//! client and a fake have them. Owns nothing else.

use crate::client::asynchronous::Client;
use crate::client::cache::Cache as Blocking;
use crate::client::config::Expiry;
use crate::client::error::Error;
use crate::client::fake::FakeCache;
use crate::client::placement::key::AsKey;
use crate::client::wire::outcome::{Cas, Many, Versioned};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::future::Future;

/// As [`client::Cache`](crate::client::Cache), for programs on tokio: what services use of a
/// [`Client`], for code that is to run on a [`FakeCache`] in tests.
///
/// ```
/// use distcache::client::asynchronous::Cache;
/// use distcache::client::{Error, FakeCache};
/// use std::time::Duration;
///
/// async fn greeting(cache: &impl Cache, user: u32) -> Result<String, Error> {
///     let minute = Duration::from_secs(60);
///     let greet = move || async move { format!("Hello, {user}") };
///     cache.get_or_compute(format!("greeting:{user}"), minute, greet).await
/// }
///
/// # let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
/// # runtime.block_on(async {
/// assert_eq!(greeting(&FakeCache::new(), 7).await?, "Hello, 7");
/// # Ok::<(), Error>(())
/// # })?;
/// # Ok::<(), Error>(())
/// ```
pub trait Cache: Sync {
    /// As [`Client::get`].
    ///
    /// # Errors
    /// As there.
    fn get<T: DeserializeOwned + Send>(
        &self,
        key: impl AsKey + Send + Sync,
    ) -> impl Future<Output = Result<Option<T>, Error>> + Send;

    /// As [`Client::get_versioned`].
    ///
    /// # Errors
    /// As there.
    fn get_versioned<T: DeserializeOwned + Send>(
        &self,
        key: impl AsKey + Send + Sync,
    ) -> impl Future<Output = Result<Option<Versioned<T>>, Error>> + Send;

    /// As [`Client::get_many`].
    fn get_many<T: DeserializeOwned + Send>(
        &self,
        keys: &[impl AsKey + Send + Sync],
    ) -> impl Future<Output = Many<Option<T>>> + Send;

    /// As [`Client::set`].
    ///
    /// # Errors
    /// As there.
    fn set(
        &self,
        key: impl AsKey + Send + Sync,
        value: impl Serialize + Send + Sync,
    ) -> impl Future<Output = Result<(), Error>> + Send;

    /// As [`Client::set_with`].
    ///
    /// # Errors
    /// As there.
    fn set_with(
        &self,
        key: impl AsKey + Send + Sync,
        value: impl Serialize + Send + Sync,
        expiry: impl Into<Expiry> + Send,
    ) -> impl Future<Output = Result<(), Error>> + Send;

    /// As [`Client::add_with`].
    ///
    /// # Errors
    /// As there.
    fn add_with(
        &self,
        key: impl AsKey + Send + Sync,
        value: impl Serialize + Send + Sync,
        expiry: impl Into<Expiry> + Send,
    ) -> impl Future<Output = Result<bool, Error>> + Send;

    /// As [`Client::cas_with`].
    ///
    /// # Errors
    /// As there.
    fn cas_with(
        &self,
        key: impl AsKey + Send + Sync,
        value: impl Serialize + Send + Sync,
        token: u64,
        expiry: impl Into<Expiry> + Send,
    ) -> impl Future<Output = Result<Cas, Error>> + Send;

    /// As [`Client::update_with`].
    ///
    /// # Errors
    /// As there.
    fn update_with<T: DeserializeOwned + Serialize + Send + Sync>(
        &self,
        key: impl AsKey + Send + Sync,
        expiry: impl Into<Expiry> + Send,
        change: impl FnMut(Option<T>) -> Option<T> + Send,
    ) -> impl Future<Output = Result<Option<T>, Error>> + Send;

    /// As [`Client::delete`].
    ///
    /// # Errors
    /// As there.
    fn delete(
        &self,
        key: impl AsKey + Send + Sync,
    ) -> impl Future<Output = Result<bool, Error>> + Send;

    /// As [`Client::take`].
    ///
    /// # Errors
    /// As there.
    fn take<T: DeserializeOwned + Send>(
        &self,
        key: impl AsKey + Send + Sync,
    ) -> impl Future<Output = Result<Option<T>, Error>> + Send;

    /// As [`Client::touch`].
    ///
    /// # Errors
    /// As there.
    fn touch(
        &self,
        key: impl AsKey + Send + Sync,
        expiry: impl Into<Expiry> + Send,
    ) -> impl Future<Output = Result<bool, Error>> + Send;

    /// As [`Client::incr`].
    ///
    /// # Errors
    /// As there.
    fn incr(
        &self,
        key: impl AsKey + Send + Sync,
        delta: u64,
    ) -> impl Future<Output = Result<Option<u64>, Error>> + Send;

    /// As [`Client::decr`].
    ///
    /// # Errors
    /// As there.
    fn decr(
        &self,
        key: impl AsKey + Send + Sync,
        delta: u64,
    ) -> impl Future<Output = Result<Option<u64>, Error>> + Send;

    /// As [`Client::incr_or_with`].
    ///
    /// # Errors
    /// As there.
    fn incr_or_with(
        &self,
        key: impl AsKey + Send + Sync,
        delta: u64,
        initial: u64,
        expiry: impl Into<Expiry> + Send,
    ) -> impl Future<Output = Result<u64, Error>> + Send;

    /// As [`Client::get_or_compute`].
    ///
    /// # Errors
    /// As there.
    fn get_or_compute<T, F>(
        &self,
        key: impl AsKey + Send + Sync,
        expiry: impl Into<Expiry> + Send,
        compute: impl FnOnce() -> F + Send,
    ) -> impl Future<Output = Result<T, Error>> + Send
    where
        T: DeserializeOwned + Serialize + Send + Sync + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let compute = || {
            let computed = compute();
            async { Ok(computed.await) }
        };
        self.try_get_or_compute(key, expiry, compute)
    }

    /// As [`Client::try_get_or_compute`].
    ///
    /// # Errors
    /// As there.
    fn try_get_or_compute<T, E, F>(
        &self,
        key: impl AsKey + Send + Sync,
        expiry: impl Into<Expiry> + Send,
        compute: impl FnOnce() -> F + Send,
    ) -> impl Future<Output = Result<T, E>> + Send
    where
        T: DeserializeOwned + Serialize + Send + Sync + 'static,
        E: From<Error> + Send + 'static,
        F: Future<Output = Result<T, E>> + Send + 'static;
}

impl Cache for Client {
    async fn get<T: DeserializeOwned + Send>(
        &self,
        key: impl AsKey + Send + Sync,
    ) -> Result<Option<T>, Error> {
        Self::get(self, key).await
    }

    async fn get_versioned<T: DeserializeOwned + Send>(
        &self,
        key: impl AsKey + Send + Sync,
    ) -> Result<Option<Versioned<T>>, Error> {
        Self::get_versioned(self, key).await
    }

    async fn get_many<T: DeserializeOwned + Send>(
        &self,
        keys: &[impl AsKey + Send + Sync],
    ) -> Many<Option<T>> {
        Self::get_many(self, keys).await
    }

    async fn set(
        &self,
        key: impl AsKey + Send + Sync,
        value: impl Serialize + Send + Sync,
    ) -> Result<(), Error> {
        Self::set(self, key, value).await
    }

    async fn set_with(
        &self,
        key: impl AsKey + Send + Sync,
        value: impl Serialize + Send + Sync,
        expiry: impl Into<Expiry> + Send,
    ) -> Result<(), Error> {
        Self::set_with(self, key, value, expiry).await
    }

    async fn add_with(
        &self,
        key: impl AsKey + Send + Sync,
        value: impl Serialize + Send + Sync,
        expiry: impl Into<Expiry> + Send,
    ) -> Result<bool, Error> {
        Self::add_with(self, key, value, expiry).await
    }

    async fn cas_with(
        &self,
        key: impl AsKey + Send + Sync,
        value: impl Serialize + Send + Sync,
        token: u64,
        expiry: impl Into<Expiry> + Send,
    ) -> Result<Cas, Error> {
        Self::cas_with(self, key, value, token, expiry).await
    }

    async fn update_with<T: DeserializeOwned + Serialize + Send + Sync>(
        &self,
        key: impl AsKey + Send + Sync,
        expiry: impl Into<Expiry> + Send,
        change: impl FnMut(Option<T>) -> Option<T> + Send,
    ) -> Result<Option<T>, Error> {
        Self::update_with(self, key, expiry, change).await
    }

    async fn delete(&self, key: impl AsKey + Send + Sync) -> Result<bool, Error> {
        Self::delete(self, key).await
    }

    async fn take<T: DeserializeOwned + Send>(
        &self,
        key: impl AsKey + Send + Sync,
    ) -> Result<Option<T>, Error> {
        Self::take(self, key).await
    }

    async fn touch(
        &self,
        key: impl AsKey + Send + Sync,
        expiry: impl Into<Expiry> + Send,
    ) -> Result<bool, Error> {
        Self::touch(self, key, expiry).await
    }

    async fn incr(&self, key: impl AsKey + Send + Sync, delta: u64) -> Result<Option<u64>, Error> {
        Self::incr(self, key, delta).await
    }

    async fn decr(&self, key: impl AsKey + Send + Sync, delta: u64) -> Result<Option<u64>, Error> {
        Self::decr(self, key, delta).await
    }

    async fn incr_or_with(
        &self,
        key: impl AsKey + Send + Sync,
        delta: u64,
        initial: u64,
        expiry: impl Into<Expiry> + Send,
    ) -> Result<u64, Error> {
        Self::incr_or_with(self, key, delta, initial, expiry).await
    }

    async fn try_get_or_compute<T, E, F>(
        &self,
        key: impl AsKey + Send + Sync,
        expiry: impl Into<Expiry> + Send,
        compute: impl FnOnce() -> F + Send,
    ) -> Result<T, E>
    where
        T: DeserializeOwned + Serialize + Send + Sync + 'static,
        E: From<Error> + Send + 'static,
        F: Future<Output = Result<T, E>> + Send + 'static,
    {
        Self::try_get_or_compute(self, key, expiry, compute).await
    }
}

impl Cache for FakeCache {
    async fn get<T: DeserializeOwned + Send>(
        &self,
        key: impl AsKey + Send + Sync,
    ) -> Result<Option<T>, Error> {
        Blocking::get(self, key)
    }

    async fn get_versioned<T: DeserializeOwned + Send>(
        &self,
        key: impl AsKey + Send + Sync,
    ) -> Result<Option<Versioned<T>>, Error> {
        Blocking::get_versioned(self, key)
    }

    async fn get_many<T: DeserializeOwned + Send>(
        &self,
        keys: &[impl AsKey + Send + Sync],
    ) -> Many<Option<T>> {
        Blocking::get_many(self, keys)
    }

    async fn set(
        &self,
        key: impl AsKey + Send + Sync,
        value: impl Serialize + Send + Sync,
    ) -> Result<(), Error> {
        Blocking::set(self, key, value)
    }

    async fn set_with(
        &self,
        key: impl AsKey + Send + Sync,
        value: impl Serialize + Send + Sync,
        expiry: impl Into<Expiry> + Send,
    ) -> Result<(), Error> {
        Blocking::set_with(self, key, value, expiry)
    }

    async fn add_with(
        &self,
        key: impl AsKey + Send + Sync,
        value: impl Serialize + Send + Sync,
        expiry: impl Into<Expiry> + Send,
    ) -> Result<bool, Error> {
        Blocking::add_with(self, key, value, expiry)
    }

    async fn cas_with(
        &self,
        key: impl AsKey + Send + Sync,
        value: impl Serialize + Send + Sync,
        token: u64,
        expiry: impl Into<Expiry> + Send,
    ) -> Result<Cas, Error> {
        Blocking::cas_with(self, key, value, token, expiry)
    }

    async fn update_with<T: DeserializeOwned + Serialize + Send + Sync>(
        &self,
        key: impl AsKey + Send + Sync,
        expiry: impl Into<Expiry> + Send,
        change: impl FnMut(Option<T>) -> Option<T> + Send,
    ) -> Result<Option<T>, Error> {
        Blocking::update_with(self, key, expiry, change)
    }

    async fn delete(&self, key: impl AsKey + Send + Sync) -> Result<bool, Error> {
        Blocking::delete(self, key)
    }

    async fn take<T: DeserializeOwned + Send>(
        &self,
        key: impl AsKey + Send + Sync,
    ) -> Result<Option<T>, Error> {
        Blocking::take(self, key)
    }

    async fn touch(
        &self,
        key: impl AsKey + Send + Sync,
        expiry: impl Into<Expiry> + Send,
    ) -> Result<bool, Error> {
        Blocking::touch(self, key, expiry)
    }

    async fn incr(&self, key: impl AsKey + Send + Sync, delta: u64) -> Result<Option<u64>, Error> {
        Blocking::incr(self, key, delta)
    }

    async fn decr(&self, key: impl AsKey + Send + Sync, delta: u64) -> Result<Option<u64>, Error> {
        Blocking::decr(self, key, delta)
    }

    async fn incr_or_with(
        &self,
        key: impl AsKey + Send + Sync,
        delta: u64,
        initial: u64,
        expiry: impl Into<Expiry> + Send,
    ) -> Result<u64, Error> {
        Blocking::incr_or_with(self, key, delta, initial, expiry)
    }

    async fn try_get_or_compute<T, E, F>(
        &self,
        key: impl AsKey + Send + Sync,
        expiry: impl Into<Expiry> + Send,
        compute: impl FnOnce() -> F + Send,
    ) -> Result<T, E>
    where
        T: DeserializeOwned + Serialize + Send + Sync + 'static,
        E: From<Error> + Send + 'static,
        F: Future<Output = Result<T, E>> + Send + 'static,
    {
        self.computed(key, expiry, compute).await
    }
}
