//! The asynchronous face, for programs on tokio. Owns its own connections; which server a key goes
//! to, the health of servers and the bytes on the wire are shared with the blocking face.
//!
//! A call that is cancelled (its future dropped) closes its connection, so that its reply cannot
//! reach another call.

use crate::client::blocking::caller::Group;
use crate::client::blocking::client::{lease_seconds, parse_nodes, start, update_pause};
use crate::client::clock;
use crate::client::cluster::{Cluster, Route, Server, for_stand_in};
use crate::client::config::{Config, Expiry};
use crate::client::error::Error;
use crate::client::events::{Counters, ServerStatus, count};
use crate::client::net::dialer::handshake_failed;
use crate::client::net::stream::{self, Stream};
#[cfg(not(unix))]
use crate::client::net::unix_absent::UnixStream;
use crate::client::placement::key::{AsKey, WireKey};
use crate::client::placement::node::Node;
use crate::client::wire::batch::{Batch, Single, refused};
use crate::client::wire::command::{Command, Effect, Expect, Mode, ServerCommand};
use crate::client::wire::login;
use crate::client::wire::outcome::{
    self, Cas, Inspection, Leased, Many, PerServer, Raw, Versioned, nowhere,
};
use crate::client::wire::reply::{Decoder, Reply};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};
use tokio::io::Interest;
use tokio::net::TcpStream;
#[cfg(unix)]
use tokio::net::UnixStream;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout_at;

/// Attempts of `update` before it gives up.
const UPDATE_ATTEMPTS_MAX: u32 = 100;

/// Waits of `get_or_compute` for another caller's value: from, to.
const LEASE_POLL: [Duration; 2] = [Duration::from_millis(2), Duration::from_millis(50)];

/// Connections of one server.
#[derive(Debug)]
pub(in crate::client) struct Pool {
    idle: Mutex<Vec<Connection>>,
    permits: Semaphore,
}

impl Pool {
    pub fn new(connections_max: usize) -> Self {
        let permits = Semaphore::new(connections_max.min(Semaphore::MAX_PERMITS));
        Self { idle: Mutex::new(Vec::new()), permits }
    }

    pub fn clear(&self) {
        let idle = std::mem::take(&mut *self.lock());
        drop(idle);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

macro_rules! on_socket {
    ($self:expr, $socket:ident => $call:expr) => {
        match $self {
            Socket::Tcp($socket) => $call,
            Socket::Unix($socket) => $call,
        }
    };
}

impl stream::Socket for Socket {
    fn try_read(&self, room: &mut [u8]) -> io::Result<usize> {
        on_socket!(self, socket => socket.try_read(room))
    }

    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        on_socket!(self, socket => socket.try_write(bytes))
    }
}

/// Waits until the socket can do one of these.
async fn ready(stream: &Stream<Socket>, interest: Interest) -> io::Result<()> {
    on_socket!(&stream.socket, socket => socket.ready(interest).await.map(|_| ()))
}

/// What a stream waits for while it receives.
fn receiving(stream: &Stream<Socket>, sends: bool) -> Interest {
    match sends || stream.owes() {
        true => Interest::READABLE | Interest::WRITABLE,
        false => Interest::READABLE,
    }
}

/// What the socket did, or that it must be waited for.
fn done<R>(result: io::Result<R>) -> io::Result<Option<R>> {
    match result {
        Ok(result) => Ok(Some(result)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}

#[derive(Debug)]
struct Connection {
    stream: Stream<Socket>,
    decoder: Decoder,
    opaque: u32,
    idle_since: Instant,
}

impl Connection {
    /// Whether it can carry another call; see the blocking face.
    fn is_usable(&mut self, now: Instant, idle_timeout: Duration) -> bool {
        now.saturating_duration_since(self.idle_since) < idle_timeout && self.stream.is_quiet()
    }

    async fn shake_hands(&mut self) -> io::Result<()> {
        while done(self.stream.try_handshake())?.is_none() {
            let owes = self.stream.owes();
            let interest = if owes { Interest::WRITABLE } else { Interest::READABLE };
            ready(&self.stream, interest).await?;
        }
        Ok(())
    }

    async fn send(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match done(self.stream.try_send(bytes))? {
                Some(count) => bytes = &bytes[count..],
                None => ready(&self.stream, Interest::WRITABLE).await?,
            }
        }
        while done(self.stream.try_flush())?.is_none() {
            ready(&self.stream, Interest::WRITABLE).await?;
        }
        Ok(())
    }

    async fn receive(&mut self) -> io::Result<usize> {
        loop {
            match done(self.stream.try_receive(self.decoder.room()))? {
                Some(count) => return Ok(count),
                None => ready(&self.stream, receiving(&self.stream, false)).await?,
            }
        }
    }
}

/// A connection on loan. Unless it is kept, it is closed.
struct Loan<'s> {
    server: &'s Server,
    connection: Option<Connection>,
    reused: bool,
    keep: bool,
    idle_max: usize,
    _permit: SemaphorePermit<'s>,
}

impl Drop for Loan<'_> {
    fn drop(&mut self) {
        let Some(mut connection) = self.connection.take().filter(|_| self.keep) else { return };
        if !connection.decoder.is_empty() || connection.stream.holds() || !self.server.is_in_use() {
            return;
        }
        connection.idle_since = clock::now();
        let mut idle = self.server.async_pool.lock();
        if idle.len() < self.idle_max {
            idle.push(connection);
        }
    }
}

