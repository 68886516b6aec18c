//! Calls about many keys: which of them go to which server, and whose results are whose. No I/O.

use crate::client::clock;
use crate::client::cluster::replicas::Targets;
use crate::client::cluster::{Cluster, Route, Server, for_stand_in};
use crate::client::config::{Config, Expiry};
use crate::client::error::Error;
use crate::client::near;
use crate::client::observe;
use crate::client::operation::{Convert, Encoded, may_be_place, written};
use crate::client::placement::key::{AsKey, WireKey};
use crate::client::wire::batch::{Batch, refused};
use crate::client::wire::command::{Command, Copying, Effect, Mode};
use crate::client::wire::outcome::{self, Many, Versioned, nowhere};
use crate::client::wire::reply::Reply;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// The keys of one server.
pub(in crate::client) struct Group<'k> {
    pub server: Arc<Server>,
    /// How long items may live there, of those for which it stands in.
    pub seconds_max: HashMap<usize, u32>,
    /// Place in the caller's list, and key.
    pub keys: Vec<(usize, WireKey<'k>)>,
}

impl Group<'_> {
    fn new(server: Arc<Server>) -> Self {
        Self { server, seconds_max: HashMap::new(), keys: Vec::new() }
    }
}

/// A call about many keys: what each is asked, by its place in the caller's list, and what the
/// reply is to the caller.
pub(in crate::client) trait Bulk<T> {
    fn command(&self, at: usize) -> Command<'_>;

    fn convert(&self, at: usize, reply: Reply<'_>) -> Result<T, Error>;

    /// Why there is nothing to send for a key.
    fn unsendable(&self, _at: usize) -> Option<&Error> {
        None
    }

    /// Whether reads and writes of one key are to meet on one server.
    fn in_order(&self) -> bool {
        false
    }

    /// The requests for the keys of one server, numbered from a counter.
    fn requests<'k>(&self, group: Group<'k>, opaque: &mut u32) -> Batch<'k> {
        let seconds_max = group.seconds_max;
        Batch::each(group.keys, opaque, |at| {
            let command = self.command(at);
            match seconds_max.get(&at) {
                Some(seconds) => for_stand_in(command, *seconds),
                None => command,
            }
        })
    }

    /// The result of a key that nobody is asked about.
    fn missing(&self, at: usize) -> Result<T, Error> {
        self.convert(at, nowhere(&self.command(at)))
    }
}

/// The results of such a call, in the making.
pub(in crate::client) struct Slots<T> {
    slots: Vec<Option<Result<T, Error>>>,
    /// Those whose replies are such as the place of a value being computed gets, with who said so.
    pub doubtful: Vec<(usize, Arc<Server>)>,
    /// The rights to keep what is read, and what was.
    tickets: HashMap<usize, near::Ticket>,
    brought: Vec<(near::Ticket, Encoded)>,
    /// What is kept of the keys that are written is forgotten when the call has ended.
    writing: Vec<near::Writing>,
}

impl<T> Slots<T> {
    pub(crate) fn new(count: usize) -> Self {
        Self {
            slots: (0..count).map(|_| None).collect(),
            doubtful: Vec::new(),
            tickets: HashMap::new(),
            brought: Vec::new(),
            writing: Vec::new(),
        }
    }

    pub(crate) fn set(&mut self, at: usize, result: Result<T, Error>) {
        self.slots[at] = Some(result);
    }

    /// There is nothing: another copy may have it.
    pub(crate) fn open(&mut self, at: usize) {
        self.slots[at] = None;
    }

    /// One reply of a server. An error says that the connection is out of step.
    pub(crate) fn fill(
        &mut self,
        server: &Arc<Server>,
        at: usize,
        reply: Reply<'_>,
        bulk: &impl Bulk<T>,
    ) -> Result<(), Error> {
        if may_be_place(&reply) {
            self.doubtful.push((at, Arc::clone(server)));
        } else if let Some(ticket) = self.tickets.remove(&at) {
            self.brought.extend(Encoded::of(&reply).map(|brought| (ticket, brought)));
        }
        if matches!(reply, Reply::NotFound) && bulk.command(at).asks_copies() {
            // Left open: another copy may have it.
            return Ok(());
        }
        let result = match reply {
            Reply::Refused(line) => Err(refused(&server.name, line)),
            reply => bulk.convert(at, reply),
        };
        if let Err(error @ Error::Protocol { .. }) = result {
            return Err(error);
        }
        self.set(at, result);
        Ok(())
    }

