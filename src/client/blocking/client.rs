//! The blocking face: what a program calls. Owns the operations; how a call is made is in `caller`.

use crate::client::clock;
use crate::client::cluster::monitor;
use crate::client::cluster::{Cluster, for_stand_in};
use crate::client::config::{Config, Expiry};
use crate::client::error::Error;
use crate::client::events::{Counters, ServerStatus};
use crate::client::placement::key::AsKey;
use crate::client::placement::node::Node;
use crate::client::wire::batch::Batch;
use crate::client::wire::command::{Command, Effect, Mode, ServerCommand};
use crate::client::wire::outcome::{
    self, Cas, Inspection, Leased, Many, PerServer, Raw, Versioned,
};
use crate::client::wire::reply::Reply;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// Attempts of `update` before it gives up.
const UPDATE_ATTEMPTS_MAX: u32 = 100;

/// Waits of `get_or_compute` for another caller's value: from, to.
const LEASE_POLL: [Duration; 2] = [Duration::from_millis(2), Duration::from_millis(50)];

/// A client of one or more servers, which share the keys among them.
///
/// Cheap to clone; clones share connections and everything else, and any number of threads may call
/// one at a time. Nothing is sent before the first call: a server that is not there yet is not an
/// error. When the last clone is dropped the connections are closed.
///
/// ```
/// use distcache::client::Client;
/// use distcache::server::Server;
///
/// let server = Server::bind("127.0.0.1:0")?;
/// let client = Client::connect([server.addresses()[0].to_string()])?;
/// client.set("brazil", "football")?;
/// assert_eq!(client.get::<String>("brazil")?.as_deref(), Some("football"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    cluster: Arc<Cluster>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.cluster.end();
    }
}

/// Nodes from a program's list of addresses; empty ones are left out.
pub(in crate::client) fn parse_nodes(
    servers: impl IntoIterator<Item = impl AsRef<str>>,
) -> Result<Vec<Node>, Error> {
    let servers = servers.into_iter();
    servers.filter(|one| !one.as_ref().trim().is_empty()).map(|one| one.as_ref().parse()).collect()
}

/// Makes the cluster of a new client, with the list of servers its discovery names.
pub(in crate::client) fn start(nodes: Vec<Node>, config: Config) -> Result<Arc<Cluster>, Error> {
    config.check()?;
    let nodes = match &config.discovery {
        // A source that fails at the start is no reason to give up if servers are named as well.
        Some(discovery) => discovery.read(&config).or_else(|error| match nodes.is_empty() {
            true => Err(error),
            false => Ok(nodes),
        })?,
        None if nodes.is_empty() => return Err(Error::NoServers),
        None => nodes,
    };
    let cluster = Arc::new(Cluster::new(nodes, config)?);
    monitor::start(&cluster)?;
    Ok(cluster)
}

