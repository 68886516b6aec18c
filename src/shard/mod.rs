//! What each command means: protocol x store.
//!
//! A [`Shard`] owns the store of one worker and executes operations on single keys, writing the
//! reply as it goes. It knows verbs and replies; it knows neither connections nor threads, reads no
//! clock and does no I/O: the time is an argument.
//!
//! | file | what it holds |
//! |---|---|
//! | `operation` | one command on one key, ready to execute |
//! | `replies` | reply bytes, with large values by reference |
//! | `classic` | get, set, incr and so on |
//! | `meta` | mg, ms, md, ma, me |
//! | `binary` | the classic commands, answered in frames |
//! | `counters` | what `stats` reports of commands |
//! | `prefix` | `stats detail` |
//! | `events` | what watchers are told |
//! | `hot` | which keys are asked for most, which values are largest |
//! | `sizing`, `simulator` | what the hit ratio would be with more or less memory |

mod binary;
mod classic;
pub mod counters;
pub mod events;
pub mod hot;
mod meta;
pub mod operation;
pub mod prefix;
pub mod replies;
pub mod simulator;
pub mod sizing;
#[cfg(test)]
mod tests;

use crate::durable::journal::Journal;
use crate::limits::{ITEM_BYTES_COMPAT_FLAGS, ITEM_BYTES_COMPAT_OVERHEAD};
use crate::protocol::{Exptime, reply};
use crate::store::index::Handle;
use crate::store::{Absent, Attributes, Full, Settings, Store, Ticks, TokenRule, Value};
use counters::Counters;
use events::Events;
use hot::Samples;
use operation::{Data, Form, Operation, Verb};
use prefix::PrefixStats;
use replies::Replies;
use sizing::Sampler;

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
    /// Where changes are recorded, if they are to survive.
    journal: Option<Box<Journal>>,
    /// What watchers are to be told, if there are any.
    events: Option<Box<Events>>,
    /// Operations until one is looked at for `samples`.
    until_sample: u32,
    samples: Samples,
    sizing: Sampler,
}

impl Shard {
    /// An empty shard.
    pub fn new(settings: Settings, rules: Rules) -> Self {
        Self::with_store(Store::new(settings), rules)
    }

    /// A shard of items that were recovered.
    pub fn with_store(store: Store, rules: Rules) -> Self {
        Self {
            store,
            rules,
            counters: Counters::default(),
            prefixes: None,
            flush_at: None,
            journal: None,
            events: None,
            until_sample: 1,
            samples: Samples::default(),
            sizing: Sampler::default(),
        }
    }

    /// Records changes from here on. `flush_at` is a flush that an earlier run has yet to do.
    pub fn record_in(&mut self, journal: Journal, flush_at: Option<Ticks>) {
        self.journal = Some(Box::new(journal));
        self.flush_at = flush_at;
        self.store.tell_evictions(true);
    }

    /// Where changes are recorded.
    pub fn journal(&mut self) -> Option<&mut Journal> {
        self.journal.as_deref_mut()
    }

    /// Whether changes are refused: the log has failed.
    pub fn is_refusing(&self) -> bool {
        self.journal.as_ref().is_some_and(|journal| journal.is_refusing())
    }

    /// Whether so much waits to be written that changes should wait as well.
    #[inline]
    pub fn has_much_to_write(&self) -> bool {
        self.journal.as_ref().is_some_and(|journal| journal.is_full())
    }

    /// When everything stored until then is to go.
    pub fn flush_at(&self) -> Option<Ticks> {
        self.flush_at
    }

    /// Executes one operation and appends its reply. Answers the record of the log that has to be
    /// safe before the reply leaves; 0: none.
    #[inline]
    pub fn execute(&mut self, operation: Operation<'_>, now: Ticks, out: &mut Replies) -> u64 {
        let Some(journal) = &self.journal else {
            self.execute_unrecorded(operation, now, out);
            return 0;
        };
        let (before, hash) = (journal.sequence(), operation.hash);
        let may_change = operation.verb.changes_items();
        if journal.is_refusing() && may_change {
            refuse(&operation, out);
            return 0;
        }
        self.execute_unrecorded(operation, now, out);
        self.record_departed(now);
        let Some(journal) = &self.journal else { return 0 };
        let after = journal.sequence();
        if may_change && after != before {
            return after;
        }
        // What is read must not be lost either, if others were not told of it yet. (That it met an
        // expired item is recorded, but nobody waits for that: its deadline says the same.)
        journal.unsafe_sequence(hash)
    }

    #[inline]
    fn execute_unrecorded(&mut self, operation: Operation<'_>, now: Ticks, out: &mut Replies) {
        if self.flush_at.is_some() {
            self.flush_if_due(now);
        }
        if let Some(prefixes) = &mut self.prefixes {
            prefixes.record(&operation.verb, operation.key);
        }
        self.until_sample = self.until_sample.wrapping_sub(1);
        if self.until_sample == 0 {
            self.sample(&operation, now);
        }
        let before = self.sizing.samples(operation.hash).then(|| self.before(&operation, now));
        let Operation { key, hash, form, verb } = operation;
        let mark = out.mark();
        if self.events.is_some() {
            self.execute_watched(form, hash, key, verb, now, out);
        } else {
            self.execute_verb(form, hash, key, verb, now, out);
        }
        if matches!(form, Form::Nothing) {
            out.truncate(mark);
        }
        if let Some(before) = before {
            self.note_sampled(&before, now);
        }
    }

