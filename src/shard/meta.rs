//! The meta commands.
//!
//! An item can be stale (invalidated but still served) and its win token can have been sent: the
//! first client that meets a stale, missing or soon expiring item is told `W` and recomputes, the
//! others are told `Z` and go on with what there is.

use super::classic::{Refused, Stored};
use super::operation::Data;
use super::replies::{Mark, Replies};
use super::{Shard, deadline};
use crate::protocol::meta::write_key;
use crate::protocol::{MetaArgs, StoreMode, reply};
use crate::store::index::Handle;
use crate::store::{Attributes, Full, Ticks, TokenRule, Value};

impl Shard {
    pub(super) fn meta_get(
        &mut self,
        hash: u64,
        key: &[u8],
        args: &MetaArgs,
        now: Ticks,
        out: &mut Replies,
    ) {
        let mark = out.mark();
        let found = self.find(hash, key, now);
        let created = if found.is_none() { self.vivify(hash, key, args, now) } else { None };
        let Some(handle) = found.or(created) else {
            self.counters.cmd_get += 1;
            self.counters.get_misses += 1;
            return write_miss(args, key, out);
        };
        if args.exptime.is_some() {
            self.counters.cmd_touch += 1;
            self.counters.touch_hits += 1;
        } else {
            self.counters.cmd_get += 1;
            self.counters.get_hits += 1;
        }
        if args.order.as_slice().contains(&b'c') || args.compare.is_some() {
            self.store.token_handed_out(handle);
        }
        let item = self.store.item(handle);
        let unchanged = args.compare.is_some_and(|token| self.token(item.token) == token);
        let shows_value = args.value && !unchanged;
        let before = item.attributes;
        if shows_value {
            out.push(b"VA ");
            out.push_number(item.value.len() as u64);
        } else {
            out.push(b"HD");
        }
        let after = self.write_item_flags(handle, args, created.is_some(), now, out);
        out.push(reply::LINE_END);
        if shows_value {
            self.write_data(handle, out);
            out.push(reply::LINE_END);
        }
        if !args.no_bump {
            self.store.accessed(handle);
        }
        if after != before && self.rewrite(hash, handle, after, TokenRule::Keep, now).is_err() {
            out.truncate(mark);
            out.push(reply::OUT_OF_MEMORY);
        }
    }

    /// Creates the empty item that `N` asks for on a miss.
    fn vivify(&mut self, hash: u64, key: &[u8], args: &MetaArgs, now: Ticks) -> Option<Handle> {
        args.vivify?;
        let attributes = Attributes {
            deadline: deadline_of_new(args, now),
            cas: args.token.filter(|_| self.rules.cas),
            win_sent: true,
            key_binary: args.key_binary,
            ..Attributes::default()
        };
        self.put(hash, None, key, attributes, Value::Parts([&[], &[]]), now).ok()
    }

    /// The flags of a hit, in the order asked for, and the states behind them. Returns the
    /// attributes the item has after this.
    fn write_item_flags(
        &self,
        handle: Handle,
        args: &MetaArgs,
        created: bool,
        now: Ticks,
        out: &mut Replies,
    ) -> Attributes {
        let item = self.store.item(handle);
        let mut after = item.attributes;
        if created {
            // Flags act in their order: `t` before `N` sees the item without its expiry.
            after.deadline = None;
        }
        let had_won = item.attributes.win_sent && !created;
        let mut wins = created;
        for letter in args.order.as_slice() {
            match letter {
                b'T' => after.deadline = args.exptime.and_then(|exptime| deadline(exptime, now)),
                b'N' if created => {
                    after.deadline = args.vivify.and_then(|exptime| deadline(exptime, now));
                }
                b'R' => wins |= !had_won && is_due(&after, args, now),
                b's' => write_number(out, b's', item.value.len() as u64),
                b't' => write_remaining(out, after.deadline, now),
                b'c' => write_number(out, b'c', self.token(item.token)),
                b'f' => write_number(out, b'f', u64::from(item.attributes.flags)),
                b'l' => {
                    write_number(out, b'l', item.idle_seconds(now));
                }
                b'h' => write_number(out, b'h', u64::from(item.fetched)),
                b'O' => write_opaque(out, args),
                b'k' => write_key_flag(out, item.key, item.attributes.key_binary),
                _ => {}
            }
        }
        if had_won {
            out.push(b" Z");
        }
        if item.attributes.stale {
            out.push(b" X");
            wins |= !had_won;
        }
        if wins {
            out.push(b" W");
            after.win_sent = true;
        }
        after
    }

