//! How the blocking face makes a call: connection, request, reply. Owns waiting for them; what is
//! sent, where it goes and what a failure means is decided in `operation`.

use crate::client::blocking::connection::{Call, Connection, Exchange, Limits, drive};
use crate::client::blocking::pool::Place;
use crate::client::clock;
use crate::client::cluster::{Cluster, Server, UnderWay};
use crate::client::error::Error;
use crate::client::events::count;
use crate::client::observe::{MANY, Watch};
use crate::client::operation::attempt::Attempt;
use crate::client::operation::many::{Bulk, Group, Slots};
use crate::client::operation::{self, Convert, Operation, ToCopy, extending};
use crate::client::placement::key::{AsKey, WireKey};
use crate::client::wire::command::{Command, Effect, Expect, ServerCommand};
use crate::client::wire::outcome::{Look, Many};
use crate::client::wire::reply::Reply;
use std::sync::Arc;

/// A connection on loan from a server's pool. Unless it is kept, it is closed.
struct Loan<'s> {
    server: &'s Server,
    connection: Option<Connection>,
    generation: u64,
    reused: bool,
    keep: bool,
    _under_way: UnderWay<'s>,
}

impl Drop for Loan<'_> {
    fn drop(&mut self) {
        let keep = self.keep;
        let connection = self.connection.take().filter(|_| keep);
        let connection = connection.and_then(|mut one| one.is_clean().then_some(one));
        self.server.pool.give(connection, self.generation);
    }
}

/// A connection that is being made, or needs no making.
enum Connecting<'scope, L> {
    Done(L),
    Thread(std::thread::ScopedJoinHandle<'scope, L>),
}

impl Cluster {
    fn limits(&self) -> Limits {
        Limits {
            read: self.config.read_timeout,
            write: self.config.write_timeout,
            deadline: clock::now() + self.config.call_timeout,
        }
    }

