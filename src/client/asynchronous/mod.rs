//! The asynchronous face, for programs on tokio: only waiting. What is sent, what a reply means and
//! which server is asked is decided in `operation`, `wire`, `placement` and `cluster`, as for the
//! blocking face.
//!
//! A server has one connection that all calls share ([`Config::pipelined_connections`]), and others
//! beside it for large requests and for keys whose values have proved large. A call that is
//! cancelled (its future dropped) leaves its place in the line: its reply is read and dropped, and
//! no other call notices.

mod bulk;
mod cache;
mod caller;
pub(in crate::client) mod lanes;
mod large;
mod pipe;
mod socket;

pub use crate::client::asynchronous::cache::Cache;
use crate::client::asynchronous::caller::Calls;
use crate::client::asynchronous::socket::all;
use crate::client::clock;
use crate::client::cluster::start::{Shared, parse_nodes, start};
use crate::client::cluster::{Cluster, Server};
use crate::client::config::{Config, Expiry};
use crate::client::error::Error;
use crate::client::events::{Counters, ServerStatus};
use crate::client::face::what_does_not_wait;
use crate::client::latency::Latencies;
use crate::client::operation::flight::{Following, Leading};
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
use std::future::{Future, poll_fn};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use tokio::time::{sleep, sleep_until, timeout_at};

/// As [`Client`](super::Client), for programs on tokio: the same operations, with the same names
/// and the same meaning; what they do and how they fail is written there.
///
/// Cheap to clone; clones share connections, and any number of tasks may call at a time. Calls work
/// on any runtime of tokio, each on connections of that runtime. With `Config::discovery`, making a
/// client may wait for a file or a server; so do it once, at the start.
///
/// ```
/// use distcache::client::asynchronous::Client;
/// use distcache::server::Server;
///
/// # let runtime = tokio::runtime::Runtime::new()?;
/// # runtime.block_on(async {
/// let server = Server::bind("127.0.0.1:0")?;
/// let client = Client::connect([server.addresses()[0].to_string()])?;
/// client.set("brazil", "football").await?;
/// assert_eq!(client.get::<String>("brazil").await?.as_deref(), Some("football"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

what_does_not_wait!();

impl Client {
    fn calls(&self) -> Calls<'_> {
        Calls(&self.shared.0)
    }

    async fn call<R, F: Convert<R>>(
        &self,
        key: &(impl AsKey + ?Sized),
        operation: Operation<'_, R, F>,
    ) -> Result<R, Error> {
        self.calls().call(key, operation).await
    }
}

/// What several operations do.
impl Client {
    /// Appends, or at the front.
    async fn extend(&self, key: &impl AsKey, front: bool, bytes: &[u8]) -> Result<bool, Error> {
        let mut update = Update::default();
        loop {
            match self.call(key, operation::extend(front, bytes)).await? {
                Cas::Changed => sleep(update.again()?).await,
                extended => return Ok(extended == Cas::Stored),
            }
        }
    }

    /// Counts, or begins to: also in the place of a value that somebody computes.
    async fn count(&self, key: &impl AsKey, counting: &Counting) -> Result<u64, Error> {
        let mut update = Update::default();
        loop {
            if let Some(number) = self.call(key, counting.count()).await? {
                return Ok(number);
            }
            let look = self.call(key, operation::look()).await?;
            if let Look::Place(token) = look
                && self.call(key, counting.begin(token)).await?
            {
                return Ok(counting.initial());
            }
            sleep(update.again()?).await;
        }
    }
}

/// Reading.
///
/// ```
/// # let runtime = tokio::runtime::Runtime::new()?;
/// # runtime.block_on(async {
/// # let server = distcache::server::Server::bind("127.0.0.1:0")?;
/// # let address = server.addresses()[0].to_string();
/// # let client = distcache::client::asynchronous::Client::connect([address])?;
/// use std::time::Duration;
///
/// client.set("n", 7).await?;
/// assert_eq!(client.get::<u64>("n").await?, Some(7));
/// assert_eq!(client.get_raw("n").await?.unwrap().bytes, b"7");
/// assert_eq!(client.get_versioned::<u64>("n").await?.unwrap().value, 7);
/// assert_eq!(client.get_many::<u64>(["n", "none"]).await.all()?, [Some(7), None]);
/// let read = client.get_many_versioned::<u64>(["n"]).await.all()?;
/// assert_eq!(read[0].unwrap().flags, 0);
/// let minute = Duration::from_secs(60);
/// assert_eq!(client.get_and_touch::<u64>("n", minute).await?, Some(7));
/// assert!(client.inspect("n").await?.unwrap().ttl_seconds.is_some());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
impl Client {
    /// As the blocking [`get`](super::Client::get).
    ///
    /// # Errors
    /// As there.
    pub async fn get<T: DeserializeOwned>(&self, key: impl AsKey) -> Result<Option<T>, Error> {
        self.call(&key, operation::get(self.config())).await
    }