    /// Keys that have no answer, for this reason.
    pub(crate) fn fail(
        &mut self,
        cluster: &Cluster,
        places: impl IntoIterator<Item = usize>,
        error: &Error,
        bulk: &impl Bulk<T>,
    ) {
        let forgives = cluster.forgives(error);
        for at in places {
            let reads = bulk.command(at).effect() == Effect::Read;
            if !(forgives && reads) {
                let failed = || if reads { error.clone().without_doubt() } else { error.clone() };
                self.slots[at].get_or_insert_with(|| Err(failed()));
            }
        }
    }

    /// Whether nothing was found, or nobody answered.
    fn is_open(&self, at: usize) -> bool {
        self.slots[at].as_ref().is_none_or(|slot| slot.as_ref().is_err_and(Error::is_away))
    }

    /// With what further copies said. What a read of one comes to beside a value changes nothing,
    /// as in `Operation::better`.
    pub(crate) fn merge<B: Bulk<T>>(&mut self, copies: &Copies<'_, B>, asked: Slots<Option<T>>) {
        for (at, (slot, copy)) in self.slots.iter_mut().zip(asked.slots).enumerate() {
            let before = slot.take();
            *slot = match (before, copy) {
                (_, Some(Ok(Some(found)))) => Some(Ok(found)),
                (Some(Err(before)), Some(Err(error))) if copies.reads[at] => {
                    // Of those that read, only what writes as well is in doubt.
                    Some(Err(if error.is_in_doubt() { before.doubted() } else { before }))
                }
                (Some(before), Some(copy)) if !copies.reads[at] => {
                    Some(written(&copies.bulk.command(at), before, copy.map(drop)))
                }
                (before, _) => before,
            };
        }
    }

    pub(crate) fn finish(self, cluster: &Cluster, bulk: &impl Bulk<T>) -> Many<T> {
        for (ticket, brought) in self.brought {
            cluster.near.keep(ticket, brought, clock::now());
        }
        let slots = self.slots.into_iter().enumerate();
        Many(slots.map(|(at, slot)| slot.unwrap_or_else(|| bulk.missing(at))).collect())
    }
}

