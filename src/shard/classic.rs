//! The classic commands.

use super::operation::Data;
use super::replies::Replies;
use super::{Shard, deadline};
use crate::limits::{KEY_BYTES_MAX, VALUE_BYTES_BY_REFERENCE_MIN};
use crate::protocol::number::stored_number;
use crate::protocol::{ArithmeticArgs, Exptime, StoreArgs, StoreMode, reply};
use crate::store::index::Handle;
use crate::store::{Absent, Attributes, Fetched, Full, Ticks, TokenRule, Value};

/// Longest number as text.
const NUMBER_BYTES_MAX: usize = 20;

/// Longest `VALUE` line: key, flags, length, token, and the words between.
const VALUE_LINE_BYTES_MAX: usize = KEY_BYTES_MAX + 64;

/// What became of a request to store.
#[derive(Debug, Clone, Copy)]
pub(super) enum Stored {
    Yes(Handle),
    /// The condition was not met.
    No,
    /// The token is not the item's.
    Exists,
    /// There is no item to compare with.
    NotFound,
    Full,
}

impl Stored {
    /// In the words of the text protocol.
    pub(super) fn line(self) -> &'static [u8] {
        match self {
            Self::Yes(_) => reply::STORED,
            Self::No => reply::NOT_STORED,
            Self::Exists => reply::EXISTS,
            Self::NotFound => reply::NOT_FOUND,
            Self::Full => reply::OUT_OF_MEMORY_STORING,
        }
    }
}

/// What became of a request to delete.
#[derive(Debug, Clone, Copy)]
pub(super) enum Deleted {
    Yes,
    /// The token is not the item's.
    Exists,
    NotFound,
}

impl Deleted {
    /// In the words of the text protocol.
    pub(super) fn line(self) -> &'static [u8] {
        match self {
            Self::Yes => reply::DELETED,
            Self::Exists => reply::EXISTS,
            Self::NotFound => reply::NOT_FOUND,
        }
    }
}

/// Why a number was not changed.
#[derive(Debug, Clone, Copy)]
pub(super) enum Refused {
    NotNumeric,
    Full,
}

impl Refused {
    /// In the words of the text protocol.
    pub(super) fn line(self) -> &'static [u8] {
        match self {
            Self::NotNumeric => reply::NOT_NUMERIC,
            Self::Full => reply::OUT_OF_MEMORY,
        }
    }
}

/// `VALUE key flags length`, with room made for the value.
#[inline]
fn write_head(key: &[u8], flags: u32, value_bytes: usize, out: &mut Replies) {
    out.reserve(VALUE_LINE_BYTES_MAX + value_bytes.min(VALUE_BYTES_BY_REFERENCE_MIN));
    out.push(b"VALUE ");
    out.push(key);
    if flags == 0 {
        out.push(b" 0 ");
    } else {
        out.push(b" ");
        out.push_number(u64::from(flags));
        out.push(b" ");
    }
    out.push_number(value_bytes as u64);
}

impl Shard {
    #[inline]
    pub(super) fn get(
        &mut self,
        hash: u64,
        key: &[u8],
        with_cas: bool,
        now: Ticks,
        out: &mut Replies,
    ) {
        self.counters.cmd_get += 1;
        if with_cas || self.prefixes.is_some() {
            return self.get_in_full(hash, key, with_cas, now, out);
        }
        match self.store.fetch(hash, key, now) {
            Ok(Fetched { handle, flags, value }) => {
                self.counters.get_hits += 1;
                write_head(key, flags, value.len(), out);
                out.push(reply::LINE_END);
                if value.len() < VALUE_BYTES_BY_REFERENCE_MIN {
                    out.push(value);
                } else {
                    self.write_data(handle, out);
                }
                out.push(reply::LINE_END);
            }
            Err(absent) => {
                self.counters.get_misses += 1;
                self.counters.get_expired += u64::from(absent == Absent::Expired);
            }
        }
    }

    /// A get with a token or with counting by prefix.
    fn get_in_full(
        &mut self,
        hash: u64,
        key: &[u8],
        with_cas: bool,
        now: Ticks,
        out: &mut Replies,
    ) {
        if let Some(handle) = self.found_by_get(hash, key, now) {
            self.write_value(handle, key, with_cas, out);
        }
    }

    /// The item that a get, already counted as a command, returns.
    pub(super) fn found_by_get(&mut self, hash: u64, key: &[u8], now: Ticks) -> Option<Handle> {
        let Some(handle) = self.find(hash, key, now) else {
            self.counters.get_misses += 1;
            return None;
        };
        self.counters.get_hits += 1;
        self.count_hit(key);
        self.store.accessed(handle);
        Some(handle)
    }

