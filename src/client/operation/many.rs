//! Calls about many keys: which of them go to which server, and whose results are whose. No I/O.

use crate::client::cluster::{Cluster, Route, Server, for_stand_in};
use crate::client::config::{Config, Expiry};
use crate::client::error::Error;
use crate::client::observe;
use crate::client::operation::{Convert, Encoded};
use crate::client::placement::key::{AsKey, WireKey};
use crate::client::wire::batch::{Batch, refused};
use crate::client::wire::command::{Command, Effect, Mode};
use crate::client::wire::outcome::{self, Many};
use crate::client::wire::reply::Reply;
use serde::Serialize;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// The keys of one server.
pub(in crate::client) struct Group<'k> {
    pub server: Arc<Server>,
    /// For a stand-in, how long items may live there.
    pub seconds_max: Option<u32>,
    /// Place in the caller's list, and key.
    pub keys: Vec<(usize, WireKey<'k>)>,
}

/// The requests for the keys of one server, numbered from a counter.
pub(in crate::client) trait Requests<'k>:
    Fn(Group<'k>, &mut u32) -> Batch<'k>
{
}

impl<'k, F: Fn(Group<'k>, &mut u32) -> Batch<'k>> Requests<'k> for F {}

/// The result of a key that nobody is asked about.
pub(in crate::client) trait Missing<T>: Fn() -> Result<T, Error> {}

impl<T, F: Fn() -> Result<T, Error>> Missing<T> for F {}

/// A call about many keys, all of one kind.
pub(in crate::client) struct Asked<B, M, C> {
    pub effect: Effect,
    pub batch: B,
    pub missing: M,
    pub convert: C,
}

/// The results of such a call, in the making.
pub(in crate::client) struct Slots<T> {
    slots: Vec<Option<Result<T, Error>>>,
    /// Places whose items had neither bytes nor flags: they may be no values.
    pub empty: Vec<usize>,
}

impl<T> Slots<T> {
    pub fn new(count: usize) -> Self {
        Self { slots: (0..count).map(|_| None).collect(), empty: Vec::new() }
    }

    pub fn set(&mut self, at: usize, result: Result<T, Error>) {
        self.slots[at] = Some(result);
    }

    /// One reply of a server. An error says that the connection is out of step.
    pub fn fill(
        &mut self,
        server: &str,
        at: usize,
        reply: Reply<'_>,
        convert: &impl Convert<T>,
    ) -> Result<(), Error> {
        if matches!(&reply, Reply::Value(item) if item.data.is_empty() && item.flags == 0) {
            self.empty.push(at);
        }
        let result = match reply {
            Reply::Refused(line) => Err(refused(server, line)),
            reply => convert(reply),
        };
        if let Err(error @ Error::Protocol { .. }) = result {
            return Err(error);
        }
        self.set(at, result);
        Ok(())
    }

    /// Keys that have no answer, for this reason.
    pub fn fail(
        &mut self,
        cluster: &Cluster,
        effect: Effect,
        places: impl IntoIterator<Item = usize>,
        error: &Error,
        missing: &impl Missing<T>,
    ) {
        let forgiven = effect == Effect::Read && cluster.forgives(error);
        for at in places {
            let failed = || match effect {
                _ if forgiven => missing(),
                Effect::Read => Err(error.clone().without_doubt()),
                _ => Err(error.clone()),
            };
            self.slots[at].get_or_insert_with(failed);
        }
    }

    pub fn finish(self, missing: &impl Missing<T>) -> Many<T> {
        Many(self.slots.into_iter().map(|slot| slot.unwrap_or_else(missing)).collect())
    }
}