impl Client {
    /// A client of these servers (see [`Node`] for how they are written), with default settings.
    ///
    /// # Errors
    /// `Error::Config` for an address that makes no sense, `Error::NoServers` for an empty list.
    ///
    /// ```
    /// use distcache::client::Client;
    ///
    /// let client = Client::connect(["10.0.0.1", "10.0.0.2:11212", "10.0.0.3:11211:2"])?;
    /// assert_eq!(client.servers().len(), 3);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn connect(servers: impl IntoIterator<Item = impl AsRef<str>>) -> Result<Self, Error> {
        Self::with_config(servers, Config::default())
    }

    /// A client with settings of the caller's; see [`Config`] for an example.
    ///
    /// # Errors
    /// `Error::Config` for settings or addresses that make no sense, `Error::NoServers` if neither
    /// the list nor the discovery names one.
    pub fn with_config(
        servers: impl IntoIterator<Item = impl AsRef<str>>,
        config: Config,
    ) -> Result<Self, Error> {
        Self::with_nodes(parse_nodes(servers)?, config)
    }

    /// The same with servers as values.
    ///
    /// # Errors
    /// As [`with_config`](Self::with_config).
    pub fn with_nodes(nodes: Vec<Node>, config: Config) -> Result<Self, Error> {
        Ok(Self { inner: Arc::new(Inner { cluster: start(nodes, config)? }) })
    }

    pub(super) fn cluster(&self) -> &Cluster {
        &self.inner.cluster
    }

    fn call<R>(
        &self,
        key: &(impl AsKey + ?Sized),
        command: Command<'_>,
        convert: impl FnMut(Reply<'_>) -> Result<R, Error>,
    ) -> Result<R, Error> {
        self.cluster().call(key, command, command.effect(), convert)
    }

    fn find<R>(
        &self,
        key: &(impl AsKey + ?Sized),
        command: Command<'_>,
        convert: impl FnMut(Reply<'_>) -> Result<Option<R>, Error>,
    ) -> Result<Option<R>, Error> {
        let found = self.call(key, command, convert)?;
        self.cluster().count_found(found.is_some());
        Ok(found)
    }

    fn store<R>(
        &self,
        key: &(impl AsKey + ?Sized),
        value: &(impl Serialize + ?Sized),
        mode: Mode,
        expiry: Expiry,
        convert: impl FnMut(Reply<'_>) -> Result<R, Error>,
    ) -> Result<R, Error> {
        let (data, flags) = self.cluster().config.codec.encode(value)?;
        let exptime = expiry.exptime();
        self.call(key, Command::Store { mode, flags, exptime, data: &data }, convert)
    }
}

/// Reading.
impl Client {
    /// The value of a key, as a `T`; `None` if there is none.
    ///
    /// # Errors
    /// Any of [`Error`]: the key or the value is unsuitable, the server is away, refuses, or time
    /// runs out.
    ///
    /// ```
    /// # let server = distcache::server::Server::bind("127.0.0.1:0")?;
    /// # let client = distcache::client::Client::connect([server.addresses()[0].to_string()])?;
    /// client.set("n", 7)?;
    /// assert_eq!(client.get::<u64>("n")?, Some(7));
    /// assert_eq!(client.get::<String>("n")?.as_deref(), Some("7"));
    /// assert_eq!(client.get::<u64>("none")?, None);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn get<T: DeserializeOwned>(&self, key: impl AsKey) -> Result<Option<T>, Error> {
        let codec = &self.cluster().config.codec;
        self.find(&key, Command::Get { token: false }, |reply| outcome::value(codec, reply))
    }

    /// The value with its flags and the token that `cas` compares.
    ///
    /// # Errors
    /// Any of [`Error`]: the key or the value is unsuitable, the server is away, refuses, or time
    /// runs out.
    ///
    /// ```
    /// # let server = distcache::server::Server::bind("127.0.0.1:0")?;
    /// # let client = distcache::client::Client::connect([server.addresses()[0].to_string()])?;
    /// client.set("n", 7)?;
    /// let read = client.get_versioned::<u32>("n")?.unwrap();
    /// assert_eq!((read.value, read.flags), (7, 0));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn get_versioned<T: DeserializeOwned>(
        &self,
        key: impl AsKey,
    ) -> Result<Option<Versioned<T>>, Error> {
        let codec = &self.cluster().config.codec;
        self.find(&key, Command::Get { token: true }, |reply| outcome::versioned(codec, reply))
    }

    /// The bytes as they are stored, with their flags: compressed if they are, whoever wrote them.
    ///
    /// # Errors
    /// Any of [`Error`]: the key or the value is unsuitable, the server is away, refuses, or time
    /// runs out.
    ///
    /// ```
    /// # let server = distcache::server::Server::bind("127.0.0.1:0")?;
    /// # let client = distcache::client::Client::connect([server.addresses()[0].to_string()])?;
    /// client.set_raw("image", &[0x89, b'P', b'N', b'G'], 0)?;
    /// assert_eq!(client.get_raw("image")?.unwrap().bytes, [0x89, b'P', b'N', b'G']);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn get_raw(&self, key: impl AsKey) -> Result<Option<Raw>, Error> {
        self.find(&key, Command::Get { token: false }, outcome::raw)
    }

    /// The values of many keys: one request to each server, to all of them at once. A server that
    /// fails costs its own keys only; see [`Many`].
    ///
    /// ```
    /// # let server = distcache::server::Server::bind("127.0.0.1:0")?;
    /// # let client = distcache::client::Client::connect([server.addresses()[0].to_string()])?;
    /// client.set("a", "x")?;
    /// let found = client.get_many::<String>(&["a", "b"]).found();
    /// assert_eq!(found, [Some("x".to_owned()), None]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn get_many<T: DeserializeOwned>(&self, keys: &[impl AsKey]) -> Many<Option<T>> {
        let codec = &self.cluster().config.codec;
        let many = self.cluster().call_many(
            keys,
            Effect::Read,
            |keys, _, opaque| Batch::get(keys, false, opaque),
            || Ok(None),
            |_, reply| outcome::value(codec, reply),
        );
        self.cluster().count_all_found(&many);
        many
    }

    /// The same with flags and tokens, as of [`get_versioned`](Self::get_versioned).
    pub fn get_many_versioned<T: DeserializeOwned>(
        &self,
        keys: &[impl AsKey],
    ) -> Many<Option<Versioned<T>>> {
        let codec = &self.cluster().config.codec;
        let many = self.cluster().call_many(
            keys,
            Effect::Read,
            |keys, _, opaque| Batch::get(keys, true, opaque),
            || Ok(None),
            |_, reply| outcome::versioned(codec, reply),
        );
        self.cluster().count_all_found(&many);
        many
    }

    /// The value, whose expiry is set anew.
    ///
    /// # Errors
    /// Any of [`Error`]: the key or the value is unsuitable, the server is away, refuses, or time
    /// runs out.
    ///
    /// ```
    /// # let server = distcache::server::Server::bind("127.0.0.1:0")?;
    /// # let client = distcache::client::Client::connect([server.addresses()[0].to_string()])?;
    /// use std::time::Duration;
    ///
    /// client.set("session", "x")?;
    /// let session: Option<String> = client.get_and_touch("session", Duration::from_secs(600))?;
    /// assert_eq!(session.as_deref(), Some("x"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn get_and_touch<T: DeserializeOwned>(
        &self,
        key: impl AsKey,
        expiry: impl Into<Expiry>,
    ) -> Result<Option<T>, Error> {
        let codec = &self.cluster().config.codec;
        let exptime = expiry.into().exptime();
        self.find(&key, Command::GetAndTouch { exptime }, |reply| outcome::value(codec, reply))
    }

    /// What the server knows about an item, without its value. Needs the meta protocol.
    ///
    /// # Errors
    /// Any of [`Error`]: the key or the value is unsuitable, the server is away, refuses, or time
    /// runs out.
    ///
    /// ```
    /// # let server = distcache::server::Server::bind("127.0.0.1:0")?;
    /// # let client = distcache::client::Client::connect([server.addresses()[0].to_string()])?;
    /// client.set("a", "four")?;
    /// let inspection = client.inspect("a")?.unwrap();
    /// assert_eq!((inspection.size, inspection.ttl_seconds), (4, None));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn inspect(&self, key: impl AsKey) -> Result<Option<Inspection>, Error> {
        self.call(&key, Command::Inspect, outcome::inspection)
    }
}

