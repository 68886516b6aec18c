//! What each command means: protocol x store.
//!
//! A [`Shard`] owns the store of one worker and executes operations on single keys, writing the
//! reply as it goes. It knows verbs and replies; it knows neither connections nor threads, reads no
//! clock and does no I/O: the time is an argument.
//!
//! | file | what it holds |
//! |---|---|
//! | `operation` | one command on one key, ready to execute or to mail to another shard |
//! | `replies` | reply bytes, with large values by reference |
//! | `classic` | get, set, incr and so on |
//! | `meta` | mg, ms, md, ma, me |
//! | `counters` | what `stats` reports of commands |
//! | `prefix` | `stats detail` |

mod classic;
pub mod counters;
mod meta;
pub mod operation;
pub mod prefix;
pub mod replies;

use crate::limits::{ITEM_BYTES_COMPAT_FLAGS, ITEM_BYTES_COMPAT_OVERHEAD};
use crate::protocol::Exptime;
use crate::store::index::Handle;
use crate::store::{Absent, Attributes, Full, Settings, Store, Ticks, Value};
use counters::Counters;
use operation::{Data, Operation, Verb};
use prefix::PrefixStats;
use replies::Replies;

/// Settings that decide what commands do.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// Largest item in bytes, counted as memcached counts (`-I`).
    pub item_bytes_max: u32,
    /// Hand out and check CAS tokens (`-C`: false).
    pub cas: bool,
    /// Ends the prefix of a key in `stats detail`.
    pub prefix_delimiter: u8,
}

/// One shard: a store, and the counters of what was done with it.
pub struct Shard {
    store: Store,
    rules: Rules,
    counters: Counters,
    prefixes: Option<PrefixStats>,
    /// When everything stored until then is to go (a delayed `flush_all`).
    flush_at: Option<Ticks>,
}

impl Shard {
    /// An empty shard.
    pub fn new(settings: Settings, rules: Rules) -> Self {
        let counters = Counters::default();
        Self { store: Store::new(settings), rules, counters, prefixes: None, flush_at: None }
    }

    /// Executes one operation and appends its reply.
    #[inline]
    pub fn execute(&mut self, operation: Operation<'_>, now: Ticks, out: &mut Replies) {
        if self.flush_at.is_some() {
            self.flush_if_due(now);
        }
        if let Some(prefixes) = &mut self.prefixes {
            prefixes.record(&operation.verb, operation.key);
        }
        let Operation { key, hash, noreply, verb } = operation;
        let mark = out.mark();
        match verb {
            Verb::Get { with_cas } => self.get(hash, key, with_cas, now, out),
            Verb::GetAndTouch { with_cas, exptime } => {
                self.get_and_touch(hash, key, with_cas, exptime, now, out);
            }
            Verb::Store(args, data) => out.push(self.store_classic(hash, key, args, data, now)),
            Verb::Delete => out.push(self.delete(hash, key, now)),
            Verb::Arithmetic { increment, delta } => {
                self.arithmetic(hash, key, increment, delta, now, out);
            }
            Verb::Touch { exptime } => out.push(self.touch(hash, key, exptime, now)),
            Verb::DropStale => self.drop_stale(hash, key, now),
            Verb::MetaGet(args) => self.meta_get(hash, key, args, now, out),
            Verb::MetaStore(args, mode, data) => {
                self.meta_store(hash, key, args, mode, data, now, out);
            }
            Verb::MetaDelete(args) => self.meta_delete(hash, key, args, now, out),
            Verb::MetaArithmetic(args) => self.meta_arithmetic(hash, key, args, now, out),
            Verb::MetaDebug(args) => self.meta_debug(hash, key, args, now, out),
        }
        if noreply {
            out.truncate(mark);
        }
    }

    /// Removes everything now.
    pub fn flush(&mut self) {
        self.flush_at = None;
        self.store.flush();
    }

    /// Removes at `at` everything stored until then. A later call replaces an earlier one.
    pub fn flush_later(&mut self, at: Ticks) {
        self.flush_at = Some(at);
    }

    fn flush_if_due(&mut self, now: Ticks) {
        if self.flush_at.is_some_and(|at| at <= now) {
            self.flush();
        }
    }

    /// Work between commands; see [`Store::maintain`].
    pub fn maintain(&mut self, now: Ticks, segments_max: usize) -> bool {
        self.flush_if_due(now);
        self.store.maintain(now, segments_max)
    }

    /// Memory used elsewhere that counts against the shard's limit.
    pub fn lend(&mut self, bytes: u64) {
        self.store.lend(bytes);
    }