    #[allow(clippy::too_many_arguments)] // As the classic `store_if`.
    pub(super) fn meta_store(
        &mut self,
        hash: u64,
        key: &[u8],
        args: &MetaArgs,
        mode: StoreMode,
        data: Data<'_>,
        now: Ticks,
        out: &mut Replies,
    ) {
        self.counters.cmd_set += 1;
        let old = self.find(hash, key, now);
        let value_bytes = data.len();
        let stored = self.meta_store_item(hash, old, key, args, mode, data, now);
        let mark = out.mark();
        out.push(match stored {
            Stored::Yes(_) => b"HD",
            Stored::No => b"NS",
            Stored::Exists => b"EX",
            Stored::NotFound => b"NF",
            Stored::Full => {
                self.drop_stale(hash, key, now);
                return out.push(reply::OUT_OF_MEMORY_STORING);
            }
        });
        let handle = if let Stored::Yes(handle) = stored { Some(handle) } else { None };
        for letter in args.order.as_slice() {
            match letter {
                b'O' => write_opaque(out, args),
                b'k' => write_key_flag(out, key, args.key_binary),
                b'c' => write_number(out, b'c', self.observed_token(handle)),
                b's' => {
                    let stored = handle.map(|handle| self.store.item(handle).value.len());
                    write_number(out, b's', stored.unwrap_or(value_bytes) as u64);
                }
                _ => {}
            }
        }
        out.push(reply::LINE_END);
        silence(out, mark, args.quiet && handle.is_some());
    }

    #[allow(clippy::too_many_arguments)] // As the classic `store_if`.
    fn meta_store_item(
        &mut self,
        hash: u64,
        old: Option<Handle>,
        key: &[u8],
        args: &MetaArgs,
        mode: StoreMode,
        data: Data<'_>,
        now: Ticks,
    ) -> Stored {
        let joins = matches!(mode, StoreMode::Append | StoreMode::Prepend);
        let creates = joins && old.is_none() && args.vivify.is_some();
        let exptime = if creates { args.vivify } else { args.exptime };
        let attributes = Attributes {
            flags: args.flags,
            deadline: exptime.and_then(|exptime| deadline(exptime, now)),
            cas: args.token.filter(|_| self.rules.cas),
            key_binary: args.key_binary,
            ..Attributes::default()
        };
        if mode == StoreMode::Cas {
            let compare = args.compare.unwrap_or(0);
            return match old.filter(|old| self.accepts_stale(*old, args, compare)) {
                Some(old) => self.store_stale(hash, old, key, attributes, data, now),
                None => self.store_compared(hash, old, key, attributes, compare, data, now),
            };
        }
        if joins {
            if creates {
                return self.store_whole(hash, None, key, attributes, data.into(), now);
            }
            let token = old.map(|old| self.token(self.store.item(old).token));
            let compare = args.compare.filter(|token| *token != 0);
            if compare.is_some_and(|compare| token.is_some_and(|token| token != compare)) {
                return Stored::Exists;
            }
        }
        let stored = self.store_if(hash, old, key, attributes, mode, data, now);
        match stored {
            Stored::Yes(handle) if joins => self.give_token(hash, handle, args, now),
            other => other,
        }
    }

