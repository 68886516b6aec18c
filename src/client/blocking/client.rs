//! The blocking face: what a program calls. Owns the operations; how a call is made is in `caller`.

use crate::client::blocking::waiting::wait_until;
use crate::client::clock;
use crate::client::cluster::start::{Shared, parse_nodes, start};
use crate::client::cluster::{Cluster, Server};
use crate::client::config::{Config, Expiry};
use crate::client::error::Error;
use crate::client::events::{Counters, ServerStatus};
use crate::client::face::what_does_not_wait;
use crate::client::latency::Latencies;
use crate::client::operation::flight::Leading;
use crate::client::operation::lease::{Filling, Lease, OwnedKey, Step, Ticket, ask};
use crate::client::operation::update::Update;
use crate::client::operation::{self, Convert, Counting, Encoded, Operation, Statistics};
use crate::client::placement::key::AsKey;
use crate::client::placement::node::Node;
use crate::client::wire::command::{Effect, Mode, ServerCommand};
use crate::client::wire::outcome::{self, Cas, Inspection, Look, PerServer, Raw, Versioned};
use crate::client::wire::reply::Reply;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::Duration;

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
    shared: Arc<Shared>,
}

what_does_not_wait!();

impl Client {
    fn call<R, F: Convert<R>>(
        &self,
        key: &(impl AsKey + ?Sized),
        operation: Operation<'_, R, F>,
    ) -> Result<R, Error> {
        self.cluster().call(key, operation)
    }
}

/// What several operations do.
impl Client {
    /// Appends, or at the front.
    fn extend(&self, key: &impl AsKey, front: bool, bytes: &[u8]) -> Result<bool, Error> {
        let mut update = Update::default();
        loop {
            match self.call(key, operation::extend(front, bytes))? {
                Cas::Changed => std::thread::sleep(update.again()?),
                extended => return Ok(extended == Cas::Stored),
            }
        }
    }

    /// Counts, or begins to: also in the place of a value that somebody computes.
    fn count(&self, key: &impl AsKey, counting: &Counting) -> Result<u64, Error> {
        let mut update = Update::default();
        loop {
            if let Some(number) = self.call(key, counting.count())? {
                return Ok(number);
            }
            let look = self.call(key, operation::look())?;
            if let Look::Place(token) = look
                && self.call(key, counting.begin(token))?
            {
                return Ok(counting.initial());
            }
            std::thread::sleep(update.again()?);
        }
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
        self.call(&key, operation::get(self.config()))
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
        self.call(&key, operation::get_versioned(self.config()))
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
        self.call(&key, operation::get_raw())
    }