    fn lend<'s>(&self, server: &'s Server, limits: Limits) -> Result<Loan<'s>, Error> {
        let loan = self.place(server, limits)?;
        if loan.connection.is_some() { Ok(loan) } else { self.connect(loan, limits) }
    }

    /// A connection of the pool, or room for a new one.
    fn place<'s>(&self, server: &'s Server, limits: Limits) -> Result<Loan<'s>, Error> {
        loop {
            let Some((place, generation)) = server.pool.take(limits.deadline) else {
                return Err(Error::timeout(&server.name, "a free connection"));
            };
            let (mut connection, reused) = match place {
                Place::Connection(connection) => (Some(connection), true),
                Place::Empty => (None, false),
            };
            let usable = connection.as_mut().is_none_or(Connection::is_usable);
            let _under_way = server.begin();
            let loan = Loan { server, connection, generation, reused, keep: false, _under_way };
            if usable {
                return Ok(loan);
            }
            // The loan's end closes it and makes room.
        }
    }

    fn connect<'s>(&self, mut loan: Loan<'s>, limits: Limits) -> Result<Loan<'s>, Error> {
        let server = loan.server;
        server.may_log_in(clock::now(), self.config.probe_after_max)?;
        match Connection::open(&server.node, &server.names, &self.dialer, limits.deadline) {
            Ok(connection) => {
                count(&self.counters.connections);
                if self.config.login.is_some() {
                    server.let_in();
                }
                (loan.connection, loan.reused) = (Some(connection), false);
                Ok(loan)
            }
            Err(error) => {
                drop(loan);
                self.failed(server, &error);
                Err(error)
            }
        }
    }

    /// One request to one server. `name` is the operation's, for those who watch.
    pub(crate) fn ask<R>(
        &self,
        name: &'static str,
        server: &Server,
        key: Option<&WireKey<'_>>,
        effect: Effect,
        write: impl Fn(u32, &mut Vec<u8>) -> Expect,
        convert: &mut impl FnMut(Reply<'_>) -> Result<R, Error>,
    ) -> Result<R, Error> {
        let watch = Watch::begin(server, name);
        let result = watch.during(|| self.ask_unwatched(server, key, effect, write, convert));
        watch.end(result.as_ref().err());
        result
    }

    fn ask_unwatched<R>(
        &self,
        server: &Server,
        key: Option<&WireKey<'_>>,
        effect: Effect,
        write: impl Fn(u32, &mut Vec<u8>) -> Expect,
        convert: &mut impl FnMut(Reply<'_>) -> Result<R, Error>,
    ) -> Result<R, Error> {
        let limits = self.limits();
        let mut attempt = Attempt::new(effect);
        loop {
            let mut loan = self.lend(server, limits)?;
            let reused = loan.reused;
            let Some(connection) = loan.connection.as_mut() else { return Err(Error::NoServers) };
            let error = match connection.call(key, limits, &write, convert) {
                Call::Clean(result) => {
                    loan.keep = true;
                    drop(loan);
                    self.succeeded(server);
                    return result;
                }
                Call::Broken(error) => error,
            };
            drop(loan);
            if !attempt.again(self, &error, reused) {
                self.failed(server, &error);
                return Err(error);
            }
            server.close_idle();
        }
    }

    /// One operation on one key.
    pub(crate) fn call<R, F: Convert<R>>(
        &self,
        key: &(impl AsKey + ?Sized),
        mut operation: Operation<'_, R, F>,
    ) -> Result<R, Error> {
        let begun = self.begin(key, &mut operation)?;
        let mut target = begun.target(operation.command);
        if operation.looks_first()
            && let Some((server, command)) = target
        {
            let look = self.look(&server, &begun.key)?;
            target = extending(command, look).map(|extending| (server, extending));
        }
        let mut result = match target {
            Some((server, command)) => self.first(&server, &begun.key, command, &mut operation),
            None => begun.unasked(&mut operation),
        };
        for copy in &begun.copies {
            let Some(to_copy) = operation.to_copy(&result) else { break };
            result = self.copied(copy, &begun.key, to_copy, &mut operation, result);
        }
        self.settle(begun, operation, result)
    }

    /// The result of the first server of a key.
    fn first<R, F: Convert<R>>(
        &self,
        server: &Server,
        key: &WireKey<'_>,
        command: Command<'_>,
        operation: &mut Operation<'_, R, F>,
    ) -> Result<R, Error> {
        let write = |opaque, out: &mut Vec<u8>| command.write(key, opaque, out);
        let effect = operation.effect;
        let convert = &mut |reply: Reply<'_>| operation.read(reply);
        let result = self.ask(command.name(), server, Some(key), effect, write, convert);
        if result.is_ok() {
            server.answered(&command);
        }
        self.seen(server, key, operation, result)
    }

    /// The result, unless what was read is the place of a value that somebody computes.
    fn seen<R, F: Convert<R>>(
        &self,
        server: &Server,
        key: &WireKey<'_>,
        operation: &mut Operation<'_, R, F>,
        result: Result<R, Error>,
    ) -> Result<R, Error> {
        if !operation.may_be_blank(&result) {
            return result;
        }
        match self.look(server, key) {
            Ok(Look::Place(_)) => operation.blanked(result),
            _ => result,
        }
    }

    /// The result, after another copy of the key was asked as well.
    fn copied<R, F: Convert<R>>(
        &self,
        copy: &Server,
        key: &WireKey<'_>,
        to_copy: ToCopy<'_>,
        operation: &mut Operation<'_, R, F>,
        result: Result<R, Error>,
    ) -> Result<R, Error> {
        let (ToCopy::Read(command) | ToCopy::Write(command)) = to_copy;
        let write = |opaque, out: &mut Vec<u8>| command.write(key, opaque, out);
        if let ToCopy::Write(_) = to_copy {
            let copied =
                self.ask(command.name(), copy, Some(key), Effect::Write, write, &mut |_| Ok(()));
            return operation.written(result, copied);
        }
        let convert = &mut |reply: Reply<'_>| operation.read(reply);
        let read = self.ask(command.name(), copy, Some(key), command.effect(), write, convert);
        let read = self.seen(copy, key, operation, read);
        operation.better(result, read)
    }

    /// What an item is. If the server cannot be asked that, it says nothing against it.
    fn look(&self, server: &Server, key: &WireKey<'_>) -> Result<Look, Error> {
        if server.has_no_meta() {
            return Ok(Look::Unknown);
        }
        let write = |opaque, out: &mut Vec<u8>| Command::Inspect.write(key, opaque, out);
        let convert = &mut |reply: Reply<'_>| operation::look().read(reply);
        server.looked(self.ask_quietly(server, key, write, convert))
    }

    /// One request whose failure says nothing against the server.
    fn ask_quietly<R>(
        &self,
        server: &Server,
        key: &WireKey<'_>,
        write: impl Fn(u32, &mut Vec<u8>) -> Expect,
        convert: &mut impl FnMut(Reply<'_>) -> Result<R, Error>,
    ) -> Result<R, Error> {
        let limits = self.limits();
        let mut loan = self.lend(server, limits)?;
        let Some(connection) = loan.connection.as_mut() else { return Err(Error::NoServers) };
        match connection.call(Some(key), limits, &write, convert) {
            Call::Clean(result) => {
                loan.keep = true;
                result
            }
            Call::Broken(error) => Err(error),
        }
    }

    /// One request that is not about a key.
    pub(crate) fn tell<R>(
        &self,
        server: &Server,
        command: ServerCommand<'_>,
        effect: Effect,
        mut convert: impl FnMut(Reply<'_>) -> Result<R, Error>,
    ) -> Result<R, Error> {
        let protocol = self.config.protocol();
        command.check(protocol)?;
        let write = |opaque, out: &mut Vec<u8>| command.write(protocol, opaque, out);
        let told = self.ask(command.name(), server, None, effect, write, &mut convert);
        told.map_err(|error| command.doubted(error))
    }

    /// Commands about many keys, to all their servers at once.
    pub(crate) fn call_many<K: AsKey, T>(&self, keys: &[K], bulk: &impl Bulk<T>) -> Many<T> {
        let mut slots = Slots::new(keys.len());
        let (groups, mut copied) = self.split(keys, bulk, &mut slots);
        self.ask_all(groups, bulk, &mut slots);
        self.blank(keys, &mut slots);
        while let Some((groups, copies)) = self.next_copies(keys, bulk, &mut copied, &slots) {
            let mut read = Slots::new(keys.len());
            self.ask_all(groups, &copies, &mut read);
            self.blank(keys, &mut read);
            slots.merge(&copies, read);
        }
        slots.finish(self, bulk)
    }

    /// One request or many to each of several servers, at once.
    fn ask_all<T>(&self, groups: Vec<Group<'_>>, bulk: &impl Bulk<T>, slots: &mut Slots<T>) {
        let limits = self.limits();
        let servers: Vec<Arc<Server>> =
            groups.iter().map(|group| Arc::clone(&group.server)).collect();
        let mut loans = Vec::with_capacity(groups.len());
        let mut batches = Vec::with_capacity(groups.len());
        let begun: Vec<_> = servers.iter().map(|server| Watch::begin(server, MANY)).collect();
        let mut watches = Vec::with_capacity(groups.len());
        let lent = self.lend_all(&servers, limits).into_iter().zip(begun);
        for ((group, server), (lent, watch)) in groups.into_iter().zip(&servers).zip(lent) {
            match lent {
                Ok(mut loan) => {
                    if let Some(connection) = loan.connection.as_mut() {
                        batches.push(bulk.requests(group, connection.opaque()));
                        loans.push((server, loan));
                        watches.push(watch);
                    }
                }
                Err(error) => {
                    watch.end(Some(&error));
                    let places = group.keys.iter().map(|(at, _)| *at);
                    slots.fail(self, places, &error, bulk);
                }
            }
        }
        let asked: Vec<&Arc<Server>> = loans.iter().map(|(server, _)| *server).collect();
        let mut exchanges: Vec<Exchange<'_, '_>> = loans
            .iter_mut()
            .filter_map(|(_, loan)| loan.connection.as_mut())
            .zip(batches)
            .map(|(connection, batch)| Exchange::new(connection, batch))
            .collect();
        let mut sink = |of: usize, at, reply: Reply<'_>| slots.fill(asked[of], at, reply, bulk);
        drive(&mut exchanges, limits, &mut sink);
        for (watch, exchange) in watches.into_iter().zip(&exchanges) {
            watch.end_at(exchange.progress_at, exchange.failure.as_ref());
        }
        let ended: Vec<_> = exchanges.into_iter().map(Exchange::end).collect();
        for ((server, mut loan), ended) in loans.into_iter().zip(ended) {
            loan.keep = ended.is_ok();
            drop(loan);
            match ended {
                Ok(()) => self.succeeded(server),
                Err((error, unanswered)) => {
                    self.failed(server, &error);
                    slots.fail(self, unanswered, &error, bulk);
                }
            }
        }
    }

    /// Among items that look like it, takes the places of values being computed for missing.
    fn blank<K: AsKey, T>(&self, keys: &[K], slots: &mut Slots<T>) {
        for (at, server) in std::mem::take(&mut slots.doubtful) {
            let Ok((key, _)) = self.wire(&keys[at]) else { continue };
            if matches!(self.look(&server, &key), Ok(Look::Place(_))) {
                slots.open(at);
            }
        }
    }

    /// A connection to each server. New ones are made side by side, each within half of the time,
    /// so that one that cannot be reached leaves enough for the others.
    fn lend_all<'s>(
        &self,
        servers: &'s [Arc<Server>],
        limits: Limits,
    ) -> Vec<Result<Loan<'s>, Error>> {
        let half = limits.deadline.saturating_duration_since(clock::now()) / 2;
        let within = Limits { deadline: limits.deadline - half, ..limits };
        if let [server] = servers {
            return vec![self.lend(server, within)];
        }
        // One after the other: see `split` about the order.
        let placed: Vec<_> = servers.iter().map(|server| self.place(server, within)).collect();
        let is_made =
            |one: &Result<Loan<'_>, _>| one.as_ref().is_ok_and(|loan| loan.connection.is_some());
        if placed.iter().all(is_made) {
            return placed;
        }
        std::thread::scope(|scope| {
            let connect = |placed: Result<Loan<'s>, Error>| match placed {
                Ok(loan) if loan.connection.is_none() => {
                    Connecting::Thread(scope.spawn(move || self.connect(loan, within)))
                }
                placed => Connecting::Done(placed),
            };
            let connecting: Vec<_> = placed.into_iter().map(connect).collect();
            let finish = |connecting| match connecting {
                Connecting::Done(result) => result,
                Connecting::Thread(thread) => thread
                    .join()
                    .unwrap_or_else(|_| Err(Error::protocol("", "a panic while connecting"))),
            };
            connecting.into_iter().map(finish).collect()
        })
    }
}