    /// Sets the token that `E` chose for an item written without one.
    fn give_token(&mut self, hash: u64, handle: Handle, args: &MetaArgs, now: Ticks) -> Stored {
        let Some(token) = args.token.filter(|_| self.rules.cas) else {
            return Stored::Yes(handle);
        };
        let attributes = Attributes { cas: Some(token), ..self.store.item(handle).attributes };
        let given = self.rewrite(hash, handle, attributes, TokenRule::Keep, now);
        given.map_or(Stored::Full, Stored::Yes)
    }

    /// `I`: an older token than the item's may still store, as a stale value.
    fn accepts_stale(&self, old: Handle, args: &MetaArgs, compare: u64) -> bool {
        args.invalidate && compare != 0 && compare < self.token(self.store.item(old).token)
    }

    fn store_stale(
        &mut self,
        hash: u64,
        old: Handle,
        key: &[u8],
        attributes: Attributes,
        data: Data<'_>,
        now: Ticks,
    ) -> Stored {
        self.counters.cas_hits += 1;
        let present = self.store.item(old).attributes;
        let attributes = Attributes {
            deadline: present.deadline,
            stale: true,
            win_sent: present.win_sent,
            ..attributes
        };
        self.store_whole(hash, Some(old), key, attributes, data.into(), now)
    }

    pub(super) fn meta_delete(
        &mut self,
        hash: u64,
        key: &[u8],
        args: &MetaArgs,
        now: Ticks,
        out: &mut Replies,
    ) {
        let mark = out.mark();
        let Some(handle) = self.find(hash, key, now) else {
            self.counters.delete_misses += 1;
            return write_status(out, b"NF", args, key);
        };
        let token = self.token(self.store.item(handle).token);
        if args.compare.is_some_and(|compare| compare != token) {
            self.counters.delete_misses += 1;
            return write_status(out, b"EX", args, key);
        }
        if !self.delete_or_mark(hash, handle, key, args, now) {
            return out.push(reply::OUT_OF_MEMORY);
        }
        write_status(out, b"HD", args, key);
        silence(out, mark, args.quiet);
    }

    /// `x` empties the item, `I` marks it stale, neither removes it. False: no memory.
    fn delete_or_mark(
        &mut self,
        hash: u64,
        handle: Handle,
        key: &[u8],
        args: &MetaArgs,
        now: Ticks,
    ) -> bool {
        let item = self.store.item(handle);
        let mut attributes = item.attributes;
        if args.remove_value {
            let kept_token = args.token.unwrap_or(item.token);
            attributes = Attributes {
                flags: args.flags,
                deadline: args.exptime.and_then(|exptime| deadline(exptime, now)),
                cas: Some(kept_token),
                ..Attributes { key_binary: attributes.key_binary, ..Attributes::default() }
            };
        }
        if args.invalidate {
            if let Some(exptime) = args.exptime {
                attributes.deadline = deadline(exptime, now);
            }
            (attributes.stale, attributes.win_sent) = (true, false);
            // A fresh token: who still holds the old one must not overwrite what comes next.
            attributes.cas = args.token;
        }
        if !args.invalidate {
            self.counters.delete_hits += 1;
        }
        if args.remove_value {
            let empty = Value::Parts([&[], &[]]);
            self.put(hash, Some(handle), key, attributes, empty, now).is_ok()
        } else if args.invalidate {
            self.rewrite(hash, handle, attributes, TokenRule::Fresh, now).is_ok()
        } else {
            self.remove(hash, key, handle);
            true
        }
    }

