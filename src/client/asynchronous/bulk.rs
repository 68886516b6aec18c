//! Calls about many keys, and batches of mixed commands, of the asynchronous face: only waiting.
//! What is sent and what the replies are is decided in `operation::many` and `operation::batch`.

use crate::client::asynchronous::Client;
use crate::client::operation::many::{self, Bulk, Stores};
use crate::client::{Answer, AsKey, Batch, Error, Expiry, Many, Pair, Versioned};
use serde::de::DeserializeOwned;
use std::collections::HashMap;
use std::hash::Hash;

/// Many keys.
impl Client {
    /// As the blocking [`get_many`](super::Client::get_many).
    pub async fn get_many<T: DeserializeOwned>(
        &self,
        keys: impl IntoIterator<Item = impl AsKey>,
    ) -> Many<Option<T>> {
        let keys: Vec<_> = keys.into_iter().collect();
        self.fetch(&keys, &many::values(self.config())).await
    }

    /// As the blocking [`get_map`](super::Client::get_map).
    ///
    /// # Errors
    /// As there.
    pub async fn get_map<K: AsKey + Eq + Hash, T: DeserializeOwned>(
        &self,
        keys: impl IntoIterator<Item = K>,
    ) -> Result<HashMap<K, T>, Error> {
        let keys: Vec<K> = keys.into_iter().collect();
        self.fetch(&keys, &many::values(self.config())).await.into_map(keys)
    }

    /// As the blocking [`get_many_versioned`](super::Client::get_many_versioned).
    pub async fn get_many_versioned<T: DeserializeOwned>(
        &self,
        keys: impl IntoIterator<Item = impl AsKey>,
    ) -> Many<Option<Versioned<T>>> {
        let keys: Vec<_> = keys.into_iter().collect();
        self.fetch(&keys, &many::versioned(self.config())).await
    }

    /// As the blocking [`set_many`](super::Client::set_many).
    pub async fn set_many(&self, items: impl IntoIterator<Item = impl Pair>) -> Many<()> {
        self.set_many_with(items, self.config().expiry).await
    }

    /// As the blocking [`set_many_with`](super::Client::set_many_with).
    pub async fn set_many_with(
        &self,
        items: impl IntoIterator<Item = impl Pair>,
        expiry: impl Into<Expiry>,
    ) -> Many<()> {
        let (keys, stores) = Stores::new(self.config(), items, expiry.into());
        self.calls().call_many(&keys, &stores).await
    }

    /// As the blocking [`delete_many`](super::Client::delete_many).
    pub async fn delete_many(&self, keys: impl IntoIterator<Item = impl AsKey>) -> Many<bool> {
        self.each(keys, &many::delete()).await
    }

    /// As the blocking [`touch_many`](super::Client::touch_many).
    pub async fn touch_many(
        &self,
        keys: impl IntoIterator<Item = impl AsKey>,
        expiry: impl Into<Expiry>,
    ) -> Many<bool> {
        self.each(keys, &many::touch(expiry.into())).await
    }

    /// As the blocking [`incr_many`](super::Client::incr_many).
    pub async fn incr_many(
        &self,
        keys: impl IntoIterator<Item = impl AsKey>,
        delta: u64,
    ) -> Many<Option<u64>> {
        self.each(keys, &many::count(true, delta)).await
    }

    /// As the blocking [`decr_many`](super::Client::decr_many).
    pub async fn decr_many(
        &self,
        keys: impl IntoIterator<Item = impl AsKey>,
        delta: u64,
    ) -> Many<Option<u64>> {
        self.each(keys, &many::count(false, delta)).await
    }

    async fn fetch<T>(&self, keys: &[impl AsKey], bulk: &impl Bulk<Option<T>>) -> Many<Option<T>> {
        let many = self.calls().call_many(keys, bulk).await;
        let found = |result: &Result<Option<T>, Error>| result.as_ref().ok().map(Option::is_some);
        self.cluster().count_all_found(many.iter().map(found));
        many
    }

    async fn each<T>(
        &self,
        keys: impl IntoIterator<Item = impl AsKey>,
        bulk: &impl Bulk<T>,
    ) -> Many<T> {
        let keys: Vec<_> = keys.into_iter().collect();
        self.calls().call_many(&keys, bulk).await
    }
}

/// Many commands at once.
impl Client {
    /// As the blocking [`batch`](super::Client::batch); its `run` is to be awaited.
    pub fn batch(&self) -> Batch<&Self> {
        Batch::new(self, self.config())
    }
}

impl Batch<&Client> {
    /// Sends the commands to all servers at once, and waits for the answers.
    pub async fn run(self) -> Many<Answer> {
        let Self { client, commands } = self;
        let many = client.calls().call_many(&commands.keys, &commands).await;
        let found = |result: &Result<Answer, Error>| result.as_ref().ok().and_then(Answer::found);
        client.cluster().count_all_found(many.iter().map(found));
        many
    }
}