    pub(super) fn get_and_touch(
        &mut self,
        hash: u64,
        key: &[u8],
        with_cas: bool,
        exptime: Exptime,
        now: Ticks,
        out: &mut Replies,
    ) {
        let Some(handle) = self.found_by_touch(hash, key, now) else { return };
        self.count_hit(key);
        // The value is answered even where the new expiry has passed already.
        let mark = out.mark();
        self.write_value(handle, key, with_cas, out);
        if self.set_deadline(hash, handle, exptime, now).is_err() {
            // An error line in the middle of a list would be taken for its end.
            out.truncate(mark);
        }
    }

    /// The item that a touch, or a get with one, is about.
    pub(super) fn found_by_touch(&mut self, hash: u64, key: &[u8], now: Ticks) -> Option<Handle> {
        self.counters.cmd_touch += 1;
        let Some(handle) = self.find(hash, key, now) else {
            self.counters.touch_misses += 1;
            return None;
        };
        self.counters.touch_hits += 1;
        self.store.accessed(handle);
        Some(handle)
    }

    /// `VALUE key flags length[ token]`, the value, and a line end.
    #[inline]
    fn write_value(&mut self, handle: Handle, key: &[u8], with_cas: bool, out: &mut Replies) {
        if with_cas {
            self.store.token_handed_out(handle);
        }
        let (flags, value) = self.store.flags_and_value(handle);
        write_head(key, flags, value.len(), out);
        if with_cas {
            out.push(b" ");
            out.push_number(self.token(self.store.item(handle).token));
        }
        out.push(reply::LINE_END);
        self.write_data(handle, out);
        out.push(reply::LINE_END);
    }

    /// The value of an item; a large one by reference.
    pub(super) fn write_data(&self, handle: Handle, out: &mut Replies) {
        let (_, value) = self.store.flags_and_value(handle);
        let shared = if value.len() < VALUE_BYTES_BY_REFERENCE_MIN {
            None
        } else {
            self.store.share_value(handle)
        };
        match shared {
            Some(shared) => out.push_shared(shared),
            None => out.push(value),
        }
    }

    #[inline]
    pub(super) fn count_hit(&mut self, key: &[u8]) {
        if let Some(prefixes) = &mut self.prefixes {
            prefixes.record_hit(key);
        }
    }

    pub(super) fn store_classic(
        &mut self,
        hash: u64,
        key: &[u8],
        args: StoreArgs,
        data: Data<'_>,
        now: Ticks,
    ) -> Stored {
        self.counters.cmd_set += 1;
        let attributes = Attributes {
            flags: args.flags,
            deadline: deadline(args.exptime, now),
            ..Attributes::default()
        };
        let old = self.find(hash, key, now);
        let stored = match args.mode {
            StoreMode::Cas => {
                self.store_compared(hash, old, key, attributes, args.compare, data, now)
            }
            StoreMode::Append | StoreMode::Prepend if self.is_another(old, args.compare) => {
                Stored::Exists
            }
            mode => self.store_if(hash, old, key, attributes, mode, data, now),
        };
        if matches!(stored, Stored::Full) && args.mode == StoreMode::Set {
            self.drop_stale(hash, key, now);
        }
        stored
    }

    /// Whether there is an item, and its token is not the one to compare with, if there is one.
    pub(super) fn is_another(&self, item: Option<Handle>, compare: u64) -> bool {
        let token = item.map(|handle| self.token(self.store.item(handle).token));
        compare != 0 && token.is_some_and(|token| token != compare)
    }

    /// Every mode but cas.
    #[allow(clippy::too_many_arguments)] // One item and where it goes.
    pub(super) fn store_if(
        &mut self,
        hash: u64,
        old: Option<Handle>,
        key: &[u8],
        attributes: Attributes,
        mode: StoreMode,
        data: Data<'_>,
        now: Ticks,
    ) -> Stored {
        match (mode, old) {
            (StoreMode::Append | StoreMode::Prepend, Some(old)) => {
                let append = mode == StoreMode::Append;
                self.join(hash, old, key, &data, append, now).map_or(Stored::No, Stored::Yes)
            }
            (StoreMode::Add, Some(old)) => {
                // As memcached: an add that fails makes the item young again.
                self.store.bumped(old);
                Stored::No
            }
            (StoreMode::Replace | StoreMode::Append | StoreMode::Prepend, None) => Stored::No,
            _ => self.store_whole(hash, old, key, attributes, data.into(), now),
        }
    }