    pub(super) fn meta_arithmetic(
        &mut self,
        hash: u64,
        key: &[u8],
        args: &MetaArgs,
        now: Ticks,
        out: &mut Replies,
    ) {
        let mark = out.mark();
        let found = self.find(hash, key, now);
        let (handle, number) = match found {
            Some(handle) => match self.meta_add(hash, handle, args, now) {
                Ok(Some(done)) => done,
                Ok(None) => return write_status(out, b"EX", args, key),
                Err(line) => return out.push(line),
            },
            None => match self.meta_start_number(hash, key, args, now) {
                Ok(Some(handle)) => (handle, args.initial),
                Ok(None) => {
                    self.count_arithmetic_miss(is_increment(args));
                    return write_status(out, b"NF", args, key);
                }
                Err(line) => return out.push(line),
            },
        };
        let mut digits = itoa::Buffer::new();
        let digits = digits.format(number);
        if args.value {
            out.push(b"VA ");
            out.push_number(digits.len() as u64);
        } else {
            out.push(b"HD");
        }
        if !self.write_number_flags(hash, handle, key, args, found.is_none(), now, out) {
            out.truncate(mark);
            return out.push(reply::OUT_OF_MEMORY);
        }
        out.push(reply::LINE_END);
        if args.value {
            out.push(digits.as_bytes());
            out.push(reply::LINE_END);
        }
        silence(out, mark, args.quiet);
    }

    /// The arithmetic on an item that is there. `None`: the token is another.
    fn meta_add(
        &mut self,
        hash: u64,
        handle: Handle,
        args: &MetaArgs,
        now: Ticks,
    ) -> Result<Option<(Handle, u64)>, &'static [u8]> {
        let item = self.store.item(handle);
        if item.value.is_empty() {
            // An empty value outranks a wrong token.
            return Err(reply::NOT_NUMERIC);
        }
        if args.compare.is_some_and(|compare| compare != 0 && compare != self.token(item.token)) {
            return Ok(None);
        }
        let token = args.token.filter(|_| self.rules.cas);
        let attributes = Attributes { cas: token, ..item.attributes };
        let increment = is_increment(args);
        let added = self.add_to_item(hash, handle, increment, args.delta, attributes, now);
        added.map(Some).map_err(Refused::line)
    }

    /// A number that is not there yet. `None`: the client did not ask to create it.
    fn meta_start_number(
        &mut self,
        hash: u64,
        key: &[u8],
        args: &MetaArgs,
        now: Ticks,
    ) -> Result<Option<Handle>, &'static [u8]> {
        if args.vivify.is_none() {
            return Ok(None);
        }
        let attributes = Attributes {
            deadline: deadline_of_new(args, now),
            cas: args.token.filter(|_| self.rules.cas),
            key_binary: args.key_binary,
            ..Attributes::default()
        };
        let stored = self.start_number(hash, key, attributes, args.initial, now);
        stored.map(Some).map_err(|Full| reply::OUT_OF_MEMORY_NEW_ITEM)
    }

    /// False: no memory for the new expiry.
    #[allow(clippy::too_many_arguments)] // As the classic `store_if`.
    fn write_number_flags(
        &mut self,
        hash: u64,
        handle: Handle,
        key: &[u8],
        args: &MetaArgs,
        created: bool,
        now: Ticks,
        out: &mut Replies,
    ) -> bool {
        // Flags act in their order: `t` before `T` or `N` sees the expiry from before.
        let mut expires = self.store.item(handle).attributes.deadline.filter(|_| !created);
        let argument = |exptime: Option<_>| exptime.and_then(|exptime| deadline(exptime, now));
        for letter in args.order.as_slice() {
            match letter {
                b'c' => write_number(out, b'c', self.observed_token(Some(handle))),
                b't' => write_remaining(out, expires, now),
                b'T' => expires = argument(args.exptime),
                b'N' if created => expires = argument(args.vivify),
                b'O' => write_opaque(out, args),
                b'k' => write_key_flag(out, key, args.key_binary),
                _ => {}
            }
        }
        let attributes = self.store.item(handle).attributes;
        let after = Attributes { deadline: expires, ..attributes };
        after == attributes || self.rewrite(hash, handle, after, TokenRule::Keep, now).is_ok()
    }

    /// `ME key exp=.. la=.. cas=.. fetch=.. cls=.. size=..`, for people.
    pub(super) fn meta_debug(
        &mut self,
        hash: u64,
        key: &[u8],
        args: &MetaArgs,
        now: Ticks,
        out: &mut Replies,
    ) {
        self.counters.cmd_meta += 1;
        let Some(handle) = self.find(hash, key, now) else {
            return out.push(reply::META_MISS);
        };
        self.store.token_handed_out(handle);
        let item = self.store.item(handle);
        out.push(b"ME ");
        write_key(&mut out.bytes, item.key, item.attributes.key_binary || args.key_binary);
        let remaining = item.attributes.deadline.map(|deadline| remaining_seconds(deadline, now));
        let expires = remaining.map_or("-1".to_owned(), |seconds| seconds.to_string());
        let age = item.idle_seconds(now);
        let fetched = if item.fetched { "yes" } else { "no" };
        let line = format!(
            " exp={expires} la={age} cas={} fetch={fetched} cls=1 size={}\r\n",
            self.token(item.token),
            self.store.item_bytes(handle),
        );
        out.push(line.as_bytes());
    }

    /// The token of an item for a client that will see it; 0 without an item.
    pub(super) fn observed_token(&mut self, handle: Option<Handle>) -> u64 {
        let Some(handle) = handle else { return 0 };
        self.store.token_handed_out(handle);
        self.token(self.store.item(handle).token)
    }
}