    /// As the blocking [`get_versioned`](super::Client::get_versioned).
    ///
    /// # Errors
    /// As there.
    pub async fn get_versioned<T: DeserializeOwned>(
        &self,
        key: impl AsKey,
    ) -> Result<Option<Versioned<T>>, Error> {
        self.call(&key, operation::get_versioned(self.config())).await
    }

    /// As the blocking [`get_raw`](super::Client::get_raw).
    ///
    /// # Errors
    /// As there.
    pub async fn get_raw(&self, key: impl AsKey) -> Result<Option<Raw>, Error> {
        self.call(&key, operation::get_raw()).await
    }

    /// As the blocking [`get_raw_versioned`](super::Client::get_raw_versioned).
    ///
    /// # Errors
    /// As there.
    pub async fn get_raw_versioned(
        &self,
        key: impl AsKey,
    ) -> Result<Option<Versioned<Vec<u8>>>, Error> {
        self.call(&key, operation::get_raw_versioned()).await
    }

    /// As the blocking [`get_and_touch`](super::Client::get_and_touch).
    ///
    /// # Errors
    /// As there.
    pub async fn get_and_touch<T: DeserializeOwned>(
        &self,
        key: impl AsKey,
        expiry: impl Into<Expiry>,
    ) -> Result<Option<T>, Error> {
        self.call(&key, operation::get_and_touch(self.config(), expiry.into())).await
    }

    /// As the blocking [`inspect`](super::Client::inspect).
    ///
    /// # Errors
    /// As there.
    pub async fn inspect(&self, key: impl AsKey) -> Result<Option<Inspection>, Error> {
        self.call(&key, operation::inspect()).await
    }
}

/// Writing.
///
/// ```
/// # let runtime = tokio::runtime::Runtime::new()?;
/// # runtime.block_on(async {
/// # let server = distcache::server::Server::bind("127.0.0.1:0")?;
/// # let address = server.addresses()[0].to_string();
/// # let client = distcache::client::asynchronous::Client::connect([address])?;
/// use distcache::client::Cas;
/// use std::time::Duration;
///
/// let minute = Duration::from_secs(60);
/// client.set("brazil", "football").await?;
/// client.set_with("session", "x", minute).await?;
/// client.set_raw("text", b"from elsewhere", 16).await?;
/// client.set_raw_with("text", b"from elsewhere", 16, minute).await?;
/// client.set_many([("a", 1), ("b", 2)]).await.all()?;
/// client.set_many_with([("a", 1), ("b", 2)], minute).await.all()?;
/// assert!(client.add("lock", "me").await? && !client.add_with("lock", "you", minute).await?);
/// assert!(client.replace("a", 2).await? && !client.replace_with("c", 3, minute).await?);
/// assert!(client.append("brazil", b"!").await? && client.prepend("brazil", b"o ").await?);
/// let read = client.get_versioned::<u32>("a").await?.unwrap();
/// assert_eq!(client.cas("a", 3, read.token).await?, Cas::Stored);
/// assert_eq!(client.cas_with("a", 4, read.token, minute).await?, Cas::Changed);
/// let next = |turn: Option<u32>| Some(turn.unwrap_or(0) + 1);
/// assert_eq!(client.update("turn", next).await?, Some(1));
/// assert_eq!(client.update_with("turn", minute, next).await?, Some(2));
/// assert!(client.touch("a", minute).await?);
/// assert_eq!(client.touch_many(["a", "none"], minute).await.all()?, [true, false]);
/// assert!(client.invalidate("session", minute).await?);
/// assert_eq!(client.take::<u32>("a").await?, Some(3));
/// assert!(client.delete("b").await?);
/// assert_eq!(client.delete_many(["a", "text"]).await.all()?, [false, true]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
impl Client {
    /// As the blocking [`set`](super::Client::set).
    ///
    /// # Errors
    /// As there.
    pub async fn set(&self, key: impl AsKey, value: impl Serialize) -> Result<(), Error> {
        self.set_with(key, value, self.config().expiry).await
    }

