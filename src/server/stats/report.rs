//! What a worker, and a shard, tell about themselves when `stats` asks.

use crate::server::stats::latency::{Latencies, Timing};
use crate::shard::Shard;
use crate::shard::counters::Counters;
use crate::shard::hot;
use crate::shard::prefix::PrefixCounts;
use crate::store;
use std::collections::BTreeMap;

/// Which parts of a report are asked for beyond the counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wanted {
    /// A line for each connection.
    pub connections: bool,
    /// The counts by prefix.
    pub prefixes: bool,
    /// So many items, for `stats cachedump`.
    pub dump_items_max: u32,
    /// How many items there are of each size.
    pub sizes: bool,
    /// How long commands took.
    pub latencies: bool,
    /// Keys asked for often, and keys with large values.
    pub keys: bool,
}

impl Wanted {
    /// Whether the answer has a line for each of many things.
    pub fn lists(&self) -> bool {
        self.connections || self.prefixes || self.dump_items_max > 0
    }
}

/// Sizes of items are counted in steps of this many bytes.
pub const SIZE_STEP_BYTES: u64 = 32;

/// About as many items are looked at for their sizes; more would hold up the worker's clients.
const SIZE_SAMPLE_ITEMS: usize = 4_000;

/// Counters of a worker that are not its shard's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes received.
    pub bytes_read: u64,
    /// Bytes sent.
    pub bytes_written: u64,
    /// Connections that had more commands than one turn takes.
    pub connection_yields: u64,
    /// `flush_all` received.
    pub flush_commands: u64,
    /// Connections closed for being idle.
    pub idle_kicks: u64,
    /// Attempts to log in.
    pub logins: u64,
    /// Those that failed.
    pub logins_failed: u64,
    /// Connections closed for the protocol they began to speak.
    pub refused_protocols: u64,
    /// Commands above `--slow-command-us`.
    pub slow_commands: u64,
    /// Storage commands refused for the size of their item.
    pub store_too_large: u64,
    /// Storage commands refused because connections hold too much.
    pub store_no_memory: u64,
}

impl Traffic {
    /// Adds another worker's traffic.
    pub fn add(&mut self, other: &Self) {
        self.bytes_read += other.bytes_read;
        self.bytes_written += other.bytes_written;
        self.connection_yields += other.connection_yields;
        self.flush_commands += other.flush_commands;
        self.idle_kicks += other.idle_kicks;
        self.logins += other.logins;
        self.logins_failed += other.logins_failed;
        self.refused_protocols += other.refused_protocols;
        self.slow_commands += other.slow_commands;
        self.store_too_large += other.store_too_large;
        self.store_no_memory += other.store_no_memory;
    }
}

/// A connection, for `stats conns`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionReport {
    /// Its file descriptor.
    pub descriptor: i32,
    /// The other end.
    pub address: String,
    /// This end.
    pub listen_address: String,
    /// memcached's name of what it does.
    pub state: &'static str,
    /// Replies that wait for the log.
    pub replies_waiting: usize,
    /// Since its last command.
    pub idle_seconds: u64,
}

/// An item, for `stats cachedump`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ItemReport {
    /// The key.
    pub key: Vec<u8>,
    /// Length of the value.
    pub value_bytes: usize,
    /// Unix time at which it expires; 0: never.
    pub expires_unix_seconds: u64,
}

/// All of it.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// What commands did.
    pub counters: Counters,
    /// What the store did.
    pub store_counters: store::Counters,
    /// The worker's own counters.
    pub traffic: Traffic,
    /// Items stored.
    pub items: u64,
    /// What live items take, in segments and in the index.
    pub live_bytes: u64,
    /// For how long the items that would be evicted next have been stored.
    pub oldest_age_seconds: u64,
    /// Memory in use.
    pub memory_bytes: u64,
    /// Memory of the index.
    pub index_bytes: u64,
    /// Memory of segments, and their number.
    pub segments: (u64, usize),
    /// See [`Wanted::connections`].
    pub connections: Vec<ConnectionReport>,
    /// See [`Wanted::prefixes`].
    pub prefixes: Vec<(Vec<u8>, PrefixCounts)>,
    /// See [`Wanted::dump_items_max`].
    pub dumped: Vec<ItemReport>,
    /// See [`Wanted::sizes`]: the upper end of each step, and the items up to it.
    pub sizes: BTreeMap<u64, u64>,
    /// See [`Wanted::latencies`].
    pub latencies: Latencies,
    /// See [`Wanted::keys`].
    pub keys: hot::Lists,
}

impl Report {
    /// The part a worker knows, its connections apart.
    pub fn of_worker(traffic: &Traffic, timing: &Timing, wanted: Wanted) -> Self {
        let traffic = Traffic { slow_commands: timing.slow_count(), ..*traffic };
        let latencies =
            if wanted.latencies { timing.latencies().clone() } else { Latencies::default() };
        Self { traffic, latencies, ..Self::default() }
    }

    /// The part a shard knows.
    pub fn of_shard(shard: &Shard, wanted: Wanted, now: store::Ticks) -> Self {
        let store = shard.store();
        let prefixes = shard.prefixes().filter(|_| wanted.prefixes).map_or(Vec::new(), |all| {
            all.iter().map(|(prefix, counts)| (prefix.to_vec(), *counts)).collect()
        });
        Self {
            counters: *shard.counters(),
            store_counters: store.counters(),
            items: store.items() as u64,
            live_bytes: store.item_memory_bytes(),
            oldest_age_seconds: store.oldest_age_seconds(now),
            memory_bytes: store.memory_bytes(),
            index_bytes: store.index_bytes(),
            segments: store.segments(),
            prefixes,
            dumped: dump_items(store, wanted.dump_items_max as usize, now),
            keys: if wanted.keys { shard.lists(now) } else { hot::Lists::default() },
            sizes: if wanted.sizes { sample_sizes(store, now) } else { BTreeMap::new() },
            ..Self::default()
        }
    }
}

fn dump_items(store: &store::Store, items_max: usize, now: store::Ticks) -> Vec<ItemReport> {
    let mut dumped = Vec::new();
    let mut part = 0;
    while dumped.len() < items_max
        && store.visit_part(part, now, |item| {
            if dumped.len() < items_max {
                dumped.push(ItemReport {
                    key: item.key.to_vec(),
                    value_bytes: item.value.len(),
                    expires_unix_seconds: item.attributes.deadline.map_or(0, |at| at.seconds()),
                });
            }
        })
    {
        part += 1;
    }
    dumped
}

/// How many items of each size there are, counted in some evenly spaced parts of the index, and
/// scaled up. Exact for few items. Keys lie in parts by their hash, so that sizes do not matter.
fn sample_sizes(store: &store::Store, now: store::Ticks) -> BTreeMap<u64, u64> {
    let parts = store.part_count();
    let step = (store.items() / SIZE_SAMPLE_ITEMS).clamp(1, parts);
    let mut seen: BTreeMap<u64, u64> = BTreeMap::new();
    for part in (0..parts).step_by(step) {
        store.visit_part(part, now, |item| {
            let bytes = (item.key.len() + item.value.len()) as u64;
            *seen.entry(bytes.max(1).next_multiple_of(SIZE_STEP_BYTES)).or_default() += 1;
        });
    }
    let visited: u64 = seen.values().sum();
    if step > 1 && visited > 0 {
        let items = store.items() as u128;
        for count in seen.values_mut() {
            *count = ((u128::from(*count) * items / u128::from(visited)) as u64).max(1);
        }
    }
    seen
}