/// Writing.
impl Client {
    /// Stores a value, with the default expiry of [`Config`].
    ///
    /// # Errors
    /// Any of [`Error`]: the key or the value is unsuitable, the server is away, refuses, or time
    /// runs out.
    ///
    /// ```
    /// # let server = distcache::server::Server::bind("127.0.0.1:0")?;
    /// # let client = distcache::client::Client::connect([server.addresses()[0].to_string()])?;
    /// client.set("brazil", "football")?;
    /// client.set(1, 2)?;
    /// client.set("pair", (1, "x"))?;
    /// client.set("image", vec![0xff, 0xd8, 0xff])?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn set(&self, key: impl AsKey, value: impl Serialize) -> Result<(), Error> {
        self.set_with(key, value, self.cluster().config.expiry)
    }

    /// Stores a value with an expiry.
    ///
    /// # Errors
    /// Any of [`Error`]: the key or the value is unsuitable, the server is away, refuses, or time
    /// runs out.
    ///
    /// ```
    /// # let server = distcache::server::Server::bind("127.0.0.1:0")?;
    /// # let client = distcache::client::Client::connect([server.addresses()[0].to_string()])?;
    /// use std::time::Duration;
    ///
    /// client.set_with("session", "x", Duration::from_secs(600))?;
    /// assert!(client.inspect("session")?.unwrap().ttl_seconds.is_some());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn set_with(
        &self,
        key: impl AsKey,
        value: impl Serialize,
        expiry: impl Into<Expiry>,
    ) -> Result<(), Error> {
        self.store(&key, &value, Mode::Set, expiry.into(), outcome::set)
    }

    /// Stores bytes and flags as they are.
    ///
    /// # Errors
    /// Any of [`Error`]: the key or the value is unsuitable, the server is away, refuses, or time
    /// runs out.
    ///
    /// ```
    /// # let server = distcache::server::Server::bind("127.0.0.1:0")?;
    /// # let client = distcache::client::Client::connect([server.addresses()[0].to_string()])?;
    /// client.set_raw("text", b"from elsewhere", 16)?;
    /// assert_eq!(client.get_raw("text")?.unwrap().flags, 16);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn set_raw(&self, key: impl AsKey, bytes: &[u8], flags: u32) -> Result<(), Error> {
        let exptime = self.cluster().config.expiry.exptime();
        let command = Command::Store { mode: Mode::Set, flags, exptime, data: bytes };
        self.call(&key, command, outcome::set)
    }

    /// Stores many values: to all servers at once, with the default expiry. The requests of a call
    /// are held in memory, so very many large values are better sent in several calls.
    ///
    /// ```
    /// # let server = distcache::server::Server::bind("127.0.0.1:0")?;
    /// # let client = distcache::client::Client::connect([server.addresses()[0].to_string()])?;
    /// client.set_many(&[("a", 1), ("b", 2)]).all()?;
    /// assert_eq!(client.get::<u8>("b")?, Some(2));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn set_many(&self, items: &[(impl AsKey, impl Serialize)]) -> Many<()> {
        self.set_many_with(items, self.cluster().config.expiry)
    }

    /// The same with an expiry.
    pub fn set_many_with(
        &self,
        items: &[(impl AsKey, impl Serialize)],
        expiry: impl Into<Expiry>,
    ) -> Many<()> {
        let config = &self.cluster().config;
        let exptime = expiry.into().exptime();
        let encode = |(_, value): &(_, _)| config.codec.encode(value);
        let values: Vec<Result<(Vec<u8>, u32), Error>> = items.iter().map(encode).collect();
        // Those that cannot be encoded are left out of the call.
        let sent: Vec<usize> = (0..items.len()).filter(|at| values[*at].is_ok()).collect();
        let keys: Vec<_> = sent.iter().map(|at| &items[*at].0).collect();
        let stored = self.cluster().call_many(
            &keys,
            Effect::Write,
            |keys, seconds_max, opaque| {
                Batch::each(keys, opaque, |at| {
                    let (data, flags) = match &values[sent[at]] {
                        Ok((data, flags)) => (data.as_slice(), *flags),
                        Err(_) => (&[][..], 0),
                    };
                    let command = Command::Store { mode: Mode::Set, flags, exptime, data };
                    seconds_max.map_or(command, |seconds| for_stand_in(command, seconds))
                })
            },
            || Ok(()),
            |_, reply| outcome::set(reply),
        );
        let mut results: Vec<Result<(), Error>> =
            values.iter().map(|value| value.as_ref().map(|_| ()).map_err(Clone::clone)).collect();
        for (at, result) in sent.iter().zip(stored) {
            results[*at] = result;
        }
        Many(results)
    }

    /// Stores a value if the key has none; tells whether it did.
    ///
    /// # Errors
    /// Any of [`Error`]: the key or the value is unsuitable, the server is away, refuses, or time
    /// runs out.
    ///
    /// ```
    /// # let server = distcache::server::Server::bind("127.0.0.1:0")?;
    /// # let client = distcache::client::Client::connect([server.addresses()[0].to_string()])?;
    /// assert!(client.add("lock", "me")?);
    /// assert!(!client.add("lock", "you")?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn add(&self, key: impl AsKey, value: impl Serialize) -> Result<bool, Error> {
        self.add_with(key, value, self.cluster().config.expiry)
    }

    /// The same with an expiry.
    ///
    /// # Errors
    /// Any of [`Error`]: the key or the value is unsuitable, the server is away, refuses, or time
    /// runs out.
    ///
    /// ```
    /// # let server = distcache::server::Server::bind("127.0.0.1:0")?;
    /// # let client = distcache::client::Client::connect([server.addresses()[0].to_string()])?;
    /// use std::time::Duration;
    ///
    /// assert!(client.add_with("lock", "me", Duration::from_secs(30))?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn add_with(
        &self,
        key: impl AsKey,
        value: impl Serialize,
        expiry: impl Into<Expiry>,
    ) -> Result<bool, Error> {
        self.store(&key, &value, Mode::Add, expiry.into(), outcome::stored)
    }

    /// Stores a value if the key has one already; tells whether it did.
    ///
    /// # Errors
    /// Any of [`Error`]: the key or the value is unsuitable, the server is away, refuses, or time
    /// runs out.
    ///
    /// ```
    /// # let server = distcache::server::Server::bind("127.0.0.1:0")?;
    /// # let client = distcache::client::Client::connect([server.addresses()[0].to_string()])?;
    /// assert!(!client.replace("a", 1)?);
    /// client.set("a", 1)?;
    /// assert!(client.replace("a", 2)?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn replace(&self, key: impl AsKey, value: impl Serialize) -> Result<bool, Error> {
        self.replace_with(key, value, self.cluster().config.expiry)
    }

    /// The same with an expiry.
    ///
    /// # Errors
    /// Any of [`Error`]: the key or the value is unsuitable, the server is away, refuses, or time
    /// runs out.
    pub fn replace_with(
        &self,
        key: impl AsKey,
        value: impl Serialize,
        expiry: impl Into<Expiry>,
    ) -> Result<bool, Error> {
        self.store(&key, &value, Mode::Replace, expiry.into(), outcome::stored)
    }

    /// Appends bytes to a value as it is stored; tells whether there was one. Values that are
    /// compressed or JSON do not survive this.
    ///
    /// # Errors
    /// Any of [`Error`]: the key or the value is unsuitable, the server is away, refuses, or time
    /// runs out.
    ///
    /// ```
    /// # let server = distcache::server::Server::bind("127.0.0.1:0")?;
    /// # let client = distcache::client::Client::connect([server.addresses()[0].to_string()])?;
    /// client.set("log", "a")?;
    /// assert!(client.append("log", b"b")?);
    /// assert!(client.prepend("log", b"0")?);
    /// assert_eq!(client.get::<String>("log")?.as_deref(), Some("0ab"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn append(&self, key: impl AsKey, bytes: &[u8]) -> Result<bool, Error> {
        self.extend(&key, Mode::Append, bytes)
    }

    /// The same at the front.
    ///
    /// # Errors
    /// Any of [`Error`]: the key or the value is unsuitable, the server is away, refuses, or time
    /// runs out.
    pub fn prepend(&self, key: impl AsKey, bytes: &[u8]) -> Result<bool, Error> {
        self.extend(&key, Mode::Prepend, bytes)
    }

    fn extend(&self, key: &impl AsKey, mode: Mode, data: &[u8]) -> Result<bool, Error> {
        self.call(key, Command::Store { mode, flags: 0, exptime: 0, data }, outcome::stored)
    }

    /// Stores a value if the item is still the one with this token.
    ///
    /// # Errors
    /// Any of [`Error`]: the key or the value is unsuitable, the server is away, refuses, or time
    /// runs out.
    ///
    /// ```
    /// # let server = distcache::server::Server::bind("127.0.0.1:0")?;
    /// # let client = distcache::client::Client::connect([server.addresses()[0].to_string()])?;
    /// use distcache::client::Cas;
    ///
    /// client.set("n", 1)?;
    /// let read = client.get_versioned::<u32>("n")?.unwrap();
    /// assert_eq!(client.cas("n", read.value + 1, read.token)?, Cas::Stored);
    /// assert_eq!(client.cas("n", read.value + 1, read.token)?, Cas::Changed);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn cas(&self, key: impl AsKey, value: impl Serialize, token: u64) -> Result<Cas, Error> {
        self.cas_with(key, value, token, self.cluster().config.expiry)
    }

    /// The same with an expiry.
    ///
    /// # Errors
    /// Any of [`Error`]: the key or the value is unsuitable, the server is away, refuses, or time
    /// runs out.
    pub fn cas_with(
        &self,
        key: impl AsKey,
        value: impl Serialize,
        token: u64,
        expiry: impl Into<Expiry>,
    ) -> Result<Cas, Error> {
        self.store(&key, &value, Mode::Cas(token), expiry.into(), outcome::cas)
    }

    /// Replaces a value by what `change` makes of it, again and again until nobody interfered;
    /// returns what was stored. `change` gets `None` if there is no item, and leaves things as they
    /// are by returning `None`. What is stored has the default expiry.
    ///
    /// # Errors
    /// As for any call, and `Error::Contended` after a hundred attempts.
    ///
    /// ```
    /// # let server = distcache::server::Server::bind("127.0.0.1:0")?;
    /// # let client = distcache::client::Client::connect([server.addresses()[0].to_string()])?;
    /// for name in ["a", "b"] {
    ///     client.update("names", |names: Option<Vec<String>>| {
    ///         let mut names = names.unwrap_or_default();
    ///         names.push(name.to_owned());
    ///         Some(names)
    ///     })?;
    /// }
    /// assert_eq!(client.get::<Vec<String>>("names")?.unwrap(), ["a", "b"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn update<T: DeserializeOwned + Serialize>(
        &self,
        key: impl AsKey,
        change: impl FnMut(Option<T>) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        self.update_with(key, self.cluster().config.expiry, change)
    }

    /// The same with an expiry for what is stored.
    ///
    /// # Errors
    /// As of [`update`](Self::update).
    pub fn update_with<T: DeserializeOwned + Serialize>(
        &self,
        key: impl AsKey,
        expiry: impl Into<Expiry>,
        mut change: impl FnMut(Option<T>) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        let expiry = expiry.into();
        for attempt in 0..UPDATE_ATTEMPTS_MAX {
            let read = self.get_versioned::<T>(&key)?;
            let token = read.as_ref().map(|read| read.token);
            let Some(value) = change(read.map(|read| read.value)) else { return Ok(None) };
            let stored = match token {
                Some(token) => self.cas_with(&key, &value, token, expiry)? == Cas::Stored,
                None => self.add_with(&key, &value, expiry)?,
            };
            if stored {
                return Ok(Some(value));
            }
            std::thread::sleep(update_pause(attempt));
        }
        Err(Error::Contended { attempts: UPDATE_ATTEMPTS_MAX })
    }

    /// Deletes an item; tells whether there was one.
    ///
    /// # Errors
    /// Any of [`Error`]: the key or the value is unsuitable, the server is away, refuses, or time
    /// runs out.
    ///
    /// ```
    /// # let server = distcache::server::Server::bind("127.0.0.1:0")?;
    /// # let client = distcache::client::Client::connect([server.addresses()[0].to_string()])?;
    /// client.set(3, 6)?;
    /// assert!(client.delete(3)?);
    /// assert!(!client.delete(3)?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn delete(&self, key: impl AsKey) -> Result<bool, Error> {
        self.call(&key, Command::Delete, outcome::existed)
    }

    /// Deletes many items, on all servers at once; tells for each whether there was one.
    ///
    /// ```
    /// # let server = distcache::server::Server::bind("127.0.0.1:0")?;
    /// # let client = distcache::client::Client::connect([server.addresses()[0].to_string()])?;
    /// client.set("a", 1)?;
    /// assert_eq!(client.delete_many(&["a", "b"]).all()?, [true, false]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn delete_many(&self, keys: &[impl AsKey]) -> Many<bool> {
        self.cluster().call_many(
            keys,
            Effect::Write,
            |keys, _, opaque| Batch::each(keys, opaque, |_| Command::Delete),
            || Ok(false),
            |_, reply| outcome::existed(reply),
        )
    }

    /// Sets the expiry of an item; tells whether there is one.
    ///
    /// # Errors
    /// Any of [`Error`]: the key or the value is unsuitable, the server is away, refuses, or time
    /// runs out.
    ///
    /// ```
    /// # let server = distcache::server::Server::bind("127.0.0.1:0")?;
    /// # let client = distcache::client::Client::connect([server.addresses()[0].to_string()])?;
    /// use std::time::Duration;
    ///
    /// client.set("session", "x")?;
    /// assert!(client.touch("session", Duration::from_secs(60))?);
    /// assert!(client.inspect("session")?.unwrap().ttl_seconds.is_some());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn touch(&self, key: impl AsKey, expiry: impl Into<Expiry>) -> Result<bool, Error> {
        let exptime = expiry.into().exptime();
        self.call(&key, Command::Touch { exptime }, outcome::existed)
    }

    /// Marks an item stale: `get_or_compute` still serves it for this long while one caller
    /// computes it anew. Tells whether there was one. Needs the meta protocol.
    ///
    /// # Errors
    /// Any of [`Error`]: the key or the value is unsuitable, the server is away, refuses, or time
    /// runs out.
    ///
    /// ```
    /// # let server = distcache::server::Server::bind("127.0.0.1:0")?;
    /// # let client = distcache::client::Client::connect([server.addresses()[0].to_string()])?;
    /// use std::time::Duration;
    ///
    /// client.set("report", "old")?;
    /// assert!(client.invalidate("report", Duration::from_secs(30))?);
    /// // One caller computes; others would read "old" meanwhile.
    /// let minute = Duration::from_secs(60);
    /// let report: String = client.get_or_compute("report", minute, || "new".into())?;
    /// assert_eq!(report, "new");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn invalidate(&self, key: impl AsKey, expiry: impl Into<Expiry>) -> Result<bool, Error> {
        let exptime = expiry.into().exptime();
        self.call(&key, Command::Invalidate { exptime }, outcome::existed)
    }
}