    /// As the blocking [`set_with`](super::Client::set_with).
    ///
    /// # Errors
    /// As there.
    pub async fn set_with(
        &self,
        key: impl AsKey,
        value: impl Serialize,
        expiry: impl Into<Expiry>,
    ) -> Result<(), Error> {
        let value = Encoded::new(self.config(), &value)?;
        self.call(&key, operation::set(&value, expiry.into())).await
    }

    /// As the blocking [`set_raw`](super::Client::set_raw).
    ///
    /// # Errors
    /// As there.
    pub async fn set_raw(&self, key: impl AsKey, bytes: &[u8], flags: u32) -> Result<(), Error> {
        self.set_raw_with(key, bytes, flags, self.config().expiry).await
    }

    /// As the blocking [`set_raw_with`](super::Client::set_raw_with).
    ///
    /// # Errors
    /// As there.
    pub async fn set_raw_with(
        &self,
        key: impl AsKey,
        bytes: &[u8],
        flags: u32,
        expiry: impl Into<Expiry>,
    ) -> Result<(), Error> {
        self.call(&key, operation::set_raw(bytes, flags, expiry.into())).await
    }

    /// As the blocking [`add`](super::Client::add).
    ///
    /// # Errors
    /// As there.
    pub async fn add(&self, key: impl AsKey, value: impl Serialize) -> Result<bool, Error> {
        self.add_with(key, value, self.config().expiry).await
    }

    /// As the blocking [`add_with`](super::Client::add_with).
    ///
    /// # Errors
    /// As there.
    pub async fn add_with(
        &self,
        key: impl AsKey,
        value: impl Serialize,
        expiry: impl Into<Expiry>,
    ) -> Result<bool, Error> {
        let value = Encoded::new(self.config(), &value)?;
        self.call(&key, operation::store(&value, Mode::Add, expiry.into())).await
    }

    /// As the blocking [`replace`](super::Client::replace).
    ///
    /// # Errors
    /// As there.
    pub async fn replace(&self, key: impl AsKey, value: impl Serialize) -> Result<bool, Error> {
        self.replace_with(key, value, self.config().expiry).await
    }

    /// As the blocking [`replace_with`](super::Client::replace_with).
    ///
    /// # Errors
    /// As there.
    pub async fn replace_with(
        &self,
        key: impl AsKey,
        value: impl Serialize,
        expiry: impl Into<Expiry>,
    ) -> Result<bool, Error> {
        let value = Encoded::new(self.config(), &value)?;
        self.call(&key, operation::store(&value, Mode::Replace, expiry.into())).await
    }

    /// As the blocking [`append`](super::Client::append).
    ///
    /// # Errors
    /// As there.
    pub async fn append(&self, key: impl AsKey, bytes: &[u8]) -> Result<bool, Error> {
        self.extend(&key, false, bytes).await
    }

    /// As the blocking [`prepend`](super::Client::prepend).
    ///
    /// # Errors
    /// As there.
    pub async fn prepend(&self, key: impl AsKey, bytes: &[u8]) -> Result<bool, Error> {
        self.extend(&key, true, bytes).await
    }

    /// As the blocking [`cas`](super::Client::cas).
    ///
    /// # Errors
    /// As there.
    pub async fn cas(
        &self,
        key: impl AsKey,
        value: impl Serialize,
        token: u64,
    ) -> Result<Cas, Error> {
        self.cas_with(key, value, token, self.config().expiry).await
    }

    /// As the blocking [`cas_with`](super::Client::cas_with).
    ///
    /// # Errors
    /// As there.
    pub async fn cas_with(
        &self,
        key: impl AsKey,
        value: impl Serialize,
        token: u64,
        expiry: impl Into<Expiry>,
    ) -> Result<Cas, Error> {
        let value = Encoded::new(self.config(), &value)?;
        self.call(&key, operation::cas(&value, token, expiry.into())).await
    }

    /// As the blocking [`update`](super::Client::update).
    ///
    /// # Errors
    /// As there.
    pub async fn update<T: DeserializeOwned + Serialize>(
        &self,
        key: impl AsKey,
        change: impl FnMut(Option<T>) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        self.update_with(key, self.config().expiry, change).await
    }