impl Cluster {
    /// Splits keys among servers. Slots of keys that go nowhere get their results at once.
    pub(crate) fn split<'k, K: AsKey, T>(
        &self,
        keys: &'k [K],
        bulk: &impl Bulk<T>,
        slots: &mut Slots<T>,
    ) -> (Vec<Group<'k>>, Vec<Copied>) {
        let topology = self.topology();
        let (mut groups, mut copied) = (Vec::<Group<'k>>::new(), Vec::new());
        let has_replicas = self.config.has_replicas();
        // The group of each owner in use, by its index; `route` is for the others.
        let mut group_of: Vec<Option<usize>> = vec![None; topology.servers.len()];
        for (at, key) in keys.iter().enumerate() {
            if let Some(error) = bulk.unsendable(at) {
                slots.set(at, Err(error.clone()));
                continue;
            }
            let (wire, placing) = match self.wire(key) {
                Ok(made) => made,
                Err(error) => {
                    slots.set(at, Err(error));
                    continue;
                }
            };
            if self.near.is_on() && self.is_kept(at, &wire, bulk, slots) {
                continue;
            }
            let owner = (!has_replicas).then(|| topology.owner_in_use(&placing)).flatten();
            if let Some(owner) = owner {
                let group = *group_of[owner].get_or_insert_with(|| {
                    place_of(&mut groups, Arc::clone(&topology.servers[owner]))
                });
                groups[group].keys.push((at, wire));
                continue;
            }
            let command = bulk.command(at);
            let targets = self.targets(&topology, &placing, &wire, &command, bulk.in_order());
            let Targets { first, others } = match targets {
                Ok(targets) => targets,
                Err(error) => {
                    slots.set(at, Err(error));
                    continue;
                }
            };
            match first {
                Route::Owner(server) => join(&mut groups, server, None, (at, wire)),
                Route::StandIn(server, seconds) => {
                    join(&mut groups, server, Some(seconds), (at, wire));
                }
                Route::Nowhere => slots.set(at, bulk.missing(at)),
            }
            if !others.is_empty() {
                copied.push(Copied { at, others: others.into_iter() });
            }
        }
        // Everybody takes connections in the same order, so that two callers cannot each hold what
        // the other waits for.
        groups.sort_by_key(|group| group.server.id);
        (groups, copied)
    }

    /// Whether a key's value is kept in this process, which then is the result. Sees to it that
    /// what is read is kept, and what is written is not any more.
    fn is_kept<T>(
        &self,
        at: usize,
        key: &WireKey<'_>,
        bulk: &impl Bulk<T>,
        slots: &mut Slots<T>,
    ) -> bool {
        let command = bulk.command(at);
        if command.spoils_copies() {
            slots.writing.extend(self.near.writing(key));
        }
        if command.copying() != Copying::ReadAny || bulk.in_order() {
            return false;
        }
        let kept = self.recall(key);
        match &kept {
            Some(kept) => slots.set(at, bulk.convert(at, kept.as_reply())),
            None => slots.tickets.extend(self.near.ask(key).map(|ticket| (at, ticket))),
        }
        kept.is_some()
    }

    /// What is asked of the next copies: reads that came to nothing once more, and what keeps
    /// copies from being out of date. `None` at the end.
    pub(crate) fn next_copies<'k, 'b, K: AsKey, T, B: Bulk<T>>(
        &self,
        keys: &'k [K],
        bulk: &'b B,
        copied: &mut [Copied],
        slots: &Slots<T>,
    ) -> Option<(Vec<Group<'k>>, Copies<'b, B>)> {
        let mut groups = Vec::new();
        let mut reads = vec![false; if copied.is_empty() { 0 } else { keys.len() }];
        for Copied { at, others } in copied {
            let (at, command) = (*at, bulk.command(*at));
            reads[at] = command.asks_copies() && slots.is_open(at);
            if !reads[at] && command.effect() == Effect::Read {
                continue;
            }
            if let (Some(server), Ok((wire, _))) = (others.next(), self.wire(&keys[at])) {
                join(&mut groups, server, None, (at, wire));
            }
        }
        groups.sort_by_key(|group: &Group<'_>| group.server.id);
        (!groups.is_empty()).then_some((groups, Copies { bulk, reads }))
    }

    /// Counts what reads found: some, none, or no telling.
    pub(crate) fn count_all_found(&self, reads: impl Iterator<Item = Option<bool>>) {
        let (mut found, mut missed) = (0, 0);
        for read in reads.flatten() {
            *(if read { &mut found } else { &mut missed }) += 1;
        }
        observe::read(true, found);
        observe::read(false, missed);
        self.counters.hits.fetch_add(found, Ordering::Relaxed);
        self.counters.misses.fetch_add(missed, Ordering::Relaxed);
    }
}

/// The place of a server's group. There is one, since a call takes one connection of each server.
fn place_of(groups: &mut Vec<Group<'_>>, server: Arc<Server>) -> usize {
    let found = groups.iter().position(|group| group.server.id == server.id);
    found.unwrap_or_else(|| {
        groups.push(Group::new(server));
        groups.len() - 1
    })
}

fn join<'k>(
    groups: &mut Vec<Group<'k>>,
    server: Arc<Server>,
    seconds_max: Option<u32>,
    key: (usize, WireKey<'k>),
) {
    let at = place_of(groups, server);
    groups[at].seconds_max.extend(seconds_max.map(|seconds| (key.0, seconds)));
    groups[at].keys.push(key);
}

/// Servers with further copies of a key, by its place in the caller's list.
pub(in crate::client) struct Copied {
    at: usize,
    others: std::vec::IntoIter<Arc<Server>>,
}

/// What copies are sent. The result of a key is what was read, or that it was not to be read.
pub(in crate::client) struct Copies<'b, B> {
    bulk: &'b B,
    /// Of each key, whether it is read again.
    reads: Vec<bool>,
}

impl<T, B: Bulk<T>> Bulk<Option<T>> for Copies<'_, B> {
    fn command(&self, at: usize) -> Command<'_> {
        let command = self.bulk.command(at);
        if self.reads[at] { command } else { command.for_copies() }
    }

    fn convert(&self, at: usize, reply: Reply<'_>) -> Result<Option<T>, Error> {
        match self.reads[at] && reply != Reply::NotFound {
            true => self.bulk.convert(at, reply).map(Some),
            false => Ok(None),
        }
    }
}

