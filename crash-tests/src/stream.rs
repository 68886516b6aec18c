//! The mutations of one writer. Owns its keys, their histories and the seeded choice of the next
//! mutation. No I/O and no clock: unix seconds are an argument.

use std::sync::Arc;

use crate::model::{Dialect, History, Op, Outcome, Reply};

/// Expiries of items that shall not expire during a run.
const EXPIRY_FAR_S: u64 = 10_000;
const EXPIRY_NEAR_S: u64 = 3;
const APPENDS_MAX: u32 = 8;
/// Far from 0 and from another number of digits, whatever is added to it.
const COUNTER_START: u64 = 5_000_000_000;
const COUNTER_DELTA_MAX: u64 = 1000;

/// What is done with a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Value,
    Counter,
    ShortLived,
}

/// A key of one writer.
#[derive(Clone, Debug)]
pub struct Key {
    pub name: Vec<u8>,
    /// Bytes that a line of text cannot hold.
    pub is_binary: bool,
    pub history: History,
    class: Class,
    appends: u32,
    /// A mutation was refused since the last one that leaves a single state possible. Then only
    /// such mutations follow, or the possible states would double with each refusal.
    is_doubtful: bool,
}

/// One writer's keys and its place in its schedule.
#[derive(Clone, Debug)]
pub(crate) struct Stream {
    pub dialect: Dialect,
    pub keys: Vec<Key>,
    writer: usize,
    rng: fastrand::Rng,
    position: u64,
    small_values: bool,
}

/// A mutation under way: the numbers of its key and of its step.
pub(crate) type Ticket = (usize, usize);

impl Stream {
    /// Writer number `writer` of a run with this seed.
    pub(crate) fn new(dialect: Dialect, writer: usize, keys: usize, seed: u64) -> Self {
        let rng = fastrand::Rng::with_seed(seed.wrapping_mul(1000).wrapping_add(writer as u64));
        let keys = (0..keys).map(|number| key(writer, number)).collect();
        Self { dialect, keys, writer, rng, position: 0, small_values: false }
    }

    /// Leaves out values of more than some hundred bytes.
    pub(crate) fn with_small_values(mut self) -> Self {
        self.small_values = true;
        self
    }

    /// Chooses the next mutation and notes it as issued.
    pub(crate) fn issue(&mut self, now: u64) -> (Ticket, &Op) {
        let number = self.rng.usize(0..self.keys.len());
        let op = self.choose(number, now);
        self.note(number, op)
    }

    /// Chooses how many mutations are sent together.
    pub(crate) fn batch_size(&mut self, most: usize) -> usize {
        self.rng.usize(1..=most)
    }

    /// A set of this key, noted as issued.
    pub(crate) fn issue_set(&mut self, number: usize, now: u64) -> (Ticket, &Op) {
        let op = self.set(number, now);
        self.note(number, op)
    }

    fn note(&mut self, number: usize, op: Op) -> (Ticket, &Op) {
        self.position += 1;
        let key = &mut self.keys[number];
        let step = key.history.issue(self.position, op);
        ((number, step), key.history.op(step))
    }

    /// Notes that all keys are being removed.
    pub(crate) fn issue_flush(&mut self) -> Vec<Ticket> {
        self.position += 1;
        let position = self.position;
        let issue =
            |(number, key): (usize, &mut Key)| (number, key.history.issue(position, Op::Flush));
        self.keys.iter_mut().enumerate().map(issue).collect()
    }

    /// Notes the reply to a mutation.
    pub(crate) fn settle(&mut self, (number, step): Ticket, outcome: Outcome) {
        let key = &mut self.keys[number];
        match (&outcome, key.history.op(step)) {
            (Outcome::Doubtful, _) => key.is_doubtful = true,
            (Outcome::Acknowledged(..), Op::Set { .. } | Op::Delete | Op::Flush) => {
                key.is_doubtful = false;
            }
            _ => {}
        }
        key.history.settle(step, outcome);
    }

