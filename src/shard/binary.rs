//! The classic commands as the binary protocol asks for them: the same operations, answered in
//! frames, with the token of the item in each.
//!
//! Nothing here decides what is stored: that is the other modules' part. A quiet command is not
//! answered in its ordinary case, which is a miss for a get and success for everything else.

use super::classic::{Deleted, Refused, Stored};
use super::operation::{Data, Verb};
use super::replies::Replies;
use super::{Shard, deadline};
use crate::limits::{KEY_BYTES_MAX, VALUE_BYTES_BY_REFERENCE_MIN};
use crate::protocol::binary::opcode::Command;
use crate::protocol::binary::{Frame, HEADER_BYTES, Status, reply};
use crate::protocol::{ArithmeticArgs, Exptime, StoreArgs, StoreMode};
use crate::store::index::Handle;
use crate::store::{Attributes, Full, Ticks};

/// Header, flags and key of a hit.
const VALUE_HEAD_BYTES_MAX: usize = HEADER_BYTES + 4 + KEY_BYTES_MAX;

/// What an operation meets when the log cannot be written.
const LOG_UNAVAILABLE: &[u8] = b"log unavailable";

/// Answers that a change cannot be made.
pub(super) fn refuse(frame: Frame, out: &mut Replies) {
    reply::text(&mut out.bytes, frame, Status::OutOfMemory, LOG_UNAVAILABLE);
}

/// What a frame says, in words as the text protocol has them; success says nothing. `compared`: the
/// command had a token to compare with.
pub(super) fn in_words(frame: Frame, compared: bool, answer: &[u8]) -> &'static [u8] {
    let Some(status) = Status::of_reply(answer) else { return b"" };
    match (status, frame.opcode.command()) {
        (Status::Exists, Some(Command::Store(StoreMode::Add)))
        | (Status::NotFound, Some(Command::Store(StoreMode::Replace)))
            if !compared =>
        {
            b"NOT_STORED"
        }
        (Status::NotStored, _) => b"NOT_STORED",
        (Status::Exists, _) => b"EXISTS",
        (Status::NotFound, _) => b"NOT_FOUND",
        (Status::OutOfMemory, _) => b"SERVER_ERROR",
        (Status::NotNumeric, _) => b"CLIENT_ERROR",
        _ => b"",
    }
}

impl Shard {
    /// Not inlined: text, which most clients speak, stays as small as it is.
    #[inline(never)]
    pub(super) fn execute_binary(
        &mut self,
        frame: Frame,
        (hash, key): (u64, &[u8]),
        verb: Verb<'_>,
        now: Ticks,
        out: &mut Replies,
    ) {
        match verb {
            Verb::Get { .. } => self.get_binary(frame, hash, key, now, out),
            Verb::GetAndTouch { exptime, .. } | Verb::Touch { exptime } => {
                self.touch_binary(frame, (hash, key), exptime, now, out);
            }
            Verb::Store(args, data) => {
                let stored = self.store_binary(frame, (hash, key), args, data, now);
                self.answer_change(frame, stored, out);
            }
            Verb::Delete { compare } => {
                let deleted = match self.delete(hash, key, compare, now) {
                    Deleted::Yes => Ok(None),
                    Deleted::Exists => Err(Status::Exists),
                    Deleted::NotFound => Err(Status::NotFound),
                };
                self.answer_change(frame, deleted, out);
            }
            Verb::Arithmetic(args) => {
                match self.arithmetic_binary(hash, key, args, now) {
                    Ok(_) if frame.opcode.is_quiet() => {}
                    Ok((handle, number)) => {
                        let cas = self.observed_token(Some(handle));
                        reply::number(&mut out.bytes, frame, cas, number);
                    }
                    Err((status, text)) => reply::text(&mut out.bytes, frame, status, text),
                };
            }
            Verb::DropStale => self.drop_stale(hash, key, now),
            // No opcode asks for these.
            Verb::MetaGet(_)
            | Verb::MetaStore(..)
            | Verb::MetaDelete(_)
            | Verb::MetaArithmetic(_)
            | Verb::MetaDebug(_) => {
                reply::failed(&mut out.bytes, frame, Status::UnknownCommand);
            }
        }
    }

    /// Success with the token of the item there is now, if there is one.
    fn answer_change(
        &mut self,
        frame: Frame,
        changed: Result<Option<Handle>, Status>,
        out: &mut Replies,
    ) {
        match changed {
            Ok(_) if frame.opcode.is_quiet() => {}
            Ok(item) => {
                let cas = self.observed_token(item);
                reply::done(&mut out.bytes, frame, cas);
            }
            Err(status @ Status::OutOfMemory) => {
                reply::text(&mut out.bytes, frame, status, reply::NO_MEMORY_FOR_ITEM);
            }
            Err(status) => reply::failed(&mut out.bytes, frame, status),
        }
    }