/// The expiry of an item that `N` creates: the last of `N` and `T` says it.
fn deadline_of_new(args: &MetaArgs, now: Ticks) -> Option<Ticks> {
    let last = args.order.as_slice().iter().rfind(|letter| matches!(letter, b'N' | b'T'));
    let exptime = if last == Some(&b'T') { args.exptime } else { args.vivify };
    exptime.and_then(|exptime| deadline(exptime, now))
}

fn is_increment(args: &MetaArgs) -> bool {
    !matches!(args.mode, Some(b'D' | b'-'))
}

/// Whether an item expires before the time `R` names.
fn is_due(attributes: &Attributes, args: &MetaArgs, now: Ticks) -> bool {
    let limit = args.recache.and_then(|recache| deadline(recache, now));
    match (attributes.deadline, limit) {
        (Some(deadline), Some(limit)) => deadline < limit,
        _ => false,
    }
}

/// Takes back the reply to a command that asked for quiet and got the ordinary outcome.
fn silence(out: &mut Replies, mark: Mark, quiet: bool) {
    if quiet {
        out.truncate(mark);
    }
}

/// A miss of `mg`: silent under `q`.
fn write_miss(args: &MetaArgs, key: &[u8], out: &mut Replies) {
    if !args.quiet {
        write_status(out, b"EN", args, key);
    }
}

/// A status with the flags that do not need an item.
fn write_status(out: &mut Replies, status: &[u8], args: &MetaArgs, key: &[u8]) {
    out.push(status);
    for letter in args.order.as_slice() {
        match letter {
            b'O' => write_opaque(out, args),
            b'k' => write_key_flag(out, key, args.key_binary),
            _ => {}
        }
    }
    out.push(reply::LINE_END);
}

fn write_number(out: &mut Replies, letter: u8, number: u64) {
    out.push(&[b' ', letter]);
    out.push_number(number);
}

/// Seconds left, rounded up: what was just stored for 30 seconds has 30 left.
fn remaining_seconds(deadline: Ticks, now: Ticks) -> u64 {
    deadline.0.saturating_sub(now.0).div_ceil(Ticks::PER_SECOND)
}

fn write_remaining(out: &mut Replies, deadline: Option<Ticks>, now: Ticks) {
    match deadline {
        None => out.push(b" t-1"),
        Some(deadline) => write_number(out, b't', remaining_seconds(deadline, now)),
    }
}

fn write_opaque(out: &mut Replies, args: &MetaArgs) {
    out.push(b" ");
    out.push(args.opaque.as_slice());
}

fn write_key_flag(out: &mut Replies, key: &[u8], binary: bool) {
    out.push(b" k");
    write_key(&mut out.bytes, key, binary);
    if binary {
        out.push(b" b");
    }
}
