//! What a worker tells about itself when `stats` asks.

use crate::shard::Shard;
use crate::shard::counters::Counters;
use crate::shard::prefix::PrefixCounts;
use crate::store;

/// Which parts of a report are asked for beyond the counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wanted {
    /// A line for each connection.
    pub connections: bool,
    /// The counts by prefix.
    pub prefixes: bool,
    /// So many items, for `stats cachedump`.
    pub dump_items_max: u32,
}

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
}

impl Traffic {
    /// Adds another worker's traffic.
    pub fn add(&mut self, other: &Self) {
        self.bytes_read += other.bytes_read;
        self.bytes_written += other.bytes_written;
        self.connection_yields += other.connection_yields;
        self.flush_commands += other.flush_commands;
        self.idle_kicks += other.idle_kicks;
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
    /// Bytes of live items.
    pub live_bytes: u64,
    /// Memory in use.
    pub memory_bytes: u64,
    /// Memory of the index.
    pub index_bytes: u64,
    /// Memory of segments, and their number.
    pub segments: (u64, usize),
    /// Size of a segment.
    pub segment_bytes: usize,
    /// The shard's memory limit.
    pub memory_bytes_max: u64,
    /// See [`Wanted::connections`].
    pub connections: Vec<ConnectionReport>,
    /// See [`Wanted::prefixes`].
    pub prefixes: Vec<(Vec<u8>, PrefixCounts)>,
    /// See [`Wanted::dump_items_max`].
    pub dumped: Vec<ItemReport>,
}

impl Report {
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
            live_bytes: store.live_bytes(),
            memory_bytes: store.memory_bytes(),
            index_bytes: store.index_bytes(),
            segments: store.segments(),
            segment_bytes: store.segment_bytes(),
            memory_bytes_max: store.memory_bytes_max(),
            prefixes,
            dumped: dump_items(store, wanted.dump_items_max as usize, now),
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