    /// As the blocking [`update_with`](super::Client::update_with).
    ///
    /// # Errors
    /// As there.
    pub async fn update_with<T: DeserializeOwned + Serialize>(
        &self,
        key: impl AsKey,
        expiry: impl Into<Expiry>,
        mut change: impl FnMut(Option<T>) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        let expiry = expiry.into();
        let mut update = Update::default();
        loop {
            let read = self.call(&key, operation::read_for_update(self.config())).await?;
            let Some((value, mode)) = Update::change(read, &mut change)? else { return Ok(None) };
            let encoded = Encoded::new(self.config(), &value)?;
            if self.call(&key, operation::store(&encoded, mode, expiry)).await? {
                return Ok(Some(value));
            }
            sleep(update.again()?).await;
        }
    }

    /// As the blocking [`delete`](super::Client::delete).
    ///
    /// # Errors
    /// As there.
    pub async fn delete(&self, key: impl AsKey) -> Result<bool, Error> {
        self.call(&key, operation::delete()).await
    }

    /// As the blocking [`take`](super::Client::take).
    ///
    /// # Errors
    /// As there.
    pub async fn take<T: DeserializeOwned>(&self, key: impl AsKey) -> Result<Option<T>, Error> {
        let mut update = Update::default();
        loop {
            let read = self.call(&key, operation::get_versioned(self.config())).await?;
            let Some(Versioned { value, token, .. }) = read else { return Ok(None) };
            if self.call(&key, operation::delete_version(token)).await? {
                return Ok(Some(value));
            }
            sleep(update.again()?).await;
        }
    }

    /// As the blocking [`touch`](super::Client::touch).
    ///
    /// # Errors
    /// As there.
    pub async fn touch(&self, key: impl AsKey, expiry: impl Into<Expiry>) -> Result<bool, Error> {
        self.call(&key, operation::touch(expiry.into())).await
    }

    /// As the blocking [`invalidate`](super::Client::invalidate).
    ///
    /// # Errors
    /// As there.
    pub async fn invalidate(
        &self,
        key: impl AsKey,
        expiry: impl Into<Expiry>,
    ) -> Result<bool, Error> {
        self.call(&key, operation::invalidate(expiry.into())).await
    }
}

/// Counting.
///
/// ```
/// # let runtime = tokio::runtime::Runtime::new()?;
/// # runtime.block_on(async {
/// # let server = distcache::server::Server::bind("127.0.0.1:0")?;
/// # let address = server.addresses()[0].to_string();
/// # let client = distcache::client::asynchronous::Client::connect([address])?;
/// use std::time::Duration;
///
/// let minute = Duration::from_secs(60);
/// assert_eq!(client.incr("none", 1).await?, None);
/// assert_eq!(client.incr_or("visits", 1, 100).await?, 100);
/// assert_eq!(client.incr_or_with("visits", 1, 1, minute).await?, 101);
/// assert_eq!(client.incr("visits", 2).await?, Some(103));
/// assert_eq!(client.decr("visits", 3).await?, Some(100));
/// assert_eq!(client.decr_or("stock", 1, 10).await?, 10);
/// assert_eq!(client.decr_or_with("stock", 1, 10, minute).await?, 9);
/// assert_eq!(client.unique_id("user").await?, 1);
/// assert_eq!(client.unique_ids("user", 100).await?, 2..102);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
impl Client {
    /// As the blocking [`incr`](super::Client::incr).
    ///
    /// # Errors
    /// As there.
    pub async fn incr(&self, key: impl AsKey, delta: u64) -> Result<Option<u64>, Error> {
        self.call(&key, operation::count(true, delta)).await
    }

    /// As the blocking [`decr`](super::Client::decr).
    ///
    /// # Errors
    /// As there.
    pub async fn decr(&self, key: impl AsKey, delta: u64) -> Result<Option<u64>, Error> {
        self.call(&key, operation::count(false, delta)).await
    }

    /// As the blocking [`incr_or`](super::Client::incr_or).
    ///
    /// # Errors
    /// As there.
    pub async fn incr_or(&self, key: impl AsKey, delta: u64, initial: u64) -> Result<u64, Error> {
        self.incr_or_with(key, delta, initial, self.config().expiry).await
    }

    /// As the blocking [`incr_or_with`](super::Client::incr_or_with).
    ///
    /// # Errors
    /// As there.
    pub async fn incr_or_with(
        &self,
        key: impl AsKey,
        delta: u64,
        initial: u64,
        expiry: impl Into<Expiry>,
    ) -> Result<u64, Error> {
        self.count(&key, &Counting::new(true, delta, initial, expiry.into())).await
    }