    /// The store, for statistics and dumps.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// A storage command was refused for the size of its item.
    pub fn count_too_large(&mut self) {
        self.counters.store_too_large += 1;
    }

    /// A storage command was refused for want of memory.
    pub fn count_no_memory(&mut self) {
        self.counters.store_no_memory += 1;
    }

    /// What commands did.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Sets all counters to 0.
    pub fn reset_counters(&mut self) {
        self.counters = Counters::default();
        self.store.reset_counters();
        if let Some(prefixes) = &mut self.prefixes {
            *prefixes = PrefixStats::new(self.rules.prefix_delimiter);
        }
    }

    /// Sets another memory limit.
    pub fn set_memory_bytes_max(&mut self, bytes: u64) {
        self.store.set_memory_bytes_max(bytes);
    }

    /// Starts or stops counting by prefix. What was counted stays until the next reset.
    pub fn set_detail(&mut self, on: bool) {
        match (&mut self.prefixes, on) {
            (Some(prefixes), on) => prefixes.set_recording(on),
            (prefixes @ None, true) => {
                *prefixes = Some(PrefixStats::new(self.rules.prefix_delimiter))
            }
            (None, false) => {}
        }
    }

    /// The counts by prefix.
    pub fn prefixes(&self) -> Option<&PrefixStats> {
        self.prefixes.as_ref()
    }

    /// Finds a key for a command that reads it, counting why it was absent.
    #[inline]
    fn find(&mut self, hash: u64, key: &[u8], now: Ticks) -> Option<Handle> {
        match self.store.find(hash, key, now) {
            Ok(handle) => Some(handle),
            Err(Absent::Missing) => None,
            Err(Absent::Expired) => {
                self.counters.get_expired += 1;
                None
            }
        }
    }

    /// Whether an item is within `-I`.
    fn fits(&self, key: &[u8], flags: u32, value_bytes: usize) -> bool {
        item_fits(&self.rules, key.len(), flags, value_bytes)
    }

    /// A client's token, 0 and never matching where CAS is off.
    fn token(&self, token: u64) -> u64 {
        if self.rules.cas { token } else { 0 }
    }

    fn put(
        &mut self,
        hash: u64,
        old: Option<Handle>,
        key: &[u8],
        attributes: Attributes,
        value: Value<'_>,
        now: Ticks,
    ) -> Result<Handle, Full> {
        let stored = self.store.put(hash, old, key, attributes, value, now);
        if stored.is_err() {
            self.counters.store_no_memory += 1;
        }
        stored
    }

    /// The value of the item, with `data` behind or before it, replaces it.
    fn join(
        &mut self,
        hash: u64,
        old: Handle,
        key: &[u8],
        data: &Data<'_>,
        append: bool,
        now: Ticks,
    ) -> Option<Handle> {
        let item = self.store.item(old);
        let flags = item.attributes.flags;
        if !self.fits(key, flags, item.value.len() + data.len()) {
            return None;
        }
        let attributes = Attributes { cas: None, stale: false, win_sent: false, ..item.attributes };
        let present = item.value.to_vec();
        let parts = match append {
            true => [&present[..], data.as_slice()],
            false => [data.as_slice(), &present[..]],
        };
        self.put(hash, Some(old), key, attributes, Value::Parts(parts), now).ok()
    }

    /// A value too large for a `set` must not leave the old one behind as if it were current.
    fn drop_stale(&mut self, hash: u64, key: &[u8], now: Ticks) {
        if let Ok(handle) = self.store.find(hash, key, now) {
            self.store.remove(handle);
        }
    }
}

/// Whether memcached would take an item of this size under the same `-I`.
pub fn item_fits(rules: &Rules, key_bytes: usize, flags: u32, value_bytes: usize) -> bool {
    let flags_bytes = if flags == 0 { 0 } else { ITEM_BYTES_COMPAT_FLAGS };
    let without_cas = if rules.cas { 0 } else { 8 };
    let bytes = key_bytes + flags_bytes + value_bytes + ITEM_BYTES_COMPAT_OVERHEAD - without_cas;
    bytes <= rules.item_bytes_max as usize
}

/// When an item with this expiry stops existing.
fn deadline(exptime: Exptime, now: Ticks) -> Option<Ticks> {
    match exptime {
        Exptime::Never => None,
        Exptime::Relative(seconds) => Some(now.plus_seconds(u64::from(seconds))),
        Exptime::Absolute(unix_seconds) => Some(Ticks::from_seconds(u64::from(unix_seconds))),
        Exptime::Past => Some(Ticks::default()),
    }
}