    #[allow(clippy::too_many_arguments)] // As `store_if`.
    pub(super) fn store_compared(
        &mut self,
        hash: u64,
        old: Option<Handle>,
        key: &[u8],
        attributes: Attributes,
        compare: u64,
        data: Data<'_>,
        now: Ticks,
    ) -> Stored {
        let Some(old) = old else {
            self.counters.cas_misses += 1;
            return Stored::NotFound;
        };
        // 0 is no token: with CAS off every item has it, and none matches.
        if compare == 0 || self.token(self.store.item(old).token) != compare {
            self.counters.cas_badval += 1;
            return Stored::Exists;
        }
        self.counters.cas_hits += 1;
        self.store_whole(hash, Some(old), key, attributes, data.into(), now)
    }

    pub(super) fn store_whole(
        &mut self,
        hash: u64,
        old: Option<Handle>,
        key: &[u8],
        attributes: Attributes,
        value: Value<'_>,
        now: Ticks,
    ) -> Stored {
        self.put(hash, old, key, attributes, value, now).map_or(Stored::Full, Stored::Yes)
    }

    pub(super) fn delete(&mut self, hash: u64, key: &[u8], compare: u64, now: Ticks) -> Deleted {
        match self.find(hash, key, now) {
            found @ Some(_) if self.is_another(found, compare) => Deleted::Exists,
            Some(handle) => {
                self.counters.delete_hits += 1;
                self.remove(hash, key, handle);
                Deleted::Yes
            }
            None => {
                self.counters.delete_misses += 1;
                Deleted::NotFound
            }
        }
    }

    pub(super) fn touch(
        &mut self,
        hash: u64,
        key: &[u8],
        exptime: Exptime,
        now: Ticks,
    ) -> &'static [u8] {
        let Some(handle) = self.found_by_touch(hash, key, now) else { return reply::NOT_FOUND };
        match self.set_deadline(hash, handle, exptime, now) {
            Ok(_) => reply::TOUCHED,
            Err(Full) => reply::OUT_OF_MEMORY,
        }
    }

    /// Gives an item another expiry.
    pub(super) fn set_deadline(
        &mut self,
        hash: u64,
        handle: Handle,
        exptime: Exptime,
        now: Ticks,
    ) -> Result<Handle, Full> {
        let attributes = self.store.item(handle).attributes;
        let attributes = Attributes { deadline: deadline(exptime, now), ..attributes };
        self.rewrite(hash, handle, attributes, TokenRule::Keep, now)
    }

    pub(super) fn arithmetic(
        &mut self,
        hash: u64,
        key: &[u8],
        args: ArithmeticArgs,
        now: Ticks,
        out: &mut Replies,
    ) {
        let Some(handle) = self.find(hash, key, now) else {
            self.count_arithmetic_miss(args.increment);
            return out.push(reply::NOT_FOUND);
        };
        let attributes = Attributes { cas: None, ..self.store.item(handle).attributes };
        match self.add_to_item(hash, handle, args.increment, args.delta, attributes, now) {
            Ok((_, number)) => {
                out.push_number(number);
                out.push(reply::LINE_END);
            }
            Err(refused) => out.push(refused.line()),
        }
    }

    /// Stores a number that is not there yet.
    pub(super) fn start_number(
        &mut self,
        hash: u64,
        key: &[u8],
        attributes: Attributes,
        number: u64,
        now: Ticks,
    ) -> Result<Handle, Full> {
        let mut digits = itoa::Buffer::new();
        let digits = digits.format(number).as_bytes();
        self.put(hash, None, key, attributes, Value::Parts([digits, &[]]), now)
    }

    pub(super) fn count_arithmetic_miss(&mut self, increment: bool) {
        if increment {
            self.counters.incr_misses += 1;
        } else {
            self.counters.decr_misses += 1;
        }
    }

    /// Adds to or subtracts from the number an item holds: wraps at 2^64 upwards, stops at 0
    /// downwards. A shorter number is padded with spaces to the old length, as clients see it from
    /// memcached, which writes in place.
    pub(super) fn add_to_item(
        &mut self,
        hash: u64,
        handle: Handle,
        increment: bool,
        delta: u64,
        attributes: Attributes,
        now: Ticks,
    ) -> Result<(Handle, u64), Refused> {
        let value = self.store.item(handle).value;
        let number = stored_number(value).ok_or(Refused::NotNumeric)?;
        let number = if increment {
            self.counters.incr_hits += 1;
            number.wrapping_add(delta)
        } else {
            self.counters.decr_hits += 1;
            number.saturating_sub(delta)
        };
        let mut digits = itoa::Buffer::new();
        let digits = digits.format(number).as_bytes();
        let old_bytes = value.len();
        let padding = vec![b' '; old_bytes.saturating_sub(digits.len().min(NUMBER_BYTES_MAX))];
        let parts = Value::Parts([digits, &padding]);
        let stored = self.update(hash, handle, attributes, parts, TokenRule::Fresh, now);
        stored.map(|handle| (handle, number)).map_err(|Full| Refused::Full)
    }
}
