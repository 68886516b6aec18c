//! How the blocking face makes a call: route, connection, request, reply, and what a failure means.
//! Owns retries and the splitting of many keys among servers.

use crate::client::blocking::connection::{Call, Connection, Exchange, Limits, drive};
use crate::client::blocking::pool::Place;
use crate::client::clock;
use crate::client::cluster::{Cluster, Route, Server, for_stand_in};
use crate::client::error::Error;
use crate::client::events::count;
use crate::client::placement::key::{AsKey, WireKey};
use crate::client::wire::batch::{Batch, refused};
use crate::client::wire::command::{Command, Effect, Expect, ServerCommand};
use crate::client::wire::outcome::{Many, nowhere};
use crate::client::wire::reply::Reply;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// A connection on loan from a server's pool. Unless it is kept, it is closed.
struct Loan<'s> {
    server: &'s Server,
    connection: Option<Connection>,
    generation: u64,
    reused: bool,
    keep: bool,
}

impl Drop for Loan<'_> {
    fn drop(&mut self) {
        let keep = self.keep;
        let connection = self.connection.take().filter(|_| keep);
        let connection = connection.and_then(|mut one| one.rest().then_some(one));
        self.server.pool.give(connection, self.generation);
    }
}

/// A connection that is being made, or needs no making.
enum Connecting<'scope, L> {
    Done(L),
    Thread(std::thread::ScopedJoinHandle<'scope, L>),
}

/// The keys of one server.
pub(in crate::client) struct Group<'k> {
    pub server: Arc<Server>,
    /// For a stand-in, how long items may live there.
    pub seconds_max: Option<u32>,
    /// Place in the caller's list, and key.
    pub keys: Vec<(usize, WireKey<'k>)>,
}