/// Counting.
impl Client {
    /// Adds to a number stored as digits and returns the sum; `None` if there is no item. Beyond
    /// 2^64 it starts at 0 again.
    ///
    /// # Errors
    /// As for any call; `Error::Refused` if the value is no number.
    ///
    /// ```
    /// # let server = distcache::server::Server::bind("127.0.0.1:0")?;
    /// # let client = distcache::client::Client::connect([server.addresses()[0].to_string()])?;
    /// client.set("visits", 1)?;
    /// assert_eq!(client.incr("visits", 2)?, Some(3));
    /// assert_eq!(client.decr("visits", 9)?, Some(0));
    /// assert_eq!(client.incr("none", 1)?, None);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn incr(&self, key: impl AsKey, delta: u64) -> Result<Option<u64>, Error> {
        self.call(&key, Command::Count { up: true, delta }, outcome::number)
    }

    /// Subtracts, not below 0.
    ///
    /// # Errors
    /// As [`incr`](Self::incr).
    ///
    /// ```
    /// # let server = distcache::server::Server::bind("127.0.0.1:0")?;
    /// # let client = distcache::client::Client::connect([server.addresses()[0].to_string()])?;
    /// client.set("stock", 3)?;
    /// assert_eq!(client.decr("stock", 1)?, Some(2));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn decr(&self, key: impl AsKey, delta: u64) -> Result<Option<u64>, Error> {
        self.call(&key, Command::Count { up: false, delta }, outcome::number)
    }

    /// Adds to a number, or stores `initial` if there is none, in one step. Needs the meta
    /// protocol. Nothing stands in for the key's own server here: numbers must not repeat.
    ///
    /// # Errors
    /// As [`incr`](Self::incr).
    ///
    /// ```
    /// # let server = distcache::server::Server::bind("127.0.0.1:0")?;
    /// # let client = distcache::client::Client::connect([server.addresses()[0].to_string()])?;
    /// assert_eq!(client.incr_or("visits", 1, 100)?, 100);
    /// assert_eq!(client.incr_or("visits", 1, 100)?, 101);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn incr_or(&self, key: impl AsKey, delta: u64, initial: u64) -> Result<u64, Error> {
        self.count_from(&key, true, delta, initial)
    }

    /// Subtracts from a number, or stores `initial` if there is none.
    ///
    /// # Errors
    /// As [`incr`](Self::incr).
    pub fn decr_or(&self, key: impl AsKey, delta: u64, initial: u64) -> Result<u64, Error> {
        self.count_from(&key, false, delta, initial)
    }

    fn count_from(
        &self,
        key: &impl AsKey,
        up: bool,
        delta: u64,
        initial: u64,
    ) -> Result<u64, Error> {
        let exptime = self.cluster().config.expiry.exptime();
        let command = Command::CountFrom { up, delta, initial, exptime };
        self.cluster().call(key, command, Effect::Exact, |reply| {
            let number = outcome::number(reply)?;
            number.ok_or_else(|| Error::protocol("", "no number"))
        })
    }

    /// A number that no other caller gets from this key, on any machine: 1, 2, 3, ... A call that
    /// fails may leave one out. They start again when the item is lost: use a server that keeps its
    /// data, and a key that never expires.
    ///
    /// # Errors
    /// As [`incr`](Self::incr).
    ///
    /// ```
    /// # let server = distcache::server::Server::bind("127.0.0.1:0")?;
    /// # let client = distcache::client::Client::connect([server.addresses()[0].to_string()])?;
    /// let (first, second) = (client.unique_id("user")?, client.unique_id("user")?);
    /// assert_eq!((first, second), (1, 2));
    /// assert_eq!(client.unique_ids("user", 100)?, 3..103);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn unique_id(&self, key: impl AsKey) -> Result<u64, Error> {
        Ok(self.unique_ids(key, 1)?.start)
    }

    /// So many such numbers at once.
    ///
    /// # Errors
    /// As [`incr`](Self::incr); `Error::Config` if none or more than 2^63 are asked for.
    pub fn unique_ids(&self, key: impl AsKey, count: u64) -> Result<Range<u64>, Error> {
        if count == 0 || count > 1 << 63 {
            return Err(Error::Config("unique_ids: ask for 1 to 2^63".into()));
        }
        let command = Command::CountFrom { up: true, delta: count, initial: count, exptime: 0 };
        let last = self.cluster().call(&key, command, Effect::Exact, |reply| {
            outcome::number(reply)?.ok_or_else(|| Error::protocol("", "no number"))
        })?;
        // A counter that somebody else has set below is theirs to explain.
        let first = last.checked_sub(count).map(|before| before + 1);
        let first = first.ok_or_else(|| Error::Value(format!("the counter is at {last}")))?;
        Ok(first..last.saturating_add(1))
    }
}