impl Cluster {
    /// Splits keys among servers. Slots of keys that go nowhere get their results at once:
    /// `missing` where a dead server's keys count as such.
    pub fn split<'k, K: AsKey, T>(
        &self,
        keys: &'k [K],
        effect: Effect,
        slots: &mut Slots<T>,
        missing: &impl Missing<T>,
    ) -> Vec<Group<'k>> {
        let topology = self.topology();
        let mut groups: Vec<Group<'k>> = Vec::new();
        // The group of each owner in use, by its index; `route` is for the others.
        let mut group_of: Vec<Option<usize>> = vec![None; topology.servers.len()];
        for (at, key) in keys.iter().enumerate() {
            let (wire, placing) = match self.wire(key) {
                Ok(made) => made,
                Err(error) => {
                    slots.set(at, Err(error));
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
            match self.route(&topology, &placing, &wire, effect) {
                Ok(Route::Owner(server)) => join(&mut groups, server, None, (at, wire)),
                Ok(Route::StandIn(server, seconds)) => {
                    join(&mut groups, server, Some(seconds), (at, wire));
                }
                Ok(Route::Nowhere) => slots.set(at, missing()),
                Err(error) => slots.set(at, Err(error)),
            }
        }
        // Everybody takes connections in the same order, so that two callers cannot each hold what
        // the other waits for.
        groups.sort_by_key(|group| group.server.id);
        groups
    }

    pub fn count_all_found<T>(&self, many: &Many<Option<T>>) {
        let found = many.iter().filter(|result| matches!(result, Ok(Some(_)))).count() as u64;
        let missed = many.iter().filter(|result| matches!(result, Ok(None))).count() as u64;
        observe::read(true, found);
        observe::read(false, missed);
        self.counters.hits.fetch_add(found, Ordering::Relaxed);
        self.counters.misses.fetch_add(missed, Ordering::Relaxed);
    }
}

fn join<'k>(
    groups: &mut Vec<Group<'k>>,
    server: Arc<Server>,
    seconds_max: Option<u32>,
    key: (usize, WireKey<'k>),
) {
    let same =
        |group: &&mut Group<'k>| group.server.id == server.id && group.seconds_max == seconds_max;
    match groups.iter_mut().find(same) {
        Some(group) => group.keys.push(key),
        None => groups.push(Group { server, seconds_max, keys: vec![key] }),
    }
}

/// Values of many keys.
pub(in crate::client) fn get<'k, T>(
    token: bool,
    convert: impl Convert<Option<T>>,
) -> Asked<impl Requests<'k>, impl Missing<Option<T>>, impl Convert<Option<T>>> {
    let batch = move |group: Group<'k>, opaque: &mut u32| Batch::get(group.keys, token, opaque);
    Asked { effect: Effect::Read, batch, missing: || Ok(None), convert }
}

/// The same command for each of many keys.
pub(in crate::client) fn each<'k, T: Copy>(
    command: Command<'static>,
    missing: T,
    convert: impl Convert<T>,
) -> Asked<impl Requests<'k>, impl Missing<T>, impl Convert<T>> {
    let batch = move |group: Group<'k>, opaque: &mut u32| {
        let seconds_max = group.seconds_max;
        Batch::each(group.keys, opaque, |_| {
            seconds_max.map_or(command, |seconds| for_stand_in(command, seconds))
        })
    };
    Asked { effect: command.effect(), batch, missing: move || Ok(missing), convert }
}

/// The batches of a call that stores.
pub(in crate::client) fn stores<'k>(
    batch: impl Requests<'k>,
) -> Asked<impl Requests<'k>, impl Missing<()>, impl Convert<()>> {
    Asked { effect: Effect::Write, batch, missing: || Ok(()), convert: outcome::set }
}

/// Values to be stored under many keys. Those that cannot be encoded are left out of the call.
pub(in crate::client) struct Stores<'i, K> {
    /// What became of each: to be sent, or an error.
    values: Vec<Result<Encoded, Error>>,
    /// Places of those to be sent.
    sent: Vec<usize>,
    /// Their keys.
    pub keys: Vec<&'i K>,
    expiry: Expiry,
}

impl<'i, K: AsKey> Stores<'i, K> {
    pub fn new(config: &Config, items: &'i [(K, impl Serialize)], expiry: Expiry) -> Self {
        let values: Vec<_> = items.iter().map(|(_, value)| Encoded::new(config, value)).collect();
        let sent: Vec<usize> = (0..items.len()).filter(|at| values[*at].is_ok()).collect();
        let keys = sent.iter().map(|at| &items[*at].0).collect();
        Self { values, sent, keys, expiry }
    }

    pub fn batch<'k>(&self, group: Group<'k>, opaque: &mut u32) -> Batch<'k> {
        let seconds_max = group.seconds_max;
        Batch::each(group.keys, opaque, |at| {
            let command = match &self.values[self.sent[at]] {
                Ok(value) => value.command(Mode::Set, self.expiry),
                Err(_) => Command::Delete,
            };
            seconds_max.map_or(command, |seconds| for_stand_in(command, seconds))
        })
    }

    /// All results, with those of the ones that were sent.
    pub fn results(self, stored: Many<()>) -> Many<()> {
        let mut results: Vec<Result<(), Error>> =
            self.values.into_iter().map(|value| value.map(|_| ())).collect();
        for (at, result) in self.sent.into_iter().zip(stored) {
            results[at] = result;
        }
        Many(results)
    }
}