    #[inline]
    fn get_binary(&mut self, frame: Frame, hash: u64, key: &[u8], now: Ticks, out: &mut Replies) {
        self.counters.cmd_get += 1;
        match self.found_by_get(hash, key, now) {
            Some(handle) => self.write_value_binary(frame, handle, key, out),
            None if frame.opcode.is_quiet() => {}
            None => reply::missed(&mut out.bytes, frame, key),
        }
    }

    /// touch, whose answer has no value, and the gets that touch.
    fn touch_binary(
        &mut self,
        frame: Frame,
        (hash, key): (u64, &[u8]),
        exptime: Exptime,
        now: Ticks,
        out: &mut Replies,
    ) {
        let Some(handle) = self.found_by_touch(hash, key, now) else {
            if !frame.opcode.is_quiet() {
                reply::missed(&mut out.bytes, frame, key);
            }
            return;
        };
        if frame.opcode.command() == Some(Command::GetAndTouch) {
            self.count_hit(key);
            // As with text: the value is answered even where the new expiry has passed already.
            let mark = out.mark();
            self.write_value_binary(frame, handle, key, out);
            if self.set_deadline(hash, handle, exptime, now).is_err() {
                out.truncate(mark);
                reply::failed(&mut out.bytes, frame, Status::OutOfMemory);
            }
            return;
        }
        match self.set_deadline(hash, handle, exptime, now) {
            Ok(handle) => {
                let cas = self.observed_token(Some(handle));
                let (flags, _) = self.store.flags_and_value(handle);
                reply::value_head(&mut out.bytes, frame, key, flags, cas, 0);
            }
            Err(Full) => reply::failed(&mut out.bytes, frame, Status::OutOfMemory),
        }
    }

    /// Header, flags, key if it is wanted, and the value, a large one by reference.
    #[inline]
    fn write_value_binary(&mut self, frame: Frame, handle: Handle, key: &[u8], out: &mut Replies) {
        self.store.token_handed_out(handle);
        let item = self.store.item(handle);
        let (flags, cas) = (item.attributes.flags, self.token(item.token));
        let value_bytes = item.value.len();
        out.reserve(VALUE_HEAD_BYTES_MAX + value_bytes.min(VALUE_BYTES_BY_REFERENCE_MIN));
        reply::value_head(&mut out.bytes, frame, key, flags, cas, value_bytes);
        if value_bytes < VALUE_BYTES_BY_REFERENCE_MIN {
            out.push(item.value);
        } else {
            self.write_data(handle, out);
        }
    }

    fn store_binary(
        &mut self,
        frame: Frame,
        (hash, key): (u64, &[u8]),
        args: StoreArgs,
        data: Data<'_>,
        now: Ticks,
    ) -> Result<Option<Handle>, Status> {
        match (self.store_classic(hash, key, args, data, now), frame.opcode.command()) {
            (Stored::Yes(handle), _) => Ok(Some(handle)),
            (Stored::No, Some(Command::Store(StoreMode::Add))) => Err(Status::Exists),
            (Stored::No, Some(Command::Store(StoreMode::Replace))) => Err(Status::NotFound),
            (Stored::No, _) => Err(Status::NotStored),
            (Stored::Exists, _) => Err(Status::Exists),
            (Stored::NotFound, _) => Err(Status::NotFound),
            (Stored::Full, _) => Err(Status::OutOfMemory),
        }
    }

    /// The number; or what is wrong, and in which words.
    fn arithmetic_binary(
        &mut self,
        hash: u64,
        key: &[u8],
        args: ArithmeticArgs,
        now: Ticks,
    ) -> Result<(Handle, u64), (Status, &'static [u8])> {
        let wrong = |status: Status| (status, status.text());
        let Some(handle) = self.find(hash, key, now) else {
            let Some(number) = args.create else {
                self.count_arithmetic_miss(args.increment);
                return Err(wrong(Status::NotFound));
            };
            let attributes =
                Attributes { deadline: deadline(number.exptime, now), ..Attributes::default() };
            let created = self.start_number(hash, key, attributes, number.value, now);
            return created
                .map(|handle| (handle, number.value))
                .map_err(|Full| (Status::OutOfMemory, reply::NO_MEMORY_FOR_NUMBER));
        };
        // That an empty value is no number outranks a wrong token.
        let is_empty = self.store.item(handle).value.is_empty();
        if !is_empty && self.is_another(Some(handle), args.compare) {
            return Err(wrong(Status::Exists));
        }
        let attributes = Attributes { cas: None, ..self.store.item(handle).attributes };
        let added = self.add_to_item(hash, handle, args.increment, args.delta, attributes, now);
        added.map_err(|refused| match refused {
            Refused::NotNumeric => wrong(Status::NotNumeric),
            Refused::Full => (Status::OutOfMemory, reply::NO_MEMORY_TO_COUNT),
        })
    }
}