/// Values of many keys, which share requests.
pub(in crate::client) struct Fetch<F> {
    token: bool,
    convert: F,
}

/// Of many keys, the values.
pub(in crate::client) fn values<T: DeserializeOwned>(
    config: &Config,
) -> Fetch<impl Convert<Option<T>>> {
    let convert = |reply: Reply<'_>| outcome::value(&config.codec, reply);
    Fetch { token: false, convert }
}

/// The same with flags and tokens.
pub(in crate::client) fn versioned<T: DeserializeOwned>(
    config: &Config,
) -> Fetch<impl Convert<Option<Versioned<T>>>> {
    let convert = |reply: Reply<'_>| outcome::versioned(&config.codec, reply);
    Fetch { token: true, convert }
}

impl<T, F: Convert<Option<T>>> Bulk<Option<T>> for Fetch<F> {
    fn command(&self, _at: usize) -> Command<'_> {
        Command::Get { token: self.token }
    }

    fn convert(&self, _at: usize, reply: Reply<'_>) -> Result<Option<T>, Error> {
        (self.convert)(reply)
    }

    fn requests<'k>(&self, group: Group<'k>, opaque: &mut u32) -> Batch<'k> {
        Batch::get(group.keys, self.token, opaque)
    }
}

/// The same command for each of many keys.
pub(in crate::client) struct Each<F> {
    command: Command<'static>,
    convert: F,
}

pub(in crate::client) fn delete() -> Each<impl Convert<bool>> {
    Each { command: Command::Delete, convert: outcome::existed }
}

pub(in crate::client) fn touch(expiry: Expiry) -> Each<impl Convert<bool>> {
    Each { command: Command::Touch { exptime: expiry.exptime() }, convert: outcome::existed }
}

pub(in crate::client) fn count(up: bool, delta: u64) -> Each<impl Convert<Option<u64>>> {
    Each { command: Command::Count { up, delta }, convert: outcome::number }
}

impl<T, F: Convert<T>> Bulk<T> for Each<F> {
    fn command(&self, _at: usize) -> Command<'_> {
        self.command
    }

    fn convert(&self, _at: usize, reply: Reply<'_>) -> Result<T, Error> {
        (self.convert)(reply)
    }
}

/// A key with its value, as [`set_many`](crate::client::Client::set_many) takes them: a pair, or a
/// reference to one.
pub trait Pair {
    /// Its key.
    type Key: AsKey;
    /// Its value.
    type Value: Serialize;

    /// The two.
    fn into_pair(self) -> (Self::Key, Self::Value);
}

impl<K: AsKey, V: Serialize> Pair for (K, V) {
    type Key = K;
    type Value = V;

    fn into_pair(self) -> (K, V) {
        self
    }
}

impl<'p, K: AsKey, V: Serialize> Pair for &'p (K, V) {
    type Key = &'p K;
    type Value = &'p V;

    fn into_pair(self) -> (&'p K, &'p V) {
        (&self.0, &self.1)
    }
}

/// Values to be stored under many keys.
pub(in crate::client) struct Stores {
    /// Those that cannot be encoded are left out of the call.
    values: Vec<Result<Encoded, Error>>,
    expiry: Expiry,
}

impl Stores {
    /// With their keys.
    pub(crate) fn new<P: Pair>(
        config: &Config,
        items: impl IntoIterator<Item = P>,
        expiry: Expiry,
    ) -> (Vec<P::Key>, Self) {
        let encoded = |item: P| {
            let (key, value) = item.into_pair();
            (key, Encoded::new(config, &value))
        };
        let (keys, values) = items.into_iter().map(encoded).unzip();
        (keys, Self { values, expiry })
    }
}

impl Bulk<()> for Stores {
    fn command(&self, at: usize) -> Command<'_> {
        match &self.values[at] {
            Ok(value) => value.command(Mode::Set, self.expiry),
            Err(_) => Command::Delete,
        }
    }

    fn convert(&self, _at: usize, reply: Reply<'_>) -> Result<(), Error> {
        outcome::set(reply)
    }

    fn unsendable(&self, at: usize) -> Option<&Error> {
        self.values[at].as_ref().err()
    }
}
