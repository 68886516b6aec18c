//! Calls about many keys, and batches of mixed commands, of the blocking face: only waiting.
//! What is sent and what the replies are is decided in `operation::many` and `operation::batch`.

use crate::client::blocking::client::Client;
use crate::client::operation::many::{self, Bulk, Stores};
use crate::client::{Answer, AsKey, Batch, Error, Expiry, Many, Pair, Versioned};
use serde::de::DeserializeOwned;
use std::collections::HashMap;
use std::hash::Hash;

/// Many keys.
impl Client {
    /// The values of many keys: one request to each server, to all of them at once. A server that
    /// fails costs its own keys only; see [`Many`].
    ///
    /// ```
    /// # let server = distcache::server::Server::bind("127.0.0.1:0")?;
    /// # let client = distcache::client::Client::connect([server.addresses()[0].to_string()])?;
    /// client.set("a", "x")?;
    /// let found = client.get_many::<String>(["a", "b"]).found();
    /// assert_eq!(found, [Some("x".to_owned()), None]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn get_many<T: DeserializeOwned>(
        &self,
        keys: impl IntoIterator<Item = impl AsKey>,
    ) -> Many<Option<T>> {
        let keys: Vec<_> = keys.into_iter().collect();
        self.fetch(&keys, &many::values(self.config()))
    }

    /// What is there of many keys, by key. As [`get_many`](Self::get_many), for programs that need
    /// all or nothing: with `WhenDown::Error` a server that is away is an error, else its keys are
    /// missing.
    ///
    /// # Errors
    /// The first failure.
    ///
    /// ```
    /// # let server = distcache::server::Server::bind("127.0.0.1:0")?;
    /// # let client = distcache::client::Client::connect([server.addresses()[0].to_string()])?;
    /// use std::collections::HashMap;
    ///
    /// client.set_many([(1, "a"), (2, "b")]).all()?;
    /// let names: HashMap<u64, String> = client.get_map(1..=3)?;
    /// assert_eq!((names.len(), names[&2].as_str()), (2, "b"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn get_map<K: AsKey + Eq + Hash, T: DeserializeOwned>(
        &self,
        keys: impl IntoIterator<Item = K>,
    ) -> Result<HashMap<K, T>, Error> {
        let keys: Vec<K> = keys.into_iter().collect();
        self.fetch(&keys, &many::values(self.config())).into_map(keys)
    }

    /// The same with flags and tokens, as of [`get_versioned`](Self::get_versioned).
    pub fn get_many_versioned<T: DeserializeOwned>(
        &self,
        keys: impl IntoIterator<Item = impl AsKey>,
    ) -> Many<Option<Versioned<T>>> {
        let keys: Vec<_> = keys.into_iter().collect();
        self.fetch(&keys, &many::versioned(self.config()))
    }

    /// Stores many values: to all servers at once, with the default expiry. The requests of a call
    /// are held in memory, so very many large values are better sent in several calls.
    ///
    /// ```
    /// # let server = distcache::server::Server::bind("127.0.0.1:0")?;
    /// # let client = distcache::client::Client::connect([server.addresses()[0].to_string()])?;
    /// client.set_many([("a", 1), ("b", 2)]).all()?;
    /// assert_eq!(client.get::<u8>("b")?, Some(2));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn set_many(&self, items: impl IntoIterator<Item = impl Pair>) -> Many<()> {
        self.set_many_with(items, self.config().expiry)
    }

    /// The same with an expiry.
    pub fn set_many_with(
        &self,
        items: impl IntoIterator<Item = impl Pair>,
        expiry: impl Into<Expiry>,
    ) -> Many<()> {
        let (keys, stores) = Stores::new(self.config(), items, expiry.into());
        self.cluster().call_many(&keys, &stores)
    }

    /// Deletes many items, on all servers at once; tells for each whether there was one.
    ///
    /// ```
    /// # let server = distcache::server::Server::bind("127.0.0.1:0")?;
    /// # let client = distcache::client::Client::connect([server.addresses()[0].to_string()])?;
    /// client.set("a", 1)?;
    /// assert_eq!(client.delete_many(["a", "b"]).all()?, [true, false]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn delete_many(&self, keys: impl IntoIterator<Item = impl AsKey>) -> Many<bool> {
        self.each(keys, &many::delete())
    }

    /// Sets the expiry of many items, on all servers at once; tells for each whether there is one.
    ///
    /// ```
    /// # let server = distcache::server::Server::bind("127.0.0.1:0")?;
    /// # let client = distcache::client::Client::connect([server.addresses()[0].to_string()])?;
    /// use std::time::Duration;
    ///
    /// client.set("a", 1)?;
    /// let minute = Duration::from_secs(60);
    /// assert_eq!(client.touch_many(["a", "b"], minute).all()?, [true, false]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn touch_many(
        &self,
        keys: impl IntoIterator<Item = impl AsKey>,
        expiry: impl Into<Expiry>,
    ) -> Many<bool> {
        self.each(keys, &many::touch(expiry.into()))
    }

    /// Adds to many numbers, on all servers at once; see [`incr`](Self::incr).
    ///
    /// ```
    /// # let server = distcache::server::Server::bind("127.0.0.1:0")?;
    /// # let client = distcache::client::Client::connect([server.addresses()[0].to_string()])?;
    /// client.set("visits:home", 7)?;
    /// let visits = client.incr_many(["visits:home", "visits:none"], 1).all()?;
    /// assert_eq!(visits, [Some(8), None]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn incr_many(
        &self,
        keys: impl IntoIterator<Item = impl AsKey>,
        delta: u64,
    ) -> Many<Option<u64>> {
        self.each(keys, &many::count(true, delta))
    }

    /// Subtracts from many numbers, not below 0.
    pub fn decr_many(
        &self,
        keys: impl IntoIterator<Item = impl AsKey>,
        delta: u64,
    ) -> Many<Option<u64>> {
        self.each(keys, &many::count(false, delta))
    }

    fn fetch<T>(&self, keys: &[impl AsKey], bulk: &impl Bulk<Option<T>>) -> Many<Option<T>> {
        let many = self.cluster().call_many(keys, bulk);
        let found = |result: &Result<Option<T>, Error>| result.as_ref().ok().map(Option::is_some);
        self.cluster().count_all_found(many.iter().map(found));
        many
    }

    fn each<T>(&self, keys: impl IntoIterator<Item = impl AsKey>, bulk: &impl Bulk<T>) -> Many<T> {
        let keys: Vec<_> = keys.into_iter().collect();
        self.cluster().call_many(&keys, bulk)
    }
}

/// Many commands at once.
impl Client {
    /// Commands of different kinds in one call; see [`Batch`] for an example.
    pub fn batch(&self) -> Batch<&Self> {
        Batch::new(self, self.config())
    }
}

impl Batch<&Client> {
    /// Sends the commands to all servers at once, and waits for the answers.
    pub fn run(self) -> Many<Answer> {
        let Self { client, commands } = self;
        let many = client.cluster().call_many(&commands.keys, &commands);
        let found = |result: &Result<Answer, Error>| result.as_ref().ok().and_then(Answer::found);
        client.cluster().count_all_found(many.iter().map(found));
        many
    }
}