    /// As the blocking [`decr_or`](super::Client::decr_or).
    ///
    /// # Errors
    /// As there.
    pub async fn decr_or(&self, key: impl AsKey, delta: u64, initial: u64) -> Result<u64, Error> {
        self.decr_or_with(key, delta, initial, self.config().expiry).await
    }

    /// As the blocking [`decr_or_with`](super::Client::decr_or_with).
    ///
    /// # Errors
    /// As there.
    pub async fn decr_or_with(
        &self,
        key: impl AsKey,
        delta: u64,
        initial: u64,
        expiry: impl Into<Expiry>,
    ) -> Result<u64, Error> {
        self.count(&key, &Counting::new(false, delta, initial, expiry.into())).await
    }

    /// As the blocking [`unique_id`](super::Client::unique_id).
    ///
    /// # Errors
    /// As there.
    pub async fn unique_id(&self, key: impl AsKey) -> Result<u64, Error> {
        Ok(self.unique_ids(key, 1).await?.start)
    }

    /// As the blocking [`unique_ids`](super::Client::unique_ids).
    ///
    /// # Errors
    /// As there.
    pub async fn unique_ids(&self, key: impl AsKey, count: u64) -> Result<Range<u64>, Error> {
        let last = self.count(&key, &Counting::unique(count)?).await?;
        operation::unique_ids(last, count)
    }
}

/// Look-aside.
impl Client {
    /// As the blocking [`get_or_compute`](super::Client::get_or_compute), with a function whose
    /// future computes. That runs in a task of its own: a caller that goes away meanwhile does not
    /// keep it from being finished and stored.
    ///
    /// # Errors
    /// As there.
    ///
    /// ```
    /// # let runtime = tokio::runtime::Runtime::new()?;
    /// # runtime.block_on(async {
    /// # let server = distcache::server::Server::bind("127.0.0.1:0")?;
    /// # let address = server.addresses()[0].to_string();
    /// # let client = distcache::client::asynchronous::Client::connect([address])?;
    /// use std::time::Duration;
    ///
    /// let minute = Duration::from_secs(60);
    /// let slow = || async { "computed".to_owned() };
    /// let value: String = client.get_or_compute("report", minute, slow).await?;
    /// assert_eq!(value, "computed");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub async fn get_or_compute<T, F>(
        &self,
        key: impl AsKey,
        expiry: impl Into<Expiry>,
        compute: impl FnOnce() -> F,
    ) -> Result<T, Error>
    where
        T: DeserializeOwned + Serialize + Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let compute = || {
            let computed = compute();
            async { Ok(computed.await) }
        };
        self.try_get_or_compute(key, expiry, compute).await
    }

    /// As the blocking [`try_get_or_compute`](super::Client::try_get_or_compute); see
    /// [`get_or_compute`](Self::get_or_compute).
    ///
    /// # Errors
    /// As there.
    pub async fn try_get_or_compute<T, E, F>(
        &self,
        key: impl AsKey,
        expiry: impl Into<Expiry>,
        compute: impl FnOnce() -> F,
    ) -> Result<T, E>
    where
        T: DeserializeOwned + Serialize + Send + 'static,
        E: From<Error> + Send + 'static,
        F: Future<Output = Result<T, E>> + Send + 'static,
    {
        let (cluster, expiry) = (self.cluster(), expiry.into());
        let wire = cluster.wire(&key)?.0.into_owned();
        let mut lease = Lease::new(self.config(), &cluster.flights, wire, clock::now());
        loop {
            let leased = self.call(&key, ask(self.config())).await;
            match lease.next(leased, clock::now()) {
                Step::Done(result) => return Ok(result?),
                Step::ComputeAlone { release } => {
                    self.give_back(&key, release).await;
                    return compute().await;
                }
                Step::Compute(leading, ticket) => {
                    let key = OwnedKey::new(&key);
                    return self.detached(key, ticket, expiry, leading, compute()).await;
                }
                Step::Wait { release, following, until } => {
                    self.give_back(&key, release).await;
                    let landed = wait_until(following, until).await;
                    if let Some(value) = landed.and_then(|landed| landed.value(self.config())) {
                        return Ok(value);
                    }
                }
            }
        }
    }

    /// Computes in a task of its own.
    async fn detached<T, E, F>(
        &self,
        key: OwnedKey,
        ticket: Option<Ticket>,
        expiry: Expiry,
        leading: Leading,
        compute: F,
    ) -> Result<T, E>
    where
        T: Serialize + Send + 'static,
        E: From<Error> + Send + 'static,
        F: Future<Output = Result<T, E>> + Send + 'static,
    {
        let (client, (sender, receiver)) = (self.clone(), oneshot::channel());
        tokio::spawn(async move {
            let computed = caught(compute).await;
            let value = computed.as_ref().ok().and_then(|computed| computed.as_ref().ok());
            let filling = Filling::new(client.config(), key, ticket, expiry, value);
            client.fill(filling, leading).await;
            // The caller may be gone.
            let _ = sender.send(computed);
        });
        match receiver.await {
            Ok(Ok(computed)) => computed,
            Ok(Err(panic)) => resume_unwind(panic),
            Err(_) => Err(Error::Value("the runtime that computed it has ended".into()).into()),
        }
    }

    /// Stores what was computed, and hands it to those who wait for it in this process.
    async fn fill(&self, filling: Filling, leading: Leading) {
        let stored = match filling.store() {
            Some(store) => Some(self.call(&filling.key, store).await),
            None => None,
        };
        self.give_back(&filling.key, filling.to_release(stored.as_ref())).await;
        leading.land(filling.into_value());
    }

    async fn give_back(&self, key: &impl AsKey, token: Option<u64>) {
        if let Some(token) = token {
            // If this fails, the right expires by itself.
            let _ = self.call(key, operation::delete_version(token)).await;
        }
    }
}