/// Several futures at once; all results, in order.
async fn all<F: Future>(futures: Vec<F>) -> Vec<F::Output> {
    let mut futures: Vec<Pin<Box<F>>> = futures.into_iter().map(Box::pin).collect();
    let mut results: Vec<Option<F::Output>> = futures.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        let mut open = false;
        for (future, result) in futures.iter_mut().zip(&mut results) {
            if result.is_none() {
                match future.as_mut().poll(context) {
                    Poll::Ready(output) => *result = Some(output),
                    Poll::Pending => open = true,
                }
            }
        }
        if open { Poll::Pending } else { Poll::Ready(()) }
    })
    .await;
    results.into_iter().flatten().collect()
}

/// A future with a time limit.
async fn within<R>(
    server: &Server,
    deadline: Instant,
    waiting_for: &'static str,
    future: impl Future<Output = io::Result<R>>,
) -> Result<R, Error> {
    match timeout_at(deadline.into(), future).await {
        Ok(Ok(result)) => Ok(result),
        Ok(Err(error)) => Err(Error::io(&server.name, waiting_for, &error)),
        Err(_) => Err(Error::Timeout { server: server.name.clone(), waiting_for }),
    }
}

impl Cluster {
    async fn lend_async<'s>(
        &self,
        server: &'s Server,
        deadline: Instant,
    ) -> Result<Loan<'s>, Error> {
        let permit = timeout_at(deadline.into(), server.async_pool.permits.acquire()).await;
        let Ok(Ok(permit)) = permit else {
            let (server, waiting_for) = (server.name.clone(), "a free connection");
            return Err(Error::Timeout { server, waiting_for });
        };
        let idle_max = self.config.idle_connections_max;
        let mut loan =
            Loan { server, connection: None, reused: true, keep: false, idle_max, _permit: permit };
        loop {
            let Some(mut connection) = server.async_pool.lock().pop() else { break };
            if connection.is_usable(clock::now(), self.config.idle_timeout) {
                loan.connection = Some(connection);
                return Ok(loan);
            }
        }
        server.may_log_in(clock::now(), self.config.probe_after_max)?;
        match self.enter_async(server, deadline).await {
            Ok(connection) => {
                count(&self.counters.connections);
                (loan.connection, loan.reused) = (Some(connection), false);
                Ok(loan)
            }
            Err(error) => {
                self.failed(server, &error);
                Err(error)
            }
        }
    }

    /// A connection, encrypted if it is to be, on which we are logged in.
    async fn enter_async(&self, server: &Server, deadline: Instant) -> Result<Connection, Error> {
        let mut connection = self.connect_async(server, deadline).await?;
        let until = deadline.min(clock::now() + self.config.connect_timeout);
        match timeout_at(until.into(), connection.shake_hands()).await {
            Ok(shaken) => shaken.map_err(|error| handshake_failed(&server.name, &error))?,
            Err(_) => {
                let (server, waiting_for) = (server.name.clone(), "the TLS handshake");
                return Err(Error::Timeout { server, waiting_for });
            }
        }
        let Some(login) = &self.dialer.login else { return Ok(connection) };
        let write = |_, out: &mut Vec<u8>| login.write(out);
        let accepted = &mut login::accepted;
        let said = exchange(self, server, &mut connection, until, None, &write, accepted).await;
        said.and_then(|result| result).map_err(login::failed)?;
        server.let_in();
        Ok(connection)
    }

    async fn connect_async(&self, server: &Server, deadline: Instant) -> Result<Connection, Error> {
        let deadline = deadline.min(clock::now() + self.config.connect_timeout);
        let failed = |cause: String| Error::Connect { server: server.name.clone(), cause };
        let session = self.dialer.session(&server.node)?;
        let made = |socket| Connection {
            stream: Stream::new(socket, session),
            decoder: Decoder::default(),
            opaque: 0,
            idle_since: clock::now(),
        };
        if let Some(path) = server.node.unix_path() {
            let stream = timeout_at(deadline.into(), UnixStream::connect(path)).await;
            let stream = stream.map_err(|_| failed("time ran out".into()))?;
            return Ok(made(Socket::Unix(stream.map_err(|error| failed(error.to_string()))?)));
        }
        let mut last = failed(format!("{} does not resolve", server.node.host()));
        for address in server.addresses() {
            match timeout_at(deadline.into(), TcpStream::connect(address)).await {
                Ok(Ok(stream)) => {
                    stream.set_nodelay(true).map_err(|error| failed(error.to_string()))?;
                    return Ok(made(Socket::Tcp(stream)));
                }
                Ok(Err(error)) => last = failed(format!("{address}: {error}")),
                Err(_) => last = failed(format!("{address}: time ran out")),
            }
        }
        Err(last)
    }

    /// One request to one server.
    async fn ask_async<R>(
        &self,
        server: &Server,
        key: Option<&WireKey<'_>>,
        effect: Effect,
        write: impl Fn(u32, &mut Vec<u8>) -> Expect,
        convert: &mut impl FnMut(Reply<'_>) -> Result<R, Error>,
    ) -> Result<R, Error> {
        let deadline = clock::now() + self.config.call_timeout;
        let mut retried = false;
        loop {
            let mut loan = self.lend_async(server, deadline).await?;
            let reused = loan.reused;
            let Some(connection) = loan.connection.as_mut() else { return Err(Error::NoServers) };
            let error =
                match exchange(self, server, connection, deadline, key, &write, convert).await {
                    Ok(result) => {
                        loan.keep = true;
                        drop(loan);
                        self.succeeded(server);
                        return result;
                    }
                    Err(error) => error,
                };
            drop(loan);
            let stale = reused && matches!(error, Error::Io { .. });
            if stale && effect == Effect::Read && !retried {
                retried = true;
                server.close_idle();
                count(&self.counters.retries);
                continue;
            }
            self.failed(server, &error);
            return Err(error);
        }
    }

    async fn call_async<R>(
        &self,
        key: &(impl AsKey + ?Sized),
        command: Command<'_>,
        effect: Effect,
        mut convert: impl FnMut(Reply<'_>) -> Result<R, Error>,
    ) -> Result<R, Error> {
        let (wire, placing) = self.wire(key)?;
        let topology = self.topology();
        let (server, command) = match self.route(&topology, &placing, &wire, effect)? {
            Route::Owner(server) => (server, command),
            Route::StandIn(server, seconds_max) => (server, for_stand_in(command, seconds_max)),
            Route::Nowhere => return convert(nowhere(&command)),
        };
        drop((topology, placing));
        let write = |opaque, out: &mut Vec<u8>| command.write(&wire, opaque, out);
        let result = self.ask_async(&server, Some(&wire), effect, write, &mut convert).await;
        match result {
            Err(error) if effect == Effect::Read && self.forgives(&error) => {
                convert(Reply::NotFound)
            }
            result => result,
        }
    }

    /// The keys of one server; results with their places, and the failure of the rest.
    async fn batch_async<'k, T>(
        &self,
        group: Group<'k>,
        deadline: Instant,
        batch: &impl Fn(Vec<(usize, WireKey<'k>)>, Option<u32>, &mut u32) -> Batch<'k>,
        convert: &impl Fn(Reply<'_>) -> Result<T, Error>,
    ) -> Outcome<T> {
        let places: Vec<usize> = group.keys.iter().map(|(at, _)| *at).collect();
        let server = Arc::clone(&group.server);
        let mut found = Vec::with_capacity(places.len());
        let mut loan = match self.lend_async(&server, deadline).await {
            Ok(loan) => loan,
            Err(error) => return Outcome { found, failure: Some((error, places)) },
        };
        let Some(connection) = loan.connection.as_mut() else {
            return Outcome { found, failure: Some((Error::NoServers, places)) };
        };
        let mut batch = batch(group.keys, group.seconds_max, &mut connection.opaque);
        let mut sink = |at, reply: Reply<'_>| {
            let result = match reply {
                Reply::Refused(line) => Err(refused(&server.name, line)),
                reply => convert(reply),
            };
            if let Err(error @ Error::Protocol { .. }) = result {
                return Err(error);
            }
            found.push((at, result));
            Ok(())
        };
        let driven = self.drive_async(&server, connection, deadline, &mut batch, &mut sink);
        match driven.await {
            Ok(()) => {
                loan.keep = true;
                drop(loan);
                self.succeeded(&server);
                Outcome { found, failure: None }
            }
            Err(error) => {
                drop(loan);
                self.failed(&server, &error);
                Outcome { found, failure: Some((error, batch.unanswered().collect())) }
            }
        }
    }

    /// Writes and reads at once: a server that waits for its replies to be read reads no requests.
    async fn drive_async(
        &self,
        server: &Server,
        connection: &mut Connection,
        deadline: Instant,
        batch: &mut Batch<'_>,
        sink: &mut impl FnMut(usize, Reply<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let Connection { stream, decoder, .. } = connection;
        let name = &server.name;
        let failed = |error: io::Error| Error::io(name, "replies", &error);
        let mut progress_at = clock::now();
        while !batch.is_done() {
            // A connection that is always ready must not keep the thread from other tasks.
            tokio::task::coop::consume_budget().await;
            let sent = match batch.unsent() {
                [] => done(stream.try_flush()).map_err(failed)?.and(None),
                unsent => done(stream.try_send(unsent)).map_err(failed)?,
            };
            let received = done(stream.try_receive(decoder.room())).map_err(failed)?;
            if let Some(count) = sent {
                batch.sent += count;
            }
            match received {
                Some(0) => return Err(Error::closed(name)),
                Some(count) => {
                    decoder.arrived(count);
                    batch.advance(decoder, sink).map_err(|fault| Error::fault(name, fault))?;
                }
                None if sent.is_none() => {
                    let until = deadline.min(progress_at + self.config.read_timeout);
                    let interest = receiving(stream, !batch.unsent().is_empty());
                    within(server, until, "replies", ready(stream, interest)).await?;
                    continue;
                }
                None => {}
            }
            progress_at = clock::now();
        }
        Ok(())
    }

    async fn call_many_async<'k, K: AsKey, T>(
        &self,
        keys: &'k [K],
        effect: Effect,
        batch: impl Fn(Vec<(usize, WireKey<'k>)>, Option<u32>, &mut u32) -> Batch<'k>,
        missing: impl Fn() -> Result<T, Error>,
        convert: impl Fn(Reply<'_>) -> Result<T, Error>,
    ) -> Many<T> {
        let mut slots: Vec<Option<Result<T, Error>>> = keys.iter().map(|_| None).collect();
        let deadline = clock::now() + self.config.call_timeout;
        let groups = self.split(keys, effect, &mut slots, &missing);
        let ask = |group| self.batch_async(group, deadline, &batch, &convert);
        for outcome in all(groups.into_iter().map(ask).collect()).await {
            for (at, result) in outcome.found {
                slots[at] = Some(result);
            }
            let Some((error, places)) = outcome.failure else { continue };
            let forgiven = effect == Effect::Read && self.forgives(&error);
            for at in places {
                let failed = || if forgiven { missing() } else { Err(error.clone()) };
                slots[at].get_or_insert_with(failed);
            }
        }
        Many(slots.into_iter().map(|slot| slot.unwrap_or_else(&missing)).collect())
    }
}

/// What became of the keys of one server.
struct Outcome<T> {
    found: Vec<(usize, Result<T, Error>)>,
    failure: Option<(Error, Vec<usize>)>,
}

/// One request and its reply; the outer error means that the connection must be closed.
async fn exchange<R>(
    cluster: &Cluster,
    server: &Server,
    connection: &mut Connection,
    deadline: Instant,
    key: Option<&WireKey<'_>>,
    write: &impl Fn(u32, &mut Vec<u8>) -> Expect,
    convert: &mut impl FnMut(Reply<'_>) -> Result<R, Error>,
) -> Result<Result<R, Error>, Error> {
    connection.opaque = connection.opaque.wrapping_add(1);
    let mut requests = Vec::new();
    let expect = write(connection.opaque, &mut requests);
    let until = deadline.min(clock::now() + cluster.config.write_timeout);
    within(server, until, "a request to be sent", connection.send(&requests)).await?;
    let mut single = Single::new(key, expect);
    loop {
        let until = deadline.min(clock::now() + cluster.config.read_timeout);
        let count = within(server, until, "a reply", connection.receive()).await?;
        if count == 0 {
            return Err(Error::closed(&server.name));
        }
        connection.decoder.arrived(count);
        let advanced = single.advance(&mut connection.decoder, &server.name, convert);
        if advanced.map_err(|fault| Error::fault(&server.name, fault))? {
            let none = || Error::protocol(&server.name, "no reply");
            return single.result.ok_or_else(none);
        }
    }
}

/// As [`Client`](super::Client), for programs on tokio: the same operations with the same meaning.
///
/// Making one may wait for a name server, as with the blocking one; so do it once, at the start.
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

impl Client {
    /// A client of these servers, with default settings.
    ///
    /// # Errors
    /// As of the blocking [`connect`](super::Client::connect).
    pub fn connect(servers: impl IntoIterator<Item = impl AsRef<str>>) -> Result<Self, Error> {
        Self::with_config(servers, Config::default())
    }

    /// A client with settings of the caller's.
    ///
    /// # Errors
    /// As of the blocking [`with_config`](super::Client::with_config).
    pub fn with_config(
        servers: impl IntoIterator<Item = impl AsRef<str>>,
        config: Config,
    ) -> Result<Self, Error> {
        Self::with_nodes(parse_nodes(servers)?, config)
    }

    /// The same with servers as values.
    ///
    /// # Errors
    /// As of the blocking [`with_config`](super::Client::with_config).
    pub fn with_nodes(nodes: Vec<Node>, config: Config) -> Result<Self, Error> {
        Ok(Self { inner: Arc::new(Inner { cluster: start(nodes, config)? }) })
    }

    fn cluster(&self) -> &Cluster {
        &self.inner.cluster
    }

    async fn call<R>(
        &self,
        key: &impl AsKey,
        command: Command<'_>,
        convert: impl FnMut(Reply<'_>) -> Result<R, Error>,
    ) -> Result<R, Error> {
        self.cluster().call_async(key, command, command.effect(), convert).await
    }

    async fn find<R>(
        &self,
        key: &impl AsKey,
        command: Command<'_>,
        convert: impl FnMut(Reply<'_>) -> Result<Option<R>, Error>,
    ) -> Result<Option<R>, Error> {
        let found = self.call(key, command, convert).await?;
        self.cluster().count_found(found.is_some());
        Ok(found)
    }

    async fn store<R>(
        &self,
        key: &impl AsKey,
        value: &impl Serialize,
        mode: Mode,
        expiry: Expiry,
        convert: impl FnMut(Reply<'_>) -> Result<R, Error>,
    ) -> Result<R, Error> {
        let (data, flags) = self.cluster().config.codec.encode(value)?;
        let exptime = expiry.exptime();
        self.call(key, Command::Store { mode, flags, exptime, data: &data }, convert).await
    }

    /// As of the blocking [`get`](super::Client::get).
    ///
    /// # Errors
    /// The same.
    pub async fn get<T: DeserializeOwned>(&self, key: impl AsKey) -> Result<Option<T>, Error> {
        let codec = &self.cluster().config.codec;
        self.find(&key, Command::Get { token: false }, |reply| outcome::value(codec, reply)).await
    }

    /// As of the blocking [`get_versioned`](super::Client::get_versioned).
    ///
    /// # Errors
    /// The same.
    pub async fn get_versioned<T: DeserializeOwned>(
        &self,
        key: impl AsKey,
    ) -> Result<Option<Versioned<T>>, Error> {
        let codec = &self.cluster().config.codec;
        self.find(&key, Command::Get { token: true }, |reply| outcome::versioned(codec, reply))
            .await
    }

    /// As of the blocking [`get_raw`](super::Client::get_raw).
    ///
    /// # Errors
    /// The same.
    pub async fn get_raw(&self, key: impl AsKey) -> Result<Option<Raw>, Error> {
        self.find(&key, Command::Get { token: false }, outcome::raw).await
    }

    /// As of the blocking [`get_and_touch`](super::Client::get_and_touch).
    ///
    /// # Errors
    /// The same.
    pub async fn get_and_touch<T: DeserializeOwned>(
        &self,
        key: impl AsKey,
        expiry: impl Into<Expiry>,
    ) -> Result<Option<T>, Error> {
        let codec = &self.cluster().config.codec;
        let exptime = expiry.into().exptime();
        let command = Command::GetAndTouch { exptime };
        self.find(&key, command, |reply| outcome::value(codec, reply)).await
    }

    /// As of the blocking [`get_many`](super::Client::get_many).
    pub async fn get_many<T: DeserializeOwned>(&self, keys: &[impl AsKey]) -> Many<Option<T>> {
        let codec = &self.cluster().config.codec;
        let asked = self.cluster().call_many_async(
            keys,
            Effect::Read,
            |keys, _, opaque| Batch::get(keys, false, opaque),
            || Ok(None),
            |reply| outcome::value(codec, reply),
        );
        let many = asked.await;
        self.cluster().count_all_found(&many);
        many
    }

    /// As of the blocking [`get_many_versioned`](super::Client::get_many_versioned).
    pub async fn get_many_versioned<T: DeserializeOwned>(
        &self,
        keys: &[impl AsKey],
    ) -> Many<Option<Versioned<T>>> {
        let codec = &self.cluster().config.codec;
        let asked = self.cluster().call_many_async(
            keys,
            Effect::Read,
            |keys, _, opaque| Batch::get(keys, true, opaque),
            || Ok(None),
            |reply| outcome::versioned(codec, reply),
        );
        let many = asked.await;
        self.cluster().count_all_found(&many);
        many
    }

    /// As of the blocking [`inspect`](super::Client::inspect).
    ///
    /// # Errors
    /// The same.
    pub async fn inspect(&self, key: impl AsKey) -> Result<Option<Inspection>, Error> {
        self.call(&key, Command::Inspect, outcome::inspection).await
    }

    /// As of the blocking [`set`](super::Client::set).
    ///
    /// # Errors
    /// The same.
    pub async fn set(&self, key: impl AsKey, value: impl Serialize) -> Result<(), Error> {
        self.set_with(key, value, self.cluster().config.expiry).await
    }

    /// As of the blocking [`set_with`](super::Client::set_with).
    ///
    /// # Errors
    /// The same.
    pub async fn set_with(
        &self,
        key: impl AsKey,
        value: impl Serialize,
        expiry: impl Into<Expiry>,
    ) -> Result<(), Error> {
        self.store(&key, &value, Mode::Set, expiry.into(), outcome::set).await
    }

    /// As of the blocking [`set_raw`](super::Client::set_raw).
    ///
    /// # Errors
    /// The same.
    pub async fn set_raw(&self, key: impl AsKey, bytes: &[u8], flags: u32) -> Result<(), Error> {
        let exptime = self.cluster().config.expiry.exptime();
        let command = Command::Store { mode: Mode::Set, flags, exptime, data: bytes };
        self.call(&key, command, outcome::set).await
    }

    /// As of the blocking [`set_many`](super::Client::set_many).
    pub async fn set_many(&self, items: &[(impl AsKey, impl Serialize)]) -> Many<()> {
        self.set_many_with(items, self.cluster().config.expiry).await
    }

    /// As of the blocking [`set_many_with`](super::Client::set_many_with).
    pub async fn set_many_with(
        &self,
        items: &[(impl AsKey, impl Serialize)],
        expiry: impl Into<Expiry>,
    ) -> Many<()> {
        let config = &self.cluster().config;
        let exptime = expiry.into().exptime();
        let encode = |(_, value): &(_, _)| config.codec.encode(value);
        let values: Vec<Result<(Vec<u8>, u32), Error>> = items.iter().map(encode).collect();
        let sent: Vec<usize> = (0..items.len()).filter(|at| values[*at].is_ok()).collect();
        let keys: Vec<_> = sent.iter().map(|at| &items[*at].0).collect();
        let asked = self.cluster().call_many_async(
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
            outcome::set,
        );
        let stored = asked.await;
        let mut results: Vec<Result<(), Error>> =
            values.iter().map(|value| value.as_ref().map(|_| ()).map_err(Clone::clone)).collect();
        for (at, result) in sent.iter().zip(stored) {
            results[*at] = result;
        }
        Many(results)
    }

    /// As of the blocking [`delete_many`](super::Client::delete_many).
    pub async fn delete_many(&self, keys: &[impl AsKey]) -> Many<bool> {
        let asked = self.cluster().call_many_async(
            keys,
            Effect::Write,
            |keys, _, opaque| Batch::each(keys, opaque, |_| Command::Delete),
            || Ok(false),
            outcome::existed,
        );
        asked.await
    }

    /// As of the blocking [`add`](super::Client::add).
    ///
    /// # Errors
    /// The same.
    pub async fn add(&self, key: impl AsKey, value: impl Serialize) -> Result<bool, Error> {
        self.add_with(key, value, self.cluster().config.expiry).await
    }

    /// As of the blocking [`add_with`](super::Client::add_with).
    ///
    /// # Errors
    /// The same.
    pub async fn add_with(
        &self,
        key: impl AsKey,
        value: impl Serialize,
        expiry: impl Into<Expiry>,
    ) -> Result<bool, Error> {
        self.store(&key, &value, Mode::Add, expiry.into(), outcome::stored).await
    }

    /// As of the blocking [`replace`](super::Client::replace).
    ///
    /// # Errors
    /// The same.
    pub async fn replace(&self, key: impl AsKey, value: impl Serialize) -> Result<bool, Error> {
        self.replace_with(key, value, self.cluster().config.expiry).await
    }

    /// As of the blocking [`replace_with`](super::Client::replace_with).
    ///
    /// # Errors
    /// The same.
    pub async fn replace_with(
        &self,
        key: impl AsKey,
        value: impl Serialize,
        expiry: impl Into<Expiry>,
    ) -> Result<bool, Error> {
        self.store(&key, &value, Mode::Replace, expiry.into(), outcome::stored).await
    }

    /// As of the blocking [`append`](super::Client::append).
    ///
    /// # Errors
    /// The same.
    pub async fn append(&self, key: impl AsKey, bytes: &[u8]) -> Result<bool, Error> {
        let command = Command::Store { mode: Mode::Append, flags: 0, exptime: 0, data: bytes };
        self.call(&key, command, outcome::stored).await
    }

    /// As of the blocking [`prepend`](super::Client::prepend).
    ///
    /// # Errors
    /// The same.
    pub async fn prepend(&self, key: impl AsKey, bytes: &[u8]) -> Result<bool, Error> {
        let command = Command::Store { mode: Mode::Prepend, flags: 0, exptime: 0, data: bytes };
        self.call(&key, command, outcome::stored).await
    }

    /// As of the blocking [`cas`](super::Client::cas).
    ///
    /// # Errors
    /// The same.
    pub async fn cas(
        &self,
        key: impl AsKey,
        value: impl Serialize,
        token: u64,
    ) -> Result<Cas, Error> {
        self.cas_with(key, value, token, self.cluster().config.expiry).await
    }

    /// As of the blocking [`cas_with`](super::Client::cas_with).
    ///
    /// # Errors
    /// The same.
    pub async fn cas_with(
        &self,
        key: impl AsKey,
        value: impl Serialize,
        token: u64,
        expiry: impl Into<Expiry>,
    ) -> Result<Cas, Error> {
        self.store(&key, &value, Mode::Cas(token), expiry.into(), outcome::cas).await
    }

    /// As of the blocking [`update`](super::Client::update).
    ///
    /// # Errors
    /// The same.
    pub async fn update<T: DeserializeOwned + Serialize>(
        &self,
        key: impl AsKey,
        change: impl FnMut(Option<T>) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        self.update_with(key, self.cluster().config.expiry, change).await
    }

    /// As of the blocking [`update_with`](super::Client::update_with).
    ///
    /// # Errors
    /// The same.
    pub async fn update_with<T: DeserializeOwned + Serialize>(
        &self,
        key: impl AsKey,
        expiry: impl Into<Expiry>,
        mut change: impl FnMut(Option<T>) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        let expiry = expiry.into();
        for attempt in 0..UPDATE_ATTEMPTS_MAX {
            let read = self.get_versioned::<T>(&key).await?;
            let token = read.as_ref().map(|read| read.token);
            let Some(value) = change(read.map(|read| read.value)) else { return Ok(None) };
            let stored = match token {
                Some(token) => self.cas_with(&key, &value, token, expiry).await? == Cas::Stored,
                None => self.add_with(&key, &value, expiry).await?,
            };
            if stored {
                return Ok(Some(value));
            }
            tokio::time::sleep(update_pause(attempt)).await;
        }
        Err(Error::Contended { attempts: UPDATE_ATTEMPTS_MAX })
    }

    /// As of the blocking [`delete`](super::Client::delete).
    ///
    /// # Errors
    /// The same.
    pub async fn delete(&self, key: impl AsKey) -> Result<bool, Error> {
        self.call(&key, Command::Delete, outcome::existed).await
    }

    /// As of the blocking [`touch`](super::Client::touch).
    ///
    /// # Errors
    /// The same.
    pub async fn touch(&self, key: impl AsKey, expiry: impl Into<Expiry>) -> Result<bool, Error> {
        let exptime = expiry.into().exptime();
        self.call(&key, Command::Touch { exptime }, outcome::existed).await
    }

    /// As of the blocking [`invalidate`](super::Client::invalidate).
    ///
    /// # Errors
    /// The same.
    pub async fn invalidate(
        &self,
        key: impl AsKey,
        expiry: impl Into<Expiry>,
    ) -> Result<bool, Error> {
        let exptime = expiry.into().exptime();
        self.call(&key, Command::Invalidate { exptime }, outcome::existed).await
    }

    /// As of the blocking [`incr`](super::Client::incr).
    ///
    /// # Errors
    /// The same.
    pub async fn incr(&self, key: impl AsKey, delta: u64) -> Result<Option<u64>, Error> {
        self.call(&key, Command::Count { up: true, delta }, outcome::number).await
    }

    /// As of the blocking [`decr`](super::Client::decr).
    ///
    /// # Errors
    /// The same.
    pub async fn decr(&self, key: impl AsKey, delta: u64) -> Result<Option<u64>, Error> {
        self.call(&key, Command::Count { up: false, delta }, outcome::number).await
    }

    /// As of the blocking [`incr_or`](super::Client::incr_or).
    ///
    /// # Errors
    /// The same.
    pub async fn incr_or(&self, key: impl AsKey, delta: u64, initial: u64) -> Result<u64, Error> {
        let exptime = self.cluster().config.expiry.exptime();
        self.count_from(&key, Command::CountFrom { up: true, delta, initial, exptime }).await
    }

    /// As of the blocking [`decr_or`](super::Client::decr_or).
    ///
    /// # Errors
    /// The same.
    pub async fn decr_or(&self, key: impl AsKey, delta: u64, initial: u64) -> Result<u64, Error> {
        let exptime = self.cluster().config.expiry.exptime();
        self.count_from(&key, Command::CountFrom { up: false, delta, initial, exptime }).await
    }

    async fn count_from(&self, key: &impl AsKey, command: Command<'_>) -> Result<u64, Error> {
        let number =
            self.cluster().call_async(key, command, Effect::Exact, outcome::number).await?;
        number.ok_or_else(|| Error::protocol("", "no number"))
    }

    /// As of the blocking [`unique_id`](super::Client::unique_id).
    ///
    /// # Errors
    /// The same.
    pub async fn unique_id(&self, key: impl AsKey) -> Result<u64, Error> {
        Ok(self.unique_ids(key, 1).await?.start)
    }

    /// As of the blocking [`unique_ids`](super::Client::unique_ids).
    ///
    /// # Errors
    /// The same.
    pub async fn unique_ids(&self, key: impl AsKey, count: u64) -> Result<Range<u64>, Error> {
        if count == 0 || count > 1 << 63 {
            return Err(Error::Config("unique_ids: ask for 1 to 2^63".into()));
        }
        let command = Command::CountFrom { up: true, delta: count, initial: count, exptime: 0 };
        let last = self.count_from(&key, command).await?;
        let first = last.checked_sub(count).map(|before| before + 1);
        let first = first.ok_or_else(|| Error::Value(format!("the counter is at {last}")))?;
        Ok(first..last.saturating_add(1))
    }

    /// As of the blocking [`try_get_or_compute`](super::Client::try_get_or_compute), with a future
    /// that computes. If the call is cancelled while it computes, another caller may try after
    /// `Config::lease`.
    ///
    /// # Errors
    /// The same.
    pub async fn get_or_compute<T: DeserializeOwned + Serialize, E: From<Error>>(
        &self,
        key: impl AsKey,
        expiry: impl Into<Expiry>,
        compute: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let codec = &self.cluster().config.codec;
        let seconds = lease_seconds(self.cluster().config.lease);
        let give_up_at = clock::now() + self.cluster().config.lease;
        let mut pause = LEASE_POLL[0];
        let token = loop {
            let recache = self.cluster().config.recompute_before.map(lease_seconds);
            let command = Command::Lease { seconds, recache };
            let leased = self.call(&key, command, |reply| outcome::leased(codec, reply)).await;
            self.cluster().count_found(matches!(leased, Ok(Leased::Value(_))));
            match leased {
                Ok(Leased::Value(value)) => return Ok(value),
                Ok(Leased::Won(token)) => break token,
                Ok(Leased::Taken) if clock::now() < give_up_at => {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LEASE_POLL[1]);
                }
                Ok(Leased::Taken | Leased::Nowhere) => return compute.await,
                Err(error) if error.is_unavailable() => return compute.await,
                Err(error) => return Err(error.into()),
            }
        };
        let value = match compute.await {
            Ok(value) => value,
            Err(error) => {
                let _ = self.call(&key, Command::Release { token }, outcome::existed).await;
                return Err(error);
            }
        };
        let stored = self.store(&key, &value, Mode::Cas(token), expiry.into(), outcome::cas).await;
        match stored {
            Err(error) if !error.is_unavailable() => Err(error.into()),
            _ => Ok(value),
        }
    }

    /// As of the blocking [`version`](super::Client::version).
    pub async fn version(&self) -> PerServer<String> {
        self.ask_all(ServerCommand::Version, |reply| match reply {
            Reply::Version(version) => Ok(version.to_owned()),
            other => Err(Error::protocol("", format!("{other:?}"))),
        })
        .await
    }

    /// As of the blocking [`ping`](super::Client::ping).
    pub async fn ping(&self) -> PerServer<Duration> {
        let servers = self.cluster().topology().servers.clone();
        let ping = |server: Arc<Server>| async move {
            let start = clock::now();
            let write = |_, out: &mut Vec<u8>| ServerCommand::Version.write(out);
            let convert = &mut |_: Reply<'_>| Ok(());
            let asked = self.cluster().ask_async(&server, None, Effect::Read, write, convert);
            let asked = asked.await.map(|()| clock::now().duration_since(start));
            (server.node.clone(), asked)
        };
        all(servers.into_iter().map(ping).collect()).await
    }

    /// As of the blocking [`stats`](super::Client::stats).
    pub async fn stats(&self, which: &str) -> PerServer<BTreeMap<String, String>> {
        let servers = self.cluster().topology().servers.clone();
        let ask = |server: Arc<Server>| async move {
            if which.bytes().any(|byte| byte.is_ascii_control()) {
                let error = Error::Config("stats: control characters".into());
                return (server.node.clone(), Err(error));
            }
            let mut stats = BTreeMap::new();
            let write = |_, out: &mut Vec<u8>| ServerCommand::Stats(which).write(out);
            let convert = &mut |reply: Reply<'_>| outcome::stat(reply, &mut stats);
            let asked = self.cluster().ask_async(&server, None, Effect::Write, write, convert);
            let asked = asked.await;
            (server.node.clone(), asked.map(|()| stats))
        };
        all(servers.into_iter().map(ask).collect()).await
    }

    /// As of the blocking [`flush_all`](super::Client::flush_all).
    pub async fn flush_all(&self, delay: Option<Duration>) -> PerServer<()> {
        let seconds = delay.unwrap_or_default().as_secs();
        let delay_seconds = u32::try_from(seconds).unwrap_or(u32::MAX);
        self.ask_all(ServerCommand::FlushAll { delay_seconds }, |reply| match reply {
            Reply::Ok => Ok(()),
            other => Err(Error::protocol("", format!("{other:?}"))),
        })
        .await
    }

    async fn ask_all<R>(
        &self,
        command: ServerCommand<'_>,
        convert: impl Fn(Reply<'_>) -> Result<R, Error>,
    ) -> PerServer<R> {
        let servers = self.cluster().topology().servers.clone();
        let ask = |server: Arc<Server>| {
            let convert = &convert;
            async move {
                let write = |_, out: &mut Vec<u8>| command.write(out);
                let convert = &mut |reply: Reply<'_>| convert(reply);
                let asked =
                    self.cluster().ask_async(&server, None, Effect::Read, write, convert).await;
                (server.node.clone(), asked)
            }
        };
        all(servers.into_iter().map(ask).collect()).await
    }

    /// As of the blocking [`servers`](super::Client::servers); the connections counted there are
    /// the blocking face's.
    pub fn servers(&self) -> Vec<ServerStatus> {
        self.cluster().statuses()
    }

    /// As of the blocking [`server_of`](super::Client::server_of).
    pub fn server_of(&self, key: impl AsKey) -> Option<Node> {
        self.cluster().owner(&key).map(|server| server.node.clone())
    }

    /// As of the blocking [`add_server`](super::Client::add_server).
    ///
    /// # Errors
    /// The same.
    pub fn add_server(&self, server: &str) -> Result<(), Error> {
        self.set_servers(self.cluster().nodes_with(server)?)
    }

    /// As of the blocking [`remove_server`](super::Client::remove_server).
    ///
    /// # Errors
    /// The same.
    pub fn remove_server(&self, server: &str) -> Result<(), Error> {
        self.set_servers(self.cluster().nodes_without(server)?)
    }

    /// As of the blocking [`set_servers`](super::Client::set_servers).
    ///
    /// # Errors
    /// The same.
    pub fn set_servers(&self, nodes: Vec<Node>) -> Result<(), Error> {
        let set = self.cluster().set_servers(nodes);
        self.cluster().wake_monitor();
        set
    }

    /// As of the blocking [`counters`](super::Client::counters).
    pub fn counters(&self) -> Counters {
        self.cluster().counters.read()
    }
}
