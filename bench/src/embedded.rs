//! distcached's shards in this process, driven with the keys and values of a population. Owns the
//! calls and the virtual clock; no sockets and no protocol, so that a measurement sees the store
//! alone, and the same calls give the same store.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use distcache::protocol::{Exptime, StoreArgs, StoreMode};
use distcache::shard::operation::{Data, Form, Operation, Verb};
use distcache::shard::replies::Replies;
use distcache::shard::simulator::Simulator;
use distcache::shard::sizing::Event;
use distcache::shard::{Rules, Shard};
use distcache::store::budget::Budget;
use distcache::store::hash::{KeyHasher, shard_of};
use distcache::store::{Counters, Settings, Ticks};

use crate::population::Population;
use crate::replay::used_by_thread;

/// When the virtual clock starts: any time that is not a relative expiry.
const START: Ticks = Ticks::from_seconds(1_700_000_000);
/// A worker calls `maintain` this often, in hundredths of a second.
const MAINTAIN_TICKS: u64 = 10;
/// A worker's sweep goes through all segments in so many calls.
const SWEEP_ROUND_CALLS: usize = 40;

/// Shards that share a memory limit, and what is needed to talk to them.
pub struct Embedded {
    /// The shards.
    pub shards: Vec<Shard>,
    /// The virtual time.
    pub now: Ticks,
    hasher: KeyHasher,
    population: Arc<Population>,
    key: Vec<u8>,
    value: Vec<u8>,
    /// A large value, in a buffer of its own as a worker reads it; taken in place of `value`.
    large: Option<Bytes>,
    replies: Replies,
    next_maintain: Ticks,
    /// What is told of other sizes, if it is asked for, and what it is told at a time.
    simulator: Option<Simulator>,
    events: Vec<Event>,
    /// CPU time that took, and how many events.
    simulated: (Duration, u64),
}

/// A key made and hashed, so that neither is part of a measured call.
#[derive(Clone, Copy, Debug)]
pub struct Prepared {
    id: u64,
    hash: u64,
}

impl Embedded {
    /// Empty shards of a budget.
    pub fn new(budget: Arc<Budget>, evict: bool, population: Arc<Population>) -> Self {
        let hasher = KeyHasher::new([1, 2]);
        let count = budget.store_count();
        let settings = Settings { budget, evict, hasher: hasher.clone(), sequence_start: 1 };
        let rules = Rules { item_bytes_max: 1 << 30, cas: true, prefix_delimiter: b':' };
        Self {
            shards: (0..count).map(|_| Shard::new(settings.clone(), rules)).collect(),
            now: START,
            hasher,
            population,
            key: Vec::new(),
            value: Vec::new(),
            large: None,
            replies: Replies::default(),
            next_maintain: START,
            simulator: None,
            events: Vec::new(),
            simulated: Default::default(),
        }
    }

    /// Has the hit ratios of other sizes estimated from here on, as a server does.
    pub fn with_simulator(mut self) -> Self {
        self.simulator = Some(Simulator::default());
        self.tell_simulator();
        self
    }

    /// What estimates those.
    pub fn simulator(&self) -> Option<&Simulator> {
        self.simulator.as_ref()
    }

    /// What was estimated so far does not count.
    pub fn begin_counting(&mut self) {
        self.tell_simulator();
        if let Some(simulator) = &mut self.simulator {
            simulator.reset_counters();
        }
    }

    /// Tells it what the shards noted.
    pub fn tell_simulator(&mut self) {
        let Some(simulator) = &mut self.simulator else { return };
        let before = used_by_thread();
        simulator.begin(self.now, self.shards[0].store().memory_bytes_max());
        for shard in &mut self.shards {
            let handed = shard.hand_over(simulator.threshold(), &mut self.events);
            simulator.apply(&handed, &self.events);
            self.simulated.1 += self.events.len() as u64;
        }
        self.simulated.0 += used_by_thread() - before;
    }

    /// CPU time for each event it was told, and their number.
    pub fn simulated(&self) -> (Duration, u64) {
        let (time, events) = self.simulated;
        (time.div_f64(events.max(1) as f64), events)
    }

    /// The keys.
    pub fn population(&self) -> Arc<Population> {
        Arc::clone(&self.population)
    }

    /// Makes the key and value of an id; the calls below then are about it.
    pub fn prepare(&mut self, id: u64) -> Prepared {
        self.key.clear();
        self.population.push_key(id, &mut self.key);
        Prepared { id, hash: self.hasher.hash(&self.key) }
    }

    /// As [`Embedded::prepare`], with the value that [`Embedded::set`] stores.
    pub fn prepare_value(&mut self, id: u64) -> Prepared {
        self.value.clear();
        self.population.push_value(id, &mut self.value);
        self.prepare(id)
    }

    /// As [`Embedded::prepare_value`], with a small value of so many bytes.
    pub fn prepare_sized(&mut self, id: u64, value_bytes: usize) -> Prepared {
        self.value.clear();
        self.value.resize(value_bytes, b's');
        self.prepare(id)
    }