/// What a future yields, or what it panicked with.
async fn caught<F: Future>(future: F) -> std::thread::Result<F::Output> {
    let mut future = pin!(future);
    poll_fn(|context| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
        Ok(Poll::Pending) => Poll::Pending,
        Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
        Err(panic) => Poll::Ready(Err(panic)),
    })
    .await
}

/// What another task of this process computes, or nothing at that time.
async fn wait_until(following: Option<Following>, until: Instant) -> Option<Arc<Encoded>> {
    match following {
        Some(following) => timeout_at(until.into(), following).await.ok().flatten(),
        None => {
            sleep_until(until.into()).await;
            None
        }
    }
}

/// Servers.
///
/// ```
/// # let runtime = tokio::runtime::Runtime::new()?;
/// # runtime.block_on(async {
/// # let server = distcache::server::Server::bind("127.0.0.1:0")?;
/// # let address = server.addresses()[0].to_string();
/// # let client = distcache::client::asynchronous::Client::connect([address])?;
/// assert!(client.version().await.iter().all(|(_, version)| version.is_ok()));
/// assert!(client.ping().await.iter().all(|(_, time)| time.is_ok()));
/// assert!(client.stats("").await.iter().all(|(_, stats)| stats.is_ok()));
/// assert!(client.flush_all(None).await.iter().all(|(_, flushed)| flushed.is_ok()));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
impl Client {
    /// As the blocking [`version`](super::Client::version), all at once.
    pub async fn version(&self) -> PerServer<String> {
        self.each_server(async |server| {
            let calls = self.calls();
            calls.tell(server, ServerCommand::Version, Effect::Read, operation::version).await
        })
        .await
    }

    /// As the blocking [`ping`](super::Client::ping), all at once.
    pub async fn ping(&self) -> PerServer<Duration> {
        self.each_server(async |server| {
            let (calls, start) = (self.calls(), clock::now());
            calls.tell(server, ServerCommand::Version, Effect::Read, operation::version).await?;
            Ok(clock::now().duration_since(start))
        })
        .await
    }

    /// As the blocking [`stats`](super::Client::stats), all at once.
    pub async fn stats(&self, which: &str) -> PerServer<Statistics> {
        self.each_server(async |server| {
            let mut stats = Statistics::new();
            let stat = |reply: Reply<'_>| outcome::stat(reply, &mut stats);
            self.calls().tell(server, operation::stats(which)?, Effect::Write, stat).await?;
            Ok(stats)
        })
        .await
    }

    /// As the blocking [`flush_all`](super::Client::flush_all), all at once.
    pub async fn flush_all(&self, delay: Option<Duration>) -> PerServer<()> {
        let command = operation::flush_all(delay);
        let flushed = self
            .each_server(async |server| {
                self.calls().tell(server, command, Effect::Read, operation::flushed).await
            })
            .await;
        self.cluster().near.clear();
        flushed
    }

    async fn each_server<R>(
        &self,
        ask: impl AsyncFn(&Arc<Server>) -> Result<R, Error>,
    ) -> PerServer<R> {
        let topology = self.cluster().topology();
        let ask = async |server: &Arc<Server>| (server.node.clone(), ask(server).await);
        all(topology.servers.iter().map(ask).collect()).await
    }
}