    /// The same with the token for [`cas`](Self::cas).
    ///
    /// # Errors
    /// As there.
    ///
    /// ```
    /// # let server = distcache::server::Server::bind("127.0.0.1:0")?;
    /// # let client = distcache::client::Client::connect([server.addresses()[0].to_string()])?;
    /// use distcache::client::Cas;
    ///
    /// client.set_raw("n", b"1", 0)?;
    /// let found = client.get_raw_versioned("n")?.unwrap();
    /// assert_eq!(found.value, b"1");
    /// assert_eq!(client.cas("n", 2, found.token)?, Cas::Stored);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn get_raw_versioned(&self, key: impl AsKey) -> Result<Option<Versioned<Vec<u8>>>, Error> {
        self.call(&key, operation::get_raw_versioned())
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
        self.call(&key, operation::get_and_touch(self.config(), expiry.into()))
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
        self.call(&key, operation::inspect())
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
        self.set_with(key, value, self.config().expiry)
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
        let value = Encoded::new(self.config(), &value)?;
        self.call(&key, operation::set(&value, expiry.into()))
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
        self.set_raw_with(key, bytes, flags, self.config().expiry)
    }

    /// The same with an expiry.
    ///
    /// # Errors
    /// As of [`set_raw`](Self::set_raw).
    ///
    /// ```
    /// # let server = distcache::server::Server::bind("127.0.0.1:0")?;
    /// # let client = distcache::client::Client::connect([server.addresses()[0].to_string()])?;
    /// use std::time::Duration;
    ///
    /// client.set_raw_with("text", b"from elsewhere", 16, Duration::from_secs(60))?;
    /// assert!(client.inspect("text")?.unwrap().ttl_seconds.is_some());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn set_raw_with(
        &self,
        key: impl AsKey,
        bytes: &[u8],
        flags: u32,
        expiry: impl Into<Expiry>,
    ) -> Result<(), Error> {
        self.call(&key, operation::set_raw(bytes, flags, expiry.into()))
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
        self.add_with(key, value, self.config().expiry)
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
        let value = Encoded::new(self.config(), &value)?;
        self.call(&key, operation::store(&value, Mode::Add, expiry.into()))
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
        self.replace_with(key, value, self.config().expiry)
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
    /// assert!(!client.replace_with("session", "x", Duration::from_secs(60))?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn replace_with(
        &self,
        key: impl AsKey,
        value: impl Serialize,
        expiry: impl Into<Expiry>,
    ) -> Result<bool, Error> {
        let value = Encoded::new(self.config(), &value)?;
        self.call(&key, operation::store(&value, Mode::Replace, expiry.into()))
    }

    /// Appends bytes to a value as it is stored; tells whether there was one. Values that are
    /// compressed or JSON do not survive this. It takes two requests: the first one makes sure that
    /// the item is a value, and not the place of one that `get_or_compute` computes.
    ///
    /// # Errors
    /// Any of [`Error`]: the key or the value is unsuitable, the server is away, refuses, or time
    /// runs out; `Error::Contended` if others changed the item during each of a hundred attempts.
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
        self.extend(&key, false, bytes)
    }

    /// The same at the front.
    ///
    /// # Errors
    /// Any of [`Error`]: the key or the value is unsuitable, the server is away, refuses, or time
    /// runs out.
    ///
    /// ```
    /// # let server = distcache::server::Server::bind("127.0.0.1:0")?;
    /// # let client = distcache::client::Client::connect([server.addresses()[0].to_string()])?;
    /// client.set("log", "b")?;
    /// assert!(client.prepend("log", b"a")?);
    /// assert_eq!(client.get::<String>("log")?.as_deref(), Some("ab"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn prepend(&self, key: impl AsKey, bytes: &[u8]) -> Result<bool, Error> {
        self.extend(&key, true, bytes)
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
        self.cas_with(key, value, token, self.config().expiry)
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
    /// use distcache::client::Cas;
    /// use std::time::Duration;
    ///
    /// client.set("n", 1)?;
    /// let read = client.get_versioned::<u32>("n")?.unwrap();
    /// let minute = Duration::from_secs(60);
    /// assert_eq!(client.cas_with("n", read.value + 1, read.token, minute)?, Cas::Stored);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn cas_with(
        &self,
        key: impl AsKey,
        value: impl Serialize,
        token: u64,
        expiry: impl Into<Expiry>,
    ) -> Result<Cas, Error> {
        let value = Encoded::new(self.config(), &value)?;
        self.call(&key, operation::cas(&value, token, expiry.into()))
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
        self.update_with(key, self.config().expiry, change)
    }

    /// The same with an expiry for what is stored.
    ///
    /// # Errors
    /// As of [`update`](Self::update).
    ///
    /// ```
    /// # let server = distcache::server::Server::bind("127.0.0.1:0")?;
    /// # let client = distcache::client::Client::connect([server.addresses()[0].to_string()])?;
    /// use std::time::Duration;
    ///
    /// let next = |turn: Option<u32>| Some(turn.unwrap_or(0) + 1);
    /// assert_eq!(client.update_with("turn", Duration::from_secs(60), next)?, Some(1));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn update_with<T: DeserializeOwned + Serialize>(
        &self,
        key: impl AsKey,
        expiry: impl Into<Expiry>,
        mut change: impl FnMut(Option<T>) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        let expiry = expiry.into();
        let mut update = Update::default();
        loop {
            let read = self.call(&key, operation::read_for_update(self.config()))?;
            let Some((value, mode)) = Update::change(read, &mut change)? else { return Ok(None) };
            let encoded = Encoded::new(self.config(), &value)?;
            if self.call(&key, operation::store(&encoded, mode, expiry))? {
                return Ok(Some(value));
            }
            std::thread::sleep(update.again()?);
        }
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
        self.call(&key, operation::delete())
    }

    /// The value of a key, which is deleted: nobody else gets the same one. Needs the meta
    /// protocol.
    ///
    /// # Errors
    /// Any of [`Error`]; `Error::Contended` after a hundred attempts.
    ///
    /// ```
    /// # let server = distcache::server::Server::bind("127.0.0.1:0")?;
    /// # let client = distcache::client::Client::connect([server.addresses()[0].to_string()])?;
    /// client.set("once", "secret")?;
    /// assert_eq!(client.take::<String>("once")?.as_deref(), Some("secret"));
    /// assert_eq!(client.take::<String>("once")?, None);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn take<T: DeserializeOwned>(&self, key: impl AsKey) -> Result<Option<T>, Error> {
        let mut update = Update::default();
        loop {
            let read = self.call(&key, operation::get_versioned(self.config()))?;
            let Some(Versioned { value, token, .. }) = read else { return Ok(None) };
            if self.call(&key, operation::delete_version(token))? {
                return Ok(Some(value));
            }
            std::thread::sleep(update.again()?);
        }
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
        self.call(&key, operation::touch(expiry.into()))
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
        self.call(&key, operation::invalidate(expiry.into()))
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
        self.call(&key, operation::count(true, delta))
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
        self.call(&key, operation::count(false, delta))
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
        self.incr_or_with(key, delta, initial, self.config().expiry)
    }

    /// Subtracts from a number, or stores `initial` if there is none.
    ///
    /// # Errors
    /// As [`incr`](Self::incr).
    ///
    /// ```
    /// # let server = distcache::server::Server::bind("127.0.0.1:0")?;
    /// # let client = distcache::client::Client::connect([server.addresses()[0].to_string()])?;
    /// assert_eq!(client.decr_or("stock", 1, 10)?, 10);
    /// assert_eq!(client.decr_or("stock", 1, 10)?, 9);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn decr_or(&self, key: impl AsKey, delta: u64, initial: u64) -> Result<u64, Error> {
        self.decr_or_with(key, delta, initial, self.config().expiry)
    }

    /// As [`incr_or`](Self::incr_or), with an expiry for `initial`.
    ///
    /// # Errors
    /// As [`incr`](Self::incr).
    ///
    /// ```
    /// # let server = distcache::server::Server::bind("127.0.0.1:0")?;
    /// # let client = distcache::client::Client::connect([server.addresses()[0].to_string()])?;
    /// use std::time::Duration;
    ///
    /// // At most so many calls a minute.
    /// let minute = Duration::from_secs(60);
    /// assert!(client.incr_or_with("calls", 1, 1, minute)? <= 100);
    /// assert!(client.inspect("calls")?.unwrap().ttl_seconds.is_some());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn incr_or_with(
        &self,
        key: impl AsKey,
        delta: u64,
        initial: u64,
        expiry: impl Into<Expiry>,
    ) -> Result<u64, Error> {
        self.count(&key, &Counting::new(true, delta, initial, expiry.into()))
    }

    /// As [`decr_or`](Self::decr_or), with an expiry for `initial`.
    ///
    /// # Errors
    /// As [`incr`](Self::incr).
    ///
    /// ```
    /// # let server = distcache::server::Server::bind("127.0.0.1:0")?;
    /// # let client = distcache::client::Client::connect([server.addresses()[0].to_string()])?;
    /// use std::time::Duration;
    ///
    /// assert_eq!(client.decr_or_with("left-today", 1, 10, Duration::from_secs(86_400))?, 10);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn decr_or_with(
        &self,
        key: impl AsKey,
        delta: u64,
        initial: u64,
        expiry: impl Into<Expiry>,
    ) -> Result<u64, Error> {
        self.count(&key, &Counting::new(false, delta, initial, expiry.into()))
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
    ///
    /// ```
    /// # let server = distcache::server::Server::bind("127.0.0.1:0")?;
    /// # let client = distcache::client::Client::connect([server.addresses()[0].to_string()])?;
    /// assert_eq!(client.unique_ids("user", 100)?, 1..101);
    /// assert_eq!(client.unique_id("user")?, 101);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn unique_ids(&self, key: impl AsKey, count: u64) -> Result<Range<u64>, Error> {
        let last = self.count(&key, &Counting::unique(count)?)?;
        operation::unique_ids(last, count)
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
        let (cluster, expiry) = (self.cluster(), expiry.into());
        let wire = cluster.wire(&key)?.0.into_owned();
        let mut lease = Lease::new(self.config(), &cluster.flights, wire, clock::now());
        loop {
            let leased = self.call(&key, ask(self.config()));
            match lease.next(leased, clock::now()) {
                Step::Done(result) => return Ok(result?),
                Step::ComputeAlone { release } => {
                    self.give_back(&key, release);
                    return compute();
                }
                Step::Compute(leading, ticket) => {
                    return self.fill(OwnedKey::new(&key), ticket, expiry, leading, compute);
                }
                Step::Wait { release, following, until } => {
                    self.give_back(&key, release);
                    let landed = wait_until(following, until);
                    if let Some(value) = landed.and_then(|landed| landed.value(self.config())) {
                        return Ok(value);
                    }
                }
            }
        }
    }

    /// Computes, stores, and hands the value to those who wait for it in this process.
    fn fill<T: Serialize, E: From<Error>>(
        &self,
        key: OwnedKey,
        ticket: Option<Ticket>,
        expiry: Expiry,
        leading: Leading,
        compute: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        let computed = catch_unwind(AssertUnwindSafe(compute));
        let value = computed.as_ref().ok().and_then(|computed| computed.as_ref().ok());
        let filling = Filling::new(self.config(), key, ticket, expiry, value);
        let stored = filling.store().map(|store| self.call(&filling.key, store));
        self.give_back(&filling.key, filling.to_release(stored.as_ref()));
        leading.land(filling.into_value());
        computed.unwrap_or_else(|panic| resume_unwind(panic))
    }

    fn give_back(&self, key: &impl AsKey, token: Option<u64>) {
        if let Some(token) = token {
            // If this fails, the right expires by itself.
            let _ = self.call(key, operation::delete_version(token));
        }
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
        self.each_server(|server| {
            self.cluster().tell(server, ServerCommand::Version, Effect::Read, operation::version)
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
        self.each_server(|server| {
            let start = clock::now();
            self.cluster().tell(
                server,
                ServerCommand::Version,
                Effect::Read,
                operation::version,
            )?;
            Ok(clock::now().duration_since(start))
        })
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
    pub fn stats(&self, which: &str) -> PerServer<Statistics> {
        self.each_server(|server| {
            let mut stats = Statistics::new();
            let stat = |reply: Reply<'_>| outcome::stat(reply, &mut stats);
            self.cluster().tell(server, operation::stats(which)?, Effect::Write, stat)?;
            Ok(stats)
        })
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
        let command = operation::flush_all(delay);
        let flushed = self.each_server(|server| {
            self.cluster().tell(server, command, Effect::Read, operation::flushed)
        });
        self.cluster().near.clear();
        flushed
    }

    fn each_server<R>(&self, ask: impl Fn(&Server) -> Result<R, Error>) -> PerServer<R> {
        let topology = self.cluster().topology();
        let ask = |server: &Arc<Server>| (server.node.clone(), ask(server));
        topology.servers.iter().map(ask).collect()
    }
}