    #[inline]
    fn execute_verb(
        &mut self,
        form: Form,
        hash: u64,
        key: &[u8],
        verb: Verb<'_>,
        now: Ticks,
        out: &mut Replies,
    ) {
        if let Form::Binary(frame) = form {
            return self.execute_binary(frame, (hash, key), verb, now, out);
        }
        match verb {
            Verb::Get { with_cas } => self.get(hash, key, with_cas, now, out),
            Verb::GetAndTouch { with_cas, exptime } => {
                self.get_and_touch(hash, key, with_cas, exptime, now, out);
            }
            Verb::Store(args, data) => {
                out.push(self.store_classic(hash, key, args, data, now).line());
            }
            Verb::Delete { compare } => out.push(self.delete(hash, key, compare, now).line()),
            Verb::Arithmetic(args) => self.arithmetic(hash, key, args, now, out),
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
    }

    /// Records what left the store without having been asked to. Before the change that made it
    /// leave, where there is one: that may have brought a key back.
    #[inline]
    fn record_departed(&mut self, now: Ticks) {
        let Some(journal) = &mut self.journal else { return };
        if self.store.has_evicted_hashes() {
            journal.evicted(self.store.take_evicted_hashes());
        }
        if self.store.has_expired() && self.store.take_has_expired() {
            journal.expired(now);
        }
    }

    /// Removes everything now.
    pub fn flush(&mut self) {
        self.flush_at = None;
        self.store.flush();
        self.sizing.flushed();
        if let Some(journal) = &mut self.journal {
            journal.flush();
        }
    }

    /// Removes at `at` everything stored until then. A later call replaces an earlier one.
    pub fn flush_later(&mut self, at: Ticks) {
        self.flush_at = Some(at);
        if let Some(journal) = &mut self.journal {
            journal.flush_at(at);
        }
    }

    fn flush_if_due(&mut self, now: Ticks) {
        if self.flush_at.is_some_and(|at| at <= now) {
            self.flush();
        }
    }

    /// Work between commands; see [`Store::maintain`].
    pub fn maintain(&mut self, now: Ticks, segments_max: usize) -> bool {
        self.flush_if_due(now);
        self.decay_samples(now);
        let more = self.store.maintain(now, segments_max);
        self.record_departed(now);
        more
    }

    /// The store, for statistics and dumps.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// What commands did.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Sets all counters to 0.
    pub fn reset_counters(&mut self) {
        self.counters = Counters::default();
        self.store.reset_counters();
        self.sizing.counters_reset();
        (self.samples, self.until_sample) = (Samples::default(), 1);
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

    /// Finds a key, for a command of any kind, and counts it if its time was over.
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
    pub fn token(&self, token: u64) -> u64 {
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
        match stored {
            Ok(handle) => self.record_put(hash, handle, now),
            Err(Full) => self.counters.store_no_memory += 1,
        }
        stored
    }

    fn update(
        &mut self,
        hash: u64,
        handle: Handle,
        attributes: Attributes,
        value: Value<'_>,
        token: TokenRule,
        now: Ticks,
    ) -> Result<Handle, Full> {
        let updated = self.store.update(hash, handle, attributes, value, token, now)?;
        self.record_put(hash, updated, now);
        Ok(updated)
    }

    fn rewrite(
        &mut self,
        hash: u64,
        handle: Handle,
        attributes: Attributes,
        token: TokenRule,
        now: Ticks,
    ) -> Result<Handle, Full> {
        let rewritten = self.store.rewrite(hash, handle, attributes, token, now)?;
        self.record_departed(now);
        if let Some(journal) = &mut self.journal {
            let item = self.store.item(rewritten);
            journal.attributes(hash, item.key, &item.attributes);
        }
        Ok(rewritten)
    }

    fn remove(&mut self, hash: u64, key: &[u8], handle: Handle) {
        self.store.remove(handle);
        if let Some(journal) = &mut self.journal {
            journal.delete(hash, key);
        }
    }

    #[inline]
    fn record_put(&mut self, hash: u64, handle: Handle, now: Ticks) {
        self.record_departed(now);
        if let Some(journal) = &mut self.journal {
            let (head, value) = self.store.raw(handle);
            journal.put(hash, head, value);
        }
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
        if let Some(handle) = self.find(hash, key, now) {
            self.remove(hash, key, handle);
        }
    }
}

/// Answers that a change cannot be made. A `gat` answers nothing for its key, as for a miss: an
/// error line in the middle of its list would be taken for its end.
fn refuse(operation: &Operation<'_>, out: &mut Replies) {
    match operation.form {
        Form::Text if !matches!(operation.verb, Verb::GetAndTouch { .. }) => {
            out.push(reply::LOG_UNAVAILABLE);
        }
        Form::Text | Form::Nothing => {}
        Form::Binary(frame) => binary::refuse(frame, out),
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