/// Look-aside.
impl Client {
    /// The value of a key; if there is none, what `compute` makes, which is stored. Of all callers,
    /// on all machines, one computes while the others wait, or get the stale value if there is one.
    /// A caller that computes for longer than `Config::lease` loses its privilege. Needs the meta
    /// protocol.
    ///
    /// # Errors
    /// As for any call. A cache that is away is not one of them: then `compute` is called, and
    /// nothing stored.
    ///
    /// ```
    /// # let server = distcache::server::Server::bind("127.0.0.1:0")?;
    /// # let client = distcache::client::Client::connect([server.addresses()[0].to_string()])?;
    /// use std::time::Duration;
    ///
    /// let slow = || "computed".to_owned();
    /// let value: String = client.get_or_compute("report", Duration::from_secs(60), slow)?;
    /// assert_eq!(value, "computed");
    /// let minute = Duration::from_secs(60);
    /// let again: String = client.get_or_compute("report", minute, || "?".into())?;
    /// assert_eq!(again, value);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn get_or_compute<T: DeserializeOwned + Serialize>(
        &self,
        key: impl AsKey,
        expiry: impl Into<Expiry>,
        compute: impl FnOnce() -> T,
    ) -> Result<T, Error> {
        self.try_get_or_compute(key, expiry, || Ok(compute()))
    }

    /// The same with a function that may fail; then nothing is stored and another caller may try.
    ///
    /// # Errors
    /// What `compute` returns, and errors as of [`get_or_compute`](Self::get_or_compute).
    ///
    /// ```
    /// # let server = distcache::server::Server::bind("127.0.0.1:0")?;
    /// # let client = distcache::client::Client::connect([server.addresses()[0].to_string()])?;
    /// use distcache::client::Error;
    /// use std::time::Duration;
    ///
    /// let minute = Duration::from_secs(60);
    /// let broken = || Err(Error::Value("no luck".into()));
    /// assert!(client.try_get_or_compute::<u8, Error>("n", minute, broken).is_err());
    /// assert_eq!(client.try_get_or_compute::<u8, Error>("n", minute, || Ok(7))?, 7);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn try_get_or_compute<T: DeserializeOwned + Serialize, E: From<Error>>(
        &self,
        key: impl AsKey,
        expiry: impl Into<Expiry>,
        compute: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        let expiry = expiry.into();
        let seconds = lease_seconds(self.cluster().config.lease);
        let give_up_at = clock::now() + self.cluster().config.lease;
        let mut pause = LEASE_POLL[0];
        loop {
            match self.lease(&key, seconds) {
                Ok(Leased::Value(value)) => return Ok(value),
                Ok(Leased::Won(token)) => return self.fill(&key, expiry, token, compute),
                Ok(Leased::Taken) if clock::now() < give_up_at => {
                    std::thread::sleep(pause);
                    pause = (pause * 2).min(LEASE_POLL[1]);
                }
                Ok(Leased::Taken | Leased::Nowhere) => return compute(),
                Err(error) if error.is_unavailable() => return compute(),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn lease<T: DeserializeOwned>(
        &self,
        key: &impl AsKey,
        seconds: u32,
    ) -> Result<Leased<T>, Error> {
        let codec = &self.cluster().config.codec;
        let recache = self.cluster().config.recompute_before.map(lease_seconds);
        let command = Command::Lease { seconds, recache };
        let leased = self.call(key, command, |reply| outcome::leased(codec, reply));
        self.cluster().count_found(matches!(leased, Ok(Leased::Value(_))));
        leased
    }

    /// Computes and stores over the token won, which fails to store if the item was deleted or set
    /// meanwhile: then the value may be out of date already.
    fn fill<T: Serialize, E: From<Error>>(
        &self,
        key: &impl AsKey,
        expiry: Expiry,
        token: u64,
        compute: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        let release = Release { client: self, key, token: Some(token) };
        let value = compute()?;
        let stored = self.store(key, &value, Mode::Cas(token), expiry, outcome::cas);
        match stored {
            Ok(_) => release.disarm(),
            // The value is there all the same.
            Err(error) if error.is_unavailable() => {}
            Err(error) => return Err(error.into()),
        }
        Ok(value)
    }
}

/// Servers.
impl Client {
    /// The version of each server.
    ///
    /// ```
    /// # let server = distcache::server::Server::bind("127.0.0.1:0")?;
    /// # let client = distcache::client::Client::connect([server.addresses()[0].to_string()])?;
    /// let versions = client.version();
    /// assert!(versions[0].1.as_ref().is_ok_and(|version| version.starts_with("1.")));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn version(&self) -> PerServer<String> {
        self.ask_all(ServerCommand::Version, |reply| match reply {
            Reply::Version(version) => Ok(version.to_owned()),
            other => Err(Error::protocol("", format!("{other:?}"))),
        })
    }

    /// How long each server takes to answer.
    ///
    /// ```
    /// # let server = distcache::server::Server::bind("127.0.0.1:0")?;
    /// # let client = distcache::client::Client::connect([server.addresses()[0].to_string()])?;
    /// assert!(client.ping().iter().all(|(_, time)| time.is_ok()));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn ping(&self) -> PerServer<Duration> {
        let topology = self.cluster().topology();
        let ping = |server: &Arc<crate::client::cluster::Server>| {
            let start = clock::now();
            let write = |_, out: &mut Vec<u8>| ServerCommand::Version.write(out);
            let convert = &mut |_: Reply<'_>| Ok(());
            let asked = self.cluster().ask(server, None, Effect::Read, write, convert);
            (server.node.clone(), asked.map(|()| clock::now().duration_since(start)))
        };
        topology.servers.iter().map(ping).collect()
    }

    /// The statistics of each server: `""` for the general ones, or `"settings"`, `"items"`, ...
    ///
    /// ```
    /// # let server = distcache::server::Server::bind("127.0.0.1:0")?;
    /// # let client = distcache::client::Client::connect([server.addresses()[0].to_string()])?;
    /// let stats = client.stats("");
    /// let (_, stats) = &stats[0];
    /// assert!(stats.as_ref().is_ok_and(|stats| stats.contains_key("uptime")));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn stats(&self, which: &str) -> PerServer<BTreeMap<String, String>> {
        if which.bytes().any(|byte| byte.is_ascii_control()) {
            let error = Error::Config("stats: control characters".into());
            let nodes = self.servers().into_iter().map(|server| server.node);
            return nodes.map(|node| (node, Err(error.clone()))).collect();
        }
        let topology = self.cluster().topology();
        let servers = topology.servers.iter();
        let ask = |server: &Arc<crate::client::cluster::Server>| {
            let mut stats = BTreeMap::new();
            let command = ServerCommand::Stats(which);
            let write = |_, out: &mut Vec<u8>| command.write(out);
            let asked = self.cluster().ask(server, None, Effect::Write, write, &mut |reply| {
                outcome::stat(reply, &mut stats)
            });
            (server.node.clone(), asked.map(|()| stats))
        };
        servers.map(ask).collect()
    }

    /// Makes every item of every server invalid, now or after a delay.
    ///
    /// ```
    /// # let server = distcache::server::Server::bind("127.0.0.1:0")?;
    /// # let client = distcache::client::Client::connect([server.addresses()[0].to_string()])?;
    /// client.set("a", 1)?;
    /// assert!(client.flush_all(None).iter().all(|(_, result)| result.is_ok()));
    /// assert_eq!(client.get::<u8>("a")?, None);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn flush_all(&self, delay: Option<Duration>) -> PerServer<()> {
        let seconds = delay.unwrap_or_default().as_secs();
        let delay_seconds = u32::try_from(seconds).unwrap_or(u32::MAX);
        self.ask_all(ServerCommand::FlushAll { delay_seconds }, |reply| match reply {
            Reply::Ok => Ok(()),
            other => Err(Error::protocol("", format!("{other:?}"))),
        })
    }

    fn ask_all<R>(
        &self,
        command: ServerCommand<'_>,
        convert: impl FnMut(Reply<'_>) -> Result<R, Error>,
    ) -> PerServer<R> {
        let asked = self.cluster().ask_all(command, convert);
        asked.into_iter().map(|(server, result)| (server.node.clone(), result)).collect()
    }

    /// The servers and how they are.
    ///
    /// ```
    /// # let server = distcache::server::Server::bind("127.0.0.1:0")?;
    /// # let client = distcache::client::Client::connect([server.addresses()[0].to_string()])?;
    /// use distcache::client::State;
    ///
    /// assert_eq!(client.servers()[0].state, State::Healthy);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn servers(&self) -> Vec<ServerStatus> {
        self.cluster().statuses()
    }

    /// The server that owns a key, whether it is up or not; `None` without servers.
    ///
    /// ```
    /// use distcache::client::Client;
    ///
    /// let client = Client::connect(["10.0.1.1", "10.0.1.2", "10.0.1.3", "10.0.1.4"])?;
    /// assert_eq!(client.server_of("foo").unwrap().host(), "10.0.1.3");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn server_of(&self, key: impl AsKey) -> Option<Node> {
        self.cluster().owner(&key).map(|server| server.node.clone())
    }

    /// Adds a server. About one key of so many as there are servers now belongs to it.
    ///
    /// # Errors
    /// `Error::Config` if the address makes no sense or is there already.
    ///
    /// ```
    /// # let server = distcache::server::Server::bind("127.0.0.1:0")?;
    /// # let client = distcache::client::Client::connect([server.addresses()[0].to_string()])?;
    /// client.add_server("10.0.0.9:11211")?;
    /// assert_eq!(client.servers().len(), 2);
    /// client.remove_server("10.0.0.9:11211")?;
    /// assert_eq!(client.servers().len(), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn add_server(&self, server: &str) -> Result<(), Error> {
        self.set_servers(self.cluster().nodes_with(server)?)
    }

    /// Removes a server, named by its address or its name.
    ///
    /// # Errors
    /// `Error::Config` if there is none like this.
    pub fn remove_server(&self, server: &str) -> Result<(), Error> {
        self.set_servers(self.cluster().nodes_without(server)?)
    }

    /// Puts another list of servers in place. Those on both lists keep their connections.
    ///
    /// # Errors
    /// `Error::Config` if a server is named twice.
    ///
    /// ```
    /// # let server = distcache::server::Server::bind("127.0.0.1:0")?;
    /// # let client = distcache::client::Client::connect([server.addresses()[0].to_string()])?;
    /// let nodes = vec!["10.0.0.1".parse()?, "10.0.0.2:11212:3".parse()?];
    /// client.set_servers(nodes)?;
    /// assert_eq!(client.servers().len(), 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn set_servers(&self, nodes: Vec<Node>) -> Result<(), Error> {
        let set = self.cluster().set_servers(nodes);
        self.cluster().wake_monitor();
        set
    }

    /// Counters since the client was made.
    ///
    /// ```
    /// # let server = distcache::server::Server::bind("127.0.0.1:0")?;
    /// # let client = distcache::client::Client::connect([server.addresses()[0].to_string()])?;
    /// client.get::<u8>("none")?;
    /// assert_eq!(client.counters().misses, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn counters(&self) -> Counters {
        self.cluster().counters.read()
    }
}

/// Gives up the right to compute, if `compute` fails or panics.
struct Release<'c, K: AsKey> {
    client: &'c Client,
    key: &'c K,
    token: Option<u64>,
}

impl<K: AsKey> Release<'_, K> {
    fn disarm(mut self) {
        self.token = None;
    }
}

impl<K: AsKey> Drop for Release<'_, K> {
    fn drop(&mut self) {
        if let Some(token) = self.token {
            // If this fails, the right expires by itself.
            let _ = self.client.call(self.key, Command::Release { token }, outcome::existed);
        }
    }
}

/// Pauses between attempts grow and differ, so that callers do not meet again and again.
pub(in crate::client) fn update_pause(attempt: u32) -> Duration {
    let micros_max = 100 * (attempt.min(20) + 1);
    Duration::from_micros(u64::from(getrandom::u32().unwrap_or(0) % micros_max))
}

pub(in crate::client) fn lease_seconds(lease: Duration) -> u32 {
    let up = lease.as_secs() + u64::from(lease.subsec_nanos() > 0);
    u32::try_from(up).unwrap_or(u32::MAX)
}