    /// As [`Embedded::prepare_value`], with a value of so many bytes in a buffer of its own.
    pub fn prepare_large(&mut self, id: u64, value_bytes: usize) -> Prepared {
        self.value.clear();
        self.large = Some(Bytes::from(vec![b'l'; value_bytes]));
        self.prepare(id)
    }

    fn execute(&mut self, prepared: Prepared, verb: Verb<'_>) -> &[u8] {
        self.replies.bytes.clear();
        self.replies.values.clear();
        let operation = Operation { key: &self.key, hash: prepared.hash, form: Form::Text, verb };
        let shard = shard_of(prepared.hash, self.shards.len());
        self.shards[shard].execute(operation, self.now, &mut self.replies);
        &self.replies.bytes
    }

    /// Asks for the key prepared last; true if it was there.
    pub fn get(&mut self, prepared: Prepared) -> bool {
        !self.execute(prepared, Verb::Get { with_cas: false }).is_empty()
    }

    /// Stores the value prepared last for so many seconds, 0 for ever; false if it was refused.
    pub fn set(&mut self, prepared: Prepared, lifetime_seconds: u32) -> bool {
        let args = StoreArgs {
            mode: StoreMode::Set,
            flags: 0,
            exptime: exptime(lifetime_seconds),
            compare: 0,
        };
        let value = std::mem::take(&mut self.value);
        let data = self.large.take().map_or(Data::Slice(&value), Data::Owned);
        let stored = self.execute(prepared, Verb::Store(args, data));
        let stored = stored == b"STORED\r\n";
        self.value = value;
        stored
    }

    /// Deletes the key prepared last.
    pub fn delete(&mut self, prepared: Prepared) {
        self.execute(prepared, Verb::Delete { compare: 0 });
    }

    /// Gives the key prepared last another lifetime; false if it was not there.
    pub fn touch(&mut self, prepared: Prepared, lifetime_seconds: u32) -> bool {
        let verb = Verb::Touch { exptime: exptime(lifetime_seconds) };
        self.execute(prepared, verb) == b"TOUCHED\r\n"
    }

    /// Adds so many bytes to the value of the key prepared last; false if it was not there.
    pub fn append(&mut self, prepared: Prepared, bytes: usize) -> bool {
        let args =
            StoreArgs { mode: StoreMode::Append, flags: 0, exptime: Exptime::Never, compare: 0 };
        let data = vec![b'a'; bytes];
        self.execute(prepared, Verb::Store(args, Data::Slice(&data))) == b"STORED\r\n"
    }

    /// Items of all shards.
    pub fn items(&self) -> usize {
        self.shards.iter().map(|shard| shard.store().items()).sum()
    }

    /// What one of the shards' counters comes to.
    pub fn counted(&self, counter: impl Fn(&Counters) -> u64) -> u64 {
        self.shards.iter().map(|shard| counter(&shard.store().counters())).sum()
    }

    /// The part of the memory of all segments that live items take.
    pub fn live_share(&self) -> f64 {
        let sum = |of: &dyn Fn(&Shard) -> u64| self.shards.iter().map(of).sum::<u64>() as f64;
        sum(&|shard| shard.store().live_bytes()) / sum(&|shard| shard.store().segments().0)
    }

    /// Bytes of the key and the value prepared last.
    pub fn content_bytes(&self) -> usize {
        self.key.len() + self.large.as_ref().map_or(self.value.len(), Bytes::len)
    }

    /// Bytes of the key prepared last.
    pub fn key_bytes(&self) -> usize {
        self.key.len()
    }

    /// The lifetime of a key's value.
    pub fn lifetime_seconds(&self, prepared: Prepared) -> u32 {
        self.population.lifetime_seconds(prepared.id)
    }

    /// Whether a worker would call `maintain` now.
    pub fn is_maintenance_due(&self) -> bool {
        self.now >= self.next_maintain
    }

    /// Calls it as a worker does: again in the next turn if there is more to do.
    pub fn maintain(&mut self) {
        let mut more = false;
        self.tell_simulator();
        for shard in &mut self.shards {
            let segments = shard.store().segment_count_max();
            more |= shard.maintain(self.now, segments.div_ceil(SWEEP_ROUND_CALLS));
        }
        self.next_maintain = if more { self.now } else { Ticks(self.now.0 + MAINTAIN_TICKS) };
    }
}

fn exptime(lifetime_seconds: u32) -> Exptime {
    match lifetime_seconds {
        0 => Exptime::Never,
        seconds => Exptime::Relative(seconds),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stores_finds_expires_and_deletes() {
        let sizes = ("16".parse().unwrap(), "32".parse().unwrap());
        let population = Arc::new(Population::new(1000, sizes.0, sizes.1).unwrap());
        let mut embedded = Embedded::new(Budget::new(4 << 20, 2), true, population);
        let key = embedded.prepare_value(7);
        assert!(!embedded.get(key));
        assert!(embedded.set(key, 5));
        assert!(embedded.get(key));
        embedded.now = embedded.now.plus_seconds(10);
        while embedded.is_maintenance_due() {
            embedded.maintain();
        }
        assert_eq!(embedded.items(), 0, "swept");
        assert!(embedded.set(key, 0));
        embedded.delete(key);
        assert!(!embedded.get(key));
    }
}