    fn choose(&mut self, number: usize, now: u64) -> Op {
        let far = now + EXPIRY_FAR_S + self.rng.u64(0..EXPIRY_FAR_S);
        let dice = self.rng.u32(0..100);
        let delta = self.rng.u64(1..=COUNTER_DELTA_MAX);
        let key = &mut self.keys[number];
        match key.class {
            _ if key.is_doubtful && dice < 88 => self.set(number, now),
            Class::Value if (50..75).contains(&dice) && key.appends < APPENDS_MAX => {
                key.appends += 1;
                let tail = format!("+w{}k{number}p{}", self.writer, self.position + 1);
                Op::Append(tail.into_bytes().into())
            }
            Class::Value if (75..85).contains(&dice) => Op::Touch(far),
            // Redis counts a missing key down to below zero, which memcached cannot.
            Class::Counter if dice < 80 && self.dialect == Dialect::Resp => Op::Incr(delta),
            Class::Counter if dice < 45 => Op::Incr(delta),
            Class::Counter if dice < 80 => Op::Decr(delta),
            _ if dice >= 88 => Op::Delete,
            _ => self.set(number, now),
        }
    }

    fn set(&mut self, number: usize, now: u64) -> Op {
        let position = self.position + 1;
        let far = now + EXPIRY_FAR_S + self.rng.u64(0..EXPIRY_FAR_S);
        let has_expiry = self.rng.u32(0..4) == 0;
        let length = self.length();
        let key = &mut self.keys[number];
        key.appends = 0;
        let flags = self.rng.u32(..);
        let value: Arc<[u8]> = match key.class {
            Class::Counter => {
                let start = COUNTER_START + position;
                start.to_string().into_bytes().into()
            }
            _ => value(self.writer, number, position, length).into(),
        };
        let expires = match key.class {
            Class::Value if has_expiry => far,
            Class::Value | Class::Counter => 0,
            Class::ShortLived => now + 1 + self.rng.u64(0..EXPIRY_NEAR_S),
        };
        Op::Set { value, flags, expires }
    }

    fn length(&mut self) -> usize {
        match self.rng.u32(0..2000) {
            0 if !self.small_values => self.rng.usize(60_000..300_000),
            1..40 if !self.small_values => self.rng.usize(1000..9000),
            _ => self.rng.usize(0..300),
        }
    }
}

/// The outcome that a reply received at `when` means.
pub(crate) fn outcome(reply: Reply, when: std::time::Instant) -> Outcome {
    match reply {
        Reply::Refused(_) => Outcome::Doubtful,
        reply => Outcome::Acknowledged(when, reply),
    }
}

fn key(writer: usize, number: usize) -> Key {
    let (class, is_binary) = match number % 8 {
        0..4 => (Class::Value, false),
        4 | 5 => (Class::Counter, false),
        6 => (Class::ShortLived, false),
        _ => (Class::Value, true),
    };
    let mut name = format!("w{writer}k{number}").into_bytes();
    match number % 8 {
        // Bytes above ASCII are fine in a line.
        1 => name.extend([0x80, 0xff, 0xc3]),
        7 => name.extend(b"\0 \r\n\x7f"),
        _ => {}
    }
    Key { name, is_binary, history: History::default(), class, appends: 0, is_doubtful: false }
}

/// A value that names its mutation, filled up to `length` with bytes that follow from it.
fn value(writer: usize, number: usize, position: u64, length: usize) -> Vec<u8> {
    let mut value = format!("w{writer}k{number}p{position}:").into_bytes();
    let mut filler = fastrand::Rng::with_seed(position ^ (number as u64) << 40);
    while value.len() < length {
        let bytes = filler.u64(..).to_le_bytes();
        let count = bytes.len().min(length - value.len());
        value.extend_from_slice(&bytes[..count]);
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_a_schedule() {
        let ops = |seed| {
            let mut stream = Stream::new(Dialect::Text, 1, 50, seed);
            let op = |_| {
                let (ticket, op) = stream.issue(1000);
                (ticket, op.clone())
            };
            (0..500).map(op).collect::<Vec<_>>()
        };
        assert_eq!(ops(1), ops(1));
        assert_ne!(ops(1), ops(2));
    }

    #[test]
    fn every_kind_of_mutation_comes_up() {
        let mut stream = Stream::new(Dialect::Text, 0, 64, 3);
        let mut seen = [0; 6];
        for _ in 0..3000 {
            let kind = match stream.issue(1000).1 {
                Op::Set { .. } => 0,
                Op::Delete => 1,
                Op::Append(_) => 2,
                Op::Incr(_) => 3,
                Op::Decr(_) => 4,
                Op::Touch(_) => 5,
                Op::Flush => unreachable!("never chosen"),
            };
            seen[kind] += 1;
        }
        assert!(seen.iter().all(|&count| count > 50), "{seen:?}");
    }

    #[test]
    fn values_of_different_mutations_differ() {
        let mut values = std::collections::HashSet::new();
        for position in 0..1000 {
            assert!(values.insert(value(0, 1, position, 40)));
        }
    }
}