/// The results of a call with many keys, in the making.
pub(in crate::client) type Slots<T> = Vec<Option<Result<T, Error>>>;

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
                let (server, waiting_for) = (server.name.clone(), "a free connection");
                return Err(Error::Timeout { server, waiting_for });
            };
            let (mut connection, reused) = match place {
                Place::Connection(connection) => (Some(connection), true),
                Place::Empty => (None, false),
            };
            let usable = connection.as_mut().is_none_or(|connection| {
                connection.is_usable(clock::now(), self.config.idle_timeout)
            });
            let loan = Loan { server, connection, generation, reused, keep: false };
            if usable {
                return Ok(loan);
            }
            // The loan's end closes it and makes room.
        }
    }

    fn connect<'s>(&self, mut loan: Loan<'s>, limits: Limits) -> Result<Loan<'s>, Error> {
        let server = loan.server;
        server.may_log_in(clock::now(), self.config.probe_after_max)?;
        match Connection::open(&server.node, &server.addresses(), &self.dialer, limits.deadline) {
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

    /// One request to one server.
    pub fn ask<R>(
        &self,
        server: &Server,
        key: Option<&WireKey<'_>>,
        effect: Effect,
        write: impl Fn(u32, &mut Vec<u8>) -> Expect,
        convert: &mut impl FnMut(Reply<'_>) -> Result<R, Error>,
    ) -> Result<R, Error> {
        let limits = self.limits();
        let mut retried = false;
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
            // A server that was restarted has closed its connections without being at fault. Only
            // reads may be done twice.
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

    /// One command about one key.
    pub fn call<R>(
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
        let write = |opaque, out: &mut Vec<u8>| command.write(&wire, opaque, out);
        let result = self.ask(&server, Some(&wire), effect, write, &mut convert);
        match result {
            Err(error) if effect == Effect::Read && self.forgives(&error) => {
                convert(Reply::NotFound)
            }
            result => result,
        }
    }

    pub fn forgives(&self, error: &Error) -> bool {
        self.forgives_reads() && error.is_failure_of_server()
    }

    /// Counts what a read found.
    pub fn count_found(&self, found: bool) {
        count(if found { &self.counters.hits } else { &self.counters.misses });
    }

    /// The same request to every server.
    pub fn ask_all<R>(
        &self,
        command: ServerCommand<'_>,
        mut convert: impl FnMut(Reply<'_>) -> Result<R, Error>,
    ) -> Vec<(Arc<Server>, Result<R, Error>)> {
        let servers = self.topology().servers.clone();
        let ask = |server: Arc<Server>| {
            let write = |_, out: &mut Vec<u8>| command.write(out);
            let result = self.ask(&server, None, Effect::Read, write, &mut convert);
            (server, result)
        };
        servers.into_iter().map(ask).collect()
    }

    /// Splits keys among servers. Slots of keys that go nowhere get their results at once:
    /// `missing` where a dead server's keys count as such.
    pub fn split<'k, K: AsKey, T>(
        &self,
        keys: &'k [K],
        effect: Effect,
        slots: &mut Slots<T>,
        missing: &impl Fn() -> Result<T, Error>,
    ) -> Vec<Group<'k>> {
        let topology = self.topology();
        let mut groups: Vec<Group<'k>> = Vec::new();
        // The group of each owner in use, by its index; `route` is for the others.
        let mut group_of: Vec<Option<usize>> = vec![None; topology.servers.len()];
        for (at, key) in keys.iter().enumerate() {
            let (wire, placing) = match self.wire(key) {
                Ok(made) => made,
                Err(error) => {
                    slots[at] = Some(Err(error));
                    continue;
                }
            };
            if let Some(owner) = topology.owner_in_use(&placing) {
                let group = *group_of[owner].get_or_insert_with(|| {
                    let server = Arc::clone(&topology.servers[owner]);
                    groups.push(Group { server, seconds_max: None, keys: Vec::new() });
                    groups.len() - 1
                });
                groups[group].keys.push((at, wire));
                continue;
            }
            let (server, seconds_max) = match self.route(&topology, &placing, &wire, effect) {
                Ok(Route::Owner(server)) => (server, None),
                Ok(Route::StandIn(server, seconds)) => (server, Some(seconds)),
                Ok(Route::Nowhere) => {
                    slots[at] = Some(missing());
                    continue;
                }
                Err(error) => {
                    slots[at] = Some(Err(error));
                    continue;
                }
            };
            let known = groups
                .iter_mut()
                .find(|group| group.server.id == server.id && group.seconds_max == seconds_max);
            match known {
                Some(group) => group.keys.push((at, wire)),
                None => groups.push(Group { server, seconds_max, keys: vec![(at, wire)] }),
            }
        }
        // Everybody takes connections in the same order, so that two callers cannot each hold what
        // the other waits for.
        groups.sort_by_key(|group| group.server.id);
        groups
    }

    /// Commands about many keys, to all their servers at once.
    pub fn call_many<'k, K: AsKey, T>(
        &self,
        keys: &'k [K],
        effect: Effect,
        batch: impl Fn(Vec<(usize, WireKey<'k>)>, Option<u32>, &mut u32) -> Batch<'k>,
        missing: impl Fn() -> Result<T, Error>,
        mut convert: impl FnMut(usize, Reply<'_>) -> Result<T, Error>,
    ) -> Many<T> {
        let mut slots: Slots<T> = keys.iter().map(|_| None).collect();
        let groups = self.split(keys, effect, &mut slots, &missing);
        let limits = self.limits();
        let servers: Vec<Arc<Server>> =
            groups.iter().map(|group| Arc::clone(&group.server)).collect();
        let mut loans = Vec::with_capacity(groups.len());
        let mut batches = Vec::with_capacity(groups.len());
        let lent = self.lend_all(&servers, limits);
        for ((mut group, server), lent) in groups.into_iter().zip(&servers).zip(lent) {
            match lent {
                Ok(mut loan) => {
                    if let Some(connection) = loan.connection.as_mut() {
                        let keys = std::mem::take(&mut group.keys);
                        batches.push(batch(keys, group.seconds_max, connection.opaque()));
                        loans.push((server, loan));
                    }
                }
                Err(error) => {
                    let places = group.keys.iter().map(|(at, _)| *at);
                    self.fail_slots(&mut slots, places, effect, &error, &missing);
                }
            }
        }
        let names: Vec<&str> = loans.iter().map(|(server, _)| server.name.as_str()).collect();
        let mut exchanges: Vec<Exchange<'_, '_>> = loans
            .iter_mut()
            .filter_map(|(_, loan)| loan.connection.as_mut())
            .zip(batches)
            .map(|(connection, batch)| Exchange::new(connection, batch))
            .collect();
        drive(&mut exchanges, limits, &mut |of, at, reply| {
            slots[at] = Some(match reply {
                Reply::Refused(line) => Err(refused(names[of], line)),
                reply => match convert(at, reply) {
                    Err(error @ Error::Protocol { .. }) => return Err(error),
                    result => result,
                },
            });
            Ok(())
        });
        let ended: Vec<_> = exchanges.into_iter().map(Exchange::end).collect();
        for ((server, mut loan), ended) in loans.into_iter().zip(ended) {
            loan.keep = ended.is_ok();
            drop(loan);
            match ended {
                Ok(()) => self.succeeded(server),
                Err((error, unanswered)) => {
                    self.failed(server, &error);
                    let open = unanswered.into_iter().filter(|at| slots[*at].is_none());
                    let open: Vec<usize> = open.collect();
                    self.fail_slots(&mut slots, open.into_iter(), effect, &error, &missing);
                }
            }
        }
        Many(slots.into_iter().map(|slot| slot.unwrap_or_else(&missing)).collect())
    }

    fn fail_slots<T>(
        &self,
        slots: &mut Slots<T>,
        places: impl Iterator<Item = usize>,
        effect: Effect,
        error: &Error,
        missing: &impl Fn() -> Result<T, Error>,
    ) {
        let forgiven = effect == Effect::Read && self.forgives(error);
        for at in places {
            slots[at] = Some(if forgiven { missing() } else { Err(error.clone()) });
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

    pub fn count_all_found<T>(&self, many: &Many<Option<T>>) {
        let found = many.iter().filter(|result| matches!(result, Ok(Some(_)))).count() as u64;
        let missed = many.iter().filter(|result| matches!(result, Ok(None))).count() as u64;
        self.counters.hits.fetch_add(found, Ordering::Relaxed);
        self.counters.misses.fetch_add(missed, Ordering::Relaxed);
    }
}
